"""A reader that lets packets gather, beside one that takes each as it comes: both in simulated time."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from monitor.capture.arrival import Arrived
from monitor.capture.intake import Intake
from monitor.capture.rests import LONGEST_SECONDS, Rests
from monitor.capture.source import open_source
from monitor.config import CameraConfig, CaptureConfig
from monitor.records import Sample
from tests.capture.test_intake import BEGIN, FPS, SAMPLE_FPS, SHAPE, write

SECONDS = 24.0
EVENT = (14.0, 20.0)
FRAME_SECONDS = 1 / FPS
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
    took: float = 0.004,
    gate: str = "off",
    sample_fps: float = SAMPLE_FPS,
    stagger: float = 0.5,
    stamped: bool = True,
    set_back: tuple[float, float] = (math.inf, 0.0),
) -> Read:
    """Read a file as a camera would have sent it.

    Args:
        took: seconds that each packet takes.
        stamped: whether the packets tell their times.
        set_back: when the host's clock is, in seconds of the stream, and by how much.
    """
    camera = CameraConfig.model_validate({"id": "yard", "url": str(path), "gate": gate})
    settings = CaptureConfig(gate_quiet_seconds=4.0)
    intake = Intake(camera, sample_fps=sample_fps, shape=SHAPE, settings=settings)
    rests = Rests(intake, sample_fps=sample_fps, stagger=stagger)
    done = Read()
    with open_source(camera, settings) as source:
        intake.begin(source)
        rests.begin(room)
        base = source.stream.time_base
        assert base is not None
        packets = [packet for packet in source._container.demux(source.stream) if packet.size]
        sent = [number / FPS for number in range(len(packets))]
        coming = deque(zip(sent, [packet.size for packet in packets], strict=True))
        now = 0.0  # in seconds of the stream; the host's clock follows
        for packet, at in zip(packets, sent, strict=True):
            waited, now = max(0.0, at - now), max(now, at)
            unread = 0
            while coming and coming[0][0] <= now:
                unread += coming.popleft()[1]
            done.unread_bytes = max(done.unread_bytes, unread)
            shift = BEGIN - (set_back[1] if now >= set_back[0] else 0.0)
            if not stamped:
                packet.pts = packet.dts = None
            arrived = Arrived.of(packet, now + shift, base)
            for seen in intake.take(arrived):
                if seen.sample is not None:
                    done.samples.append(seen.sample)
                    done.told.append(now + took + shift)
            now += took
            rest = rests.after(arrived, waited_seconds=waited, took_seconds=took, now_seconds=now + shift)
            if rest:
                done.rests.append((now + shift, rest))
                now += rest
    return done


@pytest.mark.parametrize("stagger", [0.0, 1.0])
@pytest.mark.parametrize("took", [0.001, 0.004, 0.012, 0.02, 0.035])
@pytest.mark.parametrize("sample_fps", [2.0, 4.0, 7.5])
@pytest.mark.parametrize("name", ["h264", "reordered"])
def test_samples_come_as_soon_as_without_rests(
    name: str, sample_fps: float, took: float, stagger: float, streams: dict[str, Path]
) -> None:
    rested = read(streams[name], took=took, sample_fps=sample_fps, stagger=stagger)
    steady = read(streams[name], took=took, sample_fps=sample_fps, stagger=stagger, room=NO_ROOM)
    assert steady.rests == []
    assert [sample.slot for sample in rested.samples] == [sample.slot for sample in steady.samples]
    later = [one - other for one, other in zip(rested.late(), steady.late(), strict=True)]
    assert statistics.median(later) <= 1e-6
    assert max(later) <= took


@pytest.mark.parametrize("gate", ["auto", "off"])
@pytest.mark.parametrize("stagger", [0.0, 1.0])
def test_an_awake_cameras_packets_gather_between_samples(stagger: float, gate: str, streams: dict[str, Path]) -> None:
    rested = read(streams["h264"], stagger=stagger, gate=gate)
    awake = [(begun - BEGIN, seconds) for begun, seconds in rested.rests if gate == "off" or begun < BEGIN + 4.0]
    span = SECONDS if gate == "off" else 4.0
    assert len(awake) == pytest.approx((span - 1.0) * SAMPLE_FPS, abs=2), (
        "one before each slot, but in the first second"
    )
    assert sum(seconds for _, seconds in awake) > (0.75 - 0.25 * stagger) * (span - 1.0)
    for begun, seconds in awake:
        assert seconds >= FRAME_SECONDS
        early = math.ceil(begun * SAMPLE_FPS) / SAMPLE_FPS - (begun + seconds)
        assert 0.0 <= early - 0.25 * stagger / SAMPLE_FPS < FRAME_SECONDS


def test_an_idle_cameras_packets_gather_and_it_wakes_as_well(streams: dict[str, Path]) -> None:
    rested, steady = (read(streams["h264"], gate="auto", room=room) for room in (ROOM, NO_ROOM))
    idle = [seconds for begun, seconds in rested.rests if 6.0 < begun - BEGIN < EVENT[0]]
    assert set(idle) == {LONGEST_SECONDS}
    assert sum(idle) > 0.6 * (EVENT[0] - 6.0)
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


@pytest.mark.parametrize("room", [6_000, 8_000, 10_000])
def test_of_a_steady_stream_no_more_gathers_than_a_quarter_of_the_room(room: int, streams: dict[str, Path]) -> None:
    """All its packets are keyframes of like size. The rest of the room is for what begins to move."""
    rested = read(streams["intra"], room=room)
    largest = read(streams["intra"], room=NO_ROOM).unread_bytes
    assert 2_000 < largest < 3_000
    assert rested.unread_bytes <= largest + (room - largest) / 4
    assert bool(rested.rests) is (room >= 8_000)


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
    assert [sample.slot for sample in rested.samples] == [sample.slot for sample in steady.samples]
    later = [one - other for one, other in zip(rested.late(), steady.late(), strict=True)]
    assert max(later) <= LONGEST_SECONDS
    assert max(later[-20:]) <= 0.004
