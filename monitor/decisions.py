"""Scores and camera states in, committed alerts out: the one thread that decides and writes to the outbox.

The order is kept: a camera's scores and its changes of state are handled as they came. An alert counts as said
only after its commit; while the outbox cannot be written, alerts wait here, in order, and the live path goes on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from monitor.bundle import Manifest
from monitor.config import CameraConfig, EventsConfig, EvidenceConfig, HealthConfig
from monitor.deadline import Deadline
from monitor.delivery.outbox import Outbox
from monitor.errors import OutboxFull, OutboxUnavailable, StopTimedOut
from monitor.events.alerts import AlertContext, alert_id, compose, compose_health
from monitor.events.evidence import NO_LINKS, links_of, requests_for
from monitor.events.health import HealthTracker
from monitor.events.tracker import Tracker
from monitor.records import (
    Alert,
    CameraState,
    CameraStatus,
    CaptureCounts,
    ChangeReason,
    EventChange,
    EvidenceRequest,
    HealthChange,
    Phase,
    Score,
    Threshold,
)

INBOX_RECORDS = 4096
"""Scores and states that may wait. When full, the scoring thread waits: nothing is dropped here."""
UNSAID_ALERTS = 10_000
"""Alerts that may wait for a broken outbox; beyond it the oldest updates go first, then the newest alert."""
TICK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Decision:
    """What deciding on one score led to; for metrics and logs."""

    score: Score
    """What was decided on."""
    model: str
    """Name and version of the model that scored it."""
    changes: tuple[EventChange, ...]
    seconds: float
    """Time the tracker took."""
    capture_to_decision_seconds: float
    suppressed: Mapping[str, int]
    """Events not told, by reason, since the camera's last decision."""
    watched: Mapping[str, float] = field(default_factory=dict)
    """Probability of each label that is watched for."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Probability of each label of the model but its background, watched for or not."""

    @property
    def camera(self) -> str:
        """The camera whose window it was."""
        return self.score.window.camera


@dataclass(frozen=True, slots=True)
class Commitment:
    """What writing alerts to the outbox led to."""

    said: tuple[Alert, ...] = ()
    refused: tuple[Alert, ...] = ()
    """Alerts for which a full outbox had no room."""
    unsaid: int = 0
    """Alerts that wait for the outbox to work again."""
    seconds: float = 0.0
    error: str = ""


def thresholds_of(camera: CameraConfig, events: EventsConfig, manifest: Manifest) -> dict[str, Threshold]:
    """Return the watched labels of a camera with their thresholds: camera before events before model.

    A label that this model does not have is left out: it is one of the model that is about to take over.
    """
    watched = camera.labels or manifest.event_labels
    return {
        label: (camera.thresholds.get(label) or events.thresholds.get(label) or manifest.thresholds[label]).record()
        for label in watched
        if label in manifest.thresholds
    }


@dataclass(frozen=True, slots=True)
class EvidenceDesk:
    """Where clips and pictures of events are asked for."""

    settings: EvidenceConfig
    longest_seconds: float
    """How long an event may last."""
    keep: Callable[[EvidenceRequest], None]
    """Takes the requests."""


@dataclass(frozen=True, slots=True)
class Watch:
    """From here on a camera is decided on: a new one, or one of which something has changed."""

    camera: str
    labels: tuple[str, ...]
    """All labels of the model, in its order."""
    thresholds: Mapping[str, Threshold]
    """Of the watched labels alone."""
    context: AlertContext
    rules: EventsConfig
    health: HealthConfig
    blind_after_seconds: float
    """How long it may go without a score before its open events end: what is not seen has no end."""
    background: str = ""
    """The label among them that means "nothing happens"."""

    def scores_of(self, score: Score) -> dict[str, float]:
        """Return the probability of each label but the background."""
        named = dict(zip(self.labels, map(float, score.probabilities), strict=True))
        return {label: probability for label, probability in named.items() if label != self.background}


@dataclass(frozen=True, slots=True)
class Unwatch:
    """From here on a camera is decided on no longer; its open events end."""

    camera: str


Record = Score | CameraStatus | CaptureCounts | Watch | Unwatch


@dataclass(slots=True)
class _Watched:
    """What is kept for one camera."""

    tracker: Tracker
    health: HealthTracker
    watch: Watch
    lost_since: float | None = None
    scored_seconds: float = 0.0
    """When its last score came, on the monotonic clock."""
    suppressed: dict[str, int] = field(default_factory=dict)

    @property
    def context(self) -> AlertContext:
        return self.watch.context


