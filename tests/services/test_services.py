"""The servers that other tests lean on: each does what its class says."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer
from kafka.errors import KafkaError

from tests.services.kafka import consume
from tests.services.proxy import FaultyProxy, InterleavedFraming
from tests.services.rtsp import ServiceError, encode_stream

SECOND = 1_000_000
"""FFmpeg's time-out option is in microseconds."""


def watch(
    url: str, *, transport: str = "tcp", timeout_seconds: float = 3.0, **options: str
) -> av.container.InputContainer:
    """Open a stream without the long probing that FFmpeg does by default."""
    return av.open(
        url,
        options={
            "rtsp_transport": transport,
            "timeout": str(round(timeout_seconds * SECOND)),
            "fpsprobesize": "0",
            "analyzeduration": "1000000",
            **options,
        },
    )


def frames_of(container: av.container.InputContainer, count: int) -> list[av.VideoFrame]:
    """Decode so many frames, strictly: any error in the bitstream raises."""
    container.streams.video[0].codec_context.options = {"err_detect": "explode"}
    frames: list[av.VideoFrame] = []
    for frame in container.decode(video=0):
        frames.append(frame)
        if len(frames) == count:
            break
    return frames


# --- streams


@pytest.mark.parametrize("name", ["h264", "h265"])
def test_encoded_stream_has_no_b_frames_and_regular_idrs(stream_files, name):
    with av.open(str(getattr(stream_files, name))) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == stream_files.pictures
    assert [number for number, frame in enumerate(frames) if frame.key_frame] == [0, 15]
    assert {PictureType(frame.pict_type) for frame in frames} == {PictureType.I, PictureType.P}
    assert (frames[0].width, frames[0].height) == (320, 240)


def test_video_is_brought_to_a_constant_rate(tmp_path):
    """Each picture of the stream is the newest of the video that is not later than it."""
    video, stream = tmp_path / "video.mkv", tmp_path / "stream.h264"
    with av.open(str(video), "w") as target:
        track = target.add_stream("mpeg4", rate=20, options={"qscale": "2"})
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for ticks, grey in ((0, 40), (2, 80), (3, 120), (14, 160), (20, 200)):  # twentieths of a second
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey, np.uint8), format="rgb24")
            frame.pts, frame.time_base = ticks, Fraction(1, 20)
            target.mux(track.encode(frame))
        target.mux(track.encode(None))
    assert encode_stream(video, stream, fps=5) == 6
    with av.open(str(stream)) as container:
        greys = [round(frame.to_ndarray(format="rgb24").mean(), -1) for frame in container.decode(video=0)]
    assert greys == [40, 120, 120, 120, 160, 200]
    assert encode_stream(video, stream, fps=5, limit_seconds=0.4) == 2


# --- the RTSP server


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("name", ["h264", "h265"])
def test_loop_decodes_without_a_seam(start_rtsp, stream_files, name, transport):
    server = start_rtsp({"yard": stream_files.mount(name), "gate": stream_files.mount(name)})
    server.set_fps("yard", 60)
    with watch(server.url("yard"), transport=transport) as container:
        assert container.streams.video[0].codec_context.name == {"h264": "h264", "h265": "hevc"}[name]
        frames = frames_of(container, 3 * stream_files.pictures + 10)
    times = [frame.pts for frame in frames if frame.pts is not None]
    assert len(times) >= len(frames) - 3
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    first, again = (frames[index].to_ndarray(format="gray") for index in (5, 5 + 2 * stream_files.pictures))
    assert np.array_equal(first, again)


def test_stream_is_paced_in_real_time(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount()})
    with watch(server.url("yard")) as container:
        frames_of(container, 10)
        begun = time.monotonic()
        frames_of(container, 30)
        assert time.monotonic() - begun == pytest.approx(2.0, abs=0.3)
        assert server.status()["yard"].streams == 1


