from __future__ import annotations

import re
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import pytest

from monitor.capture import source as source_module
from monitor.capture.probe import probe
from monitor.capture.receive_buffer import ROOM_BYTES
from monitor.capture.source import open_source, read_video
from monitor.config import CameraConfig, CaptureConfig
from monitor.errors import InputInvalid, SourceFailed
from monitor.records import ClockSource, FailureReason
from tests.capture.drawing import plain_frame, write_video
from tests.conftest import StartRtsp, StreamFiles
from tests.services.certificates import Certificates
from tests.services.ports import free_port

QUICK = CaptureConfig(connect_timeout_seconds=1.0, stall_timeout_seconds=1.0)
PASSWORD = "p@ss:w/rd"


@pytest.fixture
def listen() -> Iterator[Callable[[bytes], int]]:
    """Give a function that starts a listener which answers everything with the same bytes, and returns its port."""
    with ExitStack() as stack:

        def start(answer: bytes) -> int:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=serve, args=(server, answer), daemon=True).start()
            return int(server.getsockname()[1])

        def serve(server: socket.socket, answer: bytes) -> None:
            clients = []
            while True:
                try:
                    client = server.accept()[0]
                except OSError:
                    break
                clients.append(client)
                if answer:
                    client.recv(4096)
                    client.sendall(answer)
            for client in clients:
                client.close()

        yield start


def failure_of(url: str, **keys: object) -> SourceFailed:
    with pytest.raises(SourceFailed) as caught:
        open_source(CameraConfig.model_validate({"id": "yard", "url": url, **keys}), QUICK).close()
    assert caught.value.camera == "yard"
    return caught.value


# Failures while opening


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http"])
def test_a_closed_port_is_a_refused_connection(scheme: str) -> None:
    assert failure_of(f"{scheme}://127.0.0.1:{free_port()}/x").reason is FailureReason.CONNECTION_REFUSED


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http"])
def test_a_silent_listener_times_out(scheme: str, listen: Callable[[bytes], int]) -> None:
    begun = time.monotonic()
    assert failure_of(f"{scheme}://127.0.0.1:{listen(b'')}/x").reason is FailureReason.TIMED_OUT
    assert time.monotonic() - begun < 2.5


def test_an_answer_that_is_garbage_times_out(listen: Callable[[bytes], int]) -> None:
    assert failure_of(f"rtsp://127.0.0.1:{listen(b'garbage' * 99)}/x").reason is FailureReason.TIMED_OUT


def test_a_web_page_is_not_a_video(listen: Callable[[bytes], int]) -> None:
    page = b"<html>" + b"hello " * 2000
    answer = b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page) + page
    assert failure_of(f"http://127.0.0.1:{listen(answer)}/x").reason is FailureReason.UNSUPPORTED


@pytest.mark.parametrize("scheme", ["rtsp", "http", "udp"])
def test_an_unknown_name_is_told_as_such(scheme: str) -> None:
    failure = failure_of(f"{scheme}://user:{PASSWORD.replace('@', '%40').replace('/', '%2F')}@no-such-host.invalid/x")
    assert failure.reason is FailureReason.NAME_NOT_RESOLVED
    assert "no-such-host.invalid" in failure.detail


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (401, FailureReason.REFUSED),
        (403, FailureReason.REFUSED),
        (404, FailureReason.NOT_FOUND),
        (500, FailureReason.SERVER_ERROR),
    ],
)
def test_answers_of_a_web_server(code: int, reason: FailureReason, listen: Callable[[bytes], int]) -> None:
    answer = f"HTTP/1.0 {code} No\r\nContent-Length: 0\r\n\r\n".encode()
    failure = failure_of(f"http://user:hunter22@127.0.0.1:{listen(answer)}/x?token=s3cret99")
    assert failure.reason is reason
    assert "hunter22" not in str(failure)
    assert "s3cret99" not in str(failure)


def test_a_text_file_is_not_a_video(tmp_path: Path) -> None:
    for name in ("notes.txt", "notes.mp4"):
        (tmp_path / name).write_text("no video\n" * 500)
        failure = failure_of(str(tmp_path / name))
        assert (failure.reason, failure.detail) == (FailureReason.UNSUPPORTED, "not a video")


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    assert failure_of(f"file://{tmp_path}/none.mp4").reason is FailureReason.NOT_FOUND


def test_sound_alone_is_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert failure_of(str(path)).reason is FailureReason.UNSUPPORTED


def test_nothing_of_the_address_stays_on_the_error() -> None:
    failure = failure_of(f"rtsp://127.0.0.1:{free_port()}/x", username="user")
    assert failure.__cause__ is None
    assert failure.__suppress_context__


# Files


