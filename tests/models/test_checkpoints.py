"""Training that is interrupted, and training that goes on with more clips."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console

from models import training
from models.checkpoints import Checkpoints
from models.event_model import EventModel
from models.recipe import Recipe
from monitor.bundle import BACKBONE, GOLDEN, HEAD, SampleShape, load_bundle
from monitor.errors import InputInvalid
from tests.services.monitor import COMMAND

pytestmark = pytest.mark.xdist_group("training")  # they share drawn clips

RECIPE = Recipe(
    sample_fps=5.0,
    window_slots=6,
    sample=SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=64, height_pixels=36),
    backbone="small",
    input_scale=32.0,
    frozen_epochs=3,
    tuned_epochs=3,
    tuned_stages=99,
    batch_windows=8,
    averaging=0.5,
    validation_share=0.25,
)


class Interrupting(StringIO):
    """What a console writes into, until a person who reads a certain line presses Ctrl-C."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self._line = line

    def write(self, text: str) -> int:
        if self._line in text:
            raise KeyboardInterrupt
        return super().write(text)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def unbroken(drawn_clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "unbroken"
    return _train(drawn_clips, out, cache).path


@pytest.mark.parametrize(
    "line", ["head epoch 1:", "head epoch 2:", "head epoch 3:", "whole epoch 1:", "whole epoch 2:"]
)
def test_an_interrupted_run_ends_as_an_unbroken_one(
    line: str, drawn_clips: Path, cache: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"broken-{line[:4]}-{line[-2]}"
    with pytest.raises(KeyboardInterrupt):
        _train(drawn_clips, out, cache, file=Interrupting(line))
    assert not (out / HEAD).exists()
    said = StringIO()
    _train(drawn_clips, out, cache, file=said, resume=True)
    assert line not in said.getvalue(), "the epoch was trained twice"
    assert _weights(out) == _weights(unbroken)
    first, second = load_bundle(out).manifest, load_bundle(unbroken).manifest
    assert (first.thresholds, first.measured, first.training["epochs"]) == (
        second.thresholds,
        second.measured,
        second.training["epochs"],
    )


@pytest.mark.parametrize("refit", [False, True])
def test_learning_on_the_maps_of_frozen_stages_goes_on_to_the_same_end(
    refit: bool, drawn_clips: Path, cache: Path, tmp_path: Path
) -> None:
    changes = {"tuned_stages": 2, "changed_copies": 1, "tuned_slots": 3, "refit": refit, "early_stopping": False}
    recipe = RECIPE.model_copy(update={**changes, "frozen_epochs": 1, "tuned_epochs": 2})
    said = StringIO()
    _train(drawn_clips, tmp_path / "whole", cache, file=said, recipe=recipe)
    judged = ["kept aside" in line for line in said.getvalue().splitlines() if "whole epoch 2:" in line]
    assert judged == ([True, False] if refit else [True]), "where all groups teach anew, none is left to judge"
    with pytest.raises(KeyboardInterrupt):
        _train(drawn_clips, tmp_path / "broken", cache, file=Interrupting("whole epoch 1:"), recipe=recipe)
    _train(drawn_clips, tmp_path / "broken", cache, resume=True, recipe=recipe)
    assert _weights(tmp_path / "broken") == _weights(tmp_path / "whole")


def test_what_is_resumed_before_its_first_epoch_begins_at_the_start(
    drawn_clips: Path, cache: Path, tmp_path: Path
) -> None:
    said = StringIO()
    _train(drawn_clips, tmp_path / "fresh", cache, file=said, resume=True)
    assert "No checkpoint" in said.getvalue()


def test_new_clips_go_on_from_what_was_learned(drawn_clips: Path, cache: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(drawn_clips, few)
    table = few / "clips.csv"
    rows = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(rows[:21]) + "\n", encoding="utf-8")
    out = tmp_path / "grown"
    _train(few, out, cache)
    before = torch.load(cache / "checkpoints/grown/model.pt", weights_only=True)
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    said = StringIO()
    _train(few, out, cache, file=said, resume=True)
    assert "4 clips are new, 0 are gone" in said.getvalue()
    after = torch.load(cache / "checkpoints/grown/model.pt", weights_only=True)
    assert set(before["aside"]) <= set(after["aside"]), "a group that was kept aside may not teach afterwards"
    assert set(before["taught"]) <= set(after["taught"]), "what a group taught is in the weights: it cannot judge them"
    model = EventModel(RECIPE, labels=2)
    Checkpoints(cache / "checkpoints/grown").load_start(model)
    torch.testing.assert_close(model.head.first.weight, before["weights"]["head.first.weight"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"hops": 2}, "other recipe"), ({"background": "scuffle"}, "other recipe")],
)
def test_another_recipe_cannot_be_resumed(
    change: dict[str, Any], said: str, drawn_clips: Path, cache: Path, unbroken: Path
) -> None:
    with pytest.raises(InputInvalid, match=said):
        _train(drawn_clips, unbroken, cache, resume=True, recipe=RECIPE.model_copy(update=change))


