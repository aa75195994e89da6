"""Choose ports on which a test's own servers can listen, and listen again after a restart."""

from __future__ import annotations

import random
import socket

LOWEST, HIGHEST = 20_000, 32_000
"""Below the range from which Linux gives out local ports, so that no connection takes a stopped server's port."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which nothing listens now."""
    for _ in range(200):
        port = random.randint(LOWEST, HIGHEST)
        if _is_free(port):
            return port
    raise OSError(f"no free port between {LOWEST} and {HIGHEST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
