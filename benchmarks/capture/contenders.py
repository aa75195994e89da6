"""One way to read cameras, in a process of its own: what it should do in on stdin, its counts out on stdout.

The first line of stdin is a `Task` as JSON. After that each line asks for a count, and one comes back:
`{"samples": 1234, "slots": 1234, "read": null, "ring_bytes": 0}`. The process ends when stdin does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Name = Literal["monitor gate on", "monitor gate off", "ffmpeg pipe", "OpenCV loop", "inference"]
STARTED_AT_ONCE_SECONDS = 0.05
"""Between two cameras, so that a contender does not open all of them in one moment."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a contender is asked to do."""

    name: Name
    urls: tuple[str, ...]
    sample_fps: float
    size_pixels: int
    """Of a sample, both ways."""
    pictures: int
    """Of a sample; the others than ours know one only."""
    spacing_seconds: float
    ring: str
    """Folder of evidence; our packets are kept as in the live program."""

    def as_json(self) -> str:
        """Return the line that the process reads."""
        return json.dumps(asdict(self))


class Tally:
    """What a contender has counted so far, by any of its threads."""

    def __init__(self) -> None:
        self.samples = 0
        self.slots = 0
        """Of the sampling grid, answered for: those that an idle gate left out on purpose count too."""
        self.read: int | None = None
        """Pictures taken from the streams, where that can be told; who reads too slowly may still give all samples."""
        self.ring: dict[str, int] = {}
        self._lock = threading.Lock()

    def sample(self, left_out: int = 0) -> None:
        """Count one sample, and the slots before it that were left out on purpose."""
        with self._lock:
            self.samples += 1
            self.slots += 1 + left_out

    def took(self, pictures: int) -> None:
        """Count pictures that were taken from a stream, decoded or not."""
        with self._lock:
            self.read = (self.read or 0) + pictures

    def line(self) -> str:
        """Return the counts as a line."""
        ring_bytes = sum(self.ring.values())
        return json.dumps({"samples": self.samples, "slots": self.slots, "read": self.read, "ring_bytes": ring_bytes})


def watch_with_monitor(task: Task, tally: Tally) -> None:
    """Read by the live program's own capture: the same supervisor, processes and packet rings."""
    from monitor.bundle import SampleShape
    from monitor.capture.evidence import EvidencePlan
    from monitor.capture.worker import CaptureSupervisor
    from monitor.config import CameraConfig, CaptureConfig, EvidenceConfig
    from monitor.records import CaptureCounts

    evidence = EvidenceConfig()

    def count(counts: CaptureCounts) -> None:
        tally.ring[counts.camera] = counts.ring_bytes or 0
        tally.took(counts.packets)

    shape = SampleShape(
        pictures=task.pictures,
        context_spacing_seconds=task.spacing_seconds if task.pictures > 1 else 0.0,
        width_pixels=task.size_pixels,
        height_pixels=task.size_pixels,
    )
    supervisor = CaptureSupervisor(
        CaptureConfig(gate="auto" if task.name == "monitor gate on" else "off"),
        sample_fps=task.sample_fps,
        shape=shape,
        on_sample=lambda sample: tally.sample(sample.idle_slots),
        on_status=lambda _status: None,
        on_counts=count,
        on_worker=lambda _report: None,
        evidence=EvidencePlan(Path(task.ring), evidence.ring_seconds, evidence.ring_bytes),
    )
    supervisor.start()
    for number, url in enumerate(task.urls):
        supervisor.add(CameraConfig(id=f"camera-{number}", url=url))
        time.sleep(STARTED_AT_ONCE_SECONDS)


def watch_with_ffmpeg(task: Task, tally: Tally) -> None:
    """Read by an `ffmpeg` process for each camera that writes scaled pictures into a pipe."""
    rate, size = f"{task.sample_fps:g}", f"{task.size_pixels}x{task.size_pixels}"
    for url in task.urls:
        command = ["ffmpeg", "-nostdin", "-loglevel", "quiet", "-rtsp_transport", "tcp", "-i", url]
        command += ["-an", "-r", rate, "-s", size, "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        _in_thread(_drain, process, task.size_pixels**2 * 3, tally)
        time.sleep(STARTED_AT_ONCE_SECONDS)


def _drain(process: subprocess.Popen[bytes], picture_bytes: int, tally: Tally) -> None:
    assert process.stdout is not None
    while len(process.stdout.read(picture_bytes)) == picture_bytes:
        tally.sample()


def watch_with_opencv(task: Task, tally: Tally) -> None:
    """Read by a loop of `grab` and, for each sample, `retrieve` and `resize`; one thread a camera."""
    import cv2

    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp"
    cv2.setNumThreads(1)

    def read(url: str) -> None:
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        last = 0
        while capture.grab():
            tally.took(1)
            slot = int(time.time() * task.sample_fps)
            if slot != last:
                last = slot
                _, picture = capture.retrieve()
                cv2.resize(picture, (task.size_pixels, task.size_pixels), interpolation=cv2.INTER_AREA)
                tally.sample()

    for url in task.urls:
        _in_thread(read, url)
        time.sleep(STARTED_AT_ONCE_SECONDS)


def watch_with_inference(task: Task, tally: Tally) -> None:
    """Read by the video source of Roboflow's `inference`; one source and one reading thread a camera."""
    import cv2
    from inference.core.interfaces.camera.video_source import VideoSource  # type: ignore[import-not-found]

    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp"

    def read(url: str) -> None:
        source = VideoSource.init(url)
        source.start()
        last = 0
        while True:
            frame = source.read_frame()
            slot = int(time.time() * task.sample_fps)
            if frame is not None and slot != last:
                last = slot
                cv2.resize(frame.image, (task.size_pixels, task.size_pixels), interpolation=cv2.INTER_AREA)
                tally.sample()

    for url in task.urls:
        _in_thread(read, url)
        time.sleep(STARTED_AT_ONCE_SECONDS)


def _in_thread(body: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=body, args=arguments, daemon=True).start()


CONTENDERS: dict[Name, Callable[[Task, Tally], None]] = {
    "monitor gate on": watch_with_monitor,
    "monitor gate off": watch_with_monitor,
    "ffmpeg pipe": watch_with_ffmpeg,
    "OpenCV loop": watch_with_opencv,
    "inference": watch_with_inference,
}


def main(lines: Sequence[str] = ()) -> None:
    """Serve one task."""
    fields = json.loads(sys.stdin.readline())
    task = Task(**{**fields, "urls": tuple(fields["urls"])})
    tally = Tally()
    CONTENDERS[task.name](task, tally)
    for _ in sys.stdin:
        print(tally.line(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
