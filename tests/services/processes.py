"""A process's id in; what it holds of the machine out."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at one moment."""

    resident_bytes: int
    threads: int
    descriptors: int


def held_by(pid: int) -> Held:
    """Look at a running process."""
    process = psutil.Process(pid)
    with process.oneshot():
        return Held(process.memory_info().rss, process.num_threads(), process.num_fds())
