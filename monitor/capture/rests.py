"""The packets of a camera as they come; how long the next ones may be left to gather, out.

To read and decode a few packets in a row costs less than to wake for each, and finds the processor's caches warm. So
they are left alone where nobody waits for them:

    idle       nothing is decoded, save a keyframe now and then
    awake      the sample of this slot of the grid is taken, and the next slot is some way off

Not where they would go lost or come late: over UDP, or for longer than the kernel keeps what comes; where the stream
tells no timestamps, so that packets that gathered count as seen when they were read; before all that had come is read.
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
GROWTH = 4.0
"""So many times what came in the last second may come in the next: things begin to move."""
TOOK_WEIGHT = 0.1


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
        self._took_seconds = 0.0
        """What a packet takes, in the mean."""
        self.begin(0)

    def begin(self, room_bytes: int) -> None:
        """Count anew for a new connection.

        Args:
            room_bytes: for how much that is not read there is room.
        """
        self._room_bytes = room_bytes
        self._largest_bytes = 0
        self._bytes = 0
        self._counted_from = 0.0
        """Where in the stream the count of bytes began."""
        self._bytes_per_second = math.inf
        self._rested_from = 0.0
        """Where in the stream the last rest of an idle camera began."""

    def after(self, arrived: Arrived, *, waited_seconds: float, took_seconds: float, now_seconds: float) -> float:
        """Return for how many seconds to leave the stream alone, now that a packet has been dealt with; mostly 0.

        Args:
            arrived: the packet.
            waited_seconds: how long it had to be waited for.
            took_seconds: how long it took to be dealt with.
            now_seconds: host clock, as the sampling grid.
        """
        self._count(arrived.packet.size)
        self._took_seconds += TOOK_WEIGHT * (took_seconds - self._took_seconds)
        if waited_seconds < WAITED_SECONDS or arrived.seconds is None or not self._intake.clock.knows_delay:
            return 0.0
        most = min(LONGEST_SECONDS, (self._room_bytes - self._largest_bytes) / (GROWTH * self._bytes_per_second))
        rest = self._idle(arrived, now_seconds) if self._intake.rests else self._awake(now_seconds)
        rest = min(rest, most)
        return rest if rest >= self._intake.frame_seconds else 0.0  # it would only be woken once more

    def _awake(self, now_seconds: float) -> float:
        """Return how long to rest so that all that comes before the next slot can be dealt with before it."""
        ahead = self._intake.next_slot_seconds - self._early_seconds - now_seconds
        return ahead * (1.0 - self._took_seconds / self._intake.frame_seconds)

    def _idle(self, arrived: Arrived, now_seconds: float) -> float:
        """Return how long to rest where all that gathered in the last rest was read; that too may be waited for."""
        late = now_seconds - self._intake.clock.expected(arrived.seconds, arrived.received_seconds)
        if not late <= LONGEST_SECONDS <= self._intake.stream_seconds - self._rested_from:
            return 0.0
        self._rested_from = self._intake.stream_seconds
        return LONGEST_SECONDS

    def _count(self, size_bytes: int) -> None:
        """Keep how much comes: the largest packet, and the bytes of a second of the stream."""
        self._largest_bytes = max(self._largest_bytes, size_bytes)
        self._bytes += size_bytes
        seconds = self._intake.stream_seconds - self._counted_from
        if seconds >= 1.0:
            self._bytes_per_second = self._bytes / seconds
            self._bytes, self._counted_from = 0, self._intake.stream_seconds
