"""Cameras to watch in; their samples, states and counts out, by callbacks. Owns the capture processes.

A camera that crashes the decoder or hangs in FFmpeg costs its process, never the service: a process that dies or
falls silent is killed, and a new one takes over its cameras. The inside of a process is in `process`.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from monitor.bundle import SampleShape
from monitor.capture.camera import CapturePlan
from monitor.capture.evidence import EvidencePlan
from monitor.capture.pipe import AddCamera, Channel, Command, RemoveCamera, Report, Stop, channel_pair
from monitor.config import CameraConfig, CaptureConfig
from monitor.deadline import Deadline
from monitor.errors import StopTimedOut
from monitor.records import (
    BeginClip,
    CameraState,
    CameraStatus,
    CaptureCounts,
    ClipStreamStatus,
    EvidenceKind,
    EvidenceReport,
    EvidenceRequest,
    EvidenceResult,
    FailureReason,
    Sample,
    TakePictures,
)

CAMERAS_PER_WORKER = 8
SILENT_SECONDS = 5.0
"""A worker that sends no heartbeat for this long is killed."""
START_SECONDS = 30.0
"""The first heartbeat may take longer: the process has to import its libraries, on a busy machine."""
WATCH_SECONDS = 0.25
LEAVE_SECONDS = 1.2
"""How long workers may take to leave when asked, before they are killed."""
KILL_SECONDS = 0.4
"""Kept of a stop's deadline for killing and reaping."""
REAP_SECONDS = 0.2
RESTART_MIN_SECONDS = 0.5
RESTART_MAX_SECONDS = 30.0
SETTLED_SECONDS = 60.0
"""A worker that lived this long counts as well: its next restart is immediate again."""

