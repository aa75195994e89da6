"""Figures about clips: probabilities and labels in, accuracy and ROC-AUC with bootstrap intervals out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1000

Figure = Callable[[NDArray[np.int64]], float]
"""Takes the places of clips, some of them more than once; NaN where it cannot be told of them."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return "–" if np.isnan(self.value) else f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def rounded(self) -> list[float]:
        """Return value, low and high, as a manifest holds them."""
        return [round(figure, 4) for figure in (self.value, self.low, self.high)]

    def as_json(self) -> dict[str, float | None]:
        """Return the figure for machines; None where it is no number, or never."""
        figures = {"value": self.value, "low": self.low, "high": self.high}
        return {name: round(figure, 4) if np.isfinite(figure) else None for name, figure in figures.items()}


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """How well one label is told from all others."""

    clips: int
    """That have the label."""
    precision: Estimate
    recall: Estimate
    f1: Estimate

    def rounded(self) -> dict[str, list[float]]:
        """Return the figures as a manifest holds them; of a label that was never said, there is no precision."""
        figures = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {name: figure.rounded() for name, figure in figures.items() if not np.isnan(figure.value)}

    def as_json(self) -> dict[str, object]:
        """Return the figures for machines."""
        figures = {name: getattr(self, name).as_json() for name in ("precision", "recall", "f1")}
        return {"clips": self.clips, **figures}


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on clips that taught nothing."""

    clips: int
    groups: int
    accuracy: Estimate
    auc: Estimate
    """Area under the ROC curve of "any event against the background"."""
    labels: Mapping[str, LabelFigures]

    def __str__(self) -> str:
        return f"{self.clips} clips of {self.groups} groups: accuracy {self.accuracy}, ROC-AUC {self.auc}"


def measure(
    probabilities: NDArray[np.floating],
    targets: NDArray[np.int64],
    groups: NDArray[np.str_],
    labels: tuple[str, ...],
) -> Measured:
    """Measure clips whose background label is the first.

    Args:
        probabilities: (C, L) of each clip.
        targets: (C,) index of the label.
        groups: (C,) recording of each clip; the bootstrap draws whole groups.
        labels: L names.
    """
    if probabilities.shape != (len(targets), len(labels)):
        raise ValueError(f"probabilities {probabilities.shape} for {len(targets)} clips and {len(labels)} labels")

    said = probabilities.argmax(axis=1)
    right = said == targets

    def accuracy(rows: NDArray[np.int64]) -> float:
        return float(right[rows].mean())

    def auc(rows: NDArray[np.int64]) -> float:
        return roc_auc(1.0 - probabilities[rows, 0], targets[rows] != 0)

    of_labels = [_label_figures(said == index, targets == index) for index in range(len(labels))]
    estimates = iter(estimate([accuracy, auc, *chain.from_iterable(of_labels)], groups))
    return Measured(
        clips=len(targets),
        groups=len(np.unique(groups)),
        accuracy=next(estimates),
        auc=next(estimates),
        labels={
            label: LabelFigures(int((targets == index).sum()), next(estimates), next(estimates), next(estimates))
            for index, label in enumerate(labels)
        },
    )


def _label_figures(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> tuple[Figure, Figure, Figure]:
    """Return precision, recall and F1 of one label: (C,) whether it was said, and whether it is true."""

    def share(rows: NDArray[np.int64], *, of: NDArray[np.bool_]) -> float:
        return float((said & true)[rows].sum() / of[rows].sum()) if of[rows].any() else float("nan")

    def f1(rows: NDArray[np.int64]) -> float:
        both = said[rows].sum() + true[rows].sum()
        return float(2 * (said & true)[rows].sum() / both) if both else float("nan")

    return partial(share, of=said), partial(share, of=true), f1


def confusion(targets: NDArray[np.int64], said: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """Return (L, L) clips: rows are true labels, columns what was said.

    Args:
        targets: (C,) index of the label.
        said: (C,) index of what was said.
        labels: L.
    """
    counts = np.zeros((labels, labels), np.int64)
    np.add.at(counts, (targets, said), 1)
    return counts


def roc_auc(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float:
    """Return how often an event scores above a non-event, ties half; NaN where there are not both.

    Args:
        scores: (C,).
        truth: (C,) True for an event.
    """
    events, others = scores[truth], np.sort(scores[~truth])
    if not len(events) or not len(others):
        return float("nan")
    below = np.searchsorted(others, events, "left") + np.searchsorted(others, events, "right")
    return float(below.mean() / (2 * len(others)))


def estimate(figures: Sequence[Figure], groups: NDArray[np.str_]) -> list[Estimate]:
    """Return figures of the same clips, each with the percentile interval of a bootstrap over groups.

    Args:
        figures: all of them are told of each draw.
        groups: (C,) recording of each clip; whole groups are drawn.
    """
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn = np.empty((_RESAMPLES, len(figures)))
    for values in drawn:
        rows = np.concatenate([members[place] for place in rng.integers(0, len(members), len(members))])
        values[:] = [figure(rows) for figure in figures]
    everything = np.arange(len(groups))
    return [_interval(figure(everything), values) for figure, values in zip(figures, drawn.T, strict=True)]


def _interval(value: float, drawn: NDArray[np.float64]) -> Estimate:
    """Return a figure with the interval of its values in the draws in which it can be told."""
    told = drawn[~np.isnan(drawn)]
    low, high = np.quantile(told, (0.025, 0.975)) if len(told) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high))
