"""The bundle that the configuration names in; whenever its files change, the checked new model out, opened beside.

The files are looked at every two seconds, and at once when asked. A bundle counts as complete when its files have
rested for one look and every checksum of its manifest fits, before the engine was opened and after: one that is
still being copied is never taken. Whatever is wrong with it, the model that serves goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from monitor.bundle import CHECKED_FILES, MANIFEST, Bundle, Manifest, find_bundle, load_bundle
from monitor.config import Config, ModelConfig, check_against_model
from monitor.deadline import Deadline
from monitor.errors import BundleInvalid, ConfigInvalid, EngineUnavailable, Problem
from monitor.scoring.cache import EngineCache
from monitor.scoring.engine import OpenedEngine, open_configured

POLL_SECONDS = 2.0
NO_MODEL = (BundleInvalid, ConfigInvalid, EngineUnavailable, OSError)
"""What opening a model may end in; OSError: of a disk, while a library reads its files."""


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle and the engine that runs it."""

    bundle: Bundle
    opened: OpenedEngine

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.bundle.manifest.name} {self.bundle.manifest.version}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a new model does not take over."""

    result: str
    """`refused`, or `restart_needed` where capture would have to begin anew."""
    reason: str
    bundle: str


Signature = tuple[object, ...]
NO_SHADOW: Signature = ("none",)
"""In place of the signature of one that was refused or has failed: it is tried again when asked."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """What an engine was opened from, beside the bundle."""

    asked: ModelConfig
    compiled: Mapping[str, bytes]
    """What `monitor compile` had made of the bundle."""

    def same_engine(self, other: _Origin | None) -> bool:
        """Whether the same engine is asked for, whatever the names of the bundles are."""
        if other is None or self.compiled != other.compiled:
            return False
        names = {"bundle": other.asked.bundle, "shadow": other.asked.shadow}
        return self.asked.model_copy(update=names) == other.asked


def grid_problem(serving: Manifest, new: Manifest) -> str:
    """Return why a model cannot score the samples that another one's capture takes; empty when it can."""
    if serving.sample_fps != new.sample_fps:
        return f"it wants {new.sample_fps:g} samples a second, capture takes {serving.sample_fps:g}"
    if serving.sample != new.sample:
        return "its samples have other sizes or pictures than those that capture takes"
    return ""