# One camera needs no thread pool of a linear algebra library, and a heap for each thread is memory for nothing.
WORKER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A capture process began or was lost."""

    worker: int
    """Number of the worker, from 0; its replacement has the same."""
    running: int
    """Capture processes that run now."""
    lost: bool
    """Whether this is the end of one rather than the begin."""
    reason: str = ""
    """How it was lost: `killed by SIGKILL`, `exited with 1`, `no heartbeat for 5 s`."""
    pid: int | None = None
    cameras: tuple[str, ...] = ()
    """The cameras that it holds, or held."""


@dataclass(slots=True)
class _Life:
    """One process, from its start to its end."""

    process: subprocess.Popen[bytes]
    channel: Channel[Report, Command]
    reader: threading.Thread | None = None
    begun: float = field(default_factory=time.monotonic)
    heard: float | None = None
    """When it last sent anything; None before the first heartbeat."""
    busy: bool = False
    """Whether its reader is inside a callback: then it is the service that is slow, not the worker."""
    ended: bool = False
    """Whether its end of the pipe is closed."""

    def lost_because(self) -> str | None:
        """Return why the process is of no use any more; None while it is well."""
        if self.ended:  # a killed process closes its pipe a moment before it can be reaped
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(REAP_SECONDS)
        code = self.process.poll()
        if code is not None:
            return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        if self.ended:
            return "closed its pipe"
        if self.busy:
            return None
        limit, since = (START_SECONDS, self.begun) if self.heard is None else (SILENT_SECONDS, self.heard)
        return f"no heartbeat for {limit:.0f} s" if time.monotonic() - since > limit else None


@dataclass(slots=True)
class _Worker:
    """A place for a process, and the cameras that belong to it whichever process fills it."""

    number: int
    cameras: dict[str, CameraConfig] = field(default_factory=dict)
    life: _Life | None = None
    losses: int = 0
    """Processes lost in a row without one that settled."""
    next_start: float = 0.0


class CaptureSupervisor:
    """Spreads cameras over capture processes and keeps those alive.

    The callbacks run on one reader thread a worker and on the supervisor's own; they may be called at once from
    several. A callback that blocks holds back its worker, which then drops its oldest samples and counts them.
    A callback that raises loses its record; the first error is kept in `first_error`.
    """

    def __init__(
        self,
        settings: CaptureConfig,
        *,
        sample_fps: float,
        shape: SampleShape,
        on_sample: Callable[[Sample], None],
        on_status: Callable[[CameraStatus], None],
        on_counts: Callable[[CaptureCounts], None],
        on_worker: Callable[[WorkerReport], None],
        on_clip_stream: Callable[[ClipStreamStatus], None] = lambda _status: None,
        on_evidence: Callable[[EvidenceReport], None] = lambda _report: None,
        evidence: EvidencePlan | None = None,
    ) -> None:
        self._plan = CapturePlan(settings, sample_fps, shape, evidence)
        self._on_clip_stream = on_clip_stream
        self._on_evidence = on_evidence
        self._asked: dict[tuple[str, EvidenceKind], tuple[_Life, str]] = {}
        """Evidence on which no report has come: whose turn it is, and of which camera."""
        self._on_sample = on_sample
        self._on_status = on_status
        self._on_counts = on_counts
        self._on_worker = on_worker
        self._workers: list[_Worker] = []
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        self.first_error: Exception | None = None

    def start(self) -> None:
        """Begin to keep workers alive; they start with their first cameras."""
        self._keeper = threading.Thread(target=self._keep, name="capture-supervisor", daemon=True)
        self._keeper.start()

    def add(self, camera: CameraConfig) -> None:
        """Watch a camera, on the worker with the fewest; one with the same id is replaced."""
        with self._lock:
            if self._stopping.is_set():
                return
            self.remove(camera.id)
            worker = self._place()
            worker.cameras[camera.id] = camera
            if worker.life is not None:
                self._send(worker.life, AddCamera(camera))
        self._wake.set()

    def remove(self, camera_id: str) -> None:
        """Watch a camera no longer; nothing of it is told after this, save what is on its way right now."""
        with self._lock:
            for worker in self._workers:
                if worker.cameras.pop(camera_id, None) is not None and worker.life is not None:
                    self._send(worker.life, RemoveCamera(camera_id))

    def keep(self, request: EvidenceRequest) -> None:
        """Have evidence made by the process that holds the camera; each piece is answered by one report.

        A piece whose process is not there, or dies over it, is reported as lost.
        """
        with self._lock:
            life = next((worker.life for worker in self._workers if request.camera in worker.cameras), None)
            kinds = _kinds_of(request)
            if life is not None:
                self._asked |= {(request.alert_id, kind): (life, request.camera) for kind in kinds}
                self._send(life, request)
        if life is None:
            for kind in kinds:
                self._call(self._on_evidence, _lost(request.camera, request.alert_id, kind, "no capture process"))

    def stop(self, deadline: Deadline) -> None:
        """Ask the workers to leave, kill those that do not, and wait for all of it, within the deadline.

        Raises:
            StopTimedOut: a callback of ours did not return; all processes are gone nevertheless.
        """
        self._stopping.set()
        self._wake.set()
        if self._keeper is not None:
            self._keeper.join(deadline.remaining(at_most=KILL_SECONDS))
        lives = [worker.life for worker in self._workers if worker.life is not None]
        for life in lives:
            self._send(life, Stop())
        patience = Deadline(min(LEAVE_SECONDS, max(0.0, deadline.remaining() - KILL_SECONDS)))
        for life in lives:
            with suppress(subprocess.TimeoutExpired):
                life.process.wait(patience.remaining())
        for life in lives:
            _kill(life, deadline)
        hanging = [thread for thread in self._threads(lives) if not _joined(thread, deadline)]
        if hanging:
            raise StopTimedOut(f"capture: {', '.join(thread.name for thread in hanging)} did not end")

    def _threads(self, lives: list[_Life]) -> list[threading.Thread]:
        return [thread for thread in (self._keeper, *(life.reader for life in lives)) if thread is not None]

    def _place(self) -> _Worker:
        """Return the worker for a new camera: a new one while those there are full and the machine has cores."""
        settings = self._plan.settings
        limit = settings.workers or os.cpu_count() or 1
        room = CAMERAS_PER_WORKER if settings.workers == 0 else 1
        emptiest = min(self._workers, key=lambda worker: len(worker.cameras), default=None)
        if emptiest is not None and (len(emptiest.cameras) < room or len(self._workers) >= limit):
            return emptiest
        worker = _Worker(len(self._workers))
        self._workers.append(worker)
        return worker

    def _keep(self) -> None:
        """Replace what dies, until stopped."""
        while not self._stopping.is_set():
            self._wake.wait(WATCH_SECONDS)
            self._wake.clear()
            for worker in list(self._workers):
                try:
                    self._tend(worker)
                except Exception as exc:  # top of a thread: kept for whoever asks, and tried again with the next look
                    self._keep_error(exc)

    def _tend(self, worker: _Worker) -> None:
        reason = worker.life.lost_because() if worker.life is not None else None
        if reason is not None:
            self._bury(worker, reason)
        with self._lock:
            due = worker.life is None and worker.cameras and time.monotonic() >= worker.next_start
            if not due or self._stopping.is_set():
                return
            worker.life = self._begin(worker)
        self._tell_worker(worker, worker.life, lost=False)

    def _begin(self, worker: _Worker) -> _Life:
        channel, theirs = channel_pair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "monitor.capture.process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**WORKER_ENVIRONMENT, **os.environ},
                process_group=0,  # Ctrl-C is for the service, which stops its workers in its own order
            )
        life = _Life(process, channel)
        self._send(life, self._plan)
        for camera in worker.cameras.values():
            self._send(life, AddCamera(camera))
        name = f"capture-reader-{worker.number}"
        life.reader = threading.Thread(target=self._read, args=(worker, life), name=name, daemon=True)
        life.reader.start()
        return life

    def _bury(self, worker: _Worker, reason: str) -> None:
        """Kill what is left of a worker's process, say so, and plan the next one."""
        with self._lock:
            life, worker.life = worker.life, None
            cameras = tuple(worker.cameras)
        if life is None:
            return
        _kill(life, Deadline(KILL_SECONDS))
        settled = time.monotonic() - life.begun >= SETTLED_SECONDS
        worker.losses = 1 if settled else worker.losses + 1
        wait = _restart_wait(worker.losses)
        worker.next_start = time.monotonic() + wait
        self._tell_worker(worker, life, lost=True, reason=reason)
        self._tell_lost_evidence(life, reason)
        for camera in cameras:
            status = CameraStatus(
                camera=camera,
                state=CameraState.OFFLINE,
                time_seconds=time.time(),
                reason=FailureReason.WORKER_LOST,
                detail=f"capture process {reason}",
                attempt=worker.losses,
                retry_seconds=wait,
            )
            self._call(self._on_status, status)

    def _read(self, worker: _Worker, life: _Life) -> None:
        """Hand on what a process tells, until its end of the pipe closes."""
        try:
            while True:
                report = life.channel.receive()
                life.busy = True
                self._hand_on(worker, report)
                life.heard = time.monotonic()
                life.busy = False
        except (EOFError, OSError):  # the process has ended
            pass
        except Exception as exc:  # top of a thread: kept for whoever asks; the process is replaced
            self._keep_error(exc)
        finally:
            life.ended = True
            life.busy = False
            life.channel.close()
            self._wake.set()

    def _tell_lost_evidence(self, life: _Life, reason: str) -> None:
        with self._lock:
            lost = [(asked, camera) for asked, (owner, camera) in self._asked.items() if owner is life]
            for asked, _ in lost:
                del self._asked[asked]
        for (alert_id, kind), camera in lost:
            self._call(self._on_evidence, _lost(camera, alert_id, kind, f"capture process {reason}"))

    def _hand_on(self, worker: _Worker, report: Report) -> None:
        if isinstance(report, EvidenceReport):
            with self._lock:
                self._asked.pop((report.alert_id, report.kind), None)
            self._call(self._on_evidence, report)
        if (
            isinstance(report, Sample | CameraStatus | ClipStreamStatus | CaptureCounts)
            and report.camera not in worker.cameras
        ):
            return
        if isinstance(report, Sample):
            self._call(self._on_sample, report)
        elif isinstance(report, CameraStatus):
            self._call(self._on_status, report)
        elif isinstance(report, ClipStreamStatus):
            self._call(self._on_clip_stream, report)
        elif isinstance(report, CaptureCounts):
            self._call(self._on_counts, report)

    def _tell_worker(self, worker: _Worker, life: _Life, *, lost: bool, reason: str = "") -> None:
        running = sum(1 for other in self._workers if other.life is not None)
        cameras = tuple(worker.cameras)
        report = WorkerReport(worker.number, running, lost, reason, pid=life.process.pid, cameras=cameras)
        self._call(self._on_worker, report)

    def _call(self, callback: Callable[[Record], None], record: Record) -> None:
        try:
            callback(record)
        except Exception as exc:  # the callback's error must not end the thread that all other records need
            self._keep_error(exc)

    def _keep_error(self, error: Exception) -> None:
        if self.first_error is None:
            self.first_error = error

    @staticmethod
    def _send(life: _Life, command: Command) -> None:
        with suppress(OSError):  # the process is lost; the keeper will see it, and its successor is told everything
            life.channel.send(command)


