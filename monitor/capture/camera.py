"""One camera in; its samples, changes of state and counts out, for as long as nobody says stop.

The loop of a camera: connect, read, decode, date, sample, tell; and after a failure wait and begin again.
What becomes of a packet is `intake`'s to say; when the next ones may wait, `rests`'.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import SampleShape
from monitor.capture.arrival import Arrived
from monitor.capture.burst import settled
from monitor.capture.evidence import EvidencePlan
from monitor.capture.intake import Intake, Seen
from monitor.capture.rests import Rests
from monitor.capture.ring import PacketRing, RingWriter
from monitor.capture.source import open_source
from monitor.config import CameraConfig, CaptureConfig
from monitor.errors import SourceFailed
from monitor.records import CameraState, CameraStatus, CaptureCounts, FailureReason, Sample

COUNTS_SECONDS = 1.0
SETTLED_SECONDS = 10.0
"""A stream that ran this long counts as well: after its next failure the waits begin small again."""
UNDECODABLE_SECONDS = 15.0
"""Packets without a frame for this long are a failure. A new connection in mid-GOP has to wait for a keyframe."""
OVERDUE_SECONDS = 0.75
"""How much later than FFmpeg's own time-out a hanging call counts as lost."""
REFUSED_JITTER = 0.1
DOUBTED_REFUSALS = 3
"""So many refusals in a row of a password that has worked are not believed: cameras also refuse while they start.
Those that lock accounts do so after five or more."""
DOUBTED_SECONDS = (3.0, 6.0)

Told = Sample | CameraStatus | CaptureCounts


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """What every camera of a worker has in common."""

    settings: CaptureConfig
    sample_fps: float
    shape: SampleShape
    evidence: EvidencePlan | None = None
    """None: no packets are kept."""


def retry_wait(
    attempt: int, reason: FailureReason, settings: CaptureConfig, random: Random, *, doubted: bool = False
) -> float:
    """Return the seconds to wait before the next connection.

    Exponential with full jitter (any wait up to the bound), so that cameras lost together do not come back in step;
    slow after a refused password, since cameras lock accounts.

    Args:
        attempt: how many connections in a row have failed, from 1.
        reason: how the last one failed.
        settings: holds the bounds.
        random: the camera's own.
        doubted: whether a refusal is one of the first of a password that has worked.
    """
    if reason is FailureReason.REFUSED and doubted:
        return min(settings.refused_retry_seconds, random.uniform(*DOUBTED_SECONDS))
    if reason is FailureReason.REFUSED:
        return settings.refused_retry_seconds * random.uniform(1.0 - REFUSED_JITTER, 1.0 + REFUSED_JITTER)
    bound = min(settings.retry_max_seconds, settings.retry_min_seconds * 2.0 ** min(attempt - 1, 32))
    return random.uniform(0.0, bound)


class _Phase(Enum):
    WAITING = "waiting"
    CONNECTING = "connecting"
    READING = "reading"


