"""What does it cost that no alert is lost? Outbox and publisher on a real Kafka, beside a producer without an outbox.

Ours: an alert counts as decided when `Outbox.commit` is called, as said when it returns (synced to the disk), and as
acknowledged when the publisher has heard of it from Kafka (`acks=all`) and has told the outbox.
The peer: `KafkaProducer.send().get()` for each alert, with the same producer settings and no outbox: what it is sending
when it dies is lost. Both run on the same broker, one after the other, in the same run.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from kafka import KafkaProducer
from rich.console import Console
from rich.table import Table

from monitor.config import KafkaConfig, OutboxConfig
from monitor.deadline import Deadline
from monitor.delivery.kafka import DeliveryReport, Publisher
from monitor.delivery.kafka_client import client_settings, producer_settings
from monitor.delivery.outbox import Outbox
from monitor.records import Alert
from tests.events.test_alerts import STARTED, make_change, say
from tests.services.kafka import KafkaBroker

RATE = 50.0
"""Alerts a second in the measurement of latency: more than a thousand cameras say."""
BACKLOG = 5000
CAMERAS = 20
PATIENCE_SECONDS = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer alerts, for a first look; the backlog stays")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, KafkaBroker() as broker:
        answer = measure(
            Path(folder), broker, steady=200 if options.quick else 1500, hasty=500 if options.quick else 3000
        )
    show(answer)
    if options.json:
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


def measure(folder: Path, broker: KafkaBroker, *, steady: int, hasty: int) -> dict[str, Any]:
    settings = KafkaConfig(bootstrap_servers=broker.bootstrap, topic="delivery")
    send_at_rate, send_hastily = peer(settings, make_alerts(steady, 0)), peer(settings, make_alerts(hasty, 1))
    peer_steady, peer_hasty = send_at_rate(RATE), send_hastily(None)
    committed = commit_alone(folder, make_alerts(hasty, 2))
    ours_steady = outbox_and_publisher(folder / "steady", settings, make_alerts(steady, 3), rate=RATE)
    ours_hasty = outbox_and_publisher(folder / "hasty", settings, make_alerts(hasty, 4), rate=None)
    backlog = outbox_and_publisher(folder / "backlog", settings, make_alerts(BACKLOG, 5), rate=None, at_once=True)
    return {
        "machine": {"cores": psutil.cpu_count(), "processor": platform.processor() or platform.machine()},
        "alert_bytes": len(make_alerts(1, 0)[0].value),
        "committed_per_second": committed,
        "committed_and_acknowledged_per_second": ours_hasty["per_second"],
        "backlog_alerts": BACKLOG,
        "backlog_acknowledged_per_second": backlog["per_second"],
        "backlog_p50_seconds": backlog["p50_seconds"],
        "backlog_p99_seconds": backlog["p99_seconds"],
        "rate_per_second": RATE,
        "p50_seconds": ours_steady["p50_seconds"],
        "p99_seconds": ours_steady["p99_seconds"],
        "peer_per_second": peer_hasty["per_second"],
        "peer_p50_seconds": peer_steady["p50_seconds"],
        "peer_p99_seconds": peer_steady["p99_seconds"],
        "throughput_ratio": round(ours_hasty["per_second"] / peer_hasty["per_second"], 2),
        "p50_ratio": round(ours_steady["p50_seconds"] / peer_steady["p50_seconds"], 2),
        "p99_ratio": round(ours_steady["p99_seconds"] / peer_steady["p99_seconds"], 2),
    }


def make_alerts(count: int, series: int) -> list[Alert]:
    """Make real messages, each of another event, on several cameras."""
    first = STARTED + series * 1_000_000
    told = (say(make_change(started_seconds=first + number)) for number in range(count))
    return [replace(alert, camera=f"camera-{number % CAMERAS}", topic="delivery") for number, alert in enumerate(told)]


def paced(alerts: Sequence[Alert], rate: float | None) -> Any:
    """Yield alerts at this rate, or as fast as they are taken."""
    began = time.perf_counter()
    for number, alert in enumerate(alerts):
        if rate is not None:
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        yield alert


def peer(settings: KafkaConfig, alerts: Sequence[Alert]) -> Callable[[float | None], dict[str, float]]:
    """Return what measures `send().get()` for each alert."""

    def run(rate: float | None) -> dict[str, float]:
        producer = KafkaProducer(**client_settings(settings) | {"proxy_url": None}, **producer_settings(settings))
        producer.send("delivery", b"warm").get(30)
        seconds = []
        began = time.perf_counter()
        for alert in paced(alerts, rate):
            decided = time.perf_counter()
            sent = producer.send(alert.topic, key=alert.camera.encode(), value=alert.value, headers=list(alert.headers))
            sent.get(30)
            seconds.append(time.perf_counter() - decided)
        elapsed = time.perf_counter() - began
        producer.close()
        return figures(seconds, elapsed)

    return run


def commit_alone(folder: Path, alerts: Sequence[Alert]) -> float:
    """Return alerts a second that are said, each in a transaction of its own, with no publisher."""
    outbox = Outbox.open(OutboxConfig(path=folder / "alone.sqlite"), deliver=True)
    began = time.perf_counter()
    for alert in alerts:
        outbox.commit([alert], now=time.time())
    elapsed = time.perf_counter() - began
    outbox.close()
    return round(len(alerts) / elapsed, 1)


def outbox_and_publisher(
    folder: Path, settings: KafkaConfig, alerts: Sequence[Alert], *, rate: float | None, at_once: bool = False
) -> dict[str, float]:
    """Commit alerts while the publisher runs, or all of them before it starts; return the spread to acknowledgement."""
    outbox = Outbox.open(OutboxConfig(path=folder / "outbox.sqlite"), deliver=True)
    acknowledged: dict[str, float] = {}
    warm, complete = threading.Event(), threading.Event()

    def note(report: DeliveryReport) -> None:
        now = time.perf_counter()
        acknowledged.update((stored.alert.alert_id, now) for stored in report.acknowledged)
        if acknowledged:
            warm.set()
        if len(decided) == len(alerts) and decided.keys() <= acknowledged.keys():
            complete.set()

    decided: dict[str, float] = {}
    publisher = Publisher(outbox, settings, on_report=note)
    if at_once:
        outbox.commit(alerts, now=time.time())
        began = time.perf_counter()
        decided.update(dict.fromkeys((alert.alert_id for alert in alerts), began))
        publisher.start()
    else:
        outbox.commit([replace(alerts[0], alert_id="warm")], now=time.time())
        publisher.start()
        assert warm.wait(PATIENCE_SECONDS)
        began = time.perf_counter()
        for alert in paced(alerts, rate):
            decided[alert.alert_id] = time.perf_counter()
            outbox.commit([alert], now=time.time())
            publisher.notify()
    assert complete.wait(PATIENCE_SECONDS), f"{len(acknowledged)} of {len(alerts)} acknowledged"
    elapsed = max(acknowledged.values()) - began
    publisher.stop(Deadline(5.0))
    outbox.close()
    return figures([acknowledged[name] - moment for name, moment in decided.items()], elapsed)


def figures(seconds: Sequence[float], elapsed: float) -> dict[str, float]:
    p50, p99 = (round(float(value), 4) for value in np.percentile(seconds, [50, 99]))
    return {"per_second": round(len(seconds) / elapsed, 1), "p50_seconds": p50, "p99_seconds": p99}


def show(answer: dict[str, Any]) -> None:
    table = Table("what", "figure", title="From the decision to Kafka's acknowledgement")
    for name, value in answer.items():
        if name != "machine":
            table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    Console().print(table)


if __name__ == "__main__":
    main()
