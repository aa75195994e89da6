"""What a configuration needs of the machine: what is missing is told before anything begins, and nothing is left."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from monitor.config import load_config
from monitor.errors import ConfigInvalid
from monitor.surroundings import check_surroundings
from tests.services.monitor import configuration

CAMERA = {"id": "yard", "url": "rtsp://127.0.0.1:1/x"}


def problems(path: Path) -> dict[str, str]:
    with pytest.raises(ConfigInvalid) as caught:
        check_surroundings(load_config(path), path)
    return {problem.key: problem.reason for problem in caught.value.problems}


def test_what_can_be_made_is_good_and_not_left_behind(tmp_path: Path) -> None:
    path = configuration(
        tmp_path, [CAMERA], bundle="demo", outbox={"path": "a/b/c.sqlite"}, evidence={"folder": "a/media"}
    )
    check_surroundings(load_config(path), path)
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_cannot_be_made_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = configuration(
        tmp_path, [CAMERA], bundle="demo", outbox={"path": "file/a.sqlite"}, evidence={"folder": "/proc/media"}
    )
    found = problems(path)
    assert f"the folder {tmp_path / 'file'} cannot be made or written (" in found["outbox.path"]
    assert "the folder /proc/media cannot be made or written (" in found["evidence.folder"]


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    path = configuration(tmp_path, [CAMERA], bundle="demo", outbox={"path": "."}, evidence={"enabled": False})
    assert "is a folder; name a file" in problems(path)["outbox.path"]


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_is_no_video(tmp_path: Path, form: str) -> None:
    path = configuration(tmp_path, [{**CAMERA, "clip_url": form.format(tmp_path)}], bundle="demo")
    assert problems(path) == {"cameras[0] (yard).clip_url": f"{tmp_path} is a folder; name a video file"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("clip.mp4", "clip.mp4"),
        ("file:///none.mp4", "file:///none.mp4"),
        ("rtsp:/192.0.2.1/x", "rtsp:/192.0.2.1/x"),
        ("rtsp:/anna:hunter2@192.0.2.1/x", ""),
        ("192.0.2.1/user=anna&password=hunter2", ""),
    ],
)
def test_what_is_neither_file_nor_address_is_told_and_shown_without_secrets(
    tmp_path: Path, url: str, shown: str
) -> None:
    path = configuration(tmp_path, [{"id": "yard", "url": url}], bundle="demo")
    found = problems(path)["cameras[0] (yard).url"]
    assert found.startswith("no such file")
    assert "begins with rtsp://" in found
    assert shown in found
    assert "hunter2" not in found


def test_a_missing_file_keeps_no_monitor_from_the_other_cameras(tmp_path: Path) -> None:
    """As with SIGHUP, and as with a camera that is away: who comes back after a power cut watches what there is."""
    gone = {"id": "gate", "url": "gone.mp4", "clip_url": "gone-large.mp4"}
    path = configuration(tmp_path, [CAMERA, gone], bundle="demo")
    missing = check_surroundings(load_config(path), path, every_file=False)
    keys = [problem.key for problem in missing]
    assert keys == ["cameras[1] (gate).url", "cameras[1] (gate).clip_url"]
    assert list(problems(path)) == keys
    alone = configuration(tmp_path, [gone], bundle="demo")
    with pytest.raises(ConfigInvalid, match="no such file"):
        check_surroundings(load_config(alone), alone, every_file=False)


def test_an_address_of_a_file_may_be_percent_encoded(tmp_path: Path) -> None:
    (tmp_path / "back yard.mp4").touch()
    path = configuration(tmp_path, [{"id": "yard", "url": f"file://{tmp_path}/back%20yard.mp4"}], bundle="demo")
    assert check_surroundings(load_config(path), path) == ()


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = configuration(tmp_path, [CAMERA], bundle="demo", http={"port": port})
        assert problems(path) == {"http.port": f"{port} is taken by another program; stop it or choose another port"}
        check_surroundings(load_config(path), path, port=False)


def test_an_address_of_another_machine_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MONITOR_TOKEN", "open-sesame-0123456789")
    http = {"host": "192.0.2.1", "port": 1, "token_env": "MONITOR_TOKEN"}
    path = configuration(tmp_path, [CAMERA], bundle="demo", http=http)
    assert "192.0.2.1 cannot be listened on: " in problems(path)["http.host"]
