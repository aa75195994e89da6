"""A folder in; the room on its disk out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DiskStats:
    """How much room a disk has."""

    free_bytes: int
    """For users that are not root."""
    size_bytes: int


def disk_of(folder: Path) -> DiskStats:
    """Return the room on the disk that holds a folder, or will hold it once it is made.

    Raises:
        OSError: the disk does not answer.
    """
    absolute = folder.absolute()
    there = next(path for path in (absolute, *absolute.parents) if path.exists())
    usage = shutil.disk_usage(there)
    return DiskStats(free_bytes=usage.free, size_bytes=usage.total)
