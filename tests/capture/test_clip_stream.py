"""A small stream for detection and a large one for evidence, from one real server."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest

from monitor.bundle import SampleShape
from monitor.capture import clip_stream
from monitor.capture.camera import CameraLoop, CapturePlan
from monitor.capture.clip_stream import ClipLoop, ClipStreams
from monitor.capture.evidence import SMALL, EvidencePlan
from monitor.capture.left_behind import STUCK_PER_STREAM, LeftBehind
from monitor.capture.ring import PacketRing
from monitor.capture.source import open_source
from monitor.capture.worker import CaptureSupervisor
from monitor.config import CameraConfig, CaptureConfig
from monitor.deadline import Deadline
from monitor.records import (
    BeginClip,
    CameraState,
    CameraStatus,
    CaptureCounts,
    ClipStreamStatus,
    EvidenceKind,
    EvidenceReport,
    EvidenceResult,
    FailureReason,
    Sample,
    TakePictures,
)
from tests.capture.drawing import write_video
from tests.capture.watching import wait_for
from tests.conftest import StartRtsp, StreamFiles
from tests.services.rtsp import RtspServer

FPS = 4.0
SHAPE = SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=32, height_pixels=32)
SETTINGS = CaptureConfig(workers=1, connect_timeout_seconds=2.0, stall_timeout_seconds=1.0, retry_max_seconds=0.5)
LARGE, LITTLE = (320, 240), (192, 144)


class Pair:
    """A camera with both streams, and everything that is told of it."""

    def __init__(self, server: RtspServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.samples: list[Sample] = []
        self.states: list[CameraStatus] = []
        self.clips: list[ClipStreamStatus] = []
        self.counts: list[CaptureCounts] = []
        self.evidence: list[EvidenceReport] = []
        self.supervisor = CaptureSupervisor(
            SETTINGS,
            sample_fps=FPS,
            shape=SHAPE,
            on_sample=self.samples.append,
            on_status=self.states.append,
            on_counts=self.counts.append,
            on_worker=lambda _report: None,
            on_clip_stream=self.clips.append,
            on_evidence=self.evidence.append,
            evidence=EvidencePlan(folder, 10.0, 4_000_000),
        )
        self.supervisor.start()
        self.supervisor.add(CameraConfig(id="yard", url=server.url("small"), clip_url=server.url("large")))
        self.wait(lambda: self.clips and len(self.samples) > 12)

    def wait(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.states, self.clips, self.evidence)
            time.sleep(0.02)

    def ask(self, alert: str) -> dict[EvidenceKind, EvidenceReport]:
        """Have the last two seconds kept; return what was told of each piece."""
        held = [sample.time_seconds for sample in self.samples[-8:]]
        before = len(self.evidence)
        clip = BeginClip("yard", alert, f"{alert}.mp4", held[0], held[4], held[-1])
        weights = (0.125,) * 8
        pictures = TakePictures("yard", alert, f"{alert}.jpg", f"{alert}.s.jpg", tuple(held), weights, 4)
        for request in (clip, pictures):
            self.supervisor.keep(request)
        self.wait(lambda: len(self.evidence) == before + 3)
        return {report.kind: report for report in self.evidence[before:]}

    def size(self, name: str) -> tuple[int, int]:
        with av.open(str(self.folder / name)) as container:
            frame = next(container.decode(video=0))
            return frame.width, frame.height


@pytest.fixture
def pair(stream_files: StreamFiles, start_rtsp: StartRtsp, tmp_path: Path) -> Iterator[Pair]:
    mounts = {"small": stream_files.mount("h264_small", live=True), "large": stream_files.mount("h264", live=True)}
    pair = Pair(start_rtsp(mounts), tmp_path / "media")
    yield pair
    pair.supervisor.stop(Deadline(3))
    assert pair.supervisor.first_error is None


def test_evidence_is_of_the_large_stream_and_of_the_small_one_where_that_is_away(pair: Pair) -> None:
    kept = pair.ask("with")
    assert {report.result for report in kept.values()} == {EvidenceResult.KEPT}
    assert {report.detail for report in kept.values()} == {""}
    assert pair.size("with.mp4") == pair.size("with.jpg") == LARGE
    pair.wait(lambda: any(counts.clip_ring_bytes for counts in pair.counts))

    lost_at = len(pair.samples)
    pair.server.remove("large")
    pair.wait(lambda: not pair.clips[-1].online)
    pair.wait(lambda: len(pair.samples) > lost_at + 10)
    kept = pair.ask("without")
    assert {report.result for report in kept.values()} == {EvidenceResult.KEPT}
    assert {report.detail for report in kept.values()} == {SMALL}
    assert pair.size("without.mp4") == pair.size("without.jpg") == LITTLE

    slots = [sample.slot for sample in pair.samples]
    assert slots == list(range(slots[0], slots[0] + len(slots))), "detection was disturbed"
    assert [state.state for state in pair.states] == [CameraState.CONNECTING, CameraState.ONLINE]


def test_the_large_stream_comes_back_by_itself(pair: Pair, stream_files: StreamFiles) -> None:
    pair.server.remove("large")
    pair.wait(lambda: not pair.clips[-1].online)
    assert pair.clips[-1].reason in (FailureReason.ENDED, FailureReason.NOT_FOUND)
    pair.server.add("large", stream_files.mount("h264", live=True))
    pair.wait(lambda: pair.clips[-1].online)
    assert pair.clips[-1].detail == ""


def test_a_stream_that_hangs_costs_no_more_threads_than_it_may_lose(
    stream_files: StreamFiles, start_rtsp: StartRtsp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera that goes on sending sender reports keeps FFmpeg reading, whatever its time-out.

    GStreamer's come 5 s apart: here FFmpeg is given the patience that reports in quick succession would give it.
    """
    patient = {"connect_timeout_seconds": 60.0, "stall_timeout_seconds": 60.0}
    monkeypatch.setattr(
        clip_stream, "open_source", lambda camera, settings: open_source(camera, settings.model_copy(update=patient))
    )
    server = start_rtsp({"small": stream_files.mount("h264_small"), "large": stream_files.mount("h264", live=True)})
    settings = SETTINGS.model_copy(update={"connect_timeout_seconds": 1.0, "retry_max_seconds": 0.1})
    states: list[ClipStreamStatus] = []
    left = LeftBehind()
    streams = ClipStreams(
        CapturePlan(settings, FPS, SHAPE, EvidencePlan(tmp_path, 10.0, 4_000_000)),
        left,
        tell=lambda told: states.append(told) if isinstance(told, ClipStreamStatus) else None,
    )

    def tended(condition: Callable[[], object]) -> object:
        left.sweep()
        streams.tend()
        return condition()

    streams.watch(CameraConfig(id="yard", url=server.url("small"), clip_url=server.url("large")))
    wait_for(lambda: tended(lambda: states and states[-1].online), 15.0)
    server.stall("large")
    wait_for(lambda: tended(lambda: left.count == STUCK_PER_STREAM and not states[-1].online), 30.0)
    told = len(states)
    again = time.monotonic() + 4.0  # twice as long as one more would need to hang
    wait_for(lambda: tended(lambda: time.monotonic() > again), 30.0)
    assert (len(clip_threads()), left.count, len(states)) == (STUCK_PER_STREAM, STUCK_PER_STREAM, told)
    assert left.longest_seconds > 4.0
    server.resume("large")
    wait_for(lambda: tended(lambda: states[-1].online and len(clip_threads()) == 1), 30.0)
    assert (left.count, left.longest_seconds) == (0, 0.0)
    streams.close()
    wait_for(lambda: not clip_threads(), 5.0)


