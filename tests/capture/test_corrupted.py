"""Streams that are damaged in every way, through the real source and the real decoder: the service never dies.

Each is a file that a camera of its own plays, on real capture processes. What is damaged and how follows from a seed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from monitor.config import CameraConfig, CaptureConfig
from monitor.records import CameraState, FailureReason
from tests.capture.drawing import write_video
from tests.capture.watching import Watch, wait_for

AT_ONCE = 40
STREAM_SECONDS = 20.0
"""The longest that a stream of half a second may take to be told as ended, on a busy machine."""
ENDS = {FailureReason.ENDED, FailureReason.UNSUPPORTED, FailureReason.DECODE_ERROR}


def flip_bits(stream: bytearray, chance: random.Random) -> None:
    """Flip from one bit to one in a hundred bytes."""
    for _ in range(chance.randint(1, max(1, len(stream) // 100))):
        stream[chance.randrange(len(stream))] ^= 1 << chance.randrange(8)


def cut_off(stream: bytearray, chance: random.Random) -> None:
    """Break off anywhere."""
    del stream[chance.randrange(1, len(stream)) :]


def shorten_units(stream: bytearray, chance: random.Random) -> None:
    """Cut the ends off half of the NAL units."""
    units = bytes(stream).split(b"\x00\x00\x01")
    kept = [unit if chance.random() < 0.5 else unit[: chance.randint(0, len(unit))] for unit in units]
    stream[:] = b"\x00\x00\x01".join(kept)


def shuffle_units(stream: bytearray, chance: random.Random) -> None:
    """Lose some NAL units, send some twice and in another order."""
    units = bytes(stream).split(b"\x00\x00\x01")
    stream[:] = b"\x00\x00\x01".join(chance.choices(units, k=len(units)))


def fill_with_noise(stream: bytearray, chance: random.Random) -> None:
    """Overwrite a stretch with random bytes."""
    begin = chance.randrange(len(stream))
    length = chance.randint(1, len(stream) - begin)
    stream[begin : begin + length] = chance.randbytes(length)


def spoil_parameters(stream: bytearray, chance: random.Random) -> None:
    """Flip bits in the first bytes alone, where sizes and profiles stand."""
    for _ in range(chance.randint(1, 8)):
        stream[chance.randrange(min(80, len(stream)))] ^= 1 << chance.randrange(8)


HARMS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits,
    cut_off,
    shorten_units,
    shuffle_units,
    fill_with_noise,
    spoil_parameters,
)


def healthy(folder: Path) -> list[Path]:
    """Encode half a second in every wrapping that cameras send or files have."""
    kinds = (("libx264", "h264"), ("libx265", "hevc"), ("libx264", "mp4"), ("libx265", "ts"))
    return [
        write_video(folder / f"healthy-{codec}.{suffix}", codec=codec, frames=12, size=(128, 96))
        for codec, suffix in kinds
    ]


@pytest.mark.parametrize(
    "streams", [160, pytest.param(2000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])], ids=str
)
def test_the_service_survives_corrupted_streams(streams: int, tmp_path: Path) -> None:
    originals = healthy(tmp_path)
    seen: Counter[str] = Counter()
    pictures = 0
    with Watch(CaptureConfig(workers=2, retry_min_seconds=60.0, retry_max_seconds=60.0)) as watch:
        for first in range(0, streams, AT_ONCE):
            cameras = [damaged(originals, seed, tmp_path) for seed in range(first, min(streams, first + AT_ONCE))]
            for camera in cameras:
                watch.supervisor.add(camera)
            for camera in cameras:
                wait_for(lambda camera=camera: ended(watch, camera), STREAM_SECONDS)
                seen[watch.states[camera.id][-1].reason or ""] += 1
                pictures += len(watch.samples.pop(camera.id, []))
                watch.supervisor.remove(camera.id)
                Path(camera.url).unlink()
        lost = [report.reason for report in watch.workers if report.lost]
        alive = CameraConfig(id="alive", url=str(originals[0]))
        watch.supervisor.add(alive)
        wait_for(lambda: watch.samples["alive"], STREAM_SECONDS)
    print(f"{streams} streams: {dict(seen)}, {pictures} samples, capture processes lost: {lost}")
    assert sum(seen.values()) == streams
    assert set(seen) <= ENDS
    assert pictures > streams / 4, "the harm left nothing to decode"
    assert not lost


def damaged(originals: list[Path], seed: int, folder: Path) -> CameraConfig:
    """Write a damaged stream, and return the camera that plays it."""
    chance = random.Random(seed)
    original = originals[seed % len(originals)]
    stream = bytearray(original.read_bytes())
    for harm in chance.sample(HARMS, chance.choice((1, 1, 2))):
        if stream:
            harm(stream, chance)
    path = folder / f"damaged-{seed}{original.suffix}"
    path.write_bytes(stream)
    return CameraConfig(id=f"camera-{seed}", url=str(path))


def ended(watch: Watch, camera: CameraConfig) -> bool:
    told = watch.states[camera.id]
    return bool(told) and told[-1].state is CameraState.OFFLINE
