"""Samples of all cameras in, the next ones to be scored out: fair among cameras, important cameras first. Pure.

A camera's samples keep their order. The places of a batch are dealt in rounds: each camera that has something
waiting gets one place a round, the more important ones first, among equals the one that was served longest ago.
Every eighth place goes to the sample that has waited longest, whoever its camera is, so that nobody starves.

What an idle gate takes is thinner than any plan asks already, and is never left out for it.

When the room is full, a camera that holds more than an even share of it loses its oldest sample: of those the
least important, and then the one with the most. A camera within its share never pays for another's burst.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from monitor.records import Sample

PATIENCE_PLACES = 8
"""Of so many places one goes to the sample that has waited longest."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A sample on its way to the engine."""

    sample: Sample
    since_seconds: float
    """When it came, on the monotonic clock."""
    factor: int = 1
    """The camera's stride factor as it was taken."""
    shed_slots: tuple[int, ...] = ()
    """Slots of the camera, since its sample before, that load shedding left out."""


@dataclass(slots=True, eq=False)
class _Place:
    """A sample in its camera's line, and in the order in which all came."""

    waiting: Waiting
    gone: bool = False


@dataclass(slots=True, eq=False)
class _Line:
    """One camera's samples, oldest first."""

    waiting: deque[_Place] = field(default_factory=deque)
    shed: list[int] = field(default_factory=list)
    """Slots left out since the newest sample."""
    served: int = 0
    """Number of the place it was given last."""


class WaitingSamples:
    """The room in which samples wait.

    Args:
        capacity: samples of all cameras together.
        priority_of: a camera's importance, higher is more important.
        factor_of: a camera's stride factor now; of its slots only every such one is embedded.
    """

    def __init__(
        self, capacity: int, *, priority_of: Callable[[str], int], factor_of: Callable[[str], int] = lambda _camera: 1
    ) -> None:
        self._capacity = capacity
        self._priority_of = priority_of
        self._factor_of = factor_of
        self._lines: dict[str, _Line] = {}
        self._came: deque[_Place] = deque()
        """Of all cameras, oldest first; those that are gone are left out as they reach its head."""
        self._count = 0
        self._places = 0

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether the next sample costs another its place."""
        return self._count >= self._capacity

    @property
    def oldest_since(self) -> float | None:
        """When the sample came that has waited longest; None when none waits."""
        return self._oldest().waiting.since_seconds if self._count else None

    def put(self, sample: Sample, now: float) -> Sample | None:
        """Take a sample in, unless its slot is left out by plan, and return the one that lost its place, if any."""
        line = self._lines.setdefault(sample.camera, _Line())
        if not (sample.idle or is_planned(sample.slot, self._factor_of(sample.camera))):
            line.shed.append(sample.slot)
            return None
        place = _Place(Waiting(sample, now, shed_slots=tuple(line.shed)))
        line.waiting.append(place)
        self._came.append(place)
        line.shed.clear()
        self._count += 1
        return self._dropped() if self._count > self._capacity else None

    def take(self, most: int) -> list[Waiting]:
        """Return the next samples, each with the stride factor of its camera."""
        taken: list[Waiting] = []
        served: set[str] = set()
        order: Iterator[str] = iter(())
        while len(taken) < most and self._count:
            if (self._places + 1) % PATIENCE_PLACES == 0:
                camera = self._oldest().waiting.sample.camera
            else:
                following = next((name for name in order if name not in served), None)
                if following is None:  # all that wait were served in this round
                    served.clear()
                    order = iter(self._round())
                    continue
                camera = following
            served.add(camera)
            taken.append(self._take_from(camera))
        return taken

    def thin(self) -> None:
        """Leave out what waits and is no longer planned, since a factor has grown."""
        for camera, line in self._lines.items():
            factor = self._factor_of(camera)
            if factor > 1:
                self._thin(line, factor)

    def forget(self, camera: str) -> None:
        """Leave nothing of a camera."""
        line = self._lines.pop(camera, None)
        for place in line.waiting if line else ():
            place.gone = True
            self._count -= 1

    def clear(self) -> list[Sample]:
        """Empty the room and return what waited."""
        left = [place.waiting.sample for place in self._came if not place.gone]
        self._lines.clear()
        self._came.clear()
        self._count = 0
        return left

    def _oldest(self) -> _Place:
        """Return what has waited longest; something waits."""
        while self._came[0].gone:
            self._came.popleft()
        return self._came[0]

    def _round(self) -> list[str]:
        """Return the cameras that have something waiting, in the order in which they are served."""
        waiting = [camera for camera, line in self._lines.items() if line.waiting]
        return sorted(waiting, key=lambda camera: (-self._priority_of(camera), self._lines[camera].served))

    def _take_from(self, camera: str) -> Waiting:
        line = self._lines[camera]
        self._places += 1
        line.served = self._places
        return replace(self._leave(line), factor=self._factor_of(camera))

    def _leave(self, line: _Line) -> Waiting:
        """Take a line's oldest out of the room."""
        place = line.waiting.popleft()
        place.gone = True
        self._count -= 1
        return place.waiting

    def _dropped(self) -> Sample:
        cameras = [camera for camera, line in self._lines.items() if line.waiting]
        share = self._capacity / len(cameras)
        above = [camera for camera in cameras if len(self._lines[camera].waiting) > share]
        camera = min(above, key=lambda name: (self._priority_of(name), -len(self._lines[name].waiting)))
        return self._leave(self._lines[camera]).sample

    def _thin(self, line: _Line, factor: int) -> None:
        kept: deque[_Place] = deque()
        shed: list[int] = []
        for place in line.waiting:
            shed += place.waiting.shed_slots
            if place.waiting.sample.idle or is_planned(place.waiting.sample.slot, factor):
                place.waiting = replace(place.waiting, shed_slots=tuple(shed))
                kept.append(place)
                shed = []
            else:
                shed.append(place.waiting.sample.slot)
                place.gone = True
        self._count -= len(line.waiting) - len(kept)
        line.waiting = kept
        line.shed = shed + line.shed


def is_planned(slot: int, factor: int) -> bool:
    """Whether a slot is embedded at this stride factor: of the absolute grid every `factor`-th, alike on replicas.

    The last slot of each window that is scored at that factor is one of them.
    """
    return (slot + 1) % factor == 0
