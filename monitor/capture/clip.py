"""Packets out of a ring in; an MP4 with the same packets, not encoded anew, out.

The file is fragmented, so what is written of it plays at any moment. It is called `….part` until it is complete.
"""

from __future__ import annotations

import io
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from monitor.capture.nal import START_CODE, parameter_sets, sets_of_extradata, with_start_codes
from monitor.capture.ring import STEP_BACK_SECONDS, RingPacket, StreamFormat
from monitor.errors import EvidenceFailed

PART = ".part"
TICKS = 90_000
"""Of the file's time base, a second; MPEG's own."""
DEMUXERS = {"h264": "h264", "hevc": "hevc", "mpeg4": "m4v", "mjpeg": "mjpeg"}
"""FFmpeg's name of a bare stream's format, by codec: those that can be put into an MP4."""
TAGS = {"hevc": "hvc1"}
"""hvc1 rather than FFmpeg's hev1: the only one that Apple's players take."""
LAYOUT = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "frag_duration": "1000000",  # a crash costs the last second at most
    "flush_packets": "1",
}
FAILURES = (av.error.FFmpegError, OSError, ValueError, OverflowError)
"""What writing a clip may end in; OverflowError: of timestamps that are further apart than a file can tell."""


class ClipWriter:
    """One clip while it is written. Used by one thread.

    Args:
        path: of the complete file.
        first: the packet that it begins with, a keyframe.
        comment: stands in the file's metadata.

    Raises:
        EvidenceFailed: the codec does not go into an MP4, or the file cannot be written.
    """

    def __init__(self, path: Path, first: RingPacket, *, comment: str = "") -> None:
        self._path = path
        self._part = path.with_name(path.name + PART)
        self._format = first.segment.format
        self._origin = first.pts
        self._order = _DecodingOrder()
        self.first = first
        self._parameters = self._parameters_of(first)
        self.last_serial = first.serial - 1
        self.packets = 0
        self.end_seconds = first.seconds
        """Time of the newest picture in it."""
        self._leading = True
        try:
            self._file = self._part.open("wb")  # ours: PyAV leaves its own open where the header cannot be written
        except OSError as exc:
            raise EvidenceFailed(_said(exc)) from exc
        try:
            self._container, self._stream = self._begin(first, comment)
        except EvidenceFailed:
            with suppress(OSError):
                self._file.close()
            self._part.unlink(missing_ok=True)
            raise

    def follows(self, packet: RingPacket) -> str:
        """Return why a packet cannot go into this clip; empty when it can."""
        if packet.segment is not self.first.segment:
            return "the stream broke"
        if packet.seconds < self.end_seconds - STEP_BACK_SECONDS:
            return "the clock was set back"  # its end, a time on that clock, would come too late by as much
        if packet.serial != self.last_serial + 1:
            return "packets were lost out of the ring"
        if packet.is_keyframe and self._parameters_of(packet) not in ((), self._parameters):
            return "the stream changed its parameters"
        return ""

    def write(self, packet: RingPacket) -> None:
        """Append a packet that `follows`.

        Raises:
            EvidenceFailed: it cannot be written.
        """
        self.last_serial = packet.serial
        self._leading = self._leading and not (packet.is_keyframe and packet.serial > self.first.serial)
        if self._leading and packet.pts < self._origin:
            return  # shown before the first keyframe and made of pictures that are not here
        try:
            self._container.mux_one(self._muxed(packet))
            self._file.flush()
        except FAILURES as exc:
            raise EvidenceFailed(_said(exc)) from exc
        self.packets += 1
        self.end_seconds = max(self.end_seconds, packet.seconds)

    def finish(self) -> int:
        """Close the file and give it its name; return its bytes.

        Raises:
            EvidenceFailed: it cannot be closed or named; what was written stays in the part.
        """
        try:
            with self._file:
                self._container.close()
            self._part.replace(self._path)
            return self._path.stat().st_size
        except FAILURES as exc:
            raise EvidenceFailed(_said(exc)) from exc

    def _begin(self, first: RingPacket, comment: str) -> tuple[OutputContainer, Stream]:
        try:
            return self._open(first, comment)
        except (*FAILURES, IndexError) as exc:  # IndexError: no stream in what should be one
            raise EvidenceFailed(_said(exc)) from exc

    def _open(self, first: RingPacket, comment: str) -> tuple[OutputContainer, Stream]:
        with _template(first) as template:
            container = av.open(self._file, "w", format="mp4", options=LAYOUT)
            stream = container.add_stream_from_template(template.streams.video[0], opaque=True)
            if self._format.codec in TAGS:
                stream.codec_context.codec_tag = TAGS[self._format.codec]
            stream.time_base = Fraction(1, TICKS)
            self._order.depth = stream.codec_context.reorder_depth
            container.metadata["comment"] = comment
            container.start_encoding()
            self._file.flush()
        return container, stream

    def _muxed(self, packet: RingPacket) -> Packet[Stream]:
        payload = with_start_codes(packet.payload, self._format.extradata, self._format.codec)
        muxed: Packet[Stream] = Packet(payload)
        pts = self._ticks(packet.pts)
        shown, decoded = self._order.times(pts, None if packet.dts is None else self._ticks(packet.dts))
        muxed.stream = self._stream
        muxed.time_base = Fraction(1, TICKS)
        muxed.pts, muxed.dts = shown, decoded
        muxed.is_keyframe = packet.is_keyframe
        return muxed

    def _ticks(self, stamp: int) -> int:
        return round((stamp - self._origin) * self._format.time_base * TICKS)

    def _parameters_of(self, packet: RingPacket) -> tuple[bytes, ...]:
        units = with_start_codes(packet.payload, self._format.extradata, self._format.codec)
        return parameter_sets(units, self._format.codec)


class _DecodingOrder:
    """Gives each packet a decoding time that rises and is never after the picture's own.

    The stream's are taken where it tells them. Otherwise they are the pictures' times in rising order, late by the
    depth of the reordering, as FFmpeg makes them up itself.
    """

    def __init__(self) -> None:
        self.depth = 0
        self._waiting: list[int] = []
        self._last: int | None = None

    def times(self, pts: int, dts: int | None) -> tuple[int, int]:
        """Return (pts, dts) as the file takes them."""
        self._waiting = sorted([*self._waiting, pts])[-(self.depth + 1) :]
        decoded = dts if dts is not None else self._waiting[0] - (self.depth + 1 - len(self._waiting))
        if self._last is not None:
            decoded = max(decoded, self._last + 1)
        self._last = decoded
        return max(pts, decoded), decoded


def _template(first: RingPacket) -> av.container.InputContainer:
    """Open a keyframe as a stream of its own: FFmpeg then knows its size and its codec's header."""
    format: StreamFormat = first.segment.format
    if format.codec not in DEMUXERS:
        raise EvidenceFailed(f"{format.codec} does not go into an MP4")
    units = with_start_codes(first.payload, format.extradata, format.codec)
    apart = b"" if parameter_sets(units, format.codec) else sets_of_extradata(format.extradata, format.codec)
    if apart and not apart.startswith(START_CODE[1:]) and not apart.startswith(START_CODE):
        apart = b""
    return av.open(io.BytesIO(apart + units), "r", format=DEMUXERS[format.codec])


def _said(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return strerror or f"{type(error).__name__}: {error}"
