"""Frozen records from every room in; metrics, log lines and the state that the page shows out."""

from __future__ import annotations

import platform
import threading
from dataclasses import dataclass, replace

import structlog

from monitor import __version__
from monitor.bundle import Bundle
from monitor.capture.worker import WorkerReport
from monitor.config import CameraConfig
from monitor.decisions import Commitment, Decision
from monitor.delivery.kafka import DeliveryReport, DeliveryState
from monitor.delivery.outbox import OutboxStats
from monitor.records import CameraState, CameraStatus, CaptureCounts, DropReason, FailureReason
from monitor.scoring.batcher import BatchReport
from monitor.scoring.engine import OpenedEngine
from monitor.telemetry.metrics import Metrics

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CameraView:
    """What the page and `/ready` say of one camera."""

    id: str
    name: str
    site: str
    address: str
    """Without credentials."""
    state: CameraState = CameraState.CONNECTING
    reason: FailureReason | None = None
    detail: str = ""
    since_seconds: float | None = None
    samples: int = 0
    last_frame_seconds: float | None = None
    active_events: int = 0


@dataclass(frozen=True, slots=True)
class PipelineView:
    """What the page and `/ready` say of the stages behind capture."""

    model: str = ""
    engine: str = ""
    outbox: OutboxStats | None = None
    outbox_error: str = ""
    delivery: DeliveryState | None = None
    """None without Kafka."""
    delivery_detail: str = ""


