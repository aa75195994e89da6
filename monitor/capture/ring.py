"""Packets of one camera as they come in; those of the last seconds, from any keyframe on, out to whoever asks.

The ring is what a past can be made of after the fact: clips and pictures of an event, and the frames before a gate
woke. It holds whole groups of pictures, so whatever is taken out begins with a keyframe and can be decoded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from av.packet import Packet
from av.video.stream import VideoStream

from monitor.capture.arrival import seconds_of_ticks

JUMP_SECONDS = 2.0
"""A timestamp that is this much further on than the arrival explains begins a new segment."""
STEP_BACK_SECONDS = 1.0
"""So does one that goes back by more than reordering does."""
DATED_PACKETS = 32
"""How far back a decoded frame's packet is looked for."""


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """What a decoder or a muxer has to know of a stream."""

    codec: str
    """FFmpeg's name of the decoder."""
    extradata: bytes
    """The codec's header where it stands apart from the packets; may be empty."""
    time_base: Fraction
    """Seconds of one tick of the packets' timestamps."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A piece of a stream without a break: one connection, or less where its timestamps jump.

    Compared by identity.
    """

    format: StreamFormat


@dataclass(frozen=True, slots=True)
class RingPacket:
    """One compressed picture with its times."""

    serial: int
    """Counts the packets of the ring, those included that it could not hold."""
    segment: Segment
    payload: bytes
    pts: int
    """In ticks of the segment's time base; made of the arrival where the stream tells none."""
    dts: int | None
    """Likewise; None where the stream tells none."""
    is_keyframe: bool
    seconds: float
    """When its picture was seen, host clock: that of its decoded frame once there is one, before it an estimate."""

    def packet(self) -> Packet[VideoStream]:
        """Return a copy as FFmpeg takes it."""
        packet: Packet[VideoStream] = Packet(self.payload)  # type: ignore[assignment]  # of no stream yet
        packet.pts, packet.dts, packet.time_base = self.pts, self.dts, self.segment.format.time_base
        packet.is_keyframe = self.is_keyframe
        return packet


class _Group:
    """A group of pictures: a keyframe and what follows it up to the next."""

    __slots__ = ("bytes", "packets")

    def __init__(self) -> None:
        self.packets: list[RingPacket] = []
        self.bytes = 0

    def append(self, packet: RingPacket) -> None:
        self.packets.append(packet)
        self.bytes += len(packet.payload)


