"""The command line: arguments in, tables, JSON and exit codes out.

Exit codes: 0 all is well; 1 something failed while running, or a check found a fault; 2 the input cannot be used.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from monitor import __version__
from monitor.bundle import Bundle, Manifest, find_bundle, load_bundle
from monitor.check import ProbedCamera, probe_cameras, probe_delivery, rate_problem
from monitor.config import Config, EventsConfig, KafkaConfig, ModelConfig, ScoringConfig, load_config
from monitor.delivery.consumer import Consumer
from monitor.delivery.outbox import Outbox, StoredAlert
from monitor.errors import InputInvalid, MonitorError
from monitor.events.alerts import alert_schema_text, health_schema_text
from monitor.events.asyncapi import asyncapi_text
from monitor.model_keeper import open_shadow
from monitor.replay import Replayed, replay_video
from monitor.roster import alert_context
from monitor.scoring.engine import OpenedEngine, open_configured
from monitor.service import open_model, open_named_model, open_service
from monitor.telemetry.logs import configure_logs
from monitor.telemetry.redaction import Redactor
from monitor.telemetry.reference import reference_text

app = typer.Typer(
    help="Watches live cameras, recognises events that take time to happen, and tells Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
schema_app = typer.Typer(help="Print the schemas of what the program reads and says.", no_args_is_help=True)
app.add_typer(schema_app, name="schema")

ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", help="The configuration file.", envvar="MONITOR_CONFIG", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table for people.")]

ALERT_COLUMNS = ("began", "camera", "label", "phase", "peak", "seconds", "alert")
HEALTH_COLUMNS = ("since", "camera", "state", "remark")

PLOT_ENDINGS = (".png", ".svg", ".pdf")

out = Console()
err = Console(stderr=True)


@app.command()
def run(config: ConfigPath = Path("config.toml")) -> None:
    """Watch the cameras until SIGINT or SIGTERM; SIGHUP reads the configuration and the model anew.

    Example: `monitor run --config config.toml`
    """
    loaded = load_config(config)
    redactor = _speak(loaded)
    open_service(loaded, config_path=config, learn_secrets=redactor.learn).run()


@app.command()
def check(
    config: ConfigPath = Path("config.toml"),
    probe: Annotated[bool, typer.Option("--probe", help="Open every camera for some seconds, and ask Kafka.")] = False,
) -> None:
    """Check the configuration, the model and, with --probe, every camera and Kafka.

    Example: `monitor check --probe`
    """
    loaded = load_config(config)
    _speak(loaded)
    bundle, opened = open_model(loaded, config_path=config)
    manifest = bundle.manifest
    out.print(f"[green]✓[/] {escape(str(config))}: {len(loaded.cameras)} camera(s)", highlight=False)
    out.print(
        f"[green]✓[/] model {manifest.name} {manifest.version} on {opened.engine.name} {opened.engine.precision}: "
        f"{', '.join(manifest.event_labels)}; {manifest.sample_fps:g} samples a second, "
        f"window {manifest.window_seconds:g} s, every {manifest.stride_seconds:g} s",
        highlight=False,
    )
    opened.engine.close()
    if loaded.model.shadow:
        shadow = open_shadow(loaded, manifest, partial(open_named_model, config_path=config))
        out.print(f"[green]✓[/] shadow {shadow.title} on {shadow.opened.engine.name}", highlight=False)
        shadow.opened.engine.close()
    if probe and not _probe(loaded, manifest):
        raise typer.Exit(1)


@app.command()
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
    _speak(None)
    if plot is not None:
        _check_plot(plot, videos)
    settings = load_config(config) if config else None
    bundle, opened = _model(settings, model)
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


@app.command()
def alerts(
    config: ConfigPath = Path("config.toml"),
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new alerts as they come.")] = False,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the newest.")] = 20,
    camera: Annotated[str | None, typer.Option("--camera", help="Only this camera's.")] = None,
    health: Annotated[bool, typer.Option("--health", help="The messages on cameras' health instead.")] = False,
) -> None:
    """List the alerts in the store, oldest of the newest first.

    Example: `monitor alerts --follow --json | jq .event`
    """
    loaded = load_config(config)
    with Outbox.open_reader(loaded.outbox.path) as outbox:
        known = list(reversed(outbox.recent(limit, camera=camera, health=health)))
        _print_alerts(known, as_json=as_json, health=health)
        last = known[-1].position if known else 0
        while follow:
            time.sleep(0.5)
            new = outbox.after(last, camera=camera, health=health)
            if new:
                _print_alerts(new, as_json=as_json, health=health, header=False)
                last = new[-1].position


@app.command()
def consume(
    config: ConfigPath = Path("config.toml"),
    servers: Annotated[
        str, typer.Option("--bootstrap-servers", "-b", help="host:port,…; then no configuration is read.")
    ] = "",
    topic: Annotated[str, typer.Option("--topic", "-t", help="Read this topic instead of the configured one.")] = "",
    health: Annotated[bool, typer.Option("--health", help="The messages on cameras' health instead.")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the oldest; a group goes on where it was.")
    ] = False,
    group: Annotated[
        str, typer.Option("--group", "-g", help="Consumer group that keeps its place in Kafka; without, none is kept.")
    ] = "",
    maximum: Annotated[int | None, typer.Option("--max", "-n", min=1, help="End after so many messages.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read alerts from Kafka: check each against its schema, drop what repeats, print the others as they come.

    Ends on SIGINT or SIGTERM, or after --max messages. A Kafka that cannot be reached at the beginning, or that refuses
    us, is an error (exit code 1); one that goes away later is waited for. Records that are no message of the schema are
    told on standard error and passed over; then the exit code is 1 at the end.

    Examples: `monitor consume --from-beginning`, `monitor consume -b kafka:9092 --json --group archive | jq .event`
    """
    settings = _kafka_to_read(config, servers=servers, topic=topic, health=health)
    consumer = Consumer(
        settings,
        health=health,
        group=group,
        from_beginning=from_beginning,
        on_remark=lambda remark: err.print(escape(remark), highlight=False, soft_wrap=True),
    )
    header = True
    with _asked_to_stop() as stop:
        for messages in consumer.batches(stop, maximum=maximum):
            _print_messages(messages, as_json=as_json, health=health, header=header)
            header = False
    counts = consumer.counts
    err.print(f"{counts.told} messages, {counts.repeated} repeated, {counts.invalid} invalid", highlight=False)
    if counts.invalid:
        raise typer.Exit(1)


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="A folder for each label, or a CSV with path,label[,group].")],
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="The bundle's folder; its name becomes the model's.")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="How to train: fight (people, from ImageNet weights) or demo (small).")
    ] = "fight",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without unusable clips.")] = False,
    prefix: Annotated[str, typer.Option("--prefix", help="Take only files whose name begins with it.")] = "",
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder for decoded samples and checkpoints.")] = None,
) -> None:
    """Make a bundle of labelled clips. Needs the extra `train`: pip install 'video-event-monitor[train]'.

    Example: `monitor train clips --out models/bundles/mine`, with clips/fight/*.mp4 and clips/normal/*.mp4
    """
    room = _training_room()
    bundle = room.training.run(
        data,
        out_folder,
        recipe=room.recipe.find_recipe(recipe),
        console=err,
        cache=cache,
        skip_bad=skip_bad,
        prefix=prefix,
    )
    err.print(f"[green]✓[/] {escape(str(bundle.path))}", highlight=False)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="A folder for each label, or a CSV with path,label[,group].")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Folder of a bundle, or a shipped bundle's name.")
    ] = "fight",
    folds: Annotated[
        int, typer.Option("--folds", min=0, help="Train and judge the recipe in folds by group instead of a bundle.")
    ] = 0,
    recipe: Annotated[
        str, typer.Option("--recipe", help="With --folds: name of a recipe, or a TOML file.")
    ] = "default",
    prefix: Annotated[str, typer.Option("--prefix", help="Take only files whose name begins with it.")] = "",
    cache: Annotated[Path, typer.Option("--cache", help="Folder for decoded samples.")] = Path(".cache/evaluate"),
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without unusable clips.")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge labelled clips by a bundle, or a recipe in folds by group. Needs the extra `train`.

    Example: `monitor evaluate clips --model fight --json`
    """
    room = _training_room()
    options: dict[str, Any] = {"console": err, "cache": cache, "skip_bad": skip_bad, "prefix": prefix}
    if folds:
        report = room.evaluation.run_folds(data, recipe=room.recipe.find_recipe(recipe), folds=folds, **options)
    else:
        report = room.evaluation.run(data, bundle=load_bundle(find_bundle(model, Path.cwd())), **options)
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        out.print(report.table())


@schema_app.command("config")
def schema_config() -> None:
    """Print the JSON Schema of config.toml; editors complete its keys with it."""
    print(json.dumps(config_schema(), indent=2))


@schema_app.command("alert")
def schema_alert() -> None:
    """Print the JSON Schema of the alert messages."""
    print(alert_schema_text(), end="")


@schema_app.command("metrics")
def schema_metrics() -> None:
    """Print the reference of the metrics, docs/metrics.md."""
    print(reference_text(), end="")


@schema_app.command("camera")
def schema_camera() -> None:
    """Print the JSON Schema of the messages on a camera's health."""
    print(health_schema_text(), end="")


