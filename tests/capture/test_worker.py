from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from monitor.bundle import SampleShape
from monitor.capture import life as life_module
from monitor.capture.evidence import EvidencePlan
from monitor.capture.pipe import Channel, Command, Report, channel_pair
from monitor.capture.place import WorkerReport, WorkerVitals, restart_wait
from monitor.capture.worker import CaptureSupervisor
from monitor.config import CameraConfig, CaptureConfig
from monitor.deadline import Deadline
from monitor.errors import StopTimedOut
from monitor.records import (
    BeginClip,
    CameraPicture,
    CameraState,
    CameraStatus,
    CaptureCounts,
    DropReason,
    EvidenceKind,
    EvidenceReport,
    EvidenceResult,
    FailureReason,
    Sample,
)
from tests.capture.drawing import write_video
from tests.conftest import StartRtsp, StreamFiles
from tests.services.ports import free_port

SHAPE = SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=32, height_pixels=32)
SETTINGS = CaptureConfig(
    workers=2, connect_timeout_seconds=2.0, stall_timeout_seconds=1.0, retry_max_seconds=1.0, queue_samples=4
)


class Ears:
    """A supervisor and everything that it told."""

    def __init__(self, settings: CaptureConfig = SETTINGS, evidence: EvidencePlan | None = None) -> None:
        self.evidence: list[EvidenceReport] = []
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        self.states: list[CameraStatus] = []
        self.counts: list[CaptureCounts] = []
        self.workers: list[WorkerReport] = []
        self.vitals: list[WorkerVitals] = []
        self.pictures: list[CameraPicture] = []
        self.block = threading.Event()
        self.block.set()
        self.supervisor = CaptureSupervisor(
            settings,
            sample_fps=4.0,
            shape=SHAPE,
            on_sample=self.hear,
            on_status=self.states.append,
            on_counts=self.counts.append,
            on_worker=self.workers.append,
            on_evidence=self.evidence.append,
            on_vitals=self.vitals.append,
            on_picture=self.pictures.append,
            evidence=evidence,
        )
        self.supervisor.start()

    def hear(self, sample: Sample) -> None:
        self.block.wait()
        self.samples[sample.camera].append(sample)

    def wait(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.states[-5:], self.workers)
            time.sleep(0.02)

    def pid(self, number: int) -> int:
        pid = [report.pid for report in self.workers if report.worker == number and not report.lost][-1]
        assert pid is not None
        return pid


def capture_processes() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        try:
            if "monitor.capture.process" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def ears() -> Iterator[Ears]:
    ears = Ears()
    yield ears
    ears.block.set()
    ears.supervisor.stop(Deadline(3))
    assert not capture_processes()
    assert ears.supervisor.first_error is None


def video(folder: Path, name: str = "yard") -> CameraConfig:
    path = folder / f"{name}.mp4"
    write_video(path, frames=1500)
    return CameraConfig(id=name, url=str(path))


def test_a_killed_worker_is_replaced_and_the_other_loses_no_slot(ears: Ears, tmp_path: Path) -> None:
    for name in ("yard", "hall"):
        ears.supervisor.add(video(tmp_path, name))
    ears.wait(lambda: len(ears.samples["yard"]) > 4 and len(ears.samples["hall"]) > 4)
    os.kill(ears.pid(0), signal.SIGKILL)
    ears.wait(lambda: any(report.lost for report in ears.workers))
    lost = len(ears.samples["yard"])
    ears.wait(lambda: len(ears.samples["yard"]) > lost)  # how fast: see test_isolation
    assert [(state.camera, state.state) for state in ears.states if state.reason is FailureReason.WORKER_LOST] == [
        ("yard", CameraState.OFFLINE)
    ]
    report = next(report for report in ears.workers if report.lost)
    assert (report.worker, report.running, report.reason) == (0, 1, "killed by SIGKILL")
    slots = [sample.slot for sample in ears.samples["hall"]]
    assert slots == list(range(slots[0], slots[0] + len(slots)))


