"""Commands that take a configuration where there is one: they mind it as `monitor run` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from monitor.bundle import Bundle
from monitor.cli import app
from monitor.errors import ConfigInvalid, InputInvalid
from monitor.scoring.cache import EngineCache
from monitor.scoring.openvino import OpenVinoDoor, OpenVinoEngine
from tests.scoring.bundles import TinyBundle
from tests.services.monitor import configuration

CAMERA = {"id": "yard", "url": "rtsp://127.0.0.1:1/x", "labels": ["fall"]}
MISTYPED = {"thresholds": {"scufle": {"on": 0.5, "off": 0.4}}}


def refused(*arguments: str | Path) -> ConfigInvalid:
    error = CliRunner().invoke(app, [str(argument) for argument in arguments]).exception
    assert isinstance(error, ConfigInvalid), error
    return error


def test_a_replay_refuses_labels_that_the_model_does_not_have(tmp_path: Path) -> None:
    config = configuration(tmp_path, [CAMERA], bundle="demo", events=MISTYPED)
    keys = [problem.key for problem in refused("replay", "none.mp4", "--config", config).problems]
    assert keys == ["events.thresholds.scufle", "cameras[0] (yard).labels"]


def test_a_replay_with_another_model_minds_only_the_event_rules(tmp_path: Path) -> None:
    config = configuration(tmp_path, [CAMERA], bundle="fight", events=MISTYPED)
    keys = [problem.key for problem in refused("replay", "none.mp4", "--config", config, "--model", "demo").problems]
    assert keys == ["events.thresholds.scufle"]


def test_a_model_is_looked_for_where_the_command_is_given_before_beside_the_configuration(
    tmp_path: Path, monkeypatch
) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    TinyBundle().write(here / "mine", golden=True)
    TinyBundle().write(site / "theirs", golden=True)
    config = configuration(site, [{**CAMERA, "labels": []}], bundle="fight")
    monkeypatch.chdir(here)
    for name in ("mine", "theirs", "demo"):
        error = CliRunner().invoke(app, ["replay", "none.mp4", "--config", str(config), "--model", name]).exception
        assert isinstance(error, InputInvalid), error  # the video is what is missing, not the model


@pytest.mark.parametrize(("options", "threads"), [((), 3), (("--threads", "2"), 2)])
def test_compile_takes_the_configurations_threads_unless_told_otherwise(
    tmp_path: Path, monkeypatch, options: tuple[str, ...], threads: int
) -> None:
    TinyBundle().write(tmp_path / "mine", golden=True)
    config = configuration(tmp_path, [{**CAMERA, "labels": []}], bundle="mine", model={"threads": 3})
    opened, open_door = [], OpenVinoDoor.open

    def look(door: OpenVinoDoor, *bundle: Bundle, **asked: Any) -> OpenVinoEngine:
        opened.append(asked["threads"])
        return open_door(door, *bundle, **asked)

    monkeypatch.setattr(OpenVinoDoor, "open", look)
    ran = CliRunner().invoke(app, ["compile", "mine", "--precision", "fp32", "--config", str(config), *options])
    assert ran.exit_code == 0, ran.output
    assert set(opened) == {threads}


@pytest.mark.parametrize("given", [True, False])
def test_compile_finds_bundle_and_cache_by_the_configuration(tmp_path: Path, monkeypatch, given: bool) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    bundle = TinyBundle().write(site / "mine", golden=True)
    elsewhere.mkdir()
    config = configuration(site, [{**CAMERA, "labels": []}], bundle="mine", model={"cache": "kept"})
    monkeypatch.chdir(elsewhere)
    if not given:
        monkeypatch.setenv("MONITOR_CONFIG", str(config))
    option = ["--config", str(config)] if given else []
    ran = CliRunner().invoke(app, ["compile", "mine", "--precision", "fp32", "--threads", "1", *option])
    assert ran.exit_code == 0, ran.output
    assert list(EngineCache(site / "kept").folder(bundle).iterdir())
    assert list(elsewhere.iterdir()) == []


def test_compile_needs_no_configuration(tmp_path: Path, monkeypatch) -> None:
    bundle = TinyBundle().write(tmp_path / "mine", golden=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONITOR_CONFIG", "none.toml")
    ran = CliRunner().invoke(app, ["compile", "mine", "--precision", "fp32", "--threads", "1"])
    assert ran.exit_code == 0, ran.output
    assert list(EngineCache(Path("var/engines")).folder(bundle).iterdir())
    refused("compile", "mine", "--precision", "fp32", "--config", "none.toml")


def test_an_option_wins_over_the_configuration(tmp_path: Path, monkeypatch) -> None:
    bundle = TinyBundle().write(tmp_path / "mine", golden=True)
    config = configuration(tmp_path, [{**CAMERA, "labels": []}], bundle="mine", model={"cache": "kept"})
    monkeypatch.chdir(tmp_path)
    options = ["--precision", "fp32", "--threads", "1", "--config", str(config), "--cache", "mine-alone"]
    assert CliRunner().invoke(app, ["compile", "mine", *options]).exit_code == 0
    assert list(EngineCache(Path("mine-alone")).folder(bundle).iterdir())
    assert not Path("kept").exists()
