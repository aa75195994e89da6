"""The Prometheus rules: promtool finds nothing, every alert is tested both ways and has its entry in the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from monitor.telemetry.reference import declared_metrics
from tests.conftest import require

from .expressions import ROOT, RULES, alerts, names_in, rule_expressions, rules

TESTS = sorted((Path(__file__).parent / "rules").glob("*.test.yaml"))
SEVERITIES = {"critical", "warning"}
FIRING = re.compile(r'alertname="(\w+)",alertstate="firing"')


@pytest.fixture
def promtool():
    require(None if shutil.which("promtool") else "no promtool; run scripts/setup-services.sh prometheus")

    def run(*arguments: str) -> None:
        finished = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert finished.returncode == 0, finished.stdout + finished.stderr

    return run


def test_the_rules_are_valid(promtool):
    promtool("check", "rules", str(RULES))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name.removesuffix(".test.yaml"))
def test_alerts_fire_when_they_should_and_only_then(promtool, path):
    promtool("test", "rules", str(path))


def test_every_alert_is_tested_both_ways():
    fires, rests = set(), set()
    for path in TESTS:
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for check in case.get("promql_expr_test", []):
                found = FIRING.search(check["expr"])
                assert found is not None, check
                (fires if check["exp_samples"] else rests).add(found.group(1))
    assert fires == set(alerts())
    assert rests == set(alerts())


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_it_is_and_what_to_do(name):
    rule = alerts()[name]
    told = rule["annotations"]
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(told) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert told["summary"].endswith(".")
    assert told["description"].endswith(".")
    assert told["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert re.match(r"/d/monitor-(overview|camera|pipeline)\?", told["dashboard_url"])


@pytest.mark.parametrize(
    "name", [name for name in alerts() if "Camera" in name or "labels.camera" in str(alerts()[name])]
)
def test_an_alert_of_a_camera_leads_to_it(name):
    told = alerts()[name]["annotations"]
    if "labels.camera" in told["summary"]:
        assert told["dashboard_url"].startswith("/d/monitor-camera?var-camera={{ $labels.camera }}&"), name
    else:
        assert name == "MonitorMostCamerasDown", "of many cameras at once"


def test_the_runbook_has_an_entry_for_every_alert_and_no_other():
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (\w+)$", text, re.MULTILINE)) == set(alerts())


@pytest.mark.parametrize("name", alerts())
def test_the_operations_guide_lists_the_alert_as_it_is(name):
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    after, severity = alerts()[name].get("for", "at once"), alerts()[name]["labels"]["severity"]
    assert f"| [{name}](runbook.md#{name.lower()}) | {severity} | {after} |" in text


def test_the_readme_counts_the_alerts():
    assert f"{len(alerts())} alerts" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_rules_ask_for_what_there_is():
    known = {metric.name for metric in declared_metrics()} | {rule["record"] for rule in rules() if "record" in rule}
    for expression in rule_expressions():
        unknown = names_in(expression.text) - known
        assert not unknown, expression
