"""A real Prometheus that scrapes given targets each second: `host:port` in, answers to PromQL out."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.services.guarded import GuardedProcess, ServiceError
from tests.services.ports import free_port

__all__ = ["Prometheus", "ServiceError", "missing"]

START_SECONDS = 30.0
STOP_SECONDS = 5.0


def missing() -> str | None:
    """Return why Prometheus cannot run on this machine, or None when it can."""
    if shutil.which("prometheus") is None:
        return "no prometheus; run scripts/setup-services.sh prometheus"
    return None


class Prometheus:
    """Own one Prometheus with a temporary folder.

    Example:
        with Prometheus(["127.0.0.1:9000"]) as prometheus:
            prometheus.query("up")   # [{"metric": {...}, "value": [time, "1"]}]
    """

    def __init__(self, targets: Sequence[str], *, rules: Sequence[Path] = (), interval_seconds: float = 1.0) -> None:
        """Describe the server; nothing starts yet.

        Args:
            targets: addresses whose `/metrics` is scraped under the job `monitor`.
            rules: files of recording and alerting rules.
        """
        self._targets = list(targets)
        self._rules = [str(path.absolute()) for path in rules]
        self._interval_seconds = interval_seconds
        self.port = free_port()
        self._folder: Path | None = None
        self._process: GuardedProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the HTTP API."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server; return when it is ready."""
        self._folder = Path(tempfile.mkdtemp(prefix="prometheus-"))
        config = self._folder / "prometheus.yml"
        config.write_text(json.dumps(self._configuration()))  # JSON is YAML
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self._process = GuardedProcess(command, log=self._folder / "prometheus.log")
        self._process.start()
        self._process.wait_until(self._ready, timeout_seconds=START_SECONDS)

    def stop(self) -> None:
        """End the server and delete what it stored."""
        if self._process is not None:
            self._process.stop(timeout_seconds=STOP_SECONDS)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate PromQL now; return the vector."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def wait_for(self, expression: str, *, timeout_seconds: float) -> list[dict[str, Any]]:
        """Evaluate PromQL until it gives anything, or the time is over; return what it gave."""
        deadline = time.monotonic() + timeout_seconds
        while not (found := self.query(expression)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def get(self, path: str, **parameters: str) -> Any:
        """Ask the HTTP API (`query_range`, `targets`, `rules`, …); return `data`, raise `ValueError` if refused."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as exc:
            with exc:
                raise ValueError(json.load(exc).get("error", str(exc))) from exc

    def _configuration(self) -> dict[str, object]:
        interval = f"{round(self._interval_seconds * 1000)}ms"
        return {
            "global": {"scrape_interval": interval, "evaluation_interval": interval, "scrape_timeout": interval},
            "rule_files": self._rules,
            "scrape_configs": [{"job_name": "monitor", "static_configs": [{"targets": self._targets}]}],
        }

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
                return True
        except OSError:
            return False
