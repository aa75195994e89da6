"""The inside of a capture process: commands in from the pipe; samples, states, counts and heartbeats out to it.

Run by `worker.CaptureSupervisor` as `python -m monitor.capture.process DESCRIPTOR`. The process ends when it is
told to, or at once when its pipe does: no worker outlives the service.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from monitor.capture.camera import CameraLoop, CapturePlan, Told
from monitor.capture.clip_stream import ClipStreams
from monitor.capture.evidence import EvidenceKeeper
from monitor.capture.left_behind import LeftBehind, ended_by_itself
from monitor.capture.pipe import AddCamera, Channel, Command, Heartbeat, ReleaseCamera, RemoveCamera, Report
from monitor.capture.ring import PacketRing
from monitor.config import CameraConfig
from monitor.errors import SourceFailed
from monitor.records import (
    BeginClip,
    CameraPicture,
    CameraState,
    CameraStatus,
    CaptureCounts,
    ClipStreamStatus,
    DropReason,
    EndClip,
    EvidenceReport,
    Sample,
    ShowCamera,
    TakePictures,
)

HEARTBEAT_SECONDS = 0.5
WATCH_SECONDS = 0.25
CLOSE_SECONDS = 0.7
"""How long cameras may take to say goodbye to their servers."""
FLUSH_SECONDS = 0.3
KILLED_FIRST = 500
"""Added to the process' score with the kernel: out of memory, it ends a worker before the service."""
PAGE_BYTES = resource.getpagesize()


class Outgoing:
    """What waits for the pipe. States are never dropped; counts are added up; of the samples the oldest goes first.

    Counts go with what comes next, a heartbeat at the latest: two processes would wake for those of each camera.

    Args:
        samples: how many samples may wait.
    """

    def __init__(self, samples: int) -> None:
        self._bound = samples
        self._samples: deque[Sample] = deque()
        self._urgent: deque[Report] = deque()
        self._counts: dict[str, CaptureCounts] = {}
        self._changed = threading.Condition()

    def put(self, report: Told | ClipStreamStatus | EvidenceReport | CameraPicture | Heartbeat) -> None:
        """Leave a report to be sent; never blocks."""
        with self._changed:
            if isinstance(report, Sample):
                self._put_sample(report)
            elif isinstance(report, CaptureCounts):
                self._add(report)
                return
            else:
                self._urgent.append(report)
            self._changed.notify()

    def take(self) -> Report:
        """Wait for the next report: states first, then counts, then samples in order."""
        with self._changed:
            while not (self._urgent or self._counts or self._samples):
                self._changed.wait()
            if self._urgent:
                return self._urgent.popleft()
            if self._counts:
                return self._counts.pop(next(iter(self._counts)))
            return self._samples.popleft()

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._urgent or self._counts or self._samples)

    def _put_sample(self, sample: Sample) -> None:
        self._samples.append(sample)
        if len(self._samples) > self._bound:
            oldest = self._samples.popleft()
            self._add(CaptureCounts(oldest.camera, dropped={DropReason.CAPTURE_QUEUE: 1}))

    def _add(self, counts: CaptureCounts) -> None:
        waiting = self._counts.get(counts.camera)
        self._counts[counts.camera] = counts if waiting is None else added(waiting, counts)


def added(one: CaptureCounts, two: CaptureCounts) -> CaptureCounts:
    """Return the sum of two counts of a camera; where a value is no count, the newer one, and the greatest change."""
    reasons = {*one.dropped, *two.dropped}
    return replace(
        one,
        packets=one.packets + two.packets,
        bytes_received=one.bytes_received + two.bytes_received,
        frames_decoded=one.frames_decoded + two.frames_decoded,
        frames_skipped=one.frames_skipped + two.frames_skipped,
        decode_errors=one.decode_errors + two.decode_errors,
        samples=one.samples + two.samples,
        dropped={reason: one.dropped.get(reason, 0) + two.dropped.get(reason, 0) for reason in reasons},
        last_frame_seconds=one.last_frame_seconds if two.last_frame_seconds is None else two.last_frame_seconds,
        skew_seconds=one.skew_seconds if two.skew_seconds is None else two.skew_seconds,
        ring_bytes=one.ring_bytes if two.ring_bytes is None else two.ring_bytes,
        clip_ring_bytes=one.clip_ring_bytes if two.clip_ring_bytes is None else two.clip_ring_bytes,
        gate=one.gate if two.gate is None else two.gate,
        woken={why: one.woken.get(why, 0) + two.woken.get(why, 0) for why in {*one.woken, *two.woken}},
        contrast=one.contrast if two.contrast is None else two.contrast,
        change=max((change for change in (one.change, two.change) if change is not None), default=None),
    )


