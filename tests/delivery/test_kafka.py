"""From the outbox into a real Kafka: everything, in order, whatever happens to the broker on the way."""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from monitor.config import KafkaConfig, OutboxConfig
from monitor.deadline import Deadline
from monitor.delivery.kafka import DeliveryReport, DeliveryState, KafkaReport, Publisher, probe_kafka
from monitor.delivery.outbox import Outbox
from monitor.records import Alert
from tests.delivery.test_outbox import make_alert
from tests.delivery.test_upload import wait_until
from tests.services.kafka import KafkaBroker, consume
from tests.services.ports import free_port
from tests.services.proxy import FaultyProxy

PASSWORD_VARIABLE = "TEST_KAFKA_PASSWORD"


class Reports:
    """What a publisher reported, as a person would read it."""

    def __init__(self) -> None:
        self.all: list[DeliveryReport] = []
        self._changed = threading.Condition()

    def __call__(self, report: DeliveryReport) -> None:
        with self._changed:
            self.all.append(report)
            self._changed.notify_all()

    def wait(self, until: Callable[[list[DeliveryReport]], bool], *, seconds: float = 20.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: until(self.all), seconds), self.all[-5:]

    @property
    def acknowledged(self) -> int:
        return sum(len(report.acknowledged_seconds) for report in self.all)

    @property
    def states(self) -> list[DeliveryState]:
        return [report.state for report in self.all]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    opened = Outbox.open(OutboxConfig(path=tmp_path / "outbox.sqlite"), deliver=True)
    yield opened
    opened.close()


@contextmanager
def publishing(
    outbox: Outbox, settings: KafkaConfig, *, stop_seconds: float = 5.0, health: bool = False
) -> Iterator[tuple[Publisher, Reports]]:
    reports = Reports()
    publisher = Publisher(outbox, settings, on_report=reports, health=health)
    publisher.start()
    try:
        yield publisher, reports
    finally:
        publisher.stop(Deadline(stop_seconds))
        assert not publisher.alive


def to(broker: KafkaBroker, topic: str, **settings: Any) -> KafkaConfig:
    return KafkaConfig(bootstrap_servers=broker.bootstrap, topic=topic, **settings)


def make_alerts(topic: str, count: int, *, cameras: int = 3, first: int = 0) -> list[Alert]:
    alerts = (make_alert(number, camera=f"camera-{number % cameras}") for number in range(first, first + count))
    return [replace(alert, topic=topic, received_seconds=time.time()) for alert in alerts]


def without_repeats(records: list[Any]) -> list[bytes]:
    """Return the values in the order of reading; of records with equal ids the first alone."""
    first: dict[bytes, bytes] = {}
    for record in records:
        first.setdefault(dict(record.headers)["ce_id"] + record.key, record.value)
    return list(first.values())


def by_camera(alerts: list[Alert]) -> dict[str, list[bytes]]:
    cameras: dict[str, list[bytes]] = defaultdict(list)
    for alert in alerts:
        cameras[alert.camera].append(alert.value)
    return cameras


def arrived(broker: KafkaBroker, topic: str, alerts: list[Alert], *, seconds: float = 30.0) -> dict[str, list[bytes]]:
    """Read until as many different alerts are there as were said; return them by camera, in order."""
    records = consume(
        broker.bootstrap, topic, until=lambda seen: len(without_repeats(seen)) >= len(alerts), timeout_seconds=seconds
    )
    cameras: dict[str, list[bytes]] = defaultdict(list)
    for key, value in {(record.key, record.value): None for record in records}:
        cameras[key.decode()].append(value)
    return cameras


def test_alerts_arrive_as_they_were_said(kafka_broker: KafkaBroker, topic: str, outbox: Outbox) -> None:
    alerts = make_alerts(topic, 30)
    outbox.commit(alerts[:10], now=time.time())
    with publishing(outbox, to(kafka_broker, topic)) as (publisher, reports):
        reports.wait(lambda _: reports.acknowledged == 10)
        for alert in alerts[10:]:
            outbox.commit([alert], now=time.time())
            publisher.notify()
        reports.wait(lambda _: reports.acknowledged == 30)
        assert outbox.pending(1) == []
    records = consume(kafka_broker.bootstrap, topic, until=lambda seen: len(seen) >= 30, timeout_seconds=20)
    assert [(record.key.decode(), record.value) for record in records] == [
        (alert.camera, alert.value) for alert in alerts
    ]
    assert [tuple(record.headers) for record in records] == [alert.headers for alert in alerts]
    assert set(reports.states) == {DeliveryState.CONNECTED}
    assert all(0 <= seconds < 20 for report in reports.all for seconds in report.acknowledged_seconds)


