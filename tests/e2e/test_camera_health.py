"""A camera that goes away, freezes, darkens or refuses us is told in Kafka, on a topic of its own."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from monitor.events.messages import health_schema
from tests.services.kafka import consume
from tests.services.monitor import MonitorProcess, configuration
from tests.services.rtsp import Mount, RtspServer, encode_stream

from .conftest import FPS

QUICK = {"offline_seconds": 8.0, "online_seconds": 0.5, "frozen_seconds": 4.0, "dark_seconds": 3.0}


@pytest.fixture(scope="module")
def black_stream(tmp_path_factory):
    path = tmp_path_factory.mktemp("black") / "black.h264"
    encode_stream((np.full((360, 640, 3), 8, np.uint8) for _ in range(30)), path, fps=FPS)
    return path


def test_each_state_is_told_once_in_order(tmp_path, kafka_broker, topic, scene_streams, black_stream):
    mount = Mount(scene_streams["h264"], FPS)
    kafka = {"bootstrap_servers": kafka_broker.bootstrap, "topic": f"{topic}-a", "health_topic": topic}

    def told(states: list[str]) -> list[dict]:
        """Read until `yard` has been told in these states."""
        records = consume(
            kafka_broker.bootstrap, topic, until=lambda records: of_yard(records) == states, timeout_seconds=30
        )
        assert of_yard(records) == states, monitor.log_text[-3000:]
        return records

    with RtspServer({"yard": mount}) as server, RtspServer({"gate": mount}, user="anna", password="right") as locked:
        cameras = [
            {"id": "yard", "url": server.url("yard"), "site": "Depot"},
            {"id": "gate", "url": locked.url("gate", "anna", "hunter2")},
        ]
        config = configuration(tmp_path, cameras, bundle="demo", kafka=kafka, health=QUICK)
        with MonitorProcess(config) as monitor:
            told(["online"])
            server.freeze("yard")
            told(["online", "frozen"])
            assert monitor.metric("monitor_camera_frozen", camera="yard") == 1
            server.resume("yard")
            told(["online", "frozen", "online"])
            server.set_file("yard", black_stream, fps=FPS)
            told(["online", "frozen", "online", "dark"])
            assert monitor.metric("monitor_camera_frozen", camera="yard") == 0
            assert monitor.metric("monitor_camera_dark", camera="yard") == 1
            assert [len(monitor.events(f"camera_{what}")) for what in ("frozen", "dark", "sees_again")] == [1, 1, 1]
            server.kill()
            records = told(["online", "frozen", "online", "dark", "offline"])
            monitor.stop()
    messages = [json.loads(record.value) for record in records]
    for record, message in zip(records, messages, strict=True):
        jsonschema.validate(message, health_schema(), format_checker=jsonschema.FormatChecker())
        assert dict(record.headers)["ce_type"] == f"monitor.camera.{message['state']}.v1".encode()
        assert record.key == message["camera"]["id"].encode()
    assert [message["state"] for message in messages if message["camera"]["id"] == "gate"] == ["refused"]
    assert not any(b"hunter2" in record.value for record in records)


def of_yard(records) -> list[str]:
    messages = [json.loads(record.value) for record in records]
    return [message["state"] for message in messages if message["camera"]["id"] == "yard"]
