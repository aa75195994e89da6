"""Frozen records from every room in; metrics, log lines and the state that the page shows out."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

import structlog

from monitor import __version__
from monitor.bundle import Bundle
from monitor.capture.place import WorkerEvent, WorkerReport, WorkerVitals
from monitor.config import CameraConfig
from monitor.connections import Connections
from monitor.decisions import Commitment, Decision
from monitor.delivery.disk import DiskStats
from monitor.delivery.kafka import DeliveryReport, DeliveryState
from monitor.delivery.media import MediaStats
from monitor.delivery.outbox import OutboxStats
from monitor.delivery.upload import UploadReport
from monitor.records import (
    CameraState,
    CameraStatus,
    CaptureCounts,
    ClipStreamStatus,
    DropReason,
    EvidenceKind,
    EvidenceReport,
    EvidenceResult,
    FailureReason,
    GateState,
    HealthChange,
    HealthState,
)
from monitor.scoring.batcher import BatchReport
from monitor.scoring.engine import OpenedEngine
from monitor.scoring.shadow import ShadowReport
from monitor.scoring.shedding import Shedding
from monitor.series import begin_camera, begin_labels, begin_monitor
from monitor.telemetry.metrics import Metrics
from monitor.web.view import CameraView, MonitorView

log = structlog.get_logger()

LATENCY_SLACK_SECONDS = 0.5
"""A decision is in time up to one stride and this after its newest frame arrived."""
BLIND = (HealthState.FROZEN, HealthState.DARK)
"""The stream is there, and its picture shows nothing."""
SEVERITY = (DeliveryState.CONNECTED, DeliveryState.UNREACHABLE, DeliveryState.REFUSED)


@dataclass(frozen=True, slots=True)
class PipelineView:
    """What the page and `/ready` say of the stages behind capture."""

    model: str = ""
    model_version: str = ""
    engine: str = ""
    precision: str = ""
    labels: tuple[str, ...] = ()
    """Of the model; without the background."""
    window_slots: int = 0
    outbox: OutboxStats | None = None
    outbox_error: str = ""
    delivery: DeliveryState | None = None
    """The worst of the topics'; None without Kafka."""
    delivery_detail: str = ""


