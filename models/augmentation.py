"""Augmentation: a training window's pictures and mask in, the same event filmed a little differently out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.recipe import Recipe


def augment(pictures: NDArray[np.uint8], recipe: Recipe, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change a window (T, K, H, W, 3) uint8, all its pictures alike: mirror it, zoom into it, change its contrast."""
    if recipe.mirror and rng.random() < 0.5:
        pictures = pictures[:, :, :, ::-1]
    if recipe.zoom:
        rows, columns = _zoomed(pictures.shape[2:4], 1.0 - rng.uniform(0.0, recipe.zoom), rng)
        pictures = pictures[:, :, rows][:, :, :, columns]
    if recipe.brightness:
        factor = 1.0 + rng.uniform(-recipe.brightness, recipe.brightness)
        levels = np.clip(np.arange(256) * factor, 0, 255).astype(np.uint8)
        pictures = levels[pictures]
    return np.ascontiguousarray(pictures)


def _zoomed(
    shape: tuple[int, ...], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and columns of a random part of the picture, as many as the picture has."""
    starts = [rng.uniform(0.0, (1.0 - share) * size) for size in shape]
    rows, columns = (
        (start + (np.arange(size) + 0.5) * share).astype(np.int64) for start, size in zip(starts, shape, strict=True)
    )
    return rows, columns


def drop_slots(mask: NDArray[np.bool_], gap_share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Turn some slots into gaps, never all."""
    dropped = mask & (rng.random(mask.shape) >= gap_share)
    return dropped if dropped.any() else mask
