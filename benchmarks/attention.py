"""Does the attention find where in a recording the event is, when only the whole recording has a label?

Recordings are composed of 4 (and 8) clips of which at most one is an event; what teaches and what tests shares no
group. Three heads learn on the embeddings of the frozen backbone: with attention from the recordings alone, the same
with a plain mean in its place, and with attention from the recordings and the single clips together. Told are ROC-AUC
of the recordings and, of the recordings rightly called an event, the share whose most attended sample lies inside it
(by chance one in 4, one in 8): of those with a probability above 0.5, and of those above the on-threshold that
`monitor train` would choose, on groups kept aside from what teaches, for the recipe's share of false alarms.

Beside them stands what can be reached: how well a head that knows the label of every clip tells single clips apart,
and what recordings of such clips allow a judge who weighs all of them as well as can be.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from models.calibration import Calibration, calibrate, softmax
from models.checkpoints import Checkpoints
from models.dataset import Clip, Dataset, read_dataset
from models.event_model import AttentionHead, EventModel, build_head
from models.features import clip_features
from models.metrics import roc_auc
from models.recipe import RECIPES, Recipe
from models.stages import Course, teach_head
from models.training import split_groups

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "fight"
PIECES = (4, 8)
"""Clips of a recording."""
FOLDS = 5
TAUGHT, TESTED = 2400, 600
"""Recordings of a fold. Few of them are learned by heart: each clip has to turn up in many."""
DRAWN = 200_000
"""Recordings drawn for what can be reached."""
TEACHING = {"frozen_epochs": 4, "batch_windows": 32, "early_stopping": False}
"""How the recipe is changed for so many recordings; nothing chooses an epoch."""


class PlainMean(AttentionHead):
    """The same head with equal weights in the place of attention."""

    def attend(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Return A (N, R, T): every slot that is no gap weighs the same."""
        present = mask.unsqueeze(1).to(embeddings.dtype).expand(-1, self.second.out_features, -1)
        return present / present.sum(dim=2, keepdim=True).clamp(min=1.0)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording put together of clips."""

    clip: Clip
    features: NDArray[np.float32]
    """(S, D)."""
    inside: NDArray[np.bool_]
    """(S,) True where the event is."""


Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Judged:
    """The recordings of one fold, judged."""

    scores: NDArray[np.float64]
    """(C,) probability of an event."""
    truth: NDArray[np.bool_]
    """(C,) whether there is an event."""
    points: NDArray[np.bool_]
    """(C,) whether the most attended sample lies inside it."""
    above: NDArray[np.bool_]
    """(C,) whether the event's probability reaches the on-threshold."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with labelled clips (default: %(default)s)")
    parser.add_argument("--prefix", default="surv_", help="only files whose name begins with it")
    parser.add_argument("--cache", type=Path, help="folder for decoded samples and embeddings, kept")
    parser.add_argument("--quick", action="store_true", help="recordings of 4 clips only, in one fold")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"{options.data}: no such folder; --data names one with labelled clips")
    torch.set_num_threads(1)
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache or Path(folder)
        recipe = RECIPES["fight"].model_copy(update=TEACHING)
        dataset = read_dataset(options.data, recipe, cache=cache, console=console, prefix=options.prefix)
        model = EventModel(recipe, len(dataset.labels))
        features = clip_features(model, dataset.clips, cache=cache, console=console)
        folds = 1 if options.quick else FOLDS
        answer = {
            str(pieces): measure(dataset, features, recipe, pieces=pieces, folds=folds)
            for pieces in ((4,) if options.quick else PIECES)
        }
        clips_auc = told_apart(dataset, features, RECIPES["fight"], folds=folds)
    for pieces, found in answer.items():
        found.update(reachable(clips_auc, int(pieces)))
    show(answer, console)
    console.print(f"Single clips, each with its label: ROC-AUC {clips_auc:.3f}; hence the rows 'at best'.")
    if options.json:
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