@dataclass(frozen=True, slots=True)
class _Watched:
    loop: CameraLoop
    thread: threading.Thread


class Worker:
    """Holds the threads of many cameras, and gives up on those that hang: see `left_behind`."""

    def __init__(self, channel: Channel[Command, Report], plan: CapturePlan) -> None:
        self._channel = channel
        self._plan = plan
        self._outgoing = Outgoing(plan.settings.queue_samples)
        self._watched: dict[str, _Watched] = {}
        self._rings: dict[str, PacketRing] = {}
        self._left = LeftBehind()
        self._clips = ClipStreams(plan, self._left, tell=self._outgoing.put)
        self._evidence = (
            EvidenceKeeper(plan.evidence.folder, rings_of=self._rings_of, tell=self._outgoing.put)
            if plan.evidence is not None
            else None
        )
        self._waiting: dict[str, tuple[CameraLoop, SourceFailed]] = {}
        """Cameras that have lost too many threads, with their last loop and its failure."""
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self) -> None:
        """Serve until told to stop."""
        for body in (self._send, self._obey):
            threading.Thread(target=_or_exit, args=(body,), name=body.__name__, daemon=True).start()
        if self._evidence is not None:
            threading.Thread(target=_or_exit, args=(self._evidence.run,), name="evidence", daemon=True).start()
        beaten = 0.0
        while not self._stop.wait(WATCH_SECONDS):
            self._replace_overdue()
            if time.monotonic() - beaten >= HEARTBEAT_SECONDS:
                beaten = time.monotonic()
                self._outgoing.put(self._heartbeat())
        self._close()

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            cameras=len(self._watched) + len(self._waiting),
            stuck=self._left.count,
            stuck_seconds=self._left.longest_seconds,
            resident_bytes=_resident_bytes(),
            cpu_seconds=time.process_time(),
        )

    def _send(self) -> None:
        while True:
            self._channel.send(self._outgoing.take())

    def _obey(self) -> None:
        while True:
            command = self._channel.receive()
            if isinstance(command, AddCamera):
                self._add(command.camera)
            elif isinstance(command, RemoveCamera):
                self._remove(command.camera)
            elif isinstance(command, ReleaseCamera):
                self._release(command.camera)
            elif isinstance(command, BeginClip | EndClip | TakePictures | ShowCamera):
                if self._evidence is not None:
                    self._evidence.put(command)
            else:
                self._stop.set()
                return

    def _add(self, camera: CameraConfig) -> None:
        with self._lock:
            self._drop(camera.id)
            self._begin(camera)
            self._clips.watch(camera)

    def _remove(self, camera: str) -> None:
        with self._lock:
            self._drop(camera)
            self._rings.pop(camera, None)
            self._clips.drop(camera)

    def _release(self, camera: str) -> None:
        with self._lock:
            self._drop(camera)
            self._clips.release(camera)

    def _drop(self, camera: str) -> None:
        self._waiting.pop(camera, None)
        watched = self._watched.pop(camera, None)
        if watched is not None:
            watched.loop.stop()
            self._left.add(watched.thread)

    def _begin(self, camera: CameraConfig, *, attempt: int = 0, after: SourceFailed | None = None) -> None:
        ring = self._ring_for(camera.id)
        loop = CameraLoop(camera, self._plan, tell=self._outgoing.put, attempt=attempt, ring=ring)
        thread = threading.Thread(target=loop.run, args=(after,), name=_name_of(camera.id), daemon=True)
        self._watched[camera.id] = _Watched(loop, thread)
        thread.start()

    def _ring_for(self, camera: str) -> PacketRing | None:
        """Return a camera's ring, which outlives its loops: the thread of a stuck one can write to it no more."""
        if self._plan.evidence is None:
            return None
        if camera not in self._rings:
            self._rings[camera] = self._plan.evidence.ring()
        return self._rings[camera]

    def _rings_of(self, camera: str) -> tuple[PacketRing, ...]:
        """Return where a camera's packets are kept: those of the large stream first, where it has one."""
        with self._lock:
            rings = (self._clips.ring(camera), self._rings.get(camera))
        return tuple(ring for ring in rings if ring is not None)

    def _replace_overdue(self) -> None:
        with self._lock:
            self._left.sweep()
            self._clips.tend()
            for camera, watched in list(self._watched.items()):
                failure = watched.loop.overdue() or ended_by_itself(camera, watched.thread)
                if failure is not None:
                    self._drop(camera)
                    self._waiting[camera] = watched.loop, failure
                    if not self._left.may_begin(_name_of(camera)):
                        self._outgoing.put(_waits(watched.loop, failure))
            for camera, (loop, failure) in list(self._waiting.items()):
                if self._left.may_begin(_name_of(camera)):
                    del self._waiting[camera]
                    self._begin(loop.camera, attempt=loop.attempt, after=failure)

    def _close(self) -> None:
        """Let the cameras say goodbye and the last reports leave; then end, whatever still hangs."""
        if self._evidence is not None:
            self._evidence.stop()
        with self._lock:
            threads = [watched.thread for watched in self._watched.values()]
            for camera in list(self._watched):
                self._drop(camera)
            self._clips.close()
        end = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        if self._evidence is not None:
            self._evidence.join(max(0.1, end - time.monotonic()))
        self._outgoing.put(self._heartbeat())  # the last counts go with it
        end = time.monotonic() + FLUSH_SECONDS
        while not self._outgoing.empty and time.monotonic() < end:
            time.sleep(0.01)


