"""A configuration in, a running monitor out: the one place that names the concrete parts and joins them.

Stop order, and why: capture first, so that nothing new arrives; then scoring, so that what was captured is scored;
then the decisions, which end the open events and commit them; then the publisher, which sends what it can in the time
left; then the outbox, which keeps the rest; then the page and the metrics, so that the end can still be seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from monitor import __version__
from monitor.bundle import Manifest
from monitor.capture.evidence import EvidencePlan
from monitor.capture.worker import CaptureSupervisor
from monitor.config import Config, check_against_model, load_config
from monitor.deadline import Deadline
from monitor.decisions import Commitment, Decider, Decision, EvidenceDesk
from monitor.delivery.kafka import Publisher
from monitor.delivery.media import MediaFolder
from monitor.delivery.outbox import Outbox
from monitor.delivery.upload import Uploader
from monitor.errors import ConfigInvalid, StageFailed
from monitor.events.alerts import recovered
from monitor.events.evidence import clip_name
from monitor.housekeeping import Housekeeper
from monitor.live_view import BEAT_SECONDS, LiveView
from monitor.model_keeper import Model, ModelKeeper, Refusal, open_model, open_shadow
from monitor.records import Alert, CameraStatus, CaptureCounts, EvidenceKind, EvidenceReport, EvidenceResult, Sample
from monitor.reload import applied, changes_between
from monitor.reporting import Reporter
from monitor.roster import Roster
from monitor.scoring.batcher import ModelStage, ModelStep, Scorer
from monitor.scoring.shadow import Shadow, ShadowReport
from monitor.signals import signals_told
from monitor.telemetry.metrics import Metrics
from monitor.web.app import Page
from monitor.web.feed import Feed
from monitor.web.server import WebServer

log = structlog.get_logger()

STOP_SECONDS = 4.5
"""Budget of a whole stop; a person waits no longer than five seconds."""
DECISIONS_SECONDS = 1.0
"""What the last commit has of it at least; a slow disk may take what is over."""
AFTER_DECISIONS_SECONDS = 1.5
"""What the stages after it have."""
RING_SPARE_SECONDS = 2.0
"""From a window's end to its decision and the request for its evidence, with room to spare."""


