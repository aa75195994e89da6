"""It stops within five seconds whatever hangs, and at once when asked twice."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.services.monitor import COMMAND, MonitorProcess, configuration
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS

ROOT = Path(__file__).parents[2]


@contextmanager
def silent_server():
    """Accepts connections and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []
    ended = threading.Event()

    def accept() -> None:
        listener.settimeout(0.2)
        while not ended.is_set():
            try:
                held.append(listener.accept()[0])
            except TimeoutError:
                continue

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        thread.join(5)
        for connection in (listener, *held):
            connection.close()


def assert_stops_cleanly(monitor: MonitorProcess, number: int = signal.SIGTERM) -> None:
    children = psutil.Process(monitor.process.pid).children(recursive=True)
    code, seconds = monitor.stop(number)
    assert seconds < 5.0, monitor.log_text[-3000:]
    assert code == 0, monitor.log_text[-3000:]
    assert "Traceback" not in monitor.log_text
    assert monitor.events("monitor_stopped")
    assert_ended(children)


def assert_ended(children: list[psutil.Process]) -> None:
    """None of them runs any more; one that the machine has not yet struck off its list has ended too."""
    _, alive = psutil.wait_procs(children, timeout=2)
    assert [child for child in alive if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_with_all_well(tmp_path, scene_streams, number):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(tmp_path, [{"id": "yard", "url": server.url("yard")}], bundle="demo")
        with MonitorProcess(config) as monitor:
            monitor.wait_for_metric("monitor_windows_scored_total", 1, 20)
            assert_stops_cleanly(monitor, number)


def test_while_a_camera_hangs_in_connect_and_kafka_is_away(tmp_path):
    with silent_server() as camera_port, silent_server() as kafka_port:
        config = configuration(
            tmp_path,
            [{"id": "hangs", "url": f"rtsp://127.0.0.1:{camera_port}/stream"}],
            bundle="demo",
            capture={"connect_timeout_seconds": 60.0},
            kafka={"bootstrap_servers": f"127.0.0.1:{kafka_port}"},
        )
        with MonitorProcess(config) as monitor:
            time.sleep(2.0)
            assert_stops_cleanly(monitor)


def test_while_kafka_is_away_with_alerts_waiting(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(
            tmp_path,
            [{"id": "yard", "url": server.url("yard")}],
            bundle="demo",
            kafka={"bootstrap_servers": "127.0.0.1:1"},
        )
        with MonitorProcess(config) as monitor:
            monitor.wait_for_metric("monitor_alerts_total", 1, 45)
            assert_stops_cleanly(monitor)


def test_while_a_queue_is_full(tmp_path, scene_streams):
    """One sample of room and one thread for twelve cameras: the queue is never empty."""
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        cameras = [{"id": f"camera-{number}", "url": server.url("yard")} for number in range(12)]
        scoring = {"queue_samples": 1, "batch_samples": 4, "batch_wait_seconds": 0.5}
        config = configuration(tmp_path, cameras, bundle="demo", scoring=scoring)
        with MonitorProcess(config) as monitor:
            monitor.wait_for_metric("monitor_frames_dropped_total", 1, 30, reason="scoring_queue")
            assert_stops_cleanly(monitor)


def slow_bundle(folder):
    """A bundle with a pipe for a file: whoever opens its other end waits until a monitor is about to read it."""
    bundle = shutil.copytree(ROOT / "models/bundles/demo", folder / "slow")
    golden = bundle / "golden.npz"
    golden.rename(bundle / "whole.npz")
    os.mkfifo(golden)
    return bundle


def test_while_it_loads(tmp_path):
    """As the first process of a container too, to which SIGTERM does nothing unless the program says so."""
    bundle = slow_bundle(tmp_path)
    config = configuration(tmp_path, [{"id": "yard", "url": "rtsp://127.0.0.1:1/x"}], bundle=bundle)
    command = [*COMMAND, "run", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process, (bundle / "golden.npz").open("wb"):
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert process.stderr.read() == b""


def test_a_reload_that_is_asked_for_while_it_loads_waits_for_its_start(tmp_path):
    bundle = slow_bundle(tmp_path)
    config = configuration(tmp_path, [{"id": "yard", "url": "rtsp://127.0.0.1:1/x"}], bundle=bundle)
    monitor = MonitorProcess(config)

    def ask():
        with (bundle / "golden.npz").open("wb") as pipe:
            monitor.process.send_signal(signal.SIGHUP)
            content = (bundle / "whole.npz").read_bytes()
            (bundle / "whole.npz").replace(bundle / "golden.npz")
            pipe.write(content)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    with monitor:
        asking.join(5)
        monitor.wait_for_event("configuration_reloaded", 10)
        assert_stops_cleanly(monitor)


def test_a_reload_that_is_asked_for_before_its_libraries_are_there_does_not_end_it(tmp_path):
    config = configuration(tmp_path, [{"id": "yard", "url": "rtsp://127.0.0.1:1/x"}], bundle="demo")
    monitor = MonitorProcess(config)
    starting = threading.Thread(target=monitor.start)
    starting.start()
    try:
        end = time.monotonic() + 10
        while not ignores(monitor, signal.SIGHUP):
            assert time.monotonic() < end
        monitor.process.send_signal(signal.SIGHUP)
        starting.join(60)
        assert monitor.address
        assert_stops_cleanly(monitor)
    finally:
        monitor.kill()
        starting.join(5)


def ignores(monitor, number):
    """Whether the monitor's process ignores a signal by now."""
    if monitor._process is None:
        return False
    status = Path(f"/proc/{monitor.process.pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
    return int(mask, 16) >> (number - 1) & 1


def test_a_second_signal_ends_at_once(tmp_path):
    with silent_server() as port:
        config = configuration(tmp_path, [{"id": "hangs", "url": f"rtsp://127.0.0.1:{port}/stream"}], bundle="demo")
        with MonitorProcess(config) as monitor:
            children = psutil.Process(monitor.process.pid).children(recursive=True)
            monitor.process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
            _, seconds = monitor.stop()
            assert seconds < 1.0
            assert_ended(children)


def test_while_another_program_holds_the_outbox(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(tmp_path, [{"id": "yard", "url": server.url("yard")}], bundle="demo")
        with MonitorProcess(config) as monitor:
            monitor.wait_for_event("event_started", 45)
            with closing(sqlite3.connect(tmp_path / "outbox.sqlite", isolation_level=None)) as intruder:
                intruder.execute("BEGIN IMMEDIATE")
                _, seconds = monitor.stop()
                intruder.execute("ROLLBACK")
            assert seconds < 5.0
            assert "Traceback" not in monitor.log_text
            [stopped] = monitor.events("monitor_stopped")
            assert stopped["unsaid_alerts"] == 1  # the event's end; the next start ends it as recovered
        config.with_suffix(".log").unlink()
        with MonitorProcess(config) as monitor:
            monitor.wait_for_event("event_ended", 10)


SLOW_DISK = """
import os, sqlite3, time

class SlowConnection(sqlite3.Connection):
    def execute(self, statement, *values):
        if statement == "COMMIT" and os.path.exists(os.environ["SLOW_DISK"]):
            time.sleep(1.8)
        return super().execute(statement, *values)

quick = sqlite3.connect
sqlite3.connect = lambda *arguments, **options: quick(*arguments, **{"factory": SlowConnection, **options})
"""


def test_a_disk_that_takes_seconds_for_a_commit_loses_no_end(tmp_path, scene_streams):
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK)
    slow = tmp_path / "slow"
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(tmp_path, [{"id": "yard", "url": server.url("yard")}], bundle="demo")
        with MonitorProcess(config, {"PYTHONPATH": str(tmp_path), "SLOW_DISK": str(slow)}) as monitor:
            monitor.wait_for_event("event_started", 45)
            slow.touch()
            assert_stops_cleanly(monitor)
            [stopped] = monitor.events("monitor_stopped")
            assert stopped["unsaid_alerts"] == 0
            assert len(monitor.events("event_ended")) == 1


def test_although_nobody_reads_its_log_any_more(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(tmp_path, [{"id": "yard", "url": server.url("yard")}], bundle="demo")
        with subprocess.Popen([*COMMAND, "run", "--config", str(config)], stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                while "monitor_started" not in process.stderr.readline():
                    assert process.poll() is None
                process.stderr.close()
                server.kill()  # there is something to log
                time.sleep(3.0)
                assert process.poll() is None
                began = time.monotonic()
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
                assert time.monotonic() - began < 5.0
            finally:
                process.kill()
