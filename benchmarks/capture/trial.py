"""A contender and its cameras in; what it cost once warm, out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.capture.contenders import STARTED_AT_ONCE_SECONDS, Name, Task
from benchmarks.capture.witness import CONTENDER_NICE, Witness, take_precedence

KEEPS_UP_SHARE = 0.95
COUNTS_SECONDS = 1.5
"""Our own counts come so late at most."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a number of cameras cost; None throughout where it was not run."""

    cameras: int
    keeps_up: bool
    """Whether it gave the samples that were asked of it, and read its streams at their pace."""
    served_share: float | None = None
    """Of the pictures that a camera would have sent, those that the benchmark's own server did."""
    cpu_per_camera: float | None = None
    """Processor seconds for each second of one camera."""
    pss_bytes: int | None = None
    """Memory of all its processes; what several share counts in parts (Linux' proportional set size)."""
    rss_bytes: int | None = None
    """The sum of their resident memory; what several share counts for each."""
    ring_bytes: int = 0
    """Of it, packets kept for evidence."""
    samples_per_second: float | None = None
    """Of one camera."""
    cpu_rounds: tuple[float, ...] = ()
    """Processor seconds of each round, where there were several."""

    @classmethod
    def not_run(cls, cameras: int) -> Measured:
        """Return what stands for a run that makes no sense."""
        return cls(cameras, keeps_up=False)

    @classmethod
    def median(cls, rounds: Sequence[Measured]) -> Measured:
        """Return the round whose cost is the median; of those that kept up, where half of them did."""
        kept = [one for one in rounds if one.keeps_up]
        judged = sorted(kept if 2 * len(kept) >= len(rounds) else rounds, key=lambda one: one.cpu_per_camera or 0.0)
        costs = tuple(one.cpu_per_camera for one in rounds if one.cpu_per_camera is not None)
        return replace(judged[(len(judged) - 1) // 2], cpu_rounds=costs)

    def as_json(self, name: Name, scene: str) -> dict[str, Any]:
        """Return the row of the answer."""
        return {"name": name, "scene": scene, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Trial:
    """One contender on a number of cameras."""

    task: Task
    python: Path | None
    fps: float
    """Of the streams."""
    warm_seconds: float
    seconds: float
    slack_seconds: float = 0.0
    """Slots of so long may be answered for only after the measurement: an idle gate does group by group."""

    def run(self) -> Measured:
        """Start it, wait until it is warm, measure, end it."""
        cameras = len(self.task.urls)
        with Witness(self.task.urls[0]) as witness, _Contender(self.task, self.python) as contender:
            time.sleep(self.warm_seconds + 2 * cameras * STARTED_AT_ONCE_SECONDS)
            before, spent, sent, began = contender.counts(), contender.cpu_seconds(), witness.packets, time.monotonic()
            time.sleep(self.seconds)
            after, spent_then, elapsed = contender.counts(), contender.cpu_seconds(), time.monotonic() - began
            sent = witness.packets - sent
            memory = contender.memory()
        rate, answered = ((after[key] - before[key]) / elapsed / cameras for key in ("samples", "slots"))
        enough = answered * elapsed >= KEEPS_UP_SHARE * self.task.sample_fps * (elapsed - self.slack_seconds)
        read = None if after["read"] is None else (after["read"] - before["read"]) / cameras / self.fps
        return Measured(
            cameras=cameras,
            keeps_up=enough and (read is None or read >= KEEPS_UP_SHARE * (elapsed - COUNTS_SECONDS)),
            served_share=round(sent / elapsed / self.fps, 3),
            cpu_per_camera=round((spent_then - spent) / elapsed / cameras, 5),
            pss_bytes=sum(one.pss for one in memory),
            rss_bytes=sum(one.rss for one in memory),
            ring_bytes=after["ring_bytes"],
            samples_per_second=round(rate, 3),
        )


class _Contender:
    """The process of a contender, and all that it starts."""

    def __init__(self, task: Task, python: Path | None) -> None:
        self._task = task
        self._python = python or Path(sys.executable)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = [str(self._python), "-m", "benchmarks.capture.contenders"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        take_precedence(self._process.pid, CONTENDER_NICE)
        self._ask(self._task.as_json())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes = self._family()
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=5)

    def counts(self) -> dict[str, Any]:
        """Return what it has counted so far."""
        self._ask("count")
        assert self._process is not None
        assert self._process.stdout is not None
        counts: dict[str, Any] = json.loads(self._process.stdout.readline())
        return counts

    def cpu_seconds(self) -> float:
        """Return what all its processes have spent."""
        times = [process.cpu_times() for process in self._family()]
        return sum(spent.user + spent.system for spent in times)

    def memory(self) -> list[Any]:
        """Return what each of its processes holds, as psutil tells it."""
        return [process.memory_full_info() for process in self._family()]

    def _ask(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _family(self) -> list[psutil.Process]:
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]


def missing(name: Name, inference_python: Path | None) -> str | None:
    """Return why a contender cannot run here; None when it can."""
    if name == "ffmpeg pipe" and not _runs(["ffmpeg", "-version"]):
        return "no ffmpeg; apt-get install ffmpeg"
    if name == "inference":
        if inference_python is None:
            return "it wants an environment of its own: pip install inference there, and give --inference-python"
        wanted = "from inference.core.interfaces.camera.video_source import VideoSource"
        if not _runs([str(inference_python), "-c", wanted]):
            return f"{inference_python} cannot import its video source"
    return None


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
