"""`monitor compile`: a bundle in, an engine made ready for this machine out, and a report on its precisions."""

from __future__ import annotations

import json
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from monitor.bundle import Bundle, load_bundle
from monitor.cli.console import AsJson, err, named_bundle, out, speak
from monitor.config import Config, ModelConfig, load_config
from monitor.errors import InputInvalid, extra_missing
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Door, Precision
from monitor.scoring.engine import half_of_the_cores


def compile_bundle(
    context: typer.Context,
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle, or a shipped bundle's name.")],
    engine: Annotated[
        Literal["openvino", "onnxruntime", "tensorrt"], typer.Option("--engine", help="What is to run it.")
    ] = "openvino",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"] | None,
        typer.Option("--precision", help="What the backbone is to compute in; left out, --report alone is done."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option("--calibrate", help="For int8: a folder of clips like those to come; no labels needed."),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            "--max-batch", min=1, max=256, help="For tensorrt: most samples of a run; left out: scoring.batch_samples."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Then compare all precisions on labelled clips: a folder a label, or a CSV."),
    ] = None,
    prefix: Annotated[str, typer.Option("--prefix", help="With --report: only files whose name begins with it.")] = "",
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=0, max=256, help="Processor threads, 0: half of the cores; left out: model.threads."
        ),
    ] = None,
    config: Annotated[
        Path,
        typer.Option("--config", "-c", help="The configuration file, where there is one.", envvar="MONITOR_CONFIG"),
    ] = Path("config.toml"),
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Where it is kept; left out: the folder that model.cache names.", file_okay=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a bundle ready for this machine in a lower precision; `precision = "auto"` then takes it where it is faster.

    What does not reproduce the bundle's golden outputs is not kept. Needs the extra `compile`; in the checkout:
    `pip install -c constraints.txt '.[compile]'`.

    Examples: `monitor compile fight --precision int8 --calibrate clips`,
    `monitor compile fight --engine tensorrt --precision fp16`, `monitor compile fight --report clips`
    """
    speak(None)
    if precision is None and report is None:
        raise InputInvalid("--precision", "say what to compile (fp32, fp16, bf16 or int8), or what to --report on")
    source = context.get_parameter_source("config")
    settings = _settings(config, asked_for=source is not None and source.name == "COMMANDLINE")
    loaded = load_bundle(named_bundle(bundle, settings))
    model = settings.model if settings else ModelConfig()
    room, count = _compiling_room(), (model.threads if threads is None else threads) or half_of_the_cores()
    kept = EngineCache(cache or model.cache)
    if precision is not None:
        if engine == "tensorrt" and settings is not None:
            max_batch = max_batch or settings.scoring.batch_samples
        door = room.find_door(engine, kept, max_batch=max_batch, console=err)
        _compile(room, loaded, door, Precision(precision), kept, calibrate=calibrate, threads=count)
    if report is not None:
        found = room.report(report, bundle=loaded, engine=engine, cache=kept, threads=count, console=err, prefix=prefix)
        if as_json:
            print(json.dumps(found.as_json()))
        else:
            out.print(found.table())


def _settings(path: Path, *, asked_for: bool) -> Config | None:
    """Return the configuration; None where there is no file and nobody asked for one on the command line."""
    return load_config(path) if asked_for or path.exists() else None


def _compile(
    room: Any,
    bundle: Bundle,
    door: Door,
    precision: Precision,
    cache: EngineCache,
    *,
    calibrate: Path | None,
    threads: int,
) -> None:
    opened = room.compile_bundle(
        bundle, door=door, cache=cache, precision=precision, calibrate=calibrate, threads=threads
    )
    with closing(opened.engine):
        parity, manifest = opened.parity, bundle.manifest
        err.print(
            f"[green]✓[/] {manifest.name} {manifest.version} on {door.name} {precision.value}: least cosine "
            f"{parity.cosine:.4f} (needed {parity.tolerance.cosine}); kept in {escape(str(cache.folder(bundle)))}",
            highlight=False,
            soft_wrap=True,
        )


def _compiling_room() -> Any:
    """Load the room that needs the extra.

    Raises:
        InputInvalid: the extra is not installed.
    """
    try:
        return import_module("models.compiling")
    except ModuleNotFoundError as exc:
        raise extra_missing("monitor compile", exc, "compile") from exc
