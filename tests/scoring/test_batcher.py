from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from monitor.config import ScoringConfig
from monitor.deadline import Deadline
from monitor.errors import StopTimedOut
from monitor.records import DropReason, Score
from monitor.scoring.batcher import BatchReport, Scorer
from monitor.scoring.engine import Classified, Engine
from monitor.scoring.pipeline import ScoringPipeline
from tests.scoring.bundles import MANIFEST
from tests.scoring.conftest import make_sample


@dataclass
class Told:
    """What a scorer reported."""

    scores: list[Score] = field(default_factory=list)
    batches: list[BatchReport] = field(default_factory=list)
    drops: Counter[tuple[str, DropReason]] = field(default_factory=Counter)
    failures: list[BaseException] = field(default_factory=list)
    failed: threading.Event = field(default_factory=threading.Event)

    def drop(self, camera: str, reason: DropReason) -> None:
        self.drops[camera, reason] += 1

    def fail(self, exc: BaseException) -> None:
        self.failures.append(exc)
        self.failed.set()

    @property
    def samples(self) -> int:
        return sum(batch.samples for batch in self.batches)


class Gated:
    """A real engine whose backbone waits for leave, and can be told to fail."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.precision = engine, engine.name, engine.precision
        self.entered, self.leave = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def embed(self, pictures):
        self.entered.set()
        assert self.leave.wait(60)
        if self.error:
            raise self.error
        return self.engine.embed(pictures)

    def classify(self, embeddings, mask) -> Classified:
        return self.engine.classify(embeddings, mask)

    def close(self) -> None:
        self.engine.close()


def make_scorer(engine: Engine, told: Told, *, on_score=None, **settings) -> Scorer:
    return Scorer(
        engine,
        MANIFEST,
        ScoringConfig(**settings),
        on_score=on_score or told.scores.append,
        on_batch=told.batches.append,
        on_drop=told.drop,
        on_failure=told.fail,
    )


def wait_until(condition, seconds: float = 30.0) -> None:
    deadline = Deadline(seconds)
    while not condition():
        assert not deadline.passed, "it never came to be"
        time.sleep(0.005)


def test_live_scores_are_those_of_the_pipeline(engine: Engine) -> None:
    samples = [
        make_sample(slot, camera=camera) for slot in (*range(20), *range(40, 50)) for camera in ("yard", "gate", "dock")
    ]
    told = Told()
    scorer = make_scorer(engine, told, batch_wait_seconds=0.01)
    scorer.start()
    for sample in samples:
        scorer.put(sample)
    scorer.stop(Deadline(5))
    expected = ScoringPipeline(engine, MANIFEST, ScoringConfig()).score(samples)
    assert [(s.window.camera, s.window.first_slot) for s in told.scores] == [
        (s.window.camera, s.window.first_slot) for s in expected
    ]
    assert all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(told.scores, expected, strict=True))
    assert (told.samples, told.failures, +told.drops) == (90, [], Counter())
    assert sum(batch.windows_scored for batch in told.batches) == len(expected)
    skipped = sum((Counter(batch.windows_skipped) for batch in told.batches), Counter())
    whole = ScoringPipeline(engine, MANIFEST, ScoringConfig()).score_batch(samples)
    assert skipped == Counter(whole.windows_skipped)
    assert all(skipped[camera] > 0 for camera in ("yard", "gate", "dock"))
    assert not scorer.alive


def test_a_full_batch_waits_for_nobody(quick_engine: Engine) -> None:
    told = Told()
    scorer = make_scorer(quick_engine, told, batch_samples=4, batch_wait_seconds=100.0)
    scorer.start()
    for slot in range(4):
        scorer.put(make_sample(slot))
    wait_until(lambda: told.batches)
    assert told.batches[0].samples == 4
    scorer.stop(Deadline(30))


def test_a_lone_sample_waits_for_company_but_not_for_ever(quick_engine: Engine) -> None:
    told = Told()
    scorer = make_scorer(quick_engine, told, batch_samples=4, batch_wait_seconds=0.3)
    scorer.start()
    scorer.put(make_sample(0))
    wait_until(lambda: told.batches)
    assert told.batches[0].samples == 1
    assert told.batches[0].oldest_wait_seconds >= 0.3
    scorer.stop(Deadline(30))


def test_the_next_batch_is_in_the_backbone_while_the_last_is_told(quick_engine: Engine) -> None:
    """The two stages overlap: what takes the scores holds the first up until the second has been through."""
    told, counting = Told(), Counting(quick_engine)
    told_of, go_on = threading.Event(), threading.Event()

    def hold(score: Score) -> None:
        told.scores.append(score)
        told_of.set()
        assert go_on.wait(60)

    scorer = make_scorer(counting, told, on_score=hold, batch_samples=8)
    scorer.start()
    for slot in range(8):
        scorer.put(make_sample(slot))
    assert told_of.wait(30)
    for slot in range(8, 16):
        scorer.put(make_sample(slot))
    wait_until(lambda: counting.embedded == [8, 8])
    assert (len(told.scores), told.batches) == (1, [])
    go_on.set()
    scorer.stop(Deadline(30))
    assert (told.samples, told.failures) == (16, [])


def test_full_queue_drops_the_oldest_of_whoever_holds_most_and_counts_exactly(quick_engine: Engine) -> None:
    told, gated = Told(), Gated(quick_engine)
    scorer = make_scorer(gated, told, batch_samples=1, queue_samples=4)
    scorer.start()
    scorer.put(make_sample(0))
    assert gated.entered.wait(5)
    for slot in range(1, 11):
        scorer.put(make_sample(slot, camera="old" if slot < 5 else "new"))
    assert told.drops == {("old", DropReason.SCORING_QUEUE): 2, ("new", DropReason.SCORING_QUEUE): 4}
    gated.leave.set()
    scorer.stop(Deadline(5))
    assert told.samples == 5
    assert sum(told.drops.values()) == 6


def test_late_samples_are_reported(quick_engine: Engine) -> None:
    told = Told()
    scorer = make_scorer(quick_engine, told)
    scorer.start()
    for slot in (3, 2, 3, 4):
        scorer.put(make_sample(slot))
    scorer.stop(Deadline(5))
    assert told.drops == {("yard", DropReason.LATE): 2}


def test_forget_drops_what_waits(quick_engine: Engine) -> None:
    told, gated = Told(), Gated(quick_engine)
    scorer = make_scorer(gated, told, batch_wait_seconds=0.0)
    scorer.start()
    scorer.put(make_sample(0))
    assert gated.entered.wait(5)
    for slot in range(1, 5):
        scorer.put(make_sample(slot))
    scorer.put(make_sample(5, camera="gate"))
    scorer.forget("yard")
    gated.leave.set()
    scorer.stop(Deadline(5))
    assert told.samples == 2


@pytest.mark.parametrize("forgotten", [False, True])
def test_forget_drops_what_is_kept(quick_engine: Engine, forgotten: bool) -> None:
    told = Told()
    scorer = make_scorer(quick_engine, told, batch_wait_seconds=0.0, minimum_coverage=1.0)
    scorer.start()
    for slot in range(7):
        scorer.put(make_sample(slot))
    wait_until(lambda: told.samples == 7)
    if forgotten:
        scorer.forget("yard")
    scorer.put(make_sample(7))
    scorer.stop(Deadline(5))
    assert len(told.scores) == (0 if forgotten else 1)


def test_engines_first_error_is_handed_on_and_the_rest_is_dropped(quick_engine: Engine) -> None:
    told, gated = Told(), Gated(quick_engine)
    gated.error = ValueError("engine broke")
    scorer = make_scorer(gated, told, batch_samples=1)
    scorer.start()
    for slot in range(4):
        scorer.put(make_sample(slot))
    assert gated.entered.wait(5)
    gated.leave.set()
    assert told.failed.wait(5)
    scorer.stop(Deadline(5))
    assert [str(exc) for exc in told.failures] == ["engine broke"]
    assert told.drops["yard", DropReason.SCORING_QUEUE] == 3
    scorer.put(make_sample(9))
    assert told.drops["yard", DropReason.SCORING_QUEUE] == 4


def test_a_callback_that_raises_is_a_failure_too(quick_engine: Engine) -> None:
    def refuse(score: Score) -> None:
        raise KeyError(score.window.camera)

    told = Told()
    scorer = make_scorer(quick_engine, told, on_score=refuse)
    scorer.start()
    for slot in range(8):
        scorer.put(make_sample(slot))
    assert told.failed.wait(5)
    scorer.stop(Deadline(5))
    assert isinstance(told.failures[0], KeyError)


def test_stops_within_the_deadline_while_the_engine_fails(quick_engine: Engine) -> None:
    told, gated = Told(), Gated(quick_engine)
    gated.error = RuntimeError("gone")
    scorer = make_scorer(gated, told, batch_wait_seconds=0.0)
    scorer.start()
    scorer.put(make_sample(0))
    assert gated.entered.wait(5)
    threading.Timer(0.2, gated.leave.set).start()
    scorer.stop(Deadline(10))
    assert len(told.failures) == 1
    assert not scorer.alive


def test_stops_while_a_callback_blocks_for_a_while(quick_engine: Engine) -> None:
    told = Told()

    def slow(score: Score) -> None:
        time.sleep(0.1)
        told.scores.append(score)

    scorer = make_scorer(quick_engine, told, on_score=slow)
    scorer.start()
    for slot in range(16):
        scorer.put(make_sample(slot))
    scorer.stop(Deadline(5))
    assert len(told.scores) == 6
    assert not scorer.alive


def test_stops_in_time_with_a_full_queue_and_reports_what_is_left(quick_engine: Engine) -> None:
    told = Told()

    def slow(_: Score) -> None:  # all of them would take half a minute
        time.sleep(0.6)

    scorer = make_scorer(quick_engine, told, on_score=slow, batch_samples=4, queue_samples=100)
    scorer.start()
    for slot in range(100):
        scorer.put(make_sample(slot))
    wait_until(lambda: told.batches)  # how long one takes is known
    scorer.stop(Deadline(5))  # raises where it does not end in time
    assert not scorer.alive
    assert 0 < told.samples < 100
    assert told.samples + told.drops["yard", DropReason.SCORING_QUEUE] == 100


def test_engine_that_hangs_is_told_of_at_the_deadline(quick_engine: Engine) -> None:
    told, gated = Told(), Gated(quick_engine)
    scorer = make_scorer(gated, told, batch_wait_seconds=0.0)
    scorer.start()
    scorer.put(make_sample(0))
    assert gated.entered.wait(5)
    began = time.monotonic()
    with pytest.raises(StopTimedOut):
        scorer.stop(Deadline(0.3))
    assert 0.3 <= time.monotonic() - began < 30  # not until it is let go
    gated.leave.set()
    scorer.stop(Deadline(5))


def test_stop_without_start_drops_what_waits(quick_engine: Engine) -> None:
    told = Told()
    scorer = make_scorer(quick_engine, told)
    scorer.put(make_sample(0))
    scorer.stop(Deadline(1))
    assert told.drops == {("yard", DropReason.SCORING_QUEUE): 1}


def test_puts_from_many_threads_lose_nothing(quick_engine: Engine) -> None:
    told = Told()
    scorer = make_scorer(quick_engine, told, queue_samples=50)
    scorer.start()

    def feed(camera: str) -> None:
        for slot in range(100):
            scorer.put(make_sample(slot, camera=camera))

    feeders = [threading.Thread(target=feed, args=(f"camera-{index}",)) for index in range(4)]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    scorer.stop(Deadline(10))
    assert told.samples + sum(told.drops.values()) == 400
    for camera in {score.window.camera for score in told.scores}:
        firsts = [score.window.first_slot for score in told.scores if score.window.camera == camera]
        assert firsts == sorted(firsts)


class Counting:
    """A real engine that notes what it is asked."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.precision = engine, engine.name, engine.precision
        self.embedded: list[int] = []
        self.classified: list[int] = []
        self.pictures: list[np.ndarray] = []

    def embed(self, pictures):
        self.embedded.append(len(pictures))
        self.pictures += pictures
        return self.engine.embed(pictures)

    def classify(self, embeddings, mask) -> Classified:
        self.classified.append(len(embeddings))
        return self.engine.classify(embeddings, mask)

    def close(self) -> None:
        self.engine.close()


