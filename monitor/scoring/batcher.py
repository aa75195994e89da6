"""Samples of all cameras in, one at a time and without waiting; scores and batch reports out, from one thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from monitor.bundle import Manifest
from monitor.config import ScoringConfig
from monitor.deadline import Deadline
from monitor.errors import StopTimedOut
from monitor.records import DropReason, Sample, Score
from monitor.scoring.door import Engine
from monitor.scoring.pipeline import ScoringPipeline

TICK_SECONDS = 0.5
"""Longest wait for a sample before the thread looks around."""


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One run of the engine."""

    samples: int
    oldest_wait_seconds: float
    """From `put` of the batch's oldest sample to the batch's beginning."""
    embed_seconds: float
    head_seconds: float
    """Rings and head together."""
    windows_scored: int
    windows_skipped: Mapping[str, int]
    """Windows with too little coverage, by camera."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A sample in the queue."""

    sample: Sample
    since_seconds: float
    """On the monotonic clock."""


class Scorer:
    """Owns the one scoring thread.

    The queue is bounded: when it is full, `put` drops the oldest sample of any camera and reports it. The
    callbacks run on the scoring thread, `on_drop` also on the thread that puts.

    Args:
        engine: opened and checked; the caller closes it, after `stop`.
        manifest: of the engine's bundle.
        settings: batch size, waits, queue, coverage.
        on_score: told each score, in order of time for each camera; may wait.
        on_batch: told after each batch.
        on_drop: told of each sample that reached no window, with its camera.
        on_failure: told of the first error, the engine's or a callback's; the thread ends then, what waits is dropped.
    """

    def __init__(
        self,
        engine: Engine,
        manifest: Manifest,
        settings: ScoringConfig,
        *,
        on_score: Callable[[Score], None],
        on_batch: Callable[[BatchReport], None],
        on_drop: Callable[[str, DropReason], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._pipeline = ScoringPipeline(engine, manifest, settings)
        self._settings = settings
        self._on_score = on_score
        self._on_batch = on_batch
        self._on_drop = on_drop
        self._on_failure = on_failure
        self._queue: deque[_Waiting] = deque()
        self._forgotten: set[str] = set()
        self._changed = threading.Condition()
        self._stop_by: Deadline | None = None
        self._closed = False
        self._batch_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, sample: Sample) -> None:
        """Hand over a sample; never waits. Drops the oldest when the queue is full, this one after `stop`."""
        with self._changed:
            dropped = self._enqueue(sample)
        if dropped is not None:
            self._on_drop(dropped.camera, DropReason.SCORING_QUEUE)

    def forget(self, camera: str) -> None:
        """Drop what waits and what is kept of a camera; its later samples begin anew.

        A batch under way may still give scores of the camera after this returns.
        """
        with self._changed:
            self._queue = deque(waiting for waiting in self._queue if waiting.sample.camera != camera)
            self._forgotten.add(camera)

    def stop(self, deadline: Deadline) -> None:
        """Score what waits, as far as the deadline allows, report the rest as dropped, and end the thread.

        Raises:
            StopTimedOut: the thread did not end in time.
        """
        with self._changed:
            self._stop_by = deadline
            self._closed = True
            self._changed.notify()
        if self._thread.ident is None:
            self._drop_waiting()
            return
        self._thread.join(deadline.remaining())
        if self._thread.is_alive():
            raise StopTimedOut("scoring did not stop in time")

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _enqueue(self, sample: Sample) -> Sample | None:
        """Queue a sample and return the one dropped for it, if any."""
        if self._closed:
            return sample
        dropped = self._queue.popleft().sample if len(self._queue) >= self._settings.queue_samples else None
        self._queue.append(_Waiting(sample, time.monotonic()))
        self._changed.notify()
        return dropped

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._score(batch)
        except Exception as exc:  # the top of the thread: the service stops in order and exits with this error
            self._on_failure(exc)
        finally:
            self._drop_waiting()

    def _next_batch(self) -> list[_Waiting]:
        """Wait for a batch; an empty one means that it is time to end."""
        with self._changed:
            while not self._may_begin():
                if self._stop_by is not None:
                    return []
                self._changed.wait(self._wait_seconds())
            for camera in self._forgotten:
                self._pipeline.forget(camera)
            self._forgotten.clear()
            size = min(len(self._queue), self._settings.batch_samples)
            return [self._queue.popleft() for _ in range(size)]

    def _may_begin(self) -> bool:
        """Whether a batch is full, or has waited long enough; when stopping, whether the time suffices."""
        if not self._queue:
            return False
        if self._stop_by is not None:
            return self._stop_by.remaining() > self._batch_seconds
        return len(self._queue) >= self._settings.batch_samples or self._wait_seconds() <= 0.0

    def _wait_seconds(self) -> float:
        """Return how long the oldest sample may still wait for company."""
        if not self._queue:
            return TICK_SECONDS
        waited = time.monotonic() - self._queue[0].since_seconds
        return min(TICK_SECONDS, self._settings.batch_wait_seconds - waited)

    def _score(self, batch: list[_Waiting]) -> None:
        began = time.monotonic()
        scored = self._pipeline.score_batch([waiting.sample for waiting in batch])
        for score in scored.scores:
            self._on_score(score)
        for camera, count in scored.samples_late.items():
            for _ in range(count):
                self._on_drop(camera, DropReason.LATE)
        self._on_batch(
            BatchReport(
                samples=len(batch),
                oldest_wait_seconds=began - batch[0].since_seconds,
                embed_seconds=scored.embed_seconds,
                head_seconds=scored.head_seconds,
                windows_scored=len(scored.scores),
                windows_skipped=scored.windows_skipped,
            )
        )
        self._batch_seconds = time.monotonic() - began

    def _drop_waiting(self) -> None:
        """Take no more samples, and report those that wait as dropped."""
        with self._changed:
            self._closed = True
            dropped = [waiting.sample.camera for waiting in self._queue]
            self._queue.clear()
        for camera in dropped:
            self._on_drop(camera, DropReason.SCORING_QUEUE)
