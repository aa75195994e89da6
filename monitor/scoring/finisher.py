"""Embedded batches in; scores, steps in a change of the model and batch reports out, in order, by callbacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from monitor.records import DropReason, Score
from monitor.scoring.batch import BatchReport, Embedded, ModelStage, ModelStep, Part
from monitor.scoring.pipeline import ScoredBatch
from monitor.scoring.shadow import Shadow


class Finisher:
    """Runs rings and head on what the backbone made. Used by one thread.

    Args:
        on_score: told each score, in order of time for each camera.
        on_batch: told after each batch.
        on_drop: told of each late sample.
        on_model: told of each step in a change of the model, in order with the scores.
    """

    def __init__(
        self,
        *,
        on_score: Callable[[Score], None],
        on_batch: Callable[[BatchReport], None],
        on_drop: Callable[[str, DropReason], None],
        on_model: Callable[[ModelStep], None],
    ) -> None:
        self._on_score = on_score
        self._on_batch = on_batch
        self._on_drop = on_drop
        self._on_model = on_model

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
        if any(step.stage is ModelStage.ROLLED_BACK for step in behind):
            between, behind = behind, []  # the scores below are the old model's again
        skipped: Counter[str] = Counter()
        scored, head_seconds = 0, 0.0
        for number, part in enumerate(embedded.parts):
            if number == len(embedded.parts) - 1:
                self._tell_steps(between)
            finished = part.finish()
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
