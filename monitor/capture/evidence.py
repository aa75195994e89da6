"""Requests for clips and pictures in; files in the media folder, and reports on them, out.

One thread for all cameras of a capture process. It reads their packet rings, so no camera's thread ever waits for a
decoder or a disk. Clips go first: a ring that is read too late has lost packets, pictures only come later.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av.error
import cv2

from monitor.capture.clip import ClipWriter
from monitor.capture.frames import decoded_frames, newest_keyframe, pixels_of
from monitor.capture.pictures import Pixels, StripSlot, jpeg, shown_jpeg, strip, thumbnail
from monitor.capture.ring import PacketRing, RingPacket
from monitor.errors import EvidenceFailed
from monitor.records import (
    BeginClip,
    CameraPicture,
    EndClip,
    EvidenceKind,
    EvidenceReport,
    EvidenceRequest,
    EvidenceResult,
    ShowCamera,
    TakePictures,
)
from monitor.whole_file import whole_file

POLL_SECONDS = 0.25
"""How often the packets of open clips are fetched."""
WAITING_PICTURES = 32
"""Requests for pictures that may wait; beyond it the oldest is given up and counted."""
PICTURE_TOLERANCE_SECONDS = 0.5
"""A frame further from the wanted time than this is another one."""
SMALL = "of the small stream, since the large one was away"
OVERTIME_SECONDS = 10.0
"""A clip whose last packets do not come is closed this long after they should have."""


@dataclass(frozen=True, slots=True)
class EvidencePlan:
    """What the evidence of every camera of a worker has in common."""

    folder: Path
    ring_seconds: float
    ring_bytes: int

    def ring(self) -> PacketRing:
        """Return a camera's empty ring."""
        return PacketRing(seconds=self.ring_seconds, most_bytes=self.ring_bytes)


@dataclass(slots=True)
class _OpenClip:
    request: BeginClip
    until_seconds: float
    ring: PacketRing | None = None
    """What it is made of, once it has begun."""
    remark: str = ""
    """What its report has to say besides how it ended."""
    writer: ClipWriter | None = None
    cpu_seconds: float = 0.0


