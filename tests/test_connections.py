"""Changes of a camera's state become attempts, losses and returns."""

from __future__ import annotations

import pytest

from monitor.connections import Connections
from monitor.records import CameraState, CameraStatus, FailureReason
from monitor.telemetry.metrics import Metrics

CONNECTING, ONLINE, OFFLINE, REFUSED = CameraState


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def connections(metrics):
    connections = Connections(metrics)
    connections.add("yard")
    return connections


def read(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def play(connections: Connections, *steps: tuple[CameraState, FailureReason | None], camera: str = "yard") -> None:
    """Tell states one second apart, from second 100 on."""
    for second, (state, reason) in enumerate(steps, start=100):
        connections.note(CameraStatus(camera, state, float(second), reason=reason))


def test_every_attempt_is_counted_by_what_came_of_it(connections, metrics):
    play(
        connections,
        (CONNECTING, None),
        (OFFLINE, FailureReason.TIMED_OUT),
        (CONNECTING, None),
        (REFUSED, FailureReason.REFUSED),
        (CONNECTING, None),
        (ONLINE, None),
    )
    for result in ("connected", "refused", "failed"):
        assert read(metrics, "monitor_camera_connect_attempts_total", camera="yard", result=result) == 1
    assert read(metrics, "monitor_camera_reconnects_total", camera="yard") == 0
    assert read(metrics, "monitor_camera_reconnect_seconds_count") == 0
    assert read(metrics, "monitor_camera_disconnects_total", camera="yard", reason="stalled") == 0


def test_a_lost_stream_is_a_disconnect_and_its_return_has_a_duration(connections, metrics):
    play(
        connections,
        (CONNECTING, None),
        (ONLINE, None),
        (OFFLINE, FailureReason.STALLED),
        (CONNECTING, None),
        (OFFLINE, FailureReason.CONNECTION_REFUSED),
        (CONNECTING, None),
        (ONLINE, None),
    )
    assert read(metrics, "monitor_camera_disconnects_total", camera="yard", reason="stalled") == 1
    assert read(metrics, "monitor_camera_connect_attempts_total", camera="yard", result="connected") == 2
    assert read(metrics, "monitor_camera_connect_attempts_total", camera="yard", result="failed") == 1
    assert read(metrics, "monitor_camera_reconnects_total", camera="yard") == 1
    assert read(metrics, "monitor_camera_reconnect_seconds_sum") == 4.0
    assert read(metrics, "monitor_camera_up", camera="yard") == 1


def test_a_lost_process_is_one_disconnect_however_often_it_is_told(connections, metrics):
    lost = (OFFLINE, FailureReason.WORKER_LOST)
    play(connections, (CONNECTING, None), (ONLINE, None), lost, lost)
    assert read(metrics, "monitor_camera_disconnects_total", camera="yard", reason="worker_lost") == 1
    assert read(metrics, "monitor_camera_connect_attempts_total", camera="yard", result="failed") == 0
    assert read(metrics, "monitor_camera_failures_total", camera="yard", reason="worker_lost") == 2
