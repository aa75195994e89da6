"""One batch in, which model sees which of its samples out, while one model takes over from another. Pure.

The embeddings of two models do not mix, so each camera crosses by itself. From its first sample on, slot s, both
models see its samples, until the new one's ring holds a whole window: the old model's windows end before slot
s + T - 1, the new one's begin at slot s or later. None is missed, none is scored twice and none by a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monitor.bundle import Manifest
from monitor.scoring.waiting import Waiting

SILENT_SECONDS = 1.0
"""A camera without a sample for this much longer than a window has nothing left in the old model's ring."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where the samples of a batch go."""

    old: tuple[Waiting, ...]
    new: tuple[Waiting, ...]
    from_slots: Mapping[str, int]
    """By camera, where the new model's first window may begin."""
    closed: Mapping[str, int]
    """By camera that crosses in this batch, the slot before which the old model's last windows end."""
    restarted: tuple[str, ...]
    """Cameras whose clock was set back: the new model's ring begins anew."""
    warming: frozenset[str]
    """Cameras that have not crossed: the old model counts what is late of them."""


class Crossing:
    """The way of all cameras from one model to another.

    Args:
        new: the new model's manifest.
        began_seconds: now, on the monotonic clock.
    """

    def __init__(self, new: Manifest, *, began_seconds: float) -> None:
        self._slots = new.window_slots
        self._patience_seconds = new.window_seconds + SILENT_SECONDS
        self._began_seconds = began_seconds
        self._first: dict[str, int] = {}
        self._seen: dict[str, float] = {}
        self._crossed: set[str] = set()

    @property
    def crossed(self) -> frozenset[str]:
        """The cameras that the new model alone scores."""
        return frozenset(self._crossed)

    def route(self, batch: Sequence[Waiting], now: float) -> Route:
        """Divide a batch; a sample of a camera on its way goes to both models."""
        old: list[Waiting] = []
        closed: dict[str, int] = {}
        restarted: list[str] = []
        for waiting in batch:
            camera, slot = waiting.sample.camera, waiting.sample.slot
            self._seen[camera] = now
            if camera in self._crossed:
                continue
            first = self._first.setdefault(camera, slot)
            if slot < first:
                self._first[camera] = first = slot
                restarted.append(camera)
            if slot >= first + self._slots - 1:
                self._crossed.add(camera)
                closed[camera] = first + self._slots - 1
            else:
                old.append(waiting)
        cameras = {waiting.sample.camera for waiting in batch}
        return Route(
            old=tuple(old),
            new=tuple(batch),
            from_slots={camera: self._first[camera] for camera in cameras},
            closed=closed,
            restarted=tuple(restarted),
            warming=frozenset(cameras - self._crossed),
        )

    def forget(self, camera: str) -> None:
        """Let a camera go that is watched no longer."""
        self._first.pop(camera, None)
        self._seen.pop(camera, None)
        self._crossed.discard(camera)

    def done(self, now: float) -> bool:
        """Whether the old model has nothing more to score: every camera has crossed or has long been silent."""
        if now - self._began_seconds < self._patience_seconds:
            return False
        alive = {camera for camera, seen in self._seen.items() if now - seen < self._patience_seconds}
        return alive <= self._crossed
