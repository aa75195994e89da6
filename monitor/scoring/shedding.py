"""Arrivals, engine times and waits in, each camera's stride factor out: what is left out when scoring cannot keep up.

A camera at factor f has every f-th slot of its grid embedded and every f-th window scored: the windows are as long
as ever and hold T / f pictures. A longer stride alone would save nothing, since overlapping windows need every
sample once and the backbone is what costs. The least important cameras go first, to the largest factor, before
the next more important ones are touched. Pure: time is told.

Up: the oldest sample has waited longer than `wait_seconds`; as far as the load at hand needs, one step at least.
Down: the wait has been short for `recover_seconds`; as far as the load then still fits with room to spare.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from monitor.bundle import Manifest

FACTORS = (2, 4)
FULL_LOAD = 0.85
"""Share of the engine's time that samples may take after a step up."""
SPARE_LOAD = 0.7
"""Share of it below which a step down is dared."""
LOOK_SECONDS = 0.25
EFFECT_SECONDS = 1.0
"""A step that should suffice is given so long to show it."""
CALM_SHARE = 0.5
"""A wait below this share of `wait_seconds` is short."""
SMOOTHING = 0.2
"""Weight of the newest batch in the mean time of a sample."""


@dataclass(frozen=True, slots=True)
class Shedding:
    """A change of the plan."""

    factors: dict[str, int]
    """Camera to stride factor, of every camera."""
    wait_seconds: float
    """Of the oldest sample when it was decided."""
    load: float | None
    """Share of the engine's time that the planned samples take, estimated; None before the first batch."""

    @property
    def thinned(self) -> dict[str, int]:
        """The cameras with a longer stride."""
        return {camera: factor for camera, factor in self.factors.items() if factor > 1}

    @property
    def degraded(self) -> int:
        """How many cameras have a longer stride."""
        return len(self.thinned)


