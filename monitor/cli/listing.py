"""`monitor alerts`: the alerts of the store, as they stand or as they come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.console import AsJson, ConfigPath
from monitor.cli.messages import print_messages
from monitor.config import load_config
from monitor.delivery.outbox import Outbox, StoredAlert, messages_in

MOST = 1_000_000
"""Alerts that are listed at once: they are all held in memory."""


def alerts(
    config: ConfigPath = Path("config.toml"),
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new alerts as they come.")] = False,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=MOST, help="How many of the newest.")] = 20,
    camera: Annotated[str | None, typer.Option("--camera", help="Only this camera's.")] = None,
    health: Annotated[bool, typer.Option("--health", help="The messages on cameras' health instead.")] = False,
) -> None:
    """List the newest 20 alerts of the store, oldest on top; --limit for more.

    Example: `monitor alerts --follow --json | jq .event`
    """
    loaded = load_config(config)
    with Outbox.open_reader(loaded.outbox.path) as outbox:
        known = list(reversed(outbox.recent(limit, camera=camera, health=health)))
        _print_alerts(known, as_json=as_json, health=health)
        last = known[-1].position if known else 0
        while follow:
            time.sleep(0.5)
            new = outbox.after(last, camera=camera, health=health)
            if new:
                _print_alerts(new, as_json=as_json, health=health, header=not last)
                last = new[-1].position


def _print_alerts(stored: list[StoredAlert], *, as_json: bool, health: bool, header: bool = True) -> None:
    messages = list(messages_in(alert.value for alert in stored))
    print_messages(messages, as_json=as_json, health=health, header=header)
