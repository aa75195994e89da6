"""What the TensorRT engine asks of the device, and in which order, on a stand-in that is as late as it may be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from monitor.bundle import Bundle
from monitor.config import ScoringConfig
from monitor.deadline import Deadline
from monitor.errors import EngineUnavailable
from monitor.scoring import batcher, cuda
from monitor.scoring.door import DeviceEngine, Precision
from monitor.scoring.engine import Engine, check_golden, open_engine
from monitor.scoring.pipeline import ScoringPipeline
from monitor.scoring.tensorrt import TensorRtDoor
from tests.scoring.bundles import MANIFEST
from tests.scoring.conftest import make_sample
from tests.scoring.cuda_stand_in import CudaStandIn, tensorrt_on
from tests.scoring.test_batcher import Told, make_scorer, wait_until

BATCH = 4


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> CudaStandIn:
    device = CudaStandIn()
    monkeypatch.setattr(cuda, "load_runtime", lambda: device)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_on(device))
    for name in ("tensorrt_build", "tensorrt_part"):
        monkeypatch.delitem(sys.modules, f"monitor.scoring.{name}", raising=False)
    return device


@pytest.fixture
def on_device(device: CudaStandIn, tiny_bundle: Bundle) -> Iterator[DeviceEngine]:
    with closing(TensorRtDoor(max_batch=BATCH).open(tiny_bundle, precision=Precision.FP32, threads=1)) as engine:
        yield engine
    assert device.left == 0


@pytest.fixture
def reference(tiny_bundle: Bundle) -> Iterator[Engine]:
    with closing(open_engine(tiny_bundle, preference="onnxruntime", threads=1, precision="fp32").engine) as engine:
        yield engine


def pictures(bundle: Bundle, count: int, seed: int = 1) -> np.ndarray:
    shape = bundle.golden().pictures.shape[1:]
    return np.random.default_rng((seed, count)).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_the_golden_outputs_come_back(on_device, tiny_bundle: Bundle, device: CudaStandIn) -> None:
    for _ in range(3):
        assert check_golden(on_device, tiny_bundle).complaints == ()
    assert device.launches > 0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9, 13])
def test_every_batch_size_gives_what_onnx_runtime_gives(on_device, reference, tiny_bundle, count: int) -> None:
    for seed in range(4):  # the third run of a steady size is recorded
        given = pictures(tiny_bundle, count, seed)
        np.testing.assert_array_equal(on_device.embed(given), reference.embed(given))


def test_batches_under_way_do_not_disturb_each_other(on_device, reference, tiny_bundle) -> None:
    """Each is collected after up to three others have begun, in lanes that it may have had before."""
    rng = np.random.default_rng(7)
    waiting = []
    for number in range(60):
        given = pictures(tiny_bundle, int(rng.integers(1, 2 * BATCH + 2)), number)
        waiting.append((given, on_device.begin(given)))
        given[:] = 0 if number % 2 else given  # what was handed over may change at once
        if len(waiting) > int(rng.integers(0, 4)):
            took, answer = waiting.pop(0)
            expected = pictures(tiny_bundle, len(took), number - len(waiting))
            np.testing.assert_array_equal(answer(), reference.embed(expected))


def test_nothing_is_computed_before_the_answer_is_asked_for(on_device, device, tiny_bundle) -> None:
    """Hence the processor is free for the next batch: two are queued, in a stream each."""
    first, second = (on_device.begin(pictures(tiny_bundle, BATCH, seed)) for seed in (1, 2))
    assert sum(bool(queued) for queued in device.streams.values()) == 2
    first()
    assert sum(bool(queued) for queued in device.streams.values()) == 1
    second()


def test_a_device_that_is_too_small_leaves_nothing_behind(device: CudaStandIn, tiny_bundle: Bundle) -> None:
    device.room_bytes = 3 * BATCH * tiny_bundle.golden().pictures[0].nbytes
    with pytest.raises(EngineUnavailable, match=r"the GPU is out of memory: .*, while opening"):
        TensorRtDoor(max_batch=BATCH).open(tiny_bundle, precision=Precision.FP32, threads=1)
    assert device.left == 0


def test_closing_waits_for_what_is_under_way(device: CudaStandIn, tiny_bundle: Bundle) -> None:
    engine = TensorRtDoor(max_batch=BATCH).open(tiny_bundle, precision=Precision.FP32, threads=1)
    engine.begin(pictures(tiny_bundle, BATCH))
    engine.close()
    assert device.left == 0


def test_a_wrong_input_is_one_line(on_device) -> None:
    with pytest.raises(EngineUnavailable, match="pictures is uint8"):
        on_device.embed(np.zeros((1, 1, 8, 8, 3), np.uint8))


def test_live_scores_are_those_of_the_processor(on_device, reference) -> None:
    samples = [make_sample(slot, camera=camera) for slot in range(30) for camera in ("yard", "gate", "dock")]
    told = Told()
    scorer = make_scorer(on_device, told, batch_samples=BATCH, batch_wait_seconds=0.01)
    scorer.start()
    for sample in samples:
        scorer.put(sample)
    scorer.stop(Deadline(30))
    expected = ScoringPipeline(reference, MANIFEST, ScoringConfig()).score(samples)
    found = {(s.window.camera, s.window.first_slot): s.probabilities for s in told.scores}
    assert (told.samples, told.failures, +told.drops) == (90, [], {})
    assert len(told.scores) == len(found) == len(expected) > 0
    for score in expected:
        np.testing.assert_array_equal(found[score.window.camera, score.window.first_slot], score.probabilities)


class Watched:
    """Notes what is asked of a device's engine, and of which batch."""

    def __init__(self, engine: DeviceEngine) -> None:
        self._engine, self.name, self.precision = engine, engine.name, engine.precision
        self.classify, self.embed, self.close = engine.classify, engine.embed, engine.close
        self.notes: list[str] = []
        self._begun = 0

    def begin(self, given):
        self._begun += 1
        number, answer = self._begun, self._engine.begin(given)
        self.notes.append(f"begin {number}")

        def wait():
            self.notes.append(f"end {number}")
            return answer()

        return wait


