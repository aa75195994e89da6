"""A bundle in, an engine on OpenVINO's CPU plugin out. The only file that names `openvino`.

Both graphs are compiled for one sample and one window. A batch is spread over parallel streams (OpenVINO's
throughput hint); what is left of it, when it would leave half of the streams idle, takes all threads one sample after
another (the latency hint). Measured on EfficientNet-Lite0 at 224², two threads, FP32: a lone sample takes 6.7 ms with
all threads and 11.7 on its stream, a sample of a batch of 8 6.7 and 6.1.

A batch as one dynamic tensor takes a quarter more than samples on streams; and what a sample's embedding is, to the
bit, must not depend on who shared its batch, which dynamic shapes do not promise (the head's answers differed by 6e-8
between batches of 1 and 8).

INT8 is a backbone with quantization in its graph, made by `monitor compile`; OpenVINO finds it there by itself.
The head always reckons in FP32: it costs next to nothing.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import ATTENTION, BACKBONE_INPUT, EMBEDDINGS, MASK, PROBABILITIES, Bundle
from monitor.errors import EngineUnavailable
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Classified, Pictures, Precision, not_compiled

NAME = "openvino"
MOST_STREAMS = 8
"""Samples that run side by side; more threads than this share the streams."""
HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16", Precision.INT8: "f32"}
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
        """Return INT8 where it was compiled, BF16 and FP16 where the processor says that it has them, and FP32."""
        capabilities = _capabilities()
        compiled = self._cache is not None and self._cache.graph(bundle, NAME, Precision.INT8) is not None
        return (Precision.INT8, *precisions_of(capabilities)) if compiled else precisions_of(capabilities)

    def open(self, bundle: Bundle, *, precision: Precision, threads: int) -> OpenVinoEngine:
        """Read and compile both graphs for `threads` threads."""
        if precision not in HINTS:
            raise EngineUnavailable(NAME, f"does not run {precision.value}")
        if precision is Precision.FP16 and precision not in precisions_of(_capabilities()):
            raise EngineUnavailable(NAME, f"does not run {precision.value} on this processor")
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
        capabilities = ",".join(_capabilities())
        return self._cache.library_folder(bundle, NAME, str(load_library().__version__), processor, capabilities)


class OpenVinoEngine:
    """The backbone compiled for many samples and, with more than one thread, for a lone one; the head for one window.

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
        self._streams = min(threads, MOST_STREAMS)
        shape = manifest.sample
        size = [1, shape.pictures, shape.height_pixels, shape.width_pixels, 3]
        core = _core()
        try:
            backbone = core.read_model(backbone_path)
            backbone.reshape({BACKBONE_INPUT: size})
            hints = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": threads}
            streams = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self._streams}
            compiled = _compile(core, backbone, {**hints, **streams}, kept)
            compiled.output(EMBEDDINGS)
            self._side_by_side = [compiled.create_infer_request() for _ in range(self._streams)]
            self._alone: Any = None
            if self._streams > 1:
                compiled = _compile(core, backbone, {**hints, "PERFORMANCE_HINT": "LATENCY"}, kept)
                self._alone = compiled.create_infer_request()
            self._head: Any = _Head(library, bundle, kept)
        except RuntimeError as exc:
            raise EngineUnavailable(NAME, f"cannot load the graphs: {_first_line(exc)}") from exc
        if self.compiled_for_one and not self._alike(size):
            self._alone = None

    @property
    def compiled_for_one(self) -> bool:
        """Whether a lone sample has a way of its own."""
        return self._alone is not None

    def embed(self, pictures: Pictures) -> NDArray[np.float32]:
        """Run the backbone on N samples: to (N, D) float32."""
        embeddings = np.empty((len(pictures), self._embedding_size), dtype=np.float32)
        left = len(pictures) % self._streams
        if not self.compiled_for_one or left > self._streams // 2:
            left = 0
        spread = len(pictures) - left
        try:
            self._embed_side_by_side(pictures[:spread], embeddings[:spread])
            self._embed_alone(pictures[spread:], embeddings[spread:])
        except (RuntimeError, ValueError) as exc:
            raise EngineUnavailable(NAME, f"the backbone failed: {_first_line(exc)}") from exc
        return embeddings

    def classify(self, embeddings: NDArray[np.float32], mask: NDArray[np.bool_]) -> Classified:
        """Run the head on each of N windows."""
        try:
            answers: Classified = self._head.classify(embeddings, mask)
        except (RuntimeError, ValueError) as exc:
            raise EngineUnavailable(NAME, f"the head failed: {_first_line(exc)}") from exc
        return answers

    def close(self) -> None:
        """Let go of all graphs."""
        self._side_by_side = []
        self._alone = None
        self._head = None

    def _embed_side_by_side(self, pictures: Pictures, embeddings: NDArray[np.float32]) -> None:
        """Give the streams a sample each, in turn.

        Not by an `AsyncInferQueue`: its callbacks need the interpreter on OpenVINO's own threads, and one that is late
        (seen with 2026.4, on a busy machine) finds it gone and aborts a program that is done.
        """
        started: deque[tuple[Any, int]] = deque()
        for index, sample in enumerate(pictures):
            if len(started) == self._streams:
                _finish(*started.popleft(), embeddings)
            request = self._side_by_side[index % self._streams]
            request.start_async({BACKBONE_INPUT: sample[np.newaxis]}, share_inputs=True)
            started.append((request, index))
        while started:
            _finish(*started.popleft(), embeddings)

    def _embed_alone(self, pictures: Pictures, embeddings: NDArray[np.float32]) -> None:
        for index, sample in enumerate(pictures):
            self._alone.infer({BACKBONE_INPUT: sample[np.newaxis]}, share_inputs=True)
            embeddings[index] = self._alone.get_tensor(EMBEDDINGS).data[0]

    def _alike(self, size: Sequence[int]) -> bool:
        """Whether both ways give the same embedding to the bit; without that a replay would not repeat itself.

        OpenVINO does not promise it, so it is tried.
        """
        noise = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
        ways = np.empty((2, self._embedding_size), dtype=np.float32)
        try:
            self._embed_side_by_side(noise, ways[:1])
            self._embed_alone(noise, ways[1:])
        except (RuntimeError, ValueError) as exc:
            raise EngineUnavailable(NAME, f"the backbone failed: {_first_line(exc)}") from exc
        return bool((ways[0] == ways[1]).all())


