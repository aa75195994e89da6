"""What a data set's folder or CSV names: paths, labels, groups and times in, one entry a clip out.

Nothing of the videos is read here; `models.dataset` does that.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import InputInvalid, Problem

VIDEO_ENDINGS = frozenset({".avi", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm"})
TABLE = "clips.csv"
COLUMNS = ("path", "label", "start_seconds", "end_seconds", "group")
"""Of a table; the first two are needed, others than these are passed over."""


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """One line of a data set, as given."""

    path: Path
    label: str
    group: str
    """Clips of one recording; never split between training and validation."""
    start_seconds: float = 0.0
    end_seconds: float | None = None
    """None: to the file's end."""

    @property
    def name(self) -> str:
        """What the clip is called in messages."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def has_times(self) -> bool:
        """Whether somebody said when the label holds; otherwise it is the whole file's."""
        return self.start_seconds > 0.0 or self.end_seconds is not None


def list_entries(path: Path, problems: list[Problem]) -> list[ClipEntry]:
    """Return what a data set names; what is wrong with single lines is added to `problems`.

    Args:
        path: a CSV file, a folder with `clips.csv`, or a folder with a folder for each label. In the last, folders
            below a label's are groups: `fight/yard/a.mp4` and `normal/yard/b.mp4` are both of the group `yard`.
        problems: grows.

    Raises:
        InputInvalid: there is no such file or folder, or the table cannot be read.
    """
    if path.is_file():
        return _read_table(path, problems)
    if not path.is_dir():
        raise InputInvalid(path, "no such file or folder")
    if (path / TABLE).is_file():
        return _read_table(path / TABLE, problems)
    return [_file_entry(path, file) for file in sorted(path.glob("*/**/*")) if _is_video(path, file)]


def _is_video(folder: Path, file: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix.lower() in VIDEO_ENDINGS and file.is_file() and not hidden


def _file_entry(folder: Path, file: Path) -> ClipEntry:
    label, *between, _name = file.relative_to(folder).parts
    return ClipEntry(file, label, group="/".join(between) or f"{label}/{file.stem}")


def _read_table(path: Path, problems: list[Problem]) -> list[ClipEntry]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            rows = [(table.line_num, row) for row in table]
            columns = set(table.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise InputInvalid(path, f"not a readable CSV file: {exc}") from exc
    missing = {"path", "label"} - columns
    if missing:
        raise InputInvalid(path, f"column {', '.join(sorted(missing))} is missing; the first line must name path,label")
    entries = [_read_row(path, row, line, problems) for line, row in rows]
    return [entry for entry in entries if entry is not None]


def _read_row(table: Path, row: dict[str, str | None], line: int, problems: list[Problem]) -> ClipEntry | None:
    where = f"{table.name} line {line}"
    name, label, start_text, end_text, group = ((row.get(column) or "").strip() for column in COLUMNS)
    if not name or not label:
        problems.append(Problem(where, "path or label is empty"))
        return None
    try:
        start = float(start_text or 0.0)
        end = float(end_text) if end_text else None
    except ValueError as exc:
        problems.append(Problem(where, f"start_seconds and end_seconds must be numbers: {exc}"))
        return None
    if not math.isfinite(start) or start < 0.0 or (end is not None and not end > start):
        problems.append(Problem(where, f"the clip must begin at 0 or later and end after that ({start} to {end})"))
        return None
    return ClipEntry(table.parent / name, label, group or name, start, end)
