"""Alert and health messages in, a table for people or JSON lines for programs out."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape
from rich.table import Table

from monitor.cli.console import out

ALERT_COLUMNS = ("began", "camera", "label", "phase", "peak", "seconds", "alert")
HEALTH_COLUMNS = ("since", "camera", "state", "remark")


def print_messages(messages: list[dict[str, Any]], *, as_json: bool, health: bool, header: bool) -> None:
    """Print messages as JSON lines, or as one table with its header or without."""
    if as_json:
        for message in messages:
            print(json.dumps(message, sort_keys=True), flush=True)
        return
    columns = HEALTH_COLUMNS if health else ALERT_COLUMNS
    table = Table(*columns, show_header=header)
    for message in messages:
        table.add_row(*map(escape, _health_row(message) if health else _alert_row(message)))
    out.print(table if table.row_count else "Nothing so far.")


def _alert_row(message: dict[str, Any]) -> tuple[str, ...]:
    times = message["time"]
    return (
        times["started_at"],
        message["camera"]["id"],
        message["event"]["label"],
        message["phase"] + (f" ({message['reason']})" if message["reason"] else ""),
        f"{message['event']['peak_score']:.2f}",
        f"{times['duration_seconds']:.1f}" if times["ended_at"] else "",
        message["alert_id"],
    )


def _health_row(message: dict[str, Any]) -> tuple[str, ...]:
    return message["time"]["since_at"], message["camera"]["id"], message["state"], message["detail"]
