"""Work of one thread in, the same to another thread out, in order: the seam between two stages that overlap."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Work = TypeVar("Work")

TICK_SECONDS = 0.5


class HandOver(Generic[Work]):
    """One place between two threads. Whoever puts waits while it is taken; both ends can be closed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._place: list[Work] = []
        self._busy = False
        self._ended = False
        self._closed = False

    @property
    def count(self) -> int:
        """How much has been put and is not done."""
        with self._changed:
            return len(self._place) + self._busy

    def put(self, work: Work) -> bool:
        """Wait for the place and put something there; false when the other side has closed."""
        with self._changed:
            while self._place and not self._closed:
                self._changed.wait(TICK_SECONDS)
            if self._closed:
                return False
            self._place.append(work)
            self._changed.notify_all()
        return True

    def take(self) -> Work | None:
        """Wait for something; None once the putting side has ended and all is taken, or this side has closed."""
        with self._changed:
            while not self._place and not self._ended and not self._closed:
                self._changed.wait(TICK_SECONDS)
            if self._closed or not self._place:
                return None
            self._busy = True
            work = self._place.pop()
            self._changed.notify_all()
        return work

    def done(self) -> None:
        """Say that what was taken is done."""
        with self._changed:
            self._busy = False

    def end(self) -> None:
        """Say that nothing more will be put."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> list[Work]:
        """Take nothing more; return what lay there."""
        with self._changed:
            self._closed = True
            left, self._place = self._place, []
            self._changed.notify_all()
        return left
