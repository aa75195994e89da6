"""Pictures of an event in; JPEG files of them, and the strip that shows which of them decided, out. Pure.

Pixels are (H, W, 3) uint8 in OpenCV's order: blue, green, red.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

JPEG_QUALITY = 90
SHOWN_WIDTH, SHOWN_QUALITY = 640, 75
"""Of a picture on a page, which is asked for again and again."""
THUMBNAIL_WIDTH = 208
MOST_COLUMNS = 16
GAP = 10
FRAME = 3
LABEL_HEIGHT = 40
BAR_HEIGHT = 8
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42

BACKGROUND = (28, 24, 22)
EMPTY = (44, 39, 36)
TRACK = (66, 58, 54)
BAR = (190, 160, 110)
CHOSEN = (60, 180, 255)
TEXT = (205, 200, 196)
FAINT = (140, 130, 124)


@dataclass(frozen=True, slots=True)
class StripSlot:
    """One slot of the window, as the strip shows it."""

    pixels: Pixels | None
    """A thumbnail; None where the slot is a gap, or its picture is no longer there."""
    seconds: float | None
    """The picture's time since the epoch; None where the slot is a gap."""
    attention: float
    """Its weight in the decision, 0 to 1."""


def jpeg(pixels: Pixels, *, quality: int = JPEG_QUALITY) -> bytes:
    """Return pixels as a JPEG file."""
    _, coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return coded.tobytes()


def shown_jpeg(pixels: Pixels) -> bytes:
    """Return pixels as a small JPEG file, no wider than a page needs."""
    small = _scaled(pixels, SHOWN_WIDTH) if pixels.shape[1] > SHOWN_WIDTH else pixels
    return jpeg(small, quality=SHOWN_QUALITY)


def thumbnail(pixels: Pixels) -> Pixels:
    """Return pixels scaled to the width of a thumbnail, their shape kept."""
    return _scaled(pixels, THUMBNAIL_WIDTH)


def _scaled(pixels: Pixels, width: int) -> Pixels:
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    scaled: Pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return scaled


def strip(slots: Sequence[StripSlot], *, most_attended: int) -> Pixels:
    """Draw the window's slots side by side, in rows where they are many: picture, bar of attention, time, weight.

    Args:
        slots: oldest first; at least one holds pixels, and all that do have the same size.
        most_attended: index of the slot that gets a frame.
    """
    height = next(slot.pixels.shape[0] for slot in slots if slot.pixels is not None)
    rows = math.ceil(len(slots) / MOST_COLUMNS)
    columns = math.ceil(len(slots) / rows)
    cell = (THUMBNAIL_WIDTH + GAP, height + LABEL_HEIGHT + GAP)
    canvas = np.full((rows * cell[1] + GAP, columns * cell[0] + GAP, 3), BACKGROUND, np.uint8)
    highest = max(max(slot.attention for slot in slots), 1e-9)
    for number, slot in enumerate(slots):
        corner = (GAP + number % columns * cell[0], GAP + number // columns * cell[1])
        _draw_slot(canvas, slot, corner, height=height, share=slot.attention / highest, chosen=number == most_attended)
    return canvas


def _draw_slot(
    canvas: Pixels, slot: StripSlot, corner: tuple[int, int], *, height: int, share: float, chosen: bool
) -> None:
    left, top = corner
    right, bottom = left + THUMBNAIL_WIDTH, top + height
    if slot.pixels is None:
        canvas[top:bottom, left:right] = EMPTY
        _write(canvas, "no picture", (left + THUMBNAIL_WIDTH // 2, top + height // 2 + 4), FAINT, align=0.5)
    else:
        canvas[top:bottom, left:right] = slot.pixels
    if chosen:
        cv2.rectangle(canvas, (left - FRAME, top - FRAME), (right + FRAME - 1, bottom + FRAME - 1), CHOSEN, FRAME)
    bar_top = bottom + 6
    canvas[bar_top : bar_top + BAR_HEIGHT, left:right] = TRACK
    canvas[bar_top : bar_top + BAR_HEIGHT, left : left + round(THUMBNAIL_WIDTH * share)] = CHOSEN if chosen else BAR
    if slot.seconds is not None:
        _write(canvas, _clock(slot.seconds), (left, bottom + 32), TEXT, align=0.0)
        _write(canvas, f"{slot.attention:.0%}", (right, bottom + 32), CHOSEN if chosen else FAINT, align=1.0)


def _write(canvas: Pixels, text: str, at: tuple[int, int], colour: tuple[int, int, int], *, align: float) -> None:
    """Write text on a baseline; `align` is the share of its width that lies left of `at`."""
    width = cv2.getTextSize(text, FONT, FONT_SCALE, 1)[0][0]
    origin = (round(at[0] - align * width), at[1])
    cv2.putText(canvas, text, origin, FONT, FONT_SCALE, colour, 1, cv2.LINE_AA)


def _clock(seconds: float) -> str:
    moment = datetime.fromtimestamp(math.floor(seconds * 100 + 0.5) / 100, UTC)
    return moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 10_000:02d}"
