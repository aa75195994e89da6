"""A bundle in, an engine on NVIDIA's TensorRT 10 or 11 out. `tensorrt_build.py` and `tensorrt_part.py` name it too.

Nothing of this has run on a GPU yet: `make test-gpu` does that where there is one, and the golden outputs decide there.

An engine ("plan") is built for one GPU, version, graph, precision and set of batch sizes. All of that stands in its
record; a plan whose record differs, or whose bytes do, is built anew. Building takes minutes: with a cache folder it
happens once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from monitor.bundle import ATTENTION, BACKBONE_INPUT, EMBEDDINGS, MASK, PROBABILITIES, Bundle, Manifest
from monitor.errors import EngineUnavailable
from monitor.scoring.cache import EngineCache
from monitor.scoring.cuda import OUT_OF_MEMORY, Gpu, find_gpu, memory_told
from monitor.scoring.door import COMPILED, Classified, Pictures, Precision, not_compiled
from monitor.scoring.tensorrt_plan import PlanFolder, PlanKey, profiles_for

NAME = "tensorrt"
MAJORS = ("10", "11")
"""Versions whose Python API this is written against."""
USUAL_BATCH = 8
"""As many samples as a batch has unless the configuration says otherwise."""

BATCHES_AT_ONCE = 2
"""In the backbone: one is computed while the next is copied. The device holds the buffers of both."""

log = structlog.get_logger()


class TensorRtDoor:
    """The way to TensorRT.

    Args:
        cache: what was compiled on this machine; None: nothing, and nothing is kept.
        max_batch: most samples of a run; None: what was compiled, or else `USUAL_BATCH`.
        on_progress: told of a build: phase, steps done, steps there are.
    """

    name = NAME

    def __init__(
        self,
        cache: EngineCache | None = None,
        *,
        max_batch: int | None = None,
        on_progress: Any = lambda _phase, _done, _steps: None,
    ) -> None:
        self._cache = cache
        self._max_batch = max_batch
        self._on_progress = on_progress

    def precisions(self, bundle: Bundle) -> tuple[Precision, ...]:
        """Return INT8 and FP16 where they were compiled, and FP32."""
        find_gpu()
        load_library()
        found = (precision for precision in (Precision.INT8, Precision.FP16) if self._graph(bundle, precision))
        return (*found, Precision.FP32)

    def open(self, bundle: Bundle, *, precision: Precision, threads: int) -> TensorRtEngine:
        """Load both plans, or build them first; processor threads do not matter."""
        if precision not in (Precision.FP32, *COMPILED):
            raise EngineUnavailable(NAME, f"does not run {precision.value}")
        gpu, version = find_gpu(), str(load_library().__version__)
        backbone = self._graph(bundle, precision)
        if backbone is None:
            raise EngineUnavailable(NAME, not_compiled(precision))
        plans = PlanFolder(self._folder(bundle, gpu, version))
        manifest = bundle.manifest
        with memory_told(f"opening {manifest.name} in {precision.value}"):
            embedder = self._part(_backbone(manifest, backbone, precision), plans, gpu, version, lanes=BATCHES_AT_ONCE)
            try:
                classifier = self._part(_head(manifest, bundle.head_path), plans, gpu, version, lanes=1)
            except EngineUnavailable:
                embedder.close()
                raise
        return TensorRtEngine(embedder, classifier, precision)

    def _graph(self, bundle: Bundle, precision: Precision) -> Path | None:
        if precision not in COMPILED:
            return bundle.backbone_path
        return self._cache.graph(bundle, NAME, precision) if self._cache else None

    def _folder(self, bundle: Bundle, gpu: Gpu, version: str) -> Path | None:
        """Make the folder for this GPU and version; None where nothing can be kept: a start then takes minutes."""
        if self._cache is None:
            return None
        folder = self._cache.library_folder(bundle, NAME, gpu.name, gpu.compute_capability, version)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            _not_kept(folder, exc)
            return None
        return folder

    def _part(self, graph: _GraphOnDevice, plans: PlanFolder, gpu: Gpu, version: str, *, lanes: int) -> Any:
        """Open a graph by a plan that was kept; build one where there is none, or it does not load after all."""
        parts = import_module("monitor.scoring.tensorrt_part")
        batches = (self._max_batch,) if self._max_batch else (*plans.batches(), USUAL_BATCH)
        keys = [graph.key(gpu, version, batch) for batch in batches]
        key, plan = next(((key, plan) for key in keys if (plan := plans.find(key))), (keys[-1], None))
        if plan is not None:
            try:
                return parts.Part(plan, key.max_batch, graph.inputs, graph.output_types, lanes=lanes)
            except EngineUnavailable as exc:
                if OUT_OF_MEMORY in exc.reason:
                    raise
                log.warning("engine_rebuilt", engine=NAME, graph=graph.path.name, reason=exc.reason)
        plan = self._build(graph, key, plans)
        return parts.Part(plan, key.max_batch, graph.inputs, graph.output_types, lanes=lanes)

    def _build(self, graph: _GraphOnDevice, key: PlanKey, plans: PlanFolder) -> bytes:
        build = import_module("monitor.scoring.tensorrt_build")
        log.info("engine_building", engine=NAME, graph=graph.path.name, precision=key.precision, gpu=key.gpu)
        plan: bytes = build.build_plan(
            graph.path,
            dict(key.inputs),
            profiles_for(key.max_batch),
            timing_cache=plans.timing_cache,
            on_progress=self._on_progress,
        )
        try:
            plans.put(key, plan)
        except OSError as exc:
            _not_kept(plans.folder, exc)
        log.info("engine_built", engine=NAME, graph=graph.path.name, precision=key.precision, bytes=len(plan))
        return plan


@dataclass(frozen=True, slots=True)
class _GraphOnDevice:
    """One of the bundle's two graphs, as the device is to run it."""

    path: Path
    precision: Precision
    inputs: Mapping[str, tuple[tuple[int, ...], type]]
    """Of each input its shape without the batch axis, and its type."""
    output_types: Mapping[str, type]

    def key(self, gpu: Gpu, version: str, max_batch: int) -> PlanKey:
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
        tails = tuple((name, tail) for name, (tail, _) in self.inputs.items())
        return PlanKey(gpu.name, gpu.compute_capability, version, digest, self.precision.value, max_batch, tails)


