"""Does the model find fights in long streams, and how often does it cry wolf?

Composes one stream a recording group out of labelled clips that taught the bundle nothing: quiet, event, quiet, of the
same camera where it has both, the clips joined by slow dissolves, since a hard cut is a motion that no camera shows.
They and a long recording without any event go through the live path's windows and tracker.

    python -m benchmarks.long_streams --model fight --data DIR [--collection peru_] --json FILE [--plot FILE]

Quiet clips are short and few, so they repeat: hours of false alarms are estimated from minutes of different pictures.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from models.curve import plot_curve
from models.dataset import Clip, Dataset
from models.entries import ClipEntry, list_entries
from models.judging import judging_engine
from models.matching import Span
from models.recipe import Recipe
from models.recordings import FALSE_ALARM_RATES, Recording, Watched, judge, watch
from models.training import split_groups
from monitor.bundle import Manifest, find_bundle, load_bundle
from monitor.capture.source import read_video

DATA = Path(__file__).parents[2] / "shared" / "data"
FPS = 15
QUIET_SECONDS = 10.0
"""At least, before and after each event: longer than the tracker's merge gap and cool-down together."""
DISSOLVE_SECONDS = 2.0
"""Its pictures are watched, its seconds count as nobody's: an alarm over one is false, and makes no camera-hour."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one stream is composed of."""

    name: str
    clips: tuple[ClipEntry, ...]
    size: tuple[int, int]
    """Width and height, of the group's first event."""
    own_quiet: bool
    """Whether the quiet clips are of the events' own camera."""


def plan_streams(entries: Sequence[ClipEntry], background: str) -> list[Plan]:
    """Return a stream for each group with an event; without quiet clips of its own it borrows other groups'."""
    groups: dict[str, list[ClipEntry]] = defaultdict(list)
    for entry in entries:
        groups[entry.group].append(entry)
    borrowed = cycle([entry for entry in entries if entry.label == background])
    plans = []
    for name, members in sorted(groups.items()):
        events = [entry for entry in members if entry.label != background]
        own = [entry for entry in members if entry.label == background]
        if not events:
            continue
        quiet = cycle(own) if own else borrowed
        clips: list[ClipEntry] = []
        for event in events:
            clips += [*_quiet_time(quiet), event]
        plans.append(Plan(name, (*clips, *_quiet_time(quiet)), _size_of(events[0].path), bool(own)))
    return plans


def _quiet_time(quiet: Iterator[ClipEntry]) -> list[ClipEntry]:
    taken: list[ClipEntry] = []
    seconds = 0.0
    while seconds < QUIET_SECONDS:
        taken.append(next(quiet))
        seconds += len(_pictures(taken[-1].path, (16, 16))) / FPS
    return taken


def _size_of(path: Path) -> tuple[int, int]:
    frame, _ = next(iter(read_video(path)))
    return frame.width // 2 * 2, frame.height // 2 * 2


def _pictures(path: Path, size: tuple[int, int]) -> list[Picture]:
    """Return a clip's pictures, RGB, on a grid of FPS."""
    pictures: list[Picture] = []
    for frame, seconds in read_video(path):
        picture = np.asarray(frame.to_ndarray(format="rgb24", width=size[0], height=size[1]), np.uint8)
        pictures += [picture] * max(0, round(seconds * FPS) + 1 - len(pictures))
    return pictures


def compose(plan: Plan, path: Path, background: str) -> tuple[list[Span], float]:
    """Write a stream; return its events and the seconds that are dissolves, which no camera saw."""
    spans: list[Span] = []
    count, dissolved = 0, 0
    last: Picture | None = None
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "ultrafast", "g": str(FPS)})
        stream.width, stream.height = plan.size
        stream.pix_fmt = "yuv420p"
        for clip in plan.clips:
            pictures = _pictures(clip.path, plan.size)
            between = [] if last is None else _dissolve(last, pictures[0])
            for picture in (*between, *pictures):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = count, Fraction(1, FPS)
                container.mux(stream.encode(frame))
                count += 1
            dissolved += len(between)
            if clip.label != background:
                spans.append(Span(clip.label, (count - len(pictures)) / FPS, count / FPS))
            last = pictures[-1]
        container.mux(stream.encode(None))
    return spans, dissolved / FPS


