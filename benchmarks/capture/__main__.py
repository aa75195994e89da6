"""What does reading a camera cost, processor and memory? Ours against what else a user would take, on the same streams.

Run: `python -m benchmarks.capture [--quick] --json FILE`. One RTSP server plays encoded 1080p25 H.264 files in a loop;
it encodes nothing and is not counted; a witness, which only counts the packets of one stream, tells whether the server
kept up. Each contender runs in processes of its own, which are counted whole. A contender that delivers fewer than 95
of 100 samples asked for, or reads its streams slower than they come, does not keep up, and gets no more cameras; slots
that an idle gate leaves out on purpose are not asked of it. Processor time is that of the processes: another load on
the machine makes it noisier, and hardly larger, until somebody does not keep up. Run as root, the server and then the
contenders go before other work.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.capture.claims import claims
from benchmarks.capture.contenders import Name, Task
from benchmarks.capture.scenes import FPS, GOP_SECONDS, SIZE, bits_per_second, encode_scene
from benchmarks.capture.trial import KEEPS_UP_SHARE, Measured, Trial, missing
from benchmarks.capture.witness import SERVER_NICE, take_precedence
from monitor.bundle import find_bundle, load_bundle
from monitor.capture.gate import MOST_LOOK_SECONDS
from tests.services.rtsp import Mount, RtspServer

CAMERAS = (1, 4, 16, 64)
SCENES = ("idle", "busy", "mixed")
MOUNTS = 8
"""Streams of one scene, each with keyframes at moments of its own; more cameras than that share them."""
MEMORY = ("MB / camera (PSS)", "MB / camera (RSS)", "ring MB / camera")
TABLE_WIDTH = 130
BUSY_IN_MIXED = 4
"""Of so many cameras one is busy."""
CONTENDERS: tuple[Name, ...] = ("monitor gate on", "monitor gate off", "ffmpeg pipe", "OpenCV loop", "inference")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    cameras: tuple[int, ...]
    scenes: tuple[str, ...]
    contenders: tuple[Name, ...]
    loop_seconds: float
    warm_seconds: float
    asleep_seconds: float
    """Longer, where a gate has to get to know its cameras first."""
    seconds: float
    rounds: int = 1
    """How often all contenders are measured, one after the other; medians are told."""
    lines: int = SIZE[1]
    """Height of the streams."""
    fps: int = FPS
    pictures: int | None = None
    """Of a sample of ours; as many as the bundle `fight` wants where none is told."""


FULL = Plan(CAMERAS, SCENES, CONTENDERS, loop_seconds=6.0, warm_seconds=8.0, asleep_seconds=20.0, seconds=15.0)
QUICK = Plan((4,), ("idle", "busy"), CONTENDERS, loop_seconds=4.0, warm_seconds=3.0, asleep_seconds=16.0, seconds=5.0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capture", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 cameras, some seconds each; less than two minutes")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--cameras", type=_numbers, help="such as 1,4,16")
    parser.add_argument("--scenes", type=_words, help="such as idle,busy")
    parser.add_argument("--contenders", type=_words, help="such as 'monitor gate off,ffmpeg pipe'")
    parser.add_argument("--seconds", type=float, help="measured of each")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured, in turns; medians are told")
    parser.add_argument("--lines", type=int, default=SIZE[1], help="height of the streams")
    parser.add_argument("--fps", type=int, default=FPS, help="their pictures a second")
    parser.add_argument("--pictures", type=int, help="of a sample of ours, such as 1, which is what all others give")
    parser.add_argument("--streams", type=Path, help="folder that keeps the encoded streams for the next run")
    parser.add_argument("--inference-python", type=Path, help="interpreter that has the package `inference`")
    options = parser.parse_args()
    base = QUICK if options.quick else FULL
    plan = Plan(
        cameras=options.cameras or base.cameras,
        scenes=options.scenes or base.scenes,
        contenders=options.contenders or base.contenders,
        loop_seconds=base.loop_seconds,
        warm_seconds=base.warm_seconds,
        asleep_seconds=base.asleep_seconds,
        seconds=options.seconds or base.seconds,
        rounds=options.rounds,
        lines=options.lines,
        fps=options.fps,
        pictures=options.pictures,
    )
    with tempfile.TemporaryDirectory() as folder:
        streams = options.streams or Path(folder)
        for answer in measure(plan, Path(folder), streams=streams, inference_python=options.inference_python):
            if options.json:  # what is measured is kept, whatever happens to the rest
                options.json.write_text(json.dumps(answer, indent=2) + "\n")
    show(answer)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(part) for part in text.split(",")))


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def measure(plan: Plan, folder: Path, *, streams: Path, inference_python: Path | None) -> Iterator[dict[str, Any]]:
    """Run every contender on every scene; yield the figures as they grow."""
    skipped = {name: why for name in plan.contenders if (why := missing(name, inference_python))}
    contenders = [name for name in plan.contenders if name not in skipped]
    shape = load_bundle(find_bundle("fight", Path())).manifest
    pictures = plan.pictures or shape.sample.pictures
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results: list[dict[str, Any]] = []

    def trial(name: Name, urls: Sequence[str]) -> Trial:
        task = Task(
            name=name,
            urls=tuple(urls),
            sample_fps=shape.sample_fps,
            size_pixels=shape.sample.width_pixels,
            pictures=pictures,
            spacing_seconds=shape.sample.context_spacing_seconds,
            ring=str(folder / "media"),
        )
        gated = name == "monitor gate on"
        return Trial(
            task=task,
            python=inference_python if name == "inference" else None,
            fps=plan.fps,
            warm_seconds=plan.asleep_seconds if gated else plan.warm_seconds,
            seconds=plan.seconds,
            slack_seconds=MOST_LOOK_SECONDS if gated else 0.0,
        )

    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        trials = len(plan.scenes) * len(plan.cameras) * len(contenders) * plan.rounds
        task = progress.add_task("drawing the scenes", total=trials)
        with RtspServer(_mounts(plan, streams)) as server:
            take_precedence(server.pid, SERVER_NICE)
            for scene in plan.scenes:
                given_up: set[Name] = set()
                for cameras in plan.cameras:
                    urls = tuple(_urls(server, scene, cameras))
                    rounds: dict[Name, list[Measured]] = {name: [] for name in contenders}
                    for name in contenders * plan.rounds:
                        progress.update(task, advance=1, description=f"{scene}, {cameras}: {name}")
                        if name not in given_up:
                            rounds[name].append(trial(name, urls).run())
                    for name, runs in rounds.items():
                        measured = Measured.median(runs) if runs else Measured.not_run(cameras)
                        if not measured.keeps_up:  # nothing is run beyond the first number that was too many
                            given_up.add(name)
                        results.append(measured.as_json(name, scene))
                    yield _answer(plan, shape.sample_fps, pictures, skipped, results)


def _answer(
    plan: Plan, sample_fps: float, pictures: int, skipped: dict[Name, str], results: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    _add_marginal_memory(results)
    megabits = bits_per_second(plan.lines, plan.fps) / 1e6
    return {
        "machine": {"cores": psutil.cpu_count(), "processor": platform.processor() or platform.machine()},
        "stream": f"{plan.lines}p{plan.fps} H.264, GOP {GOP_SECONDS:g} s, {megabits:.2g} Mbit/s, RTSP over TCP",
        "sample_fps": sample_fps,
        "pictures": pictures,
        "rounds": plan.rounds,
        "skipped": skipped,
        "results": results,
        "claims": claims(results),
    }


def _mounts(plan: Plan, streams: Path) -> dict[str, Mount]:
    streams.mkdir(parents=True, exist_ok=True)
    mounts: dict[str, Mount] = {}
    for scene in ("idle", "busy"):
        if scene in plan.scenes or "mixed" in plan.scenes:
            path = streams / f"{scene}-{plan.lines}p{plan.fps}-{plan.loop_seconds:g}s.h264"
            if not path.exists():
                part = path.with_suffix(".part")
                encode_scene(part, busy=scene == "busy", seconds=plan.loop_seconds, lines=plan.lines, fps=plan.fps)
                part.replace(path)
            mounts |= {f"{scene}-{at}": Mount(path, plan.fps, shared=True) for at in range(MOUNTS)}
    return mounts


def _urls(server: RtspServer, scene: str, cameras: int) -> Iterator[str]:
    for number in range(cameras):
        shown = ("busy" if number % BUSY_IN_MIXED == 0 else "idle") if scene == "mixed" else scene
        yield server.url(f"{shown}-{number % MOUNTS}")


def _add_marginal_memory(results: Sequence[dict[str, Any]]) -> None:
    """Say what each camera beyond the first takes, the packets of its ring aside."""
    alone = {(row["name"], row["scene"]): row for row in results if row["cameras"] == 1}
    for row in results:
        first = alone.get((row["name"], row["scene"]))
        for kind in ("pss", "rss"):
            key = f"{kind}_bytes"
            row[f"{kind}_per_camera_bytes"] = None
            if first is None or row["cameras"] == 1 or row[key] is None or first[key] is None:
                continue
            more = row[key] - row["ring_bytes"] - first[key] + first["ring_bytes"]
            row[f"{kind}_per_camera_bytes"] = round(more / (row["cameras"] - 1))


def show(answer: dict[str, Any]) -> None:
    """Print the figures for a person."""
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    table = Table("scene", "cameras", "contender", "CPU s / camera s", *MEMORY, "samples / s")
    for row in sorted(answer["results"], key=lambda row: (SCENES.index(row["scene"]), row["cameras"])):
        table.add_row(row["scene"], str(row["cameras"]), row["name"], *_figures(row))
    console.print(table)
    for name, why in answer["skipped"].items():
        console.print(f"{name}: skipped, {why}", highlight=False)
    for claim in answer["claims"]:
        mark = "[green]✓[/]" if claim["holds"] else "[red]✗[/]"
        console.print(f"{mark} {claim['claim']}: {claim['figure']:.3g}, at most {claim['most']:g}", highlight=False)


def _figures(row: dict[str, Any]) -> tuple[str, ...]:
    if row["cpu_per_camera"] is None:
        return ("not run: fewer were too many", "", "", "", "")
    memory = (row["pss_per_camera_bytes"], row["rss_per_camera_bytes"], row["ring_bytes"] / row["cameras"])
    return (
        f"{row['cpu_per_camera']:.4f}{_remark(row)}",
        *("–" if bytes is None else f"{bytes / 1e6:.1f}" for bytes in memory),
        f"{row['samples_per_second']:.2f}",
    )


def _remark(row: dict[str, Any]) -> str:
    if row["served_share"] < KEEPS_UP_SHARE:
        return f" the server sent {row['served_share']:.0%} only"
    return "" if row["keeps_up"] else " does not keep up"


if __name__ == "__main__":
    main()
