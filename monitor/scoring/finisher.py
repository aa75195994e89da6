"""Embedded batches in; scores, steps in a change of the model and batch reports out, in order, by callbacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from monitor.errors import EngineUnavailable
from monitor.records import DropReason, Score
from monitor.scoring.batch import BatchReport, Embedded, ModelStage, ModelStep, Part
from monitor.scoring.pipeline import ScoredBatch, ScoringPipeline
from monitor.scoring.shadow import Shadow


class Finisher:
    """Runs rings and head on what the backbone made. Used by one thread.

    Args:
        on_score: told each score, in order of time for each camera.
        on_batch: told after each batch.
        on_drop: told of each late sample.
        on_model: told of each step in a change of the model, in order with the scores.
        on_new_failed: told that the head of a model that is taking over has failed; whether the old one still serves.
    """

    def __init__(
        self,
        *,
        on_score: Callable[[Score], None],
        on_batch: Callable[[BatchReport], None],
        on_drop: Callable[[str, DropReason], None],
        on_model: Callable[[ModelStep], None],
        on_new_failed: Callable[[ScoringPipeline, EngineUnavailable], bool],
    ) -> None:
        self._on_score = on_score
        self._on_batch = on_batch
        self._on_drop = on_drop
        self._on_model = on_model
        self._on_new_failed = on_new_failed
        self._failed: ScoringPipeline | None = None
        """A new model that has failed: nothing more is asked of it until it is rolled back."""

    def finish(self, embedded: Embedded) -> None:
        """Bring one batch to its end.

        Raises:
            EngineUnavailable: the engine failed.
        """
        for camera in embedded.forgotten:
            for pipeline in embedded.pipelines:
                pipeline.forget(camera)
        between = [step for step in embedded.steps if step.stage is ModelStage.CROSSING]
        behind = [step for step in embedded.steps if step.stage is not ModelStage.CROSSING]
        rolled_back = any(step.stage is ModelStage.ROLLED_BACK for step in behind)
        if rolled_back and embedded.parts:
            between, behind = behind, []  # the scores below are the old model's again
        skipped: Counter[str] = Counter()
        scored, head_seconds = 0, 0.0
        for number, part in enumerate(embedded.parts):
            if number == len(embedded.parts) - 1:
                self._tell_steps(between)
            finished = self._finished(part)
            if finished is None:
                continue
            head_seconds += finished.head_seconds
            scored += len(finished.scores)
            skipped.update(finished.windows_skipped)
            self._tell(part, finished, embedded.shadow)
        if embedded.samples:
            self._on_batch(
                BatchReport(
                    engine=embedded.engine,
                    samples=len(embedded.samples),
                    oldest_wait_seconds=embedded.oldest_wait_seconds,
                    embed_seconds=embedded.embed_seconds,
                    head_seconds=head_seconds,
                    windows_scored=scored,
                    windows_skipped=skipped,
                )
            )
        self._tell_steps(behind)
        if rolled_back:
            self._failed = None

    def _finished(self, part: Part) -> ScoredBatch | None:
        """Run rings and head; None where it is a new model's that has failed, and that is about to be rolled back."""
        if part.pipeline is self._failed:
            return None
        try:
            return part.finish()
        except EngineUnavailable as exc:
            if not part.is_new or not self._on_new_failed(part.pipeline, exc):
                raise
        self._failed = part.pipeline
        return None

    def _tell_steps(self, steps: Sequence[ModelStep]) -> None:
        for step in steps:
            self._on_model(step)

    def _tell(self, part: Part, finished: ScoredBatch, shadow: Shadow | None) -> None:
        for score in finished.scores:
            self._on_score(score)
            if shadow is not None:
                shadow.note_main(score, part.pipeline.manifest)
        for camera, count in finished.samples_late.items():
            for _ in range(count if part.counts_late(camera) else 0):
                self._on_drop(camera, DropReason.LATE)
