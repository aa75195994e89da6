"""The Dockerfiles: what can be held without an engine. The same steps run in `test_wheel.py`, without an image."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from demo import camera
from demo.streams import FPS, SCENES
from monitor.config import HttpConfig
from monitor.web.app import Page
from monitor.web.feed import Feed
from tests.conftest import StreamFiles
from tests.images.dockerfile import faults, stages
from tests.services.ports import free_port
from tests.services.rtsp import PYTHON, Mount

ROOT = Path(__file__).parent.parent.parent
SHIPPED = {"Dockerfile": ("monitor", "camera"), "Dockerfile.gpu": ("monitor",)}
FILES = {name: (ROOT / name).read_text() for name in SHIPPED}

MUTATIONS: dict[str, Callable[[str], str]] = {
    "root": lambda text: text.replace("USER 10001:10001", "USER root"),
    "no user": lambda text: text.replace("USER 10001:10001\n", "USER 0\n"),
    "no health check": lambda text: text.replace("HEALTHCHECK", "LABEL check="),
    "a base without a version": lambda text: (
        text.replace("-slim-bookworm", "").replace("3.11.13", "slim").replace(":25.10-py3", "")
    ),
    "a shell": lambda text: text.replace('ENTRYPOINT ["monitor"]', "ENTRYPOINT monitor"),
    "torch": lambda text: text.replace("/wheels/*.whl", "'/wheels/*.whl[train]'"),
    "byte code": lambda text: text.replace("PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"),
    "a build after the user": lambda text: text.replace("EXPOSE 8080", "RUN touch /x"),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_is_wrong_with_a_dockerfile(name):
    assert faults(SHIPPED[name], FILES[name]) == []


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("change", MUTATIONS)
def test_a_fault_is_told(name, change):
    assert faults(SHIPPED[name], MUTATIONS[change](FILES[name])) != []


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_copied_exists_and_is_sent_to_the_builder(name):
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    sent = [line[1:] for line in ignored if line.startswith("!")]
    for source in (source for stage in stages(FILES[name]).values() for source in stage.copied()):
        assert (ROOT / source).exists(), source
        covered = any(source == path or Path(source).is_relative_to(path) for path in sent)
        assert covered or any(Path(path).is_relative_to(source) for path in sent), f"{source} is in .dockerignore"
    assert not any(fnmatch.fnmatch(".venv", path) for path in sent)


@pytest.mark.parametrize("name", SHIPPED)
def test_an_extra_may_be_asked_for(name, tmp_path):
    """The shell gives pip the wheel's name with the extra behind it; no wheel of that name has to be there."""
    (build,) = (rest for kind, rest in stages(FILES[name])["build"].instructions if kind == "RUN" and "venv" in rest)
    assert ("ARG", "EXTRAS=") in stages(FILES[name])["build"].instructions
    (asked,) = re.findall(r'"\$\(echo /wheels/\S+\)\$EXTRAS"', build)
    (tmp_path / "monitor-1.whl").touch()
    shell = ["sh", "-c", f"echo {asked.replace('/wheels', str(tmp_path))}"]
    for extras in ("", "[s3]"):
        done = subprocess.run(shell, env={"EXTRAS": extras}, capture_output=True, text=True, timeout=10, check=True)
        assert done.stdout == f"{tmp_path}/monitor-1.whl{extras}\n"


def test_the_gpu_image_has_what_the_extra_asks_for():
    """TensorRT itself comes with NVIDIA's image; the rest of the extra is installed, and nothing else."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["tensorrt"]
    wanted = {re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in extra}
    (build,) = (rest for kind, rest in stages(FILES["Dockerfile.gpu"])["build"].instructions if kind == "RUN")
    others = {"--constraint", "constraints.txt", '"$(echo', '/wheels/*.whl)$EXTRAS"'}
    installed = set(build.rpartition(" install ")[2].split()) - others
    assert stages(FILES["Dockerfile.gpu"])["build"].base.startswith("nvcr.io/nvidia/tensorrt:")
    assert installed == wanted - {"tensorrt"}
    assert "--system-site-packages" in build, "so that the image's tensorrt is seen"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_health_check_asks_what_is_served(name):
    stage = stages(FILES[name])["monitor"]
    port = HttpConfig().port
    assert stage.last("EXPOSE") == str(port)
    assert f"http://127.0.0.1:{port}/live" in stage.last("HEALTHCHECK")
    assert "/live" in Page(object(), Feed()).app.openapi()["paths"]
    assert json.loads(stage.last("ENTRYPOINT")) == ["monitor"]


def test_the_simulated_cameras_are_the_demo_s(tmp_path):
    for name, _, seed in SCENES:
        (tmp_path / f"{name}-{seed}-60s.h264").touch()
    assert set(camera.mounts(tmp_path)) == {name for name, _, _ in SCENES}
    assert {mount["fps"] for mount in camera.mounts(tmp_path).values()} == {FPS}
    expected = Mount(tmp_path / "x.h264", FPS, live=True).as_json()
    assert camera.mounts(tmp_path)["gate"].keys() == expected.keys()


def test_the_camera_container_s_program_serves(tmp_path, stream_files: StreamFiles, rtsp_available):
    shutil.copy(stream_files.h264, tmp_path / "gate-1.h264")
    port = free_port()
    command = [PYTHON, str(ROOT / "demo/camera.py"), str(tmp_path), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as served:
        try:
            assert served.stdout is not None
            assert json.loads(served.stdout.readline()) == {"port": port}
            with av.open(f"rtsp://127.0.0.1:{port}/gate", options={"rtsp_transport": "tcp"}, timeout=10) as stream:
                assert next(stream.decode(video=0)).width == 320
        finally:
            served.send_signal(signal.SIGTERM)
            assert served.wait(5) == 0


def test_the_camera_container_s_program_says_what_is_missing(tmp_path, capsys):
    assert camera.main([str(tmp_path)]) == 2
    assert "no streams" in capsys.readouterr().err
