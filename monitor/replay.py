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


@dataclass(frozen=True, slots=True)
class Replayed:
    """One video's answer."""

    path: Path
    duration_seconds: float
    """Time of the last sample."""
    samples: int
    scores: tuple[Score, ...]
    alerts: tuple[Alert, ...]
    pictures: dict[int, NDArray[np.uint8]]
    """Slot to the newest picture of its sample, (H, W, 3) uint8 RGB; empty unless asked for."""

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
        keep_pictures: keep each sample's newest picture, for a plot.
        on_progress: told the video time reached, in seconds.

    Raises:
        InputInvalid: the file is missing, not a video, or has no frames.
    """
    manifest = bundle.manifest
    camera = CameraConfig(id=_camera_id(path), url=str(path))
    pipeline = ScoringPipeline(opened.engine, manifest, scoring)
    tracker = Tracker(camera.id, labels=manifest.labels, thresholds=thresholds_of(camera, rules, manifest), rules=rules)
    scores: list[Score] = []
    changes: list[EventChange] = []
    pictures: dict[int, NDArray[np.uint8]] = {}
    count, last_seconds = 0, 0.0
    for batch in _batches(_samples(path, camera.id, bundle), scoring.batch_samples):
        for score in pipeline.score(batch):
            scores.append(score)
            changes += tracker.observe(score)
        if keep_pictures:
            pictures.update((sample.slot, sample.pictures[-1].copy()) for sample in batch)
        count += len(batch)
        last_seconds = batch[-1].time_seconds
        on_progress(last_seconds)
    changes += tracker.end(ChangeReason.SHUTDOWN, at_seconds=last_seconds)
    told = context(camera)
    alerts = tuple(
        compose(change, told, decided_seconds=change.changed_seconds, published_seconds=change.changed_seconds)
        for change in changes
    )
    return Replayed(path, last_seconds, count, tuple(scores), alerts, pictures)


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
