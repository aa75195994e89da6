"""`monitor evaluate`: labelled clips or recordings with events, and a bundle, in; figures out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from monitor.bundle import Bundle, find_bundle, load_bundle
from monitor.cli.console import AsJson, check_picture, err, out, speak
from monitor.cli.training import tell_how_to_resume, training_room
from monitor.errors import InputInvalid


def evaluate(
    data: Annotated[
        Path,
        typer.Argument(help="A folder for each label, a CSV with path,label[,group], or a folder with events.csv."),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Folder of a bundle, or a shipped bundle's name.")
    ] = "fight",
    folds: Annotated[
        int, typer.Option("--folds", min=0, help="Train and judge the bundle's recipe in folds by group instead.")
    ] = 0,
    recipe: Annotated[str, typer.Option("--recipe", help="With --folds: this recipe instead of the bundle's.")] = "",
    prefix: Annotated[str, typer.Option("--prefix", help="Take only files whose name begins with it.")] = "",
    cache: Annotated[Path, typer.Option("--cache", help="Folder for decoded samples.")] = Path(".cache/evaluate"),
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without unusable clips.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="With --folds: go on where it was interrupted.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write the curve of recall over false alarms.", dir_okay=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a bundle on labelled clips or recordings; --folds cross-validates its recipe.

    Clips give accuracy, ROC-AUC, and precision, recall and F1 of each label, with 95% intervals from a bootstrap over
    groups. Recordings that events.csv names (path,start_seconds,end_seconds,label; a path alone holds no event) go
    through the live path's windows and tracker, and give what operators count: events found and missed, false alarms
    per camera-hour, seconds to detect. Needs the extra `train`.

    Examples: `monitor evaluate clips --model fight --json`, `monitor evaluate recordings --plot curve.png`,
    `monitor evaluate clips.csv --model models/bundles/mine --folds 5`
    """
    speak(None)
    room = training_room("monitor evaluate")
    bundle = load_bundle(find_bundle(model, Path.cwd()))
    if plot is not None and not room.evaluation.holds_recordings(data):
        raise InputInvalid("--plot", f"draws what recordings give, and {data} has no events.csv")
    if plot is not None:
        check_picture(plot)
    report = watched = None
    if folds or room.evaluation.holds_clips(data):
        options = {"console": err, "cache": cache, "skip_bad": skip_bad, "prefix": prefix}
        report = (
            _folds(room, data, bundle, folds=folds, recipe=recipe, resume=resume, **options)
            if folds
            else room.evaluation.run(data, bundle=bundle, **options)
        )
    if not folds and room.evaluation.holds_recordings(data):
        watched = room.recordings.run(data, bundle=bundle, console=err)
    if as_json:
        print(json.dumps(room.evaluation.as_json(report, watched)))
    else:
        clips = room.tables.clip_tables(report) if report is not None else []
        out.print(*clips, *(room.tables.event_tables(watched) if watched is not None else []), sep="\n")
    if plot is not None and watched is not None:
        room.curve.plot_curve(watched, plot, title=f"{bundle.manifest.name} {bundle.manifest.version} on {data.name}")
        err.print(f"Wrote {escape(str(plot))}", highlight=False)


def _folds(room: Any, data: Path, bundle: Bundle, *, folds: int, recipe: str, resume: bool, **options: Any) -> Any:
    chosen = room.recipe.find_recipe(recipe) if recipe else room.evaluation.recipe_of(bundle)
    try:
        return room.evaluation.run_folds(data, recipe=chosen, folds=folds, resume=resume, **options)
    except KeyboardInterrupt:
        tell_how_to_resume()
        raise
