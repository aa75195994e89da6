"""Does the attention find where in a recording the event is, when only the whole recording has a label?

Recordings are composed of 4 (and 8) clips of which at most one is an event; what teaches and what tests shares no
group. Three heads learn on the embeddings of the frozen backbone: with attention from the recordings alone, the same
with a plain mean in its place, and with attention from the recordings and the single clips together. Told are ROC-AUC
of the recordings and, of the recordings rightly called an event, the share whose most attended sample lies inside it
(by chance one in 4, one in 8).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from models.checkpoints import Checkpoints
from models.dataset import Clip, Dataset, read_dataset
from models.event_model import AttentionHead, EventModel, build_head
from models.features import clip_features
from models.metrics import roc_auc
from models.recipe import RECIPES, Recipe
from models.stages import Course, teach_head

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "fight"
PIECES = (4, 8)
"""Clips of a recording."""
FOLDS = 5
TAUGHT, TESTED = 2400, 600
"""Recordings of a fold. Few of them are learned by heart: each clip has to turn up in many."""
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
Judged = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]
"""Of the recordings of one fold: probability of an event, whether there is one, whether the attention is inside it."""


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
        answer = {
            str(pieces): measure(dataset, features, recipe, pieces=pieces, folds=1 if options.quick else FOLDS)
            for pieces in ((4,) if options.quick else PIECES)
        }
    show(answer, console)
    if options.json:
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


def measure(
    dataset: Dataset, features: Sequence[NDArray[np.float32]], recipe: Recipe, *, pieces: int, folds: int
) -> dict[str, Figures]:
    """Return the figures of the three heads on recordings of so many clips."""
    parts: dict[str, list[Judged]] = {}
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=recipe.seed)
    splits = list(splitter.split(dataset.targets, dataset.targets, dataset.groups))[:folds]
    for number, (teaching, tested) in enumerate(splits):
        rng = np.random.default_rng((recipe.seed, pieces, number))
        taught, test = (
            compose(dataset, features, indices, pieces=pieces, recordings=count, rng=rng)
            for indices, count in ((teaching, TAUGHT), (tested, TESTED))
        )
        clips = [Recording(dataset.clips[i], features[i], np.ones(0, np.bool_)) for i in teaching]
        for name, kind, extra in (
            ("attention", AttentionHead, []),
            ("plain mean", PlainMean, []),
            ("attention, clips too", AttentionHead, clips),
        ):
            head = teach(kind, dataset.labels, [*taught, *extra], recipe)
            parts.setdefault(name, []).append(judge(head, test))
    return {name: figures(found, pieces) for name, found in parts.items()}


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
def judge(head: AttentionHead, test: Sequence[Recording]) -> Judged:
    """Judge recordings that taught nothing."""
    scores, points = [], []
    for recording in test:
        mask = torch.ones((1, len(recording.features)), dtype=torch.bool)
        logits, attention = head(torch.from_numpy(recording.features)[None], mask)
        scores.append(1.0 - float(torch.softmax(logits, dim=1)[0, 0]))
        points.append(bool(recording.inside[int(attention[0].mean(dim=0).argmax())]))
    truth = np.array([bool(recording.inside.any()) for recording in test])
    return np.array(scores, np.float32), truth, np.array(points)


def figures(folds: Sequence[Judged], pieces: int) -> Figures:
    """Sum the folds up; the AUC is the mean of theirs, for each fold's head has a scale of its own."""
    aucs = [roc_auc(scores, truth) for scores, truth, _ in folds]
    spread = float(np.std(aucs, ddof=1) / np.sqrt(len(aucs))) if len(aucs) > 1 else None
    scores, truth, points = (np.concatenate(column) for column in zip(*folds, strict=True))
    detected = truth & (scores > 0.5)
    return {
        "recordings": len(truth),
        "auc": float(np.mean(aucs)),
        "auc_of_folds": aucs,
        "auc_standard_error": spread,
        "recall": float(detected.sum() / truth.sum()),
        "inside": float(points[detected].mean()) if detected.any() else None,
        "chance": 1.0 / pieces,
    }


def show(answer: Mapping[str, Mapping[str, Figures]], console: Console) -> None:
    """Print the table."""
    table = Table(
        "clips",
        "head",
        "recordings",
        "ROC-AUC (± standard error of the folds)",
        "recall at 0.5",
        "most attended inside",
        "by chance",
    )
    for pieces, heads in answer.items():
        for name, found in heads.items():
            inside = "–" if found["inside"] is None else f"{found['inside']:.1%}"
            error = found["auc_standard_error"]
            auc = f"{found['auc']:.3f}" + ("" if error is None else f" ± {error:.3f}")
            table.add_row(
                pieces,
                name,
                str(found["recordings"]),
                auc,
                f"{found['recall']:.1%}",
                inside,
                f"{found['chance']:.1%}",
            )
    console.print(table)


if __name__ == "__main__":
    main()
