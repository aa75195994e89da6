"""Streams that are quiet, show something and are quiet again: what a gate leaves of them, against all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from monitor.bundle import SampleShape
from monitor.capture import intake as intake_module
from monitor.capture.arrival import Arrived
from monitor.capture.intake import Intake
from monitor.capture.sampler import Sampler
from monitor.capture.source import Decoded, Source
from monitor.config import CameraConfig, CaptureConfig
from monitor.records import GateState, Sample, WakeReason

pytestmark = pytest.mark.xdist_group("intake")  # they share drawn streams

FPS = 25
SIZE = (160, 120)
EVENT = (20.3, 24.3)
SECONDS = 44.0
BEGIN = 1_000_000.0
"""Host time of the first packet."""
SHAPE = SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=32, height_pixels=32)
FOUR = SampleShape(pictures=4, context_spacing_seconds=1 / 15, width_pixels=32, height_pixels=32)
SINGLE = SampleShape(pictures=1, context_spacing_seconds=0, width_pixels=32, height_pixels=32)
SAMPLE_FPS = 4.0

CLOSED = "scenecut=0:bframes=0:rc-lookahead=0:"
STREAMS = {
    "h264": ("libx264", {"x264-params": CLOSED + "keyint=50:min-keyint=50"}),
    "short": ("libx264", {"x264-params": CLOSED + "keyint=12:min-keyint=12"}),
    "reordered": ("libx264", {"x264-params": "scenecut=0:bframes=2:keyint=50:min-keyint=50:rc-lookahead=10"}),
    "open": ("libx264", {"x264-params": "scenecut=0:bframes=2:open-gop=1:keyint=50:min-keyint=50:rc-lookahead=10"}),
    "seldom": ("libx264", {"x264-params": CLOSED + "keyint=120:min-keyint=120"}),
    "h265": ("libx265", {"x265-params": CLOSED + "keyint=50:min-keyint=50:log-level=none"}),
    "intra": ("libx264", {"x264-params": CLOSED + "keyint=1"}),
    "mjpeg": ("mjpeg", {}),
    "long": ("libx264", {"x264-params": CLOSED + "keyint=400:min-keyint=400"}),
    "refresh": ("libx264", {"x264-params": CLOSED + "keyint=50:intra-refresh=1"}),
}


def pictures(seconds: float = SECONDS, event: tuple[float, float] = EVENT) -> Iterator[np.ndarray]:
    """Draw a still scene with the noise of a sensor, through which a square walks during the event."""
    random = np.random.default_rng(3)
    scene = random.integers(60, 180, (SIZE[1] // 8, SIZE[0] // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.int16)
    for number in range(round(seconds * FPS)):
        picture = scene + random.normal(0, 1.5, scene.shape)
        at = number / FPS
        if event[0] <= at < event[1]:
            left = 10 + round((at - event[0]) / (event[1] - event[0]) * 110)
            picture[40:80, left : left + 24] = (240, 40, 40)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def write(path: Path, name: str, **drawn: object) -> Path:
    codec, options = STREAMS[name]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"preset": "ultrafast", **options})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for number, picture in enumerate(pictures(**drawn)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gated")
    return {name: write(folder / f"{name}.mkv", name) for name in STREAMS}


@dataclass
class Taken:
    """What came of a stream."""

    samples: list[Sample] = field(default_factory=list)
    frames: int = 0
    packets: int = 0
    states: list[tuple[float, GateState]] = field(default_factory=list)
    """Each change of the gate's state, with the stream's time."""
    woken: dict[WakeReason, int] = field(default_factory=dict)
    errors: int = 0
    skipped: int = 0

    def state_at(self, seconds: float) -> GateState:
        return [state for at, state in self.states if at <= seconds][-1]


def take(
    path: Path,
    gate: str,
    *,
    shape: SampleShape = SHAPE,
    zone: tuple = (),
    quiet: float = 4.0,
    set_back: tuple[float, float] = (SECONDS, 0.0),
    slow: float = 1.0,
) -> Taken:
    """Run a file through an intake as a camera would have sent it, as fast as it decodes.

    Args:
        set_back: when the host's clock is, in seconds of the stream, and by how much.
        slow: by what factor the packets come slower than they were sent.
    """
    camera = CameraConfig.model_validate({"id": "yard", "url": str(path), "gate": gate, "zone": zone})
    settings = CaptureConfig(gate_quiet_seconds=quiet)
    intake = Intake(camera, sample_fps=SAMPLE_FPS, shape=shape, settings=settings)
    taken = Taken()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.copy_opaque
        intake.begin(Source(camera, container, stream, timeout_seconds=1.0))
        for number, packet in enumerate(container.demux(stream)):
            received = BEGIN + slow * number / FPS - set_back[1] * (number / FPS >= set_back[0])
            for seen in intake.take(Arrived.of(packet, received, packet.time_base)):
                taken.frames += 1
                if seen.sample is not None:
                    taken.samples.append(seen.sample)
            taken.packets += bool(packet.size)
            if not taken.states or taken.states[-1][1] is not intake.gate_state:
                taken.states.append((number / FPS, intake.gate_state))
    counts = intake.take_counts()
    taken.woken, taken.errors, taken.skipped = dict(counts.woken), counts.decode_errors, counts.frames_skipped
    return taken


def between(samples: list[Sample], first: float, last: float) -> dict[int, Sample]:
    """Return the samples of a part of the stream, by slot."""
    return {sample.slot: sample for sample in samples if first <= sample.time_seconds - BEGIN < last}


def taken_up(taken: Taken) -> int:
    return taken.frames + taken.skipped


def same(one: Sample, other: Sample) -> bool:
    return abs(one.time_seconds - other.time_seconds) < 1e-9 and np.array_equal(one.pictures, other.pictures)


@pytest.mark.parametrize("shape", [FOUR, SHAPE, SINGLE], ids=["four", "pair", "single"])
@pytest.mark.parametrize("name", ["h264", "short", "seldom", "reordered", "open", "h265", "intra", "mjpeg"])
def test_an_event_gives_the_same_samples_as_without_a_gate(
    name: str, shape: SampleShape, drawn: dict[str, Path]
) -> None:
    gated, whole = (take(drawn[name], gate, shape=shape) for gate in ("auto", "off"))
    assert gated.state_at(EVENT[0]) is GateState.IDLE
    assert gated.state_at(EVENT[0] + 1) is GateState.AWAKE
    assert gated.states[-1][1] is GateState.IDLE
    expected = between(whole.samples, *EVENT)
    got = between(gated.samples, *EVENT)
    assert len(expected) == 16
    assert got.keys() == expected.keys()
    assert [slot for slot in expected if not same(got[slot], expected[slot])] == []
    assert gated.errors == 0


@pytest.mark.parametrize(("name", "looked_at"), [("h264", 18.0), ("h265", 18.0), ("reordered", 20.0)])
def test_the_samples_before_the_wake_up_come_too_in_order(name: str, looked_at: float, drawn: dict[str, Path]) -> None:
    """From the keyframe that was looked at last, and showed nothing new."""
    gated, whole = (take(drawn[name], gate) for gate in ("auto", "off"))
    slots = [sample.slot for sample in gated.samples]
    assert slots == sorted(set(slots))
    before, expected = (between(taken.samples, EVENT[0] - 0.05, EVENT[0] + 0.2) for taken in (gated, whole))
    assert before.keys() == expected.keys()
    asleep, woken = next(
        (one, other) for one, other in pairwise(gated.samples) if not other.idle and other.time_seconds - BEGIN > 15
    )
    assert woken.time_seconds - BEGIN == pytest.approx(looked_at, abs=0.1)
    assert woken.idle_slots == woken.slot - asleep.slot - 1 > 0


@pytest.mark.parametrize(("name", "share"), [("h264", 0.08), ("short", 0.09), ("h265", 0.08), ("intra", 0.09)])
def test_an_idle_camera_decodes_little(name: str, share: float, drawn: dict[str, Path]) -> None:
    path = drawn[name]
    gated = take(path, "auto")
    idle_seconds = sum(
        end - begin
        for (begin, state), (end, _) in zip(gated.states, [*gated.states[1:], (SECONDS, None)], strict=True)
        if state is GateState.IDLE
    )
    assert idle_seconds > 25
    assert taken_up(gated) == pytest.approx(gated.packets, abs=60), "but what is held back at the end"
    awake_frames = (SECONDS - idle_seconds) * FPS
    caught_up, held_at_the_end = 60, 75
    assert gated.frames < awake_frames + caught_up + held_at_the_end + share * idle_seconds * FPS


@pytest.mark.parametrize(("name", "each_seconds"), [("h264", 8.0), ("short", 6.72), ("seldom", 4.8), ("h265", 8.0)])
def test_an_idle_camera_is_sampled_as_often_as_no_look_comes_too_late(
    name: str, each_seconds: float, drawn: dict[str, Path]
) -> None:
    gated = take(drawn[name], "auto")
    idle = [sample.time_seconds for sample in gated.samples if sample.idle and sample.time_seconds - BEGIN > EVENT[1]]
    assert np.diff(idle) == pytest.approx(each_seconds, abs=0.01)


def test_packets_that_come_slowly_keep_no_camera_awake(drawn: dict[str, Path]) -> None:
    """A machine that cannot keep up reads late: were that the stream's fault, it would never come to rest."""
    slow, timely = (take(drawn["h264"], "auto", slow=factor) for factor in (6.0, 1.0))
    assert slow.states == timely.states
    assert GateState.IDLE in {state for _, state in slow.states}


