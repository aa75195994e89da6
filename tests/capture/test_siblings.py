"""Other streams of a camera: their likely names, and finding them on a real server."""

from __future__ import annotations

import pytest

from monitor.capture.probe import probe
from monitor.capture.siblings import propose, sibling_urls
from monitor.check import probe_cameras
from monitor.config import CameraConfig, CaptureConfig, Config
from tests.conftest import StartRtsp, StreamFiles, crossing_square
from tests.services.rtsp import Mount, encode_stream

QUICK = CaptureConfig(connect_timeout_seconds=2.0, stall_timeout_seconds=2.0)
LARGE, SMALL = "Streaming/Channels/101", "Streaming/Channels/102"


@pytest.mark.parametrize(
    ("large", "small"),
    [
        ("/Streaming/Channels/101", "/Streaming/Channels/102"),
        ("/Streaming/channels/1601?transport=1", "/Streaming/channels/1602?transport=1"),
        ("/cam/realmonitor?channel=1&subtype=0", "/cam/realmonitor?channel=1&subtype=1"),
        ("/h264Preview_01_main", "/h264Preview_01_sub"),
        ("/h264/ch1/main/av_stream", "/h264/ch1/sub/av_stream"),
        ("/stream1", "/stream2"),
        ("/videoMain", "/videoSub"),
        ("/live/main", "/live/sub"),
        ("/onvif1", "/onvif2"),
        ("/profile1/media.smp", "/profile2/media.smp"),
        ("/11", "/12"),
    ],
)
def test_names_of_common_makers_lead_from_one_stream_to_the_other(large: str, small: str) -> None:
    host = "rtsp://user:main@stream1.example:554"
    assert sibling_urls(host + large, larger=False)[0] == host + small
    assert sibling_urls(host + small, larger=True)[0] == host + large
    assert sibling_urls(host + large, larger=True) == ()
    assert sibling_urls(host + small, larger=False) == ()


def test_an_axis_camera_is_asked_for_a_size() -> None:
    url = "rtsp://camera.example/axis-media/media.amp"
    assert sibling_urls(url, larger=False) == (f"{url}?resolution=640x360",)
    assert sibling_urls(f"{url}?resolution=640x360", larger=True) == (url,)


@pytest.mark.parametrize("url", ["rtsp://main.example", "rtsp://sub.example/remain", "rtsp://a.example/yard?channel=1"])
def test_an_address_of_no_known_kind_leads_nowhere(url: str) -> None:
    assert sibling_urls(url, larger=False) == sibling_urls(url, larger=True) == ()


@pytest.fixture(scope="module")
def large_stream(tmp_path_factory: pytest.TempPathFactory) -> Mount:
    path = tmp_path_factory.mktemp("large") / "large.h264"
    encode_stream(crossing_square(15, width=1280, height=960), path, fps=15.0, gop_seconds=1.0)
    return Mount(path, 15.0)


def test_both_streams_are_found_from_either_with_the_same_credentials(
    large_stream: Mount, stream_files: StreamFiles, start_rtsp: StartRtsp
) -> None:
    server = start_rtsp({LARGE: large_stream, SMALL: stream_files.mount()}, user="watcher", password="s3cret99")
    for name in (LARGE, SMALL):
        config = Config(cameras=({"id": "yard", "url": server.url(name, "watcher", "s3cret99")},), capture=QUICK)
        (probed,) = probe_cameras(config)
        assert probed.proposal is not None
        assert probed.proposal.small_size == (320, 240)
        assert probed.proposal.large_size == (1280, 960)
        told = str(probed.proposal)
        assert f'url = "rtsp://127.0.0.1:{server.port}/{SMALL}" (320×240)' in told
        assert f'clip_url = "rtsp://127.0.0.1:{server.port}/{LARGE}" (1280×960)' in told
        assert "s3cret99" not in told


def test_a_configured_pair_is_probed_and_nothing_is_proposed(
    large_stream: Mount, stream_files: StreamFiles, start_rtsp: StartRtsp
) -> None:
    server = start_rtsp({LARGE: large_stream, SMALL: stream_files.mount()})
    pair = {"id": "yard", "url": server.url(SMALL), "clip_url": server.url(LARGE)}
    probed = probe_cameras(Config(cameras=(pair,), capture=QUICK))
    assert [(one.for_clips, one.proposal, one.ok) for one in probed] == [(False, None, True), (True, None, True)]
    assert [one.report.height_pixels for one in probed if one.report] == [240, 960]


def test_a_camera_with_one_stream_gets_no_proposal(stream_files: StreamFiles, start_rtsp: StartRtsp) -> None:
    server = start_rtsp({"stream1": stream_files.mount(), "stream2": stream_files.mount()})
    for name in ("stream1", "stream2"):  # the other is no larger
        camera = CameraConfig(id="yard", url=server.url(name))
        assert propose(camera, probe(camera, QUICK, seconds=0.5), QUICK) is None
