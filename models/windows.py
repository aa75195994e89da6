"""Cuts clips into windows for the head: clips in, (windows, slots) indices and masks out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.dataset import Clip


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Which samples of one clip make which windows."""

    samples: NDArray[np.int64]
    """(W, T) index into the clip's pictures; 0 where the slot is a gap."""
    mask: NDArray[np.bool_]
    """(W, T) bool, False where the slot is a gap."""


def stride_windows(clip: Clip, window_slots: int, stride_slots: int) -> WindowPlan:
    """Return the clip's windows as the live path would cut them: one each stride; a short clip gives one."""
    last_start = max(len(clip.slots) - window_slots, 0)
    return cut_windows(clip, list(range(0, last_start + 1, stride_slots)), window_slots)


def random_window(clip: Clip, window_slots: int, rng: np.random.Generator) -> WindowPlan:
    """Return one window that begins at a random slot."""
    last_start = max(len(clip.slots) - window_slots, 0)
    return cut_windows(clip, [int(rng.integers(0, last_start + 1))], window_slots)


def whole_window(clip: Clip, most_slots: int, rng: np.random.Generator) -> WindowPlan:
    """Return all slots of a clip as one window; of a longer one some, chosen at random, in their order."""
    slots = clip.slots[None]
    return thinned(WindowPlan(samples=np.maximum(slots, 0), mask=slots >= 0), most_slots, rng)


def thinned(plan: WindowPlan, most_slots: int, rng: np.random.Generator) -> WindowPlan:
    """Return a plan of one window with at most so many slots, chosen at random, in their order.

    The attention does not look at the order or the distance of slots: fewer of them show the same clip thinner.
    """
    slots = plan.mask.shape[1]
    if slots <= most_slots:
        return plan
    chosen = np.sort(rng.choice(slots, most_slots, replace=False))
    return WindowPlan(samples=plan.samples[:, chosen], mask=plan.mask[:, chosen])


def cut_windows(clip: Clip, starts: list[int], window_slots: int) -> WindowPlan:
    """Return the windows that begin at the given slots; slots after the clip's end are gaps."""
    padded = np.full(max(starts) + window_slots, -1, np.int64)
    padded[: min(len(clip.slots), len(padded))] = clip.slots[: len(padded)]
    samples = np.stack([padded[start : start + window_slots] for start in starts])
    return WindowPlan(samples=np.maximum(samples, 0), mask=samples >= 0)
