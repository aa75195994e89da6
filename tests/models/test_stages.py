"""What teaches and how: batches of clips and whole recordings, attention that finds the event, training anew."""

from __future__ import annotations

import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from models.batches import feature_batch, picture_batch
from models.checkpoints import Checkpoints
from models.dataset import Clip, Dataset
from models.entries import ClipEntry
from models.event_model import AttentionHead
from models.recipe import Recipe
from models.stages import Course, kept_share, teach_head
from models.verdicts import judging_plan
from models.windows import whole_window
from monitor.bundle import SampleShape

CONSOLE = Console(file=StringIO())
SIZE = 12
RECIPE = Recipe(
    sample=SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=32, height_pixels=32),
    backbone="small",
    window_slots=6,
    hops=2,
    attention_units=8,
    frozen_epochs=12,
    head_rate=3e-2,
    penalty_weight=0.0,
    gap_share=0.0,
    mirror=False,
)


def _clip(number: int, label: str, slots: int, *, whole: bool) -> Clip:
    entry = ClipEntry(Path(f"{number}.mp4"), label, group=str(number))
    pictures = np.full((slots, 2, 32, 32, 3), 10, np.uint8)
    return Clip(entry, pictures, np.arange(slots), key=str(number), whole=whole)


def _dataset(*clips: Clip) -> Dataset:
    return Dataset(Path("drawn"), ("normal", "fight"), clips)


def _recordings(count: int, *, seed: int) -> tuple[Dataset, list[NDArray[np.float32]], NDArray[np.bool_]]:
    """Return recordings of 40 slots, in every second of which one float is high for 4 slots: (count, 40) True there."""
    rng = np.random.default_rng(seed)
    inside = np.zeros((count, 40), np.bool_)
    for row in inside[1::2]:
        start = rng.integers(36)
        row[start : start + 4] = True
    features = [rng.normal(size=(40, SIZE)).astype(np.float32) for _ in range(count)]
    for rows, event in zip(features, inside, strict=True):
        rows[event, 3] += 5.0
    labels = ["fight" if event.any() else "normal" for event in inside]
    clips = [_clip(number, label, 40, whole=True) for number, label in enumerate(labels)]
    return _dataset(*clips), features, inside


def _course(dataset: Dataset, folder: Path, *, aside: int) -> Course:
    checkpoints = Checkpoints.begin(folder, dataset, RECIPE, resume=False, console=CONSOLE)
    everyone = np.arange(len(dataset.clips))
    return Course(dataset, everyone[:-aside], everyone[-aside:], RECIPE, folder, checkpoints, CONSOLE)


def _head() -> AttentionHead:
    torch.manual_seed(1)
    return AttentionHead(SIZE, hops=2, units=8, labels=2, merge="mean")


def test_a_whole_recording_is_one_long_window_beside_those_of_clips() -> None:
    dataset = _dataset(_clip(0, "fight", 30, whole=True), _clip(1, "normal", 9, whole=False))
    features = [np.ones((30, SIZE), np.float32), np.ones((9, SIZE), np.float32)]
    embeddings, mask = feature_batch(dataset, np.array([0, 1]), [features], RECIPE, np.random.default_rng(0))
    assert embeddings.shape == (2, 30, SIZE)
    assert mask.sum(dim=1).tolist() == [30, 6]
    assert (embeddings[1, 6:] == 0.0).all()


def test_from_the_pictures_a_whole_recording_is_thinned() -> None:
    dataset = _dataset(_clip(0, "fight", 90, whole=True), _clip(1, "normal", 9, whole=False))
    pictures, mask = picture_batch(dataset, np.array([0, 1]), RECIPE, np.random.default_rng(0))
    assert pictures.shape == (2, 24, 2, 32, 32, 3)
    assert mask.sum(dim=1).tolist() == [24, 6]


