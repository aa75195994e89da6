from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.capture import gate as gate_module
from monitor.capture.gate import LOOK_PIXELS, MOST_GOP_SECONDS, MOST_LOOK_SECONDS, Gate, SizeRange, differs
from monitor.records import GateState, WakeReason

QUIET = 6.0
FPS = 25


class Camera:
    """Feeds a gate with the sizes and pictures of a drawn stream."""

    def __init__(self, *, gop: int = 50, noise: float = 0.1, seed: int = 1) -> None:
        self.gate = Gate(quiet_seconds=QUIET)
        self.random = np.random.default_rng(seed)
        self.scene = self.random.integers(30, 220, (LOOK_PIXELS[1], LOOK_PIXELS[0])).astype(np.int16)
        self.gop, self.noise = gop, noise
        self.number = 0
        self.woken: list[tuple[float, WakeReason]] = []
        self.idle_packets = 0
        self.is_intra = True
        self.keyframe_bytes = 20_000
        self.looks: list[float] = []
        """When it was looked at while idle."""

    @property
    def seconds(self) -> float:
        return 1000.0 + self.number / FPS

    def run(self, seconds: float, *, scale: float = 1.0, picture: np.ndarray | None = None) -> Camera:
        for _ in range(round(seconds * FPS)):
            self.send(scale, self.scene if picture is None else picture)
        return self

    def send(self, scale: float, picture: np.ndarray) -> None:
        key = self.number % self.gop == 0
        size = self.keyframe_bytes if key else int(2000 * scale * np.exp(self.random.normal(0, self.noise)))
        woken = self.gate.packet(size_bytes=size, is_keyframe=key, seconds=self.seconds)
        if key and self.gate.wants_look(self.seconds):
            grain = self.random.normal(0, 0.7, picture.shape)
            seen = np.clip(picture + grain, 0, 255).astype(np.uint8)
            self.looks += [self.seconds] * (self.gate.state is GateState.IDLE)
            woken = self.gate.look(seen, is_intra=self.is_intra, seconds=self.seconds) or woken
        if woken is not None:
            self.woken.append((self.seconds, woken))
        self.idle_packets += self.gate.state is GateState.IDLE
        self.number += 1

    def moved(self) -> np.ndarray:
        """Return the scene with something new in it: two by two blocks."""
        other = self.scene.copy()
        other[10:12, 20:22] = (other[10:12, 20:22] + 60) % 255
        return other


def test_it_falls_asleep_at_a_keyframe_once_it_has_been_quiet() -> None:
    camera = Camera().run(QUIET - 0.1)
    assert camera.gate.state is GateState.AWAKE
    camera.run(2.2)
    assert camera.gate.state is GateState.IDLE
    assert camera.number - camera.idle_packets == pytest.approx(QUIET * FPS, abs=50), "no sooner than at a keyframe"


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_wake_it(seed: int) -> None:
    camera = Camera(noise=0.3, seed=seed).run(600)
    assert len(camera.woken) <= 2
    assert camera.idle_packets > 0.9 * camera.number


@pytest.mark.parametrize("scale", [3.0, 0.5])
def test_sizes_wake_it_within_a_few_packets_in_both_directions(scale: float) -> None:
    """A rate control that holds its bits answers motion with smaller packets."""
    camera = Camera().run(20)
    begun = camera.seconds
    camera.run(1, scale=scale)
    ((seconds, reason),) = camera.woken
    assert reason is WakeReason.SIZES
    assert seconds - begun <= 5 / FPS


def test_a_keyframe_that_differs_wakes_it_when_the_sizes_tell_nothing() -> None:
    camera = Camera().run(20)
    camera.run(2, picture=camera.moved())
    assert [reason for _, reason in camera.woken] == [WakeReason.PICTURE]
    camera.run(QUIET + 4, picture=camera.moved())
    assert camera.gate.state is GateState.IDLE, "what has come and stays is quiet again"


@pytest.mark.parametrize(("gop", "each_seconds"), [(12, 3.36), (25, 3.0), (50, 4.0), (100, 4.0)])
def test_keyframes_of_the_usual_size_are_not_all_looked_at(gop: int, each_seconds: float) -> None:
    camera = Camera(gop=gop).run(60)
    assert np.diff(camera.looks) == pytest.approx(each_seconds)


@pytest.mark.parametrize(("keyframe_bytes", "wakes_after_seconds"), [(20_000, 4.0), (20_800, 2.0), (19_200, 2.0)])
def test_a_keyframe_of_another_size_is_looked_at_at_once(keyframe_bytes: int, wakes_after_seconds: float) -> None:
    """A rate control that holds its bits: packets between the keyframes are as large as ever."""
    camera = Camera().run(20)
    while camera.number % camera.gop or camera.seconds - camera.looks[-1] != 2.0:
        camera.run(1 / FPS)
    looked = camera.looks[-1]
    camera.keyframe_bytes = keyframe_bytes
    camera.run(5, picture=camera.moved())
    ((seconds, reason),) = camera.woken
    assert reason is WakeReason.PICTURE
    assert seconds - looked == wakes_after_seconds


@pytest.mark.parametrize(("gain", "shift"), [(1.15, 0), (0.8, 10), (1.0, -25)])
def test_a_change_of_light_is_no_motion(gain: float, shift: float) -> None:
    camera = Camera()
    before = (camera.scene * 0.7).astype(np.int16)
    after = (before * gain + shift).astype(np.int16)
    assert not differs(before, after)
    after[10:12, 20:22] += 40
    assert differs(before, after)