class CameraLoop:
    """Watches one camera; `run` is the body of its thread.

    Args:
        tell: takes samples, changes of state and counts; must not block.
        attempt: failures in a row before this loop.
        ring: where the packets are kept; None: nowhere.
    """

    def __init__(
        self,
        camera: CameraConfig,
        plan: CapturePlan,
        *,
        tell: Callable[[Told], None],
        attempt: int = 0,
        ring: PacketRing | None = None,
    ) -> None:
        self.camera = camera
        self.attempt = attempt
        self._settings = plan.settings
        self._is_network = camera.is_network
        self._tell = tell
        self._stop = threading.Event()
        self._random = Random()
        self._ring = ring
        self._kept: RingWriter | None = None
        self._intake = Intake(camera, sample_fps=plan.sample_fps, shape=plan.shape, settings=plan.settings)
        self._rests = Rests(self._intake, sample_fps=plan.sample_fps, stagger=self._random.random())
        self._tally = _Tally(camera.id)
        self._phase = _Phase.WAITING
        self._progress = time.monotonic()
        self._online_since: float | None = None
        self._proven = False
        """Whether the password has worked."""
        self._refusals = 0
        self._last_frame = 0.0
        self._software_because = ""

    def run(self, after: SourceFailed | None = None) -> None:
        """Watch until `stop`; retry after every failure.

        Args:
            after: a failure that another loop of this camera met; waited for before the first connection.
        """
        failure = after
        while not self._stop.is_set():
            if failure is not None:
                self._recover(failure)
            if not self._stop.is_set():
                failure = self._connection()

    def stop(self) -> None:
        """Ask the loop to end; it does with the next packet, or when FFmpeg's time-out has passed."""
        self._stop.set()

    def overdue(self) -> SourceFailed | None:
        """Return the failure of a call into FFmpeg that hangs; called from outside the loop's thread."""
        silent = time.monotonic() - self._progress
        if self._phase is _Phase.CONNECTING and silent > self._settings.connect_timeout_seconds + OVERDUE_SECONDS:
            return SourceFailed(self.camera.id, FailureReason.TIMED_OUT, f"no stream after {silent:.1f} s")
        if self._phase is not _Phase.READING or not self._is_network:
            return None
        if silent > self._settings.stall_timeout_seconds + OVERDUE_SECONDS:
            return SourceFailed(self.camera.id, FailureReason.STALLED, f"no picture came for {silent:.1f} s")
        return None

    def _connection(self) -> SourceFailed | None:
        """Run one connection to its end; return how it failed, None when it was asked to stop."""
        self._say(CameraState.CONNECTING)
        self._online_since = None
        try:
            self._watch()
        except SourceFailed as exc:
            return exc
        except Exception as exc:  # top of the thread: told as a status, and the camera is tried again
            return SourceFailed(self.camera.id, FailureReason.INTERNAL, f"unexpected {type(exc).__name__}")
        finally:
            self._enter(_Phase.WAITING)
            if self._kept is not None:
                self._kept.end()
            self._report_counts()
        return None

    def _watch(self) -> None:
        self._enter(_Phase.CONNECTING)
        with open_source(self.camera, self._settings) as source:
            self._software_because = source.software_because
            self._intake.begin(source)
            if self._ring is not None:
                self._kept = self._ring.begin(source.format)
            self._enter(_Phase.READING)
            self._last_frame = time.monotonic()
            self._rests.begin(source.make_room())
            packets = source.packets(self._stop)
            for arrived in settled(packets, self._intake.clock) if self._is_network else packets:
                begun = self._progress = time.monotonic()
                self._take(arrived)
                if self._tally.due():
                    self._report_counts()
                    self._settle()
                rest = self._rests.after(
                    arrived,
                    waited_seconds=source.waited_seconds if arrived is source.newest else 0.0,
                    took_seconds=time.monotonic() - begun,
                    now_seconds=time.time(),
                )
                if rest > 0.0:
                    self._stop.wait(rest)

    def _take(self, arrived: Arrived) -> None:
        size = arrived.packet.size
        self._tally.packets += 1
        self._tally.bytes_received += size
        if self._kept is not None and size:
            received = arrived.received_seconds
            seconds = self._intake.clock.expected(arrived.seconds, received)
            self._kept.append(arrived.packet, seconds=seconds, received_seconds=received)
        for seen in self._intake.take(arrived):
            self._show(seen)
        if self._progress - self._last_frame > UNDECODABLE_SECONDS:
            detail = f"no picture could be decoded for {UNDECODABLE_SECONDS:.0f} s"
            raise SourceFailed(self.camera.id, FailureReason.DECODE_ERROR, detail)

    def _show(self, seen: Seen) -> None:
        self._last_frame = self._progress = time.monotonic()
        if self._online_since is None:
            self._online_since = self._progress
            self._proven, self._refusals = True, 0
            self._say(CameraState.ONLINE)
        if self._kept is not None:
            self._kept.date(seen.pts, seen.time_seconds)
        self._tally.frame(seen.time_seconds, seen.camera_seconds)
        if seen.sample is not None:
            self._tally.sample(seen.sample)
            self._tell(seen.sample)

    def _recover(self, failure: SourceFailed) -> None:
        if failure.reason is FailureReason.ENDED and self._online_since is not None and not self._is_network:
            self.attempt = 0  # a file that was played to its end did nothing wrong
        self.attempt += 1
        self._refusals = self._refusals + 1 if failure.reason is FailureReason.REFUSED else 0
        doubted = self._proven and self._refusals <= DOUBTED_REFUSALS
        wait = retry_wait(self.attempt, failure.reason, self._settings, self._random, doubted=doubted)
        state = CameraState.REFUSED if failure.reason is FailureReason.REFUSED else CameraState.OFFLINE
        self._say(state, failure=failure, retry_seconds=wait)
        self._stop.wait(wait)

    def _settle(self) -> None:
        """Forgive the failures before a stream that has run for a while."""
        if self._online_since is not None and self._progress - self._online_since >= SETTLED_SECONDS:
            self.attempt = 0

    def _enter(self, phase: _Phase) -> None:
        self._progress = time.monotonic()
        self._phase = phase

    def _say(
        self, state: CameraState, *, failure: SourceFailed | None = None, retry_seconds: float | None = None
    ) -> None:
        if self._stop.is_set():
            return
        self._tell(
            CameraStatus(
                camera=self.camera.id,
                state=state,
                time_seconds=time.time(),
                reason=failure.reason if failure else None,
                detail=failure.detail if failure else "",
                attempt=self.attempt if failure else 0,
                retry_seconds=retry_seconds,
                software_because=self._software_because if state is CameraState.ONLINE else "",
            )
        )

    def _report_counts(self) -> None:
        counts = self._tally.take(self._intake, None if self._ring is None else self._ring.bytes)
        if counts is not None:
            self._tell(counts)