def test_a_clock_that_was_set_back_stops_no_sampling(drawn: dict[str, Path]) -> None:
    gated = take(drawn["h264"], "auto", set_back=(SECONDS - 6.5, 3600.0))
    assert [sample for sample in gated.samples if sample.idle and sample.time_seconds < BEGIN]


def test_what_an_idle_camera_leaves_out_is_told(drawn: dict[str, Path]) -> None:
    gated = take(drawn["h264"], "auto")
    for one, other in zip(gated.samples, gated.samples[1:], strict=False):
        assert other.slot - one.slot - 1 == other.idle_slots


def test_the_pictures_of_an_idle_sample_are_as_far_apart_as_of_any(drawn: dict[str, Path]) -> None:
    """Frame 2 behind a keyframe is the first whose past, 1/15 s before it, is nearest to the keyframe."""
    gated = take(drawn["h264"], "auto")
    idle = [sample for sample in gated.samples if sample.idle]
    assert idle
    for sample in idle:
        assert (sample.time_seconds - BEGIN) % 2.0 == pytest.approx(2 / FPS, abs=1e-3)
        difference = np.abs(sample.pictures[0].astype(int) - sample.pictures[1]).mean()
        assert difference < 8


@pytest.mark.parametrize("shape", [FOUR, SHAPE], ids=["four", "pair"])
def test_what_an_idle_sample_may_show_is_held_small(
    shape: SampleShape, drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it shows the same."""
    remember, held = Sampler.remember, Counter()

    def counted(sampler: Sampler, frame: av.VideoFrame, *, time_seconds: float, small: bool = False) -> bool:
        in_order = remember(sampler, frame, time_seconds=time_seconds, small=small and at_once)
        held[sum(recent._frame is not None for recent in sampler._recent)] += small
        return in_order

    monkeypatch.setattr(Sampler, "remember", counted)
    at_once = True
    samples = take(drawn["h264"], "auto", shape=shape).samples
    assert sum(sample.idle for sample in samples) > 3
    assert +held == {0: held.total()}
    at_once = False
    all_late = take(drawn["h264"], "auto", shape=shape).samples
    assert max(+held) == {FOUR: 5, SHAPE: 2}[shape]
    assert all(same(one, other) for one, other in zip(samples, all_late, strict=True))


@pytest.mark.parametrize(("name", "renewed"), [("h264", 2), ("h265", 2), ("reordered", 2), ("mjpeg", 0), ("long", 0)])
def test_a_camera_that_falls_asleep_lets_go_of_its_decoder(
    name: str, renewed: int, drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of the memory of all the pictures that it held: once before the event, and once after it."""
    decode, decoders = Source.decode, []

    def watched(source: Source, arrived: Arrived) -> list[Decoded]:
        if source.context not in decoders:
            decoders.append(source.context)
        return decode(source, arrived)

    monkeypatch.setattr(Source, "decode", watched)
    take(drawn[name], "auto", shape=FOUR)
    assert len(decoders) == 1 + renewed


@pytest.mark.parametrize("name", ["long", "refresh"])
def test_streams_without_usable_keyframes_are_decoded_whole(name: str, drawn: dict[str, Path]) -> None:
    gated, whole = (take(drawn[name], gate) for gate in ("auto", "off"))
    assert gated.states[-1][1] is GateState.UNSUITED
    assert all(state is not GateState.IDLE for _, state in gated.states)
    assert gated.frames == whole.frames
    assert all(same(one, other) for one, other in zip(gated.samples, whole.samples, strict=True))


@pytest.mark.parametrize("name", ["h264", "reordered", "open", "intra", "mjpeg"])
def test_what_no_sample_needs_is_left_out_and_nothing_else(name: str, drawn: dict[str, Path]) -> None:
    """The gate never sleeps here: an awake camera's samples are those of one that is decoded whole."""
    awake, whole = (take(drawn[name], gate, quiet=3600) for gate in ("auto", "off"))
    assert len(awake.samples) == len(whole.samples)
    assert all(same(one, other) for one, other in zip(awake.samples, whole.samples, strict=True))
    if name == "h264":
        assert awake.frames == whole.frames, "each picture refers to the one before"
    elif name in ("intra", "mjpeg"):
        assert awake.frames < 0.65 * whole.frames
    else:
        assert awake.frames < 0.95 * whole.frames


def test_motion_outside_the_zone_is_no_motion_to_the_pictures(drawn: dict[str, Path]) -> None:
    """The packets cannot tell where something moves, so they wake it; the keyframes can."""
    left_edge = ((0.0, 0.0), (0.06, 0.0), (0.06, 1.0), (0.0, 1.0))
    assert WakeReason.PICTURE not in take(drawn["h264"], "auto", zone=left_edge).woken


def test_a_keyframe_that_wakes_goes_back_to_the_one_before(
    drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With packets that tell nothing, the whole group of pictures before the keyframe is decoded after the fact."""
    monkeypatch.setattr("monitor.capture.gate.SizeRange.note", lambda *_: False)
    gated, whole = (take(drawn["h264"], gate) for gate in ("auto", "off"))
    assert gated.woken == {WakeReason.PICTURE: 1}
    assert gated.state_at(EVENT[0] + 1.6) is GateState.IDLE
    expected, got = (between(taken.samples, *EVENT) for taken in (whole, gated))
    assert got.keys() == expected.keys()
    assert all(same(got[slot], expected[slot]) for slot in expected)
    slots = [sample.slot for sample in gated.samples]
    assert slots == sorted(set(slots))


def test_a_group_that_is_too_large_is_not_held_back(drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "MOST_HELD_BYTES", 6_000)
    gated = take(drawn["h264"], "auto")
    assert gated.woken == {WakeReason.STREAM: 1}
    assert gated.states[-1][1] is GateState.UNSUITED


def test_a_keyframe_is_looked_at_before_a_second_group_would_be_too_large(
    drawn: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with av.open(str(drawn["h264"])) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    quiet_group = sum(sizes[300:350])
    monkeypatch.setattr(intake_module, "MOST_HELD_BYTES", quiet_group * 19 // 10)
    assert WakeReason.STREAM not in take(drawn["h264"], "auto").woken


def test_an_end_in_the_middle_of_a_group_loses_nothing_that_was_held_back(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "short.mkv", "reordered", seconds=13.0, event=(99, 100))
    gated, whole = (take(path, gate) for gate in ("auto", "off"))
    assert gated.samples[-1].slot == whole.samples[-1].slot
