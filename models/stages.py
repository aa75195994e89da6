"""The stages of a training: first the head on embeddings of the frozen backbone, then both from the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from models.augmentation import Change
from models.batches import feature_batch, picture_batch, shuffled_batches
from models.checkpoints import Checkpoints, EpochLoss, Learning, StageKeeper
from models.dataset import Dataset
from models.event_model import AttentionHead, EventModel, attention_penalty, pointing_penalty
from models.features import changes, clip_features, clip_maps, embed_maps, embed_samples
from models.progress import progress_bar
from models.recipe import Recipe
from models.verdicts import JudgingWindows, judging_windows


@dataclass(frozen=True, slots=True)
class Told:
    """What the windows of a batch are said to show."""

    targets: Tensor
    """(N,) index of the label."""
    whole: Tensor
    """(N,) bool, whether the label holds only somewhere in it."""


@dataclass(frozen=True, slots=True)
class Course:
    """Who is taught what, and where it is written down."""

    dataset: Dataset
    teaching: NDArray[np.int64]
    """Indices of the clips that teach."""
    aside: NDArray[np.int64]
    """Indices of the clips that choose the best epoch; none where the epochs are known beforehand."""
    recipe: Recipe
    cache: Path
    checkpoints: Checkpoints
    console: Console
    lengths: Mapping[str, int] | None = None
    """Epochs of each stage where they are known beforehand; None: as long as it gets better, and the best counts."""

    @property
    def class_weights(self) -> Tensor:
        """(L,) weight of each label in the loss."""
        return class_weights(self.dataset.targets[self.teaching], len(self.dataset.labels)).to(best_device())

    def told(self, indices: NDArray[np.int64]) -> Told:
        """Return what some clips are said to show."""
        chosen = self.dataset.subset(indices.tolist())
        whole = torch.tensor([clip.whole for clip in chosen.clips])
        return Told(torch.from_numpy(chosen.targets).to(best_device()), whole.to(best_device()))

    def windows_aside(self, features: Sequence[NDArray[np.float32]]) -> JudgingWindows:
        """Return the windows of the clips aside, whose embeddings (S, D) are given."""
        return judging_windows(self.dataset, self.aside, features, self.recipe)

    def keeper(self, stage: str, learning: Learning, epochs: int) -> StageKeeper:
        """Return who keeps the stage's epochs and says when it ends."""
        if self.lengths is not None:
            return self.checkpoints.stage(
                f"{stage}-anew", learning, epochs=self.lengths[stage], patience=None, console=self.console
            )
        patience = self.recipe.patience_epochs if self.recipe.early_stopping else None
        return self.checkpoints.stage(stage, learning, epochs=epochs, patience=patience, console=self.console)


