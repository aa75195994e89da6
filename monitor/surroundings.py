"""What a configuration needs of this machine in: folders, video files, the port; each that cannot be used out.

Loading a configuration looks at none of it: a monitor that runs may read its configuration anew where a file is gone.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from monitor.config import CameraConfig, Config, HttpConfig
from monitor.config.camera import SECRET_PAIR
from monitor.errors import ConfigInvalid, InputInvalid, Problem
from monitor.web.server import listen

ASK_SECONDS = 2.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def check_surroundings(
    config: Config, path: Path | str, *, port: bool = True, every_file: bool = True
) -> tuple[Problem, ...]:
    """Check that a monitor can begin here; what is made to find out is removed again.

    Args:
        config: what it is to run with.
        path: where the configuration was read.
        port: whether the port has to be free.
        every_file: whether each video file has to be there; without, it is enough that one camera can be watched.

    Returns:
        The video files that are not there and need not be, each under its key.

    Raises:
        ConfigInvalid: with every folder, video file or port that cannot be used, each under its key.
    """
    problems = [*_folder_problems(config), *(_port_problems(config.http) if port else ())]
    missing = tuple(_file_problems(config))
    if every_file or all(not camera.is_network and _why_not_played(camera) for camera in config.cameras):
        problems, missing = [*problems, *missing], ()
    if problems:
        raise ConfigInvalid(path, problems)
    return missing


def monitor_serves(http: HttpConfig) -> bool:
    """Whether a running monitor holds the port."""
    connection = HTTPConnection(EVERYWHERE.get(http.host, http.host), http.port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", "/live")
        answer = json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return isinstance(answer, dict) and {"ok", "main"} <= answer.keys()


def _folder_problems(config: Config) -> Iterator[Problem]:
    store = config.outbox.path
    reason = f"{store} is a folder; name a file" if store.is_dir() else why_not_written(store.parent)
    if reason:
        yield Problem("outbox.path", reason)
    reason = why_not_written(config.evidence.folder) if config.evidence.enabled else ""
    if reason:
        yield Problem("evidence.folder", reason)


def why_not_written(folder: Path) -> str:
    """Return why a folder cannot be made or written; empty when it can. What is made to find out is removed again."""
    made: list[Path] = []
    try:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as exc:
        return f"the folder {folder} cannot be made or written ({exc.strerror or exc}); give another path"
    finally:
        for each in made:
            with suppress(OSError):  # never made, or another program has put something into it
                each.rmdir()


def _file_problems(config: Config) -> Iterator[Problem]:
    for index, camera in enumerate(config.cameras):
        for key, stream in (("url", camera), ("clip_url", camera.clip)):
            if stream is not None and not stream.is_network:
                reason = _why_not_played(stream)
                if reason:
                    yield Problem(f"cameras[{index}] ({camera.id}).{key}", reason)


def _why_not_played(stream: CameraConfig) -> str:
    """Return why no video file is there; empty where one may be."""
    secret = "@" in stream.url or SECRET_PAIR.search(stream.url)  # an address with a slash too few
    if not os.path.exists(stream.file_path):
        return f"no such file{'' if secret else f' {stream.url}'}; the address of a camera begins with rtsp://"
    return f"{stream.file_path} is a folder; name a video file" if os.path.isdir(stream.file_path) else ""


def _port_problems(http: HttpConfig) -> Iterator[Problem]:
    try:
        listen(http.host, http.port).close()
    except InputInvalid as exc:
        yield Problem(str(exc.what), exc.reason)
