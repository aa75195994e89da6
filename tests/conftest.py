"""Fixtures for the real servers and the streams that they play.

A server that this machine lacks fails the tests where the environment variable CI is set, and skips them, with
the reason, where it is not.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import numpy as np
import pytest
import structlog

from tests.services import kafka, prometheus, rtsp
from tests.services.certificates import Certificates, make_certificates
from tests.services.kafka import KafkaBroker
from tests.services.prometheus import Prometheus
from tests.services.rtsp import Mount, Picture, RtspServer, encode_stream

# How long an example takes is the machine's business: others may be at work on it.
hypothesis.settings.register_profile("counted", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("counted")


def require(reason: str | None) -> None:
    """Fail in CI and skip elsewhere when there is a reason why a server cannot run."""
    if reason is None:
        return
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def all_levels() -> None:
    """Nothing that another test has told structlog, a command that ran in this process above all, hides a line."""
    structlog.reset_defaults()


@dataclass(frozen=True, slots=True)
class StreamFiles:
    """Small drawn streams: a square crosses the picture once in every loop of two seconds, with an IDR each second."""

    fps: float
    pictures: int
    """In one loop of each file."""
    h264: Path
    """320 x 240."""
    h265: Path
    """320 x 240."""
    h264_small: Path
    """192 x 144."""

    def mount(self, name: str = "h264", **options: Any) -> Mount:
        """Return a mount that plays the file of this name."""
        return Mount(getattr(self, name), self.fps, "h265" if name == "h265" else "h264", **options)


class StartRtsp(Protocol):
    """Starts an RTSP server that ends with the test."""

    def __call__(self, mounts: Mapping[str, Mount], **options: Any) -> RtspServer: ...


def crossing_square(pictures: int, *, width: int = 320, height: int = 240, side: int = 40) -> Iterator[Picture]:
    """Draw a bright square that walks from the left edge to the right one."""
    for number in range(pictures):
        picture = np.full((height, width, 3), 40, np.uint8)
        left = round(number * (width - side) / max(1, pictures - 1))
        picture[height // 2 - side // 2 : height // 2 + side // 2, left : left + side] = (220, 180, 30)
        yield picture


@pytest.fixture(scope="session")
def stream_files(tmp_path_factory: pytest.TempPathFactory) -> StreamFiles:
    """Encode the small streams once."""
    folder = tmp_path_factory.mktemp("streams")
    files = StreamFiles(15.0, 30, folder / "square.h264", folder / "square.h265", folder / "small.h264")
    pictures = list(crossing_square(files.pictures))
    encode_stream(pictures, files.h264, fps=files.fps, gop_seconds=1.0)
    encode_stream(pictures, files.h265, fps=files.fps, gop_seconds=1.0, codec="h265")
    encode_stream(pictures, files.h264_small, fps=files.fps, gop_seconds=1.0, size=(192, 144))
    return files


@pytest.fixture(scope="session")
def rtsp_available() -> None:
    """Ask once whether GStreamer's server can run here."""
    require(rtsp.missing())


@pytest.fixture
def start_rtsp(rtsp_available: None) -> Iterator[StartRtsp]:
    """Give a function that starts an RTSP server."""
    with ExitStack() as servers:

        def start(mounts: Mapping[str, Mount], **options: Any) -> RtspServer:
            return servers.enter_context(RtspServer(mounts, **options))

        yield start


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Make an authority and certificates for 127.0.0.1."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def kafka_available() -> None:
    """Ask once whether a Kafka broker can run here."""
    require(kafka.missing())


@pytest.fixture(scope="session")
def kafka_broker(kafka_available: None) -> Iterator[KafkaBroker]:
    """Run one broker with all its listeners; a test that kills it starts it again before it ends."""
    with KafkaBroker(secure=True) as broker:
        yield broker


@pytest.fixture
def topic() -> str:
    """Name a topic that no other test uses; the broker makes it when it is first written."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def start_prometheus() -> Iterator[Callable[[Sequence[str]], Prometheus]]:
    """Give a function that starts a Prometheus which scrapes the given addresses."""
    require(prometheus.missing())
    with ExitStack() as servers:

        def start(targets: Sequence[str], **options: Any) -> Prometheus:
            return servers.enter_context(Prometheus(targets, **options))

        yield start
