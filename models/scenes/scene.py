"""A scene: a seed in, pictures at any time and the times of its events out. Equal seeds give equal pictures."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from models.scenes.figure import draw_figure, shade_ground
from models.scenes.script import Act, write_acts
from models.scenes.style import draw_style

EVENT_LABEL = "scuffle"
BACKGROUND_LABEL = "normal"


class Scene:
    """A drawn yard or street with walking figures and now and then a scuffle.

    Args:
        seed: decides looks, camera angle and everything that happens.
        width_pixels, height_pixels: of the pictures.
        fps: pictures a second.
        event_share: share of the acts (some 15 to 25 seconds each) that hold a scuffle, 0 to 1.
    """

    def __init__(
        self,
        seed: int,
        width_pixels: int = 640,
        height_pixels: int = 360,
        fps: float = 15.0,
        *,
        event_share: float = 0.5,
    ) -> None:
        self.seed = seed
        self.fps = fps
        self._style = draw_style(np.random.default_rng((seed, 0)), width_pixels, height_pixels)
        self._script = write_acts(seed, self._style, event_share)
        self._acts: list[Act] = []

    def events(self, duration_seconds: float) -> list[tuple[float, float]]:
        """Return start and end, in seconds, of every event that begins within the duration."""
        acts = self._acts_until(duration_seconds)
        return [act.event for act in acts if act.event is not None and act.event[0] < duration_seconds]

    def frames(self, duration_seconds: float, *, start_seconds: float = 0.0) -> Iterator[NDArray[np.uint8]]:
        """Yield the pictures, each (H, W, 3) uint8 RGB, from `start_seconds` on."""
        first = round(start_seconds * self.fps)
        for number in range(first, first + round(duration_seconds * self.fps)):
            yield self.picture(number)

    def picture(self, number: int) -> NDArray[np.uint8]:
        """Return picture `number` (at `number / fps` seconds): (H, W, 3) uint8 RGB."""
        time = number / self.fps
        acts = [act for act in self._acts_until(time) if act.start_seconds <= time <= act.gone_seconds]
        present = [(pose, actor.looks) for act in acts for actor in act.actors if (pose := actor.pose_at(time))]
        present.sort(key=lambda pair: pair[0].depth)
        canvas = self._style.background.copy()
        for pose, _ in present:
            shade_ground(canvas, self._style, pose)
        for pose, looks in present:
            draw_figure(canvas, self._style, looks, pose)
        return self._expose(canvas, number)

    def _acts_until(self, time_seconds: float) -> list[Act]:
        while not self._acts or self._acts[-1].next_seconds <= time_seconds:
            self._acts.append(next(self._script))
        return self._acts

    def _expose(self, canvas: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
        """Add the sensor's noise and the slow drift of its exposure."""
        rng = np.random.default_rng((self.seed, 2, number))
        top, left = (int(value) for value in rng.integers(0, 64, 2))
        height, width = canvas.shape[:2]
        grain = self._style.grain[top : top + height, left : left + width]
        drift = 1.0 + 0.02 * np.sin(number / self.fps * 0.7 + self.seed)
        gain = self._style.brightness * float(drift)
        return cv2.addWeighted(canvas, gain, grain, 1.0, -128.0).astype(np.uint8, copy=False)