def test_stream_without_loop_ends(start_rtsp, stream_files):
    server = start_rtsp({"once": stream_files.mount(loop=False)})
    with watch(server.url("once")) as container:
        assert len(frames_of(container, 1000)) == stream_files.pictures


def test_clock_of_the_camera_is_told(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount()})
    with watch(server.url("yard")) as container:
        begun = time.time()
        for _ in container.demux(video=0):
            if container.start_time_realtime or time.time() - begun > 8:
                break
        assert container.start_time_realtime
        assert container.start_time_realtime / SECOND == pytest.approx(begun, abs=1.0)


def test_many_clients_at_once(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount(), "shared": stream_files.mount(shared=True, live=True)})
    counts: list[int] = []

    def client(mount: str) -> None:
        with watch(server.url(mount), timeout_seconds=8) as container:
            counts.append(len(frames_of(container, 8)))

    clients = [threading.Thread(target=client, args=(mount,)) for mount in ["yard"] * 12 + ["shared"] * 4]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(20)
    assert counts == [8] * 16


def test_password_is_asked_for(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount()}, user="viewer", password="s3cret/@:")
    with watch(server.url("yard", "viewer", "s3cret/@:")) as container:
        assert frames_of(container, 2)
    for url in (server.url("yard"), server.url("yard", "viewer", "wrong")):
        with pytest.raises(av.error.HTTPUnauthorizedError):
            watch(url)


def test_unknown_mount_is_not_found(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount()})
    with pytest.raises(av.error.HTTPNotFoundError):
        watch(server.url("garden"))
    server.add("garden", stream_files.mount("h265"))
    with watch(server.url("garden")) as container:
        assert frames_of(container, 2)
    server.remove("garden")
    with pytest.raises(av.error.HTTPNotFoundError):
        watch(server.url("garden"))


def test_tls(start_rtsp, stream_files, certificates):
    server = start_rtsp(
        {"yard": stream_files.mount()},
        certificate=certificates.server,
        key=certificates.server_key,
        user="viewer",
        password="secret",
    )
    assert server.url("yard").startswith("rtsps://")
    with watch(server.url("yard", "viewer", "secret")) as container:
        assert frames_of(container, 2)


def test_stall_is_a_time_out_and_can_be_resumed(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount(), "gate": stream_files.mount()})
    with watch(server.url("yard"), timeout_seconds=1.0) as container, watch(server.url("gate")) as other:
        frames_of(container, 3)
        server.stall("yard")
        with pytest.raises(av.error.TimeoutError):
            frames_of(container, 100)
        frames_of(other, 5)
    server.resume("yard")
    with watch(server.url("yard")) as container:
        assert frames_of(container, 3)


@pytest.mark.parametrize("name", ["h264", "h265"])
def test_frozen_camera_repeats_its_picture(start_rtsp, stream_files, name):
    server = start_rtsp({"yard": stream_files.mount(name)})
    with watch(server.url("yard")) as container:
        frames_of(container, 3)
        server.freeze("yard")
        frozen = [frame.to_ndarray(format="gray") for frame in frames_of(container, 12)][-6:]
        assert all(np.array_equal(frozen[0], picture) for picture in frozen)
        server.resume("yard")
        thawed = [frame.to_ndarray(format="gray") for frame in frames_of(container, 12)][-6:]
        assert not np.array_equal(thawed[0], thawed[-1])


def test_size_changes_in_mid_stream_and_codec_at_the_next_connection(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount()})
    with watch(server.url("yard")) as container:
        frames_of(container, 3)
        server.set_file("yard", stream_files.h264_small, fps=15)
        assert frames_of(container, 15)[-1].width == 192
        server.set_file("yard", stream_files.h265, fps=15, codec="h265")
        assert len(frames_of(container, 100)) < 100
    with watch(server.url("yard")) as container:
        assert container.streams.video[0].codec_context.name == "hevc"
        assert frames_of(container, 2)


