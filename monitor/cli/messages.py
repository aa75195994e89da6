"""Alert and health messages in, a table for people or JSON lines for programs out."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from monitor.cli.console import out, print_whole, whole_table, width_of

ALERT_COLUMNS = ("camera", "label", "phase", "peak", "lasted")
HEALTH_COLUMNS = ("since (UTC)", "camera", "state", "remark")


def print_messages(messages: list[dict[str, Any]], *, as_json: bool, health: bool, header: bool) -> None:
    """Print messages as JSON lines, or as one table with its header or without."""
    if as_json:
        for message in messages:
            print(json.dumps(message, sort_keys=True), flush=True)
        return
    if not messages:
        out.print("Nothing so far.")
        return
    table = _health_table(messages, header=header) if health else _alert_table(messages, header=header)
    if not health and out.is_terminal and width_of(table) > out.width:
        table = _alert_table(messages, header=header, id_below=True)
    print_whole(table)


def _alert_table(messages: list[dict[str, Any]], *, header: bool, id_below: bool = False) -> Table:
    """Return a table whose ids stay whole, since `monitor label` takes them: in a column, or below the times."""
    began = Column("began (UTC)", no_wrap=True)
    table = whole_table(began, *ALERT_COLUMNS, *([] if id_below else ["alert"]), show_header=header)
    for message in messages:
        time, identifier = _second(message["time"]["started_at"]), message["alert_id"]
        cells = map(escape, _alert_cells(message))
        if id_below:
            table.add_row(f"{time}\n{identifier}", *cells)
        else:
            table.add_row(time, *cells, identifier)
    return table


def _alert_cells(message: dict[str, Any]) -> tuple[str, ...]:
    times = message["time"]
    return (
        message["camera"]["id"],
        message["event"]["label"],
        message["phase"] + (f" ({message['reason']})" if message["reason"] else ""),
        f"{message['event']['peak_score']:.2f}",
        f"{times['duration_seconds']:.1f} s" if times["ended_at"] else "",
    )


def _health_table(messages: list[dict[str, Any]], *, header: bool) -> Table:
    table = whole_table(*HEALTH_COLUMNS, show_header=header)
    for message in messages:
        since = _second(message["time"]["since_at"])
        table.add_row(since, *map(escape, (message["camera"]["id"], message["state"], message["detail"])))
    return table


def _second(time: str) -> str:
    """Return a message's time as people read it, to the second."""
    return time[:19].replace("T", " ")
