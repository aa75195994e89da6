"""What the tests of faults share: a supervisor with everything that it told, and what samples are held to."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from monitor.capture.place import WorkerEvent, WorkerReport
from monitor.capture.sampler import slot_of
from monitor.capture.worker import CaptureSupervisor
from monitor.config import CameraConfig, CaptureConfig
from monitor.deadline import Deadline
from monitor.records import CameraState, CameraStatus, Sample
from tests.capture.faults import FPS, LOOP_SECONDS, SHAPE, Fault, Place, number_in

SAMPLE_FPS = 4.0
BLIND_SECONDS = 1.5
"""After a fault that harms pictures: until the next keyframe."""
SENT_LATE_SECONDS = 0.5
TIME_TOLERANCE_SECONDS = 0.2


class Watch:
    """A supervisor, and what it told with the time at which it did."""

    def __init__(self, settings: CaptureConfig) -> None:
        self.samples: dict[str, list[tuple[float, Sample]]] = defaultdict(list)
        self.states: dict[str, list[CameraStatus]] = defaultdict(list)
        self.skews: dict[str, list[float | None]] = defaultdict(list)
        """The camera's clock less ours, once a second."""
        self.workers: list[WorkerReport] = []
        self.supervisor = CaptureSupervisor(
            settings,
            sample_fps=SAMPLE_FPS,
            shape=SHAPE,
            on_sample=lambda sample: self.samples[sample.camera].append((time.time(), sample)),
            on_status=lambda status: self.states[status.camera].append(status),
            on_counts=lambda counts: self.skews[counts.camera].append(counts.skew_seconds),
            on_worker=self.workers.append,
        )

    def __enter__(self) -> Watch:
        self.supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop(Deadline(3))
        assert self.supervisor.first_error is None

    def since(self, camera: str, seconds: float) -> bool:
        """Whether the newest sample of a camera was taken after this time."""
        told = self.samples[camera]
        return bool(told) and told[-1][1].time_seconds > seconds

    def first_after(self, camera: str, seconds: float) -> float:
        """Return when the first sample after this time was told."""
        return next(heard for heard, sample in self.samples[camera] if sample.time_seconds > seconds)

    def pids(self) -> list[int]:
        """Return the workers' processes, in the order of their start."""
        return [report.pid for report in self.workers if report.event is WorkerEvent.STARTED and report.pid]

    def connects(self, since: float) -> list[float]:
        """Return when cameras began to connect, in order."""
        return sorted(
            status.time_seconds
            for told in self.states.values()
            for status in list(told)
            if status.state is CameraState.CONNECTING and status.time_seconds > since
        )

    def planned(self, since: float) -> list[float]:
        """Return when cameras that were lost since then meant to connect again, in order.

        When they do also depends on when the machine lets them run.
        """
        return sorted(
            status.time_seconds + status.retry_seconds
            for told in self.states.values()
            for status in list(told)
            if status.retry_seconds is not None and status.time_seconds > since
        )


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


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def check_times(told: list[tuple[float, Sample]]) -> None:
    """Hold samples to the host's clock and to the grid."""
    samples = [sample for _, sample in told]
    for one, two in pairwise(samples):
        assert one.slot < two.slot, f"slot {two.slot} after {one.slot}: {one.time_seconds}, {two.time_seconds}"
        assert one.time_seconds < two.time_seconds, f"time {two.time_seconds} after {one.time_seconds}"
    for heard, sample in told:
        slot = slot_of(sample.time_seconds, SAMPLE_FPS)
        assert sample.slot == slot, f"slot {sample.slot}, not {slot}, at {sample.time_seconds}"
        times = (sample.time_seconds, sample.received_seconds, heard)
        assert list(times) == sorted(times), f"seen, received, heard: {times}"


def check_against_the_cameras_clock(samples: list[Sample]) -> int:
    """The server tells by sender reports when each picture was due, on the clock of this machine; return how many."""
    told = [(sample.time_seconds, sample.camera_seconds) for sample in samples if sample.camera_seconds is not None]
    for seconds, camera_seconds in told:
        off = seconds - camera_seconds
        assert abs(off) <= TIME_TOLERANCE_SECONDS, f"{off} s off the camera's clock, at {seconds}"
    return len(told)


def check_numbers(
    samples: list[Sample],
    breaks: list[float],
    blind: tuple[float, float] | None,
    *,
    longest_seconds: float = math.inf,
) -> None:
    """As much time has passed between two pictures of one connection as lies between their numbers.

    Pictures of the time `blind` show something else, and so does one that a busy server sent late. Two that lie further
    apart than `longest_seconds` are not compared.
    """
    for one, two in pairwise(samples):
        passed = two.time_seconds - one.time_seconds
        spoilt = blind is not None and two.time_seconds > blind[0] - SENT_LATE_SECONDS and one.time_seconds < blind[1]
        if (
            spoilt
            or passed > longest_seconds
            or any(one.time_seconds < moment < two.received_seconds for moment in breaks)
        ):
            continue
        shown = (number_in(two) - number_in(one)) / FPS
        off = (shown - passed + LOOP_SECONDS / 2) % LOOP_SECONDS - LOOP_SECONDS / 2
        assert abs(off) < TIME_TOLERANCE_SECONDS, (
            f"from {one.time_seconds} to {two.time_seconds} the numbers are {off} s off"
        )
