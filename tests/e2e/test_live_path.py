"""From a real RTSP stream to an alert in a real Kafka: codecs, transports, credentials, order, late brokers."""

from __future__ import annotations

import itertools
import json
import threading
import time
from contextlib import closing, suppress

import jsonschema
import pytest

from monitor.config import OutboxConfig
from monitor.delivery.outbox import Outbox
from monitor.events.messages import alert_schema
from monitor.records import Phase
from tests.delivery.test_outbox import make_alert
from tests.services.kafka import KafkaBroker, consume
from tests.services.monitor import MonitorProcess, configuration
from tests.services.ports import free_port
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS

PASSWORD = "s3cret/p@ss wörd"


def messages(records):
    return [json.loads(record.value) for record in records]


def has_ended(records) -> bool:
    return any(message["phase"] == "ended" for message in messages(records))


def assert_whole_life(records, *, camera: str, label: str) -> None:
    """One alert's messages: valid, of this camera and label, started first, ended last, numbered in between."""
    told = messages(records)
    for record, message in zip(records, told, strict=True):
        jsonschema.validate(message, alert_schema(), format_checker=jsonschema.FormatChecker())
        headers = dict(record.headers)
        assert record.key == camera.encode()
        assert headers["ce_specversion"] == b"1.0"
        assert headers["ce_type"] == f"monitor.alert.{message['phase']}.v1".encode()
        assert headers["ce_id"] == f"{message['alert_id']}:{message['sequence']}".encode()
        assert headers["ce_subject"] == camera.encode()
        assert message["camera"]["id"] == camera
        assert message["event"]["label"] == label
    by_alert = itertools.groupby(told, key=lambda message: message["alert_id"])
    first = list(next(by_alert)[1])
    assert [message["phase"] for message in (first[0], first[-1])] == ["started", "ended"]
    assert [message["sequence"] for message in first] == list(range(len(first)))
    assert all(message["phase"] == "updated" for message in first[1:-1])
    assert len(told[0]["evidence"]["frame_times"]) == len(told[0]["evidence"]["attention"]) > 0


@pytest.mark.parametrize(
    ("codec", "transport", "login"),
    [("h264", "tcp", False), ("h265", "tcp", True), ("h264", "udp", True), ("h265", "udp", False)],
)
def test_an_event_on_a_stream_becomes_alerts_in_kafka(tmp_path, kafka_broker, scene_streams, codec, transport, login):
    topic = f"alerts-{codec}-{transport}"
    credentials = {"user": "anna", "password": PASSWORD} if login else {}
    with RtspServer({"yard": Mount(scene_streams[codec], FPS, codec)}, **credentials) as server:
        camera = {"id": "yard", "url": server.url("yard"), "transport": transport, "tags": ["outside"]}
        if login:
            camera |= {"username": "anna", "password_env": "YARD_PASSWORD"}
        config = configuration(
            tmp_path,
            [camera],
            bundle="demo",
            kafka={"bootstrap_servers": kafka_broker.bootstrap, "topic": topic},
        )
        with MonitorProcess(config, {"YARD_PASSWORD": PASSWORD}) as monitor:
            records = consume(kafka_broker.bootstrap, topic, until=has_ended, timeout_seconds=45)
            page = monitor.get("/")[1]
            metrics = monitor.get("/metrics")[1]
            code, seconds = monitor.stop()
    assert has_ended(records), monitor.log_text[-3000:]
    assert_whole_life(records, camera="yard", label="scuffle")
    assert code == 0
    assert seconds < 5.0
    assert "Traceback" not in monitor.log_text
    for written in (monitor.log_text, page, metrics, *(record.value.decode() for record in records)):
        assert "s3cret" not in written


def test_a_fight_on_a_real_recording_becomes_alerts_in_kafka(tmp_path, kafka_broker, fight_stream):
    with RtspServer({"hall": Mount(fight_stream, 25.0)}) as server:
        config = configuration(
            tmp_path,
            [{"id": "hall", "url": server.url("hall")}],
            bundle="fight",
            kafka={"bootstrap_servers": kafka_broker.bootstrap, "topic": "alerts-fight"},
        )
        with MonitorProcess(config) as monitor:
            records = consume(kafka_broker.bootstrap, "alerts-fight", until=has_ended, timeout_seconds=60)
            monitor.stop()
    assert has_ended(records), monitor.log_text[-3000:]
    assert_whole_life(records, camera="hall", label="fight")


def test_alerts_said_before_kafka_is_there_arrive_in_order(tmp_path, scene_streams):
    with closing(KafkaBroker()) as broker, RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(
            tmp_path,
            [{"id": "yard", "url": server.url("yard")}],
            bundle="demo",
            kafka={"bootstrap_servers": broker.bootstrap, "topic": "late"},
        )
        with MonitorProcess(config) as monitor:
            monitor.wait_for_metric("monitor_alerts_total", 2, 45)
            monitor.wait_for_metric("monitor_outbox_records", 2, 5)
            assert monitor.metric("monitor_kafka_up") == 0
            assert monitor.get("/ready")[0] == 200
            broker.start()
            records = consume(broker.bootstrap, "late", until=lambda records: len(records) >= 2, timeout_seconds=45)
            monitor.wait_for_event("kafka_connected", 20)
            monitor.stop()
    told = messages(records)
    positions = [(message["time"]["started_at"], message["sequence"]) for message in told]
    assert len(told) >= 2
    assert positions == sorted(positions)
    assert told[0]["phase"] == "started"


def test_the_first_scrape_tells_what_waits(tmp_path):
    port = free_port()
    config = configuration(
        tmp_path,
        [{"id": "yard", "url": "rtsp://127.0.0.1:1/x"}],
        bundle="demo",
        kafka={"bootstrap_servers": "127.0.0.1:1"},
        http={"port": port},
    )
    outbox = Outbox.open(OutboxConfig(path=tmp_path / "outbox.sqlite"), deliver=True)
    outbox.commit([make_alert(number, phase=Phase.ENDED) for number in range(3)], now=time.time())
    outbox.close()
    monitor = MonitorProcess(config)
    monitor.address = f"http://127.0.0.1:{port}"
    starting = threading.Thread(target=monitor.start)
    starting.start()
    try:
        waiting = None
        while waiting is None:
            assert starting.is_alive()
            time.sleep(0.005)
            with suppress(OSError):
                waiting = monitor.metric("monitor_outbox_records")
        assert waiting == 3
    finally:
        starting.join(60)
        monitor.kill()


def test_without_kafka_alerts_rest_in_the_store_and_on_the_page(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(tmp_path, [{"id": "yard", "name": "The yard", "url": server.url("yard")}], bundle="demo")
        with MonitorProcess(config) as monitor:
            monitor.wait_for_metric("monitor_alerts_total", 1, 45, phase="started")
            status, page = monitor.get("/")
            assert status == 200
            assert "The yard" in page
            assert "scuffle" in page
            assert monitor.get("/live")[0] == 200
            assert json.loads(monitor.get("/ready")[1])["kafka"] == "not configured"
            code, _ = monitor.stop()
    assert code == 0