@schema_app.command("asyncapi")
def schema_asyncapi() -> None:
    """Print the AsyncAPI 3.0 document of both topics, with the messages' schemas in it."""
    print(asyncapi_text(), end="")


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Video event monitor", **schema}


def main() -> None:
    """Run the command line; every expected error becomes one message and an exit code."""
    try:
        app(standalone_mode=True)
    except MonitorError as exc:
        err.print(f"[red]error:[/] {escape(Redactor(()).clean(str(exc)))}", highlight=False, soft_wrap=True)
        sys.exit(exc.exit_code)
    except OSError as exc:  # a disk that is full, a folder that is not ours: named by the system
        err.print(f"[red]error:[/] {escape(str(exc))}", highlight=False, soft_wrap=True)
        sys.exit(2)


def _speak(config: Config | None) -> Redactor:
    """Set up the logs, before anything is logged; return what keeps secrets out of them."""
    redactor = Redactor(config.secrets() if config else ())
    if config is None:
        configure_logs(level="warning", style="text", redactor=redactor)
    else:
        configure_logs(level=config.logs.level, style=config.logs.format, redactor=redactor)
    return redactor


def _kafka_to_read(config: Path, *, servers: str, topic: str, health: bool) -> KafkaConfig:
    """Return where to read: as the options say, or else as the configuration does.

    Raises:
        InputInvalid: an option cannot be used, or neither names a Kafka.
        ConfigInvalid: the configuration cannot be used.
    """
    named = {"health_topic" if health else "topic": topic} if topic else {}
    if servers:
        _speak(None)
        settings = {"bootstrap_servers": servers}
    else:
        loaded = load_config(config)
        _speak(loaded)
        if loaded.kafka is None:
            raise InputInvalid(config, "has no section [kafka]; add it, or give --bootstrap-servers")
        settings = loaded.kafka.model_dump()
    try:
        return KafkaConfig.model_validate(settings | named)
    except ValidationError as exc:
        [problem, *_] = exc.errors(include_url=False)
        option = "--topic" if "topic" in str(problem["loc"]) else "--bootstrap-servers"
        raise InputInvalid(option, problem["msg"].removeprefix("Value error, ")) from None


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set an event on the first SIGINT or SIGTERM; the second ends the process as if nobody had listened."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _training_room() -> Any:
    """Load the room that needs torch.

    Raises:
        InputInvalid: the extra is not installed.
    """
    try:
        for name in ("training", "evaluation", "recipe"):
            import_module(f"models.{name}")
    except ModuleNotFoundError as exc:
        raise InputInvalid(
            "training", f"{exc.name} is not installed; pip install 'video-event-monitor[train]'"
        ) from exc
    return import_module("models")


