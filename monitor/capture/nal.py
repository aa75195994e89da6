"""Pieces of an H.264 or H.265 stream in; its parameter sets, and the same pieces with start codes, out. Pure.

Streams come in two spellings: with start codes before each unit (ITU-T H.264 and H.265, Annex B; RTSP), or with the
length before each unit and the parameter sets apart (ISO/IEC 14496-15; files, RTMP). A clip is written from the first.
"""

from __future__ import annotations

from collections.abc import Iterator

START_CODE = b"\x00\x00\x00\x01"
H264_SPS, H264_PPS = 7, 8
H265_VPS, H265_SPS, H265_PPS = 32, 33, 34
H264_FIRST_PICTURE, H264_LAST_PICTURE = 1, 5
H265_LAST_PICTURE = 31
AVCC_LENGTH_AT, AVCC_SETS_AT = 4, 5
HVCC_LENGTH_AT, HVCC_SETS_AT = 21, 22


def parameter_sets(units: bytes, codec: str) -> tuple[bytes, ...]:
    """Return the parameter sets before the first picture of a piece with start codes; empty for other codecs."""
    sets = []
    for unit in _units(units):
        kind = _kind(unit, codec)
        if _is_picture(kind, codec):
            break
        if _is_set(kind, codec):
            sets.append(unit)
    return tuple(sets)


def has_lengths(extradata: bytes, codec: str) -> bool:
    """Whether a stream with this extradata writes lengths in place of start codes."""
    least = {"h264": AVCC_SETS_AT, "hevc": HVCC_SETS_AT}.get(codec)
    return least is not None and len(extradata) > least and extradata[:1] == b"\x01"


def with_start_codes(payload: bytes, extradata: bytes, codec: str) -> bytes:
    """Return a packet's units with start codes, whichever way the stream spells them."""
    if not has_lengths(extradata, codec):
        return payload
    at = AVCC_LENGTH_AT if codec == "h264" else HVCC_LENGTH_AT
    size = (extradata[at] & 3) + 1
    return b"".join(START_CODE + unit for unit in _counted(payload, size))


def sets_of_extradata(extradata: bytes, codec: str) -> bytes:
    """Return the parameter sets (or another codec's header) that stand apart from the packets, with start codes."""
    if not has_lengths(extradata, codec):
        return extradata
    sets = _avcc_sets(extradata) if codec == "h264" else _hvcc_sets(extradata)
    return b"".join(START_CODE + unit for unit in sets)


def _units(stream: bytes) -> Iterator[bytes]:
    begin = stream.find(START_CODE[1:])
    while begin >= 0:
        end = stream.find(START_CODE[1:], begin + 3)
        unit = stream[begin + 3 : end if end >= 0 else len(stream)]
        yield unit.rstrip(b"\x00") if end >= 0 else unit
        begin = end


def _kind(unit: bytes, codec: str) -> int:
    if not unit:
        return -1
    return unit[0] & 0x1F if codec == "h264" else (unit[0] >> 1) & 0x3F


def _is_set(kind: int, codec: str) -> bool:
    if codec == "h264":
        return kind in (H264_SPS, H264_PPS)
    return codec == "hevc" and kind in (H265_VPS, H265_SPS, H265_PPS)


def _is_picture(kind: int, codec: str) -> bool:
    if codec == "h264":
        return H264_FIRST_PICTURE <= kind <= H264_LAST_PICTURE
    return 0 <= kind <= H265_LAST_PICTURE


def _counted(units: bytes, size: int) -> Iterator[bytes]:
    """Yield units that each have their length before them; a cut end is left out."""
    at = 0
    while at + size <= len(units):
        length = int.from_bytes(units[at : at + size], "big")
        at += size
        if at + length > len(units):
            return
        yield units[at : at + length]
        at += length


def _avcc_sets(extradata: bytes) -> Iterator[bytes]:
    """ISO/IEC 14496-15, 5.3.3.1: a count of SPS, then a count of PPS, each set with two bytes of length."""
    at = AVCC_SETS_AT
    for mask in (0x1F, 0xFF):
        count = extradata[at] & mask if at < len(extradata) else 0
        at += 1
        for unit in _first(extradata, at, count):
            yield unit
            at += 2 + len(unit)


def _hvcc_sets(extradata: bytes) -> Iterator[bytes]:
    """ISO/IEC 14496-15, 8.3.3.1: arrays, one a kind, each with a count."""
    arrays = extradata[HVCC_SETS_AT] if len(extradata) > HVCC_SETS_AT else 0
    at = HVCC_SETS_AT + 1
    for _ in range(arrays):
        count = int.from_bytes(extradata[at + 1 : at + 3], "big")
        at += 3
        for unit in _first(extradata, at, count):
            yield unit
            at += 2 + len(unit)


def _first(stream: bytes, at: int, count: int) -> Iterator[bytes]:
    for number, unit in enumerate(_counted(stream[at:], 2)):
        if number == count:
            return
        yield unit
