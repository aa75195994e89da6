"""A camera's health: what is told, when, and that a flapping camera does not flood anybody."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config import HealthConfig
from monitor.events.alerts import compose_health
from monitor.events.health import HealthTracker
from monitor.events.messages import health_schema
from monitor.records import CameraState, CameraStatus, CaptureCounts, FailureReason, HealthState
from tests.events.test_alerts import CONTEXT

RULES = HealthConfig(
    offline_seconds=10, online_seconds=2, frozen_seconds=30, dark_seconds=5, dark_contrast=4, frozen_change=0.02
)


def status(state: CameraState, at: float, reason: FailureReason | None = None) -> CameraStatus:
    return CameraStatus("yard", state, at, reason=reason, detail=reason.value if reason else "")


def counts(contrast: float = 40.0, change: float = 2.0) -> CaptureCounts:
    return CaptureCounts("yard", packets=25, contrast=contrast, change=change)


@pytest.fixture
def tracker():
    return HealthTracker("yard", RULES)


def online(tracker: HealthTracker, at: float) -> None:
    """Bring a camera online, told."""
    tracker.note_status(status(CameraState.ONLINE, at))
    [change] = tracker.note_time(at + 2)
    assert change.state is HealthState.ONLINE


def test_online_is_told_once_it_has_held(tracker):
    assert tracker.note_status(status(CameraState.ONLINE, 0)) == []
    assert tracker.note_time(1.9) == []
    [change] = tracker.note_time(2.0)
    assert (change.state, change.previous, change.since_seconds) == (HealthState.ONLINE, None, 0)
    assert tracker.note_time(100) == []


@pytest.mark.parametrize("seen", ["offline", "dark", "frozen"])
def test_a_clock_that_is_set_back_delays_nothing_by_as_much(tracker, seen):
    online(tracker, 5000)
    if seen == "offline":
        tracker.note_status(status(CameraState.OFFLINE, 5010, FailureReason.STALLED))
    else:
        tracker.note_counts(counts(contrast=1.0) if seen == "dark" else counts(change=0.0), 5010)
    assert tracker.note_time(1410) == []
    [change] = tracker.note_time(1440)
    assert (change.state.value, change.since_seconds) == (seen, 1410)


def test_offline_is_told_after_its_time_with_its_reason(tracker):
    online(tracker, 0)
    assert tracker.note_status(status(CameraState.OFFLINE, 10, FailureReason.STALLED)) == []
    assert tracker.note_status(status(CameraState.CONNECTING, 11)) == []
    assert tracker.note_status(status(CameraState.OFFLINE, 15, FailureReason.TIMED_OUT)) == []
    [change] = tracker.note_time(20)
    assert change.state is HealthState.OFFLINE
    assert change.previous is HealthState.ONLINE
    assert change.since_seconds == 10
    assert change.reason is FailureReason.TIMED_OUT


def test_a_short_loss_is_not_told(tracker):
    online(tracker, 0)
    tracker.note_status(status(CameraState.OFFLINE, 10, FailureReason.ENDED))
    tracker.note_status(status(CameraState.ONLINE, 12))
    assert tracker.note_time(100) == []


def test_a_refused_password_is_told_at_once(tracker):
    [change] = tracker.note_status(status(CameraState.REFUSED, 5, FailureReason.REFUSED))
    assert (change.state, change.reason) == (HealthState.REFUSED, FailureReason.REFUSED)


def test_the_same_picture_for_long_enough_is_frozen_and_a_new_one_ends_it(tracker):
    online(tracker, 0)
    told = [change for second in range(3, 60) for change in tracker.note_counts(counts(change=0.0), second)]
    [change] = told
    assert change.state is HealthState.FROZEN
    assert change.since_seconds == 3
    assert change.changed_seconds == 33
    tracker.note_counts(counts(), 60)
    [change] = tracker.note_time(62)
    assert (change.state, change.previous) == (HealthState.ONLINE, HealthState.FROZEN)


def test_a_picture_without_contrast_is_dark(tracker):
    online(tracker, 0)
    told = [change for second in range(3, 20) for change in tracker.note_counts(counts(contrast=1.0), second)]
    assert [change.state for change in told] == [HealthState.DARK]
    assert told[0].changed_seconds == 8


def test_a_camera_that_is_away_is_neither_frozen_nor_dark(tracker):
    online(tracker, 0)
    tracker.note_counts(counts(contrast=1.0, change=0.0), 3)
    tracker.note_status(status(CameraState.OFFLINE, 4, FailureReason.STALLED))
    assert [change.state for change in tracker.note_time(60)] == [HealthState.OFFLINE]


def test_zero_seconds_switches_a_picture_state_off():
    tracker = HealthTracker("yard", HealthConfig(frozen_seconds=0, dark_seconds=0))
    online(tracker, 0)
    for second in range(3, 200):
        assert tracker.note_counts(counts(contrast=0.0, change=0.0), second) == []


@given(st.lists(st.tuples(st.sampled_from(["online", "offline", "refused", "counts", "time"]), st.floats(0.1, 30))))
def test_what_is_told_always_differs_from_what_was_told(steps):
    tracker, now, last = HealthTracker("yard", RULES), 0.0, None
    for what, wait in steps:
        now += wait
        if what == "counts":
            told = tracker.note_counts(counts(), now)
        elif what == "time":
            told = tracker.note_time(now)
        else:
            told = tracker.note_status(status(CameraState(what), now))
        for change in told:
            assert change.state is not last
            assert change.previous is last
            assert change.since_seconds <= change.changed_seconds == now
            last = change.state


def test_the_message_is_valid_and_in_the_same_envelope(tracker):
    [change] = tracker.note_status(status(CameraState.REFUSED, 1000.5, FailureReason.REFUSED))
    alert = compose_health(change, CONTEXT, published_seconds=1001.0)
    message = json.loads(alert.value)
    jsonschema.validate(message, health_schema(), format_checker=jsonschema.FormatChecker())
    headers = dict(alert.headers)
    assert headers["ce_type"] == b"monitor.camera.refused.v1"
    assert headers["ce_id"].decode() == message["message_id"]
    assert headers["ce_subject"] == b"yard"
    assert alert.topic == CONTEXT.health_topic
    assert message["time"]["since_at"] == "1970-01-01T00:16:40.500Z"
    assert compose_health(change, CONTEXT, published_seconds=1001.0) == alert
