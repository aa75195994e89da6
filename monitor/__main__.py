"""The way in: `monitor` and `python -m monitor`. Ctrl-C while the libraries still load ends it quietly."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""Exit code of a program ended by SIGINT, as shells have it."""


def main() -> None:
    """Load the command line and run it."""
    try:
        from monitor import cli
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    cli.main()


if __name__ == "__main__":
    main()
