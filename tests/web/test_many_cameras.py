"""`/metrics` of a monitor with 200 cameras: quick enough to be scraped each second, and small."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from monitor.bundle import find_bundle, load_bundle
from monitor.config import CameraConfig
from monitor.deadline import Deadline
from monitor.decisions import Commitment, Decision
from monitor.records import Alert, CameraState, CameraStatus, CaptureCounts, DropReason, FailureReason, Phase
from monitor.reporting import Reporter
from monitor.scoring.engine import open_engine
from monitor.telemetry.metrics import Metrics
from monitor.web.app import Page
from monitor.web.feed import Feed
from monitor.web.server import WebServer
from tests.events.test_tracker import make_score

from .test_app import Shown

CAMERAS = 200
MOST_SECONDS, MOST_BYTES = 0.3, 2_000_000
TRIES = 7


@pytest.fixture(scope="module")
def reporter():
    """A reporter to which every camera has told everything, failures of every kind included."""
    reporter = Reporter(Metrics())
    bundle = load_bundle(find_bundle("demo", Path()))
    opened = open_engine(bundle, preference="auto", threads=1)
    reporter.engine_opened(bundle, opened)
    opened.engine.close()
    for number in range(CAMERAS):
        tell_everything(reporter, f"site-{number % 7}-camera-{number:03}")
    reporter.events_active({view.id: 1 for view in reporter.cameras()})
    return reporter


def tell_everything(reporter: Reporter, camera: str) -> None:
    reporter.camera_added(CameraConfig(id=camera, url="rtsp://127.0.0.1/stream"))
    for reason in FailureReason:
        for state in (CameraState.CONNECTING, CameraState.ONLINE):
            reporter.status(CameraStatus(camera, state, time.time()))
        reporter.status(CameraStatus(camera, CameraState.OFFLINE, time.time(), reason=reason))
    dropped = dict.fromkeys(DropReason, 3)
    reporter.counts(
        CaptureCounts(
            camera,
            packets=100,
            bytes_received=9_876_543,
            frames_decoded=25,
            frames_skipped=75,
            decode_errors=2,
            samples=5,
            dropped=dropped,
            last_frame_seconds=time.time(),
            skew_seconds=-0.123456789,
            ring_bytes=15_999_999,
            contrast=40.0,
            change=3.0,
        )
    )
    score = make_score(0, 0.25)
    window = _renamed(score.window, camera)
    score = type(score)(window, np.array([0.75, 0.25], np.float32), score.attention)
    reporter.decision(
        Decision(score, "fight 1", (), 0.0001, 1.5, {"short": 1, "cool_down": 2}, scores={"scuffle": 0.25})
    )
    alerts = tuple(
        Alert(f"id-{phase}", 0, camera, "scuffle", phase, time.time(), "alerts", (), b"{}") for phase in Phase
    )
    reporter.commitment(Commitment(said=alerts, refused=alerts, seconds=0.001))


def _renamed(window, camera: str):
    fields = {name: getattr(window, name) for name in window.__slots__}
    return type(window)(**{**fields, "camera": camera})


@pytest.mark.alone
@pytest.mark.no_cover  # tracing takes as long again as the answer itself
def test_metrics_of_200_cameras_are_quick_and_small(reporter, record_property):
    server = WebServer(Page(Shown(reporter=reporter), Feed()), host="127.0.0.1", port=0)
    address = server.start()
    try:
        answers = [fetch(address) for _ in range(TRIES)]
    finally:
        server.stop(Deadline(5))
    seconds = sorted(seconds for seconds, _ in answers)
    size = len(answers[-1][1])
    lines = sum(not line.startswith(b"#") for line in answers[-1][1].splitlines())
    for name, value in (("best_seconds", seconds[0]), ("median_seconds", seconds[TRIES // 2]), ("bytes", size)):
        record_property(name, round(value, 4))
    record_property("series", lines)
    assert answers[-1][1].count(b"monitor_camera_up{") == CAMERAS
    assert seconds[0] < MOST_SECONDS
    assert size < MOST_BYTES


def fetch(address: str) -> tuple[float, bytes]:
    began = time.perf_counter()
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        text: bytes = answer.read()
    return time.perf_counter() - began, text


def test_a_camera_that_goes_leaves_nothing(reporter):
    for view in reporter.cameras():
        reporter.metrics.forget_camera(view.id)
    assert b"camera=" not in reporter.metrics.render()
