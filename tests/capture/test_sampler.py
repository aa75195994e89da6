from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.bundle import SampleShape
from monitor.capture.sampler import Sampler, StreamClock, slot_of
from monitor.capture.scaler import Scaler, Zone
from monitor.records import Sample
from tests.capture.drawing import plain_frame, rgb_frame

PAIR = SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=32, height_pixels=32)
FOUR = SampleShape(pictures=4, context_spacing_seconds=1 / 15, width_pixels=32, height_pixels=32)
SINGLE = SampleShape(pictures=1, context_spacing_seconds=0.0, width_pixels=32, height_pixels=32)


def run_sampler(sampler: Sampler, times: list[float], levels: list[int] | None = None) -> list[Sample]:
    levels = levels or [128] * len(times)
    frames = zip(times, levels, strict=True)
    pushed = (
        sampler.push(plain_frame(level), time_seconds=time, received_seconds=time + 0.01) for time, level in frames
    )
    return [sample for sample in pushed if sample is not None]


# The grid


@given(st.integers(0, 10**10), st.sampled_from([0.5, 1.0, 4.0, 7.5, 12.5, 29.97, 30.0]))
def test_the_beginning_of_a_slot_lies_in_it(slot: int, fps: float) -> None:
    assert slot_of(slot / fps, fps) == slot


@given(st.floats(0, 2e9), st.floats(0, 100), st.floats(0.5, 60))
def test_slots_never_run_back(time: float, later: float, fps: float) -> None:
    assert slot_of(time, fps) <= slot_of(time + later, fps)


def test_fractions_of_a_second_hit_their_slot() -> None:
    assert [slot_of(frame / 15, 7.5) for frame in range(6)] == [0, 0, 1, 1, 2, 2]


# The clock


@given(
    random=st.randoms(use_true_random=False),
    fps=st.sampled_from([5.0, 15.0, 25.0, 30.0]),
    drift=st.floats(-0.001, 0.001),
    begin=st.floats(-1e6, 1e6),
)
@settings(max_examples=30, deadline=None)
def test_bursts_do_not_move_time(random: Random, fps: float, drift: float, begin: float) -> None:
    """In bursts of 1.2 s, then 0.8 s of quiet, and so on, mapped times keep the camera's own spacing."""
    clock = StreamClock()
    received = 1.7e9
    for number in range(int(fps * 10)):
        seen = 1.7e9 + number / fps
        bursting = number and (number / fps) % 2.0 < 1.2
        received = max(received, seen + (random.uniform(0, 0.5) if bursting else 0.0))
        assert clock.time_of(begin + number / fps * (1 + drift), received) == pytest.approx(seen, abs=0.02)


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.one_of(st.none(), st.floats(-1e7, 1e7)), st.floats(-3, 3)),
        min_size=1,
        max_size=200,
    )
)
def test_time_is_never_in_the_future_and_never_runs_back(steps: list[tuple[float, float | None, float]]) -> None:
    """Any timestamps at all: jumps, steps back, wrong rates, none."""
    clock = StreamClock()
    received, last, pts = 1.7e9, -math.inf, 0.0
    for wait, jump, step in steps:
        received += wait
        pts = jump if jump is not None else pts + step
        time = clock.time_of(pts if step > -2.5 else None, received)
        assert last <= time <= received
        last = time


@given(st.floats(0.65, 1.6))
@settings(max_examples=30, deadline=None)
def test_a_wrong_rate_of_timestamps_keeps_time_near_the_arrival(rate: float) -> None:
    clock = StreamClock()
    times = [clock.time_of(n / 25 * rate, 1000 + n / 25) for n in range(1000)]
    assert all(abs(time - (1000 + n / 25)) < 2.0 for n, time in enumerate(times))
    steps = [after - before for before, after in pairwise(times[200:])]
    assert max(steps) < 0.5


@pytest.mark.parametrize("jump", [3600.0, -3600.0, -0.5, 30.0])
def test_a_jump_of_the_timestamps_does_not_move_time(jump: float) -> None:
    clock = StreamClock()
    for n in range(200):
        pts = n / 25 + (jump if n >= 100 else 0.0)
        assert clock.time_of(pts, 1000 + n / 25) == pytest.approx(1000 + n / 25, abs=1e-6)


