from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from monitor.delivery.media import MediaFolder

NOW = 1_800_000_000.0
DAY = 86_400.0


def put(folder: Path, *, age_days: float, size: int, ending: str = ".mp4") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{uuid.uuid4()}{ending}"
    path.write_bytes(bytes(size))
    os.utime(path, (NOW - age_days * DAY,) * 2)
    return path


def media(folder: Path, *, keep_days: float = 10.0, keep_bytes: int = 10_000) -> MediaFolder:
    return MediaFolder(folder, keep_days=keep_days, keep_bytes=keep_bytes)


def test_old_files_go(tmp_path: Path) -> None:
    old, young = put(tmp_path, age_days=11, size=10), put(tmp_path, age_days=9, size=20)
    stats = media(tmp_path).prune(NOW)
    assert (stats.files, stats.bytes, stats.removed) == (1, 20, 1)
    assert not old.exists()
    assert young.exists()


def test_the_oldest_go_first_when_there_is_too_much(tmp_path: Path) -> None:
    files = [
        put(tmp_path, age_days=age, size=4000, ending=ending)
        for age, ending in ((1, ".jpg"), (3, ".mp4"), (2, ".strip.jpg"))
    ]
    stats = media(tmp_path).prune(NOW)
    assert (stats.files, stats.bytes) == (2, 8000)
    assert [file.exists() for file in files] == [True, False, True]


def test_what_is_not_ours_and_what_is_being_written_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(bytes(50_000))
    part = put(tmp_path, age_days=0, size=20_000, ending=".mp4.part")
    clip = put(tmp_path, age_days=1, size=10)
    stats = media(tmp_path).prune(NOW)
    assert (stats.bytes, stats.removed) == (20_000, 1)
    assert part.exists()
    assert not clip.exists()
    assert (tmp_path / "notes.txt").exists()


def test_what_nobody_writes_any_more_is_finished_while_the_monitor_runs(tmp_path: Path) -> None:
    """A capture process that died, or a disk that was full, leaves such parts."""
    clip = put(tmp_path, age_days=0.05, size=10, ending=".mp4.part")
    old = put(tmp_path, age_days=11, size=10, ending=".mp4.part")
    picture = put(tmp_path, age_days=0.05, size=20_000, ending=".strip.jpg.part")
    stats = media(tmp_path).prune(NOW)
    assert (stats.files, stats.bytes, stats.removed) == (1, 10, 1)
    assert clip.with_suffix("").exists()
    assert not old.with_suffix("").exists()
    assert not picture.exists()


def test_parts_of_a_crash_are_finished(tmp_path: Path) -> None:
    clip = put(tmp_path, age_days=0, size=10, ending=".mp4.part")
    empty = put(tmp_path, age_days=0, size=0, ending=".mp4.part")
    picture = put(tmp_path, age_days=0, size=10, ending=".jpg.part")
    foreign = tmp_path / "foreign.part"
    foreign.write_text("x")
    folder = media(tmp_path)
    assert folder.finish_parts() == 1
    assert folder.finish_parts() == 0
    assert folder.find(clip.name.removesuffix(".part")) == tmp_path / clip.name.removesuffix(".part")
    assert not empty.exists()
    assert not picture.exists()
    assert foreign.exists()


def test_the_folder_is_made_and_may_be_missing(tmp_path: Path) -> None:
    folder = media(tmp_path / "a" / "b")
    assert folder.prune(NOW).files == 0
    assert folder.finish_parts() == 0
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../secret.jpg", "notes.txt", "x.mp4", "{id}.mp4/..", "{id}.mp4\n", "{id}.mp4.part"]
)
def test_only_names_of_ours_are_found(name: str, tmp_path: Path) -> None:
    alert = str(uuid.uuid4())
    (tmp_path / "media").mkdir()
    for made in ("secret.jpg", "media/notes.txt", "media/x.mp4", f"media/{alert}.mp4", f"media/{alert}.mp4.part"):
        (tmp_path / made).write_text("x")
    folder = media(tmp_path / "media")
    assert folder.find(name.format(id=alert)) is None
    assert folder.find(f"{alert}.mp4") is not None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    name = f"{uuid.uuid4()}.jpg"
    (tmp_path / name).symlink_to("/etc/passwd")
    assert media(tmp_path).find(name) is None
