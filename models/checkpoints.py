"""What a training run keeps after each epoch: enough to go on from there to the same end as without the break.

A run's folder holds `run.json` (which clips and recipe it is of), a folder a stage with the weights of every epoch
(`epoch003.pt`) and all else that the next epoch needs (`state.pt`), and `model.pt` once the run is over. A run on other
clips than the folder's last one begins with the weights of that one (`start.pt`).
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from rich.console import Console
from torch import nn

from models.dataset import Dataset
from models.recipe import Recipe
from monitor.errors import InputInvalid
from monitor.whole_file import whole_file

_RUN, _STATE, _START, _MODEL = "run.json", "state.pt", "start.pt", "model.pt"


@dataclass(frozen=True, slots=True)
class EpochLoss:
    """How an epoch went."""

    stage: str
    epoch: int
    train_loss: float
    """With the attention's penalty."""
    validation_loss: float
    """Cross-entropy alone, on the groups kept aside; NaN where none are."""

    def __str__(self) -> str:
        aside = "" if math.isnan(self.validation_loss) else f", kept aside {self.validation_loss:.3f}"
        return f"{self.stage} epoch {self.epoch}: loss {self.train_loss:.3f}{aside}"


@dataclass(frozen=True, slots=True)
class Sides:
    """Which groups taught and which were kept aside."""

    taught: frozenset[str] = frozenset()
    aside: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Learning:
    """Everything that changes while a stage learns."""

    module: nn.Module
    """What the optimiser changes."""
    judged: nn.Module
    """What is judged and kept: the same, or its running average."""
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    rng: np.random.Generator


