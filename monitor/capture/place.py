"""A place for a capture process, the cameras that belong to it whichever process fills it, and what is told of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from enum import StrEnum

from monitor.capture.handover import Handover, Phase
from monitor.capture.life import Life
from monitor.config import CameraConfig
from monitor.records import CameraState, CameraStatus, FailureReason

RESTART_MIN_SECONDS = 0.5
RESTART_MAX_SECONDS = 30.0
SETTLED_SECONDS = 60.0
"""A process that lived this long counts as well: its next restart is immediate again."""


class WorkerEvent(StrEnum):
    """What befell a capture process."""

    STARTED = "started"
    LOST = "lost"
    RECYCLED = "recycled"
    """A successor has taken over its cameras while it still worked."""
    CROWDED = "crowded"
    """It needs more memory than its limit from the start: recycling would not help."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """Something befell a capture process."""

    worker: int
    """Number of the worker, from 0; its replacement has the same."""
    running: int
    """Capture processes that run now."""
    event: WorkerEvent
    reason: str = ""
    """How it was lost (`killed by SIGKILL`, `exited with 1`, `no heartbeat for 2 s`), why it cannot be started, is
    recycled or crowded."""
    pid: int | None = None
    """None: it could not be started."""
    cameras: tuple[str, ...] = ()
    """The cameras that it holds, or held."""

    @property
    def lost(self) -> bool:
        """Whether this is the end of one that still had cameras."""
        return self.event is WorkerEvent.LOST


@dataclass(frozen=True, slots=True)
class WorkerVitals:
    """What a capture process takes of the machine, several times a second."""

    worker: int
    resident_bytes: int
    """Memory; of both processes while one hands over to the other."""
    cpu_seconds: float
    """Processor time since the report before."""


@dataclass(slots=True)
class Place:
    """A place for a process, and the cameras that belong to it whichever process fills it."""

    number: int
    cameras: dict[str, CameraConfig] = field(default_factory=dict)
    life: Life | None = None
    handover: Handover | None = None
    losses: int = 0
    """Processes lost in a row without one that settled."""
    next_start: float = 0.0

    def lives(self) -> tuple[Life, ...]:
        """Return every process that runs for this place."""
        both = () if self.handover is None else (self.handover.old, self.handover.new)
        first = () if self.life is None or self.life in both else (self.life,)
        return (*first, *both)

    def watching(self) -> tuple[Life, ...]:
        """Return the processes that have the place's cameras, or wait for them."""
        if self.handover is not None and self.handover.phase is Phase.OVERLAP:
            return self.handover.old, self.handover.new
        return () if self.life is None else (self.life,)

    def evidence_life(self, camera: str, seconds: float) -> Life | None:
        """Return the process that has a camera's packets of a time, in seconds since 1970, and most of those before."""
        older = self.handover is not None and self.handover.old_has_evidence(camera, seconds)
        return self.handover.old if self.handover is not None and older else self.life

    def note_loss(self, age_seconds: float) -> float:
        """Note that a process of this age was lost; return the seconds before the next one is started."""
        self.losses = 1 if age_seconds >= SETTLED_SECONDS else self.losses + 1
        wait = 0.0 if self.life is not None else restart_wait(self.losses)
        self.next_start = time.monotonic() + wait
        return wait


def restart_wait(losses: int) -> float:
    """Return the seconds before a lost process is replaced: none at first, then doubling."""
    if losses <= 1:
        return 0.0
    return min(RESTART_MAX_SECONDS, RESTART_MIN_SECONDS * math.pow(2.0, min(losses - 2, 16)))


def lost_status(camera: str, reason: str, *, attempt: int, wait: float) -> CameraStatus:
    """Return what is told of a camera whose capture process is not there."""
    return CameraStatus(
        camera=camera,
        state=CameraState.OFFLINE,
        time_seconds=time.time(),
        reason=FailureReason.WORKER_LOST,
        detail=f"capture process {reason}",
        attempt=attempt,
        retry_seconds=wait,
    )
