"""Long recordings with known events and a bundle in, what operators count out: found, missed, false, how soon.

Samples go through the live path's own sampler, windows and tracker.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from models.judging import judging_engine
from models.matching import Found, Span, match, merge
from models.progress import progress_bar
from monitor.bundle import Bundle, Manifest, ThresholdPair
from monitor.capture.sampler import Sampler
from monitor.capture.source import read_video
from monitor.config import EventsConfig, ScoringConfig
from monitor.errors import InputInvalid
from monitor.events.tracker import Tracker
from monitor.records import EventChange, Phase, Sample, Score
from monitor.scoring.engine import Engine
from monitor.scoring.pipeline import ScoringPipeline

EVENTS_TABLE = "events.csv"
CURVE_THRESHOLDS = (*(round(0.05 * step, 2) for step in range(1, 20)), 0.97, 0.98, 0.99, 0.995)
FALSE_ALARM_RATES = (1.0, 4.0, 15.0, 60.0)
"""Per camera-hour: where the curve is read off."""
_BATCH_SAMPLES = 64
_NO_EMBEDDINGS = np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording as the model saw it."""

    name: str
    events: tuple[Span, ...]
    """What happened."""
    scores: tuple[Score, ...]
    """Of every window, without its embeddings."""
    recording_seconds: float
    processing_seconds: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What an on-threshold gives."""

    threshold: float
    found: Found

    def as_json(self) -> dict[str, object]:
        """Return the point for machines."""
        found = self.found
        return {
            "threshold": self.threshold,
            "recall": found.recall.as_json(),
            "p_miss": None if not found.events else round(1.0 - found.recall.value, 4),
            "false_alarms_per_hour": found.false_alarms_per_hour.as_json(),
            "precision": found.precision.as_json(),
            "seconds_to_detect_median": found.seconds_to_detect_median.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Watched:
    """What a bundle made of recordings."""

    found: Found
    """At the bundle's thresholds."""
    curve: tuple[CurvePoint, ...]
    """By rising threshold, the same for all labels."""

    def best_at(self, false_alarms_per_hour: float) -> CurvePoint | None:
        """Return the point that finds most within a rate of false alarms, and of these the one with the fewest."""
        within = [point for point in self.curve if point.found.false_alarms_per_hour.value <= false_alarms_per_hour]
        return max(within, key=lambda point: (point.found.found, -point.found.false_alarms), default=None)

    def as_json(self) -> dict[str, object]:
        """Return the figures for machines: at the bundle's thresholds, at rates of false alarm, and the whole curve."""
        return {
            **self.found.as_json(),
            "best_at_false_alarms_per_hour": {
                f"{rate:g}": point and point.as_json() for rate in FALSE_ALARM_RATES for point in (self.best_at(rate),)
            },
            "curve": [point.as_json() for point in self.curve],
        }

    def __str__(self) -> str:
        return str(self.found)


def run(data: Path, *, bundle: Bundle, console: Console) -> Watched:
    """Judge the recordings that `events.csv` names.

    Args:
        data: the table, or the folder in which it lies.
        bundle: the model.
        console: shows the progress.

    Raises:
        InputInvalid: the table or a video cannot be read, or it names a label that the model cannot tell of.
    """
    table = data / EVENTS_TABLE if data.is_dir() else data
    wanted = read_events(table)
    unknown = {span.label for spans in wanted.values() for span in spans} - set(bundle.manifest.event_labels)
    if unknown:
        known = ", ".join(bundle.manifest.event_labels)
        raise InputInvalid(table, f"label {', '.join(sorted(unknown))}: the model tells of {known}")
    engine = judging_engine(bundle)
    with closing(engine), progress_bar(console) as progress:
        tracked = progress.track(wanted.items(), description="Watching recordings")
        recordings = [watch(table.parent / name, events, bundle, engine) for name, events in tracked]
    return judge(recordings, bundle.manifest)


