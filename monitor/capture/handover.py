"""Reports of a process and of its successor in; those that the service should hear of, out.

A process that has grown too large is replaced while it still works. Its successor connects to the same cameras, and
each camera goes over with the first sample that continues its grid. The old process stays a while for the past that it
holds: its packet rings, out of which evidence is made, and the clips that it has begun.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from enum import Enum

from monitor.capture.life import Life
from monitor.capture.pipe import ReleaseCamera, Report
from monitor.records import CameraStatus, CaptureCounts, Sample

HAND_OVER_SECONDS = 8.0
"""A camera that the successor cannot show by then is taken from the old process: it may allow one client alone."""
LINGER_MOST_SECONDS = 180.0
"""The old process leaves then, whatever clip it still writes."""
LEAVE_SECONDS = 2.0


class Phase(Enum):
    """How far a handover is."""

    STARTING = "starting"
    """The successor's process imports its libraries."""
    OVERLAP = "overlap"
    """Both watch the cameras."""
    LINGER = "linger"
    """The successor has them; the old process finishes its evidence."""
    LEAVING = "leaving"
    """The old process was asked to end."""


class Handover:
    """Which of two processes is believed, camera by camera. Any thread may ask.

    Args:
        old: the process that is to be replaced.
        new: its successor, just started.
        linger_seconds: how long the old one's rings reach further back than the new one's.
        reason: why it is replaced.
    """

    def __init__(self, old: Life, new: Life, *, linger_seconds: float, reason: str) -> None:
        self.old = old
        self.new = new
        self.reason = reason
        self.phase = Phase.STARTING
        self._linger_seconds = linger_seconds
        self._since = time.monotonic()
        self._given: set[str] = set()
        self._slots: dict[str, int] = {}
        self._released: dict[str, float] = {}
        """When the old process was told to watch a camera no longer, in seconds since 1970."""
        self._lock = threading.Lock()

    @property
    def phase_seconds(self) -> float:
        """How long this phase has lasted."""
        return time.monotonic() - self._since

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase = phase
        self._since = time.monotonic()

    def passed(self, life: Life, report: Report) -> tuple[Report, ...]:
        """Return what the service should hear when one of the two reports something of a camera."""
        if not isinstance(report, Sample | CameraStatus | CaptureCounts):
            return (report,)
        camera = report.camera
        if self.phase in (Phase.LINGER, Phase.LEAVING):
            return () if life is self.old else (report,)
        with self._lock:
            if (camera in self._given) is (life is self.new):
                if isinstance(report, Sample):
                    self._slots[camera] = report.slot
                return (report,)
            if life is self.new and isinstance(report, Sample):
                told = self._slots.get(camera, -1)
                if report.slot >= told:  # the next one of either continues the grid; the successor need not be faster
                    return (*self._give(camera), *((report,) if report.slot > told else ()))
            return ()

    def waiting(self, cameras: Iterable[str]) -> tuple[str, ...]:
        """Return those of the cameras that have not gone over."""
        now = tuple(cameras)  # at once: another thread may add or remove one meanwhile
        with self._lock:
            return tuple(camera for camera in now if camera not in self._given)

    def release(self, camera: str) -> tuple[CameraStatus, ...]:
        """Let the successor alone have a camera, which it could not show so far; return what has to be told for it."""
        self.old.send(ReleaseCamera(camera))
        with self._lock:
            self._released[camera] = time.time()
            return self._give(camera)

    def forget(self, camera: str) -> None:
        """Forget a camera that is no longer watched."""
        with self._lock:
            self._given.discard(camera)
            self._slots.pop(camera, None)
            self._released.pop(camera, None)

    def old_has_evidence(self, camera: str, seconds: float) -> bool:
        """Whether it is the old process that has a camera's packets of a time, in seconds since 1970, and before it."""
        with self._lock:
            if seconds > self._released.get(camera, math.inf):
                return False
        early = self.phase in (Phase.STARTING, Phase.OVERLAP)
        return early or (self.phase is Phase.LINGER and not self.lingered)

    @property
    def lingered(self) -> bool:
        """Whether the successor's rings reach as far back by now."""
        return self.phase_seconds >= self._linger_seconds

    def _give(self, camera: str) -> tuple[CameraStatus, ...]:
        self._given.add(camera)
        before, now = self.old.states.get(camera), self.new.states.get(camera)
        return () if now is None or (before is not None and before.state is now.state) else (now,)
