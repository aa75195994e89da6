"""What a training step is fed: clips in, a batch of windows of embeddings or pictures with masks out.

Of a clip, whose label holds throughout, a random window is taken. A recording that is labelled as a whole is one
long window: only the attention can find where in it the label holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.augmentation import draw_change, drop_slots
from models.dataset import Clip, Dataset
from models.recipe import Recipe
from models.windows import WindowPlan, random_window, thinned, whole_window

MOST_EMBEDDED_SLOTS = 2400
"""Slots of one recording in a step on embeddings: ten minutes at four samples a second."""
MOST_PICTURED_WINDOWS = 4
"""Windows' worth of slots of one recording in a step from the pictures, where each costs a backbone's pass."""


def shuffled_batches(indices: NDArray[np.int64], size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield all indices once, in random order."""
    shuffled = rng.permutation(indices)
    for start in range(0, len(shuffled), size):
        yield shuffled[start : start + size]


def feature_batch(
    dataset: Dataset,
    indices: NDArray[np.int64],
    versions: Sequence[Sequence[NDArray[np.floating]]],
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    most_slots: int = MOST_EMBEDDED_SLOTS,
) -> tuple[Tensor, Tensor]:
    """Return one window of each clip: embeddings or maps (N, T, …) float32, T of the longest, and mask (N, T).

    Args:
        dataset: holds the clips.
        indices: (N,) of the clips.
        versions: of the pictures (as they are, mirrored, …), each with the embeddings or maps (S, …) of every clip.
        recipe: how windows are cut and thinned.
        rng: chooses windows, versions and gaps.
        most_slots: of a window; the others are left out at random.
    """
    shown, masks = [], []
    for index in indices:
        plan = _teaching_window(dataset.clips[index], recipe, most_slots, rng)
        rows = versions[int(rng.integers(len(versions)))][index]
        mask = drop_slots(plan.mask[0], recipe.gap_share, rng)
        shown.append(rows[plan.samples[0][mask]])
        masks.append(mask)
    padded = _padded(masks)
    windows = np.zeros((*padded.shape, *shown[0].shape[1:]), np.float32)
    for window, mask, rows in zip(windows, masks, shown, strict=True):
        window[: len(mask)][mask] = rows
    return torch.from_numpy(windows), padded


def picture_batch(
    dataset: Dataset, indices: NDArray[np.int64], recipe: Recipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return one changed window of each clip: pictures (N, T, K, H, W, 3) uint8, T of the longest, and mask (N, T)."""
    windows, masks = [], []
    for index in indices:
        clip = dataset.clips[index]
        plan = _teaching_window(clip, recipe, MOST_PICTURED_WINDOWS * recipe.window_slots, rng)
        windows.append(draw_change(recipe, rng).apply(clip.pictures[plan.samples[0]]))
        masks.append(drop_slots(plan.mask[0], recipe.gap_share, rng))
    return _padded(windows), _padded(masks)


def _teaching_window(clip: Clip, recipe: Recipe, most_slots: int, rng: np.random.Generator) -> WindowPlan:
    if clip.whole:
        return whole_window(clip, most_slots, rng)
    return thinned(random_window(clip, recipe.window_slots, rng), most_slots, rng)


def _padded(rows: Sequence[NDArray[np.generic]]) -> Tensor:
    """Stack arrays (T, …), the shorter ones filled up with zeros."""
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True)