def test_thinning_keeps_the_order_and_repeats_nothing() -> None:
    plan = whole_window(_clip(0, "fight", 50, whole=True), 20, np.random.default_rng(3))
    assert plan.samples.shape == (1, 20)
    assert (np.diff(plan.samples[0]) > 0).all()


def test_a_step_may_show_a_few_slots_of_a_window() -> None:
    dataset = _dataset(_clip(0, "fight", 30, whole=True), _clip(1, "normal", 9, whole=False))
    maps = [np.ones((30, 4, 2, 2), np.float16), np.ones((9, 4, 2, 2), np.float16)]
    recipe = RECIPE.model_copy(update={"gap_share": 0.4})
    rows, mask = feature_batch(dataset, np.array([0, 1]), [maps], recipe, np.random.default_rng(0), most_slots=4)
    assert (rows.shape, rows.dtype) == ((2, 4, 4, 2, 2), torch.float32)
    assert 2 <= mask.sum() < 8
    assert ((rows == 1.0).flatten(2).all(dim=2) == mask).all()


def test_a_clip_is_judged_by_live_windows_and_a_whole_recording_as_one() -> None:
    assert judging_plan(_clip(0, "normal", 20, whole=True), RECIPE).mask.shape == (1, 20)
    assert judging_plan(_clip(0, "fight", 20, whole=False), RECIPE).mask.shape == (8, 6)


def test_attention_finds_the_event_in_recordings_labelled_as_a_whole(tmp_path: Path) -> None:
    dataset, features, _ = _recordings(200, seed=1)
    head = _head()
    teach_head(head, [features], _course(dataset, tmp_path, aside=20))
    _, unseen, inside = _recordings(40, seed=2)
    with torch.inference_mode():
        logits, attention = head.eval()(torch.from_numpy(np.stack(unseen)), torch.ones(40, 40, dtype=torch.bool))
    events = inside.any(axis=1)
    assert ((logits.argmax(dim=1).numpy() == 1) == events).mean() >= 0.9
    most_attended = attention.mean(dim=1).argmax(dim=1).numpy()
    assert inside[np.arange(40), most_attended][events].mean() >= 0.9


def test_where_a_recording_is_labelled_as_a_whole_the_attention_follows_the_classifier(tmp_path: Path) -> None:
    alone, pointing = (_attended_inside(tmp_path / str(weight), weight, whole=True) for weight in (0.0, 1.0))
    assert pointing > 1.5 * alone


def test_in_a_clip_the_label_holds_throughout_and_the_attention_has_nothing_to_follow(tmp_path: Path) -> None:
    alone, pointing = (_attended_inside(tmp_path / str(weight), weight, whole=False) for weight in (0.0, 1.0))
    assert pointing == alone


def _attended_inside(folder: Path, weight: float, *, whole: bool) -> float:
    """Return the mean share of the attention inside the events of recordings that teach."""
    dataset, features, inside = _recordings(60, seed=1)
    taught = replace(dataset, clips=tuple(replace(clip, whole=whole) for clip in dataset.clips))
    recipe = RECIPE.model_copy(update={"pointing_weight": weight, "early_stopping": False})
    head = _head()
    teach_head(head, [features], replace(_course(taught, folder, aside=10), recipe=recipe))
    with torch.inference_mode():
        _, attention = head.eval()(torch.from_numpy(np.stack(features)), torch.ones(60, 40, dtype=torch.bool))
    return float((attention.mean(dim=1).numpy() * inside).sum(axis=1)[1::2].mean())


def test_a_stage_of_known_length_ends_with_its_last_epoch(tmp_path: Path) -> None:
    dataset, features, _ = _recordings(20, seed=1)
    course = replace(_course(dataset, tmp_path, aside=4), lengths={"head": 3})
    head = _head()
    history = teach_head(head, [features], course)
    assert [loss.epoch for loss in history] == [1, 2, 3]
    last = torch.load(tmp_path / "head-anew" / "epoch003.pt", weights_only=True)
    torch.testing.assert_close(head.state_dict(), last)


