"""How a scene looks: a generator of random numbers in, the camera's angle, colours and static background out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

_GROUNDS: tuple[Colour, ...] = ((112, 112, 116), (150, 143, 130), (104, 122, 84), (128, 112, 98), (168, 168, 170))
_WALLS: tuple[Colour, ...] = ((142, 106, 90), (176, 170, 158), (120, 130, 142), (98, 92, 90), (188, 172, 140))


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera hangs: maps metres on the ground to pixels."""

    width_pixels: int
    height_pixels: int
    horizon: float
    """Upper edge of the ground that is walked on, 0 (top of the picture) to 1."""
    near_scale_pixels: float
    """Pixels a metre at depth 1 (nearest)."""
    far_ratio: float
    """Scale at depth 0 as a share of the nearest."""
    depth_metres: float
    """Metres on the ground between depth 0 and depth 1."""

    def scale(self, depth: float) -> float:
        """Return pixels a metre at `depth` (0 far, 1 near)."""
        return self.near_scale_pixels * (self.far_ratio + (1.0 - self.far_ratio) * depth)

    def foot(self, x_metres: float, depth: float) -> tuple[float, float]:
        """Return the pixel at which a foot stands; x 0 is the picture's middle."""
        y = self.height_pixels * (self.horizon + (0.97 - self.horizon) * depth)
        return self.width_pixels / 2 + x_metres * self.scale(depth), y

    def half_width_metres(self, depth: float) -> float:
        """Return how many metres right of the middle the picture ends at `depth`."""
        return self.width_pixels / 2 / self.scale(depth)


@dataclass(frozen=True, slots=True)
class Style:
    """One scene's look."""

    view: View
    background: NDArray[np.uint8]
    """(H, W, 3) uint8 RGB without figures."""
    grain: NDArray[np.uint8]
    """(H + 64, W + 64, 3) uint8: sensor noise around 128, cut at a random place for each picture."""
    brightness: float
    grey: bool
    """True for a camera in its infrared mode."""
    shadow: float
    """Darkness of the figures' shadows, 0 to 1."""


def draw_style(rng: np.random.Generator, width_pixels: int, height_pixels: int) -> Style:
    """Choose the camera's angle and draw the background."""
    view = View(
        width_pixels=width_pixels,
        height_pixels=height_pixels,
        horizon=float(rng.uniform(0.38, 0.6)),
        near_scale_pixels=height_pixels * float(rng.uniform(0.3, 0.48)) / 1.75,
        far_ratio=float(rng.uniform(0.6, 0.92)),
        depth_metres=float(rng.uniform(3.0, 7.0)),
    )
    grey = bool(rng.random() < 0.2)
    background = _draw_background(rng, view)
    return Style(
        view=view,
        background=_to_grey(background) if grey else background,
        grain=_draw_grain(rng, view, grey=grey),
        brightness=float(rng.uniform(0.8, 1.2)),
        grey=grey,
        shadow=float(rng.uniform(0.15, 0.5)),
    )


def _draw_background(rng: np.random.Generator, view: View) -> NDArray[np.uint8]:
    height, width = view.height_pixels, view.width_pixels
    wall_end = int(height * view.horizon * rng.uniform(0.55, 0.85))
    picture = np.empty((height, width, 3), np.float32)
    picture[:wall_end] = _WALLS[rng.integers(len(_WALLS))]
    picture[wall_end:] = _GROUNDS[rng.integers(len(_GROUNDS))]
    picture += _texture(rng, height, width)
    canvas = np.clip(picture, 0, 255).astype(np.uint8)
    _draw_facade(rng, canvas, wall_end)
    if rng.random() < 0.6:
        _draw_paving(rng, canvas, wall_end)
    if rng.random() < 0.5:
        _draw_lane(rng, canvas, view)
    _draw_trees(rng, canvas, wall_end)
    return _light(rng, canvas)