def test_what_waits_is_sent_before_the_stop(kafka_broker: KafkaBroker, topic: str, outbox: Outbox) -> None:
    with publishing(outbox, to(kafka_broker, topic)) as (publisher, reports):
        reports.wait(lambda all_reports: bool(all_reports))
        outbox.commit(make_alerts(topic, 300), now=time.time())
        publisher.stop(Deadline(5.0))
    assert outbox.pending(1) == []


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_compressed_alerts_arrive(kafka_broker: KafkaBroker, topic: str, outbox: Outbox, codec: str) -> None:
    alerts = make_alerts(topic, 20)
    outbox.commit(alerts, now=time.time())
    with publishing(outbox, to(kafka_broker, topic, compression=codec)) as (_, reports):
        reports.wait(lambda _: reports.acknowledged == 20)
    assert arrived(kafka_broker, topic, alerts) == by_camera(alerts)


def test_a_kafka_that_starts_late_gets_everything_in_order(
    outbox: Outbox, topic: str, kafka_broker: KafkaBroker
) -> None:
    alerts = make_alerts(topic, 40)
    kafka_broker.stop()
    try:
        with publishing(outbox, to(kafka_broker, topic, request_timeout_seconds=2.0)) as (publisher, reports):
            for alert in alerts:
                outbox.commit([alert], now=time.time())
                publisher.notify()
            reports.wait(lambda _: DeliveryState.UNREACHABLE in reports.states)
            assert "no answer from" in reports.all[-1].detail
            kafka_broker.start()
            reports.wait(lambda _: reports.acknowledged == 40, seconds=40)
    finally:
        kafka_broker.start()
    assert arrived(kafka_broker, topic, alerts) == by_camera(alerts)


def make_topic(broker: KafkaBroker, topic: str, settings: dict[str, str]) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.create_topics([NewTopic(topic, 1, 1, topic_configs=settings)])
    admin.close()


def test_a_record_too_large_is_put_aside_and_blocks_no_other(
    kafka_broker: KafkaBroker, topic: str, outbox: Outbox
) -> None:
    make_topic(kafka_broker, topic, {"max.message.bytes": "10000"})
    alerts = make_alerts(topic, 9, cameras=1)
    for_the_broker = replace(alerts[3], value=bytes(12_000))  # shares its batch with others
    for_the_producer = replace(alerts[6], value=bytes(2_000_000))
    good = [alert for index, alert in enumerate(alerts) if index not in (3, 6)]
    outbox.commit([*alerts[:3], for_the_broker, *alerts[4:6], for_the_producer, *alerts[7:]], now=time.time())
    with publishing(outbox, to(kafka_broker, topic)) as (_, reports):
        reports.wait(lambda _: outbox.pending(1) == [])
    assert arrived(kafka_broker, topic, good) == by_camera(good)
    refused = [stored for stored in outbox.recent(100) if stored.refused]
    assert [stored.alert.alert_id for stored in refused] == [alerts[6].alert_id, alerts[3].alert_id]
    assert all("large" in (stored.refused or "") for stored in refused)
    assert outbox.stats(time.time()).dead_letters == 2
    assert sum(report.dead_lettered for report in reports.all) == 2


# --- stopping while Kafka is away ------------------------------------------------------------------------------------


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listening:
        yield listening.getsockname()[1]


@contextmanager
def closed_port() -> Iterator[int]:
    yield free_port()


