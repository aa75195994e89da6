"""What a backbone, or the early part of it, makes of clips: clips in, one row per sample out, kept on disk.

A backbone that does not learn sees each clip once; so does the early part of one whose last stages learn. What is
to be seen of a clip in training is therefore drawn beforehand, as `Change`s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from models.augmentation import MIRRORED, UNCHANGED, Change, draw_change
from models.dataset import Clip
from models.event_model import EventModel
from models.progress import progress_bar
from models.recipe import Recipe
from monitor.whole_file import whole_file

_BATCH_SAMPLES = 16

Rows = NDArray[np.floating]
"""Of one clip: embeddings (S, D) float32, or maps (S, C, H, W) float16."""


def changes(clip: Clip, recipe: Recipe) -> list[Change]:
    """Return how a clip is shown in training: as it is, and in the recipe's number of other ways, or mirrored."""
    seed = int.from_bytes(hashlib.sha256(f"{recipe.seed} {clip.key}".encode()).digest()[:8])
    rng = np.random.default_rng(seed)
    drawn = [draw_change(recipe, rng) for _ in range(recipe.changed_copies)]
    return [UNCHANGED, *(drawn or ([MIRRORED] if recipe.mirror else []))]


def clip_features(
    model: EventModel,
    clips: Sequence[Clip],
    *,
    cache: Path,
    console: Console,
    shown: Sequence[Change] | None = None,
    title: str = "Features",
) -> list[NDArray[np.float32]]:
    """Return the embeddings (S, D) float32 of every sample of every clip, by the model's backbone as it is.

    Args:
        model: its backbone is not changed.
        clips: in the order of the answer.
        cache: folder in which they rest, under content, sampling, change and backbone.
        console: shows the progress.
        shown: how each clip is changed first; None: not at all.
        title: of the progress bar.
    """
    seen = list(zip(clips, shown or [UNCHANGED] * len(clips), strict=True))

    def embed(clip: Clip, change: Change) -> Rows:
        return embed_samples(model, clip.pictures, change=change)

    return [np.load(path) for path in _kept(seen, _key(model), embed, cache=cache, console=console, title=title)]


def clip_maps(
    model: EventModel,
    clips: Sequence[Clip],
    *,
    released: int,
    cache: Path,
    console: Console,
    shown: Sequence[Change],
    title: str,
) -> list[NDArray[np.float16]]:
    """Return the maps (S, C, H, W) float16, on disk, behind all stages of the backbone but the last `released`.

    The other arguments are those of `clip_features`.
    """
    seen, key = list(zip(clips, shown, strict=True)), f"{_key(model)}-{released}"

    def pass_early(clip: Clip, change: Change) -> Rows:
        parts = _passed(model, clip.pictures, change, lambda batch: model.early(batch, released))
        return np.concatenate([part.astype(np.float16) for part in parts])

    paths = _kept(seen, key, pass_early, cache=cache, console=console, title=title)
    return [np.load(path, mmap_mode="r") for path in paths]


def embed_samples(model: EventModel, pictures: NDArray[np.uint8], *, change: Change = UNCHANGED) -> NDArray[np.float32]:
    """Return embeddings (S, D) float32 of samples (S, K, H, W, 3) uint8."""
    stacked: NDArray[np.float32] = np.concatenate(list(_passed(model, pictures, change, model.embed)))
    return stacked


@torch.inference_mode()
def embed_maps(model: EventModel, maps: NDArray[np.float16], *, released: int) -> NDArray[np.float32]:
    """Return embeddings (S, D) float32 of what `clip_maps` gave for one clip."""
    device = next(model.eval().parameters()).device
    starts = range(0, len(maps), _BATCH_SAMPLES)
    batches = (torch.from_numpy(maps[at : at + _BATCH_SAMPLES].astype(np.float32)) for at in starts)
    embeddings = torch.cat([model.late(batch.to(device), released) for batch in batches])
    rows: NDArray[np.float32] = embeddings.cpu().numpy()
    return rows


@torch.inference_mode()
def _passed(
    model: EventModel, pictures: NDArray[np.uint8], change: Change, step: Callable[[Tensor], Tensor]
) -> Iterator[NDArray[np.float32]]:
    """Yield what a part of the model makes of samples (S, K, H, W, 3), batch by batch."""
    device = next(model.eval().parameters()).device
    for start in range(0, len(pictures), _BATCH_SAMPLES):
        batch = change.apply(np.array(pictures[start : start + _BATCH_SAMPLES]))
        yield step(torch.from_numpy(batch).to(device)).float().cpu().numpy()


def _kept(
    seen: Sequence[tuple[Clip, Change]],
    key: str,
    make: Callable[[Clip, Change], Rows],
    *,
    cache: Path,
    console: Console,
    title: str,
) -> Iterator[Path]:
    """Yield the file of each clip as it is seen, under a key of what makes its rows; make those that are missing."""
    with progress_bar(console) as progress:
        for clip, change in progress.track(seen, description=title):
            path = cache / f"{clip.key}.{key}{_suffix(change)}.npy"
            if not path.is_file():
                with whole_file(path) as file:
                    np.save(file, make(clip, change))
            yield path


def _suffix(change: Change) -> str:
    return "" if change == UNCHANGED else f".{hashlib.sha256(repr(change).encode()).hexdigest()[:12]}"


def _key(model: EventModel) -> str:
    """Return a checksum of the backbone's weights and of how its input is made."""
    made = model.input_picture
    digest = hashlib.sha256(f"{made.kind} {made.scale} {made.deviations}".encode())
    for tensor in model.backbone.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
