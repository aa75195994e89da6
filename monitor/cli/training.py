"""`monitor train`: labelled clips in, a bundle out. Loads `models` when it is asked for, and not before."""

from __future__ import annotations

import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from monitor.bundle import load_bundle
from monitor.cli.console import err, speak
from monitor.errors import BundleInvalid, InputInvalid, extra_missing
from monitor.surroundings import why_not_written


def train(
    data: Annotated[Path, typer.Argument(help="A folder for each label, or a CSV with path,label[,group].")],
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="The bundle's folder; its name becomes the model's.")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="How to train: fight (from ImageNet weights) or demo (small).")
    ] = "fight",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without unusable clips.")] = False,
    prefix: Annotated[str, typer.Option("--prefix", help="Take only files whose name begins with it.")] = "",
    licence: Annotated[
        str, typer.Option("--licence", help="What the bundle's card says of the clips' licence.")
    ] = "not stated",
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder for decoded samples and checkpoints; left out: .cache in the bundle's."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where an interrupted run stopped; with new clips, from what it learned."),
    ] = False,
) -> None:
    """Make a bundle of labelled clips.

    Needs the extra `train`; in the checkout: `pip install -c constraints.txt '.[train]'`.

    Ctrl-C leaves a checkpoint of the last whole epoch, and says the command that goes on from there to the same result.

    Examples: `monitor train clips --out models/bundles/mine`, with `clips/fight/*.mp4` and `clips/normal/*.mp4`;
    `monitor train clips.csv --out models/bundles/mine --resume`
    """
    speak(None)
    room = training_room("monitor train")
    reason = why_not_written(out_folder)
    if reason:
        raise InputInvalid("--out", reason)
    told = room.card.Provenance(
        data=f"`{data.name}`", licence=licence, command=_command(), version=next_version(out_folder)
    )
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
            provenance=told,
        )
    except KeyboardInterrupt:
        tell_how_to_resume()
        raise
    err.print(f"[green]✓[/] {escape(str(bundle.path))}, version {bundle.manifest.version}", highlight=False)


def next_version(folder: Path) -> str:
    """Return the version of a bundle that takes the place of the one in a folder: alerts tell which of them decided."""
    try:
        version = load_bundle(folder).manifest.version
    except BundleInvalid:
        return "1"
    return str(int(version) + 1) if version.isdecimal() else "1"


def tell_how_to_resume() -> None:
    """Say that nothing is lost, and the command that goes on."""
    err.print("Interrupted. What was learned up to the last whole epoch is kept; to go on from there:", soft_wrap=True)
    err.print(f"  {escape(_command('--resume'))}", highlight=False, soft_wrap=True)


def _command(*more: str) -> str:
    """Return the command line as it was given, without --resume but for `more`."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return shlex.join(["monitor", *arguments, *more])


def training_room(command: str) -> Any:
    """Load the room that needs torch, for a command.

    Raises:
        InputInvalid: the extra is not installed.
    """
    try:
        for name in ("training", "evaluation", "recordings", "recipe", "card", "tables", "curve"):
            import_module(f"models.{name}")
    except ModuleNotFoundError as exc:
        raise extra_missing(command, exc, "train") from exc
    return import_module("models")
