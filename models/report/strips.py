"""Judged clips in, strips of their frames with the attention drawn out: the surest right and the surest wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.verdicts import JudgedClip
from monitor.capture.pictures import StripSlot, strip, thumbnail

MOST_FRAMES = 16
"""Of a strip; of a longer window the most attended are shown."""


@dataclass(frozen=True, slots=True)
class ClipStrip:
    """One clip as its window was seen."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) uint8, in OpenCV's order."""

    def png(self) -> bytes:
        """Return the strip as a PNG file."""
        return cv2.imencode(".png", self.pixels)[1].tobytes()


def choose_clips(judged: Sequence[JudgedClip], *, right: bool, most: int) -> list[JudgedClip]:
    """Return the surest of the clips that were said right, or wrong, taking turns among the true labels."""
    wanted = [clip for clip in judged if (clip.said == clip.target) is right]
    surest = sorted(wanted, key=lambda clip: -float(clip.probabilities.max()))
    turns = [[clip for clip in surest if clip.target == label] for label in sorted({clip.target for clip in wanted})]
    dealt = sorted((turn, place) for place, clips in enumerate(turns) for turn in range(len(clips)))
    return [turns[place][turn] for turn, place in dealt[:most]]


def draw_strip(judged: JudgedClip, sample_fps: float) -> ClipStrip:
    """Draw the frames of the window that spoke loudest for what was said; the newest picture of each sample."""
    shown = np.sort(np.argsort(-judged.attention, kind="stable")[:MOST_FRAMES])
    slots = [_slot(judged, int(place), sample_fps) for place in shown]
    most_attended = int(np.argmax(judged.attention[shown]))
    return ClipStrip(strip(slots, most_attended=most_attended))


def _slot(judged: JudgedClip, place: int, sample_fps: float) -> StripSlot:
    slot = int(judged.slots[place])
    sample = int(judged.clip.slots[slot]) if slot < len(judged.clip.slots) else -1
    if sample < 0:
        return StripSlot(None, None, 0.0)
    pixels = thumbnail(np.ascontiguousarray(judged.clip.pictures[sample, -1, :, :, ::-1]))
    seconds = judged.clip.entry.start_seconds + slot / sample_fps
    return StripSlot(pixels, seconds, float(judged.attention[place]))
