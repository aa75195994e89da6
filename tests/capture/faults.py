"""The table of faults that cameras and networks have, and streams whose pictures tell their own number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monitor.bundle import SampleShape
from monitor.records import FailureReason, Sample
from tests.services.proxy import FaultyProxy
from tests.services.rtsp import Codec, Mount, Picture, RtspServer, encode_stream

FPS = 15.0
BITS = 6
PICTURES = 2**BITS
"""In one loop: each shows its number as six squares, black or white."""
LOOP_SECONDS = PICTURES / FPS
SHAPE = SampleShape(pictures=1, context_spacing_seconds=1 / FPS, width_pixels=48, height_pixels=32)


@dataclass(frozen=True, slots=True)
class Clips:
    """The same numbered pictures, encoded in three ways."""

    h264: Path
    """192 x 128."""
    h265: Path
    large: Path
    """H.264, 384 x 256."""

    def mount(self, *, fps: float = FPS) -> Mount:
        """What a healthy camera plays."""
        return Mount(self.h264, fps)


def numbered(*, width: int = 192, height: int = 128) -> Iterator[Picture]:
    """Draw the pictures of one loop."""
    for number in range(PICTURES):
        bits = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8).reshape(2, 3)
        plane = np.kron(bits * 200 + 28, np.ones((height // 2, width // 3), np.uint8)).astype(np.uint8)
        yield np.repeat(plane[:, :, None], 3, axis=2)


def number_in(sample: Sample) -> int:
    """Read a picture's number."""
    plane = sample.pictures[-1, :, :, 1]
    rows, columns = plane.shape[0] // 2, plane.shape[1] // 3
    cells = plane.reshape(2, rows, 3, columns)[:, 4:-4, :, 4:-4].mean(axis=(1, 3)).ravel()
    return sum(1 << bit for bit, level in enumerate(cells) if level > 128)


def make_clips(folder: Path) -> Clips:
    """Encode the streams."""
    clips = Clips(folder / "n.h264", folder / "n.h265", folder / "large.h264")
    kinds: tuple[tuple[Path, Codec, int], ...] = (
        (clips.h264, "h264", 1),
        (clips.h265, "h265", 1),
        (clips.large, "h264", 2),
    )
    for path, codec, scale in kinds:
        encode_stream(numbered(width=192 * scale, height=128 * scale), path, fps=FPS, codec=codec, gop_seconds=1.0)
    return clips


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fault strikes: one camera's mount, its proxy, and the server that asks for a password."""

    name: str
    server: RtspServer
    proxy: FaultyProxy
    clips: Clips


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which a camera fails."""

    name: str
    begin: Callable[[Place], object]
    end: Callable[[Place], object] = lambda _place: None
    loses: frozenset[FailureReason] = frozenset()
    """With one of these reasons the camera is told as lost; none: it stays."""
    transport: str = "tcp"
    password: bool = False
    """Whether it needs the server that asks for one."""
    blinds: bool = False
    """Whether pictures of the time of the fault cannot be read."""
    shifts: bool = False
    """Whether the camera's clock is wrong until its next sender report."""
    seconds: float = 8.0
    """From its begin to its end."""


def _cut(change: Callable[[FaultyProxy], object]) -> Callable[[Place], None]:
    def begin(place: Place) -> None:
        change(place.proxy)
        place.proxy.reset()

    return begin


def _new_password(place: Place) -> None:
    place.server.set_password("another")
    place.server.disconnect()


CLOCK_FAULT = "the camera's clock is set forward 2 min"
CLOCK_SECONDS = 120
R = FailureReason
FAULTS = (
    Fault("stall", lambda p: p.server.stall(p.name), lambda p: p.server.resume(p.name), frozenset({R.STALLED})),
    Fault("freeze", lambda p: p.server.freeze(p.name), lambda p: p.server.resume(p.name), blinds=True),
    Fault("reset", lambda p: p.proxy.reset(), loses=frozenset({R.ENDED})),
    Fault("401", _new_password, lambda p: p.server.set_password("right"), frozenset({R.REFUSED}), password=True),
    Fault(
        "404",
        lambda p: p.server.remove(p.name),
        lambda p: p.server.add(p.name, p.clips.mount()),
        frozenset({R.NOT_FOUND}),
    ),
    Fault("half-open connection", lambda p: p.proxy.half_open(), loses=frozenset({R.STALLED})),
    Fault("cable pulled", lambda p: p.proxy.pause(), lambda p: p.proxy.resume(), frozenset({R.STALLED})),
    Fault("cable pulled for 3 s", lambda p: p.proxy.pause(), lambda p: p.proxy.resume(), seconds=3.0),
    Fault(
        "5% packet loss over UDP",
        lambda p: p.server.set_loss(p.name, 0.05),
        lambda p: p.server.set_loss(p.name, 0.0),
        transport="udp",
        blinds=True,
    ),
    Fault("jump forward an hour", lambda p: p.server.jump(p.name, 3600.0), shifts=True),
    Fault("jump forward 1 s", lambda p: p.server.jump(p.name, 1.0), shifts=True),
    Fault("jump back 3 s", lambda p: p.server.jump(p.name, -3.0), shifts=True),
    Fault("jump back 0.5 s", lambda p: p.server.jump(p.name, -0.5), shifts=True),
    Fault(CLOCK_FAULT, lambda p: p.proxy.set_clock(CLOCK_SECONDS), lambda p: p.proxy.resume(), shifts=True),
    Fault("slower", lambda p: p.server.set_fps(p.name, 5.0), lambda p: p.server.set_fps(p.name, FPS), blinds=True),
    Fault("faster", lambda p: p.server.set_fps(p.name, 30.0), lambda p: p.server.set_fps(p.name, FPS), blinds=True),
    Fault(
        "another size",
        lambda p: p.server.set_file(p.name, p.clips.large, fps=FPS),
        lambda p: p.server.set_file(p.name, p.clips.h264, fps=FPS),
        blinds=True,
    ),
    Fault(
        "another codec",
        lambda p: p.server.set_file(p.name, p.clips.h265, fps=FPS, codec="h265"),
        lambda p: p.server.set_file(p.name, p.clips.h264, fps=FPS),
        frozenset({R.ENDED}),
        blinds=True,
    ),
    Fault(
        "bit flips in RTP payloads",
        lambda p: p.proxy.corrupt_rtp(0.5, seed=7),
        lambda p: p.proxy.resume(),
        blinds=True,
    ),
    Fault(
        "bit flips in pictures",
        lambda p: p.server.harm(p.name, "flip", share=0.5, seed=7),
        lambda p: p.server.heal(p.name),
        blinds=True,
    ),
    Fault(
        "truncated NAL units",
        lambda p: p.server.harm(p.name, "truncate", share=0.5, seed=7),
        lambda p: p.server.heal(p.name),
        blinds=True,
    ),
    Fault(
        "answers garbage",
        _cut(FaultyProxy.garbage),
        lambda p: p.proxy.resume(),
        frozenset({R.UNSUPPORTED, R.TIMED_OUT, R.CONNECTION_REFUSED}),
    ),
    Fault("never answers", _cut(FaultyProxy.swallow), lambda p: p.proxy.resume(), frozenset({R.TIMED_OUT})),
    Fault(
        "refuses connections", _cut(FaultyProxy.refuse), lambda p: p.proxy.resume(), frozenset({R.CONNECTION_REFUSED})
    ),
)
