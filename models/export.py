"""Export: a trained model in, a bundle's files out, checked against the model they came from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.card import Provenance, write_card
from models.dataset import Dataset
from models.event_model import EventModel
from models.metrics import Measured
from models.recipe import Recipe
from models.scenes import Scene
from monitor.bundle import (
    ATTENTION,
    BACKBONE,
    BACKBONE_INPUT,
    EMBEDDINGS,
    GOLDEN,
    HEAD,
    MASK,
    PROBABILITIES,
    Bundle,
    Golden,
    Manifest,
    write_manifest,
)
from monitor.scoring.engine import open_engine

if TYPE_CHECKING:
    from models.training import Trained

OPSET = 17
"""OpenVINO 2025+, ONNX Runtime and TensorRT 10 all read it; LayerNormalization is one operator from 17 on."""
_GOLDEN_SAMPLES = 4


class _BackboneGraph(nn.Module):
    """Samples (N, K, H, W, 3) uint8 → embeddings (N, D)."""

    def __init__(self, model: EventModel) -> None:
        super().__init__()
        self.input_picture = model.input_picture
        self.backbone = model.backbone

    def forward(self, pictures: Tensor) -> Tensor:
        embeddings: Tensor = self.backbone(self.input_picture(pictures))
        return embeddings


class _HeadGraph(nn.Module):
    """Embeddings (N, T, D), mask (N, T) bool → probabilities (N, L), attention (N, R, T)."""

    def __init__(self, head: nn.Module, temperature: float) -> None:
        super().__init__()
        self.head = head
        self.temperature = temperature

    def forward(self, embeddings: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        logits, attention = self.head(embeddings, mask)
        return torch.softmax(logits / self.temperature, dim=1), attention


def export_bundle(
    trained: Trained, dataset: Dataset, recipe: Recipe, out: Path, *, floor: Measured, provenance: Provenance
) -> Bundle:
    """Write every file of the bundle into `out` and check that ONNX Runtime gives what the model gave.

    Args:
        trained: the model, and what was measured of it.
        dataset: what taught it.
        recipe: how.
        out: the bundle's folder.
        floor: what the files alone give away of the labels.
        provenance: what manifest and card say of data, licence and command.

    Raises:
        BundleInvalid: the exported graphs answer otherwise than the model.
    """
    out.mkdir(parents=True, exist_ok=True)
    export_graphs(trained.model, trained.calibration.temperature, recipe, out)
    golden = _golden(trained.model, trained.calibration.temperature, recipe)
    np.savez_compressed(out / GOLDEN, **{name: getattr(golden, name) for name in Golden.__slots__})
    manifest = _manifest(trained, dataset, recipe, out.name, provenance, floor)
    bundle = write_manifest(out, manifest)
    open_engine(bundle, preference="onnxruntime", threads=1).engine.close()
    write_card(out, manifest, provenance)
    return bundle


def export_graphs(model: EventModel, temperature: float, recipe: Recipe, out: Path) -> None:
    """Write `backbone.onnx` and `head.onnx`; only the batch axis is free."""
    shape = recipe.sample
    pictures = torch.zeros((2, shape.pictures, shape.height_pixels, shape.width_pixels, 3), dtype=torch.uint8)
    embeddings = torch.zeros((2, recipe.window_slots, model.embedding_size))
    mask = torch.ones((2, recipe.window_slots), dtype=torch.bool)
    _export(_BackboneGraph(model), (pictures,), out / BACKBONE, {BACKBONE_INPUT: 0}, {EMBEDDINGS: 0})
    head = _HeadGraph(model.head, temperature)
    _export(head, (embeddings, mask), out / HEAD, {EMBEDDINGS: 0, MASK: 0}, {PROBABILITIES: 0, ATTENTION: 0})


def _export(
    graph: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    input_names: Mapping[str, int],
    output_names: Mapping[str, int],
) -> None:
    """Write one graph; each name stands with the axis that holds the batch."""
    axes = {name: {axis: "batch"} for name, axis in (*input_names.items(), *output_names.items())}
    with warnings.catch_warnings():
        # The TorchScript exporter is deprecated for one that needs the package onnxscript; it does all we ask.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)  # padding's lists, left unfolded: harmless
        torch.onnx.export(
            graph.eval(),
            inputs,
            path,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(onnx.load(path), full_check=True)


@torch.inference_mode()
def _golden(model: EventModel, temperature: float, recipe: Recipe) -> Golden:
    """Make reference inputs and outputs: samples of drawn scenes, windows with more and more gaps.

    Drawn, so that a bundle holds nobody's picture.
    """
    pictures = np.stack([_drawn_sample(recipe, seed) for seed in range(_GOLDEN_SAMPLES)])
    model.eval()
    embeddings = model.embed(torch.from_numpy(pictures))
    rng = np.random.default_rng(recipe.seed)
    chosen = rng.integers(0, len(pictures), (_GOLDEN_SAMPLES, recipe.window_slots))
    mask = rng.random(chosen.shape) < np.linspace(1.0, 0.5, _GOLDEN_SAMPLES)[:, None]
    mask[:, -1] = True
    windows = embeddings.numpy()[chosen] * mask[:, :, None]
    logits, attention = model.head(torch.from_numpy(windows), torch.from_numpy(mask))
    return Golden(
        pictures=pictures,
        embeddings=embeddings.numpy(),
        window_embeddings=windows.astype(np.float32),
        window_mask=mask,
        probabilities=torch.softmax(logits / temperature, dim=1).numpy(),
        attention=attention.numpy(),
    )


def _drawn_sample(recipe: Recipe, seed: int) -> NDArray[np.uint8]:
    """Return one sample (K, H, W, 3) uint8 of a scene in which something moves."""
    scene = Scene(seed, fps=30.0, event_share=1.0)
    start, _ = scene.events(30.0)[0]
    shape = recipe.sample
    times = [start + 1.0 - back * shape.context_spacing_seconds for back in reversed(range(shape.pictures))]
    pictures = [scene.picture(round(time * scene.fps)) for time in times]
    size = (shape.width_pixels, shape.height_pixels)
    return np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]).astype(np.uint8)


def _manifest(
    trained: Trained, dataset: Dataset, recipe: Recipe, name: str, provenance: Provenance, floor: Measured
) -> Manifest:
    return Manifest(
        name=name,
        version=provenance.version,
        labels=dataset.labels,
        background=recipe.background,
        sample_fps=recipe.sample_fps,
        window_slots=recipe.window_slots,
        stride_slots=recipe.stride_slots,
        embedding_size=trained.model.embedding_size,
        hops=recipe.hops,
        sample=recipe.sample,
        thresholds=trained.calibration.thresholds,
        training=_training_table(trained, dataset, recipe, provenance),
        measured=_measured_table(trained, floor),
    )


def _training_table(trained: Trained, dataset: Dataset, recipe: Recipe, provenance: Provenance) -> dict[str, Any]:
    targets = dataset.targets
    return {
        "data": provenance.data,
        "licence": provenance.licence,
        "command": provenance.command,
        "clips": {label: int((targets == index).sum()) for index, label in enumerate(dataset.labels)},
        "groups": len(np.unique(dataset.groups)),
        "epochs": len(trained.history),
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
    }


def _measured_table(trained: Trained, floor: Measured) -> dict[str, Any]:
    measured = trained.validation
    return {
        "validation_clips": measured.clips,
        "validation_groups": measured.groups,
        "validation_accuracy": measured.accuracy.rounded(),
        "validation_auc": measured.auc.rounded(),
        "validation_labels": {label: figures.rounded() for label, figures in measured.labels.items()},
        "validation_false_alarm_share": {
            label: round(share, 4) for label, share in trained.calibration.false_alarm_share.items()
        },
        "temperature": round(trained.calibration.temperature, 3),
        "floor_accuracy": floor.accuracy.rounded(),
        "floor_auc": floor.auc.rounded(),
    }