class Checkpoints:
    """The folder of one training run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start = _load(folder / _START) if (folder / _START).is_file() else None

    @property
    def earlier(self) -> Sides:
        """Groups of the run whose weights this one began with: a group must not change sides."""
        if self._start is None:
            return Sides()
        return Sides(frozenset(self._start["taught"]), frozenset(self._start["aside"]))

    @classmethod
    def begin(cls, folder: Path, dataset: Dataset, recipe: Recipe, *, resume: bool, console: Console) -> Self:
        """Open the folder of a run: the one that lies there where `resume` is wanted and it is of the same clips.

        Raises:
            InputInvalid: what lies there is of another recipe or of other labels, or cannot be read.
        """
        path = folder / _RUN
        mine = _identity(dataset, recipe)
        if not resume or not path.is_file():
            if resume:
                console.print(f"No checkpoint in {folder}: beginning at the start.", highlight=False)
            _clear(folder, mine)
            return cls(folder)
        told = _read(path)
        for what in ("recipe", "labels"):
            if told[what] != mine[what]:
                raise InputInvalid(folder, f"holds a run with other {what}; leave --resume out to train anew")
        if told["clips"] != mine["clips"]:
            _begin_with_weights(folder, mine, told, console)
        return cls(folder)

    def load_start(self, model: nn.Module) -> None:
        """Give the model the weights of the run before, where there are some."""
        if self._start is not None:
            model.load_state_dict(self._start["weights"])

    def finish(self, model: nn.Module, sides: Sides) -> None:
        """Keep the weights that the run ended with, and who taught them, for a run on other clips."""
        kept = {"weights": model.state_dict(), "taught": sorted(sides.taught), "aside": sorted(sides.aside)}
        _save(kept, self._folder / _MODEL)

    def stage(
        self, name: str, learning: Learning, *, epochs: int, patience: int | None, console: Console
    ) -> StageKeeper:
        """Return the keeper of one stage; it has loaded what an interrupted run left.

        Args:
            name: of the stage's folder.
            learning: what changes.
            epochs: at most.
            patience: epochs without anything better after which it ends; None where the last epoch is the one wanted.
            console: shows how each epoch went.
        """
        return StageKeeper(self._folder / name, learning, epochs=epochs, patience=patience, console=console)


class StageKeeper:
    """Keeps a checkpoint after each epoch, remembers the best, says when to stop and how long it still takes."""

    def __init__(
        self, folder: Path, learning: Learning, *, epochs: int, patience: int | None, console: Console
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._learning = learning
        self._epochs = epochs
        self._patience = patience
        self._console = console
        self._history: list[EpochLoss] = []
        if (folder / _STATE).is_file():
            self._go_on()
        self._done_before = len(self._history)
        self._began = time.monotonic()

    @property
    def planned(self) -> int:
        """How many epochs there are at most."""
        return self._epochs

    @property
    def done(self) -> int:
        """How many epochs are over, those before an interruption included."""
        return len(self._history)

    def epochs(self) -> Iterator[int]:
        """Yield the numbers of the epochs that are still to do, from 1; end early when nothing gets better."""
        while self.done < self._epochs and not self._tired():
            yield self.done + 1

    def tell(self, loss: EpochLoss) -> None:
        """Keep the epoch that just ended."""
        self._history.append(loss)
        _save(self._learning.judged.state_dict(), self._path(loss))
        _save(self._state(), self._folder / _STATE)
        self._console.print(f"{loss}{self._time_left()}", highlight=False, style="dim")

    def restore(self) -> list[EpochLoss]:
        """Load the best epoch back into what is judged, and return how all went."""
        self._learning.judged.load_state_dict(_load(self._path(self._best())))
        return self._history

    def _tired(self) -> bool:
        if self._patience is None or not self._history:
            return False
        return self._history[-1].epoch - self._best().epoch >= self._patience

    def _best(self) -> EpochLoss:
        if self._patience is None:
            return self._history[-1]
        return min(self._history, key=lambda loss: loss.validation_loss)

    def _path(self, loss: EpochLoss) -> Path:
        return self._folder / f"epoch{loss.epoch:03d}.pt"

    def _time_left(self) -> str:
        left = self._epochs - self.done
        seconds = (time.monotonic() - self._began) / (self.done - self._done_before) * left
        return f"; at most {_duration(seconds)} left" if left and seconds >= 1.0 else ""

    def _state(self) -> dict[str, Any]:
        learning = self._learning
        return {
            "history": [astuple(loss) for loss in self._history],
            "module": learning.module.state_dict(),
            "optimiser": learning.optimiser.state_dict(),
            "schedule": learning.schedule.state_dict(),
            "rng": learning.rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all(),
        }

    def _go_on(self) -> None:
        learning = self._learning
        state = _load(self._folder / _STATE)
        self._history = [EpochLoss(*row) for row in state["history"]]
        learning.module.load_state_dict(state["module"])
        learning.judged.load_state_dict(_load(self._path(self._history[-1])))
        learning.optimiser.load_state_dict(state["optimiser"])
        learning.schedule.load_state_dict(state["schedule"])
        learning.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])
        torch.cuda.set_rng_state_all(state["cuda_rng"])
        self._console.print(f"Going on after epoch {self.done} of {self._folder.name}.", highlight=False)


def _identity(dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """Return what has to be the same for a run to be gone on with."""
    clips = [
        hashlib.sha256(
            json.dumps([clip.key, entry.label, entry.group, entry.start_seconds, entry.end_seconds]).encode()
        ).hexdigest()
        for clip in dataset.clips
        for entry in (clip.entry,)
    ]
    return {"recipe": recipe.model_dump(mode="json"), "labels": list(dataset.labels), "clips": clips}


def _clear(folder: Path, identity: dict[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _RUN).write_text(json.dumps(identity, indent=1), encoding="utf-8")


def _begin_with_weights(folder: Path, mine: dict[str, Any], told: dict[str, Any], console: Console) -> None:
    """Make the folder one of a run on other clips, which begins with the weights that the last one ended with."""
    learned = next((folder / name for name in (_MODEL, _START) if (folder / name).is_file()), None)
    if learned is None:
        reason = "the clips have changed since this run was interrupted; leave --resume out to train anew"
        raise InputInvalid(folder, reason)
    new, gone = len(set(mine["clips"]) - set(told["clips"])), len(set(told["clips"]) - set(mine["clips"]))
    console.print(f"{new} clips are new, {gone} are gone: beginning with the weights learned so far.", highlight=False)
    weights = _load(learned)
    _clear(folder, mine)
    _save(weights, folder / _START)


def _read(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise InputInvalid(path, f"cannot be read: {exc}; leave --resume out to train anew") from exc
    return told


def _load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state


def _save(state: Any, path: Path) -> None:
    """Write a checkpoint whole or not at all: an interruption must not leave half of one."""
    with whole_file(path) as file:
        torch.save(state, file)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
