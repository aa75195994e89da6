from __future__ import annotations

from fractions import Fraction

import av
from hypothesis import given
from hypothesis import strategies as st

from monitor.capture.ring import PacketRing, RingWriter, StreamFormat

FORMAT = StreamFormat("h264", b"", Fraction(1, 1000))


def packet_of(size: int, pts: int | None, *, key: bool, dts: int | None = None) -> av.Packet:
    packet = av.Packet(bytes([size % 256]) * size)
    packet.pts, packet.dts, packet.time_base = pts, pts if dts is None else dts, FORMAT.time_base
    packet.is_keyframe = key
    return packet


def put(writer: RingWriter, seconds: float, *, size: int = 100, key: bool = False, pts: float | None = None) -> None:
    ticks = round((seconds if pts is None else pts) * 1000)
    packet = packet_of(size, ticks, key=key)
    writer.append(packet, seconds=seconds, received_seconds=seconds)


packets = st.lists(st.tuples(st.integers(1, 400), st.booleans(), st.floats(0.01, 3.0)), max_size=80)


@given(packets, st.integers(200, 3000), st.floats(1.0, 20.0), st.floats(0.0, 100.0))
def test_it_is_bounded_and_whatever_is_taken_begins_with_a_keyframe(
    stream: list[tuple[int, bool, float]], most_bytes: int, seconds: float, wanted: float
) -> None:
    ring = PacketRing(seconds=seconds, most_bytes=most_bytes)
    writer = ring.begin(FORMAT)
    now, keys = 0.0, []
    for size, key, step in stream:
        now += step
        put(writer, now, size=size, key=key)
        keys += [now] if key else []
        held = ring.since(0.0)
        assert ring.bytes == sum(len(packet.payload) for packet in held) <= most_bytes
        assert not held or held[0].is_keyframe
        whole = [packet.seconds for packet in held if packet.is_keyframe]
        assert len(whole) < 2 or whole[1] > now - seconds  # one group more than the bound at most
        assert [packet.serial for packet in held] == sorted(packet.serial for packet in held)
    taken = ring.since(wanted)
    if taken:
        held_keys = [packet.seconds for packet in ring.since(0.0) if packet.is_keyframe]
        before = [key for key in held_keys if key <= wanted]
        assert taken[0].seconds == (before[-1] if before else held_keys[0])
        assert taken[-1].seconds == ring.since(0.0)[-1].seconds


def test_it_reaches_back_as_far_as_asked() -> None:
    ring = PacketRing(seconds=10, most_bytes=1_000_000)
    writer = ring.begin(FORMAT)
    for number in range(1000):
        put(writer, number / 10, key=number % 20 == 0)
    assert 10.0 <= 99.9 - ring.since(0.0)[0].seconds <= 12.0


def test_what_comes_after_a_packet_is_found_and_losses_show() -> None:
    ring = PacketRing(seconds=10, most_bytes=1000)
    writer = ring.begin(FORMAT)
    put(writer, 0.0, key=True)
    last = ring.since(0.0)[-1].serial
    put(writer, 0.1)
    assert [packet.serial for packet in ring.after(last)] == [last + 1]
    for number in range(2, 40):
        put(writer, number / 10, key=number % 5 == 0)
    assert ring.after(last)[0].serial > last + 1


def test_a_group_larger_than_the_ring_is_not_kept_and_the_next_is() -> None:
    ring = PacketRing(seconds=10, most_bytes=1000)
    writer = ring.begin(FORMAT)
    for number in range(20):
        put(writer, number / 10, key=number == 0)
    assert ring.since(0.0) == ()
    put(writer, 2.0, key=True)
    assert [packet.seconds for packet in ring.since(0.0)] == [2.0]


def test_a_reconnect_is_a_new_segment_and_silences_the_old_writer() -> None:
    ring = PacketRing(seconds=10, most_bytes=10_000)
    old = ring.begin(FORMAT)
    put(old, 0.0, key=True)
    segment = ring.since(0.0)[0].segment
    assert not ring.is_over(segment)
    new = ring.begin(FORMAT)
    assert ring.is_over(segment)
    put(old, 0.1)
    put(new, 0.2)  # in mid-group: it has no keyframe to stand on
    put(new, 0.3, key=True)
    old.end()
    held = ring.since(0.0)
    assert [packet.seconds for packet in held] == [0.0, 0.3]
    assert held[0].segment is not held[1].segment
    assert not ring.is_over(held[1].segment)
    new.end()
    assert ring.is_over(held[1].segment)


def test_timestamps_that_jump_begin_a_new_segment() -> None:
    for jump in (60.0, -60.0):
        ring = PacketRing(seconds=100, most_bytes=10_000)
        writer = ring.begin(FORMAT)
        put(writer, 0.0, key=True, pts=100.0)
        put(writer, 0.1, pts=100.1)
        put(writer, 0.2, pts=100.2 + jump)
        put(writer, 0.3, pts=100.3 + jump, key=True)
        held = ring.since(0.0)
        assert [packet.seconds for packet in held] == [0.0, 0.1, 0.3]
        assert held[0].segment is held[1].segment is not held[2].segment


def test_a_network_burst_is_no_jump() -> None:
    ring = PacketRing(seconds=100, most_bytes=10_000)
    writer = ring.begin(FORMAT)
    for number in range(50):  # five seconds of pictures that all come after a stall of five
        put(writer, 5.0 + number * 0.001, pts=number / 10, key=number == 0)
    assert len({id(packet.segment) for packet in ring.since(0.0)}) == 1


def test_a_decoded_frame_corrects_its_packets_time() -> None:
    ring = PacketRing(seconds=100, most_bytes=10_000)
    writer = ring.begin(FORMAT)
    for number in range(5):
        put(writer, number / 10, key=number == 0)
    writer.date(200, 0.17)
    writer.date(None, 9.0)
    writer.date(777, 9.0)
    assert [packet.seconds for packet in ring.since(0.0)] == [0.0, 0.1, 0.17, 0.3, 0.4]


def test_packets_without_timestamps_are_dated_by_their_arrival() -> None:
    ring = PacketRing(seconds=100, most_bytes=10_000)
    writer = ring.begin(FORMAT)
    for number in range(3):
        packet = av.Packet(b"x")
        packet.is_keyframe = number == 0
        writer.append(packet, seconds=number / 10, received_seconds=50 + number / 10)
    assert [packet.pts for packet in ring.since(0.0)] == [0, 100, 200]
