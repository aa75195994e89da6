"""Drawn clips of three labels that a small model learns in seconds, and a recording with an event of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models.scenes.clips import Encoding, encode

LABELS = ("normal", "flash", "run")
FPS = 15
WIDTH, HEIGHT, SIDE = 64, 48, 14
CLIP_SECONDS = 2.0


def write_motions(folder: Path, groups: Iterable[int]) -> Path:
    """Write a clip of each label on the ground of each group, and `clips.csv`."""
    rows = ["path,label,group"]
    for group in groups:
        for label in LABELS:
            name = f"{label}/{group}.mp4"
            (folder / label).mkdir(parents=True, exist_ok=True)
            encode(folder / name, _pictures([(label, CLIP_SECONDS)], group), FPS, Encoding(quality=18))
            rows.append(f"{name},{label},{group}")
    (folder / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def write_recording(path: Path, script: Iterable[tuple[str, float]], group: int) -> Path:
    """Write a recording in which one motion follows another, each for some seconds."""
    encode(path, _pictures(script, group), FPS, Encoding(quality=18))
    return path


def _pictures(script: Iterable[tuple[str, float]], group: int) -> Iterator[NDArray[np.uint8]]:
    """A square on a ground of its own: it stands, runs from side to side, or flashes."""
    rng = np.random.default_rng(group)
    ground = cv2.resize(
        rng.integers(40, 160, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    left, top, colour = rng.integers(0, WIDTH - SIDE), rng.integers(0, HEIGHT - SIDE), rng.integers(180, 256, 3)
    step = 4
    for label, seconds in script:
        for _ in range(round(seconds * FPS)):
            if label == "run":
                step = step if 0 <= left + step <= WIDTH - SIDE else -step
                left += step
            picture = ground.copy()
            if label != "flash" or rng.random() < 0.5:
                picture[top : top + SIDE, left : left + SIDE] = colour
            yield picture
