"""Training: labelled clips and a recipe in, a bundle out.

In stages: first the head on the features of the frozen backbone, then the head with the backbone's last
stages (or all of a small one) from the pictures. Each stage keeps its best epoch by the loss on groups that
are kept aside; they also give temperature and thresholds. With `refit` the model is then trained anew on all
groups, for as many epochs as were best.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from models.calibration import Calibration, calibrate
from models.card import Provenance
from models.checkpoints import Checkpoints, EpochLoss, Sides
from models.dataset import Clip, Dataset, DatasetInvalid, read_dataset
from models.event_model import EventModel
from models.export import export_bundle
from models.features import clip_features, embed_samples
from models.floor import file_floor
from models.metrics import Measured, measure
from models.recipe import Recipe
from models.report.page import write_report
from models.stages import Course, best_device, train_head, tune
from models.verdicts import JudgedClip, clip_logits, clip_probabilities, judge, judging_plan
from monitor.bundle import NAME_PATTERN, Bundle
from monitor.errors import InputInvalid, Problem

NO_SIDES = Sides()


@dataclass(frozen=True, slots=True)
class Split:
    """Which clips teach and which are kept aside; no group is in both."""

    train: NDArray[np.int64]
    """Indices of clips."""
    validation: NDArray[np.int64]

    def sides(self, dataset: Dataset) -> Sides:
        """Return which groups are on which side."""
        taught, aside = (dataset.groups[indices].tolist() for indices in (self.train, self.validation))
        return Sides(frozenset(taught), frozenset(aside))


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model with what the groups kept aside say of it."""

    model: EventModel
    calibration: Calibration
    validation: Measured
    history: tuple[EpochLoss, ...]
    judged: tuple[JudgedClip, ...]
    """The clips aside, by the model that had not been taught on them."""

    def judge(self, features: NDArray[np.float32], clip: Clip, recipe: Recipe) -> NDArray[np.float32]:
        """Return the mean probabilities (L,) of a clip's windows.

        Args:
            features: (S, D) embeddings of all the clip's samples.
            clip: says which of them lie in which slot.
            recipe: says how windows are cut.
        """
        logits = clip_logits(self.model.head, features, judging_plan(clip, recipe))
        everywhere = np.zeros(len(logits), np.int64)
        mean: NDArray[np.float32] = clip_probabilities(logits, everywhere, self.calibration.temperature)[0]
        return mean


def run(
    data: Path,
    out: Path,
    *,
    recipe: Recipe,
    console: Console,
    cache: Path | None = None,
    skip_bad: bool = False,
    prefix: str = "",
    resume: bool = False,
    provenance: Provenance | None = None,
) -> Bundle:
    """Train on a data set and write the bundle; what `monitor train` does.

    Args:
        data: folder with a folder per label or `clips.csv`, or a CSV file.
        out: the bundle's folder; its name becomes the model's.
        recipe: every number of it.
        console: shows progress and figures.
        cache: folder for decoded samples, features and checkpoints; `.cache` inside `out` when None.
        skip_bad: leave out unusable clips instead of stopping.
        prefix: take only files whose name begins with it.
        resume: go on from the checkpoint that an interrupted run left, or, with other clips, from what the last run
            learned.
        provenance: what the card says of data, licence and command.

    Raises:
        DatasetInvalid: with every problem of the data set.
        InputInvalid: the data set is not there, `out` is no name for a model, or what is to be resumed is of
            another recipe or of other labels.
    """
    if not re.fullmatch(NAME_PATTERN, out.name):
        reason = "its name becomes the model's, and may hold a-z, 0-9, '.', '_' and '-', a letter or digit first"
        raise InputInvalid(out, reason)
    cache = cache or out / ".cache"
    dataset = read_dataset(data, recipe, cache=cache, console=console, skip_bad=skip_bad, prefix=prefix)
    checkpoints = cache / "checkpoints" / out.name
    trained = train(dataset, recipe, cache=cache, checkpoints=checkpoints, resume=resume, console=console)
    console.print(f"validation: {trained.validation}", highlight=False)
    floor = file_floor(dataset, console=console)
    console.print(f"by size, rate and length of the files alone: {floor}", highlight=False)
    told = provenance or Provenance(data=data.name)
    bundle = export_bundle(trained, dataset, recipe, out, floor=floor, provenance=told)
    console.print(f"report: {write_report(trained, recipe, bundle, floor=floor)}", highlight=False, soft_wrap=True)
    return bundle