@pytest.mark.parametrize("port", [silent_port, closed_port])
@pytest.mark.parametrize("after_seconds", [0.0, 0.7])
def test_it_stops_in_time_while_kafka_is_away(outbox: Outbox, topic: str, port: Any, after_seconds: float) -> None:
    outbox.commit(make_alerts(topic, 3), now=time.time())
    with port() as number:
        publisher = Publisher(outbox, KafkaConfig(bootstrap_servers=f"127.0.0.1:{number}"), on_report=Reports())
        publisher.start()
        time.sleep(after_seconds)
        began = time.monotonic()
        publisher.stop(Deadline(1.5))
        assert time.monotonic() - began < 1.5
    assert not publisher.alive
    assert len(outbox.pending(10)) == 3


def test_with_nothing_to_send_it_stops_at_once(outbox: Outbox) -> None:
    with silent_port() as number:
        publisher = Publisher(outbox, KafkaConfig(bootstrap_servers=f"127.0.0.1:{number}"), on_report=Reports())
        publisher.start()
        time.sleep(0.3)
        began = time.monotonic()
        publisher.stop(Deadline(5.0))
        assert time.monotonic() - began < 1.0


def test_it_stops_in_time_while_a_connected_broker_answers_no_more(
    kafka_broker: KafkaBroker, topic: str, outbox: Outbox
) -> None:
    [broker] = [child for child in psutil.Process().children(recursive=True) if child.name() == "java"]
    with publishing(outbox, to(kafka_broker, topic)) as (publisher, reports):
        outbox.commit(make_alerts(topic, 3), now=time.time())
        publisher.notify()
        reports.wait(lambda _: reports.acknowledged == 3)
        broker.suspend()
        try:
            while broker.status() != psutil.STATUS_STOPPED:
                time.sleep(0.01)
            outbox.commit(make_alerts(topic, 5, first=10), now=time.time())
            publisher.notify()
            time.sleep(0.3)
            began = time.monotonic()
            publisher.stop(Deadline(1.5))
            assert time.monotonic() - began < 1.5
        finally:
            broker.resume()
    assert len(outbox.pending(10)) == 5


def test_it_stops_in_time_while_a_broker_is_dead(kafka_broker: KafkaBroker, topic: str, outbox: Outbox) -> None:
    with publishing(outbox, to(kafka_broker, topic)) as (publisher, reports):
        outbox.commit(make_alerts(topic, 3), now=time.time())
        publisher.notify()
        reports.wait(lambda _: reports.acknowledged == 3)
        kafka_broker.kill()
        try:
            outbox.commit(make_alerts(topic, 5, first=10), now=time.time())
            publisher.notify()
            time.sleep(0.5)
            began = time.monotonic()
            publisher.stop(Deadline(2.0))
            assert time.monotonic() - began < 2.0
        finally:
            kafka_broker.start()
    assert len(outbox.pending(10)) == 5


def test_that_kafka_has_gone_is_noticed_with_nothing_to_send(
    kafka_broker: KafkaBroker, topic: str, outbox: Outbox
) -> None:
    with publishing(outbox, to(kafka_broker, topic)) as (publisher, reports):
        reports.wait(lambda all_reports: bool(all_reports))
        time.sleep(4.5)
        assert reports.states == [DeliveryState.CONNECTED]
        kafka_broker.kill()
        try:
            reports.wait(lambda _: DeliveryState.UNREACHABLE in reports.states)
        finally:
            kafka_broker.start()
        reports.wait(lambda _: reports.states[-1] is DeliveryState.CONNECTED)
        outbox.commit(make_alerts(topic, 3), now=time.time())
        publisher.stop(Deadline(5.0))
    assert outbox.pending(1) == [], "what is said with the stop is sent, although Kafka was away before"


def test_a_publisher_that_never_started_stops(outbox: Outbox) -> None:
    Publisher(outbox, KafkaConfig(bootstrap_servers="127.0.0.1:1"), on_report=Reports()).stop(Deadline(1.0))


# --- who we are ------------------------------------------------------------------------------------------------------


