"""Temperature and thresholds: logits of windows kept aside in, honest probabilities and on/off thresholds out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.recipe import Recipe
from monitor.bundle import ThresholdPair

_TEMPERATURES = np.exp(np.linspace(np.log(0.7), np.log(6.0), 120))
"""Few windows, all told apart, would ask for a temperature of 0: hence the lower end."""
_TEMPERATURE_SPREAD = 0.25
"""Standard deviation of the logarithm of a temperature, before any window is seen, around 1. Few groups choose one by
chance: see docs/experiments.md."""
_LOWEST_ON, _HIGHEST_ON = 0.5, 0.95
_OFF_SHARE = 0.6
"""Off-threshold as a share of the on-threshold."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns logits into probabilities and probabilities into events."""

    temperature: float
    thresholds: Mapping[str, ThresholdPair]
    """One pair per label that can become an event."""
    false_alarm_share: Mapping[str, float]
    """Share of the windows without the label that lay at or above its on-threshold."""


def calibrate(
    logits: NDArray[np.float32], targets: NDArray[np.int64], labels: tuple[str, ...], recipe: Recipe, *, groups: int
) -> Calibration:
    """Choose temperature and thresholds on windows that no weight was learned from.

    Args:
        logits: (W, L).
        targets: (W,) index of the label.
        labels: L names.
        recipe: names the background and the share of false alarms that is accepted.
        groups: that the windows are of.
    """
    temperature = fit_temperature(logits, targets, groups=groups)
    probabilities = softmax(logits / temperature)
    thresholds, shares = {}, {}
    for index, label in enumerate(labels):
        if label == recipe.background:
            continue
        others = probabilities[targets != index, index]
        highest = float(np.quantile(others, 1.0 - recipe.false_alarm_share, method="higher")) if len(others) else 0.0
        above = math.floor(highest * 1000 + 1) / 1000
        on = min(max(above, _LOWEST_ON), _HIGHEST_ON)
        thresholds[label] = ThresholdPair(on=on, off=round(on * _OFF_SHARE, 3))
        shares[label] = float((others >= on).mean()) if len(others) else 0.0
    return Calibration(temperature, thresholds, shares)


def fit_temperature(logits: NDArray[np.float32], targets: NDArray[np.int64], *, groups: int) -> float:
    """Return the most likely temperature, given that most are near 1; logits are divided by it.

    As Guo et al. 2017 (https://arxiv.org/abs/1706.04599), and with few observations nearer to 1: the windows of a group
    resemble each other, so a group counts as one, and the logarithm of the temperature as normally distributed before
    any was made.

    Args:
        logits: (W, L).
        targets: (W,) index of the label.
        groups: that the windows are of.
    """
    rows = np.arange(len(targets))
    losses = np.array([-np.log(softmax(logits / value)[rows, targets] + 1e-12).mean() for value in _TEMPERATURES])
    unlikely = np.log(_TEMPERATURES) ** 2 / (2 * _TEMPERATURE_SPREAD**2)
    return float(_TEMPERATURES[int(np.argmin(groups * losses + unlikely))])


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return probabilities (W, L) of logits (W, L)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