def test_a_worker_that_says_what_nobody_can_read_is_replaced_and_the_other_loses_no_slot(
    ears: Ears, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damaged memory can make anything of a report: that costs its worker, and not the service."""
    theirs: list[socket.socket] = []

    def pair() -> tuple[Channel[Report, Command], socket.socket]:
        channel, other = channel_pair()
        theirs.append(other.dup())
        return channel, other

    monkeypatch.setattr(life_module, "channel_pair", pair)
    for name in ("yard", "hall"):
        ears.supervisor.add(video(tmp_path, name))
    ears.wait(lambda: len(ears.samples["yard"]) > 4 and len(ears.samples["hall"]) > 4)
    rubbish = b"no pickle"
    with theirs[0], theirs[1]:
        theirs[0].sendall(struct.pack("=IQ", 1, len(rubbish)) + rubbish)
    ears.wait(lambda: any(report.lost for report in ears.workers))
    report = next(report for report in ears.workers if report.lost)
    assert (report.worker, report.running, report.reason) == (0, 1, "sent what cannot be read")
    lost = len(ears.samples["yard"])
    ears.wait(lambda: len(ears.samples["yard"]) > lost)
    slots = [sample.slot for sample in ears.samples["hall"]]
    assert slots == list(range(slots[0], slots[0] + len(slots)))
    theirs[2].close()


def test_a_worker_that_dies_again_and_again_is_replaced_ever_later() -> None:
    waits = [restart_wait(losses) for losses in range(1, 12)]
    assert waits[:4] == [0.0, 0.5, 1.0, 2.0]
    assert max(waits) == 30.0


def test_a_worker_that_the_system_cannot_start_is_tried_again(ears: Ears, tmp_path: Path) -> None:
    """With no descriptor left no process can be begun: what the system lacks for a while ends no service."""
    ears.supervisor.add(video(tmp_path))
    ears.wait(lambda: ears.samples["yard"])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        os.kill(ears.pid(0), signal.SIGKILL)
        ears.wait(lambda: sum(report.lost for report in ears.workers) == 4, 15.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [report.pid is None for report in ears.workers if report.lost] == [False, True, True, True]
    assert ears.workers[-1].reason == "cannot be started: Too many open files"
    lost = [state for state in ears.states if state.reason is FailureReason.WORKER_LOST]
    assert lost[-1].detail == "capture process cannot be started: Too many open files"
    assert [state.retry_seconds for state in lost] == [restart_wait(losses) for losses in range(1, 5)]
    heard = len(ears.samples["yard"])
    ears.wait(lambda: len(ears.samples["yard"]) > heard)


def test_a_process_without_a_thread_to_hear_it_leaves_nothing_behind(
    ears: Ears, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads are what a container's limit of processes counts too; Python then raises RuntimeError."""
    start, refused = threading.Thread.start, 0

    def refuse(thread: threading.Thread) -> None:
        nonlocal refused
        if thread.name.startswith("capture-reader") and refused < 1:
            refused += 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ears.supervisor.add(video(tmp_path))
    ears.wait(lambda: ears.samples["yard"])
    assert [report.lost for report in ears.workers] == [True, False]
    assert len(capture_processes()) == 1


def test_workers_ignore_the_signals_that_stop_the_service(ears: Ears, tmp_path: Path) -> None:
    ears.supervisor.add(video(tmp_path))
    ears.wait(lambda: ears.samples["yard"])
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(ears.pid(0), number)
    heard = len(ears.samples["yard"])
    ears.wait(lambda: len(ears.samples["yard"]) > heard + 4)
    assert len(ears.workers) == 1


def test_nothing_secret_stands_on_a_command_line(ears: Ears, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARD_PASSWORD", "hunter22")
    url = f"rtsp://127.0.0.1:{free_port()}/x?token=s3cret99"
    ears.supervisor.add(CameraConfig(id="yard", url=url, username="user", password_env="YARD_PASSWORD"))
    ears.wait(lambda: any(state.state is CameraState.OFFLINE for state in ears.states))
    said = " ".join(part for process in capture_processes() for part in process.cmdline()) + repr(ears.states)
    assert "hunter22" not in said
    assert "s3cret99" not in said


def test_a_crash_writes_no_memory_to_disk(ears: Ears, tmp_path: Path) -> None:
    """It holds passwords; and a stream that crashes the decoder again and again would fill the disk with it."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))  # where the limit is nought, this shows nothing
    try:
        ears.supervisor.add(video(tmp_path))
        ears.wait(lambda: ears.samples["yard"])
        assert psutil.Process(ears.pid(0)).rlimit(psutil.RLIMIT_CORE)[0] == 0
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def test_cameras_come_and_go_while_others_run(ears: Ears, tmp_path: Path) -> None:
    cameras = [video(tmp_path, name) for name in ("a", "b", "c")]
    for camera in cameras:
        ears.supervisor.add(camera)
    ears.wait(lambda: all(len(ears.samples[name]) > 2 for name in "abc"))
    assert len(capture_processes()) == 2
    ears.supervisor.remove("a")
    time.sleep(0.3)
    heard = len(ears.samples["a"])
    before = len(ears.samples["b"])
    ears.wait(lambda: len(ears.samples["b"]) > before + 4)
    assert len(ears.samples["a"]) == heard
    ears.supervisor.add(cameras[0])
    ears.wait(lambda: len(ears.samples["a"]) > heard)


def test_a_slow_service_costs_the_oldest_samples_and_no_worker(
    ears: Ears, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life_module, "SILENT_SECONDS", 1.5)
    ears.supervisor.add(video(tmp_path))
    ears.wait(lambda: ears.samples["yard"])
    ears.block.clear()
    os.kill(ears.pid(0), 0)
    time.sleep(3.0)
    ears.block.set()
    ears.wait(lambda: len(ears.samples["yard"]) > 8)
    assert not any(report.lost for report in ears.workers)
    assert all(set(counts.dropped) <= {DropReason.CAPTURE_QUEUE} for counts in ears.counts)


def test_stop_while_a_camera_hangs_in_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ears = Ears(CaptureConfig(workers=1, connect_timeout_seconds=60))
        ears.supervisor.add(CameraConfig(id="yard", url=f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x"))
        ears.wait(lambda: any(state.state is CameraState.CONNECTING for state in ears.states))
        begun = time.monotonic()
        ears.supervisor.stop(Deadline(2.0))
        assert time.monotonic() - begun < 2.0
    assert not capture_processes()


def test_stop_while_a_callback_blocks(tmp_path: Path) -> None:
    ears = Ears()
    ears.supervisor.add(video(tmp_path))
    ears.wait(lambda: ears.samples["yard"])
    ears.block.clear()
    time.sleep(0.5)
    begun = time.monotonic()
    with pytest.raises(StopTimedOut, match="capture-reader-0"):
        ears.supervisor.stop(Deadline(2.0))
    assert time.monotonic() - begun < 2.2
    assert not capture_processes()
    ears.block.set()
    ears.wait(lambda: not any("capture-reader" in thread.name for thread in threading.enumerate()))


def test_stop_while_a_worker_is_frozen(tmp_path: Path) -> None:
    ears = Ears()
    ears.supervisor.add(video(tmp_path))
    ears.wait(lambda: ears.samples["yard"])
    os.kill(ears.pid(0), signal.SIGSTOP)
    begun = time.monotonic()
    ears.supervisor.stop(Deadline(2.0))
    assert time.monotonic() - begun < 2.0
    assert not capture_processes()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    process = psutil.Process()
    before = process.num_fds()
    camera = video(tmp_path)
    for _ in range(2):
        ears = Ears()
        ears.supervisor.add(camera)
        ears.wait(lambda ears=ears: ears.samples["yard"])
        ears.supervisor.stop(Deadline(3))
        ears.supervisor.stop(Deadline(1))  # harmless
    assert process.num_fds() <= before
    assert not capture_processes()


def test_an_error_of_a_callback_is_kept_and_the_rest_goes_on(tmp_path: Path) -> None:
    ears = Ears()
    broken = threading.Event()

    def hear(sample: Sample) -> None:
        if not broken.is_set():
            broken.set()
            raise KeyError("first")
        ears.samples[sample.camera].append(sample)

    ears.supervisor._on_sample = hear
    ears.supervisor.add(video(tmp_path))
    ears.wait(lambda: ears.samples["yard"])
    ears.supervisor.stop(Deadline(3))
    assert isinstance(ears.supervisor.first_error, KeyError)


def test_a_stall_is_noticed_although_reports_still_come(
    ears: Ears, stream_files: StreamFiles, start_rtsp: StartRtsp
) -> None:
    """The server goes on sending sender reports, so FFmpeg goes on reading."""
    server = start_rtsp({"yard": stream_files.mount(), "hall": stream_files.mount()})
    for name in ("yard", "hall"):
        ears.supervisor.add(CameraConfig(id=name, url=server.url(name)))
    ears.wait(lambda: len(ears.samples["yard"]) > 4 and len(ears.samples["hall"]) > 4)
    server.stall("yard")
    stalled = time.monotonic()
    ears.wait(lambda: any(state.reason is FailureReason.STALLED for state in ears.states), 4.0)
    assert time.monotonic() - stalled < 3.0
    server.resume("yard")
    heard = len(ears.samples["yard"])
    ears.wait(lambda: len(ears.samples["yard"]) > heard, 10.0)
    slots = [sample.slot for sample in ears.samples["hall"]]
    assert slots[2:] == list(range(slots[2], slots[-1] + 1))
    assert all(state.camera == "yard" for state in ears.states if state.state is CameraState.OFFLINE)


def test_evidence_of_a_worker_that_dies_is_told_as_lost_and_its_part_stays(tmp_path: Path) -> None:
    ears = Ears(evidence=EvidencePlan(tmp_path / "media", ring_seconds=10.0, ring_bytes=1_000_000))
    try:
        ears.supervisor.keep(BeginClip("yard", "early", "early.mp4", 0.0, 0.0, 2e9))
        assert [(report.alert_id, report.result) for report in ears.evidence] == [("early", EvidenceResult.LOST)]
        ears.supervisor.add(video(tmp_path))
        ears.wait(lambda: len(ears.samples["yard"]) > 4)
        ears.wait(lambda: any(counts.ring_bytes for counts in ears.counts))
        ears.supervisor.keep(BeginClip("yard", "cut", "cut.mp4", time.time() - 1.0, time.time(), 2e9))
        ears.wait((tmp_path / "media/cut.mp4.part").exists)
        os.kill(ears.pid(0), signal.SIGKILL)
        ears.wait(lambda: len(ears.evidence) == 2)
        lost = ears.evidence[1]
        assert (lost.alert_id, lost.kind, lost.result) == ("cut", EvidenceKind.CLIP, EvidenceResult.LOST)
        assert "SIGKILL" in lost.detail
        assert (tmp_path / "media/cut.mp4.part").exists()
    finally:
        ears.supervisor.stop(Deadline(3))
    assert len(ears.evidence) == 2
    assert ears.supervisor.first_error is None


def test_a_camera_is_shown_when_somebody_asks_and_only_then(tmp_path: Path) -> None:
    ears = Ears(evidence=EvidencePlan(tmp_path / "media", ring_seconds=10.0, ring_bytes=1_000_000))
    try:
        ears.supervisor.show("yard")  # nobody holds it
        ears.supervisor.add(video(tmp_path))
        ears.wait(lambda: any(counts.ring_bytes for counts in ears.counts))
        assert ears.pictures == []
        ears.supervisor.show("yard")
        ears.wait(lambda: ears.pictures)
        assert (ears.pictures[0].camera, ears.pictures[0].jpeg[:2]) == ("yard", b"\xff\xd8")
        assert abs(ears.pictures[0].seconds - time.time()) < 10
    finally:
        ears.supervisor.stop(Deadline(3))
    assert ears.supervisor.first_error is None
