"""Data sets: every problem at once, and the very pixels of the live path."""

from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from models.dataset import DatasetInvalid, grid_offset_seconds, read_dataset
from models.recipe import Recipe
from models.scenes.clips import plan_clips, write_clips
from monitor.bundle import SampleShape
from monitor.capture.sampler import Sampler
from monitor.capture.source import read_video
from monitor.errors import InputInvalid

RECIPE = Recipe(
    sample_fps=5.0,
    window_slots=8,
    backbone="small",
    sample=SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=48, height_pixels=32),
)
CONSOLE = Console(file=StringIO())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    list(write_clips(folder, plan_clips(8, seed=5)))
    return folder


def test_a_table_gives_labels_groups_and_samples(clips: Path, tmp_path: Path) -> None:
    dataset = read_dataset(clips, RECIPE, cache=tmp_path, console=CONSOLE)
    assert dataset.labels == ("normal", "scuffle")
    assert dataset.targets.tolist() == [1, 0] * 4
    assert len(set(dataset.groups)) == 2
    first = dataset.clips[0]
    assert first.pictures.shape[1:] == (2, 32, 48, 3)
    assert len(first.slots) == 13
    assert first.mask.all()


def test_a_folder_per_label_is_read_without_a_table(clips: Path, tmp_path: Path) -> None:
    for label in ("normal", "scuffle"):
        shutil.copytree(clips / label, tmp_path / "data" / label)
    dataset = read_dataset(tmp_path / "data", RECIPE, cache=tmp_path / "cache", console=CONSOLE)
    assert len(dataset.clips) == 8
    assert len(set(dataset.groups)) == 8


def test_samples_are_the_bytes_of_the_live_path(clips: Path, tmp_path: Path) -> None:
    clip = read_dataset(clips, RECIPE, cache=tmp_path, console=CONSOLE).clips[0]
    sampler = Sampler("camera", sample_fps=RECIPE.sample_fps, shape=RECIPE.sample)
    live = []
    for frame, seconds in read_video(clip.entry.path):
        time = seconds + grid_offset_seconds(RECIPE)
        sample = sampler.push(frame, time_seconds=time, received_seconds=time)
        if sample is not None:
            live.append(sample.pictures)
    np.testing.assert_array_equal(clip.pictures, np.stack(live)[-len(clip.pictures) :])


def test_the_second_reading_comes_from_the_cache(clips: Path, tmp_path: Path) -> None:
    read_dataset(clips, RECIPE, cache=tmp_path, console=CONSOLE)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    again = read_dataset(clips, RECIPE, cache=tmp_path, console=CONSOLE)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")} == written
    other = RECIPE.model_copy(update={"sample_fps": 4.0})
    assert read_dataset(clips, other, cache=tmp_path, console=CONSOLE).clips[0].key != again.clips[0].key


def test_start_and_end_cut_a_clip_out_of_a_recording(clips: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (clips / "normal").iterdir())
    table = tmp_path / "table.csv"
    rows = [f"{clips}/normal/{names[0]},normal,0,1.4,a", f"{clips}/normal/{names[0]},event,1.4,,a"]
    table.write_text("path,label,start_seconds,end_seconds,group\n" + "\n".join(rows), encoding="utf-8")
    short = RECIPE.model_copy(update={"window_slots": 4})
    first, second = read_dataset(table, short, cache=tmp_path / "cache", console=CONSOLE).clips
    assert first.key == second.key
    assert set(first.slots).isdisjoint(second.slots)
    assert len(first.slots) + len(second.slots) in {12, 13}


def test_every_problem_is_told_at_once(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(clips / "normal", folder / "normal")
    good = sorted(path.name for path in (folder / "normal").iterdir())
    shutil.copy(folder / "normal" / good[0], folder / "normal" / "copy.mp4")
    (folder / "normal" / "text.mp4").write_text("not a video", encoding="utf-8")
    rows = [f"normal/{name},normal" for name in [*good, "copy.mp4", "text.mp4", "absent.mp4"]]
    clip = f"normal/{good[1]},normal"
    rows += [f"{clip},5,2", f"{clip},x,2", ",normal", f"{clip},2,2.3"]
    (folder / "clips.csv").write_text("path,label,start_seconds,end_seconds\n" + "\n".join(rows), encoding="utf-8")
    with pytest.raises(DatasetInvalid) as caught:
        read_dataset(folder, RECIPE, cache=tmp_path / "cache", console=CONSOLE)
    told = {problem.key: problem.reason for problem in caught.value.problems}
    assert "same content" in told["normal/copy.mp4"]
    assert "not a video" in told["normal/text.mp4"]
    assert "no such file" in told["normal/absent.mp4"].lower()
    assert "too short" in told[f"normal/{good[1]}"]
    assert "only one label" in told["labels"]
    assert [key for key in told if "line" in key] == [f"clips.csv line {line}" for line in (9, 10, 11)]


def test_what_is_wrong_with_single_files_can_be_skipped(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for label in ("normal", "scuffle"):
        shutil.copytree(clips / label, folder / label)
    (folder / "normal" / "text.mp4").write_text("not a video", encoding="utf-8")
    spoken = Console(file=StringIO(), width=200)
    dataset = read_dataset(folder, RECIPE, cache=tmp_path / "cache", console=spoken, skip_bad=True)
    assert len(dataset.clips) == 8
    assert "text.mp4" in spoken.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("absent", None, "no such file"),
        ("a.csv", "file,label\nx,y\n", "column path is missing"),
        ("b.csv", "\xff", "not a readable CSV"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path: Path, name: str, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputInvalid, match=reason):
        read_dataset(tmp_path / name, RECIPE, cache=tmp_path / "cache", console=CONSOLE)


def test_an_empty_folder_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="no clips"):
        read_dataset(tmp_path, RECIPE, cache=tmp_path / "cache", console=CONSOLE)