def _name_of(camera: str) -> str:
    """Return the name of a camera's thread."""
    return f"camera-{camera}"


def _waits(loop: CameraLoop, failure: SourceFailed) -> CameraStatus:
    """Return what is told of a camera that has lost too many threads."""
    return CameraStatus(
        camera=loop.camera.id,
        state=CameraState.OFFLINE,
        time_seconds=time.time(),
        reason=failure.reason,
        detail=failure.detail,
        attempt=loop.attempt + 1,
    )


def _resident_bytes() -> int:
    """Return the memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:  # a fifth of what a Path takes, twice a second
            return int(file.read().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def _offer_oneself() -> None:
    """Ask the kernel to end us rather than the service when memory runs out; other systems than Linux are not asked."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(KILLED_FIRST), encoding="ascii")


def _leave_no_core() -> None:
    """Write no memory to disk in a crash: it holds passwords, and a camera may crash its decoder again and again."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def _or_exit(body: object) -> None:
    """Run a thread without which the process is of no use; its end is the process's."""
    assert callable(body)  # noqa: S101
    try:
        body()
    except (EOFError, OSError):  # the service is gone
        os._exit(0)
    except Exception as exc:  # top of a thread: the process leaves and the service starts a new one
        _leave_with(exc)


def _leave_with(error: Exception) -> None:
    """Say which error ended the process, without its message, which may hold an address."""
    print(f"capture process failed: {type(error).__name__}", file=sys.stderr, flush=True)
    os._exit(1)


def main(descriptor: int) -> None:
    """Take the plan from the pipe and serve it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the service stops us, in its own order
    _offer_oneself()
    _leave_no_core()
    channel: Channel[Command, Report] = Channel(descriptor)
    try:
        plan = channel.receive()
        assert isinstance(plan, CapturePlan)  # noqa: S101 - the first message is the plan
        Worker(channel, plan).run()
    except (EOFError, OSError):  # the service is gone
        os._exit(0)
    except Exception as exc:  # top of the process
        _leave_with(exc)
    os._exit(0)  # not through the interpreter's end: threads may still hang in FFmpeg


if __name__ == "__main__":
    main(int(sys.argv[1]))