def best_device() -> torch.device:
    """Return the GPU where there is one, and the processor elsewhere."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def class_weights(targets: NDArray[np.int64], labels: int) -> Tensor:
    """Return one weight per label, so that every label weighs the same in the loss: (L,) float32."""
    counts = np.bincount(targets, minlength=labels).clip(min=1)
    return torch.from_numpy((len(targets) / (labels * counts)).astype(np.float32))


def train_head(model: EventModel, course: Course) -> list[EpochLoss]:
    """Train the head on embeddings of the frozen backbone."""
    recipe, clips = course.recipe, course.dataset.clips
    versions = [
        clip_features(model, clips, cache=course.cache, console=course.console, shown=shown, title=title)
        for title, shown in _versions(course, "Features")
    ]
    if recipe.standardise and not course.checkpoints.earlier.taught:
        model.head.standardise(torch.from_numpy(np.concatenate([versions[0][index] for index in course.teaching])))
    return teach_head(model.head, versions, course)


def teach_head(head: AttentionHead, versions: Sequence[list[NDArray[np.float32]]], course: Course) -> list[EpochLoss]:
    """Train a head on embeddings.

    Args:
        head: on the best device; holds the best epoch afterwards.
        versions: of the pictures, each with the embeddings (S, D) of every clip.
        course: who is taught what.
    """
    recipe, weights = course.recipe, course.class_weights
    optimiser = torch.optim.AdamW(_rates(head, recipe), weight_decay=recipe.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.frozen_epochs * _steps_an_epoch(course))
    aside = course.windows_aside([versions[0][index] for index in course.aside])
    learning = Learning(head, head, optimiser, schedule, np.random.default_rng(recipe.seed))
    keeper = course.keeper("head", learning, recipe.frozen_epochs)
    with progress_bar(course.console) as progress:
        task = progress.add_task("Training the head", total=keeper.planned, completed=keeper.done)
        for epoch in keeper.epochs():
            losses = []
            head.train()
            for indices in shuffled_batches(course.teaching, recipe.batch_windows, learning.rng):
                window = _moved(feature_batch(course.dataset, indices, versions, recipe, learning.rng))
                loss = _loss(head, window, course.told(indices), recipe, weights)
                losses.append(_step(optimiser, loss))
                schedule.step()
            keeper.tell(EpochLoss("head", epoch, float(np.mean(losses)), _loss_aside(head, aside, weights)))
            progress.advance(task)
    return keeper.restore()


def tune(model: EventModel, course: Course) -> list[EpochLoss]:
    """Train the head and the backbone's last stages: on maps of the frozen ones, or from the pictures where all learn.

    What is judged and kept is a running average of the weights and of the batch statistics: single steps of a
    small network trained from scratch swing too far.
    """
    recipe, weights = course.recipe, course.class_weights
    released = min(recipe.tuned_stages, len(model.stages()))
    model.freeze_backbone(released)
    parameters = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        [*_rates(model.head, recipe), {"params": parameters, "lr": recipe.backbone_rate}],
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.tuned_epochs)
    material = _pictures(model, course) if released == len(model.stages()) else _maps(model, course, released)
    average = deepcopy(model)
    learning = Learning(model, average, optimiser, schedule, np.random.default_rng(recipe.seed))
    keeper = course.keeper("whole", learning, recipe.tuned_epochs)
    with progress_bar(course.console) as progress:
        total, steps = (epochs * _steps_an_epoch(course) for epochs in (keeper.planned, keeper.done))
        task = progress.add_task("Training", total=total, completed=steps)
        for epoch in keeper.epochs():
            losses = []
            _set_training(model, released)
            for indices in shuffled_batches(course.teaching, recipe.batch_windows, learning.rng):
                inputs, mask = _moved(material.batch(indices, learning.rng))
                window = material.embed_batch(inputs, mask), mask
                loss = _loss(model.head, window, course.told(indices), recipe, weights)
                losses.append(_step(optimiser, loss))
                move_average(average, model, kept_share(recipe.averaging, steps))
                steps += 1
                progress.advance(task)
            schedule.step()
            aside = course.windows_aside([material.embed(average, index) for index in course.aside])
            keeper.tell(EpochLoss("whole", epoch, float(np.mean(losses)), _loss_aside(average.head, aside, weights)))
    history = keeper.restore()
    model.load_state_dict(average.state_dict())
    return history


@dataclass(frozen=True, slots=True)
class _Material:
    """What the backbone's learning stages are fed."""

    batch: Callable[[NDArray[np.int64], np.random.Generator], tuple[Tensor, Tensor]]
    """Makes a batch of some clips: (N, T, …) and mask (N, T)."""
    embed_batch: Callable[[Tensor, Tensor], Tensor]
    """Returns its embeddings (N, T, D) by the model that learns."""
    embed: Callable[[EventModel, int], NDArray[np.float32]]
    """Returns the embeddings (S, D) of one clip by a model."""


def _pictures(model: EventModel, course: Course) -> _Material:
    dataset = course.dataset
    return _Material(
        lambda indices, rng: picture_batch(dataset, indices, course.recipe, rng),
        lambda pictures, _: model.embed_windows(pictures),
        lambda judge, index: embed_samples(judge, dataset.clips[index].pictures),
    )