def _model(settings: Config | None, name: str | None) -> tuple[Bundle, OpenedEngine]:
    folder = settings.folder if settings else Path.cwd()
    bundle = load_bundle(find_bundle(name or (settings.model.bundle if settings else "fight"), folder))
    model = settings.model if settings else ModelConfig()
    if model.precision == "auto":  # chosen by the clock, and a replay's bytes must not depend on that
        model = model.model_copy(update={"precision": "fp32"})
    return bundle, open_configured(bundle, model)


def _check_plot(plot: Path, videos: list[Path]) -> None:
    """Refuse a plot that could only fail after the whole run."""
    if len(videos) != 1:
        raise InputInvalid("--plot", "draws one video; give one")
    if plot.suffix.lower() not in PLOT_ENDINGS:
        raise InputInvalid(plot, f"the ending must be one of {', '.join(PLOT_ENDINGS)}")
    if not os.access(plot.resolve().parent, os.W_OK):
        raise InputInvalid(plot, "its folder is missing or cannot be written")


def _probe(config: Config, manifest: Manifest) -> bool:
    with err.status("Asking the cameras …"):
        cameras = probe_cameras(config)
    table = Table("camera", "address", "codec", "size", "fps told/seen", "GOP", "clock", "remarks")
    for probed in cameras:
        table.add_row(
            *map(escape, _probe_row(probed, manifest, config.scoring.minimum_coverage)),
            style=None if probed.ok else "red",
        )
    out.print(table)
    for probed in cameras:
        if probed.proposal is not None:
            out.print(
                f"[yellow]→[/] {escape(f'{probed.camera.id}: {probed.proposal}')}", highlight=False, soft_wrap=True
            )
    kafka = probe_delivery(config)
    if kafka is not None:
        for line in kafka.lines:
            out.print(f"{'[green]✓[/]' if kafka.ok else '[red]✗[/]'} {escape(line)}", highlight=False)
    return all(probed.ok for probed in cameras) and (kafka is None or kafka.ok)