class Service:
    """The whole monitor: owns every part, starts and stops them in order.

    Args:
        config: the configuration.
        config_path: where it was read, to read it again on SIGHUP.
        model: the checked model and the engine that runs it.
        shadow: a second one that only looks on.
        outbox: the open store of alerts.
        learn_secrets: told the secrets of a configuration that is read again, before anything of it is logged.
    """

    def __init__(
        self,
        config: Config,
        *,
        config_path: Path,
        model: Model,
        shadow: Model | None,
        outbox: Outbox,
        learn_secrets: Callable[[Sequence[str]], None] = lambda _secrets: None,
    ) -> None:
        self._config = config
        self._config_path = config_path
        self._model = model
        self._first_shadow = shadow
        self._learn_secrets = learn_secrets
        self._reload = threading.Event()
        self._outbox = outbox
        self._reporter = Reporter(Metrics())
        self._feed = Feed(lambda camera: self._capture.show(camera))
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._address = ""
        self._build()

    def _build(self) -> None:
        config, reporter, manifest = self._config, self._reporter, self._model.bundle.manifest
        self._publishers = self._make_publishers()
        self._decider = Decider(
            self._outbox,
            on_decision=self._note_decision,
            on_commitment=self._committed,
            on_failure=self._failed("decisions"),
            on_health=reporter.health,
            evidence=self._evidence_desk(),
            lost_after_seconds=config.events.merge_gap_seconds,
        )
        self._scorer = Scorer(
            self._model.opened.engine,
            manifest,
            config.scoring,
            on_score=self._decider.put,
            on_batch=reporter.batch,
            on_drop=reporter.dropped,
            on_failure=self._failed("scoring"),
            on_shedding=reporter.shedding,
            on_model=self._note_model_step,
        )
        self._capture = CaptureSupervisor(
            config.capture,
            sample_fps=manifest.sample_fps,
            shape=manifest.sample,
            on_sample=self._note_sample,
            on_status=self._note_status,
            on_counts=self._note_counts,
            on_worker=reporter.worker,
            on_clip_stream=reporter.clip_stream,
            on_vitals=reporter.worker_vitals,
            on_evidence=self._note_evidence,
            on_picture=self._feed.pictures.note_keyframe,
            evidence=evidence_plan(config, manifest),
        )
        self._roster = Roster(
            config,
            self._model,
            capture=self._capture,
            scorer=self._scorer,
            decider=self._decider,
            reporter=reporter,
        )
        self._keeper = ModelKeeper(
            config,
            self._model,
            open_model=partial(open_model, config_path=self._config_path),
            on_model=self._roster.change_model,
            on_same=self._roster.keep_model,
            on_shadow=self._look_on,
            on_refusal=self._note_refusal,
            on_failure=self._failed("model"),
        )
        self._media = MediaFolder(
            config.evidence.folder, keep_days=config.evidence.keep_days, keep_bytes=config.evidence.keep_bytes
        )
        self._uploader = (
            Uploader(self._media, config.evidence, on_report=reporter.upload)
            if config.evidence.enabled and config.evidence.upload_url
            else None
        )
        self._housekeeper = Housekeeper(
            config,
            outbox=self._outbox,
            media=self._media,
            reporter=reporter,
            on_failure=self._failed("housekeeping"),
        )
        self._view = LiveView(
            reporter=reporter,
            roster=self._roster,
            outbox=self._outbox,
            media=self._media,
            threads={
                "scoring": lambda: self._scorer.alive,
                "decisions": lambda: self._decider.alive,
                "delivery": lambda: all(publisher.alive for publisher in self._publishers),
            },
        )
        http = config.http
        self._page = Page(self._view, self._feed, token=http.token.get_secret_value(), host=http.host)
        self._web = WebServer(self._page, host=http.host, port=http.port)

    def _make_publishers(self) -> list[Publisher]:
        kafka, report = self._config.kafka, self._reporter.delivery
        if kafka is None:
            return []
        return [
            Publisher(self._outbox, kafka, on_report=partial(report, kafka.topic)),
            Publisher(self._outbox, kafka, on_report=partial(report, kafka.health_topic), health=True),
        ]

    def _evidence_desk(self) -> EvidenceDesk | None:
        settings = self._config.evidence
        if not settings.enabled:
            return None
        longest = self._config.events.maximum_seconds
        return EvidenceDesk(settings, longest, keep=lambda request: self._capture.keep(request))

    # --- life ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start everything, run until asked to stop or until a stage fails, and stop everything.

        Raises:
            StageFailed: a stage died; the others were stopped in order.
            MonitorError: something could not be started.
        """
        with signals_told(self.ask_to_stop, self.ask_to_reload):
            try:
                self._start()
                self._wait()
            finally:
                self._shut_down()
        if self._failure is not None:
            raise self._failure

    def ask_to_stop(self) -> None:
        """Ask `run` to stop; returns at once."""
        self._stop.set()

    def ask_to_reload(self) -> None:
        """Ask `run` to read configuration and model anew; returns at once."""
        self._reload.set()

    @property
    def address(self) -> str:
        """Address of the page, once it is served."""
        return self._address

    def _start(self) -> None:
        self._housekeeper.look()  # the first scrape is told what waits
        self._address = self._web.start()
        self._reporter.engine_opened(self._model.bundle, self._model.opened)
        self._roster.watch_all()
        if self._first_shadow is not None:
            self._look_on(self._first_shadow)
        self._end_unfinished()
        self._housekeeper.finish_clips()
        self._decider.start()
        for publisher in self._publishers:
            publisher.start()
        if self._uploader is not None:
            self._uploader.start()
        self._scorer.start()
        self._capture.start()
        self._roster.open_all()
        self._keeper.start()
        self._housekeeper.start()
        log.info(
            "monitor_started",
            version=__version__,
            cameras=len(self._config.cameras),
            page=self._address,
            kafka=self._config.kafka.bootstrap_servers if self._config.kafka else None,
        )

    def _end_unfinished(self) -> None:
        """End the events that a crash left open."""
        unfinished = self._outbox.unfinished()
        if unfinished:
            ends = [end for last in unfinished if (end := self._end_of(last)) is not None]
            log.warning("events_recovered", count=len(ends))
            self._decider.say(ends)

    @staticmethod
    def _end_of(last: Alert) -> Alert | None:
        """Return the end of an event that a crash left open; None where its message cannot be read here.

        A newer program wrote it, or the disk has damaged it: the next start tries again.
        """
        try:
            return recovered(last, published_seconds=time.time())
        except ValueError as exc:
            log.error("event_not_recovered", camera=last.camera, alert=last.alert_id, reason=type(exc).__name__)
            return None

    def _wait(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self._view.beat()
            if self._capture.first_error is not None:
                self._failed("capture")(self._capture.first_error)
            if self._reload.is_set():
                self._reload.clear()
                self._read_again()
            self._roster.look_around()
            self._reporter.events_active(self._decider.active_events())
            self._reporter.onlookers(self._page.onlookers)
            self._feed.keep_only({camera.id for camera in self._roster.config.cameras})
            self._housekeeper.look()

    def _read_again(self) -> None:
        """Apply what has changed in the configuration; one that is broken leaves everything as it is."""
        running = self._roster.config
        try:
            read = load_config(self._config_path)
            self._learn_secrets(read.secrets())
            changes = changes_between(running, read)
            named = self._roster.model_of(read)
            if named is not None:  # another model is held against its labels once it is opened
                check_against_model(read, named.bundle.manifest, self._config_path)
        except ConfigInvalid as exc:
            log.error("configuration_not_reloaded", problems=[str(problem) for problem in exc.problems])
            return
        if changes.needs_restart:
            log.warning("restart_needed", keys=list(changes.needs_restart))
        config = applied(running, read)
        self._roster.apply(config, changes)
        self._keeper.look_again(config)
        log.info(
            "configuration_reloaded",
            added=[camera.id for camera in changes.added],
            removed=list(changes.removed),
            changed=[camera.id for camera in (*changes.reopened, *changes.retold)],
            model=changes.model,
        )

    def _shut_down(self) -> None:
        deadline = Deadline(STOP_SECONDS)
        log.info("monitor_stopping")
        steps: list[tuple[str, Callable[[], None]]] = [
            ("model", lambda: self._keeper.stop(Deadline(deadline.remaining(at_most=0.2)))),
            ("capture", lambda: self._capture.stop(Deadline(deadline.remaining(at_most=1.5)))),
            ("scoring", lambda: self._scorer.stop(Deadline(deadline.remaining(at_most=0.8)))),
            ("decisions", lambda: self._stop_decisions(deadline)),
        ]
        steps += [("kafka", partial(self._stop_publisher, publisher, deadline)) for publisher in self._publishers]
        if self._uploader is not None:
            uploader = self._uploader
            steps.append(("upload", lambda: uploader.stop(Deadline(deadline.remaining(at_most=0.5)))))
        steps += [
            ("housekeeping", lambda: self._housekeeper.stop(Deadline(deadline.remaining(at_most=0.2)))),
            ("outbox", self._outbox.close),
            ("engine", self._close_engines),
            ("web", lambda: self._web.stop(deadline)),
        ]
        for stage, stop in steps:
            try:
                stop()
            except Exception as exc:  # whatever one stage does, the others must be stopped; the exit code tells
                log.error("stage_not_stopped", stage=stage, reason=str(exc))
                self._failure = self._failure or exc
        log.info("monitor_stopped", waiting_alerts=self._waiting(), unsaid_alerts=self._decider.unsaid)

    def _close_engines(self) -> None:
        for model in self._roster.models:
            model.opened.engine.close()

    def _stop_decisions(self, deadline: Deadline) -> None:
        self._decider.stop(Deadline(max(DECISIONS_SECONDS, deadline.remaining() - AFTER_DECISIONS_SECONDS)))

    @staticmethod
    def _stop_publisher(publisher: Publisher, deadline: Deadline) -> None:
        publisher.stop(Deadline(deadline.remaining(at_most=1.2)))

    def _waiting(self) -> int | None:
        stats = self._reporter.pipeline().outbox
        return stats.pending if stats else None

    # --- what the parts tell -------------------------------------------------------------------------------------

    def _note_status(self, status: CameraStatus) -> None:
        self._reporter.status(status)
        self._decider.put(status)

    def _note_sample(self, sample: Sample) -> None:
        self._feed.pictures.note_sample(sample)
        self._scorer.put(sample)

    def _note_decision(self, decision: Decision) -> None:
        self._reporter.decision(decision)
        self._feed.history.note(decision.score, decision.watched)

    def _note_counts(self, counts: CaptureCounts) -> None:
        self._reporter.counts(counts)
        self._decider.put(counts)

    def _note_evidence(self, report: EvidenceReport) -> None:
        self._reporter.evidence(report)
        self._feed.news.note_evidence(report)
        if report.kind is EvidenceKind.CLIP and report.result is EvidenceResult.LOST:
            try:
                self._media.finish(clip_name(report.alert_id))
            except OSError as exc:
                log.warning("media_failed", reason=exc.strerror, folder=str(self._config.evidence.folder))

    def _note_model_step(self, step: ModelStep) -> None:
        gone = self._roster.step(step)
        if gone is None:
            return
        gone.opened.engine.close()
        model = self._roster.model
        if step.stage is ModelStage.SWAPPED:
            self._reporter.engine_opened(model.bundle, model.opened)
            self._reporter.model_change("swapped", model=model.title, before=gone.title)
        else:
            self._keeper.rolled_back(model)
            self._reporter.model_change("rolled_back", model=gone.title, serving=model.title, reason=step.reason)

    def _note_refusal(self, refusal: Refusal) -> None:
        serving = self._roster.model.title
        self._reporter.model_change(refusal.result, bundle=refusal.bundle, serving=serving, reason=refusal.reason)

    def _look_on(self, shadow: Model | None) -> None:
        if shadow is None:
            self._scorer.set_shadow(None)
            return
        log.info("shadow_opened", model=shadow.title, engine=shadow.opened.engine.name)
        engine, report = shadow.opened.engine, self._note_shadow
        self._scorer.set_shadow(Shadow(shadow.bundle, engine, self._config.scoring, on_report=report))

    def _note_shadow(self, report: ShadowReport) -> None:
        self._reporter.shadow(report)
        if report.failure:
            self._keeper.shadow_failed()

    def _committed(self, commitment: Commitment) -> None:
        self._reporter.commitment(commitment)
        for alert in commitment.said:
            if alert.label:  # a camera's health is shown on the camera itself
                self._feed.news.note_alert(alert)
        if commitment.said:
            for publisher in self._publishers:
                publisher.notify()

    def _failed(self, stage: str) -> Callable[[BaseException], None]:
        def note(error: BaseException) -> None:
            if self._failure is None:
                failure = StageFailed(stage, f"{type(error).__name__}: {error}")
                failure.__cause__ = error
                self._failure = failure
            log.error("stage_failed", stage=stage, error=f"{type(error).__name__}: {error}")
            self._stop.set()

        return note


def open_service(
    config: Config, *, config_path: Path, learn_secrets: Callable[[Sequence[str]], None] = lambda _secrets: None
) -> Service:
    """Load and check what a configuration names, and put the monitor together.

    Raises:
        BundleInvalid: the model cannot be used.
        ConfigInvalid: a label that the model does not have.
        EngineUnavailable: nothing here can run the model.
        OutboxUnavailable: the store of alerts cannot be opened.
    """
    open_named = partial(open_model, config_path=config_path)
    model = open_named(config)
    shadow = open_shadow(config, model.bundle.manifest, open_named) if config.model.shadow else None
    outbox = Outbox.open(config.outbox, deliver=config.kafka is not None)
    return Service(
        config,
        config_path=config_path,
        model=model,
        shadow=shadow,
        outbox=outbox,
        learn_secrets=learn_secrets,
    )


def evidence_plan(config: Config, manifest: Manifest) -> EvidencePlan | None:
    """Return what capture keeps for evidence: the ring reaches back to the pre-roll of an event just decided."""
    settings, events = config.evidence, config.events
    if not settings.enabled:
        return None
    window = (manifest.window_slots + manifest.stride_slots * events.smoothing_windows) / manifest.sample_fps
    needed = settings.pre_seconds + window + events.minimum_seconds + RING_SPARE_SECONDS
    return EvidencePlan(settings.folder, max(settings.ring_seconds, needed), settings.ring_bytes)
