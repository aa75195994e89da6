"""A change in an event's life in, the alert message that tells of it out: JSON value and CloudEvents headers.

The message is version 1 and grows only by additions. Pure: whoever calls says what time it is, so a replay gives the
same bytes each time. The envelope is CloudEvents 1.0 in Kafka's binary mode: attributes are headers `ce_…`, the value
is the JSON message alone. `traceparent` is a header of W3C Trace Context; its trace is the alert, so every message of
one alert belongs to one trace.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import numpy as np
from cloudevents.core.bindings.kafka import to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema

from monitor.events.evidence import NO_LINKS, EvidenceLinks, most_attended
from monitor.records import (
    Alert,
    ChangeReason,
    ClockSource,
    EventChange,
    FailureReason,
    HealthChange,
    HealthState,
    Phase,
    Score,
)

ALERT_NAMESPACE = uuid.UUID("1632a58e-e0aa-5047-bf78-934244caad02")
"""Namespace of the alert ids (UUIDv5, RFC 9562); fixed for ever, or replicas would disagree."""
SCHEMA_ID = "urn:video-event-monitor:schema:alert:v1"
HEALTH_SCHEMA_ID = "urn:video-event-monitor:schema:camera:v1"
SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
CONTENT_TYPE = "application/json"
EVIDENCE_FRAMES = 96
"""Frames told in the evidence at most, the most attended ones: keeps a message of the longest window under 8 KB."""
WITHOUT_FRAME = frozenset(
    {
        ChangeReason.CAMERA_LOST,
        ChangeReason.SHUTDOWN,
        ChangeReason.RECOVERED,
        ChangeReason.CAMERA_REMOVED,
        ChangeReason.LABEL_REMOVED,
    }
)
"""Reasons of messages that no frame decided: they have no latency from a frame."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertContext:
    """What an alert says besides the event itself; one for each camera."""

    camera: str
    camera_name: str
    site: str
    tags: tuple[str, ...]
    model: str
    model_version: str
    model_sha256: str
    engine: str
    precision: str
    instance: str
    version: str
    """Of the program."""
    topic: str
    """Of the alerts."""
    health_topic: str
    """Of the messages on the camera's health."""
    replayed: bool = False


def alert_id(camera: str, label: str, started_seconds: float) -> str:
    """Return the id of an event's alert: UUIDv5 of camera, label and start in integer milliseconds."""
    return str(uuid.uuid5(ALERT_NAMESPACE, f"{camera}/{label}/{_milliseconds(started_seconds)}"))


def compose(
    change: EventChange,
    context: AlertContext,
    *,
    decided_seconds: float,
    published_seconds: float,
    links: EvidenceLinks = NO_LINKS,
) -> Alert:
    """Make the alert that tells of `change`.

    Args:
        change: what the tracker said.
        context: what the message says besides.
        decided_seconds: when it was decided, on the same clock as the samples' `received_seconds`.
        published_seconds: when the message is handed to the outbox.
        links: where its evidence is found.
    """
    by_frame = change.reason not in WITHOUT_FRAME
    received = change.score.window.received_seconds
    latency = round(decided_seconds - received, 3) if by_frame else None
    message = AlertMessage(
        alert_id=alert_id(change.camera, change.label, change.started_seconds),
        sequence=change.sequence,
        phase=change.phase,
        reason=change.reason,
        camera=_camera(context),
        event=EventPart(
            label=change.label,
            score=_share(change.smoothed_score),
            peak_score=_share(change.peak_score),
            threshold_on=_share(change.threshold.on),
            threshold_off=_share(change.threshold.off),
        ),
        time=_time(change, published_seconds),
        evidence=_evidence(change.score, links),
        model=ModelPart(
            name=context.model,
            version=context.model_version,
            sha256=context.model_sha256,
            engine=context.engine,
            precision=context.precision,
        ),
        pipeline=PipelinePart(
            instance=context.instance,
            version=context.version,
            latency_seconds=LatencyPart(capture_to_decision=latency),
            replayed=context.replayed,
        ),
    )
    return _enveloped(
        message,
        occurred=_moment(change.changed_seconds),
        received_seconds=received if by_frame else decided_seconds,
        topic=context.topic,
    )


def recovered(last: Alert, *, published_seconds: float) -> Alert:
    """Make the end of an alert that a crash left open, out of the last message that was said of it.

    The event ends where that message's window ended: what came after, nobody has seen.
    """
    said = AlertMessage.model_validate_json(last.value)
    ended = said.time.ended_at or said.time.window_end
    length = (datetime.fromisoformat(ended) - datetime.fromisoformat(said.time.started_at)).total_seconds()
    time = said.time.model_copy(
        update={"ended_at": ended, "duration_seconds": length, "published_at": rfc3339(published_seconds)}
    )
    pipeline = said.pipeline.model_copy(update={"latency_seconds": LatencyPart(capture_to_decision=None)})
    message = said.model_copy(
        update={
            "sequence": said.sequence + 1,
            "phase": Phase.ENDED,
            "reason": ChangeReason.RECOVERED,
            "time": time,
            "pipeline": pipeline,
        }
    )
    return _enveloped(
        message,
        occurred=datetime.fromisoformat(ended),
        received_seconds=published_seconds,
        topic=last.topic,
    )


