from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.bundle import SampleShape
from monitor.capture import camera as camera_module
from monitor.capture.arrival import Arrived
from monitor.capture.camera import CameraLoop, CapturePlan, Told, retry_wait
from monitor.capture.intake import FIRST_GUESS_SECONDS
from monitor.capture.source import Decoded, Source
from monitor.config import CameraConfig, CaptureConfig
from monitor.records import CameraState, CameraStatus, CaptureCounts, FailureReason, GateState, Sample
from tests.capture.drawing import write_video
from tests.conftest import StartRtsp, StreamFiles
from tests.services.ports import free_port
from tests.services.rtsp import Mount, encode_stream

SHAPE = SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=32, height_pixels=32)
SETTINGS = CaptureConfig(connect_timeout_seconds=1.0, stall_timeout_seconds=1.0, retry_max_seconds=1.0)
PLAN = CapturePlan(SETTINGS, 4.0, SHAPE)


class Watched:
    """Runs one loop in a thread and keeps what it tells."""

    def __init__(self, camera: CameraConfig, plan: CapturePlan = PLAN) -> None:
        self.told: list[Told] = []
        self.told_seconds: list[float] = []
        """When each of these was, host clock."""
        self.loop = CameraLoop(camera, plan, tell=self._hear)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)

    def __enter__(self) -> Watched:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.stop()
        self.thread.join(3)
        assert not self.thread.is_alive()

    def _hear(self, told: Told) -> None:
        self.told_seconds.append(time.time())
        self.told.append(told)

    @property
    def late(self) -> list[float]:
        """How long after its picture was seen each sample was told."""
        told = zip(self.told, self.told_seconds, strict=False)
        return [seconds - sample.time_seconds for sample, seconds in told if isinstance(sample, Sample)]

    @property
    def samples(self) -> list[Sample]:
        return [told for told in self.told if isinstance(told, Sample)]

    @property
    def states(self) -> list[CameraStatus]:
        return [told for told in self.told if isinstance(told, CameraStatus)]

    @property
    def counts(self) -> list[CaptureCounts]:
        return [told for told in self.told if isinstance(told, CaptureCounts)]

    def wait(self, condition: Callable[[Watched], object], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not condition(self):
            assert time.monotonic() < end, self.states
            time.sleep(0.02)


# Waits


@given(st.integers(1, 10_000), st.randoms(use_true_random=False))
def test_waits_have_full_jitter_below_a_bound_that_doubles(attempt: int, random: Random) -> None:
    settings = CaptureConfig(retry_min_seconds=0.5, retry_max_seconds=8.0)
    wait = retry_wait(attempt, FailureReason.STALLED, settings, random)
    assert 0 <= wait <= min(8.0, 0.5 * 2 ** (min(attempt, 10) - 1))


def test_waits_fill_their_range() -> None:
    random = Random(1)
    waits = [retry_wait(9, FailureReason.ENDED, CaptureConfig(), random) for _ in range(2000)]
    assert min(waits) < 0.1
    assert max(waits) > 2.9
    assert sum(waits) / len(waits) == pytest.approx(1.5, abs=0.1)


@given(st.integers(1, 100), st.randoms(use_true_random=False))
def test_a_refused_password_is_retried_slowly(attempt: int, random: Random) -> None:
    wait = retry_wait(attempt, FailureReason.REFUSED, CaptureConfig(refused_retry_seconds=60), random)
    assert 54 <= wait <= 66


# Files


def test_a_file_is_watched_again_and_again_on_one_grid(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=40)
    with Watched(CameraConfig(id="yard", url=str(path))) as watched:
        watched.wait(lambda w: sum(s.state is CameraState.ONLINE for s in w.states) >= 2 and len(w.samples) > 8)
    slots = [sample.slot for sample in watched.samples]
    assert slots == sorted(set(slots))
    ended = next(state for state in watched.states if state.state is CameraState.OFFLINE)
    assert (ended.reason, ended.attempt) == (FailureReason.ENDED, 1)
    assert ended.retry_seconds is not None
    assert ended.retry_seconds <= SETTINGS.retry_min_seconds
    assert sum(counts.frames_decoded + counts.frames_skipped for counts in watched.counts) >= 40
    assert sum(counts.samples for counts in watched.counts) == len(slots)


@pytest.mark.parametrize("suffix", ["h264", "hevc"])
def test_size_changes_in_mid_stream(suffix: str, tmp_path: Path) -> None:
    codec = {"h264": "libx264", "hevc": "libx265"}[suffix]
    path = tmp_path / f"both.{suffix}"
    parts = [write_video(tmp_path / f"{n}.{suffix}", codec=codec, frames=25, size=(64 * n, 48 * n)) for n in (2, 3, 2)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Watched(CameraConfig(id="yard", url=str(path), gate="off")) as watched:
        watched.wait(lambda w: any(s.reason is FailureReason.ENDED for s in w.states))
    assert len(watched.samples) >= 10
    assert sum(counts.decode_errors for counts in watched.counts) == 0
    assert sum(counts.frames_decoded for counts in watched.counts) >= 75


def test_damaged_packets_are_counted_and_survived(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mpg", codec="mpeg4", frames=75, size=(320, 240)).rename(tmp_path / "a.avi")
    path = write_video(tmp_path / "b.avi", codec="mpeg4", frames=75, size=(320, 240))
    content = bytearray(path.read_bytes())
    random = Random(3)
    for _ in range(200):
        content[random.randrange(8000, len(content) - 8000)] = 0
    path.write_bytes(content)
    with Watched(CameraConfig(id="yard", url=str(path))) as watched:
        watched.wait(lambda w: any(s.state is CameraState.OFFLINE for s in w.states))
    assert watched.samples
    assert watched.thread.is_alive() is False


def test_packets_without_pictures_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its first picture a stream of one group of pictures never shows anything."""
    monkeypatch.setattr(camera_module, "UNDECODABLE_SECONDS", 0.5)
    path = write_video(tmp_path / "a.h264", frames=100, options={"g": "1000", "x264-params": "aud=1"})
    content = path.read_bytes()
    second = content.index(b"\x00\x00\x00\x01\x09", content.index(b"\x00\x00\x00\x01\x09") + 5)
    headers = content[: content.index(b"\x00\x00\x01\x65")]
    path.write_bytes(headers + content[second:])
    with Watched(CameraConfig(id="yard", url=str(path))) as watched:
        watched.wait(lambda w: any(s.reason is FailureReason.DECODE_ERROR for s in w.states))
    assert not watched.samples


def test_an_unexpected_error_is_told_by_name_and_the_camera_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("secret in the message")

    monkeypatch.setattr(camera_module, "open_source", broken)
    with Watched(CameraConfig(id="yard", url=str(tmp_path / "a.mp4"))) as watched:
        watched.wait(lambda w: sum(s.state is CameraState.OFFLINE for s in w.states) >= 2)
    assert watched.states[1].detail == "unexpected KeyError"


def test_a_stop_ends_a_wait_at_once() -> None:
    slow = CaptureConfig(retry_min_seconds=60, retry_max_seconds=60)
    camera = CameraConfig(id="yard", url=f"rtsp://127.0.0.1:{free_port()}/x")
    with Watched(camera, CapturePlan(slow, 4.0, SHAPE)) as watched:
        watched.wait(lambda w: any(s.state is CameraState.OFFLINE for s in w.states))
        begun = time.monotonic()
    assert time.monotonic() - begun < 0.5
    assert watched.states[-1].reason is FailureReason.CONNECTION_REFUSED


# Real RTSP


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_is_sampled_on_every_slot(transport: str, stream_files: StreamFiles, start_rtsp: StartRtsp) -> None:
    server = start_rtsp({"yard": stream_files.mount()})
    camera = CameraConfig.model_validate({"id": "yard", "url": server.url("yard"), "transport": transport})
    with Watched(camera) as watched:
        watched.wait(lambda w: len(w.samples) >= 16)
    slots = [sample.slot for sample in watched.samples]
    assert slots[2:] == list(range(slots[2], slots[-1] + 1))
    for sample in watched.samples:
        assert sample.slot == pytest.approx(sample.time_seconds * 4, abs=1)
        assert 0 <= sample.received_seconds - sample.time_seconds < 0.5
        assert abs(time.time() - sample.received_seconds) < 20


class Rests(threading.Event):
    """Keeps when a camera's loop rested, and for how long it meant to: the event by which it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[float, float]] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.begun.append((time.time(), timeout or 0.0))
        return super().wait(timeout)


@pytest.mark.parametrize("gate", ["auto", "off"])
def test_an_awake_camera_takes_packets_in_a_row_and_no_sample_waits_for_them(
    gate: str, stream_files: StreamFiles, start_rtsp: StartRtsp
) -> None:
    server = start_rtsp({"yard": stream_files.mount()})
    watched = Watched(CameraConfig.model_validate({"id": "yard", "url": server.url("yard"), "gate": gate}))
    watched.loop._stop = rests = Rests()
    with watched:
        watched.wait(lambda w: len(w.samples) >= 48, 15.0)
    slots = [sample.slot for sample in watched.samples]
    assert slots[2:] == list(range(slots[2], slots[-1] + 1))
    assert len(rests.begun) >= 12
    slot_seconds, frame_seconds = 1.0 / PLAN.sample_fps, 1.0 / stream_files.fps
    for begun, seconds in rests.begun:
        assert seconds >= FIRST_GUESS_SECONDS, "a rest in which no frame comes is worth nothing"
        next_slot = (np.floor(begun / slot_seconds) + 1) * slot_seconds
        assert begun + seconds < next_slot + frame_seconds
    # Over RTP a picture comes out of FFmpeg with the first packet of the next one.
    assert np.median(watched.late[2:]) < 2 * frame_seconds, "who rests too long tells late"


def test_a_camera_whose_packets_take_long_does_not_rest_for_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took, decode = 0.02, Source.decode

    def slowly(source: Source, arrived: Arrived) -> list[Decoded]:
        time.sleep(took)
        return decode(source, arrived)

    monkeypatch.setattr(Source, "decode", slowly)
    path = write_video(tmp_path / "a.mp4", frames=300, options={"g": "50", "bf": "0"})
    watched = Watched(CameraConfig(id="yard", url=str(path), gate="off"))
    watched.loop._stop = rests = Rests()
    with watched:
        watched.wait(lambda w: len(w.samples) >= 36, 15.0)
    assert sum(seconds >= FIRST_GUESS_SECONDS + 0.01 for _, seconds in rests.begun) >= 8
    assert np.median(watched.late[20:]) < 3 * took, "four pictures gather in a rest that is too long"


@pytest.mark.parametrize("suffix", ["mp4", "h264"])
def test_of_a_file_only_packets_with_times_gather(suffix: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"a.{suffix}", frames=220, options={"g": "10", "bf": "0"})
    watched = Watched(CameraConfig(id="yard", url=str(path)))
    watched.loop._stop = rests = Rests()
    with watched:
        watched.wait(lambda w: len(w.samples) >= 30)
    begun = [seconds for _, seconds in rests.begun if seconds >= FIRST_GUESS_SECONDS + 0.01]  # its pace is not a rest
    assert (len(begun) >= 4) is (suffix == "mp4")
    apart = [two.time_seconds - one.time_seconds for one, two in pairwise(watched.samples)]
    assert all(0.2 < seconds < 0.3 for seconds in apart[1:-1])


@pytest.mark.parametrize("gate_quiet_seconds", [2.0, 60.0], ids=["idle", "awake"])
def test_over_udp_no_camera_rests(gate_quiet_seconds: float, tmp_path: Path, start_rtsp: StartRtsp) -> None:
    """What nobody reads goes lost there once the kernel's buffer is full: a few hundred kB on most machines."""
    fps = 15.0
    encode_stream([np.full((240, 320, 3), 90, np.uint8)] * 30, tmp_path / "still.h264", fps=fps, gop_seconds=1.0)
    server = start_rtsp({"yard": Mount(tmp_path / "still.h264", fps=fps)})
    settings = PLAN.settings.model_copy(update={"gate_quiet_seconds": gate_quiet_seconds})
    camera = CameraConfig.model_validate({"id": "yard", "url": server.url("yard"), "transport": "udp"})
    watched = Watched(camera, replace(PLAN, settings=settings))
    watched.loop._stop = rests = Rests()
    state = GateState.IDLE if gate_quiet_seconds == 2.0 else GateState.AWAKE
    with watched:
        watched.wait(lambda w: len(w.counts) > 6 and w.counts[-1].gate is state, 20.0)
        before = len(watched.counts)
        watched.wait(lambda w: len(w.counts) >= before + 3)
    assert rests.begun == []


def test_an_idle_camera_rests_only_where_nothing_is_to_be_caught_up_with(
    tmp_path: Path, start_rtsp: StartRtsp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine each packet takes as long as if it had to be waited for: who rested then would fall behind."""
    monkeypatch.setattr("monitor.capture.rests.WAITED_SECONDS", 0.0)
    fps, seconds = 15.0, 6.0
    encode_stream([np.full((240, 320, 3), 90, np.uint8)] * 30, tmp_path / "still.h264", fps=fps, gop_seconds=1.0)
    server = start_rtsp({"yard": Mount(tmp_path / "still.h264", fps=fps)})
    plan = replace(PLAN, settings=PLAN.settings.model_copy(update={"gate_quiet_seconds": 2.0}))
    with Watched(CameraConfig(id="yard", url=server.url("yard")), plan) as watched:
        watched.wait(lambda w: w.counts and w.counts[-1].gate is GateState.IDLE, 20.0)
        before = sum(counts.packets for counts in watched.counts)
        time.sleep(seconds)
        taken = sum(counts.packets for counts in watched.counts) - before
        assert watched.counts[-1].gate is GateState.IDLE
    assert taken > 0.75 * fps * seconds


def test_a_server_that_comes_back_is_found(stream_files: StreamFiles, start_rtsp: StartRtsp) -> None:
    server = start_rtsp({"yard": stream_files.mount()})
    with Watched(CameraConfig(id="yard", url=server.url("yard"))) as watched:
        watched.wait(lambda w: len(w.samples) >= 4)
        server.kill()
        watched.wait(lambda w: any(s.reason is FailureReason.CONNECTION_REFUSED for s in w.states))
        before = len(watched.samples)
        server.start()
        watched.wait(lambda w: len(w.samples) > before, 10.0)
    slots = [sample.slot for sample in watched.samples]
    assert slots == sorted(set(slots))


def test_a_size_change_of_a_live_camera(stream_files: StreamFiles, start_rtsp: StartRtsp) -> None:
    server = start_rtsp({"yard": stream_files.mount()})
    with Watched(CameraConfig(id="yard", url=server.url("yard"))) as watched:
        watched.wait(lambda w: len(w.samples) >= 4)
        server.set_file("yard", stream_files.h264_small, fps=stream_files.fps)
        before = len(watched.samples)
        watched.wait(lambda w: len(w.samples) >= before + 8)
    assert [state.state for state in watched.states] == [CameraState.CONNECTING, CameraState.ONLINE]


def test_a_hanging_call_is_overdue(stream_files: StreamFiles, start_rtsp: StartRtsp) -> None:
    server = start_rtsp({"yard": stream_files.mount()})
    with Watched(CameraConfig(id="yard", url=server.url("yard"))) as watched:
        watched.wait(lambda w: w.samples)
        assert watched.loop.overdue() is None
        server.stall("yard")
        watched.wait(lambda w: w.loop.overdue() or any(s.reason is FailureReason.STALLED for s in w.states), 3.0)
        server.resume("yard")
