"""The message models in, the AsyncAPI 3.0 document that describes both topics to consumers out.

It stands by itself: the messages' schemas are inside, under `components`, so that a generator needs one file.
Specification: https://www.asyncapi.com/docs/reference/specification/v3.0.0, with the Kafka bindings 0.5.0.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from monitor.config import KafkaConfig
from monitor.events.alerts import CONTENT_TYPE
from monitor.events.messages import HEALTH_SCHEMA_ID, SCHEMA_ID, AlertMessage, HealthMessage, SchemaWithoutTitles
from monitor.records import HealthState, Phase

VERSION = "1.0.0"
"""Of the messages: the major number is the `v1` of their types, the minor one grows with each addition."""
BINDING_VERSION = "0.5.0"
SCHEMA_REFERENCE = "#/components/schemas/{model}"
ABOUT_HEADERS = {
    "ce_specversion": "Version of CloudEvents.",
    "ce_type": "What the message tells.",
    "ce_id": "Names the message; equal ids have equal contents. Drop what repeats.",
    "ce_source": "The camera: `/monitor/cameras/` and its id.",
    "ce_subject": "The camera's id, also the record's key.",
    "ce_time": "When it happened; RFC 3339, UTC.",
    "ce_dataschema": "Identifier of the value's JSON Schema.",
    "content-type": "Of the value.",
    "traceparent": "W3C Trace Context: the alert is the trace, the message the span.",
}


def asyncapi_document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of the topics of alerts and of cameras' health."""
    alerts = [f"alert_{phase.value}" for phase in Phase]
    health = [f"camera_{state.value}" for state in HealthState]
    return {
        "asyncapi": "3.0.0",
        "id": "urn:video-event-monitor",
        "info": {
            "title": "Video event monitor",
            "version": VERSION,
            "description": "Alerts and cameras' health as CloudEvents 1.0 in Kafka's binary mode: attributes in "
            "headers, the camera's id as key, JSON as value. Keys are only ever added within v1.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            "alerts": _channel(
                "topic", "Starts, updates and ends of events, in order per camera. `kafka.topic`.", alerts
            ),
            "cameras": _channel(
                "health_topic", "Changes of cameras' health, in order per camera. `kafka.health_topic`.", health
            ),
        },
        "operations": {
            "tellAlert": _operation("alerts", "Tell of an event, at least once."),
            "tellHealth": _operation("cameras", "Tell of a camera's health, at least once."),
        },
        "components": {
            "messages": _messages(),
            "schemas": _schemas(),
        },
    }


def asyncapi_text() -> str:
    """Return the document as the text of `schemas/asyncapi.v1.json`."""
    return json.dumps(asyncapi_document(), indent=2) + "\n"


def _channel(setting: str, description: str, messages: list[str]) -> dict[str, Any]:
    """Describe a topic under the name that it has unless the configuration says otherwise."""
    return {
        "address": KafkaConfig.model_fields[setting].default,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": {"bindingVersion": BINDING_VERSION}},
    }


def _operation(channel: str, summary: str) -> dict[str, Any]:
    return {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _messages() -> dict[str, Any]:
    alerts = {
        f"alert_{phase.value}": _message(f"monitor.alert.{phase.value}.v1", AlertMessage, SCHEMA_ID) for phase in Phase
    }
    health = {
        f"camera_{state.value}": _message(f"monitor.camera.{state.value}.v1", HealthMessage, HEALTH_SCHEMA_ID)
        for state in HealthState
    }
    return alerts | health


def _message(kind: str, model: type[AlertMessage] | type[HealthMessage], schema_id: str) -> dict[str, Any]:
    return {
        "name": kind,
        "contentType": CONTENT_TYPE,
        "headers": _headers(kind, schema_id),
        "payload": {"$ref": SCHEMA_REFERENCE.format(model=model.__name__)},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": "The camera's id."},
                "bindingVersion": BINDING_VERSION,
            }
        },
    }


def _headers(kind: str, schema_id: str) -> dict[str, Any]:
    """Return what stands in the headers of one type of message; all of them are always there."""
    fixed = {"ce_specversion": "1.0", "ce_type": kind, "ce_dataschema": schema_id, "content-type": CONTENT_TYPE}
    properties = {
        name: {"type": "string", "description": about} | ({"const": fixed[name]} if name in fixed else {})
        for name, about in ABOUT_HEADERS.items()
    }
    return {"type": "object", "required": list(properties), "properties": properties}


def _schemas() -> dict[str, Any]:
    _, definitions = models_json_schema(
        [(AlertMessage, "serialization"), (HealthMessage, "serialization")],
        ref_template=SCHEMA_REFERENCE,
        schema_generator=SchemaWithoutTitles,
    )
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas
