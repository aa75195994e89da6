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


def test_rows_of_cameras_link_to_the_camera():
    linked = [
        override["properties"][0]["value"][0]["url"]
        for panel in panels("overview.json")
        for override in panel["fieldConfig"]["overrides"]
    ]
    assert len(linked) == 3
    assert all(url.startswith("/d/monitor-camera?") and "var-camera=${__value.text}" in url for url in linked)


def test_grafana_is_told_where_dashboards_and_data_are():
    [provider] = yaml.safe_load((FOLDER / "provisioning/dashboards/monitor.yaml").read_text())["providers"]
    assert provider["options"]["path"]
    [source] = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"
