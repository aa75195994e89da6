"""The promise itself: whatever is killed, each alert that was said is in Kafka, once per id, whole and in order."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monitor.config import KafkaConfig, OutboxConfig
from monitor.delivery.kafka import Publisher
from monitor.delivery.outbox import Outbox
from monitor.records import Alert, Phase
from tests.delivery.scripted import Script, run
from tests.delivery.test_kafka import publishing, to
from tests.delivery.test_outbox import make_alert
from tests.services.kafka import KafkaBroker, consume

SEED = 20260131
KILLS, SOAK_KILLS = 15, 100
LONGEST_RUN_SECONDS = 1.2
CAMERAS = 5


def ce_id(record: Any) -> str:
    return str(dict(record.headers)["ce_id"].decode())


def once(records: Iterable[Any]) -> list[Any]:
    """Return the records as a consumer keeps them: of equal ids the first alone."""
    first: dict[str, Any] = {}
    for record in records:
        first.setdefault(ce_id(record), record)
    return list(first.values())


def contents(records: Iterable[Any]) -> dict[str, set[bytes]]:
    """Return every content that each id has come with."""
    values: dict[str, set[bytes]] = defaultdict(set)
    for record in records:
        values[ce_id(record)].add(record.value)
    return values


# --- the broker is killed --------------------------------------------------------------------------------------------


def lives(topic: str, count: int) -> list[Alert]:
    """Starts, updates and ends of events on several cameras, `count` messages in the order in which they are said."""
    messages = []
    for number in range(count):
        event, step = divmod(number, 3 * CAMERAS)
        sequence, camera = divmod(step, CAMERAS)
        alert = make_alert(event, camera=f"camera-{camera}", sequence=sequence, phase=list(Phase)[sequence])
        name = f"{alert.alert_id}:{sequence}".encode()
        messages.append(replace(alert, topic=topic, headers=(("ce_id", name),), value=b'{"said": %d}' % number))
    return messages


def say_all(outbox: Outbox, publisher: Publisher, alerts: list[Alert], *, pause_seconds: float) -> None:
    for alert in alerts:
        outbox.commit([alert], now=time.time())
        publisher.notify()
        time.sleep(pause_seconds)


def assert_all_arrived(broker: KafkaBroker, topic: str, alerts: list[Alert]) -> None:
    """Each alert is there under its id, unchanged, and those of a camera are in order."""
    records = consume(broker.bootstrap, topic, until=lambda seen: len(once(seen)) >= len(alerts), timeout_seconds=30.0)
    told: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for record in once(records):
        told[record.key.decode()].append((ce_id(record), record.value))
    expected: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for alert in alerts:
        expected[alert.camera].append((f"{alert.alert_id}:{alert.sequence}", alert.value))
    assert told == expected
    assert all(len(values) == 1 for values in contents(records).values())


@pytest.fixture
def outbox(tmp_path: Path, kafka_available: None) -> Any:
    opened = Outbox.open(OutboxConfig(path=tmp_path / "outbox.sqlite"), deliver=True)
    yield opened
    opened.close()


def quick(broker: KafkaBroker, topic: str) -> KafkaConfig:
    return to(broker, topic, request_timeout_seconds=3.0)


@pytest.mark.timeout(300)
def test_a_broker_killed_five_times_while_500_alerts_are_said(outbox: Outbox, topic: str) -> None:
    alerts = lives(topic, 500)
    with KafkaBroker() as broker:
        with publishing(outbox, quick(broker, topic)) as (publisher, reports):
            saying = threading.Thread(
                target=say_all, args=(outbox, publisher, alerts), kwargs={"pause_seconds": 0.04}, daemon=True
            )
            saying.start()
            for share in (0.05, 0.2, 0.4, 0.6, 0.8):
                goal = share * len(alerts)
                reports.wait(lambda _, goal=goal: reports.acknowledged > goal, seconds=60)
                broker.restart()
            saying.join()
            reports.wait(lambda _: outbox.pending(1) == [], seconds=60)
        assert_all_arrived(broker, topic, alerts)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_broker_that_stays_away_for_a_minute(outbox: Outbox, topic: str) -> None:
    alerts = lives(topic, 500)
    with KafkaBroker() as broker:
        with publishing(outbox, quick(broker, topic)) as (publisher, reports):
            saying = threading.Thread(
                target=say_all, args=(outbox, publisher, alerts), kwargs={"pause_seconds": 0.1}, daemon=True
            )
            saying.start()
            reports.wait(lambda _: reports.acknowledged > 20, seconds=60)
            broker.kill()
            time.sleep(60.0)
            assert len(outbox.pending(1000)) > 400
            broker.start()
            saying.join()
            reports.wait(lambda _: outbox.pending(1) == [], seconds=60)
        assert_all_arrived(broker, topic, alerts)


# --- the monitor is killed -------------------------------------------------------------------------------------------


def await_the_kill(process: Any, said: Path, moments: random.Random) -> None:
    """Wait for a random time; two times of three then for the next alert to be said, and at most 10 ms more.

    The dangerous moments are those around a commit: so many kills have to fall there.
    """
    process.join(moments.uniform(0.02, LONGEST_RUN_SECONDS))
    after_an_alert, longer = moments.choice((False, True, True)), moments.choice((0.0, moments.uniform(0.0, 0.01)))
    if not after_an_alert or not said.exists():
        return
    before, give_up = said.stat().st_size, time.monotonic() + 0.5
    while said.stat().st_size == before and time.monotonic() < give_up:
        pass  # a pause would miss the moment
    time.sleep(longer)


def survive(broker: KafkaBroker, topic: str, folder: Path, *, kills: int) -> tuple[set[str], list[Any]]:
    """Kill the scripted monitor at random moments, let it end in order; return what it said and what is in Kafka."""
    moments = random.Random(SEED)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.delivery.scripted"])
    plain = Script(folder / "outbox.sqlite", folder / "said", broker.bootstrap, topic, SEED, 0.5, seen_again=0)
    for _ in range(kills):
        script = replace(plain, seconds=600.0, seen_again=moments.choice((0, 0, 10, 40)))
        process = processes.Process(target=run, args=(script,))
        process.start()
        await_the_kill(process, plain.said, moments)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    last = processes.Process(target=run, args=(plain,))
    last.start()
    last.join(60)
    assert last.exitcode == 0
    said = set(plain.said.read_text().split())
    records = consume(
        broker.bootstrap, topic, until=lambda seen: said <= {ce_id(record) for record in seen}, timeout_seconds=30.0
    )
    return said, records


def assert_nothing_was_lost(said: set[str], records: list[Any], store: Path) -> None:
    came = contents(records)
    assert said - set(came) == set(), "said, and never in Kafka"
    assert {name for name, values in came.items() if len(values) > 1} == set(), "one id with two contents"
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in once(records):
        message = json.loads(record.value)
        events[message["alert_id"]].append(message)
    for alert_id, messages in events.items():
        sequences = [message["sequence"] for message in messages]
        assert sequences == sorted(sequences), alert_id
        assert messages[0]["phase"] == "started", alert_id
        assert messages[-1]["phase"] == "ended", f"{alert_id} was started and never ended"
    with Outbox.open_reader(store) as reader:
        kept = {f"{stored.alert.alert_id}:{stored.alert.sequence}": stored for stored in reader.after(0, limit=10**6)}
    assert not any(stored.waiting for stored in kept.values())
    assert {name: {stored.value} for name, stored in kept.items()} == came


@pytest.mark.parametrize(
    "kills",
    [KILLS, pytest.param(SOAK_KILLS, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
def test_a_monitor_killed_again_and_again_loses_nothing_it_said(
    kafka_broker: KafkaBroker, topic: str, tmp_path: Path, kills: int
) -> None:
    said, records = survive(kafka_broker, topic, tmp_path, kills=kills)
    assert len(said) > 5 * kills, "the kills hit nothing"
    assert_nothing_was_lost(said, records, tmp_path / "outbox.sqlite")
    reasons = [json.loads(record.value)["reason"] for record in once(records)]
    assert reasons.count("recovered") > kills / 3
    print(f"{kills} kills: {len(said)} said, {len(records)} records, {reasons.count('recovered')} recovered")
