"""A figure of a scene: a pose in, strokes on the picture out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.scenes.style import Colour, Style

_SUBPIXEL_BITS = 4
_SKIN: tuple[Colour, ...] = ((224, 184, 156), (198, 146, 112), (140, 96, 70), (96, 66, 50))


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a figure is and how it holds itself at one moment."""

    x_metres: float
    """Right of the picture's middle."""
    depth: float
    """0 far, 1 near."""
    facing: float
    """-1 looks left, 1 looks right, 0 towards the camera."""
    thigh: float
    """Swing of the front leg in radians; the other leg swings the other way."""
    left_arm: float
    """Radians from hanging down, forward positive."""
    right_arm: float
    lean: float
    """Radians from upright, to the picture's right positive."""
    crouch: float
    """0 upright to 1 low."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What does not change about a figure."""

    height_metres: float
    build: float
    """Width of limbs as a factor."""
    coat: Colour
    trousers: Colour
    skin: Colour
    hair: Colour


def draw_looks(rng: np.random.Generator, *, grey: bool) -> Looks:
    """Choose a figure's size and colours."""

    def colour(low: int, high: int) -> Colour:
        red, green, blue = (int(value) for value in rng.integers(low, high, 3))
        return (red, red, red) if grey else (red, green, blue)

    skin = _SKIN[int(rng.integers(len(_SKIN)))]
    return Looks(
        height_metres=float(rng.uniform(1.55, 1.9)),
        build=float(rng.uniform(0.85, 1.25)),
        coat=colour(20, 235),
        trousers=colour(15, 120),
        skin=(skin[1],) * 3 if grey else skin,
        hair=colour(10, 90),
    )


def draw_figure(picture: NDArray[np.uint8], style: Style, looks: Looks, pose: Pose) -> None:
    """Draw one figure onto `picture` (H, W, 3) uint8 RGB, in place."""
    foot_x, foot_y = style.view.foot(pose.x_metres, pose.depth)
    unit = style.view.scale(pose.depth) * looks.height_metres / 1.75
    if foot_x < -unit or foot_x > style.view.width_pixels + unit:
        return
    pen = _Pen(picture, foot_x, foot_y, unit, looks.build)
    hip_height = 0.9 - 0.25 * pose.crouch
    side = math.copysign(max(abs(pose.facing), 0.3), pose.facing or 1.0)
    shoulder_x = 0.52 * math.sin(pose.lean)
    shoulder_y = hip_height + 0.52 * math.cos(pose.lean)
    _draw_leg(pen, looks, -pose.thigh * side, hip_height, darker=True)
    _draw_arm(pen, looks, (shoulder_x, shoulder_y), pose.right_arm, side=side, darker=True)
    _draw_leg(pen, looks, pose.thigh * side, hip_height, darker=False)
    pen.line((0.0, hip_height), (shoulder_x, shoulder_y - 0.04), 0.27, looks.coat)
    head = (shoulder_x + 0.12 * math.sin(pose.lean) + 0.02 * side, shoulder_y + 0.2)
    pen.line((shoulder_x, shoulder_y), head, 0.1, looks.skin)
    pen.disc((head[0] - 0.02 * side, head[1] + 0.03), 0.12, looks.hair)
    pen.disc((head[0] + 0.02 * side, head[1] - 0.01), 0.1, looks.skin)
    _draw_arm(pen, looks, (shoulder_x, shoulder_y), pose.left_arm, side=side, darker=False)


def shade_ground(picture: NDArray[np.uint8], style: Style, pose: Pose) -> None:
    """Darken the ground under a figure, in place."""
    foot_x, foot_y = style.view.foot(pose.x_metres, pose.depth)
    unit = style.view.scale(pose.depth)
    left, right = int(foot_x - 0.5 * unit), int(foot_x + 0.9 * unit)
    top, bottom = int(foot_y - 0.14 * unit), int(foot_y + 0.14 * unit)
    left, top = max(left, 0), max(top, 0)
    patch = picture[top:bottom, left : max(right, 0)]
    if patch.size == 0:
        return
    covered = np.zeros(patch.shape[:2], np.uint8)
    centre = (int(foot_x + 0.2 * unit) - left, int(foot_y) - top)
    cv2.ellipse(covered, centre, (int(0.5 * unit), max(1, int(0.1 * unit))), 0, 0, 360, 255, -1, cv2.LINE_AA)
    darkened = cv2.convertScaleAbs(patch, alpha=1.0 - style.shadow)
    cv2.copyTo(darkened, covered, patch)


class _Pen:
    """Draws in metres, seen from a figure's foot: x to the right, y up."""

    def __init__(
        self, picture: NDArray[np.uint8], foot_x: float, foot_y: float, unit_pixels: float, build: float
    ) -> None:
        self._picture = picture
        self._foot = (foot_x, foot_y)
        self._unit = unit_pixels
        self._build = build

    def line(self, start: tuple[float, float], end: tuple[float, float], width: float, colour: Colour) -> None:
        thickness = max(1, round(width * self._build * self._unit))
        cv2.line(
            self._picture, self._pixel(start), self._pixel(end), colour, thickness, cv2.LINE_AA, shift=_SUBPIXEL_BITS
        )

    def disc(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        size = max(1, round(radius * self._unit * (1 << _SUBPIXEL_BITS)))
        cv2.circle(self._picture, self._pixel(centre), size, colour, -1, cv2.LINE_AA, shift=_SUBPIXEL_BITS)

    def _pixel(self, point: tuple[float, float]) -> tuple[int, int]:
        factor = 1 << _SUBPIXEL_BITS
        x = self._foot[0] + point[0] * self._unit
        y = self._foot[1] - point[1] * self._unit
        return round(x * factor), round(y * factor)


def _draw_leg(pen: _Pen, looks: Looks, swing: float, hip_height: float, *, darker: bool) -> None:
    colour = _shade(looks.trousers) if darker else looks.trousers
    foot_x = 0.85 * math.sin(swing)
    lift = 0.12 * max(0.0, -math.sin(swing) * 0.6)
    knee = (0.5 * foot_x + 0.05, hip_height * 0.5 + lift)
    pen.line((0.0, hip_height), knee, 0.16, colour)
    pen.line(knee, (foot_x, 0.03 + lift), 0.13, colour)
    pen.line((foot_x, 0.03 + lift), (foot_x + 0.1, 0.02 + lift), 0.09, (35, 32, 30))


def _draw_arm(
    pen: _Pen, looks: Looks, shoulder: tuple[float, float], angle: float, *, side: float, darker: bool
) -> None:
    colour = _shade(looks.coat) if darker else looks.coat
    elbow = (shoulder[0] + 0.29 * math.sin(angle) * side, shoulder[1] - 0.05 - 0.29 * math.cos(angle))
    bend = angle + 0.35 + 0.3 * abs(angle)
    hand = (elbow[0] + 0.27 * math.sin(bend) * side, elbow[1] - 0.27 * math.cos(bend))
    pen.line((shoulder[0], shoulder[1] - 0.05), elbow, 0.11, colour)
    pen.line(elbow, hand, 0.09, colour)
    pen.disc(hand, 0.055, looks.skin)


def _shade(colour: Colour) -> Colour:
    red, green, blue = colour
    return int(red * 0.75), int(green * 0.75), int(blue * 0.75)
