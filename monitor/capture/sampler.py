"""Decoded frames with their times in; samples, one for each slot of the time grid and scaled for the model, out.

The same sampler serves cameras, replay and training: it reads no clock, so the same frames at the
same times give the same samples.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, cast

import av
import av.filter
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from monitor.bundle import SampleShape
from monitor.records import Sample

SLOT_TOLERANCE = 1e-5
"""In slots. Times come as fractions turned to floats: frame 2 of 15 a second belongs to slot 1 of 7.5 a second,
although 2 / 15 * 7.5 may come out a hair below 1."""

CLOCK_WINDOW_SECONDS = 3.0
JUMP_SECONDS = 2.0
JOLT_SECONDS = 0.4
"""Timestamps that step back or gain so much have jumped: reordered frames do not step back so far."""
STEP_BACK_SECONDS = 1.0
CONTEXT_SLACK_SECONDS = 2.0
CONTEXT_GRAIN = 8
"""Frames kept for context are at least a spacing / CONTEXT_GRAIN apart, so that a long spacing holds few of them."""

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


def slot_of(time_seconds: float, sample_fps: float) -> int:
    """Return the cell of the sampling grid that a time falls into."""
    return math.floor(time_seconds * sample_fps + SLOT_TOLERANCE)


class StreamClock:
    """Maps a stream's timestamps to the host's clock, free of network bursts.

    A frame's delay on its way is `received - pts`, up to a constant. The least of the last seconds is
    taken for the constant: bursts only add delay, so they do not move it, while a drifting or wrongly
    declared camera clock does, at its own pace. It starts anew when the timestamps step back, or when
    the mapped time strays from the arrival by more than JUMP_SECONDS and no later packet has confirmed
    it (`learn`). A forward jump makes the least delay at once.
    """

    def __init__(self) -> None:
        self._delays: deque[tuple[float, float]] = deque()
        """(received, delay), delays rising: the head is the least of the window."""
        self._last_pts = -math.inf
        self._last_time = -math.inf
        self._last_received = -math.inf

    def time_of(self, pts_seconds: float | None, received_seconds: float) -> float:
        """Return when a frame was seen, in host time.

        Never later than its arrival, and never earlier than the frame before, unless the host's own
        clock was set back.

        Args:
            pts_seconds: the stream's timestamp; None where it has none.
            received_seconds: when the frame's packet had arrived, host clock.
        """
        if received_seconds < self._last_received - STEP_BACK_SECONDS:
            self._forget()
        self._last_received = received_seconds
        mapped = received_seconds if pts_seconds is None else self._mapped(pts_seconds, received_seconds)
        self._last_time = max(self._last_time, min(mapped, received_seconds))
        return self._last_time

    def expected(self, pts_seconds: float | None, received_seconds: float) -> float:
        """Return when a packet's frame is likely to count as seen; learns nothing.

        Packets come in decoding order, frames in the order of their times: only frames move the clock.
        """
        if pts_seconds is None or not self._delays or self._jumped(pts_seconds, received_seconds):
            return received_seconds
        return min(pts_seconds + self._delays[0][1], received_seconds)

    @property
    def knows_delay(self) -> bool:
        """Whether the stream has told timestamps since the last break."""
        return bool(self._delays)

    def doubts(self, pts_seconds: float | None, received_seconds: float) -> bool:
        """Whether a packet was held up on its way, or its stream's timestamps jumped or stood still.

        Only the packets behind it tell which, and what its delay is: see `learn`.
        """
        if pts_seconds is None or not self._delays:
            return False
        jolted = received_seconds - pts_seconds < self._delays[0][1] - JOLT_SECONDS
        return jolted or pts_seconds < self._last_pts - JOLT_SECONDS or self._late(pts_seconds, received_seconds)

    def learn(self, delay_seconds: float, *, first_pts_seconds: float, received_seconds: float) -> None:
        """Take the least delay of packets whose frames are dated only after this.

        Where the timestamps go on and it is near the least delay so far, the packets were held up on their way and the
        old one holds.

        Args:
            delay_seconds: least `received - pts` of the packets.
            first_pts_seconds: of the first of them.
            received_seconds: when the last of them had arrived.
        """
        if first_pts_seconds < self._last_pts - JOLT_SECONDS:
            self.restart()
        elif self._delays and delay_seconds - self._delays[0][1] <= JUMP_SECONDS:
            delay_seconds = min(delay_seconds, self._delays[0][1])
        self._delays = deque([(received_seconds, delay_seconds)])

    def heard(self, pts_seconds: float | None, received_seconds: float) -> None:
        """Learn from a packet that is not decoded how long the way is."""
        if pts_seconds is not None:
            self._note(received_seconds, received_seconds - pts_seconds)

    def restart(self) -> None:
        """Forget the stream's timestamps, as after a new connection; time still never runs back."""
        self._delays.clear()
        self._last_pts = -math.inf

    def _forget(self) -> None:
        self.restart()
        self._last_time = -math.inf

    def _mapped(self, pts: float, received: float) -> float:
        if pts < self._last_pts:
            self._delays.clear()
        self._last_pts = pts
        self._note(received, received - pts)
        if self._jumped(pts, received):
            self._delays.clear()
            self._note(received, received - pts)
        return pts + self._delays[0][1]

    def _jumped(self, pts: float, received: float) -> bool:
        """Whether a frame is too late for the least delay, unless a packet that came after it has confirmed that."""
        return self._late(pts, received) and self._delays[0][0] < received

    def _late(self, pts: float, received: float) -> bool:
        return received - pts - self._delays[0][1] > JUMP_SECONDS

    def _note(self, received: float, delay: float) -> None:
        while self._delays and self._delays[-1][1] >= delay:
            self._delays.pop()
        self._delays.append((received, delay))
        while self._delays[0][0] < received - CLOCK_WINDOW_SECONDS:
            self._delays.popleft()


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


