"""One packet as it came off the network or out of a file, with its times."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

from av.packet import Packet
from av.video.stream import VideoStream

PRODUCER_TIME = struct.Struct("=q")
"""First field of AVProducerReferenceTime: the camera's clock in microseconds since the epoch."""


def seconds_of_ticks(ticks: int, time_base: Fraction) -> float:
    """Return a timestamp in seconds: that of the exact fraction, which by itself takes ten times as long to make."""
    return ticks * time_base.numerator / time_base.denominator


@dataclass(frozen=True, slots=True)
class Arrived:
    """One packet and its times."""

    packet: Packet[VideoStream]
    """Kept for a while, unchanged."""
    received_seconds: float
    """When it began to come, host clock."""
    seconds: float | None
    """The stream's own timestamp; None where it has none."""

    @classmethod
    def of(cls, packet: Packet[VideoStream], received_seconds: float, time_base: Fraction) -> Arrived:
        """Return a packet with its times.

        Args:
            packet: as it was demuxed.
            received_seconds: when it began to come, host clock.
            time_base: seconds of one tick of its timestamps; the packet's own would be made anew with each look at it.
        """
        seconds = None if packet.pts is None else seconds_of_ticks(packet.pts, time_base)
        return cls(packet, received_seconds, seconds)

    @property
    def camera_seconds(self) -> float | None:
        """When the camera saw it, on the camera's clock (RTCP sender report); None when it tells none.

        Looked up when it is asked for: most packets of an idle camera are never decoded. FFmpeg tells it packet by
        packet, once the first sender report came. Its `start_time_realtime` is the time of that report, not of the
        first packet: off by up to a report's interval.
        """
        producer_time = self.packet.get_sidedata("prft")
        if not producer_time.data_size:
            return None
        micros: int = PRODUCER_TIME.unpack_from(producer_time)[0]
        return micros / 1e6
