"""Server-sent events over real sockets: what a browser is told, who is too slow, and a stop that waits for nobody."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from monitor.config import CameraConfig
from monitor.deadline import Deadline
from monitor.records import Alert, CameraState, CameraStatus, Phase
from monitor.web import stream
from monitor.web.app import Page
from monitor.web.server import WebServer
from tests.events.test_tracker import make_score

from .test_app import Shown, served


class Listener:
    """A browser's end of a stream, and what it was told."""

    def __init__(self, address: str, path: str = "/api/v1/events", headers: str = "") -> None:
        host, _, port = address.removeprefix("http://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode())
        self.text = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def read(self) -> bool:
        """Read what there is; false at the end."""
        received = self.socket.recv(65536)
        self.text += received.decode()
        return bool(received)

    def messages(self, kind: str) -> list[dict]:
        blocks = [dict(line.split(": ", 1) for line in block.splitlines() if ": " in line) for block in self.blocks()]
        return [json.loads(block["data"]) for block in blocks if block.get("event") == kind]

    def blocks(self) -> list[str]:
        body = self.text.partition("\r\n\r\n")[2].replace("\r\n", "\n")
        return [block for block in body.split("\n\n") if block.strip()]

    def wait(self, kind: str, count: int = 1) -> list[dict]:
        end = time.monotonic() + 15
        while len(self.messages(kind)) < count:
            assert time.monotonic() < end, self.text[-2000:]
            assert self.read(), self.text[-2000:]
        return self.messages(kind)


@pytest.fixture
def shown():
    shown = Shown()
    shown.reporter.camera_added(CameraConfig(id="yard", name="The yard", url="rtsp://camera/x"))
    return shown


@pytest.fixture
def address(shown):
    with served(shown) as address:
        yield address


def say(shown, number=0):
    told = Alert(f"alert-{number}", 0, "yard", "fight", Phase.STARTED, 0.0, "topic", (), b"{}")
    shown.feed.news.note_alert(told)


def test_a_browser_is_told_the_state_and_what_changes(address, shown):
    with Listener(address) as listener:
        (camera,) = listener.wait("camera")
        assert (camera["id"], camera["condition"]) == ("yard", "connecting")
        (monitor,) = listener.wait("monitor")
        assert monitor["instance"] == "test"
        assert "text/event-stream" in listener.text
        shown.reporter.status(CameraStatus("yard", CameraState.ONLINE, 1.0))
        assert listener.wait("camera", 2)[-1]["condition"] == "online"
        shown.feed.history.note(make_score(3, 0.7), {"fight": 0.7})
        (scores,) = listener.wait("scores")
        (window,) = scores["windows"]
        assert (window["camera"], window["end"], window["scores"]) == ("yard", 2.0, {"fight": 0.7})
        assert len(window["attention"]) == 8
        say(shown)
        assert listener.wait("alert") == [
            {"alert_id": "alert-0", "camera": "yard", "label": "fight", "phase": "started"}
        ]


def test_who_looks_on_is_counted_and_told_that_a_camera_is_gone(shown):
    shown.reporter.camera_added(CameraConfig(id="gate", url="rtsp://camera/y"))
    page = Page(shown, shown.feed)
    server = WebServer(page, host="127.0.0.1", port=0)
    with Listener(server.start()) as listener:
        assert listener.wait("cameras") == [{"ids": ["yard", "gate"]}]
        assert page.onlookers == 1
        shown.reporter.camera_removed("yard")
        assert listener.wait("cameras", 2)[-1] == {"ids": ["gate"]}
    server.stop(Deadline(5))
    assert page.onlookers == 0


def test_who_comes_later_is_told_which_cameras_are_watched(address):
    with Listener(address) as first:
        first.wait("cameras")
        with Listener(address) as second:
            assert second.wait("cameras") == [{"ids": ["yard"]}]


def test_what_does_not_change_is_not_told(address, shown):
    with Listener(address) as listener:
        listener.wait("monitor")
        shown.feed.history.note(make_score(3, 0.7), {"fight": 0.7})
        listener.wait("scores")
        assert [len(listener.messages(kind)) for kind in ("camera", "cameras", "monitor")] == [1, 1, 1]


def test_who_comes_back_is_told_what_he_has_missed(address, shown):
    with Listener(address) as listener:
        listener.wait("monitor")
        say(shown, 1)
        listener.wait("alert")
        last = [line for line in listener.text.splitlines() if line.startswith("id: ")][-1].removeprefix("id: ")
    say(shown, 2)
    with Listener(address, headers=f"Last-Event-ID: {last}\r\n") as listener:
        assert [told["alert_id"] for told in listener.wait("alert")] == ["alert-2"]
        assert not listener.messages("reset")
    with Listener(address, f"/api/v1/events?after={last}") as listener:
        assert [told["alert_id"] for told in listener.wait("alert")] == ["alert-2"]


@pytest.mark.parametrize("last", ["0badf00d-7", "rubbish", "-", "x-\xb2"])
def test_who_comes_from_another_run_begins_anew(last, address, shown):
    say(shown)
    with Listener(address, headers=f"Last-Event-ID: {last}\r\n") as listener:
        assert listener.wait("reset") == [{}]
        assert not listener.messages("alert")


def test_a_silent_stream_is_kept_alive(monkeypatch, address):
    monkeypatch.setattr(stream, "KEEP_ALIVE_SECONDS", 0.2)
    with Listener(address) as listener:
        end = time.monotonic() + 10
        while ": still here" not in listener.text and time.monotonic() < end:
            listener.read()
        assert ": still here" in listener.text


def test_a_client_that_does_not_keep_up_begins_anew():
    async def behind():
        client = stream.Client()
        client.offer([b"old"] * stream.MOST_WAITING)
        client.offer([b"new"])
        return await client.take()

    assert asyncio.run(behind()) == b"event: reset\ndata: {}\n\n"


def test_a_client_that_takes_nothing_loses_its_place_and_the_others_are_told(monkeypatch, shown):
    monkeypatch.setattr(stream, "SEND_SECONDS", 0.5)
    monkeypatch.setattr(stream, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(stream, "MOST_CLIENTS", 2)
    large = {f"label-{number}": 0.5 for number in range(400)}
    with served(shown) as address, Listener(address) as stuck, Listener(address) as other:
        stuck.wait("monitor")  # and not a word more
        other.wait("monitor")
        end, windows = time.monotonic() + 60, 0
        while not is_taken(address):
            assert time.monotonic() < end
            for _ in range(100):
                windows += 1
                shown.feed.history.note(make_score(windows, 0.5), large)
            assert other.socket.recv(1 << 22)


def is_taken(address: str) -> bool:
    """Whether there is a place for one more."""
    with Listener(address) as listener:
        listener.read()
        return listener.text.startswith("HTTP/1.1 200")


def test_too_many_are_turned_away(monkeypatch, address):
    monkeypatch.setattr(stream, "MOST_CLIENTS", 1)
    with Listener(address) as first:
        first.wait("monitor")
        with Listener(address) as second:
            while "Too many" not in second.text and second.read():
                pass
            assert second.text.startswith("HTTP/1.1 503")
            assert "Too many look on already." in second.text
    end = time.monotonic() + 10
    while not is_taken(address):
        assert time.monotonic() < end, "the place was not given back"


def test_an_error_in_a_look_is_told_and_the_stream_goes_on(address, shown, monkeypatch):
    with Listener(address) as listener:
        listener.wait("monitor")
        with monkeypatch.context() as broken, capture_logs() as lines:
            broken.setattr(stream, "TICK_SECONDS", 0.02)
            broken.setattr(shown.reporter, "cameras", lambda: 1 / 0)
            time.sleep(1.0)
        assert [line["event"] for line in lines] == ["page_not_updated"], "once, however often it is tried"
        say(shown)
        listener.wait("alert")


def test_it_stops_in_time_while_browsers_look_on_and_one_takes_nothing(shown):
    server = WebServer(Page(shown, shown.feed), host="127.0.0.1", port=0)
    address = server.start()
    listeners = [Listener(address) for _ in range(20)]
    for listener in listeners[1:]:
        listener.wait("monitor")
    began = time.monotonic()
    server.stop(Deadline(4))
    assert time.monotonic() - began < 3.0
    for listener in listeners:
        with closing(listener.socket):
            while listener.read():
                pass
            assert listener.text.endswith("0\r\n\r\n"), "the answer is complete"