class _Head:
    """The head for one window, on one thread: it is too small for more.

    What goes in and comes out is copied into arrays that it keeps: new tensors for each window would take as long
    as the graph itself.
    """

    def __init__(self, library: Any, bundle: Bundle, kept: Path | None) -> None:
        manifest = bundle.manifest
        slots = manifest.window_slots
        self._embeddings = np.zeros((1, slots, manifest.embedding_size), np.float32)
        self._mask = np.zeros((1, slots), np.bool_)
        core = _core()
        graph = core.read_model(bundle.head_path)
        graph.reshape({EMBEDDINGS: list(self._embeddings.shape), MASK: list(self._mask.shape)})
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
        compiled = _compile(core, graph, hints, kept)
        self._probabilities = np.zeros(tuple(compiled.output(PROBABILITIES).shape), np.float32)
        self._attention = np.zeros(tuple(compiled.output(ATTENTION).shape), np.float32)
        self._request = compiled.create_infer_request()
        for name, kept_array in (
            (EMBEDDINGS, self._embeddings),
            (MASK, self._mask),
            (PROBABILITIES, self._probabilities),
            (ATTENTION, self._attention),
        ):
            self._request.set_tensor(name, library.Tensor(kept_array, shared_memory=True))

    def classify(self, embeddings: NDArray[np.float32], mask: NDArray[np.bool_]) -> Classified:
        if embeddings.shape[1:] != self._embeddings.shape[1:] or mask.shape != embeddings.shape[:2]:
            raise ValueError(f"windows in shape {embeddings.shape}, wanted (N, *{self._embeddings.shape[1:]})")
        answers = Classified(
            probabilities=np.empty((len(embeddings), *self._probabilities.shape[1:]), dtype=np.float32),
            attention=np.empty((len(embeddings), *self._attention.shape[1:]), dtype=np.float32),
        )
        for index in range(len(embeddings)):
            self._embeddings[0], self._mask[0] = embeddings[index], mask[index]
            self._request.infer(share_outputs=True)
            answers.probabilities[index], answers.attention[index] = self._probabilities[0], self._attention[0]
        return answers


def _finish(request: Any, index: int, embeddings: NDArray[np.float32]) -> None:
    request.wait()
    embeddings[index] = request.get_tensor(EMBEDDINGS).data[0]


def _compile(core: Any, graph: Any, hints: Mapping[str, Any], kept: Path | None) -> Any:
    common: dict[str, Any] = {"ENABLE_CPU_PINNING": False}
    if kept is not None:
        common["CACHE_DIR"] = str(kept)
    return core.compile_model(graph, "CPU", {**common, **hints})


def _capabilities() -> tuple[str, ...]:
    """Return what OpenVINO says of the processor."""
    try:
        return tuple(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    except RuntimeError as exc:
        raise EngineUnavailable(NAME, f"no CPU device: {_first_line(exc)}") from exc


def precisions_of(capabilities: Iterable[str]) -> tuple[Precision, ...]:
    """Return the precisions that a processor with these OpenVINO capabilities can reckon in, FP32 last."""
    named = set(capabilities)
    return (*(each for each in (Precision.BF16, Precision.FP16) if each.name in named), Precision.FP32)


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
