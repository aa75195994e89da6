"""The service where what it needs is taken from it: told once, and answered all the same."""

from __future__ import annotations

import pytest
import tomli_w
from structlog.testing import capture_logs

from monitor.config import load_config
from monitor.errors import OutboxUnavailable
from monitor.service import open_service
from monitor.web.view import AlertFilter
from tests.delivery.test_outbox import make_alert


@pytest.fixture
def service(tmp_path):
    """A monitor that is put together and not started."""
    path = tmp_path / "config.toml"
    cameras = [{"id": "yard", "url": "rtsp://127.0.0.1:1/yard"}]
    path.write_text(tomli_w.dumps({"model": {"bundle": "demo"}, "outbox": {"path": "a.sqlite"}, "cameras": cameras}))
    return open_service(load_config(path), config_path=path)


def test_an_outbox_that_cannot_be_read_is_one_line_however_many_pages_are_asked_for(service, monkeypatch):
    def refuse(*_args, **_options):
        raise OutboxUnavailable("a.sqlite", "disk I/O error")

    with capture_logs() as lines:
        with monkeypatch.context() as broken:
            broken.setattr(service._outbox, "reader", refuse)
            for _ in range(3):
                assert service._view.alerts(AlertFilter(), limit=5) == []
                assert service._view.alert("1") == []
        assert service._view.alerts(AlertFilter(), limit=5) == []
    assert [line["event"] for line in lines] == ["outbox_not_read"]


def test_an_open_event_that_cannot_be_read_keeps_no_monitor_from_its_start(service):
    """An older program after a newer one may not know every reason; a disk may have flipped a bit."""
    alerts = [make_alert(number, camera=camera) for number, camera in enumerate(("yard", "gate"))]
    service._outbox.commit(alerts, now=1.0)
    with capture_logs() as lines:
        service._end_unfinished()
    assert [(line["event"], line.get("camera")) for line in lines] == [
        ("event_not_recovered", "yard"),
        ("event_not_recovered", "gate"),
        ("events_recovered", None),
    ]
    assert [alert.camera for alert in service._outbox.unfinished()] == ["yard", "gate"]
