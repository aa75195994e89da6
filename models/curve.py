"""What a bundle made of recordings in, a picture of recall over false alarms out."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from models.recordings import Watched
from monitor.errors import InputInvalid

DOTS_PER_INCH = 110


def plot_curve(watched: Watched, path: Path, *, title: str) -> None:
    """Draw event recall over false alarms per camera-hour, with 95% intervals and the bundle's own thresholds marked.

    Args:
        watched: of one or more recordings.
        path: where to write; the ending says the format (png, svg, pdf).
        title: stands above.

    Raises:
        InputInvalid: the picture cannot be written.
    """
    try:
        curve_figure(watched, title=title).savefig(path, dpi=DOTS_PER_INCH)
    except (OSError, ValueError) as exc:
        raise InputInvalid(path, f"cannot be written: {exc}") from exc


def curve_figure(watched: Watched, *, title: str) -> Figure:
    """Return the figure that `plot_curve` writes."""
    mpl.use("agg")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    points = sorted(watched.curve, key=lambda point: -point.threshold)
    rates = [point.found.false_alarms_per_hour.value for point in points]
    recalls = [point.found.recall for point in points]
    axes.plot(rates, [recall.value for recall in recalls], marker="o", markersize=3, label="by threshold")
    axes.fill_between(
        rates, [recall.low for recall in recalls], [recall.high for recall in recalls], alpha=0.15, linewidth=0
    )
    chosen = watched.found
    axes.plot(
        [chosen.false_alarms_per_hour.value], [chosen.recall.value], "*", markersize=14, label="the bundle's thresholds"
    )
    axes.axvline(4.0, color="gray", linewidth=0.8, linestyle=":", label="4 an hour")
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set(xlabel="false alarms per camera-hour", ylabel="recall of events (1 − P_miss)", ylim=(0, 1.02), title=title)
    axes.set_xlim(left=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")
    return figure
