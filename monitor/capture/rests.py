"""The packets of a camera as they come; how long the next ones may be left to gather, out.

To read and decode a few packets in a row costs less than to wake for each, and finds the processor's caches warm. So
they are left alone where nobody waits for them:

    idle       nothing is decoded, save a keyframe now and then
    awake      the sample of this slot of the grid is taken, and the next slot is some way off

Not where they would go lost or come late: over UDP, or for longer than the kernel keeps what comes; where the stream's
timestamps are missing or do not keep the pace at which it comes, so that packets that gathered would count as seen when
they were read; before all that had come is read.
"""

from __future__ import annotations

import math

from monitor.capture.arrival import Arrived
from monitor.capture.intake import Intake

LONGEST_SECONDS = 0.3
"""An idle camera is seen to move by so much later."""
STAGGER_SLOTS = 0.25
"""In slots of the grid: an awake camera's rests end before the next slot by a time of its own, up to this; else all
cameras of a machine would decode at once."""
WAITED_SECONDS = 0.002
"""Who waited so long for a packet has read all that had come."""
PERIOD_SECONDS = 2.0
"""Of the stream: so long it is looked at for its pace and its bytes."""
PACE_ERROR = 0.02
"""Timestamps may run so much faster or slower than the packets come. Some demuxers invent them, at 25 a second."""
GROWTH = 4.0
"""So many times what came in the last period may come in this one: things begin to move."""
LARGEST_DECAY = 0.95
"""What is left of the largest packet's size after a period."""
TOOK_WEIGHT = 0.1
KEYFRAME_WEIGHT = 0.3


class Rests:
    """When one camera's packets may gather. Used by one thread; outlives connections.

    Args:
        intake: takes the packets.
        sample_fps: slots of the sampling grid a second.
        stagger: the camera's own share of STAGGER_SLOTS, in [0, 1].
    """

    def __init__(self, intake: Intake, *, sample_fps: float, stagger: float) -> None:
        self._intake = intake
        self._early_seconds = stagger * STAGGER_SLOTS / sample_fps
        self.begin(0)

    def begin(self, room_bytes: int) -> None:
        """Count anew for a new connection.

        Args:
            room_bytes: for how much that is not read there is room.
        """
        self._room_bytes = room_bytes
        self._largest_bytes = 0.0
        self._bytes_per_second = math.inf
        self._took_seconds: float | None = None
        """What a packet takes in the mean, of those that had gathered and were no keyframes; others take no less."""
        self._keyframe_seconds: float | None = None
        """What a keyframe takes in the mean."""
        self._keyframe_at: float | None = None
        """Where in the stream the last one was."""
        self._keyframe_due = 0.0
        """Where in the stream the next one may come: as far behind the last one as that was behind the one before."""
        self._rested_from = 0.0
        """Where in the stream the last rest of an idle camera began."""
        self._keeps_pace = False
        self._delay_before = math.inf
        """The least of received - timestamp in the period before this one."""
        self._begun_at = self._intake.stream_seconds
        self._bytes = 0
        self._least_delay = math.inf

    def after(self, arrived: Arrived, *, waited_seconds: float, took_seconds: float, now_seconds: float) -> float:
        """Return for how many seconds to leave the stream alone, now that a packet has been dealt with; mostly 0.

        Args:
            arrived: the packet.
            waited_seconds: how long it had to be waited for; 0 where others that were read still wait themselves.
            took_seconds: how long it took to be dealt with.
            now_seconds: host clock, as the sampling grid.
        """
        self._count(arrived, waited_seconds, took_seconds)
        if waited_seconds < WAITED_SECONDS or not self._keeps_pace:
            return 0.0
        most = min(LONGEST_SECONDS, (self._room_bytes - self._largest_bytes) / (GROWTH * self._bytes_per_second))
        rest = self._idle(arrived, now_seconds) if self._intake.rests else self._awake(now_seconds, took_seconds)
        rest = min(rest, most)
        return rest if rest >= self._intake.frame_seconds else 0.0  # it would only be woken once more

    def _awake(self, now_seconds: float, newest_took_seconds: float) -> float:
        """Return how long to rest so that all that comes before the next slot is dealt with before it.

        Some of it may have come while the newest packet was dealt with.
        """
        took, keyframe = self._took_seconds or 0.0, self._keyframe_seconds or 0.0
        ahead = self._intake.next_slot_seconds - self._early_seconds - now_seconds
        if ahead <= 0.0:
            return 0.0
        work = (newest_took_seconds + ahead) * took / self._intake.frame_seconds
        if self._intake.stream_seconds + ahead + self._intake.frame_seconds >= self._keyframe_due:
            work += max(0.0, keyframe - took)
        return ahead - work

    def _idle(self, arrived: Arrived, now_seconds: float) -> float:
        """Return how long to rest where all that gathered in the last rest was read; that too may be waited for."""
        late = now_seconds - self._intake.clock.expected(arrived.seconds, arrived.received_seconds)
        if not late <= LONGEST_SECONDS <= self._intake.stream_seconds - self._rested_from:
            return 0.0
        self._rested_from = self._intake.stream_seconds
        return LONGEST_SECONDS

    def _count(self, arrived: Arrived, waited_seconds: float, took_seconds: float) -> None:
        """Keep how much comes and at what pace, and how long it takes."""
        if arrived.packet.is_keyframe:
            at = self._intake.stream_seconds
            self._keyframe_due = at if self._keyframe_at is None else 2.0 * at - self._keyframe_at
            self._keyframe_at = at
        if self._intake.rests:  # then it was only kept
            pass
        elif arrived.packet.is_keyframe:
            self._keyframe_seconds = _nearer(self._keyframe_seconds, took_seconds, KEYFRAME_WEIGHT)
        elif self._took_seconds is None or waited_seconds < WAITED_SECONDS or took_seconds < self._took_seconds:
            self._took_seconds = _nearer(self._took_seconds, took_seconds, TOOK_WEIGHT)
        self._largest_bytes = max(self._largest_bytes, arrived.packet.size)
        self._bytes += arrived.packet.size
        if arrived.seconds is not None:
            self._least_delay = min(self._least_delay, arrived.received_seconds - arrived.seconds)
        seconds = self._intake.stream_seconds - self._begun_at
        if seconds >= PERIOD_SECONDS:
            self._bytes_per_second = self._bytes / seconds
            self._largest_bytes *= LARGEST_DECAY
            known = math.isfinite(self._least_delay) and math.isfinite(self._delay_before)
            self._keeps_pace = known and abs(self._least_delay - self._delay_before) <= PACE_ERROR * seconds
            self._delay_before, self._least_delay = self._least_delay, math.inf
            self._bytes, self._begun_at = 0, self._intake.stream_seconds


def _nearer(mean: float | None, value: float, weight: float) -> float:
    """Return a running mean that has come nearer to a new value."""
    return value if mean is None else mean + weight * (value - mean)
