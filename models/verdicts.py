"""What a model says of clips that it is not taught on: clips and embeddings in, logits of their windows out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.batches import MOST_EMBEDDED_SLOTS
from models.dataset import Clip, Dataset
from models.event_model import AttentionHead
from models.recipe import Recipe
from models.windows import WindowPlan, stride_windows, whole_window


@dataclass(frozen=True, slots=True)
class JudgedClip:
    """What is said of a clip, and where the attention points in the window that says it loudest."""

    clip: Clip
    target: int
    """Index of its label."""
    probabilities: NDArray[np.float32]
    """(L,): the mean of its windows'."""
    slots: NDArray[np.int64]
    """(T,) slots of the window, counted from the clip's first; they may lie beyond its last."""
    attention: NDArray[np.float32]
    """(T,) the hops' mean; sums to 1, gaps have 0."""

    @property
    def said(self) -> int:
        """Index of the label that it is said to have."""
        return int(self.probabilities.argmax())

    def most_attended_seconds(self, sample_fps: float) -> float:
        """Return where in the file the most attended frame lies."""
        return self.clip.entry.start_seconds + float(self.slots[int(self.attention.argmax())]) / sample_fps


def judging_plan(clip: Clip, recipe: Recipe) -> WindowPlan:
    """Return the windows by which a clip is judged: those of the live path, or all of a whole recording as one."""
    if clip.whole:
        return whole_window(clip, MOST_EMBEDDED_SLOTS, np.random.default_rng(recipe.seed))
    return stride_windows(clip, recipe.window_slots, recipe.stride_slots)


def clip_logits(head: AttentionHead, features: NDArray[np.float32], plan: WindowPlan) -> NDArray[np.float32]:
    """Return the logits (W, L) of a clip's windows.

    Args:
        head: on any device.
        features: (S, D) embeddings of all the clip's samples.
        plan: says which of them lie in which window.
    """
    return _answer(head, _filled(plan, features), plan.mask)[0]


def _filled(plan: WindowPlan, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the embeddings (W, T, D) of a clip's windows, zeros in the gaps."""
    windows: NDArray[np.float32] = features[plan.samples] * plan.mask[:, :, None]
    return windows


@torch.inference_mode()
def _answer(
    head: AttentionHead, windows: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return logits (W, L) and attention (W, R, T) of windows (W, T, D) with mask (W, T)."""
    device = next(head.parameters()).device
    logits, attention = head.eval()(torch.from_numpy(windows).to(device), torch.from_numpy(mask).to(device))
    return logits.cpu().numpy(), attention.cpu().numpy()


def judge(
    head: AttentionHead,
    dataset: Dataset,
    index: int,
    *,
    features: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    recipe: Recipe,
) -> JudgedClip:
    """Return what is said of a clip with the attention of the window that says it loudest.

    Args:
        head: on any device.
        dataset: holds the clip.
        index: of the clip.
        features: (S, D) embeddings of all its samples.
        probabilities: (L,) of the clip.
        recipe: says how windows are cut.
    """
    clip = dataset.clips[index]
    plan = judging_plan(clip, recipe)
    logits, attention = _answer(head, _filled(plan, features), plan.mask)
    said = int(probabilities.argmax())
    others = np.delete(logits, said, axis=1).max(axis=1)
    loudest = int((logits[:, said] - others).argmax())
    return JudgedClip(
        clip=clip,
        target=int(dataset.targets[index]),
        probabilities=probabilities,
        slots=plan.slots[loudest],
        attention=attention[loudest].mean(axis=0),
    )


@dataclass(frozen=True, slots=True)
class JudgingWindows:
    """All windows of some clips, made once for a head that is asked after every epoch."""

    embeddings: tuple[NDArray[np.float32], ...]
    """(N, T, D) of each batch of windows of one length, zeros in the gaps."""
    masks: tuple[NDArray[np.bool_], ...]
    """(N, T) bool of each batch, False where the slot is a gap."""
    targets: NDArray[np.int64]
    """(W,) index of the label of each window's clip."""
    owners: NDArray[np.int64]
    """(W,) place of each window's clip among the clips."""

    def logits(self, head: AttentionHead) -> NDArray[np.float32]:
        """Return the logits (W, L) of all windows; the head may be on any device."""
        return np.concatenate([_answer(head, *batch)[0] for batch in zip(self.embeddings, self.masks, strict=True)])


def judging_windows(
    dataset: Dataset, indices: NDArray[np.int64], features: Sequence[NDArray[np.float32]], recipe: Recipe
) -> JudgingWindows:
    """Return the windows by which some clips are judged.

    Args:
        dataset: holds the clips.
        indices: (C,) of the clips.
        features: (S, D) embeddings of each of these clips.
        recipe: says how windows are cut.
    """
    plans = [judging_plan(dataset.clips[index], recipe) for index in indices]
    batches = list(_alike(plans))
    counts = np.array([len(plan.mask) for plan in plans], np.int64)
    return JudgingWindows(
        tuple(np.concatenate([_filled(plans[place], features[place]) for place in batch]) for batch in batches),
        tuple(np.concatenate([plans[place].mask for place in batch]) for batch in batches),
        np.repeat(dataset.targets[indices], counts),
        np.repeat(np.arange(len(plans)), counts),
    )


def _alike(plans: Sequence[WindowPlan]) -> Iterator[list[int]]:
    """Yield the places of neighbours whose windows are of one length, as many as the head takes at once."""
    batch: list[int] = []
    slots = 0
    for place, plan in enumerate(plans):
        differs = batch and plans[batch[0]].mask.shape[1] != plan.mask.shape[1]
        if batch and (differs or slots + plan.mask.size > MOST_EMBEDDED_SLOTS):
            yield batch
            batch, slots = [], 0
        batch.append(place)
        slots += plan.mask.size
    if batch:
        yield batch


def clip_probabilities(
    logits: NDArray[np.float32], owners: NDArray[np.int64], temperature: float
) -> NDArray[np.float32]:
    """Return the mean probabilities (C, L) of each clip's windows."""
    probabilities = torch.softmax(torch.from_numpy(logits) / temperature, dim=1).numpy()
    means: NDArray[np.float32] = np.stack([probabilities[owners == clip].mean(axis=0) for clip in np.unique(owners)])
    return means
