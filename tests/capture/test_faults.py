"""Every fault, on a real server with real workers: the camera returns, its times are right, and no other notices."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from monitor.capture.place import WorkerReport, WorkerVitals
from monitor.capture.sampler import slot_of
from monitor.capture.worker import CaptureSupervisor
from monitor.config import CameraConfig, CaptureConfig
from monitor.deadline import Deadline
from monitor.records import CameraState, CameraStatus, CaptureCounts, Sample
from tests.capture.faults import FAULTS, FPS, LOOP_SECONDS, SHAPE, Clips, Fault, Place, make_clips, number_in
from tests.services.proxy import FaultyProxy
from tests.services.rtsp import RtspServer

pytestmark = pytest.mark.alone

SAMPLE_FPS = 4.0
WARM_SECONDS = 6.0
RETURN_SECONDS = 10.0
AFTER_SECONDS = 3.0
"""How long a camera is watched after its return."""
TIME_TOLERANCE_SECONDS = 0.2
PARSER_SECONDS = 1 / FPS
"""A picture is whole for FFmpeg when the next one begins."""
BLIND_SECONDS = 1.5
"""After a fault that harms pictures: until the next keyframe."""


class Watch:
    """A supervisor, and what it told with the time at which it did."""

    def __init__(self, settings: CaptureConfig) -> None:
        self.samples: dict[str, list[tuple[float, Sample]]] = defaultdict(list)
        self.states: dict[str, list[CameraStatus]] = defaultdict(list)
        self.counts: dict[str, list[CaptureCounts]] = defaultdict(list)
        self.workers: list[WorkerReport] = []
        self.vitals: list[WorkerVitals] = []
        self.supervisor = CaptureSupervisor(
            settings,
            sample_fps=SAMPLE_FPS,
            shape=SHAPE,
            on_sample=lambda sample: self.samples[sample.camera].append((time.time(), sample)),
            on_status=lambda status: self.states[status.camera].append(status),
            on_counts=lambda counts: self.counts[counts.camera].append(counts),
            on_worker=self.workers.append,
            on_vitals=self.vitals.append,
        )

    def __enter__(self) -> Watch:
        self.supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop(Deadline(3))
        assert self.supervisor.first_error is None

    def since(self, camera: str, seconds: float) -> int:
        """Return how many samples of a camera have been taken since a time."""
        return sum(sample.time_seconds > seconds for _, sample in self.samples[camera])

    def resident_bytes(self) -> int:
        """Return what the workers hold now."""
        newest = {vitals.worker: vitals.resident_bytes for vitals in self.vitals}
        return sum(newest.values())


@dataclass(frozen=True, slots=True)
class Run:
    """What came of all faults, each on a camera of its own."""

    watch: Watch
    began: float
    ended: dict[str, float]
    """When each camera's fault was over."""


def camera_for(place: Place, fault: Fault, folder: Path) -> CameraConfig:
    port = place.server.port if fault.transport == "udp" else place.proxy.port
    camera = {"id": place.name, "url": f"rtsp://127.0.0.1:{port}/{place.name}", "transport": fault.transport}
    if fault.password:
        secret = folder / "password"
        secret.write_text("right", encoding="utf-8")
        camera |= {"username": "anna", "password_file": str(secret)}
    return CameraConfig.model_validate(camera)


def name_of(fault: Fault) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in fault.name)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, rtsp_available: None) -> Clips:
    return make_clips(tmp_path_factory.mktemp("numbered"))


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


def wait_for(condition: object, seconds: float) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


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
        check_against_the_cameras_clock(samples)


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
        check_against_the_cameras_clock(samples)
        print(f"{name}: {len(slots)} samples, no gap")


def test_no_worker_was_lost(matrix: Run) -> None:
    assert [report.event for report in matrix.watch.workers] == ["started", "started"]


def check_times(told: list[tuple[float, Sample]]) -> None:
    """Hold samples to the host's clock and to the grid."""
    samples = [sample for _, sample in told]
    assert all(one.slot < two.slot and one.time_seconds < two.time_seconds for one, two in pairwise(samples))
    for heard, sample in told:
        assert sample.slot == slot_of(sample.time_seconds, SAMPLE_FPS)
        assert sample.time_seconds <= sample.received_seconds <= heard


def check_against_the_cameras_clock(samples: list[Sample]) -> None:
    """The server tells by sender reports when each picture was due, on the clock of this machine."""
    told = [(sample.time_seconds, sample.camera_seconds) for sample in samples if sample.camera_seconds is not None]
    assert len(told) > len(samples) / 3
    for seconds, camera_seconds in told:
        assert seconds - camera_seconds == pytest.approx(PARSER_SECONDS, abs=TIME_TOLERANCE_SECONDS)


def check_numbers(samples: list[Sample], breaks: list[float], blind: tuple[float, float] | None) -> None:
    """As much time has passed between two pictures of one connection as lies between their numbers."""
    for one, two in pairwise(samples):
        passed = two.time_seconds - one.time_seconds
        spoilt = blind is not None and two.time_seconds > blind[0] and one.time_seconds < blind[1]
        if spoilt or any(one.time_seconds < moment < two.received_seconds for moment in breaks):
            continue
        shown = (number_in(two) - number_in(one)) / FPS
        off = (shown - passed + LOOP_SECONDS / 2) % LOOP_SECONDS - LOOP_SECONDS / 2
        assert abs(off) < TIME_TOLERANCE_SECONDS, (one.time_seconds, two.time_seconds)
