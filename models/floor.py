"""Clips in, how well their labels can be guessed without looking at what happens out.

Clips of one label often come from other cameras than those of the next: their pictures' size, their frame rate and
their length may tell the label. What a model reaches counts above this floor only.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
from rich.console import Console
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold

from models.dataset import Clip, Dataset
from models.metrics import Measured, measure
from models.progress import progress_bar
from monitor.capture.source import read_video

_FOLDS = 5
_TREES = 100
_PACE_FRAMES = 10
"""From which a file's frame rate is taken."""


def file_floor(dataset: Dataset, *, console: Console) -> Measured:
    """Guess labels from picture size, frame rate and length alone, in folds by group.

    Args:
        dataset: clips of two groups or more.
        console: shows the progress.
    """
    with progress_bar(console) as progress:
        clips = progress.track(dataset.clips, description="Looking at the files")
        facts = np.array([_facts(clip) for clip in clips])
    targets, groups = dataset.targets, dataset.groups
    guessed = np.zeros((len(targets), len(dataset.labels)), np.float32)
    for teaching, judged in GroupKFold(min(_FOLDS, len(np.unique(groups)))).split(facts, targets, groups):
        forest = RandomForestClassifier(_TREES, min_samples_leaf=2, class_weight="balanced", random_state=0)
        forest.fit(facts[teaching], targets[teaching])
        guessed[np.ix_(judged, forest.classes_)] = forest.predict_proba(facts[judged])
    return measure(guessed, targets, groups, dataset.labels)


def _facts(clip: Clip) -> tuple[float, float, float, float]:
    """Return width, height, frames a second and slots."""
    frames = list(islice(read_video(clip.entry.path), _PACE_FRAMES))
    first, (_, seconds) = frames[0][0], frames[-1]
    pace = (len(frames) - 1) / seconds if seconds > 0.0 else 0.0
    return float(first.width), float(first.height), round(pace, 1), float(len(clip.slots))