def _probe_row(probed: ProbedCamera, manifest: Manifest, minimum_coverage: float) -> tuple[str, ...]:
    camera, report = probed.camera, probed.report
    name = f"{camera.id} (clips)" if probed.for_clips else camera.id
    if report is None:
        failure = probed.failure
        remark = f"{failure.reason.value}: {failure.detail}" if failure else ""
        return (name, camera.display_url, "–", "–", "–", "–", "–", remark)
    skew = "" if report.skew_seconds is None else f" {report.skew_seconds:+.2f} s"
    rate = "" if probed.for_clips else rate_problem(report, manifest, minimum_coverage)
    return (
        name,
        camera.display_url,
        report.codec,
        f"{report.width_pixels}×{report.height_pixels}",
        f"{_figure(report.declared_fps)}/{_figure(report.measured_fps)}",
        f"{report.gop_frames} / {_figure(report.gop_seconds)} s" if report.gop_frames else "–",
        f"{report.clock.value}{skew}",
        "; ".join(filter(None, [*report.problems, rate])) or "good",
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


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


def _print_alerts(stored: list[StoredAlert], *, as_json: bool, health: bool, header: bool = True) -> None:
    messages = [json.loads(alert.value) for alert in stored]
    _print_messages(messages, as_json=as_json, health=health, header=header)


def _print_messages(messages: list[dict[str, Any]], *, as_json: bool, health: bool, header: bool) -> None:
    if as_json:
        for message in messages:
            print(json.dumps(message, sort_keys=True), flush=True)
        return
    columns = HEALTH_COLUMNS if health else ALERT_COLUMNS
    table = Table(*columns, show_header=header)
    for message in messages:
        table.add_row(*map(escape, _health_row(message) if health else _alert_row(message)))
    out.print(table if table.row_count else "Nothing so far.")


def _alert_row(message: dict[str, Any]) -> tuple[str, ...]:
    times = message["time"]
    return (
        times["started_at"],
        message["camera"]["id"],
        message["event"]["label"],
        message["phase"] + (f" ({message['reason']})" if message["reason"] else ""),
        f"{message['event']['peak_score']:.2f}",
        f"{times['duration_seconds']:.1f}" if times["ended_at"] else "",
        message["alert_id"],
    )


def _health_row(message: dict[str, Any]) -> tuple[str, ...]:
    return message["time"]["since_at"], message["camera"]["id"], message["state"], message["detail"]


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    _shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Hold the options that stand before every command."""