class Reporter:
    """Writes down what the rooms report. Every method may be called from any thread.

    Args:
        metrics: the metrics of this monitor.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._lock = threading.Lock()
        self._cameras: dict[str, CameraView] = {}
        self._pipeline = PipelineView()
        self._was_online: set[str] = set()
        metrics.build_info.labels(version=__version__, python=platform.python_version()).set(1)

    # --- what is shown -------------------------------------------------------------------------------------------

    def cameras(self) -> list[CameraView]:
        """Return every camera as it stands, in the order of the configuration."""
        with self._lock:
            return list(self._cameras.values())

    def pipeline(self) -> PipelineView:
        """Return the stages behind capture as they stand."""
        with self._lock:
            return self._pipeline

    # --- what the rooms report -----------------------------------------------------------------------------------

    def camera_added(self, camera: CameraConfig) -> None:
        """Begin to report on a camera; its series exist from here on."""
        view = CameraView(id=camera.id, name=camera.name or camera.id, site=camera.site, address=camera.display_url)
        with self._lock:
            self._cameras[camera.id] = view
        for metric in (self.metrics.camera_up, self.metrics.active_events):
            metric.labels(camera.id).set(0)
        for counter in (self.metrics.samples, self.metrics.windows_scored, self.metrics.camera_reconnects):
            counter.labels(camera.id)
        for reason in DropReason:
            self.metrics.dropped.labels(camera.id, reason.value)

    def engine_opened(self, bundle: Bundle, opened: OpenedEngine) -> None:
        """Say which engine serves which model, and how well it reproduces the golden outputs."""
        manifest, engine, parity = bundle.manifest, opened.engine, opened.parity
        for name, why in opened.skipped:
            log.warning("engine_skipped", engine=name, reason=why)
        log.info(
            "engine_opened",
            engine=engine.name,
            precision=engine.precision,
            model=manifest.name,
            version=manifest.version,
            cosine=round(parity.cosine, 6),
            probability_difference=float(f"{parity.probability_difference:.2g}"),
        )
        for measure in ("cosine", "embedding_error", "probability_difference", "attention_difference"):
            self.metrics.engine_parity.labels(engine.name, measure).set(getattr(parity, measure))
        self.metrics.model_info.labels(
            manifest.name, manifest.version, bundle.sha256[:12], engine.name, engine.precision
        ).set(1)
        with self._lock:
            self._pipeline = replace(
                self._pipeline,
                model=f"{manifest.name} {manifest.version}",
                engine=f"{engine.name} {engine.precision}",
            )

    def status(self, status: CameraStatus) -> None:
        """Note a camera's change of state."""
        metrics = self.metrics
        online = status.state is CameraState.ONLINE
        metrics.camera_up.labels(status.camera).set(1 if online else 0)
        if online and status.camera in self._was_online:
            metrics.camera_reconnects.labels(status.camera).inc()
        if online:
            self._was_online.add(status.camera)
        if status.reason is not None:
            metrics.camera_failures.labels(status.camera, status.reason.value).inc()
        self._log_status(status)
        with self._lock:
            view = self._cameras.get(status.camera)
            if view is not None:
                self._cameras[status.camera] = replace(
                    view,
                    state=status.state,
                    reason=status.reason,
                    detail=status.detail,
                    since_seconds=status.time_seconds,
                )

    @staticmethod
    def _log_status(status: CameraStatus) -> None:
        bound = log.bind(camera=status.camera)
        match status.state:
            case CameraState.ONLINE:
                bound.info("camera_connected", detail=status.detail)
            case CameraState.CONNECTING:
                bound.debug("camera_connecting", attempt=status.attempt)
            case CameraState.OFFLINE | CameraState.REFUSED:
                bound.warning(
                    "camera_lost" if status.state is CameraState.OFFLINE else "camera_refused",
                    reason=status.reason.value if status.reason else None,
                    detail=status.detail,
                    attempt=status.attempt,
                    wait_seconds=None if status.retry_seconds is None else round(status.retry_seconds, 1),
                )

    def counts(self, counts: CaptureCounts) -> None:
        """Add what one camera's capture counted."""
        metrics, camera = self.metrics, counts.camera
        metrics.packets.labels(camera).inc(counts.packets)
        metrics.received_bytes.labels(camera).inc(counts.bytes_received)
        metrics.frames_decoded.labels(camera).inc(counts.frames_decoded)
        metrics.decode_errors.labels(camera).inc(counts.decode_errors)
        metrics.samples.labels(camera).inc(counts.samples)
        for reason, count in counts.dropped.items():
            metrics.dropped.labels(camera, reason.value).inc(count)
        if counts.last_frame_seconds is not None:
            metrics.camera_last_frame.labels(camera).set(counts.last_frame_seconds)
        if counts.skew_seconds is not None:
            metrics.camera_skew.labels(camera).set(counts.skew_seconds)
        with self._lock:
            view = self._cameras.get(camera)
            if view is not None:
                self._cameras[camera] = replace(
                    view,
                    samples=view.samples + counts.samples,
                    last_frame_seconds=counts.last_frame_seconds or view.last_frame_seconds,
                )

    def worker(self, report: WorkerReport) -> None:
        """Note that a capture process was started or lost."""
        self.metrics.workers.set(report.running)
        if report.lost:
            self.metrics.worker_restarts.inc()
            log.error("capture_worker_lost", worker=report.worker, reason=report.reason)

    def batch(self, report: BatchReport) -> None:
        """Note one run of the engine."""
        metrics = self.metrics
        metrics.batch_samples.observe(report.samples)
        metrics.stage_seconds.labels("wait").observe(report.oldest_wait_seconds)
        metrics.stage_seconds.labels("embed").observe(report.embed_seconds)
        if report.windows_scored:
            metrics.stage_seconds.labels("head").observe(report.head_seconds)
        for camera, count in report.windows_skipped.items():
            metrics.windows_skipped.labels(camera).inc(count)

    def dropped(self, camera: str, reason: DropReason) -> None:
        """Count a sample that never reached a window."""
        self.metrics.dropped.labels(camera, reason.value).inc()

    def decision(self, decision: Decision) -> None:
        """Note one decision of a tracker."""
        metrics = self.metrics
        metrics.windows_scored.labels(decision.camera).inc()
        metrics.stage_seconds.labels("decide").observe(decision.seconds)
        metrics.capture_to_decision.observe(decision.capture_to_decision_seconds)
        for reason, count in decision.suppressed.items():
            metrics.suppressed.labels(decision.camera, reason).inc(count)

    def commitment(self, commitment: Commitment) -> None:
        """Note what became of alerts at the outbox."""
        metrics = self.metrics
        metrics.stage_seconds.labels("commit").observe(commitment.seconds)
        for alert in commitment.said:
            if not alert.label:
                continue  # a camera's health: its change of state has been logged as it came
            metrics.alerts.labels(alert.camera, alert.label, alert.phase.value).inc()
            log.info(
                f"event_{alert.phase.value}",
                camera=alert.camera,
                alert=alert.alert_id,
                sequence=alert.sequence,
                label=alert.label,
            )
        for alert in commitment.refused:
            metrics.outbox_dropped.labels(alert.phase.value).inc()
            log.error(
                "alert_refused_by_full_outbox", camera=alert.camera, alert=alert.alert_id, phase=alert.phase.value
            )
        if commitment.error:
            metrics.outbox_errors.inc()
        with self._lock:
            changed = commitment.error != self._pipeline.outbox_error
            self._pipeline = replace(self._pipeline, outbox_error=commitment.error)
        if changed and commitment.error:
            log.error("outbox_failed", reason=commitment.error, waiting=commitment.unsaid)
        elif changed:
            log.info("outbox_recovered")

    def events_active(self, active: dict[str, int]) -> None:
        """Note how many events go on, by camera."""
        for camera, count in active.items():
            self.metrics.active_events.labels(camera).set(count)
        with self._lock:
            for camera, count in active.items():
                self._cameras[camera] = replace(self._cameras[camera], active_events=count)

    def outbox(self, stats: OutboxStats) -> None:
        """Note how full the outbox is."""
        self.metrics.outbox_records.set(stats.pending)
        self.metrics.outbox_bytes.set(stats.pending_bytes)
        self.metrics.outbox_oldest.set(stats.oldest_age_seconds)
        self.metrics.dead_letters.set(stats.dead_letters)
        with self._lock:
            self._pipeline = replace(self._pipeline, outbox=stats)

    def delivery(self, report: DeliveryReport) -> None:
        """Note what Kafka took, and whether it answers."""
        metrics = self.metrics
        for seconds in report.acknowledged_seconds:
            metrics.capture_to_acknowledged.observe(seconds)
        metrics.published.labels("acknowledged").inc(len(report.acknowledged_seconds))
        if report.failed:
            metrics.published.labels("failed").inc(report.failed)
        if report.dead_lettered:
            metrics.published.labels("dead_letter").inc(report.dead_lettered)
        metrics.kafka_up.set(1 if report.state is DeliveryState.CONNECTED else 0)
        with self._lock:
            changed = report.state is not self._pipeline.delivery or report.detail != self._pipeline.delivery_detail
            self._pipeline = replace(self._pipeline, delivery=report.state, delivery_detail=report.detail)
        if changed:
            say = log.info if report.state is DeliveryState.CONNECTED else log.warning
            say(f"kafka_{report.state.value}", detail=report.detail)
