"""Eight cameras at once on one machine, for a minute: nothing dropped, memory flat."""

from __future__ import annotations

import time

import pytest

from tests.services.monitor import MonitorProcess, configuration
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS
from .test_faults import bundle_fps

pytestmark = pytest.mark.alone

CAMERAS = 8
WARM_SECONDS, WATCHED_SECONDS = 15.0, 60.0
GROWTH_BYTES = 24 * 2**20
"""A leak of one model picture a second and camera would be ten times as much."""


@pytest.mark.timeout(180)
def test_eight_cameras_for_a_minute(tmp_path, scene_streams, record_property):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS, live=True)}) as server:
        cameras = [{"id": f"camera-{number}", "url": server.url("yard")} for number in range(CAMERAS)]
        config = configuration(tmp_path, cameras, bundle="demo")
        with MonitorProcess(config) as monitor:
            for camera in cameras:
                monitor.wait_for_metric("monitor_camera_up", 1, 30, camera=camera["id"])
            time.sleep(WARM_SECONDS)
            warm, before = monitor.resident_bytes(), monitor.metric("monitor_frames_sampled_total")
            began = time.monotonic()
            time.sleep(WATCHED_SECONDS)
            taken = monitor.metric("monitor_frames_sampled_total") - before
            expected = CAMERAS * bundle_fps() * (time.monotonic() - began)
            grown = monitor.resident_bytes() - warm
            record_property("resident_bytes", monitor.resident_bytes())
            record_property("grown_bytes", grown)
            assert monitor.metric("monitor_frames_dropped_total") == 0
            assert monitor.metric("monitor_windows_skipped_total") == 0
            assert taken >= expected - CAMERAS * bundle_fps() * 1.5  # counts arrive once a second
            assert grown < GROWTH_BYTES
            assert not monitor.events("camera_lost")
            assert monitor.stop()[0] == 0
