"""The large streams of cameras that watch a small one in; their packets in rings, for clips and pictures, out.

Packets are read and never decoded. A large stream that is lost is tried again by itself; detection, which lives on the
small stream, does not notice, and evidence is made of the small stream meanwhile.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from monitor.capture.arrival import Arrived
from monitor.capture.burst import settled
from monitor.capture.camera import COUNTS_SECONDS, OVERDUE_SECONDS, SETTLED_SECONDS, CapturePlan, retry_wait
from monitor.capture.left_behind import LeftBehind, ended_by_itself
from monitor.capture.ring import PacketRing, RingWriter
from monitor.capture.sampler import STEP_BACK_SECONDS, StreamClock
from monitor.capture.source import open_source
from monitor.config import CameraConfig
from monitor.errors import SourceFailed
from monitor.records import CaptureCounts, ClipStreamStatus, FailureReason

Told = ClipStreamStatus | CaptureCounts


@dataclass(frozen=True, slots=True)
class _Read:
    loop: ClipLoop
    thread: threading.Thread


class ClipStreams:
    """Holds a thread for each camera with a large stream, and gives up on those that hang: see `left_behind`.

    Args:
        plan: of the worker; without evidence nothing is read.
        left: takes the threads that were told to end; whoever owns it sweeps it.
        tell: takes changes of state and counts; must not block.
    """

    def __init__(self, plan: CapturePlan, left: LeftBehind, *, tell: Callable[[Told], None]) -> None:
        self._plan = plan
        self._left = left
        self._tell = tell
        self._read: dict[str, _Read] = {}
        self._waiting: dict[str, tuple[ClipLoop, SourceFailed]] = {}
        """Cameras whose large stream has lost too many threads, with its last loop and its failure."""
        self._rings: dict[str, PacketRing] = {}

    def watch(self, camera: CameraConfig) -> None:
        """Read a camera's large stream, where it has one, from now on."""
        self.drop(camera.id)
        clip = camera.clip
        if clip is None or self._plan.evidence is None:
            return
        self._rings[camera.id] = self._plan.evidence.ring()
        self._begin(clip)

    def drop(self, camera: str) -> None:
        """Read it no longer, and forget its packets."""
        self.release(camera)
        self._rings.pop(camera, None)

    def release(self, camera: str) -> None:
        """Read it no longer; its packets stay for evidence."""
        self._waiting.pop(camera, None)
        self._leave(camera)

    def tend(self) -> None:
        """Replace the loops whose call into FFmpeg hangs, as long as not too many of a stream's threads do."""
        for camera, read in list(self._read.items()):
            failure = read.loop.overdue() or ended_by_itself(camera, read.thread)
            if failure is not None:
                self._leave(camera)
                self._waiting[camera] = read.loop, failure
                if not self._left.may_begin(_name_of(camera)):
                    self._tell(_lost(camera, failure))
        for camera, (loop, failure) in list(self._waiting.items()):
            if self._left.may_begin(_name_of(camera)):
                del self._waiting[camera]
                self._begin(loop.camera, attempt=loop.attempt, after=failure)

    def ring(self, camera: str) -> PacketRing | None:
        """Return the packets of a camera's large stream; None where it has none."""
        return self._rings.get(camera)

    def close(self) -> None:
        """Ask every loop to end."""
        for camera in list(self._read):
            self.drop(camera)

    def _leave(self, camera: str) -> None:
        read = self._read.pop(camera, None)
        if read is not None:
            read.loop.stop()
            self._left.add(read.thread)

    def _begin(self, clip: CameraConfig, *, attempt: int = 0, after: SourceFailed | None = None) -> None:
        loop = ClipLoop(clip, self._plan, ring=self._rings[clip.id], tell=self._tell, attempt=attempt)
        thread = threading.Thread(target=loop.run, args=(after,), name=_name_of(clip.id), daemon=True)
        self._read[clip.id] = _Read(loop, thread)
        thread.start()


def _name_of(camera: str) -> str:
    """Return the name of the thread that reads a camera's large stream."""
    return f"clip-{camera}"


def _lost(camera: str, failure: SourceFailed, *, retry_seconds: float | None = None) -> ClipStreamStatus:
    """Return what is told of a large stream that failed."""
    return ClipStreamStatus(
        camera, online=False, reason=failure.reason, detail=failure.detail, retry_seconds=retry_seconds
    )


@dataclass(slots=True)
class _Connection:
    """Where one connection stands."""

    connected: bool = False
    limit_seconds: float = math.inf
    """How long a call into FFmpeg may take now."""
    progress: float = 0.0
    """When the last call returned, or the present one began."""

    def enter(self, limit_seconds: float) -> None:
        self.limit_seconds, self.progress = limit_seconds, time.monotonic()


