"""Makes the bundles that ship: `python -m models.shipped demo` and `python -m models.shipped fight --data DIR`.

What the cards say of data, licence and limits stands here; the figures are measured by the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from models import evaluation, recordings, training
from models.card import Provenance, write_card
from models.metrics import Measured
from models.recipe import RECIPES
from models.scenes.clips import plan_clips, write_clips, write_recordings
from monitor.bundle import Bundle, write_manifest
from monitor.errors import MonitorError

DEMO_CLIPS = 2000
DEMO_SEED, DEMO_TEST_SEED = 1, 2
DEMO_RECORDINGS, DEMO_RECORDING_SECONDS = 6, 300.0
FOLDS = 5

DEMO = Provenance(
    data=(
        f"{DEMO_CLIPS} clips of scenes that the project draws itself (`models/scenes`), seed {DEMO_SEED}, four from "
        "each scene; the clips of one scene are one group."
    ),
    licence="Apache-2.0, as the project: code, pictures and weights are its own.",
    command="python -m models.shipped demo",
    version="2",
    sees=(
        "`scuffle`: two drawn figures standing together begin to jerk around each other for three to six seconds. "
        "Two figures that talk take the very same poses slowly, others walk, run in a line or wave: one picture does "
        "not tell. It is made for `make demo` and to show the whole path with a small model."
    ),
    limits=(
        "It has seen drawn figures only and is of no use on real cameras. The camera must stand still. Below "
        "15 frames a second the two pictures of a sample lie further apart than in training."
    ),
)
FIGHT = Provenance(
    data=(
        "The `surv` clips (240 of 50 recordings, 2 to 5 s each) of the Surveillance Camera Fight Dataset: Aktı, "
        "Tataroğlu, Ekenel, “Vision-based Fight Detection from Surveillance Cameras”, IPTA 2019. The `peru` clips "
        "(VioPeru) taught nothing; they only measure."
    ),
    licence=(
        "Clips: MIT licence. Backbone: EfficientNet-Lite0 with ImageNet weights, converted from Google's Apache-2.0 "
        "release; the package that brings them states no licence of its own. This bundle: Apache-2.0."
    ),
    command="python -m models.shipped fight --data DIR",
    version="3",
    sees=(
        "`fight`: people fighting, seen by a fixed surveillance camera. The backbone sees the three differences, in "
        "grey, of four pictures 1/15 s apart, so motion and not looks; it is frozen, and only attention and classifier "
        "were trained."
    ),
    limits=(
        "Camera motion, filmed screens and sudden light break the differences of pictures. Running crowds, sport and "
        "dancing were hardly in the data and will raise false alarms. The figures are of short, trimmed clips; on long "
        "streams of other cameras it found one event in seven (`docs/experiments.md`). It ranks clips of other cameras "
        "well, but its thresholds are too high for them: set them for your own. It is an aid for people who watch, and "
        "must not decide anything by itself."
    ),
)


@dataclass(frozen=True, slots=True)
class _Workplace:
    """Where a bundle is made."""

    out: Path
    cache: Path
    console: Console


def make_demo(out: Path, *, cache: Path, console: Console) -> Bundle:
    """Draw the clips, train the demo's bundle and measure it on scenes of another seed."""
    place = _Workplace(out, cache, console)
    teaching = _draw(place, clips=DEMO_CLIPS, seed=DEMO_SEED)
    bundle = training.run(teaching, out, recipe=RECIPES["demo"], console=console, cache=cache, provenance=DEMO)
    test = _draw(place, clips=DEMO_CLIPS // 5, seed=DEMO_TEST_SEED)
    report = evaluation.run(test, bundle=bundle, console=console, cache=cache)
    title = f"clips of scenes of another seed ({DEMO_TEST_SEED})"
    found = recordings.run(_draw_recordings(place), bundle=bundle, console=console)
    lines = [f"- {DEMO_RECORDINGS} long recordings of that seed, through the live path's windows and tracker: {found}"]
    return _tell(bundle, DEMO, {"other_seed": (title, report.measured)}, lines)


def make_fight(data: Path, out: Path, *, cache: Path, console: Console) -> Bundle:
    """Train the fight bundle on the `surv` clips and measure it in folds by group and on the `peru` clips."""
    recipe = RECIPES["fight"]
    folds = evaluation.run_folds(data, recipe=recipe, folds=FOLDS, console=console, cache=cache, prefix="surv_")
    bundle = training.run(data, out, recipe=recipe, console=console, cache=cache, prefix="surv_", provenance=FIGHT)
    peru = evaluation.run(data, bundle=bundle, console=console, cache=cache, prefix="peru_")
    figures = {
        "surv_folds_by_group": (f"`surv`, {FOLDS} folds by group, same recipe", folds.measured),
        "peru_unseen": ("`peru`, another collection that taught nothing, this bundle", peru.measured),
    }
    return _tell(bundle, FIGHT, figures)


def _draw(place: _Workplace, *, clips: int, seed: int) -> Path:
    folder = place.cache / f"scenes-{seed}-{clips}"
    if not (folder / "clips.csv").is_file():
        plans = plan_clips(clips, seed)
        for _ in track(write_clips(folder, plans), "Drawing clips", total=len(plans), console=place.console):
            pass
    return folder


def _draw_recordings(place: _Workplace) -> Path:
    folder = place.cache / f"recordings-{DEMO_TEST_SEED}-{DEMO_RECORDINGS}"
    if not (folder / "events.csv").is_file():
        drawn = write_recordings(folder, DEMO_RECORDINGS, DEMO_TEST_SEED, duration_seconds=DEMO_RECORDING_SECONDS)
        for _ in track(drawn, "Drawing recordings", total=DEMO_RECORDINGS, console=place.console):
            pass
    return folder


def _tell(
    bundle: Bundle, provenance: Provenance, figures: Mapping[str, tuple[str, Measured]], more: Sequence[str] = ()
) -> Bundle:
    """Write what was measured into manifest and card."""
    lines = ["On clips that taught and chose nothing:", ""]
    lines += [f"- {title}: {measured}" for title, measured in figures.values()]
    lines += [
        *more,
        "",
        "Intervals are 95%, from a bootstrap over groups; a clip's probability is the mean of its windows'.",
    ]
    table = {
        name: {"clips": measured.clips, "accuracy": measured.accuracy.rounded(), "auc": measured.auc.rounded()}
        for name, (_, measured) in figures.items()
    }
    manifest = bundle.manifest.model_copy(update={"measured": {**bundle.manifest.measured, **table}})
    complete = write_manifest(bundle.path, manifest)
    write_card(bundle.path, complete.manifest, replace(provenance, figures="\n".join(lines)))
    return complete


def main() -> None:
    """Read the command line and make one bundle."""
    parser = argparse.ArgumentParser(prog="python -m models.shipped", description=__doc__)
    parser.add_argument("bundle", choices=("demo", "fight"))
    parser.add_argument("--data", type=Path, help="folder of the fight clips, with clips.csv")
    parser.add_argument("--out", type=Path, help="the bundle's folder (default: models/bundles/NAME)")
    parser.add_argument("--cache", type=Path, default=Path(".cache/models"), help="decoded samples and features")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    out = options.out or Path(__file__).parent / "bundles" / options.bundle
    try:
        if options.bundle == "demo":
            bundle = make_demo(out, cache=options.cache, console=console)
        elif options.data is None:
            parser.error("fight needs --data DIR")
        else:
            bundle = make_fight(options.data, out, cache=options.cache, console=console)
    except MonitorError as exc:
        console.print(str(exc), highlight=False, style="red")
        raise SystemExit(exc.exit_code) from exc
    console.print(f"{bundle.manifest.name}: {bundle.manifest.measured}", highlight=False)


if __name__ == "__main__":
    main()
