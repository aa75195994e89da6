"""The history of a training and what it says of clips aside in, figures out."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from models.checkpoints import EpochLoss
from models.metrics import confusion
from models.verdicts import JudgedClip
from monitor.bundle import ThresholdPair

DOTS_PER_INCH = 110
_STAGES = {"head": "Head alone, on the frozen backbone", "whole": "Head and backbone"}


def png(draw: Callable[[], Figure], *, dark: bool = False) -> bytes:
    """Return a figure as a PNG file, for a light page, or see-through for a dark one."""
    mpl.use("agg")
    written = io.BytesIO()
    with style.context("dark_background" if dark else "default"):
        draw().savefig(written, dpi=DOTS_PER_INCH, transparent=dark, metadata={"Software": None})
    return written.getvalue()


def curves_figure(history: Sequence[EpochLoss], *, best_is_kept: bool = True) -> Figure:
    """Draw the loss of every epoch, a plot for each stage, with the epoch that was kept.

    Args:
        history: of all stages.
        best_is_kept: by the loss aside; otherwise each stage's last epoch is.
    """
    stages = list(dict.fromkeys(loss.stage for loss in history))
    figure = Figure(figsize=(4.5 * len(stages) + 1.5, 4), layout="constrained")
    for axes, stage in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        losses = [loss for loss in history if loss.stage == stage]
        kept = min(losses, key=lambda loss: loss.validation_loss) if best_is_kept else losses[-1]
        _draw_stage(axes, losses, kept, title=_STAGES.get(stage, stage))
    return figure


def _draw_stage(axes: Axes, losses: Sequence[EpochLoss], kept: EpochLoss, *, title: str) -> None:
    epochs = [loss.epoch for loss in losses]
    axes.plot(epochs, [loss.train_loss for loss in losses], marker=".", label="taught (with the attention's penalty)")
    axes.plot(epochs, [loss.validation_loss for loss in losses], marker=".", label="kept aside")
    axes.plot([kept.epoch], [kept.validation_loss], "*", markersize=13, label=f"kept: epoch {kept.epoch}")
    axes.set(xlabel="epoch", ylabel="loss", title=title)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)


def confusion_figure(judged: Sequence[JudgedClip], labels: Sequence[str]) -> Figure:
    """Draw what was said of the clips of each label: counts, coloured by their share of the label."""
    targets, said = np.array([(clip.target, clip.said) for clip in judged]).T
    counts = confusion(targets, said, len(labels))
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = 2.2 + 0.9 * len(labels)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.ndindex(counts.shape):
        share = shares[row, column]
        colour = "white" if share > 0.5 else "black"
        text = f"{counts[row, column]}\n{share:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="said", ylabel="true")
    return figure


def roc_figure(judged: Sequence[JudgedClip], labels: Sequence[str], thresholds: Mapping[str, ThresholdPair]) -> Figure:
    """Draw the ROC curve of each event's label against all others, and of any event against the background.

    Args:
        judged: clips that taught nothing.
        labels: L names, the background first.
        thresholds: of each event's label; where the on-threshold lies is marked.
    """
    probabilities = np.stack([clip.probabilities for clip in judged])
    targets = np.array([clip.target for clip in judged])
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    if len(labels) > 2:
        axes.plot(*roc_points(1.0 - probabilities[:, 0], targets != 0), label="any event", linewidth=2.5)
    for index, label in enumerate(labels[1:], start=1):
        scores, truth = probabilities[:, index], targets == index
        (line,) = axes.plot(*roc_points(scores, truth), label=label)
        above = scores >= thresholds[label].on
        at = (above[~truth].mean(), above[truth].mean())
        axes.plot(
            *at, "*", markersize=13, color=line.get_color(), label=f"{label}: on-threshold {thresholds[label].on:g}"
        )
    axes.plot([0, 1], [0, 1], ":", color="gray", label="chance")
    axes.set(
        xlabel="share of other clips above", ylabel="share of its clips above", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def roc_points(
    scores: NDArray[np.floating], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shares of others and of events at or above each threshold, both rising from 0 to 1: (P,) each.

    Args:
        scores: (C,); equal ones make one step.
        truth: (C,) True for an event; both kinds are there.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    events, others = (np.cumsum(kind[order])[last] / max(int(kind.sum()), 1) for kind in (truth, ~truth))
    return np.append(0.0, others), np.append(0.0, events)
