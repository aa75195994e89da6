"""Embeddings of a frozen backbone: clips in, one row per sample out, kept on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from models.dataset import Clip
from models.event_model import EventModel
from models.progress import progress_bar

_BATCH_SAMPLES = 16


def clip_features(
    model: EventModel, clips: tuple[Clip, ...], *, mirrored: bool, cache: Path, console: Console
) -> list[NDArray[np.float32]]:
    """Return the embeddings (S, D) float32 of every sample of every clip, by the model's backbone as it is.

    Args:
        model: its backbone is not changed.
        clips: in the order of the answer.
        mirrored: flip the pictures left to right.
        cache: folder in which they rest, under content, sampling and backbone.
        console: shows the progress.
    """
    backbone_key = _backbone_key(model)
    features = []
    with progress_bar(console) as progress:
        title = "Mirrored features" if mirrored else "Features"
        for clip in progress.track(clips, description=title):
            path = cache / f"{clip.key}.{backbone_key}{'.mirrored' if mirrored else ''}.npy"
            if not path.is_file():
                np.save(path, embed_samples(model, clip.pictures, mirrored=mirrored))
            features.append(np.load(path))
    return features


@torch.inference_mode()
def embed_samples(model: EventModel, pictures: NDArray[np.uint8], *, mirrored: bool = False) -> NDArray[np.float32]:
    """Return embeddings (S, D) float32 of samples (S, K, H, W, 3) uint8."""
    model.eval()
    device = next(model.parameters()).device
    rows = []
    for start in range(0, len(pictures), _BATCH_SAMPLES):
        batch = np.array(pictures[start : start + _BATCH_SAMPLES])
        if mirrored:
            batch = batch[:, :, :, ::-1].copy()
        rows.append(model.embed(torch.from_numpy(batch).to(device)).cpu().numpy())
    stacked: NDArray[np.float32] = np.concatenate(rows).astype(np.float32)
    return stacked


def _backbone_key(model: EventModel) -> str:
    """Return a checksum of the backbone's weights and of how its input is made."""
    digest = hashlib.sha256(f"{model.input_picture.kind} {model.input_picture.scale}".encode())
    for tensor in model.backbone.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
