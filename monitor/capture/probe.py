"""A camera's address in; what its stream is like, and what a person should look at, out."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import av

from monitor.capture.arrival import Arrived
from monitor.capture.failures import failed
from monitor.capture.gate import MOST_GOP_SECONDS
from monitor.capture.source import Source, open_source
from monitor.config import CameraConfig, CaptureConfig
from monitor.errors import SourceFailed
from monitor.records import ClockSource, FailureReason

SKEW_SECONDS = 2.0
RATE_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What a look at a stream showed."""

    camera: str
    codec: str
    width_pixels: int
    height_pixels: int
    pixel_format: str
    declared_fps: float | None
    measured_fps: float | None
    gop_frames: int | None
    """Frames from one keyframe to the next, the most that was seen; None where fewer than two came."""
    gop_seconds: float | None
    has_b_frames: bool
    clock: ClockSource
    skew_seconds: float | None
    """The camera's clock less the host's; None when the camera tells no clock."""
    bits_per_second: float | None
    open_seconds: float
    """How long the stream took to open."""
    problems: tuple[str, ...]
    """What a person should look at; empty when all is well."""


def probe(camera: CameraConfig, settings: CaptureConfig, *, seconds: float) -> StreamReport:
    """Open a camera, watch it for some seconds, and say what it sends.

    Takes no longer than both time-outs and `seconds` together: a call into FFmpeg that hangs is left to its thread.

    Raises:
        SourceFailed: the stream cannot be opened, or breaks before a first packet came.
    """
    outcome: queue.SimpleQueue[StreamReport | SourceFailed] = queue.SimpleQueue()

    def look() -> None:
        try:
            outcome.put(_probe(camera, settings, seconds))
        except SourceFailed as exc:
            outcome.put(exc)
        except Exception as exc:  # top of the thread: told by name, since its message may hold an address
            outcome.put(failed(camera, FailureReason.UNSUPPORTED, f"unexpected {type(exc).__name__}"))

    threading.Thread(target=look, name=f"probe-{camera.id}", daemon=True).start()
    limit = settings.connect_timeout_seconds + settings.stall_timeout_seconds + seconds
    try:
        answer = outcome.get(timeout=limit)
    except queue.Empty:
        raise failed(camera, FailureReason.TIMED_OUT, f"no picture came in {limit:.0f} s") from None
    if isinstance(answer, SourceFailed):
        raise answer
    return answer


def _probe(camera: CameraConfig, settings: CaptureConfig, seconds: float) -> StreamReport:
    begun = time.monotonic()
    with open_source(camera, settings) as source:
        look = _Look(source, open_seconds=time.monotonic() - begun)
        end = time.monotonic() + seconds
        try:
            for arrived in source.packets():
                look.note(arrived)
                if time.monotonic() >= end:
                    break
        except SourceFailed as exc:
            if look.packets == 0:
                raise
            if exc.reason is not FailureReason.ENDED or camera.is_network:
                look.problems.append(f"{exc.reason.value}: {exc.detail}")
        return look.report(camera)


class _Look:
    """What `probe` counts while it watches."""

    def __init__(self, source: Source, *, open_seconds: float) -> None:
        self._source = source
        self._open_seconds = open_seconds
        self._times: list[float] = []
        self._keys: list[tuple[int, float]] = []
        self._bytes = 0
        self._skew: float | None = None
        self._newest: av.VideoFrame | None = None
        self._decode_errors = 0
        self.packets = 0
        self.problems: list[str] = []

    def note(self, arrived: Arrived) -> None:
        packet, seconds = arrived.packet, arrived.seconds
        try:
            decoded = self._source.decode(arrived)
        except SourceFailed:
            self._decode_errors += 1
            decoded = []
        for one in decoded:
            self._newest = one.frame
            if one.camera_seconds is not None:
                self._skew = one.camera_seconds - one.received_seconds
        if not packet.size:
            return
        if seconds is not None:  # the first packets of a live stream have none
            self._times.append(seconds)
            if packet.is_keyframe:
                self._keys.append((self.packets, seconds))
        self._bytes += packet.size
        self.packets += 1

    def report(self, camera: CameraConfig) -> StreamReport:
        source, frame = self._source, self._newest
        rate = source.stream.average_rate or source.stream.guessed_rate
        span = max(self._times) - min(self._times) if self._times else 0.0
        measured = (len(self._times) - 1) / span if span > 0 else None
        gops = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(self._keys, self._keys[1:], strict=False)]
        report = StreamReport(
            camera=camera.id,
            codec=source.context.name,
            width_pixels=frame.width if frame else source.context.width,
            height_pixels=frame.height if frame else source.context.height,
            pixel_format=frame.format.name if frame else (source.context.pix_fmt or ""),
            declared_fps=float(rate) if rate else None,
            measured_fps=measured,
            gop_frames=max(gop[0] for gop in gops) if gops else None,
            gop_seconds=max(gop[1] for gop in gops) if gops else None,
            has_b_frames=bool(source.context.has_b_frames),
            clock=ClockSource.HOST if self._skew is None else ClockSource.RTCP,
            skew_seconds=self._skew,
            bits_per_second=self._bytes * 8 / span if span > 0 else None,
            open_seconds=self._open_seconds,
            problems=(),
        )
        return replace(report, problems=(*self.problems, *self._wrong_with(report, span)))

    def _wrong_with(self, report: StreamReport, span: float) -> Iterator[str]:
        if self._newest is None:
            yield "no frame could be decoded"
        if self._decode_errors:
            yield f"{self._decode_errors} of {self.packets} packets could not be decoded"
        declared, measured = report.declared_fps, report.measured_fps
        if declared and measured and not math.isclose(declared, measured, rel_tol=RATE_TOLERANCE):
            yield f"declares {declared:.4g} frames a second and sends {measured:.4g}"
        gop_seconds = span if report.gop_seconds is None else report.gop_seconds
        if gop_seconds > MOST_GOP_SECONDS:
            seldom = "fewer than two keyframes in" if report.gop_seconds is None else "a keyframe only every"
            yield f"{seldom} {gop_seconds:.0f} s: all is decoded, and pictures come late after a new connection"
        if report.has_b_frames:
            yield "B-frames: each picture comes later by the reordering"
        if report.skew_seconds is not None and abs(report.skew_seconds) > SKEW_SECONDS:
            yield f"the camera's clock is {report.skew_seconds:+.1f} s off; set NTP on it"
