"""What a worker holds in; whether it should make room for a fresh one out.

FFmpeg, the C library's heap or a thread that never comes back can make a process grow for ever, and none of it can be
mended from outside: the process is replaced, with its successor already running (see `handover`). A limit of the
system (RLIMIT_AS) would instead let an allocation fail in the middle of a decoder and take eight cameras down.
"""

from __future__ import annotations

from monitor.capture.camera import CapturePlan
from monitor.capture.life import Life

PROCESS_BYTES = 256 * 2**20
"""Allowed to a worker without cameras: Python and its libraries take 90 MB, the heap's holes some more."""
CAMERA_BYTES = 96 * 2**20
"""Allowed to a camera beside its packet ring: H.264 in 1080p takes 25 MB, H.265 in 4K eight pictures of 12 MB."""
FRESH_SECONDS = 30.0
"""A worker holds what it needs after this time: its cameras are connected and its decoders filled."""
RECYCLE_SECONDS = 60.0
"""No worker is recycled before it is this old, so that recycling cannot become all it does."""
GROWTH = 2.0
"""A worker that needs more than the limit from the start is recycled when it has grown by this factor instead."""
STUCK_SECONDS = 300.0
"""A thread that has been given up on for this long does not come back: a server drops a silent client after 60 s."""


def memory_limit(plan: CapturePlan, cameras: int) -> int:
    """Return the bytes that a worker may hold."""
    if plan.settings.worker_bytes:
        return plan.settings.worker_bytes
    ring_bytes = 0 if plan.evidence is None else plan.evidence.ring_bytes
    return PROCESS_BYTES + cameras * (CAMERA_BYTES + ring_bytes)


def note_fresh(life: Life, limit_bytes: int) -> str | None:
    """Measure a worker once, when it has settled; return a sentence where it needs more than its limit."""
    if life.fresh_bytes is not None or life.beat is None or life.age_seconds < FRESH_SECONDS:
        return None
    life.fresh_bytes = life.resident_bytes
    if life.fresh_bytes <= limit_bytes:
        return None
    held, limit = _megabytes(life.fresh_bytes), _megabytes(limit_bytes)
    return f"a fresh one holds {held}, its limit is {limit}: give capture.worker_bytes more, or it fewer cameras"


def reason_to_recycle(life: Life, limit_bytes: int) -> str | None:
    """Return why a worker should be replaced while it still works; None while it should not."""
    if life.beat is None or life.age_seconds < RECYCLE_SECONDS:
        return None
    if life.beat.stuck_seconds > STUCK_SECONDS:
        return f"{life.beat.stuck} threads hang in FFmpeg"
    fresh = life.fresh_bytes or 0
    limit = limit_bytes if fresh <= limit_bytes else int(GROWTH * fresh)
    if life.resident_bytes > limit:
        return f"it holds {_megabytes(life.resident_bytes)}, its limit is {_megabytes(limit)}"
    return None


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
