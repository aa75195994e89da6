"""A trained bundle and what it says of the clips aside in; `report/` beside it, pictures and a page, out.

The page holds its pictures in itself and asks nobody for anything: it opens from a disk, a mail or a build's artefacts.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from models.metrics import Measured
from models.recipe import Recipe
from models.report.figures import confusion_figure, curves_figure, png, roc_figure
from models.report.strips import choose_clips, draw_strip
from models.verdicts import JudgedClip
from monitor.bundle import Bundle
from monitor.capture.pictures import jpeg

if TYPE_CHECKING:
    from models.training import Trained

FOLDER, PAGE = "report", "index.html"
MOST_STRIPS = 6
"""Of right clips, and of wrong ones."""
_TEMPLATE = "report.html"
STRIP_QUALITY = 80
"""Of the JPEG that the page holds: a tenth of the PNG's bytes."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as the page shows it."""

    name: str
    title: str
    says: str
    """What it shows, for those who do not see it and as its caption."""
    light: str
    """Address that holds the picture itself."""
    dark: str


@dataclass(frozen=True, slots=True)
class Strip:
    """A strip as the page shows it."""

    name: str
    """Of the clip."""
    group: str
    true: str
    said: str
    probability: float
    seconds: float
    """Of the most attended frame, in the clip's file."""
    address: str


def write_report(trained: Trained, recipe: Recipe, bundle: Bundle, *, floor: Measured) -> Path:
    """Write the report into the bundle's folder; return the page. What an earlier one left there is removed."""
    folder = bundle.path / FOLDER
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    manifest = bundle.manifest
    figures = _write_figures(trained, recipe, bundle, folder)
    right, wrong = (_write_strips(trained.judged, bundle, folder, right=right) for right in (True, False))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template(_TEMPLATE).render(
        manifest=manifest,
        measured=trained.validation,
        floor=floor,
        false_alarm_share=trained.calibration.false_alarm_share,
        temperature=trained.calibration.temperature,
        figures=figures,
        right=right,
        wrong=wrong,
        mistakes=sum(clip.said != clip.target for clip in trained.judged),
    )
    page = folder / PAGE
    page.write_text(text, encoding="utf-8")
    return page


def _write_figures(trained: Trained, recipe: Recipe, bundle: Bundle, folder: Path) -> list[Picture]:
    labels, thresholds = bundle.manifest.labels, bundle.manifest.thresholds
    drawn: list[tuple[str, str, str, Callable[[], Figure]]] = [
        (
            "curves",
            "Training curves",
            "Loss of every epoch, and of the groups kept aside from teaching; the star is the epoch that was kept.",
            partial(curves_figure, trained.history, best_is_kept=recipe.early_stopping),
        ),
        (
            "confusion",
            "Confusion matrix",
            "What was said of the clips aside: a row for each true label, a column for each answer.",
            partial(confusion_figure, trained.judged, labels),
        ),
        (
            "roc",
            "ROC",
            "Share of an event's clips found over the share of other clips that look like it, at every threshold.",
            partial(roc_figure, trained.judged, labels, thresholds),
        ),
    ]
    pictures = []
    for name, title, says, draw in drawn:
        light = png(draw)
        (folder / f"{name}.png").write_bytes(light)
        pictures.append(Picture(name, title, says, _address(light, "png"), _address(png(draw, dark=True), "png")))
    return pictures


def _write_strips(judged: Sequence[JudgedClip], bundle: Bundle, folder: Path, *, right: bool) -> list[Strip]:
    manifest = bundle.manifest
    strips = []
    for number, clip in enumerate(choose_clips(judged, right=right, most=MOST_STRIPS), start=1):
        drawn = draw_strip(clip, manifest.sample_fps)
        (folder / f"{'right' if right else 'wrong'}-{number}.png").write_bytes(drawn.png())
        strips.append(
            Strip(
                name=clip.clip.entry.name,
                group=clip.clip.entry.group,
                true=manifest.labels[clip.target],
                said=manifest.labels[clip.said],
                probability=float(clip.probabilities.max()),
                seconds=clip.most_attended_seconds(manifest.sample_fps),
                address=_address(jpeg(drawn.pixels, quality=STRIP_QUALITY), "jpeg"),
            )
        )
    return strips


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
