"""Log lines: JSON, levels, and no secret in any value."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
import structlog

from monitor.telemetry.logs import Said, configure_logs
from monitor.telemetry.redaction import Redactor


@pytest.fixture(autouse=True)
def restored():
    handlers = logging.getLogger().handlers
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers = handlers


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


def test_what_stands_in_a_list_or_a_table_is_redacted(capsys):
    configure_logs(level="info", style="json", redactor=Redactor(["hunter2"]))
    problems = ["cameras[0] (yard).url: hunter2", ("hunter2",)]
    structlog.get_logger().error("configuration_not_reloaded", problems=problems, cameras={"yard": ["hunter2", 2]})
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["problems"] == ["cameras[0] (yard).url: [redacted]", ["[redacted]"]]
    assert json.loads(line)["cameras"] == {"yard": ["[redacted]", 2]}


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


@pytest.mark.parametrize("is_terminal", [True, False])
def test_text_is_for_a_terminal_and_json_for_everything_else(monkeypatch, is_terminal):
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", written)
    configure_logs(level="info", style="auto", redactor=Redactor(()))
    structlog.get_logger().info("camera_connected", camera="yard")
    (line,) = written.getvalue().splitlines()
    assert line.startswith("{") is not is_terminal
    if not is_terminal:
        assert json.loads(line).keys() == {"event", "camera", "level", "timestamp"}


def test_what_stays_as_it_is_is_said_once():
    said = Said()
    states = ["", "no room", "no room", "read-only", "", ""]
    assert [said.changes("disk", state) for state in states] == [False, True, False, True, True, False]
    assert said.changes("another", "no room")


def test_what_libraries_log_takes_the_same_way(capsys):
    configure_logs(level="info", style="json", redactor=Redactor(["hunter2"]))
    logging.getLogger("some.library").info("unseen")
    logging.getLogger("some.library").error("cannot log in with %s", "hunter2")
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record["library"] == "some.library"
    assert record["message"] == "cannot log in with [redacted]"


def test_the_program_outlives_its_log(monkeypatch):
    configure_logs(level="info", style="json", redactor=Redactor(()))
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, "stderr", gone)
    structlog.get_logger().info("nobody_reads_this")
    assert gone.closed