def _backbone(manifest: Manifest, path: Path, precision: Precision) -> _GraphOnDevice:
    shape = manifest.sample
    pictures = (shape.pictures, shape.height_pixels, shape.width_pixels, 3)
    return _GraphOnDevice(path, precision, {BACKBONE_INPUT: (pictures, np.uint8)}, {EMBEDDINGS: np.float32})


def _head(manifest: Manifest, path: Path) -> _GraphOnDevice:
    """The head always reckons in FP32, as on other engines."""
    slots = manifest.window_slots
    inputs = {EMBEDDINGS: ((slots, manifest.embedding_size), np.float32), MASK: ((slots,), np.bool_)}
    return _GraphOnDevice(path, Precision.FP32, inputs, {PROBABILITIES: np.float32, ATTENTION: np.float32})


class TensorRtEngine:
    """Both parts on the device, each with its own contexts, stream and buffers: they may run at once."""

    name = NAME

    def __init__(self, embedder: Any, classifier: Any, precision: Precision) -> None:
        self.precision: str = precision.value
        self._embedder, self._classifier = embedder, classifier

    def embed(self, pictures: Pictures) -> NDArray[np.float32]:
        """Run the backbone on N samples: to (N, D) float32."""
        return self.begin(pictures)()

    def begin(self, pictures: Pictures) -> Callable[[], NDArray[np.float32]]:
        """Have the device begin on N samples; return what waits for their (N, D) float32 embeddings."""
        answers: Callable[[], Mapping[str, NDArray[np.float32]]] = self._embedder.begin({BACKBONE_INPUT: pictures})
        return lambda: answers()[EMBEDDINGS]

    def classify(self, embeddings: NDArray[np.float32], mask: NDArray[np.bool_]) -> Classified:
        """Run the head on N windows."""
        answers = self._classifier.run({EMBEDDINGS: embeddings, MASK: mask})
        return Classified(probabilities=answers[PROBABILITIES], attention=answers[ATTENTION])

    def close(self) -> None:
        """Give back the device's memory."""
        self._embedder.close()
        self._classifier.close()


def _not_kept(folder: Path | None, error: OSError) -> None:
    log.warning("engine_not_kept", engine=NAME, folder=str(folder), reason=error.strerror or str(error))


def load_library() -> Any:
    """Import TensorRT.

    Raises:
        EngineUnavailable: it is not installed, its libraries are of another version than its bindings, or it is
            neither 10 nor 11.
    """
    try:
        library = import_module("tensorrt")
    except (ImportError, OSError) as exc:  # OSError: bindings without, or with another version of, the libraries
        raise EngineUnavailable(NAME, f"the library cannot be imported: {' '.join(str(exc).split())}") from exc
    version = str(getattr(library, "__version__", "unknown"))
    if version.split(".")[0] not in MAJORS:
        raise EngineUnavailable(NAME, f"version {version} is neither 10 nor 11, which this program is written for")
    return library
