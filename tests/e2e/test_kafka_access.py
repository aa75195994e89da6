"""The program before a Kafka that asks who it is: TLS with a password, right and wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.services.kafka import KafkaBroker, consume
from tests.services.monitor import MonitorProcess, configuration, run_command
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS

VARIABLE = "ALERTS_PASSWORD"
WRONG = "hunter2/is wröng"


def access(broker: KafkaBroker, topic: str) -> dict[str, Any]:
    return {
        "bootstrap_servers": broker.bootstrap_sasl_tls,
        "topic": topic,
        "health_topic": f"{topic}-health",
        "create_topics": True,
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(broker.ca_file),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": broker.user,
        "sasl_password_env": VARIABLE,
    }


def test_with_the_right_password_alerts_arrive(tmp_path, kafka_broker, scene_streams, topic):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        cameras = [{"id": "yard", "url": server.url("yard")}]
        config = configuration(tmp_path, cameras, bundle="demo", kafka=access(kafka_broker, topic))
        with MonitorProcess(config, {VARIABLE: kafka_broker.password}) as monitor:
            records = consume(kafka_broker.bootstrap, topic, until=bool, timeout_seconds=45)
            assert monitor.get("/ready")[0] == 200
            code, output = run_command(
                "check", "--probe", "--config", str(config), environment={VARIABLE: kafka_broker.password}
            )
            assert monitor.stop()[0] == 0
    assert records, monitor.log_text[-3000:]
    assert json.loads(records[0].value)["phase"] == "started"
    assert code == 0, output
    assert f"topic {topic}: good" in output
    assert kafka_broker.password not in monitor.log_text + output


def test_with_a_wrong_password_one_line_says_so_and_nothing_tells_it(tmp_path: Path, kafka_broker, topic):
    cameras = [{"id": "yard", "url": "rtsp://127.0.0.1:1/x"}]
    config = configuration(tmp_path, cameras, bundle="demo", kafka=access(kafka_broker, topic))
    with MonitorProcess(config, {VARIABLE: WRONG}) as monitor:
        refused = monitor.wait_for_event("kafka_refused", 15)
        assert "refuses user name or password" in refused["detail"]
        time.sleep(2.0)
        status, ready = monitor.get("/ready")
        shown = [ready, monitor.get("/")[1], monitor.get("/metrics")[1]]
        code, output = run_command("check", "--probe", "--config", str(config), environment={VARIABLE: WRONG})
        assert monitor.stop()[0] == 0
    assert status == 503
    assert json.loads(ready)["kafka"].startswith("refused Kafka refuses user name or password")
    lines = monitor.events("kafka_refused")
    assert sorted(line["topic"] for line in lines) == [topic, f"{topic}-health"]
    assert code == 1
    assert "refuses user name or password" in output
    for written in (*shown, output, monitor.log_text):
        assert "hunter2" not in written
        assert "Traceback" not in written
