"""How long after a frame arrived is its alert in Kafka, and what do N cameras cost? The whole program, real servers.

The monitor runs as a process on simulated RTSP cameras that each show an event every 16 s; a consumer notes when each
alert arrives. Latency counts from the arrival of the newest frame of the deciding window (`received_at` in the
message) to its arrival at the consumer, which is a little after the broker's acknowledgement.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from kafka import KafkaConsumer
from rich.console import Console
from rich.table import Table

from models.scenes import Scene
from monitor.bundle import find_bundle, load_bundle
from tests.services.kafka import KafkaBroker
from tests.services.monitor import MonitorProcess, configuration
from tests.services.rtsp import Mount, RtspServer, encode_stream

FPS = 15.0
TOPIC = "live"
WARM_SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--bundle", default="demo")
    parser.add_argument("--quick", action="store_true", help="30 seconds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seconds = 30.0 if options.quick else options.seconds
    with tempfile.TemporaryDirectory() as folder:
        answer = measure(Path(folder), cameras=options.cameras, seconds=seconds, bundle=options.bundle)
    show(answer)
    if options.json:
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


def measure(folder: Path, *, cameras: int, seconds: float, bundle: str) -> dict[str, Any]:
    stream = folder / "scene.h264"
    encode_stream(Scene(911, fps=FPS).frames(16.0, start_seconds=2.0), stream, fps=FPS)
    mounts = {f"camera-{number}": Mount(stream, FPS) for number in range(cameras)}
    with KafkaBroker() as broker, RtspServer(mounts) as server:
        config = configuration(
            folder,
            [{"id": name, "url": server.url(name)} for name in mounts],
            bundle=bundle,
            kafka={"bootstrap_servers": broker.bootstrap, "topic": TOPIC},
        )
        arrivals: list[tuple[float, dict[str, Any]]] = []
        ended = threading.Event()
        consumer = threading.Thread(target=consume, args=(broker.bootstrap, arrivals, ended))
        consumer.start()
        try:
            with MonitorProcess(config) as monitor:
                figures = watch(monitor, seconds)
                monitor.stop()
        finally:
            ended.set()
            consumer.join(10)
    stride = load_bundle(find_bundle(bundle, Path())).manifest.stride_seconds
    return {
        "machine": {"cores": psutil.cpu_count(), "processor": platform.processor() or platform.machine()},
        "cameras": cameras,
        "seconds": seconds,
        "bundle": bundle,
        "stride_seconds": stride,
        **latencies(arrivals),
        **figures,
    }


def consume(bootstrap: str, arrivals: list[tuple[float, dict[str, Any]]], ended: threading.Event) -> None:
    """Note when each alert arrives."""
    consumer = KafkaConsumer(TOPIC, bootstrap_servers=bootstrap, auto_offset_reset="earliest", metadata_max_age_ms=1000)
    while not ended.is_set():
        for batch in consumer.poll(timeout_ms=100).values():
            arrivals += [(time.time(), json.loads(record.value)) for record in batch]
    consumer.close()


def watch(monitor: MonitorProcess, seconds: float) -> dict[str, Any]:
    """Let it run; return what it cost once warm."""
    time.sleep(WARM_SECONDS)
    before, began = cpu_seconds(monitor), time.monotonic()
    warm = monitor.resident_bytes()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    return {
        "cores_used": round((cpu_seconds(monitor) - before) / elapsed, 3),
        "resident_bytes_warm": warm,
        "resident_bytes_end": monitor.resident_bytes(),
        "samples": monitor.metric("monitor_frames_sampled_total"),
        "samples_dropped": monitor.metric("monitor_frames_dropped_total"),
        "windows_scored": monitor.metric("monitor_windows_scored_total"),
        "windows_skipped": monitor.metric("monitor_windows_skipped_total"),
    }


def cpu_seconds(monitor: MonitorProcess) -> float:
    root = psutil.Process(monitor.process.pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def latencies(arrivals: list[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    """Return the spread of arrival less the frame's arrival, without messages that no frame decided."""
    seconds = [
        arrived - datetime.fromisoformat(message["time"]["received_at"]).timestamp()
        for arrived, message in arrivals
        if message["pipeline"]["latency_seconds"]["capture_to_decision"] is not None
    ]
    if not seconds:
        return {"alerts": 0, "p50_seconds": None, "p99_seconds": None, "max_seconds": None}
    p50, p99 = (round(float(value), 3) for value in np.percentile(seconds, [50, 99]))
    return {"alerts": len(seconds), "p50_seconds": p50, "p99_seconds": p99, "max_seconds": round(max(seconds), 3)}


def show(answer: dict[str, Any]) -> None:
    table = Table("what", "figure", title=f"{answer['cameras']} cameras, bundle {answer['bundle']}")
    for name, value in answer.items():
        if name not in ("machine", "cameras", "bundle"):
            table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
