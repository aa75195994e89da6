"""Samples of any cameras in, their windows' scores out. No thread: the live scorer and a replay both call it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monitor.bundle import Manifest
from monitor.config import ScoringConfig
from monitor.records import Sample, Score, Window
from monitor.scoring.door import Engine
from monitor.scoring.windows import CameraWindows


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
    """Backbone, rings and head: each sample goes through the backbone once.

    Used by one thread at a time. What a sample's scores are does not depend on the batch it came in, as long
    as the engine's answers do not; the CPU engines' do not, to the bit.

    Args:
        engine: opened and checked; the caller closes it.
        manifest: of the engine's bundle.
        settings: batch size and coverage.
    """

    def __init__(self, engine: Engine, manifest: Manifest, settings: ScoringConfig) -> None:
        self._engine = engine
        self._manifest = manifest
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
        embeddings = self._engine.embed(np.stack([sample.pictures for sample in samples]))
        embedded = time.perf_counter()
        windows: list[Window] = []
        skipped: Counter[str] = Counter()
        late: Counter[str] = Counter()
        for sample, embedding in zip(samples, embeddings, strict=True):
            pushed = self._windows_of(sample.camera).push(sample, embedding)
            windows.extend(pushed.windows)
            skipped[sample.camera] += pushed.skipped
            late[sample.camera] += pushed.late
        scores = self._classify(windows)
        return ScoredBatch(
            scores=scores,
            windows_skipped=+skipped,
            samples_late=+late,
            embed_seconds=embedded - began,
            head_seconds=time.perf_counter() - embedded,
        )

    def forget(self, camera: str) -> None:
        """Drop what is kept of a camera; a later sample begins anew."""
        self._cameras.pop(camera, None)

    def _windows_of(self, camera: str) -> CameraWindows:
        windows = self._cameras.get(camera)
        if windows is None:
            coverage = self._settings.minimum_coverage
            windows = CameraWindows(camera, manifest=self._manifest, minimum_coverage=coverage)
            self._cameras[camera] = windows
        return windows

    def _classify(self, windows: Sequence[Window]) -> tuple[Score, ...]:
        if not windows:
            return ()
        answers = self._engine.classify(
            np.stack([window.embeddings for window in windows]), np.stack([window.mask for window in windows])
        )
        triples = zip(windows, answers.probabilities, answers.attention, strict=True)
        return tuple(Score(window, probabilities, attention) for window, probabilities, attention in triples)
