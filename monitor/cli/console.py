"""What every command shares: the two consoles, the options with one meaning everywhere, the set-up of the logs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table

from monitor.bundle import MANIFEST, find_bundle
from monitor.config import Config
from monitor.errors import InputInvalid
from monitor.telemetry.logs import configure_logs
from monitor.telemetry.redaction import Redactor

ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", help="The configuration file.", envvar="MONITOR_CONFIG", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table for people.")]

out = Console()
err = Console(stderr=True)


PICTURE_ENDINGS = (".png", ".svg", ".pdf")
UNBOUNDED, NARROWEST = 10_000, 60
"""Columns of a terminal: more than any table needs, and fewer than which nothing is folded for."""


def whole_table(*headers: Column | str, show_header: bool = True) -> Table:
    """Return a table of which nothing is ever cut: what finds no room goes on in the next line."""
    columns = [Column(header, overflow="fold") if isinstance(header, str) else header for header in headers]
    return Table(*columns, show_header=show_header, box=box.SIMPLE_HEAD, show_edge=False, padding=0)


def print_whole(table: Table) -> None:
    """Print a table folded into the terminal; into a pipe or a file as wide as it is."""
    table.width = width_of(table)
    if out.is_terminal:
        table.width = min(table.width, max(out.width, NARROWEST))
    out.print(table, crop=False)


def width_of(table: Table) -> int:
    """Return how many columns of a terminal a table takes where nothing of it is folded."""
    return out.measure(table, options=out.options.update(max_width=UNBOUNDED)).maximum


def check_picture(path: Path) -> None:
    """Refuse a picture that could only fail after the whole run.

    Raises:
        InputInvalid: no picture can be written there.
    """
    if path.suffix.lower() not in PICTURE_ENDINGS:
        raise InputInvalid(path, f"the ending must be one of {', '.join(PICTURE_ENDINGS)}")
    if not os.access(path.resolve().parent, os.W_OK):
        raise InputInvalid(path, "its folder is missing or cannot be written")


def speak(config: Config | None) -> Redactor:
    """Set up the logs, before anything is logged; return what keeps secrets out of them."""
    redactor = Redactor(config.secrets() if config else ())
    if config is None:
        configure_logs(level="warning", style="text", redactor=redactor)
    else:
        configure_logs(level=config.logs.level, style=config.logs.format, redactor=redactor)
    return redactor


def named_bundle(name: str, config: Config | None) -> Path:
    """Return a bundle's folder: near the working folder, as paths on a command line are, or as the configuration's.

    Raises:
        BundleInvalid: there is none.
    """
    if config is None or (Path(name).expanduser() / MANIFEST).is_file():
        return find_bundle(name, Path.cwd())
    return find_bundle(name, config.folder)
