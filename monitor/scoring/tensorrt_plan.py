"""What a TensorRT engine ("plan") is built for, and the files that keep it; names no library.

A plan runs on one GPU, under one version, for one graph, precision and set of batch sizes. All of that stands in its
record; a plan whose record differs, or whose bytes do, is as good as not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monitor.scoring.cache import write_whole

ENGINE = "tensorrt"


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What a plan was built for; it is loaded for nothing else."""

    gpu: str
    compute_capability: str
    tensorrt: str
    graph_sha256: str
    precision: str
    max_batch: int
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and shape without the batch axis."""

    @property
    def stem(self) -> str:
        """Name of the plan's files."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{self.precision}-b{self.max_batch}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class PlanFolder:
    """Plans with their records, and the timing cache.

    Args:
        folder: None: nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path | None:
        """Where they lie."""
        return self._folder

    @property
    def timing_cache(self) -> Path | None:
        """Where TensorRT's measurements lie."""
        return self._folder / "timing.cache" if self._folder else None

    def find(self, key: PlanKey) -> bytes | None:
        """Return the plan of a key; None where there is none, or it was built for something else, or is damaged."""
        if self._folder is None:
            return None
        path = self._folder / f"{key.stem}.plan"
        try:
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            plan = path.read_bytes()
        except (OSError, ValueError):
            return None
        return plan if record == _record(key, plan) else None

    def put(self, key: PlanKey, plan: bytes) -> None:
        """Keep a plan; its record is written last.

        Raises:
            OSError: it cannot be written; it is not found then.
        """
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{key.stem}.plan"
        write_whole(path, plan)
        write_whole(path.with_suffix(".json"), (json.dumps(_record(key, plan), indent=2) + "\n").encode())

    def batches(self) -> tuple[int, ...]:
        """Return for which largest batches plans were built, the largest first."""
        if self._folder is None:
            return ()
        found = {_batch_of(path) for path in self._folder.glob("*.json")}
        return tuple(sorted(found - {0}, reverse=True))


@dataclass(frozen=True, slots=True)
class Profile:
    """The batch sizes that one optimization profile is for."""

    smallest: int
    usual: int
    """What the kernels are chosen for."""
    largest: int

    @property
    def fixed(self) -> bool:
        """Whether all its batches have one size."""
        return self.smallest == self.largest


def profiles_for(max_batch: int) -> tuple[Profile, ...]:
    """Return one profile for a lone sample, one for a full batch, and one for what lies between.

    A profile of one size has a context whose shapes never change, so that its work can be recorded.
    """
    lone, full = Profile(1, 1, 1), Profile(max_batch, max_batch, max_batch)
    between = Profile(2, (max_batch + 1) // 2, max_batch - 1)
    if max_batch == 1:
        return (lone,)
    return (lone, full) if max_batch == 2 else (lone, between, full)


def profile_index(batch: int, profiles: Sequence[Profile]) -> int:
    """Return the profile that a batch runs under.

    Raises:
        ValueError: none is for a batch of this size.
    """
    for index, profile in enumerate(profiles):
        if profile.smallest <= batch <= profile.largest:
            return index
    raise ValueError(f"no profile is for a batch of {batch}")


def _record(key: PlanKey, plan: bytes) -> dict[str, Any]:
    wanted = json.loads(json.dumps(asdict(key)))  # tuples as JSON has them
    return {**wanted, "plan_sha256": hashlib.sha256(plan).hexdigest()}


def _batch_of(record: Path) -> int:
    try:
        return int(json.loads(record.read_text(encoding="utf-8"))["max_batch"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
