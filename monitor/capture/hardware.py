"""The name of a hardware decoder in; FFmpeg's handle of it, or why there is none, out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import av
import av.error
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.video.stream import VideoStream

TRIED_CODEC = "h264"
"""Every device that decodes video decodes this one."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a stream is opened with."""

    accel: HWAccel | None
    """None: software."""
    missing: str = ""
    """Why there is none although one was asked for."""

    def refused(self, stream: VideoStream) -> str:
        """Return why an open stream is decoded in software although hardware was asked for; empty when it is not."""
        if self.accel is None or stream.codec_context.is_hwaccel:
            return self.missing
        return f"the device does not decode {stream.codec_context.name}"


@lru_cache(maxsize=8)
def hardware(kind: str) -> Hardware:
    """Look for a device, once in a process.

    A stream that the device cannot decode after all (its profile, its size) is decoded in software by FFmpeg itself.

    Args:
        kind: `none`, `cuda` or `vaapi`.
    """
    if kind == "none":
        return Hardware(None)
    if kind not in hwdevices_available():
        return Hardware(None, f"this build of PyAV knows no {kind}")
    accel = HWAccel(kind, allow_software_fallback=True)
    try:
        accel.create(av.Codec(TRIED_CODEC, "r"))
    except av.error.FFmpegError as exc:
        return Hardware(None, f"no {kind} device can be opened ({exc.strerror})")
    except NotImplementedError:
        return Hardware(None, f"this build of PyAV decodes no video by {kind}")
    return Hardware(accel)