def _kinds_of(request: EvidenceRequest) -> tuple[EvidenceKind, ...]:
    """Return the pieces that a request asks for; the end of a clip asks for nothing new."""
    if isinstance(request, BeginClip):
        return (EvidenceKind.CLIP,)
    return (EvidenceKind.SNAPSHOT, EvidenceKind.STRIP) if isinstance(request, TakePictures) else ()


def _lost(camera: str, alert_id: str, kind: EvidenceKind, detail: str) -> EvidenceReport:
    return EvidenceReport(camera, alert_id, kind, EvidenceResult.LOST, detail)


def _restart_wait(losses: int) -> float:
    """Return the seconds before a lost worker is replaced: none at first, then doubling."""
    if losses <= 1:
        return 0.0
    return min(RESTART_MAX_SECONDS, RESTART_MIN_SECONDS * math.pow(2.0, min(losses - 2, 16)))


def _kill(life: _Life, deadline: Deadline) -> None:
    """End a process for good and reap it; harmless when it has ended."""
    if life.process.poll() is None:
        life.process.kill()
    with suppress(subprocess.TimeoutExpired):
        life.process.wait(max(0.05, deadline.remaining()))


def _joined(thread: threading.Thread, deadline: Deadline) -> bool:
    thread.join(deadline.remaining())
    return not thread.is_alive()