def test_packets_are_lost_over_udp(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount(loop=False)})
    server.set_loss("yard", 0.3)
    with watch(server.url("yard"), transport="udp") as container:
        received = sum(1 for packet in container.demux(video=0) if packet.size)
    assert 10 < received < stream_files.pictures


def test_time_stamps_jump_and_the_pace_stays(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount()})
    times, arrivals = [], []
    with watch(server.url("yard")) as container:
        for packet in container.demux(video=0):
            times.append(packet.pts or 0)
            arrivals.append(time.monotonic())
            if len(times) in (20, 35):
                server.jump("yard", 5.0 if len(times) == 20 else -3.0)
            if len(times) == 50:
                break
    steps = [(later - earlier) / 90_000 for earlier, later in itertools.pairwise(times[2:])]
    jumps = [step for step in steps if not 0.05 < step < 0.08]
    assert jumps == [pytest.approx(5 + 1 / 15, abs=0.02), pytest.approx(-3 + 1 / 15, abs=0.02)]
    assert arrivals[-1] - arrivals[15] == pytest.approx(34 / 15, abs=0.4)


@pytest.mark.parametrize("kind", ["flip", "truncate"])
def test_harmed_pictures_arrive_harmed(start_rtsp, stream_files, kind):
    with av.open(str(stream_files.h264)) as container:
        whole = {bytes(packet)[-40:] for packet in container.demux(video=0) if packet.size}
    server = start_rtsp({"yard": stream_files.mount()})
    server.set_fps("yard", 60)

    def share_of_whole() -> float:
        with watch(server.url("yard"), transport="udp") as container:
            ends = [bytes(packet)[-40:] for packet, _ in zip(container.demux(video=0), range(20), strict=False)]
        return sum(end in whole for end in ends) / len(ends)

    assert share_of_whole() > 0.9
    server.harm("yard", kind, share=1.0, seed=1)
    assert share_of_whole() < 0.7
    server.heal("yard")
    assert share_of_whole() > 0.9


def test_killed_server_comes_back_on_its_port(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount()})
    url = server.url("yard")
    with watch(url) as container:
        frames_of(container, 3)
        server.kill()
        with suppress(OSError, av.error.InvalidDataError):  # the end or an error, or a picture that was cut off
            assert len(frames_of(container, 100)) < 100
    with pytest.raises(av.error.ConnectionRefusedError):
        watch(url)
    server.start()
    with watch(url) as container:
        assert frames_of(container, 3)
    server.restart()
    assert server.url("yard") == url
    with watch(url) as container:
        assert frames_of(container, 3)


def test_wrong_command_is_an_error_and_the_server_goes_on(start_rtsp, stream_files, tmp_path):
    server = start_rtsp({"yard": stream_files.mount()})
    text = tmp_path / "text.h264"
    text.write_text("not a video")
    with pytest.raises(ServiceError, match="no access unit delimiters"):
        server.set_file("yard", text, fps=15)
    with watch(server.url("yard")) as container:
        assert frames_of(container, 2)


