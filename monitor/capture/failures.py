"""What FFmpeg raised in; the class of the failure and one line for a person, without secrets, out."""

from __future__ import annotations

import errno
import os
import socket
from urllib.parse import urlsplit

import av.error

from monitor.config import CameraConfig
from monitor.errors import SourceFailed
from monitor.records import FailureReason
from monitor.telemetry.redaction import Redactor

DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935, "rtmps": 443}
TIME_OUT_SHARE = 0.9
"""FFmpeg says "invalid data" where RTSP ran into its time-out: an error that took this much of it was one."""
LOOK_SECONDS = 1.0

_BY_TYPE: tuple[tuple[type[Exception] | tuple[type[Exception], ...], FailureReason], ...] = (
    ((av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError), FailureReason.REFUSED),
    ((av.error.HTTPServerError,), FailureReason.SERVER_ERROR),
    ((av.error.HTTPNotFoundError, av.error.FileNotFoundError), FailureReason.NOT_FOUND),
    (av.error.ConnectionRefusedError, FailureReason.CONNECTION_REFUSED),
    (av.error.TimeoutError, FailureReason.TIMED_OUT),
)


def failed(camera: CameraConfig, reason: FailureReason, detail: str) -> SourceFailed:
    """Return the failure of a camera with every secret taken out of its detail."""
    return SourceFailed(camera.id, reason, Redactor(camera.secrets()).clean(detail))


def open_failure(
    camera: CameraConfig, error: av.error.FFmpegError, *, elapsed_seconds: float, timeout_seconds: float
) -> SourceFailed:
    """Class what went wrong while a stream was opened.

    FFmpeg tells an unknown name, an unreachable host and some time-outs as "I/O error" or "invalid data".
    So where the type says little, the time it took and one look at the host decide.
    """
    for types, reason in _BY_TYPE:
        if isinstance(error, types):
            return failed(camera, reason, _said(error))
    if camera.is_network:
        if elapsed_seconds >= TIME_OUT_SHARE * timeout_seconds:
            return failed(camera, FailureReason.TIMED_OUT, f"no answer that makes sense in {elapsed_seconds:.1f} s")
        seen = _look_at_host(camera)
        if seen is not None:
            return failed(camera, *seen)
    if isinstance(error, av.error.InvalidDataError):
        return failed(camera, FailureReason.UNSUPPORTED, "not a video")
    return failed(camera, FailureReason.UNSUPPORTED, _said(error))


def read_failure(
    camera: CameraConfig, error: av.error.FFmpegError, *, silent_seconds: float, timeout_seconds: float
) -> SourceFailed:
    """Class what went wrong while packets were read."""
    if isinstance(error, av.error.TimeoutError) or silent_seconds >= TIME_OUT_SHARE * timeout_seconds:
        return failed(camera, FailureReason.STALLED, f"nothing came for {silent_seconds:.1f} s")
    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        return failed(camera, FailureReason.REFUSED, _said(error))
    if isinstance(error, av.error.InvalidDataError):
        return failed(camera, FailureReason.DECODE_ERROR, "the stream is damaged")
    return failed(camera, FailureReason.ENDED, f"connection lost: {_said(error)}")


def _look_at_host(camera: CameraConfig) -> tuple[FailureReason, str] | None:
    """Ask the resolver and, where the protocol runs over TCP, the port; None when both are well."""
    parts = urlsplit(camera.url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme)
    try:
        socket.getaddrinfo(host, port)
    except (socket.gaierror, UnicodeError):
        return FailureReason.NAME_NOT_RESOLVED, f"no address is known for {host}"
    if parts.scheme not in DEFAULT_PORTS:
        return None
    try:
        socket.create_connection((host, port), timeout=LOOK_SECONDS).close()
    except TimeoutError:
        return FailureReason.TIMED_OUT, f"{host}:{port} does not answer"
    except OSError as exc:
        return FailureReason.CONNECTION_REFUSED, f"{host}:{port}: {exc.strerror or 'cannot be reached'}"
    return None


def _said(error: av.error.FFmpegError) -> str:
    """Return FFmpeg's words without the address that it appends."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return error.strerror or type(error).__name__
