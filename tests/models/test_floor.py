"""What the files alone give away of their labels."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from models.dataset import Clip, Dataset
from models.entries import ClipEntry
from models.floor import file_floor
from tests.capture.drawing import write_video

LABELS = ("normal", "event")


@pytest.mark.parametrize(
    "told", [{"size": (96, 64)}, {"fps": 15}, {"frames": 80}, {}], ids=["by size", "by rate", "by length", "by nothing"]
)
def test_labels_that_the_files_tell_are_guessed(told: Mapping[str, object], tmp_path: Path) -> None:
    write_video(tmp_path / "normal.mp4")
    write_video(tmp_path / "event.mp4", **told)  # type: ignore[arg-type]
    slots = {"normal": np.arange(8), "event": np.arange(12 if "frames" in told else 8)}
    clips = [
        Clip(ClipEntry(tmp_path / f"{label}.mp4", label, f"g{group}"), np.zeros(0, np.uint8), slots[label], "key")
        for group in range(10)
        for label in LABELS
    ]
    floor = file_floor(Dataset(tmp_path, LABELS, tuple(clips)), console=Console(file=StringIO()))
    assert floor.accuracy.value == (1.0 if told else 0.5)
    assert floor.groups == 10


def test_a_label_that_few_groups_have_does_not_stop_it(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    entries = [ClipEntry(tmp_path / "a.mp4", label, group) for label, group in [("normal", "a"), ("event", "b")]]
    clips = tuple(Clip(entry, np.zeros(0, np.uint8), np.arange(8), "key") for entry in entries)
    floor = file_floor(Dataset(tmp_path, LABELS, clips), console=Console(file=StringIO()))
    assert (floor.clips, floor.accuracy.value) == (2, 0.0)
