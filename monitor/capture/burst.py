"""Packets as they come in; the same packets out, those that waited on their way only when their delay is known.

A server sends the pictures since its last keyframe at once to whoever connects, FFmpeg reads ahead while it opens a
stream, and a network that stood still lets everything go together. The first packet of such a burst is its oldest, and
nothing about it says so: only the pace of those behind it does. Dated at once, it would count as seen when it arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from monitor.capture.arrival import Arrived
from monitor.capture.sampler import JUMP_SECONDS, StreamClock
from monitor.errors import SourceFailed
from monitor.records import FailureReason

PACE_SECONDS = 0.2
"""A burst is over when the packets of so long a time have come at the stream's own pace."""
BURST_PACE = 2.0
"""Packets that come so many times faster than their timestamps say are a burst, and those that come so much slower are
late, with a burst behind them; timestamps may be wrong by less."""
MOST_SECONDS = 1.0
MOST_BYTES = 32 * 2**20
"""However long a burst, so much is held at most. Whoever waits for pictures meanwhile must be more patient."""


def settled(packets: Iterable[Arrived], clock: StreamClock) -> Iterator[Arrived]:
    """Yield packets in their order; hold those of unknown delay until they come at the stream's own pace.

    They are the first ones of a connection, those that come late, and those behind a jump of the timestamps.
    What the burst tells of the least delay, `clock` has learnt when its first packet is yielded.

    Args:
        packets: as they arrive.
        clock: dates the frames of these packets.

    Raises:
        SourceFailed: as `packets` does; what was held is lost then, unless the stream came to its end.
    """
    burst: _Burst | None = _Burst()
    try:
        for arrived in packets:
            if burst is not None and burst.breaks_off_before(arrived):
                yield from burst.end(clock)
                burst = _Burst()
            if burst is None and clock.doubts(arrived.seconds, arrived.received_seconds):
                burst = _Burst()
            if burst is None:
                yield arrived
                continue
            burst.add(arrived)
            if burst.over:
                yield from burst.end(clock)
                burst = None
    except SourceFailed as exc:
        if burst is not None and exc.reason is FailureReason.ENDED:
            yield from burst.end(clock)
        raise


class _Burst:
    """Packets that may have waited on their way."""

    def __init__(self) -> None:
        self._held: list[Arrived] = []
        self._bytes = 0
        self._least: float | None = None
        self._first: float | None = None
        """The first timestamp."""
        self._newest: tuple[float, float] | None = None
        """(received, timestamp) of the last packet that has one."""
        self._before = (0.0, 0.0)
        """The one before it."""
        self._past: deque[tuple[float, float]] = deque()
        """(received, timestamp) of the last PACE_SECONDS, and one before them."""

    def breaks_off_before(self, arrived: Arrived) -> bool:
        """Whether the delay jumps here: what comes next tells nothing of the delay before."""
        if arrived.seconds is None or self._newest is None:
            return False
        waited, told = _apart(self._newest, (arrived.received_seconds, arrived.seconds))
        return abs(waited - told) > JUMP_SECONDS

    def add(self, arrived: Arrived) -> None:
        self._held.append(arrived)
        self._bytes += arrived.packet.size
        seconds, received = arrived.seconds, arrived.received_seconds
        if seconds is None:
            return
        self._first = seconds if self._first is None else self._first
        delay = received - seconds
        self._least = delay if self._least is None else min(self._least, delay)
        self._before = self._newest or (received, seconds)
        self._newest = (received, seconds)
        self._past.append(self._newest)
        while len(self._past) > 1 and received - self._past[1][0] >= PACE_SECONDS:
            self._past.popleft()

    @property
    def over(self) -> bool:
        """Whether the packets come at their own pace by now, or can be held no longer."""
        held_seconds = self._held[-1].received_seconds - self._held[0].received_seconds
        if not 0.0 <= held_seconds < MOST_SECONDS or self._bytes >= MOST_BYTES:
            return True
        if self._newest is None:
            return held_seconds >= PACE_SECONDS
        waited, told = _apart(self._past[0], self._newest)
        last_waited, last_told = _apart(self._before, self._newest)
        at_pace = told <= BURST_PACE * waited and waited <= BURST_PACE * told
        return waited >= PACE_SECONDS and at_pace and last_told <= BURST_PACE * last_waited

    def end(self, clock: StreamClock) -> Iterator[Arrived]:
        """Tell the clock, and let the packets go."""
        if self._least is not None and self._newest is not None and self._first is not None:
            clock.learn(self._least, first_pts_seconds=self._first, received_seconds=self._newest[0])
        yield from self._held


def _apart(one: tuple[float, float], two: tuple[float, float]) -> tuple[float, float]:
    """Return the seconds between two arrivals, and between their timestamps."""
    return two[0] - one[0], two[1] - one[1]
