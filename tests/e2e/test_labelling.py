"""From an alert of a real stream to a model that has learned from what a person said of it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from models import training
from models.dataset import read_dataset
from models.entries import list_entries
from models.recipe import RECIPES
from models.scenes.clips import plan_clips, write_clips
from monitor.bundle import SampleShape
from tests.services.monitor import MonitorProcess, configuration, run_command
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS

pytestmark = pytest.mark.xdist_group("labelling")  # they share one alert

RECIPE = RECIPES["demo"].model_copy(
    update={
        "sample": SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=48, height_pixels=32),
        "tuned_epochs": 1,
        "validation_share": 0.4,
    }
)


@dataclass(frozen=True, slots=True)
class Told:
    """What a monitor left behind."""

    config: Path
    alert: str

    @property
    def clip(self) -> Path:
        return self.config.parent / "var/media" / f"{self.alert}.mp4"

    def label(self, *arguments: str, alert: str | None = None) -> tuple[int, str]:
        return run_command("label", alert or self.alert, "--config", str(self.config), *arguments)


@pytest.fixture(scope="module")
def told(tmp_path_factory, scene_streams) -> Told:
    """An alert of a camera that has ended, and its clip."""
    folder = tmp_path_factory.mktemp("told")
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        evidence = {"pre_seconds": 2.0, "post_seconds": 1.0}
        config = configuration(folder, [{"id": "yard", "url": server.url("yard")}], bundle="demo", evidence=evidence)
        with MonitorProcess(config) as monitor:
            alert = monitor.wait_for_event("event_started", 60)["alert"]
            monitor.wait_for_event(
                "evidence_kept", 60, lambda record: (record["kind"], record["alert"]) == ("clip", alert)
            )
            monitor.stop()
    return Told(config, alert)


def test_what_a_person_says_of_an_alert_is_learned(told, tmp_path):
    """An alert, a verdict, a data set that the training takes, and a run that goes on with what it had learned."""
    torch.set_num_threads(1)
    clips, out = tmp_path / "clips", tmp_path / "mine"
    list(write_clips(clips, plan_clips(12, seed=8)))
    options = {"recipe": RECIPE, "cache": tmp_path / "cache"}
    training.run(clips, out, console=Console(file=StringIO()), **options)

    code, output = told.label("--false", "--into", str(clips))
    assert code == 0, output
    [new] = [entry for entry in list_entries(clips, []) if entry.path.stem == told.alert]
    assert output.strip() == f"✓ normal: {new.path}"
    assert new.path.read_bytes() == told.clip.read_bytes()
    assert new.group.startswith("yard/20")

    said = StringIO()
    training.run(clips, out, console=Console(file=said, width=200), resume=True, **options)
    assert "1 clips are new, 0 are gone: beginning with the weights learned so far." in said.getvalue()
    dataset = read_dataset(clips, RECIPE, cache=tmp_path / "cache", console=Console(file=StringIO()))
    [clip] = [clip for clip in dataset.clips if clip.entry.path == new.path]
    assert clip.whole, "longer than a clip: what happened, happened somewhere in it"


def test_a_verdict_can_be_corrected(told, tmp_path):
    for verdict, said in [("--true", "scuffle"), ("--false", "normal (was scuffle)")]:
        code, output = told.label(verdict, "--into", str(tmp_path / "new"))
        assert code == 0, output
        [entry] = list_entries(tmp_path / "new", [])
        assert output.strip() == f"✓ {said}: {entry.path}"
        assert entry.label == said.split()[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--true", "--label", "brawl"], "label 'brawl': the model demo tells of scuffle; --label names one of them"),
        (["--false", "--label", "scuffle"], "--label: --false means that nothing happened (normal)"),
        ([], "--true or --false"),
    ],
)
def test_a_verdict_that_makes_no_sense_changes_nothing(told, tmp_path, arguments, message):
    code, output = told.label(*arguments, "--into", str(tmp_path / "new"))
    assert code == 2
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "new").exists()


def test_a_message_that_the_disk_has_damaged_does_not_hide_the_others(told, tmp_path):
    shutil.copytree(told.config.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("*.log"))
    copy = Told(tmp_path / "copy/config.toml", told.alert)
    damage = "UPDATE alerts SET value = X'7B00' WHERE alert_id = ? AND sequence >= ?"
    with closing(sqlite3.connect(tmp_path / "copy/outbox.sqlite")) as store:
        store.execute(damage, (told.alert, 1))
        store.commit()
        code, output = copy.label("--true", "--into", str(tmp_path / "new"))
        assert (code, "scuffle" in output) == (0, True), output
        store.execute(damage, (told.alert, 0))
        store.commit()
    code, output = copy.label("--true", "--into", str(tmp_path / "newer"))
    assert (code, "is not in" in output, "Traceback" in output) == (2, True, False), output
    assert not (tmp_path / "newer").exists()


def test_what_is_not_there_is_named(told, tmp_path):
    shutil.copytree(told.config.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("*.log"))
    copy = Told(tmp_path / "copy/config.toml", told.alert)
    code, output = copy.label("--true", alert="1b0c6f0a-0000-5000-8000-000000000000")
    assert (code, "is not in" in output, "monitor alerts" in output) == (2, True, True), output
    copy.clip.rename(f"{copy.clip}.part")
    code, output = copy.label("--true")
    assert (code, "its clip is still being written" in output) == (2, True), output
    Path(f"{copy.clip}.part").unlink()
    code, output = copy.label("--true", "--into", str(tmp_path / "new"))
    assert (code, "no clip of it in" in output) == (2, True), output
    assert not (tmp_path / "new").exists()
