"""What a head says of clips: those that are judged at once are judged as each alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.batches import MOST_EMBEDDED_SLOTS
from models.dataset import Clip, Dataset
from models.entries import ClipEntry
from models.event_model import AttentionHead
from models.recipe import RECIPES
from models.verdicts import clip_logits, judging_plan, judging_windows

SIZE = 8
LENGTHS = ((8, False), (13, False), (40, True), (3, False), (40, True), (MOST_EMBEDDED_SLOTS + 5, True), (9, False))
"""Slots of a clip, and whether it is a recording labelled as a whole."""


def _clip(number: int, slots: int, *, whole: bool) -> Clip:
    entry = ClipEntry(Path(f"{number}.mp4"), ("normal", "fight")[number % 2], group=str(number))
    places = np.arange(slots)
    places[1] = -1
    return Clip(entry, np.zeros((0, 4, 192, 192, 3), np.uint8), places, key=str(number), whole=whole)


def test_clips_and_whole_recordings_are_judged_at_once_as_each_alone() -> None:
    recipe = RECIPES["fight"]
    clips = [_clip(number, slots, whole=whole) for number, (slots, whole) in enumerate(LENGTHS)]
    clips += [_clip(number, 40, whole=False) for number in range(len(clips), 30)]
    dataset = Dataset(Path("drawn"), ("normal", "fight"), tuple(clips))
    rng = np.random.default_rng(1)
    features = [rng.normal(size=(len(clip.slots), SIZE)).astype(np.float32) for clip in clips]
    torch.manual_seed(1)
    head = AttentionHead(SIZE, hops=2, units=8, labels=2, merge="mean")
    indices = np.arange(len(clips))[::-1].copy()
    windows = judging_windows(dataset, indices, [features[i] for i in indices], recipe)
    logits, targets, owners = windows.logits(head), windows.targets, windows.owners
    assert (np.diff(owners) >= 0).all()
    for place, index in enumerate(indices):
        alone = clip_logits(head, features[index], judging_plan(clips[index], recipe))
        assert logits[owners == place] == pytest.approx(alone, abs=1e-6)
        assert set(targets[owners == place]) == {index % 2}
