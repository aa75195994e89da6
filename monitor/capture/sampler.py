"""Decoded frames with their times in; samples, one for each slot of the time grid and scaled for the model, out.

The same sampler serves cameras, replay and training: it reads no clock, so the same frames at the
same times give the same samples.
"""

from __future__ import annotations

import math
from collections import deque

import av
import numpy as np
from numpy.typing import NDArray

from monitor.bundle import SampleShape
from monitor.capture.scaler import Polygon, Scaler, Zone
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
NEXT_FRAME_SHARE = 0.75
"""The next frame is taken to come after so much of the last interval at least: what it would not choose is let go."""


def slot_of(time_seconds: float, sample_fps: float) -> int:
    """Return the cell of the sampling grid that a time falls into."""
    return math.floor(time_seconds * sample_fps + SLOT_TOLERANCE)


class StreamClock:
    """Maps a stream's timestamps to the host's clock, free of network bursts.

    A frame's delay on its way is `received - pts`, up to a constant. The least of the last seconds is
    taken for the constant: bursts only add delay, so they do not move it, while a drifting or wrongly
    declared camera clock does, at its own pace, and so does a camera that lags ever further behind. It
    starts anew when the timestamps step back, or when the delay grows by more than JUMP_SECONDS from one
    packet to the next and no later packet has confirmed it (`learn`). A forward jump makes the least
    delay at once.
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
        if self._delays and self._jumped(pts, received):
            self._delays.clear()
        self._note(received, received - pts)
        return pts + self._delays[0][1]

    def _jumped(self, pts: float, received: float) -> bool:
        """Whether a frame comes much later than the packet before it did, and no later packet has confirmed that."""
        return self._late(pts, received) and self._delays[-1][0] < received

    def _late(self, pts: float, received: float) -> bool:
        return received - pts - self._delays[-1][1] > JUMP_SECONDS

    def _note(self, received: float, delay: float) -> None:
        while self._delays and self._delays[-1][1] >= delay:
            self._delays.pop()
        self._delays.append((received, delay))
        while self._delays[0][0] < received - CLOCK_WINDOW_SECONDS:
            self._delays.popleft()


class Sampler:
    """Takes at most one sample for each slot of the grid, from the first frame of the slot that can make one.

    A sample of K pictures is the frame itself and, for k = 1..K-1, the frame nearest to
    `k * context_spacing_seconds` before it among those at least half a spacing off that point or older;
    so a slow stream takes what it has, and no sample is made before there is a past to show.
    Only the frames that end up in a sample are scaled, each once; those of which that can be foreseen at once, since
    a full frame in 1080p holds 3 MB.

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

    @property
    def next_slot_seconds(self) -> float:
        """When the slot after that of the last sample begins; -inf before the first."""
        return -math.inf if self._last_slot is None else (self._last_slot + 1) / self._sample_fps

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
        is_due = self._last_slot is None or slot > self._last_slot
        chosen = self._chosen(time_seconds) if is_due else None
        self._let_go()
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

    def remember(self, frame: av.VideoFrame, *, time_seconds: float, small: bool = False) -> bool:
        """Take one decoded frame for the past of later ones alone; return whether it was in order.

        Args:
            frame: the full picture.
            time_seconds: when it was seen, host clock.
            small: whether to scale it at once, since a sample comes soon; otherwise only where one will show it.
        """
        self._begin_anew_where_needed(frame, time_seconds)
        if self._recent and time_seconds < self._recent[-1].time_seconds:
            return False
        self._last_seconds = time_seconds
        newest = _Recent(time_seconds, frame)
        if small or self._is_foreseen(time_seconds):
            newest.picture(self._scaler)  # now, and not when the sample is made
        self._remember(newest)
        return True

    def wants(self, time_seconds: float, *, frame_seconds: float) -> bool:
        """Return whether a frame of about this time may become part of a sample.

        Args:
            time_seconds: when it will count as seen, good to a quarter of a frame's time.
            frame_seconds: from one frame to the next.
        """
        if self._last_slot is None or slot_of(time_seconds, self._sample_fps) > self._last_slot:
            return True
        begin = self.next_slot_seconds  # the next slot's first frame comes within a frame of this
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

    def _is_foreseen(self, time_seconds: float) -> bool:
        """Whether the next sample will show a frame as its past, if frames go on to come at the last interval."""
        spacing = self._shape.context_spacing_seconds
        if not spacing or not self._recent or self._last_slot is None:
            return False
        interval = time_seconds - self._recent[-1].time_seconds
        ahead = self.next_slot_seconds - time_seconds
        if min(interval, ahead) <= 0.0:
            return False
        ahead = math.ceil(ahead / interval - SLOT_TOLERANCE) * interval  # to the first frame of the next slot
        k = round(ahead / spacing)
        return 1 <= k < self._shape.pictures and abs(ahead - k * spacing) < interval / 2

    def _let_go(self) -> None:
        """Drop the oldest frames where the next sample will find a younger one nearer: a frame in 1080p holds 3 MB."""
        recent = self._recent
        if len(recent) < 2:
            return
        newest, before = recent[-1].time_seconds, recent[-2].time_seconds
        reach = (self._shape.pictures - 1) * self._shape.context_spacing_seconds
        target = newest + NEXT_FRAME_SHARE * (newest - before) - reach
        while len(recent) > 1 and abs(recent[1].time_seconds - target) <= abs(recent[0].time_seconds - target):
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
