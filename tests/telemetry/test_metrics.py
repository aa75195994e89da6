"""Metrics: names, units, and that a removed camera leaves nothing behind."""

from __future__ import annotations

import re

from monitor.telemetry.metrics import Metrics


def test_names_carry_prefix_and_base_units():
    for family in Metrics().registry.collect():
        assert family.name.startswith(("monitor_", "process_")), family.name  # process_: Prometheus' own convention
        assert not re.search(r"_(ms|milliseconds|kb|mb|percent)\b", family.name), family.name
        assert family.documentation.endswith("."), family.name
        assert not any(sample.name.endswith("_created") for sample in family.samples), family.name


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
