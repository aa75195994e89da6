"""`monitor replay`: video files in, alerts as a table, JSON or a picture out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from monitor.bundle import Bundle, load_bundle
from monitor.cli.console import AsJson, check_picture, err, named_bundle, out, speak
from monitor.config import Config, EventsConfig, ModelConfig, ScoringConfig, check_against_model, load_config
from monitor.errors import InputInvalid
from monitor.model_keeper import configured_bundle
from monitor.replay import Replayed, replay_video
from monitor.roster import alert_context
from monitor.scoring.engine import OpenedEngine, open_configured


def replay(
    videos: Annotated[list[Path], typer.Argument(help="Video files.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Folder of a bundle, or a shipped bundle's name; left out: fight."),
    ] = None,
    as_json: AsJson = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write a picture of score and attention over time.", dir_okay=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Take the event rules from this one; the model too, without --model."),
    ] = None,
) -> None:
    """Run the very same pipeline over files, faster than real time. The same input gives the same bytes.

    Examples: `monitor replay clip.mp4 --model fight --plot clip.png`, `monitor replay *.mp4 --json > alerts.jsonl`
    """
    speak(None)
    if plot is not None:
        _check_plot(plot, videos)
    settings = load_config(config) if config else None
    bundle = _bundle(settings, model)
    if settings is not None and config is not None:  # with a model of its own, what its cameras watch for is no matter
        check_against_model(settings, bundle.manifest, config, cameras=model is None)
    opened = _open(bundle, settings.model if settings else ModelConfig())
    rules = settings.events if settings else EventsConfig()
    scoring = settings.scoring if settings else ScoringConfig()
    try:
        for video in videos:
            with _replaying(video, quiet=as_json) as advance:
                replayed = replay_video(
                    video,
                    bundle=bundle,
                    opened=opened,
                    rules=rules,
                    scoring=scoring,
                    context=lambda camera: alert_context(camera, bundle, opened, instance="replay", replayed=True),
                    keep_pictures=plot is not None,
                    on_progress=advance,
                )
            _print_replayed(replayed, as_json=as_json)
            if plot is not None:
                import_module("monitor.plot").plot_replay(replayed, bundle.manifest, plot)
                err.print(f"Wrote {escape(str(plot))}", highlight=False)
    finally:
        opened.engine.close()


def _bundle(settings: Config | None, name: str | None) -> Bundle:
    if settings is not None and name is None:
        return load_bundle(configured_bundle(settings))
    return load_bundle(named_bundle(name or "fight", settings))


def _open(bundle: Bundle, model: ModelConfig) -> OpenedEngine:
    if model.precision == "auto":  # chosen by the clock, and a replay's bytes must not depend on that
        model = model.model_copy(update={"precision": "fp32"})
    return open_configured(bundle, model)


def _check_plot(plot: Path, videos: list[Path]) -> None:
    """Refuse a plot that could only fail after the whole run."""
    if len(videos) != 1:
        raise InputInvalid("--plot", "draws one video; give one")
    check_picture(plot)


@contextmanager
def _replaying(video: Path, *, quiet: bool) -> Iterator[Any]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[at]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as progress:
        task = progress.add_task(video.name, total=None, at="")
        yield lambda seconds: progress.update(task, at=f"{seconds:.1f} s of video")


def _print_replayed(replayed: Replayed, *, as_json: bool) -> None:
    if as_json:
        for message in replayed.messages():
            print(json.dumps(message, sort_keys=True))
        return
    name, length = escape(replayed.path.name), f"{replayed.duration_seconds:.1f} s, {len(replayed.scores)} windows"
    table = Table("event", "from", "to", "peak", "at", title=f"{name}: {length}")
    for message in replayed.messages():
        if message["phase"] == "ended":
            table.add_row(*map(escape, _event_row(message)))
    out.print(table if table.row_count else f"{name}: no event in {length}", highlight=False)


def _event_row(message: dict[str, Any]) -> tuple[str, ...]:
    times, event = message["time"], message["event"]
    return (
        event["label"],
        times["started_at"][11:23],  # a replay counts from midnight
        (times["ended_at"] or "")[11:23],
        f"{event['peak_score']:.2f}",
        times["peak_at"][11:23],
    )
