"""Cameras and models in; every stage told of both, so that they agree on what is watched and which model scores it.

Cameras come, go and change while the others run undisturbed. A change of the model reaches the decisions camera by
camera, in order with the scores: an alert names the model that made it. Labels and thresholds go with the model that
they were written for: a camera is watched by those of the configuration that names the model that scores it. One that
names a model which is still being opened, or is refused, leaves what is watched as it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from monitor import __version__
from monitor.bundle import Bundle, Manifest
from monitor.capture.gate import MOST_LOOK_SECONDS
from monitor.capture.worker import CaptureSupervisor
from monitor.config import CameraConfig, Config, EventsConfig, KafkaConfig, check_against_model
from monitor.decisions import Decider, Unwatch, Watch, thresholds_of
from monitor.errors import ConfigInvalid
from monitor.events.alerts import AlertContext
from monitor.model_keeper import Model
from monitor.records import Threshold
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


@dataclass(slots=True)
class _Open:
    """A model that is open, and the configuration whose labels and thresholds go with it."""

    model: Model
    config: Config

    def fits(self, config: Config) -> bool:
        """Whether a configuration names this model, and only labels that it has."""
        if config.model.bundle != self.config.model.bundle:
            return False
        try:
            check_against_model(config, self.model.bundle.manifest, self.model.bundle.path)
        except ConfigInvalid:
            return False
        return True


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
        self._serving = _Open(model, config)
        self._coming: _Open | None = None
        self._capture = capture
        self._scorer = scorer
        self._decider = decider
        self._reporter = reporter
        self._lock = threading.Lock()
        """Held while a camera's place in the configuration and in the decisions change together."""
        self._crossed: set[str] = set()
        self._told: dict[str, Watch] = {}
        """What the decisions were told last of each camera."""
        self._removed: dict[str, float] = {}

    @property
    def config(self) -> Config:
        """The configuration that runs."""
        return self._config

    @property
    def model(self) -> Model:
        """The model that serves."""
        return self._serving.model

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that are open: while one takes over, both."""
        coming = self._coming
        return (self.model,) if coming is None else (self.model, coming.model)

    def model_of(self, config: Config) -> Model | None:
        """Return the open model that a configuration names, the newest of its name; None where none has it."""
        serving, coming = self._serving, self._coming
        named = [known for known in (serving, coming) if known and known.config.model.bundle == config.model.bundle]
        return named[-1].model if named else None

    def watched(self) -> Mapping[str, Mapping[str, Threshold]]:
        """Return the labels that each camera is watched for, with their thresholds."""
        return {camera: watch.thresholds for camera, watch in self._told.copy().items()}

    def watch_all(self) -> None:
        """Have the configured cameras decided on; before the decisions start."""
        for camera in self._config.cameras:
            self._reporter.camera_added(camera)
            self._scorer.watch(camera.id, camera.priority)
            self._tell((camera,), self._decider.watch)

    def open_all(self) -> None:
        """Have the configured cameras' streams read."""
        for camera in self._config.cameras:
            self._capture.add(camera)

    # --- cameras -------------------------------------------------------------------------------------------------

    def apply(self, config: Config, changes: Changes) -> None:
        """Take over a configuration: cameras that are gone leave, the others are told, new ones come."""
        with self._lock:
            self._config = config
            for known in (self._serving, self._coming):
                if known is not None and known.fits(config):
                    known.config = config
            for gone in changes.removed:
                self._decider.put(Unwatch(gone))
                self._crossed.discard(gone)
                self._told.pop(gone, None)
            for camera in (*changes.reopened, *changes.retold, *changes.added):
                self._removed.pop(camera.id, None)
                self._reporter.camera_added(camera)
                self._scorer.watch(camera.id, camera.priority)
            self._tell(config.cameras, self._decider.put)
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

    def _leave(self, cameras: Sequence[str]) -> None:
        until = time.monotonic() + LEAVE_SECONDS
        while cameras and self._decider.watches(cameras) and time.monotonic() < until:
            time.sleep(0.02)
        for camera in cameras:
            self._capture.remove(camera)
            self._scorer.forget(camera)
            self._reporter.camera_removed(camera)
            self._removed[camera] = time.monotonic()

    def _tell(self, cameras: Iterable[CameraConfig], put: Callable[[Watch], None]) -> None:
        """Have cameras decided on as they now stand, where that differs from before; under the lock."""
        for camera in cameras:
            watch = self._watch_of(camera)
            if watch != self._told.get(camera.id):
                self._told[camera.id] = watch
                self._reporter.watched(camera.id, watch.thresholds)
                put(watch)

    def _watch_of(self, camera: CameraConfig) -> Watch:
        scoring = self._coming if self._coming and camera.id in self._crossed else self._serving
        config, model = scoring.config, scoring.model
        manifest = model.bundle.manifest
        named = camera
        if config is not self._config:
            named = next((known for known in config.cameras if known.id == camera.id), camera)
        return Watch(
            camera.id,
            labels=manifest.labels,
            background=manifest.background,
            thresholds=thresholds_of(named, config.events, manifest),
            context=alert_context(camera, model.bundle, model.opened, instance=config.instance, kafka=config.kafka),
            rules=config.events,
            health=config.health,
            blind_after_seconds=blind_after(config.events, manifest),
        )

    # --- models --------------------------------------------------------------------------------------------------

    def change_model(self, model: Model, config: Config) -> bool:
        """Let another model take over, opened for this configuration.

        False while another change is under way, or another configuration runs: its labels were not held against it.
        """
        with self._lock:
            if self._coming is not None or config != self._config:
                return False
            self._coming, self._crossed = _Open(model, self._config), set()
        if self._scorer.change_model(model.opened.engine, model.bundle.manifest):
            return True
        with self._lock:
            self._coming = None
        return False

    def keep_model(self, model: Model, config: Config) -> bool:
        """Take over the labels of a configuration that names the newest model, if by another name; false as above."""
        with self._lock:
            newest = self._coming or self._serving
            if newest.model is not model or config != self._config:
                return False
            newest.config = self._config
            self._tell(config.cameras, self._decider.put)
        return True

    def step(self, step: ModelStep) -> Model | None:
        """Tell the decisions of a step in a change of the model; return the model that is of no use any more."""
        with self._lock:
            coming, cameras = self._coming, self._config.cameras
            if coming is None:
                return None
            gone: Model | None = None
            match step.stage:
                case ModelStage.CROSSING:
                    cameras = tuple(camera for camera in cameras if camera.id in set(step.cameras))
                    self._crossed |= {camera.id for camera in cameras}
                case ModelStage.SWAPPED:
                    gone = self._serving.model
                    self._serving, self._coming = coming, None
                case ModelStage.ROLLED_BACK:
                    gone, self._coming = coming.model, None
            self._tell(cameras, self._decider.put)
        return gone


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
