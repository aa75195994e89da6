"""One camera's samples and embeddings in, windows of T slots out. Pure: time arrives inside the sample.

Windows end where `slot + 1` is a multiple of the stride, counted from slot 0 of the absolute grid, so that
every replica and every replay scores the same windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import Manifest
from monitor.records import Sample, Window

EMPTY = -1
"""Stands in a place of the ring that holds no embedding. Slots count from 0."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What one sample completed."""

    windows: tuple[Window, ...] = ()
    """In the order of time."""
    skipped: int = 0
    """Windows that ended and are not scored, for too few of their slots hold a picture."""
    late: bool = False
    """The sample's slot was already filled or passed: it was ignored."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What the ring keeps of a sample, beside its embedding."""

    time_seconds: float
    received_seconds: float
    camera_seconds: float | None


class CameraWindows:
    """A ring of the last T slots of one camera.

    A slot that went by without a sample is a gap. A window is handed out when the sample of its last slot
    arrives, or a later one. A sample behind the newest is ignored as late; T of them in a row mean that the
    clock was set back, and the ring begins anew.

    Args:
        camera: the camera's id.
        manifest: the bundle's T, stride, D and sampling rate.
        minimum_coverage: least share of a window's slots that must hold an embedding; one at least always does.
    """

    def __init__(self, camera: str, *, manifest: Manifest, minimum_coverage: float) -> None:
        self._camera = camera
        self._slots = manifest.window_slots
        self._stride = manifest.stride_slots
        self._fps = manifest.sample_fps
        self._minimum_coverage = minimum_coverage
        self._embeddings = np.zeros((self._slots, manifest.embedding_size), dtype=np.float32)
        self._filled = np.full(self._slots, EMPTY, dtype=np.int64)
        self._held: list[_Held | None] = [None] * self._slots
        self._first = 0
        """Slot of the first sample."""
        self._last: int | None = None
        self._late_in_a_row = 0

    def push(self, sample: Sample, embedding: NDArray[np.float32]) -> Pushed:
        """Take a sample's embedding, (D,) float32, and return the windows that it completes."""
        if self._last is not None and sample.slot <= self._last and not self._clock_was_set_back():
            return Pushed(late=True)
        self._late_in_a_row = 0
        if self._last is None:
            self._first = sample.slot
        due = self._windows_due(sample.slot)
        windows = [self._window(boundary) for boundary in self._boundaries_with_something(sample.slot)]
        self._keep(sample, embedding)
        if self._is_boundary(sample.slot):
            windows.append(self._window(sample.slot))
        scored = tuple(window for window in windows if window is not None)
        return Pushed(windows=scored, skipped=due - sum(self._is_due(window.first_slot) for window in scored))

    def _clock_was_set_back(self) -> bool:
        """Count one more late sample; forget everything when there have been T in a row."""
        self._late_in_a_row += 1
        if self._late_in_a_row < self._slots:
            return False
        self._filled.fill(EMPTY)
        self._last = None
        return True

    def _is_boundary(self, slot: int) -> bool:
        return (slot + 1) % self._stride == 0

    def _is_due(self, first_slot: int) -> bool:
        """Whether a window counts as skipped when it is not scored: not before the camera has begun."""
        return first_slot >= self._first

    def _windows_due(self, slot: int) -> int:
        """Return how many windows that are due end after the last sample's slot, up to `slot`."""
        begin = self._first + self._slots - 1
        if self._last is not None:
            begin = max(begin, self._last + 1)
        return max(0, (slot + 1) // self._stride - begin // self._stride)

    def _boundaries_with_something(self, slot: int) -> range:
        """Return those of them whose windows still reach back to the last sample: T / stride at most."""
        if self._last is None:
            return range(0)
        first = self._last + self._stride - (self._last + 1) % self._stride
        return range(first, min(slot, self._last + self._slots), self._stride)

    def _keep(self, sample: Sample, embedding: NDArray[np.float32]) -> None:
        place = sample.slot % self._slots
        self._embeddings[place] = embedding
        self._filled[place] = sample.slot
        self._held[place] = _Held(sample.time_seconds, sample.received_seconds, sample.camera_seconds)
        self._last = sample.slot

    def _window(self, boundary: int) -> Window | None:
        """Return the window that ends with the slot `boundary`, None where too little of it is covered."""
        slots = np.arange(boundary - self._slots + 1, boundary + 1)
        places = slots % self._slots
        mask = (self._filled[places] == slots) & (slots >= 0)
        count = int(mask.sum())
        if count / self._slots < self._minimum_coverage:
            return None
        held = [self._held[place] if there else None for place, there in zip(places, mask, strict=True)]
        newest = next(entry for entry in reversed(held) if entry is not None)
        return Window(
            camera=self._camera,
            first_slot=int(slots[0]),
            start_seconds=int(slots[0]) / self._fps,
            end_seconds=(boundary + 1) / self._fps,
            embeddings=np.where(mask[:, None], self._embeddings[places], np.float32(0)),
            mask=mask,
            frame_seconds=tuple(None if entry is None else entry.time_seconds for entry in held),
            received_seconds=newest.received_seconds,
            camera_seconds=newest.camera_seconds,
        )
