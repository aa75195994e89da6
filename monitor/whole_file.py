"""A path in; a file to write into out, which appears under its name once it is complete, and never otherwise."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write into; what stood at `path` stays until the new one is complete.

    Who writes the same file meanwhile, in another process too, waits for the first to end.

    Raises:
        OSError: it cannot be written; nothing has changed then.
    """
    part = path.with_name(f"{path.name}.part")
    with _locked(part) as file:
        try:
            yield file
            file.flush()
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _locked(part: Path) -> BinaryIO:
    """Open an empty part that nobody else writes: whoever did has given it its name, or removed it."""
    while True:
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(part, file):
            if os.fstat(file.fileno()).st_size:  # of a process that was killed
                file.truncate()
            return file
        file.close()


def _is_at(part: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
    except FileNotFoundError:
        return False
