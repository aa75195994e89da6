"""A bundle in, an engine on ONNX Runtime's CPU provider out. The only file that names `onnxruntime`.

One sample and one window a run: measured on EfficientNet-Lite0 at 224², a batch of 8 takes as long a
sample as 8 runs of one (15-17 ms on one thread), and so nothing can depend on who shared a batch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import ATTENTION, BACKBONE_INPUT, EMBEDDINGS, MASK, PROBABILITIES, Bundle
from monitor.errors import EngineUnavailable
from monitor.scoring.door import Classified, Precision

NAME = "onnxruntime"
ERRORS_ONLY = 3
"""`log_severity_level`: what ONNX Runtime may write to standard error."""


class OnnxRuntimeDoor:
    """The way to ONNX Runtime."""

    name = NAME

    def precisions(self) -> tuple[Precision, ...]:
        """Return FP32."""
        _library()
        return (Precision.FP32,)

    def open(self, bundle: Bundle, *, precision: Precision, threads: int) -> OnnxRuntimeEngine:
        """Load both graphs for `threads` threads."""
        if precision is not Precision.FP32:
            raise EngineUnavailable(NAME, f"runs fp32 only, not {precision.value}")
        return OnnxRuntimeEngine(_library(), bundle, threads=threads)


class OnnxRuntimeEngine:
    """Two sessions on the CPU.

    Args:
        library: the module `onnxruntime`.
        bundle: what to run.
        threads: processor threads of one run.
    """

    name = NAME

    def __init__(self, library: Any, bundle: Bundle, *, threads: int) -> None:
        self.precision: str = Precision.FP32.value
        self._errors = _errors(library)
        self._backbone = self._session(library, bundle.backbone_path, threads)
        self._head = self._session(library, bundle.head_path, threads)

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the backbone: (N, K, H, W, 3) uint8 to (N, D) float32."""
        outputs = [
            self._run(self._backbone, [EMBEDDINGS], {BACKBONE_INPUT: pictures[index : index + 1]})
            for index in range(len(pictures))
        ]
        return np.concatenate([embeddings for (embeddings,) in outputs])

    def classify(self, embeddings: NDArray[np.float32], mask: NDArray[np.bool_]) -> Classified:
        """Run the head on each of N windows."""
        outputs = [
            self._run(
                self._head,
                [PROBABILITIES, ATTENTION],
                {EMBEDDINGS: embeddings[index : index + 1], MASK: mask[index : index + 1]},
            )
            for index in range(len(embeddings))
        ]
        return Classified(
            probabilities=np.concatenate([probabilities for probabilities, _ in outputs]),
            attention=np.concatenate([attention for _, attention in outputs]),
        )

    def close(self) -> None:
        """Let go of both sessions."""
        self._backbone = None
        self._head = None

    def _session(self, library: Any, path: Path, threads: int) -> Any:
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = ERRORS_ONLY
        # By default its threads spin while they wait, on the very cores that capture decodes on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except self._errors as exc:
            raise EngineUnavailable(NAME, f"cannot load {path.name}: {_one_line(exc)}") from exc

    def _run(self, session: Any, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        try:
            arrays: list[NDArray[np.float32]] = session.run(outputs, inputs)
        except self._errors as exc:
            raise EngineUnavailable(NAME, f"a run failed: {_one_line(exc)}") from exc
        return arrays


def _library() -> Any:
    """Import ONNX Runtime without its telemetry.

    Its builds send events to Microsoft over HTTPS and keep a device id under `~/.cache/Microsoft` unless
    ORT_DISABLE_TELEMETRY is set before it initialises (its Privacy.md).
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as exc:
        raise EngineUnavailable(NAME, f"the library cannot be imported: {_one_line(exc)}") from exc
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _errors(library: Any) -> tuple[type[Exception], ...]:
    """Return what ONNX Runtime raises: its own classes have no common root but Exception."""
    state = vars(library.capi.onnxruntime_pybind11_state).values()
    own = (value for value in state if isinstance(value, type) and issubclass(value, Exception))
    return (RuntimeError, ValueError, *own)


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