def clip_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "clip-yard"]


def test_packets_that_nobody_decodes_have_the_times_of_their_pictures(
    stream_files: StreamFiles, start_rtsp: StartRtsp, tmp_path: Path
) -> None:
    """One stream read twice, decoded and not; a picture is told by its bytes, which come again every two seconds.

    A reader that a busy machine starves knows the delay less well for some seconds, so they may take a while to agree.
    """
    server = start_rtsp({"yard": stream_files.mount(shared=True)})
    camera = CameraConfig(id="yard", url=server.url("yard"))
    plan = CapturePlan(SETTINGS, FPS, SHAPE, EvidencePlan(tmp_path, 10.0, 1_000_000))
    decoded, read = (PacketRing(seconds=10.0, most_bytes=1_000_000) for _ in range(2))
    loops = (
        CameraLoop(camera, plan, tell=lambda _told: None, ring=decoded),
        ClipLoop(camera, plan, tell=lambda _told: None, ring=read),
    )
    threads = [threading.Thread(target=loop.run, daemon=True) for loop in loops]
    for thread in threads:
        thread.start()

    def apart() -> list[float]:
        """Return how far the times of the newest pictures lie apart, as far as both have read them."""
        times = defaultdict(list)
        for packet in read.since(0):
            times[packet.payload].append(packet.seconds)
        newest = decoded.since(0)[-50:-5]
        return [min((abs(seconds - one.seconds) for seconds in times[one.payload]), default=math.inf) for one in newest]

    try:
        wait_for(lambda: len(found := apart()) == 45 and max(found) < 0.03, 60.0)
    finally:
        for loop, thread in zip(loops, threads, strict=True):
            loop.stop()
            thread.join(2.0)


def test_a_file_as_large_stream_and_a_stop_in_mid_read(tmp_path: Path) -> None:
    """B-frames come out of order: their times must rise in the order in which they are shown."""
    path = write_video(tmp_path / "large.mp4", frames=100, options={"g": "20", "bf": "2"})
    clip = CameraConfig(id="yard", url="rtsp://camera.example/small", clip_url=str(path)).clip
    assert clip is not None
    ring = PacketRing(seconds=10.0, most_bytes=1_000_000)
    plan = CapturePlan(SETTINGS, FPS, SHAPE, EvidencePlan(tmp_path, 10.0, 1_000_000))
    loop = ClipLoop(clip, plan, ring=ring, tell=lambda _told: None)
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    time.sleep(2.0)
    loop.stop()
    thread.join(1.0)
    assert not thread.is_alive()
    packets = sorted(ring.since(0), key=lambda packet: packet.pts)
    assert len(packets) > 30
    steps = [after.seconds - before.seconds for before, after in itertools.pairwise(packets)]
    assert all(step == pytest.approx(0.04, abs=0.03) for step in steps[5:]), steps
