"""Training: labelled clips and a recipe in, a bundle out.

In stages: first the head on the features of the frozen backbone, then the head with the backbone's last
stages (or all of a small one) from the pictures. Each stage keeps its best epoch by the loss on groups that
are kept aside; they also give temperature and thresholds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from models.augmentation import augment, drop_slots
from models.calibration import Calibration, calibrate
from models.card import Provenance
from models.checkpoints import Checkpoints, EpochLoss, Learning, Sides
from models.dataset import Clip, Dataset, DatasetInvalid, read_dataset
from models.event_model import AttentionHead, EventModel, attention_penalty
from models.export import export_bundle
from models.features import clip_features, embed_samples
from models.metrics import Measured, measure
from models.progress import progress_bar
from models.recipe import Recipe
from models.windows import WindowPlan, random_window, stride_windows
from monitor.bundle import NAME_PATTERN, Bundle
from monitor.errors import InputInvalid, Problem

NO_SIDES = Sides()


@dataclass(frozen=True, slots=True)
class Split:
    """Which clips teach and which are kept aside; no group is in both."""

    train: NDArray[np.int64]
    """Indices of clips."""
    validation: NDArray[np.int64]

    def sides(self, dataset: Dataset) -> Sides:
        """Return which groups are on which side."""
        taught, aside = (dataset.groups[indices].tolist() for indices in (self.train, self.validation))
        return Sides(frozenset(taught), frozenset(aside))


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model with what the groups kept aside say of it."""

    model: EventModel
    calibration: Calibration
    validation: Measured
    history: tuple[EpochLoss, ...]

    @torch.inference_mode()
    def judge(self, features: NDArray[np.float32], clip: Clip, recipe: Recipe) -> NDArray[np.float32]:
        """Return the mean probabilities (L,) of a clip's windows.

        Args:
            features: (S, D) embeddings of all the clip's samples.
            clip: says which of them lie in which slot.
            recipe: says how windows are cut.
        """
        plan = stride_windows(clip, recipe.window_slots, recipe.stride_slots)
        windows = torch.from_numpy(features[plan.samples] * plan.mask[:, :, None])
        logits, _ = self.model.head(windows, torch.from_numpy(plan.mask))
        mean: NDArray[np.float32] = torch.softmax(logits / self.calibration.temperature, dim=1).mean(dim=0).numpy()
        return mean


def run(
    data: Path,
    out: Path,
    *,
    recipe: Recipe,
    console: Console,
    cache: Path | None = None,
    skip_bad: bool = False,
    prefix: str = "",
    resume: bool = False,
    provenance: Provenance | None = None,
) -> Bundle:
    """Train on a data set and write the bundle; what `monitor train` does.

    Args:
        data: folder with a folder per label or `clips.csv`, or a CSV file.
        out: the bundle's folder; its name becomes the model's.
        recipe: every number of it.
        console: shows progress and figures.
        cache: folder for decoded samples, features and checkpoints; `.cache` inside `out` when None.
        skip_bad: leave out unusable clips instead of stopping.
        prefix: take only files whose name begins with it.
        resume: go on from the checkpoint that an interrupted run left, or, with other clips, from what the last run
            learned.
        provenance: what the card says of data, licence and command.

    Raises:
        DatasetInvalid: with every problem of the data set.
        InputInvalid: the data set is not there, `out` is no name for a model, or what is to be resumed is of
            another recipe or of other labels.
    """
    if not re.fullmatch(NAME_PATTERN, out.name):
        reason = "its name becomes the model's, and may hold a-z, 0-9, '.', '_' and '-', a letter or digit first"
        raise InputInvalid(out, reason)
    cache = cache or out / ".cache"
    dataset = read_dataset(data, recipe, cache=cache, console=console, skip_bad=skip_bad, prefix=prefix)
    checkpoints = cache / "checkpoints" / out.name
    trained = train(dataset, recipe, cache=cache, checkpoints=checkpoints, resume=resume, console=console)
    console.print(f"validation: {trained.validation}", highlight=False)
    return export_bundle(trained, dataset, recipe, out, provenance=provenance or Provenance(data=data.name))


