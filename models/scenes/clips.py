"""Labelled clips of drawn scenes: a seed in, H.264 files and `clips.csv` (or `events.csv`) out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from models.scenes.scene import BACKGROUND_LABEL, EVENT_LABEL, Scene

CLIP_SECONDS = 2.6
_CLIPS_A_SCENE = 4
_LEAST_OVERLAP = 0.6
"""Share of a `scuffle` clip that the scuffle fills at least."""
_LEAST_APART_SECONDS = 0.15
_SIZES = ((640, 360), (480, 270), (480, 270), (320, 240))
_RATES = (15, 15, 20, 25, 30)


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """One clip to be written."""

    path: str
    """Relative to the data set's folder."""
    label: str
    group: str
    """Clips of one scene share it."""
    scene_seed: int
    start_seconds: float


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file is compressed."""

    quality: int = 23
    """x264's CRF: 18 is fine, 32 is coarse."""
    keyframe_pictures: int = 30


def plan_clips(clips: int, seed: int) -> list[ClipPlan]:
    """Choose scenes and moments, half of the clips of each label."""
    plans: list[ClipPlan] = []
    scene_seed = seed * 1_000_000
    while len(plans) < clips:
        rng = np.random.default_rng((scene_seed, 3))
        events = _scene(scene_seed, rng).events(70.0)
        scene_seed += 1
        if not events:
            continue
        group = f"scene{scene_seed - 1}"
        starts: list[float] = []
        for number in range(min(_CLIPS_A_SCENE, clips - len(plans))):
            label = (EVENT_LABEL, BACKGROUND_LABEL)[len(plans) % 2]
            starts.append(_new_moment(rng, events, label, starts))
            start = starts[-1]
            plans.append(ClipPlan(f"{label}/{group}-{number}.mp4", label, group, scene_seed - 1, start))
    return plans


def write_clips(out: Path, plans: Iterable[ClipPlan]) -> Iterator[ClipPlan]:
    """Write the clips into a folder per label, then `clips.csv`; yield each plan when its file is there."""
    written: list[ClipPlan] = []
    scene: Scene | None = None
    for plan in plans:
        if scene is None or scene.seed != plan.scene_seed:
            scene = _scene(plan.scene_seed, np.random.default_rng((plan.scene_seed, 3)))
        encoding_rng = np.random.default_rng((plan.scene_seed, 4))
        encoding = Encoding(
            quality=int(encoding_rng.integers(18, 31)), keyframe_pictures=int(encoding_rng.integers(10, 61))
        )
        path = out / plan.path
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, scene.frames(CLIP_SECONDS, start_seconds=plan.start_seconds), scene.fps, encoding)
        written.append(plan)
        yield plan
    with (out / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "group"))
        table.writerows((plan.path, plan.label, plan.group) for plan in written)


def write_recordings(out: Path, recordings: int, seed: int, *, duration_seconds: float) -> Iterator[Path]:
    """Write long recordings, then `events.csv` (path,start_seconds,end_seconds,label); yield each file."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, float, float, str]] = []
    for number in range(recordings):
        scene = Scene(seed * 1_000_000 + 500_000 + number)
        path = out / f"recording{number:03d}.mp4"
        encode(path, scene.frames(duration_seconds), scene.fps, Encoding())
        events = scene.events(duration_seconds)
        rows += [(path.name, round(start, 3), round(end, 3), EVENT_LABEL) for start, end in events]
        yield path
    with (out / "events.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "start_seconds", "end_seconds", "label"))
        table.writerows(rows)


def encode(path: Path, pictures: Iterable[NDArray[np.uint8]], fps: float, encoding: Encoding) -> None:
    """Write pictures, each (H, W, 3) uint8 RGB, as one H.264 file."""
    options = {"crf": str(encoding.quality), "preset": "superfast", "threads": "1"}
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = encoding.keyframe_pictures
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _scene(scene_seed: int, rng: np.random.Generator) -> Scene:
    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    return Scene(scene_seed, width, height, fps=_RATES[int(rng.integers(len(_RATES)))])


def _new_moment(rng: np.random.Generator, events: list[tuple[float, float]], label: str, taken: list[float]) -> float:
    """Return the start of a clip that is not the same as one taken before."""
    while True:
        start = _event_moment(rng, events) if label == EVENT_LABEL else _quiet_moment(rng, events)
        if all(abs(start - other) > _LEAST_APART_SECONDS for other in taken):
            return start


def _event_moment(rng: np.random.Generator, events: list[tuple[float, float]]) -> float:
    """Return the start of a clip that a scuffle fills to `_LEAST_OVERLAP` at least."""
    start, end = events[int(rng.integers(len(events)))]
    spare = (1.0 - _LEAST_OVERLAP) * CLIP_SECONDS
    return max(0.0, float(rng.uniform(start - spare, end - CLIP_SECONDS + spare)))


def _quiet_moment(rng: np.random.Generator, events: list[tuple[float, float]]) -> float:
    """Return the start of a clip without a scuffle, often just before or after one."""
    start, end = events[int(rng.integers(len(events)))]
    kind = rng.random()
    if kind < 0.25 and start > CLIP_SECONDS:
        return float(start - CLIP_SECONDS - rng.uniform(0.0, 1.5))
    if kind < 0.5:
        return float(end + rng.uniform(0.0, 1.5))
    while True:
        moment = float(rng.uniform(0.0, 70.0))
        if all(moment + CLIP_SECONDS <= start or moment >= end for start, end in events):
            return moment
