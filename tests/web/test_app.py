"""The HTTP side over a real socket: status codes, headers, escaping, and a stop that waits for nobody."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest

from monitor.config import CameraConfig
from monitor.deadline import Deadline
from monitor.delivery.media import MediaFolder
from monitor.errors import InputInvalid
from monitor.records import CameraState, CameraStatus, FailureReason
from monitor.reporting import Reporter
from monitor.telemetry.metrics import Metrics
from monitor.web.app import Page
from monitor.web.feed import Feed
from monitor.web.server import WebServer
from monitor.web.view import AlertView, Health
from tests.events.test_tracker import make_score


@dataclass
class Shown:
    """A view of a reporter, with health as the test sets it."""

    reporter: Reporter = field(default_factory=lambda: Reporter(Metrics()))
    health: Health = field(default_factory=lambda: Health(ok=True, parts={"scoring": "running"}))
    folder: Path | None = None
    messages: list[dict] = field(default_factory=list)
    """Of alerts, oldest first."""
    feed: Feed = field(default_factory=Feed)

    def live(self):
        return self.health

    def ready(self):
        return self.health

    def metrics(self):
        return self.reporter.metrics.render()

    def cameras(self):
        return self.reporter.cameras()

    def monitor(self):
        return self.reporter.monitor("test")

    def alerts(self, wanted, *, limit, before=None):
        newest = {message["alert_id"]: (position, message) for position, message in enumerate(self.messages, 1)}
        fitting = [
            AlertView(position, message)
            for position, message in newest.values()
            if wanted.camera in (None, message["camera"]["id"])
            and wanted.label in (None, message["event"]["label"])
            and position < (before or 1 << 62)
        ]
        return sorted(fitting, key=lambda alert: -alert.position)[:limit]

    def alert(self, alert_id):
        return [message for message in self.messages if message["alert_id"] == alert_id]

    def media(self, name):
        return None if self.folder is None else MediaFolder(self.folder, keep_days=1, keep_bytes=1).find(name)


@contextmanager
def served(shown, **options):
    """Serve what is shown on a free port of this machine."""
    server = WebServer(Page(shown, shown.feed, **options), host="127.0.0.1", port=0)
    yield server.start()
    server.stop(Deadline(5))


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def address(shown):
    with served(shown) as address:
        yield address


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


@pytest.mark.parametrize("before", ["9" * 19, "9" * 5000, "-1", "x", "²"])
def test_a_position_that_no_alert_has_is_no_error(before, address):
    assert get(f"{address}/alerts?before={quote(before)}")[0] == 200


def test_a_camera_that_is_away_has_no_score_of_now(address, shown):
    shown.reporter.camera_added(CameraConfig(id="yard", url="rtsp://camera/x"))
    shown.reporter.status(CameraStatus("yard", CameraState.ONLINE, 1.0))
    shown.feed.history.note(make_score(0, 0.9), {"scuffle": 0.9})
    for path in ("/", "/cameras/yard"):
        assert '<b class="score-value">0.90</b>' in get(f"{address}{path}")[2]
    shown.reporter.status(CameraStatus("yard", CameraState.OFFLINE, 2.0, reason=FailureReason.TIMED_OUT))
    for path in ("/", "/cameras/yard"):
        assert '<b class="score-value">–</b>' in get(f"{address}{path}")[2]


@pytest.mark.parametrize(
    ("since", "shown_as"),
    [
        ("2026-01-31T12:00", "2026-01-31T12:00"),
        ("2026-01-31T12:00:30Z", "2026-01-31T12:00"),
        ("2026-01-31T12:00+01:00", "2026-01-31T11:00"),
        ("2026-01-31", "2026-01-31T00:00"),
    ],
)
def test_a_time_in_the_address_is_utc_or_what_its_offset_says(since, shown_as, address):
    status, _, body = get(f"{address}/alerts?since={quote(since)}")
    assert status == 200
    assert f'name="since" value="{shown_as}"' in body


@pytest.mark.parametrize("since", ["noon", "2026-13-01T00:00", "0001-01-01T00:00+14:00", "99999-01-01T00:00"])
def test_a_time_that_cannot_be_read_is_told(since, address):
    status, _, body = get(f"{address}/alerts?since={quote(since)}")
    assert status == 422
    assert "is not a time like 2026-01-31T12:00" in body


def test_a_taken_port_is_one_clear_error(shown):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputInvalid, match=f"http.port: {port} is taken by another program"):
            WebServer(Page(shown, Feed()), host="127.0.0.1", port=port).start()


def test_it_stops_in_time_with_a_connection_open(shown):
    server = WebServer(Page(shown, Feed()), host="127.0.0.1", port=0)
    port = int(server.start().rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as idle:
        idle.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        began = time.monotonic()
        server.stop(Deadline(3))
        assert time.monotonic() - began < 3.0


ALERT = "0d9c0f4e-6a64-5a3c-9a3e-2f1a7c0b9d11"


@pytest.fixture
def media(tmp_path, shown):
    shown.folder = tmp_path / "media"
    shown.folder.mkdir()
    (shown.folder / f"{ALERT}.mp4").write_bytes(bytes(range(256)) * 10)
    (shown.folder / f"{ALERT}.jpg").write_bytes(b"jpeg")
    (shown.folder / f"{ALERT}.mp4.part").write_bytes(b"unfinished")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return shown.folder


def fetch(address, path, **headers):
    """Ask for a path as it stands: urllib would tidy it."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=5)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    try:
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_evidence_is_served_with_its_type(address, media):
    status, headers, content = fetch(address, f"/media/{ALERT}.jpg")
    assert (status, headers["Content-Type"], content) == (200, "image/jpeg", b"jpeg")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "media-src 'self'" in headers["Content-Security-Policy"]


def test_a_player_may_ask_for_a_range(address, media):
    status, headers, content = fetch(address, f"/media/{ALERT}.mp4", Range="bytes=10-19")
    assert (status, headers["Content-Type"]) == (206, "video/mp4")
    assert headers["Content-Range"] == "bytes 10-19/2560"
    assert content == bytes(range(10, 20))
    assert fetch(address, f"/media/{ALERT}.mp4")[1]["Accept-Ranges"] == "bytes"
    assert fetch(address, f"/media/{ALERT}.mp4", Range="bytes=9999-")[0] == 416


@pytest.mark.parametrize(
    "path",
    [
        "/media/",
        "/media/../secret.jpg",
        "/media/%2e%2e%2fsecret.jpg",
        "/media/..%2Fsecret.jpg",
        "/media/%2e%2e/secret.jpg",
        "/media//etc/passwd",
        "/media/%2Fetc%2Fpasswd",
        f"/media/{ALERT}.mp4.part",
        f"/media/{ALERT}.mp4%00.jpg",
        f"/media/{ALERT}.MP4",
        f"/media/x{ALERT}.mp4",
    ],
)
def test_nothing_but_evidence_is_served(path, address, media):
    status, _, content = fetch(address, path)
    assert status == 404
    assert b"secret" not in content
    assert b"unfinished" not in content
