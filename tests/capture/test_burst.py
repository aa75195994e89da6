from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.capture.arrival import Arrived
from monitor.capture.burst import MOST_BYTES, MOST_SECONDS, settled
from monitor.capture.sampler import StreamClock
from monitor.errors import SourceFailed
from monitor.records import FailureReason

NOW = 1.7e9
"""When the first picture was seen, host time."""
BASE = Fraction(1, 90_000)


def came(pts_seconds: float | None, received_seconds: float, size: int = 100) -> Arrived:
    packet = av.Packet(bytes(size))
    packet.time_base = BASE
    packet.pts = packet.dts = None if pts_seconds is None else round(pts_seconds / BASE)
    return Arrived.of(packet, received_seconds, BASE)


def jumped(arrived: list[Arrived], first: int, seconds: float) -> list[Arrived]:
    """Return the packets with the timestamps shifted from one of them on."""
    return [
        came(one.seconds + seconds, one.received_seconds) if number >= first and one.seconds is not None else one
        for number, one in enumerate(arrived)
    ]


def late(one: Arrived, received_seconds: float) -> Arrived:
    return replace(one, received_seconds=received_seconds)


def times_of(arrived: list[Arrived]) -> list[float]:
    """Return when each picture counts as seen."""
    clock = StreamClock()
    return [clock.time_of(one.seconds, one.received_seconds) for one in settled(arrived, clock)]


def stream(fps: float, *, seconds: float, held: list[tuple[float, float]], begin: float = 0.0) -> list[Arrived]:
    """Pictures that arrive when they are seen, save those of `held` (from, until), which all arrive at its end."""
    arrived = []
    for number in range(int(seconds * fps)):
        seen = number / fps
        due = max([seen, *(until for since, until in held if since <= seen < until)])
        arrived.append(came(begin + seen, NOW + due))
    return arrived


def dated(arrived: list[Arrived], clock: StreamClock | None = None) -> list[tuple[float, float]]:
    """Return what each picture's time should be and is."""
    clock = clock or StreamClock()
    told = []
    for one in settled(arrived, clock):
        assert one.seconds is not None
        told.append((NOW + one.seconds, clock.time_of(one.seconds, one.received_seconds)))
    return told


@given(st.floats(4, 60), st.floats(0.0, 10.0))
@settings(max_examples=40, deadline=None)
def test_a_burst_at_the_beginning_is_dated_by_the_pace_behind_it(fps: float, held_seconds: float) -> None:
    """What a server with a cache of the last group of pictures sends, or FFmpeg's own look ahead."""
    told = dated(stream(fps, seconds=held_seconds + 3.0, held=[(0.0, held_seconds)]))
    assert len(told) > 3 * fps - 2
    assert all(time == pytest.approx(seen, abs=1e-3) for seen, time in told)


@given(st.floats(10, 60), st.integers(0, 11), st.floats(0.05, 0.6))
@settings(max_examples=40, deadline=None)
def test_a_reader_that_is_starved_in_mid_burst_is_not_deceived(fps: float, after: int, starved_seconds: float) -> None:
    """The first packets of a burst are read at once, the others after a pause that looks like the stream's pace."""
    arrived = stream(fps, seconds=3.0, held=[(0.0, 12 / fps)])
    pause = arrived[12].received_seconds + starved_seconds
    starved = [one if n <= after else late(one, max(one.received_seconds, pause)) for n, one in enumerate(arrived)]
    assert all(time == pytest.approx(seen, abs=1e-3) for seen, time in dated(starved))


@given(st.floats(4, 60), st.floats(0.1, 8.0))
@settings(max_examples=40, deadline=None)
def test_what_a_network_held_back_keeps_its_times(fps: float, held_seconds: float) -> None:
    arrived = stream(fps, seconds=16.0, held=[(5.0, 5.0 + held_seconds)])
    told = dated(arrived)
    assert all(time == pytest.approx(seen, abs=1e-3) for seen, time in told)
    assert len(told) == len(arrived)


@pytest.mark.parametrize(("fps", "held"), [(15.0, 3), (1.0, 1), (0.2, 1)])
def test_a_stream_at_its_own_pace_is_held_for_a_moment_only(fps: float, held: int) -> None:
    arrived = stream(fps, seconds=30.0, held=[])
    read = 0

    def count() -> Iterator[Arrived]:
        nonlocal read
        for read, one in enumerate(arrived, 1):  # noqa: B007 - read is what the test looks at
            yield one

    waits = []
    for yielded, _ in enumerate(settled(count(), StreamClock()), 1):
        waits.append(read - yielded)
    assert waits[0] <= held
    assert waits[held + 1 :] == [0] * len(waits[held + 1 :])


@pytest.mark.parametrize("seconds", [-3600.0, -3.0, 3.0, 3600.0])
def test_a_jump_in_mid_burst_spoils_no_time_after_it(seconds: float) -> None:
    times = times_of(jumped(stream(25.0, seconds=3.0, held=[(0.0, 1.0)]), 12, seconds))
    assert times[25:] == pytest.approx([NOW + number / 25 for number in range(25, 75)], abs=1e-3)
    assert all(NOW <= time <= NOW + 1.0 for time in times[:25])  # before it, nothing tells more


def test_timestamps_that_stood_still_are_no_burst() -> None:
    """The camera itself paused: the pictures after it are as new as they come."""
    arrived = stream(25.0, seconds=6.0, held=[])
    arrived[75:] = [late(one, one.received_seconds + 4.0) for one in arrived[75:]]
    assert times_of(arrived) == pytest.approx([one.received_seconds for one in arrived], abs=1e-3)


def test_a_stream_without_timestamps_passes() -> None:
    arrived = [came(None, NOW + number / 25) for number in range(50)]
    assert list(settled(arrived, StreamClock())) == arrived


def test_a_burst_without_end_is_let_go_by_time_and_by_bytes() -> None:
    quick = [came(number / 25, NOW + number / 1000) for number in range(3000)]
    clock = StreamClock()
    first = next(iter(settled(iter(quick), clock)))
    assert first == quick[0]
    assert clock.knows_delay
    large = [came(number / 25, NOW, size=MOST_BYTES // 4) for number in range(8)]
    read = iter(large)
    next(settled(read, StreamClock()))
    assert len(list(read)) == 4
    assert MOST_SECONDS == 1.0


@pytest.mark.parametrize(("reason", "kept"), [(FailureReason.ENDED, 5), (FailureReason.STALLED, 0)])
def test_what_is_held_when_a_stream_fails(reason: FailureReason, kept: int) -> None:
    """A short file from a server is shown; a picture that waited for a stall is not dated by a guess."""

    def failing() -> Iterator[Arrived]:
        yield from stream(25.0, seconds=0.2, held=[(0.0, 1.0)])
        raise SourceFailed("yard", reason, "over")

    told = []
    with pytest.raises(SourceFailed):
        for arrived in settled(failing(), StreamClock()):
            told.append(arrived)
    assert len(told) == kept


@pytest.mark.parametrize("seconds", [-3600.0, -3.0, -0.5, 1.0, 3600.0])
def test_a_picture_behind_a_jump_is_dated_although_it_came_late(seconds: float) -> None:
    times = times_of(jumped(stream(25.0, seconds=6.0, held=[(3.0, 3.3)]), 75, seconds))
    assert times == pytest.approx([NOW + number / 25 for number in range(150)], abs=1e-3)
