"""What every command shares: the two consoles, the options with one meaning everywhere, the set-up of the logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from monitor.config import Config
from monitor.telemetry.logs import configure_logs
from monitor.telemetry.redaction import Redactor

ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", help="The configuration file.", envvar="MONITOR_CONFIG", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table for people.")]

out = Console()
err = Console(stderr=True)


def speak(config: Config | None) -> Redactor:
    """Set up the logs, before anything is logged; return what keeps secrets out of them."""
    redactor = Redactor(config.secrets() if config else ())
    if config is None:
        configure_logs(level="warning", style="text", redactor=redactor)
    else:
        configure_logs(level=config.logs.level, style=config.logs.format, redactor=redactor)
    return redactor
