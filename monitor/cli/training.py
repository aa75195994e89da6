"""`monitor train` and `monitor evaluate`: the only commands that load `models`, and only when they are asked for."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from monitor.bundle import find_bundle, load_bundle
from monitor.cli.console import AsJson, err, out
from monitor.errors import InputInvalid


def train(
    data: Annotated[Path, typer.Argument(help="A folder for each label, or a CSV with path,label[,group].")],
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="The bundle's folder; its name becomes the model's.")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="How to train: fight or motion (from ImageNet weights), demo (small).")
    ] = "fight",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without unusable clips.")] = False,
    prefix: Annotated[str, typer.Option("--prefix", help="Take only files whose name begins with it.")] = "",
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder for decoded samples and checkpoints; left out: .cache in the bundle's."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where an interrupted run stopped; with new clips, from what it learned."),
    ] = False,
) -> None:
    """Make a bundle of labelled clips. Needs the extra `train`: pip install 'video-event-monitor[train]'.

    Ctrl-C leaves a checkpoint of the last whole epoch, and says the command that goes on from there to the same result.

    Examples: `monitor train clips --out models/bundles/mine`, with clips/fight/*.mp4 and clips/normal/*.mp4;
    `monitor train clips.csv --out models/bundles/mine --resume`
    """
    room = _training_room()
    try:
        bundle = room.training.run(
            data,
            out_folder,
            recipe=room.recipe.find_recipe(recipe),
            console=err,
            cache=cache,
            skip_bad=skip_bad,
            prefix=prefix,
            resume=resume,
        )
    except KeyboardInterrupt:
        _tell_how_to_resume()
        raise
    err.print(f"[green]✓[/] {escape(str(bundle.path))}", highlight=False)


def _tell_how_to_resume() -> None:
    arguments = sys.argv[1:] if "--resume" in sys.argv else [*sys.argv[1:], "--resume"]
    err.print("Interrupted. What was learned up to the last whole epoch is kept; to go on from there:", soft_wrap=True)
    err.print(f"  monitor {escape(shlex.join(arguments))}", highlight=False, soft_wrap=True)


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