def measure(
    dataset: Dataset, features: Sequence[NDArray[np.float32]], recipe: Recipe, *, pieces: int, folds: int
) -> dict[str, Figures]:
    """Return the figures of the three heads on recordings of so many clips."""
    parts: dict[str, list[Judged]] = {}
    for number, (teaching, tested) in enumerate(splits(dataset, recipe, folds)):
        rng = np.random.default_rng((recipe.seed, pieces, number))
        split = split_groups(dataset.subset(teaching.tolist()), recipe.validation_share, seed=recipe.seed)
        most, aside = teaching[split.train], teaching[split.validation]
        taught, test, taught_most, test_aside = (
            compose(dataset, features, indices, pieces=pieces, recordings=count, rng=rng)
            for indices, count in ((teaching, TAUGHT), (tested, TESTED), (most, TAUGHT), (aside, TESTED))
        )
        clips, clips_most = (singles(dataset, features, indices) for indices in (teaching, most))
        groups = len(np.unique(dataset.groups[aside]))
        for name, kind, extra, extra_most in (
            ("attention", AttentionHead, [], []),
            ("plain mean", PlainMean, [], []),
            ("attention, clips too", AttentionHead, clips, clips_most),
        ):
            chooser = teach(kind, dataset.labels, [*taught_most, *extra_most], recipe)
            chosen = calibration_of(chooser, test_aside, dataset.labels, recipe, groups=groups)
            head = teach(kind, dataset.labels, [*taught, *extra], recipe)
            parts.setdefault(name, []).append(judge(head, test, chosen))
    return {name: figures(found) for name, found in parts.items()}


