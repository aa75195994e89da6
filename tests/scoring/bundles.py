"""Writes a tiny bundle: real ONNX graphs with random weights, golden outputs from onnx's own reference evaluator.

The evaluator is plain numpy: neither of the engines under test has a say in what is golden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from monitor.bundle import Bundle, Manifest, SampleShape, ThresholdPair, write_manifest

LABELS = ("nothing", "fight", "fall")
SIDE, PICTURES, SIZE, SLOTS, HOPS, HIDDEN = 32, 2, 24, 8, 3, 16

MANIFEST = Manifest(
    name="tiny",
    version="1",
    labels=LABELS,
    background="nothing",
    sample_fps=4.0,
    window_slots=SLOTS,
    stride_slots=2,
    embedding_size=SIZE,
    hops=HOPS,
    sample=SampleShape(pictures=PICTURES, context_spacing_seconds=0.1, width_pixels=SIDE, height_pixels=SIDE),
    thresholds={label: ThresholdPair(on=0.6, off=0.4) for label in LABELS[1:]},
)

Weights = dict[str, NDArray[np.float32]]


def backbone_weights() -> Weights:
    rng = np.random.default_rng(7)
    return {
        "mean": np.array([123.7, 116.3, 103.5], np.float32),
        "std": np.array([58.4, 57.1, 57.4], np.float32),
        "conv1": (rng.standard_normal((12, PICTURES * 3, 3, 3)) * 0.3).astype(np.float32),
        "bias1": (rng.standard_normal(12) * 0.1).astype(np.float32),
        "conv2": (rng.standard_normal((SIZE, 12, 3, 3)) * 0.2).astype(np.float32),
        "bias2": (rng.standard_normal(SIZE) * 0.1).astype(np.float32),
    }


def head_weights() -> Weights:
    rng = np.random.default_rng(8)
    return {
        "w1": rng.standard_normal((SIZE, HIDDEN)).astype(np.float32),
        "w2": rng.standard_normal((HIDDEN, HOPS)).astype(np.float32),
        "wc": (rng.standard_normal((HOPS * SIZE, len(LABELS))) * 0.3).astype(np.float32),
        "bc": np.zeros(len(LABELS), np.float32),
        "never": np.array(-1e9, np.float32),
    }


def backbone_graph(weights: Weights, *, channels: tuple[int, int, int] = (0, 1, 2)) -> onnx.ModelProto:
    order = numpy_helper.from_array(np.array(channels, np.int64), "channels")
    shape = numpy_helper.from_array(np.array([0, PICTURES * 3, SIDE, SIDE], np.int64), "shape")
    nodes = [
        helper.make_node("Cast", ["pictures"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["real", "channels"], ["ordered"], axis=4),
        helper.make_node("Sub", ["ordered", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normal"]),
        helper.make_node("Transpose", ["normal"], ["planes"], perm=[0, 1, 4, 2, 3]),
        helper.make_node("Reshape", ["planes", "shape"], ["stacked"]),
        helper.make_node("Conv", ["stacked", "conv1", "bias1"], ["c1"], strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "conv2", "bias2"], ["c2"], strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embeddings"]),
    ]
    pictures = helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["N", PICTURES, SIDE, SIDE, 3])
    embeddings = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", SIZE])
    return _model("backbone", nodes, [pictures], [embeddings], [*_tensors(weights), order, shape])


def head_graph(weights: Weights) -> onnx.ModelProto:
    """Lin et al. 2017: `A = softmax(W2 tanh(W1 Hᵀ))`, `M = A H`, and a linear classifier."""
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    nodes = [
        helper.make_node("MatMul", ["embeddings", "w1"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "w2"], ["raw"]),
        helper.make_node("Transpose", ["raw"], ["by_hop"], perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["wide_mask"]),
        helper.make_node("Where", ["wide_mask", "by_hop", "never"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["attention"], axis=2),
        helper.make_node("MatMul", ["attention", "embeddings"], ["weighed"]),
        helper.make_node("Flatten", ["weighed"], ["flat"]),
        helper.make_node("Gemm", ["flat", "wc", "bc"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", SLOTS, SIZE]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, ["N", SLOTS]),
    ]
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(LABELS)]),
        helper.make_tensor_value_info("attention", TensorProto.FLOAT, ["N", HOPS, SLOTS]),
    ]
    return _model("head", nodes, inputs, outputs, [*_tensors(weights), axis])


@dataclass
class TinyBundle:
    """What goes into the bundle; change a part and write it again to get a wrong one beside old golden outputs."""

    backbone: Weights = field(default_factory=backbone_weights)
    head: Weights = field(default_factory=head_weights)
    channels: tuple[int, int, int] = (0, 1, 2)

    def write(self, folder: Path, *, golden: bool) -> Bundle:
        """Write the graphs and the manifest, and the golden outputs where asked."""
        folder.mkdir(parents=True, exist_ok=True)
        backbone, head = backbone_graph(self.backbone, channels=self.channels), head_graph(self.head)
        onnx.save(backbone, folder / "backbone.onnx")
        onnx.save(head, folder / "head.onnx")
        if golden:
            np.savez(folder / "golden.npz", **golden_arrays(backbone, head))
        return write_manifest(folder, MANIFEST)


def golden_arrays(backbone: onnx.ModelProto, head: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(9)
    pictures = rng.integers(0, 256, (4, PICTURES, SIDE, SIDE, 3), dtype=np.uint8)
    pictures[0] = 0  # black
    pictures[1, ..., 0] = 220  # reddish
    (embeddings,) = ReferenceEvaluator(backbone).run(None, {"pictures": pictures})
    windows = (
        embeddings[rng.integers(0, 4, (3, SLOTS))] + rng.standard_normal((3, SLOTS, SIZE)).astype(np.float32) * 0.1
    )
    mask = np.ones((3, SLOTS), bool)
    mask[1, :3] = False
    windows[~mask] = 0
    probabilities, attention = ReferenceEvaluator(head).run(None, {"embeddings": windows, "mask": mask})
    return {
        "pictures": pictures,
        "embeddings": embeddings,
        "window_embeddings": windows,
        "window_mask": mask,
        "probabilities": probabilities,
        "attention": attention,
    }


def perturbed(weights: Weights, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Weights:
    """Change every matrix of the weights."""
    return {name: change(array) if array.ndim > 1 else array for name, array in weights.items()}


def _tensors(weights: Weights) -> list[TensorProto]:
    return [numpy_helper.from_array(array, name) for name, array in weights.items()]


def _model(name, nodes, inputs, outputs, tensors) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model