class Sampler:
    """Takes at most one sample for each slot of the grid, from the first frame of the slot that can make one.

    A sample of K pictures is the frame itself and, for k = 1..K-1, the frame nearest to
    `k * context_spacing_seconds` before it among those at least half a spacing off that point or older;
    so a slow stream takes what it has, and no sample is made before there is a past to show.
    Only the frames that end up in a sample are scaled, each once.

    Args:
        camera: id that the samples carry.
        sample_fps: slots of the grid a second.
        shape: pictures of a sample, their spacing and size.
        zone: polygon in 0..1; empty for the whole picture.
    """

    def __init__(self, camera: str, *, sample_fps: float, shape: SampleShape, zone: Polygon = ()) -> None:
        self._camera = camera
        self._sample_fps = sample_fps
        self._shape = shape
        self._scaler = Scaler(shape.width_pixels, shape.height_pixels, Zone(zone) if zone else None)
        self._recent: deque[_Recent] = deque()
        self._size = (0, 0)
        self._last_slot: int | None = None
        self._last_seconds = -math.inf

    def push(
        self,
        frame: av.VideoFrame,
        *,
        time_seconds: float,
        received_seconds: float,
        camera_seconds: float | None = None,
    ) -> Sample | None:
        """Take one decoded frame; return the sample that it completes, if any.

        Frames come in the order of their time. A step back of more than a second begins a new timeline,
        a smaller one is skipped.
        """
        if not self.remember(frame, time_seconds=time_seconds):
            return None
        slot = slot_of(time_seconds, self._sample_fps)
        if self._last_slot is not None and slot <= self._last_slot:
            return None
        chosen = self._chosen(time_seconds)
        if chosen is None:
            return None
        self._last_slot = slot
        return Sample(
            camera=self._camera,
            slot=slot,
            time_seconds=time_seconds,
            received_seconds=received_seconds,
            camera_seconds=camera_seconds,
            pictures=np.stack([recent.picture(self._scaler) for recent in chosen]),
        )

    def remember(self, frame: av.VideoFrame, *, time_seconds: float) -> bool:
        """Take one decoded frame for the past of later ones alone; return whether it was in order."""
        self._begin_anew_where_needed(frame, time_seconds)
        if self._recent and time_seconds < self._recent[-1].time_seconds:
            return False
        self._last_seconds = time_seconds
        self._remember(_Recent(time_seconds, frame))
        return True

    def wants(self, time_seconds: float, *, frame_seconds: float) -> bool:
        """Return whether a frame of about this time may become part of a sample.

        Args:
            time_seconds: when it will count as seen, good to a quarter of a frame's time.
            frame_seconds: from one frame to the next.
        """
        if self._last_slot is None or slot_of(time_seconds, self._sample_fps) > self._last_slot:
            return True
        begin = (self._last_slot + 1) / self._sample_fps  # the next slot's first frame comes within a frame of this
        for k in range(1, self._shape.pictures):
            target = begin - k * self._shape.context_spacing_seconds
            if target - 0.75 * frame_seconds <= time_seconds <= target + 1.75 * frame_seconds:
                return True
        return time_seconds > begin - 0.25 * frame_seconds

    def restart(self) -> None:
        """Forget the frames before a break in the stream: no sample spans it. The grid goes on."""
        self._recent.clear()

    def _begin_anew_where_needed(self, frame: av.VideoFrame, time_seconds: float) -> None:
        size = (frame.width, frame.height)
        if size != self._size:
            self._size = size
            self._recent.clear()
        if time_seconds < self._last_seconds - STEP_BACK_SECONDS:
            self._recent.clear()
            self._last_slot = None
            self._last_seconds = -math.inf

    def _remember(self, newest: _Recent) -> None:
        spacing = self._shape.context_spacing_seconds
        recent = self._recent
        if len(recent) > 1 and recent[-1].time_seconds - recent[-2].time_seconds < spacing / CONTEXT_GRAIN:
            recent.pop()
        recent.append(newest)
        reach = (self._shape.pictures - 1) * spacing
        oldest_wanted = newest.time_seconds - reach
        while len(recent) > 1 and recent[1].time_seconds <= oldest_wanted:
            recent.popleft()
        while recent[0].time_seconds < oldest_wanted - CONTEXT_SLACK_SECONDS:
            recent.popleft()

    def _chosen(self, newest_seconds: float) -> list[_Recent] | None:
        """Return the K frames of a sample, newest last; None while there is no past to show."""
        spacing = self._shape.context_spacing_seconds
        chosen = [self._recent[-1]]
        for k in range(1, self._shape.pictures):
            target = newest_seconds - k * spacing
            past = [recent for recent in self._recent if recent.time_seconds <= target + spacing / 2]
            if not past:
                return None
            chosen.append(min(past, key=lambda recent: abs(recent.time_seconds - target)))
        chosen.reverse()
        return chosen


class _Recent:
    """A frame of the near past; the full frame is let go as soon as it has been scaled."""

    __slots__ = ("_frame", "_picture", "time_seconds")

    def __init__(self, time_seconds: float, frame: av.VideoFrame) -> None:
        self.time_seconds = time_seconds
        self._frame: av.VideoFrame | None = frame
        self._picture: NDArray[np.uint8] | None = None

    def picture(self, scaler: Scaler) -> NDArray[np.uint8]:
        """Return (H, W, 3) uint8 RGB at the model's size."""
        if self._picture is None and self._frame is not None:
            self._picture = scaler.scaled(self._frame)
            self._frame = None
        assert self._picture is not None  # noqa: S101 - either the frame or the picture is there
        return self._picture


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
