"""One camera's scores in, the starts, updates and ends of its events out. Pure: time comes from the scores.

Each watched label goes its own way. Its smoothed score is the mean of its last `smoothing_windows`
probabilities; "now" is the end of the window at hand.

            smoothed >= on                  held minimum_seconds
  QUIET ───────────────────▶ CANDIDATE ───────────────────────────▶ OPEN ◀─────────────┐
   ▲  ▲                          │                        (started)  │ │                │ smoothed >= on,
   │  │     smoothed < off       │                                   │ │ smoothed < off │ within merge_gap_seconds
   │  └──────────────────────────┘                                   │ ▼                │
   │        (suppressed: short)                                      │ FADING ──────────┘
   │                                                                 │   │
   ├─────────────────────────────────────────────────────────────────┘   │
   │   a window that would make it longer than maximum_seconds           │
   │   (ended: max_length; the same window may begin the next event)     │
   └─────────────────────────────────────────────────────────────────────┘
       merge_gap_seconds after the last window that held (ended: end)

In QUIET, `on` counts only once cool_down_seconds have passed since the last event's end, unless that event
ended by its length and the label has not fallen below `off` since. A crossing that falls again within the
cool-down is counted as suppressed. No score for longer than a window is silence: the mean begins anew,
a candidate falls, an open event fades. Time that an idle gate left out is no silence: nothing moved, so what held
before it held until its end, from where merge_gap_seconds count. An event starts where its first window starts, the
one in which the smoothed score first reached `on`; it ends where the last window ends that held.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from monitor.config import EventsConfig
from monitor.records import ChangeReason, EventChange, Phase, Score, Threshold, Window

PEAK_STEP = 0.05
"""An update tells of a new peak when it is higher by this."""
ROUNDING_SECONDS = 1e-6
"""Seconds since 1970 as float are good to 2.4e-7."""
ROUNDING_SCORE = 1e-9

SHORT = "short"
"""Suppressed: it fell before it had held `minimum_seconds`."""
COOL_DOWN = "cool_down"
"""Suppressed: it came and went within `cool_down_seconds` of the last event's end."""


class _Stage(Enum):
    QUIET = auto()
    CANDIDATE = auto()
    OPEN = auto()
    FADING = auto()


@dataclass(slots=True)
class _Event:
    """An event that is a candidate, open or fading."""

    started_seconds: float
    first_end_seconds: float
    last_held: Score
    held_until_seconds: float
    """End of the last window that held, and of the time behind it that an idle gate left out."""
    peak_score: float
    peak_seconds: float
    sequence: int = 0
    said_seconds: float = 0.0
    """When the last change was told."""
    said_peak: float = 0.0
    """The peak that the last change told."""
    said_leads: bool = True
    """Whether the last change told it as the highest of the watched labels."""


@dataclass(slots=True)
class _Track:
    """Where one watched label stands."""

    label: str
    index: int
    """Of the label among the bundle's."""
    threshold: Threshold
    recent: deque[float]
    smoothed: float = 0.0
    stage: _Stage = _Stage.QUIET
    event: _Event | None = None
    ended_seconds: float | None = None
    """End of the last event, for the cool-down."""
    goes_on: bool = False
    """The last event ended by its length, and the label has not fallen below `off` since."""
    held_back: bool = False
    """The label has reached `on` within the cool-down and not fallen below `off` since."""

    def smooth(self, score: Score) -> None:
        self.recent.append(float(score.probabilities[self.index]))
        self.smoothed = sum(self.recent) / len(self.recent)