class EvidenceKeeper:
    """Makes clips and pictures; `run` is the body of a capture process' evidence thread.

    Args:
        folder: where the files go; made when missing.
        rings_of: gives a camera's rings, the large stream's first; none when the camera is not watched here.
        tell: takes the reports; must not block.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rings_of: Callable[[str], Sequence[PacketRing]],
        tell: Callable[[EvidenceReport | CameraPicture], None],
    ) -> None:
        self._folder = folder
        self._rings_of = rings_of
        self._tell = tell
        self._waiting: deque[TakePictures] = deque()
        self._looked_at: dict[str, None] = {}
        """Cameras that somebody wants to see, in the order in which they were asked for."""
        self._clips: dict[str, _OpenClip] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._ended = threading.Event()

    def put(self, request: EvidenceRequest | ShowCamera) -> None:
        """Take a request; never blocks."""
        with self._changed:
            match request:
                case BeginClip():
                    self._clips[request.alert_id] = _OpenClip(request, request.latest_seconds)
                case EndClip():
                    clip = self._clips.get(request.alert_id)
                    if clip is not None:
                        clip.until_seconds = min(clip.until_seconds, request.until_seconds)
                case TakePictures():
                    self._waiting.append(request)
                case ShowCamera():
                    self._looked_at[request.camera] = None
            given_up = self._waiting.popleft() if len(self._waiting) > WAITING_PICTURES else None
            self._changed.notify()
        if given_up is not None:
            self._tell_pictures(given_up, EvidenceResult.FAILED, "too many pictures waited")

    def stop(self) -> None:
        """Ask the thread to complete the open clips with what there is, and to end; pictures that wait are given up."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self, timeout_seconds: float) -> None:
        """Wait for the thread's end; what it leaves behind is finished at the service's next start."""
        self._ended.wait(timeout_seconds)

    def run(self) -> None:
        """Serve until `stop`; the body of the thread."""
        cv2.setNumThreads(1)
        while not self._stopping:
            wanted = self._next()
            for clip in self._open_clips():
                self._advance(clip)
            if isinstance(wanted, TakePictures):
                self._take(wanted)
            elif wanted is not None:
                self._show(wanted)
        for clip in self._open_clips():
            self._advance(clip)
            self._finish(clip, "the monitor stopped")
        self._ended.set()

    def _next(self) -> TakePictures | str | None:
        """Wait until there is something to do; return the pictures to take, or a camera to show, if any."""
        with self._changed:
            if not self._waiting and not self._looked_at and not self._stopping:
                self._changed.wait(POLL_SECONDS if self._clips else None)
            if self._waiting:
                return self._waiting.popleft()
            camera = next(iter(self._looked_at), None)
            if camera is not None:
                del self._looked_at[camera]
            return camera

    def _open_clips(self) -> list[_OpenClip]:
        with self._changed:
            return list(self._clips.values())

    # --- clips ---------------------------------------------------------------------------------------------------

    def _advance(self, clip: _OpenClip) -> None:
        """Write what the ring has for a clip; close it where it ends."""
        began = time.thread_time()
        try:
            ending = self._write(clip)
        except (EvidenceFailed, OSError) as exc:
            clip.cpu_seconds += time.thread_time() - began
            self._give_up(clip, str(exc))
            return
        clip.cpu_seconds += time.thread_time() - began
        if ending is not None:
            self._finish(clip, ending)

    def _write(self, clip: _OpenClip) -> str | None:
        """Return how the clip ended: empty for well; None while it goes on."""
        rings = self._rings_of(clip.request.camera)
        if not rings:
            return "the camera is no longer watched"
        if clip.writer is None or clip.ring is None:
            clip.ring, clip.remark = _chosen(rings, clip.request.event_seconds)
            packets: Sequence[RingPacket] = _beginning(clip.ring, clip.request)
            clip.writer = self._writer(clip.request, packets[0])
        else:
            packets = clip.ring.after(clip.writer.last_serial)
        ring = clip.ring
        writer = clip.writer
        over = ring.is_over(writer.first.segment)
        for packet in packets:
            if packet.seconds > clip.until_seconds:
                return ""
            ending = writer.follows(packet)
            if ending:
                return ending
            writer.write(packet)
        if over and not ring.after(writer.last_serial):
            return "the monitor stopped" if self._stopping else "the camera was lost"
        return "no more packets came" if time.time() > clip.until_seconds + OVERTIME_SECONDS else None

    def _writer(self, request: BeginClip, first: RingPacket) -> ClipWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        return ClipWriter(self._folder / request.file_name, first, comment=f"camera {request.camera}")

    def _finish(self, clip: _OpenClip, detail: str) -> None:
        began = time.thread_time()
        if clip.writer is None:
            self._give_up(clip, detail)
            return
        try:
            size = clip.writer.finish()
        except EvidenceFailed as exc:
            self._give_up(clip, str(exc))
            return
        clip.cpu_seconds += time.thread_time() - began
        self._close(clip, EvidenceResult.KEPT, detail, size=size)

    def _give_up(self, clip: _OpenClip, detail: str) -> None:
        """Close a clip that failed; what was written of it stays, under its own name where that can be."""
        if clip.writer is not None:
            try:
                clip.writer.finish()
            except EvidenceFailed:  # the first failure is the one to tell
                detail = detail or "cannot be finished"
        self._close(clip, EvidenceResult.FAILED, detail)

    def _close(self, clip: _OpenClip, result: EvidenceResult, detail: str, *, size: int = 0) -> None:
        with self._changed:
            self._clips.pop(clip.request.alert_id, None)
        writer = clip.writer
        self._tell(
            EvidenceReport(
                camera=clip.request.camera,
                alert_id=clip.request.alert_id,
                kind=EvidenceKind.CLIP,
                result=result,
                detail="; ".join(filter(None, (clip.remark, detail))),
                bytes=size,
                cpu_seconds=clip.cpu_seconds,
                seconds=0.0 if writer is None else writer.end_seconds - writer.first.seconds,
            )
        )

    # --- pictures ------------------------------------------------------------------------------------------------

    def _take(self, request: TakePictures) -> None:
        began = time.thread_time()
        try:
            decoded, remark = self._decoded(request)
            snapshot = self._write_jpeg(request.snapshot_name, decoded.snapshot)
            taken = time.thread_time()
            strip_bytes = self._write_jpeg(
                request.strip_name, strip(decoded.slots, most_attended=request.most_attended)
            )
        except (EvidenceFailed, OSError, ValueError, av.error.FFmpegError, cv2.error) as exc:
            self._tell_pictures(request, EvidenceResult.FAILED, getattr(exc, "strerror", None) or str(exc))
            return
        drawn = time.thread_time()
        for kind, size, cpu_seconds in (
            (EvidenceKind.SNAPSHOT, snapshot, taken - began),
            (EvidenceKind.STRIP, strip_bytes, drawn - taken),
        ):
            self._tell_picture(request, kind, EvidenceResult.KEPT, detail=remark, size=size, cpu_seconds=cpu_seconds)

    def _decoded(self, request: TakePictures) -> tuple[_Decoded, str]:
        """Decode the window, out of the large stream where it has the most attended frame; and say if it has not."""
        rings = self._rings_of(request.camera)
        wanted = request.frame_seconds[request.most_attended]
        if not rings or wanted is None:
            raise EvidenceFailed("the most attended frame is no longer in the ring")
        ring, remark = _chosen(rings, wanted)
        try:
            return _decoded(ring, request, stopped=lambda: self._stopping), remark
        except EvidenceFailed:
            if ring is rings[-1]:
                raise
        return _decoded(rings[-1], request, stopped=lambda: self._stopping), SMALL

    def _show(self, camera: str) -> None:
        """Tell the newest keyframe of the small stream; a page that gets none keeps what it has."""
        rings = self._rings_of(camera)
        try:
            newest = newest_keyframe(rings[-1]) if rings else None
            if newest is not None:
                packet, frame = newest
                self._tell(CameraPicture(camera, packet.seconds, shown_jpeg(pixels_of(frame))))
        except (ValueError, av.error.FFmpegError, cv2.error):  # a damaged keyframe; the next may be well
            return

    def _write_jpeg(self, name: str, pixels: Pixels) -> int:
        content = jpeg(pixels)
        self._folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self._folder / name) as file:
            file.write(content)
        return len(content)

    def _tell_pictures(self, request: TakePictures, result: EvidenceResult, detail: str) -> None:
        for kind in (EvidenceKind.SNAPSHOT, EvidenceKind.STRIP):
            self._tell_picture(request, kind, result, detail=detail)

    def _tell_picture(
        self,
        request: TakePictures,
        kind: EvidenceKind,
        result: EvidenceResult,
        *,
        detail: str = "",
        size: int = 0,
        cpu_seconds: float = 0.0,
    ) -> None:
        self._tell(
            EvidenceReport(
                camera=request.camera,
                alert_id=request.alert_id,
                kind=kind,
                result=result,
                detail=detail,
                bytes=size,
                cpu_seconds=cpu_seconds,
            )
        )


