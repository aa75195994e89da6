"""Clips are decoded again and compared with what went in, picture by picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from monitor.capture.clip import ClipWriter
from monitor.capture.nal import parameter_sets, sets_of_extradata, with_start_codes
from monitor.capture.ring import PacketRing, RingPacket, Segment, StreamFormat
from monitor.errors import EvidenceFailed
from tests.conftest import crossing_square
from tests.test_decisions import full_disk

FPS = 25
PICTURES = 100
GOP = 20


def drawn_video(
    path: Path, *, codec: str, size: tuple[int, int] = (320, 240), pictures: int = PICTURES, **params: int
) -> Path:
    """Encode a crossing square; `params` are x264's and x265's own."""
    told = ":".join(f"{key.replace('_', '-')}={value}" for key, value in {"keyint": GOP, **params}.items())
    name = "libx265" if codec == "h265" else "libx264"
    options = {f"{name[3:]}-params": told + (":log-level=none" if codec == "h265" else ""), "preset": "ultrafast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(name, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number, picture in enumerate(crossing_square(pictures, width=size[0], height=size[1])):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def fill(ring: PacketRing, path: Path, *, begin_seconds: float = 0.0, without_dts: bool = False) -> None:
    """Put a video into a ring as a new connection."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        writer = ring.begin(StreamFormat(context.name, bytes(context.extradata or b""), stream.time_base))
        for packet in container.demux(stream):
            if packet.size:
                seconds = begin_seconds + float(packet.pts * packet.time_base)
                if without_dts:
                    packet.dts = None
                writer.append(packet, seconds=seconds, received_seconds=seconds)


def write(packets: Iterator[RingPacket] | tuple[RingPacket, ...], path: Path) -> tuple[ClipWriter, str]:
    """Write packets as far as they follow; return the finished writer and why it ended."""
    packets = list(packets)
    clip = ClipWriter(path, packets[0])
    ending = ""
    for packet in packets:
        ending = clip.follows(packet)
        if ending:
            break
        clip.write(packet)
    clip.finish()
    return clip, ending


def frames_of(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]


def assert_sound(path: Path) -> None:
    """Timestamps rise, and no picture is shown before it is decoded."""
    with av.open(str(path)) as container:
        stamps = [(packet.dts, packet.pts) for packet in container.demux(video=0) if packet.size]
    assert all(one[0] < two[0] for one, two in pairwise(stamps))
    assert all(dts <= pts for dts, pts in stamps)
    assert len({pts for _, pts in stamps}) == len(stamps)


@pytest.fixture
def ring() -> PacketRing:
    return PacketRing(seconds=60, most_bytes=10_000_000)


def test_a_clip_that_cannot_be_begun_leaves_nothing_open(ring, tmp_path):
    """Each event on a full disk would cost a descriptor, until the capture process reaches no camera any more."""
    fill(ring, drawn_video(tmp_path / "source.mp4", codec="h264"))
    first = ring.since(0.0)[0]
    before = psutil.Process().num_fds()
    with full_disk():
        for number in range(5):
            with pytest.raises(EvidenceFailed, match="large"):
                ClipWriter(tmp_path / f"{number}.mp4", first)
    headless = replace(
        first, payload=b"\0\0\0\1\x65\x88", segment=Segment(replace(first.segment.format, extradata=b""))
    )
    for number in range(5):
        with pytest.raises(EvidenceFailed, match="Invalid"):
            ClipWriter(tmp_path / f"{number}.mp4", headless)
    assert psutil.Process().num_fds() == before
    assert [path.name for path in tmp_path.iterdir()] == ["source.mp4"]


def test_a_timestamp_that_no_file_can_tell_fails_the_clip_alone(ring, tmp_path):
    fill(ring, drawn_video(tmp_path / "source.mp4", codec="h264"))
    packets = ring.since(0.0)
    clip = ClipWriter(tmp_path / "clip.mp4", packets[0])
    clip.write(packets[0])
    with pytest.raises(EvidenceFailed, match="too large"):
        clip.write(replace(packets[1], pts=2**62))
    clip.finish()
    assert len(frames_of(tmp_path / "clip.mp4")) == 1


def test_a_clip_ends_where_the_clock_is_set_back(ring, tmp_path):
    """Its end is a time: on a clock that was set back by an hour, it would come an hour late."""
    fill(ring, drawn_video(tmp_path / "source.mp4", codec="h264"), begin_seconds=5000.0)
    packets = [
        replace(packet, seconds=packet.seconds - 3600.0 * (number >= 60))
        for number, packet in enumerate(ring.since(5000.0))
    ]
    clip, ending = write(tuple(packets), tmp_path / "clip.mp4")
    assert (clip.packets, ending) == (60, "the clock was set back")


@pytest.mark.parametrize("container", ["mp4", "ts"])
@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("bframes", [0, 3])
def test_a_clip_holds_the_very_pictures_of_the_stream(codec, container, bframes, ring, tmp_path):
    """From a container with lengths and headers apart, and from one with start codes; with and without reordering."""
    source = drawn_video(tmp_path / f"source.{container}", codec=codec, bframes=bframes)
    fill(ring, source)
    clip, ending = write(ring.since(2.0), tmp_path / "clip.mp4")
    assert ending == ""
    assert clip.first.seconds <= 2.0
    wanted = frames_of(source)
    begin = wanted[0][0]
    tail = [(seconds, picture) for seconds, picture in wanted if seconds - begin >= clip.first.seconds - begin - 1e-3]
    got = frames_of(tmp_path / "clip.mp4")
    assert len(got) == len(tail) > PICTURES // 2 - GOP
    for (got_seconds, got_picture), (seconds, picture) in zip(got, tail, strict=True):
        assert got_seconds - got[0][0] == pytest.approx(seconds - tail[0][0], abs=2e-3)
        assert (got_picture == picture).all()
    assert_sound(tmp_path / "clip.mp4")
    assert not (tmp_path / "clip.mp4.part").exists()