def test_the_next_batch_begins_before_the_last_has_ended(on_device) -> None:
    told, watched = Told(), Watched(on_device)
    scorer = make_scorer(watched, told, batch_samples=BATCH, batch_wait_seconds=100.0)
    for slot in range(3 * BATCH):
        scorer.put(make_sample(slot))
    scorer.start()
    wait_until(lambda: told.samples == 3 * BATCH)
    assert watched.notes == ["begin 1", "begin 2", "end 1", "begin 3", "end 2", "end 3"]
    scorer.stop(Deadline(30))


def test_a_lone_batch_waits_for_no_other(on_device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "TICK_SECONDS", 1000.0)
    told, watched = Told(), Watched(on_device)
    scorer = make_scorer(watched, told, batch_samples=BATCH, batch_wait_seconds=100.0)
    scorer.start()
    for slot in range(BATCH):
        scorer.put(make_sample(slot))
    wait_until(lambda: told.samples == BATCH)
    assert watched.notes == ["begin 1", "end 1"]
    scorer.stop(Deadline(30))


def test_a_device_that_fails_is_told_of_and_every_sample_is_accounted_for(on_device) -> None:
    told, watched = Told(), Watched(on_device)

    def fail():
        raise EngineUnavailable("tensorrt", "the GPU failed: cudaErrorLaunchFailure")

    watched.begin = lambda _given: fail
    scorer = make_scorer(watched, told, batch_samples=BATCH, batch_wait_seconds=100.0)
    scorer.start()
    for slot in range(BATCH):
        scorer.put(make_sample(slot))
    assert told.failed.wait(30)
    wait_until(lambda: told.drops.total() == BATCH)
    assert "cudaErrorLaunchFailure" in str(told.failures[0])
    scorer.stop(Deadline(30))
