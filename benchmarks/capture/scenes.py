"""Scenes of a surveillance camera, drawn; endless H.264 streams of them, 1080p25 unless told otherwise, out.

Both show the same yard, with texture as real pictures have it and the noise of a sensor. In the idle one nothing
moves; through the busy one people walk and a van drives, all the time.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.services.rtsp import encode_stream

FPS = 25
SIZE = (1920, 1080)
BITS_PER_SECOND = 4_000_000
GOP_SECONDS = 2.0
NOISE = 2.5
"""Standard deviation of the sensor's noise, in grey levels."""
NOISE_FIELDS = 8
WALKERS = 9

DELIMITER = re.compile(rb"\x00\x00\x00\x01\x09")
"""Begins each picture."""

Picture = NDArray[np.uint8]


def encode_scene(out: Path, *, busy: bool, seconds: float, lines: int = SIZE[1], fps: int = FPS) -> None:
    """Write a scene as the endless loop that the RTSP server plays, `lines` high.

    It is encoded twice over and its second time kept: an encoder that begins knows no rate yet, and no camera's encoder
    begins anew every few seconds.
    """
    twice = itertools.chain.from_iterable(pictures(seconds, busy=busy, fps=fps) for _ in range(2))
    written = encode_stream(
        twice,
        out,
        fps=fps,
        size=(SIZE[0] * lines // SIZE[1], lines),
        gop_seconds=GOP_SECONDS,
        bits_per_second=bits_per_second(lines, fps),
    )
    stream = out.read_bytes()
    units = [match.start() for match in DELIMITER.finditer(stream)]
    out.write_bytes(stream[units[written // 2] :])


def bits_per_second(lines: int, fps: int) -> int:
    """Return the rate that a stream of this height is encoded at: less than its pixels, as cameras do."""
    return round(BITS_PER_SECOND * math.pow(lines / SIZE[1], 1.5) * fps / FPS)


def pictures(seconds: float, *, busy: bool, fps: int = FPS) -> Iterator[Picture]:
    """Draw a scene, RGB; its end joins its beginning."""
    random = np.random.default_rng(7)
    yard = _yard(random)
    noise = [random.normal(0.0, NOISE, (SIZE[1], SIZE[0], 3)).astype(np.int16) for _ in range(NOISE_FIELDS)]
    walkers = [_Walker(random) for _ in range(WALKERS)]
    count = round(seconds * fps)
    for number in range(count):
        scene = yard.copy()
        if busy:
            _van(scene, number / count)
            for walker in walkers:
                walker.draw(scene, number / count, number / fps)
        field = np.roll(noise[number % NOISE_FIELDS], int(random.integers(0, SIZE[1])), axis=0)
        yield cv2.add(scene, field, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


def _yard(random: np.random.Generator) -> Picture:
    """Draw ground, a wall with windows, a fence: texture at every scale."""
    width, height = SIZE
    yard = np.empty((height, width, 3), np.float32)
    yard[:] = (112, 110, 104)
    yard[: height // 3] = (148, 138, 126)
    for scale in (4, 12, 40, 160):
        grain = random.normal(0.0, 6.0, (height // scale + 2, width // scale + 2, 1)).astype(np.float32)
        yard += cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    picture = np.ascontiguousarray(np.clip(yard, 0, 255).astype(np.uint8))
    for left in range(80, width, 260):
        cv2.rectangle(picture, (left, 90), (left + 110, 250), (52, 60, 70), -1)
        cv2.rectangle(picture, (left, 90), (left + 110, 250), (190, 186, 178), 6)
    for left in range(0, width, 42):
        cv2.line(picture, (left, height // 3 - 60), (left, height // 3 + 70), (70, 66, 60), 5)
    for top in range(height // 3 + 120, height, 110):
        cv2.line(picture, (0, top), (width, top + 40), (128, 126, 120), 3)
    return picture


class _Walker:
    """A person: head, coat and legs, crossing the yard a whole number of times in the loop."""

    def __init__(self, random: np.random.Generator) -> None:
        self._begin = float(random.uniform(0, 1))
        self._rounds = int(random.choice([-2, -1, 1, 2]))
        self._foot = int(random.integers(460, 1060))
        self._colour = tuple(int(level) for level in random.integers(20, 230, 3))
        self._steps = float(random.uniform(1.4, 2.2))

    def draw(self, scene: Picture, share: float, seconds: float) -> None:
        tall = 110 + (self._foot - 460) // 3
        x = int((self._begin + self._rounds * share) % 1.0 * (SIZE[0] + 200)) - 100
        stride = int(np.sin(seconds * self._steps * 2 * np.pi) * tall * 0.16)
        hip, shoulder = self._foot - tall // 2, self._foot - tall * 17 // 20
        for side in (-1, 1):
            cv2.line(scene, (x, hip), (x + side * stride, self._foot), (38, 36, 44), max(3, tall // 12), cv2.LINE_AA)
            cv2.line(scene, (x, shoulder + 8), (x - side * stride, hip), self._colour, max(2, tall // 16), cv2.LINE_AA)
        cv2.ellipse(scene, (x, (hip + shoulder) // 2), (tall // 7, tall // 4), 0, 0, 360, self._colour, -1, cv2.LINE_AA)
        cv2.circle(scene, (x, shoulder - tall // 12), tall // 12, (168, 140, 120), -1, cv2.LINE_AA)


def _van(scene: Picture, share: float) -> None:
    x = int(share * (SIZE[0] + 700)) - 600
    cv2.rectangle(scene, (x, 330), (x + 420, 500), (196, 198, 204), -1)
    cv2.rectangle(scene, (x + 300, 350), (x + 400, 420), (60, 72, 84), -1)
    cv2.putText(scene, "DELIVERY", (x + 30, 440), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (160, 60, 40), 6, cv2.LINE_AA)
    for wheel in (80, 340):
        cv2.circle(scene, (x + wheel, 505), 36, (30, 30, 32), -1, cv2.LINE_AA)