def factors_of(manifest: Manifest) -> tuple[int, ...]:
    """Return the factors that a model bears, smallest first.

    Windows must still touch, or the tracker would take the time between them for silence, and hold two pictures.
    """
    slots, stride = manifest.window_slots, manifest.stride_slots
    return tuple(factor for factor in FACTORS if stride * factor <= slots and slots // factor >= 2)


class SheddingPlan:
    """Which cameras are thinned, and how much.

    Args:
        factors: what a camera may be thinned to, smallest first; empty: no shedding.
        wait_seconds: wait of the oldest sample from which on strides grow; 0: never.
        recover_seconds: how long the wait has to be short before they shrink.
    """

    def __init__(self, factors: tuple[int, ...], *, wait_seconds: float, recover_seconds: float) -> None:
        self._choice = factors if wait_seconds > 0 else ()
        self._wait_seconds = wait_seconds
        self._recover_seconds = recover_seconds
        self._priorities: dict[str, int] = {}
        self._ladder: list[tuple[str, int]] = []
        self._level = 0
        self._factors: dict[str, int] = {}
        self._arrived: Counter[str] = Counter()
        self._rates: dict[str, float] = {}
        self._counted_since: float | None = None
        self._sample_seconds: float | None = None
        self._calm_since: float | None = None
        self._looked = self._stepped = float("-inf")
        self._last_wait = 0.0

    @property
    def level(self) -> int:
        """How many steps are taken; 0: nothing is left out."""
        return self._level

    @property
    def at_its_end(self) -> bool:
        """Whether nothing more can be left out."""
        return self._level >= len(self._ladder)

    def watch(self, camera: str, priority: int) -> None:
        """Take a camera into the plan, or change its importance."""
        self._priorities[camera] = priority
        self._plan()

    def forget(self, camera: str) -> None:
        """Take a camera out of it."""
        self._priorities.pop(camera, None)
        self._rates.pop(camera, None)
        self._plan()

    def use(self, factors: tuple[int, ...]) -> None:
        """Take over the factors that another model bears."""
        self._choice = factors if self._wait_seconds > 0 else ()
        self._plan()

    def factor_of(self, camera: str) -> int:
        """Return a camera's stride factor."""
        return self._factors.get(camera, 1)

    def priority_of(self, camera: str) -> int:
        """Return a camera's importance."""
        return self._priorities.get(camera, 5)

    def arrived(self, camera: str) -> None:
        """Count a sample that came, planned or not."""
        self._arrived[camera] += 1

    def served(self, samples: int, seconds: float) -> None:
        """Note how long a batch took."""
        each = seconds / samples
        mean = self._sample_seconds
        self._sample_seconds = each if mean is None else mean + SMOOTHING * (each - mean)

    def look(self, now: float, wait_seconds: float) -> Shedding | None:
        """Decide anew, at most four times a second; return the plan where it has changed.

        Args:
            now: on the monotonic clock.
            wait_seconds: of the oldest sample that waits.
        """
        if now - self._looked < LOOK_SECONDS:
            return None
        self._looked = now
        self._count_rates(now)
        before, self._last_wait, last = self._level, wait_seconds, self._last_wait
        if self._wait_seconds and wait_seconds > self._wait_seconds:
            self._calm_since = None
            suffices = self._level > 0 and self._load(self._level, 0.0) <= FULL_LOAD
            if not (suffices and (wait_seconds < last or now - self._stepped < EFFECT_SECONDS)):
                self._level = self._enough(FULL_LOAD, at_least=min(self._level + 1, len(self._ladder)))
                self._stepped = now
        elif wait_seconds < CALM_SHARE * self._wait_seconds:
            self._recover(now)
        else:
            self._calm_since = None
        return self._changed(wait_seconds) if self._level != before else None

    def step_up(self, wait_seconds: float) -> Shedding | None:
        """Leave out one step more at once, since no sample finds room; None when nothing more can be left out."""
        if self.at_its_end:
            return None
        self._level += 1
        self._calm_since = None
        return self._changed(wait_seconds)

    def now(self) -> Shedding:
        """Return the plan as it stands."""
        return Shedding({camera: self.factor_of(camera) for camera in self._priorities}, self._last_wait, self._known())

    def _recover(self, now: float) -> None:
        if self._calm_since is None:
            self._calm_since = now
        if self._level and now - self._calm_since >= self._recover_seconds:
            self._calm_since = now
            self._level = min(self._level, self._enough(SPARE_LOAD, at_least=0))

    def _enough(self, load: float, *, at_least: int) -> int:
        """Return the lowest level from `at_least` on at which the samples take no more than `load`."""
        levels = range(at_least, len(self._ladder))
        return next((level for level in levels if self._load(level, load) <= load), len(self._ladder))

    def _load(self, level: int, unknown: float) -> float:
        """Return the share of the engine's time that the samples planned at a level take."""
        if self._sample_seconds is None or not self._rates:
            return unknown
        factors = dict(self._ladder[:level])
        return self._sample_seconds * sum(rate / factors.get(camera, 1) for camera, rate in self._rates.items())

    def _known(self) -> float | None:
        return None if self._sample_seconds is None else self._load(self._level, 0.0)

    def _count_rates(self, now: float) -> None:
        if self._counted_since is None:
            self._counted_since = now
        elif now - self._counted_since >= 4 * LOOK_SECONDS:
            seconds = now - self._counted_since
            self._rates = {camera: count / seconds for camera, count in self._arrived.items()}
            self._arrived.clear()
            self._counted_since = now

    def _plan(self) -> None:
        """Order the steps: the least important cameras through all factors, then the next."""
        self._ladder = [
            (camera, factor)
            for priority in sorted(set(self._priorities.values()))
            for factor in self._choice
            for camera in sorted(self._priorities)
            if self._priorities[camera] == priority
        ]
        self._level = min(self._level, len(self._ladder))
        self._factors = dict(self._ladder[: self._level])

    def _changed(self, wait_seconds: float) -> Shedding:
        self._factors = dict(self._ladder[: self._level])
        self._last_wait = wait_seconds
        return self.now()
