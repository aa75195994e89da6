"""docs/metrics.md is what the declarations say."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import Counter

from monitor.telemetry import reference
from monitor.telemetry.metrics import Metrics
from monitor.telemetry.reference import declared_metrics, reference_text

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_document_is_up_to_date():
    assert DOCUMENT.read_text(encoding="utf-8") == reference_text(), (
        "docs/metrics.md is old; monitor schema metrics > docs/metrics.md"
    )


def test_every_metric_that_is_exposed_is_declared():
    declared = {metric.name for metric in declared_metrics()}
    exposed = {family.name + ("_total" if family.type == "counter" else "") for family in Metrics().registry.collect()}
    assert exposed <= declared
    assert len(declared) > 50


@pytest.mark.parametrize(
    ("name", "meaning", "labels", "complaint"),
    [
        ("monitor_frames_lost", " ", [], "without a meaning"),
        ("monitor_zebras", "Zebras seen.", [], "no group"),
        ("monitor_frames_lost", "Frames lost.", ["zebra"], "label zebra"),
    ],
)
def test_what_is_not_explained_is_an_error(monkeypatch, name, meaning, labels, complaint):
    class More(Metrics):
        def __init__(self):
            super().__init__()
            self.more = Counter(name, meaning, labels, registry=self.registry)

    monkeypatch.setattr(reference, "Metrics", More)
    with pytest.raises(ValueError, match=complaint):
        reference_text()


def test_units_come_from_names_and_bounds():
    units = {metric.name: metric.unit for metric in declared_metrics()}
    assert units["monitor_evidence_cpu_seconds_total"] == "seconds"
    assert units["monitor_sample_rate_hertz"] == "hertz"
    assert units["monitor_score"] == "0 to 1"
    assert units["monitor_camera_up"] == "0 or 1"
    assert units["monitor_packets_total"] == "count"