@pytest.mark.parametrize("pace", [0.125, 0.2, 0.3, 0.5, 0.75])
def test_a_stream_that_lags_ever_further_behind_still_fills_the_grid(pace: float) -> None:
    """For three minutes 15 pictures for each second of the stream come at this share of real time."""
    clock, sampler = StreamClock(), Sampler("yard", sample_fps=4.0, shape=SINGLE)
    arrivals = [1000 + n / 15 / pace for n in range(round(15 * pace * 180))]
    times = [clock.time_of(n / 15, arrival) for n, arrival in enumerate(arrivals)]
    samples = run_sampler(sampler, times)
    assert len(samples) >= 0.95 * min(len(arrivals), 4 * 180)
    assert all(arrival - time < 3.0 for time, arrival in zip(times, arrivals, strict=True))


def test_a_frame_without_timestamp_has_the_time_of_its_arrival() -> None:
    assert StreamClock().time_of(None, 1234.5) == 1234.5


def test_the_hosts_clock_set_back_does_not_stop_time() -> None:
    clock = StreamClock()
    assert clock.time_of(0.0, 5000.0) == 5000.0
    assert clock.time_of(0.04, 1000.0) == 1000.0


# The zone


def test_a_zone_is_cut_out_at_even_corners() -> None:
    zone = Zone(((0.26, 0.3), (0.74, 0.3), (0.74, 0.7), (0.26, 0.7)))
    assert zone.box(100, 50) == (26, 14, 74, 36)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8),
    st.integers(2, 500),
    st.integers(2, 500),
)
def test_a_box_always_lies_in_the_picture(polygon: list[tuple[float, float]], width: int, height: int) -> None:
    left, top, right, bottom = Zone(polygon).box(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert left % 2 == top % 2 == 0


def test_what_lies_outside_the_zone_is_black_and_not_seen() -> None:
    """Left half red, right half green; a triangle in the left half must show red and black only, and fill the box."""
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :64] = (255, 0, 0)
    pixels[:, 64:] = (0, 255, 0)
    sampler = Sampler("a", sample_fps=1, shape=SINGLE, zone=((0.0, 0.0), (0.4, 0.0), (0.0, 1.0)))
    sample = sampler.push(rgb_frame(pixels), time_seconds=0, received_seconds=0)
    assert sample is not None
    picture = sample.pictures[0].astype(int)
    assert picture[4, 4] == pytest.approx(np.array([255, 0, 0]), abs=12)
    assert (picture[30, 30] == 0).all()
    assert picture[..., 1].max() < 12
    lit = picture.any(axis=2).mean()
    assert lit == pytest.approx(0.5, abs=0.05)


def test_a_zone_follows_a_change_of_size_and_format() -> None:
    sampler = Sampler("a", sample_fps=1, shape=SINGLE, zone=((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)))
    for time, (height, width, form) in enumerate([(64, 128, "yuv420p"), (240, 320, "yuv444p"), (64, 128, "nv12")]):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[:, width // 2 :] = (0, 0, 255)
        sample = sampler.push(rgb_frame(pixels, form), time_seconds=time, received_seconds=time)
        assert sample is not None
        # The edge itself may show a little red or green where colour planes have half the size.
        assert sample.pictures[0][:, 4:, 2].min() > 240


# Colour


@pytest.mark.parametrize(
    ("colorspace", "color_range", "expected"),
    [(1, 1, (255, 23, 0)), (5, 1, (252, 0, 0)), (1, 2, (255, 35, 11)), (2, 1, (252, 0, 0))],
)
def test_tagged_colour_is_honoured(colorspace: int, color_range: int, expected: tuple[int, int, int]) -> None:
    planes = np.empty((96, 64), np.uint8)
    planes[:64], planes[64:80], planes[80:] = 81, 90, 240
    for zone in ((), ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))):
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.colorspace, frame.color_range = colorspace, color_range
        sample = Sampler("a", sample_fps=1, shape=SINGLE, zone=zone).push(frame, time_seconds=0, received_seconds=0)
        assert sample is not None
        assert sample.pictures[0, 8, 8].astype(int) == pytest.approx(np.array(expected), abs=2)


