"""A model takes over from another: no window missed, none twice, none by a mixture, whatever the cameras do."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.bundle import Bundle
from monitor.config import ScoringConfig
from monitor.deadline import Deadline
from monitor.errors import EngineUnavailable
from monitor.records import Score
from monitor.scoring.batcher import ModelStage, Scorer
from monitor.scoring.crossing import Crossing
from monitor.scoring.engine import Engine, open_engine
from monitor.scoring.pipeline import ScoringPipeline
from monitor.scoring.waiting import Waiting
from tests.scoring.bundles import MANIFEST, SLOTS, TinyBundle, perturbed
from tests.scoring.conftest import make_sample
from tests.scoring.test_batcher import Told, wait_until

STRIDE = MANIFEST.stride_slots
NEW = MANIFEST.model_copy(update={"version": "2"})


@pytest.fixture(scope="module")
def new_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Another model: other weights, other golden outputs."""
    tiny = TinyBundle()
    tiny.backbone = perturbed(tiny.backbone, lambda array: array * np.float32(1.5))
    bundle: Bundle = tiny.write(tmp_path_factory.mktemp("bundles") / "new", golden=True)
    return open_engine(bundle, preference="onnxruntime", threads=1).engine


class BrokenHead:
    """A real engine whose head fails after some windows."""

    def __init__(self, engine: Engine, after: int) -> None:
        self.engine, self.name, self.precision, self.left = engine, engine.name, engine.precision, after
        self.embed = engine.embed

    def classify(self, embeddings, mask):
        self.left -= len(mask)
        if self.left < 0:
            raise EngineUnavailable(self.name, "the head failed")
        return self.engine.classify(embeddings, mask)


class Broken:
    """A real engine whose backbone fails after some samples."""

    def __init__(self, engine: Engine, after: int) -> None:
        self.engine, self.name, self.precision, self.left = engine, engine.name, engine.precision, after

    def embed(self, pictures):
        self.left -= len(pictures)
        if self.left < 0:
            raise EngineUnavailable(self.name, "out of memory")
        return self.engine.embed(pictures)

    def classify(self, embeddings, mask):
        return self.engine.classify(embeddings, mask)

    def close(self) -> None:
        self.engine.close()


class Taker:
    """Keeps what a scorer tells of scores and of the change, in order."""

    def __init__(self, engine: Engine, **changes) -> None:
        self.told = Told()
        self.told_in_order: list[object] = []
        self.scorer = Scorer(
            engine,
            MANIFEST,
            ScoringConfig(**{"batch_wait_seconds": 0.0, "minimum_coverage": 0.0, "queue_samples": 100_000} | changes),
            on_score=self.told_in_order.append,
            on_batch=self.told.batches.append,
            on_drop=self.told.drop,
            on_failure=self.told.fail,
            on_model=self.told_in_order.append,
        )

    def stages(self) -> list[ModelStage]:
        return [step.stage for step in self.told_in_order if not isinstance(step, Score)]

    def feed(self, cameras, slots, *, lost=frozenset()) -> None:
        for slot in slots:
            for camera in cameras:
                if (camera, slot) not in lost:
                    self.scorer.put(make_sample(slot, camera=camera))
        wait_until(lambda: not len(self.scorer._room), 20)


def by_camera(taker: Taker) -> dict[str, list[tuple[Score, bool]]]:
    """Each camera's scores, and whether they were told after it had crossed."""
    crossed: set[str] = set()
    scores = defaultdict(list)
    for told in taker.told_in_order:
        if isinstance(told, Score):
            scores[told.window.camera].append((told, told.window.camera in crossed))
        else:
            crossed |= set(told.cameras)
    return scores


@settings(max_examples=12, deadline=None)
@given(
    begin=st.integers(1, 20),
    lost=st.sets(st.tuples(st.sampled_from(["yard", "gate"]), st.integers(0, 59)), max_size=30),
)
def test_every_window_is_scored_once_and_by_one_model(quick_engine: Engine, new_engine: Engine, begin, lost) -> None:
    cameras = ("yard", "gate", "dock")
    lost = {(camera, slot) for camera, slot in lost if slot < 50}
    taker = Taker(quick_engine)
    taker.scorer.start()
    taker.feed(cameras, range(begin), lost=lost)
    wait_until(lambda: taker.told.samples == sum((c, s) not in lost for c in cameras for s in range(begin)))
    assert taker.scorer.change_model(new_engine, NEW)
    wait_until(lambda: taker.scorer._change is not None)
    taker.feed(cameras, range(begin, 60), lost=lost)
    taker.scorer.stop(Deadline(10))
    assert taker.told.failures == []
    samples = [make_sample(slot, camera=c) for slot in range(60) for c in cameras if (c, slot) not in lost]
    whole_old, whole_new = (
        {
            (score.window.camera, score.window.first_slot): score
            for score in ScoringPipeline(engine, MANIFEST, ScoringConfig(minimum_coverage=0.0)).score(samples)
        }
        for engine in (quick_engine, new_engine)
    )
    for camera, scores in by_camera(taker).items():
        windows = [score.window.first_slot for score, _ in scores]
        assert windows == sorted(first for name, first in whole_old if name == camera)
        assert [is_new for _, is_new in scores] == sorted(is_new for _, is_new in scores)
        assert any(is_new for _, is_new in scores)
        for score, is_new in scores:
            expected = (whole_new if is_new else whole_old)[camera, score.window.first_slot]
            assert np.array_equal(score.window.mask, expected.window.mask)
            assert np.array_equal(score.probabilities, expected.probabilities)


