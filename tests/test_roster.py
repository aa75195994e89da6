"""Cameras and models change together: what is watched for goes with the model that scores it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import tomli_w
from structlog.testing import capture_logs

from monitor.bundle import write_manifest
from monitor.config import load_config
from monitor.scoring.batcher import ModelStage, ModelStep
from monitor.service import Service, open_service
from tests.scoring.bundles import MANIFEST, TinyBundle

ENGINE = {"engine": "onnxruntime", "precision": "fp32", "threads": 1}
NEW_LABELS = ("nothing", "brawl", "fall")


class Place:
    """A folder with a configuration and two bundles: `old` knows fight and fall, `new` brawl and fall."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        TinyBundle().write(folder / "old", golden=True)
        shutil.copytree(folder / "old", folder / "new")
        thresholds = dict.fromkeys(NEW_LABELS[1:], MANIFEST.thresholds["fall"])
        new = MANIFEST.model_copy(update={"version": "2", "labels": NEW_LABELS, "thresholds": thresholds})
        write_manifest(folder / "new", new)
        self.write("old", yard=["fight"])
        self.service: Service = open_service(load_config(self.path), config_path=self.path)
        self.service._roster.watch_all()

    @property
    def path(self) -> Path:
        return self.folder / "config.toml"

    def write(self, bundle: str, *, shadow: str = "", **cameras: Sequence[str]) -> None:
        """Configure a model, and cameras with the labels that they are watched for."""
        rows = [{"id": name, "url": "rtsp://127.0.0.1:1/x", "labels": list(labels)} for name, labels in cameras.items()]
        model = {"bundle": bundle, "shadow": shadow, **ENGINE}
        values = {"model": model, "outbox": {"path": "a.sqlite"}, "evidence": {"enabled": False}, "cameras": rows}
        self.path.write_text(tomli_w.dumps(values))

    def signal(self, *, keeper_looks: bool = True) -> list[str]:
        """Read the configuration as on SIGHUP, and have the keeper look once; return what was logged."""
        with capture_logs() as lines:
            self.service._read_again()
            if keeper_looks:
                self.service._keeper._look()
        return [line["event"] for line in lines]

    def steps(self, stage: ModelStage, *cameras: str) -> None:
        self.service._note_model_step(ModelStep(stage, cameras))

    def watched(self) -> dict[str, list[str]]:
        return {camera: list(labels) for camera, labels in self.service._roster.watched().items()}

    def alerts_counted(self, camera: str, label: str) -> float | None:
        labels = {"camera": camera, "label": label, "phase": "started"}
        return self.service._reporter.metrics.registry.get_sample_value("monitor_alerts_total", labels)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_labels_of_a_model_that_is_refused_leave_what_is_watched(place: Place) -> None:
    (place.folder / "new" / "golden.npz").write_bytes(b"")
    place.write("new", yard=["brawl"])
    assert "model_refused" in place.signal()
    assert place.watched() == {"yard": ["fight"]}
    assert place.service._view.cameras()[0].watched.keys() == {"fight"}
    place.write("old", yard=["fight", "fall"])  # back again: these are the serving model's
    assert "model_refused" not in place.signal()
    assert place.watched() == {"yard": ["fight", "fall"]}


def test_a_label_that_the_new_model_lacks_refuses_it(place: Place) -> None:
    place.write("new", yard=["brwal"])
    assert "model_refused" in place.signal()
    assert place.watched() == {"yard": ["fight"]}


def test_each_camera_is_watched_by_its_labels_until_it_crosses(place: Place) -> None:
    place.write("old", yard=["fight"], gate=["fight"])
    place.signal()
    place.write("new", yard=["brawl"], gate=["brawl", "fall"], dock=["fall"])
    place.signal(keeper_looks=False)
    assert place.watched() == {"yard": ["fight"], "gate": ["fight"], "dock": ["fall"]}
    place.service._keeper._look()
    assert place.watched() == {"yard": ["fight"], "gate": ["fight"], "dock": ["fall"]}
    assert place.alerts_counted("gate", "brawl") is None
    place.steps(ModelStage.CROSSING, "gate")
    assert place.watched() == {"yard": ["fight"], "gate": ["brawl", "fall"], "dock": ["fall"]}
    assert place.alerts_counted("gate", "brawl") == 0
    place.steps(ModelStage.SWAPPED)
    assert place.watched() == {"yard": ["brawl"], "gate": ["brawl", "fall"], "dock": ["fall"]}
    assert place.service._roster.model.title == "tiny 2"
    place.write("new", yard=["brawl", "fall"], gate=["brawl"], dock=["fall"])
    assert place.signal() == ["configuration_reloaded"]
    assert place.watched() == {"yard": ["brawl", "fall"], "gate": ["brawl"], "dock": ["fall"]}


def test_a_model_that_is_rolled_back_takes_its_labels_with_it(place: Place) -> None:
    place.write("new", yard=["brawl"])
    place.signal()
    place.steps(ModelStage.CROSSING, "yard")
    assert place.watched() == {"yard": ["brawl"]}
    place.steps(ModelStage.ROLLED_BACK, "yard")
    assert place.watched() == {"yard": ["fight"]}


def test_another_configuration_while_a_model_is_opened_is_held_against_it(place: Place) -> None:
    place.write("new", yard=["brawl"])
    first = load_config(place.path)
    place.signal(keeper_looks=False)
    place.write("new", yard=["fall"])
    place.signal(keeper_looks=False)
    assert not place.service._roster.change_model(place.service._roster.model, first)
    place.service._keeper._look()
    place.steps(ModelStage.SWAPPED)
    assert place.watched() == {"yard": ["fall"]}


def test_a_mistyped_label_is_found_where_only_the_shadow_changes_beside_it(place: Place) -> None:
    place.write("old", shadow="new", yard=["figth"])
    assert place.signal() == ["configuration_not_reloaded"]
    assert place.watched() == {"yard": ["fight"]}


def test_the_same_model_by_another_name_takes_the_labels_at_once(place: Place) -> None:
    shutil.copytree(place.folder / "old", place.folder / "copy")
    place.write("copy", yard=["fall"])
    place.signal()
    assert place.watched() == {"yard": ["fall"]}
    place.write("copy", yard=["figth"])
    assert place.signal() == ["configuration_not_reloaded"]


def test_a_camera_that_comes_again_while_a_model_crosses_begins_with_the_old_one(place: Place) -> None:
    place.write("old", yard=["fight"], gate=[])
    place.signal()
    place.write("new", yard=["brawl"], gate=[])
    place.signal()
    place.steps(ModelStage.CROSSING, "yard", "gate")
    place.write("new", yard=["brawl"])
    place.signal()
    place.steps(ModelStage.CROSSING, "gate")  # on its way as the camera went
    place.write("new", yard=["brawl"], gate=[])
    place.signal()
    assert place.watched() == {"yard": ["brawl"], "gate": ["fight", "fall"]}
