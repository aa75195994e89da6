"""Every expression that the dashboards and the rules hold, and the metrics that each names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monitor.telemetry.reference import declared_metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "dashboards"
RULES = FOLDER / "rules" / "monitor.rules.yaml"
DASHBOARDS = ("overview.json", "camera.json", "pipeline.json")

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression and where it stands."""

    place: str
    """`overview.json: Cameras down [A]`, `rule MonitorCameraDown`."""
    text: str


def dashboard(name: str) -> dict[str, Any]:
    """Return a dashboard as committed."""
    shown: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return shown


def panels(name: str) -> list[dict[str, Any]]:
    """Return a dashboard's panels, without its headings."""
    return [panel for panel in dashboard(name)["panels"] if panel["type"] != "row"]


def panel_expressions() -> Iterator[Expression]:
    """Yield what every panel and every annotation asks."""
    for name in DASHBOARDS:
        for panel in panels(name):
            for target in panel["targets"]:
                yield Expression(f"{name}: {panel['title']} [{target['refId']}]", target["expr"])
        for annotation in dashboard(name)["annotations"]["list"]:
            yield Expression(f"{name}: annotation {annotation['name']}", annotation["expr"])


def rules() -> list[dict[str, Any]]:
    """Return every rule, recording and alerting."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerting rules by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def rule_expressions() -> Iterator[Expression]:
    """Yield what every rule asks."""
    for rule in rules():
        yield Expression(f"rule {rule.get('alert') or rule['record']}", rule["expr"])


def names_in(expression: str) -> set[str]:
    """Return the metrics of the program, and the recorded series, that an expression names; histograms by their own."""
    found = {name for name in _NAME.findall(_STRING.sub("", expression)) if name.startswith(("monitor_", "process_"))}
    recorded = {name for name in _NAME.findall(_STRING.sub("", expression)) if ":" in name}
    histograms = {metric.name for metric in declared_metrics() if metric.kind == "histogram"}
    return {_without_suffix(name, histograms) for name in found if ":" not in name} | recorded


def substituted(expression: str, *, camera: str = ".+") -> str:
    """Put values in the place of the dashboard's variables, for a Prometheus that scrapes every second."""
    values = {
        "$__rate_interval": "1m",
        "$__range": "1m",
        "$job": ".+",
        "$instance": ".+",
        "$camera": camera,
    }
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, expression
    return expression


def _without_suffix(name: str, histograms: set[str]) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        if name.endswith(suffix) and name.removesuffix(suffix) in histograms:
            return name.removesuffix(suffix)
    return name
