"""Packets out of a ring in; the frames that are wanted of them, and their pixels, out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import av
import av.error
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from monitor.capture.pictures import Pixels
from monitor.capture.ring import PacketRing, RingPacket, Segment
from monitor.capture.scaler import assumed_colorspace


def newest_keyframe(ring: PacketRing) -> tuple[RingPacket, VideoFrame] | None:
    """Decode the newest keyframe that a ring holds, and nothing else; None where there is none to be had."""
    packets = ring.since(float("inf"))[:1]
    frames = decoded_frames(packets, {packet.serial for packet in packets}, lambda: False)
    return frames[0] if frames else None


def decoded_frames(
    packets: Sequence[RingPacket], serials: set[int], stopped: Callable[[], bool]
) -> list[tuple[RingPacket, VideoFrame]]:
    """Decode packets in order up to the last whose serial is wanted; return the wanted frames."""
    wanted = {(id(packet.segment), packet.pts): packet for packet in packets if packet.serial in serials}
    frames: list[tuple[RingPacket, VideoFrame]] = []
    decoder: VideoCodecContext | None = None
    segment: Segment | None = None

    def collect(of: Segment | None, decoded: Sequence[VideoFrame]) -> None:
        for frame in decoded:
            packet = wanted.pop((id(of), frame.pts), None) if frame.pts is not None else None
            if packet is not None:
                frames.append((packet, frame))

    for packet in packets:
        if not wanted or stopped():
            break
        if packet.segment is not segment:
            if decoder is not None:
                collect(segment, _pushed(decoder, None))
            segment, decoder = packet.segment, _decoder(packet.segment)
        assert decoder is not None  # noqa: S101 - made with the segment
        collect(segment, _pushed(decoder, packet))
    if decoder is not None and wanted:
        collect(segment, _pushed(decoder, None))
    return frames


def _decoder(segment: Segment) -> VideoCodecContext:
    decoder = av.CodecContext.create(segment.format.codec, "r")
    assert isinstance(decoder, VideoCodecContext)  # noqa: S101 - the stream is a video
    decoder.thread_count = 1
    if segment.format.extradata:
        decoder.extradata = segment.format.extradata
    return decoder


def _pushed(decoder: VideoCodecContext, packet: RingPacket | None) -> list[VideoFrame]:
    try:
        return decoder.decode(None if packet is None else packet.packet())
    except av.error.FFmpegError:  # a damaged packet; the next may be well
        return []


def pixels_of(frame: VideoFrame) -> Pixels:
    """Return a frame's pixels."""
    picture = frame.reformat(format="bgr24", src_colorspace=assumed_colorspace(frame), threads=1)
    return cast(Pixels, picture.to_ndarray())