def train(
    dataset: Dataset, recipe: Recipe, *, cache: Path, checkpoints: Path, console: Console, resume: bool = False
) -> Trained:
    """Train a model on a data set, keeping `validation_share` of its groups aside; on a GPU where there is one.

    Args:
        dataset: checked clips.
        recipe: every number of it.
        cache: folder for features.
        checkpoints: folder of this run; what lies there is removed, but for `resume`.
        console: shows progress and figures.
        resume: go on with the run that lies in `checkpoints`.

    Raises:
        DatasetInvalid: the groups do not allow a split in which both sides hold every label.
        InputInvalid: what is to be resumed is of another recipe or of other labels.
    """
    torch.manual_seed(recipe.seed)
    kept = Checkpoints.begin(checkpoints, dataset, recipe, resume=resume, console=console)
    split = split_groups(dataset, recipe.validation_share, seed=recipe.seed, earlier=kept.earlier)
    model = EventModel(recipe, len(dataset.labels))
    kept.load_start(model)
    model.to(best_device())
    history: list[EpochLoss] = []
    if recipe.frozen_epochs:
        history += _train_head(model, dataset, split, recipe, cache=cache, checkpoints=kept, console=console)
    if recipe.tuned_epochs:
        history += _tune(model, dataset, split, recipe, checkpoints=kept, console=console)
    kept.finish(model, split.sides(dataset))
    logits, targets, owners = _validation_logits(model, dataset, split, recipe)
    calibration = calibrate(logits, targets, dataset.labels, recipe)
    probabilities = _clip_probabilities(logits, owners, calibration.temperature)
    validation = dataset.subset(split.validation.tolist())
    measured = measure(probabilities, validation.targets, validation.groups, validation.labels)
    return Trained(model.cpu().eval(), calibration, measured, tuple(history))


