"""A replayed video in, a picture out: score and attention over time, thumbnails of the most attended frames."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monitor.bundle import Manifest
from monitor.errors import InputInvalid
from monitor.replay import KEPT_PICTURES, MostAttended, Replayed

DOTS_PER_INCH = 110


def plot_replay(replayed: Replayed, manifest: Manifest, path: Path) -> None:
    """Draw score and attention over time with thumbnails of the most attended frames.

    Args:
        replayed: with its pictures kept.
        manifest: names the labels and thresholds.
        path: where to write; the ending says the format (png, svg, pdf).

    Raises:
        InputInvalid: the video gave no window to draw, or the picture cannot be written.
    """
    if not replayed.scores or replayed.attended is None:
        raise InputInvalid(replayed.path, f"too short to plot: no window of {manifest.window_seconds:g} s in it")
    mpl.use("agg")
    figure = Figure(figsize=(12, 7), layout="constrained")
    rows = figure.add_gridspec(3, KEPT_PICTURES, height_ratios=[3, 1.2, 1.6])
    attended = replayed.attended
    _draw_scores(figure.add_subplot(rows[0, :]), replayed, manifest)
    _draw_attention(figure.add_subplot(rows[1, :]), attended.attention, manifest)
    thumbnails = [figure.add_subplot(rows[2, column]) for column in range(KEPT_PICTURES)]
    _draw_thumbnails(thumbnails, attended, manifest)
    try:
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None} if path.suffix == ".png" else None)
    except (OSError, ValueError) as exc:
        raise InputInvalid(path, f"cannot be written: {exc}") from exc


def _draw_scores(axes: Axes, replayed: Replayed, manifest: Manifest) -> None:
    times = [score.end_seconds for score in replayed.scores]
    for index, label in enumerate(manifest.labels):
        if label == manifest.background:
            continue
        values = [float(score.probabilities[index]) for score in replayed.scores]
        (line,) = axes.plot(times, values, marker="o", markersize=3, label=label)
        threshold = manifest.thresholds[label]
        axes.axhline(threshold.on, color=line.get_color(), linestyle="--", linewidth=0.8, label=f"{label}: on")
        axes.axhline(threshold.off, color=line.get_color(), linestyle=":", linewidth=0.8, label=f"{label}: off")
    for begin, end in _events(replayed):
        axes.axvspan(begin, end, color="tab:red", alpha=0.12)
    axes.set(ylim=(0, 1.02), xlim=(0, max(replayed.duration_seconds, 0.1)), ylabel="probability", xlabel="seconds")
    axes.set_title(f"{replayed.path.name} · {manifest.name} {manifest.version}")
    axes.legend(loc="upper left", fontsize=8)


def _events(replayed: Replayed) -> list[tuple[float, float]]:
    """Return start and end, in seconds, of every event that was told."""
    times = [message["time"] for message in replayed.messages() if message["phase"] == "ended"]
    begins = [datetime.fromisoformat(time["started_at"]).timestamp() for time in times]
    return [(begin, begin + time["duration_seconds"]) for begin, time in zip(begins, times, strict=True)]


def _draw_attention(axes: Axes, attention: dict[int, float], manifest: Manifest) -> None:
    slots = np.array(sorted(attention))
    axes.bar(
        slots / manifest.sample_fps,
        [attention[int(slot)] for slot in slots],
        width=0.9 / manifest.sample_fps,
        align="edge",
    )
    axes.axhline(1.0, color="gray", linewidth=0.8)
    axes.set(ylabel="attention\n(1 = even)", xlim=(0, (slots.max() + 1) / manifest.sample_fps))


def _draw_thumbnails(axes: list[Axes], attended: MostAttended, manifest: Manifest) -> None:
    best = sorted(attended.pictures, key=lambda slot: -attended.attention.get(slot, 0.0))[: len(axes)]
    for place in axes:
        place.axis("off")
    for place, slot in zip(axes, sorted(best), strict=False):
        place.imshow(attended.pictures[slot])
        place.set_title(f"{slot / manifest.sample_fps:.1f} s\n×{attended.attention.get(slot, 0.0):.1f}", fontsize=8)
