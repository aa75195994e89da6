"""A camera's address in; packets with their arrival, decoded frames, and classed failures out.

Every library error is translated here and in `failures`: beyond this door there are only `SourceFailed` and
`InputInvalid`.
"""

from __future__ import annotations

import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

import av
import av.error
from av.codec.context import Flags as CodecFlags
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from monitor.capture.arrival import Arrived
from monitor.capture.failures import failed, open_failure, read_failure
from monitor.capture.hardware import hardware
from monitor.capture.receive_buffer import make_room
from monitor.capture.ring import StreamFormat
from monitor.config import CameraConfig, CaptureConfig
from monitor.errors import InputInvalid
from monitor.records import FailureReason

NOT_VIDEO_FORMATS = frozenset({"tty", "bin", "xbin", "adf", "idf"})
"""Demuxers that draw any text or binary file as a picture: never what somebody meant by a video."""

PROBE_SECONDS = 1.0
"""Longest look at a live stream before it counts as open. The codec is known from the SDP or the first packets;
FFmpeg's default of 5 s would wait for the frame rate, which nobody here believes anyway."""
UDP_BUFFER_BYTES = 2 * 1024 * 1024
"""A keyframe comes in one burst of datagrams; the kernel's default loses its end."""

DATAGRAM_SCHEMES = frozenset({"udp", "rtp", "srt"})

COMPLETE_WITH_THE_NEXT = frozenset({"h264", "hevc"})
"""Over RTP, FFmpeg's parser gives out a picture of these only when the next one begins."""
RENEWED = frozenset({"h264", "hevc"})
"""Decoders that know from a header and a keyframe all that they need."""

GUESSED_FPS = 25
"""For elementary streams without timestamps whose headers tell no rate either."""

LONGEST_PAUSE_SECONDS = 10.0
"""A file whose timestamps jump further is damaged or was cut: it is played on at once."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded frame and the times that belong to it."""

    frame: av.VideoFrame
    pts_seconds: float | None
    """The stream's own timestamp; None where it has none."""
    received_seconds: float
    """When the frame's packet had arrived, host clock."""
    camera_seconds: float | None
    """When the camera saw it, on the camera's clock (RTCP sender report); None when it tells none."""
    of_keyframe: bool = False
    """Whether its packet counts as a keyframe."""


@dataclass(frozen=True, slots=True)
class _Rider:
    """Rides on a packet through the decoder, so that reordered frames keep their own times."""

    received_seconds: float
    camera_seconds: float | None
    is_keyframe: bool