def train(
    dataset: Dataset, recipe: Recipe, *, cache: Path, checkpoints: Path, console: Console, resume: bool = False
) -> Trained:
    """Train a model on a data set, keeping `validation_share` of its groups aside; on a GPU where there is one.

    Args:
        dataset: checked clips.
        recipe: every number of it.
        cache: folder for features.
        checkpoints: folder of this run; what lies there is removed, but for `resume`.
        console: shows progress and figures.
        resume: go on with the run that lies in `checkpoints`.

    Raises:
        DatasetInvalid: the groups do not allow a split in which both sides hold every label.
        InputInvalid: what is to be resumed is of another recipe or of other labels.
    """
    kept = Checkpoints.begin(checkpoints, dataset, recipe, resume=resume, console=console)
    split = split_groups(dataset, recipe.validation_share, seed=recipe.seed, earlier=kept.earlier)
    course = Course(dataset, split.train, split.validation, recipe, cache, kept, console)
    untaught = _begin(course)
    model = deepcopy(untaught)
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # a model that learns anew draws the same
        history = _learn(model, course)
    kept.finish(model, split.sides(dataset))
    features = _features_aside(model, course)
    aside = course.windows_aside(features)
    logits = aside.logits(model.head)
    validation = dataset.subset(split.validation.tolist())
    groups = len(np.unique(validation.groups))
    calibration = calibrate(logits, aside.targets, dataset.labels, recipe, groups=groups)
    probabilities = clip_probabilities(logits, aside.owners, calibration.temperature)
    measured = measure(probabilities, validation.targets, validation.groups, validation.labels)
    judged = tuple(
        judge(model.head, dataset, index, features=rows, probabilities=said, recipe=recipe)
        for index, rows, said in zip(split.validation.tolist(), features, probabilities, strict=True)
    )
    if recipe.refit:
        lengths = {stage: _kept_epoch(history, stage, recipe) for stage in {loss.stage for loss in history}}
        everyone, nobody = np.arange(len(dataset.clips)), np.arange(0)
        model = untaught
        _learn(model, replace(course, teaching=everyone, aside=nobody, lengths=lengths))
    return Trained(model.cpu().eval(), calibration, measured, tuple(history), judged)


def _begin(course: Course) -> EventModel:
    """Build a model, or take up the one that the run began with."""
    torch.manual_seed(course.recipe.seed)
    model = EventModel(course.recipe, len(course.dataset.labels))
    course.checkpoints.load_start(model)
    return model.to(best_device())


def _learn(model: EventModel, course: Course) -> list[EpochLoss]:
    """Lead a model through the stages."""
    recipe = course.recipe
    history: list[EpochLoss] = []
    if recipe.frozen_epochs:
        history += train_head(model, course)
    if recipe.tuned_epochs:
        history += tune(model, course)
    return history


def _features_aside(model: EventModel, course: Course) -> list[NDArray[np.float32]]:
    """Return the embeddings of the clips aside; of a backbone that did not learn they lie on disk."""
    aside = course.dataset.subset(course.aside.tolist()).clips
    if course.recipe.tuned_epochs:
        return [embed_samples(model, clip.pictures) for clip in aside]
    return clip_features(model, aside, cache=course.cache, console=course.console)


def _kept_epoch(history: Sequence[EpochLoss], stage: str, recipe: Recipe) -> int:
    of_stage = [loss for loss in history if loss.stage == stage]
    return (min(of_stage, key=lambda loss: loss.validation_loss) if recipe.early_stopping else of_stage[-1]).epoch


def split_groups(dataset: Dataset, validation_share: float, *, seed: int, earlier: Sides = NO_SIDES) -> Split:
    """Keep whole groups aside until every label has its share of clips there, and at most half of them.

    Args:
        dataset: checked clips.
        validation_share: of the clips of each label.
        seed: of the order in which groups are tried.
        earlier: sides on which groups have been already, and stay.

    Raises:
        DatasetInvalid: the groups are too few for that.
    """
    targets, groups = dataset.targets, dataset.groups
    labels = len(dataset.labels)
    totals = np.bincount(targets, minlength=labels)
    wanted = np.maximum(1.0, validation_share * totals)
    aside = np.isin(groups, sorted(earlier.aside))
    kept = np.bincount(targets[aside], minlength=labels)
    """Clips of each label that are aside."""
    free = sorted(set(groups.tolist()) - earlier.taught - earlier.aside)
    for group in np.random.default_rng(seed).permutation(np.array(free, np.str_)):
        brings = np.bincount(targets[groups == group], minlength=labels)
        helps = ((brings > 0) & (kept < wanted)).any()
        if helps and (kept + brings <= totals / 2).all():
            aside |= groups == group
            kept += brings
    poor = [label for label, count in zip(dataset.labels, kept, strict=True) if count == 0]
    if poor:
        reason = f"label {', '.join(poor)}: too few groups to keep some aside for validation"
        raise DatasetInvalid(dataset.path, [Problem("groups", reason)])
    return Split(train=np.flatnonzero(~aside), validation=np.flatnonzero(aside))
