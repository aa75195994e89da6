"""Evaluation: labelled clips and a bundle, or a recipe and a number of folds, in; figures with intervals out."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import StratifiedGroupKFold

from models.dataset import Dataset, read_dataset
from models.features import clip_features
from models.judging import judge_clip, read_labelled
from models.metrics import Measured, measure
from models.progress import progress_bar
from models.recipe import Recipe
from models.training import Trained, train
from monitor.bundle import Bundle
from monitor.errors import InputInvalid
from monitor.scoring.engine import open_engine


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found."""

    labels: tuple[str, ...]
    measured: Measured
    """Over all clips; with folds, each clip was judged by the model that had not seen its group."""
    folds: tuple[Measured, ...]
    """One a fold; empty when a bundle was evaluated."""
    confusion: NDArray[np.int64]
    """(L, L) clips: rows are true labels, columns what was said."""

    def as_json(self) -> dict[str, object]:
        """Return the report for machines."""
        measured = self.measured
        return {
            "clips": measured.clips,
            "groups": measured.groups,
            "accuracy": _interval(measured.accuracy.value, measured.accuracy.low, measured.accuracy.high),
            "auc": _interval(measured.auc.value, measured.auc.low, measured.auc.high),
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            "folds": [
                {"clips": fold.clips, "accuracy": fold.accuracy.value, "auc": fold.auc.value} for fold in self.folds
            ],
        }

    def table(self) -> Table:
        """Return the report for people."""
        table = Table("", "clips", "accuracy (95%)", "ROC-AUC (95%)")
        for number, fold in enumerate(self.folds, start=1):
            table.add_row(f"fold {number}", str(fold.clips), str(fold.accuracy), str(fold.auc))
        table.add_row("all", str(self.measured.clips), str(self.measured.accuracy), str(self.measured.auc))
        return table


def run(
    data: Path, *, bundle: Bundle, console: Console, cache: Path, skip_bad: bool = False, prefix: str = ""
) -> Report:
    """Judge clips by a bundle; what `monitor evaluate DATA --model NAME` does.

    Raises:
        DatasetInvalid: with every problem of the data set.
        InputInvalid: the data set is not there, or holds labels that the bundle does not know.
    """
    dataset = read_labelled(data, bundle, cache=cache, console=console, skip_bad=skip_bad, prefix=prefix)
    engine = open_engine(bundle, preference="auto", threads=0).engine
    with closing(engine), progress_bar(console) as progress:
        clips = progress.track(dataset.clips, description="Judging clips")
        judged = [judge_clip(engine, clip, bundle) for clip in clips]
    return _report(dataset, np.stack(judged), ())


def run_folds(
    data: Path, *, recipe: Recipe, folds: int, console: Console, cache: Path, skip_bad: bool = False, prefix: str = ""
) -> Report:
    """Train and judge a recipe in folds by group; what `monitor evaluate DATA --recipe NAME --folds K` does.

    Raises:
        DatasetInvalid: with every problem of the data set.
        InputInvalid: there are fewer groups than folds.
    """
    dataset = read_dataset(data, recipe, cache=cache, console=console, skip_bad=skip_bad, prefix=prefix)
    groups = len(np.unique(dataset.groups))
    if not 2 <= folds <= groups:
        raise InputInvalid(data, f"{folds} folds: there can be 2 to {groups}, the number of groups")
    probabilities = np.zeros((len(dataset.clips), len(dataset.labels)), np.float32)
    per_fold: list[Measured] = []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=recipe.seed)
    for teaching, judged in splitter.split(dataset.targets, dataset.targets, dataset.groups):
        checkpoints = cache / "checkpoints" / f"fold{len(per_fold) + 1}of{folds}"
        taught = dataset.subset(teaching.tolist())
        trained = train(taught, recipe, cache=cache, checkpoints=checkpoints, console=console)
        kept = dataset.subset(judged.tolist())
        probabilities[judged] = _judge(trained, kept, recipe, cache=cache, console=console)
        per_fold.append(measure(probabilities[judged], kept.targets, kept.groups, kept.labels))
        console.print(f"fold {len(per_fold)}: {per_fold[-1]}", highlight=False)
    return _report(dataset, probabilities, tuple(per_fold))


def _judge(trained: Trained, dataset: Dataset, recipe: Recipe, *, cache: Path, console: Console) -> NDArray[np.float32]:
    features = clip_features(trained.model, dataset.clips, mirrored=False, cache=cache, console=console)
    return np.stack([trained.judge(rows, clip, recipe) for rows, clip in zip(features, dataset.clips, strict=True)])


def _report(dataset: Dataset, probabilities: NDArray[np.float32], folds: tuple[Measured, ...]) -> Report:
    targets = dataset.targets
    confusion = np.zeros((len(dataset.labels), len(dataset.labels)), np.int64)
    np.add.at(confusion, (targets, probabilities.argmax(axis=1)), 1)
    measured = measure(probabilities, targets, dataset.groups, dataset.labels)
    return Report(dataset.labels, measured, folds, confusion)


def _interval(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}