class Source:
    """An open stream; made by `open_source`, used by one thread.

    Use as a context manager: leaving it closes the connection.
    """

    def __init__(
        self,
        camera: CameraConfig,
        container: InputContainer,
        stream: VideoStream,
        *,
        timeout_seconds: float,
        software_because: str = "",
    ) -> None:
        self._camera = camera
        self._container = container
        self._timeout_seconds = timeout_seconds
        self.software_because = software_because
        """Why it is decoded in software although hardware was asked for; empty when it is as asked."""
        self.newest: Arrived | None = None
        """The packet that was read last."""
        self.waited_seconds = 0.0
        """How long it was waited for."""
        self.stream = stream
        self._renews = stream.codec_context.name in RENEWED and not stream.codec_context.is_hwaccel
        self.context = _fresh(stream.codec_context) if self._renews else stream.codec_context
        self._time_base = stream.time_base or Fraction(1, 90_000)
        self._is_one_late = container.format.name == "rtsp" and self.context.name in COMPLETE_WITH_THE_NEXT
        self._skip_mode: Literal["DEFAULT", "NONREF"] = "DEFAULT"

    @property
    def format(self) -> StreamFormat:
        """What a decoder or a muxer has to know of the stream."""
        return StreamFormat(self.context.name, bytes(self.context.extradata or b""), self._time_base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; harmless when it is closed."""
        self._container.close()

    def make_room(self) -> int:
        """Let packets that are not read at once wait; return for how many bytes of them there is room.

        There is none over datagrams, and no end of it in a file.
        """
        if not self._camera.is_network:
            return sys.maxsize
        return 0 if _is_datagrams(self._camera) else make_room()

    def packets(self, stop: threading.Event | None = None) -> Iterator[Arrived]:
        """Yield the packets of the picture as they arrive; files at their pace.

        Where a picture comes out when the next one begins, it counts as received when the one before came out: with
        its first bytes, not an interval later. Of the first one that is not known.

        Ends only when `stop` is set; until then it yields or raises. The last packets before an end may be
        empty: decoding them brings out what the decoder held back.

        Raises:
            SourceFailed: the stream ended, broke, or stalled for longer than the time-out.
        """
        stop = stop or threading.Event()
        pace = None if self._camera.is_network else _Pace(stop, fps=_declared_fps(self.stream))
        last = time.monotonic()
        began: float | None = None
        try:
            for packet in self._container.demux(self.stream):
                if pace is not None:
                    pace.wait_for(packet)
                if stop.is_set():
                    return
                self.waited_seconds = time.monotonic() - last
                if pace is None and self.waited_seconds > self._timeout_seconds:
                    # FFmpeg met its time-out, and gave the picture that its parser held back instead of saying so.
                    detail = f"no picture came for {self.waited_seconds:.1f} s"
                    raise failed(self._camera, FailureReason.STALLED, detail)
                now = time.time()
                self.newest = Arrived.of(packet, now if began is None else began, self._time_base)
                yield self.newest
                began = now if self._is_one_late else None
                last = time.monotonic()
        except av.error.FFmpegError as exc:
            silent = time.monotonic() - last
            raise read_failure(
                self._camera, exc, silent_seconds=silent, timeout_seconds=self._timeout_seconds
            ) from None
        raise failed(self._camera, FailureReason.ENDED, "the stream ended")

    def decode(self, arrived: Arrived) -> list[Decoded]:
        """Return the frames that a packet completes.

        Raises:
            SourceFailed: DECODE_ERROR; the packet is lost, the next one may be well.
        """
        packet = arrived.packet
        packet.opaque = _Rider(arrived.received_seconds, arrived.camera_seconds, packet.is_keyframe)
        try:
            frames = self.context.decode(packet)
        except av.error.FFmpegError as exc:
            raise failed(self._camera, FailureReason.DECODE_ERROR, exc.strerror or "cannot be decoded") from None
        return [_decoded(frame, arrived.received_seconds) for frame in frames]

    def flush(self) -> None:
        """Let the decoder forget what it holds; it goes on with a keyframe."""
        self.context.flush_buffers()

    def renew(self) -> None:
        """Begin with a decoder that holds no memory, where that is possible; it goes on with a keyframe.

        An old one keeps the memory of the most pictures that were ever in use at once.
        """
        if self._renews:
            self.context = _fresh(self.context)
            self._skip_mode = "DEFAULT"

    def skip_unreferenced(self, skip: bool) -> None:
        """Say whether pictures that no other one refers to are left out of what is decoded next."""
        mode: Literal["DEFAULT", "NONREF"] = "NONREF" if skip else "DEFAULT"
        if self._skip_mode != mode:
            self.context.skip_frame = self._skip_mode = mode


def open_source(camera: CameraConfig, settings: CaptureConfig) -> Source:
    """Connect to a camera, or open a file.

    FFmpeg's own `timeout` bounds each wait for the network; who must keep a bound over all of it watches from
    outside, as `worker` does. (PyAV's `timeout=` would: but it takes the interpreter lock for every read.)

    Raises:
        SourceFailed: with the class of the failure.
    """
    timeout = max(settings.connect_timeout_seconds, settings.stall_timeout_seconds)
    device = hardware(camera.hwaccel or settings.hwaccel)
    options = _options(camera, timeout)
    begun = time.monotonic()
    try:
        container = av.open(
            _address(camera), mode="r", metadata_errors="replace", options=options, hwaccel=device.accel
        )
    except av.error.FFmpegError as exc:
        elapsed = time.monotonic() - begun
        # `from None`: FFmpeg's error holds the address with the password in it.
        raise open_failure(camera, exc, elapsed_seconds=elapsed, timeout_seconds=timeout) from None
    except UnicodeError:
        raise failed(camera, FailureReason.UNSUPPORTED, "the address cannot be encoded") from None
    stream = _video_stream(container)
    if stream is None or container.format.name in NOT_VIDEO_FORMATS:
        container.close()
        raise failed(camera, FailureReason.UNSUPPORTED, "not a video" if stream else "holds no video stream")
    _set_up(stream.codec_context)
    refused = device.refused(stream)
    return Source(camera, container, stream, timeout_seconds=timeout, software_because=refused)


def _set_up(decoder: VideoCodecContext) -> None:
    decoder.thread_count = 1  # one a camera is enough; libavcodec would start one for each core
    decoder.flags |= CodecFlags.copy_opaque


def _fresh(decoder: VideoCodecContext) -> VideoCodecContext:
    """Return a decoder that begins as another one did, and knows how far that one's stream reorders its pictures."""
    fresh = av.CodecContext.create(decoder.codec, "r")
    assert isinstance(fresh, VideoCodecContext)  # noqa: S101 - its codec is a video's
    _set_up(fresh)
    fresh.extradata = decoder.extradata
    fresh.width, fresh.height, fresh.reorder_depth = decoder.width, decoder.height, decoder.reorder_depth
    if decoder.pix_fmt is not None:
        fresh.pix_fmt = decoder.pix_fmt
    return fresh


def read_video(path: Path) -> Iterator[tuple[av.VideoFrame, float]]:
    """Yield the frames of a file and their seconds from its first frame, as fast as they decode.

    Packets that cannot be decoded are skipped. One decoder thread, so that damaged files too
    decode to the same pixels each time.

    Raises:
        InputInvalid: the file is missing, is no video, or holds no frame that can be decoded.
    """
    with _open_file(path) as container:
        stream = _video_stream(container)
        if stream is None:
            raise InputInvalid(path, "holds no video stream")
        stream.codec_context.thread_count = 1
        rate = _declared_fps(stream)
        start: float | None = None
        for count, frame in enumerate(_frames(container, stream)):
            seconds = count / rate if frame.pts is None else frame.time
            start = seconds if start is None else start
            yield frame, seconds - start
        if start is None:
            raise InputInvalid(path, "holds no frame that can be decoded")


def _open_file(path: Path) -> InputContainer:
    if path.is_dir():
        raise InputInvalid(path, "is a folder, not a video")
    try:
        container = av.open(f"file:{path}", mode="r", metadata_errors="replace")
    except av.error.FileNotFoundError:
        raise InputInvalid(path, "no such file") from None
    except av.error.FFmpegError as exc:
        raise InputInvalid(path, f"not a video: {exc.strerror}") from exc
    if container.format.name in NOT_VIDEO_FORMATS:
        container.close()
        raise InputInvalid(path, "not a video")
    return container


def _video_stream(container: InputContainer) -> VideoStream | None:
    """Return the first video stream that is no cover picture and has a decoder."""
    for stream in container.streams.video:
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Yield what can be decoded; a file that breaks off ends where it breaks."""
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                continue
    except av.error.FFmpegError:
        return


class _Pace:
    """Holds back the packets of a file until a live camera would have sent them."""

    def __init__(self, stop: threading.Event, *, fps: float) -> None:
        self._stop = stop
        self._fps = fps
        self._count = 0
        self._begun: float | None = None

    def wait_for(self, packet: Packet[VideoStream]) -> None:
        timestamp = packet.dts if packet.dts is not None else packet.pts
        due = self._count / self._fps if timestamp is None else float(timestamp * packet.time_base)
        self._count += 1
        now = time.monotonic()
        if self._begun is None or abs(self._begun + due - now) > LONGEST_PAUSE_SECONDS:
            self._begun = now - due
        self._stop.wait(max(0.0, self._begun + due - now))


def _declared_fps(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or GUESSED_FPS)


def _address(camera: CameraConfig) -> str:
    """Return what FFmpeg opens: the address with credentials, or the file, marked as one."""
    if camera.is_network:
        return camera.login_url.get_secret_value()
    return f"file:{camera.file_path}"


def _authorities(camera: CameraConfig) -> str:
    """Return the file of trusted authorities; the wheel's own default lies where Debian has none."""
    if camera.tls_ca_file is not None:
        return str(camera.tls_ca_file)
    return ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"


def _is_datagrams(camera: CameraConfig) -> bool:
    """Whether a camera's packets come one by one over UDP."""
    scheme = urlsplit(camera.url).scheme
    return scheme in DATAGRAM_SCHEMES or (scheme.startswith("rtsp") and camera.transport == "udp")


def _options(camera: CameraConfig, timeout_seconds: float) -> dict[str, str]:
    """Return FFmpeg's options for a scheme; FFmpeg ignores those that a protocol does not know."""
    if not camera.is_network:
        return {}
    scheme = urlsplit(camera.url).scheme
    micros = str(int(timeout_seconds * 1e6))
    options = {
        "rw_timeout": micros,
        "analyzeduration": str(int(PROBE_SECONDS * 1e6)),
        "fpsprobesize": "0",
        "tls_verify": "1" if camera.tls_verify else "0",
        **({"ca_file": _authorities(camera)} if camera.tls_verify else {}),
    }
    if scheme not in ("rtmp", "rtmps"):  # there `timeout` means: wait for somebody to connect to us
        options["timeout"] = micros
    if scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": camera.transport, "allowed_media_types": "video"}
    if _is_datagrams(camera):
        options["buffer_size"] = str(UDP_BUFFER_BYTES)
    return options


def _decoded(frame: av.VideoFrame, received_seconds: float) -> Decoded:
    arrival = frame.opaque
    if not isinstance(arrival, _Rider):  # not every decoder hands it through
        arrival = _Rider(received_seconds, None, is_keyframe=frame.key_frame)
    pts_seconds = None if frame.pts is None else frame.time
    return Decoded(frame, pts_seconds, arrival.received_seconds, arrival.camera_seconds, arrival.is_keyframe)
