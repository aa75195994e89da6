"""What is going to be watched in; series that exist before anything happens, out.

A counter that first appears as 1 has no increase in Prometheus: its first event would be seen by no rule. So every
series whose labels are known beforehand begins with 0.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable

from monitor import __version__
from monitor.events.tracker import COOL_DOWN, SHORT
from monitor.records import CameraState, DropReason, EvidenceKind, EvidenceResult, Phase, WakeReason
from monitor.telemetry.metrics import Metrics


def begin_monitor(metrics: Metrics) -> None:
    """Make the series that belong to no camera."""
    metrics.build_info.labels(version=__version__, python=platform.python_version()).set(1)
    for kind in EvidenceKind:
        metrics.evidence_cpu.labels(kind.value)
        for kept in EvidenceResult:
            metrics.evidence.labels(kind.value, kept.value)
    for phase in Phase:
        metrics.outbox_dropped.labels(phase.value)
    for published in ("acknowledged", "failed", "dead_letter"):
        metrics.published.labels(published)
    for uploaded in ("uploaded", "failed"):
        metrics.uploads.labels(uploaded)
    for stage in ("wait", "embed", "head", "decide", "commit"):
        metrics.stage_seconds.labels(stage)


def begin_camera(metrics: Metrics, camera: str) -> None:
    """Make the series of a camera, save those that tell of its connections and of what is watched for on it."""
    for gauge in (metrics.active_events, metrics.camera_frozen, metrics.camera_dark, metrics.degraded):
        gauge.labels(camera).set(0)
    for state in CameraState:
        metrics.camera_state.labels(camera, state.value).set(state is CameraState.CONNECTING)
    metrics.gate_awake.labels(camera).set(1)
    for cause in WakeReason:
        metrics.gate_wakeups.labels(camera, cause.value)
    for counter in (
        metrics.packets,
        metrics.received_bytes,
        metrics.frames_decoded,
        metrics.frames_skipped,
        metrics.decode_errors,
        metrics.samples,
        metrics.windows_scored,
        metrics.windows_skipped,
        metrics.windows_late,
    ):
        counter.labels(camera)
    for reason in DropReason:
        metrics.dropped.labels(camera, reason.value)
    for suppressed in (SHORT, COOL_DOWN):
        metrics.suppressed.labels(camera, suppressed)


def begin_labels(metrics: Metrics, camera: str, labels: Iterable[str]) -> None:
    """Make the series of what is watched for on a camera."""
    for label in labels:
        metrics.score.labels(label)
        for phase in Phase:
            metrics.alerts.labels(camera, label, phase.value)
