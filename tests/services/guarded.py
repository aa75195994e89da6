"""Own a foreign server's process: start it, wait for its word in the log, ask it to end, kill it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")


class ServiceError(RuntimeError):
    """A server did not start, did not answer in time, or refused a command; the message holds its last words."""


class GuardedProcess:
    """A server that dies with its owner, whichever way the owner goes; its output is in `log`."""

    def __init__(self, command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._command = list(command)
        self._environment = environment
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the server lives."""
        return self._guard is not None and self._guard.poll() is None

    def start(self) -> None:
        """Start the server with an empty log; it is not ready yet."""
        with self.log.open("wb") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-S", "-E", str(GUARD), *self._command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if self._environment is None else dict(self._environment),
            )

    def wait_until(self, ready: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Return when `ready` holds; end the server and raise `ServiceError` if it dies or takes too long."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if not self.running:
                raise ServiceError(f"{self._command[0]} has ended:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServiceError(f"{self._command[0]} not ready in {timeout_seconds} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self, *, timeout_seconds: float) -> None:
        """Ask the server to end by SIGTERM; kill it when it does not."""
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.write(b"term\n")
                self._guard.stdin.flush()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._guard.wait(timeout_seconds)
        self.kill()

    def kill(self) -> None:
        """End the server by SIGKILL; harmless when it has ended."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        if guard.stdin is not None:
            with contextlib.suppress(OSError):
                guard.stdin.close()
        guard.wait(10)

    def log_tail(self, characters: int = 3000) -> str:
        """Return the end of what the server wrote."""
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""
