"""The HTTP side over a real socket: status codes, headers, escaping, and a stop that waits for nobody."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

import pytest

from monitor.config import CameraConfig
from monitor.deadline import Deadline
from monitor.errors import InputInvalid
from monitor.records import CameraState, CameraStatus, FailureReason
from monitor.reporting import Reporter
from monitor.telemetry.metrics import Metrics
from monitor.web.app import Health, create_app
from monitor.web.server import WebServer


@dataclass
class Shown:
    """A view of a reporter, with health as the test sets it."""

    reporter: Reporter = field(default_factory=lambda: Reporter(Metrics()))
    health: Health = field(default_factory=lambda: Health(ok=True, parts={"scoring": "running"}))

    def live(self):
        return self.health

    def ready(self):
        return self.health

    def metrics(self):
        return self.reporter.metrics.render()

    def cameras(self):
        return self.reporter.cameras()

    def pipeline(self):
        return self.reporter.pipeline()

    def alerts(self, limit):
        return []


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def address(shown):
    server = WebServer(create_app(shown), host="127.0.0.1", port=0)
    yield server.start()
    server.stop(Deadline(5))


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers, refusal.read().decode()


def test_probes_answer_by_status_and_by_part(address, shown):
    assert get(f"{address}/live")[0] == 200
    shown.health = Health(ok=False, parts={"scoring": "not running"})
    status, _, text = get(f"{address}/ready")
    assert status == 503
    assert json.loads(text) == {"ok": False, "scoring": "not running"}


def test_metrics_are_in_prometheus_format(address):
    status, headers, text = get(f"{address}/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert "monitor_build_info{" in text


def test_the_page_shows_state_and_escapes_names(address, shown):
    shown.reporter.camera_added(CameraConfig(id="yard", name="<script>x</script>", url="rtsp://a:b@camera/x"))
    status = CameraStatus("yard", CameraState.OFFLINE, time.time(), reason=FailureReason.STALLED, detail="no packet")
    shown.reporter.status(status)
    _, headers, text = get(f"{address}/")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "offline" in text
    assert "no packet" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_it_is_read_only(address):
    request = urllib.request.Request(f"{address}/", method="POST", data=b"")
    assert get(request)[0] == 405
    assert get(f"{address}/none")[0] == 404


def test_a_taken_port_is_one_clear_error(shown):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputInvalid, match=f"127.0.0.1:{port}: cannot be listened on"):
            WebServer(create_app(shown), host="127.0.0.1", port=port).start()


def test_it_stops_in_time_with_a_connection_open(shown):
    server = WebServer(create_app(shown), host="127.0.0.1", port=0)
    port = int(server.start().rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as idle:
        idle.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        began = time.monotonic()
        server.stop(Deadline(3))
        assert time.monotonic() - began < 3.0
