"""The process' signals in, two calls out: stop, and read everything anew; before anything runs, the end or a note."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_while_loading() -> Iterator[threading.Event]:
    """End at once on SIGTERM; keep a SIGHUP for later: the event given is set then.

    By itself SIGHUP would end the program, and to the first process of a container SIGTERM would do nothing at all.
    """
    reload_asked = threading.Event()

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    def remember(_number: int, _frame: FrameType | None) -> None:
        reload_asked.set()

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, leave)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, remember)
    try:
        yield reload_asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_told(ask_to_stop: Callable[[], None], ask_to_reload: Callable[[], None]) -> Iterator[None]:
    """Stop on the first SIGINT or SIGTERM, end at once on the second; read everything anew on SIGHUP."""
    asked = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            os._exit(1)  # a second signal means now; capture's processes end with our end of their pipe
        asked.set()
        ask_to_stop()

    def handle_reload(_number: int, _frame: FrameType | None) -> None:
        ask_to_reload()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, handle_reload)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