class Decider:
    """Owns the deciding thread.

    Args:
        outbox: where alerts are committed.
        on_decision: told after each score.
        on_commitment: told after each attempt to commit.
        on_failure: told of the first unexpected error; the thread has ended then.
        lost_after_seconds: how long a camera may be away before its open events end with `camera_lost`.
        on_health: told of each change of a camera's health, before its message is committed.
        evidence: where clips and pictures of the events are asked for; None: nowhere, and no message has links.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        on_decision: Callable[[Decision], None],
        on_commitment: Callable[[Commitment], None],
        on_failure: Callable[[BaseException], None],
        lost_after_seconds: float,
        on_health: Callable[[HealthChange], None] = lambda _change: None,
        evidence: EvidenceDesk | None = None,
    ) -> None:
        self._outbox = outbox
        self._on_decision = on_decision
        self._on_commitment = on_commitment
        self._on_failure = on_failure
        self._on_health = on_health
        self._lost_after_seconds = lost_after_seconds
        self._evidence = evidence
        self._inbox: queue.Queue[Record] = queue.Queue(INBOX_RECORDS)
        self._watched: dict[str, _Watched] = {}
        self._unsaid: list[Alert] = []
        self._next_look = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def watch(self, watch: Watch) -> None:
        """Begin to decide on a camera; before `start`. Later, `put` it: it takes effect in order with the scores."""
        self._watch(watch)

    def put(self, record: Record) -> None:
        """Hand over a record; waits while the inbox is full, so that nothing is dropped.

        Records of a camera that is not watched are ignored: they were on their way as it was taken away.
        """
        while not self._stopping.is_set() and self._thread.is_alive():
            try:
                self._inbox.put(record, timeout=TICK_SECONDS)
            except queue.Full:
                continue
            return

    def say(self, alerts: Sequence[Alert]) -> None:
        """Commit alerts that need no decision (those recovered at start); before `start`."""
        self._say(alerts)

    def stop(self, deadline: Deadline) -> None:
        """Decide on what waits, end the open events with reason `shutdown`, commit, and end the thread.

        Raises:
            StopTimedOut: the thread did not end in time.
        """
        self._stopping.set()
        if not self._thread.ident:
            return
        self._thread.join(deadline.remaining())
        if self._thread.is_alive():
            raise StopTimedOut("decisions did not stop in time")

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def unsaid(self) -> int:
        """How many alerts wait for the outbox to work again; lost when the process ends now."""
        return len(self._unsaid)

    def watches(self, cameras: Sequence[str]) -> bool:
        """Whether one of these cameras is decided on."""
        return any(camera in self._watched for camera in cameras)

    def active_events(self) -> dict[str, int]:
        """Return how many events go on, by camera."""
        return {camera: watched.tracker.active for camera, watched in self._watched.copy().items()}

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() or not self._inbox.empty():
                self._step()
            self._end_all(ChangeReason.SHUTDOWN)
        except Exception as exc:  # the top of the thread: the service stops in order and exits with this error
            self._on_failure(exc)

    def _step(self) -> None:
        try:
            record = self._inbox.get(timeout=TICK_SECONDS)
        except queue.Empty:
            record = None
        if record is not None:
            self._handle(record)
        if time.monotonic() >= self._next_look:
            self._look_around(time.time())
            self._next_look = time.monotonic() + TICK_SECONDS

    def _handle(self, record: Record) -> None:
        if isinstance(record, Watch):
            self._watch(record)
            return
        watched = self._watched.get(record.window.camera if isinstance(record, Score) else record.camera)
        if watched is None:
            return
        match record:
            case Score():
                self._decide(record, watched)
            case CameraStatus():
                self._note_state(record, watched)
            case CaptureCounts():
                self._tell_health(watched, watched.health.note_counts(record, time.time()))
            case Unwatch():
                self._end(watched, ChangeReason.CAMERA_REMOVED)
                del self._watched[record.camera]

    def _watch(self, watch: Watch) -> None:
        """Take a camera in; one that is there keeps its health and the events of the labels that stay."""
        watched = self._watched.get(watch.camera)
        if watched is None:
            tracker = Tracker(watch.camera, labels=watch.labels, thresholds=watch.thresholds, rules=watch.rules)
            health = HealthTracker(watch.camera, watch.health)
            self._watched[watch.camera] = _Watched(tracker, health, watch)
            return
        now = time.time()
        changes = watched.tracker.watch_for(watch.labels, watch.thresholds, at_seconds=now)
        self._tell([(watched, changes)], now)
        watched.watch = watch

    def _look_around(self, now: float) -> None:
        """Do what is due by time alone."""
        for watched in self._watched.values():
            self._tell_health(watched, watched.health.note_time(now))
            lost = watched.lost_since is not None and now - watched.lost_since >= self._lost_after_seconds
            blind = time.monotonic() - watched.scored_seconds >= watched.watch.blind_after_seconds
            if watched.tracker.active and (lost or blind):
                self._end(watched, ChangeReason.CAMERA_LOST)
        if self._unsaid:
            self._commit()

    def _tell_health(self, watched: _Watched, changes: Sequence[HealthChange]) -> None:
        for change in changes:
            self._on_health(change)
        self._say([compose_health(change, watched.context, published_seconds=time.time()) for change in changes])

    def _decide(self, score: Score, watched: _Watched) -> None:
        watched.scored_seconds = time.monotonic()
        began = time.perf_counter()
        changes = watched.tracker.observe(score)
        seconds = time.perf_counter() - began
        decided = time.time()
        self._tell([(watched, changes)], decided)
        self._on_decision(
            Decision(
                score=score,
                model=f"{watched.context.model} {watched.context.model_version}",
                changes=tuple(changes),
                seconds=seconds,
                capture_to_decision_seconds=decided - score.window.received_seconds,
                suppressed=self._newly_suppressed(watched),
                watched=watched.tracker.watched_in(score),
                scores=watched.watch.scores_of(score),
            )
        )

    @staticmethod
    def _newly_suppressed(watched: _Watched) -> dict[str, int]:
        now = dict(watched.tracker.suppressed)
        new = {reason: count - watched.suppressed.get(reason, 0) for reason, count in now.items()}
        watched.suppressed = now
        return {reason: count for reason, count in new.items() if count}

    @staticmethod
    def _note_connection(status: CameraStatus, watched: _Watched) -> None:
        if status.state is CameraState.ONLINE:
            watched.lost_since = None
        elif watched.lost_since is None and status.state is not CameraState.CONNECTING:
            watched.lost_since = status.time_seconds

    def _note_state(self, status: CameraStatus, watched: _Watched) -> None:
        self._note_connection(status, watched)
        self._tell_health(watched, watched.health.note_status(status))

    def _end_all(self, reason: ChangeReason) -> None:
        now = time.time()
        self._tell([(each, each.tracker.end(reason, at_seconds=now)) for each in self._watched.values()], now)
        if self._unsaid:
            self._commit()

    def _end(self, watched: _Watched, reason: ChangeReason) -> None:
        now = time.time()
        self._tell([(watched, watched.tracker.end(reason, at_seconds=now))], now)

    def _tell(self, changed: Iterable[tuple[_Watched, Sequence[EventChange]]], now: float) -> None:
        """Say what is told of changes, all at once, then have their evidence made: no alert waits for a picture."""
        told = [
            (change, self._composed(change, watched.context, now)) for watched, changes in changed for change in changes
        ]
        self._say([alert for _, alert in told])
        desk = self._evidence
        if desk is None:
            return
        for change, alert in told:
            for request in requests_for(change, alert.alert_id, desk.settings, longest_seconds=desk.longest_seconds):
                desk.keep(request)

    def _composed(self, change: EventChange, context: AlertContext, now: float) -> Alert:
        links = NO_LINKS
        if self._evidence is not None:
            told_id = alert_id(change.camera, change.label, change.started_seconds)
            links = links_of(told_id, self._evidence.settings.base_url)
        return compose(change, context, decided_seconds=now, published_seconds=now, links=links)

    def _say(self, alerts: Sequence[Alert]) -> None:
        """Commit alerts; behind those that wait for a broken outbox, which is tried again by the tick alone."""
        waiting = bool(self._unsaid)
        self._unsaid.extend(alerts)
        if alerts and not waiting:
            self._commit()

    def _commit(self) -> None:
        """Write the waiting alerts, in order; keep them waiting when the outbox cannot be written."""
        began = time.perf_counter()
        taken, error = len(self._unsaid), ""
        refused: tuple[Alert, ...] = ()
        try:
            refused = self._outbox.commit(self._unsaid, now=time.time())
        except OutboxFull as exc:
            taken, refused, error = exc.taken, exc.refused, str(exc)
        except OutboxUnavailable as exc:
            taken, error = 0, str(exc)
        turned_away = {(alert.alert_id, alert.sequence) for alert in refused}
        said = tuple(alert for alert in self._unsaid[:taken] if (alert.alert_id, alert.sequence) not in turned_away)
        del self._unsaid[:taken]
        refused += self._make_room()
        self._on_commitment(
            Commitment(
                said=said,
                refused=refused,
                unsaid=len(self._unsaid),
                seconds=time.perf_counter() - began,
                error=error,
            )
        )

    def _make_room(self) -> tuple[Alert, ...]:
        """Drop what no longer fits in memory, updates before starts and ends; return it."""
        refused: list[Alert] = []
        while len(self._unsaid) > UNSAID_ALERTS:
            updates = (index for index, alert in enumerate(self._unsaid) if alert.phase is Phase.UPDATED)
            refused.append(self._unsaid.pop(next(updates, -1)))
        return tuple(refused)
