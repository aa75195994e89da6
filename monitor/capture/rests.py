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
LATE_SECONDS = 0.04
"""A packet that is received later by more than this, and by more than a picture, had gathered."""
PERIOD_SECONDS = 2.0
"""Of the stream: so long it is looked at for its pace and its bytes."""
PACE_ERROR = 0.02
"""Timestamps may run so much faster or slower than the packets come. Some demuxers invent them, at 25 a second."""
GROWTH = 4.0
"""So many times what came in the last period may come in this one: things begin to move."""
DECAY = 0.95
"""What is left after a period of what was known of a large packet: its size, and how long it took."""
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
        """What a packet that had gathered takes in the mean, save keyframes; others count where they took less."""
        self._keyframe_seconds: float | None = None
        """What a keyframe takes in the mean."""
        self._keyframe_at = 0.0
        """Where in the stream the last one was."""
        self._keyframe_spacing = 0.0
        """How far behind the one before; 0 before there were two."""
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
        late = self._late(arrived)
        # On a busy machine a packet that has come may have to be waited for too.
        had_gathered = waited_seconds < WAITED_SECONDS or late > max(self._intake.frame_seconds, LATE_SECONDS)
        self._count(arrived, took_seconds, had_gathered=had_gathered)
        if had_gathered or not self._keeps_pace:
            return 0.0
        rest = LONGEST_SECONDS if self._intake.rests else self._awake(now_seconds, late + took_seconds)
        rest = min(rest, LONGEST_SECONDS, self._room_seconds)
        return rest if rest >= self._intake.frame_seconds else 0.0  # it would only be woken once more

    @property
    def _room_seconds(self) -> float:
        return (self._room_bytes - self._largest_bytes) / (GROWTH * self._bytes_per_second)

    def _late(self, arrived: Arrived) -> float:
        """Return by how much later a packet was received than the fastest one of this period and the last."""
        if arrived.seconds is None:
            return math.inf
        delay = arrived.received_seconds - arrived.seconds
        return max(0.0, delay - min(self._delay_before, self._least_delay))

    def _awake(self, now_seconds: float, behind_seconds: float) -> float:
        """Return how long to rest so that all that comes before the next slot is dealt with before it.

        Some of it has come since the newest packet had: `behind_seconds`.
        """
        took, keyframe = self._took_seconds or 0.0, self._keyframe_seconds or 0.0
        ahead = self._intake.next_slot_seconds - self._early_seconds - now_seconds
        if ahead <= 0.0:
            return 0.0
        work = (behind_seconds + ahead) * took / self._intake.frame_seconds
        return ahead - work - self._keyframes_within(ahead) * max(0.0, keyframe - took)

    def _keyframes_within(self, seconds: float) -> int:
        """Return how many keyframes may come, if they come as far apart as the last two did."""
        now = self._intake.stream_seconds
        until, due = now + seconds + self._intake.frame_seconds, self._keyframe_at + self._keyframe_spacing
        if until < due:
            return 0
        return 1 + int((until - max(now, due)) / self._keyframe_spacing) if self._keyframe_spacing else 1

    def _count(self, arrived: Arrived, took_seconds: float, *, had_gathered: bool) -> None:
        """Keep how much comes and at what pace, and how long it takes."""
        is_kept_only = self._intake.rests
        if arrived.packet.is_keyframe:
            at = self._intake.stream_seconds
            self._keyframe_spacing = 0.0 if self._keyframe_seconds is None else at - self._keyframe_at
            self._keyframe_at = at
            if not is_kept_only:
                self._keyframe_seconds = _nearer(self._keyframe_seconds, took_seconds, KEYFRAME_WEIGHT)
        elif not is_kept_only and (had_gathered or self._took_seconds is None or took_seconds < self._took_seconds):
            self._took_seconds = _nearer(self._took_seconds, took_seconds, TOOK_WEIGHT)
        self._largest_bytes = max(self._largest_bytes, arrived.packet.size)
        self._bytes += arrived.packet.size
        if arrived.seconds is not None:
            self._least_delay = min(self._least_delay, arrived.received_seconds - arrived.seconds)
        seconds = self._intake.stream_seconds - self._begun_at
        if seconds >= PERIOD_SECONDS:
            self._bytes_per_second = self._bytes / seconds
            self._largest_bytes *= DECAY
            if self._keyframe_seconds is not None:
                self._keyframe_seconds *= DECAY
            known = math.isfinite(self._least_delay) and math.isfinite(self._delay_before)
            self._keeps_pace = known and abs(self._least_delay - self._delay_before) <= PACE_ERROR * seconds
            self._delay_before, self._least_delay = self._least_delay, math.inf
            self._bytes, self._begun_at = 0, self._intake.stream_seconds


def _nearer(mean: float | None, value: float, weight: float) -> float:
    """Return a running mean that has come nearer to a new value."""
    return value if mean is None else mean + weight * (value - mean)
