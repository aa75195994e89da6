"""Every fault a hundred times over: the cameras return each time, and their processes hold no more than before."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from monitor.config import CameraConfig, CaptureConfig
from monitor.records import CameraState
from tests.capture.faults import FAULTS, Clips, Fault, Place
from tests.capture.watching import (
    BLIND_SECONDS,
    SAMPLE_FPS,
    Watch,
    camera_for,
    check_against_the_cameras_clock,
    check_numbers,
    check_times,
    name_of,
    wait_for,
)
from tests.services.processes import Held, held_by
from tests.services.proxy import FaultyProxy
from tests.services.rtsp import RtspServer

REPETITIONS, WARM_UP = 100, 5
FAULT_SECONDS = 3.0
RETURN_SECONDS = 10.0
REST_SECONDS = 1.5
BYSTANDERS = ("by-0", "by-1")
QUICK = CaptureConfig(
    workers=2,
    connect_timeout_seconds=2.0,
    stall_timeout_seconds=2.0,
    retry_min_seconds=0.2,
    retry_max_seconds=1.0,
    refused_retry_seconds=1.0,
)
GROWTH_BYTES = 24 * 2**20
"""Of a worker with thirteen cameras in a hundred times that each of them was struck: 20 KB for each fault."""
ASLEEP_SECONDS = 1.0
"""A server that was kept from the processor for longer goes on from then: its numbers fall behind its clock."""
REPORT = Path(__file__).parents[2] / "var/soak/repetitions.json"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_times_every_fault(clips: Clips, tmp_path: Path) -> None:
    names = [*map(name_of, FAULTS), *BYSTANDERS]
    mounts = {name: clips.mount() for name in names}
    returns: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        server = stack.enter_context(RtspServer(mounts))
        locked = stack.enter_context(RtspServer(mounts, user="anna", password="right"))
        watch = stack.enter_context(Watch(QUICK))
        struck = []
        for fault in FAULTS:
            behind = locked if fault.password else server
            place = Place(name_of(fault), behind, stack.enter_context(FaultyProxy(behind.port)), clips)
            watch.supervisor.add(camera_for(place, fault, tmp_path))
            struck.append((fault, place))
        for name in BYSTANDERS:
            watch.supervisor.add(CameraConfig(id=name, url=server.url(name)))
        wait_for(lambda: all(len(watch.samples[name]) > SAMPLE_FPS for name in names), 60.0)
        slots = {name: watch.samples[name][0][1].slot for name in BYSTANDERS}
        begun, before, wrong = time.monotonic(), {}, []
        for repetition in range(WARM_UP + REPETITIONS):
            if repetition == WARM_UP:
                before = {pid: held_by(pid) for pid in watch.pids()}
            began = time.time()
            for fault, place in struck:
                fault.begin(place)
            time.sleep(FAULT_SECONDS)
            for fault, place in struck:
                fault.end(place)
            ended = time.time()
            wait_for(lambda ended=ended: all(watch.since(name, ended) for name in names), RETURN_SECONDS + REST_SECONDS)
            for name in names:
                returns[name].append(watch.first_after(name, ended) - ended)
            time.sleep(REST_SECONDS)
            for fault, _ in struck:
                try:
                    check(watch, fault, (began, ended))
                except AssertionError as exc:  # the figures of all repetitions are wanted, however many went wrong
                    wrong.append(f"{fault.name}, {repetition}: {exc}")
            for name in BYSTANDERS:
                slots[name] = check_bystander(watch, name, slots[name])
        wait_for(lambda: all(held_by(pid).threads <= held.threads for pid, held in before.items()), 30.0)
        after = {pid: held_by(pid) for pid in watch.pids()}
    seconds = time.monotonic() - begun
    report(before, after, returns, seconds)
    assert not wrong
    assert list(before) == list(after)
    assert all(max(times) < RETURN_SECONDS for times in returns.values())
    for name in BYSTANDERS:
        assert [state.state for state in watch.states[name]] == [CameraState.CONNECTING, CameraState.ONLINE]
    for pid, held in after.items():
        assert held.threads <= before[pid].threads
        assert held.descriptors <= before[pid].descriptors
        assert held.resident_bytes - before[pid].resident_bytes < GROWTH_BYTES


def check(watch: Watch, fault: Fault, during: tuple[float, float]) -> None:
    """Hold what a struck camera told since the last time to the clocks, and forget all but its newest sample."""
    name = name_of(fault)
    told = watch.samples[name][:]
    samples = [sample for _, sample in told]
    breaks = [state.time_seconds for state in watch.states[name] if state.reason is not None]
    del watch.samples[name][: len(told) - 1]
    del watch.states[name][:-1]
    check_times(told)
    blind = (during[0], during[1] + BLIND_SECONDS) if fault.blinds else None
    check_numbers(samples, breaks, blind, longest_seconds=ASLEEP_SECONDS)
    if not fault.shifts:
        check_against_the_cameras_clock(samples)


def check_bystander(watch: Watch, name: str, first: int) -> int:
    """Hold a camera that nothing befell to every slot from `first` on; return the slot of its newest sample."""
    told = watch.samples[name][:]
    slots = [sample.slot for _, sample in told]
    assert slots == list(range(first, first + len(slots)))
    del watch.samples[name][: len(told) - 1]
    return slots[-1]


def report(before: dict[int, Held], after: dict[int, Held], returns: dict[str, list[float]], seconds: float) -> None:
    """Write the figures, and show them."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    figures = {
        "repetitions": REPETITIONS,
        "seconds": round(seconds, 1),
        "processes": [{"start": asdict(before[pid]), "end": asdict(after[pid])} for pid in after if pid in before],
        "slowest_return_seconds": {name: round(max(times), 2) for name, times in returns.items()},
    }
    REPORT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"\n{len(returns)} cameras, {REPETITIONS} times every fault, {seconds:.0f} s")
    for pid in after:
        print(f"before {before.get(pid)}\nafter  {after[pid]}")
    for name, times in returns.items():
        print(f"{name:32} back after {sum(times) / len(times):4.1f} s, at most {max(times):4.1f} s")
