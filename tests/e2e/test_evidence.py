"""From a real stream to what a person looks at: clips, snapshots and strips, their links, and what a crash leaves."""

from __future__ import annotations

import json
import time
import urllib.request
from datetime import datetime
from pathlib import Path

import av
import cv2
import pytest

from monitor.bundle import find_bundle, load_bundle
from tests.services.monitor import MonitorProcess, configuration, run_command
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS

PRE_SECONDS, POST_SECONDS = 3.0, 2.0


def messages(config: Path) -> list[dict]:
    """The messages of alerts in the store, oldest first."""
    code, text = run_command("alerts", "--config", str(config), "--json")
    assert code == 0, text
    told = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return sorted(told, key=lambda message: message["sequence"])


def seconds_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def decoded(path: Path) -> tuple[int, float, tuple[int, int], str]:
    """Return a clip's pictures, length in seconds, size and tag; every picture has to decode."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}
        frames = [(frame.time, frame.width, frame.height) for frame in container.decode(stream)]
        return len(frames), frames[-1][0] - frames[0][0], frames[0][1:], stream.codec_context.codec_tag


def kept(monitor: MonitorProcess, kind: str, alert: str, seconds: float = 30.0) -> dict:
    return monitor.wait_for_event(
        "evidence_kept", seconds, lambda record: (record["kind"], record["alert"]) == (kind, alert)
    )


@pytest.mark.parametrize(("codec", "transport"), [("h264", "tcp"), ("h265", "udp")])
def test_an_event_leaves_a_clip_a_snapshot_and_a_strip(codec, transport, tmp_path, scene_streams):
    mount = Mount(scene_streams[codec], FPS, codec=codec)
    with RtspServer({"yard": mount}) as server:
        config = configuration(
            tmp_path,
            [{"id": "yard", "url": server.url("yard"), "transport": transport}],
            bundle="demo",
            evidence={"pre_seconds": PRE_SECONDS, "post_seconds": POST_SECONDS},
        )
        with MonitorProcess(config) as monitor:
            alert = monitor.wait_for_event("event_started", 45)["alert"]
            kept(monitor, "snapshot", alert)
            kept(monitor, "strip", alert)
            clip = kept(monitor, "clip", alert)
            with urllib.request.urlopen(f"{monitor.address}/media/{alert}.mp4", timeout=5) as answer:
                assert answer.headers["Content-Type"] == "video/mp4"
                assert len(answer.read()) == clip["bytes"]
            assert f'src="/media/{alert}.jpg"' in monitor.get("/")[1]
            assert monitor.metric("monitor_evidence_total", kind="clip", result="kept") >= 1
            assert 0 < monitor.metric("monitor_evidence_cpu_seconds_total", kind="clip") < 1.0
            assert 0 < monitor.metric("monitor_packet_ring_bytes", camera="yard") <= 16_000_000
            monitor.wait_for_metric("monitor_media_bytes", clip["bytes"], 15)
            assert monitor.stop()[0] == 0
    media = tmp_path / "var/media"
    told = [message for message in messages(config) if message["alert_id"] == alert]
    assert [told[0]["phase"], told[-1]["phase"]] == ["started", "ended"]
    for message in told:
        links = [message["evidence"][key] for key in ("snapshot", "strip", "clip")]
        assert links == [f"media/{alert}{ending}" for ending in (".jpg", ".strip.jpg", ".mp4")]
        assert all((media / Path(link).name).is_file() for link in links)

    _, length, size, tag = decoded(media / f"{alert}.mp4")
    assert tag == {"h264": "avc1", "h265": "hvc1"}[codec]
    event = seconds_of(told[-1]["time"]["ended_at"]) - seconds_of(told[0]["time"]["started_at"])
    whole = event + PRE_SECONDS + POST_SECONDS
    assert whole - 2 / FPS <= length <= whole + 2.0 + 4.0  # a group of pictures before, what came late after
    assert clip["cpu_seconds"] < 0.5

    snapshot = cv2.imread(str(media / f"{alert}.jpg"))
    assert (snapshot.shape[1], snapshot.shape[0]) == size
    strip = cv2.imread(str(media / f"{alert}.strip.jpg"))
    slots = load_bundle(find_bundle("demo", Path())).manifest.window_slots
    assert strip.shape[1] == slots * 218 + 10


def test_a_kill_in_mid_event_leaves_a_clip_that_plays_after_the_next_start(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(tmp_path, [{"id": "yard", "url": server.url("yard")}], bundle="demo")
        media = tmp_path / "var/media"
        with MonitorProcess(config) as monitor:
            alert = monitor.wait_for_event("event_started", 45)["alert"]
            time.sleep(1.0)
            monitor.kill()
        assert (media / f"{alert}.mp4.part").is_file()
        config.with_suffix(".log").rename(tmp_path / "first.log")
        with MonitorProcess(config) as monitor:
            assert monitor.wait_for_event("clips_recovered", 5)["count"] == 1
            monitor.wait_for_event("event_ended", 10, lambda record: record["alert"] == alert)
            monitor.stop()
    pictures, length, _, _ = decoded(media / f"{alert}.mp4")
    assert pictures > FPS * 5
    assert length > 5.0
    last = [message for message in messages(config) if message["alert_id"] == alert][-1]
    assert last["reason"] == "recovered"
    assert last["evidence"]["clip"] == f"media/{alert}.mp4"


def test_a_stop_in_mid_event_completes_its_clip(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(tmp_path, [{"id": "yard", "url": server.url("yard")}], bundle="demo")
        with MonitorProcess(config) as monitor:
            alert = monitor.wait_for_event("event_started", 45)["alert"]
            assert monitor.stop()[0] == 0
            records = [record for record in monitor.events("evidence_kept") if record["kind"] == "clip"]
    assert [(record["alert"], record["detail"]) for record in records] == [(alert, "the monitor stopped")]
    assert decoded(tmp_path / f"var/media/{alert}.mp4")[0] > FPS * 5


def test_without_evidence_nothing_is_kept_and_no_message_has_a_link(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        cameras = [{"id": "yard", "url": server.url("yard")}]
        config = configuration(tmp_path, cameras, bundle="demo", evidence={"enabled": False})
        with MonitorProcess(config) as monitor:
            monitor.wait_for_event("event_started", 45)
            time.sleep(1.0)
            assert monitor.stop()[0] == 0
    assert not (tmp_path / "var/media").exists()
    evidence = messages(config)[0]["evidence"]
    assert [evidence[key] for key in ("snapshot", "strip", "clip")] == [None, None, None]
