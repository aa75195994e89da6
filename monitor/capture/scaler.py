"""Decoded frames in; small pictures of one size, cut to a zone, out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, cast

import av
import av.filter
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

# The polyphase filters of swscale widen with the scale, so a downscale does not alias, except FAST_BILINEAR.
# 1080p to 224² on one core: FAST_BILINEAR 0.4 ms and aliased; AREA 1.5 (with accurate rounding 1.1 to 1.4),
# BILINEAR 1.8, BICUBIC 2.5, LANCZOS 3.4. AREA is also the one that training libraries shrink pictures with.
# Accurate, bit-exact rounding so that a bundle sees the same pixels on every processor.
SCALING = int(Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)

UNSPECIFIED_COLORSPACE = 2
"""AVCOL_SPC_UNSPECIFIED."""
HD_LINES = 576
"""Untagged pictures with more lines are BT.709 by convention, the others BT.601 (what swscale assumes by itself)."""

Polygon = Sequence[tuple[float, float]]


class Zone:
    """The part of the picture that is looked at: its bounding box is cut out, what lies outside is black.

    Args:
        polygon: corners (x, y) in 0..1 of the picture; at least three.
    """

    def __init__(self, polygon: Polygon) -> None:
        self._polygon = tuple(polygon)

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom in pixels of a picture: the least box with even corners around the zone.

        Even, because the colour planes of most pictures have half the size.
        """
        left, right = _even_span([x for x, _ in self._polygon], width)
        top, bottom = _even_span([y for _, y in self._polygon], height)
        return left, top, right, bottom

    def mask(self, box: tuple[int, int, int, int], *, of: tuple[int, int], to: tuple[int, int]) -> NDArray[np.bool_]:
        """Return (H, W) bool of the box scaled to `to`: True where a pixel's centre lies inside the polygon.

        Args:
            box: as `box` returned it.
            of: width and height of the whole picture.
            to: width and height of the scaled box.
        """
        left, top, right, bottom = box
        x = (left + (np.arange(to[0]) + 0.5) * (right - left) / to[0]) / of[0]
        y = ((top + (np.arange(to[1]) + 0.5) * (bottom - top) / to[1]) / of[1])[:, None]
        inside = np.zeros((to[1], to[0]), dtype=np.bool_)
        for (x0, y0), (x1, y1) in zip(self._polygon, self._polygon[1:] + self._polygon[:1], strict=True):
            if y0 == y1:
                continue
            crossing = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            inside ^= ((y0 <= y) != (y1 <= y)) & (x < crossing)
        return inside


class Scaler:
    """Turns decoded frames into small pictures of one size, cut to the zone first so that only it is scaled.

    Args:
        width: of the pictures, in pixels.
        height: likewise.
        zone: None for the whole frame.
        layout: `rgb24`, or `gray` for the luma alone.
    """

    def __init__(
        self, width: int, height: int, zone: Zone | None, *, layout: Literal["rgb24", "gray"] = "rgb24"
    ) -> None:
        self._size = (width, height)
        self._zone = zone
        self._layout = layout
        self._reformatter = VideoReformatter()
        self._cut: _Cut | None = None

    def scaled(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return uint8, full range, (H, W, 3) RGB or (H, W); the frame's tagged colour space and range are honoured."""
        cut = self._cut_for(frame)
        picture = self._reformatter.reformat(
            frame if cut is None else cut.apply(frame),
            width=self._size[0],
            height=self._size[1],
            format=self._layout,
            src_colorspace=assumed_colorspace(frame),
            interpolation=SCALING,
            threads=1,  # a thread for each camera is enough; swscale would start one for each core
        )
        pixels = cast("NDArray[np.uint8]", picture.to_ndarray())
        if cut is not None:
            pixels[cut.outside] = 0
        return pixels

    def _cut_for(self, frame: av.VideoFrame) -> _Cut | None:
        if self._zone is None:
            return None
        if self._cut is None or not self._cut.fits(frame):
            self._cut = _Cut(self._zone, frame, self._size)
        return self._cut


class _Cut:
    """Cuts a zone's box out of frames of one size and format.

    FFmpeg's crop filter moves the plane pointers and copies no pixel: 0.004 ms a frame.
    """

    def __init__(self, zone: Zone, frame: av.VideoFrame, size: tuple[int, int]) -> None:
        self._of = _kind(frame)
        box = zone.box(frame.width, frame.height)
        self.outside = ~zone.mask(box, of=(frame.width, frame.height), to=size)
        self._graph = _crop_graph(frame, box)

    def fits(self, frame: av.VideoFrame) -> bool:
        return self._of == _kind(frame)

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        self._graph.push(frame)
        cropped = self._graph.pull()
        assert isinstance(cropped, av.VideoFrame)  # noqa: S101 - the graph has one video output
        return cropped


def _crop_graph(frame: av.VideoFrame, box: tuple[int, int, int, int]) -> av.filter.Graph:
    left, top, right, bottom = box
    graph = av.filter.Graph()
    graph.threads = 1
    time_base = frame.time_base or Fraction(1, 1000)  # drawn frames have none; the crop does not look at it
    entry = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    crop = graph.add("crop", f"{right - left}:{bottom - top}:{left}:{top}:exact=1")
    entry.link_to(crop)
    crop.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _kind(frame: av.VideoFrame) -> tuple[int, int, str, int, int]:
    return frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range


def assumed_colorspace(frame: av.VideoFrame) -> int | None:
    """Return the colour space to read a frame by where it tells none; None to believe swscale."""
    if frame.colorspace == UNSPECIFIED_COLORSPACE and frame.height > HD_LINES:
        return int(Colorspace.ITU709)
    return None


def _even_span(corners: list[float], size: int) -> tuple[int, int]:
    """Return the first and last pixel of a span, outwards to even numbers, at least two wide, within the picture."""
    first = min(math.floor(min(corners) * size / 2) * 2, max(0, (size - 2) // 2 * 2))
    last = min(size, max(first + 2, math.ceil(max(corners) * size / 2) * 2))
    return first, last