def test_servers_die_with_their_owner(rtsp_available, stream_files):
    program = f"""
import sys, time
from pathlib import Path
from tests.services.guarded import GuardedProcess
from tests.services.rtsp import Mount, RtspServer
server = RtspServer({{"yard": Mount(Path({str(stream_files.h264)!r}), 15)}})
server.start()
sleeper = GuardedProcess(["sleep", "60"], log=Path({str(stream_files.h264)!r}).with_name("sleep.log"))
sleeper.start()
print(server.pid, sleeper._guard.pid, flush=True)
time.sleep(60)
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


# --- the proxy


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    stop = threading.Event()

    def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while chunk := connection.recv(1024):
                    connection.sendall(chunk)
            except OSError:
                pass

    def run() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(10)
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=run)
    thread.start()
    yield listener.getsockname()[1]
    stop.set()
    thread.join(5)
    listener.close()


def test_proxy_forwards_pauses_and_resets(echo_port):
    with FaultyProxy(echo_port) as proxy, socket.create_connection(("127.0.0.1", proxy.port), 1) as client:
        client.settimeout(0.5)
        client.sendall(b"one")
        assert client.recv(10) == b"one"
        proxy.pause()
        client.sendall(b"two")
        with pytest.raises(TimeoutError):
            client.recv(10)
        proxy.resume()
        assert client.recv(10) == b"two"
        assert (proxy.connections, proxy.accepted) == (1, 1)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(10)


def test_proxy_refuses_swallows_and_answers_garbage(echo_port):
    with FaultyProxy(echo_port) as proxy:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), 1)
        proxy.accept()
        proxy.swallow()
        with socket.create_connection(("127.0.0.1", proxy.port), 1) as client:
            client.settimeout(0.3)
            client.sendall(b"hello")
            with pytest.raises(TimeoutError):
                client.recv(10)
        proxy.garbage()
        with socket.create_connection(("127.0.0.1", proxy.port), 1) as client:
            client.sendall(b"hello")
            assert client.recv(5) != b"hello"
        proxy.resume()
        proxy.corrupt(1.0)
        with socket.create_connection(("127.0.0.1", proxy.port), 1) as client:
            client.sendall(b"hello")
            flipped = int.from_bytes(client.recv(5)) ^ int.from_bytes(b"hello")
            assert flipped.bit_count() == 1


def test_proxy_leaves_connections_half_open(echo_port):
    with FaultyProxy(echo_port) as proxy, socket.create_connection(("127.0.0.1", proxy.port), 1) as old:
        old.settimeout(0.5)
        old.sendall(b"one")
        assert old.recv(10) == b"one"
        proxy.half_open()
        for _ in range(2):
            old.sendall(b"two")
            with pytest.raises(TimeoutError):
                old.recv(10)
        with socket.create_connection(("127.0.0.1", proxy.port), 1) as new:
            new.settimeout(0.5)
            new.sendall(b"three")
            assert new.recv(10) == b"three"


@given(st.binary(max_size=40), st.lists(st.binary(max_size=60), max_size=6), st.randoms(use_true_random=False))
def test_rtp_payloads_are_found_wherever_the_chunks_are_cut(text, packets, random):
    head = bytes(range(12))
    stream = b"RTSP/1.0 200 OK\r\n" + text.hex().encode() + b"\r\n\r\n"
    expected = b""
    for number, payload in enumerate(packets):
        framed = head + payload
        stream += b"$" + bytes([number % 2]) + len(framed).to_bytes(2) + framed
        expected += b"" if number % 2 else payload
    cuts = [0, *sorted(random.sample(range(len(stream)), min(4, len(stream)))), len(stream)]
    framing, found = InterleavedFraming(), b""
    for begin, end in itertools.pairwise(cuts):
        chunk = stream[begin:end]
        found += b"".join(chunk[place.start : place.stop] for place in framing.payloads(chunk))
    assert found == expected


def test_proxy_harms_rtp_payloads_alone(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount()})
    with FaultyProxy(server.port) as proxy, watch(f"rtsp://127.0.0.1:{proxy.port}/yard") as container:
        container.streams.video[0].codec_context.options = {"err_detect": "explode"}
        errors = 0
        for number, packet in enumerate(container.demux(video=0)):
            try:
                packet.decode()
            except av.error.FFmpegError:
                errors += 1
            if number == 5:
                assert errors == 0
                proxy.corrupt_rtp(1.0, seed=3)
            elif number == 40:
                break
        assert errors > 5
        proxy.resume()
        kept = list(itertools.islice(container.demux(video=0), 60))
        assert len(kept) == 60  # the connection has outlived it
        assert proxy.accepted == 1


def test_a_changed_password_refuses_those_who_come(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount()}, user="anna", password="right")
    with watch(server.url("yard", "anna", "right")) as container:
        server.set_password("other")
        frames_of(container, 5)
    with pytest.raises(av.error.HTTPUnauthorizedError):
        watch(server.url("yard", "anna", "right"))
    with watch(server.url("yard", "anna", "other")) as container:
        frames_of(container, 1)


def test_proxy_before_a_camera(start_rtsp, stream_files):
    server = start_rtsp({"yard": stream_files.mount()})
    with FaultyProxy(server.port) as proxy:
        with watch(f"rtsp://127.0.0.1:{proxy.port}/yard", timeout_seconds=1.0) as container:
            frames_of(container, 5)
            proxy.pause()
            with pytest.raises(av.error.TimeoutError):  # undecoded: the pause may have cut a picture in two
                deque(container.demux(video=0), maxlen=0)
        proxy.resume()
        proxy.garbage()
        with pytest.raises(av.error.FFmpegError):
            watch(f"rtsp://127.0.0.1:{proxy.port}/yard", timeout_seconds=1.0)


# --- Kafka


def _produce(bootstrap: str, topic: str, values: range, **settings: Any) -> None:
    """Send; with the version given, kafka-python connects when it sends, and leaves nothing open when it cannot."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", api_version=(4, 0), **settings)
    try:
        for value in values:
            producer.send(topic, key=b"yard", value=str(value).encode())
        producer.flush(20)
    finally:
        producer.close(timeout=5)


