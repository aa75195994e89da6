"""What the demo's cameras show: drawn scenes, or the user's clips; elementary streams for the RTSP server out."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from models.scenes import Scene
from monitor.capture.source import read_video
from monitor.errors import InputInvalid
from tests.services.rtsp import Mount, encode_stream

FPS = 15.0
SCENE_SECONDS = 60.0
SCENES = (("gate", "Gate", 911), ("yard", "Yard", 912), ("street", "Street", 913), ("platform", "Platform", 914))
"""Camera id, name, and the seed of its scene; none of the seeds was trained on."""
MOST_CLIPS = 8
VIDEO_ENDINGS = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".ts", ".m4v"}


@dataclass(frozen=True, slots=True)
class DemoCamera:
    """One simulated camera."""

    id: str
    name: str
    mount: Mount


def drawn_cameras(folder: Path, console: Console) -> list[DemoCamera]:
    """Draw and encode the scenes, once; later calls find them in `folder`."""
    cameras = []
    with _progress(console) as progress:
        for camera, name, seed in SCENES:
            file = folder / f"{camera}-{seed}-{SCENE_SECONDS:.0f}s.h264"
            if not file.exists():
                frames = round(SCENE_SECONDS * FPS)
                task = progress.add_task(f"Drawing camera {name}", total=frames)
                _encode(_counted(Scene(seed, fps=FPS).frames(SCENE_SECONDS), progress, task), file, fps=FPS)
            cameras.append(DemoCamera(camera, name, Mount(file, FPS)))
    return cameras


def clip_cameras(videos: Path, folder: Path, console: Console) -> list[DemoCamera]:
    """Make one endless camera of each of the user's clips, the first few by name.

    Raises:
        InputInvalid: the folder is missing, holds no video, or a video cannot be read.
    """
    if not videos.is_dir():
        raise InputInvalid(videos, "VIDEO must name a folder of video files")
    files = sorted(path for path in videos.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS)
    if not files:
        raise InputInvalid(videos, f"no video in it ({', '.join(sorted(VIDEO_ENDINGS))})")
    if len(files) > MOST_CLIPS:
        step = len(files) / MOST_CLIPS
        console.print(f"{len(files)} videos; {MOST_CLIPS} of them are shown, evenly chosen by name.")
        files = [files[int(index * step)] for index in range(MOST_CLIPS)]
    cameras = []
    with _progress(console) as progress:
        task = progress.add_task("Preparing the clips", total=len(files))
        for number, path in enumerate(files):
            next(read_video(path))  # a file that is no video is named here, before anything starts
            stream = folder / f"{_digest(path)}.h264"
            if not stream.exists():
                _encode(path, stream, fps=25.0)
            cameras.append(DemoCamera(f"clip-{number + 1}", path.name, Mount(stream, 25.0)))
            progress.advance(task)
    return cameras


def _encode(source: Path | Iterator[NDArray[np.uint8]], out: Path, *, fps: float) -> None:
    """Encode under another name first, so that an interrupted run leaves no half stream."""
    unfinished = out.with_suffix(".part")
    encode_stream(source, unfinished, fps=fps)
    unfinished.rename(out)


def _counted(pictures: Iterator[NDArray[np.uint8]], progress: Progress, task: object) -> Iterator[NDArray[np.uint8]]:
    for picture in pictures:
        progress.advance(task)  # type: ignore[arg-type]
        yield picture


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _progress(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    drawn_cameras(target, Console())
