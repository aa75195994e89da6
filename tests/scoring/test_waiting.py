"""The room for waiting samples: order, fairness, importance, and that nothing is lost or doubled."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.records import Sample
from monitor.scoring.waiting import PATIENCE_PLACES, WaitingSamples, is_planned

NO_PICTURES = np.zeros((1, 1, 1, 3), np.uint8)
PRIORITIES = {"dock": 9, "gate": 5, "yard": 5, "shed": 0}


def sample_of(camera: str, slot: int) -> Sample:
    return Sample(camera, slot, slot / 4, slot / 4, None, NO_PICTURES)


def make_room(capacity: int = 1000, priorities=PRIORITIES, factors=None) -> WaitingSamples:
    return WaitingSamples(
        capacity, priority_of=lambda camera: priorities.get(camera, 5), factor_of=lambda c: (factors or {}).get(c, 1)
    )


def names(taken) -> list[tuple[str, int]]:
    return [(waiting.sample.camera, waiting.sample.slot) for waiting in taken]


steps = st.lists(st.one_of(st.sampled_from(list(PRIORITIES)), st.integers(1, 9)), max_size=200)


@given(steps=steps, capacity=st.integers(1, 12))
def test_order_is_kept_and_nothing_is_lost_or_doubled(steps, capacity) -> None:
    """A step is a camera whose next sample comes, or the size of a batch that is taken."""
    room, slots = make_room(capacity), Counter()
    taken, dropped = [], []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            taken += names(room.take(step))
            continue
        lost = room.put(sample_of(step, slots[step]), float(number))
        slots[step] += 1
        if lost is not None:
            dropped.append((lost.camera, lost.slot))
        assert len(room) <= capacity
    taken += names(room.take(1000))
    came = [(camera, slot) for camera, count in slots.items() for slot in range(count)]
    assert sorted(taken + dropped) == sorted(came)
    for camera in PRIORITIES:
        mine = [slot for name, slot in taken if name == camera]
        assert mine == sorted(mine)


@given(burst=st.integers(1, 300), batch=st.integers(1, 16), priority=st.integers(0, 9))
def test_no_burst_of_one_camera_starves_another(burst, batch, priority) -> None:
    """Whatever comes before it and however important it is, a sample waits for a bounded number of places."""
    room = make_room(priorities={"flood": priority, "yard": 0})
    for slot in range(burst):
        room.put(sample_of("flood", slot), slot / 1000)
    room.put(sample_of("yard", 0), 1.0)
    order: list[tuple[str, int]] = []
    while ("yard", 0) not in order:
        assert len(order) < PATIENCE_PLACES * (burst + 1), "it starves"
        order += names(room.take(batch))
        for slot in range(batch):  # the flood goes on
            room.put(sample_of("flood", burst + len(order) + slot), 2.0)
    place = order.index(("yard", 0)) + 1
    assert place <= (2 if batch > 1 and place % PATIENCE_PLACES else PATIENCE_PLACES * (burst + 1))


def test_places_of_a_batch_go_round() -> None:
    room = make_room(priorities={})
    for camera in ("a", "b", "c"):
        for slot in range(3 if camera == "a" else 2):
            room.put(sample_of(camera, slot), 0.0)
    assert names(room.take(7)) == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("b", 1), ("c", 1), ("a", 2)]


def test_equals_are_served_in_turn_over_small_batches() -> None:
    room = make_room(priorities={})
    for slot in range(4):
        for camera in ("a", "b", "c"):
            room.put(sample_of(camera, slot), float(slot))
    order = [camera for _ in range(6) for camera, _ in names(room.take(2))]
    assert Counter(order) == {"a": 4, "b": 4, "c": 4}
    assert all(set(order[start : start + 3]) == {"a", "b", "c"} for start in range(0, 12, 3))


def test_the_important_come_first_and_the_least_are_not_starved() -> None:
    room = make_room(priorities={f"high-{number}": 9 for number in range(8)} | {"low": 0})
    room.put(sample_of("low", 0), 0.0)
    order = []
    for slot in range(3):
        for number in range(8):
            room.put(sample_of(f"high-{number}", slot), 1.0 + slot)
        order += names(room.take(8))
    assert order[:7] == [(f"high-{number}", 0) for number in range(7)]
    assert order[7] == ("low", 0)  # every eighth place is the longest waiting one's


@given(
    floods=st.lists(st.sampled_from(["flood", "yard", "gate"]), min_size=30, max_size=120), capacity=st.integers(6, 24)
)
def test_a_camera_within_its_share_pays_for_no_burst(floods, capacity) -> None:
    room, waiting = make_room(capacity, priorities={"flood": 9, "yard": 0, "gate": 5}), Counter()
    for number, camera in enumerate(floods):
        waiting[camera] += 1
        lost = room.put(sample_of(camera, number), float(number))
        if lost is not None:
            cameras = sum(count > 0 for count in waiting.values())
            assert waiting[lost.camera] > capacity / cameras
            waiting[lost.camera] -= 1


def test_the_least_important_loses_first_and_its_oldest() -> None:
    room = make_room(4, priorities={"dock": 9, "shed": 0})
    lost = [
        room.put(sample_of(camera, slot), 0.0) for slot in range(4) for camera in ("dock", "shed") if slot < 3 or camera
    ]
    gone = [(sample.camera, sample.slot) for sample in lost if sample]
    assert gone[:2] == [("dock", 0), ("shed", 0)]  # dock is above its share of two as its third comes, then shed


@given(slots=st.lists(st.integers(0, 200), unique=True, max_size=60).map(sorted), factor=st.sampled_from([2, 4]))
def test_slots_left_out_travel_with_the_next_sample(slots, factor) -> None:
    """Whether they are left out as they come or while they wait, the ring hears of each, once and in order."""
    factors: dict[str, int] = {}
    room = make_room(factors=factors)
    for number, slot in enumerate(slots):
        if number == len(slots) // 2:
            factors["yard"] = factor
            room.thin()
        room.put(sample_of("yard", slot), 0.0)
    taken = room.take(1000)
    assert [waiting.sample.slot for waiting in taken] == [
        slot for slot in slots if is_planned(slot, factor)
    ] or not slots
    heard = [slot for waiting in taken for slot in (*waiting.shed_slots, waiting.sample.slot)]
    assert heard == slots[: len(heard)]
    assert all(not is_planned(slot, factor) for slot in slots[len(heard) :])


def test_forgotten_and_cleared() -> None:
    room = make_room()
    for slot in range(3):
        room.put(sample_of("yard", slot), 0.0)
        room.put(sample_of("gate", slot), 1.0)
    room.forget("yard")
    room.forget("never seen")
    assert (len(room), room.oldest_since) == (3, 1.0)
    assert [sample.camera for sample in room.clear()] == ["gate"] * 3
    assert (len(room), room.oldest_since, room.take(5)) == (0, None, [])