def best_device() -> torch.device:
    """Return the GPU where there is one, and the processor elsewhere."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def split_groups(dataset: Dataset, validation_share: float, *, seed: int, earlier: Sides = NO_SIDES) -> Split:
    """Keep whole groups aside until every label has its share of clips there, and at most half of them.

    Args:
        dataset: checked clips.
        validation_share: of the clips of each label.
        seed: of the order in which groups are tried.
        earlier: sides on which groups have been already, and stay.

    Raises:
        DatasetInvalid: the groups are too few for that.
    """
    targets, groups = dataset.targets, dataset.groups
    labels = len(dataset.labels)
    totals = np.bincount(targets, minlength=labels)
    wanted = np.maximum(1.0, validation_share * totals)
    aside = np.isin(groups, sorted(earlier.aside))
    kept = np.bincount(targets[aside], minlength=labels)
    """Clips of each label that are aside."""
    free = sorted(set(groups.tolist()) - earlier.taught - earlier.aside)
    for group in np.random.default_rng(seed).permutation(np.array(free, np.str_)):
        brings = np.bincount(targets[groups == group], minlength=labels)
        helps = ((brings > 0) & (kept < wanted)).any()
        if helps and (kept + brings <= totals / 2).all():
            aside |= groups == group
            kept += brings
    poor = [label for label, count in zip(dataset.labels, kept, strict=True) if count == 0]
    if poor:
        reason = f"label {', '.join(poor)}: too few groups to keep some aside for validation"
        raise DatasetInvalid(dataset.path, [Problem("groups", reason)])
    return Split(train=np.flatnonzero(~aside), validation=np.flatnonzero(aside))


def class_weights(targets: NDArray[np.int64], labels: int) -> Tensor:
    """Return one weight per label, so that every label weighs the same in the loss: (L,) float32."""
    counts = np.bincount(targets, minlength=labels).clip(min=1)
    return torch.from_numpy((len(targets) / (labels * counts)).astype(np.float32))


def _train_head(
    model: EventModel,
    dataset: Dataset,
    split: Split,
    recipe: Recipe,
    *,
    cache: Path,
    checkpoints: Checkpoints,
    console: Console,
) -> list[EpochLoss]:
    """Train the head on features of the frozen backbone."""
    versions = [clip_features(model, dataset.clips, mirrored=False, cache=cache, console=console)]
    if recipe.mirror:
        versions.append(clip_features(model, dataset.clips, mirrored=True, cache=cache, console=console))
    weights = class_weights(dataset.targets[split.train], len(dataset.labels)).to(best_device())
    optimiser = torch.optim.AdamW(model.head.parameters(), lr=recipe.head_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.frozen_epochs)
    learning = Learning(model.head, model.head, optimiser, schedule, np.random.default_rng(recipe.seed))
    keeper = checkpoints.stage(
        "head", learning, epochs=recipe.frozen_epochs, patience=recipe.patience_epochs, console=console
    )
    with progress_bar(console) as progress:
        task = progress.add_task("Training the head", total=recipe.frozen_epochs, completed=keeper.done)
        for epoch in keeper.epochs():
            losses = []
            model.head.train()
            for indices in _batches(split.train, recipe.batch_windows, learning.rng):
                embeddings, mask = _feature_batch(dataset, indices, versions, recipe, learning.rng)
                loss = _loss(model.head, (embeddings, mask), _targets(dataset, indices), recipe, weights)
                losses.append(_step(optimiser, loss))
            schedule.step()
            kept_loss = _feature_loss(model.head, dataset, split, versions[0], recipe, weights)
            keeper.tell(EpochLoss("head", epoch, float(np.mean(losses)), kept_loss))
            progress.advance(task)
    return keeper.restore()


def _tune(
    model: EventModel, dataset: Dataset, split: Split, recipe: Recipe, *, checkpoints: Checkpoints, console: Console
) -> list[EpochLoss]:
    """Train the head and the backbone's last stages from the pictures.

    What is judged and kept is a running average of the weights and of the batch statistics: single steps of a
    small network trained from scratch swing too far.
    """
    model.freeze_backbone(recipe.tuned_stages)
    weights = class_weights(dataset.targets[split.train], len(dataset.labels)).to(best_device())
    released = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        [{"params": model.head.parameters(), "lr": recipe.head_rate}, {"params": released, "lr": recipe.backbone_rate}],
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.tuned_epochs)
    average = deepcopy(model)
    learning = Learning(model, average, optimiser, schedule, np.random.default_rng(recipe.seed))
    keeper = checkpoints.stage(
        "whole", learning, epochs=recipe.tuned_epochs, patience=recipe.patience_epochs, console=console
    )
    batches_an_epoch = -(-len(split.train) // recipe.batch_windows)
    with progress_bar(console) as progress:
        total = recipe.tuned_epochs * batches_an_epoch
        task = progress.add_task("Training", total=total, completed=keeper.done * batches_an_epoch)
        for epoch in keeper.epochs():
            losses = []
            _set_training(model, recipe)
            for indices in _batches(split.train, recipe.batch_windows, learning.rng):
                pictures, mask = _picture_batch(dataset, indices, recipe, learning.rng)
                loss = _loss(model, (pictures, mask), _targets(dataset, indices), recipe, weights)
                losses.append(_step(optimiser, loss))
                move_average(average, model, recipe.averaging)
                progress.advance(task)
            schedule.step()
            kept_loss = _picture_loss(average, dataset, split, recipe, weights)
            keeper.tell(EpochLoss("whole", epoch, float(np.mean(losses)), kept_loss))
    history = keeper.restore()
    model.load_state_dict(average.state_dict())
    return history


@torch.no_grad()
def move_average(average: EventModel, model: EventModel, keeping: float) -> None:
    """Move the running average of weights and batch statistics one step towards the model."""
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1.0 - keeping)
        else:
            mean.copy_(value)


def _set_training(model: EventModel, recipe: Recipe) -> None:
    """Put what learns into training mode; a frozen stage keeps its batch statistics."""
    model.train()
    stages = model.backbone.stages()  # type: ignore[operator]
    for stage in stages[: max(0, len(stages) - recipe.tuned_stages)]:
        stage.eval()


def _loss(module: nn.Module, window: tuple[Tensor, Tensor], targets: Tensor, recipe: Recipe, weights: Tensor) -> Tensor:
    """Return the loss of a batch, on the device of the weights.

    Args:
        module: the head or the whole model.
        window: embeddings or pictures (N, T, …), and mask (N, T).
        targets: (N,) index of the label.
        recipe: weighs the attention's penalty.
        weights: (L,) of each label.
    """
    inputs, mask = (part.to(weights.device, non_blocking=True) for part in window)
    logits, attention = module(inputs, mask)
    told = nn.functional.cross_entropy(logits, targets.to(weights.device), weight=weights)
    return told + recipe.penalty_weight * attention_penalty(attention)


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


def _batches(indices: NDArray[np.int64], size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    shuffled = rng.permutation(indices)
    for start in range(0, len(shuffled), size):
        yield shuffled[start : start + size]


def _targets(dataset: Dataset, indices: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(dataset.targets[indices])


def _feature_batch(
    dataset: Dataset,
    indices: NDArray[np.int64],
    versions: Sequence[list[NDArray[np.float32]]],
    recipe: Recipe,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Return one random window of each clip: embeddings (N, T, D) and mask (N, T)."""
    embeddings, masks = [], []
    for index in indices:
        plan = random_window(dataset.clips[index], recipe.window_slots, rng)
        features = versions[int(rng.integers(len(versions)))][index]
        mask = drop_slots(plan.mask[0], recipe.gap_share, rng)
        embeddings.append(features[plan.samples[0]] * mask[:, None])
        masks.append(mask)
    return torch.from_numpy(np.stack(embeddings)), torch.from_numpy(np.stack(masks))


