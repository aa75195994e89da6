"""A reader that lets packets gather, beside one that takes each as it comes: both in simulated time."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from monitor.capture.arrival import Arrived
from monitor.capture.intake import Intake
from monitor.capture.rests import LONGEST_SECONDS, PERIOD_SECONDS, Rests
from monitor.capture.source import open_source
from monitor.config import CameraConfig, CaptureConfig
from monitor.records import Sample
from tests.capture.test_intake import BEGIN, FPS, SAMPLE_FPS, SHAPE, write

SECONDS = 24.0
EVENT = (14.0, 20.0)
FRAME_SECONDS = 1 / FPS
QUIET_SECONDS = 8.0
LEARNING_SECONDS = 2 * PERIOD_SECONDS
"""So long it takes until a stream's pace is known."""
NO_ROOM = 0
ROOM = 2**20

pytestmark = pytest.mark.xdist_group("rests")  # they share drawn streams


@pytest.fixture(scope="session")
def streams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rested")
    names = ("h264", "reordered", "intra")
    return {name: write(folder / f"{name}.mkv", name, seconds=SECONDS, event=EVENT) for name in names}


@dataclass
class Read:
    """What a reader made of a stream."""

    samples: list[Sample] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    """When each sample was handed over."""
    rests: list[tuple[float, float]] = field(default_factory=list)
    """When each rest began, and its seconds."""
    unread_bytes: int = 0
    """The most that had come and was not read."""

    def late(self) -> list[float]:
        """Return how long after its picture came each sample was handed over."""
        return [told - sample.time_seconds for told, sample in zip(self.told, self.samples, strict=True)]


def read(
    path: Path,
    *,
    room: int = ROOM,
    took: float | Callable[[float, bool], float] = 0.004,
    least_wait: float = 0.0,
    gate: str = "off",
    sample_fps: float = SAMPLE_FPS,
    stagger: float = 0.5,
    fps: float = FPS,
    stamped: bool = True,
    grid_seconds: float = 0.0,
    set_back: tuple[float, float] = (math.inf, 0.0),
    reconnects_at: float = math.inf,
) -> Read:
    """Read a file as a camera would have sent it.

    Args:
        took: seconds that a packet takes; or what returns them for its time, and whether it is a keyframe.
        least_wait: seconds that each packet has to be waited for on a busy machine, although it has come.
        fps: at which the pictures come, whatever their timestamps say.
        stamped: whether the packets tell their times.
        grid_seconds: where in a slot the stream begins.
        set_back: when the host's clock is, in seconds of the stream, and by how much.
        reconnects_at: when the connection is a new one.
    """
    camera = CameraConfig.model_validate({"id": "yard", "url": str(path), "gate": gate})
    settings = CaptureConfig(gate_quiet_seconds=QUIET_SECONDS)
    intake = Intake(camera, sample_fps=sample_fps, shape=SHAPE, settings=settings)
    rests = Rests(intake, sample_fps=sample_fps, stagger=stagger)
    done = Read()
    with open_source(camera, settings) as source:
        intake.begin(source)
        rests.begin(room)
        base = source.stream.time_base
        assert base is not None
        packets = [packet for packet in source._container.demux(source.stream) if packet.size]
        sent = [number / fps for number in range(len(packets))]
        coming = deque(zip(sent, [packet.size for packet in packets], strict=True))
        now = 0.0  # in seconds of the stream; the host's clock follows
        for packet, at in zip(packets, sent, strict=True):
            waited = max(least_wait, at - now)
            now += waited
            if now - waited < reconnects_at <= now:
                intake.begin(source)
                rests.begin(room)
            unread = 0
            while coming and coming[0][0] <= now:
                unread += coming.popleft()[1]
            done.unread_bytes = max(done.unread_bytes, unread)
            shift = BEGIN + grid_seconds - (set_back[1] if now >= set_back[0] else 0.0)
            if not stamped:
                packet.pts = packet.dts = None
            arrived = Arrived.of(packet, now + shift, base)
            takes = took if isinstance(took, float) else took(at, packet.is_keyframe)
            for seen in intake.take(arrived):
                if seen.sample is not None:
                    done.samples.append(seen.sample)
                    done.told.append(now + takes + shift)
            now += takes
            rest = rests.after(arrived, waited_seconds=waited, took_seconds=takes, now_seconds=now + shift)
            if rest:
                done.rests.append((now + shift, rest))
                now += rest
    return done


def later(rested: Read, steady: Read) -> list[float]:
    """Return how much later with rests each sample was told than without; they have to be the same ones."""
    assert steady.rests == []
    assert [sample.slot for sample in rested.samples] == [sample.slot for sample in steady.samples]
    return [one - other for one, other in zip(rested.late(), steady.late(), strict=True)]


