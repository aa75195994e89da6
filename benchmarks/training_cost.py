"""Does training on few sampled frames cost a fraction of training on all of them, and lose no accuracy?

The same recipe, clips, folds by group and seeds twice: once with the recipe's samples a second, once with every frame.
Cost is counted as frames that went through the backbone and as processor seconds of this process (features and head;
decoding, which both need, is told apart). Accuracy is of clips whose group taught nothing; the interval of the
difference is paired: one bootstrap over groups for both.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from models.dataset import Dataset, read_dataset
from models.evaluation import judge_in_folds
from models.event_model import EventModel
from models.features import clip_features, embed_samples
from models.metrics import Measured, estimate, measure
from models.recipe import RECIPES, Recipe

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "fight"
ALL_FRAMES_FPS = 30.0
"""Every frame of a clip of up to 30 a second has a slot of its own; slower clips leave gaps."""
TURNS = 10
"""Shares of the clips after which the other side is embedded."""


@dataclass(slots=True)
class Side:
    """One of the two trainings."""

    dataset: Dataset
    recipe: Recipe
    decode_seconds: float
    features_seconds: float = 0.0
    head_seconds: float = 0.0
    frames: int = 0
    """Through the backbone."""
    probabilities: NDArray[np.float32] = field(init=False)
    """(C, L) of each clip by the fold that had not seen its group."""

    def __post_init__(self) -> None:
        self.probabilities = np.zeros((len(self.dataset.clips), len(self.dataset.labels)), np.float32)

    @property
    def seconds(self) -> float:
        """Processor seconds of the training itself."""
        return self.features_seconds + self.head_seconds

    @property
    def right(self) -> NDArray[np.bool_]:
        """(C,) whether each clip was judged rightly."""
        judged: NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.dataset.targets
        return judged

    @property
    def measured(self) -> Measured:
        """What the folds found."""
        dataset = self.dataset
        return measure(self.probabilities, dataset.targets, dataset.groups, dataset.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with labelled clips (default: %(default)s)")
    parser.add_argument("--prefix", default="surv_", help="only files whose name begins with it")
    parser.add_argument("--pixels", type=int, default=128, help="width and height of the pictures, on both sides")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="64 pixels and 2 folds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pixels, folds = (64, 2) if options.quick else (options.pixels, options.folds)
    if not options.data.is_dir():
        parser.error(f"{options.data}: no such folder; --data names one with labelled clips")
    torch.set_num_threads(1)
    answer = compare(options.data, prefix=options.prefix, pixels=pixels, folds=folds)
    if options.json:
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


def compare(data: Path, *, prefix: str, pixels: int, folds: int) -> dict[str, object]:
    """Train both ways, print the table and return the figures."""
    console = Console()
    recipe = RECIPES["fight"]
    shape = recipe.sample.model_copy(update={"width_pixels": pixels, "height_pixels": pixels})
    sampled = recipe.model_copy(update={"sample": shape})
    factor = ALL_FRAMES_FPS / sampled.sample_fps
    slots = {"window_slots": round(sampled.window_slots * factor), "stride_slots": round(sampled.stride_slots * factor)}
    every = sampled.model_copy(update={"sample_fps": ALL_FRAMES_FPS, **slots})
    with tempfile.TemporaryDirectory() as folder:
        read = [read_side(data, each, Path(folder), prefix=prefix) for each in (sampled, every)]
        common = set.intersection(*({clip.entry.path for clip in dataset.clips} for dataset, _ in read))
        console.print(f"{len(common)} clips; those with fewer than 15 frames a second are left out on both sides")
        sides = []
        for each, (dataset, seconds) in zip((sampled, every), read, strict=True):
            chosen = [number for number, clip in enumerate(dataset.clips) if clip.entry.path in common]
            sides.append(Side(dataset.subset(chosen), each, seconds))
        run_sides(sides, folds=folds, cache=Path(folder))
    return report(sides[0], sides[1], console)


def read_side(data: Path, recipe: Recipe, cache: Path, *, prefix: str) -> tuple[Dataset, float]:
    """Decode and sample all clips; return them and the processor seconds it took."""
    began = time.process_time()
    dataset = read_dataset(data, recipe, cache=cache, console=Console(quiet=True), skip_bad=True, prefix=prefix)
    return dataset, time.process_time() - began


def warm_up(dataset: Dataset, recipe: Recipe) -> None:
    """Load what torch loads with the first network and the first optimiser, so that neither side pays for it."""
    model = EventModel(recipe, len(dataset.labels))
    embed_samples(model, dataset.clips[0].pictures)
    torch.optim.AdamW(model.head.parameters())


def run_sides(sides: Sequence[Side], *, folds: int, cache: Path) -> None:
    """Embed and train in folds by group; no embedding lies on disk yet.

    The sides take turns, so that whatever else the machine does meets both alike.
    """
    console = Console(quiet=True)
    warm_up(sides[0].dataset, sides[0].recipe)
    torch.manual_seed(sides[0].recipe.seed)
    model = EventModel(sides[0].recipe, len(sides[0].dataset.labels))
    for part in np.array_split(np.arange(len(sides[0].dataset.clips)), TURNS):
        for side in sides:
            began = time.process_time()
            features = clip_features(model, side.dataset.subset(part).clips, cache=cache, console=console)
            side.features_seconds += time.process_time() - began
            side.frames += sum(len(rows) for rows in features)
    trainings = [judge_in_folds(side.dataset, side.recipe, folds=folds, cache=cache, console=console) for side in sides]
    for _ in range(folds):
        for side, training in zip(sides, trainings, strict=True):
            began = time.process_time()
            judged, said = next(training)
            side.head_seconds += time.process_time() - began
            side.probabilities[judged] = said


def report(sampled: Side, every: Side, console: Console) -> dict[str, object]:
    """Print the table and return the figures of both sides."""
    table = Table("", "sampled frames", "all frames", "sampled / all")
    rows = (
        ("frames through the backbone", sampled.frames, every.frames),
        ("processor seconds: features", sampled.features_seconds, every.features_seconds),
        ("processor seconds: head, all folds", sampled.head_seconds, every.head_seconds),
        ("processor seconds: both", sampled.seconds, every.seconds),
        ("processor seconds: decoding (apart)", sampled.decode_seconds, every.decode_seconds),
    )
    for name, few, many in rows:
        table.add_row(name, f"{few:.0f}", f"{many:.0f}", f"{few / many:.1%}")
    table.add_row("accuracy (95%)", str(sampled.measured.accuracy), str(every.measured.accuracy), "")
    table.add_row("ROC-AUC (95%)", str(sampled.measured.auc), str(every.measured.auc), "")
    gains = sampled.right.astype(np.float64) - every.right
    [gain] = estimate([lambda rows: float(gains[rows].mean())], sampled.dataset.groups)
    console.print(table)
    console.print(f"accuracy, sampled less all frames, paired: {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")
    return {
        "sampled": figures(sampled),
        "all": figures(every),
        "cost_share_frames": sampled.frames / every.frames,
        "cost_share_seconds": sampled.seconds / every.seconds,
        "accuracy_difference": gain.as_json(),
        "accuracy_within_interval": every.measured.accuracy.low <= sampled.measured.accuracy.value,
    }


def figures(side: Side) -> dict[str, object]:
    """Return one side for machines."""
    return {
        "clips": side.measured.clips,
        "accuracy": side.measured.accuracy.as_json(),
        "auc": side.measured.auc.as_json(),
        "frames": side.frames,
        "decode_seconds": side.decode_seconds,
        "features_seconds": side.features_seconds,
        "head_seconds": side.head_seconds,
    }


if __name__ == "__main__":
    main()
