"""Evaluation: labelled clips, recordings with events, and a bundle in, or a recipe and folds; figures out.

Clips are judged by their windows' mean; a recording labelled as a whole by the window that most looks like an event.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from rich.console import Console
from sklearn.model_selection import StratifiedGroupKFold

from models import recordings
from models.dataset import Dataset, read_dataset
from models.entries import list_entries
from models.features import clip_features
from models.judging import judge_clip, judging_engine, read_labelled
from models.metrics import Measured, confusion, measure
from models.progress import progress_bar
from models.recipe import Recipe
from models.recordings import EVENTS_TABLE, Watched
from models.training import Trained, train
from monitor.bundle import Bundle
from monitor.errors import InputInvalid


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found on clips."""

    labels: tuple[str, ...]
    measured: Measured
    """Over all clips; with folds, each clip was judged by the model that had not seen its group."""
    folds: tuple[Measured, ...]
    """One a fold; empty when a bundle was evaluated."""
    confusion: NDArray[np.int64]
    """(L, L) clips: rows are true labels, columns what was said."""


def run(
    data: Path, *, bundle: Bundle, console: Console, cache: Path, skip_bad: bool = False, prefix: str = ""
) -> Report:
    """Judge clips by a bundle; what `monitor evaluate DATA --model NAME` does with clips.

    Raises:
        DatasetInvalid: with every problem of the data set.
        InputInvalid: the data set is not there, or holds labels that the bundle does not know.
    """
    dataset = read_labelled(data, bundle, cache=cache, console=console, skip_bad=skip_bad, prefix=prefix)
    engine = judging_engine(bundle)
    with closing(engine), progress_bar(console) as progress:
        clips = progress.track(dataset.clips, description="Judging clips")
        judged = [judge_clip(engine, clip, bundle) for clip in clips]
    return _report(dataset, np.stack(judged), ())


def run_folds(
    data: Path,
    *,
    recipe: Recipe,
    folds: int,
    console: Console,
    cache: Path,
    skip_bad: bool = False,
    prefix: str = "",
    resume: bool = False,
) -> Report:
    """Train and judge a recipe in folds by group; what `monitor evaluate DATA --folds K` does.

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
    for judged, said in judge_in_folds(dataset, recipe, folds=folds, cache=cache, console=console, resume=resume):
        probabilities[judged] = said
        per_fold.append(measure(said, dataset.targets[judged], dataset.groups[judged], dataset.labels))
        console.print(f"fold {len(per_fold)}: {per_fold[-1]}", highlight=False)
    return _report(dataset, probabilities, tuple(per_fold))


def judge_in_folds(
    dataset: Dataset, recipe: Recipe, *, folds: int, cache: Path, console: Console, resume: bool = False
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield of each fold by group the places of its clips, and their probabilities by a model that had not seen them.

    Args:
        dataset: has as many groups as folds, or more.
        recipe: is trained anew for each fold.
        folds: two or more.
        cache: keeps embeddings and checkpoints.
        console: shows the progress.
        resume: go on from the checkpoints of an interrupted run.
    """
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=recipe.seed)
    splits = splitter.split(dataset.targets, dataset.targets, dataset.groups)
    for number, (teaching, judged) in enumerate(splits, start=1):
        checkpoints = cache / "checkpoints" / f"fold{number}of{folds}"
        taught = dataset.subset(teaching.tolist())
        trained = train(taught, recipe, cache=cache, checkpoints=checkpoints, console=console, resume=resume)
        yield judged, _judge(trained, dataset.subset(judged.tolist()), recipe, cache=cache, console=console)


def recipe_of(bundle: Bundle) -> Recipe:
    """Return the recipe that made a bundle.

    Raises:
        InputInvalid: its manifest holds none, or one of another version of this program.
    """
    told = bundle.manifest.training.get("recipe")
    try:
        return Recipe.model_validate(told)
    except ValidationError as exc:
        raise InputInvalid(bundle.path, "holds no recipe that this version can train; name one with --recipe") from exc


def holds_clips(data: Path) -> bool:
    """Return whether there are labelled clips to judge, besides the recordings of `events.csv`."""
    if data.name == EVENTS_TABLE:
        return False
    if not (data / EVENTS_TABLE).is_file():
        return True  # whatever is wrong with it is told by the reading
    watched = {(data / name).resolve() for name in recordings.read_events(data / EVENTS_TABLE)}
    return any(entry.path.resolve() not in watched for entry in list_entries(data, []))


def holds_recordings(data: Path) -> bool:
    """Return whether there is a table of events in recordings."""
    return data.name == EVENTS_TABLE or (data / EVENTS_TABLE).is_file()


def as_json(report: Report | None, watched: Watched | None) -> dict[str, object]:
    """Return everything that was measured, for machines; each figure with its 95% interval.

    A figure of None is no number: nothing to count, or, of seconds, never.
    """
    table: dict[str, object] = {"clips": 0, "groups": 0, "accuracy": None, "auc": None, "labels": {}, "events": None}
    if report is not None:
        measured = report.measured
        table |= {
            "clips": measured.clips,
            "groups": measured.groups,
            "accuracy": measured.accuracy.as_json(),
            "auc": measured.auc.as_json(),
            "labels": {label: figures.as_json() for label, figures in measured.labels.items()},
            "confusion": {"labels": list(report.labels), "clips": report.confusion.tolist()},
            "folds": [
                {"clips": fold.clips, "accuracy": fold.accuracy.as_json(), "auc": fold.auc.as_json()}
                for fold in report.folds
            ],
        }
    if watched is not None:
        table["events"] = watched.as_json()
    return table


def _judge(trained: Trained, dataset: Dataset, recipe: Recipe, *, cache: Path, console: Console) -> NDArray[np.float32]:
    features = clip_features(trained.model, dataset.clips, cache=cache, console=console)
    return np.stack([trained.judge(rows, clip, recipe) for rows, clip in zip(features, dataset.clips, strict=True)])


def _report(dataset: Dataset, probabilities: NDArray[np.float32], folds: tuple[Measured, ...]) -> Report:
    targets = dataset.targets
    measured = measure(probabilities, targets, dataset.groups, dataset.labels)
    said = confusion(targets, probabilities.argmax(axis=1), len(dataset.labels))
    return Report(dataset.labels, measured, folds, said)