@pytest.mark.parametrize("stagger", [0.0, 1.0])
@pytest.mark.parametrize("took", [0.001, 0.004, 0.012, 0.02, 0.035])
@pytest.mark.parametrize("sample_fps", [2.0, 4.0, 7.5])
@pytest.mark.parametrize("name", ["h264", "reordered", "intra"])
def test_samples_come_as_soon_as_without_rests(
    name: str, sample_fps: float, took: float, stagger: float, streams: dict[str, Path]
) -> None:
    rested = read(streams[name], took=took, sample_fps=sample_fps, stagger=stagger)
    steady = read(streams[name], took=took, sample_fps=sample_fps, stagger=stagger, room=NO_ROOM)
    if name != "reordered" and took <= 0.012:
        assert len(rested.rests) >= 0.5 * len(rested.samples)
    assert statistics.median(later(rested, steady)) <= 1e-6
    assert max(later(rested, steady)) <= took


@pytest.mark.parametrize("stagger", [0.0, 1.0])
@pytest.mark.parametrize(("keyframe", "other"), [(0.03, 0.006), (0.06, 0.012), (0.1, 0.02)])
def test_a_keyframe_that_comes_while_it_rests_makes_no_sample_late(
    keyframe: float, other: float, stagger: float, streams: dict[str, Path]
) -> None:
    def took(_: float, is_keyframe: bool) -> float:
        return keyframe if is_keyframe else other

    rested, steady = (
        read(streams["h264"], took=took, stagger=stagger, grid_seconds=0.06, room=room) for room in (ROOM, NO_ROOM)
    )
    assert rested.rests
    assert max(later(rested, steady)) <= 1e-6


@pytest.mark.parametrize("took", [0.039, 0.045, 0.06])
@pytest.mark.parametrize("gate", ["auto", "off"])
def test_who_cannot_keep_up_does_not_rest(gate: str, took: float, streams: dict[str, Path]) -> None:
    """On a busy machine a packet that has come is waited for all the same."""
    rested = read(streams["h264"], took=took, least_wait=0.003, gate=gate)
    assert rested.rests == []


def test_who_was_late_for_a_while_catches_up_as_soon(streams: dict[str, Path]) -> None:
    def took(at: float, _: bool) -> float:
        return 0.05 if 10.0 <= at < 12.0 else 0.004

    rested, steady = (read(streams["h264"], took=took, least_wait=0.003, room=room) for room in (ROOM, NO_ROOM))
    assert rested.rests[-1][0] - BEGIN > 20.0
    assert max(steady.late()) > 0.5
    assert max(later(rested, steady)) <= 0.2, "the first packets that take longer are not foreseen"
    assert max(later(rested, steady)[-20:]) <= 1e-6


@pytest.mark.parametrize("took", [0.004, 0.012, 0.02])
@pytest.mark.parametrize("sample_fps", [1.0, 2.0, 4.0])
def test_on_a_busy_machine_nobody_rests_before_what_gathered_is_read(
    sample_fps: float, took: float, streams: dict[str, Path]
) -> None:
    rested, steady = (
        read(streams["h264"], took=took, sample_fps=sample_fps, stagger=0.0, least_wait=0.003, room=room)
        for room in (ROOM, NO_ROOM)
    )
    assert max(later(rested, steady)) <= FRAME_SECONDS
    assert statistics.mean(later(rested, steady)) <= 0.01
    assert rested.rests


def test_who_once_took_too_long_rests_again(streams: dict[str, Path]) -> None:
    """Also where nothing gathers meanwhile by which to see that it takes no longer."""

    def took(at: float, _: bool) -> float:
        return 0.08 if 8.0 <= at < 8.5 else 0.004

    rested = read(streams["h264"], took=took, least_wait=0.003)
    assert [at for at, _ in rested.rests if at - BEGIN > 12.0]


@pytest.mark.parametrize("gate", ["auto", "off"])
@pytest.mark.parametrize("stagger", [0.0, 1.0])
def test_an_awake_cameras_packets_gather_between_samples(stagger: float, gate: str, streams: dict[str, Path]) -> None:
    rested = read(streams["h264"], stagger=stagger, gate=gate)
    span = SECONDS if gate == "off" else QUIET_SECONDS
    awake = [(begun - BEGIN, seconds) for begun, seconds in rested.rests if begun < BEGIN + span]
    assert len(awake) == pytest.approx((span - LEARNING_SECONDS) * SAMPLE_FPS, abs=2), "one before each slot"
    assert awake[0][0] >= LEARNING_SECONDS
    assert sum(seconds for _, seconds in awake) > (0.75 - 0.25 * stagger) * (span - LEARNING_SECONDS)
    for begun, seconds in awake:
        assert seconds >= FRAME_SECONDS
        early = math.ceil(begun * SAMPLE_FPS) / SAMPLE_FPS - (begun + seconds)
        assert 0.0 <= early - 0.25 * stagger / SAMPLE_FPS < FRAME_SECONDS


