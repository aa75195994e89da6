"""Make elementary streams that loop without a seam: a video or drawn frames in, an Annex-B file out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import av
import av.error
import numpy as np
from numpy.typing import NDArray

Codec = Literal["h264", "h265"]
Picture = NDArray[np.uint8]
"""RGB, (H, W, 3)."""


def encode_stream(
    source: Path | Iterable[Picture],
    out: Path,
    *,
    fps: float,
    codec: Codec = "h264",
    size: tuple[int, int] | None = None,
    gop_seconds: float = 2.0,
    limit_seconds: float | None = None,
    bits_per_second: int | None = None,
) -> int:
    """Encode a video file, or frames drawn at `fps`, as the endless loop that `RtspServer` serves.

    Every picture begins with an access unit delimiter, none is a B-frame, groups of pictures are closed and
    of one length, and the first picture is an IDR: the end joins the beginning with nothing to repair.

    Args:
        source: a video file, brought to `fps` by its time stamps; or RGB pictures of one size.
        out: the elementary stream to write.
        fps: pictures a second of the stream.
        size: width and height; the source's own by default, made even.
        gop_seconds: from one IDR to the next.
        limit_seconds: the most to encode.
        bits_per_second: the mean to keep to; by default a constant quality, whatever it takes.

    Returns:
        The number of pictures written.
    """
    pictures = _resampled(source, fps) if isinstance(source, Path) else _drawn(source)
    most = None if limit_seconds is None else max(1, round(limit_seconds * fps))
    encoder: av.VideoCodecContext | None = None
    count = 0
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        for picture in pictures:
            if count == most:
                break
            if encoder is None:
                width, height = size or (picture.width, picture.height)
                even = (width // 2 * 2, height // 2 * 2)
                encoder = _encoder(codec, fps, size=even, gop_seconds=gop_seconds, bits_per_second=bits_per_second)
            scaled = picture.reformat(encoder.width, encoder.height, "yuv420p")
            scaled.pts, scaled.time_base, scaled.pict_type = count, 1 / _rate(fps), 0
            file.writelines(bytes(packet) for packet in encoder.encode(scaled))
            count += 1
        if encoder is None:
            raise ValueError(f"{source}: holds no pictures")
        file.writelines(bytes(packet) for packet in encoder.encode(None))
    return count


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def _encoder(
    codec: Codec, fps: float, *, size: tuple[int, int], gop_seconds: float, bits_per_second: int | None
) -> av.VideoCodecContext:
    gop = max(1, round(gop_seconds * fps))
    common = f"aud=1:bframes=0:keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:repeat-headers=1"
    single = "rc-lookahead=0:sliced-threads=0:slices=1"
    if bits_per_second is not None:
        kilobits = bits_per_second // 1000
        common += f":bitrate={kilobits}:vbv-maxrate={kilobits * 5 // 4}:vbv-bufsize={kilobits}"
    name, params = {
        "h264": ("libx264", {"x264-params": f"{common}:{single}", "preset": "veryfast", "crf": "24"}),
        "h265": ("libx265", {"x265-params": f"{common}:log-level=error", "preset": "ultrafast", "crf": "26"}),
    }[codec]
    encoder = cast(av.VideoCodecContext, av.CodecContext.create(name, "w"))
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.framerate = _rate(fps)
    encoder.time_base = 1 / _rate(fps)
    encoder.gop_size = gop
    if bits_per_second is not None:
        params.pop("crf")
    encoder.options = params
    return encoder


def _drawn(pictures: Iterable[Picture]) -> Iterator[av.VideoFrame]:
    for picture in pictures:
        yield av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")


def _resampled(path: Path, fps: float) -> Iterator[av.VideoFrame]:
    """Yield for each time n / fps the newest frame of the video that is not later."""
    with av.open(str(path)) as container:
        begin: float | None = None
        slot = 0
        shown: av.VideoFrame | None = None
        for frame in container.decode(video=0):
            if frame.pts is None:
                continue
            begin = frame.time if begin is None else begin
            while shown is not None and slot / fps < frame.time - begin - 1e-6:
                yield shown
                slot += 1
            shown = frame
        if shown is not None:
            yield shown
