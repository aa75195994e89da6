"""Samples of all cameras in, one at a time and without waiting; scores and batch reports out, from two threads.

One thread puts batches together and runs the backbone; the other keeps the rings, runs the head and tells the
scores. They work at once: while a batch is in the backbone, the one before it is being finished. Between them lies
one batch at most. Where a device runs the backbone, the next batch is copied to it while it computes.

    put ──▶ waiting ──▶ backbone ──▶ one batch ──▶ rings, head, callbacks
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import Manifest
from monitor.config import ScoringConfig
from monitor.deadline import Deadline
from monitor.errors import EngineUnavailable, StopTimedOut
from monitor.records import DropReason, Sample, Score
from monitor.scoring.batch import BatchReport, Embedded, ModelStage, ModelStep, Part
from monitor.scoring.crossing import Crossing, Route
from monitor.scoring.door import Engine
from monitor.scoring.finisher import Finisher
from monitor.scoring.handover import HandOver
from monitor.scoring.pipeline import ScoringPipeline
from monitor.scoring.shadow import Shadow
from monitor.scoring.shedding import Shedding, SheddingPlan, factors_of
from monitor.scoring.waiting import Waiting, WaitingSamples

__all__ = ["BatchReport", "ModelStage", "ModelStep", "Scorer"]

TICK_SECONDS = 0.5
"""Longest wait for a sample before the thread looks around."""


@dataclass(slots=True)
class _Change:
    """A model that is to take over."""

    pipeline: ScoringPipeline
    crossing: Crossing
    failure: str = ""
    """Why it has failed; it is rolled back then."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A batch in the backbone."""

    batch: list[Waiting]
    began_seconds: float
    forgotten: tuple[str, ...]
    """Cameras that were forgotten before it."""


