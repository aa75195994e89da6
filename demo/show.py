"""Runs the demo. Environment: DEMO_SECONDS ends it by itself; VIDEO names a folder of clips to play instead."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections import Counter
from pathlib import Path
from types import FrameType

import tomli_w
from rich.console import Console
from rich.table import Table

from demo.streams import DemoCamera, clip_cameras, drawn_cameras
from monitor.delivery.outbox import Outbox, StoredAlert
from monitor.errors import InputInvalid, MonitorError
from tests.services.rtsp import RtspServer, missing

FOLDER = Path(".cache/demo")
STARTED_WITHIN_SECONDS = 20.0
STOPPED_WITHIN_SECONDS = 6.0
FAVOURED_PORT = 8080

console = Console()


def main() -> int:
    """Run until the time is over or Ctrl-C, print a summary, and return the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        seconds = _seconds(os.environ.get("DEMO_SECONDS", ""))
        reason = missing()
        if reason is not None:
            raise InputInvalid("the simulated cameras", reason)
        FOLDER.mkdir(parents=True, exist_ok=True)
        videos = os.environ.get("VIDEO", "")
        bundle = "fight" if videos else "demo"
        cameras = clip_cameras(Path(videos), FOLDER, console) if videos else drawn_cameras(FOLDER, console)
        with RtspServer({camera.id: camera.mount for camera in cameras}) as server:
            return _watch(cameras, server, bundle=bundle, seconds=seconds)
    except MonitorError as exc:
        console.print(f"[red]error:[/] {exc}", highlight=False)
        return exc.exit_code
    except KeyboardInterrupt:
        return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does: nothing that was started is left behind."""
    raise KeyboardInterrupt


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:  # nor a NaN
        raise InputInvalid("DEMO_SECONDS", f"{text!r} is not a number of seconds above 0")
    return seconds


def _watch(cameras: list[DemoCamera], server: RtspServer, *, bundle: str, seconds: float | None) -> int:
    store = FOLDER / "outbox.sqlite"
    for leftover in FOLDER.glob("outbox.sqlite*"):
        leftover.unlink()
    address = f"http://127.0.0.1:{_port()}"
    config = _write_config(cameras, server, bundle=bundle, port=int(address.rpartition(":")[2]))
    log = (FOLDER / "monitor.log").open("w")
    monitor = subprocess.Popen(
        [sys.executable, "-m", "monitor", "run", "--config", str(config)], stderr=log, start_new_session=True
    )
    told: list[StoredAlert] = []
    metrics = ""
    try:
        _wait_until_served(monitor, address)
        console.print(f"\nThe page: [bold]{address}[/]   metrics: {address}/metrics", highlight=False)
        console.print(f"The log:  {log.name}", highlight=False)
        console.print(f"{len(cameras)} cameras, model '{bundle}'. Ctrl-C ends it.\n", highlight=False)
        if os.environ.get("DISPLAY"):
            webbrowser.open(address)
        _tell(store, monitor, told, until=None if seconds is None else time.monotonic() + seconds)
    except KeyboardInterrupt:
        console.print("\nStopping …")
    finally:
        metrics = _metrics(address)
        code = _stop(monitor)
        log.close()
    told += _new_alerts(store, told)
    _summarise(told, metrics)
    return code


def _port() -> int:
    """Return the favoured port, or a free one where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", FAVOURED_PORT))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_config(cameras: list[DemoCamera], server: RtspServer, *, bundle: str, port: int) -> Path:
    path = FOLDER / "config.toml"
    values = {
        "instance": "demo",
        "model": {"bundle": bundle},
        "outbox": {"path": "outbox.sqlite"},
        "http": {"port": port},
        "logs": {"format": "json"},
        "cameras": [
            {"id": camera.id, "name": camera.name, "site": "Demo", "url": server.url(camera.id)} for camera in cameras
        ],
    }
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


def _wait_until_served(monitor: subprocess.Popen[bytes], address: str) -> None:
    end = time.monotonic() + STARTED_WITHIN_SECONDS
    while time.monotonic() < end:
        if monitor.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/live", timeout=1).close()  # noqa: S310  # our own address
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    log = (FOLDER / "monitor.log").read_text(encoding="utf-8")[-2000:]
    raise InputInvalid("the monitor", f"did not start; its log ends with:\n{log}")


def _tell(store: Path, monitor: subprocess.Popen[bytes], told: list[StoredAlert], *, until: float | None) -> None:
    while until is None or time.monotonic() < until:
        if monitor.poll() is not None:
            return
        for alert in _new_alerts(store, told):
            told.append(alert)
            _print_alert(json.loads(alert.value))
        time.sleep(0.3)


def _new_alerts(store: Path, told: list[StoredAlert]) -> list[StoredAlert]:
    with Outbox.open_reader(store) as outbox:
        return outbox.after(told[-1].position if told else 0)


def _print_alert(message: dict[str, object]) -> None:
    camera, event, times = message["camera"], message["event"], message["time"]
    assert isinstance(camera, dict)
    assert isinstance(event, dict)
    assert isinstance(times, dict)
    colour = {"started": "bold red", "updated": "yellow", "ended": "green"}[str(message["phase"])]
    lasted = f", lasted {times['duration_seconds']:.1f} s" if times["ended_at"] is not None else ""
    console.print(
        f"{times['published_at'][11:19]}  [{colour}]{message['phase']:8}[/] {event['label']} on {camera['name']}"
        f"  (peak {event['peak_score']:.2f}{lasted})",
        highlight=False,
    )


def _metrics(address: str) -> str:
    try:
        with urllib.request.urlopen(f"{address}/metrics", timeout=3) as answer:  # noqa: S310  # our own address
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return ""


def _stop(monitor: subprocess.Popen[bytes]) -> int:
    if monitor.poll() is None:
        monitor.send_signal(signal.SIGINT)
    try:
        return monitor.wait(STOPPED_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        monitor.kill()
        monitor.wait(STOPPED_WITHIN_SECONDS)
        return 1


def _summarise(told: list[StoredAlert], metrics: str) -> None:
    phases = Counter(json.loads(alert.value)["phase"] for alert in told)
    table = Table("what", "how many", title="Summary")
    for what, name in (
        ("cameras up", "monitor_camera_up"),
        ("frames decoded", "monitor_frames_decoded_total"),
        ("samples taken", "monitor_frames_sampled_total"),
        ("samples dropped", "monitor_frames_dropped_total"),
        ("windows scored", "monitor_windows_scored_total"),
    ):
        table.add_row(what, f"{_sum(metrics, name):.0f}")
    for phase in ("started", "updated", "ended"):
        table.add_row(f"alerts {phase}", str(phases[phase]))
    console.print(table)


def _sum(metrics: str, name: str) -> float:
    lines = [line for line in metrics.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
