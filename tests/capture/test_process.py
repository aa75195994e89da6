from __future__ import annotations

import os
import pickle
import struct
import sys
import threading
import time
from pathlib import Path
from queue import Empty, Queue

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.bundle import SampleShape
from monitor.capture import pipe
from monitor.capture.camera import CameraLoop, CapturePlan
from monitor.capture.handover import Handover, Phase
from monitor.capture.life import Life, begin_life
from monitor.capture.pipe import AddCamera, Channel, Command, Heartbeat, MessageUnreadable, Report, channel_pair
from monitor.capture.process import Outgoing, Worker, added
from monitor.config import CameraConfig, CaptureConfig
from monitor.errors import SourceFailed
from monitor.records import CameraState, CameraStatus, CaptureCounts, DropReason, FailureReason, Sample
from tests.capture.drawing import write_video


def sample_of(slot: int, camera: str = "yard") -> Sample:
    pictures = np.full((2, 64, 64, 3), slot % 256, np.uint8)
    return Sample(camera, slot, slot / 4, slot / 4, None, pictures)


@given(st.lists(st.sampled_from(["a", "b"]), max_size=60), st.integers(1, 10))
def test_the_oldest_samples_go_and_are_counted(cameras: list[str], bound: int) -> None:
    outgoing = Outgoing(bound)
    for slot, camera in enumerate(cameras):
        outgoing.put(sample_of(slot, camera))
        outgoing.put(CaptureCounts(camera, packets=1))
    taken = []
    while not outgoing.empty:
        taken.append(outgoing.take())
    slots = [report.slot for report in taken if isinstance(report, Sample)]
    counts = {report.camera: report for report in taken if isinstance(report, CaptureCounts)}
    assert slots == list(range(len(cameras)))[-bound:]
    assert sum(count.packets for count in counts.values()) == len(cameras)
    dropped = sum(count.dropped.get(DropReason.CAPTURE_QUEUE, 0) for count in counts.values())
    assert dropped == max(0, len(cameras) - bound)


def test_states_are_never_dropped_and_go_first() -> None:
    outgoing = Outgoing(1)
    outgoing.put(sample_of(1))
    for second in range(100):
        outgoing.put(CameraStatus("yard", CameraState.OFFLINE, float(second)))
    taken = [outgoing.take() for _ in range(101)]
    assert [report.time_seconds for report in taken[:100]] == list(range(100))
    assert isinstance(taken[100], Sample)


def test_counts_wait_for_what_comes_next_and_for_the_end() -> None:
    ours, theirs = channel_pair()
    shape = SampleShape(pictures=1, context_spacing_seconds=0.0, width_pixels=32, height_pixels=32)
    end_of_worker: Channel[Command, Report] = Channel(theirs.detach())
    worker = Worker(end_of_worker, CapturePlan(CaptureConfig(), 4.0, shape))
    told: Queue[object] = Queue()
    for body in (worker._send, lambda: [told.put(ours.receive()) for _ in range(5)]):
        threading.Thread(target=body, daemon=True).start()
    time.sleep(0.2)
    worker._outgoing.put(CaptureCounts("a", packets=1))
    worker._outgoing.put(CaptureCounts("b", packets=1))
    with pytest.raises(Empty):
        told.get(timeout=0.2)
    worker._outgoing.put(sample_of(1))
    assert [type(told.get(timeout=5)) for _ in range(3)] == [CaptureCounts, CaptureCounts, Sample]
    worker._outgoing.put(CaptureCounts("a", packets=2))
    worker._close()
    assert [type(told.get(timeout=5)) for _ in range(2)] == [Heartbeat, CaptureCounts]
    end_of_worker.close()
    ours.close()


def test_counts_add_up() -> None:
    one = CaptureCounts("a", packets=1, dropped={DropReason.CAPTURE_QUEUE: 1}, last_frame_seconds=1.0, skew_seconds=0.5)
    two = CaptureCounts("a", packets=2, dropped={DropReason.CAPTURE_QUEUE: 2}, last_frame_seconds=2.0)
    both = added(one, two)
    assert (both.packets, both.dropped) == (3, {DropReason.CAPTURE_QUEUE: 3})
    assert (both.last_frame_seconds, both.skew_seconds) == (2.0, 0.5)


def test_a_channel_carries_samples_cameras_and_its_own_end() -> None:
    ours, theirs = channel_pair()
    other: Channel[AddCamera, Sample | Heartbeat] = Channel(theirs.detach())
    received: list[object] = []

    def read() -> None:
        with pytest.raises((EOFError, OSError)):
            while True:
                received.append(ours.receive())

    reader = threading.Thread(target=read)
    reader.start()
    for slot in range(50):
        other.send(sample_of(slot))
    other.send(Heartbeat(1, 0, 0.0, 90_000_000, 0.5))
    other.close()
    reader.join(5)
    assert [report.slot for report in received[:-1]] == list(range(50))  # type: ignore[attr-defined]
    assert received[-1] == Heartbeat(1, 0, 0.0, 90_000_000, 0.5)
    last = received[-2]
    assert isinstance(last, Sample)
    assert (last.pictures == 49).all()
    assert not last.pictures.flags.writeable
    ours.close()


