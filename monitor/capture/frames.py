"""Packets out of a ring in; the frames that are wanted of them, and their pixels, out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby
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
    return next(decoded_frames(packets, {packet.serial for packet in packets}, lambda: False), None)


def decoded_frames(
    packets: Sequence[RingPacket], serials: set[int], stopped: Callable[[], bool]
) -> Iterator[tuple[RingPacket, VideoFrame]]:
    """Decode packets in order up to the last whose serial is wanted; yield each wanted frame before the next is made.

    A window of large frames takes as much memory as one of them, if whoever asks lets each go.
    """
    wanted = {(id(packet.segment), packet.pts): packet for packet in packets if packet.serial in serials}
    for segment, frame in _decoded(packets, lambda: stopped() or not wanted):
        packet = wanted.pop((id(segment), frame.pts), None) if frame.pts is not None else None
        if packet is not None:
            yield packet, frame


def _decoded(packets: Sequence[RingPacket], enough: Callable[[], bool]) -> Iterator[tuple[Segment, VideoFrame]]:
    """Decode packets in order, each segment with a decoder of its own."""
    for segment, following in groupby(packets, key=lambda packet: packet.segment):
        decoder = _decoder(segment)
        for packet in chain(following, (None,)):
            if enough():
                return
            for frame in _pushed(decoder, packet):
                yield segment, frame


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
