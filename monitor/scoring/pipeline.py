"""Samples of any cameras in, their windows' scores out. No thread: the live scorer and a replay both call it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import Manifest
from monitor.config import ScoringConfig
from monitor.records import Sample, Score, Window
from monitor.scoring.door import DeviceEngine, Engine
from monitor.scoring.waiting import Waiting
from monitor.scoring.windows import CameraWindows, Pushed


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """What one batch led to."""

    scores: tuple[Score, ...]
    """In order of time for each camera."""
    windows_skipped: Mapping[str, int]
    """Windows with too little coverage, by camera."""
    samples_late: Mapping[str, int]
    """Samples ignored since a newer one of their camera had been taken, by camera."""
    embed_seconds: float
    head_seconds: float


class ScoringPipeline:
    """Backbone, rings and head of one model: each sample goes through the backbone once.

    `embed` belongs to one thread at a time, everything else to one too; these may be two. What a sample's scores
    are does not depend on the batch it came in, as long as the engine's answers do not; the CPU engines' do not,
    to the bit.

    Args:
        engine: opened and checked; the caller closes it.
        manifest: of the engine's bundle.
        settings: batch size and coverage.
    """

    def __init__(self, engine: Engine, manifest: Manifest, settings: ScoringConfig) -> None:
        self.engine = engine
        self.manifest = manifest
        self._settings = settings
        self._cameras: dict[str, CameraWindows] = {}

    def score(self, samples: Sequence[Sample]) -> list[Score]:
        """Score samples, in the order in which they were taken, in batches of the configured size."""
        size = self._settings.batch_samples
        batches = (samples[start : start + size] for start in range(0, len(samples), size))
        return [score for batch in batches for score in self.score_batch(batch).scores]

    def score_batch(self, samples: Sequence[Sample]) -> ScoredBatch:
        """Score one batch: one run of the backbone, one of the head for all the windows it completes.

        Raises:
            EngineUnavailable: the engine failed.
        """
        began = time.perf_counter()
        embeddings = self.embed(samples)
        seconds = time.perf_counter() - began
        batch = [Waiting(sample, since_seconds=0.0) for sample in samples]
        return self.finish(batch, embeddings, embed_seconds=seconds)

    def embed(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Run the backbone on one batch and return (N, D) float32; the pictures go to the engine as they came.

        Raises:
            EngineUnavailable: the engine failed.
        """
        return self.engine.embed([sample.pictures for sample in samples])

    def begin(self, samples: Sequence[Sample]) -> Callable[[], NDArray[np.float32]] | None:
        """Have a device begin on one batch; None where the engine has none, and `embed` is the way.

        Returns what waits for the embeddings.

        Raises:
            EngineUnavailable: the engine failed; what is returned raises it too.
        """
        if not isinstance(self.engine, DeviceEngine):
            return None
        return self.engine.begin([sample.pictures for sample in samples])

    def finish(
        self,
        batch: Sequence[Waiting],
        embeddings: NDArray[np.float32],
        *,
        embed_seconds: float = 0.0,
        from_slots: Mapping[str, int] | None = None,
        closed: Mapping[str, int] | None = None,
    ) -> ScoredBatch:
        """Put a batch's embeddings into the rings and run the head on the windows that this completes.

        Args:
            batch: in the order of time for each camera.
            embeddings: (N, D) float32, what the backbone made of them.
            embed_seconds: how long that took.
            from_slots: by camera, where its first window may begin, for a ring that is new.
            closed: by camera, the slot before which its last windows end; the camera is forgotten after them.

        Raises:
            EngineUnavailable: the engine failed.
        """
        began = time.perf_counter()
        windows: list[Window] = []
        skipped: Counter[str] = Counter()
        late: Counter[str] = Counter()

        def note(camera: str, pushed: Pushed) -> None:
            windows.extend(pushed.windows)
            skipped[camera] += pushed.skipped
            late[camera] += pushed.late

        for waiting, embedding in zip(batch, embeddings, strict=True):
            sample = waiting.sample
            ring = self._windows_of(sample.camera, (from_slots or {}).get(sample.camera))
            note(sample.camera, ring.push(sample, embedding, factor=waiting.factor, shed_slots=waiting.shed_slots))
        for camera, before_slot in (closed or {}).items():
            if camera in self._cameras:
                note(camera, self._cameras.pop(camera).close(before_slot))
        scores = self._classify(windows)
        return ScoredBatch(
            scores=scores,
            windows_skipped=+skipped,
            samples_late=+late,
            embed_seconds=embed_seconds,
            head_seconds=time.perf_counter() - began,
        )

    def forget(self, camera: str) -> None:
        """Drop what is kept of a camera; a later sample begins anew."""
        self._cameras.pop(camera, None)

    def _windows_of(self, camera: str, from_slot: int | None) -> CameraWindows:
        windows = self._cameras.get(camera)
        if windows is None:
            coverage = self._settings.minimum_coverage
            windows = CameraWindows(camera, manifest=self.manifest, minimum_coverage=coverage, from_slot=from_slot)
            self._cameras[camera] = windows
        return windows

    def _classify(self, windows: Sequence[Window]) -> tuple[Score, ...]:
        if not windows:
            return ()
        answers = self.engine.classify(
            np.stack([window.embeddings for window in windows]), np.stack([window.mask for window in windows])
        )
        triples = zip(windows, answers.probabilities, answers.attention, strict=True)
        return tuple(Score(window, probabilities, attention) for window, probabilities, attention in triples)
