"""What an alert says, byte for byte."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from monitor.events.alerts import ALERT_NAMESPACE, EVIDENCE_FRAMES, AlertContext, alert_id, compose, recovered, rfc3339
from monitor.events.messages import SCHEMA_ID, alert_schema, alert_schema_text
from monitor.records import Alert, ChangeReason, EventChange, Phase, Score, Threshold, Window

GOLDEN = Path(__file__).parent / "golden"
COMMITTED_SCHEMA = Path(__file__).parents[2] / "schemas" / "alert.v1.schema.json"
STARTED = 1_767_225_600.25  # 2026-01-01T00:00:00.250Z

CONTEXT = AlertContext(
    camera="yard",
    camera_name="Yard, north",
    site="Köln",
    tags=("outdoor", "gate 3"),
    model="fight",
    model_version="1.2.0",
    model_sha256="ab" * 32,
    engine="openvino",
    precision="bf16",
    instance="monitor-0",
    version="0.1.0",
    topic="monitor.alerts",
    health_topic="cameras",
)


def make_score(
    slots: int = 8, *, gaps: tuple[int, ...] = (), start: float = STARTED, camera_seconds: float | None = None
) -> Score:
    mask = np.array([slot not in gaps for slot in range(slots)])
    attention = np.zeros((2, slots), dtype=np.float32)
    attention[0, mask] = np.linspace(1, 2, int(mask.sum()), dtype=np.float32)
    attention[1, mask] = 1
    attention /= attention.sum(axis=1, keepdims=True)
    times = tuple(start + slot / 4 + 0.011 if slot not in gaps else None for slot in range(slots))
    window = Window(
        camera="yard",
        first_slot=0,
        start_seconds=start,
        end_seconds=start + slots / 4,
        embeddings=np.zeros((slots, 2), dtype=np.float32),
        mask=mask,
        frame_seconds=times,
        received_seconds=start + slots / 4 + 0.02,
        camera_seconds=camera_seconds,
    )
    return Score(window=window, probabilities=np.array([0.1, 0.9], dtype=np.float32), attention=attention)


def make_change(phase: Phase = Phase.STARTED, sequence: int = 0, **changes: object) -> EventChange:
    score = make_score()
    change = EventChange(
        camera="yard",
        label="fight",
        phase=phase,
        reason=None if phase is Phase.STARTED else ChangeReason.END,
        sequence=sequence,
        started_seconds=STARTED,
        changed_seconds=score.window.end_seconds,
        ended_seconds=score.window.end_seconds if phase is Phase.ENDED else None,
        smoothed_score=0.87654321,
        peak_score=0.91,
        peak_seconds=STARTED + 1.761,
        threshold=Threshold(on=0.7, off=0.4),
        score=score,
    )
    return replace(change, **changes)  # type: ignore[arg-type]


def say(change: EventChange, context: AlertContext = CONTEXT) -> Alert:
    decided = change.changed_seconds + 0.07
    return compose(change, context, decided_seconds=decided, published_seconds=decided + 0.001)


def message(alert: Alert) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(alert.value)
    validator = jsonschema.Draft202012Validator(alert_schema(), format_checker=jsonschema.FormatChecker())
    validator.validate(decoded)
    return decoded


def headers(alert: Alert) -> dict[str, str]:
    return {name: value.decode() for name, value in alert.headers}


@pytest.mark.parametrize("phase", list(Phase))
def test_a_message_is_as_the_golden_file_has_it(phase: Phase) -> None:
    alert = say(make_change(phase, sequence=list(Phase).index(phase)))
    told = {"headers": headers(alert), "value": message(alert)}
    golden = json.loads((GOLDEN / f"alert_{phase.value}.json").read_text())
    assert told == golden


def test_the_committed_schema_is_the_generated_one() -> None:
    assert COMMITTED_SCHEMA.read_text() == alert_schema_text(), (
        "run: monitor schema alert > schemas/alert.v1.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(alert_schema())


def test_every_key_of_the_schema_is_described() -> None:
    schema = alert_schema()
    parts = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]
    silent = [
        name for part in parts for name, key in part["properties"].items() if not {"description", "$ref"} & set(key)
    ]
    assert silent == []


def test_the_id_is_a_uuid5_of_camera_label_and_milliseconds() -> None:
    expected = uuid.uuid5(ALERT_NAMESPACE, "yard/fight/1767225600250")
    assert alert_id("yard", "fight", STARTED) == str(expected)
    assert alert_id("yard", "fight", STARTED + 0.0001) == str(expected)
    assert alert_id("yard", "fight", STARTED + 0.001) != str(expected)
    assert str(ALERT_NAMESPACE) == "1632a58e-e0aa-5047-bf78-934244caad02"


def test_the_same_change_gives_the_same_bytes() -> None:
    assert say(make_change()) == say(make_change())


def test_another_replica_says_it_under_the_same_name() -> None:
    here, there = say(make_change()), say(make_change(), replace(CONTEXT, instance="monitor-1"))
    names = ("ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "traceparent")
    assert [headers(here)[name] for name in names] == [headers(there)[name] for name in names]
    assert message(there)["pipeline"]["instance"] == "monitor-1"


def test_the_envelope_is_cloudevents_in_binary_mode() -> None:
    alert = say(make_change(Phase.UPDATED, sequence=3, reason=ChangeReason.PEAK))
    wanted = {
        "ce_specversion",
        "ce_id",
        "ce_type",
        "ce_source",
        "ce_subject",
        "ce_time",
        "ce_dataschema",
        "content-type",
    }
    assert set(headers(alert)) == wanted | {"traceparent"}
    attributes = {name: value for name, value in alert.headers if name != "traceparent"}
    event = from_binary(KafkaMessage(headers=attributes, key=None, value=alert.value), JSONFormat())
    assert event.get_id() == f"{alert.alert_id}:3"
    assert event.get_type() == "monitor.alert.updated.v1"
    assert event.get_subject() == "yard"
    assert event.get_dataschema() == SCHEMA_ID == alert_schema()["$id"]
    assert event.get_data() == message(alert)


def test_the_trace_is_the_alert_and_the_span_the_message() -> None:
    first, second = say(make_change()), say(make_change(Phase.ENDED, sequence=1))
    version, trace, span, flags = headers(first)["traceparent"].split("-")
    assert (version, trace, flags) == ("00", first.alert_id.replace("-", ""), "01")
    assert len(span) == 16
    assert int(span, 16) != 0
    assert headers(second)["traceparent"].split("-")[1] == trace
    assert headers(second)["traceparent"].split("-")[2] != span


@pytest.mark.parametrize("slots", [64, 512])
def test_a_message_stays_under_eight_kilobytes(slots: int) -> None:
    alert = say(make_change(score=make_score(slots)))
    assert len(alert.value) < 8000
    evidence = message(alert)["evidence"]
    assert len(evidence["frame_times"]) == len(evidence["attention"]) == min(slots, EVIDENCE_FRAMES)
    assert evidence["frame_times"] == sorted(evidence["frame_times"])
    assert evidence["most_attended_at"] == evidence["frame_times"][-1]


def test_gaps_are_left_out_of_the_evidence() -> None:
    evidence = message(say(make_change(score=make_score(8, gaps=(0, 5)))))["evidence"]
    assert len(evidence["frame_times"]) == 6
    assert evidence["coverage"] == 0.75
    assert sum(evidence["attention"]) == pytest.approx(1, abs=1e-3)


def test_the_cameras_clock_is_told_by_its_skew() -> None:
    newest = STARTED + 7 / 4 + 0.011
    told = message(say(make_change(score=make_score(camera_seconds=newest + 2.5))))
    assert told["time"]["clock"] == {"source": "rtcp", "skew_seconds": 2.5}
    assert message(say(make_change()))["time"]["clock"] == {"source": "host", "skew_seconds": None}


def test_an_end_that_no_frame_decided_has_no_latency() -> None:
    change = make_change(Phase.ENDED, sequence=1, reason=ChangeReason.CAMERA_LOST, changed_seconds=STARTED + 60)
    alert = say(change)
    assert message(alert)["pipeline"]["latency_seconds"] == {"capture_to_decision": None}
    assert alert.received_seconds == STARTED + 60.07


@pytest.mark.parametrize("phase", [Phase.STARTED, Phase.UPDATED])
def test_a_recovered_alert_is_ended_where_its_last_window_ended(phase: Phase) -> None:
    last = say(make_change(phase, sequence=4))
    end = recovered(last, published_seconds=STARTED + 3600)
    told, before = message(end), message(last)
    assert (end.alert_id, end.sequence, end.phase) == (last.alert_id, 5, Phase.ENDED)
    assert (end.camera, end.label, end.topic) == ("yard", "fight", "monitor.alerts")
    assert (told["phase"], told["reason"]) == ("ended", "recovered")
    assert told["time"]["ended_at"] == before["time"]["window_end"]
    assert told["time"]["duration_seconds"] == 2.0
    assert told["time"]["published_at"] == "2026-01-01T01:00:00.250Z"
    assert told["evidence"] == before["evidence"]
    assert headers(end)["ce_id"] == f"{last.alert_id}:5"
    assert headers(end)["ce_type"] == "monitor.alert.ended.v1"


def test_a_message_of_a_newer_version_can_be_recovered() -> None:
    last = say(make_change())
    newer = {**json.loads(last.value), "weather": "rain"}
    assert (
        message(recovered(replace(last, value=json.dumps(newer).encode()), published_seconds=STARTED))["sequence"] == 1
    )


def test_a_replay_counts_from_zero() -> None:
    change = make_change(started_seconds=0.0, peak_seconds=1.25, score=make_score(start=0.0), changed_seconds=2.0)
    told = message(compose(change, replace(CONTEXT, replayed=True), decided_seconds=2.0, published_seconds=2.0))
    assert told["time"]["started_at"] == "1970-01-01T00:00:00.000Z"
    assert told["time"]["peak_at"] == "1970-01-01T00:00:01.250Z"
    assert told["pipeline"]["replayed"] is True


@given(st.integers(min_value=0, max_value=4_000_000_000_000))
def test_times_keep_their_milliseconds(milliseconds: int) -> None:
    told = rfc3339(milliseconds / 1000)
    assert told.endswith("Z")
    assert int(told[-4:-1]) == milliseconds % 1000


def test_an_alert_says_when_its_window_was_degraded() -> None:
    for degraded in (False, True):
        score = make_score()
        score = replace(score, window=replace(score.window, degraded=degraded))
        told = message(say(make_change(score=score)))
        assert told["evidence"]["degraded"] is degraded
