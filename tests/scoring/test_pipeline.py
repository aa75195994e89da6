from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.bundle import Bundle
from monitor.config import ScoringConfig
from monitor.records import Score
from monitor.scoring.engine import Engine
from monitor.scoring.pipeline import ScoringPipeline
from tests.scoring.bundles import MANIFEST
from tests.scoring.conftest import make_sample
from tests.scoring.test_batcher import Counting


def told(scores: list[Score]) -> list[tuple]:
    return [
        (
            s.window.camera,
            s.window.first_slot,
            s.probabilities.tobytes(),
            s.attention.tobytes(),
            s.window.mask.tobytes(),
        )
        for s in scores
    ]


def pipeline(engine: Engine, **settings) -> ScoringPipeline:
    return ScoringPipeline(engine, MANIFEST, ScoringConfig(**settings))


def test_scores_are_what_the_engine_says_of_the_window(engine: Engine) -> None:
    samples = [make_sample(slot) for slot in range(16)]
    scores = pipeline(engine).score(samples)
    assert [score.window.end_seconds for score in scores] == [1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    last = scores[-1]
    embeddings = engine.embed(np.stack([sample.pictures for sample in samples[8:]]))
    answers = engine.classify(embeddings[None], np.ones((1, 8), bool))
    assert np.array_equal(last.window.embeddings, embeddings)
    assert np.array_equal(last.probabilities, answers.probabilities[0])
    assert np.array_equal(last.attention, answers.attention[0])
    assert last.attention_per_slot.sum() == pytest.approx(1)


@settings(max_examples=15)
@given(sizes=st.lists(st.integers(1, 7), min_size=1), batch=st.integers(1, 16))
def test_scores_do_not_depend_on_how_samples_are_batched(quick_engine: Engine, sizes, batch) -> None:
    cameras = ("yard", "gate", "dock")
    samples = [
        make_sample(slot, camera=camera) for slot in range(12) for camera in cameras if (slot, camera) != (3, "gate")
    ]
    whole = pipeline(quick_engine).score(samples)
    parted, left = pipeline(quick_engine, batch_samples=batch), list(samples)
    scores: list[Score] = []
    for size in (sizes * len(samples))[: len(samples)]:
        scores += parted.score(left[:size])
        left = left[size:]
    for camera in cameras:
        one, other = ([t for t in told(group) if t[0] == camera] for group in (whole, scores))
        assert one == other
        assert [t[1] for t in one] == sorted(t[1] for t in one)


def test_each_sample_is_embedded_once_and_windows_share_a_call(quick_engine: Engine) -> None:
    counting = Counting(quick_engine)
    samples = [make_sample(slot, camera=camera) for slot in range(8) for camera in ("yard", "gate")]
    scored = pipeline(counting).score_batch(samples)
    assert counting.embedded == [16]
    assert counting.classified == [len(scored.scores)] == [4]
    assert dict(scored.windows_skipped) == {}  # nothing is missed while the rings fill
    assert dict(scored.samples_late) == {}
    for pictures, sample in zip(counting.pictures, samples, strict=True):
        assert pictures is sample.pictures  # as they came: neither copied nor converted


def test_late_samples_are_counted(quick_engine: Engine) -> None:
    scored = pipeline(quick_engine).score_batch([make_sample(5), make_sample(4), make_sample(5), make_sample(6)])
    assert dict(scored.samples_late) == {"yard": 2}


def test_forgotten_camera_begins_anew(quick_engine: Engine) -> None:
    line = pipeline(quick_engine, minimum_coverage=1.0)
    assert line.score([make_sample(slot) for slot in range(7)]) == []
    line.forget("yard")
    line.forget("never seen")
    assert line.score([make_sample(7)]) == []


def test_replay_gives_the_same_bytes(tiny_bundle: Bundle, engine: Engine) -> None:
    samples = [make_sample(slot) for slot in range(20)]
    assert told(pipeline(engine).score(samples)) == told(pipeline(engine).score(samples))