def _texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return (H, W, 1) float32: fine and coarse unevenness of walls and ground."""
    total = np.zeros((height, width), np.float32)
    for cell, strength in ((2, 5.0), (9, 4.0), (48, 5.0)):
        small = rng.normal(0.0, strength, (height // cell + 2, width // cell + 2)).astype(np.float32)
        total += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return total[:, :, None]


def _draw_facade(rng: np.random.Generator, canvas: NDArray[np.uint8], wall_end: int) -> None:
    width = canvas.shape[1]
    pane = tuple(int(value) for value in rng.integers(40, 110, 3))
    step = int(width * rng.uniform(0.1, 0.22))
    window_width, window_height = int(step * 0.55), int(wall_end * rng.uniform(0.3, 0.5))
    top = int(wall_end * rng.uniform(0.15, 0.35))
    for left in range(int(rng.integers(0, step)), width, step):
        corner, opposite = (left, top), (left + window_width, top + window_height)
        cv2.rectangle(canvas, corner, opposite, pane, -1)
        cv2.rectangle(canvas, corner, opposite, (205, 205, 200), max(1, width // 320))
        middle = left + window_width // 2
        cv2.line(canvas, (middle, top), (middle, top + window_height), (190, 190, 190), 1)
    cv2.rectangle(canvas, (0, wall_end - max(2, wall_end // 24)), (width, wall_end), (70, 68, 66), -1)


def _draw_paving(rng: np.random.Generator, canvas: NDArray[np.uint8], ground_start: int) -> None:
    height, width = canvas.shape[:2]
    layer = canvas.copy()
    vanish = (int(width * rng.uniform(0.3, 0.7)), -int(height * rng.uniform(0.3, 1.2)))
    for foot in range(-2 * width, 3 * width, max(12, int(width * rng.uniform(0.06, 0.12)))):
        cv2.line(layer, (foot, height), vanish, (60, 60, 60), 1, cv2.LINE_AA)
    for row in np.geomspace(1.0, 2.0, 9) - 1.0:
        y = int(ground_start + (height - ground_start) * row)
        cv2.line(layer, (0, y), (width, y), (60, 60, 60), 1, cv2.LINE_AA)
    layer[:ground_start] = canvas[:ground_start]
    cv2.addWeighted(layer, 0.35, canvas, 0.65, 0.0, dst=canvas)


def _draw_lane(rng: np.random.Generator, canvas: NDArray[np.uint8], view: View) -> None:
    """Draw a dashed white line across the ground."""
    height, width = canvas.shape[:2]
    left_y, right_y = (int(height * rng.uniform(view.horizon, 1.0)) for _ in range(2))
    dash = int(width * rng.uniform(0.04, 0.09))
    for left in range(-dash, width, 2 * dash):
        ends = [(x, int(left_y + (right_y - left_y) * x / width)) for x in (left, left + dash)]
        cv2.line(canvas, ends[0], ends[1], (205, 205, 198), max(2, height // 110), cv2.LINE_AA)


def _draw_trees(rng: np.random.Generator, canvas: NDArray[np.uint8], ground_start: int) -> None:
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(0, 4))):
        x, radius = int(rng.uniform(0, width)), height * rng.uniform(0.06, 0.13)
        trunk = int(ground_start + height * 0.03)
        cv2.line(canvas, (x, trunk), (x, int(trunk - 2 * radius)), (74, 58, 44), max(2, int(radius / 5)), cv2.LINE_AA)
        for _ in range(26):
            leaf = rng.normal(0.0, radius * 0.5, 2)
            green = (int(rng.integers(30, 80)), int(rng.integers(70, 130)), int(rng.integers(30, 70)))
            centre = (int(x + leaf[0]), int(trunk - 2.3 * radius + leaf[1]))
            cv2.circle(canvas, centre, max(2, int(radius * 0.35)), green, -1, cv2.LINE_AA)


def _light(rng: np.random.Generator, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Let the light fall from one side and the lens darken the corners."""
    height, width = canvas.shape[:2]
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    slope = rng.uniform(-0.18, 0.18, 2).astype(np.float32)
    factor = (1.0 + slope[0] * x + slope[1] * y) * (1.0 - 0.12 * (x * x + y * y))
    lit: NDArray[np.uint8] = np.clip(canvas * factor[:, :, None], 0, 255).astype(np.uint8)
    return lit


def _draw_grain(rng: np.random.Generator, view: View, *, grey: bool) -> NDArray[np.uint8]:
    shape = (view.height_pixels + 64, view.width_pixels + 64, 1 if grey else 3)
    noise = rng.normal(128.0, float(rng.uniform(1.0, 5.0)), shape)
    grain: NDArray[np.uint8] = np.broadcast_to(np.clip(noise, 0, 255), (*shape[:2], 3)).astype(np.uint8)
    return grain


def _to_grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return cv2.merge([grey, grey, grey]).astype(np.uint8, copy=False)
