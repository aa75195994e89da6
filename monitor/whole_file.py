"""A path in; a file to write into out, which appears under its name once it is complete, and never otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write into; what stood at `path` stays until the new one is complete.

    Raises:
        OSError: it cannot be written; nothing has changed then.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w+b") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
