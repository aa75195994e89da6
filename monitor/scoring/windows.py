"""One camera's samples and embeddings in, windows of T slots out. Pure: time arrives inside the sample.

Windows end where `slot + 1` is a multiple of the stride, counted from slot 0 of the absolute grid, so that
every replica and every replay scores the same windows. Under load shedding a camera has a stride factor f: every
f-th of its slots is embedded and every f-th of these windows handed out, marked as degraded; its coverage counts
against the slots that were planned.

A camera whose gate is idle plans its keyframes alone: the slots between them were not planned either. Such a sample
hands out its window at once, without the rest of its stride, and the windows that would end between two of them, which
could show nothing new, are not due. The window behind them tells for how long that was.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        minimum_coverage: least share of a window's planned slots that must hold an embedding; one at least always does.
        from_slot: no window is handed out that begins before it; None: any.
    """

    def __init__(
        self, camera: str, *, manifest: Manifest, minimum_coverage: float, from_slot: int | None = None
    ) -> None:
        self._camera = camera
        self._slots = manifest.window_slots
        self._stride = manifest.stride_slots
        self._fps = manifest.sample_fps
        self._minimum_coverage = minimum_coverage
        self._embeddings = np.zeros((self._slots, manifest.embedding_size), dtype=np.float32)
        self._filled = np.full(self._slots, EMPTY, dtype=np.int64)
        self._held: list[_Held | None] = [None] * self._slots
        self._shed: set[int] = set()
        """Slots that load shedding left out, as far back as a window reaches."""
        self._idle: set[int] = set()
        """Likewise, slots that an idle gate left out."""
        self._idle_since = 0
        """Slots that it left out since the end of the newest window handed out."""
        self._from_slot = from_slot
        self._first = 0
        """Slot of the first sample."""
        self._last: int | None = None
        self._ended = EMPTY
        """Last slot of the newest window handed out before its time."""
        self._sleeps = False
        """Whether the newest sample is an idle gate's: what ends behind it is not due."""
        self._late_in_a_row = 0

    def push(
        self, sample: Sample, embedding: NDArray[np.float32], *, factor: int = 1, shed_slots: Sequence[int] = ()
    ) -> Pushed:
        """Take a sample's embedding, (D,) float32, and return the windows that it completes.

        Args:
            sample: of a later slot than the last.
            embedding: what the backbone made of it.
            factor: the camera's stride factor now.
            shed_slots: slots since the last sample that were left out by plan, oldest first.
        """
        if self._last is not None and sample.slot <= self._last and not self._clock_was_set_back():
            return Pushed(late=True)
        self._late_in_a_row = 0
        if self._last is None:
            self._first = sample.slot
        self._shed.update(shed_slots)
        stride = self._stride * factor
        idle_from = max(sample.slot - sample.idle_slots, 0 if self._last is None else self._last + 1)
        self._idle.update(range(max(idle_from, sample.slot - self._slots), sample.slot))
        due = self._windows_due(idle_from - 1, stride)
        windows = [self._window(boundary, factor) for boundary in self._boundaries_with_something(idle_from, stride)]
        self._idle_since += max(0, sample.slot - max(idle_from, self._ended + 1))
        self._keep(sample, embedding)
        boundary = sample.slot + -(sample.slot + 1) % stride
        if boundary > self._ended and (sample.idle or boundary == sample.slot):
            self._idle.update(range(sample.slot + 1, boundary + 1))
            due += boundary >= self._first + self._slots - 1
            windows.append(self._window(boundary, factor))
            self._ended = boundary
        self._forget_before(sample.slot - self._slots + 1)
        return self._pushed(windows, due)

    def close(self, before_slot: int) -> Pushed:
        """Return the windows that end before a slot and have not been handed out, as if its sample had come."""
        if self._last is None or before_slot <= self._last or self._sleeps:
            return Pushed()
        due = self._windows_due(before_slot - 1, self._stride)
        windows = [self._window(boundary, 1) for boundary in self._boundaries_with_something(before_slot, self._stride)]
        return self._pushed(windows, due)

    def _pushed(self, windows: Sequence[Window | None], due: int) -> Pushed:
        scored = [window for window in windows if window is not None]
        return Pushed(tuple(scored), skipped=due - sum(self._is_due(window.first_slot) for window in scored))

    def _clock_was_set_back(self) -> bool:
        """Count one more late sample; forget everything when there have been T in a row."""
        self._late_in_a_row += 1
        if self._late_in_a_row < self._slots:
            return False
        self._filled.fill(EMPTY)
        self._shed.clear()
        self._idle.clear()
        self._last, self._ended, self._idle_since = None, EMPTY, 0
        self._from_slot = None
        return True

    def _is_due(self, first_slot: int) -> bool:
        """Whether a window counts as skipped when it is not scored: not before the camera has begun."""
        return first_slot >= self._first

    def _windows_due(self, slot: int, stride: int) -> int:
        """Return how many windows that are due end after the last sample's slot, up to `slot`."""
        begin = self._first + self._slots - 1
        if self._last is not None:
            begin = max(begin, self._last + 1, self._ended + 1)
        return max(0, (slot + 1) // stride - begin // stride)

    def _boundaries_with_something(self, slot: int, stride: int) -> range:
        """Return those of them whose windows still reach back to the last sample: T / stride at most."""
        if self._last is None:
            return range(0)
        ended = max(self._last, self._ended)
        first = ended + stride - (ended + 1) % stride
        return range(first, min(slot, self._last + self._slots), stride)

    def _forget_before(self, slot: int) -> None:
        """Let go of what no window reaches back to any more."""
        if self._shed:
            self._shed = {left_out for left_out in self._shed if left_out >= slot}
        if self._idle:
            self._idle = {left_out for left_out in self._idle if left_out >= slot}

    def _keep(self, sample: Sample, embedding: NDArray[np.float32]) -> None:
        self._idle.discard(sample.slot)
        place = sample.slot % self._slots
        self._embeddings[place] = embedding
        self._filled[place] = sample.slot
        self._held[place] = _Held(sample.time_seconds, sample.received_seconds, sample.camera_seconds)
        self._last, self._sleeps = sample.slot, sample.idle

    def _window(self, boundary: int, factor: int) -> Window | None:
        """Hand out the window that ends with the slot `boundary`; None where too little of it is there."""
        if self._from_slot is not None and boundary - self._slots + 1 < self._from_slot:
            return None
        slots = np.arange(boundary - self._slots + 1, boundary + 1)
        places = slots % self._slots
        mask = (self._filled[places] == slots) & (slots >= 0)
        shed = self._left_out(self._shed, boundary)
        idle = self._left_out(self._idle - self._shed, boundary)
        count, planned = int(mask.sum()), max(1, self._slots - shed - idle)
        if count == 0 or count / planned < self._minimum_coverage:
            return None
        held = [self._held[place] if there else None for place, there in zip(places, mask, strict=True)]
        newest = next(entry for entry in reversed(held) if entry is not None)
        idle_since, self._idle_since = self._idle_since, 0
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
            degraded=factor > 1 or shed > 0,
            idle_seconds=idle_since / self._fps,
        )

    def _left_out(self, left_out: set[int], boundary: int) -> int:
        return sum(boundary - self._slots < slot <= boundary for slot in left_out)