def _after(view: CameraView, status: CameraStatus) -> CameraView:
    """Return a camera as it stands after a change; a new attempt of a lost camera leaves it as lost as it was."""
    if status.state is CameraState.CONNECTING and view.reason is not None:
        return view
    since = view.since_seconds if status.state is view.state else status.time_seconds
    return replace(view, state=status.state, reason=status.reason, detail=status.detail, since_seconds=since)


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
        self._deliveries: dict[str, tuple[DeliveryState, str]] = {}
        self._upload_failed = False
        self._connections = Connections(metrics)
        self._aim_seconds = math.inf
        self._thinned: dict[str, int] = {}
        self._in_software: set[str] = set()
        """Why hardware does not decode: each reason that has been logged."""
        self._with_clips: set[str] = set()
        """Cameras with a large stream."""
        self._clip_reasons: dict[str, FailureReason | None] = {}
        """Those whose large stream has come or gone, and why it is away; None while it is there."""
        self._unscored: set[str] = set()
        """Cameras whose last window was not scored for want of coverage."""
        self._ungated: set[str] = set()
        """Cameras whose stream no gate can work with, as logged."""
        begin_monitor(metrics)

    # --- what is shown -------------------------------------------------------------------------------------------

    def cameras(self) -> list[CameraView]:
        """Return every camera as it stands, in the order of the configuration."""
        with self._lock:
            return list(self._cameras.values())

    def pipeline(self) -> PipelineView:
        """Return the stages behind capture as they stand."""
        with self._lock:
            return self._pipeline

    def monitor(self, instance: str) -> MonitorView:
        """Return the same as it is shown."""
        pipeline = self.pipeline()
        refused = pipeline.delivery_detail if pipeline.delivery is not DeliveryState.CONNECTED else ""
        return MonitorView(
            instance=instance,
            version=__version__,
            model=pipeline.model,
            model_version=pipeline.model_version,
            engine=pipeline.engine,
            precision=pipeline.precision,
            labels=pipeline.labels,
            window_slots=pipeline.window_slots,
            waiting_alerts=pipeline.outbox.pending if pipeline.outbox else None,
            kafka=pipeline.delivery.value if pipeline.delivery else None,
            trouble=pipeline.outbox_error or refused,
        )

    # --- what the rooms report -----------------------------------------------------------------------------------

    def camera_added(self, camera: CameraConfig) -> None:
        """Begin to report on a camera, or on what has changed of it; its series exist from here on."""
        with self._lock:
            before = self._cameras.get(camera.id)
            view = before or CameraView(id=camera.id, name="", site="")
            self._cameras[camera.id] = replace(view, name=camera.name or camera.id, site=camera.site)
        if before is None:
            self._connections.add(camera.id)
            begin_camera(self.metrics, camera.id)
        with self._lock:
            if not camera.clip_url:
                self._forget_clips(camera.id)
            elif camera.id not in self._with_clips:
                self._with_clips.add(camera.id)
                self.metrics.clip_up.labels(camera.id).set(0)

    def watched(self, camera: str, labels: Iterable[str]) -> None:
        """Begin to report on labels that are watched for on a camera; what has been counted of them stays."""
        begin_labels(self.metrics, camera, labels)

    def camera_removed(self, camera: str) -> None:
        """Report on a camera no longer: it leaves the page, and its series leave the metrics.

        Records that were on their way may make a series anew; whoever removes a camera asks again a little later.
        """
        with self._lock:
            self._cameras.pop(camera, None)
            self._forget_clips(camera)
        self._connections.forget(camera)
        self._unscored.discard(camera)
        self._ungated.discard(camera)
        self.metrics.forget_camera(camera)

    def _forget_clips(self, camera: str) -> None:
        """Report on a large stream no longer; under the lock, so that what was on its way makes no series anew."""
        self._with_clips.discard(camera)
        self._clip_reasons.pop(camera, None)
        for gauge in (self.metrics.clip_up, self.metrics.clip_ring_bytes):
            gauge.remove_by_labels({"camera": camera})

    def engine_opened(self, bundle: Bundle, opened: OpenedEngine) -> None:
        """Say which engine serves which model, and how well it reproduces the golden outputs."""
        manifest, engine, parity = bundle.manifest, opened.engine, opened.parity
        for skipped in opened.skipped:
            if skipped.expected:
                log.info("engine_skipped", engine=skipped.engine, reason=skipped.reason)
            else:
                log.warning("engine_skipped", engine=skipped.engine, reason=skipped.reason)
        log.info(
            "engine_opened",
            engine=engine.name,
            precision=engine.precision,
            model=manifest.name,
            version=manifest.version,
            cosine=round(parity.cosine, 6),
            embedding_error=float(f"{parity.embedding_error:.2g}"),
            probability_difference=float(f"{parity.probability_difference:.2g}"),
            attention_difference=float(f"{parity.attention_difference:.2g}"),
        )
        self.metrics.engine_parity.clear()
        self.metrics.model_info.clear()
        for measure in ("cosine", "embedding_error", "probability_difference", "attention_difference"):
            self.metrics.engine_parity.labels(engine.name, measure).set(getattr(parity, measure))
        self.metrics.model_info.labels(
            manifest.name, manifest.version, bundle.sha256[:12], engine.name, engine.precision
        ).set(1)
        self._aim_seconds = manifest.stride_seconds + LATENCY_SLACK_SECONDS
        self.metrics.latency_aim.set(self._aim_seconds)
        self.metrics.sample_rate.set(manifest.sample_fps)
        for label in manifest.event_labels:
            self.metrics.score.labels(label)
        with self._lock:
            self._pipeline = replace(
                self._pipeline,
                model=manifest.name,
                model_version=manifest.version,
                engine=engine.name,
                precision=engine.precision,
                labels=manifest.event_labels,
                window_slots=manifest.window_slots,
            )

    def status(self, status: CameraStatus) -> None:
        """Note a camera's change of state."""
        self._connections.note(status)
        if status.software_because and status.software_because not in self._in_software:
            self._in_software.add(status.software_because)
            log.warning("decoding_in_software", camera=status.camera, reason=status.software_because)
        if status.reason is FailureReason.WORKER_LOST and status.camera in self._clip_reasons:
            self.clip_stream(ClipStreamStatus(status.camera, False, status.reason, status.detail, status.retry_seconds))
        with self._lock:
            before = self._cameras.get(status.camera)
            if before is None:
                return
            after = self._cameras[status.camera] = _after(before, status)
        for state in CameraState:
            self.metrics.camera_state.labels(status.camera, state.value).set(state is after.state)
        self._log_status(status, before)

    @staticmethod
    def _log_status(status: CameraStatus, before: CameraView) -> None:
        """Log a change of state, or of its reason; what is tried again meanwhile is for debugging."""
        same = (status.state, status.reason) == (before.state, before.reason)
        bound = log.bind(camera=status.camera)
        match status.state:
            case CameraState.ONLINE:
                bound.info("camera_connected")
            case CameraState.CONNECTING:
                bound.debug("camera_connecting")
            case CameraState.OFFLINE | CameraState.REFUSED:
                say = bound.debug if same else bound.warning
                say(
                    "camera_lost" if status.state is CameraState.OFFLINE else "camera_refused",
                    reason=status.reason.value if status.reason else None,
                    detail=status.detail,
                    attempt=status.attempt,
                    wait_seconds=None if status.retry_seconds is None else round(status.retry_seconds, 1),
                )

    def clip_stream(self, status: ClipStreamStatus) -> None:
        """Note that a camera's large stream came or was lost; only a change is worth a line in the log."""
        with self._lock:
            if status.camera not in self._with_clips:
                return
            self.metrics.clip_up.labels(status.camera).set(1 if status.online else 0)
            known = status.camera in self._clip_reasons
            changed = not known or self._clip_reasons[status.camera] is not status.reason
            self._clip_reasons[status.camera] = status.reason
        if status.online and changed:
            log.info("clip_stream_connected", camera=status.camera)
        elif changed:
            log.warning(
                "clip_stream_lost",
                camera=status.camera,
                reason=status.reason.value if status.reason else None,
                detail=status.detail,
                wait_seconds=None if status.retry_seconds is None else round(status.retry_seconds, 1),
            )

    def counts(self, counts: CaptureCounts) -> None:
        """Add what one camera's capture counted."""
        metrics, camera = self.metrics, counts.camera
        metrics.packets.labels(camera).inc(counts.packets)
        metrics.received_bytes.labels(camera).inc(counts.bytes_received)
        metrics.frames_decoded.labels(camera).inc(counts.frames_decoded)
        metrics.frames_skipped.labels(camera).inc(counts.frames_skipped)
        metrics.decode_errors.labels(camera).inc(counts.decode_errors)
        metrics.samples.labels(camera).inc(counts.samples)
        for reason, count in counts.dropped.items():
            metrics.dropped.labels(camera, reason.value).inc(count)
        for cause, count in counts.woken.items():
            metrics.gate_wakeups.labels(camera, cause.value).inc(count)
        if counts.gate is not None:
            self._gate(camera, counts.gate)
        if counts.last_frame_seconds is not None:
            metrics.camera_last_frame.labels(camera).set(counts.last_frame_seconds)
        if counts.skew_seconds is not None:
            metrics.camera_skew.labels(camera).set(counts.skew_seconds)
        if counts.ring_bytes is not None:
            metrics.ring_bytes.labels(camera).set(counts.ring_bytes)
        with self._lock:
            if counts.clip_ring_bytes is not None and camera in self._with_clips:
                metrics.clip_ring_bytes.labels(camera).set(counts.clip_ring_bytes)
            view = self._cameras.get(camera)
            if view is not None:
                self._cameras[camera] = replace(
                    view,
                    samples=view.samples + counts.samples,
                    last_frame_seconds=counts.last_frame_seconds or view.last_frame_seconds,
                )

    def _gate(self, camera: str, state: GateState) -> None:
        """Note where a camera's gate stands; that it cannot be used is logged once."""
        self.metrics.gate_awake.labels(camera).set(state is not GateState.IDLE)
        if state is GateState.UNSUITED and camera not in self._ungated:
            self._ungated.add(camera)
            log.info("gate_unsuited", camera=camera)
        elif state is GateState.IDLE:
            self._ungated.discard(camera)

    def worker(self, report: WorkerReport) -> None:
        """Note what befell a capture process."""
        self.metrics.workers.set(report.running)
        told = {"worker": report.worker, "reason": report.reason}
        match report.event:
            case WorkerEvent.LOST:
                self.metrics.worker_restarts.inc()
                log.error("capture_worker_lost", **told)
            case WorkerEvent.RECYCLED:
                self.metrics.workers_recycled.inc()
                log.warning("capture_worker_recycled", **told)
            case WorkerEvent.CROWDED:
                log.warning("capture_worker_crowded", **told)

    def worker_vitals(self, vitals: WorkerVitals) -> None:
        """Note what a capture process takes of the machine."""
        worker = str(vitals.worker)
        self.metrics.worker_cpu.labels(worker).inc(vitals.cpu_seconds)
        self.metrics.worker_resident.labels(worker).set(vitals.resident_bytes)

    def evidence(self, report: EvidenceReport) -> None:
        """Note what became of a clip or a picture."""
        kind = report.kind.value
        self.metrics.evidence.labels(kind, report.result.value).inc()
        self.metrics.evidence_cpu.labels(kind).inc(report.cpu_seconds)
        told = {"camera": report.camera, "alert": report.alert_id, "kind": kind}
        if report.result is EvidenceResult.KEPT:
            size, cpu_seconds = report.bytes, round(report.cpu_seconds, 4)
            seconds = round(report.seconds, 2) if report.kind is EvidenceKind.CLIP else None
            log.info(
                "evidence_kept", **told, bytes=size, seconds=seconds, cpu_seconds=cpu_seconds, detail=report.detail
            )
        else:
            log.warning(f"evidence_{report.result.value}", **told, detail=report.detail)

    def upload(self, report: UploadReport) -> None:
        """Note an attempt to copy a media file to the bucket."""
        self.metrics.uploads.labels("uploaded" if report.ok else "failed").inc()
        changed, self._upload_failed = self._upload_failed is report.ok, not report.ok
        if changed and report.ok:
            log.info("media_upload_recovered")
        elif changed:
            log.warning("media_upload_failed", file=report.name, reason=report.detail)

    def health(self, change: HealthChange) -> None:
        """Note what a camera's picture is like; its connection is noted by `status`."""
        with self._lock:
            view = self._cameras.get(change.camera)
            if view is not None:
                self._cameras[change.camera] = replace(view, health=change.state)
        before = None if view is None else view.health
        if change.state in BLIND and change.state is not before:
            log.warning(f"camera_{change.state.value}", camera=change.camera)
        elif before in BLIND and change.state is HealthState.ONLINE:
            log.info("camera_sees_again", camera=change.camera, before=before.value)
        self.metrics.camera_frozen.labels(change.camera).set(change.state is HealthState.FROZEN)
        self.metrics.camera_dark.labels(change.camera).set(change.state is HealthState.DARK)

    def disk(self, folder: str, stats: DiskStats) -> None:
        """Note the room on the disk that holds a folder: `outbox`, `media`."""
        self.metrics.disk_free.labels(folder).set(stats.free_bytes)
        self.metrics.disk_size.labels(folder).set(stats.size_bytes)

    def media(self, stats: MediaStats) -> None:
        """Note how much the media folder holds."""
        self.metrics.media_bytes.set(stats.bytes)
        if stats.removed:
            log.info("media_removed", files=stats.removed, left_bytes=stats.bytes)

    def batch(self, report: BatchReport) -> None:
        """Note one run of the engine."""
        metrics = self.metrics
        metrics.batch_samples.observe(report.samples)
        metrics.stage_seconds.labels("wait").observe(report.oldest_wait_seconds)
        metrics.stage_seconds.labels("embed").observe(report.embed_seconds)
        metrics.batch_wait.observe(report.oldest_wait_seconds)
        metrics.inference_seconds.labels(report.engine, "backbone").observe(report.embed_seconds)
        if report.windows_scored:
            metrics.inference_seconds.labels(report.engine, "head").observe(report.head_seconds)
            metrics.stage_seconds.labels("head").observe(report.head_seconds)
        for camera, count in report.windows_skipped.items():
            metrics.windows_skipped.labels(camera).inc(count)
            if camera not in self._unscored:
                self._unscored.add(camera)
                log.warning("windows_not_scored", camera=camera, reason="too few pictures: a slow or broken stream")

    def dropped(self, camera: str, reason: DropReason) -> None:
        """Count a sample that never reached a window."""
        self.metrics.dropped.labels(camera, reason.value).inc()

    def shedding(self, plan: Shedding) -> None:
        """Note which cameras are thinned because scoring cannot keep up."""
        for camera, factor in plan.factors.items():
            self.metrics.degraded.labels(camera).set(factor > 1)
            self.metrics.stride_factor.labels(camera).set(factor)
        changed, self._thinned = plan.thinned != self._thinned, plan.thinned
        if not changed:
            return
        say = log.warning if plan.degraded else log.info
        say(
            "strides_lengthened" if plan.degraded else "strides_restored",
            cameras=plan.degraded,
            factor=max(plan.factors.values(), default=1),
            wait_seconds=round(plan.wait_seconds, 3),
            load=None if plan.load is None else round(plan.load, 2),
        )

    def shadow(self, report: ShadowReport) -> None:
        """Note how a second model's windows compare."""
        for verdict, count in (("agrees", report.agreed), ("disagrees", report.disagreed)):
            self.metrics.shadow_windows.labels(report.bundle, verdict).inc(count)
        told = report.disagreement
        if told is not None:
            log.info(
                "shadow_disagreed",
                bundle=report.bundle,
                camera=told.camera,
                windows=told.windows,
                seconds=round(told.end_seconds - told.start_seconds, 2),
                until=round(told.end_seconds, 2),
                label=told.main_label or None,
                shadow_label=told.shadow_label or None,
                difference=round(told.difference, 3),
            )
        if report.failure:
            log.error("shadow_failed", bundle=report.bundle, reason=report.failure)

    def model_change(self, result: str, **told: object) -> None:
        """Note what became of a change of the model: swapped, refused, rolled_back, restart_needed."""
        self.metrics.model_swaps.labels(result).inc()
        say = log.info if result == "swapped" else log.error
        say(f"model_{result}", **told)

    def decision(self, decision: Decision) -> None:
        """Note one decision of a tracker."""
        metrics = self.metrics
        window = decision.score.window
        log.debug(
            "window_scored",
            camera=decision.camera,
            first_slot=window.first_slot,
            coverage=round(window.coverage, 3),
            degraded=window.degraded,
            model=decision.model,
        )
        metrics.windows_scored.labels(decision.camera).inc()
        self._unscored.discard(decision.camera)
        metrics.stage_seconds.labels("decide").observe(decision.seconds)
        metrics.capture_to_decision.observe(decision.capture_to_decision_seconds)
        if decision.capture_to_decision_seconds > self._aim_seconds:
            metrics.windows_late.labels(decision.camera).inc()
        for reason, count in decision.suppressed.items():
            metrics.suppressed.labels(decision.camera, reason).inc(count)
        metrics.window_coverage.observe(window.coverage)
        for label, probability in decision.scores.items():
            metrics.score.labels(label).observe(probability)

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
            for camera in active.keys() & self._cameras.keys():
                self._cameras[camera] = replace(self._cameras[camera], active_events=active[camera])

    def onlookers(self, count: int) -> None:
        """Note how many browsers look on."""
        self.metrics.page_streams.set(count)

    def outbox(self, stats: OutboxStats) -> None:
        """Note how full the outbox is."""
        self.metrics.outbox_records.set(stats.pending)
        self.metrics.outbox_bytes.set(stats.pending_bytes)
        self.metrics.outbox_filled.set(stats.filled_ratio)
        self.metrics.outbox_oldest.set(stats.oldest_age_seconds)
        self.metrics.dead_letters.set(stats.dead_letters)
        with self._lock:
            self._pipeline = replace(self._pipeline, outbox=stats)

    def delivery(self, topic: str, report: DeliveryReport) -> None:
        """Note what Kafka took for a topic, and whether it answers."""
        metrics = self.metrics
        for seconds in report.acknowledged_seconds:
            metrics.capture_to_acknowledged.observe(seconds)
        for seconds in report.published_seconds:
            metrics.publish_seconds.observe(seconds)
        metrics.published.labels("acknowledged").inc(len(report.acknowledged_seconds))
        if report.failed:
            metrics.published.labels("failed").inc(report.failed)
        if report.dead_lettered:
            metrics.published.labels("dead_letter").inc(report.dead_lettered)
        metrics.kafka_up.labels(topic).set(1 if report.state is DeliveryState.CONNECTED else 0)
        with self._lock:
            changed = self._deliveries.get(topic) != (report.state, report.detail)
            self._deliveries[topic] = (report.state, report.detail)
            state, detail = max(self._deliveries.values(), key=lambda told: SEVERITY.index(told[0]))
            self._pipeline = replace(self._pipeline, delivery=state, delivery_detail=detail)
        if changed:
            say = log.info if report.state is DeliveryState.CONNECTED else log.warning
            say(f"kafka_{report.state.value}", topic=topic, detail=report.detail)
