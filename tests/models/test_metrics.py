"""Figures about clips, held against scikit-learn and against values known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from models.metrics import measure, roc_auc


@pytest.mark.parametrize("seed", range(5))
def test_auc_is_that_of_scikit_learn_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, 8, 60) / 8, rng.random(60) < 0.4
    assert roc_auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))


def test_auc_of_one_label_is_no_number() -> None:
    assert np.isnan(roc_auc(np.array([0.1, 0.2]), np.array([True, True])))


def test_intervals_hold_the_figure_and_widen_with_fewer_groups() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 400)
    said = np.where(rng.random(400) < 0.8, targets, 1 - targets)
    probabilities = np.eye(2)[said]
    single = measure(probabilities, targets, np.arange(400).astype(str), ("normal", "fight"))
    assert single.accuracy.low < single.accuracy.value < single.accuracy.high
    assert single.accuracy.value == pytest.approx(0.8, abs=0.05)
    lucky = np.repeat(np.arange(10), 40).astype(str)
    order = np.argsort(said == targets)
    grouped = measure(probabilities[order], targets[order], lucky, ("normal", "fight"))
    assert grouped.accuracy.high - grouped.accuracy.low > single.accuracy.high - single.accuracy.low


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 clips"):
        measure(np.zeros((2, 2)), np.zeros(3, np.int64), np.array(["a"] * 3), ("normal", "fight"))


def test_figures_of_labels_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    targets, said = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    measured = measure(np.eye(3)[said], targets, (np.arange(90) // 3).astype(str), ("normal", "fall", "fight"))
    wanted = np.array(precision_recall_fscore_support(targets, said))
    for index, figures in enumerate(measured.labels.values()):
        got = (figures.precision, figures.recall, figures.f1)
        assert [figure.value for figure in got] == pytest.approx(wanted[:3, index])
        assert all(figure.low < figure.value < figure.high for figure in got)
        assert figures.clips == wanted[3, index]


def test_a_label_that_nobody_said_has_no_precision() -> None:
    measured = measure(np.eye(2)[[0, 0]], np.array([0, 1]), np.array(["a", "b"]), ("normal", "fight"))
    assert np.isnan(measured.labels["fight"].precision.value)
    assert measured.labels["fight"].precision.as_json()["value"] is None
