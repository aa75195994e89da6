"""`monitor consume` on the real broker: what it tells, what it drops, what it says of a Kafka that is not there."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaProducer

from monitor.config import KafkaConfig
from monitor.delivery.consumer import Consumer, _KnownIds
from monitor.errors import DeliveryFailed
from monitor.events.alerts import compose_health
from monitor.records import Alert, ChangeReason, HealthChange, HealthState, Phase
from tests.delivery.test_kafka import secured
from tests.events.test_alerts import CONTEXT, STARTED, make_change, say
from tests.services.kafka import KafkaBroker
from tests.services.monitor import COMMAND, run_command
from tests.services.ports import free_port


def life(number: int = 0) -> list[Alert]:
    """Start, update and end of one event."""
    began = STARTED + 60 * number
    reasons = {Phase.STARTED: None, Phase.UPDATED: ChangeReason.PEAK, Phase.ENDED: ChangeReason.END}
    return [
        say(make_change(phase, sequence, reason=reason, started_seconds=began))
        for sequence, (phase, reason) in enumerate(reasons.items())
    ]


def write(broker: KafkaBroker, topic: str, alerts: list[Alert]) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, metrics_enabled=False)
    for alert in alerts:
        producer.send(topic, key=alert.camera.encode(), value=alert.value, headers=list(alert.headers)).get(20)
    producer.close()


def messages(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def read(broker: KafkaBroker, topic: str, *options: str) -> tuple[int, str]:
    return run_command("consume", "-b", broker.bootstrap, "-t", topic, "--from-beginning", *options)


def test_each_message_is_told_once_and_what_is_none_is_named(kafka_broker: KafkaBroker, topic: str) -> None:
    alerts = life()
    broken = say(make_change()).value.replace(b'"sequence":0', b'"sequence":-1')
    wrong = replace(alerts[0], value=broken)
    nameless = replace(alerts[0], headers=())
    text = replace(alerts[0], value=b"no JSON \xff")
    write(kafka_broker, topic, [alerts[0], alerts[1], alerts[0], wrong, nameless, text, alerts[2]])
    code, output = read(kafka_broker, topic, "--json", "--max", "3")
    assert code == 1
    assert messages(output) == [json.loads(alert.value) for alert in alerts]
    assert "partition 0, offset 3: no message of the schema: sequence: Input should be greater" in output
    assert "offset 4: no message of the schema: header ce_id is missing" in output
    assert "offset 5: no message of the schema: Invalid JSON" in output
    assert "3 messages, 1 repeated, 3 invalid" in output
    assert "Traceback" not in output


def test_for_people_it_prints_a_table(kafka_broker: KafkaBroker, topic: str) -> None:
    write(kafka_broker, topic, life())
    code, output = read(kafka_broker, topic, "--max", "3")
    assert code == 0
    for word in ("began", "yard", "fight", "updated (peak)", "ended (end)", life()[0].alert_id):
        assert word in output


def test_a_key_that_a_newer_program_added_is_handed_on(kafka_broker: KafkaBroker, topic: str) -> None:
    alert = life()[0]
    newer = json.dumps(json.loads(alert.value) | {"colour": "red"}).encode()
    write(kafka_broker, topic, [replace(alert, value=newer)])
    code, output = read(kafka_broker, topic, "--json", "--max", "1")
    assert code == 0
    assert messages(output)[0]["colour"] == "red"


def test_a_group_goes_on_where_it_was(kafka_broker: KafkaBroker, topic: str) -> None:
    alerts = [alert for number in range(3) for alert in life(number)]
    write(kafka_broker, topic, alerts)
    told = []
    for count in ("4", "5"):
        code, output = read(kafka_broker, topic, "--json", "--max", count, "--group", topic)
        assert code == 0
        told += messages(output)
    assert told == [json.loads(alert.value) for alert in alerts]


def test_health_has_its_own_topic_and_table(kafka_broker: KafkaBroker, topic: str) -> None:
    change = HealthChange(
        "yard", HealthState.DARK, None, since_seconds=1.0, changed_seconds=2.0, reason=None, detail="x"
    )
    write(kafka_broker, topic, [compose_health(change, CONTEXT, published_seconds=2.0)])
    code, output = read(kafka_broker, topic, "--health", "--max", "1")
    assert code == 0
    assert "dark" in output
    assert "1970-01-01 00:00:01" in output


# --- following, and being stopped ------------------------------------------------------------------------------------


class Following:
    """A `monitor consume --json` that runs."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen([*COMMAND, "consume", "--json", *options], stdout=out, stderr=err)

    @property
    def told(self) -> list[dict[str, Any]]:
        return messages(self._out.read_text())

    @property
    def remarks(self) -> str:
        return self._err.read_text()

    def wait(self, until: Any, seconds: float = 25.0) -> None:
        end = time.monotonic() + seconds
        while not until(self):
            assert time.monotonic() < end, self.remarks
            assert self.process.poll() is None, self.remarks
            time.sleep(0.1)

    def stop(self, number: int) -> tuple[int, float]:
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(10), time.monotonic() - began


