"""Windows of cameras whose gate falls asleep and wakes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.records import Sample, Window
from monitor.scoring.waiting import WaitingSamples
from monitor.scoring.windows import CameraWindows
from tests.scoring.test_windows import embedding_of, manifest, sample_at

SLOTS, STRIDE = 8, 2


def idle_at(slot: int, *, after: int = 0) -> Sample:
    return replace(sample_at(slot), idle=True, idle_slots=after)


def ring(coverage: float = 0.6) -> CameraWindows:
    return CameraWindows("yard", manifest=manifest(SLOTS, STRIDE), minimum_coverage=coverage)


def push(windows: CameraWindows, samples: list[Sample]) -> tuple[list[Window], int]:
    pushed = [windows.push(sample, embedding_of(sample.slot)) for sample in samples]
    assert not any(one.late for one in pushed)
    return [window for one in pushed for window in one.windows], sum(one.skipped for one in pushed)


def gated(groups: list[int], *, gop: int, first: int) -> list[Sample]:
    """Return what a gate takes of groups of pictures: every slot of an awake one (1), the first of an idle one (0)."""
    samples: list[Sample] = []
    left_out = 0
    for number, awake in enumerate(groups):
        begin = first + number * gop
        if awake:
            samples += [replace(sample_at(begin), idle_slots=left_out), *map(sample_at, range(begin + 1, begin + gop))]
            left_out = 0
        else:
            samples.append(idle_at(begin, after=left_out))
            left_out = gop - 1
    return samples


def test_an_idle_sample_hands_out_its_window_at_once() -> None:
    windows = ring()
    push(windows, [sample_at(slot) for slot in range(16)])
    (one,) = windows.push(idle_at(16), embedding_of(16)).windows
    assert one.first_slot + SLOTS - 1 == 17
    assert one.mask.tolist() == [True] * 7 + [False]
    assert not one.degraded
    (two,) = windows.push(idle_at(24, after=7), embedding_of(24)).windows
    assert two.first_slot + SLOTS - 1 == 25
    assert two.mask.tolist() == [False] * 6 + [True, False]


def test_a_camera_that_wakes_goes_on_with_the_next_window() -> None:
    windows = ring()
    push(windows, [sample_at(slot) for slot in range(16)])
    push(windows, [idle_at(16), idle_at(24, after=7)])
    woken, skipped = push(windows, [sample_at(slot) for slot in range(25, 36)])
    assert [window.first_slot + SLOTS - 1 for window in woken] == [27, 29, 31, 33, 35]
    assert woken[0].mask.tolist() == [False] * 4 + [True] * 4
    assert all(woken[-1].mask)
    assert skipped == 0


def test_gaps_that_no_gate_made_still_count_as_skipped() -> None:
    windows = ring()
    push(windows, [sample_at(slot) for slot in range(16)])
    _, skipped = push(windows, [sample_at(32)])
    assert skipped == 7, "windows that end with slots 19 to 31 hold too little, or nothing"


def test_a_model_that_ends_leaves_an_idle_camera_nothing_to_score() -> None:
    windows = ring()
    push(windows, [sample_at(slot) for slot in range(16)])
    push(windows, [idle_at(16)])
    assert windows.close(24) == type(windows.close(24))()


def test_a_window_tells_how_long_the_gate_left_out() -> None:
    windows = ring()
    awake, _ = push(windows, [sample_at(slot) for slot in range(16)])
    assert {window.idle_seconds for window in awake} == {0.0}
    looks, _ = push(windows, [idle_at(16), idle_at(36, after=19)])
    assert [window.idle_seconds for window in looks] == [0.0, 18 / 4.0], "slot 17 was in the window before"
    # Woken, and by size: the slots before were left out all the same. No window ends with the first sample behind them.
    woken, _ = push(windows, [replace(sample_at(56), idle_slots=19), *map(sample_at, range(57, 60))])
    assert [window.idle_seconds for window in woken] == [18 / 4.0, 0.0]


def test_a_look_that_was_lost_is_no_time_left_out() -> None:
    windows = ring()
    push(windows, [sample_at(slot) for slot in range(16)])
    looks, _ = push(windows, [idle_at(16), idle_at(56, after=19)])
    *_, before, after = looks
    assert after.start_seconds - after.idle_seconds > before.end_seconds


def test_looks_that_a_new_model_may_not_score_are_no_gap() -> None:
    windows = CameraWindows("yard", manifest=manifest(SLOTS, STRIDE), minimum_coverage=0.6, from_slot=18)
    (first,), _ = push(windows, [idle_at(20, after=19), idle_at(40, after=19)])
    assert (first.first_slot, first.idle_seconds) == (34, (19 + 18) / 4.0)


@settings(deadline=None)  # a busy machine is no failure
@given(
    groups=st.lists(st.sampled_from([0, 0, 1]), min_size=1, max_size=30),
    gop=st.integers(2, 24),
    first=st.integers(0, 40),
)
def test_a_gate_costs_no_window_and_doubles_none(groups: list[int], gop: int, first: int) -> None:
    whole = ring()
    expected = {w.first_slot: w for w in push(whole, [sample_at(first + at) for at in range(gop * len(groups))])[0]}
    got, skipped = push(ring(), gated(groups, gop=gop, first=first))
    begun = [window for window in got if window.first_slot >= first]
    ends = [window.first_slot for window in got]
    assert ends == sorted(set(ends))
    assert skipped == 0
    awake = {first + number * gop + at for number, group in enumerate(groups) if group for at in range(gop)}
    for slot, window in expected.items():
        if awake >= set(range(slot, slot + SLOTS)):
            same = next(other for other in got if other.first_slot == slot)
            np.testing.assert_array_equal(same.embeddings, window.embeddings)
    for before, after in pairwise(begun):
        apart = after.end_seconds - before.end_seconds
        assert apart - after.idle_seconds <= manifest(SLOTS, STRIDE).window_seconds, "the tracker would call it silence"
        assert after.idle_seconds < apart


def test_load_shedding_leaves_out_no_idle_sample() -> None:
    room = WaitingSamples(8, priority_of=lambda _camera: 5, factor_of=lambda _camera: 4)
    for sample in (sample_at(12), idle_at(16), idle_at(24, after=7)):
        room.put(sample, 0.0)
    assert [(waiting.sample.slot, waiting.shed_slots) for waiting in room.take(8)] == [(16, (12,)), (24, ())]