def test_it_stays_awake_while_keyframes_differ() -> None:
    camera = Camera().run(20)
    for number in range(20):
        camera.run(2, picture=np.roll(camera.scene, number, axis=1))
    assert camera.gate.state is GateState.AWAKE
    assert [reason for _, reason in camera.woken] == [WakeReason.PICTURE]


def test_what_moves_to_and_fro_in_step_with_the_looks_keeps_it_awake() -> None:
    """Every other keyframe is the same one."""
    camera = Camera(gop=25)
    other = camera.moved()
    for _ in range(20):
        camera.run(1).run(1, picture=other)
    assert not camera.idle_packets


def test_sizes_that_stay_become_usual() -> None:
    """Night: the noise grows, and with it every packet; no keyframe differs."""
    camera = Camera().run(20).run(30, scale=3)
    assert camera.gate.state is GateState.AWAKE
    camera.run(20, scale=3)
    assert camera.gate.state is GateState.IDLE
    camera.run(60, scale=3)
    assert camera.gate.state is GateState.IDLE


def test_sizes_that_cry_wolf_are_believed_less() -> None:
    """Something outside the zone makes the packets larger for a second, again and again."""
    camera = Camera().run(20)
    for _ in range(30):
        camera.run(1, scale=1.6).run(19)
    assert 2 <= len(camera.woken) <= 8
    camera.run(1, scale=20)
    assert camera.gate.state is GateState.AWAKE


@pytest.mark.parametrize("gop", [1, 12, 25, 100])
def test_streams_with_usable_keyframes_sleep(gop: int) -> None:
    camera = Camera(gop=gop).run(60)
    assert camera.gate.state is GateState.IDLE
    assert camera.gate.all_intra is (gop == 1)


def test_keyframes_that_are_far_apart_are_of_no_use() -> None:
    camera = Camera(gop=250).run(6)
    assert camera.gate.state is GateState.UNSUITED
    camera.run(100)
    assert camera.gate.state is GateState.UNSUITED
    assert not camera.idle_packets


def test_a_stream_whose_keyframes_stop_wakes_it() -> None:
    camera = Camera().run(20)
    assert camera.gate.state is GateState.IDLE
    camera.gop = 1_000_000
    camera.run(8)
    assert [reason for _, reason in camera.woken] == [WakeReason.STREAM]
    assert camera.gate.state is GateState.UNSUITED


def test_intra_refresh_is_recognised_by_its_first_keyframe() -> None:
    camera = Camera()
    camera.is_intra = False
    camera.run(60)
    assert camera.gate.state is GateState.UNSUITED
    camera.gate.restart()
    assert camera.gate.state is GateState.AWAKE


def packets() -> Iterator[st.SearchStrategy]:
    yield st.integers(0, 10**7)
    yield st.booleans()
    yield st.floats(0, 3)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(*packets()), max_size=200))
def test_any_stream_leaves_it_in_a_state_and_wakes_only_the_idle(stream: list[tuple[int, bool, float]]) -> None:
    gate, seconds = Gate(quiet_seconds=QUIET), 0.0
    for size, key, step in stream:
        seconds += step
        before = gate.state
        woken = gate.packet(size_bytes=size, is_keyframe=key, seconds=seconds)
        assert (woken is not None) == (before is GateState.IDLE and gate.state is not GateState.IDLE)
        if before is not GateState.IDLE and gate.state is GateState.IDLE:
            assert key, "falls asleep at a keyframe"
        if gate.state is not GateState.IDLE and key and gate.wants_look(seconds):
            assert gate.look(np.full((36, 64), size % 256, np.uint8), is_intra=True, seconds=seconds) is None


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.floats(0.2, MOST_GOP_SECONDS), min_size=5, max_size=40))
def test_looks_at_an_idle_camera_are_never_too_far_apart(groups: list[float]) -> None:
    """Open events of a camera that is not heard of for much longer end."""
    gate, scene = Gate(quiet_seconds=QUIET), np.full((36, 64), 90, np.uint8)
    begin = looked = 1000.0
    for group in groups:
        packets = int(group * FPS) + 1
        for number in range(packets):
            seconds = begin + number * group / packets
            key = number == 0
            gate.packet(size_bytes=20_000 if key else 2_000, is_keyframe=key, seconds=seconds)
            if key and gate.wants_look(seconds):
                gate.look(scene, is_intra=True, seconds=seconds)
                looked = seconds
            if gate.state is GateState.IDLE:
                assert seconds - looked <= MOST_LOOK_SECONDS
        begin += group


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.floats(-1, 1), min_size=20, max_size=300))
def test_a_range_holds_most_of_what_taught_it(levels: list[float]) -> None:
    sizes = SizeRange()
    stream = [int(3000 * np.exp(level)) for level in levels]
    for size in stream:
        assert not sizes.note(size)
    sizes.learn()
    assert sum(sizes.note(size) for size in stream) <= 0.04 * len(stream) + gate_module.SIZE_WINDOW


def test_a_picture_of_another_size_is_a_change() -> None:
    gate = Gate(quiet_seconds=QUIET)
    for number, height in enumerate((36, 36, 18)):
        gate.look(np.zeros((height, 64), np.uint8), is_intra=True, seconds=2.0 * number)
    gate.packet(size_bytes=9, is_keyframe=True, seconds=4.1)
    assert gate.state is GateState.AWAKE