def secured(
    broker: KafkaBroker,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
    password: str,
    mechanism: str = "SCRAM-SHA-512",
) -> KafkaConfig:
    monkeypatch.setenv(PASSWORD_VARIABLE, password)
    return KafkaConfig(
        bootstrap_servers=broker.bootstrap_sasl_tls,
        topic=topic,
        security_protocol="SASL_SSL",
        ssl_cafile=broker.ca_file,
        sasl_mechanism=mechanism,
        sasl_username=broker.user,
        sasl_password_env=PASSWORD_VARIABLE,
    )


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_alerts_go_through_tls_with_a_password(
    kafka_broker: KafkaBroker, topic: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    alerts = make_alerts(topic, 5)
    outbox.commit(alerts, now=time.time())
    settings = secured(kafka_broker, topic, monkeypatch, kafka_broker.password, mechanism)
    with publishing(outbox, settings) as (_, reports):
        reports.wait(lambda _: reports.acknowledged == 5)
    assert arrived(kafka_broker, topic, alerts) == by_camera(alerts)


def test_the_password_may_stand_in_a_file(
    kafka_broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(f"{kafka_broker.password}\n")
    by_variable = secured(kafka_broker, topic, monkeypatch, "wrong").model_dump()
    settings = KafkaConfig(**by_variable | {"sasl_password_env": "", "sasl_password_file": file})
    assert settings.secrets() == (kafka_broker.password,)
    assert probe_kafka(settings).lines[0].endswith(f"connected as {kafka_broker.user}")
    with pytest.raises(ValueError, match="not both"):
        KafkaConfig(**by_variable | {"sasl_password_file": file})


def test_a_wrong_password_is_one_clear_message_without_it(
    kafka_broker: KafkaBroker, topic: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, capfd: Any, caplog: Any
) -> None:
    settings = secured(kafka_broker, topic, monkeypatch, "hunter2-is-wrong")
    with publishing(outbox, settings) as (_, reports):
        reports.wait(lambda all_reports: bool(all_reports))
    report = reports.all[0]
    assert report.state is DeliveryState.REFUSED
    assert "refuses user name or password" in report.detail
    probed = probe_kafka(settings)
    assert not probed.ok
    said = f"{reports.all} {probed} {capfd.readouterr()} {caplog.text}"
    assert "hunter2" not in said


def test_an_unknown_authority_is_said(kafka_broker: KafkaBroker, topic: str, outbox: Outbox) -> None:
    settings = KafkaConfig(
        bootstrap_servers=kafka_broker.bootstrap_mutual_tls,
        topic=topic,
        security_protocol="SSL",
        request_timeout_seconds=2.0,
    )
    with publishing(outbox, settings) as (_, reports):
        reports.wait(lambda all_reports: bool(all_reports))
    assert "certificate verify failed" in reports.all[0].detail


def test_a_silence_at_the_end_does_not_hide_why_no_connection_worked(
    kafka_broker: KafkaBroker, topic: str, outbox: Outbox
) -> None:
    port = int(kafka_broker.bootstrap_mutual_tls.rsplit(":", 1)[1])
    with FaultyProxy(port) as proxy:
        settings = KafkaConfig(
            bootstrap_servers=f"localhost:{proxy.port}",
            topic=topic,
            security_protocol="SSL",
            request_timeout_seconds=4.0,
        )
        with publishing(outbox, settings) as (_, reports):
            wait_until(lambda: proxy.accepted >= 2, seconds=3.5)  # the first has failed
            proxy.swallow()
            reports.wait(lambda all_reports: bool(all_reports))
    assert "certificate verify failed" in reports.all[0].detail


def with_certificates(broker: KafkaBroker, topic: str, **settings: Any) -> KafkaConfig:
    return KafkaConfig(
        bootstrap_servers=broker.bootstrap_mutual_tls,
        topic=topic,
        security_protocol="SSL",
        ssl_cafile=broker.ca_file,
        **settings,
    )


def test_alerts_go_through_mutual_tls(kafka_broker: KafkaBroker, topic: str, outbox: Outbox) -> None:
    alerts = make_alerts(topic, 5)
    outbox.commit(alerts, now=time.time())
    ours = {"ssl_certfile": kafka_broker.certificates.client, "ssl_keyfile": kafka_broker.certificates.client_key}
    with publishing(outbox, with_certificates(kafka_broker, topic, **ours)) as (_, reports):
        reports.wait(lambda _: reports.acknowledged == 5)
    assert arrived(kafka_broker, topic, alerts) == by_camera(alerts)


def test_a_broker_that_misses_our_certificate_is_said(kafka_broker: KafkaBroker, topic: str, outbox: Outbox) -> None:
    settings = with_certificates(kafka_broker, topic, request_timeout_seconds=2.0)
    with publishing(outbox, settings) as (_, reports):
        reports.wait(lambda all_reports: bool(all_reports))
    assert reports.all[0].state is DeliveryState.UNREACHABLE
    assert "certificate" in reports.all[0].detail.lower()
    assert not probe_kafka(settings).ok


# --- topics that are not there ---------------------------------------------------------------------------------------


@pytest.fixture
def strict_broker() -> Iterator[KafkaBroker]:
    """A broker that makes no topic by itself."""
    with KafkaBroker(extra=("auto.create.topics.enable=false",)) as broker:
        yield broker


def test_topics_are_made_where_the_settings_ask_for_it(strict_broker: KafkaBroker, topic: str, outbox: Outbox) -> None:
    alerts = make_alerts(topic, 5)
    outbox.commit(alerts, now=time.time())
    plain = to(strict_broker, topic, request_timeout_seconds=2.0, health_topic=f"{topic}-health")
    with publishing(outbox, plain) as (_, reports):
        reports.wait(lambda _: reports.states.count(DeliveryState.UNREACHABLE) == 3, seconds=40.0)
    connected, unreachable = DeliveryState.CONNECTED, DeliveryState.UNREACHABLE
    assert reports.states == [connected, unreachable, unreachable, unreachable], "a connection alone is no good news"
    assert reports.all[-1].detail.startswith(f"topic {topic} does not exist; create it")
    settings = plain.model_copy(update={"create_topics": True, "partitions": 3})
    before = probe_kafka(settings)
    assert before.ok
    assert before.lines[1].endswith("does not exist yet and will be made, partitions: 3, replicas: the broker's own")
    with publishing(outbox, settings) as (_, reports):
        reports.wait(lambda _: reports.acknowledged == 5)
    assert probe_kafka(plain).lines[1:] == (
        f"topic {topic}: good, partitions: 3, replicas: 1",
        f"topic {topic}-health: good, partitions: 3, replicas: 1",
    )
    assert arrived(strict_broker, topic, alerts) == by_camera(alerts)
    impossible = plain.model_copy(update={"create_topics": True, "replication": 5, "health_topic": f"{topic}-more"})
    with publishing(outbox, impossible) as (_, reports):
        reports.wait(lambda all_reports: bool(all_reports))
    assert reports.all[0].detail.startswith(f"topic {topic}-more cannot be made: ")


def test_a_clock_that_is_ahead_costs_no_alert(
    kafka_broker: KafkaBroker, topic: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka 4 refuses what is told to be from more than an hour ahead; once the clock is right, all of it arrives."""
    send = KafkaProducer.send

    def send_ahead(producer: KafkaProducer, *record: Any, **options: Any) -> Any:
        return send(producer, *record, **options, timestamp_ms=int((time.time() + 7200) * 1000))

    alerts = make_alerts(topic, 5)
    outbox.commit(alerts, now=time.time())
    with publishing(outbox, to(kafka_broker, topic)) as (_, reports):
        with monkeypatch.context() as ahead:
            ahead.setattr(KafkaProducer, "send", send_ahead)
            reports.wait(lambda _: DeliveryState.UNREACHABLE in reports.states)
            assert "set this machine's clock" in reports.all[-1].detail
        reports.wait(lambda _: reports.acknowledged == 5, seconds=40.0)
    assert outbox.stats(time.time()).dead_letters == 0
    assert arrived(kafka_broker, topic, alerts) == by_camera(alerts)


def test_what_waits_goes_to_the_topic_that_is_configured_now(
    strict_broker: KafkaBroker, topic: str, outbox: Outbox
) -> None:
    """Who mistypes a topic, and mends it, gets what was said meanwhile."""
    alerts = make_alerts("mistyped", 5)
    outbox.commit(alerts, now=time.time())
    make_topic(strict_broker, topic, {})
    with publishing(outbox, to(strict_broker, topic)) as (_, reports):
        reports.wait(lambda _: reports.acknowledged == 5)
    assert arrived(strict_broker, topic, alerts) == by_camera(alerts)


def test_a_client_that_has_died_is_replaced(
    kafka_broker: KafkaBroker, topic: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python raises what its loop died of again from whatever asks it to close."""
    alerts = make_alerts(topic, 5)
    with publishing(outbox, to(kafka_broker, topic)) as (publisher, reports):
        reports.wait(lambda _: reports.states == [DeliveryState.CONNECTED])
        connection = publisher._connection
        assert connection is not None

        def raise_again(*_: Any) -> None:
            raise OSError("its loop had died")

        client = connection._client
        monkeypatch.setattr(client._manager._net, "call_soon_threadsafe", raise_again)
        monkeypatch.setattr(connection._producer, "send", raise_again)
        outbox.commit(alerts, now=time.time())
        publisher.notify()
        reports.wait(lambda _: reports.acknowledged == 5, seconds=40.0)
    monkeypatch.undo()
    client.close()  # it did not really die
    assert arrived(kafka_broker, topic, alerts) == by_camera(alerts)


@pytest.mark.parametrize("port", [silent_port, closed_port])
def test_it_stops_in_time_while_it_would_make_topics(outbox: Outbox, topic: str, port: Any) -> None:
    outbox.commit(make_alerts(topic, 3), now=time.time())
    with port() as number:
        settings = KafkaConfig(bootstrap_servers=f"127.0.0.1:{number}", create_topics=True)
        publisher = Publisher(outbox, settings, on_report=Reports())
        publisher.start()
        time.sleep(0.5)
        began = time.monotonic()
        publisher.stop(Deadline(1.5))
        assert time.monotonic() - began < 1.5
    assert not publisher.alive


# --- monitor check --probe -------------------------------------------------------------------------------------------


def test_the_probe_says_what_is_there_and_what_is_not(kafka_broker: KafkaBroker, topic: str, outbox: Outbox) -> None:
    settings = to(kafka_broker, topic, health_topic=f"{topic}-health")
    missing = probe_kafka(settings)
    assert not missing.ok
    assert missing.lines[0] == f"Kafka at {kafka_broker.bootstrap}: connected"
    assert missing.lines[1].startswith(f"topic {topic}: does not exist; create it")
    assert missing.lines[2].startswith(f"topic {topic}-health: does not exist; create it")
    alert, health = make_alerts(topic, 2)
    outbox.commit([alert, replace(health, label="")], now=time.time())
    with publishing(outbox, settings) as (_, reports), publishing(outbox, settings, health=True) as (_, of_health):
        reports.wait(lambda _: reports.acknowledged == 1)
        of_health.wait(lambda _: of_health.acknowledged == 1)
    assert probe_kafka(settings) == KafkaReport(
        ok=True,
        lines=(
            f"Kafka at {kafka_broker.bootstrap}: connected",
            f"topic {topic}: good, partitions: 1, replicas: 1",
            f"topic {topic}-health: good, partitions: 1, replicas: 1",
        ),
    )


def test_the_probe_of_an_absent_kafka_says_so() -> None:
    port = free_port()
    probed = probe_kafka(KafkaConfig(bootstrap_servers=f"127.0.0.1:{port}", request_timeout_seconds=1.0))
    assert not probed.ok
    assert len(probed.lines) == 1
    assert "ECONNREFUSED" in probed.lines[0]


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_the_probe_of_a_silent_port_ends(protocol: Any) -> None:
    with silent_port() as port:
        began = time.monotonic()
        probed = probe_kafka(
            KafkaConfig(bootstrap_servers=f"127.0.0.1:{port}", security_protocol=protocol, request_timeout_seconds=1.0)
        )
        assert time.monotonic() - began < 4.0
    assert not probed.ok
    assert "no answer from 127.0.0.1" in probed.lines[0]
    assert ("TLS" in probed.lines[0]) == (protocol == "SSL")


def test_a_codec_that_is_not_installed_is_named(kafka_broker: KafkaBroker, topic: str, outbox: Outbox) -> None:
    settings = to(kafka_broker, topic).model_copy(update={"compression": "snappy"})
    with publishing(outbox, settings) as (_, reports):
        reports.wait(lambda all_reports: bool(all_reports))
    assert "snappy" in reports.all[0].detail
