"""Cameras to watch in; their samples, states and counts out, by callbacks. Owns the capture processes.

A camera that crashes the decoder or hangs in FFmpeg costs its process, never the service: a process that dies or
falls silent is killed, and a new one takes over its cameras. One that grows too large hands them over while it still
works. A process from outside is in `life`, the inside of one in `process`.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from monitor.bundle import SampleShape
from monitor.capture.camera import CapturePlan
from monitor.capture.evidence import EvidencePlan
from monitor.capture.handover import HAND_OVER_SECONDS, LEAVE_SECONDS, LINGER_MOST_SECONDS, Handover, Phase
from monitor.capture.life import Life, begin_life
from monitor.capture.pipe import AddCamera, Heartbeat, MessageUnreadable, RemoveCamera, Report, Stop
from monitor.capture.place import Place, WorkerEvent, WorkerReport, WorkerVitals, lost_status
from monitor.capture.recycling import memory_limit, note_fresh, reason_to_recycle
from monitor.capture.requests import OwedEvidence, kinds_of, lost_piece, moment_of
from monitor.config import CameraConfig, CaptureConfig
from monitor.deadline import Deadline
from monitor.errors import StopTimedOut
from monitor.records import (
    CameraPicture,
    CameraStatus,
    CaptureCounts,
    ClipStreamStatus,
    EndClip,
    EvidenceReport,
    EvidenceRequest,
    Sample,
    ShowCamera,
)

CAMERAS_PER_WORKER = 8
WATCH_SECONDS = 0.1
LEAVE_TOGETHER_SECONDS = 1.2
"""How long workers may take to leave when all are asked, before they are killed."""
KILL_SECONDS = 0.4
"""Kept of a stop's deadline for killing and reaping."""

