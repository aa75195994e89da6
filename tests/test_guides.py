"""The guides speak of what is there: tests by their names, files by their paths, metrics, events and log lines."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from monitor.cli import app
from monitor.telemetry.metrics import Metrics

ROOT = Path(__file__).parent.parent
GUIDES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
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
def test_headings_that_are_linked_are_there(guide):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", (ROOT / guide).read_text()):
        linked = ((ROOT / guide).parent / target) if target else ROOT / guide
        headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
        assert anchor in [_anchor(heading) for heading in headings], f"{target}#{anchor}"


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("guide", GUIDES)
def test_code_stands_in_fences_of_its_own(guide):
    text = (ROOT / guide).read_text()
    fences = [line for line in text.splitlines() if "```" in line]
    assert len(fences) % 2 == 0
    assert [line for line in fences if not re.fullmatch(r" *```[a-z]*", line)] == []
    for block in re.findall(r"^ *```toml\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        tomllib.loads(block)


@pytest.mark.parametrize("guide", GUIDES)
def test_options_that_are_named_are_the_command_s(guide):
    commands = typer.main.get_group(app).commands
    for name, arguments in re.findall(r"\bmonitor ([a-z]+)([^`|#\n]*)", (ROOT / guide).read_text()):
        if name in commands:
            known = {
                option for parameter in commands[name].params for option in (*parameter.opts, *parameter.secondary_opts)
            }
            assert not set(re.findall(r"(?<=\s)--[a-z-]+", arguments)) - known - {"--help"}, (
                f"monitor {name}{arguments}"
            )


@pytest.mark.parametrize("guide", GUIDES)
def test_programs_and_files_that_are_named_are_there(guide):
    text = (ROOT / guide).read_text()
    for module in re.findall(r"python -m ([a-z_]\w*(?:\.[a-z_]+)*)", text):
        where = ROOT / module.replace(".", "/")
        assert where.is_dir() or where.with_suffix(".py").is_file(), module
    for path in re.findall(r"`((?:tests|dashboards|k8s|scripts|schemas)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    known = set(typer.main.get_group(app).commands)
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    code = "\n".join([block for language, block in blocks if not language] + re.findall(r"`(monitor [^`\n]+)`", text))
    for command in re.findall(r"^\s*monitor ([a-z]+)\b", code, re.MULTILINE):
        assert command in known, command


@pytest.mark.parametrize("guide", GUIDES)
def test_metrics_that_are_named_are_the_program_s(guide):
    named = set(re.findall(r"\bmonitor_[a-z_]+\b", (ROOT / guide).read_text())) - MADE_ELSEWHERE - EVENTS
    unknown = sorted(name for name in named if name.removesuffix("_total") not in FAMILIES)
    assert not unknown