class ClipLoop:
    """Reads one large stream; `run` is the body of its thread.

    Args:
        camera: the stream's address as a camera's: `CameraConfig.clip`.
        plan: of the worker.
        ring: takes the packets.
        tell: takes changes of state and counts; must not block.
        attempt: failures in a row before this loop.
    """

    def __init__(
        self,
        camera: CameraConfig,
        plan: CapturePlan,
        *,
        ring: PacketRing,
        tell: Callable[[Told], None],
        attempt: int = 0,
    ) -> None:
        self.camera = camera.model_copy(update={"hwaccel": "none"})  # nothing of it is decoded
        self.attempt = attempt
        self._settings = plan.settings
        self._ring = ring
        self._tell = tell
        self._stop = threading.Event()
        self._random = Random()
        self._connection = _Connection()

    def run(self, after: SourceFailed | None = None) -> None:
        """Read until `stop`; retry after every failure."""
        failure = after
        while not self._stop.is_set():
            if failure is not None:
                self._recover(failure)
            if not self._stop.is_set():
                failure = self._attempt()

    def stop(self) -> None:
        """Ask the loop to end; it does with the next packet, or when FFmpeg's time-out has passed."""
        self._stop.set()

    def overdue(self) -> SourceFailed | None:
        """Return the failure of a call into FFmpeg that hangs; called from outside the loop's thread."""
        silent = time.monotonic() - self._connection.progress
        if silent <= self._connection.limit_seconds + OVERDUE_SECONDS:
            return None
        reason = FailureReason.STALLED if self._connection.connected else FailureReason.TIMED_OUT
        return SourceFailed(self.camera.id, reason, f"nothing came for {silent:.1f} s")

    def _attempt(self) -> SourceFailed | None:
        """Run one connection to its end; return how it failed, None when it was asked to stop."""
        try:
            self._read()
        except SourceFailed as exc:
            return exc
        except Exception as exc:  # top of the thread: told as a state, and the stream is tried again
            return SourceFailed(self.camera.id, FailureReason.INTERNAL, f"unexpected {type(exc).__name__}")
        finally:
            self._connection.enter(math.inf)
            self._connection.connected = False
        return None

    def _read(self) -> None:
        self._connection.enter(self._settings.connect_timeout_seconds)
        with open_source(self.camera, self._settings) as source:
            writer = self._ring.begin(source.format)
            self._connection.enter(self._settings.stall_timeout_seconds if self.camera.is_network else math.inf)
            try:
                clock = StreamClock()
                keeper = _Keeper(writer, clock)
                began = told = time.monotonic()
                packets = source.packets(self._stop)
                for arrived in settled(packets, clock) if self.camera.is_network else packets:
                    self._connection.progress = now = time.monotonic()
                    keeper.keep(arrived)
                    if not self._connection.connected:
                        self._connection.connected = True
                        self._say(ClipStreamStatus(self.camera.id, online=True))
                    if now - told >= COUNTS_SECONDS:
                        told = now
                        self._tell(keeper.counts(self.camera.id, self._ring.bytes))
                        self.attempt = 0 if now - began >= SETTLED_SECONDS else self.attempt
            finally:
                writer.end()

    def _recover(self, failure: SourceFailed) -> None:
        self.attempt += 1
        wait = retry_wait(self.attempt, failure.reason, self._settings, self._random)
        self._say(_lost(self.camera.id, failure, retry_seconds=wait))
        self._stop.wait(wait)

    def _say(self, status: ClipStreamStatus) -> None:
        if not self._stop.is_set():
            self._tell(status)


class _Keeper:
    """Dates packets that nobody decodes, and puts them into the ring.

    Their timestamps are mapped to the host's clock as those of decoded frames are. Packets come in decoding order, so
    only those that are shown later than all before them move the clock.
    """

    def __init__(self, writer: RingWriter, clock: StreamClock) -> None:
        self._writer = writer
        self._clock = clock
        self._latest = -math.inf
        self._bytes = 0

    def keep(self, arrived: Arrived) -> None:
        packet, received = arrived.packet, arrived.received_seconds
        if not packet.size:
            return
        self._bytes += packet.size
        self._writer.append(packet, seconds=self._seconds(arrived.seconds, received), received_seconds=received)

    def _seconds(self, pts: float | None, received: float) -> float:
        if pts is None:
            return received
        if self._latest - STEP_BACK_SECONDS < pts < self._latest:
            return self._clock.expected(pts, received)
        self._latest = pts
        return self._clock.time_of(pts, received)

    def counts(self, camera: str, ring_bytes: int) -> CaptureCounts:
        """Return what came since it was last asked."""
        counts = CaptureCounts(camera, bytes_received=self._bytes, clip_ring_bytes=ring_bytes)
        self._bytes = 0
        return counts