def test_an_idle_cameras_packets_gather_and_it_wakes_as_well(streams: dict[str, Path]) -> None:
    rested, steady = (read(streams["h264"], gate="auto", room=room) for room in (ROOM, NO_ROOM))
    idle = [seconds for begun, seconds in rested.rests if QUIET_SECONDS + 1 < begun - BEGIN < EVENT[0]]
    assert set(idle) == {LONGEST_SECONDS}
    assert sum(idle) > 0.6 * (EVENT[0] - QUIET_SECONDS - 1)
    event, expected = (
        {sample.slot for sample in one.samples if EVENT[0] <= sample.time_seconds - BEGIN < EVENT[1]}
        for one in (rested, steady)
    )
    assert event == expected


@pytest.mark.parametrize("gate", ["auto", "off"])
def test_no_packets_gather_that_tell_no_times(gate: str, streams: dict[str, Path]) -> None:
    """They count as seen when they are read: in a row they would all be of one moment."""
    unstamped = read(streams["h264"], stamped=False, gate=gate)
    assert unstamped.rests == []
    apart = [two.time_seconds - one.time_seconds for one, two in pairwise(unstamped.samples) if not two.idle_slots]
    assert max(apart[1:8]) < 1 / SAMPLE_FPS + FRAME_SECONDS


@pytest.mark.parametrize("gate", ["auto", "off"])
@pytest.mark.parametrize("fps", [12.0, 24.0, 26.0, 30.0, 50.0])
def test_no_packets_gather_whose_times_are_invented(fps: float, gate: str, streams: dict[str, Path]) -> None:
    """As FFmpeg's for motion JPEG over HTTP, 25 a second whatever the camera does."""
    assert read(streams["h264"], fps=fps, gate=gate).rests == []


def test_a_new_connection_is_learnt_anew(streams: dict[str, Path]) -> None:
    begun = [at - BEGIN for at, _ in read(streams["h264"], reconnects_at=10.0).rests]
    assert [at for at in begun if 10.0 <= at < 10.0 + LEARNING_SECONDS] == []
    assert [at for at in begun if at < 10.0]
    assert [at for at in begun if at > 10.0 + LEARNING_SECONDS]


@pytest.mark.parametrize("room", [8_000, 10_000])
def test_of_a_steady_stream_no_more_gathers_than_a_quarter_of_the_room(room: int, streams: dict[str, Path]) -> None:
    """All its packets are keyframes of like size. The rest of the room is for what begins to move."""
    rested = read(streams["intra"], room=room)
    largest = read(streams["intra"], room=NO_ROOM).unread_bytes
    assert 2_000 < largest < 3_000
    assert rested.unread_bytes <= largest + (room - largest) / 4
    assert rested.rests


@pytest.mark.parametrize("room", [3_500, 4_000, 5_000])
def test_there_is_always_room_for_a_keyframe(room: int, streams: dict[str, Path]) -> None:
    rested = read(streams["h264"], room=room)
    assert rested.rests
    assert rested.unread_bytes <= room


def test_a_slow_stream_never_rests_for_longer_than_an_idle_one(streams: dict[str, Path]) -> None:
    rested = read(streams["h264"], sample_fps=1.0)
    assert max(seconds for _, seconds in rested.rests) == LONGEST_SECONDS
    assert [sample.slot for sample in rested.samples] == [
        sample.slot for sample in read(streams["h264"], sample_fps=1.0, room=NO_ROOM).samples
    ]


@pytest.mark.parametrize("seconds", [0.3, 5.0, 3600.0])
def test_a_host_clock_that_is_set_back_holds_no_packets_up(seconds: float, streams: dict[str, Path]) -> None:
    """Until it has caught up with the grid, or the grid begins anew, the next slot is far off."""
    rested, steady = (read(streams["h264"], set_back=(8.0, seconds), room=room) for room in (ROOM, NO_ROOM))
    assert max(seconds for _, seconds in rested.rests) <= LONGEST_SECONDS
    assert max(later(rested, steady)) <= LONGEST_SECONDS
    assert max(later(rested, steady)[-20:]) <= 0.004
