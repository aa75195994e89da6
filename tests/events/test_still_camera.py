"""A lasting event before a camera whose gate sleeps: looks into windows into events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from monitor.config import EventsConfig
from monitor.events.tracker import Tracker
from monitor.records import EventChange, Phase, Sample, Score, Threshold, Window
from monitor.roster import blind_after
from monitor.scoring.windows import CameraWindows
from tests.scoring.test_windows import manifest, sample_at

SLOTS, STRIDE, FPS = 8, 2, 4
EVERY_SECONDS = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.5]


class Yard:
    """One camera: awake for a window, then asleep, and looked at every so many seconds."""

    def __init__(self, every_seconds: float, *, factor: int = 1, **rules: float) -> None:
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
        for _ in range(SLOTS):
            self.slot += 1
            self._see(sample_at(self.slot), 0.0)

    def looks(self, score: float, *, for_seconds: float) -> list[EventChange]:
        """Look for some time at a picture that makes the model say `score`."""
        changes: list[EventChange] = []
        for _ in range(round(for_seconds * FPS) // self.every):
            self.slot += self.every
            changes += self._see(replace(sample_at(self.slot), idle=True, idle_slots=self.every - 1), score)
        return changes

    def lose(self, seconds: float, score: float) -> list[EventChange]:
        """Lose the camera for some time; it comes back awake."""
        self.slot += round(seconds * FPS)
        return [change for _ in range(SLOTS) for change in self._next(score)]

    def _next(self, score: float) -> Iterator[EventChange]:
        self.slot += 1
        yield from self._see(sample_at(self.slot), score)

    def _see(self, sample: Sample, score: float) -> list[EventChange]:
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
    assert yard.looks(0.05, for_seconds=30.0) == []
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
    ended, again = yard.lose(20.0, 0.95)
    assert (ended.phase, again.phase) == (Phase.ENDED, Phase.STARTED)
    assert ended.started_seconds == started.started_seconds < again.started_seconds


def test_a_sleeping_camera_is_not_called_lost_between_two_looks() -> None:
    assert blind_after(EventsConfig(merge_gap_seconds=0.0), manifest(SLOTS, STRIDE)) > max(EVERY_SECONDS)
