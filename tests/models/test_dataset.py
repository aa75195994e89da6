"""Data sets: every problem at once, and the very pixels of the live path."""

from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from models.dataset import DatasetInvalid, grid_offset_seconds, read_dataset
from models.entries import list_entries
from models.recipe import Recipe
from models.scenes.clips import plan_clips, write_clips
from monitor.bundle import SampleShape
from monitor.capture.camera import CapturePlan
from monitor.capture.sampler import Sampler
from monitor.capture.source import read_video
from monitor.config import CameraConfig, CaptureConfig
from monitor.errors import InputInvalid
from tests.capture.drawing import write_video
from tests.capture.test_camera import Watched
from tests.conftest import StartRtsp, StreamFiles

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


def test_a_folder_below_a_label_is_a_group_of_all_labels(tmp_path: Path) -> None:
    places = ["normal/yard/a.mp4", "fight/yard/b.MP4", "fight/yard/deep/c.mp4", "normal/d.mp4", ".trash/x/e.mp4"]
    for place in [*places, "normal/notes.txt"]:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    entries = list_entries(tmp_path, [])
    assert sorted((entry.path.name, entry.label, entry.group) for entry in entries) == [
        ("a.mp4", "normal", "yard"),
        ("b.MP4", "fight", "yard"),
        ("c.mp4", "fight", "yard/deep"),
        ("d.mp4", "normal", "normal/d"),
    ]


def test_a_long_file_without_times_is_a_recording_labelled_as_a_whole(tmp_path: Path) -> None:
    for number, (name, frames) in enumerate([("long.mp4", 150), ("short.mp4", 60)]):
        write_video(tmp_path / name, frames=frames, fps=15, size=(64, 48 + 16 * number))
    rows = ["long.mp4,event,,,a", "short.mp4,normal,,,b"]
    table = tmp_path / "clips.csv"
    head = "path,label,start_seconds,end_seconds,group\n"
    table.write_text(head + "\n".join(rows), encoding="utf-8")
    whole, clip = read_dataset(table, RECIPE, cache=tmp_path / "cache", console=CONSOLE).clips
    assert (whole.whole, clip.whole) == (True, False)
    table.write_text(head + "long.mp4,event,0,10,a\n" + rows[1], encoding="utf-8")
    assert not read_dataset(table, RECIPE, cache=tmp_path / "cache", console=CONSOLE).clips[0].whole


def test_a_clip_holds_the_bytes_that_a_camera_shows(
    stream_files: StreamFiles, start_rtsp: StartRtsp, tmp_path: Path
) -> None:
    """One file, read as a clip and watched over RTSP: every live picture is a picture of the clip."""
    (tmp_path / "clips.csv").write_text(
        f"path,label\n{stream_files.h264},normal\n{stream_files.h264_small},event\n", encoding="utf-8"
    )
    single = SampleShape(pictures=1, context_spacing_seconds=0.0, width_pixels=48, height_pixels=32)
    recipe = RECIPE.model_copy(update={"sample": single, "sample_fps": 60.0, "input_kind": "picture"})
    clip = read_dataset(tmp_path, recipe, cache=tmp_path / "cache", console=CONSOLE).clips[0]
    taught = {pictures.tobytes() for pictures in clip.pictures}
    assert len(taught) == stream_files.pictures
    server = start_rtsp({"yard": stream_files.mount()})
    plan = CapturePlan(CaptureConfig(), 7.5, single)
    with Watched(CameraConfig(id="yard", url=server.url("yard")), plan) as watched:
        watched.wait(lambda w: len(w.samples) >= 25, 30)
    live = {sample.pictures.tobytes() for sample in watched.samples}
    assert len(live) >= 10
    assert live <= taught


def test_samples_are_those_of_the_live_sampler(clips: Path, tmp_path: Path) -> None:
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


def test_one_recording_in_two_groups_or_under_two_labels_is_told(clips: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (clips / "normal").iterdir())
    shutil.copy(clips / "normal" / names[0], tmp_path / "copy.mp4")
    source = f"{clips}/normal/{names[0]}"
    rows = [f"{source},normal,0,1.4,a", "copy.mp4,event,1.4,2.6,b", "copy.mp4,event,0.2,1.6,a"]
    (tmp_path / "clips.csv").write_text("path,label,start_seconds,end_seconds,group\n" + "\n".join(rows))
    short = RECIPE.model_copy(update={"window_slots": 4})
    with pytest.raises(DatasetInvalid) as caught:
        read_dataset(tmp_path, short, cache=tmp_path / "cache", console=CONSOLE)
    reasons = [problem.reason for problem in caught.value.problems]
    assert "of the same recording" in reasons[0]
    assert "group 'b', not 'a'" in reasons[0]
    assert "labelled 'normal' there and 'event' here" in reasons[1]


def test_a_file_that_nobody_may_read_is_named(clips: Path, tmp_path: Path) -> None:
    for label in ("normal", "scuffle"):
        shutil.copytree(clips / label, tmp_path / "data" / label)
    (tmp_path / "data" / "normal" / "folder.mp4").mkdir()
    (tmp_path / "data" / "normal" / "empty.mp4").touch()
    whole = next((clips / "scuffle").iterdir()).read_bytes()
    (tmp_path / "data" / "normal" / "broken.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetInvalid) as caught:
        read_dataset(tmp_path / "data", RECIPE, cache=tmp_path / "cache", console=CONSOLE)
    assert {problem.key for problem in caught.value.problems} == {"normal/empty.mp4", "normal/broken.mp4"}


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
