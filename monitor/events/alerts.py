"""A change in an event's life in, the alert message that tells of it out: JSON value and CloudEvents headers.

Pure: whoever calls says what time it is, so a replay gives the same bytes each time. The envelope is CloudEvents 1.0 in
Kafka's binary mode: attributes are headers `ce_…`, the value is the JSON message alone. `traceparent` is a header of
W3C Trace Context; its trace is the alert, so every message of one alert belongs to one trace.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from cloudevents.core.bindings.kafka import to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from monitor.events.evidence import NO_LINKS, EvidenceLinks, most_attended
from monitor.events.messages import (
    HEALTH_SCHEMA_ID,
    SCHEMA_ID,
    AlertMessage,
    CameraPart,
    ClockPart,
    EventPart,
    EvidencePart,
    HealthMessage,
    HealthPipelinePart,
    HealthTimePart,
    LatencyPart,
    ModelPart,
    PipelinePart,
    TimePart,
)
from monitor.records import (
    Alert,
    ChangeReason,
    ClockSource,
    EventChange,
    HealthChange,
    Phase,
    Score,
)

ALERT_NAMESPACE = uuid.UUID("1632a58e-e0aa-5047-bf78-934244caad02")
"""Namespace of the alert ids (UUIDv5, RFC 9562); fixed for ever, or replicas would disagree."""
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