def read_events(path: Path) -> dict[str, list[Span]]:
    """Read `path,start_seconds,end_seconds,label`; a path without times is a recording without events.

    Raises:
        InputInvalid: the file cannot be read, or a line of it.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), skipinitialspace=True))
        events: dict[str, list[Span]] = {row["path"]: [] for row in rows}
        for row in rows:
            if row["start_seconds"]:
                span = Span(row["label"], float(row["start_seconds"]), float(row["end_seconds"]))
                if not span.end_seconds > span.start_seconds >= 0.0:
                    raise ValueError(f"an event of {row['path']} ends before it starts")
                events[row["path"]].append(span)
    except (OSError, UnicodeDecodeError) as exc:
        raise InputInvalid(path, f"cannot be read: {exc}") from exc
    except (KeyError, ValueError, TypeError) as exc:
        raise InputInvalid(path, f"needs path,start_seconds,end_seconds,label in every line: {exc}") from exc
    if not events:
        raise InputInvalid(path, "names no recording")
    return events


def watch(path: Path, events: Sequence[Span], bundle: Bundle, engine: Engine) -> Recording:
    """Score a recording as the live path would.

    Raises:
        InputInvalid: the video cannot be read.
    """
    began = time.perf_counter()
    manifest = bundle.manifest
    sampler = Sampler(path.name, sample_fps=manifest.sample_fps, shape=manifest.sample)
    pipeline = ScoringPipeline(engine, manifest, ScoringConfig())
    scores: list[Score] = []
    waiting: list[Sample] = []
    seconds = 0.0
    for frame, seconds in read_video(path):
        sample = sampler.push(frame, time_seconds=seconds, received_seconds=seconds)
        waiting += [sample] if sample is not None else []
        if len(waiting) == _BATCH_SAMPLES:
            scores += map(_lightened, pipeline.score(waiting))
            waiting = []
    scores += map(_lightened, pipeline.score(waiting))
    return Recording(path.name, tuple(events), tuple(scores), seconds, time.perf_counter() - began)


def judge(recordings: Sequence[Recording], manifest: Manifest) -> Watched:
    """Return what the tracker tells of scored recordings, at the bundle's thresholds and along a curve of them."""
    curve = tuple(
        CurvePoint(threshold, _judge(recordings, manifest, _thresholds_at(manifest, threshold)))
        for threshold in CURVE_THRESHOLDS
    )
    return Watched(_judge(recordings, manifest, manifest.thresholds), curve)


def _judge(recordings: Sequence[Recording], manifest: Manifest, thresholds: Mapping[str, ThresholdPair]) -> Found:
    return merge(
        [
            match(
                recording.events,
                told(recording, manifest, thresholds),
                recording.recording_seconds,
                processing_seconds=recording.processing_seconds,
            )
            for recording in recordings
        ]
    )


def told(recording: Recording, manifest: Manifest, thresholds: Mapping[str, ThresholdPair]) -> list[Span]:
    """Return the events that the live path would have told of a recording."""
    records = {label: pair.record() for label, pair in thresholds.items()}
    tracker = Tracker(recording.name, labels=manifest.labels, thresholds=records, rules=EventsConfig())
    changes = [change for score in recording.scores for change in tracker.observe(score)]
    ends = {
        (change.label, change.started_seconds): change.ended_seconds
        for change in changes
        if change.phase is Phase.ENDED
    }
    return [
        Span(
            change.label,
            change.started_seconds,
            ends.get((change.label, change.started_seconds)) or recording.recording_seconds,
            change.changed_seconds,
            _most_attended_seconds(change),
        )
        for change in changes
        if change.phase is Phase.STARTED
    ]


def _thresholds_at(manifest: Manifest, on: float) -> dict[str, ThresholdPair]:
    """Return an on-threshold for every label, with the off-threshold in the bundle's proportion."""
    return {
        label: ThresholdPair(on=on, off=on * (pair.off / pair.on if pair.on else 1.0))
        for label, pair in manifest.thresholds.items()
    }


def _most_attended_seconds(change: EventChange) -> float:
    seconds = change.score.window.frame_seconds[int(change.score.attention_per_slot.argmax())]
    return float("nan") if seconds is None else seconds


def _lightened(score: Score) -> Score:
    """Return a score whose window holds no embeddings: hours of them fill the memory."""
    return replace(score, window=replace(score.window, embeddings=_NO_EMBEDDINGS))