def test_a_file_is_paced_as_live(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a b%20c.mp4", frames=25)
    begun = time.monotonic()
    with (
        open_source(CameraConfig(id="yard", url=str(path)), QUICK) as source,
        pytest.raises(SourceFailed) as caught,
    ):
        frames = 0
        for arrived in source.packets():
            frames += len(source.decode(arrived))
            assert abs(time.time() - arrived.received_seconds) < 0.2
    assert caught.value.reason is FailureReason.ENDED
    assert frames == 25
    assert 0.8 < time.monotonic() - begun < 2.0


def test_a_stop_ends_the_pace_at_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "slow.mp4", frames=5, fps=1)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    begun = time.monotonic()
    with open_source(CameraConfig(id="yard", url=f"file://{path}"), QUICK) as source:
        assert len(list(source.packets(stop))) < 3
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_read_video_gives_frames_from_second_zero(codec: str, tmp_path: Path) -> None:
    video = list(read_video(write_video(tmp_path / "a.mkv", codec=codec, frames=30)))
    assert len(video) == 30
    assert [seconds for _, seconds in video] == pytest.approx([n / 25 for n in range(30)], abs=2e-3)


def test_a_file_whose_timestamps_jump_by_hours_is_played_on_at_once(tmp_path: Path) -> None:
    path = tmp_path / "jumps.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.codec_context.time_base = 64, 48, Fraction(1, 25)
        for number in range(20):
            frame = plain_frame(100 + number)
            frame.pts, frame.time_base = number + (number >= 10) * 36_000 * 25, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    begun = time.monotonic()
    with open_source(CameraConfig(id="yard", url=str(path)), QUICK) as source, pytest.raises(SourceFailed) as ended:
        count = 0
        for _ in source.packets():
            count += 1
    assert ended.value.reason is FailureReason.ENDED
    assert count >= 20
    assert time.monotonic() - begun < 10.0


def test_read_video_skips_what_is_damaged(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", frames=100, size=(320, 240))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = bytes(600)
    path.write_bytes(content)
    assert 50 < len(list(read_video(path))) <= 100


def test_read_video_follows_a_change_of_size(tmp_path: Path) -> None:
    small = write_video(tmp_path / "a.h264", frames=10).read_bytes()
    large = write_video(tmp_path / "b.h264", frames=10, size=(128, 96)).read_bytes()
    (tmp_path / "both.h264").write_bytes(small + large)
    video = list(read_video(tmp_path / "both.h264"))
    assert [frame.width for frame, _ in video] == [64] * 10 + [128] * 10
    assert all(before[1] < after[1] for before, after in pairwise(video))


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty"])
def test_read_video_says_what_is_wrong(kind: str, tmp_path: Path) -> None:
    path = tmp_path if kind == "folder" else tmp_path / "x.txt"
    if kind in ("text", "empty"):
        path.write_text("text\n" * 100 if kind == "text" else "")
    with pytest.raises(InputInvalid, match=r"no such file|is a folder|not a video"):
        next(read_video(path))


def test_probe_of_a_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=50, options={"g": "10", "bf": "0"})
    report = probe(CameraConfig(id="yard", url=str(path)), QUICK, seconds=5)
    assert (report.codec, report.width_pixels, report.height_pixels) == ("h264", 64, 48)
    assert report.measured_fps == pytest.approx(25, abs=0.1)
    assert (report.gop_frames, report.clock, report.problems) == (10, ClockSource.HOST, ())


def test_a_probe_tells_of_keyframes_that_come_too_seldom_for_a_gate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=150, options={"g": "300", "bf": "0", "sc_threshold": "0"})
    (problem,) = probe(CameraConfig(id="yard", url=str(path)), QUICK, seconds=5.5).problems
    assert re.fullmatch(r"fewer than two keyframes in [56] s: all is decoded, and .*", problem)


# Real RTSP


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("name", ["h264", "h265"])
def test_probe_of_a_camera(name: str, transport: str, stream_files: StreamFiles, start_rtsp: StartRtsp) -> None:
    server = start_rtsp({"yard": stream_files.mount(name)}, user="user", password=PASSWORD)
    camera = CameraConfig.model_validate(
        {"id": "yard", "url": server.url("yard", "user", PASSWORD), "transport": transport}
    )
    report = probe(camera, QUICK, seconds=2.5)
    assert report.codec == {"h264": "h264", "h265": "hevc"}[name]
    assert (report.width_pixels, report.height_pixels) == (320, 240)
    assert report.measured_fps == pytest.approx(15, abs=1.5)
    assert report.gop_frames == 15
    assert report.open_seconds < 2.0
    assert report.problems == ()


def test_a_cameras_own_clock_is_told(stream_files: StreamFiles, start_rtsp: StartRtsp) -> None:
    """Once the first sender report has come, after some seconds."""
    server = start_rtsp({"yard": stream_files.mount()})
    with open_source(CameraConfig(id="yard", url=server.url("yard")), QUICK) as source:
        for arrived in islice(source.packets(), 200):
            seconds = [one.camera_seconds for one in source.decode(arrived)]
            if seconds and seconds[0] is not None:
                assert abs(seconds[0] - arrived.received_seconds) < 1.0
                return
    pytest.fail("no sender report")


