"""A second model looks on: what it is told of, and that it costs the first one nothing but idle time."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from monitor.bundle import Bundle
from monitor.config import ScoringConfig
from monitor.deadline import Deadline
from monitor.records import Score
from monitor.scoring.engine import Engine, open_engine
from monitor.scoring.shadow import REPORT_SECONDS, Comparison, Shadow, ShadowReport, verdict
from monitor.scoring.waiting import Waiting
from tests.events.test_tracker import make_score
from tests.scoring.bundles import MANIFEST, TinyBundle
from tests.scoring.conftest import make_sample
from tests.scoring.test_batcher import Gated, Told, make_scorer, wait_until
from tests.scoring.test_crossing import Broken

OTHER = MANIFEST.model_copy(update={"name": "other", "version": "2"})


@pytest.fixture
def other_bundle(tmp_path: Path) -> Bundle:
    """The same size and grid, and a head that always sees a fight."""
    tiny = TinyBundle()
    tiny.head = {**tiny.head, "wc": tiny.head["wc"] * 0, "bc": np.array([0, 9, 0], np.float32)}
    return tiny.write(tmp_path / "other", golden=True)


def make_shadow(bundle: Bundle, engine: Engine, reports: list[ShadowReport], **settings) -> Shadow:
    return Shadow(bundle, engine, ScoringConfig(**settings), on_report=reports.append)


def test_verdict_is_the_likeliest_label_over_its_own_threshold() -> None:
    assert verdict(make_score(0, 0.7, 0.2), MANIFEST) == "fight"
    assert verdict(make_score(0, 0.59, 0.0), MANIFEST) == ""
    low = MANIFEST.thresholds["fall"].model_copy(update={"on": 0.1, "off": 0.1})
    assert verdict(make_score(0, 0.59, 0.2), MANIFEST.model_copy(update={"thresholds": {"fall": low}})) == "fall"


def test_disagreement_is_told_once_an_interval_and_not_too_often() -> None:
    comparison, told = Comparison(OTHER), []

    def compare(number: int, main: float, shadow: float, now: float) -> bool:
        comparison.note_main(make_score(number, main), MANIFEST)
        agrees, disagreement = comparison.note_shadow(make_score(number, shadow), now)
        told.extend([disagreement] if disagreement else [])
        return agrees

    assert compare(0, 0.1, 0.2, now=0.0)
    assert not compare(1, 0.1, 0.7, now=0.5)
    assert not compare(2, 0.2, 0.9, now=1.0)
    assert told == []
    assert compare(3, 0.1, 0.1, now=1.5)
    (interval,) = told
    assert (interval.windows, interval.main_label, interval.shadow_label) == (2, "", "fight")
    assert interval.difference == pytest.approx(0.7)
    assert (interval.start_seconds, interval.end_seconds) == (
        make_score(1, 0).window.start_seconds,
        make_score(2, 0).window.end_seconds,
    )
    for number in range(4, 60):
        compare(number, 0.9 if number % 2 else 0.1, 0.1, now=number / 2)
    assert len(told) <= 1 + 30 / REPORT_SECONDS
    assert comparison.note_shadow(make_score(500, 0.1), 99.0) is None  # the main model never scored it


def test_it_scores_the_same_windows_in_idle_time(quick_engine: Engine, other_bundle: Bundle) -> None:
    reports: list[ShadowReport] = []
    told = Told()
    scorer = make_scorer(quick_engine, told, batch_wait_seconds=0.0)
    engine = open_engine(other_bundle, preference="onnxruntime", threads=1).engine
    scorer.set_shadow(make_shadow(other_bundle, engine, reports))
    scorer.start()
    for slot in range(40):
        scorer.put(make_sample(slot))
        time.sleep(0.005)
    wait_until(lambda: sum(report.agreed + report.disagreed for report in reports) == len(told.scores) > 10)
    differing = sum(verdict(score, MANIFEST) != "fight" for score in told.scores)
    assert sum(report.disagreed for report in reports) == differing > 0
    scorer.set_shadow(None)
    wait_until(lambda: engine._backbone is None)  # closed
    scorer.stop(Deadline(5))


def test_it_waits_for_the_main_model_and_is_dropped_first(quick_engine: Engine, other_bundle: Bundle) -> None:
    """While the main model is busy the shadow does nothing; what it cannot catch up with it lets go."""
    reports: list[ShadowReport] = []
    told = Told()
    main = Gated(quick_engine)
    scorer = make_scorer(main, told, batch_wait_seconds=0.0, batch_samples=8, queue_samples=400)
    engine = open_engine(other_bundle, preference="onnxruntime", threads=1).engine
    scorer.set_shadow(make_shadow(other_bundle, engine, reports, queue_samples=40))
    scorer.start()
    for slot in range(300):
        scorer.put(make_sample(slot))
    assert main.entered.wait(5)
    time.sleep(0.3)
    assert reports == []
    main.leave.set()
    wait_until(lambda: told.samples == 300)
    scorer.stop(Deadline(5))
    assert +told.drops == {}
    assert len(told.scores) == 148
    assert sum(report.agreed + report.disagreed for report in reports) < 20


def test_it_looks_away_while_cameras_are_thinned(quick_engine: Engine, other_bundle: Bundle) -> None:
    reports: list[ShadowReport] = []
    engine = open_engine(other_bundle, preference="onnxruntime", threads=1).engine
    shadow = make_shadow(other_bundle, engine, reports)
    batch = [Waiting(make_sample(slot), 0.0) for slot in range(8)]
    shadow.offer(batch, thinned=False)
    assert shadow.waits
    shadow.offer(batch, thinned=True)
    assert not shadow.waits
    shadow.close()


def test_its_failure_is_told_and_costs_nothing_else(quick_engine: Engine, other_bundle: Bundle) -> None:
    reports: list[ShadowReport] = []
    told = Told()
    scorer = make_scorer(quick_engine, told, batch_wait_seconds=0.0)
    engine = open_engine(other_bundle, preference="onnxruntime", threads=1).engine
    scorer.set_shadow(make_shadow(other_bundle, Broken(engine, after=3), reports))
    scorer.start()
    for slot in range(30):
        scorer.put(make_sample(slot))
        time.sleep(0.005)
    wait_until(lambda: any(report.failure for report in reports))
    scorer.stop(Deadline(5))
    assert [report.failure for report in reports if report.failure] == ["engine onnxruntime: out of memory"]
    assert told.failures == []
    scored: list[Score] = told.scores
    assert len(scored) == 13
