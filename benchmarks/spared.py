"""What does an awake camera save by leaving out pictures that no sample needs? Processor time against decoding all.

Run: `python -m benchmarks.spared [--quick] --json FILE`. A drawn 1080p25 scene in which people walk, encoded in three
ways, goes through the live program's intake with a gate that never sleeps and without one, alternately; samples are
those of the bundle `fight`, and the same both ways.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.codec.context import Flags
from av.video.stream import VideoStream
from rich.console import Console
from rich.table import Table

from benchmarks.capture.scenes import FPS, SIZE, pictures
from monitor.bundle import find_bundle, load_bundle
from monitor.capture.arrival import Arrived
from monitor.capture.intake import Intake
from monitor.capture.source import Source
from monitor.config import CameraConfig, CaptureConfig

ALL_REFERRED = "bframes=0:keyint=50:scenecut=0"
STREAMS = {
    "no B-frames": ("libx264", {"x264-params": ALL_REFERRED, "preset": "veryfast", "crf": "24"}),
    "B-frames": ("libx264", {"x264-params": "bframes=2:b-pyramid=none:keyint=50", "preset": "veryfast", "crf": "24"}),
    "all keyframes": ("mjpeg", {"q": "4"}),
}
AWAKE_FOR_EVER = CaptureConfig(gate_quiet_seconds=3600.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spared", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some seconds of each stream, once")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    seconds, rounds = (4.0, 1) if options.quick else (12.0, 3)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(name, Path(folder) / "stream.mkv", seconds, rounds) for name in STREAMS]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps({"results": rows}, indent=2) + "\n")


def measure(name: str, path: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Return what one kind of stream costs both ways: the least of some rounds."""
    encode(path, name, seconds)
    costs: dict[str, list[float]] = {"auto": [], "off": []}
    frames, samples = {}, {}
    for _ in range(rounds):
        for gate, spent in costs.items():
            cpu, frames[gate], samples[gate] = watch(path, gate)
            spent.append(cpu / seconds)
    assert samples["auto"] == samples["off"], "the same samples"
    least = {gate: min(spent) for gate, spent in costs.items()}
    return {
        "stream": name,
        "cpu_per_camera_awake": round(least["auto"], 5),
        "cpu_per_camera_off": round(least["off"], 5),
        "share": round(statistics.median(a / o for a, o in zip(costs["auto"], costs["off"], strict=True)), 3),
        "decoded_share": round(frames["auto"] / frames["off"], 3),
    }


def encode(path: Path, name: str, seconds: float) -> None:
    codec, options = STREAMS[name]
    with av.open(str(path), "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=FPS, options=options))
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for number, picture in enumerate(pictures(seconds, busy=True)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def watch(path: Path, gate: str) -> tuple[float, int, list[tuple[int, int]]]:
    """Return the processor time of a stream, its frames, and a fingerprint of each sample."""
    manifest = load_bundle(find_bundle("fight", Path())).manifest
    camera = CameraConfig.model_validate({"id": "camera", "url": str(path), "gate": gate})
    intake = Intake(camera, sample_fps=manifest.sample_fps, shape=manifest.sample, settings=AWAKE_FOR_EVER)
    frames, samples = 0, []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= Flags.copy_opaque
        intake.begin(Source(camera, container, stream, timeout_seconds=1.0))
        began = time.thread_time()
        for number, packet in enumerate(container.demux(stream)):
            for seen in intake.take(Arrived.of(packet, number / FPS, packet.time_base)):
                frames += 1
                if seen.sample is not None:
                    samples.append((seen.sample.slot, int(seen.sample.pictures.sum())))
        return time.thread_time() - began, frames, samples


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the figures for a person."""
    table = Table("stream", "CPU s / camera s, decoding all", "awake", "share", "frames decoded")
    for row in rows:
        costs = (f"{row['cpu_per_camera_off']:.4f}", f"{row['cpu_per_camera_awake']:.4f}", f"{row['share']:.2f}")
        table.add_row(row["stream"], *costs, f"{row['decoded_share']:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
