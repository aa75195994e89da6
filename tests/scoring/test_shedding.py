"""The plan: least important first, only as far as needed, back when the load falls, and no faster than it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.scoring.shedding import SheddingPlan, factors_of
from monitor.scoring.waiting import is_planned
from monitor.scoring.windows import CameraWindows
from tests.scoring.test_windows import embedding_of, manifest, sample_at

CAMERAS = {"dock": 9, "gate": 5, "yard": 5, "shed": 0}


def make_plan(factors=(2, 4), **changes) -> SheddingPlan:
    plan = SheddingPlan(factors, **{"wait_seconds": 0.5, "recover_seconds": 10.0} | changes)
    for camera, priority in CAMERAS.items():
        plan.watch(camera, priority)
    return plan


def run(plan: SheddingPlan, seconds: float, *, wait: float, rate: float, each: float, start: float = 0.0) -> float:
    """Let time pass: every camera sends `rate` samples a second, each costs `each`; return the time."""
    for tick in range(int(seconds * 4)):
        for camera in CAMERAS:
            for _ in range(int(rate / 4)):
                plan.arrived(camera)
        plan.served(8, 8 * each)
        plan.look(start + tick / 4, wait)
    return start + seconds


def factors(plan: SheddingPlan) -> dict[str, int]:
    return {camera: plan.factor_of(camera) for camera in CAMERAS}


def test_nothing_is_left_out_while_waits_are_short() -> None:
    plan = make_plan()
    run(plan, 60, wait=0.4, rate=100, each=1.0)
    assert factors(plan) == dict.fromkeys(CAMERAS, 1)


def test_steps_go_from_the_least_important_up() -> None:
    plan, seen = make_plan(), []
    while not plan.at_its_end:
        assert plan.step_up(1.0)
        seen.append(factors(plan))
    assert plan.step_up(1.0) is None
    assert seen == [
        {"dock": 1, "gate": 1, "yard": 1, "shed": 2},
        {"dock": 1, "gate": 1, "yard": 1, "shed": 4},
        {"dock": 1, "gate": 2, "yard": 1, "shed": 4},
        {"dock": 1, "gate": 2, "yard": 2, "shed": 4},
        {"dock": 1, "gate": 4, "yard": 2, "shed": 4},
        {"dock": 1, "gate": 4, "yard": 4, "shed": 4},
        {"dock": 2, "gate": 4, "yard": 4, "shed": 4},
        {"dock": 4, "gate": 4, "yard": 4, "shed": 4},
    ]


def test_goes_as_far_as_the_load_needs_and_comes_back() -> None:
    plan = make_plan()
    now = run(plan, 2, wait=0.1, rate=20, each=0.01)  # 0.8 of the engine's time
    assert factors(plan) == dict.fromkeys(CAMERAS, 1)
    now = run(plan, 1.5, wait=0.4, rate=40, each=0.01, start=now)  # 1.6 of it
    now = run(plan, 1, wait=0.9, rate=40, each=0.01, start=now)
    during = factors(plan)
    assert during["shed"] == 4
    assert during["dock"] == 1
    assert sum(40 * 0.01 / factor for factor in during.values()) <= 0.85
    now = run(plan, 30, wait=0.05, rate=40, each=0.01, start=now)
    assert factors(plan) == during  # waits are short because it is thinned: the load would not fit
    run(plan, 15, wait=0.05, rate=12, each=0.01, start=now)
    assert factors(plan) == dict.fromkeys(CAMERAS, 1)


def test_a_wait_in_between_changes_nothing() -> None:
    plan = make_plan()
    plan.step_up(1.0)
    before = factors(plan)
    run(plan, 120, wait=0.4, rate=4, each=0.001)
    assert factors(plan) == before


def test_switched_off_it_leaves_nothing_out() -> None:
    plan = make_plan(wait_seconds=0.0)
    run(plan, 10, wait=100.0, rate=100, each=1.0)
    assert plan.at_its_end
    assert factors(plan) == dict.fromkeys(CAMERAS, 1)


def test_cameras_come_go_and_change_their_importance() -> None:
    plan = make_plan()
    plan.step_up(1.0)
    assert plan.factor_of("shed") == 2
    plan.watch("cellar", 0)
    plan.watch("shed", 9)
    assert (plan.factor_of("cellar"), plan.factor_of("shed")) == (2, 1)
    plan.forget("cellar")
    assert plan.now().degraded == 1
    for camera in CAMERAS:
        plan.forget(camera)
    assert (plan.at_its_end, plan.now().factors) == (True, {})


@pytest.mark.parametrize(
    ("slots", "stride", "expected"), [(16, 2, (2, 4)), (8, 2, (2, 4)), (8, 4, (2,)), (3, 1, ()), (8, 8, ())]
)
def test_factors_that_a_model_bears(slots, stride, expected) -> None:
    assert factors_of(manifest(slots, stride)) == expected


@given(
    shape=st.sampled_from([(8, 2), (16, 2), (12, 3), (8, 1), (16, 4)]),
    changes=st.lists(st.tuples(st.integers(1, 30), st.sampled_from([1, 2, 4])), min_size=1, max_size=6),
    first=st.integers(0, 50),
)
def test_windows_of_a_thinned_camera_are_right_whatever_the_plan_does(shape, changes, first) -> None:
    """With no sample lost, every window of the plan is scored, whole as planned, and says whether it is degraded."""
    slots, stride = shape
    ring = CameraWindows("yard", manifest=manifest(slots, stride), minimum_coverage=1.0)
    slot, shed, kept, windows, skipped = first, [], {}, [], 0
    for length, factor in changes:
        for now in range(slot, slot + length):
            if not is_planned(now, factor):
                shed.append(now)
                continue
            pushed = ring.push(sample_at(now), embedding_of(now), factor=factor, shed_slots=tuple(shed))
            shed, kept[now] = [], factor
            windows += pushed.windows
            skipped += pushed.skipped
        slot += length
    assert skipped == 0
    for window in windows:
        inside = range(window.first_slot, window.first_slot + slots)
        held = [now in kept for now in inside]
        assert window.mask.tolist() == held
        assert window.degraded or all(held)
        assert np.array_equal(window.embeddings[held.index(True)], embedding_of(inside[held.index(True)]))
    whole = {now for now, factor in kept.items() if (now + 1) % (stride * factor) == 0 and now - slots + 1 >= first}
    assert whole <= {window.first_slot + slots - 1 for window in windows}


@pytest.mark.parametrize("factor", [2, 4])
def test_coverage_counts_against_what_was_planned(factor: int) -> None:
    """A quarter of the slots is enough where a quarter was planned; half of these is not."""

    def windows_of(lost: set[int]):
        ring = CameraWindows("yard", manifest=manifest(16, 2), minimum_coverage=0.6)
        found, skipped, shed = [], 0, []
        for slot in range(64):
            if not is_planned(slot, factor):
                shed.append(slot)
            elif slot not in lost:
                pushed = ring.push(sample_at(slot), embedding_of(slot), factor=factor, shed_slots=shed)
                found, skipped, shed = found + list(pushed.windows), skipped + pushed.skipped, []
        return found, skipped

    found, skipped = windows_of(set())
    assert skipped == 0
    assert [window.first_slot + 16 for window in found if window.first_slot >= 0] == list(range(16, 65, 2 * factor))
    assert {window.coverage for window in found if window.first_slot >= 0} == {1 / factor}
    assert all(window.degraded for window in found)
    lost = set(range(32 - factor - 1, 48, 2 * factor)) | set(range(32 - 1, 32 + 9, factor))
    assert windows_of(lost)[1] > 0
