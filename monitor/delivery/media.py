"""The media folder: what a crash left of clips is finished, what is too old or too much is removed."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DAY_SECONDS = 86_400.0
PART = ".part"
ABANDONED_SECONDS = 3600.0
"""Whoever writes a file does so every few seconds: one that has not grown for so long is left behind."""
SENT = "sent"
"""Folder within the folder: what a bucket has taken."""
NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(\.mp4|(\.strip)?\.jpg)")
"""What the program writes here: an alert's id and what it is. Nothing else is served or removed."""


@dataclass(frozen=True, slots=True)
class MediaStats:
    """What the folder holds."""

    files: int = 0
    bytes: int = 0
    """Unfinished clips included."""
    removed: int = 0
    """Files removed by this look."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    seconds: float
    bytes: int


class MediaFolder:
    """The folder of snapshots, strips and clips.

    Args:
        folder: made when missing.
        keep_days: files older than this are removed.
        keep_bytes: beyond this the oldest are removed first.
    """

    def __init__(self, folder: Path, *, keep_days: float, keep_bytes: int) -> None:
        self._folder = folder
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes

    def find(self, name: str) -> Path | None:
        """Return the complete file of that name; None where there is none, or the name is none of ours."""
        if NAME.fullmatch(name) is None:
            return None
        for path in (self._folder / name, self._folder / SENT / name):
            if path.is_file() and not path.is_symlink():
                return path
        return None

    def unsent(self) -> list[Path]:
        """Return the complete files that have not been marked as sent, oldest first.

        Raises:
            OSError: the folder cannot be read.
        """
        return [file.path for file in sorted(self._files(self._folder), key=lambda file: file.seconds)]

    def mark_sent(self, name: str) -> None:
        """Note that a bucket has a file: it moves to `sent`; harmless when retention has just removed it.

        Raises:
            OSError: the folder cannot be written.
        """
        (self._folder / SENT).mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            (self._folder / name).replace(self._folder / SENT / name)

    def finish_parts(self) -> int:
        """Give clips that a crash cut off their names, remove other unfinished files; return how many clips.

        For a time when nobody writes clips.

        Raises:
            OSError: the folder cannot be made or written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        return sum(self.finish(path.name.removesuffix(PART)) for path in self._folder.glob(f"*{PART}"))

    def finish(self, name: str) -> bool:
        """Finish one file that its writer left behind; return whether it is a clip that holds something.

        Raises:
            OSError: the folder cannot be written.
        """
        part = self._folder / (name + PART)
        if NAME.fullmatch(name) is None or not part.is_file():
            return False
        if name.endswith(".mp4") and part.stat().st_size > 0:
            part.replace(self._folder / name)
            return True
        part.unlink()
        return False

    def prune(self, now: float) -> MediaStats:
        """Finish what was left behind, remove what is too old, then the oldest while there is too much.

        Returns what is left.

        Raises:
            OSError: the folder cannot be read or written.
        """
        for part in self._files(self._folder, unfinished=True):
            if part.seconds < now - ABANDONED_SECONDS:
                self.finish(part.path.name.removesuffix(PART))
        complete = [*self._files(self._folder), *self._files(self._folder / SENT)]
        files = sorted(complete, key=lambda file: file.seconds)
        unfinished = self._files(self._folder, unfinished=True)
        total = sum(file.bytes for file in (*files, *unfinished))
        removed = 0
        for file in files:
            if file.seconds >= now - self._keep_days * DAY_SECONDS and total <= self._keep_bytes:
                break
            file.path.unlink(missing_ok=True)
            total -= file.bytes
            removed += 1
        return MediaStats(files=len(files) - removed, bytes=total, removed=removed)

    @staticmethod
    def _files(folder: Path, *, unfinished: bool = False) -> list[_File]:
        if not folder.is_dir():
            return []
        found = []
        for path in folder.iterdir():
            name = path.name.removesuffix(PART)
            if NAME.fullmatch(name) and unfinished == (name != path.name):
                with suppress(FileNotFoundError):  # a capture process has just completed it under its own name
                    stat = path.stat()
                    found.append(_File(path, stat.st_mtime, stat.st_size))
        return found