def test_h265_carries_the_tag_that_every_player_takes(ring, tmp_path):
    fill(ring, drawn_video(tmp_path / "source.ts", codec="h265", bframes=0))
    write(ring.since(0.0), tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_decoding_times_are_made_where_a_stream_tells_none(ring, tmp_path):
    fill(ring, drawn_video(tmp_path / "source.ts", codec="h264", bframes=3), without_dts=True)
    write(ring.since(0.0), tmp_path / "clip.mp4")
    assert_sound(tmp_path / "clip.mp4")
    frames = frames_of(tmp_path / "clip.mp4")
    assert len(frames) == PICTURES
    assert [two[0] - one[0] for one, two in pairwise(frames)] == pytest.approx([1 / FPS] * (PICTURES - 1), abs=2e-3)


def test_what_is_written_plays_while_it_is_written(ring, tmp_path):
    fill(ring, drawn_video(tmp_path / "source.ts", codec="h264", bframes=0))
    packets = ring.since(0.0)
    clip = ClipWriter(tmp_path / "clip.mp4", packets[0])
    for packet in packets[:90]:
        clip.write(packet)
    assert not (tmp_path / "clip.mp4").exists()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes((tmp_path / "clip.mp4.part").read_bytes())
    assert len(frames_of(cut)) >= 90 - FPS - 1
    clip.finish()


def test_a_clip_ends_where_the_stream_breaks(ring, tmp_path):
    source = drawn_video(tmp_path / "source.ts", codec="h264", bframes=0)
    fill(ring, source)
    fill(ring, source, begin_seconds=10.0)
    clip, ending = write(ring.since(0.0), tmp_path / "clip.mp4")
    assert ending == "the stream broke"
    assert len(frames_of(tmp_path / "clip.mp4")) == clip.packets == PICTURES


def test_a_clip_ends_where_the_size_changes(ring, tmp_path):
    large = drawn_video(tmp_path / "large.h264", codec="h264", bframes=0, pictures=40).read_bytes()
    small = drawn_video(tmp_path / "small.h264", codec="h264", bframes=0, size=(192, 144)).read_bytes()
    (tmp_path / "both.h264").write_bytes(large + small)
    with av.open(str(tmp_path / "both.h264")) as container:
        stream = container.streams.video[0]
        writer = ring.begin(StreamFormat("h264", b"", Fraction(1, FPS)))
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            packet.pts = packet.dts = number
            writer.append(packet, seconds=number / FPS, received_seconds=number / FPS)
    _, ending = write(ring.since(0.0), tmp_path / "clip.mp4")
    assert ending == "the stream changed its parameters"
    pictures = [picture for _, picture in frames_of(tmp_path / "clip.mp4")]
    assert len(pictures) == 40
    assert {picture.shape for picture in pictures} == {(240, 320)}


def test_packets_that_the_ring_has_lost_end_a_clip(ring, tmp_path):
    fill(ring, drawn_video(tmp_path / "source.ts", codec="h264", bframes=0))
    packets = ring.since(0.0)
    _, ending = write((*packets[:10], *packets[12:]), tmp_path / "clip.mp4")
    assert ending == "packets were lost out of the ring"


def test_a_codec_that_does_not_go_into_an_mp4_is_refused(ring, tmp_path):
    fill(ring, drawn_video(tmp_path / "source.ts", codec="h264", bframes=0))
    first = ring.since(0.0)[0]
    object.__setattr__(first.segment, "format", StreamFormat("theora", b"", Fraction(1, 1000)))
    with pytest.raises(EvidenceFailed, match="theora does not go into an MP4"):
        ClipWriter(tmp_path / "clip.mp4", first)


def test_a_folder_that_cannot_be_written_is_one_clear_error(ring, tmp_path):
    fill(ring, drawn_video(tmp_path / "source.ts", codec="h264", bframes=0))
    with pytest.raises(EvidenceFailed, match="No such file or directory"):
        ClipWriter(tmp_path / "none" / "clip.mp4", ring.since(0.0)[0])


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_headers_apart_and_in_band_are_the_same(codec, tmp_path):
    name = {"h264": "h264", "h265": "hevc"}[codec]
    with av.open(str(drawn_video(tmp_path / "a.mp4", codec=codec, bframes=0, pictures=3))) as container:
        extradata = bytes(container.streams.video[0].codec_context.extradata)
        first = next(bytes(packet) for packet in container.demux(video=0))
    apart = parameter_sets(sets_of_extradata(extradata, name), name)
    assert len(apart) == {"h264": 2, "h265": 3}[codec]
    units = with_start_codes(first, extradata, name)
    assert units.startswith(b"\0\0\0\1")
    assert with_start_codes(units, b"", name) == units
    assert parameter_sets(b"".join(b"\0\0\0\1" + one for one in apart) + units, name)[: len(apart)] == apart
