"""What people say of clips, as data sets hold it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.entries import list_entries
from models.labelling import add_clip
from monitor.errors import InputInvalid

NAME = "1b0c6f0a-0000-5000-8000-000000000000.mp4"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "media" / NAME
    path.parent.mkdir()
    path.write_bytes(b"a clip")
    return path


def stands(dataset: Path) -> list[tuple[str, str, bytes]]:
    """Label, group and content of every clip in a data set."""
    return [(entry.label, entry.group, entry.path.read_bytes()) for entry in list_entries(dataset, [])]


def test_a_new_data_set_is_a_folder_for_each_label(clip: Path, tmp_path: Path) -> None:
    added = add_clip(tmp_path / "new", clip, label="fight", group="yard/2026-01-31")
    assert added.path == tmp_path / "new/fight/yard/2026-01-31" / NAME
    assert added.before is None
    assert stands(tmp_path / "new") == [("fight", "yard/2026-01-31", b"a clip")]


@pytest.mark.parametrize("table", ["", "path,label\n", "label, path, weather\n", "\ufeffpath,label,group\n"])
def test_a_clip_is_in_a_data_set_once_however_often_it_is_labelled(table: str, clip: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "data"
    dataset.mkdir()
    if table:
        (dataset / "clips.csv").write_text(table, encoding="utf-8")
    for label, before in [("fight", None), ("fight", "fight"), ("normal", "fight"), ("fall", "normal")]:
        assert add_clip(dataset, clip, label=label, group="yard/a").before == before
        assert stands(dataset) == [(label, "yard/a", b"a clip")]
        assert len(list(dataset.rglob("*.mp4*"))) == 1
    assert clip.is_file()


def test_other_lines_of_a_table_stay_as_they_are(clip: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    lines = ["path,label,start_seconds,weather", '"a, b.mp4",normal,1.5,rain', "broken line", "", "c.mp4,fight,,"]
    table.write_bytes("\r\n".join(lines).encode())
    add_clip(table, clip, label="fight", group="yard/a")
    added = f"fight/yard/a/{NAME},fight,,,yard/a"
    assert table.read_bytes().decode().split("\r\n") == [f"{lines[0]},group", *lines[1:], added, ""]
    assert [entry.group for entry in list_entries(table, [])] == ["a, b.mp4", "c.mp4", "yard/a"]


def test_a_table_that_is_not_there_is_begun(clip: Path, tmp_path: Path) -> None:
    add_clip(tmp_path / "mine" / "own.csv", clip, label="fight", group="yard/a")
    assert stands(tmp_path / "mine/own.csv") == [("fight", "yard/a", b"a clip")]


def test_a_file_that_lies_outside_the_data_set_is_never_removed(clip: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "data"
    dataset.mkdir()
    (dataset / "clips.csv").write_text(f"path,label\n../media/{NAME},fight\n", encoding="utf-8")
    assert add_clip(dataset, clip, label="normal", group="yard/a").before == "fight"
    assert stands(dataset) == [("normal", "yard/a", b"a clip")]
    assert clip.is_file()


def test_a_table_that_cannot_be_read_is_left_alone(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("file,what\n", encoding="utf-8")
    with pytest.raises(InputInvalid, match="column label, path is missing"):
        add_clip(tmp_path, clip, label="fight", group="yard/a")
    assert list(tmp_path.rglob("*.mp4")) == [clip]


@pytest.mark.parametrize("label", ["../fight", "a/b", ".hidden", ""])
def test_a_label_that_cannot_be_a_folder_is_refused(label: str, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="is no name that a folder can have"):
        add_clip(tmp_path / "new", clip, label=label, group="yard/a")


def test_nothing_is_lost_where_many_label_at_once(tmp_path: Path) -> None:
    table = tmp_path / "data" / "clips.csv"

    def label(number: int) -> None:
        clip = tmp_path / f"{number}.mp4"
        clip.write_bytes(b"%d" % number)
        add_clip(table, clip, label="fight", group="yard/a")

    with ThreadPoolExecutor(8) as people:
        list(people.map(label, range(40)))
    assert sorted(stands(table)) == sorted(("fight", "yard/a", b"%d" % number) for number in range(40))
