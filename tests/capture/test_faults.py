"""Every fault, on a real server with real workers: the camera returns, its times are right, and no other notices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from monitor.config import CameraConfig, CaptureConfig
from monitor.records import CameraState
from tests.capture.faults import CLOCK_FAULT, CLOCK_SECONDS, FAULTS, Clips, Fault, Place
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
from tests.services.proxy import FaultyProxy
from tests.services.rtsp import RtspServer

pytestmark = pytest.mark.alone

WARM_SECONDS = 6.0
RETURN_SECONDS = 10.0
AFTER_SECONDS = 3.0
"""How long a camera is watched after its return."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of all faults, each on a camera of its own."""

    watch: Watch
    began: float
    ended: dict[str, float]
    """When each camera's fault was over."""


@pytest.fixture(scope="module")
def matrix(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Let every fault strike at once, each a camera of its own, and two cameras stand by."""
    folder = tmp_path_factory.mktemp("matrix")
    mounts = {name_of(fault): clips.mount() for fault in FAULTS} | {"by-0": clips.mount(), "by-1": clips.mount()}
    with ExitStack() as stack:
        server = stack.enter_context(RtspServer(mounts))
        locked = stack.enter_context(RtspServer(mounts, user="anna", password="right"))
        watch = stack.enter_context(Watch(CaptureConfig(workers=2)))
        places = []
        for fault in FAULTS:
            behind = locked if fault.password else server
            places.append(Place(name_of(fault), behind, stack.enter_context(FaultyProxy(behind.port)), clips))
            watch.supervisor.add(camera_for(places[-1], fault, folder))
        for number in range(2):
            watch.supervisor.add(CameraConfig(id=f"by-{number}", url=server.url(f"by-{number}")))
        cameras = [place.name for place in places] + ["by-0", "by-1"]
        wait_for(lambda: all(len(watch.samples[name]) > 4 for name in cameras), 30.0)
        time.sleep(WARM_SECONDS)
        began = time.time()
        for fault, place in zip(FAULTS, places, strict=True):
            fault.begin(place)
        ended = {}
        for fault, place in sorted(zip(FAULTS, places, strict=True), key=lambda pair: pair[0].seconds):
            time.sleep(max(0.0, began + fault.seconds - time.time()))
            fault.end(place)
            ended[place.name] = time.time()
        time.sleep(RETURN_SECONDS + AFTER_SECONDS)
        yield Run(watch, began, ended)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_camera_returns_and_its_times_are_right(fault: Fault, matrix: Run) -> None:
    watch, name = matrix.watch, name_of(fault)
    samples = [sample for _, sample in watch.samples[name]]
    ended = matrix.ended[name]
    after = [sample for sample in samples if sample.time_seconds > ended]
    assert after, watch.states[name][-3:]
    back = after[0].time_seconds - ended
    print(f"{fault.name}: back after {back:.1f} s")
    assert back < RETURN_SECONDS
    assert len(after) >= AFTER_SECONDS * SAMPLE_FPS - 1
    reasons = {state.reason for state in watch.states[name] if state.reason is not None}
    if fault.loses:
        assert reasons & fault.loses, reasons
    else:
        assert not reasons
    breaks = [state.time_seconds for state in watch.states[name] if state.reason is not None]
    check_times(watch.samples[name])
    blind = (matrix.began, ended + BLIND_SECONDS) if fault.blinds else None
    check_numbers(samples, breaks, blind)
    if not fault.shifts:
        assert check_against_the_cameras_clock(samples) > len(samples) / 3


def test_the_cameras_clock_is_told_and_not_believed(matrix: Run) -> None:
    """What its samples are dated by is held to their numbers above."""
    name = name_of(next(fault for fault in FAULTS if fault.name == CLOCK_FAULT))
    told = [skew for skew in matrix.watch.skews[name] if skew is not None]
    assert max(told) == pytest.approx(CLOCK_SECONDS, abs=0.5)
    assert told[0] == pytest.approx(0.0, abs=0.5)
    assert told[-1] == pytest.approx(0.0, abs=0.5)
    for other in ("by-0", "by-1"):
        assert all(abs(skew) < 0.5 for skew in matrix.watch.skews[other] if skew is not None)


def test_nobody_else_notices(matrix: Run) -> None:
    for name in ("by-0", "by-1"):
        slots = [sample.slot for _, sample in matrix.watch.samples[name]]
        expected = (WARM_SECONDS + 8.0 + RETURN_SECONDS + AFTER_SECONDS) * SAMPLE_FPS
        assert slots == list(range(slots[0], slots[-1] + 1))
        assert len(slots) >= expected
        assert [state.state for state in matrix.watch.states[name]] == [CameraState.CONNECTING, CameraState.ONLINE]
        samples = [sample for _, sample in matrix.watch.samples[name]]
        check_times(matrix.watch.samples[name])
        check_numbers(samples, [], None)
        assert check_against_the_cameras_clock(samples) > len(samples) / 3
        print(f"{name}: {len(slots)} samples, no gap")


def test_no_worker_was_lost(matrix: Run) -> None:
    assert [report.event for report in matrix.watch.workers] == ["started", "started"]
