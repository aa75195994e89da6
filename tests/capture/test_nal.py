from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from monitor.capture.nal import START_CODE, has_lengths, parameter_sets, sets_of_extradata, with_start_codes

codecs = st.sampled_from(["h264", "hevc", "mpeg4"])


@given(st.binary(max_size=200), st.binary(max_size=60), codecs)
@example(b"", b"\x01", "h264")
@example(b"", b"\x01" + bytes(22), "hevc")
@example(b"\xff\xff", b"\x01\x64\x00\x1f\xff\xff", "h264")
def test_damaged_streams_raise_nothing(payload: bytes, extradata: bytes, codec: str) -> None:
    for header in (extradata, b"\x01" + extradata):
        units = with_start_codes(payload, header, codec)
        assert isinstance(parameter_sets(units, codec), tuple)
        assert isinstance(sets_of_extradata(header, codec), bytes)
        assert not has_lengths(header, "mpeg4")


units = st.binary(min_size=1, max_size=30).map(lambda body: b"\x65" + body.replace(b"\x00", b"\x01"))


@given(st.lists(units, max_size=5), st.sampled_from([1, 2, 4]))
def test_lengths_become_start_codes(parts: list[bytes], size: int) -> None:
    extradata = bytes([1, 100, 0, 31, 0xFC | (size - 1), 0xE1, 0])
    payload = b"".join(len(part).to_bytes(size, "big") + part for part in parts)
    assert with_start_codes(payload, extradata, "h264") == b"".join(START_CODE + part for part in parts)


def test_sets_are_those_before_the_first_picture() -> None:
    sps, pps, picture = b"\x67one", b"\x68two", b"\x65three"
    stream = b"".join(START_CODE + unit for unit in (b"\x09\xf0", sps, pps, picture, b"\x67late"))
    assert parameter_sets(stream, "h264") == (sps, pps)
    assert parameter_sets(START_CODE + picture, "h264") == ()
