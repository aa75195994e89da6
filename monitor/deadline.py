"""One budget of time for a sequence of steps: every step takes what is left."""

from __future__ import annotations

import time


class Deadline:
    """A moment after which nobody waits any more.

    Args:
        seconds: how long from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self, *, at_most: float | None = None) -> float:
        """Return the seconds left, never below 0, capped by `at_most`."""
        left = max(0.0, self._end - time.monotonic())
        return left if at_most is None else min(left, at_most)

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        return self.remaining() == 0.0
