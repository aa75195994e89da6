"""A clip and what a person says of it in, one more clip of a data set out. Needs no torch."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.entries import TABLE, list_entries
from monitor.errors import InputInvalid
from monitor.whole_file import whole_file


@dataclass(frozen=True, slots=True)
class Added:
    """Where a clip now stands in a data set."""

    path: Path
    before: str | None
    """The label that it had there before; None where it is new."""


def add_clip(dataset: Path, clip: Path, *, label: str, group: str) -> Added:
    """Copy a clip into a data set, once: what stood there under the same name gives way.

    A data set with a table gets a line in it; one without, or a new one, gets the file in a folder for its label and,
    below it, its group. Either is what `models.entries.list_entries` reads.

    Args:
        dataset: a folder, or a CSV file; made when missing.
        clip: the file; its name is the clip's for ever.
        label: what it shows.
        group: of the recording that it was cut from; "/" parts it into folders.

    Raises:
        InputInvalid: the data set cannot be read, or the label cannot be a folder.
    """
    if not label or Path(label).name != label or label.startswith("."):
        raise InputInvalid(f"label {label!r}", "is no name that a folder can have")
    table = dataset if dataset.is_file() or dataset.suffix == ".csv" else dataset / TABLE
    table.parent.mkdir(parents=True, exist_ok=True)
    with _alone(table.parent):
        entries = list_entries(dataset, []) if dataset.exists() else []
        earlier = [entry for entry in entries if entry.path.name == clip.name]
        place = Path(label, *group.split("/"), clip.name)
        path = table.parent / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with clip.open("rb") as source, whole_file(path) as file:
            shutil.copyfileobj(source, file)
        if table.is_file() or table == dataset:
            _write_line(table, {"path": place.as_posix(), "label": label, "group": group})
        for entry in earlier:
            if entry.path != path and entry.path.resolve().is_relative_to(table.parent.resolve()):
                entry.path.unlink(missing_ok=True)
    return Added(path, earlier[0].label if earlier else None)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else on this machine labels into a folder."""
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)  # and with it the lock


def _write_line(table: Path, values: dict[str, str]) -> None:
    """Put a line into a table, in place of the one that names a file of the same name."""
    text = table.read_bytes().decode("utf-8-sig") if table.is_file() else ""
    header, *lines = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)) or [list(values)]
    header += [column for column in values if column not in header]
    named = header.index("path")
    name = Path(values["path"]).name
    kept = [line for line in lines if len(line) <= named or Path(line[named]).name != name]
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\r\n" if "\r\n" in text else "\n")
    rows.writerows([header, *kept, [values.get(column, "") for column in header]])
    with whole_file(table) as file:
        file.write(written.getvalue().encode())
