"""A lasting event before a camera whose gate sleeps: looks into windows into events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monitor.config import EventsConfig
from monitor.events.tracker import Tracker
from monitor.records import EventChange, Phase, Sample, Score, Threshold, Window
from monitor.roster import blind_after
from monitor.scoring.windows import CameraWindows
from tests.capture.test_intake import take, write
from tests.scoring.test_windows import manifest, sample_at

SLOTS, STRIDE, FPS = 8, 2, 4
EVERY_SECONDS = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.5]


class Yard:
    """One camera, and what is told of it; asleep it is looked at every so many seconds."""

    def __init__(self, every_seconds: float = 1.0, *, factor: int = 1, **rules: float) -> None:
        self.every = round(every_seconds * FPS)
        self.factor = factor
        self.slot = 4 * 1_000_001
        self.windows = CameraWindows("yard", manifest=manifest(SLOTS, STRIDE), minimum_coverage=0.6)
        self.tracker = Tracker(
            "yard",
            labels=("nothing", "fall"),
            thresholds={"fall": Threshold(0.8, 0.5)},
            rules=EventsConfig.model_validate(rules),
        )

    def awake(self, score: float) -> list[EventChange]:
        """See a whole window."""
        changes: list[EventChange] = []
        for _ in range(SLOTS):
            self.slot += 1
            changes += self.see(sample_at(self.slot), score)
        return changes

    def looks(self, score: float, *, for_seconds: float) -> list[EventChange]:
        """Look for some time at a picture that makes the model say `score`."""
        changes: list[EventChange] = []
        for _ in range(round(for_seconds * FPS) // self.every):
            self.slot += self.every
            changes += self.see(replace(sample_at(self.slot), idle=True, idle_slots=self.every - 1), score)
        return changes

    def lose(self, seconds: float) -> None:
        """Lose the camera for some time."""
        self.slot += round(seconds * FPS)

    def see(self, sample: Sample, score: float) -> list[EventChange]:
        """Take a sample that makes the model say `score`."""
        pushed = self.windows.push(sample, np.zeros(3, np.float32), factor=self.factor)
        return [change for window in pushed.windows for change in self.tracker.observe(scored(window, score))]


def scored(window: Window, score: float) -> Score:
    attention = window.mask[None].astype(np.float32) / window.mask.sum()
    return Score(window, np.array([1 - score, score], np.float32), attention)


@pytest.mark.parametrize("every_seconds", EVERY_SECONDS)
@pytest.mark.parametrize("rules", [{}, {"merge_gap_seconds": 0.0}, {"minimum_seconds": 1.0, "smoothing_windows": 4}])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_an_event_that_lasts_is_told_once(every_seconds: float, rules: dict[str, float], factor: int) -> None:
    yard = Yard(every_seconds, factor=factor, **rules)
    assert yard.awake(0.05) + yard.looks(0.05, for_seconds=30.0) == []
    (started,) = yard.looks(0.95, for_seconds=80.0)
    assert started.phase is Phase.STARTED
    (ended,) = yard.looks(0.05, for_seconds=60.0)
    assert ended.phase is Phase.ENDED
    assert ended.started_seconds == started.started_seconds
    assert ended.ended_seconds is not None
    assert ended.ended_seconds - started.started_seconds > 40.0


@pytest.mark.parametrize("every_seconds", EVERY_SECONDS)
def test_one_look_that_fails_to_see_it_ends_nothing(every_seconds: float) -> None:
    """What a look shows holds until the next: a fall is as young as that look, not as old as the one before."""
    yard = Yard(every_seconds, smoothing_windows=1)
    yard.looks(0.95, for_seconds=30.0)
    assert yard.looks(0.05, for_seconds=every_seconds) == []
    assert yard.tracker.active == 1


@pytest.mark.parametrize("every_seconds", EVERY_SECONDS)
def test_a_camera_that_was_lost_was_not_seen(every_seconds: float) -> None:
    yard = Yard(every_seconds)
    (started,) = yard.looks(0.95, for_seconds=30.0)
    yard.lose(20.0)
    ended, again = yard.awake(0.95)
    assert (ended.phase, again.phase) == (Phase.ENDED, Phase.STARTED)
    assert ended.started_seconds == started.started_seconds < again.started_seconds


def test_an_event_that_outlasts_what_moves_is_told_once(tmp_path: Path) -> None:
    """A real stream with a keyframe each 4.8 s: still, something moves, and still again."""
    taken = take(write(tmp_path / "yard.mkv", "seldom"), "auto")
    idle = [sample for sample in taken.samples if sample.idle]
    assert max(sample.idle_slots for sample in idle) > SLOTS
    yard = Yard()
    (started,) = [change for sample in taken.samples for change in yard.see(sample, 0.95)]
    assert started.phase is Phase.STARTED
    assert idle[-1].time_seconds - started.started_seconds > 35.0


def test_a_sleeping_camera_is_not_called_lost_between_two_looks() -> None:
    assert blind_after(EventsConfig(merge_gap_seconds=0.0), manifest(SLOTS, STRIDE)) > max(EVERY_SECONDS)
