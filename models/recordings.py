"""Long recordings with known events and a bundle in, what operators count out: found, missed, false, how soon.

Samples go through the live path's own sampler, windows and tracker.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from models.progress import progress_bar
from monitor.bundle import Bundle
from monitor.capture.sampler import Sampler
from monitor.capture.source import read_video
from monitor.config import EventsConfig, ScoringConfig
from monitor.errors import InputInvalid
from monitor.events.tracker import Tracker
from monitor.records import EventChange, Phase, Sample, Score
from monitor.scoring.engine import Engine, open_engine
from monitor.scoring.pipeline import ScoringPipeline

LEAST_OVERLAP_SECONDS = 1.0
"""An event counts as found when what was told overlaps it by this, as in NIST's ActEV scoring."""
_BATCH_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which a label holds, as labelled or as told."""

    label: str
    start_seconds: float
    end_seconds: float
    told_seconds: float = 0.0
    """When the start was told; 0 for what was labelled."""

    def overlap_seconds(self, other: Span) -> float:
        """Return how long both hold; 0 for other labels."""
        if self.label != other.label:
            return 0.0
        return max(0.0, min(self.end_seconds, other.end_seconds) - max(self.start_seconds, other.start_seconds))


@dataclass(frozen=True, slots=True)
class Found:
    """What came of one or more recordings."""

    events: int
    told: int
    false_alarms: int
    delays_seconds: tuple[float, ...]
    """From each found event's start to its being told."""
    recording_seconds: float

    @property
    def recall(self) -> float:
        """Share of the events that were found."""
        return len(self.delays_seconds) / self.events if self.events else float("nan")

    @property
    def false_alarms_per_hour(self) -> float:
        """Told events that match none, per camera-hour."""
        return 3600.0 * self.false_alarms / self.recording_seconds

    @property
    def seconds_to_detect_median(self) -> float:
        """Median over all events; a missed one counts as never."""
        delays = [*self.delays_seconds, *[float("inf")] * (self.events - len(self.delays_seconds))]
        return float(np.median(delays)) if delays else float("nan")

    def __str__(self) -> str:
        return (
            f"{len(self.delays_seconds)} of {self.events} events found, {self.false_alarms} false alarms in "
            f"{self.recording_seconds / 3600:.2f} h, median {self.seconds_to_detect_median:.1f} s to detect"
        )


def run(data: Path, *, bundle: Bundle, console: Console) -> Found:
    """Judge the recordings that `events.csv` in the folder names, and its other videos, which hold no event.

    Raises:
        InputInvalid: the table or a video cannot be read.
    """
    wanted = read_events(data / "events.csv")
    engine = open_engine(bundle, preference="auto", threads=0).engine
    parts = []
    with closing(engine), progress_bar(console) as progress:
        for name, events in progress.track(wanted.items(), description="Judging recordings"):
            told, seconds = watch(data / name, bundle, engine)
            parts.append(match(events, told, seconds))
    return merge(parts)


def read_events(path: Path) -> dict[str, list[Span]]:
    """Read `path,start_seconds,end_seconds,label`; a path without times is a recording without events.

    Raises:
        InputInvalid: the file cannot be read, or a line of it.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        events: dict[str, list[Span]] = {row["path"]: [] for row in rows}
        for row in rows:
            if row["start_seconds"]:
                span = Span(row["label"], float(row["start_seconds"]), float(row["end_seconds"]))
                events[row["path"]].append(span)
    except (OSError, UnicodeDecodeError) as exc:
        raise InputInvalid(path, f"cannot be read: {exc}") from exc
    except (KeyError, ValueError, TypeError) as exc:
        raise InputInvalid(path, f"needs path,start_seconds,end_seconds,label in every line: {exc}") from exc
    return events


def watch(path: Path, bundle: Bundle, engine: Engine) -> tuple[list[Span], float]:
    """Return what the live path would have told of a recording, and the recording's length in seconds."""
    manifest = bundle.manifest
    sampler = Sampler(path.name, sample_fps=manifest.sample_fps, shape=manifest.sample)
    pipeline = ScoringPipeline(engine, manifest, ScoringConfig())
    thresholds = {label: pair.record() for label, pair in manifest.thresholds.items()}
    tracker = Tracker(path.name, labels=manifest.labels, thresholds=thresholds, rules=EventsConfig())
    changes: list[EventChange] = []
    waiting: list[Sample] = []
    seconds = 0.0
    for frame, seconds in read_video(path):
        sample = sampler.push(frame, time_seconds=seconds, received_seconds=seconds)
        waiting += [sample] if sample is not None else []
        if len(waiting) == _BATCH_SAMPLES:
            changes += _observe(tracker, pipeline.score(waiting))
            waiting = []
    changes += _observe(tracker, pipeline.score(waiting))
    return _spans(changes, seconds), seconds


def match(events: Sequence[Span], told: Sequence[Span], recording_seconds: float) -> Found:
    """Match one to one, in the order of time, with at least `LEAST_OVERLAP_SECONDS` in common.

    What was told beyond that, though it lies over an event, is a false alarm too: somebody was called twice.
    """
    free = sorted(told, key=lambda span: span.start_seconds)
    delays = []
    for event in sorted(events, key=lambda span: span.start_seconds):
        hit = next((span for span in free if span.overlap_seconds(event) >= LEAST_OVERLAP_SECONDS), None)
        if hit is not None:
            free.remove(hit)
            delays.append(max(0.0, hit.told_seconds - event.start_seconds))
    return Found(len(events), len(told), len(free), tuple(delays), recording_seconds)


def merge(parts: Sequence[Found]) -> Found:
    """Return the sum of several recordings."""
    return Found(
        events=sum(part.events for part in parts),
        told=sum(part.told for part in parts),
        false_alarms=sum(part.false_alarms for part in parts),
        delays_seconds=tuple(delay for part in parts for delay in part.delays_seconds),
        recording_seconds=sum(part.recording_seconds for part in parts),
    )


def _observe(tracker: Tracker, scores: Sequence[Score]) -> list[EventChange]:
    return [change for score in scores for change in tracker.observe(score)]


def _spans(changes: Sequence[EventChange], recording_seconds: float) -> list[Span]:
    """Turn starts and ends into spans; what was still open ends with the recording."""
    ends = {
        (change.label, change.started_seconds): change.ended_seconds
        for change in changes
        if change.phase is Phase.ENDED
    }
    return [
        Span(
            change.label,
            change.started_seconds,
            ends.get((change.label, change.started_seconds)) or recording_seconds,
            change.changed_seconds,
        )
        for change in changes
        if change.phase is Phase.STARTED
    ]