def test_a_run_without_weights_cannot_go_on_with_other_clips(drawn_clips: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn_clips, tmp_path / "data")
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "data", tmp_path / "changed", cache, file=Interrupting("head epoch 2:"))
    table = tmp_path / "data" / "clips.csv"
    table.write_text("\n".join(table.read_text(encoding="utf-8").splitlines()[:21]), encoding="utf-8")
    with pytest.raises(InputInvalid, match="have changed since this run was interrupted"):
        _train(tmp_path / "data", tmp_path / "changed", cache, resume=True)


def test_a_name_that_no_model_may_have_is_refused_before_the_work(drawn_clips: Path, tmp_path: Path) -> None:
    with pytest.raises(InputInvalid, match="its name becomes the model's"):
        _train(drawn_clips, tmp_path / "My bundle", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.timeout(400)  # two programs that load torch, on a machine that may be busy
def test_control_c_says_the_command_that_goes_on(drawn_clips: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn_clips, tmp_path / "data")
    table = tmp_path / "data/clips.csv"
    table.write_text("\n".join(table.read_text(encoding="utf-8").splitlines()[:9]), encoding="utf-8")
    command = ["train", str(tmp_path / "data"), "--out", str(tmp_path / "mine"), "--recipe", "demo"]
    code, lines = _interrupt(command, at="whole epoch 1:")
    assert code == 130
    assert "Traceback" not in "".join(lines)
    assert "Interrupted. What was learned up to the last whole epoch is kept" in "".join(lines)
    [again] = [line.strip() for line in lines if line.strip().startswith("monitor ")]
    assert shlex.split(again) == ["monitor", *command, "--resume"]
    code, lines = _interrupt(shlex.split(again)[1:], at="Going on after epoch 1 of whole")
    assert code == 130
    assert lines[-1].strip() == again


def _interrupt(command: Sequence[str], *, at: str) -> tuple[int, list[str]]:
    """Run a command, press Ctrl-C when it says a certain thing, and return its exit code and all it said."""
    lines, pressed = [], False
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*COMMAND, *command], stderr=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stderr or ():
            lines.append(line)
            if at in line and not pressed:
                pressed = True
                process.send_signal(signal.SIGINT)
    return process.returncode, lines


def _train(
    clips: Path, out: Path, cache: Path, *, file: StringIO | None = None, recipe: Recipe = RECIPE, **options: Any
) -> Any:
    console = Console(file=file or StringIO(), width=200)
    return training.run(clips, out, recipe=recipe, console=console, cache=cache, **options)


def _weights(bundle: Path) -> list[bytes]:
    graphs = [onnx.load(bundle / name) for name in (BACKBONE, HEAD)]
    weights = [tensor.SerializeToString(deterministic=True) for graph in graphs for tensor in graph.graph.initializer]
    with np.load(bundle / GOLDEN) as golden:
        return [*weights, *(golden[name].tobytes() for name in sorted(golden.files))]
