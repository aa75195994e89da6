"""Labelled clips and a bundle in, what its engine says of each clip out. Needs no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from models.dataset import Clip, Dataset, read_dataset
from models.recipe import Recipe
from models.windows import stride_windows
from monitor.bundle import Bundle
from monitor.errors import InputInvalid
from monitor.scoring.engine import Engine, open_engine

_BATCH_SAMPLES = 64
"""Recordings of minutes do not pass through the backbone at once."""


def judging_engine(bundle: Bundle, *, threads: int = 0) -> Engine:
    """Return the engine by which a bundle is measured: in FP32, for which precision is served depends on the machine.

    BF16 moves what a bundle says of a clip by up to 0.15; see docs/engines.md.

    Args:
        bundle: what to run.
        threads: processor threads; 0 takes half of the cores this process may use.

    Raises:
        BundleInvalid: every engine that ran gave other outputs than the golden ones.
        EngineUnavailable: no engine could be opened.
    """
    return open_engine(bundle, preference="auto", threads=threads, precision="fp32").engine


def read_labelled(
    data: Path, bundle: Bundle, *, console: Console, cache: Path, skip_bad: bool = False, prefix: str = ""
) -> Dataset:
    """Read labelled clips, sampled as the bundle does and with its labels.

    Raises:
        DatasetInvalid: with every problem of the data set.
        InputInvalid: the data set is not there, or holds labels that the bundle does not know.
    """
    manifest = bundle.manifest
    recipe = _sampling_recipe(bundle)
    dataset = read_dataset(data, recipe, cache=cache, console=console, skip_bad=skip_bad, prefix=prefix)
    unknown = set(dataset.labels) - set(manifest.labels)
    if unknown:
        raise InputInvalid(data, f"label {', '.join(sorted(unknown))}: the model knows {', '.join(manifest.labels)}")
    return Dataset(dataset.path, manifest.labels, dataset.clips)


def judge_clip(engine: Engine, clip: Clip, bundle: Bundle) -> NDArray[np.float32]:
    """Return the probabilities (L,) of a clip: its windows' mean; of a whole recording, the most eventful one's."""
    manifest = bundle.manifest
    plan = stride_windows(clip, manifest.window_slots, manifest.stride_slots)
    starts = range(0, len(clip.pictures), _BATCH_SAMPLES)
    embeddings = np.concatenate([engine.embed(np.array(clip.pictures[at : at + _BATCH_SAMPLES])) for at in starts])
    probabilities = engine.classify(embeddings[plan.samples] * plan.mask[:, :, None], plan.mask).probabilities
    quiet = probabilities[:, manifest.labels.index(manifest.background)]
    judged: NDArray[np.float32] = probabilities[int(quiet.argmin())] if clip.whole else probabilities.mean(axis=0)
    return judged


def _sampling_recipe(bundle: Bundle) -> Recipe:
    """Return a recipe that samples as the bundle does."""
    manifest = bundle.manifest
    kind = "difference" if manifest.sample.pictures > 1 else "picture"
    return Recipe(
        background=manifest.background,
        sample_fps=manifest.sample_fps,
        window_slots=manifest.window_slots,
        stride_slots=manifest.stride_slots,
        sample=manifest.sample,
        backbone="small",
        input_kind=kind,
    )
