"""A bundle in, an engine on ONNX Runtime out. The only file that names `onnxruntime`.

On the processor one sample and one window a run: measured on EfficientNet-Lite0 at 224², a batch of 8 takes as
long a sample as 8 runs of one (15-17 ms on one thread), and so nothing can depend on who shared a batch.

Where the library was built with NVIDIA's providers (onnxruntime-gpu), the backbone goes to the device, a batch in
one run: TensorRT's provider first, then CUDA's. That has not been run on hardware. The head stays on the processor.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import ATTENTION, BACKBONE_INPUT, EMBEDDINGS, MASK, PROBABILITIES, Bundle
from monitor.errors import EngineUnavailable
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Classified, Pictures, Precision, not_compiled

NAME = "onnxruntime"
Provider = tuple[str, dict[str, str]]
"""An execution provider's name and its options."""
ON_CPU: tuple[Provider, ...] = (("CPUExecutionProvider", {}),)
FATAL_ONLY = 4
"""`log_severity_level`: what ONNX Runtime may write to standard error; its errors are raised, too."""


class OnnxRuntimeDoor:
    """The way to ONNX Runtime.

    Args:
        cache: what was compiled on this machine; None: nothing.
    """

    name = NAME

    def __init__(self, cache: EngineCache | None = None) -> None:
        self._cache = cache

    def precisions(self, bundle: Bundle) -> tuple[Precision, ...]:
        """Return INT8 where it was compiled, and FP32."""
        load_library()
        compiled = self._cache is not None and self._cache.graph(bundle, NAME, Precision.INT8) is not None
        return (Precision.INT8, Precision.FP32) if compiled else (Precision.FP32,)

    def open(self, bundle: Bundle, *, precision: Precision, threads: int) -> OnnxRuntimeEngine:
        """Load both graphs for `threads` threads."""
        if precision not in (Precision.FP32, Precision.INT8):
            raise EngineUnavailable(NAME, f"does not run {precision.value}")
        library = load_library()
        if precision is Precision.FP32:
            used = self._cache is not None and self._cache.used_for(bundle)
            kept = self._cache.library_folder(bundle, NAME, str(library.__version__)) if self._cache and used else None
            providers = providers_of(library.get_available_providers(), kept)
            return OnnxRuntimeEngine(library, bundle, bundle.backbone_path, providers=providers, threads=threads)
        backbone = self._cache.graph(bundle, NAME, precision) if self._cache else None
        if backbone is None:
            raise EngineUnavailable(NAME, not_compiled(precision))
        return OnnxRuntimeEngine(library, bundle, backbone, precision=precision, providers=ON_CPU, threads=threads)


def providers_of(available: Sequence[str], kept: Path | None) -> tuple[Provider, ...]:
    """Return what runs the backbone, best first: each takes the operators that those before it do not.

    TF32 is off: its ten bits of mantissa are not FP32. TensorRT's provider keeps its engines in `kept`.
    """
    providers: list[Provider] = []
    if "TensorrtExecutionProvider" in available:
        caching = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(kept)} if kept else {}
        providers.append(("TensorrtExecutionProvider", caching))
    if "CUDAExecutionProvider" in available:
        providers.append(("CUDAExecutionProvider", {"use_tf32": "0"}))
    return (*providers, *ON_CPU)


class OnnxRuntimeEngine:
    """Two sessions: the backbone's on the best provider, the head's on the processor.

    Args:
        library: the module `onnxruntime`.
        bundle: what to run.
        backbone_path: its backbone, in the graph of this precision.
        providers: what runs the backbone, best first.
        threads: processor threads of one run.
        precision: of the backbone.
    """

    name = NAME

    def __init__(
        self,
        library: Any,
        bundle: Bundle,
        backbone_path: Path,
        *,
        providers: Sequence[Provider],
        threads: int,
        precision: Precision = Precision.FP32,
    ) -> None:
        self.precision: str = precision.value
        self._errors = _errors(library)
        self._backbone = self._session(library, backbone_path, providers, threads)
        self._head = self._session(library, bundle.head_path, ON_CPU, threads)
        # A provider that finds no device leaves the session to the next.
        self._on_cpu = self._backbone.get_providers()[0] == "CPUExecutionProvider"

    def embed(self, pictures: Pictures) -> NDArray[np.float32]:
        """Run the backbone on N samples: to (N, D) float32."""
        runs = [sample[np.newaxis] for sample in pictures] if self._on_cpu else [np.asarray(pictures)]
        outputs = [self._run(self._backbone, [EMBEDDINGS], {BACKBONE_INPUT: samples}) for samples in runs]
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

    def _session(self, library: Any, path: Path, providers: Sequence[Provider], threads: int) -> Any:
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = FATAL_ONLY
        # By default its threads spin while they wait, on the very cores that capture decodes on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return library.InferenceSession(str(path), options, providers=list(providers))
        except self._errors as exc:
            raise EngineUnavailable(NAME, f"cannot load {path.name}: {_one_line(exc)}") from exc

    def _run(self, session: Any, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        try:
            arrays: list[NDArray[np.float32]] = session.run(outputs, inputs)
        except self._errors as exc:
            raise EngineUnavailable(NAME, f"a run failed: {_one_line(exc)}") from exc
        return arrays


def load_library() -> Any:
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
