"""A backbone and samples in, the same backbone with 8-bit convolutions out, by NNCF's post-training quantization.

The graph that comes out holds pairs of QuantizeLinear and DequantizeLinear: OpenVINO, ONNX Runtime and TensorRT
(10 and 11, where calibrators are gone) read those alike, so that this is the one way to INT8 for all three.

The first convolutions stay exact. They see the widest maps and differences of pictures, mostly near zero; measured on
`fight` (least and mean cosine between embeddings on clips): 0.61 and 0.894 with every convolution quantized,
0.84 and 0.967 with four of 49 exact, 0.98 and 0.992 with ten, at the same speed.
"""

from __future__ import annotations

import logging
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from models.entries import VIDEO_ENDINGS
from monitor.bundle import BACKBONE_INPUT, Bundle, Manifest
from monitor.capture.sampler import Sampler
from monitor.capture.source import read_video
from monitor.errors import InputInvalid, extra_missing
from monitor.scoring import onnxruntime, openvino

EXACT_SHARES = (0.2, 0.35, 0.5)
"""Of the convolutions that stay exact, one after the other until the golden outputs are met."""
_SAMPLES = 240
_CLIPS = 60
_READ_SAMPLES = 400
"""Of one file: calibration does not wait for the end of an hour's recording."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the ranges of the activations are taken from."""

    samples: NDArray[np.uint8]
    """(S, K, H, W, 3) uint8."""
    clips: int


def read_calibration(folder: Path, manifest: Manifest) -> Calibration:
    """Take samples of the videos in a folder and the folders below, evenly spread over files and time.

    Raises:
        InputInvalid: there are no videos, or one cannot be read.
    """
    if not folder.is_dir():
        raise InputInvalid(folder, "no such folder; --calibrate wants one with video clips")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS)
    if not files:
        raise InputInvalid(folder, f"holds no video clips ({', '.join(sorted(VIDEO_ENDINGS))})")
    chosen = [files[index] for index in np.unique(np.linspace(0, len(files) - 1, _CLIPS).round().astype(int))]
    share = -(-_SAMPLES // len(chosen))
    return Calibration(np.concatenate([_samples(path, manifest, share) for path in chosen]), len(chosen))


def _samples(path: Path, manifest: Manifest, count: int) -> NDArray[np.uint8]:
    sampler = Sampler(path.name, sample_fps=manifest.sample_fps, shape=manifest.sample)
    taken = (sampler.push(frame, time_seconds=seconds, received_seconds=seconds) for frame, seconds in read_video(path))
    pictures = [sample.pictures for sample in islice((one for one in taken if one is not None), _READ_SAMPLES)]
    if not pictures:
        raise InputInvalid(path, "is too short for a sample")
    places = np.unique(np.linspace(0, len(pictures) - 1, count).round().astype(int))
    return np.stack([pictures[place] for place in places])


def quantize(bundle: Bundle, calibration: Calibration, *, exact_share: float, signed: bool) -> onnx.ModelProto:
    """Return the backbone in INT8.

    Args:
        bundle: whose backbone it is.
        calibration: real samples.
        exact_share: of the convolutions, from the first on, that stay FP32.
        signed: activations as signed bytes with one scale a tensor, the only kind that TensorRT takes. It costs the
            highest bit where nothing is below zero.

    Raises:
        InputInvalid: NNCF is not installed, or cannot quantize this graph.
    """
    nncf = _library()
    failures: tuple[type[Exception], ...] = (RuntimeError, ValueError, *_errors(nncf))
    model = onnx.load(bundle.backbone_path)
    exact = _exact_nodes(model, exact_share)
    parameters = nncf.AdvancedQuantizationParameters()
    if signed:
        one_scale = nncf.quantization.advanced_parameters.QuantizationParameters(per_channel=False)
        parameters.activations_quantization_params = one_scale
    items = [{BACKBONE_INPUT: calibration.samples[index : index + 1]} for index in range(len(calibration.samples))]
    try:
        with redirect_stdout(sys.stderr):  # its progress bars
            quantized: onnx.ModelProto = nncf.quantize(
                model,
                nncf.Dataset(items),
                subset_size=len(items),
                ignored_scope=nncf.IgnoredScope(names=exact, validate=False),
                advanced_parameters=parameters,
            )
    except failures as exc:
        raise InputInvalid(bundle.path, f"NNCF cannot quantize the backbone: {' '.join(str(exc).split())}") from exc
    return _signed(quantized) if signed else quantized


def _exact_nodes(model: onnx.ModelProto, share: float) -> list[str]:
    """Return the names of what makes the backbone's input, and of the first convolutions."""
    nodes = list(model.graph.node)
    convolutions = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    before = nodes[: convolutions[0]] if convolutions else []
    kept = [nodes[index] for index in convolutions[: round(share * len(convolutions))]]
    return [node.name for node in (*before, *kept)]


def _signed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn unsigned quantization without an offset into signed: levels 0 to 255 become 0 to 127."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    widened: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        levels = numpy_helper.to_array(zero)
        if levels.dtype != np.uint8:
            continue
        if levels.any():
            raise ValueError(f"{node.name} quantizes with an offset; symmetric quantization was asked for")
        zero.CopyFrom(numpy_helper.from_array(levels.astype(np.int8), zero.name))
        widened.add(scale.name)
    for name in widened:
        wider = numpy_helper.to_array(constants[name]) * np.float32(255 / 127)
        constants[name].CopyFrom(numpy_helper.from_array(wider.astype(np.float32), name))
    del model.graph.value_info[:]  # it calls the levels unsigned; whoever reads the graph infers the types
    return model


def _library() -> Any:
    """Import NNCF without its telemetry, nor that of what it imports; torch it loads only where it is installed.

    Raises:
        InputInvalid: the extra is not installed.
    """
    openvino.load_library()
    onnxruntime.load_library()
    try:
        import nncf
    except ImportError as exc:
        raise extra_missing("--precision int8", exc, "compile") from exc
    nncf.set_log_level(logging.ERROR)
    return nncf


def _errors(library: Any) -> tuple[type[Exception], ...]:
    """Return what NNCF raises: its classes have no common root but Exception."""
    found = vars(library.errors).values()
    return tuple(each for each in found if isinstance(each, type) and issubclass(each, Exception))
