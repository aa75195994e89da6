"""The dashboards: the files are what the code writes, ask for what there is, and explain themselves."""

from __future__ import annotations

import re

import pytest
import yaml

from dashboards.build import DASHBOARDS as MADE
from dashboards.build import text_of
from monitor.telemetry.reference import declared_metrics

from .expressions import (
    DASHBOARDS,
    FOLDER,
    dashboard,
    names_in,
    panel_expressions,
    panels,
    rules,
)

VARIABLES = {"datasource", "job", "instance", "camera"}
BUILT_IN = {"__rate_interval", "__range"}
SHOWN_NOWHERE = {
    "process_virtual_memory_bytes",  # resident memory says what is used
    "process_start_time_seconds",  # a rule watches it
}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_file_is_what_the_code_writes(name):
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == text_of(MADE[name]), f"dashboards/{name} is old; run python -m dashboards.build"


def test_the_panels_ask_for_what_there_is():
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = {metric.name for metric in declared_metrics()} | recorded
    for expression in panel_expressions():
        unknown = names_in(expression.text) - known
        assert not unknown, expression


def test_every_metric_is_shown_somewhere():
    shown = {name for expression in panel_expressions() for name in names_in(expression.text)}
    assert {metric.name for metric in declared_metrics()} - shown == SHOWN_NOWHERE


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_explains_itself_and_is_of_the_chosen_monitors(name):
    shown = dashboard(name)
    assert {variable["name"] for variable in shown["templating"]["list"]} == VARIABLES
    assert len({panel["id"] for panel in shown["panels"]}) == len(shown["panels"])
    for panel in panels(name):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            selectors = re.findall(r"\{[^{}]*\}", target["expr"])
            assert selectors, panel["title"]
            assert all('job=~"$job",instance=~"$instance"' in selector for selector in selectors), panel["title"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= VARIABLES | BUILT_IN


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_lies_over_another(name):
    taken = set()
    for panel in dashboard(name)["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_links_lead_to_dashboards_that_exist():
    uids = {dashboard(name)["uid"] for name in DASHBOARDS}
    text = "".join((FOLDER / name).read_text(encoding="utf-8") for name in DASHBOARDS)
    found = set(re.findall(r"/d/([\w-]+)\?", text))
    assert found == uids


@pytest.mark.parametrize("name", DASHBOARDS)
def test_starts_of_events_are_marked(name):
    (marks,) = dashboard(name)["annotations"]["list"]
    assert marks["enable"]
    assert marks["datasource"]["uid"] == "${datasource}"
    assert names_in(marks["expr"]) == {"monitor_alerts_total"}
    assert 'phase="started"' in marks["expr"]
    assert 'camera=~"$camera"' in marks["expr"], "those of the cameras that are shown"
    assert marks["titleFormat"] == "{{label}} on {{camera}}"


COLOURED = {
    "overview.json": {
        "Cameras down": {1: "red"},
        "Kafka": {0: "red", 1: "green"},
        "Late windows, last hour": {0.01: "orange", 0.06: "red"},
        "Late windows against the objective": {0.01: "orange", 0.06: "red", 0.144: "red"},
        "Age of the oldest waiting alert": {300: "red"},
    },
    "camera.json": {
        "Stream": {0: "red", 1: "green"},
        "Newest frame": {10: "orange", 60: "red"},
        "Clock": {5: "orange"},
        "Stride": {1.5: "orange"},
    },
    "pipeline.json": {
        "Share of the time": {0.8: "orange"},
        "Used up": {0.9: "red"},
        "Engine against golden outputs": {0: "red", 0.99: "orange", 0.999: "green"},
    },
}
"""From which value on a panel has which colour, where a person has to see it from afar."""


@pytest.mark.parametrize("name", DASHBOARDS)
def test_what_is_wrong_has_a_colour(name):
    found = {panel["title"]: panel["fieldConfig"]["defaults"] for panel in panels(name)}
    for title, steps in COLOURED[name].items():
        told = {
            step["value"]: step["color"] for step in found[title]["thresholds"]["steps"] if step["value"] is not None
        }
        assert told == steps, title
    assert len([one for one in found.values() if len(one.get("thresholds", {}).get("steps", [])) > 1]) >= 5


UNITS = {"s": "_seconds", "bytes": "_bytes"}
RATIOS = re.compile(r" / |rate\(|increase\(|_ratio")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_seconds_and_bytes_are_shown_as_such(name):
    """A quantile of a histogram in seconds, or a gauge in bytes, has the unit of what it is made of."""
    for panel in panels(name):
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for expression in (target["expr"] for target in panel["targets"]):
            is_quantile = expression.startswith("histogram_quantile")
            asked = {metric.removesuffix("_total") for metric in names_in(expression)}
            for shown, ending in UNITS.items():
                if (
                    asked
                    and (is_quantile or not RATIOS.search(expression))
                    and all(each.endswith(ending) for each in asked)
                ):
                    assert unit == shown, panel["title"]


def test_the_latency_is_shown_against_its_aim():
    (panel,) = (panel for panel in panels("overview.json") if panel["title"] == "From frame to decision")
    asked = [names_in(target["expr"]) for target in panel["targets"]]
    assert {"monitor_latency_aim_seconds"} in asked
    assert {"monitor_capture_to_decision_seconds"} in asked


def test_rows_of_cameras_link_to_the_camera():
    linked = [
        override["properties"][0]["value"][0]["url"]
        for panel in panels("overview.json")
        for override in panel["fieldConfig"]["overrides"]
    ]
    assert len(linked) == 3
    assert all(url.startswith("/d/monitor-camera?") and "var-camera=${__value.text}" in url for url in linked)


def test_grafana_is_told_where_dashboards_and_data_are():
    """As compose.yaml mounts and names them."""
    services = yaml.safe_load((FOLDER.parent / "compose.yaml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    [provider] = yaml.safe_load((FOLDER / "provisioning/dashboards/monitor.yaml").read_text())["providers"]
    assert provider["options"]["path"] == mounts["./dashboards"]
    assert mounts["./dashboards/provisioning"] == "/etc/grafana/provisioning", "where Grafana looks"
    [source] = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert services[host]["ports"] == [f"127.0.0.1:{port}:{port}"]
