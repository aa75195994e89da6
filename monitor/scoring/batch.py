"""A batch on its way through scoring: what one thread hands to the other, and what is reported of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from monitor.scoring.crossing import Route
from monitor.scoring.pipeline import ScoredBatch, ScoringPipeline
from monitor.scoring.shadow import Shadow
from monitor.scoring.waiting import Waiting


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One run of the engine."""

    engine: str
    samples: int
    oldest_wait_seconds: float
    """From `put` of the batch's oldest sample to the batch's beginning."""
    embed_seconds: float
    head_seconds: float
    """Rings and head together."""
    windows_scored: int
    windows_skipped: Mapping[str, int]
    """Windows with too little coverage, by camera."""


class ModelStage(StrEnum):
    """Where a change of the model stands."""

    CROSSING = "crossing"
    SWAPPED = "swapped"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class ModelStep:
    """A step in the change from one model to another, told in order with the scores."""

    stage: ModelStage
    cameras: tuple[str, ...] = ()
    """Those that cross: their scores are the new model's from here on. Rolled back: those that had crossed."""
    reason: str = ""
    """Why it was rolled back."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one model is to finish of a batch."""

    pipeline: ScoringPipeline
    batch: Sequence[Waiting]
    embeddings: NDArray[np.float32]
    route: Route | None = None
    """In a change of the model."""
    is_new: bool = False

    def finish(self) -> ScoredBatch:
        """Run rings and head."""
        route = self.route
        if route is None:
            return self.pipeline.finish(self.batch, self.embeddings)
        if not self.is_new:
            return self.pipeline.finish(self.batch, self.embeddings, closed=route.closed)
        for camera in route.restarted:
            self.pipeline.forget(camera)
        return self.pipeline.finish(self.batch, self.embeddings, from_slots=route.from_slots)

    def counts_late(self, camera: str) -> bool:
        """Whether it is this model that counts what is late of a camera: a sample may go to both."""
        return not self.is_new or self.route is None or camera not in self.route.warming


@dataclass(frozen=True, slots=True)
class Embedded:
    """A batch between the two threads."""

    engine: str
    samples: tuple[str, ...]
    """Camera of each."""
    oldest_wait_seconds: float
    embed_seconds: float
    parts: tuple[Part, ...]
    """In a change of the model: the old one's first."""
    steps: tuple[ModelStep, ...]
    """CROSSING stands between the parts, the others behind them."""
    forgotten: tuple[str, ...]
    pipelines: tuple[ScoringPipeline, ...]
    shadow: Shadow | None