def test_fine_detail_does_not_alias() -> None:
    checks = np.indices((512, 512)).sum(axis=0) % 2 * 255
    frame = rgb_frame(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    sample = Sampler("a", sample_fps=1, shape=SINGLE).push(frame, time_seconds=0, received_seconds=0)
    assert sample is not None
    assert sample.pictures.std() < 5


# Samples


def test_one_sample_for_each_slot_from_its_first_frame() -> None:
    samples = run_sampler(Sampler("a", sample_fps=4, shape=SINGLE), [n / 25 for n in range(50)])
    assert [sample.slot for sample in samples] == list(range(8))
    assert [round(sample.time_seconds * 25) for sample in samples] == [0, 7, 13, 19, 25, 32, 38, 44]
    assert samples[1].received_seconds == pytest.approx(samples[1].time_seconds + 0.01)
    assert samples[0].pictures.shape == (1, 32, 32, 3)
    assert samples[0].pictures.dtype == np.uint8


@pytest.mark.parametrize(("fps", "distance"), [(30, 2), (25, 2), (15, 1), (10, 1), (5, 1), (2, 1), (60, 4)])
def test_context_is_the_nearest_frame_of_the_past(fps: int, distance: int) -> None:
    """Grey levels number the frames, so the pictures tell which ones were taken."""
    count = fps * 3
    levels = [20 + number % 40 * 5 for number in range(count)]
    sampler = Sampler("a", sample_fps=2, shape=PAIR)
    samples = run_sampler(sampler, [n / fps for n in range(count)], levels)
    assert len(samples) >= 5
    single = {level: run_sampler(Sampler("b", sample_fps=1, shape=SINGLE), [0], [level])[0] for level in set(levels)}
    for sample in samples[1:]:  # the first one is taken as soon as there is any past
        newest = round(sample.time_seconds * fps)
        assert (sample.pictures[1] == single[levels[newest]].pictures[0]).all()
        assert (sample.pictures[0] == single[levels[newest - distance]].pictures[0]).all()


@pytest.mark.parametrize(("fps", "held"), [(60, 4), (30, 2), (25, 2), (15, 1), (10, 1), (5, 1)])
def test_no_frame_is_held_that_the_next_sample_would_not_show(
    fps: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(fps)
    times = [(number + random.uniform(-0.05, 0.05)) / fps for number in range(fps * 3)]
    levels = [20 + number % 40 * 5 for number in range(len(times))]
    sampler = Sampler("a", sample_fps=4, shape=PAIR)
    samples = []
    for seconds, level in zip(times, levels, strict=True):
        samples += run_sampler(sampler, [seconds], [level])
        assert len(sampler._recent) <= held
    monkeypatch.setattr(Sampler, "_let_go", lambda _self: None)
    all_held = run_sampler(Sampler("a", sample_fps=4, shape=PAIR), times, levels)
    assert len(samples) == len(all_held) > 8
    assert [a.pictures.tobytes() for a in samples] == [b.pictures.tobytes() for b in all_held]


@pytest.mark.parametrize(("fps", "share"), [(50, 0.85), (30, 0.7), (25, 0.6), (20, 0.45), (15, 0.1), (12, 0.4)])
def test_what_the_next_sample_will_show_is_held_small(fps: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """And few frames are scaled that no sample shows, and the samples are those of scaling late."""
    random = np.random.default_rng(fps)
    times = [(number + random.uniform(-0.02, 0.02)) / fps for number in range(fps * 5)]
    levels = [20 + number % 40 * 5 for number in range(len(times))]
    scaled = 0

    def counted(scaler: Scaler, frame: av.VideoFrame) -> np.ndarray:
        nonlocal scaled
        scaled += 1
        return scale(scaler, frame)

    def run() -> tuple[list[bytes], int, int]:
        """Return the samples' pictures, how many frames were held at full size, over all times, and how many scaled."""
        nonlocal scaled
        scaled = held = 0
        sampler, samples = Sampler("a", sample_fps=4, shape=FOUR), []
        for seconds, level in zip(times, levels, strict=True):
            samples += run_sampler(sampler, [seconds], [level])
            held += sum(recent._frame is not None for recent in sampler._recent)
        return [sample.pictures.tobytes() for sample in samples], held, scaled

    scale = Scaler.scaled
    monkeypatch.setattr(Scaler, "scaled", counted)
    samples, held, needed = run()
    monkeypatch.setattr(Sampler, "_is_foreseen", lambda *_: False)
    all_late, all_held, needed_late = run()
    assert samples == all_late
    assert held <= share * all_held
    assert needed <= 1.25 * needed_late


def test_no_sample_before_there_is_a_past() -> None:
    samples = run_sampler(Sampler("a", sample_fps=25, shape=PAIR), [n / 25 for n in range(10)])
    assert samples[0].time_seconds == pytest.approx(1 / 25)


def test_no_sample_spans_a_restart_and_the_grid_goes_on() -> None:
    sampler = Sampler("a", sample_fps=25, shape=PAIR)
    before = run_sampler(sampler, [n / 25 for n in range(10)])
    sampler.restart()
    after = run_sampler(sampler, [0.4 + n / 25 for n in range(10)])
    assert after[0].time_seconds == pytest.approx(0.44)
    assert after[0].slot > before[-1].slot


def test_context_is_never_older_than_makes_sense() -> None:
    assert run_sampler(Sampler("a", sample_fps=1, shape=PAIR), [0.0, 10.0, 20.0, 30.0]) == []


def test_a_change_of_size_begins_a_new_past() -> None:
    sampler = Sampler("a", sample_fps=25, shape=PAIR)
    run_sampler(sampler, [0.0, 0.04, 0.08])
    assert sampler.push(plain_frame(width=128), time_seconds=0.12, received_seconds=0.12) is None
    assert sampler.push(plain_frame(width=128), time_seconds=0.16, received_seconds=0.16) is not None


def test_a_step_back_of_time_begins_a_new_grid() -> None:
    sampler = Sampler("a", sample_fps=4, shape=SINGLE)
    run_sampler(sampler, [100.0, 100.25])
    assert [sample.slot for sample in run_sampler(sampler, [99.9, 50.0, 50.3])] == [200, 201]


@given(
    gaps=st.lists(st.floats(0.0, 0.6), min_size=1, max_size=120),
    sample_fps=st.sampled_from([1.0, 4.0, 7.5]),
    pictures=st.integers(1, 4),
    spacing=st.sampled_from([1 / 15, 0.2, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_samples_rise_on_the_grid_and_the_past_is_bounded(
    gaps: list[float], sample_fps: float, pictures: int, spacing: float
) -> None:
    shape = SampleShape(
        pictures=pictures, context_spacing_seconds=spacing if pictures > 1 else 0.0, width_pixels=16, height_pixels=16
    )
    sampler = Sampler("a", sample_fps=sample_fps, shape=shape)
    times = [1e9 + float(time) for time in np.cumsum(gaps)]
    samples = run_sampler(sampler, times)
    slots = [sample.slot for sample in samples]
    assert slots == sorted(set(slots))
    assert all(sample.slot == slot_of(sample.time_seconds, sample_fps) for sample in samples)
    assert all(sample.pictures.shape == (pictures, 16, 16, 3) for sample in samples)
    if pictures == 1:
        assert slots == sorted({slot_of(time, sample_fps) for time in times})
    most = (pictures - 1) * spacing + 2.0
    assert len(sampler._recent) <= 8 * most / spacing * 2 + 4 if pictures > 1 else len(sampler._recent) == 1


def test_the_same_frames_give_the_same_samples() -> None:
    times, levels = [n / 25 for n in range(60)], [n * 4 % 250 for n in range(60)]
    first, second = (run_sampler(Sampler("a", sample_fps=4, shape=PAIR), times, levels) for _ in range(2))
    assert [a.pictures.tobytes() for a in first] == [b.pictures.tobytes() for b in second]
