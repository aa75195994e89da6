"""The JSON that the API answers with. Times are seconds since the Unix epoch, UTC."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from monitor.records import CameraState, FailureReason, HealthState
from monitor.web.history import Scores
from monitor.web.view import AlertView, CameraView, MonitorView


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class HealthAnswer(_Answer):
    """An answer to a probe."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    ok: bool
    """Whether all is well; each further key is a part of the program with one line on it."""


class Refusal(_Answer):
    """Why there is no other answer."""

    detail: str
    """One line for a person."""


class ThresholdAnswer(_Answer):
    """Where an event begins and where it stops."""

    on: float
    off: float


class CameraAnswer(_Answer):
    """One camera as it stands."""

    id: str
    name: str
    site: str
    condition: str
    """One word for a person: a state, or frozen, or dark."""
    state: CameraState
    reason: FailureReason | None
    """Why it is offline or refused."""
    detail: str
    """One line for a person; empty when all is well."""
    since: float | None
    """When the state began."""
    last_frame: float | None
    """When the last frame was seen."""
    active_events: int
    health: HealthState | None
    """As it was told last; null before anything was."""
    thresholds: dict[str, ThresholdAnswer]
    """Of each label that is watched for."""

    @classmethod
    def of(cls, view: CameraView) -> CameraAnswer:
        """Return what is told of a camera."""
        return cls(
            id=view.id,
            name=view.name,
            site=view.site,
            condition=view.condition,
            state=view.state,
            reason=view.reason,
            detail=view.detail,
            since=view.since_seconds,
            last_frame=None if view.last_frame_seconds is None else round(view.last_frame_seconds, 1),
            active_events=view.active_events,
            health=view.health,
            thresholds={label: ThresholdAnswer(on=pair.on, off=pair.off) for label, pair in view.watched.items()},
        )


class CamerasAnswer(_Answer):
    """All cameras."""

    cameras: list[CameraAnswer]
    """In the order of the configuration."""


class MonitorAnswer(_Answer):
    """The monitor behind the cameras as it stands."""

    instance: str
    version: str
    model: str
    model_version: str
    engine: str
    precision: str
    labels: list[str]
    """What the model can tell; without the background."""
    window_slots: int
    waiting_alerts: int | None
    """Alerts that Kafka has not acknowledged; null while that is not known."""
    kafka: str | None
    """connected, unreachable or refused; null where it is not configured."""
    trouble: str
    """One line on what is wrong with outbox or Kafka; empty when all is well."""

    @classmethod
    def of(cls, view: MonitorView) -> MonitorAnswer:
        """Return what is told of the monitor."""
        return cls.model_validate(view, from_attributes=True)


class ScoresAnswer(_Answer):
    """Scored windows of one camera, oldest first; all lists but `labels` are of one length."""

    camera: str
    labels: list[str]
    window_seconds: float
    """Length of a window."""
    ends: list[float]
    """When each window ended."""
    scores: list[list[float]]
    """Probability of each label in each window."""
    attention: list[list[float]]
    """Weight of each slot of each window, oldest slot first."""

    @classmethod
    def of(cls, camera: str, scores: Scores | None) -> ScoresAnswer:
        """Return a camera's windows; none where it has not been scored yet."""
        if scores is None:
            return cls(camera=camera, labels=[], window_seconds=0.0, ends=[], scores=[], attention=[])
        return cls(
            camera=camera,
            labels=list(scores.labels),
            window_seconds=scores.window_seconds,
            ends=scores.ends.round(3).tolist(),
            scores=scores.probabilities.astype(float).round(4).tolist(),
            attention=scores.attention.astype(float).round(3).tolist(),
        )


class AllScoresAnswer(_Answer):
    """Scored windows of every camera that has any."""

    cameras: list[ScoresAnswer]


class AlertAnswer(_Answer):
    """One alert: the newest of its messages, and what there is to look at."""

    position: int
    """Its place in the store; `before` takes it."""
    message: dict[str, Any]
    """As it went to Kafka: schemas/alert.v1.schema.json."""
    evidence: list[str]
    """Paths of the files that are complete: snapshot, strip, clip."""


class AlertsAnswer(_Answer):
    """A page of alerts, newest first."""

    alerts: list[AlertAnswer]
    before: int | None = Field(description="Give this as `before` for the next page; null on the last.")


class AlertMessagesAnswer(_Answer):
    """Every message of one alert."""

    messages: list[dict[str, Any]]
    """In the order in which they were said."""
    evidence: list[str]
    """Paths of the files that are complete: snapshot, strip, clip."""


def alert_answer(view: AlertView, evidence: list[str]) -> AlertAnswer:
    """Return what is told of an alert."""
    return AlertAnswer(position=view.position, message=dict(view.message), evidence=evidence)
