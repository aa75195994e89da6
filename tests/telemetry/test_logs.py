"""Log lines: JSON, levels, and no secret in any value."""

from __future__ import annotations

import json

import pytest
import structlog

from monitor.telemetry.logs import configure_logs
from monitor.telemetry.redaction import Redactor


@pytest.fixture(autouse=True)
def restored():
    yield
    structlog.reset_defaults()


def test_lines_are_json_and_redacted(capsys):
    configure_logs(level="info", style="json", redactor=Redactor(["hunter2"]))
    log = structlog.get_logger()
    log.debug("unseen")
    log.info("camera_lost", detail="401 for rtsp://anna:hunter2@camera/", attempt=3)
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["event"] == "camera_lost"
    assert record["attempt"] == 3
    assert record["level"] == "info"
    assert "hunter2" not in line


def test_a_traceback_is_redacted(capsys):
    configure_logs(level="info", style="json", redactor=Redactor(["hunter2"]))
    try:
        raise ValueError("the password is hunter2")
    except ValueError:
        structlog.get_logger().exception("stage_failed")
    written = capsys.readouterr().err
    assert "ValueError" in written
    assert "hunter2" not in written


def test_text_is_for_people(capsys):
    configure_logs(level="warning", style="text", redactor=Redactor(()))
    structlog.get_logger().warning("camera_lost", camera="yard")
    assert "camera_lost" in capsys.readouterr().err
