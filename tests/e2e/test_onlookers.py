"""Eight cameras while fifty browsers look on: sampling does not notice, and everybody is told."""

from __future__ import annotations

import threading
import time
import urllib.request
from contextlib import ExitStack

import pytest

from tests.conftest import require
from tests.services import browser as browser_service
from tests.services.browser import chromium, visit
from tests.services.monitor import MonitorProcess, configuration
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS
from .test_faults import bundle_fps

CAMERAS, ONLOOKERS = 8, 50
WATCHED_SECONDS = 15.0
COUNTS_SECONDS = 1.5
"""Counts arrive once a second."""


class Onlooker:
    """What a browser does: it listens to the changes, and asks for a camera's picture every two seconds."""

    def __init__(self, address: str, camera: str, stop: threading.Event) -> None:
        self.scores, self.pictures, self.failure = 0, 0, ""
        self._address = address
        self._camera = camera
        self._stop = stop
        self.threads = [threading.Thread(target=body, daemon=True) for body in (self._listen, self._look)]

    def _listen(self) -> None:
        try:
            with urllib.request.urlopen(f"{self._address}/api/v1/events", timeout=10) as stream:
                while not self._stop.is_set():
                    self.scores += stream.readline() == b"event: scores\n"
        except OSError as exc:
            self.failure = str(exc)

    def _look(self) -> None:
        try:
            while not self._stop.wait(2.0):
                with urllib.request.urlopen(
                    f"{self._address}/api/v1/cameras/{self._camera}/picture.jpg", timeout=10
                ) as picture:
                    self.pictures += picture.read(2) == b"\xff\xd8"
        except OSError as exc:
            self.failure = str(exc)


@pytest.mark.timeout(180)
@pytest.mark.xdist_group("page")
def test_fifty_onlookers_do_not_disturb_the_sampling_of_eight_cameras(tmp_path, scene_streams, record_property):
    require(browser_service.missing())
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS, live=True)}) as server, ExitStack() as stack:
        cameras = [{"id": f"camera-{number}", "url": server.url("yard")} for number in range(CAMERAS)]
        monitor = stack.enter_context(MonitorProcess(configuration(tmp_path, cameras, bundle="demo")))
        for camera in cameras:
            monitor.wait_for_metric("monitor_windows_scored_total", 1, 45, camera=camera["id"])
        stop = threading.Event()
        names = [cameras[number % CAMERAS]["id"] for number in range(ONLOOKERS)]
        onlookers = [Onlooker(monitor.address, name, stop) for name in names]
        for thread in (thread for onlooker in onlookers for thread in onlooker.threads):
            thread.start()
        here = stack.enter_context(visit(stack.enter_context(chromium()), base_url=monitor.address))
        here.page.goto("/")
        before, began = monitor.metric("monitor_frames_sampled_total"), time.monotonic()
        here.page.wait_for_timeout(WATCHED_SECONDS * 1000)
        taken = monitor.metric("monitor_frames_sampled_total") - before
        expected = CAMERAS * bundle_fps() * (time.monotonic() - began)
        assert monitor.metric("monitor_page_streams") == ONLOOKERS + 1
        stop.set()
        record_property("taken", taken)
        record_property("expected", round(expected))
        assert taken >= expected - CAMERAS * bundle_fps() * COUNTS_SECONDS
        assert monitor.metric("monitor_frames_dropped_total") == 0
        assert monitor.metric("monitor_windows_skipped_total") == 0
        assert [onlooker.failure for onlooker in onlookers if onlooker.failure] == []
        assert min(onlooker.scores for onlooker in onlookers) > WATCHED_SECONDS  # two a second
        assert min(onlooker.pictures for onlooker in onlookers) >= WATCHED_SECONDS / 2 / 2
        assert here.complaints == []
        code, seconds = monitor.stop()
        assert code == 0, monitor.log_text[-3000:]
        assert seconds < 5.0, "nobody who looks on delays the stop"
        print(f"{taken:.0f} samples taken, {expected:.0f} expected; stopped within {seconds:.1f} s")
