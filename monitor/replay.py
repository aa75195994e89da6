"""Video files in, the alerts the live path would have told out: same sampler, engine, windows, tracker and messages.

Time is the video's own, from 0, and nothing depends on the machine's clock: the same input gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import Bundle
from monitor.capture.sampler import Sampler
from monitor.capture.source import read_video
from monitor.config import CameraConfig, EventsConfig, ScoringConfig
from monitor.decisions import thresholds_of
from monitor.events.alerts import AlertContext, compose
from monitor.events.tracker import Tracker
from monitor.records import Alert, ChangeReason, EventChange, Sample, Score
from monitor.scoring.engine import OpenedEngine
from monitor.scoring.pipeline import ScoringPipeline

KEPT_PICTURES = 8


@dataclass(frozen=True, slots=True)
class ScorePoint:
    """What a plot needs of one score."""

    end_seconds: float
    """End of its window."""
    first_slot: int
    probabilities: NDArray[np.float32]
    """(L,) float32, one per label of the bundle."""
    attention: NDArray[np.float32]
    """(T,) float32, hops merged, sums to 1."""


class MostAttended:
    """Keeps the pictures of the most attended slots, and those that a coming window may still attend to.

    Args:
        window_slots: T.
    """

    def __init__(self, window_slots: int) -> None:
        self._window_slots = window_slots
        self.attention: dict[int, float] = {}
        """Slot to the largest attention that any window gave it, as a multiple of an even share."""
        self.pictures: dict[int, NDArray[np.uint8]] = {}
        """Slot to the newest picture of its sample, (H, W, 3) uint8 RGB."""

    def add(self, samples: Sequence[Sample], points: Sequence[ScorePoint]) -> None:
        """Take a batch and the scores it led to."""
        self.pictures.update((sample.slot, sample.pictures[-1].copy()) for sample in samples)
        for point in points:
            for slot, weight in enumerate(point.attention * self._window_slots, start=point.first_slot):
                self.attention[slot] = max(self.attention.get(slot, 0.0), float(weight))
        recent = samples[-1].slot - self._window_slots
        best = set(sorted(self.pictures, key=lambda slot: -self.attention.get(slot, 0.0))[:KEPT_PICTURES])
        self.pictures = {slot: kept for slot, kept in self.pictures.items() if slot > recent or slot in best}


@dataclass(frozen=True, slots=True)
class Replayed:
    """One video's answer."""

    path: Path
    duration_seconds: float
    """Time of the last sample."""
    samples: int
    scores: tuple[ScorePoint, ...]
    alerts: tuple[Alert, ...]
    attended: MostAttended | None
    """None unless asked for."""

    def messages(self) -> list[dict[str, Any]]:
        """Return the alerts' JSON messages."""
        return [json.loads(alert.value) for alert in self.alerts]


def replay_video(
    path: Path,
    *,
    bundle: Bundle,
    opened: OpenedEngine,
    rules: EventsConfig,
    scoring: ScoringConfig,
    context: Callable[[CameraConfig], AlertContext],
    keep_pictures: bool = False,
    on_progress: Callable[[float], None] = lambda _seconds: None,
) -> Replayed:
    """Run one video through the pipeline, faster than real time.

    Args:
        path: the video.
        bundle: the model.
        opened: the engine that runs it.
        rules: when scores become events.
        scoring: batch size, and least coverage of a window.
        context: what an alert says besides the event, for a camera named after the video.
        keep_pictures: keep the most attended pictures, for a plot.
        on_progress: told the video time reached, in seconds.

    Raises:
        InputInvalid: the file is missing, not a video, or has no frames.
    """
    manifest = bundle.manifest
    camera = CameraConfig(id=_camera_id(path), url=str(path))
    pipeline = ScoringPipeline(opened.engine, manifest, scoring)
    tracker = Tracker(camera.id, labels=manifest.labels, thresholds=thresholds_of(camera, rules, manifest), rules=rules)
    scores: list[ScorePoint] = []
    changes: list[EventChange] = []
    attended = MostAttended(manifest.window_slots) if keep_pictures else None
    count, last_seconds = 0, 0.0
    for batch in _batches(_samples(path, camera.id, bundle), scoring.batch_samples):
        new = pipeline.score(batch)
        points = [_point(score) for score in new]
        scores += points
        for score in new:
            changes += tracker.observe(score)
        if attended is not None:
            attended.add(batch, points)
        count += len(batch)
        last_seconds = batch[-1].time_seconds
        on_progress(last_seconds)
    changes += tracker.end(ChangeReason.SHUTDOWN, at_seconds=last_seconds)
    told = context(camera)
    alerts = tuple(
        compose(change, told, decided_seconds=change.changed_seconds, published_seconds=change.changed_seconds)
        for change in changes
    )
    return Replayed(path, last_seconds, count, tuple(scores), alerts, attended)


def _point(score: Score) -> ScorePoint:
    window = score.window
    return ScorePoint(window.end_seconds, window.first_slot, score.probabilities, score.attention_per_slot)


def _samples(path: Path, camera: str, bundle: Bundle) -> Iterator[Sample]:
    sampler = Sampler(camera, sample_fps=bundle.manifest.sample_fps, shape=bundle.manifest.sample)
    for frame, seconds in read_video(path):
        sample = sampler.push(frame, time_seconds=seconds, received_seconds=seconds)
        if sample is not None:
            yield sample


def _batches(samples: Iterator[Sample], size: int) -> Iterator[Sequence[Sample]]:
    while batch := list(islice(samples, size)):
        yield batch


def _camera_id(path: Path) -> str:
    """Return the file's name as a camera id."""
    kept = "".join(char if (char.isalnum() and char.isascii()) or char in "._-" else "-" for char in path.stem)
    return (kept.lstrip("._-") or "video")[:63]
