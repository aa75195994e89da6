"""The AsyncAPI document: as committed, valid by AsyncAPI's own schema, and true of the messages themselves."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import jsonschema
import pytest

from monitor.events.alerts import compose_health
from monitor.events.asyncapi import asyncapi_document, asyncapi_text
from monitor.events.messages import health_schema_text
from monitor.records import Alert, ChangeReason, HealthChange, HealthState, Phase
from tests.events.test_alerts import CONTEXT, headers, make_change, say

SCHEMAS = Path(__file__).parents[2] / "schemas"
ASYNCAPI_SCHEMA = Path(__file__).parent / "asyncapi-3.0.0.schema.json.gz"
"""Schema of AsyncAPI 3.0.0 documents with the Kafka bindings, Apache-2.0: schemas/3.0.0.json of @asyncapi/specs."""


def told(phase: Phase) -> Alert:
    reason = {Phase.STARTED: None, Phase.UPDATED: ChangeReason.PEAK, Phase.ENDED: ChangeReason.END}[phase]
    return say(make_change(phase, reason=reason))


def told_health(state: HealthState) -> Alert:
    change = HealthChange("yard", state, None, since_seconds=10.0, changed_seconds=12.0, reason=None, detail="")
    return compose_health(change, CONTEXT, published_seconds=12.0)


def test_the_committed_document_is_the_generated_one() -> None:
    committed = (SCHEMAS / "asyncapi.v1.json").read_text()
    assert committed == asyncapi_text(), "run: monitor schema asyncapi > schemas/asyncapi.v1.json"


def test_the_committed_schema_of_health_is_the_generated_one() -> None:
    committed = (SCHEMAS / "camera.v1.schema.json").read_text()
    assert committed == health_schema_text(), "run: monitor schema camera > schemas/camera.v1.schema.json"
    jsonschema.Draft202012Validator.check_schema(json.loads(committed))


def test_it_is_valid_by_asyncapis_own_schema() -> None:
    schema = json.loads(gzip.decompress(ASYNCAPI_SCHEMA.read_bytes()))
    validator = jsonschema.Draft7Validator(schema)
    validator.validate(asyncapi_document())
    broken = asyncapi_document() | {"channels": {"alerts": {"address": 5}}}
    assert not validator.is_valid(broken)


@pytest.mark.parametrize(
    "alert", [*map(told, Phase), *map(told_health, HealthState)], ids=[*map(str, Phase), *map(str, HealthState)]
)
def test_what_is_said_is_what_it_describes(alert: Alert) -> None:
    document = asyncapi_document()
    channel = document["channels"]["alerts" if alert.label else "cameras"]
    named = [reference["$ref"].rpartition("/")[2] for reference in channel["messages"].values()]
    described = [document["components"]["messages"][name] for name in named]
    [message] = [each for each in described if each["name"] == headers(alert)["ce_type"]]
    assert set(message["headers"]["properties"]) == set(headers(alert))
    jsonschema.validate(headers(alert), message["headers"])
    jsonschema.validate(json.loads(alert.value), {**document, **message["payload"]})
