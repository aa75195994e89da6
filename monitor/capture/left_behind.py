"""Threads that were told to end in; how many have not, since when, and who may not begin another, out.

FFmpeg cannot be interrupted from outside without slowing every read, and a camera that sends reports but no pictures
keeps it reading for ever. So a thread that is overdue is left behind, muted, and a new one takes over; it ends by
itself with the next picture, or when its server loses patience with a client that says nothing. A stream that has lost
several threads waits for one of them. A thread that has ended without being told to, for want of memory say, is
replaced too.
"""

from __future__ import annotations

import threading
import time

from monitor.errors import SourceFailed
from monitor.records import FailureReason

STUCK_PER_STREAM = 3
"""With so many threads of a stream lost in FFmpeg, no further one is begun before one of them comes back. They do with
its next picture, or when its server or the network gives them up."""


class LeftBehind:
    """The threads of a capture process that were told to end and have not yet. A stream's threads have its name."""

    def __init__(self) -> None:
        self._left: list[tuple[threading.Thread, float]] = []

    def add(self, thread: threading.Thread) -> None:
        """Take a thread that has been told to end."""
        self._left.append((thread, time.monotonic()))

    def sweep(self) -> None:
        """Let go of those that have ended."""
        self._left = [(thread, since) for thread, since in self._left if thread.is_alive()]

    def may_begin(self, name: str) -> bool:
        """Whether a stream may have another thread of this name."""
        return sum(thread.name == name for thread, _ in self._left) < STUCK_PER_STREAM

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._left)

    @property
    def longest_seconds(self) -> float:
        """How long ago the first of them was told to end; 0 without any."""
        return max((time.monotonic() - since for _, since in self._left), default=0.0)


def ended_by_itself(camera: str, thread: threading.Thread) -> SourceFailed | None:
    """Return the failure of a camera whose thread has ended although nobody told it to."""
    return None if thread.is_alive() else SourceFailed(camera, FailureReason.INTERNAL, "its thread ended")
