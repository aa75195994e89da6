"""Worker processes that die, hang or grow: the cameras go on in another one, and nobody else notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from monitor.capture import recycling, worker
from monitor.capture.evidence import EvidencePlan
from monitor.capture.place import WorkerEvent
from monitor.config import CameraConfig
from monitor.deadline import Deadline
from monitor.records import BeginClip, CameraState, EvidenceResult
from tests.capture.test_worker import SETTINGS, Ears, capture_processes, video
from tests.conftest import StartRtsp, StreamFiles
from tests.services.proxy import FaultyProxy
from tests.services.rtsp import Mount

pytestmark = pytest.mark.alone

REPLACED_SECONDS = 5.0


@pytest.fixture
def listen() -> Iterator[Callable[..., Ears]]:
    started: list[Ears] = []

    def start(**options: object) -> Ears:
        started.append(Ears(**options))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for ears in started:
        ears.supervisor.stop(Deadline(3))
        assert ears.supervisor.first_error is None
    assert not capture_processes()


def slots_of(ears: Ears, camera: str) -> list[int]:
    return [sample.slot for sample in ears.samples[camera]]


def has_no_gap(slots: list[int]) -> bool:
    return slots == list(range(slots[0], slots[0] + len(slots)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
def test_a_worker_that_dies_or_hangs_is_replaced_with_its_cameras_within_5_s(
    number: signal.Signals, listen: Callable[..., Ears], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    ears = listen()
    for name in ("yard", "hall", "roof", "gate"):
        ears.supervisor.add(video(tmp_path, name))
    ears.wait(lambda: all(len(ears.samples[name]) > 4 for name in ("yard", "hall", "roof", "gate")))
    hit = {"yard", "roof"}
    os.kill(ears.pid(0), number)
    began = time.monotonic()
    ears.wait(lambda: any(report.lost for report in ears.workers), REPLACED_SECONDS)
    lost = {name: len(ears.samples[name]) for name in hit}
    ears.wait(lambda: all(len(ears.samples[name]) > lost[name] for name in hit), REPLACED_SECONDS)
    seconds = time.monotonic() - began
    record_property("replaced_seconds", seconds)
    print(f"{number.name}: cameras back after {seconds:.2f} s")
    assert seconds < REPLACED_SECONDS
    assert {state.camera for state in ears.states if state.state is CameraState.OFFLINE} == hit
    assert has_no_gap(slots_of(ears, "hall"))
    assert has_no_gap(slots_of(ears, "gate"))


SERVICE = """
import sys, time
from pathlib import Path
from tests.capture.test_worker import Ears
from monitor.config import CameraConfig
ears = Ears()
ears.supervisor.add(CameraConfig(id="yard", url=sys.argv[1]))
while True:
    time.sleep(0.1)
    print(len(ears.samples["yard"]), *(report.event for report in ears.workers), flush=True)
"""


def test_a_pause_of_the_whole_machine_costs_no_worker(tmp_path: Path) -> None:
    """What a suspended virtual machine does to us: service and worker stand still, and so does the count."""
    camera = video(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", SERVICE, camera.url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        try:
            while int(process.stdout.readline().split()[0]) < 4:
                continue
            both = [process.pid, *(child.pid for child in psutil.Process(process.pid).children())]
            assert len(both) == 2
            for pid in both:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(4.0)
            for pid in both:
                os.kill(pid, signal.SIGCONT)
            end = time.monotonic() + 3.0
            while time.monotonic() < end:
                events = process.stdout.readline().split()[1:]
                assert events == ["started"]
        finally:
            process.kill()


def write_noise(path: Path, *, seconds: int) -> CameraConfig:
    """A camera that sends 4 MB a second: pictures of noise, each a keyframe."""
    random = np.random.default_rng(5)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25, options={"qmin": "2", "qmax": "2"})
        stream.width, stream.height, stream.pix_fmt = 480, 360, "yuvj420p"
        packets = []
        for _ in range(10):
            pixels = random.integers(0, 255, (360, 480, 3), np.uint8)
            packets += stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        for number in range(25 * seconds):
            packet = av.Packet(bytes(packets[number % len(packets)]))
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    return CameraConfig(id="noise", url=str(path))


def resident_of(listen: Callable[..., Ears], camera: CameraConfig, evidence: EvidencePlan) -> int:
    """What a worker with this camera holds when it has just begun."""
    ears = listen(evidence=evidence)
    ears.supervisor.add(camera)
    ears.wait(lambda: len(ears.samples[camera.id]) > 2)
    ears.wait(lambda: ears.vitals)
    ears.supervisor.stop(Deadline(3))
    return ears.vitals[-1].resident_bytes


def test_a_worker_that_grows_is_recycled_without_a_gap(
    listen: Callable[..., Ears], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packet ring fills: memory that really grows, and that a fresh process does not hold."""
    monkeypatch.setattr(recycling, "FRESH_SECONDS", 0.5)
    monkeypatch.setattr(recycling, "RECYCLE_SECONDS", 3.0)
    camera = write_noise(tmp_path / "noise.avi", seconds=40)
    evidence = EvidencePlan(tmp_path / "media", ring_seconds=6.0, ring_bytes=200_000_000)
    fresh = resident_of(listen, camera, evidence)
    limit = fresh + 12_000_000
    ears = listen(settings=SETTINGS.model_copy(update={"worker_bytes": limit}), evidence=evidence)
    ears.supervisor.add(camera)
    ears.supervisor.add(video(tmp_path, "hall"))
    ears.wait(lambda: any(report.event is WorkerEvent.RECYCLED for report in ears.workers), 25.0)
    recycled = next(report for report in ears.workers if report.event is WorkerEvent.RECYCLED)
    now = time.time()
    ears.supervisor.keep(BeginClip("noise", "clip", "clip.mp4", now - 3.0, now - 2.0, now + 1.0))
    heard = len(ears.samples["noise"])
    assert "its limit is" in recycled.reason
    assert len(capture_processes()) == 3  # the old one still holds the past
    ears.wait(lambda: len(ears.samples["noise"]) > heard + 8)
    ears.wait(lambda: ears.evidence, 10.0)
    clip = ears.evidence[0]
    assert clip.result is EvidenceResult.KEPT
    assert clip.seconds > 3.0
    ears.wait(lambda: len(capture_processes()) == 2, 15.0)
    print(f"fresh {fresh / 1e6:.0f} MB, limit {limit / 1e6:.0f} MB, {recycled.reason}")
    for name in ("noise", "hall"):
        assert has_no_gap(slots_of(ears, name))
    assert not [state for state in ears.states if state.state is CameraState.OFFLINE]
    assert not any(report.lost for report in ears.workers)
    assert max(vitals.resident_bytes for vitals in ears.vitals) > limit


