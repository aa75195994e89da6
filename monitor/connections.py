"""Changes of a camera's state in; what its connections came to, as metrics, out."""

from __future__ import annotations

from monitor.records import CameraState, CameraStatus, FailureReason
from monitor.telemetry.metrics import Metrics

CONNECTED, REFUSED, FAILED = "connected", "refused", "failed"
LOST_WHILE_RUNNING = (
    FailureReason.STALLED,
    FailureReason.ENDED,
    FailureReason.DECODE_ERROR,
    FailureReason.WORKER_LOST,
)
"""How a running stream is usually lost: series that exist before the first time, so that the first is seen."""


class Connections:
    """Counts attempts, losses and returns of every camera. The states of one camera come one after another.

    Args:
        metrics: the metrics of this monitor.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._states: dict[str, CameraState] = {}
        self._lost_seconds: dict[str, float] = {}
        """When a camera's running stream was lost, until it is back."""
        self._was_online: set[str] = set()

    def add(self, camera: str) -> None:
        """Make a camera's series."""
        metrics = self._metrics
        metrics.camera_up.labels(camera).set(0)
        metrics.camera_reconnects.labels(camera)
        for result in (CONNECTED, REFUSED, FAILED):
            metrics.connect_attempts.labels(camera, result)
        for reason in LOST_WHILE_RUNNING:
            metrics.disconnects.labels(camera, reason.value)

    def forget(self, camera: str) -> None:
        """Drop what is known of a camera that is watched no longer."""
        self._states.pop(camera, None)
        self._lost_seconds.pop(camera, None)
        self._was_online.discard(camera)

    def note(self, status: CameraStatus) -> None:
        """Count what a change of state means for the connection."""
        before = self._states.get(status.camera, CameraState.CONNECTING)
        self._states[status.camera] = status.state
        online = status.state is CameraState.ONLINE
        self._metrics.camera_up.labels(status.camera).set(1 if online else 0)
        if status.reason is not None:
            self._metrics.camera_failures.labels(status.camera, status.reason.value).inc()
        if online and before is not CameraState.ONLINE:
            self._returned(status)
        elif before is CameraState.ONLINE and status.reason is not None:
            self._metrics.disconnects.labels(status.camera, status.reason.value).inc()
            self._lost_seconds.setdefault(status.camera, status.time_seconds)
        elif before is CameraState.CONNECTING and status.reason is not None:
            refused = status.state is CameraState.REFUSED
            self._metrics.connect_attempts.labels(status.camera, REFUSED if refused else FAILED).inc()

    def _returned(self, status: CameraStatus) -> None:
        self._metrics.connect_attempts.labels(status.camera, CONNECTED).inc()
        if status.camera in self._was_online:
            self._metrics.camera_reconnects.labels(status.camera).inc()
        self._was_online.add(status.camera)
        lost = self._lost_seconds.pop(status.camera, None)
        if lost is not None:
            self._metrics.reconnect_seconds.observe(max(0.0, status.time_seconds - lost))
