"""What a bundle made of recordings in, a picture of recall over false alarms out."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from models.matching import Found
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
    rates = [point.found.false_alarms_per_hour.value for point in watched.curve]
    axes.plot(rates, [point.found.recall.value for point in watched.curve], ".", color="gray", label="each threshold")
    best = _best(watched)
    rates = [found.false_alarms_per_hour.value for found in best]
    recalls = [found.recall for found in best]
    axes.step(rates, [recall.value for recall in recalls], where="post", label="the best within a rate (95%)")
    low, high = [recall.low for recall in recalls], [recall.high for recall in recalls]
    axes.fill_between(rates, low, high, step="post", alpha=0.15, linewidth=0)
    chosen = watched.found
    axes.plot(
        [chosen.false_alarms_per_hour.value], [chosen.recall.value], "*", markersize=14, label="the bundle's thresholds"
    )
    axes.axvline(4.0, color="gray", linewidth=0.8, linestyle=":", label="4 an hour")
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set(xlabel="false alarms per camera-hour", ylabel="recall of events (1 − P_miss)", ylim=(0, 1.02), title=title)
    axes.set_xlim(left=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="upper left")
    return figure


def _best(watched: Watched) -> list[Found]:
    """Return those that no other beats in recall with as few false alarms, by rising rate of false alarms.

    At low thresholds one told event runs over several that happened, so recall does not only grow with false alarms.
    """
    best: list[Found] = []
    for point in sorted(watched.curve, key=lambda point: (point.found.false_alarms, -point.found.found)):
        if not best or point.found.found > best[-1].found:
            best.append(point.found)
    return best