def splits(dataset: Dataset, recipe: Recipe, folds: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return what teaches and what tests in each fold; a group is in one of them."""
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=recipe.seed)
    return list(splitter.split(dataset.targets, dataset.targets, dataset.groups))[:folds]


def singles(dataset: Dataset, features: Sequence[NDArray[np.float32]], indices: NDArray[np.int64]) -> list[Recording]:
    """Return clips as recordings of their own."""
    events = dataset.targets != 0
    return [Recording(dataset.clips[i], features[i], np.full(len(features[i]), events[i])) for i in indices]


def told_apart(dataset: Dataset, features: Sequence[NDArray[np.float32]], recipe: Recipe, *, folds: int) -> float:
    """Return the ROC-AUC of single clips, each with its label, by the recipe itself: the mean of the folds."""
    found = []
    for teaching, tested in splits(dataset, recipe, folds):
        head = teach(AttentionHead, dataset.labels, singles(dataset, features, teaching), recipe)
        logits, truth, _ = said_of(head, singles(dataset, features, tested))
        found.append(roc_auc(softmax(logits)[:, 1], truth))
    return float(np.mean(found))


def reachable(clips_auc: float, pieces: int) -> dict[str, Figures]:
    """Return what recordings allow of whose clips a score says as much as this ROC-AUC.

    The scores of quiet clips are normally distributed, those of events the same but √2 Φ⁻¹(AUC) higher, and the
    clips of a recording are independent. The best judge of such a recording goes by its likelihood ratio, the mean of
    its clips' (Neyman and Pearson 1933), and looks at the clip with the highest score.
    """
    distance = 2**0.5 * NormalDist().inv_cdf(clips_auc)
    scores = np.random.default_rng(1).standard_normal((DRAWN, pieces))
    truth = np.arange(DRAWN) % 2 == 1
    scores[truth, 0] += distance
    ratio = np.exp(distance * scores - distance**2 / 2).mean(axis=1)
    points = scores.argmax(axis=1) == 0
    return {
        "at best": {"auc": roc_auc(ratio, truth), **detections(ratio > 1.0, truth, points)},
        "plain mean, at best": {"auc": roc_auc(scores.mean(axis=1), truth)},
    }


def compose(
    dataset: Dataset,
    features: Sequence[NDArray[np.float32]],
    indices: NDArray[np.int64],
    *,
    pieces: int,
    recordings: int,
    rng: np.random.Generator,
) -> list[Recording]:
    """Put recordings together, half of them with one event among quiet clips of the same collection."""
    composed = []
    targets = dataset.targets
    for number in range(recordings):
        home = dataset.clips[rng.choice(indices)].entry.path.name.split("_")[0]
        near = [i for i in indices if dataset.clips[i].entry.path.name.startswith(home)]
        quiet = [i for i in near if targets[i] == 0]
        events = [i for i in near if targets[i] != 0]
        chosen = rng.choice(quiet, pieces, replace=len(quiet) < pieces)
        inside = np.zeros(pieces, np.bool_)
        if number % 2:
            place = int(rng.integers(pieces))
            chosen[place], inside[place] = rng.choice(events), True
        composed.append(_joined(dataset, features, chosen, inside, name=f"{home}{number}"))
    return composed


def _joined(
    dataset: Dataset,
    features: Sequence[NDArray[np.float32]],
    chosen: NDArray[np.int64],
    inside: NDArray[np.bool_],
    *,
    name: str,
) -> Recording:
    first = dataset.clips[chosen[0]]
    label = dataset.labels[1 if inside.any() else 0]
    rows = np.concatenate([features[i] for i in chosen])
    clip = Clip(
        entry=replace(first.entry, label=label, group=name),
        pictures=first.pictures[:0],
        slots=np.arange(len(rows)),
        key=name,
        whole=True,
    )
    return Recording(clip, rows, np.repeat(inside, [len(features[i]) for i in chosen]))


def teach(
    kind: type[AttentionHead], labels: tuple[str, ...], taught: Sequence[Recording], recipe: Recipe
) -> AttentionHead:
    """Train a head on recordings, as `monitor train` does."""
    dataset = Dataset(Path("composed"), labels, tuple(recording.clip for recording in taught))
    features = [recording.features for recording in taught]
    torch.manual_seed(recipe.seed)
    head = build_head(recipe, features[0].shape[1], len(labels), kind)
    head.standardise(torch.from_numpy(np.concatenate(features)))
    everyone = np.arange(len(taught))
    with tempfile.TemporaryDirectory() as folder:
        quiet = Console(quiet=True)
        checkpoints = Checkpoints.begin(Path(folder) / "run", dataset, recipe, resume=False, console=quiet)
        told_of = everyone[:: len(taught) // 8]  # their loss is written down; it chooses nothing
        teach_head(head, [features], Course(dataset, everyone, told_of, recipe, Path(folder), checkpoints, quiet))
    return head.eval()


@torch.inference_mode()
def said_of(
    head: AttentionHead, test: Sequence[Recording]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return of each recording its logits (C, 2), whether there is an event, and whether the attention is inside it."""
    said, points = [], []
    for recording in test:
        mask = torch.ones((1, len(recording.features)), dtype=torch.bool)
        logits, attention = head(torch.from_numpy(recording.features)[None], mask)
        said.append(logits[0].numpy())
        points.append(bool(recording.inside[int(attention[0].mean(dim=0).argmax())]))
    truth = np.array([bool(recording.inside.any()) for recording in test])
    return np.array(said, np.float32), truth, np.array(points)


def calibration_of(
    head: AttentionHead, aside: Sequence[Recording], labels: tuple[str, ...], recipe: Recipe, *, groups: int
) -> Calibration:
    """Return temperature and thresholds as `monitor train` chooses them, on recordings of groups kept aside."""
    logits, truth, _ = said_of(head, aside)
    return calibrate(logits, truth.astype(np.int64), labels, recipe, groups=groups)


def judge(head: AttentionHead, test: Sequence[Recording], calibration: Calibration) -> Judged:
    """Judge recordings that taught nothing."""
    logits, truth, points = said_of(head, test)
    [threshold] = calibration.thresholds.values()
    above = softmax(logits / calibration.temperature)[:, 1] >= threshold.on
    return Judged(softmax(logits)[:, 1], truth, points, above)


def figures(folds: Sequence[Judged]) -> Figures:
    """Sum the folds up; the AUC is the mean of theirs, for each fold's head has a scale of its own."""
    aucs = [roc_auc(fold.scores, fold.truth) for fold in folds]
    spread = float(np.std(aucs, ddof=1) / np.sqrt(len(aucs))) if len(aucs) > 1 else None
    scores, truth, points, above = (
        np.concatenate(column)
        for column in zip(*((fold.scores, fold.truth, fold.points, fold.above) for fold in folds), strict=True)
    )
    return {
        "recordings": len(truth),
        "auc": float(np.mean(aucs)),
        "auc_of_folds": aucs,
        "auc_standard_error": spread,
        **detections(scores > 0.5, truth, points),
        "at_threshold": detections(above, truth, points),
    }


def detections(called: NDArray[np.bool_], truth: NDArray[np.bool_], points: NDArray[np.bool_]) -> Figures:
    """Return the figures of the recordings that were called an event."""
    return {
        "recall": float(called[truth].mean()),
        "false_alarms": float(called[~truth].mean()),
        "inside": float(points[called & truth].mean()) if (called & truth).any() else None,
    }


def show(answer: Mapping[str, Mapping[str, Figures]], console: Console) -> None:
    """Print the table."""
    table = Table("clips", "head", "ROC-AUC", "recall", "false alarms", "inside", "by chance", "at its threshold")
    for pieces, heads in answer.items():
        for name, found in heads.items():
            error = found.get("auc_standard_error")
            auc = f"{found['auc']:.3f}" + ("" if error is None else f" ± {error:.3f}")
            own = found.get("at_threshold", {})
            table.add_row(
                pieces,
                name,
                auc,
                *(share(found.get(key)) for key in ("recall", "false_alarms", "inside")),
                f"{1 / int(pieces):.1%}",
                " / ".join(share(own[key]) for key in own),
            )
    console.print(table)
    console.print(
        "± is the standard error of the folds. Recall, false alarms and inside (the most attended sample lies in the "
        "event, of those rightly called one) at a probability of 0.5; in the last column at the on-threshold."
    )


def share(value: float | None) -> str:
    """Return a share as people read it."""
    return "–" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()