class Slow:
    """A real engine that takes its time over each sample, as a larger model would."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        self.engine, self.name, self.precision, self.seconds = engine, engine.name, engine.precision, seconds

    def embed(self, pictures):
        time.sleep(self.seconds * len(pictures))
        return self.engine.embed(pictures)

    def classify(self, embeddings, mask) -> Classified:
        return self.engine.classify(embeddings, mask)

    def close(self) -> None:
        self.engine.close()


def test_cameras_are_thinned_before_a_sample_is_dropped(quick_engine: Engine) -> None:
    """Twice what the engine bears for three seconds, then little: thinned, least important first, and back."""
    told, plans = Told(), []
    engine = Slow(quick_engine, 0.010)
    scorer = Scorer(
        engine,
        MANIFEST,
        ScoringConfig(queue_samples=120, batch_wait_seconds=0.01, shed_wait_seconds=0.2, shed_recover_seconds=0.8),
        on_score=told.scores.append,
        on_batch=told.batches.append,
        on_drop=told.drop,
        on_failure=told.fail,
        on_shedding=plans.append,
    )
    priorities = {"dock": 9, "gate": 5, "yard": 5, "shed": 0}
    for camera, priority in priorities.items():
        scorer.watch(camera, priority)
    scorer.start()
    plans.clear()

    def send(slots, pause: float) -> None:
        for slot in slots:
            for camera in priorities:
                scorer.put(make_sample(slot, camera=camera))
            time.sleep(pause)

    send(range(150), 0.02)  # 200 samples a second where 100 can be scored
    most = max(plans, key=lambda plan: sum(plan.factors.values()))
    assert +told.drops == {}
    assert most.factors["shed"] == 4
    assert most.factors["dock"] == min(most.factors.values()) < 4
    for before, after in zip([{}, *(plan.factors for plan in plans)], plans, strict=False):
        for camera, priority in priorities.items():  # nobody is thinned while one less important could be more
            if after.factors[camera] > before.get(camera, 1):
                assert all(after.factors[other] == 4 for other in priorities if priorities[other] < priority)
    send(range(150, 195), 0.12)  # 33 a second
    scorer.stop(Deadline(5))
    assert plans[-1].degraded == 0
    assert +told.drops == {}
    marked = {(s.window.camera, s.window.degraded) for s in told.scores}
    assert {("shed", True), ("shed", False)} <= marked
    late = [score.window for score in told.scores if score.window.first_slot > 184]
    assert late
    assert not any(window.degraded for window in late)
    waits = [batch.oldest_wait_seconds for batch in told.batches]
    assert max(waits) < 2.0
