"""The evidence thread on rings that the test fills: what it writes, what it reports, and that nothing hangs."""

from __future__ import annotations

import resource
import threading
import time
import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from monitor.capture.evidence import WAITING_PICTURES, EvidenceKeeper
from monitor.capture.frames import decoded_frames
from monitor.capture.ring import PacketRing, StreamFormat
from monitor.records import (
    BeginClip,
    CameraPicture,
    EndClip,
    EvidenceKind,
    EvidenceReport,
    EvidenceResult,
    ShowCamera,
    TakePictures,
)
from tests.capture.test_clip import FPS, drawn_video, fill, frames_of
from tests.test_decisions import full_disk


class Desk:
    """A keeper on one camera, with everything it told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ring = PacketRing(seconds=60, most_bytes=10_000_000)
        self.told: list[EvidenceReport | CameraPicture] = []
        self.keeper = EvidenceKeeper(
            folder, rings_of=lambda camera: [self.ring] if camera == "yard" else [], tell=self.told.append
        )
        self.thread = threading.Thread(target=self.keeper.run, daemon=True)
        self.begin = time.time() - 4.0

    def fill(self, path: Path) -> None:
        fill(self.ring, path, begin_seconds=self.begin)

    def wait(self, reports: int, seconds: float = 5.0) -> list[Any]:
        end = time.monotonic() + seconds
        while len(self.told) < reports:
            assert time.monotonic() < end, self.told
            time.sleep(0.01)
        return self.told

    def clip(self, *, begin: float, end: float | None, latest: float = 1000.0) -> str:
        alert = str(uuid.uuid4())
        start = self.begin + begin
        self.keeper.put(BeginClip("yard", alert, f"{alert}.mp4", start, start + 0.5, self.begin + latest))
        if end is not None:
            self.keeper.put(EndClip("yard", alert, self.begin + end))
        return alert

    def pictures(self, *frames: float | None, most: int = 0) -> TakePictures:
        alert = str(uuid.uuid4())
        seconds = tuple(None if frame is None else self.begin + frame for frame in frames)
        weights = tuple(1 / len(frames) for _ in frames)
        return TakePictures("yard", alert, f"{alert}.jpg", f"{alert}.strip.jpg", seconds, weights, most)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "media")
    desk.thread.start()
    yield desk
    desk.keeper.stop()
    desk.thread.join(3)
    assert not desk.thread.is_alive()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_video(tmp_path_factory.mktemp("video") / "square.ts", codec="h264", bframes=0)


def test_a_clip_covers_what_was_asked_and_ends_there(desk: Desk, video: Path) -> None:
    desk.fill(video)
    alert = desk.clip(begin=1.0, end=2.5)
    (report,) = desk.wait(1)
    assert (report.kind, report.result, report.detail) == (EvidenceKind.CLIP, EvidenceResult.KEPT, "")
    path = desk.folder / f"{alert}.mp4"
    assert report.bytes == path.stat().st_size
    assert 1.5 <= report.seconds <= 1.5 + 20 / FPS
    assert len(frames_of(path)) == pytest.approx(report.seconds * FPS + 1, abs=1)
    assert 0 < report.cpu_seconds < 0.5


def test_a_clip_follows_the_stream_past_what_the_ring_holds(desk: Desk, video: Path) -> None:
    """The ring holds two seconds, the clip gets all four."""
    desk.ring = ring = PacketRing(seconds=1.0, most_bytes=10_000_000)
    desk.keeper._rings_of = lambda _camera: [ring]
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        writer = ring.begin(StreamFormat("h264", b"", stream.time_base))
        alert = None
        for number, packet in enumerate(packet for packet in container.demux(stream) if packet.size):
            seconds = desk.begin + number / FPS
            writer.append(packet, seconds=seconds, received_seconds=seconds)
            if number == 5:
                alert = desk.clip(begin=0.0, end=None)
            time.sleep(0.03)
        writer.end()
    (report,) = desk.wait(1)
    assert report.detail == "the camera was lost"
    assert ring.since(0)[0].seconds > desk.begin + 1.0
    assert len(frames_of(desk.folder / f"{alert}.mp4")) == 100


def test_a_clip_is_of_the_side_of_a_break_on_which_the_event_lies(desk: Desk, video: Path) -> None:
    desk.fill(video)
    fill(desk.ring, video, begin_seconds=desk.begin + 5.0)
    desk.clip(begin=3.0, end=20.0)  # the event is at 3.5, before the break at 4
    (report,) = desk.wait(1)
    assert (report.result, report.detail) == (EvidenceResult.KEPT, "the stream broke")
    desk.clip(begin=4.8, end=6.0)
    report = desk.wait(2)[1]
    assert (report.result, report.detail) == (EvidenceResult.KEPT, "")
    assert 1.0 <= report.seconds <= 1.2


def test_a_clip_whose_end_is_never_told_ends(desk: Desk, video: Path) -> None:
    desk.fill(video)
    desk.clip(begin=0.0, end=None, latest=1.0)
    assert desk.wait(1)[0].result is EvidenceResult.KEPT


def test_pictures_that_find_no_room_leave_nothing_behind(desk: Desk, video: Path) -> None:
    """A write that stops in the middle, as on a full disk."""
    desk.fill(video)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        desk.keeper.put(desk.pictures(1.0, 1.5))
        reports = desk.wait(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {(report.result, report.detail) for report in reports} == {(EvidenceResult.FAILED, "File too large")}
    assert list(desk.folder.iterdir()) == []
    desk.keeper.put(desk.pictures(1.0, 1.5))
    assert {report.result for report in desk.wait(4)[2:]} == {EvidenceResult.KEPT}


def test_a_stop_completes_open_clips(desk: Desk, video: Path) -> None:
    desk.fill(video)
    alert = desk.clip(begin=1.0, end=None)
    time.sleep(0.5)
    assert not desk.told
    desk.keeper.stop()
    desk.keeper.join(2.0)
    assert desk.told[0].detail == "the monitor stopped"
    assert len(frames_of(desk.folder / f"{alert}.mp4")) > 70


def test_pictures_are_the_frames_of_those_times(desk: Desk, video: Path) -> None:
    """The square walks through the picture: where it stands tells which frame it is."""
    desk.fill(video)
    asked = desk.pictures(1.0, None, 2.0, 3.0, most=2)
    desk.keeper.put(asked)
    reports = desk.wait(2)
    assert [(report.kind, report.result) for report in reports] == [
        (EvidenceKind.SNAPSHOT, EvidenceResult.KEPT),
        (EvidenceKind.STRIP, EvidenceResult.KEPT),
    ]
    wanted = frames_of(video)[50][1]
    got = cv2.imread(str(desk.folder / asked.snapshot_name), cv2.IMREAD_GRAYSCALE)
    assert got.shape == wanted.shape == (240, 320)
    assert cv2.PSNR(got, wanted) > 35
    strip = cv2.imread(str(desk.folder / asked.strip_name))
    lefts = [float(np.argwhere(strip[88, 10 + n * 218 : 218 + n * 218].max(axis=1) > 150)[0][0]) for n in (0, 2, 3)]
    assert lefts == pytest.approx([280 * number / 99 * 208 / 320 for number in (25, 50, 75)], abs=3)


def test_frames_that_are_gone_are_told(desk: Desk, video: Path) -> None:
    desk.keeper.put(desk.pictures(1.0))
    assert {report.detail for report in desk.wait(2)} == {"the most attended frame is no longer in the ring"}
    desk.fill(video)
    desk.keeper.put(desk.pictures(-30.0))
    assert [report.result for report in desk.wait(4)] == [EvidenceResult.FAILED] * 4


def test_a_folder_that_cannot_be_made_fails_each_piece_and_nothing_else(desk: Desk, video: Path) -> None:
    desk.folder.write_text("a file")
    desk.fill(video)
    desk.keeper.put(desk.pictures(1.0))
    desk.wait(2)
    desk.clip(begin=1.0, end=2.0)
    assert [report.result for report in desk.wait(3)] == [EvidenceResult.FAILED] * 3
    assert desk.thread.is_alive()


def test_of_too_many_pictures_the_oldest_are_given_up(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    asked = [desk.pictures(1.0) for _ in range(WAITING_PICTURES + 3)]
    for request in asked:
        desk.keeper.put(request)
    assert [report.alert_id for report in desk.told] == [request.alert_id for request in asked[:3] for _ in range(2)]


def test_what_is_no_stream_fails_its_piece_and_nothing_else(desk: Desk) -> None:
    writer = desk.ring.begin(StreamFormat("h264", b"", Fraction(1, 1000)))
    for number in range(50):
        packet = av.Packet(bytes([number]) * 500)
        packet.pts, packet.dts, packet.time_base, packet.is_keyframe = number * 40, number * 40, Fraction(1, 1000), True
        seconds = desk.begin + number / 25
        writer.append(packet, seconds=seconds, received_seconds=seconds)
    desk.clip(begin=0.2, end=1.0)
    desk.keeper.put(desk.pictures(1.0))
    assert [report.result for report in desk.wait(3)] == [EvidenceResult.FAILED] * 3
    assert desk.thread.is_alive()


def test_a_full_disk_fails_each_piece_and_nothing_else(desk: Desk, video: Path) -> None:
    desk.fill(video)
    with full_disk():
        desk.clip(begin=0.0, end=2.0)
        desk.keeper.put(desk.pictures(1.0))
        assert [report.result for report in desk.wait(3)] == [EvidenceResult.FAILED] * 3
    alert = desk.clip(begin=0.0, end=2.0)
    assert desk.wait(4)[3].result is EvidenceResult.KEPT
    assert len(frames_of(desk.folder / f"{alert}.mp4")) == 51


def test_a_windows_frames_are_decoded_one_by_one(tmp_path: Path) -> None:
    """Ten large frames held at once are what a capture process would grow by."""
    desk = Desk(tmp_path)
    desk.fill(drawn_video(tmp_path / "v.mp4", codec="h264"))
    packets = desk.ring.since(0.0)
    asked: list[float] = []
    frames = decoded_frames(packets, {packet.serial for packet in packets}, lambda: bool(asked.append(0.0)))
    next(frames)
    assert len(asked) < len(packets) / 2
    assert 1 + len(list(frames)) == len(packets)


def test_who_looks_is_shown_the_newest_keyframe_once_however_often_he_asks(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "media")
    fill(desk.ring, drawn_video(tmp_path / "wide.mp4", codec="h264", size=(1280, 720), keyint=25), begin_seconds=100.0)
    for camera in ("yard", "yard", "unknown", "yard"):
        desk.keeper.put(ShowCamera(camera))
    desk.thread.start()
    (shown,) = desk.wait(1)
    desk.keeper.stop()
    desk.thread.join(3)
    assert isinstance(shown, CameraPicture)
    assert desk.told == [shown]
    newest = desk.ring.since(float("inf"))[0]
    assert (shown.camera, shown.seconds, newest.is_keyframe) == ("yard", newest.seconds, True)
    pixels = cv2.imdecode(np.frombuffer(shown.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels.shape == (360, 640)
    number = round((newest.seconds - 100.0) * FPS)
    assert number >= 25
    before = frames_of(tmp_path / "wide.mp4")[number][1]
    assert np.abs(cv2.resize(before, (640, 360)).astype(int) - pixels).mean() < 6


def test_what_cannot_be_decoded_is_not_shown(desk: Desk) -> None:
    writer = desk.ring.begin(StreamFormat("h264", b"", Fraction(1, 90_000)))
    rubbish = av.Packet(b"rubbish")
    rubbish.is_keyframe = True
    writer.append(rubbish, seconds=1.0, received_seconds=1.0)
    desk.keeper.put(ShowCamera("yard"))
    time.sleep(0.3)
    assert desk.told == []
    assert desk.thread.is_alive()
