"""What the images do, without an engine: the wheel in a clean environment, far from the sources, and the program there.

Takes about half a minute where pip has the packages at hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.scenes import Scene
from monitor import __version__
from tests.services.rtsp import encode_stream

ROOT = Path(__file__).parent.parent.parent
INSTALL_SECONDS = 900.0
pytestmark = pytest.mark.xdist_group("wheel")  # one installation for all
MOST_WHEEL_BYTES = 20e6
MOST_ENVIRONMENT_BYTES = 900e6


@dataclass(frozen=True, slots=True)
class Installed:
    """A clean environment with nothing in it but the wheel and what it requires."""

    wheel: Path
    environment: Path

    def run(self, *command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run one of its programs in `folder`, without anything of ours in the variables."""
        kept = {key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "LANG", "TMPDIR"}}
        return subprocess.run(
            [self.environment / "bin" / command[0], *command[1:]],
            cwd=folder,
            env=kept,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build and install as the Dockerfile does."""
    folder = tmp_path_factory.mktemp("wheel")
    environment = folder / "environment"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _do([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)])
    (wheel,) = folder.glob("*.whl")
    _do([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    pip += ["--python", str(environment / "bin/python")]
    _do([*pip, "install", "--constraint", str(ROOT / "constraints.txt"), str(wheel)])
    return Installed(wheel, environment)


def _do(command: list[str]) -> None:
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False, cwd=ROOT.anchor
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(INSTALL_SECONDS)
def test_the_wheel_carries_what_run_time_needs(installed):
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    files = {
        str(path.relative_to(ROOT))
        for package in ("monitor", "models")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files - names == set()
    assert {name.partition("/")[0] for name in names} == {
        "monitor",
        "models",
        f"video_event_monitor-{__version__}.dist-info",
    }
    assert installed.wheel.stat().st_size < MOST_WHEEL_BYTES


def test_there_is_no_torch_and_not_too_much_of_the_rest(installed):
    (packages,) = installed.environment.glob("lib/python*/site-packages")
    present = {path.name.partition("-")[0].lower() for path in packages.glob("*.dist-info")}
    assert not present & {"torch", "torchvision", "scikit_learn", "tensorrt", "pytest"}
    assert {"av", "openvino", "onnxruntime", "kafka_python"} <= present
    size = sum(path.stat().st_size for path in installed.environment.rglob("*") if path.is_file())
    print(f"wheel {installed.wheel.stat().st_size / 1e6:.1f} MB, environment {size / 1e6:.0f} MB")
    assert size < MOST_ENVIRONMENT_BYTES
    assert installed.run("python", "-c", "import torch", folder=installed.environment).returncode == 1


def test_check_passes_from_another_folder(installed, tmp_path):
    for bundle in ("demo", "fight"):
        text = f'[model]\nbundle = "{bundle}"\n[http]\nport = 0\n[[cameras]]\nid = "yard"\nurl = "rtsp://192.0.2.10/stream1"\n'
        (tmp_path / "config.toml").write_text(text)
        done = installed.run("monitor", "check", folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_replay_runs_from_another_folder(installed, tmp_path):
    encode_stream(Scene(911, fps=15.0).frames(30.0), tmp_path / "scene.h264", fps=15.0)
    done = installed.run("monitor", "replay", "scene.h264", "--model", "demo", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"started", "ended"} <= {message["phase"] for message in messages}, "the scene has a scuffle in it"


def test_the_program_says_which_it_is(installed, tmp_path):
    assert __version__ in installed.run("monitor", "--version", folder=tmp_path).stdout