@contextmanager
def following(folder: Path, *options: str) -> Iterator[Following]:
    command = Following(folder, *options)
    try:
        yield command
    finally:
        command.process.kill()
        command.process.wait(5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_waits_for_a_topic_follows_it_and_ends_when_asked(
    kafka_broker: KafkaBroker, topic: str, tmp_path: Path, number: int
) -> None:
    options = ("-b", kafka_broker.bootstrap, "-t", topic, "--from-beginning")
    with following(tmp_path, *options) as command:
        command.wait(lambda it: "does not exist yet" in it.remarks)
        write(kafka_broker, topic, life())
        command.wait(lambda it: len(it.told) == 3)
        code, seconds = command.stop(number)
    assert code == 0
    assert seconds < 5.0
    assert "3 messages, 0 repeated, 0 invalid" in command.remarks


def test_a_broker_that_dies_is_waited_for(topic: str, tmp_path: Path) -> None:
    with KafkaBroker() as broker:
        write(broker, topic, life())
        with following(tmp_path, "-b", broker.bootstrap, "-t", topic, "--from-beginning") as command:
            command.wait(lambda it: len(it.told) == 3)
            broker.kill()
            command.wait(lambda it: "was lost; trying again" in it.remarks)
            broker.start()
            write(broker, topic, life(1))
            command.wait(lambda it: len(it.told) == 6)
            code, seconds = command.stop(signal.SIGTERM)
    assert code == 0
    assert seconds < 5.0


@pytest.mark.alone
def test_a_broker_that_hangs_does_not_keep_it(kafka_broker: KafkaBroker, topic: str, tmp_path: Path) -> None:
    [broker] = [child for child in psutil.Process().children(recursive=True) if child.name() == "java"]
    write(kafka_broker, topic, life())
    options = ("-b", kafka_broker.bootstrap, "-t", topic, "--from-beginning", "--group", topic)
    with following(tmp_path, *options) as command:
        command.wait(lambda it: len(it.told) == 3)
        broker.suspend()
        try:
            time.sleep(0.5)
            code, seconds = command.stop(signal.SIGINT)
        finally:
            broker.resume()
    assert code == 0
    assert seconds < 5.0


def test_it_can_be_stopped_while_it_connects(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(25.0)
        with following(tmp_path, "-b", f"127.0.0.1:{silent.getsockname()[1]}") as command:
            connection, _ = silent.accept()
            with connection:
                time.sleep(0.5)
                code, seconds = command.stop(signal.SIGTERM)
    assert code == 0, command.remarks
    assert seconds < 5.0


# --- settings and Kafkas that cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-b", "kafka"), "--bootstrap-servers: "),
        (("-b", "kafka:9092", "-t", "no topic"), "--topic: must be letters"),
        (("--config", "missing.toml"), "missing.toml"),
        (("--max", "0"), "--max"),
    ],
)
def test_unusable_settings_are_exit_code_2(options: tuple[str, ...], said: str) -> None:
    code, output = run_command("consume", *options)
    assert code == 2
    assert said in output
    assert "Traceback" not in output


def test_a_configuration_without_kafka_is_exit_code_2(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[[cameras]]\nid = "yard"\nurl = "rtsp://127.0.0.1/x"\n')
    code, output = run_command("consume", "--config", str(config))
    assert code == 2
    assert "has no section [kafka]" in output


def test_a_kafka_that_is_not_there_is_one_line() -> None:
    told: list[str] = []
    settings = KafkaConfig(bootstrap_servers=f"127.0.0.1:{free_port()}", request_timeout_seconds=1.0)
    with pytest.raises(DeliveryFailed, match="ECONNREFUSED"):
        list(Consumer(settings, on_remark=told.append).batches(threading.Event()))
    assert told == []


def test_a_wrong_password_is_said_without_it(
    kafka_broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = secured(kafka_broker, topic, monkeypatch, "hunter2-is-wrong")
    began = time.monotonic()
    with pytest.raises(DeliveryFailed, match="refuses user name or password") as caught:
        list(Consumer(settings, on_remark=print).batches(threading.Event()))
    assert time.monotonic() - began < 5.0
    assert "hunter2" not in str(caught.value)


def test_a_password_that_is_right_reads(kafka_broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(kafka_broker, topic, life())
    settings = secured(kafka_broker, topic, monkeypatch, kafka_broker.password)
    consumer = Consumer(settings, from_beginning=True, on_remark=print)
    told = [message for batch in consumer.batches(threading.Event(), maximum=3) for message in batch]
    assert [message["phase"] for message in told] == ["started", "updated", "ended"]


def test_only_the_last_ids_are_remembered() -> None:
    known = _KnownIds(2)
    assert [known.has(name) for name in ("a", "b", "a", "c", "a", "b")] == [False, False, True, False, True, False]
