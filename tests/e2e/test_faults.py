"""What happens to the others when one camera, or everything around the program, fails."""

from __future__ import annotations

import os
import signal
import time

import psutil

from tests.services.monitor import MonitorProcess, configuration
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS


def samples_per_second(monitor: MonitorProcess, camera: str, seconds: float) -> float:
    before, began = monitor.metric("monitor_frames_sampled_total", camera=camera), time.monotonic()
    time.sleep(seconds)
    return (monitor.metric("monitor_frames_sampled_total", camera=camera) - before) / (time.monotonic() - began)


def bundle_fps() -> float:
    from pathlib import Path

    from monitor.bundle import find_bundle, load_bundle

    return load_bundle(find_bundle("demo", Path())).manifest.sample_fps


def test_a_server_that_dies_and_returns_has_its_camera_back_and_disturbs_no_other(tmp_path, scene_streams):
    mount = Mount(scene_streams["h264"], FPS)
    with RtspServer({"yard": mount}) as dying, RtspServer({"gate": mount}) as steady:
        cameras = [{"id": "yard", "url": dying.url("yard")}, {"id": "gate", "url": steady.url("gate")}]
        config = configuration(tmp_path, cameras, bundle="demo", capture={"retry_max_seconds": 4.0})
        with MonitorProcess(config) as monitor:
            for camera in ("yard", "gate"):
                monitor.wait_for_metric("monitor_camera_up", 1, 15, camera=camera)
            before = monitor.metric("monitor_frames_sampled_total", camera="gate")
            began = time.monotonic()
            dying.kill()
            monitor.wait_for_event("camera_lost", 10, lambda record: record["camera"] == "yard")
            assert monitor.metric("monitor_camera_up", camera="yard") == 0
            assert [monitor.get(probe)[0] for probe in ("/live", "/ready")] == [200, 200], "no reason to restart"
            time.sleep(2.0)
            dying.start()
            returned = time.monotonic()
            monitor.wait_for_metric("monitor_camera_up", 1, 10, camera="yard")
            assert time.monotonic() - returned < 10.0
            assert monitor.metric("monitor_camera_reconnects_total", camera="yard") == 1
            expected = (time.monotonic() - began) * bundle_fps()
            taken = monitor.metric("monitor_frames_sampled_total", camera="gate") - before
            assert taken >= expected - 2 * bundle_fps()  # counts arrive once a second
            assert not [record for record in monitor.events("camera_lost") if record["camera"] == "gate"]
            assert monitor.stop()[0] == 0


def test_a_stalled_stream_is_noticed_within_the_configured_time(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(
            tmp_path,
            [{"id": "yard", "url": server.url("yard")}],
            bundle="demo",
            capture={"stall_timeout_seconds": 3.0},
        )
        with MonitorProcess(config) as monitor:
            monitor.wait_for_metric("monitor_camera_up", 1, 15, camera="yard")
            server.stall("yard")
            began = time.monotonic()
            lost = monitor.wait_for_event("camera_lost", 10)
            assert time.monotonic() - began < 5.0
            assert lost["reason"] == "stalled"
            server.resume("yard")
            monitor.wait_for_metric("monitor_camera_up", 1, 15, camera="yard")


def test_a_wrong_password_costs_one_camera_and_shows_no_secret(tmp_path, scene_streams):
    mount = Mount(scene_streams["h264"], FPS)
    with RtspServer({"yard": mount}, user="anna", password="right") as locked, RtspServer({"gate": mount}) as free:
        cameras = [
            {"id": "yard", "url": locked.url("yard"), "username": "anna", "password_env": "YARD_PASSWORD"},
            {"id": "host", "url": "rtsp://no-such-host.invalid/stream"},
            {"id": "closed", "url": "rtsp://127.0.0.1:1/stream"},
            {"id": "lost", "url": free.url("no-such-mount")},
            {"id": "gate", "url": free.url("gate")},
        ]
        config = configuration(tmp_path, cameras, bundle="demo")
        with MonitorProcess(config, {"YARD_PASSWORD": "hunter2 is/wrong"}) as monitor:
            reasons = {
                "yard": "refused",
                "host": "name_not_resolved",
                "closed": "connection_refused",
                "lost": "not_found",
            }
            for camera, reason in reasons.items():
                name = "camera_refused" if reason == "refused" else "camera_lost"
                record = monitor.wait_for_event(name, 25, lambda record, camera=camera: record["camera"] == camera)
                assert record["reason"] == reason
            assert monitor.events("camera_refused")[0]["wait_seconds"] > 30
            monitor.wait_for_metric("monitor_camera_up", 1, 15, camera="gate")
            assert monitor.get("/live")[0] == 200
            shown = monitor.log_text + monitor.get("/")[1] + monitor.get("/metrics")[1] + monitor.get("/ready")[1]
            assert "hunter2" not in shown
            assert monitor.stop()[0] == 0


def test_a_killed_capture_process_is_replaced_with_its_cameras(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        cameras = [{"id": name, "url": server.url("yard")} for name in ("one", "two")]
        config = configuration(tmp_path, cameras, bundle="demo", capture={"workers": 2})
        with MonitorProcess(config) as monitor:
            for camera in ("one", "two"):
                monitor.wait_for_metric("monitor_camera_up", 1, 15, camera=camera)
            workers = psutil.Process(monitor.process.pid).children()
            assert len(workers) == 2
            os.kill(workers[0].pid, signal.SIGKILL)
            monitor.wait_for_event("capture_worker_lost", 5)
            lost = monitor.wait_for_event("camera_lost", 5)["camera"]
            kept = "two" if lost == "one" else "one"
            monitor.wait_for_metric("monitor_camera_up", 1, 5, camera=lost)
            assert samples_per_second(monitor, lost, 3.0) > 0.5 * bundle_fps()
            assert not [record for record in monitor.events("camera_lost") if record["camera"] == kept]
            assert monitor.stop()[0] == 0


def test_events_that_a_crash_left_open_are_ended_as_recovered(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(tmp_path, [{"id": "yard", "url": server.url("yard")}], bundle="demo")
        with MonitorProcess(config) as monitor:
            started = monitor.wait_for_event("event_started", 45)
            monitor.kill()
        config.with_suffix(".log").rename(tmp_path / "first.log")
        with MonitorProcess(config) as monitor:
            ended = monitor.wait_for_event("event_ended", 10)
            assert ended["alert"] == started["alert"]
            monitor.stop()


def test_a_camera_that_changes_size_and_codec_goes_on(tmp_path, scene_streams, stream_files):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(tmp_path, [{"id": "yard", "url": server.url("yard")}], bundle="demo")
        with MonitorProcess(config) as monitor:
            monitor.wait_for_metric("monitor_camera_up", 1, 15, camera="yard")
            server.set_file("yard", stream_files.h264_small, fps=stream_files.fps)
            time.sleep(2.5)
            assert samples_per_second(monitor, "yard", 3.0) > 0.6 * bundle_fps()
            assert not monitor.events("camera_lost")  # the size changes within the stream
            server.set_file("yard", scene_streams["h265"], fps=FPS, codec="h265")
            monitor.wait_for_event("camera_lost", 15)  # another codec needs another session
            monitor.wait_for_metric("monitor_camera_reconnects_total", 1, 15, camera="yard")
            time.sleep(2.5)
            assert samples_per_second(monitor, "yard", 3.0) > 0.6 * bundle_fps()
            assert monitor.stop()[0] == 0