class ModelKeeper:
    """Owns the thread that looks for new models.

    Args:
        config: names the bundle.
        serving: the model that serves.
        open_model: loads and checks what a configuration names.
        on_model: takes over a new model, and the configuration that it was opened and checked with; false while
            another change is under way, or another configuration runs: it is then tried again.
        on_same: told the newest model, and a configuration that names it and whose labels fit it; false likewise.
        on_shadow: takes a new shadow over; None: there is none any more.
        on_refusal: told why one does not take over, once for each state of the files.
        on_failure: told of the first unexpected error; the thread has ended then.
    """

    def __init__(
        self,
        config: Config,
        serving: Model,
        *,
        open_model: Callable[[Config], Model],
        on_model: Callable[[Model, Config], bool],
        on_same: Callable[[Model, Config], bool],
        on_shadow: Callable[[Model | None], None],
        on_refusal: Callable[[Refusal], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._serving = serving
        self._open_model = open_model
        self._on_model = on_model
        self._on_same = on_same
        self._on_shadow = on_shadow
        self._on_refusal = on_refusal
        self._on_failure = on_failure
        self._opened_as: _Origin | None = _Origin(config.model, _compiled(config, serving.bundle))
        self._settled: Signature | None = _signature(config, config.model.bundle)
        self._resting: Signature | None = None
        self._shadow: Signature | None = _shadow_origin(config)
        self._at_once = False
        self._asked = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def look_again(self, config: Config) -> None:
        """Take a new configuration, and look at the bundle at once, whether its files have changed or not.

        What `monitor compile` has made of it meanwhile, and another shadow or other files of it, are taken up here,
        and only here.
        """
        with self._asked:
            self._config, self._at_once = config, True
        self._wake.set()

    def rolled_back(self, model: Model) -> None:
        """Say that a model taken over has failed, and which one serves after all.

        The failed one is opened anew when asked, even where nothing has changed.
        """
        self._serving, self._opened_as = model, None

    def shadow_failed(self) -> None:
        """Say that the shadow has failed: it is opened anew when asked, even where nothing has changed."""
        self._shadow = NO_SHADOW

    def stop(self, deadline: Deadline) -> None:
        """Look no more. A model that is just being opened is left to itself: its library cannot be interrupted."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(deadline.remaining())

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.wait(POLL_SECONDS)
                self._wake.clear()
                if not self._stopping.is_set():
                    self._look()
        except Exception as exc:  # the top of the thread: the service stops in order and exits with this error
            self._on_failure(exc)

    def _look(self) -> None:
        with self._asked:
            config, at_once, self._at_once = self._config, self._at_once, False
        if at_once:
            self._look_at_shadow(config)
        signature = _signature(config, config.model.bundle)
        if signature == self._settled and not at_once:
            return
        if signature != self._resting and not at_once:
            self._resting = signature  # it may still be written: wait for another look
            return
        self._settled, self._resting = signature, None
        if not self._change(config):
            self._settled = None

    def _change(self, config: Config) -> bool:
        """Open what the files say and hand it on; false when it is to be tried again."""
        serving, opened_as = self._serving, self._opened_as
        try:
            bundle = load_bundle(find_bundle(config.model.bundle, config.folder))
            origin = _Origin(config.model, _compiled(config, bundle))
            if bundle.sha256 == serving.bundle.sha256 and origin.same_engine(opened_as):
                check_against_model(config, bundle.manifest, bundle.path)
                return self._on_same(serving, config)
            problem = grid_problem(serving.bundle.manifest, bundle.manifest)
            if problem:
                self._on_refusal(Refusal("restart_needed", problem, str(bundle.path)))
                return True
            model = self._open_model(config)
        except NO_MODEL as exc:
            self._on_refusal(Refusal("refused", _one_line(exc), config.model.bundle))
            return True
        if _still_there(model.bundle):
            self._serving, self._opened_as = model, origin  # before it can be rolled back
            if self._on_model(model, config):
                return True
            self._serving, self._opened_as = serving, opened_as
        model.opened.engine.close()
        return False

    def _look_at_shadow(self, config: Config) -> None:
        """Open the shadow anew where another is asked for or its files have changed; one refused is tried again."""
        origin = _shadow_origin(config)
        if origin == self._shadow:
            return
        self._shadow = origin
        if origin is None:
            self._on_shadow(None)
            return
        try:
            model = open_shadow(config, self._serving.bundle.manifest, self._open_model)
        except NO_MODEL as exc:
            self._shadow = NO_SHADOW
            self._on_refusal(Refusal("shadow_refused", _one_line(exc), config.model.shadow))
            return
        self._on_shadow(model)


def open_model(config: Config, *, config_path: Path) -> Model:
    """Load the model that the configuration names, and prove that an engine here reproduces it.

    Raises:
        BundleInvalid: the files are altered.
        ConfigInvalid: there is no such bundle, or a label that it does not have.
        EngineUnavailable: nothing here can run it.
    """
    bundle = load_bundle(configured_bundle(config))
    check_against_model(config, bundle.manifest, config_path)
    return Model(bundle, open_configured(bundle, config.model))


def configured_bundle(config: Config, key: str = "bundle") -> Path:
    """Return the folder of the bundle that a key of `[model]` names.

    Raises:
        ConfigInvalid: there is none.
    """
    try:
        return find_bundle(getattr(config.model, key), config.folder)
    except BundleInvalid as exc:
        raise ConfigInvalid(config.path, [Problem(f"model.{key}", str(exc))]) from exc


def open_shadow(config: Config, serving: Manifest, open_model: Callable[[Config], Model]) -> Model:
    """Open the second bundle that the configuration names.

    Raises:
        BundleInvalid: its files are altered, or its samples are not those that capture takes.
        ConfigInvalid: there is no such bundle, or a label that it does not have.
        EngineUnavailable: nothing here can run it.
    """
    named = config.model.model_copy(update={"bundle": config.model.shadow})
    path = configured_bundle(config, "shadow")
    problem = grid_problem(serving, load_bundle(path).manifest)
    if problem:
        raise BundleInvalid(path, f"cannot be the shadow: {problem}")
    return open_model(config.model_copy(update={"model": named}))


def _still_there(bundle: Bundle) -> bool:
    """Whether a bundle's files are those that it was loaded from."""
    try:
        return load_bundle(bundle.path).sha256 == bundle.sha256
    except BundleInvalid:
        return False


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _compiled(config: Config, bundle: Bundle) -> Mapping[str, bytes]:
    """Return what `monitor compile` has made of a bundle on this machine."""
    return EngineCache(config.model.cache).records(bundle)


def _signature(config: Config, bundle: str) -> Signature:
    """Return what changes whenever somebody writes a bundle."""
    try:
        path = find_bundle(bundle, config.folder)
    except BundleInvalid:
        return (bundle,)
    return (path, *(_stamp(path / name) for name in (MANIFEST, *CHECKED_FILES)))


def _shadow_origin(config: Config) -> Signature | None:
    """Return what changes whenever another shadow, or another engine for it, is asked for, or somebody writes it."""
    asked = config.model
    if not asked.shadow:
        return None
    return (asked.model_copy(update={"bundle": asked.shadow}), *_signature(config, asked.shadow))


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns)
