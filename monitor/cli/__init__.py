"""The command line: arguments in, tables, JSON and exit codes out.

Exit codes: 0 all is well; 1 something failed while running, or a check found a fault; 2 the input cannot be used.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer
from rich.markup import escape

from monitor import __version__
from monitor.cli.checking import check
from monitor.cli.compiling import compile_bundle
from monitor.cli.console import err
from monitor.cli.consuming import consume
from monitor.cli.evaluating import evaluate
from monitor.cli.labelling import label
from monitor.cli.listing import alerts
from monitor.cli.replaying import replay
from monitor.cli.schemas import schema_app
from monitor.cli.training import train
from monitor.cli.watching import run
from monitor.errors import MonitorError
from monitor.telemetry.redaction import Redactor

app = typer.Typer(
    help="Watches live cameras, recognises events that take time to happen, and tells Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run, check, replay, alerts, label, consume, train, evaluate):
    app.command()(command)
app.command("compile")(compile_bundle)
app.add_typer(schema_app, name="schema")


def main() -> None:
    """Run the command line; every expected error becomes one message and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name, or a ✓, that the terminal's encoding lacks ends nothing
    try:
        app(standalone_mode=True)
    except MonitorError as exc:
        err.print(f"[red]error:[/] {escape(Redactor(()).clean(str(exc)))}", highlight=False, soft_wrap=True)
        sys.exit(exc.exit_code)
    except OSError as exc:  # a disk that is full, a folder that is not ours: named by the system
        err.print(f"[red]error:[/] {escape(str(exc))}", highlight=False, soft_wrap=True)
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    _shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Hold the options that stand before every command."""