def _chosen(rings: Sequence[PacketRing], seconds: float) -> tuple[PacketRing, str]:
    """Return the first ring that holds a time, else the last; and a remark where that is not the first of all."""
    for ring in rings[:-1]:
        if ring.holds(seconds, tolerance_seconds=PICTURE_TOLERANCE_SECONDS):
            return ring, ""
    return rings[-1], SMALL if len(rings) > 1 else ""


def _beginning(ring: PacketRing, request: BeginClip) -> list[RingPacket]:
    """Return what the ring holds for a clip: of one segment, from a keyframe at or before its beginning."""
    packets = ring.since(request.from_seconds)
    if not packets:
        raise EvidenceFailed("the ring holds no packets")
    at_event = next((packet for packet in packets if packet.seconds >= request.event_seconds), packets[-1])
    return [packet for packet in packets if packet.segment is at_event.segment]


@dataclass(frozen=True, slots=True)
class _Decoded:
    snapshot: Pixels
    """The most attended frame, whole."""
    slots: tuple[StripSlot, ...]


def _decoded(ring: PacketRing, request: TakePictures, *, stopped: Callable[[], bool]) -> _Decoded:
    """Decode the window's frames out of the ring.

    Raises:
        EvidenceFailed: the most attended frame is not there any more.
    """
    held = [seconds for seconds in request.frame_seconds if seconds is not None]
    packets = ring.since(min(held)) if held else ()
    wanted = {slot: _nearest(packets, seconds) for slot, seconds in enumerate(request.frame_seconds)}
    serials = {packet.serial for packet in wanted.values() if packet is not None}
    thumbnails: dict[int, Pixels] = {}
    snapshot: Pixels | None = None
    chosen = wanted.get(request.most_attended)
    for packet, frame in decoded_frames(packets, serials, stopped):
        pixels = pixels_of(frame)
        thumbnails[packet.serial] = thumbnail(pixels)
        if chosen is not None and packet.serial == chosen.serial:
            snapshot = pixels
    if snapshot is None:
        raise EvidenceFailed("the most attended frame is no longer in the ring")
    shape = thumbnail(snapshot).shape
    slots = []
    for slot, seconds in enumerate(request.frame_seconds):
        source = wanted[slot]
        small = None if source is None else thumbnails.get(source.serial)
        fits = small is not None and small.shape == shape
        slots.append(StripSlot(small if fits else None, seconds, request.attention[slot]))
    return _Decoded(snapshot, tuple(slots))


def _nearest(packets: Sequence[RingPacket], seconds: float | None) -> RingPacket | None:
    if seconds is None or not packets:
        return None
    nearest = min(packets, key=lambda packet: abs(packet.seconds - seconds))
    return nearest if abs(nearest.seconds - seconds) <= PICTURE_TOLERANCE_SECONDS else None