Record = TypeVar("Record")


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
        on_vitals: Callable[[WorkerVitals], None] = lambda _vitals: None,
        on_picture: Callable[[CameraPicture], None] = lambda _picture: None,
        evidence: EvidencePlan | None = None,
    ) -> None:
        self._plan = CapturePlan(settings, sample_fps, shape, evidence)
        self._on_clip_stream = on_clip_stream
        self._owed = OwedEvidence()
        self._on_evidence = on_evidence
        self._on_sample = on_sample
        self._on_status = on_status
        self._on_counts = on_counts
        self._on_worker = on_worker
        self._on_vitals = on_vitals
        self._on_picture = on_picture
        self._workers: list[Place] = []
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
            for life in worker.watching():
                life.send(AddCamera(camera))
        self._wake.set()

    def remove(self, camera_id: str) -> None:
        """Watch a camera no longer; nothing of it is told after this, save what is on its way right now."""
        with self._lock:
            for worker in self._workers:
                if worker.cameras.pop(camera_id, None) is not None:
                    for life in worker.lives():
                        life.send(RemoveCamera(camera_id))
                    if worker.handover is not None:
                        worker.handover.forget(camera_id)

    def keep(self, request: EvidenceRequest) -> None:
        """Have evidence made by the process that holds the camera; each piece is answered by one report.

        A piece whose process is not there, or dies over it, is reported as lost.
        """
        with self._lock:
            life = self._owed.clip_owner(request) if isinstance(request, EndClip) else None
            life = life or self._evidence_life(request.camera, moment_of(request))
            if life is not None:
                self._owed.ask(life, request)
                life.send(request)
        if life is None:
            for kind in kinds_of(request):
                self._call(self._on_evidence, lost_piece(request.camera, request.alert_id, kind, "no capture process"))

    def show(self, camera: str) -> None:
        """Have a picture of a camera made, where evidence is kept; `on_picture` is told of it, unless it fails."""
        with self._lock:
            life = self._evidence_life(camera, time.time())
            if life is not None:
                life.send(ShowCamera(camera))

    def _evidence_life(self, camera: str, seconds: float) -> Life | None:
        worker = next((worker for worker in self._workers if camera in worker.cameras), None)
        return None if worker is None else worker.evidence_life(camera, seconds)

    def stop(self, deadline: Deadline) -> None:
        """Ask the workers to leave, kill those that do not, and wait for all of it, within the deadline.

        Raises:
            StopTimedOut: a callback of ours did not return; all processes are gone nevertheless.
        """
        self._stopping.set()
        self._wake.set()
        if self._keeper is not None:
            self._keeper.join(deadline.remaining(at_most=KILL_SECONDS))
        lives = [life for worker in self._workers for life in worker.lives()]
        for life in lives:
            life.send(Stop())
        patience = Deadline(min(LEAVE_TOGETHER_SECONDS, max(0.0, deadline.remaining() - KILL_SECONDS)))
        for life in lives:
            with suppress(subprocess.TimeoutExpired):
                life.process.wait(patience.remaining())
        for life in lives:
            life.kill(deadline)
        hanging = [thread for thread in self._threads(lives) if not _joined(thread, deadline)]
        if hanging:
            raise StopTimedOut(f"capture: {', '.join(thread.name for thread in hanging)} did not end")

    def _threads(self, lives: list[Life]) -> list[threading.Thread]:
        return [thread for thread in (self._keeper, *(life.reader for life in lives)) if thread is not None]

    def _place(self) -> Place:
        """Return the worker for a new camera: a new one while those there are full and the machine has cores."""
        settings = self._plan.settings
        limit = settings.workers or os.cpu_count() or 1
        room = CAMERAS_PER_WORKER if settings.workers == 0 else 1
        emptiest = min(self._workers, key=lambda worker: len(worker.cameras), default=None)
        if emptiest is not None and (len(emptiest.cameras) < room or len(self._workers) >= limit):
            return emptiest
        worker = Place(len(self._workers))
        self._workers.append(worker)
        return worker

    # --- keeping processes alive -----------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Replace what dies or has grown too large, until stopped."""
        while not self._stopping.is_set():
            self._wake.wait(WATCH_SECONDS)
            self._wake.clear()
            for worker in list(self._workers):
                try:
                    self._tend(worker)
                except Exception as exc:  # top of a thread: kept for the service, which stops and exits with it
                    self._keep_error(exc)

    def _tend(self, worker: Place) -> None:
        reason = worker.life.lost_because() if worker.life is not None else None
        if reason is not None:
            self._bury(worker, reason)
        if worker.handover is not None:
            self._advance(worker, worker.handover)
        elif worker.life is not None:
            self._watch_memory(worker, worker.life)
        self._fill(worker)

    def _fill(self, worker: Place) -> None:
        """Give a place that is due a process, and it its cameras; one that cannot be started counts as lost."""
        try:
            with self._lock:
                due = worker.life is None and worker.cameras and time.monotonic() >= worker.next_start
                if not due or self._stopping.is_set():
                    return
                life = worker.life = self._begin(worker)
                for camera in worker.cameras.values():
                    life.send(AddCamera(camera))
        except OSError as exc:
            reason = f"cannot be started: {exc.strerror}"
            wait = worker.note_loss(age_seconds=0.0)
            self._tell_worker(worker, None, WorkerEvent.LOST, reason)
            self._tell_lost_cameras(worker, tuple(worker.cameras), reason, wait=wait)
        else:
            self._tell_worker(worker, life, WorkerEvent.STARTED)

    def _begin(self, worker: Place) -> Life:
        """Start a process that has the plan and no camera yet.

        Raises:
            OSError: the system has no process, thread or descriptor to give.
        """
        reader = f"capture-reader-{worker.number}"
        return begin_life(self._plan, read=lambda life: self._read(worker, life), reader=reader)

    def _bury(self, worker: Place, reason: str) -> None:
        """Kill what is left of a worker's process, say so, and plan the next one, or let its successor go on."""
        with self._lock:
            life, handover, cameras = worker.life, worker.handover, worker.cameras.copy()
            if life is None:
                return
            heir = None if handover is None or life is handover.new else handover.new
            worker.life = heir
            if heir is not None:
                worker.handover = None
                if handover is not None and handover.phase is Phase.STARTING:
                    for camera in cameras.values():
                        heir.send(AddCamera(camera))
        life.kill(Deadline(KILL_SECONDS))
        wait = worker.note_loss(life.age_seconds)
        self._tell_worker(worker, life, WorkerEvent.LOST, reason)
        if heir is not None:
            self._tell_worker(worker, heir, WorkerEvent.STARTED)
        self._tell_vitals(worker, 0.0)
        self._tell_lost_evidence(life, f"capture process {reason}")
        self._tell_lost_cameras(worker, cameras, reason, wait=wait)
        for status in list(heir.states.values()) if heir is not None else ():
            if status.camera in worker.cameras:
                self._call(self._on_status, status)

    # --- recycling -------------------------------------------------------------------------------------------------

    def _watch_memory(self, worker: Place, life: Life) -> None:
        """Begin to replace a process that has grown too large; one at a time, for it costs double work."""
        limit = memory_limit(self._plan, len(worker.cameras))
        crowded = note_fresh(life, limit)
        if crowded is not None:
            self._tell_worker(worker, life, WorkerEvent.CROWDED, crowded)
        reason = reason_to_recycle(life, limit)
        if reason is None or any(other.handover is not None for other in self._workers):
            return
        evidence = self._plan.evidence
        linger_seconds = 0.0 if evidence is None else evidence.ring_seconds
        with self._lock:
            if self._stopping.is_set():
                return
            try:
                new = self._begin(worker)
            except OSError:  # it goes on, and is tried again when it has aged once more
                life.begun = time.monotonic()
            else:
                worker.handover = Handover(life, new, linger_seconds=linger_seconds, reason=reason)

    def _advance(self, worker: Place, handover: Handover) -> None:
        """Take a handover one step further, where it is time."""
        old, new = handover.old, handover.new
        if handover.phase in (Phase.STARTING, Phase.OVERLAP) and new.lost_because() is not None:
            self._abandon(worker, handover)
        elif handover.phase is Phase.STARTING and new.beat is not None:
            with self._lock:
                for camera in worker.cameras.values():
                    new.send(AddCamera(camera))
                handover.enter(Phase.OVERLAP)
        elif handover.phase is Phase.OVERLAP:
            waiting = handover.waiting(worker.cameras)
            if waiting and handover.phase_seconds < HAND_OVER_SECONDS:
                return
            for name in waiting:
                for status in handover.release(name):
                    self._call(self._on_status, status)
            with self._lock:
                worker.life = new
                handover.enter(Phase.LINGER)
            self._tell_worker(worker, new, WorkerEvent.RECYCLED, handover.reason)
        elif handover.phase is Phase.LINGER:
            owing = self._owed.is_owed_by(old) and handover.phase_seconds < LINGER_MOST_SECONDS
            if old.lost_because() is not None or (handover.lingered and not owing):
                old.send(Stop())
                handover.enter(Phase.LEAVING)
        elif handover.phase is Phase.LEAVING and (old.ended or handover.phase_seconds > LEAVE_SECONDS):
            with self._lock:
                worker.handover = None
            old.kill(Deadline(KILL_SECONDS))
            self._tell_lost_evidence(old, "its capture process was replaced")

    def _abandon(self, worker: Place, handover: Handover) -> None:
        """Go on with the old process, since its successor died; it is tried again when it has aged once more."""
        with self._lock:
            worker.handover = None
            handover.old.begun = time.monotonic()
        handover.new.kill(Deadline(KILL_SECONDS))

    # --- what processes tell ---------------------------------------------------------------------------------------

    def _read(self, worker: Place, life: Life) -> None:
        """Hand on what a process tells, until its end of the pipe closes."""
        try:
            while True:
                report = life.channel.receive()
                life.busy = True
                self._hear(worker, life, report)
                life.hear()
                life.busy = False
        except (EOFError, OSError):  # the process has ended
            pass
        except MessageUnreadable:  # its memory is damaged, or its pipe: the keeper replaces it
            life.garbled = True
        except Exception as exc:  # top of a thread: kept for the service, which stops and exits with it
            self._keep_error(exc)
        finally:
            life.ended = True
            life.busy = False
            life.channel.close()
            self._wake.set()

    def _hear(self, worker: Place, life: Life, report: Report) -> None:
        if isinstance(report, Heartbeat):
            spent = max(0.0, report.cpu_seconds - life.cpu_seconds)
            life.beat, life.cpu_seconds = report, report.cpu_seconds
            self._tell_vitals(worker, spent)
            return
        if isinstance(report, EvidenceReport):
            self._owed.answer(report)
            self._call(self._on_evidence, report)
            return
        if report.camera not in worker.cameras:
            return
        if isinstance(report, CameraPicture):
            self._call(self._on_picture, report)
            return
        if isinstance(report, CameraStatus):
            life.states[report.camera] = report
        handover = worker.handover
        for told in (report,) if handover is None else handover.passed(life, report):
            self._hand_on(told)

    def _hand_on(self, report: Report) -> None:
        if isinstance(report, Sample):
            self._call(self._on_sample, report)
        elif isinstance(report, CameraStatus):
            self._call(self._on_status, report)
        elif isinstance(report, ClipStreamStatus):
            self._call(self._on_clip_stream, report)
        elif isinstance(report, CaptureCounts):
            self._call(self._on_counts, report)

    def _tell_lost_evidence(self, life: Life, reason: str) -> None:
        for report in self._owed.lost_with(life, reason):
            self._call(self._on_evidence, report)

    def _tell_lost_cameras(self, worker: Place, cameras: Iterable[str], reason: str, *, wait: float) -> None:
        for camera in cameras:
            self._call(self._on_status, lost_status(camera, reason, attempt=worker.losses, wait=wait))

    def _tell_worker(self, worker: Place, life: Life | None, event: WorkerEvent, reason: str = "") -> None:
        running = sum(1 for other in self._workers if other.life is not None)
        pid = None if life is None else life.process.pid
        cameras = tuple(worker.cameras)
        self._call(self._on_worker, WorkerReport(worker.number, running, event, reason, pid=pid, cameras=cameras))

    def _tell_vitals(self, worker: Place, cpu_seconds: float) -> None:
        resident_bytes = sum(life.resident_bytes for life in worker.lives())
        self._call(self._on_vitals, WorkerVitals(worker.number, resident_bytes, cpu_seconds))

    def _call(self, callback: Callable[[Record], None], record: Record) -> None:
        try:
            callback(record)
        except Exception as exc:  # the callback's error must not end the thread that all other records need
            self._keep_error(exc)

    def _keep_error(self, error: Exception) -> None:
        if self.first_error is None:
            self.first_error = error


def _joined(thread: threading.Thread, deadline: Deadline) -> bool:
    thread.join(deadline.remaining())
    return not thread.is_alive()
