"""Samples and keyframes in; the latest picture of each camera, as JPEG, out. Nothing is made while nobody looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from monitor.capture.pictures import shown_jpeg
from monitor.records import CameraPicture, Sample

ASK_SECONDS = 1.5
"""A camera is asked for a picture at most this often, however many look."""
STALE_SECONDS = 20.0
"""A keyframe that is so much older than the newest sample is no longer shown."""


@dataclass(slots=True)
class _Shown:
    asked: float = -1e9
    """When the camera was asked last, on the monotonic clock."""
    keyframe: CameraPicture | None = None
    sample: Sample | None = None
    coded: CameraPicture | None = None
    """The newest sample that somebody wanted to see."""


class Pictures:
    """The latest picture of each camera. Every method may be called from any thread.

    What is shown is the newest keyframe that capture was asked for; until it has come, and where it does not (evidence
    is off), the sample that the model was given.

    Args:
        ask: asks capture for a camera's newest keyframe; must not block for long.
    """

    def __init__(self, ask: Callable[[str], None]) -> None:
        self._ask = ask
        self._shown: dict[str, _Shown] = {}
        self._lock = threading.Lock()

    def note_sample(self, sample: Sample) -> None:
        """Keep the newest sample: a reference, nothing is copied."""
        self._of(sample.camera).sample = sample

    def note_keyframe(self, picture: CameraPicture) -> None:
        """Keep what capture has made."""
        self._of(picture.camera).keyframe = picture

    def latest(self, camera: str) -> CameraPicture | None:
        """Return the latest picture at once, and ask for a newer one; None before there is any."""
        shown = self._of(camera)
        now = time.monotonic()
        with self._lock:
            due = now - shown.asked >= ASK_SECONDS
            if due:
                shown.asked = now
        if due:
            self._ask(camera)
        sample, keyframe = shown.sample, shown.keyframe
        if sample is None or (keyframe is not None and keyframe.seconds > sample.time_seconds - STALE_SECONDS):
            return keyframe
        if shown.coded is None or shown.coded.seconds != sample.time_seconds:
            shown.coded = CameraPicture(camera, sample.time_seconds, _coded(sample))
        return shown.coded

    def keep_only(self, cameras: set[str]) -> None:
        """Forget the cameras that are none of these."""
        with self._lock:
            for camera in self._shown.keys() - cameras:
                del self._shown[camera]

    def _of(self, camera: str) -> _Shown:
        shown = self._shown.get(camera)
        if shown is None:
            with self._lock:
                shown = self._shown.setdefault(camera, _Shown())
        return shown


def _coded(sample: Sample) -> bytes:
    """Return a sample's newest picture as JPEG."""
    return shown_jpeg(np.ascontiguousarray(sample.pictures[-1][..., ::-1]))  # RGB to OpenCV's order
