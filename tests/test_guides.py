"""The guides speak of what is there: tests by their names, files by their paths, metrics, events and log lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitor.telemetry.metrics import Metrics

ROOT = Path(__file__).parent.parent
GUIDES = ("docs/security.md", "docs/kubernetes.md", "docs/containers.md", "docs/logs.md")
MADE_ELSEWHERE = {"monitor_windows_late_per_second"}
"""By prometheus-adapter."""
EVENTS = {"monitor_started", "monitor_stopping", "monitor_stopped"}
FAMILIES = {family.name for family in Metrics().registry.collect()}


@pytest.mark.parametrize("guide", GUIDES)
def test_tests_that_are_named_are_there(guide):
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / guide).read_text()):
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"


@pytest.mark.parametrize("guide", GUIDES)
def test_files_that_are_linked_are_there(guide):
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / guide).read_text()):
        assert ((ROOT / guide).parent / target).exists(), target


@pytest.mark.parametrize("guide", GUIDES)
def test_metrics_that_are_named_are_the_program_s(guide):
    named = set(re.findall(r"\bmonitor_[a-z_]+\b", (ROOT / guide).read_text())) - MADE_ELSEWHERE - EVENTS
    unknown = sorted(name for name in named if name.removesuffix("_total") not in FAMILIES)
    assert not unknown