class PacketRing:
    """The packets of a camera's last seconds. One thread writes, through the newest `RingWriter`; any may read.

    It holds the groups of pictures that reach back `seconds`, so up to one group more; and never more than `most_bytes`
    of payload, for which the oldest groups go first. A group that is larger than that by itself is not kept.

    Args:
        seconds: how far back it has to reach.
        most_bytes: what its payloads may take.
    """

    def __init__(self, *, seconds: float, most_bytes: int) -> None:
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._groups: deque[_Group] = deque()
        self._bytes = 0
        self._serial = 0
        self._writer: RingWriter | None = None
        self._segment: Segment | None = None
        self._lock = threading.Lock()

    def begin(self, format: StreamFormat) -> RingWriter:
        """Begin a connection; what an older writer still brings is ignored from here on."""
        with self._lock:
            self._writer = RingWriter(self, format)
            self._segment = None
            return self._writer

    @property
    def bytes(self) -> int:
        """Bytes of the payloads held."""
        return self._bytes

    def is_over(self, segment: Segment) -> bool:
        """Whether no packet of a segment will come any more."""
        return self._segment is not segment

    def holds(self, seconds: float, *, tolerance_seconds: float) -> bool:
        """Whether it holds packets from before a time, and up to it."""
        with self._lock:
            if not self._groups:
                return False
            oldest, newest = self._groups[0].packets[0], self._groups[-1].packets[-1]
        return oldest.seconds <= seconds + tolerance_seconds and newest.seconds >= seconds - tolerance_seconds

    def since(self, seconds: float) -> tuple[RingPacket, ...]:
        """Return the packets from the last keyframe at or before a time on, or all where none is that old."""
        with self._lock:
            groups = list(self._groups)
        first = max((at for at, group in enumerate(groups) if group.packets[0].seconds <= seconds), default=0)
        with self._lock:
            return tuple(packet for group in groups[first:] for packet in group.packets)

    def after(self, serial: int) -> tuple[RingPacket, ...]:
        """Return the packets behind one; a gap in their serials tells that the ring has lost some."""
        with self._lock:
            newest_first: list[RingPacket] = []
            for packet in self._backwards():
                if packet.serial <= serial:
                    break
                newest_first.append(packet)
        return tuple(reversed(newest_first))

    def append(
        self, writer: RingWriter, packet: Packet[VideoStream], *, segment: Segment, pts: int, seconds: float
    ) -> None:
        """Take a packet; for `RingWriter` alone."""
        with self._lock:
            if writer is not self._writer:
                return
            self._serial += 1
            is_keyframe = packet.is_keyframe
            if is_keyframe:
                self._groups.append(_Group())
            elif segment is not self._segment or not self._groups:
                return  # the keyframe that it needs is not here
            self._segment = segment
            payload = bytes(packet)
            self._groups[-1].append(
                RingPacket(self._serial, segment, payload, pts, packet.dts, is_keyframe=is_keyframe, seconds=seconds)
            )
            self._bytes += len(payload)
            self._make_room(seconds)

    def date(self, writer: RingWriter, pts: int, seconds: float) -> None:
        """Correct the time of a packet by that of its decoded frame; for `RingWriter` alone."""
        with self._lock:
            if writer is not self._writer:
                return
            for looked, (group, at) in enumerate(self._places_backwards()):
                packet = group.packets[at]
                if packet.pts == pts and packet.segment is self._segment:
                    if packet.seconds != seconds:  # most estimates were right
                        group.packets[at] = replace(packet, seconds=seconds)
                    return
                if looked == DATED_PACKETS:
                    return

    def end(self, writer: RingWriter) -> None:
        """Close the segment; for `RingWriter` alone."""
        with self._lock:
            if writer is self._writer:
                self._segment = None

    def _make_room(self, now: float) -> None:
        groups = self._groups
        while len(groups) > 1 and groups[1].packets[0].seconds <= now - self._seconds:
            self._bytes -= groups.popleft().bytes
        while groups and self._bytes > self._most_bytes:
            self._bytes -= groups.popleft().bytes
        if not groups:
            self._segment = None

    def _backwards(self) -> Iterator[RingPacket]:
        for group in reversed(self._groups):
            yield from reversed(group.packets)

    def _places_backwards(self) -> Iterator[tuple[_Group, int]]:
        for group in reversed(self._groups):
            for at in range(len(group.packets) - 1, -1, -1):
                yield group, at


class RingWriter:
    """One connection's way into the ring; made by `PacketRing.begin`, used by the camera's thread."""

    def __init__(self, ring: PacketRing, format: StreamFormat) -> None:
        self._ring = ring
        self._format = format
        self._segment = Segment(format)
        self._begun: float | None = None
        self._last: tuple[float, float] | None = None

    def append(self, packet: Packet[VideoStream], *, seconds: float, received_seconds: float) -> None:
        """Take a packet as it was demuxed.

        Args:
            packet: copied; stays the caller's.
            seconds: when its picture counts as seen, as far as that is known yet.
            received_seconds: when it had arrived, host clock.
        """
        if not packet.size:
            return
        pts = self._pts(packet, received_seconds)
        self._break_where_needed(packet.dts if packet.dts is not None else pts, received_seconds)
        self._ring.append(self, packet, segment=self._segment, pts=pts, seconds=seconds)

    def date(self, pts: int | None, seconds: float) -> None:
        """Tell when a decoded frame was seen."""
        if pts is not None:
            self._ring.date(self, pts, seconds)

    def end(self) -> None:
        """Tell that the connection has ended; harmless when another has begun."""
        self._ring.end(self)

    def _pts(self, packet: Packet[VideoStream], received_seconds: float) -> int:
        if packet.pts is not None:
            return packet.pts
        if packet.dts is not None:
            return packet.dts
        if self._begun is None:
            self._begun = received_seconds
        return round((received_seconds - self._begun) / self._format.time_base)

    def _break_where_needed(self, ticks: int, received_seconds: float) -> None:
        stamp = seconds_of_ticks(ticks, self._format.time_base)
        if self._last is not None:
            step, waited = stamp - self._last[0], received_seconds - self._last[1]
            if step < -STEP_BACK_SECONDS or step > max(0.0, waited) + JUMP_SECONDS:
                self._segment = Segment(self._format)
        self._last = (stamp, received_seconds)