class Tracker:
    """The events of one camera.

    Args:
        camera: the camera's id.
        labels: all labels of the bundle, in its order.
        thresholds: of the watched labels alone.
        rules: smoothing, lengths and gaps.

    Raises:
        ValueError: a threshold is for none of the labels.
    """

    def __init__(
        self, camera: str, *, labels: tuple[str, ...], thresholds: Mapping[str, Threshold], rules: EventsConfig
    ) -> None:
        self._camera = camera
        self._rules = rules
        self._tracks = self._tracks_of(labels, thresholds)
        self._suppressed: Counter[str] = Counter()
        self._last_end: float | None = None

    @property
    def active(self) -> int:
        """How many events have started and not ended."""
        return sum(track.stage in (_Stage.OPEN, _Stage.FADING) for track in self._tracks)

    @property
    def suppressed(self) -> Mapping[str, int]:
        """Events not told, by reason: `short`, `cool_down`. Totals."""
        return {SHORT: self._suppressed[SHORT], COOL_DOWN: self._suppressed[COOL_DOWN]}

    def watched_in(self, score: Score) -> dict[str, float]:
        """Return the probabilities of the watched labels in a window."""
        return {track.label: float(score.probabilities[track.index]) for track in self._tracks}

    def observe(self, score: Score) -> list[EventChange]:
        """Take the next score of the camera and return what it changes, in the order of the labels.

        A window that has already been seen changes nothing. One that lies before the last means that the clock
        was set back: what is open ends, and the camera begins anew.
        """
        if self._last_end == score.window.end_seconds:
            return []
        changes = self._after_clock_set_back(score.window)
        if self._last_end is not None:
            self._pass(self._last_end, score.window)
        self._last_end = score.window.end_seconds
        for track in self._tracks:
            track.smooth(score)
        for track in self._tracks:
            changes += self._step(track, score)
        return changes

    def watch_for(
        self, labels: tuple[str, ...], thresholds: Mapping[str, Threshold], *, at_seconds: float
    ) -> list[EventChange]:
        """Go on with the labels of another model, or with other thresholds; events of labels that stay go on.

        Smoothing begins anew, since the scores of two models do not mix.

        Args:
            labels: all labels of the bundle, in its order.
            thresholds: of the watched labels alone.
            at_seconds: when this was decided, in the time of the samples.

        Returns:
            The ends of events whose labels are watched no longer.

        Raises:
            ValueError: a threshold is for none of the labels.
        """
        before = {track.label: track for track in self._tracks}
        tracks = self._tracks_of(labels, thresholds)
        changes = [
            self._ended(track, ChangeReason.LABEL_REMOVED, None, at_seconds)
            for label, track in before.items()
            if label not in thresholds and track.stage in (_Stage.OPEN, _Stage.FADING)
        ]
        for track in tracks:
            if (old := before.get(track.label)) is not None:
                track.stage, track.event, track.ended_seconds = old.stage, old.event, old.ended_seconds
                track.goes_on, track.held_back = old.goes_on, old.held_back
        self._tracks = tracks
        return changes

    def end(self, reason: ChangeReason, at_seconds: float) -> list[EventChange]:
        """End every open event, because the camera is lost or the monitor stops.

        Args:
            reason: told with each end.
            at_seconds: when this was decided, in the time of the samples.
        """
        changes = []
        for track in self._tracks:
            if track.stage in (_Stage.OPEN, _Stage.FADING):
                changes.append(self._ended(track, reason, None, at_seconds))
            self._silence(track)
            track.recent.clear()
        return changes

    def _tracks_of(self, labels: tuple[str, ...], thresholds: Mapping[str, Threshold]) -> list[_Track]:
        unknown = set(thresholds) - set(labels)
        if unknown:
            raise ValueError(f"thresholds for {sorted(unknown)}, which are not among the labels {list(labels)}")
        return [
            _Track(label, index, thresholds[label], deque(maxlen=self._rules.smoothing_windows))
            for index, label in enumerate(labels)
            if label in thresholds
        ]

    def _after_clock_set_back(self, window: Window) -> list[EventChange]:
        if self._last_end is None or window.end_seconds > self._last_end:
            return []
        changes = self.end(ChangeReason.END, at_seconds=self._last_end)
        self._last_end = None
        for track in self._tracks:
            track.ended_seconds = None
        return changes

    def _pass(self, last_end: float, window: Window) -> None:
        """Note what lies between the last window and this one: silence, or time that an idle gate left out."""
        silent = window.start_seconds - window.idle_seconds - last_end > ROUNDING_SECONDS
        for track in self._tracks:
            if silent:
                track.recent.clear()
                self._silence(track)
            elif track.stage is _Stage.OPEN:
                _event_of(track).held_until_seconds = last_end + window.idle_seconds

    def _silence(self, track: _Track) -> None:
        """Let a label fall below `off`."""
        track.goes_on = False
        if track.held_back:
            track.held_back = False
            self._suppressed[COOL_DOWN] += 1
        if track.stage is _Stage.CANDIDATE:
            track.stage, track.event = _Stage.QUIET, None
            self._suppressed[SHORT] += 1
        elif track.stage is _Stage.OPEN:
            track.stage = _Stage.FADING

    def _step(self, track: _Track, score: Score) -> list[EventChange]:
        if track.smoothed < track.threshold.off:
            self._silence(track)
        match track.stage:
            case _Stage.QUIET:
                return self._begin(track, score)
            case _Stage.CANDIDATE:
                return self._confirm(track, score)
            case _Stage.OPEN:
                return self._extend(track, score)
            case _Stage.FADING:
                return self._fade(track, score)

    def _begin(self, track: _Track, score: Score) -> list[EventChange]:
        """QUIET: make a candidate of a label that reaches `on` outside the cool-down."""
        if track.smoothed < track.threshold.on:
            return []
        if self._cools_down(track, score.window.end_seconds):
            track.held_back = True
            return []
        track.held_back = False
        track.event = _Event(
            started_seconds=score.window.start_seconds,
            first_end_seconds=score.window.end_seconds,
            last_held=score,
            held_until_seconds=score.window.end_seconds,
            peak_score=track.smoothed,
            peak_seconds=_most_attended_seconds(score),
        )
        track.stage = _Stage.CANDIDATE
        return self._confirm(track, score)

    def _cools_down(self, track: _Track, now: float) -> bool:
        if track.ended_seconds is None or track.goes_on:
            return False
        return now - track.ended_seconds < self._rules.cool_down_seconds - ROUNDING_SECONDS

    def _confirm(self, track: _Track, score: Score) -> list[EventChange]:
        """CANDIDATE: tell the start once it has held for the minimum."""
        event = _event_of(track)
        _hold(event, track, score)
        held = score.window.end_seconds - event.first_end_seconds
        if held < self._rules.minimum_seconds - ROUNDING_SECONDS:
            return []
        track.stage = _Stage.OPEN
        return [self._change(track, Phase.STARTED, None, score, score.window.end_seconds)]

    def _extend(self, track: _Track, score: Score) -> list[EventChange]:
        """OPEN, and it holds: prolong it, or end it at its longest."""
        event = _event_of(track)
        if score.window.end_seconds - event.started_seconds > self._rules.maximum_seconds + ROUNDING_SECONDS:
            ended = self._ended(track, ChangeReason.MAX_LENGTH, score, score.window.end_seconds)
            track.goes_on = True
            return [ended, *self._begin(track, score)]
        track.stage = _Stage.OPEN
        _hold(event, track, score)
        return self._update(track, score)

    def _fade(self, track: _Track, score: Score) -> list[EventChange]:
        """FADING: wait for its return, or end it."""
        event = _event_of(track)
        now = score.window.end_seconds
        if now - event.held_until_seconds > self._rules.merge_gap_seconds + ROUNDING_SECONDS:
            return [self._ended(track, ChangeReason.END, score, now), *self._begin(track, score)]
        if track.smoothed < track.threshold.on:
            return []
        return self._extend(track, score)

    def _update(self, track: _Track, score: Score) -> list[EventChange]:
        """Tell of a higher peak or of another leading label, when the last change is long enough ago."""
        event = _event_of(track)
        now = score.window.end_seconds
        if now - event.said_seconds < self._rules.update_seconds - ROUNDING_SECONDS:
            return []
        if self._leads(track) != event.said_leads:
            return [self._change(track, Phase.UPDATED, ChangeReason.CLASS, score, now)]
        if event.peak_score - event.said_peak >= PEAK_STEP - ROUNDING_SCORE:
            return [self._change(track, Phase.UPDATED, ChangeReason.PEAK, score, now)]
        return []

    def _leads(self, track: _Track) -> bool:
        """Whether no other watched label's smoothed score is higher."""
        return all(other.smoothed <= track.smoothed for other in self._tracks)

    def _ended(self, track: _Track, reason: ChangeReason, score: Score | None, now: float) -> EventChange:
        """End a label's event; without a deciding score its last that held stands for it."""
        last_held = _event_of(track).last_held
        change = self._change(track, Phase.ENDED, reason, score or last_held, now)
        track.stage, track.event = _Stage.QUIET, None
        track.ended_seconds = last_held.window.end_seconds
        return change

    def _change(
        self, track: _Track, phase: Phase, reason: ChangeReason | None, score: Score, now: float
    ) -> EventChange:
        event = _event_of(track)
        change = EventChange(
            camera=self._camera,
            label=track.label,
            phase=phase,
            reason=reason,
            sequence=event.sequence,
            started_seconds=event.started_seconds,
            changed_seconds=now,
            ended_seconds=event.last_held.window.end_seconds if phase is Phase.ENDED else None,
            smoothed_score=track.smoothed,
            peak_score=event.peak_score,
            peak_seconds=event.peak_seconds,
            threshold=track.threshold,
            score=score,
        )
        event.sequence += 1
        event.said_seconds, event.said_peak, event.said_leads = now, event.peak_score, self._leads(track)
        return change


def _event_of(track: _Track) -> _Event:
    """Return the event of a label that is not QUIET."""
    if track.event is None:
        raise AssertionError(f"label {track.label} is {track.stage.name} without an event")
    return track.event


def _hold(event: _Event, track: _Track, score: Score) -> None:
    """Note that the event holds in a window."""
    event.last_held, event.held_until_seconds = score, score.window.end_seconds
    if track.smoothed > event.peak_score:
        event.peak_score = track.smoothed
        event.peak_seconds = _most_attended_seconds(score)


def _most_attended_seconds(score: Score) -> float:
    """Return the time of the frame with the largest attention, averaged over the hops; a gap has no frame."""
    attention = np.where(score.window.mask, score.attention_per_slot, -1.0)
    seconds = score.window.frame_seconds[int(attention.argmax())]
    return score.window.end_seconds if seconds is None else seconds
