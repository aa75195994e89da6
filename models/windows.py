"""Cuts clips into windows for the head: clips in, (windows, slots) indices and masks out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.dataset import Clip


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Which samples of one clip make which windows."""

    slots: NDArray[np.int64]
    """(W, T) slot of the clip; those beyond its last are gaps."""
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
    return thinned(_plan(clip, np.arange(len(clip.slots))[None]), most_slots, rng)


def thinned(plan: WindowPlan, most_slots: int, rng: np.random.Generator) -> WindowPlan:
    """Return a plan of one window with at most so many slots, chosen at random, in their order.

    The attention does not look at the order or the distance of slots: fewer of them show the same clip thinner.
    """
    slots = plan.mask.shape[1]
    if slots <= most_slots:
        return plan
    chosen = np.sort(rng.choice(slots, most_slots, replace=False))
    return WindowPlan(slots=plan.slots[:, chosen], samples=plan.samples[:, chosen], mask=plan.mask[:, chosen])


def cut_windows(clip: Clip, starts: list[int], window_slots: int) -> WindowPlan:
    """Return the windows that begin at the given slots; slots after the clip's end are gaps."""
    return _plan(clip, np.array(starts)[:, None] + np.arange(window_slots))


def _plan(clip: Clip, slots: NDArray[np.int64]) -> WindowPlan:
    inside = slots < len(clip.slots)
    samples = np.where(inside, clip.slots[np.where(inside, slots, 0)], -1)
    return WindowPlan(slots=slots, samples=np.maximum(samples, 0), mask=samples >= 0)