def test_a_camera_that_allows_one_client_alone_goes_over_with_its_past(
    listen: Callable[..., Ears],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_rtsp: StartRtsp,
    stream_files: StreamFiles,
) -> None:
    """The successor gets in when the old process has left it; the packets from before stay for clips and pictures."""
    monkeypatch.setattr(worker, "HAND_OVER_SECONDS", 2.0)
    server = start_rtsp({"yard": Mount(stream_files.h264, fps=stream_files.fps)})
    evidence = EvidencePlan(tmp_path / "media", ring_seconds=20.0, ring_bytes=20_000_000)
    with FaultyProxy(server.port) as proxy:
        ears = listen(evidence=evidence)
        ears.supervisor.add(CameraConfig(id="yard", url=f"rtsp://127.0.0.1:{proxy.port}/yard"))
        ears.wait(lambda: len(ears.samples["yard"]) > 4)
        proxy.refuse()
        monkeypatch.setattr(
            worker, "reason_to_recycle", lambda life, _limit: "a test" if life.age_seconds > 5 else None
        )
        ears.wait(lambda: any(report.event is WorkerEvent.RECYCLED for report in ears.workers), 25.0)
        proxy.accept()
        switched = time.time()
        ears.supervisor.keep(BeginClip("yard", "before", "before.mp4", switched - 4.0, switched - 2.0, switched + 1.0))
        heard = len(ears.samples["yard"])
        ears.wait(lambda: len(ears.samples["yard"]) > heard + 8)
        back = ears.samples["yard"][heard].time_seconds
        ears.supervisor.keep(BeginClip("yard", "after", "after.mp4", back - 1.0, back + 0.5, back + 1.0))
        ears.wait(lambda: len(ears.evidence) == 2, 15.0)
    before, after = sorted(ears.evidence, key=lambda report: report.alert_id, reverse=True)
    assert (before.alert_id, before.result) == ("before", EvidenceResult.KEPT)
    assert before.seconds > 2.0
    assert (after.alert_id, after.result, after.detail) == ("after", EvidenceResult.KEPT, "")
    assert not any(report.lost for report in ears.workers)


def test_a_limit_below_what_a_worker_needs_is_told_once_and_not_tried_again(
    listen: Callable[..., Ears], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recycling, "FRESH_SECONDS", 0.5)
    monkeypatch.setattr(recycling, "RECYCLE_SECONDS", 1.0)
    ears = listen(settings=SETTINGS.model_copy(update={"worker_bytes": 20_000_000}))
    ears.supervisor.add(video(tmp_path))
    ears.wait(lambda: any(report.event is WorkerEvent.CROWDED for report in ears.workers))
    time.sleep(3.0)
    assert [report.event for report in ears.workers] == [WorkerEvent.STARTED, WorkerEvent.CROWDED]
    assert "capture.worker_bytes" in ears.workers[-1].reason
