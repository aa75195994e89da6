"""The messages on an alert and on a camera's health: what they hold, and their JSON Schemas.

Version 1; it grows only by additions.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema

from monitor.records import ChangeReason, ClockSource, FailureReason, HealthState, Phase

SCHEMA_ID = "urn:video-event-monitor:schema:alert:v1"
HEALTH_SCHEMA_ID = "urn:video-event-monitor:schema:camera:v1"
SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339, UTC, with milliseconds: `2026-01-31T12:00:00.250Z`."""


class _Part(BaseModel):
    """Unknown keys are ignored when a message is read back: a newer version may have written it."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class CameraPart(_Part):
    """Which camera saw it."""

    id: str
    """The camera's id, also the record's key."""
    name: str
    """Its name, for people."""
    site: str
    """Where it hangs; may be empty."""
    tags: tuple[str, ...]
    """Free words from the configuration."""


class EventPart(_Part):
    """What was seen."""

    label: str
    """The model's label of the event."""
    score: Share
    """Smoothed probability at this message."""
    peak_score: Share
    """Highest smoothed probability so far."""
    threshold_on: Share
    """Probability at which an event begins."""
    threshold_off: Share
    """Probability under which it stops."""


class ClockPart(_Part):
    """How the times relate to the camera's own clock. All times of the message are the monitor's host's."""

    source: ClockSource
    """rtcp: the camera tells its clock (RTCP sender reports); host: it tells none."""
    skew_seconds: float | None
    """The camera's clock less the host's: add it to a time to get the camera's. Null where the camera tells none."""


class TimePart(_Part):
    """When. RFC 3339, UTC, milliseconds; in a replay counted from 1970-01-01T00:00:00Z, the video's beginning."""

    started_at: Timestamp
    """Start of the event's first window."""
    peak_at: Timestamp
    """The most attended frame of the window with the peak score."""
    ended_at: Timestamp | None
    """End of the last window that held; null while the event goes on."""
    duration_seconds: float
    """From `started_at` to `ended_at`, or to the end of this message's window while the event goes on."""
    window_start: Timestamp
    """Start of the window that decided this message."""
    window_end: Timestamp
    """Its end."""
    received_at: Timestamp
    """When that window's newest frame had arrived."""
    published_at: Timestamp
    """When the message was handed to the outbox; Kafka's own record time tells when it was sent."""
    clock: ClockPart
    """How the times relate to the camera's own clock."""


class EvidencePart(_Part):
    """Why: the frames that made the decision."""

    frame_times: tuple[Timestamp, ...]
    """Times of the window's frames, oldest first; gaps are left out, and of more than 96 the most attended are told."""
    attention: tuple[Share, ...]
    """Weight of each of these frames in the decision, hops merged; over all frames of the window they sum to 1."""
    most_attended_at: Timestamp
    """Time of the frame with the highest weight."""
    coverage: Share
    """Share of the window's slots that hold a frame."""
    degraded: bool
    """True when overload had lengthened the stride before this window."""
    snapshot: str | None
    """Link to the most attended frame of the window that started the event, as JPEG at full resolution; null where none
    is kept. Relative to the page unless configured otherwise. The file is there about a second after the message."""
    strip: str | None
    """Link to that window's frames with their attention drawn, as JPEG; null where none is kept."""
    clip: str | None
    """Link to the event's clip, MP4 with the camera's own H.264 or H.265; null where none is kept. Told from the start
    on, so that it stands even if the monitor dies; the file is there some seconds (its post-roll) after the end."""


class ModelPart(_Part):
    """Which model decided, and what ran it."""

    name: str
    """The bundle's name."""
    version: str
    """The bundle's version."""
    sha256: str
    """Checksum of the bundle's manifest, which holds those of its files."""
    engine: str
    """What ran it."""
    precision: str
    """In which number format."""


class LatencyPart(_Part):
    """How long it took."""

    capture_to_decision: float | None
    """Seconds from the arrival of the window's newest frame to the decision; null where no frame decided."""


class PipelinePart(_Part):
    """Which monitor said it."""

    instance: str
    """Name of the instance."""
    version: str
    """Version of the program."""
    latency_seconds: LatencyPart
    """How long it took."""
    replayed: bool
    """True when it comes from `monitor replay`, not from a live camera."""


class AlertMessage(_Part):
    """Tells of an event's start, update or end. Version 1: keys are only ever added."""

    alert_id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    """UUIDv5 of camera, label and start of the first window: equal on every replica and in every replay."""
    sequence: Annotated[int, Field(ge=0)]
    """0 for the start, greater with each later message of the alert; with `alert_id` it names the message."""
    phase: Phase
    """A moment in the event's life."""
    reason: ChangeReason | None
    """Why the event was updated or ended; null for a start."""
    camera: CameraPart
    """Which camera saw it."""
    event: EventPart
    """What was seen."""
    time: TimePart
    """When."""
    evidence: EvidencePart
    """Why."""
    model: ModelPart
    """Which model decided."""
    pipeline: PipelinePart
    """Which monitor said it."""


class HealthTimePart(_Part):
    """When. RFC 3339, UTC, milliseconds."""

    since_at: Timestamp
    """When the state began to hold."""
    decided_at: Timestamp
    """When it had held long enough to be told."""
    published_at: Timestamp
    """When the message was handed to the outbox."""


class HealthPipelinePart(_Part):
    """Which monitor said it."""

    instance: str
    """Name of the instance."""
    version: str
    """Version of the program."""


class HealthMessage(_Part):
    """Tells that a camera went offline, online, refused, frozen or dark. Version 1: keys are only ever added."""

    message_id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    """UUIDv5 of camera, state and the time since which it holds."""
    state: HealthState
    """How the camera is from now on."""
    previous: HealthState | None
    """What was told before; null for the first message of a run."""
    reason: FailureReason | None
    """Failure class, for offline and refused."""
    detail: str
    """One line for a person; holds no credentials."""
    camera: CameraPart
    """Which camera."""
    time: HealthTimePart
    """When."""
    pipeline: HealthPipelinePart
    """Which monitor said it."""


def alert_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the alert message."""
    return _schema(AlertMessage, SCHEMA_ID, "Alert of the video event monitor, version 1")


def health_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the message on a camera's health."""
    return _schema(HealthMessage, HEALTH_SCHEMA_ID, "Camera health of the video event monitor, version 1")


def _schema(message: type[_Part], schema_id: str, title: str) -> dict[str, Any]:
    schema = message.model_json_schema(mode="serialization", schema_generator=SchemaWithoutTitles)
    return {"$schema": SCHEMA_DIALECT, "$id": schema_id, **schema, "title": title}


def alert_schema_text() -> str:
    """Return the schema as the text of `schemas/alert.v1.schema.json`."""
    return json.dumps(alert_schema(), indent=2) + "\n"


def health_schema_text() -> str:
    """Return the schema as the text of `schemas/camera.v1.schema.json`."""
    return json.dumps(health_schema(), indent=2) + "\n"


class SchemaWithoutTitles(GenerateJsonSchema):
    """Leaves out the titles that only repeat a key's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Say no."""
        return False
