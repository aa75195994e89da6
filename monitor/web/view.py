"""What the running monitor lets be seen: the records that pages and API are made of, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from monitor.records import CameraState, FailureReason, HealthState, Threshold


@dataclass(frozen=True, slots=True)
class Health:
    """An answer to a probe."""

    ok: bool
    parts: Mapping[str, str] = field(default_factory=dict)
    """Part of the program to one line on it."""


@dataclass(frozen=True, slots=True)
class CameraView:
    """One camera as it stands."""

    id: str
    name: str
    site: str
    state: CameraState = CameraState.CONNECTING
    reason: FailureReason | None = None
    detail: str = ""
    since_seconds: float | None = None
    samples: int = 0
    last_frame_seconds: float | None = None
    active_events: int = 0
    health: HealthState | None = None
    """As it was told last; None before anything was."""
    watched: Mapping[str, Threshold] = field(default_factory=dict)
    """The labels that are watched for, with their thresholds."""

    @property
    def condition(self) -> str:
        """One word for a person: the connection's state, or what is wrong with the picture that comes."""
        if self.state is CameraState.ONLINE and self.health in (HealthState.FROZEN, HealthState.DARK):
            return self.health.value
        return self.state.value


@dataclass(frozen=True, slots=True)
class MonitorView:
    """The monitor behind the cameras as it stands."""

    instance: str = ""
    version: str = ""
    model: str = ""
    """Name of the model that serves; empty before one does."""
    model_version: str = ""
    engine: str = ""
    precision: str = ""
    labels: tuple[str, ...] = ()
    """What it can tell; without the background."""
    window_slots: int = 0
    waiting_alerts: int | None = None
    """Alerts that Kafka has not acknowledged; None while that is not known."""
    kafka: str | None = None
    """connected, unreachable or refused; None where it is not configured."""
    trouble: str = ""
    """One line on what is wrong with outbox or Kafka; empty when all is well."""


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts are wanted; what is None does not matter."""

    camera: str | None = None
    label: str | None = None
    since_seconds: float | None = None
    """Begun at this time or later; seconds since the epoch."""
    until_seconds: float | None = None
    """Begun before this time."""


@dataclass(frozen=True, slots=True)
class AlertView:
    """One alert: the newest of its messages."""

    position: int
    """Of its first message in the store: newer alerts have greater ones."""
    message: Mapping[str, Any]


class View(Protocol):
    """The running monitor. Every method may be called from any thread."""

    def live(self) -> Health:
        """Whether the process does its work; false means: restart it. A lost camera never is a reason."""
        ...

    def ready(self) -> Health:
        """Whether events are recognised and kept; false means: look at it."""
        ...

    def metrics(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        ...

    def monitor(self) -> MonitorView:
        """Return model, engine and delivery as they stand."""
        ...

    def cameras(self) -> Sequence[CameraView]:
        """Return each camera as it stands, in the order of the configuration."""
        ...

    def alerts(self, wanted: AlertFilter, *, limit: int, before: int | None = None) -> Sequence[AlertView]:
        """Return the newest alerts, newest first; of those before a position where one is given."""
        ...

    def alert(self, alert_id: str) -> Sequence[Mapping[str, Any]]:
        """Return the messages of one alert in their order; none where it is not known."""
        ...

    def media(self, name: str) -> Path | None:
        """Return a file of evidence; None where there is none of that name."""
        ...
