"""Cameras and models in; every stage told of both, so that they agree on what is watched and which model scores it.

Cameras come, go and change while the others run undisturbed. A change of the model reaches the decisions camera by
camera, in order with the scores: an alert names the model that made it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from monitor import __version__
from monitor.bundle import Bundle, Manifest
from monitor.capture.gate import MOST_LOOK_SECONDS
from monitor.capture.worker import CaptureSupervisor
from monitor.config import CameraConfig, Config, EventsConfig, KafkaConfig
from monitor.decisions import Decider, Unwatch, Watch, thresholds_of
from monitor.events.alerts import AlertContext
from monitor.model_keeper import Model
from monitor.reload import Changes
from monitor.reporting import Reporter
from monitor.scoring.batcher import ModelStage, ModelStep, Scorer
from monitor.scoring.engine import OpenedEngine

OWN_TOPIC, OWN_HEALTH_TOPIC = "monitor.alerts", "monitor.cameras"
"""Topics that messages are kept under where Kafka is not configured."""
LEAVE_SECONDS = 1.0
"""How long the decisions may take to end a removed camera's events, so that their clips end as well."""
STRAGGLE_SECONDS = 5.0
"""How long after its removal a record of a camera may still be on its way."""


class Roster:
    """The cameras that are watched, and the models that score them.

    Args:
        config: the configuration that runs.
        model: the model that serves.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        *,
        capture: CaptureSupervisor,
        scorer: Scorer,
        decider: Decider,
        reporter: Reporter,
    ) -> None:
        self._config = config
        self._model = model
        self._coming: Model | None = None
        self._capture = capture
        self._scorer = scorer
        self._decider = decider
        self._reporter = reporter
        self._lock = threading.Lock()
        """Held while a camera's place in the configuration and in the decisions change together."""
        self._crossed: set[str] = set()
        self._removed: dict[str, float] = {}

    @property
    def config(self) -> Config:
        """The configuration that runs."""
        return self._config

    @property
    def model(self) -> Model:
        """The model that serves."""
        return self._model

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that are open: while one takes over, both."""
        coming = self._coming
        return (self._model,) if coming is None else (self._model, coming)

    def watch_all(self) -> None:
        """Have the configured cameras decided on; before the decisions start."""
        for camera in self._config.cameras:
            self._reporter.camera_added(camera)
            self._scorer.watch(camera.id, camera.priority)
            self._decider.watch(self._watch_of(camera, self._model))

    def open_all(self) -> None:
        """Have the configured cameras' streams read."""
        for camera in self._config.cameras:
            self._capture.add(camera)

    # --- cameras -------------------------------------------------------------------------------------------------

    def apply(self, config: Config, changes: Changes) -> None:
        """Take over a configuration: cameras that are gone leave, the others are told, new ones come."""
        with self._lock:
            self._config = config
            for camera in changes.removed:
                self._decider.put(Unwatch(camera))
            for added in (*changes.reopened, *changes.retold, *changes.added):
                self._tell_of(added)
        self._leave(changes.removed)
        for opened in (*changes.reopened, *changes.added):
            self._capture.add(opened)

    def look_around(self) -> None:
        """Remove again what stragglers of removed cameras left in the metrics."""
        now = time.monotonic()
        for camera, removed in list(self._removed.items()):
            self._reporter.camera_removed(camera)
            if now - removed > STRAGGLE_SECONDS:
                del self._removed[camera]

    def _tell_of(self, camera: CameraConfig) -> None:
        self._removed.pop(camera.id, None)
        self._reporter.camera_added(camera)
        self._scorer.watch(camera.id, camera.priority)
        crossed = self._coming is not None and camera.id in self._crossed
        self._decider.put(self._watch_of(camera, self._coming if crossed and self._coming else self._model))

    def _leave(self, cameras: Sequence[str]) -> None:
        until = time.monotonic() + LEAVE_SECONDS
        while cameras and self._decider.watches(cameras) and time.monotonic() < until:
            time.sleep(0.02)
        for camera in cameras:
            self._capture.remove(camera)
            self._scorer.forget(camera)
            self._reporter.camera_removed(camera)
            self._removed[camera] = time.monotonic()

    def _watch_of(self, camera: CameraConfig, model: Model) -> Watch:
        config, manifest = self._config, model.bundle.manifest
        return Watch(
            camera.id,
            labels=manifest.labels,
            thresholds=thresholds_of(camera, config.events, manifest),
            context=alert_context(camera, model.bundle, model.opened, instance=config.instance, kafka=config.kafka),
            rules=config.events,
            health=config.health,
            blind_after_seconds=blind_after(config.events, manifest),
        )

    # --- models --------------------------------------------------------------------------------------------------

    def change_model(self, model: Model) -> bool:
        """Let another model take over; false while another change is under way."""
        with self._lock:
            if self._coming is not None:
                return False
            self._coming, self._crossed = model, set()
        if self._scorer.change_model(model.opened.engine, model.bundle.manifest):
            return True
        with self._lock:
            self._coming = None
        return False

    def step(self, step: ModelStep) -> Model | None:
        """Tell the decisions of a step in a change of the model; return the model that is of no use any more."""
        with self._lock:
            coming = self._coming
            if coming is None:
                return None
            match step.stage:
                case ModelStage.CROSSING:
                    self._crossed |= set(step.cameras)
                    self._tell_model(step.cameras, coming)
                    return None
                case ModelStage.SWAPPED:
                    rest = [camera.id for camera in self._config.cameras if camera.id not in self._crossed]
                    self._tell_model(rest, coming)
                    gone, self._model, self._coming = self._model, coming, None
                case ModelStage.ROLLED_BACK:
                    self._tell_model(step.cameras, self._model)
                    gone, self._coming = coming, None
        return gone

    def _tell_model(self, cameras: Sequence[str], model: Model) -> None:
        for camera in self._config.cameras:
            if camera.id in cameras:
                self._decider.put(self._watch_of(camera, model))


def blind_after(rules: EventsConfig, manifest: Manifest) -> float:
    """Return how long a camera may go without a score before its open events end; a sleeping one is due with a look."""
    return rules.merge_gap_seconds + 2 * manifest.window_seconds + MOST_LOOK_SECONDS


def alert_context(
    camera: CameraConfig,
    bundle: Bundle,
    opened: OpenedEngine,
    *,
    instance: str,
    kafka: KafkaConfig | None = None,
    replayed: bool = False,
) -> AlertContext:
    """Return what an alert of `camera` says besides the event itself."""
    return AlertContext(
        camera=camera.id,
        camera_name=camera.name or camera.id,
        site=camera.site,
        tags=camera.tags,
        model=bundle.manifest.name,
        model_version=bundle.manifest.version,
        model_sha256=bundle.sha256,
        engine=opened.engine.name,
        precision=opened.engine.precision,
        instance=instance,
        version=__version__,
        topic=kafka.topic if kafka else OWN_TOPIC,
        health_topic=kafka.health_topic if kafka else OWN_HEALTH_TOPIC,
        replayed=replayed,
    )