def test_the_old_model_goes_when_every_camera_has_crossed(quick_engine: Engine, new_engine: Engine) -> None:
    taker = Taker(quick_engine)
    taker.scorer.start()
    taker.feed(["yard", "gone"], range(10))
    assert taker.scorer.change_model(new_engine, NEW)
    assert not taker.scorer.change_model(new_engine, NEW)  # one change at a time
    began, slot = time.monotonic(), 10
    while ModelStage.SWAPPED not in taker.stages():
        assert time.monotonic() - began < 10
        taker.feed(["yard"], [slot])
        slot += 1
        time.sleep(0.05)
    assert time.monotonic() - began >= MANIFEST.window_seconds
    assert taker.stages() == [ModelStage.CROSSING, ModelStage.SWAPPED]
    taker.told_in_order.clear()
    taker.feed(["yard", "gone"], range(slot, slot + 20))
    taker.scorer.stop(Deadline(5))
    assert {told.window.camera for told in taker.told_in_order} == {"yard", "gone"}
    assert taker.scorer._pipeline.engine is new_engine


def test_a_model_that_fails_on_its_way_is_rolled_back(quick_engine: Engine, new_engine: Engine) -> None:
    taker = Taker(quick_engine)
    taker.scorer.start()
    taker.feed(["yard"], range(10))
    assert taker.scorer.change_model(Broken(new_engine, after=5), NEW)
    wait_until(lambda: taker.scorer._change is not None)
    taker.feed(["yard"], range(10, 30))
    taker.scorer.stop(Deadline(5))
    assert taker.told.failures == []
    assert taker.stages() == [ModelStage.ROLLED_BACK]
    ends = [score.window.first_slot + SLOTS for score in taker.told_in_order if isinstance(score, Score)]
    assert ends == list(range(2, 31, STRIDE))


@pytest.mark.parametrize(("after", "lost", "waits"), [(0, 18, False), (2, 22, False), (2, 22, True)])
def test_a_model_whose_head_fails_on_its_way_is_rolled_back(quick_engine, new_engine, after, lost, waits) -> None:
    """With the next batch, or without one; the old model's scores of that batch are told, one window is lost."""
    taker = Taker(quick_engine)
    taker.scorer.start()
    taker.feed(["yard"], range(10))
    wait_until(lambda: taker.told.samples == 10)
    assert taker.scorer.change_model(BrokenHead(new_engine, after), NEW)
    wait_until(lambda: taker.scorer._change is not None)
    for slot in range(10, 30):
        cameras = ["yard", "late"] if slot >= lost - 2 else ["yard"]
        taker.feed(cameras, [slot])
        fed = slot + 1 + max(0, slot - lost + 3)
        wait_until(lambda fed=fed: taker.told.samples == fed)
        if waits and slot == lost - 1:
            wait_until(lambda: ModelStage.ROLLED_BACK in taker.stages(), 5)
    taker.scorer.stop(Deadline(5))
    assert taker.told.failures == []
    assert taker.stages() == [ModelStage.CROSSING, ModelStage.ROLLED_BACK]
    [rolled_back] = [step for step in taker.told_in_order if getattr(step, "stage", None) is ModelStage.ROLLED_BACK]
    assert (rolled_back.cameras, rolled_back.reason) == (("yard",), "engine onnxruntime: the head failed")
    scores = {camera: [score for score, _ in found] for camera, found in by_camera(taker).items()}
    ends = [score.window.first_slot + SLOTS for score in scores["yard"]]
    assert ends == [end for end in range(2, 31, STRIDE) if end != lost]
    assert [score.window.first_slot + SLOTS for score in scores["late"]] == list(range(lost, 31, STRIDE))
    last = ScoringPipeline(quick_engine, MANIFEST, ScoringConfig()).score([make_sample(slot) for slot in range(22, 30)])
    assert np.array_equal(scores["yard"][-1].probabilities, last[-1].probabilities)


def test_clock_set_back_on_the_way_begins_anew() -> None:
    crossing = Crossing(MANIFEST, began_seconds=0.0)
    entries = [Waiting(make_sample(slot), 0.0) for slot in (1000, 1001, 3, 4)]
    route = crossing.route(entries, 1.0)
    assert route.restarted == ("yard",)
    assert route.from_slots == {"yard": 3}
    assert crossing.crossed == frozenset()
    later = crossing.route([Waiting(make_sample(3 + SLOTS - 1), 0.0)], 2.0)
    assert (later.old, later.closed) == ((), {"yard": 3 + SLOTS - 1})


def test_scoring_goes_on_while_a_model_is_swapped_under_load(quick_engine: Engine, new_engine: Engine) -> None:
    """Samples come from several threads all the while; the windows of every camera stay without a hole."""
    taker = Taker(quick_engine, shed_wait_seconds=0.0)
    taker.scorer.start()
    stop = threading.Event()

    def send(camera: str) -> None:
        slot = 0
        while not stop.is_set():
            taker.scorer.put(make_sample(slot, camera=camera))
            slot += 1
            time.sleep(0.01)

    senders = [threading.Thread(target=send, args=(f"camera-{number}",)) for number in range(4)]
    for sender in senders:
        sender.start()
    time.sleep(0.3)
    assert taker.scorer.change_model(new_engine, NEW)
    wait_until(lambda: ModelStage.SWAPPED in taker.stages(), 10)
    stop.set()
    for sender in senders:
        sender.join()
    taker.scorer.stop(Deadline(5))
    assert +taker.told.drops == {}
    for scores in by_camera(taker).values():
        firsts = [score.window.first_slot for score, _ in scores]
        assert firsts == list(range(firsts[0], firsts[-1] + 1, STRIDE))
