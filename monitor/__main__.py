"""The way in: `monitor` and `python -m monitor`. Ctrl-C while the libraries still load ends it quietly.

A SIGHUP in that time asks `monitor run` to read what it has not read yet, and must not end it.
"""

from __future__ import annotations

import signal
import sys

INTERRUPTED = 130
"""Exit code of a program ended by SIGINT, as shells have it."""


def main() -> None:
    """Load the command line and run it."""
    if sys.argv[1:2] == ["run"]:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        from monitor import cli
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    cli.main()


if __name__ == "__main__":
    main()
