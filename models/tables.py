"""Figures in, tables for people out."""

from __future__ import annotations

from math import isnan

from rich.table import Table

from models.evaluation import Report
from models.metrics import Estimate
from models.recordings import FALSE_ALARM_RATES, Watched


def clip_tables(report: Report) -> list[Table]:
    """Return what was found on clips: over all and by label, with 95% intervals from a bootstrap over groups."""
    whole = Table("", "clips", "groups", "accuracy (95%)", "ROC-AUC (95%)")
    for number, fold in enumerate(report.folds, start=1):
        whole.add_row(f"fold {number}", str(fold.clips), str(fold.groups), str(fold.accuracy), str(fold.auc))
    measured = report.measured
    whole.add_row("all", str(measured.clips), str(measured.groups), str(measured.accuracy), str(measured.auc))
    labels = Table("label", "clips", "precision (95%)", "recall (95%)", "F1 (95%)", "said as")
    for row, (label, figures) in enumerate(measured.labels.items()):
        said = ", ".join(f"{name} {count}" for name, count in zip(report.labels, report.confusion[row], strict=True))
        labels.add_row(label, str(figures.clips), *map(str, (figures.precision, figures.recall, figures.f1)), said)
    return [whole, labels]


def event_tables(watched: Watched) -> list[Table]:
    """Return what was found in recordings: at the bundle's thresholds, and the best recall at rates of false alarm."""
    found = watched.found
    figures = Table("at the bundle's thresholds", "figure (95%)", title=str(found))
    for name, estimate in (
        ("recall", found.recall),
        ("precision", found.precision),
        ("F1", found.f1),
        ("false alarms per camera-hour", found.false_alarms_per_hour),
        ("seconds to detect, median", found.seconds_to_detect_median),
        ("seconds to detect, nine of ten", found.seconds_to_detect_p90),
        ("most attended frame inside the event", found.attended_inside_share),
    ):
        figures.add_row(name, _spoken(estimate))
    figures.add_row("real-time factor", f"{found.real_time_factor:.1f}")
    rates = Table("false alarms per camera-hour", "threshold", "recall (95%)", "P_miss", "median seconds")
    for rate in FALSE_ALARM_RATES:
        point = watched.best_at(rate)
        if point is None:
            rates.add_row(f"at most {rate:g}", "none", "", "", "")
            continue
        recall, seconds = point.found.recall, point.found.seconds_to_detect_median
        figures_of = (_spoken(recall), _figure(1.0 - recall.value), _figure(seconds.value))
        rates.add_row(f"at most {rate:g}", f"{point.threshold:g}", *figures_of)
    return [figures, rates]


def _spoken(estimate: Estimate) -> str:
    return f"{_figure(estimate.value)} ({_figure(estimate.low)} to {_figure(estimate.high)})"


def _figure(value: float) -> str:
    return "never" if value == float("inf") else "–" if isnan(value) else f"{value:.3g}"
