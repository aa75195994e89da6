"""The running configuration and one newly read in; what is applied at once, and what needs a restart, out. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from monitor.config import CameraConfig, Config

RETOLD_KEYS = frozenset({"name", "site", "tags", "labels", "thresholds", "priority"})
"""Keys of a camera that do not touch its stream."""
SECRET_OF = {"kafka": "password", "http": "token"}
AT_ONCE = frozenset({"cameras", "model"})
"""Sections that are applied while running."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a reload changes."""

    added: tuple[CameraConfig, ...] = ()
    removed: tuple[str, ...] = ()
    reopened: tuple[CameraConfig, ...] = ()
    """Cameras whose stream has to be read anew."""
    retold: tuple[CameraConfig, ...] = ()
    """Cameras of which only what is watched for, or said of them, differs; their stream goes on."""
    model: bool = False
    """Whether another bundle, engine or shadow is asked for."""
    needs_restart: tuple[str, ...] = ()
    """Keys that differ and are not applied: `kafka.topic`."""

    @property
    def any(self) -> bool:
        """Whether something is applied."""
        return bool(self.added or self.removed or self.reopened or self.retold or self.model)


def changes_between(running: Config, read: Config) -> Changes:
    """Compare two configurations, both checked."""
    before = {camera.id: camera for camera in running.cameras}
    now = {camera.id: camera for camera in read.cameras}
    kept = [camera for camera in read.cameras if camera.id in before]
    reopened = tuple(camera for camera in kept if _stream_differs(before[camera.id], camera))
    thresholds_differ = running.events.thresholds != read.events.thresholds
    retold = tuple(
        camera for camera in kept if camera not in reopened and (thresholds_differ or camera != before[camera.id])
    )
    return Changes(
        added=tuple(camera for camera in read.cameras if camera.id not in before),
        removed=tuple(camera for camera in before if camera not in now),
        reopened=reopened,
        retold=retold,
        model=running.model != read.model,
        needs_restart=_needing_restart(running, read),
    )


def applied(running: Config, read: Config) -> Config:
    """Return the configuration that runs once the changes are applied: the rest stays as it was."""
    events = running.events.model_copy(update={"thresholds": read.events.thresholds})
    return running.model_copy(update={"cameras": read.cameras, "model": read.model, "events": events})


def _stream_differs(one: CameraConfig, two: CameraConfig) -> bool:
    """Whether address, credentials, zone or transport differ; a password that was changed in its file counts."""
    update = {key: getattr(two, key) for key in RETOLD_KEYS}
    return one.model_copy(update=update) != two


def _needing_restart(running: Config, read: Config) -> tuple[str, ...]:
    keys: list[str] = []
    for name in type(running).model_fields:
        one, two = getattr(running, name), getattr(read, name)
        if name in AT_ONCE or one == two:
            continue
        if not (isinstance(one, BaseModel) and isinstance(two, BaseModel)):
            keys.append(name)
            continue
        different = [key for key in type(one).model_fields if getattr(one, key) != getattr(two, key)]
        if name == "events":
            different = [key for key in different if key != "thresholds"]
        elif not different:
            different = [SECRET_OF[name]]  # the only thing that is kept beside the keys
        keys += [f"{name}.{key}" for key in different]
    return tuple(keys)