def compose_health(change: HealthChange, context: AlertContext, *, published_seconds: float) -> Alert:
    """Make the message that tells of a change of a camera's health, in the same envelope.

    It is one message, complete: its phase is `ended`, so that nothing waits for its end.
    """
    message_id = str(
        uuid.uuid5(
            ALERT_NAMESPACE, f"{change.camera}/health/{change.state.value}/{_milliseconds(change.since_seconds)}"
        )
    )
    message = HealthMessage(
        message_id=message_id,
        state=change.state,
        previous=change.previous,
        reason=change.reason,
        detail=change.detail,
        camera=_camera(context),
        time=HealthTimePart(
            since_at=rfc3339(change.since_seconds),
            decided_at=rfc3339(change.changed_seconds),
            published_at=rfc3339(published_seconds),
        ),
        pipeline=HealthPipelinePart(instance=context.instance, version=context.version),
    )
    headers, value = _envelope(
        message.model_dump_json(),
        event_id=message_id,
        kind=f"monitor.camera.{change.state.value}.v1",
        camera=change.camera,
        schema=HEALTH_SCHEMA_ID,
        occurred=_moment(change.changed_seconds),
        traceparent=_traceparent(message_id, 0),
    )
    return Alert(
        alert_id=message_id,
        sequence=0,
        camera=change.camera,
        label="",
        phase=Phase.ENDED,
        received_seconds=change.changed_seconds,
        topic=context.health_topic,
        headers=headers,
        value=value,
    )


def rfc3339(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC with milliseconds."""
    return _moment(seconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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


def _camera(context: AlertContext) -> CameraPart:
    return CameraPart(id=context.camera, name=context.camera_name, site=context.site, tags=context.tags)


def _time(change: EventChange, published_seconds: float) -> TimePart:
    window = change.score.window
    until = window.end_seconds if change.ended_seconds is None else change.ended_seconds
    return TimePart(
        started_at=rfc3339(change.started_seconds),
        peak_at=rfc3339(change.peak_seconds),
        ended_at=None if change.ended_seconds is None else rfc3339(change.ended_seconds),
        duration_seconds=round(until - change.started_seconds, 3),
        window_start=rfc3339(window.start_seconds),
        window_end=rfc3339(window.end_seconds),
        received_at=rfc3339(window.received_seconds),
        published_at=rfc3339(published_seconds),
        clock=_clock(change.score),
    )


def _clock(score: Score) -> ClockPart:
    newest = max((seconds for seconds in score.window.frame_seconds if seconds is not None), default=None)
    if score.window.camera_seconds is None or newest is None:
        return ClockPart(source=ClockSource.HOST, skew_seconds=None)
    return ClockPart(source=ClockSource.RTCP, skew_seconds=round(score.window.camera_seconds - newest, 3))


def _evidence(score: Score, links: EvidenceLinks) -> EvidencePart:
    window, weights = score.window, score.attention_per_slot
    held = [(slot, seconds) for slot, seconds in enumerate(window.frame_seconds) if seconds is not None]
    chosen = most_attended(score)
    attended_seconds = None if chosen is None else window.frame_seconds[chosen]
    told = sorted(sorted(held, key=lambda frame: -weights[frame[0]])[:EVIDENCE_FRAMES])
    return EvidencePart(
        frame_times=tuple(rfc3339(seconds) for _, seconds in told),
        attention=tuple(_share(weights[slot]) for slot, _ in told),
        most_attended_at=rfc3339(window.end_seconds if attended_seconds is None else attended_seconds),
        coverage=_share(window.coverage),
        degraded=window.degraded,
        snapshot=links.snapshot,
        strip=links.strip,
        clip=links.clip,
    )


def _enveloped(message: AlertMessage, *, occurred: datetime, received_seconds: float, topic: str) -> Alert:
    """Put an alert message into its envelope."""
    headers, value = _envelope(
        message.model_dump_json(),
        event_id=f"{message.alert_id}:{message.sequence}",
        kind=f"monitor.alert.{message.phase.value}.v1",
        camera=message.camera.id,
        schema=SCHEMA_ID,
        occurred=occurred,
        traceparent=_traceparent(message.alert_id, message.sequence),
    )
    return Alert(
        alert_id=message.alert_id,
        sequence=message.sequence,
        camera=message.camera.id,
        label=message.event.label,
        phase=message.phase,
        received_seconds=received_seconds,
        topic=topic,
        headers=headers,
        value=value,
    )


def _envelope(
    message: str, *, event_id: str, kind: str, camera: str, schema: str, occurred: datetime, traceparent: str
) -> tuple[tuple[tuple[str, bytes], ...], bytes]:
    """Return headers and value of a CloudEvent in binary mode.

    `ce_source` names the camera and not the instance: CloudEvents tells events apart by source and id, and a second
    replica that says the same must be recognised as the same. The instance stands in the message.
    """
    event = CloudEvent(
        attributes={
            "id": event_id,
            "source": f"/monitor/cameras/{camera}",
            "type": kind,
            "specversion": "1.0",
            "subject": camera,
            "time": occurred,
            "dataschema": schema,
            "datacontenttype": CONTENT_TYPE,
        },
        data=message.encode(),
    )
    envelope = to_binary(event, JSONFormat())
    return (*sorted(envelope.headers.items()), ("traceparent", traceparent.encode())), bytes(envelope.value)


def _traceparent(alert: str, sequence: int) -> str:
    """Return W3C Trace Context: the alert is the trace, the message the span; sampled, since alerts are few."""
    span = hashlib.sha256(f"{alert}:{sequence}".encode()).hexdigest()[:16]
    return f"00-{uuid.UUID(alert).hex}-{span}-01"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _moment(seconds: float) -> datetime:
    return EPOCH + timedelta(milliseconds=_milliseconds(seconds))


def _share(value: float | np.float32) -> float:
    """Round a probability or weight to four decimals, within 0 and 1: float32 sums may step over by a hair."""
    return min(1.0, max(0.0, round(float(value), 4)))
