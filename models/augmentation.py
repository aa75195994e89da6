"""Augmentation: a clip's pictures and a window's mask in, the same event filmed a little differently out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.recipe import Recipe
from monitor.capture.pictures import jpeg

_JPEG_QUALITIES = (30, 80)


@dataclass(frozen=True, slots=True)
class Change:
    """How all pictures of a clip are changed alike."""

    mirrored: bool = False
    zoom: float = 0.0
    """Share that is cut off height and width."""
    place: tuple[float, float] = (0.0, 0.0)
    """Where, of what is cut off, the picture begins: 0 at the top and left, 1 as far down and right as it goes."""
    contrast: float = 1.0
    backwards: bool = False
    """The pictures of each sample in the opposite order."""
    jpeg_quality: int = 100
    """100: not compressed again."""

    def apply(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Change pictures (T, K, H, W, 3) uint8."""
        if self.mirrored:
            pictures = pictures[:, :, :, ::-1]
        if self.zoom:
            rows, columns = (
                _part(size, self.zoom, at) for size, at in zip(pictures.shape[2:4], self.place, strict=True)
            )
            pictures = pictures[:, :, rows][:, :, :, columns]
        if self.contrast != 1.0:
            levels = np.clip(np.arange(256) * self.contrast, 0, 255).astype(np.uint8)
            pictures = levels[pictures]
        if self.backwards:
            pictures = pictures[:, ::-1]
        if self.jpeg_quality < 100:
            flat = [_compressed(picture, self.jpeg_quality) for picture in pictures.reshape(-1, *pictures.shape[2:])]
            pictures = np.stack(flat).reshape(pictures.shape)
        return np.ascontiguousarray(pictures)


UNCHANGED, MIRRORED = Change(), Change(mirrored=True)


def draw_change(recipe: Recipe, rng: np.random.Generator) -> Change:
    """Draw how a clip is filmed a little differently: mirrored, nearer, with another contrast, backwards, coarser."""
    return Change(
        mirrored=recipe.mirror and bool(rng.random() < 0.5),
        zoom=rng.uniform(0.0, recipe.zoom),
        place=(rng.random(), rng.random()),
        contrast=1.0 + rng.uniform(-recipe.brightness, recipe.brightness),
        backwards=bool(recipe.backwards_share and rng.random() < recipe.backwards_share),
        jpeg_quality=_draw_quality(recipe, rng),
    )


def _draw_quality(recipe: Recipe, rng: np.random.Generator) -> int:
    if recipe.compressed_share and rng.random() < recipe.compressed_share:
        return int(rng.integers(*_JPEG_QUALITIES))
    return 100


def _compressed(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) as it comes back out of a JPEG."""
    encoded = np.frombuffer(jpeg(picture, quality=quality), np.uint8)
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def _part(size: int, cut: float, at: float) -> NDArray[np.int64]:
    """Return the rows or columns of a part of the picture, as many as the picture has."""
    steps: NDArray[np.int64] = (at * cut * size + (np.arange(size) + 0.5) * (1.0 - cut)).astype(np.int64)
    return steps


def drop_slots(mask: NDArray[np.bool_], gap_share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Turn some slots into gaps, never all."""
    dropped = mask & (rng.random(mask.shape) >= gap_share)
    return dropped if dropped.any() else mask