@pytest.mark.parametrize(
    "spoken",
    [
        struct.pack("=IQ", 1, 9) + b"no pickle",
        struct.pack("=I", 0),
        b"\xff" * 4,
        struct.pack("=IQ", 1, 2**62),
        struct.pack("=IQQ", 2, 2, 2**62),
        struct.pack("=I64Q", 64, *[2**22] * 64),
    ],
    ids=["no pickle", "no parts", "too many parts", "a part too long", "a picture too long", "too much in all"],
)
def test_rubbish_in_a_pipe_is_told_at_once(spoken: bytes) -> None:
    """Nobody waits for bytes that were never meant, or makes room for more than a message may have."""
    ours, theirs = channel_pair()
    with theirs:
        theirs.sendall(spoken)
        with pytest.raises(MessageUnreadable):
            ours.receive()
    ours.close()


def test_a_message_that_there_is_no_memory_for_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the other side that is damaged, and no reason for this one to end."""

    def little_memory(size: int) -> bytearray:
        if size > 1000:
            raise MemoryError
        return bytearray(size)

    monkeypatch.setattr(pipe, "bytearray", little_memory, raising=False)
    ours, theirs = channel_pair()
    with theirs:
        theirs.sendall(struct.pack("=IQ", 1, pipe.MOST_BYTES))
        with pytest.raises(MessageUnreadable):
            ours.receive()
    ours.close()


def test_a_pipe_that_ends_within_a_message_has_ended() -> None:
    ours, theirs = channel_pair()
    with theirs:
        theirs.sendall(struct.pack("=IQ", 1, 9) + b"no")
    with pytest.raises(EOFError):
        ours.receive()
    ours.close()


def test_a_cameras_password_survives_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARD_PASSWORD", "p@ss")
    camera = CameraConfig(id="yard", url="rtsp://127.0.0.1/x", username="user", password_env="YARD_PASSWORD")
    head = pickle.dumps(camera)
    del os.environ["YARD_PASSWORD"]
    assert pickle.loads(head).login_url.get_secret_value() == "rtsp://user:p%40ss@127.0.0.1/x"
    assert "p@ss" not in repr(camera)


def test_a_process_that_cannot_be_started_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    shape = SampleShape(pictures=1, context_spacing_seconds=0, width_pixels=32, height_pixels=32)
    plan = CapturePlan(CaptureConfig(), 4.0, shape)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):
        begin_life(plan, read=lambda _: None, reader="reader")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_pipe_that_nobody_reads_does_not_block_for_ever() -> None:
    ours, theirs = channel_pair()
    with theirs, pytest.raises(OSError):
        for _ in range(10_000):
            ours.send(sample_of(1))  # type: ignore[arg-type]
    ours.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_cameras_thread_that_ends_by_itself_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "yard.mp4"
    write_video(path, frames=300)
    run, failed = CameraLoop.run, threading.Event()

    def fail_once(loop: CameraLoop, after: SourceFailed | None = None) -> None:
        if not failed.is_set():
            failed.set()
            raise MemoryError
        run(loop, after)

    monkeypatch.setattr(CameraLoop, "run", fail_once)
    ours, theirs = channel_pair()
    shape = SampleShape(pictures=1, context_spacing_seconds=0.0, width_pixels=32, height_pixels=32)
    end_of_worker: Channel[Command, Report] = Channel(theirs.detach())
    worker = Worker(end_of_worker, CapturePlan(CaptureConfig(), 4.0, shape))
    worker._add(CameraConfig(id="yard", url=str(path)))
    told: list[object] = []
    end = time.monotonic() + 10
    while not any(isinstance(report, Sample) for report in told):
        assert time.monotonic() < end, told
        worker._replace_overdue()
        time.sleep(0.05)
        while not worker._outgoing.empty:
            told.append(worker._outgoing.take())
    lost = next(report for report in told if isinstance(report, CameraStatus))
    assert (lost.state, lost.reason, lost.detail) == (CameraState.OFFLINE, FailureReason.INTERNAL, "its thread ended")
    worker._remove("yard")
    end_of_worker.close()
    ours.close()


def test_cameras_may_come_and_go_while_a_handover_looks_who_waits() -> None:
    handover = Handover(None, None, linger_seconds=0.0, reason="")  # type: ignore[arg-type]
    cameras = dict.fromkeys("abcdefgh")
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            cameras.update(dict.fromkeys(range(9)))
            for number in range(9):
                del cameras[number]  # type: ignore[arg-type]

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(20_000):
            assert set("abcdefgh") <= set(handover.waiting(cameras))
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(before)


def test_a_successor_that_is_always_second_gets_the_camera_all_the_same() -> None:
    """Both sample the same pictures; which of them is faster must not matter."""
    old, new = (Life(process=None, channel=None) for _ in range(2))  # type: ignore[arg-type]
    handover = Handover(old, new, linger_seconds=0.0, reason="")
    handover.enter(Phase.OVERLAP)
    told = [
        report
        for report in map(sample_of, range(6, 10))
        for process in (old, new)
        for report in handover.passed(process, report)
    ]
    assert [report.slot for report in told if isinstance(report, Sample)] == [6, 7, 8, 9]
    assert handover.waiting(["yard"]) == ()
