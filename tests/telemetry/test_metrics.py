"""Metrics: names, units, and that a removed camera leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitor.bundle import find_bundle, load_bundle
from monitor.reporting import LATENCY_SLACK_SECONDS
from monitor.telemetry.metrics import Metrics


def test_names_carry_prefix_and_base_units():
    for family in Metrics().registry.collect():
        assert family.name.startswith(("monitor_", "process_")), family.name  # process_: Prometheus' own convention
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent)\b", family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert not any(sample.name.endswith("_created") for sample in family.samples), family.name


@pytest.mark.parametrize("bundle", ["demo", "fight"])
def test_the_aim_of_a_shipped_model_is_the_bound_of_a_bucket(bundle):
    """So that the share of decisions in time is counted, not guessed from within a bucket; and there are finer ones."""
    aim = load_bundle(find_bundle(bundle, Path())).manifest.stride_seconds + LATENCY_SLACK_SECONDS
    metrics = Metrics()
    for histogram in (metrics.capture_to_decision, metrics.capture_to_acknowledged, metrics.publish_seconds):
        (family,) = histogram.collect()
        bounds = [float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")]
        assert pytest.approx(aim) in bounds
        assert len([bound for bound in bounds if bound < aim]) >= 5
        assert len([bound for bound in bounds if aim < bound < 10 * aim]) >= 3


def test_the_series_of_a_removed_camera_are_removed():
    metrics = Metrics()
    metrics.camera_up.labels("yard").set(1)
    metrics.camera_up.labels("gate").set(1)
    metrics.dropped.labels("yard", "capture_queue").inc()
    metrics.alerts.labels("yard", "fight", "started").inc()
    metrics.forget_camera("yard")
    text = metrics.render().decode()
    assert 'camera="yard"' not in text
    assert 'camera="gate"' in text