class _Tally:
    """What a loop has counted since it last told."""

    def __init__(self, camera: str) -> None:
        self._camera = camera
        self._last_frame: float | None = None
        self._skew: float | None = None
        self._change: float | None = None
        self._picture: NDArray[np.int16] | None = None
        self._reset()

    def frame(self, seconds: float, camera_seconds: float | None) -> None:
        """Count a decoded frame."""
        self.frames += 1
        self._last_frame = seconds
        self._skew = None if camera_seconds is None else camera_seconds - seconds

    def sample(self, sample: Sample) -> None:
        """Count a sample, and look at its newest picture: coarsely, and at green alone, which is most of its light."""
        self.samples += 1
        picture = sample.pictures[-1, ::2, ::2, 1].astype(np.int16)
        if self._picture is not None and self._picture.shape == picture.shape:
            self._change = max(self._change or 0.0, float(np.abs(picture - self._picture).mean()))
        self._picture = picture

    def due(self) -> bool:
        """Whether it is time to tell."""
        return time.monotonic() - self._begun >= COUNTS_SECONDS

    def take(self, intake: Intake, ring_bytes: int | None) -> CaptureCounts | None:
        """Return what was counted and begin anew; None when nothing was."""
        if not self.packets:
            return None
        taken = intake.take_counts()
        counts = CaptureCounts(
            camera=self._camera,
            packets=self.packets,
            bytes_received=self.bytes_received,
            frames_decoded=self.frames,
            frames_skipped=taken.frames_skipped,
            decode_errors=taken.decode_errors,
            samples=self.samples,
            last_frame_seconds=self._last_frame,
            skew_seconds=self._skew,
            ring_bytes=ring_bytes,
            gate=intake.gate_state,
            woken=taken.woken,
            contrast=float(self._picture.std()) if self._picture is not None and self.samples else None,
            change=self._change,
        )
        self._reset()
        return counts

    def _reset(self) -> None:
        self._begun = time.monotonic()
        self._change = None
        self.packets = self.bytes_received = self.frames = self.samples = 0
