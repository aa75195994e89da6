from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.bundle import Manifest
from monitor.records import Sample, Window
from monitor.scoring.windows import CameraWindows
from tests.scoring.bundles import MANIFEST

SIZE = 3
NO_PICTURES = np.zeros((1, 1, 1, 3), np.uint8)


def manifest(slots: int, stride: int) -> Manifest:
    changes = {"window_slots": slots, "stride_slots": stride, "embedding_size": SIZE}
    return MANIFEST.model_copy(update=changes)


def sample_at(slot: int) -> Sample:
    seconds = slot / 4.0 + 0.1
    return Sample("yard", slot, seconds, seconds + 1, seconds - 1 if slot % 3 else None, NO_PICTURES)


def embedding_of(slot: int) -> np.ndarray:
    return np.array([slot + 1, -slot, 0.5], np.float32)


@dataclass
class Naive:
    """Keeps every sample for ever and looks at every slot of every window."""

    slots: int
    stride: int
    minimum_coverage: float
    taken: dict[int, Sample] = field(default_factory=dict)

    def push(self, sample: Sample) -> tuple[list[dict], int]:
        last = max(self.taken, default=None)
        first_boundary = sample.slot if last is None else last + 1
        windows, skipped = [], 0
        for boundary in range(first_boundary, sample.slot + 1):
            if (boundary + 1) % self.stride:
                continue
            seen = {**self.taken, **({sample.slot: sample} if boundary == sample.slot else {})}
            window = self.window(boundary, seen)
            if window is None:
                begun = min(seen, default=sample.slot)
                skipped += boundary - self.slots + 1 >= begun
            else:
                windows.append(window)
        self.taken[sample.slot] = sample
        return windows, skipped

    def window(self, boundary: int, seen: dict[int, Sample]) -> dict | None:
        slots = range(boundary - self.slots + 1, boundary + 1)
        held = [seen.get(slot) for slot in slots]
        mask = [entry is not None for entry in held]
        if not any(mask) or sum(mask) / self.slots < self.minimum_coverage:
            return None
        newest = [entry for entry in held if entry is not None][-1]
        return {
            "first_slot": slots[0],
            "start_seconds": slots[0] / 4.0,
            "end_seconds": (boundary + 1) / 4.0,
            "mask": mask,
            "embeddings": [[0, 0, 0] if entry is None else embedding_of(entry.slot).tolist() for entry in held],
            "frame_seconds": tuple(None if entry is None else entry.time_seconds for entry in held),
            "received_seconds": newest.received_seconds,
            "camera_seconds": newest.camera_seconds,
        }


def plain(window: Window) -> dict:
    names = ("first_slot", "start_seconds", "end_seconds", "frame_seconds", "received_seconds", "camera_seconds")
    fields = {name: getattr(window, name) for name in names}
    return {**fields, "mask": window.mask.tolist(), "embeddings": window.embeddings.tolist()}


shapes = st.integers(1, 9).flatmap(lambda slots: st.tuples(st.just(slots), st.integers(1, slots)))
steps = st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 5, 11, 30]), max_size=60)


@given(shape=shapes, first=st.integers(0, 40), steps=steps, coverage=st.sampled_from([0.0, 0.25, 0.6, 1.0]))
def test_agrees_with_the_naive_model(shape, first, steps, coverage) -> None:
    slots, stride = shape
    naive = Naive(slots, stride, coverage)
    windows = CameraWindows("yard", manifest=manifest(slots, stride), minimum_coverage=coverage)
    slot = first
    for step in [0, *steps]:
        slot += step
        expected, skipped = naive.push(sample_at(slot))
        pushed = windows.push(sample_at(slot), embedding_of(slot))
        assert [plain(window) for window in pushed.windows] == expected
        assert (pushed.skipped, pushed.late) == (skipped, False)


@given(shape=shapes, steps=steps, late=st.sets(st.integers(0, 59)))
def test_late_samples_change_nothing(shape, steps, late) -> None:
    """Each late sample is followed by one in time: it is ignored and counted."""
    slots, stride = shape
    kept, disturbed = (CameraWindows("yard", manifest=manifest(slots, stride), minimum_coverage=0.5) for _ in range(2))
    slot = 0
    for index, step in enumerate(steps):
        if slots > 1 and index in late and index:
            again = disturbed.push(sample_at(max(0, slot - index % 4)), np.full(SIZE, 9, np.float32))
            assert (again.windows, again.skipped, again.late) == ((), 0, True)
        slot += step
        one, other = (ring.push(sample_at(slot), embedding_of(slot)) for ring in (kept, disturbed))
        assert [plain(window) for window in one.windows] == [plain(window) for window in other.windows]
        assert one.skipped == other.skipped


def test_windows_end_on_the_absolute_grid_wherever_the_camera_begins() -> None:
    ends = []
    for first in range(1000, 1008):
        windows = CameraWindows("yard", manifest=manifest(8, 4), minimum_coverage=0.5)
        pushed = [windows.push(sample_at(slot), embedding_of(slot)) for slot in range(first, first + 40)]
        ends.append({window.end_seconds for push in pushed for window in push.windows})
    assert all(end * 4 % 4 == 0 for end in set.union(*ends))
    assert set.intersection(*ends) >= {1016 / 4, 1020 / 4, 1040 / 4}


def test_gap_of_a_year_costs_nothing() -> None:
    windows = CameraWindows("yard", manifest=manifest(8, 2), minimum_coverage=0.1)
    for slot in range(8):
        windows.push(sample_at(slot), embedding_of(slot))
    year = 365 * 86_400 * 4
    began = time.perf_counter()
    pushed = windows.push(sample_at(year + 7), embedding_of(year + 7))
    assert time.perf_counter() - began < 1.0
    assert [window.end_seconds for window in pushed.windows] == [2.5, 3.0, 3.5, (year + 8) / 4]
    assert pushed.skipped == (year + 8 - 8) // 2 - 4


def test_windows_do_not_alias_the_ring() -> None:
    windows = CameraWindows("yard", manifest=manifest(4, 1), minimum_coverage=0.0)
    first = windows.push(sample_at(0), embedding_of(0)).windows[0]
    before = plain(first)
    for slot in range(1, 9):
        windows.push(sample_at(slot), embedding_of(slot))
    assert plain(first) == before


@pytest.mark.parametrize("back", [1, 3, 4, 1000])
def test_clock_set_back_heals_after_a_window(back: int) -> None:
    windows = CameraWindows("yard", manifest=manifest(4, 2), minimum_coverage=0.5)
    for slot in range(2000, 2010):
        windows.push(sample_at(slot), embedding_of(slot))
    pushed = [windows.push(sample_at(slot), embedding_of(slot)) for slot in range(2010 - back, 2030 - back)]
    late = [push.late for push in pushed]
    assert late == [True] * min(back, 3) + [False] * (20 - min(back, 3))
    assert pushed[-1].windows or pushed[-2].windows


def test_window_knows_its_coverage() -> None:
    windows = CameraWindows("yard", manifest=manifest(4, 4), minimum_coverage=0.5)
    windows.push(sample_at(4), embedding_of(4))
    (window,) = windows.push(sample_at(7), embedding_of(7)).windows
    assert (window.camera, window.coverage, window.degraded) == ("yard", 0.5, False)