def _picture_batch(
    dataset: Dataset, indices: NDArray[np.int64], recipe: Recipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return one random, changed window of each clip: pictures (N, T, K, H, W, 3) uint8 and mask (N, T)."""
    windows, masks = [], []
    for index in indices:
        clip = dataset.clips[index]
        plan = random_window(clip, recipe.window_slots, rng)
        windows.append(augment(clip.pictures[plan.samples[0]], recipe, rng))
        masks.append(drop_slots(plan.mask[0], recipe.gap_share, rng))
    return torch.from_numpy(np.stack(windows)), torch.from_numpy(np.stack(masks))


@torch.inference_mode()
def _feature_loss(
    head: AttentionHead,
    dataset: Dataset,
    split: Split,
    features: list[NDArray[np.float32]],
    recipe: Recipe,
    weights: Tensor,
) -> float:
    plans = _validation_plans(dataset, split, recipe)
    logits, targets, _ = _head_logits(head, dataset, plans, [features[index] for index in split.validation])
    return float(nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), weight=weights.cpu()))


def _picture_loss(model: EventModel, dataset: Dataset, split: Split, recipe: Recipe, weights: Tensor) -> float:
    logits, targets, _ = _validation_logits(model, dataset, split, recipe)
    return float(nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), weight=weights.cpu()))


def _validation_logits(
    model: EventModel, dataset: Dataset, split: Split, recipe: Recipe
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Return logits (W, L), targets (W,) and place of the clip among those kept aside (W,) of all windows."""
    features = [embed_samples(model, dataset.clips[index].pictures) for index in split.validation]
    return _head_logits(model.head, dataset, _validation_plans(dataset, split, recipe), features)


def _validation_plans(dataset: Dataset, split: Split, recipe: Recipe) -> list[tuple[int, WindowPlan]]:
    return [
        (int(index), stride_windows(dataset.clips[index], recipe.window_slots, recipe.stride_slots))
        for index in split.validation
    ]


@torch.inference_mode()
def _head_logits(
    head: AttentionHead,
    dataset: Dataset,
    plans: list[tuple[int, WindowPlan]],
    features: list[NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    head.eval()
    device = next(head.parameters()).device
    logits, targets, owners = [], [], []
    for place, ((index, plan), rows) in enumerate(zip(plans, features, strict=True)):
        windows = rows[plan.samples] * plan.mask[:, :, None]
        answer, _ = head(torch.from_numpy(windows).to(device), torch.from_numpy(plan.mask).to(device))
        logits.append(answer.cpu().numpy())
        targets += [int(dataset.targets[index])] * len(windows)
        owners += [place] * len(windows)
    return np.concatenate(logits), np.array(targets, np.int64), np.array(owners, np.int64)


def _clip_probabilities(
    logits: NDArray[np.float32], owners: NDArray[np.int64], temperature: float
) -> NDArray[np.float32]:
    """Return the mean probabilities (C, L) of each clip's windows."""
    probabilities = torch.softmax(torch.from_numpy(logits) / temperature, dim=1).numpy()
    means: NDArray[np.float32] = np.stack([probabilities[owners == clip].mean(axis=0) for clip in np.unique(owners)])
    return means
