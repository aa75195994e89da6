"""A real Prometheus on a running monitor: every metric arrives, every panel and every rule can be answered."""

from __future__ import annotations

import math
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from monitor.telemetry.reference import declared_metrics
from tests.conftest import require
from tests.dashboards.expressions import (
    RULES,
    Expression,
    names_in,
    panel_expressions,
    rule_expressions,
    substituted,
)
from tests.services import prometheus
from tests.services.monitor import MonitorProcess, configuration
from tests.services.ports import free_port
from tests.services.prometheus import Prometheus
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS

pytestmark = pytest.mark.xdist_group("observability")  # one monitor for all of them

WAIT_SECONDS = 75.0
SILENT_METRICS = {
    "monitor_camera_gate_wakeups_total": "whether a gate fell asleep before is a matter of the scene",
    "monitor_shadow_windows_total": "no model runs in the shadow",
    "monitor_model_swaps_total": "no model is swapped",
}
"""Metrics without a series until something happens that this test does not bring about."""
SILENT_PLACES = {
    "overview.json: Rules that fire [A]": "every rule waits for longer than this test",
    "pipeline.json: Mean score against its past [B]": "there is no day before",
    "pipeline.json: Mean score against its past [C]": "there is no week before",
}
"""Panels that rightly show nothing."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A monitor with two live cameras and a dead one, and a Prometheus that scrapes it."""

    monitor: MonitorProcess
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory, kafka_broker, scene_streams) -> Iterator[Watched]:
    require(prometheus.missing())
    folder = tmp_path_factory.mktemp("observability")
    quick_rules = folder / "rules.yaml"
    quick_rules.write_text(re.sub(r"interval: 30s", "interval: 1s", RULES.read_text(encoding="utf-8")))
    kafka = {"bootstrap_servers": kafka_broker.bootstrap, "topic": "observed", "health_topic": "observed-cameras"}
    with RtspServer({name: Mount(scene_streams["h264"], FPS) for name in ("yard", "gate")}) as server:
        cameras = [
            {"id": "yard", "url": server.url("yard"), "clip_url": server.url("gate")},
            {"id": "gate", "url": server.url("gate")},
            {"id": "dead", "url": f"rtsp://127.0.0.1:{free_port()}/dead"},
        ]
        config = configuration(folder, cameras, bundle="demo", kafka=kafka, evidence={"post_seconds": 1.0})
        with MonitorProcess(config) as monitor:
            target = monitor.address.removeprefix("http://")
            with Prometheus([target], rules=[quick_rules]) as scraping:
                for name in ("yard", "gate"):
                    monitor.wait_for_metric("monitor_windows_scored_total", 1, 30, camera=name)
                monitor.wait_for_metric("monitor_alerts_published_total", 1, 45, result="acknowledged")
                assert scraping.wait_for("monitor_camera_reconnect_seconds_count == 0", timeout_seconds=20)
                server.disconnect()  # so that streams have been lost, and have come back
                for name in ("yard", "gate"):
                    monitor.wait_for_metric("monitor_camera_reconnects_total", 1, 20, camera=name)
                yield Watched(monitor, scraping)


def series_of(metric_name: str, kind: str) -> str:
    return f"{metric_name}_bucket" if kind == "histogram" else metric_name


def test_every_metric_of_the_reference_arrives(watched):
    wanted = {metric.name: series_of(metric.name, metric.kind) for metric in declared_metrics()}
    missing = set(wanted) - set(SILENT_METRICS)
    end = time.monotonic() + WAIT_SECONDS
    while missing and time.monotonic() < end:
        missing = {name for name in missing if not watched.prometheus.query(f"count({wanted[name]})")}
        time.sleep(0.5)
    assert not missing
    told = {label["__name__"] for label in watched.prometheus.get("series", **{"match[]": '{job="monitor"}'})}
    ours = {name for name in told if name.startswith(("monitor_", "process_")) and ":" not in name}
    known = {metric.name for metric in declared_metrics()}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours} - known == set()
    assert not {name for name in told if name.startswith("python_")}


def test_every_panel_can_be_answered_and_shows_something(watched):
    waiting = {}
    for expression in panel_expressions():
        silent = names_in(expression.text) & set(SILENT_METRICS)
        watched.prometheus.query(substituted(expression.text))  # raises what Prometheus refuses
        if not silent and expression.place not in SILENT_PLACES:
            waiting[expression.place] = expression
    end = time.monotonic() + WAIT_SECONDS
    while waiting and time.monotonic() < end:
        waiting = {place: one for place, one in waiting.items() if not shows(watched, one)}
        time.sleep(0.5)
    assert not waiting, [f"{place}: {one.text}" for place, one in waiting.items()]


def shows(watched: Watched, expression: Expression) -> bool:
    """Whether an expression gives a number now."""
    found: list[dict[str, Any]] = watched.prometheus.query(substituted(expression.text))
    return any(not math.isnan(float(sample["value"][1])) for sample in found)


def test_every_rule_can_be_answered_and_records_something(watched):
    for expression in rule_expressions():
        watched.prometheus.query(expression.text)  # raises what Prometheus refuses
    groups = watched.prometheus.get("rules")["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert len(loaded) == len(list(rule_expressions()))
    assert {rule["health"] for rule in loaded} <= {"ok", "unknown"}  # unknown: not yet evaluated
    for rule in loaded:
        if rule["type"] == "recording":
            assert watched.prometheus.wait_for(rule["name"], timeout_seconds=30), rule["name"]


def test_the_dead_camera_alone_is_on_its_way_to_being_told(watched):
    end = time.monotonic() + 30
    while (down := pending_down(watched)) != {"dead"} and time.monotonic() < end:
        time.sleep(0.5)  # the streams that were lost before have just come back
    assert down == {"dead"}


def pending_down(watched: Watched) -> set[str]:
    """The cameras of which the rules begin to say that they are down."""
    return {alert["metric"]["camera"] for alert in watched.prometheus.query('ALERTS{alertname="MonitorCameraDown"}')}


def test_promtool_finds_nothing_in_what_the_monitor_tells(watched):
    status, text = watched.monitor.get("/metrics")
    assert status == 200
    finished = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    assert (finished.returncode, finished.stdout + finished.stderr) == (0, "")
