"""Small videos and frames that the capture tests draw; files and frames out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def plain_frame(level: int = 128, *, width: int = 64, height: int = 48) -> av.VideoFrame:
    """Return one grey frame in yuv420p."""
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    planes[:height] = level
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


def rgb_frame(pixels: np.ndarray, format: str = "yuv444p") -> av.VideoFrame:
    """Return RGB pixels as a decoder would give them."""
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format=format)


def write_video(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = 50,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    options: dict[str, str] | None = None,
) -> Path:
    """Encode grey frames that brighten from one to the next."""
    options = options or {"g": "10"}
    if codec == "libx265":
        options = {"x265-params": "log-level=none:keyint=10", **options}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for number in range(frames):
            frame = plain_frame(20 + number * 4 % 200, width=size[0], height=size[1])
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