def _maps(model: EventModel, course: Course, released: int) -> _Material:
    recipe, dataset = course.recipe, course.dataset
    versions = [
        clip_maps(
            model,
            dataset.clips,
            released=released,
            cache=course.cache,
            console=course.console,
            shown=shown,
            title=title,
        )
        for title, shown in _versions(course, "Maps")
    ]
    slots = recipe.tuned_slots or recipe.window_slots
    return _Material(
        lambda indices, rng: feature_batch(dataset, indices, versions, recipe, rng, most_slots=slots),
        lambda maps, mask: model.late_windows(maps, mask, released),
        lambda judge, index: embed_maps(judge, versions[0][index], released=released),
    )


def _versions(course: Course, title: str) -> list[tuple[str, list[Change]]]:
    """Return how all clips are shown in training, version by version, each with a title."""
    shown = [changes(clip, course.recipe) for clip in course.dataset.clips]
    versions = [list(version) for version in zip(*shown, strict=True)]
    return [(f"{title} {number} of {len(versions)}", version) for number, version in enumerate(versions, start=1)]


def kept_share(most: float, steps: int) -> float:
    """Return how much of the running average a step keeps: less in the beginning, so that few steps leave it behind.

    As TensorFlow's `ExponentialMovingAverage` does with `num_updates`. Without, a small data set's average would still
    be much of the network that nobody had taught.

    Args:
        most: share in the long run.
        steps: that were taken before.
    """
    return min(most, (1 + steps) / (10 + steps))


@torch.no_grad()
def move_average(average: EventModel, model: EventModel, keeping: float) -> None:
    """Move the running average of weights and batch statistics one step towards the model."""
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1.0 - keeping)
        else:
            mean.copy_(value)


def _set_training(model: EventModel, released: int) -> None:
    """Put what learns into training mode; what is frozen, or came with weights, keeps its batch statistics."""
    model.train()
    stages = model.stages()
    learning_statistics = 0 if model.pretrained else released
    for stage in stages[: len(stages) - learning_statistics]:
        stage.eval()


def _steps_an_epoch(course: Course) -> int:
    return -(-len(course.teaching) // course.recipe.batch_windows)


def _rates(head: AttentionHead, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the head's parameters in the optimiser's groups: the classifier, and the attention with its norm."""
    classifier = list(head.classifier.parameters())
    attention = [*head.norm.parameters(), *head.first.parameters(), *head.second.parameters()]
    return [
        {"params": classifier, "lr": recipe.head_rate},
        {"params": attention, "lr": recipe.attention_rate or recipe.head_rate},
    ]


def _moved(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    inputs, mask = (part.to(best_device(), non_blocking=True) for part in batch)
    return inputs, mask


def _loss(head: AttentionHead, window: tuple[Tensor, Tensor], told: Told, recipe: Recipe, weights: Tensor) -> Tensor:
    """Return the loss of a batch, all of it on one device.

    Args:
        head: that learns.
        window: embeddings (N, T, D), and mask (N, T).
        told: of them.
        recipe: weighs the penalties of attention and classifier.
        weights: (L,) of each label.
    """
    embeddings, mask = window
    logits, attention = head(embeddings, mask)
    loss = nn.functional.cross_entropy(logits, told.targets, weight=weights)
    loss = loss + recipe.penalty_weight * attention_penalty(attention)
    loss = loss + recipe.classifier_penalty * head.classifier.weight.square().sum()
    if recipe.pointing_weight and told.whole.any():
        apart = pointing_penalty(attention, head.slot_logits(embeddings), mask, told.targets)
        loss = loss + recipe.pointing_weight * (apart * told.whole).mean()
    return loss


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def _loss_aside(head: AttentionHead, aside: JudgingWindows, weights: Tensor) -> float:
    """Return the cross-entropy of the clips aside, with the weights (L,) of the labels; NaN where there are none."""
    if not len(aside.targets):
        return float("nan")
    logits, targets = torch.from_numpy(aside.logits(head)), torch.from_numpy(aside.targets)
    return float(nn.functional.cross_entropy(logits, targets, weight=weights.cpu()))