@pytest.mark.parametrize("name", ["h264", "h265"])
def test_a_picture_is_received_when_it_comes_and_not_with_the_next(
    name: str, stream_files: StreamFiles, start_rtsp: StartRtsp
) -> None:
    """FFmpeg gives it out with the next one, 0.2 s later; the server's clock, which is ours, tells when it was due."""
    server = start_rtsp({"yard": replace(stream_files.mount(name), fps=5.0)})
    with open_source(CameraConfig(id="yard", url=server.url("yard")), QUICK) as source:
        packets = islice(source.packets(), 30)
        late = [one.received_seconds - one.camera_seconds for one in packets if one.camera_seconds is not None]
    assert len(late) > 10
    assert abs(statistics.median(late)) < 0.05


def test_a_camera_behind_tls(stream_files: StreamFiles, start_rtsp: StartRtsp, certificates: Certificates) -> None:
    server = start_rtsp({"yard": stream_files.mount()}, certificate=certificates.server, key=certificates.server_key)
    with open_source(CameraConfig(id="yard", url=server.url("yard")), QUICK) as source:
        assert len(list(islice(source.packets(), 5))) == 5


def test_wrong_passwords_and_paths(stream_files: StreamFiles, start_rtsp: StartRtsp) -> None:
    server = start_rtsp({"yard": stream_files.mount()}, user="user", password=PASSWORD)
    for url, reason in (
        (server.url("yard"), FailureReason.REFUSED),
        (server.url("yard", "user", "hunter22"), FailureReason.REFUSED),
        (server.url("garden", "user", PASSWORD), FailureReason.NOT_FOUND),
    ):
        failure = failure_of(url)
        assert failure.reason is reason
        assert "hunter22" not in str(failure)


@pytest.mark.parametrize(("transport", "has_room"), [("tcp", True), ("udp", False)])
def test_over_udp_there_is_no_room_for_what_is_not_read(
    transport: str, has_room: bool, stream_files: StreamFiles, start_rtsp: StartRtsp
) -> None:
    server = start_rtsp({"yard": stream_files.mount()})
    camera = CameraConfig.model_validate({"id": "yard", "url": server.url("yard"), "transport": transport})
    with open_source(camera, QUICK) as source:
        assert (source.make_room() >= ROOM_BYTES) is has_room


@pytest.mark.parametrize(
    ("url", "is_datagrams"),
    [
        ("udp://127.0.0.1:9", True),
        ("rtp://127.0.0.1:9", True),
        ("srt://127.0.0.1:9", True),
        ("tcp://127.0.0.1:9", False),
        ("http://127.0.0.1:9/x", False),
        ("rtmp://127.0.0.1:9/x", False),
        ("rtsps://127.0.0.1:9/x", False),
        ("/videos/udp.mp4", False),
    ],
)
def test_it_is_known_what_comes_in_datagrams(url: str, is_datagrams: bool) -> None:
    assert source_module._is_datagrams(CameraConfig(id="yard", url=url)) is is_datagrams


def test_a_killed_server_ends_the_stream(stream_files: StreamFiles, start_rtsp: StartRtsp) -> None:
    server = start_rtsp({"yard": stream_files.mount()})
    with open_source(CameraConfig(id="yard", url=server.url("yard")), QUICK) as source:
        packets = source.packets()
        next(packets)
        server.kill()
        with pytest.raises(SourceFailed) as caught:
            for _ in packets:
                pass
    assert caught.value.reason is FailureReason.ENDED


def test_a_probe_of_a_camera_that_sends_nothing_comes_back(stream_files: StreamFiles, start_rtsp: StartRtsp) -> None:
    server = start_rtsp({"yard": stream_files.mount()})
    server.stall("yard")
    begun = time.monotonic()
    with pytest.raises(SourceFailed) as caught:
        probe(CameraConfig(id="yard", url=server.url("yard")), QUICK, seconds=1.0)
    assert caught.value.reason in (FailureReason.TIMED_OUT, FailureReason.STALLED)
    assert time.monotonic() - begun < 4.0
    server.resume("yard")


def test_a_certificate_is_checked_where_that_is_asked_for(
    stream_files: StreamFiles, start_rtsp: StartRtsp, certificates: Certificates
) -> None:
    server = start_rtsp({"yard": stream_files.mount()}, certificate=certificates.server, key=certificates.server_key)
    camera = CameraConfig(id="yard", url=server.url("yard"), tls_verify=True, tls_ca_file=certificates.ca)
    with open_source(camera, CaptureConfig()) as source:
        assert next(source.packets())
    stranger = CameraConfig(id="yard", url=server.url("yard"), tls_verify=True)
    with pytest.raises(SourceFailed):
        open_source(stranger, CaptureConfig())
