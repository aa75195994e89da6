"""A bundle in, an engine on OpenVINO's CPU plugin out. The only file that names `openvino`.

Both graphs are compiled for one sample and one window, and a batch is spread over parallel streams.
Measured on EfficientNet-Lite0 at 224², two cores without bf16: a batch of 8 as one dynamic tensor takes
17-20 ms a sample, as single samples on streams 13-16 ms; and what a sample's embedding is, to the bit,
does not depend on who shared its batch, which the dynamic shapes do not promise (the head's answers
differed by 6e-8 between batches of 1 and 8).

INT8 is a backbone with quantization in its graph, made by `monitor compile`; OpenVINO finds it there by itself.
The head always reckons in FP32: it costs next to nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import ATTENTION, BACKBONE_INPUT, EMBEDDINGS, MASK, PROBABILITIES, Bundle
from monitor.errors import EngineUnavailable
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Classified, Precision, not_compiled

NAME = "openvino"
MOST_STREAMS = 8
"""Samples that run side by side; more threads than this share the streams."""
HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.INT8: "f32"}
"""What the layers that are not quantized reckon in."""


class OpenVinoDoor:
    """The way to OpenVINO.

    Args:
        cache: what was compiled on this machine; None: nothing.
    """

    name = NAME

    def __init__(self, cache: EngineCache | None = None) -> None:
        self._cache = cache

    def precisions(self, bundle: Bundle) -> tuple[Precision, ...]:
        """Return INT8 where it was compiled, BF16 where the processor says that it has it, and FP32."""
        try:
            capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        except RuntimeError as exc:
            raise EngineUnavailable(NAME, f"no CPU device: {_first_line(exc)}") from exc
        compiled = self._cache is not None and self._cache.graph(bundle, NAME, Precision.INT8) is not None
        return (Precision.INT8, *precisions_of(capabilities)) if compiled else precisions_of(capabilities)

    def open(self, bundle: Bundle, *, precision: Precision, threads: int) -> OpenVinoEngine:
        """Read and compile both graphs for `threads` threads."""
        if precision not in HINTS:
            raise EngineUnavailable(NAME, f"does not run {precision.value}")
        backbone = self._cache.graph(bundle, NAME, precision) if self._cache else None
        if precision is Precision.INT8 and backbone is None:
            raise EngineUnavailable(NAME, not_compiled(precision))
        return OpenVinoEngine(
            load_library(),
            bundle,
            backbone_path=backbone or bundle.backbone_path,
            precision=precision,
            threads=threads,
            kept=self._kept(bundle),
        )

    def _kept(self, bundle: Bundle) -> Path | None:
        """Return where OpenVINO keeps its compiled models: it loads them three times as fast as it compiles."""
        if self._cache is None or not self._cache.used_for(bundle):
            return None
        processor = str(_core().get_property("CPU", "FULL_DEVICE_NAME"))
        capabilities = ",".join(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        return self._cache.library_folder(bundle, NAME, str(load_library().__version__), processor, capabilities)


class OpenVinoEngine:
    """Two compiled graphs: the backbone on several streams, the head on one.

    Args:
        library: the module `openvino`.
        bundle: what to run.
        backbone_path: its backbone, in the graph of this precision.
        precision: of the backbone.
        threads: processor threads; not pinned, since capture shares the cores.
        kept: folder for compiled models; None: none are kept.
    """

    name = NAME

    def __init__(
        self,
        library: Any,
        bundle: Bundle,
        *,
        backbone_path: Path,
        precision: Precision,
        threads: int,
        kept: Path | None,
    ) -> None:
        self.precision: str = precision.value
        manifest = bundle.manifest
        self._embedding_size = manifest.embedding_size
        shape = manifest.sample
        core = _core()
        common: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        if kept is not None:
            common["CACHE_DIR"] = str(kept)
        streams = min(threads, MOST_STREAMS)
        slots, size = manifest.window_slots, manifest.embedding_size
        try:
            backbone = core.read_model(backbone_path)
            backbone.reshape({BACKBONE_INPUT: [1, shape.pictures, shape.height_pixels, shape.width_pixels, 3]})
            # THROUGHPUT: samples of a batch side by side. LATENCY would put all threads on one sample at a time,
            # which on two cores takes 23 ms a sample where two streams take 14-16.
            hints = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams}
            compiled = core.compile_model(
                backbone, "CPU", {**common, **hints, "INFERENCE_PRECISION_HINT": HINTS[precision]}
            )
            compiled.output(EMBEDDINGS)
            self._backbone = library.AsyncInferQueue(compiled, streams)
            head = core.read_model(bundle.head_path)
            head.reshape({EMBEDDINGS: [1, slots, size], MASK: [1, slots]})
            hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
            compiled = core.compile_model(head, "CPU", {**common, **hints})
            compiled.output(PROBABILITIES), compiled.output(ATTENTION)
            self._head = compiled.create_infer_request()
        except RuntimeError as exc:
            raise EngineUnavailable(NAME, f"cannot load the graphs: {_first_line(exc)}") from exc

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the backbone: (N, K, H, W, 3) uint8 to (N, D) float32."""
        embeddings = np.empty((len(pictures), self._embedding_size), dtype=np.float32)

        def keep(request: Any, index: int) -> None:
            embeddings[index] = request.get_tensor(EMBEDDINGS).data[0]

        self._backbone.set_callback(keep)
        try:
            for index in range(len(pictures)):
                self._backbone.start_async({BACKBONE_INPUT: pictures[index : index + 1]}, index, share_inputs=True)
            self._backbone.wait_all()
        except (RuntimeError, ValueError) as exc:
            raise EngineUnavailable(NAME, f"the backbone failed: {_first_line(exc)}") from exc
        return embeddings

    def classify(self, embeddings: NDArray[np.float32], mask: NDArray[np.bool_]) -> Classified:
        """Run the head on each of N windows."""
        try:
            answers = [self._classify_one(embeddings[i : i + 1], mask[i : i + 1]) for i in range(len(embeddings))]
        except (RuntimeError, ValueError) as exc:
            raise EngineUnavailable(NAME, f"the head failed: {_first_line(exc)}") from exc
        return Classified(
            probabilities=np.concatenate([answer.probabilities for answer in answers]),
            attention=np.concatenate([answer.attention for answer in answers]),
        )

    def close(self) -> None:
        """Let go of both graphs."""
        self._backbone = None
        self._head = None

    def _classify_one(self, embeddings: NDArray[np.float32], mask: NDArray[np.bool_]) -> Classified:
        self._head.infer({EMBEDDINGS: embeddings, MASK: mask}, share_inputs=True)
        return Classified(
            probabilities=np.array(self._head.get_tensor(PROBABILITIES).data, dtype=np.float32),
            attention=np.array(self._head.get_tensor(ATTENTION).data, dtype=np.float32),
        )


def precisions_of(capabilities: Iterable[str]) -> tuple[Precision, ...]:
    """Return the precisions that a processor with these OpenVINO capabilities can reckon in, FP32 last."""
    return (Precision.BF16, Precision.FP32) if "BF16" in capabilities else (Precision.FP32,)


def load_library() -> Any:
    """Import OpenVINO without its telemetry.

    `import openvino` imports its model converter, which by default writes an id and a usage count to
    `~/intel` and sends an event to Google Analytics. Without the package `openvino_telemetry` it takes a
    stub in its place; a None in `sys.modules` makes Python treat the package as not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as exc:
        raise EngineUnavailable(NAME, f"the library cannot be imported: {_first_line(exc)}") from exc
    return openvino


@cache
def _core() -> Any:
    """Return the one Core of this process; it is never given up.

    On a processor with AMX its CPU plugin gives the thread that first uses it a stack for signals, and takes that
    memory back with the last Core, on whatever thread that happens: the next signal to the first thread then kills
    the process (seen with 2026.4, `SigAltStackSetup` of its CPU plugin).
    """
    return load_library().Core()


def _first_line(exc: BaseException) -> str:
    """Return the last line that says something; OpenVINO puts the files of its own source before it."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__