def test_who_judges_an_epoch_changes_nothing_of_what_is_learned(tmp_path: Path) -> None:
    dataset, features, _ = _recordings(20, seed=1)
    course = replace(_course(dataset, tmp_path, aside=4), lengths={"head": 2})
    judged, unjudged = _head(), _head()
    assert all(loss.validation_loss > 0.0 for loss in teach_head(judged, [features], course))
    shutil.rmtree(tmp_path / "head-anew")
    nobody = replace(course, aside=np.arange(0))
    assert all(np.isnan(loss.validation_loss) for loss in teach_head(unjudged, [features], nobody))
    torch.testing.assert_close(unjudged.state_dict(), judged.state_dict(), rtol=0, atol=0)


def test_standardising_centres_every_float_and_evens_out_their_spread() -> None:
    head = _head()
    embeddings = torch.randn(500, SIZE) * torch.linspace(0.5, 9.0, SIZE) + 4.0
    head.standardise(embeddings)
    even = (embeddings - head.centre) / head.spread
    torch.testing.assert_close(even.mean(dim=0), torch.zeros(SIZE), atol=1e-4, rtol=0.0)
    assert even.std(dim=0).tolist() == pytest.approx([1.0] * SIZE, abs=0.03)


def test_without_early_stopping_the_last_epoch_counts(tmp_path: Path) -> None:
    dataset, features, _ = _recordings(20, seed=1)
    course = _course(dataset, tmp_path, aside=4)
    recipe = RECIPE.model_copy(update={"frozen_epochs": 4, "patience_epochs": 1, "early_stopping": False})
    head = _head()
    assert len(teach_head(head, [features], replace(course, recipe=recipe))) == 4
    last = torch.load(tmp_path / "head" / "epoch004.pt", weights_only=True)
    torch.testing.assert_close(head.state_dict(), last)


def test_the_classifier_pays_for_its_weights(tmp_path: Path) -> None:
    heads = [_taught(tmp_path / str(penalty), classifier_penalty=penalty) for penalty in (0.0, 0.3)]
    free, bound = (float(head.classifier.weight.detach().norm()) for head in heads)
    assert bound < free / 2.0


def test_the_attention_may_learn_slower_than_the_classifier(tmp_path: Path) -> None:
    begun, slow, fast = _head(), _taught(tmp_path / "slow", attention_rate=1e-6), _taught(tmp_path / "fast")
    for name, value in begun.named_parameters():
        moved = [float((dict(head.named_parameters())[name] - value).detach().abs().max()) for head in (slow, fast)]
        assert moved[1] > 1e-2
        assert (moved[0] < 1e-4) == (not name.startswith("classifier"))


def test_the_learning_rate_falls_step_by_step(tmp_path: Path) -> None:
    """One epoch alone has to come to rest too: after the last step nothing is left of the rate."""
    _taught(tmp_path, frozen_epochs=1, batch_windows=4)
    state = torch.load(tmp_path / "head" / "state.pt", weights_only=True)
    assert [group["lr"] for group in state["optimiser"]["param_groups"]] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert state["schedule"]["last_epoch"] == 4, "16 recordings that teach, 4 in a step"


def _taught(folder: Path, **changes: float) -> AttentionHead:
    """Return a head that few recordings taught, by the recipe with some changes."""
    dataset, features, _ = _recordings(20, seed=1)
    course = _course(dataset, folder, aside=4)
    head = _head()
    teach_head(head, [features], replace(course, recipe=RECIPE.model_copy(update={"early_stopping": False, **changes})))
    return head


def test_the_average_forgets_the_beginning_soon_and_the_rest_slowly() -> None:
    shares = [kept_share(0.98, steps) for steps in range(1000)]
    assert shares[0] == 0.1
    assert shares == sorted(shares)
    assert shares[-1] == 0.98
    assert np.prod(shares[:60]) < 1e-6, "of a network that nobody had taught, nothing is left after few steps"
