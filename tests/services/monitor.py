"""The program itself as a process, as an operator runs it: a configuration in; its address, log and metrics out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import tomli_w
from prometheus_client.parser import text_string_to_metric_families

COMMAND = [sys.executable, "-m", "monitor"]
START_SECONDS = 60.0


def configuration(
    folder: Path, cameras: list[dict[str, Any]], *, bundle: str | Path, **sections: Mapping[str, Any]
) -> Path:
    """Write a configuration for a test into `folder` and return its path; the page gets a free port."""
    values: dict[str, Any] = {
        "instance": "test",
        "model": {"bundle": str(bundle)},
        "outbox": {"path": "outbox.sqlite"},
        "http": {"port": 0},
        "logs": {"format": "json"},
        "cameras": cameras,
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


class MonitorProcess:
    """Own one `monitor run`.

    Args:
        config: the configuration file.
        environment: variables beside our own.
    """

    def __init__(self, config: Path, environment: Mapping[str, str] | None = None) -> None:
        self.config = config
        self.log_path = config.with_suffix(".log")
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # raised again; a monitor that was too slow must not outlive its test
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and return when it says that it has started."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        started = self.wait_for_event("monitor_started", START_SECONDS)
        self.address = started["page"]

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None, "not started"
        return self._process

    def stop(self, number: int = signal.SIGTERM, timeout: float = 10.0) -> tuple[int, float]:
        """Ask it to stop; return its exit code and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout)
        return code, time.monotonic() - began

    def kill(self) -> None:
        """End it by SIGKILL where it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(5)

    @property
    def log_text(self) -> str:
        """Everything it wrote so far."""
        return self.log_path.read_text(encoding="utf-8") if self.log_path.exists() else ""

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the log's records, of one name or all."""
        records = [
            json.loads(line) for line in self.log_text.splitlines() if line.startswith("{") and line.endswith("}")
        ]
        return [record for record in records if name is None or record["event"] == name]

    def wait_for_event(
        self, name: str, seconds: float, matches: Callable[[dict[str, Any]], bool] = lambda _record: True
    ) -> dict[str, Any]:
        """Return the first record of that name that matches, waiting for it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for record in self.events(name):
                if matches(record):
                    return record
            assert self.process.poll() is None, f"the monitor ended: {self.log_text[-3000:]}"
            time.sleep(0.1)
        raise AssertionError(f"no {name} within {seconds} s: {self.log_text[-3000:]}")

    def get(self, path: str) -> tuple[int, str]:
        """Fetch a path of its page; return status and text."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that carry these labels; 0 when there is none."""
        text = self.get("/metrics")[1]
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())
        )

    def metric_by(self, label: str, *names: str) -> dict[str, dict[str, float]]:
        """Return the metrics of these names by the value of one label, all out of one answer: name → value → number."""
        text = self.get("/metrics")[1]
        found: dict[str, dict[str, float]] = {name: {} for name in names}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in found and label in sample.labels:
                    of = found[sample.name]
                    of[sample.labels[label]] = of.get(sample.labels[label], 0.0) + sample.value
        return found

    def wait_for_metric(self, name: str, at_least: float, seconds: float, **labels: str) -> float:
        """Return the metric once it is large enough."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.metric(name, **labels)
            if value >= at_least:
                return value
            time.sleep(0.2)
        raise AssertionError(f"{name}{labels} stayed below {at_least} for {seconds} s: {self.log_text[-3000:]}")

    def resident_bytes(self) -> int:
        """Return the resident memory of the program and its capture processes."""
        root = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in [root, *root.children(recursive=True)])


def run_command(
    *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 60.0
) -> tuple[int, str]:
    """Run the command line to its end; return exit code and all output."""
    finished = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "COLUMNS": "200", **(environment or {})},
    )
    return finished.returncode, finished.stdout + finished.stderr