def _dissolve(before: Picture, after: Picture) -> list[Picture]:
    shares = np.linspace(0.0, 1.0, round(DISSOLVE_SECONDS * FPS))
    return [cv2.addWeighted(before, 1.0 - share, after, share, 0.0).astype(np.uint8) for share in shares]


def unseen_entries(data: Path, manifest: Manifest, collection: str) -> list[ClipEntry]:
    """Return the clips of a collection that taught the bundle nothing: of its own, those of the groups kept aside.

    Those chose the epoch and the thresholds. A collection that the bundle was not trained on is returned whole.
    """
    entries = [entry for entry in list_entries(data, []) if entry.path.name.startswith(collection)]
    recipe = Recipe.model_validate(manifest.training["recipe"])
    if sum(manifest.training["clips"].values()) != len(entries):
        return entries
    if recipe.refit:
        raise SystemExit(f"{manifest.name} was taught by all groups of {collection}*: take clips of another collection")
    nothing = np.zeros((0, 1, 1, 1, 3), np.uint8)
    clips = tuple(Clip(entry, nothing, np.zeros(0, np.int64), "") for entry in entries)
    split = split_groups(Dataset(data, manifest.labels, clips), recipe.validation_share, seed=recipe.seed)
    return [entries[index] for index in split.validation]


def measure(options: argparse.Namespace, console: Console) -> tuple[Watched, Watched | None, dict[str, object]]:
    """Compose and watch everything; return it with the long recording, that recording alone, and what it was."""
    bundle = load_bundle(find_bundle(options.model, Path.cwd()))
    manifest = bundle.manifest
    plans = plan_streams(unseen_entries(options.data, manifest, options.collection), manifest.background)
    plans = plans[:2] if options.quick else plans
    options.work.mkdir(parents=True, exist_ok=True)
    recordings: list[Recording] = []
    with closing(judging_engine(bundle, threads=1)) as engine:
        for number, plan in enumerate(track(plans, "Composing and watching", console=console)):
            path = options.work / f"stream{number:03d}.mp4"
            events, dissolved = compose(plan, path, manifest.background)
            seen = watch(path, events, bundle, engine)
            recordings.append(replace(seen, recording_seconds=seen.recording_seconds - dissolved))
            path.unlink()
        quiet = [watch(options.quiet, [], bundle, engine)] if options.quiet.is_file() else []
    about = {
        "model": f"{manifest.name} {manifest.version}",
        "collection": options.collection,
        "streams": len(plans),
        "streams_with_quiet_clips_of_their_own": sum(plan.own_quiet for plan in plans),
        "quiet_recording": options.quiet.name if quiet else None,
    }
    return judge([*recordings, *quiet], manifest), judge(quiet, manifest) if quiet else None, about


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_streams", description=__doc__)
    parser.add_argument("--model", default="fight")
    parser.add_argument("--data", type=Path, default=DATA / "fight", help="labelled clips, with clips.csv")
    parser.add_argument("--collection", default="surv_", help="take only files whose name begins with it")
    parser.add_argument("--quiet", type=Path, default=DATA / "street" / "vtest.avi", help="a recording without events")
    parser.add_argument("--work", type=Path, default=Path(".cache/long_streams"))
    parser.add_argument("--plot", type=Path, help="picture of the curve; left out: beside --json")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="two streams only")
    options = parser.parse_args()
    console = Console()
    if not options.data.is_dir():
        parser.error(f"{options.data} is not there; name a folder of labelled clips with --data")
    watched, quiet, about = measure(options, console)
    console.print(f"{about}\n{watched}", highlight=False)
    for rate in FALSE_ALARM_RATES:
        point = watched.best_at(rate)
        said = f"threshold {point.threshold}: {point.found}" if point else "no threshold"
        console.print(f"at most {rate:g} false alarms a camera-hour: {said}", highlight=False)
    if quiet is not None:
        console.print(f"{about['quiet_recording']} alone: {quiet}", highlight=False)
    if options.json is not None:
        table = {**about, "all": watched.as_json(), "quiet_recording_alone": quiet and quiet.as_json()}
        options.json.write_text(json.dumps(table, indent=1), encoding="utf-8")
    plot = options.plot or (options.json and options.json.with_suffix(".png"))
    if plot is not None:
        plot_curve(watched, plot, title=f"{about['model']} on {about['collection']}* clips")


if __name__ == "__main__":
    main()
