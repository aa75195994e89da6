"""What changes in the running monitor in; server-sent events to every browser that looks on out.

One task looks at the monitor twice a second while there is anybody to tell, and writes each message once for all.
A client that does not keep up loses what waits for it and is told to begin anew; one that takes nothing at all is
disconnected. https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from monitor.telemetry.logs import Said
from monitor.web.answers import CameraAnswer, MonitorAnswer
from monitor.web.feed import Feed
from monitor.web.history import ScoredWindow
from monitor.web.news import Item
from monitor.web.view import View

log = structlog.get_logger()

TICK_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0
"""A comment after so much silence: proxies close connections that are silent for longer."""
SEND_SECONDS = 20.0
"""A client that takes nothing for so long is gone."""
MOST_WAITING = 64
"""Messages that may wait for one client, half a minute's; beyond it they are dropped and it begins anew."""
MOST_CLIENTS = 500
KEEP_ALIVE = b": still here\n\n"


class Client:
    """One browser. Lives in the server's thread."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._ended = False

    def offer(self, messages: Sequence[bytes]) -> None:
        """Leave messages to be sent; never waits."""
        if not messages:
            return
        if self._waiting and len(self._waiting) + len(messages) > MOST_WAITING:
            self._waiting.clear()
            messages = [encoded("reset", {})]
        self._waiting.extend(messages)
        self._changed.set()

    def end(self) -> None:
        """Send what waits, and no more."""
        self._ended = True
        self._changed.set()

    async def take(self) -> bytes | None:
        """Wait for something to send; None at the end."""
        if not self._waiting and not self._ended:
            self._changed.clear()
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                return KEEP_ALIVE
        if self._waiting:
            together = b"".join(self._waiting)
            self._waiting.clear()
            return together
        return None


@dataclass(frozen=True, slots=True)
class _Look:
    """How far a look at the monitor has come, and what is new since the one before."""

    windows_serial: int
    news_serial: int
    state: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Kind and id to what was told last."""
    messages: Sequence[bytes] = ()


class Broadcaster:
    """Tells every client what changes. Lives in the server's thread, but for `close`.

    Args:
        view: the running monitor.
        feed: what the page remembers.
    """

    def __init__(self, view: View, feed: Feed) -> None:
        self._view = view
        self._feed = feed
        self._clients: set[Client] = set()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._last = _Look(0, 0)

    @property
    def count(self) -> int:
        """How many clients are told; from any thread."""
        return len(self._clients)

    @property
    def full(self) -> bool:
        """Whether no further client is taken."""
        return self._closed or len(self._clients) >= MOST_CLIENTS

    def join(self, last_event_id: str) -> Client:
        """Take a client in, and tell it the state of everything and the news that it has missed."""
        client = Client()
        if not self._clients:
            self._loop = asyncio.get_running_loop()
            self._last = _Look(self._feed.history.serial, self._feed.news.serial)
            self._task = asyncio.create_task(self._run())
        self._clients.add(client)
        client.offer([b"retry: 2000\n\n", *self._missed(last_event_id), *map(_state, self._last.state.items())])
        return client

    def leave(self, client: Client) -> None:
        """Forget a client; the last one ends the task."""
        self._clients.discard(client)
        if not self._clients and self._task is not None:
            self._task.cancel()
            self._task = None

    def close(self) -> None:
        """End every stream, and take no further client; from any thread."""
        self._closed = True
        loop = self._loop
        if loop is not None and loop.is_running():
            loop.call_soon_threadsafe(self._end_all)

    def _end_all(self) -> None:
        for client in self._clients:
            client.end()

    async def _run(self) -> None:
        said = Said()
        while True:
            try:
                self._last = await run_in_threadpool(self._look, self._last)
            except Exception as exc:  # top of the task: told, and looked again; the page must not take anything down
                error = f"{type(exc).__name__}: {exc}"
                if said.changes("page", error):
                    log.error("page_not_updated", error=error)
            else:
                said.changes("page", "")
                for client in self._clients:
                    client.offer(self._last.messages)
            await asyncio.sleep(TICK_SECONDS)

    def _look(self, last: _Look) -> _Look:
        """Look at the monitor, and say what has changed."""
        cameras = {f"camera {view.id}": CameraAnswer.of(view) for view in self._view.cameras()}
        state = {name: answer.model_dump(mode="json", exclude={"last_frame"}) for name, answer in cameras.items()}
        state["cameras"] = {"ids": [camera["id"] for camera in state.values()]}
        state["monitor"] = MonitorAnswer.of(self._view.monitor()).model_dump(mode="json")
        messages = [_state(told) for told in state.items() if last.state.get(told[0]) != told[1]]
        serial, windows = self._feed.history.after(last.windows_serial)
        if windows:
            messages.append(encoded("scores", {"windows": [_window(window) for window in windows]}))
        news = self._feed.news.after(last.news_serial) or ()
        messages += map(self._item, news)
        return _Look(serial, max((item.serial for item in news), default=last.news_serial), state, messages)

    def _missed(self, last_event_id: str) -> list[bytes]:
        run, _, serial = last_event_id.partition("-")
        if not last_event_id:
            return []
        missed = self._feed.news.after(int(serial)) if run == self._feed.news.run and serial.isdecimal() else None
        if missed is None:
            return [encoded("reset", {})]
        return [self._item(item) for item in missed if item.serial <= self._last.news_serial]

    def _item(self, item: Item) -> bytes:
        return encoded(item.kind, item.told, event_id=f"{self._feed.news.run}-{item.serial}")


class EventStream(Response):
    """An answer without an end: what a client is told, as long as it takes it."""

    media_type = "text/event-stream"

    def __init__(self, client: Client, leave: Callable[[Client], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._client = client
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client leaves, hangs, or the server ends."""
        listening = asyncio.create_task(self._listen(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while (chunk := await self._client.take()) is not None:
                async with asyncio.timeout(SEND_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.info("page_client_dropped", reason=f"it took nothing for {SEND_SECONDS:g} s")
        finally:
            listening.cancel()
            self._leave(self._client)

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._client.end()


def encoded(kind: str, told: Mapping[str, Any], *, event_id: str = "") -> bytes:
    """Return a message as it is sent; JSON has no line breaks of its own."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {kind}\ndata: {json.dumps(told, separators=(',', ':'))}\n\n".encode()


def _state(told: tuple[str, Mapping[str, Any]]) -> bytes:
    return encoded(told[0].partition(" ")[0], told[1])


def _window(window: ScoredWindow) -> dict[str, Any]:
    return {
        "camera": window.camera,
        "end": round(window.end_seconds, 3),
        "seconds": round(window.window_seconds, 3),
        "scores": {label: round(score, 4) for label, score in window.scores.items()},
        "attention": [round(weight, 3) for weight in window.attention],
    }
