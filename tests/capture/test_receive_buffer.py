"""What the kernel keeps of a camera's packets while nobody reads them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from monitor.bundle import SampleShape
from monitor.capture import receive_buffer
from monitor.capture.camera import CapturePlan
from monitor.capture.receive_buffer import ROOM_BYTES, make_room
from monitor.capture.source import open_source
from monitor.config import CameraConfig, CaptureConfig
from tests.capture.test_camera import Rests, Watched
from tests.conftest import StartRtsp
from tests.services.proxy import FaultyProxy
from tests.services.rtsp import Mount, Picture, encode_stream

FPS = 25.0
REST_PICTURES = 25
FEW = 0.01
"""On a busy machine the server's own buffer may run over, before it is told what has arrived."""
SETTINGS = CaptureConfig(gate="off")
PLAN = CapturePlan(SETTINGS, 4.0, SampleShape(pictures=1, context_spacing_seconds=0, width_pixels=32, height_pixels=32))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the two ends of a TCP connection."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        closing(socket.create_connection(server.getsockname())) as ours,
    ):
        theirs, _ = server.accept()
        with theirs:
            yield ours, theirs


def pushed(theirs: socket.socket) -> int:
    """Return how many bytes a connection takes that nobody reads."""
    theirs.setblocking(False)
    count, idle = 0, 0
    while idle < 100:
        try:
            count += theirs.send(b"x" * 1400)
            idle = 0
        except BlockingIOError:
            idle += 1
            time.sleep(0.002)
    return count


def test_a_connection_takes_what_it_has_room_for(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    assert make_room() == ROOM_BYTES
    assert pushed(theirs) >= ROOM_BYTES
    ours.settimeout(1.0)
    assert ours.recv(1) == b"x", "and one byte is enough to wake its reader"


def test_without_room_made_a_connection_takes_less(pair: tuple[socket.socket, socket.socket]) -> None:
    _, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    assert pushed(theirs) < ROOM_BYTES // 2


def test_a_reader_is_woken_by_a_single_byte(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    make_room()
    ours.settimeout(2.0)
    theirs.send(b"x")
    assert ours.recv(10) == b"x"


def test_no_descriptor_is_left_open_or_closed(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, closing(socket.create_server(("127.0.0.1", 0))) as server:
        before = os.listdir("/proc/self/fd")
        for _ in range(10):
            make_room()
        assert os.listdir("/proc/self/fd") == before
        file.write("x")
        assert server.fileno() >= 0
        pair[0].send(b"x")
        assert pair[1].recv(1) == b"x"


def test_no_room_is_promised_where_the_kernel_gives_less(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive_buffer, "ROOM_BYTES", 2**30)
    room = make_room()
    assert ROOM_BYTES < room < 2**30, "half of the most that the system allows"


def test_no_room_is_promised_where_descriptors_are_not_listed(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(receive_buffer, "DESCRIPTORS", tmp_path / "none")
    assert make_room() == 0


# Servers that do not wait


@pytest.fixture(scope="session")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stream of 6 Mbit/s whose pictures are all of one size.

    A keyframe that is larger than the server's own buffer may be dropped whatever a reader does.
    """
    random = np.random.default_rng(1)
    pictures: list[Picture] = [random.integers(0, 255, (280, 400, 3), np.uint8) for _ in range(50)]
    file = tmp_path_factory.mktemp("noisy") / "noisy.h264"
    encode_stream(pictures, file, fps=FPS, gop_seconds=1 / FPS)
    return file


@pytest.mark.parametrize("has_room", [True, False])
def test_what_gathers_is_dropped_by_a_server_that_does_not_wait_unless_there_is_room(
    has_room: bool, noisy: Path, start_rtsp: StartRtsp
) -> None:
    server = start_rtsp({"yard": Mount(noisy, FPS)})
    with FaultyProxy(server.port) as proxy:
        proxy.drop_when_full()
        camera = CameraConfig(id="yard", url=f"rtsp://127.0.0.1:{proxy.port}/yard")
        with open_source(camera, SETTINGS) as source:
            if has_room:
                assert source.make_room() >= ROOM_BYTES
            received = 0
            for number, arrived in enumerate(source.packets()):
                received += arrived.packet.size
                if number == 5 * REST_PICTURES:
                    break
                if number and number % REST_PICTURES == 0:
                    time.sleep(REST_PICTURES / FPS)
        assert received > 5 * 200_000
        assert (proxy.dropped < FEW * proxy.offered) is has_room


def test_an_awake_camera_loses_nothing_to_a_server_that_does_not_wait(noisy: Path, start_rtsp: StartRtsp) -> None:
    server = start_rtsp({"yard": Mount(noisy, FPS)})
    with FaultyProxy(server.port) as proxy:
        proxy.drop_when_full()
        watched = Watched(CameraConfig(id="yard", url=f"rtsp://127.0.0.1:{proxy.port}/yard"), PLAN)
        watched.loop._stop = rests = Rests()
        with watched:
            watched.wait(lambda w: len(w.samples) >= 60, 20.0)
        assert sum(seconds for _, seconds in rests.begun) > 2.0
        assert sum(counts.bytes_received for counts in watched.counts) > 3_000_000
        assert proxy.dropped < FEW * proxy.offered
