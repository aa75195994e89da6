"""What evidence costs: processor time of a clip and of its pictures, and what the packet ring of a camera takes.

Run: `python -m benchmarks.evidence [--quick] --json FILE`. A drawn 1080p25 stream at about 4 Mbit/s is put into a ring
as a camera would; then clips of 15 seconds are remuxed out of it and pictures taken of it, by the live program's code.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from monitor.capture.evidence import EvidenceKeeper
from monitor.capture.ring import PacketRing, StreamFormat
from monitor.records import BeginClip, CameraPicture, EndClip, EvidenceReport, TakePictures

FPS = 25
SIZE = (1920, 1080)
CLIP_SECONDS = 15.0
RING_SECONDS, RING_BYTES = 15.0, 16_000_000
WINDOW = 10


def pictures(count: int) -> Iterator[NDArray[np.uint8]]:
    """Draw a noisy picture with a square that moves: enough to use up the bit rate."""
    random = np.random.default_rng(1)
    noise = random.integers(90, 150, (SIZE[1] + 64, SIZE[0] + 64, 3), dtype=np.uint8)
    for number in range(count):
        shift = number % 64
        picture = np.ascontiguousarray(noise[shift : shift + SIZE[1], : SIZE[0]])
        picture[400:600, number * 4 % 1700 : number * 4 % 1700 + 200] = (220, 180, 30)
        yield picture


def encode(path: Path, seconds: float, codec: str) -> None:
    params = "bframes=0:keyint=50:min-keyint=50:scenecut=0:vbv-maxrate=4000:vbv-bufsize=4000:log-level=0"
    name, key = ("libx265", "x265-params") if codec == "hevc" else ("libx264", "x264-params")
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", key: params, "b": "4000000"}
        stream = cast(VideoStream, container.add_stream(name, rate=FPS, options=options))
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number, picture in enumerate(pictures(round(seconds * FPS))):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def filled_ring(path: Path, begin_seconds: float) -> PacketRing:
    """Return a ring that has seen the whole stream."""
    ring = PacketRing(seconds=RING_SECONDS, most_bytes=RING_BYTES)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        time_base = stream.time_base or Fraction(1, FPS)
        writer = ring.begin(StreamFormat(context.name, bytes(context.extradata or b""), time_base))
        for packet in container.demux(stream):
            if packet.pts is not None:
                seconds = begin_seconds + float(packet.pts * packet.time_base)
                writer.append(packet, seconds=seconds, received_seconds=seconds)
    return ring


def measure(path: Path, folder: Path, *, rounds: int) -> tuple[list[EvidenceReport], PacketRing]:
    begin = time.time() - 20.0
    ring = filled_ring(path, begin)
    told: list[EvidenceReport] = []

    def tell(report: EvidenceReport | CameraPicture) -> None:
        if isinstance(report, EvidenceReport):
            told.append(report)

    keeper = EvidenceKeeper(folder, rings_of=lambda _camera: [ring], tell=tell)
    threading.Thread(target=keeper.run, daemon=True).start()
    end = ring.since(1e12)[-1].seconds
    times = tuple(end - 3.0 + number / 5 for number in range(WINDOW))
    for number in range(rounds):
        start = end - CLIP_SECONDS
        keeper.put(BeginClip("camera", str(number), f"{number}.mp4", start, start + 5.0, end + 60.0))
        keeper.put(EndClip("camera", str(number), end - 0.1))
        weights = (1 / WINDOW,) * WINDOW
        keeper.put(TakePictures("camera", str(number), f"{number}.jpg", f"{number}.s.jpg", times, weights, WINDOW // 2))
        while len(told) < 3 * (number + 1):
            time.sleep(0.02)
    keeper.stop()
    keeper.join(3.0)
    return told, ring


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    results = []
    table = Table(
        "codec", "what", "CPU s (median)", "bytes", title=f"Evidence of 1080p25, clips of {CLIP_SECONDS:.0f} s"
    )
    with tempfile.TemporaryDirectory() as folder:
        for codec in ("h264", "hevc"):
            path = Path(folder) / f"{codec}.mp4"
            encode(path, 20.0, codec)
            told, ring = measure(path, Path(folder) / codec, rounds=3 if arguments.quick else 10)
            assert all(report.result.value == "kept" for report in told), told
            for kind in dict.fromkeys(report.kind for report in told):
                of_kind = [report for report in told if report.kind is kind]
                cpu = statistics.median(report.cpu_seconds for report in of_kind)
                results.append({"codec": codec, "name": kind.value, "cpu_seconds": cpu, "bytes": of_kind[0].bytes})
                table.add_row(codec, kind.value, f"{cpu:.4f}", f"{of_kind[0].bytes:,}")
            results.append({"codec": codec, "name": "ring", "bytes": ring.bytes})
            table.add_row(codec, f"ring of {RING_SECONDS:.0f} s", "", f"{ring.bytes:,}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
