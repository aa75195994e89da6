"""Does the gate cost events, or time? Alerts with and without it, on streams that are quiet, show an event, and rest.

Run: `python -m benchmarks.gate [--quick] --json FILE`. Each stream holds the first picture of an event for some 20 s,
shows the event, and holds its last picture: so nothing announces it, not even a cut. Events are drawn scuffles, whose
truth is exact (bundle `demo`), and fights of `../shared/data` where it is there (bundle `fight`; of the `peru` part the
bundle has seen nothing). Three kinds of camera: `clean`, `noise` (a dark picture's noise, and a rate control that
holds its bits), `light` (exposure that drifts, and steps once while nothing moves and once in the event). Packets go
through the live program's own intake, scoring and tracker, at the times at which a camera would have sent them.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.scenes import Scene
from monitor.bundle import Bundle, find_bundle, load_bundle
from monitor.capture.arrival import Arrived
from monitor.capture.intake import Intake
from monitor.capture.source import Source, read_video
from monitor.config import CameraConfig, CaptureConfig, EventsConfig, ScoringConfig
from monitor.decisions import thresholds_of
from monitor.events.tracker import Tracker
from monitor.records import GateState, Phase, Sample, Score
from monitor.scoring.engine import OpenedEngine, open_engine
from monitor.scoring.pipeline import ScoringPipeline
from monitor.scoring.waiting import Waiting

Kind = Literal["clean", "noise", "light"]
Picture = NDArray[np.uint8]
Embeddings = dict[tuple[float, bytes], NDArray[np.float32]]
"""By time and pixels of a sample: what both runs show the backbone is run once."""
KINDS: tuple[Kind, ...] = ("clean", "noise", "light")
NOISE = {"clean": 1.0, "noise": 5.0, "light": 2.0}
"""Standard deviation, in grey levels."""
FPS = 25
GOP_SECONDS = 2.0
LINES = 240
BITS_PER_SECOND = 500_000
QUIET_SECONDS = (17.0, 21.0)
REST_SECONDS = 14.0
LATE_SECONDS = 3.0
"""An event counts as told up to so long after its end."""
BEGIN = 1_700_000_000.0
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "fight"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens, without what is before and after it."""

    name: str
    bundle: str
    pictures: tuple[Picture, ...]
    """At FPS."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was told of one stream."""

    event: str
    bundle: str
    kind: Kind
    gate: str
    told: bool
    delay_seconds: float | None
    """From the event's beginning to the moment of the decision; None when it was not told."""
    false_alarms: int
    """Events told that are none."""
    windows: int
    decoded_share: float
    """Of all frames."""
    idle_share: float
    """Of the time before the event."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="six events")
    parser.add_argument("--events", type=int, default=66, help="how many, half of them drawn where there are fights")
    parser.add_argument(
        "--all-kinds", action="store_true", help="each event on every kind of camera, not on one by turns"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    answer: dict[str, Any] = {"outcomes": [], "summary": []}
    with tempfile.TemporaryDirectory() as folder:
        for outcomes in run(6 if options.quick else options.events, Path(folder), all_kinds=options.all_kinds):
            answer["outcomes"] += [asdict(outcome) for outcome in outcomes]
            answer["summary"] = summary(answer["outcomes"])
            if options.json:
                options.json.write_text(json.dumps(answer, indent=2) + "\n")
    show(answer["summary"])


def run(count: int, folder: Path, *, all_kinds: bool) -> Iterator[list[Outcome]]:
    """Yield each event's outcomes, without and with the gate."""
    fights = count // 2 if (SHARED / "clips.csv").exists() else 0
    bundles = {name: load_bundle(find_bundle(name, Path())) for name in ("demo", "fight")}
    engines = {
        name: open_engine(bundle, preference="auto", threads=1, precision="fp32") for name, bundle in bundles.items()
    }
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("events", total=count)
        for number, event in enumerate(alternating(fight_events(fights), drawn_events(count - fights))):
            outcomes = []
            for kind in KINDS if all_kinds else (KINDS[number // 2 % len(KINDS)],):
                chance = random.Random(f"{event.name}-{kind}")
                quiet = chance.uniform(*QUIET_SECONDS)
                path = folder / "stream.h264"
                write_stream(path, event, kind, quiet_seconds=quiet)
                known: Embeddings = {}
                for gate in ("off", "auto"):
                    told = watch(path, gate, bundles[event.bundle], engines[event.bundle], known)
                    outcomes.append(judged(told, event, kind, gate, quiet))
            progress.advance(task)
            yield outcomes
    for engine in engines.values():
        engine.engine.close()


# --- events --------------------------------------------------------------------------------------------------------


def alternating(*sources: Iterator[Event]) -> Iterator[Event]:
    """Yield from each in turn until all have ended."""
    left = list(sources)
    while left:
        for source in list(left):
            event = next(source, None)
            if event is None:
                left.remove(source)
            else:
                yield event


def drawn_events(count: int) -> Iterator[Event]:
    """Yield scuffles of scenes that no bundle was trained on; two figures stand, and begin."""
    seed = 7_700_000
    while count:
        seed += 1
        scene = Scene(seed, 426, LINES, fps=FPS, event_share=1.0)
        start, end = scene.events(30.0)[0]
        yield Event(f"scene{seed}", "demo", tuple(scene.frames(end - start, start_seconds=start)))
        count -= 1


def fight_events(count: int) -> Iterator[Event]:
    """Yield fights of the shared clips, the two collections by turns."""
    if not count:
        return
    with (SHARED / "clips.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "fight"]
    random.Random(5).shuffle(rows)
    by_set = [[row["path"] for row in rows if row["dataset"] == name] for name in ("peru", "surv")]
    for path in [path for pair in zip(*by_set, strict=False) for path in pair][:count]:
        yield Event(path, "fight", tuple(resampled(SHARED / path)))


def resampled(path: Path) -> Iterator[Picture]:
    """Yield a clip's pictures at FPS, LINES high."""
    number = 0
    for frame, seconds in read_video(path):
        while number / FPS <= seconds:
            picture = frame.to_ndarray(format="rgb24")
            width = round(picture.shape[1] * LINES / picture.shape[0] / 2) * 2
            yield cv2.resize(picture, (width, LINES), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
            number += 1


# --- streams -------------------------------------------------------------------------------------------------------


def write_stream(path: Path, event: Event, kind: Kind, *, quiet_seconds: float) -> None:
    """Encode a stream: quiet, the event, rest."""
    before, after = round(quiet_seconds * FPS), round(REST_SECONDS * FPS)
    shown = [event.pictures[0]] * before + list(event.pictures) + [event.pictures[-1]] * after
    gop = round(GOP_SECONDS * FPS)
    params = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:rc-lookahead=0"
    options = {"preset": "veryfast", "threads": "1"}
    if kind == "noise":
        kilobits = BITS_PER_SECOND // 1000
        params += f":bitrate={kilobits}:vbv-maxrate={kilobits * 5 // 4}:vbv-bufsize={kilobits}"
    else:
        options["crf"] = "24"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=FPS, options={**options, "x264-params": params})
        stream.height, stream.width = event.pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for number, picture in enumerate(exposed(shown, kind, step_at=(before // 2, before + FPS))):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def exposed(pictures: Iterable[Picture], kind: Kind, *, step_at: tuple[int, int]) -> Iterator[Picture]:
    """Add the sensor's noise, and what happens to the light."""
    chance = np.random.default_rng(11)
    fields: list[NDArray[np.int16]] = []
    for number, picture in enumerate(pictures):
        if not fields:
            fields = [chance.normal(0, NOISE[kind], picture.shape).astype(np.int16) for _ in range(8)]
        gain = 1.0
        if kind == "light":
            steps = sum(number >= at for at in step_at)
            gain = (1.0 + 0.04 * np.sin(number / FPS * 2 * np.pi / 20)) * (1.0, 0.88, 1.0)[steps]
        lit = picture if gain == 1.0 else cv2.convertScaleAbs(picture, alpha=gain)
        field = np.roll(fields[number % 8], int(chance.integers(0, LINES)), axis=0)
        yield cv2.add(lit, field, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


# --- the live path -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watched:
    """What the program made of one stream; times from its first packet."""

    starts: tuple[tuple[float, float, float], ...]
    """Of each event told: its own start and the end of the window that decided, and when it was decided."""
    windows: int
    decoded_share: float
    idle: tuple[bool, ...]
    """For each packet, whether the gate was idle."""


def watch(path: Path, gate: str, bundle: Bundle, opened: OpenedEngine, known: Embeddings) -> Watched:
    """Run a stream through intake, scoring and tracker."""
    manifest, rules, scoring = bundle.manifest, EventsConfig(), ScoringConfig()
    camera = CameraConfig.model_validate({"id": "camera", "url": str(path), "gate": gate})
    intake = Intake(camera, sample_fps=manifest.sample_fps, shape=manifest.sample, settings=CaptureConfig())
    pipeline = ScoringPipeline(opened.engine, manifest, scoring)
    tracker = Tracker("camera", labels=manifest.labels, thresholds=thresholds_of(camera, rules, manifest), rules=rules)
    starts, idle = [], []
    frames = windows = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= Flags.copy_opaque
        intake.begin(Source(camera, container, stream, timeout_seconds=1.0))
        for number, packet in enumerate(container.demux(stream)):
            now = BEGIN + number / FPS
            samples: list[Sample] = []
            for seen in intake.take(Arrived.of(packet, now, packet.time_base)):
                frames += 1
                samples += [] if seen.sample is None else [seen.sample]
            idle.append(intake.gate_state is GateState.IDLE)
            for score in scores_of(pipeline, samples, known):
                windows += 1
                for change in tracker.observe(score):
                    if change.phase is Phase.STARTED:
                        starts.append((change.started_seconds - BEGIN, change.changed_seconds - BEGIN, now - BEGIN))
    return Watched(tuple(starts), windows, frames / len(idle), tuple(idle))


def scores_of(pipeline: ScoringPipeline, samples: Sequence[Sample], known: Embeddings) -> Sequence[Score]:
    """Return the scores of the windows that samples complete."""
    if not samples:
        return ()
    keys = [(sample.time_seconds, sample.pictures.tobytes()) for sample in samples]
    for key, sample in zip(keys, samples, strict=True):
        if key not in known:
            known[key] = pipeline.embed([sample])[0]
    batch = [Waiting(sample, since_seconds=0.0) for sample in samples]
    return pipeline.finish(batch, np.stack([known[key] for key in keys])).scores


def judged(watched: Watched, event: Event, kind: Kind, gate: str, quiet_seconds: float) -> Outcome:
    """Hold what was told against the truth."""
    start = round(quiet_seconds * FPS) / FPS
    end = start + len(event.pictures) / FPS
    right = [now for _, seen, now in watched.starts if start < seen <= end + LATE_SECONDS]
    before = watched.idle[: round(start * FPS)]
    return Outcome(
        event=event.name,
        bundle=event.bundle,
        kind=kind,
        gate=gate,
        told=bool(right),
        delay_seconds=round(right[0] - start, 3) if right else None,
        false_alarms=len(watched.starts) - len(right),
        windows=watched.windows,
        decoded_share=round(watched.decoded_share, 4),
        idle_share=round(sum(before) / len(before), 4),
    )


# --- figures -------------------------------------------------------------------------------------------------------


def summary(outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each bundle and kind of camera, and one for all."""
    rows = []
    for bundle in ("demo", "fight", "all"):
        for kind in (*KINDS, "all"):
            chosen = [o for o in outcomes if bundle in (o["bundle"], "all") and kind in (o["kind"], "all")]
            if chosen:
                rows.append({"bundle": bundle, "kind": kind, **_compared(chosen)})
    return rows


def _compared(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    by_gate = {gate: [o for o in outcomes if o["gate"] == gate] for gate in ("off", "auto")}
    pairs = list(zip(by_gate["off"], by_gate["auto"], strict=True))
    later = [on["delay_seconds"] - off["delay_seconds"] for off, on in pairs if off["told"] and on["told"]]
    row: dict[str, Any] = {"streams": len(pairs)}
    for gate, chosen in by_gate.items():
        delays = [o["delay_seconds"] for o in chosen if o["told"]]
        row[f"told_{gate}"] = sum(o["told"] for o in chosen)
        row[f"median_delay_seconds_{gate}"] = round(statistics.median(delays), 3) if delays else None
        row[f"false_alarms_{gate}"] = sum(o["false_alarms"] for o in chosen)
        row[f"decoded_share_{gate}"] = round(statistics.mean(o["decoded_share"] for o in chosen), 4)
    row["only_off"] = sum(off["told"] and not on["told"] for off, on in pairs)
    row["only_auto"] = sum(on["told"] and not off["told"] for off, on in pairs)
    row["later_seconds_median"] = round(statistics.median(later), 3) if later else None
    row["later_seconds_most"] = round(max(later), 3) if later else None
    row["idle_share_before"] = round(statistics.mean(o["idle_share"] for o in by_gate["auto"]), 4)
    return row


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the figures for a person."""
    headings = ("bundle", "camera", "streams", "told off / auto", "only off / auto", "seconds off / auto")
    table = Table(*headings, "later, most", "false alarms", "idle before", "decoded")
    for row in rows:
        table.add_row(
            row["bundle"],
            row["kind"],
            str(row["streams"]),
            f"{row['told_off']} / {row['told_auto']}",
            f"{row['only_off']} / {row['only_auto']}",
            f"{row['median_delay_seconds_off']} / {row['median_delay_seconds_auto']}",
            f"{row['later_seconds_most']}",
            f"{row['false_alarms_off']} / {row['false_alarms_auto']}",
            f"{row['idle_share_before']:.0%}",
            f"{row['decoded_share_auto']:.0%}",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