def test_kafka_keeps_records_over_a_kill(kafka_broker, topic):
    _produce(kafka_broker.bootstrap, topic, range(20))
    kafka_broker.restart()
    _produce(kafka_broker.bootstrap, topic, range(20, 30))
    records = consume(kafka_broker.bootstrap, topic, until=lambda read: len(read) >= 30, timeout_seconds=20)
    assert [int(record.value) for record in records] == list(range(30))
    assert {(record.key, record.partition) for record in records} == {(b"yard", 0)}


def _login(kafka_broker: Any, password: str) -> dict[str, str]:
    return {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": kafka_broker.user,
        "sasl_plain_password": password,
        "ssl_cafile": str(kafka_broker.ca_file),
    }


def test_kafka_over_tls_with_a_password(kafka_broker, topic):
    login = _login(kafka_broker, kafka_broker.password)
    _produce(kafka_broker.bootstrap_sasl_tls, topic, range(3), **login)
    records = consume(
        kafka_broker.bootstrap_sasl_tls, topic, until=lambda read: len(read) >= 3, timeout_seconds=10, **login
    )
    assert len(records) == 3
    with pytest.raises(KafkaError):
        _produce(kafka_broker.bootstrap_sasl_tls, topic, range(1), **_login(kafka_broker, "wrong"), max_block_ms=1500)


# The library's own client, closed in mid-handshake, leaves the socket to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_kafka_over_mutual_tls(kafka_broker, topic):
    files = kafka_broker.certificates
    tls = {"security_protocol": "SSL", "ssl_cafile": str(files.ca)}
    client = {"ssl_certfile": str(files.client), "ssl_keyfile": str(files.client_key)}
    _produce(kafka_broker.bootstrap_mutual_tls, topic, range(3), **tls, **client)
    assert len(consume(kafka_broker.bootstrap, topic, until=lambda read: len(read) >= 3, timeout_seconds=10)) == 3
    with pytest.raises(KafkaError):
        _produce(kafka_broker.bootstrap_mutual_tls, topic, range(1), **tls, max_block_ms=1500)


# --- Prometheus


class _Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"monitor_answer 42\n")

    def log_message(self, *_: Any) -> None: ...


def test_prometheus_scrapes(start_prometheus):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Metrics) as exporter:
        serving = threading.Thread(target=exporter.serve_forever, args=(0.05,))
        serving.start()
        try:
            prometheus = start_prometheus([f"127.0.0.1:{exporter.server_port}"])
            vector = prometheus.wait_for("monitor_answer", timeout_seconds=10)
        finally:
            exporter.shutdown()
            serving.join(5)
    assert [sample["value"][1] for sample in vector] == ["42"]
    with pytest.raises(ValueError, match="parse error"):
        prometheus.query("rate(")
