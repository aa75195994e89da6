"""docs/logs.md and the code say the same: every event that is logged is listed, with its level and its correlation."""

from __future__ import annotations

import ast
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


@dataclass(frozen=True, slots=True)
class Logged:
    """One place in the code that logs."""

    where: str
    event: str
    """With `*` for what is filled in."""
    level: str
    """Empty where it is chosen at run time."""
    fields: frozenset[str]
    whole: bool
    """Whether the fields are all there are: nothing is unpacked into the call or bound before."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of the table."""

    event: str
    levels: frozenset[str]
    fields: frozenset[str]


def logged() -> list[Logged]:
    found = []
    for path in sorted((ROOT / "monitor").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            level = _level(call)
            if level is None or not call.args:
                continue
            for event in _events(call.args[0]):
                where = f"{path.relative_to(ROOT)}:{call.lineno}"
                names = frozenset(word.arg for word in call.keywords if word.arg)
                whole = all(word.arg for word in call.keywords) and _name(call) == "log"
                found.append(Logged(where, event, level, names - {"exc_info"}, whole))
    return found


def listed() -> dict[str, Listed]:
    rows = [line for line in (ROOT / "docs/logs.md").read_text().splitlines() if line.startswith("| `")]
    table = {}
    for row in rows:
        event, levels, fields, meaning = (cell.strip() for cell in row.strip("|").split("|"))
        assert meaning, row
        table[event.strip("`")] = Listed(event.strip("`"), _words(levels), _words(fields))
    assert len(table) == len(rows), "an event is listed twice"
    return table


def test_every_event_is_listed():
    rows = listed()
    missing = [f"{each.where}: {each.event}" for each in logged() if not fnmatch.filter(rows, each.event)]
    assert not missing, "add to docs/logs.md: " + "; ".join(missing)


def test_nothing_is_listed_that_is_not_logged():
    patterns = [each.event for each in logged()]
    assert not [event for event in listed() if not any(fnmatch.fnmatch(event, pattern) for pattern in patterns)]


def test_levels_and_fields_are_those_of_the_code():
    rows, calls = listed(), logged()
    literal = {each.event for each in calls}
    for each in calls:
        filled_in = [event for event in fnmatch.filter(rows, each.event) if event not in literal]
        for event in [each.event] if each.event in rows else filled_in:
            row = rows[event]
            assert not each.level or each.level in row.levels, f"{each.where}: {event} is at {each.level}"
            if each.whole:
                assert each.fields <= row.fields, f"{each.where}: {event} has {each.fields - row.fields}"


def test_what_concerns_a_camera_or_an_event_names_it():
    for row in listed().values():
        if row.event.startswith(("camera_", "evidence_", "event_", "alert_", "windows_")):
            assert "camera" in row.fields, row.event
        if row.event.startswith(("evidence_", "event_", "alert_")):
            assert "alert" in row.fields, row.event


def test_events_are_static_words():
    """Names as `camera_lost`: what varies is a field, but for a word of a fixed set at the end."""
    for each in logged():
        assert each.event.replace("*", "").replace("_", "").isalnum(), each
        assert not each.event.startswith("*"), each


def _name(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.value.id
    return function.id if isinstance(function, ast.Name) else ""


def _level(call: ast.Call) -> str | None:
    """Return the level of a call that logs; empty where a variable holds the method; None where it logs nothing."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS and _name(call) in {"log", "bound"}:
        return call.func.attr
    return "" if _name(call) == "say" else None


def _events(argument: ast.expr) -> Iterator[str]:
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        yield argument.value
    elif isinstance(argument, ast.IfExp):
        yield from _events(argument.body)
        yield from _events(argument.orelse)
    elif isinstance(argument, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "*" for part in argument.values)


def _words(cell: str) -> frozenset[str]:
    return frozenset(word.strip() for word in cell.split(",") if word.strip())
