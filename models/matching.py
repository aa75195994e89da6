"""Events that happened and events that were told in; found, missed and false ones out, after NIST's ActEV scoring.

Awad et al. 2021, "TRECVID 2020: Activities in Extended Videos (ActEV)": one-to-one alignment of instances, the rate of
missed ones (P_miss) over the rate of false alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import beta, chi2

from models.metrics import Estimate

LEAST_OVERLAP_SECONDS = 1.0
"""What was told must share this much time with the event; an event that is shorter, half of itself."""
_RESAMPLES = 1000
_OUTSIDE = 0.025
"""Of a 95% interval, on either side."""


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which a label holds, as labelled or as told."""

    label: str
    start_seconds: float
    end_seconds: float
    told_seconds: float = 0.0
    """When the start was told; 0 for what was labelled."""
    attended_seconds: float = float("nan")
    """Of what was told: the time of the most attended frame of the window that decided it."""

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
    attended_inside: int = 0
    """Of the found events, those whose most attended frame lies in the event."""
    processing_seconds: float = float("nan")
    """How long decoding and scoring took."""

    @property
    def found(self) -> int:
        """How many events were found."""
        return len(self.delays_seconds)

    @property
    def recall(self) -> Estimate:
        """Share of the events that were found; 1 - P_miss. Interval: exact binomial (Clopper and Pearson 1934)."""
        return _share(self.found, self.events)

    @property
    def precision(self) -> Estimate:
        """Share of what was told that was an event. Interval: exact binomial."""
        return _share(self.found, self.told)

    @property
    def f1(self) -> Estimate:
        """Harmonic mean of recall and precision. Interval: percentiles of a bootstrap over events and false alarms."""

        def f1(rows: NDArray[np.int64]) -> float:
            found, events = np.count_nonzero(rows < self.found), np.count_nonzero(rows < self.events)
            falses = len(rows) - events
            return 2 * found / (found + falses + events) if found + falses + events else float("nan")

        return _bootstrap(f1, self.events + self.false_alarms)

    @property
    def false_alarms_per_hour(self) -> Estimate:
        """Told events that match none, per camera-hour. Interval: exact Poisson (Garwood 1936)."""
        hours = self.recording_seconds / 3600.0
        if hours <= 0.0:
            return Estimate(float("nan"), float("nan"), float("nan"))
        low = chi2.ppf(_OUTSIDE, 2 * self.false_alarms) / 2 if self.false_alarms else 0.0
        high = chi2.ppf(1 - _OUTSIDE, 2 * self.false_alarms + 2) / 2
        return Estimate(self.false_alarms / hours, float(low) / hours, float(high) / hours)

    @property
    def seconds_to_detect_median(self) -> Estimate:
        """Median over all events; a missed one counts as never."""
        return self._seconds_to_detect(0.5)

    @property
    def seconds_to_detect_p90(self) -> Estimate:
        """What nine of ten events stay below; a missed one counts as never."""
        return self._seconds_to_detect(0.9)

    @property
    def attended_inside_share(self) -> Estimate:
        """Share of the found events whose most attended frame lies in the event. Interval: exact binomial."""
        return _share(self.attended_inside, self.found)

    @property
    def real_time_factor(self) -> float:
        """Seconds of recording a second of work."""
        return self.recording_seconds / self.processing_seconds if self.processing_seconds > 0 else float("nan")

    def as_json(self) -> dict[str, object]:
        """Return the figures for machines; a median of None is never."""
        return {
            "events": self.events,
            "found": self.found,
            "told": self.told,
            "false_alarms": self.false_alarms,
            "camera_hours": round(self.recording_seconds / 3600.0, 4),
            "recall": self.recall.as_json(),
            "precision": self.precision.as_json(),
            "f1": self.f1.as_json(),
            "false_alarms_per_hour": self.false_alarms_per_hour.as_json(),
            "seconds_to_detect_median": self.seconds_to_detect_median.as_json(),
            "seconds_to_detect_p90": self.seconds_to_detect_p90.as_json(),
            "attended_inside": self.attended_inside_share.as_json(),
            "real_time_factor": None if np.isnan(self.real_time_factor) else round(self.real_time_factor, 1),
        }

    def __str__(self) -> str:
        median = self.seconds_to_detect_median.value
        soon = f", median {median:.1f} s to detect" if np.isfinite(median) else ""
        return (
            f"{self.found} of {self.events} events found, {self.false_alarms} false alarms in "
            f"{self.recording_seconds / 3600:.2f} h{soon}"
        )

    def _seconds_to_detect(self, share: float) -> Estimate:
        delays = np.array([*self.delays_seconds, *[np.inf] * (self.events - self.found)])
        return _bootstrap(lambda rows: float(np.quantile(delays[rows], share, method="higher")), len(delays))


def match(
    events: Sequence[Span], told: Sequence[Span], recording_seconds: float, *, processing_seconds: float = float("nan")
) -> Found:
    """Match one to one, as many as can be and among these with the most time in common (Kuhn and Munkres).

    What was told beyond that, though it lies over an event, is a false alarm too: somebody was called twice.
    """
    shared = np.array([[event.overlap_seconds(span) for span in told] for event in events]).reshape(
        len(events), len(told)
    )
    wanted = np.array([min(LEAST_OVERLAP_SECONDS, (event.end_seconds - event.start_seconds) / 2) for event in events])
    allowed = (shared > 0.0) & (shared >= wanted[:, None])
    total = shared.sum() + 1.0
    pairs = zip(*linear_sum_assignment(-(allowed * (total + shared))), strict=True)
    hits = [(events[row], told[column]) for row, column in pairs if allowed[row, column]]
    return Found(
        events=len(events),
        told=len(told),
        false_alarms=len(told) - len(hits),
        delays_seconds=tuple(max(0.0, span.told_seconds - event.start_seconds) for event, span in hits),
        recording_seconds=recording_seconds,
        attended_inside=sum(event.start_seconds <= span.attended_seconds <= event.end_seconds for event, span in hits),
        processing_seconds=processing_seconds,
    )


def merge(parts: Sequence[Found]) -> Found:
    """Return the sum of several recordings."""
    return Found(
        events=sum(part.events for part in parts),
        told=sum(part.told for part in parts),
        false_alarms=sum(part.false_alarms for part in parts),
        delays_seconds=tuple(delay for part in parts for delay in part.delays_seconds),
        recording_seconds=sum(part.recording_seconds for part in parts),
        attended_inside=sum(part.attended_inside for part in parts),
        processing_seconds=sum(part.processing_seconds for part in parts),
    )


def _share(part: int, whole: int) -> Estimate:
    """Return a share with its exact binomial interval; NaN of nothing."""
    if whole == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    low = float(beta.ppf(_OUTSIDE, part, whole - part + 1)) if part else 0.0
    high = float(beta.ppf(1 - _OUTSIDE, part + 1, whole - part)) if part < whole else 1.0
    return Estimate(part / whole, low, high)


def _bootstrap(figure: Callable[[NDArray[np.int64]], float], size: int) -> Estimate:
    """Return a figure of `size` rows with the percentile interval of a bootstrap over them; NaN of nothing."""
    if size == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(0)
    drawn = [figure(rng.integers(0, size, size)) for _ in range(_RESAMPLES)]
    values = np.array([value for value in drawn if not np.isnan(value)])
    everything = figure(np.arange(size))
    if not len(values):
        return Estimate(everything, float("nan"), float("nan"))
    low, high = np.quantile(values, (_OUTSIDE, 1 - _OUTSIDE), method="nearest")
    return Estimate(everything, float(low), float(high))