class Scorer:
    """Owns the two scoring threads.

    The room for waiting samples is bounded (see `waiting`). Cameras that are watched are thinned before a sample is
    dropped (see `shedding`). The callbacks run on the scoring threads; `on_drop` and `on_shedding` also on the thread
    that puts.

    Args:
        engine: opened and checked; the caller closes it, after `stop`.
        manifest: of the engine's bundle.
        settings: batch size, waits, queue, coverage, shedding.
        on_score: told each score, in order of time for each camera; may wait.
        on_batch: told after each batch.
        on_drop: told of each sample that reached no window, with its camera.
        on_failure: told of the first error, the engine's or a callback's; the threads end then, what waits is dropped.
        on_shedding: told of each change of the cameras' strides.
        on_model: told of each step of a change of the model, in order with the scores.
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
        on_shedding: Callable[[Shedding], None] = lambda _shedding: None,
        on_model: Callable[[ModelStep], None] = lambda _step: None,
    ) -> None:
        self._settings = settings
        self._pipeline = ScoringPipeline(engine, manifest, settings)
        self._finisher = Finisher(
            on_score=on_score,
            on_batch=on_batch,
            on_drop=on_drop,
            on_model=on_model,
            on_new_failed=self._note_new_failed,
        )
        self._on_drop = on_drop
        self._on_failure = on_failure
        self._on_shedding = on_shedding
        self._plan = SheddingPlan(
            factors_of(manifest),
            wait_seconds=settings.shed_wait_seconds,
            recover_seconds=settings.shed_recover_seconds,
        )
        self._room = WaitingSamples(
            settings.queue_samples, priority_of=self._plan.priority_of, factor_of=self._plan.factor_of
        )
        self._forgotten: set[str] = set()
        self._changed = threading.Condition()
        self._stop_by: Deadline | None = None
        self._closed = False
        self._failed = False
        self._under_way: tuple[_Begun, Callable[[], NDArray[np.float32]]] | None = None
        """What a device computes, and what waits for its embeddings."""
        self._backbone_free_since = 0.0
        self._embed_seconds = 0.0
        self._finish_seconds = 0.0
        self._asked: ScoringPipeline | None = None
        """A model that is to take over, not begun."""
        self._change: _Change | None = None
        self._steps: list[ModelStep] = []
        self._shadow: Shadow | None = None
        self._next_shadow: Shadow | None = None
        self._shadow_asked = False
        self._between: HandOver[Embedded] = HandOver()
        self._threads = [
            threading.Thread(target=self._run_backbone, name="scoring-backbone", daemon=True),
            threading.Thread(target=self._run_head, name="scoring-head", daemon=True),
        ]

    # --- from any thread -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def watch(self, camera: str, priority: int) -> None:
        """Say how important a camera is; from here on it is thinned when scoring cannot keep up."""
        with self._changed:
            self._plan.watch(camera, priority)
            plan = self._plan.now()
        self._on_shedding(plan)

    def put(self, sample: Sample) -> None:
        """Hand over a sample; never waits. Drops one when there is no room, this one after `stop`."""
        with self._changed:
            dropped, plan = self._enqueue(sample)
        if plan is not None:
            self._on_shedding(plan)
        if dropped is not None:
            self._on_drop(dropped.camera, DropReason.SCORING_QUEUE)

    def forget(self, camera: str) -> None:
        """Drop what waits and what is kept of a camera; its later samples begin anew.

        Batches under way may still give scores of the camera after this returns.
        """
        with self._changed:
            self._room.forget(camera)
            self._plan.forget(camera)
            self._forgotten.add(camera)

    def change_model(self, engine: Engine, manifest: Manifest) -> bool:
        """Let another model take over between batches, camera by camera; false while another change is under way.

        Its sampling grid and its pictures must be those of the model before. The caller closes both engines: the
        old one once `on_model` tells `SWAPPED`, the new one when it tells `ROLLED_BACK`.
        """
        with self._changed:
            if self._asked is not None or self._change is not None or self._closed:
                return False
            self._asked = ScoringPipeline(engine, manifest, self._settings)
            self._changed.notify_all()
        return True

    def set_shadow(self, shadow: Shadow | None) -> None:
        """Let a second model look on, in place of the one before, which is closed."""
        with self._changed:
            replaced = self._next_shadow if self._shadow_asked else None
            self._next_shadow, self._shadow_asked = shadow, True
            self._changed.notify_all()
        if replaced is not None:
            replaced.close()

    def stop(self, deadline: Deadline) -> None:
        """Score what waits, as far as the deadline allows, report the rest as dropped, and end the threads.

        Raises:
            StopTimedOut: they did not end in time.
        """
        with self._changed:
            self._stop_by = deadline
            self._closed = True
            self._changed.notify_all()
        if self._threads[0].ident is None:
            self._drop_waiting()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(deadline.remaining())
        if any(thread.is_alive() for thread in self._threads):
            raise StopTimedOut("scoring did not stop in time")
        for shadow in (self._shadow, self._next_shadow if self._shadow_asked else None):
            if shadow is not None:
                shadow.close()
        self._shadow, self._next_shadow, self._shadow_asked = None, None, False

    @property
    def alive(self) -> bool:
        """Whether the threads run."""
        return all(thread.is_alive() for thread in self._threads)

    # --- what waits ----------------------------------------------------------------------------------------------

    def _enqueue(self, sample: Sample) -> tuple[Sample | None, Shedding | None]:
        """Take a sample in; return the one dropped for it, and the plan where it has changed."""
        if self._closed:
            return sample, None
        self._plan.arrived(sample.camera)
        now = time.monotonic()
        plan = self._look_at_load(now)
        while self._room.full and (step := self._plan.step_up(self._waited(now))) is not None:
            plan = step
            self._room.thin()
        dropped = self._room.put(sample, now)
        self._changed.notify_all()
        return dropped, plan

    def _look_at_load(self, now: float) -> Shedding | None:
        plan = self._plan.look(now, self._waited(now))
        if plan is not None and plan.degraded:
            self._room.thin()
        return plan

    def _waited(self, now: float) -> float:
        """Return how long the oldest sample has waited."""
        since = self._room.oldest_since
        return 0.0 if since is None else now - since

    # --- the backbone's thread -----------------------------------------------------------------------------------

    def _run_backbone(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                if batch:
                    self._embed(batch)
                elif self._under_way is not None:
                    self._end_under_way()
                else:
                    self._use_idle_time()
            if not self._failed:
                self._end_under_way()
        except Exception as exc:  # the top of the thread: the service stops in order and exits with this error
            self._fail(exc)
        finally:
            self._drop_waiting()
            self._between.end()

    def _next_batch(self) -> list[Waiting] | None:
        """Wait for a batch; an empty one means that there is time for other things, None that it is time to end."""
        with self._changed:
            while not self._may_begin():
                if self._failed or self._stop_by is not None:
                    return None
                if self._under_way is not None or self._shadow_may_step():
                    return []
                self._take_what_was_asked()
                if not self._changed.wait(self._wait_seconds()):
                    break
            self._take_what_was_asked()
            if not self._may_begin():
                return None if self._failed or self._stop_by is not None else []
            return self._room.take(self._settings.batch_samples)

    def _may_begin(self) -> bool:
        """Whether a batch is full, or has waited long enough; when stopping, whether the time suffices."""
        if not len(self._room) or self._failed:
            return False
        if self._stop_by is not None:
            ahead = (self._between.count + 1) * self._finish_seconds
            return self._stop_by.remaining() > self._embed_seconds + ahead
        return len(self._room) >= self._settings.batch_samples or self._wait_seconds() <= 0.0

    def _shadow_may_step(self) -> bool:
        """Whether the shadow has something to do, and the main model's scores have been told."""
        return self._shadow is not None and self._shadow.waits and self._between.count == 0

    def _wait_seconds(self) -> float:
        """Return how long the oldest sample may still wait for company."""
        since = self._room.oldest_since
        if since is None:
            return TICK_SECONDS
        return min(TICK_SECONDS, max(0.0, self._settings.batch_wait_seconds - (time.monotonic() - since)))

    def _take_what_was_asked(self) -> None:
        """Begin a change of the model; take over another shadow."""
        if self._asked is not None and self._change is None:
            pipeline, self._asked = self._asked, None
            self._change = _Change(pipeline, Crossing(pipeline.manifest, began_seconds=time.monotonic()))
            both = set(factors_of(pipeline.manifest)) & set(factors_of(self._pipeline.manifest))
            self._plan.use(tuple(sorted(both)))
        if self._shadow_asked:
            before, self._shadow = self._shadow, self._next_shadow
            self._next_shadow, self._shadow_asked = None, False
            if before is not None:
                before.close()

    def _use_idle_time(self) -> None:
        """Let the shadow have a sample, see a change of the model through, look at the load."""
        if self._shadow is not None and self._shadow_may_step():
            self._shadow.step()
        now = time.monotonic()
        with self._changed:
            plan = self._look_at_load(now)
        if plan is not None:
            self._on_shedding(plan)
        steps = self._after_change(now)
        if steps:
            self._hand_over(Embedded("", (), 0.0, 0.0, (), steps, (), (), None))

    def _embed(self, batch: list[Waiting]) -> None:
        """Run the backbone on a batch; or have the device begin on it, and end the batch before."""
        begun = _Begun(batch, time.monotonic(), self._take_forgotten())
        answer = self._pipeline.begin([waiting.sample for waiting in batch]) if self._change is None else None
        self._end_under_way()
        if answer is not None:
            self._under_way = begun, answer
            return
        parts, steps = self._parts(batch, begun.began_seconds)
        self._embedded(begun, parts, steps + self._after_change(time.monotonic()))

    def _end_under_way(self) -> None:
        """Wait for the batch that the device computes, if there is one."""
        if self._under_way is None:
            return
        begun, answer = self._under_way
        part = Part(self._pipeline, begun.batch, answer())
        self._under_way = None
        self._embedded(begun, (part,), ())

    def _embedded(self, begun: _Begun, parts: tuple[Part, ...], steps: tuple[ModelStep, ...]) -> None:
        """Hand over what the backbone made of a batch."""
        batch, ended = begun.batch, time.monotonic()
        taken = ended - max(begun.began_seconds, self._backbone_free_since)
        self._backbone_free_since = ended
        with self._changed:
            self._plan.served(len(batch), taken)
            self._embed_seconds = taken
            thinned = self._plan.level > 0
        if self._shadow is not None:
            self._shadow.offer(batch, thinned=thinned)
        self._hand_over(
            Embedded(
                engine=parts[-1].pipeline.engine.name,
                samples=tuple(waiting.sample.camera for waiting in batch),
                oldest_wait_seconds=begun.began_seconds - min(waiting.since_seconds for waiting in batch),
                embed_seconds=taken,
                parts=parts,
                steps=steps,
                forgotten=begun.forgotten,
                pipelines=tuple({id(part.pipeline): part.pipeline for part in parts}.values()),
                shadow=self._shadow,
            )
        )

    def _take_forgotten(self) -> tuple[str, ...]:
        with self._changed:
            cameras = tuple(self._forgotten)
            self._forgotten.clear()
        for camera in cameras:
            if self._change is not None:
                self._change.crossing.forget(camera)
            if self._shadow is not None:
                self._shadow.forget(camera)
        return cameras

    def _parts(self, batch: list[Waiting], now: float) -> tuple[tuple[Part, ...], tuple[ModelStep, ...]]:
        """Run the backbone; of both models while one takes over from the other."""
        change = self._change
        if change is None:
            return (self._part(self._pipeline, batch),), ()
        crossed = change.crossing.crossed
        if not change.failure:
            route = change.crossing.route(batch, now)
            try:
                new = self._part(change.pipeline, route.new, route=route, is_new=True)
            except EngineUnavailable as exc:
                change.failure = str(exc)
            else:
                old = self._part(self._pipeline, route.old, route=route)
                steps = (ModelStep(ModelStage.CROSSING, tuple(route.closed)),) if route.closed else ()
                return (old, new), steps
        return (self._part(self._pipeline, batch),), self._rolled_back(change, crossed)

    def _rolled_back(self, change: _Change, crossed: Iterable[str]) -> tuple[ModelStep, ...]:
        """Let the old model go on alone."""
        self._end_change(self._pipeline)
        return (ModelStep(ModelStage.ROLLED_BACK, tuple(sorted(crossed)), change.failure),)

    @staticmethod
    def _part(
        pipeline: ScoringPipeline, batch: Sequence[Waiting], *, route: Route | None = None, is_new: bool = False
    ) -> Part:
        if batch:
            embeddings = pipeline.embed([waiting.sample for waiting in batch])
        else:
            embeddings = np.empty((0, pipeline.manifest.embedding_size), dtype=np.float32)
        return Part(pipeline, batch, embeddings, route=route, is_new=is_new)

    def _after_change(self, now: float) -> tuple[ModelStep, ...]:
        """Let the new model serve alone once every camera has crossed, or the old one where the new one has failed."""
        with self._changed:
            change = self._change
            if change is None:
                return ()
            if change.failure:
                return self._rolled_back(change, change.crossing.crossed)
            if not change.crossing.done(now):
                return ()
            self._pipeline = change.pipeline
            self._end_change(change.pipeline)
        return (ModelStep(ModelStage.SWAPPED),)

    def _end_change(self, serving: ScoringPipeline) -> None:
        with self._changed:
            self._change = None
            self._plan.use(factors_of(serving.manifest))

    def _hand_over(self, embedded: Embedded) -> None:
        """Wait until the other thread has room; what it will not take any more is dropped."""
        if not self._between.put(embedded):
            for camera in embedded.samples:
                self._on_drop(camera, DropReason.SCORING_QUEUE)

    # --- the head's thread ---------------------------------------------------------------------------------------

    def _run_head(self) -> None:
        try:
            while (embedded := self._between.take()) is not None:
                began = time.monotonic()
                self._finisher.finish(embedded)
                if embedded.samples:
                    self._finish_seconds = time.monotonic() - began
                self._between.done()
                if embedded.shadow is not None:
                    with self._changed:
                        self._changed.notify_all()  # it is the shadow's turn
        except Exception as exc:  # the top of the thread: as above
            self._fail(exc)
        finally:
            for left in self._between.close():
                for camera in left.samples:
                    self._on_drop(camera, DropReason.SCORING_QUEUE)

    def _note_new_failed(self, pipeline: ScoringPipeline, error: EngineUnavailable) -> bool:
        """Have a new model whose head has failed rolled back by the other thread; false where it serves alone."""
        with self._changed:
            if self._pipeline is pipeline:
                return False
            if self._change is not None and self._change.pipeline is pipeline:
                self._change.failure = str(error)
            self._changed.notify_all()
        return True

    # --- the end -------------------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        """Tell the first error, and have both threads end."""
        with self._changed:
            first, self._failed = not self._failed, True
            self._closed = True
            self._changed.notify_all()
        if first:
            self._on_failure(error)

    def _drop_waiting(self) -> None:
        """Take no more samples, and report those that wait as dropped."""
        with self._changed:
            self._closed = True
            dropped = self._room.clear()
        if self._under_way is not None:
            dropped += [waiting.sample for waiting in self._under_way[0].batch]
        for sample in dropped:
            self._on_drop(sample.camera, DropReason.SCORING_QUEUE)
