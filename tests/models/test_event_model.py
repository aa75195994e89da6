"""The event model's formulas, held against values computed by hand and by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.event_model import (
    AttentionHead,
    EventModel,
    InputPicture,
    SmallBackbone,
    attention_penalty,
    pointing_penalty,
)
from models.recipe import RECIPES, Recipe
from monitor.bundle import SampleShape


def _head(**changes: object) -> AttentionHead:
    torch.manual_seed(0)
    options = {"hops": 3, "units": 5, "labels": 2} | changes
    return AttentionHead(8, **options).eval()  # type: ignore[arg-type]


def test_attention_follows_the_formula() -> None:
    head = _head()
    rows = torch.randn(1, 4, 8)
    attention = head.attend(rows, torch.ones(1, 4, dtype=torch.bool))[0].detach().numpy()
    first, second = head.first.weight.detach().numpy(), head.second.weight.detach().numpy()
    scores = second @ np.tanh(first @ rows[0].numpy().T)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(attention, expected, rtol=1e-5)


def test_attention_sums_to_one_over_what_is_there_and_gaps_weigh_nothing() -> None:
    head = _head()
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    _, attention = head(torch.randn(2, 5, 8), mask)
    assert attention.shape == (2, 3, 5)
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(2, 3))
    assert (attention[0, :, [1, 4]] == 0.0).all()


def test_what_lies_in_a_gap_changes_nothing() -> None:
    head = _head()
    rows = torch.randn(1, 5, 8)
    mask = torch.tensor([[True, True, False, True, True]])
    other = rows.clone()
    other[0, 2] = 100.0
    torch.testing.assert_close(head(rows, mask), head(other, mask))


def test_a_window_of_gaps_gives_numbers() -> None:
    logits, attention = _head()(torch.zeros(1, 4, 8), torch.zeros(1, 4, dtype=torch.bool))
    assert torch.isfinite(logits).all()
    assert (attention == 0.0).all()


def test_the_order_of_the_slots_does_not_change_the_logits() -> None:
    head, rows, mask = _head(), torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool)
    torch.testing.assert_close(head(rows, mask)[0], head(rows.flip(1), mask)[0])


def test_penalty_by_hand() -> None:
    # A Aᵀ = [[0.5, 0.5], [0.5, 1.0]], less I = [[-0.5, 0.5], [0.5, 0.0]]: squares sum to 0.75.
    attention = torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]])
    assert float(attention_penalty(attention)) == pytest.approx(0.75)


def test_penalty_is_zero_for_hops_that_each_look_at_a_slot_of_their_own() -> None:
    assert float(attention_penalty(torch.eye(3)[None, :2])) == pytest.approx(0.0)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_the_attention_is_to_point_where_a_slot_alone_would_tell_the_label(target: int) -> None:
    slots = torch.randn(1, 5, 3) * 2.0
    mask = torch.tensor([[True, True, False, True, True]])
    label = (slots[0, :, target] - slots[0].mean(dim=1)).numpy().astype(np.float64)
    if target == 0:
        label = -label  # of "nothing happens": where it looks most as if something did
    expected = np.exp(label) * mask[0].numpy()
    expected /= expected.sum()
    hops = torch.zeros(1, 2, 5, requires_grad=True)
    attention = torch.softmax(hops.masked_fill(~mask[:, None], -torch.inf), dim=2)
    pointing_penalty(attention, slots, mask, torch.tensor([target])).backward()
    torch.testing.assert_close(hops.grad[0, 0], torch.tensor(0.5 * (np.where(mask[0], 0.25, 0.0) - expected)).float())


def test_pointing_teaches_the_attention_and_not_the_classifier() -> None:
    head, rows, mask = _head(), torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    pointing_penalty(head(rows, mask)[1], head.slot_logits(rows), mask, torch.tensor([0, 1])).sum().backward()
    assert head.second.weight.grad is not None
    assert head.classifier.weight.grad is None


@pytest.mark.parametrize("merge", ["flatten", "mean"])
def test_a_slot_alone_is_judged_as_a_window_of_nothing_else(merge: str) -> None:
    head, rows = _head(merge=merge), torch.randn(2, 4, 8)
    for slot in range(4):
        alone = torch.zeros(2, 4, dtype=torch.bool)
        alone[:, slot] = True
        torch.testing.assert_close(head.slot_logits(rows)[:, slot], head(rows, alone)[0])


@pytest.mark.parametrize(("merge", "inputs"), [("flatten", 24), ("mean", 8)])
def test_the_classifier_reads_the_rows_side_by_side_or_their_mean(merge: str, inputs: int) -> None:
    head = _head(merge=merge)
    assert head.classifier.in_features == inputs
    assert head(torch.randn(2, 4, 8), torch.ones(2, 4, dtype=torch.bool))[0].shape == (2, 2)


def test_a_penalised_classifier_begins_at_zero() -> None:
    free, penalised = (RECIPES["demo"].model_copy(update={"classifier_penalty": weight}) for weight in (0.0, 0.1))
    assert EventModel(free, labels=2).head.classifier.weight.abs().max() > 0.0
    assert EventModel(penalised, labels=2).head.classifier.weight.abs().max() == 0.0


def test_a_difference_is_newest_less_previous() -> None:
    pictures = torch.zeros(1, 2, 4, 6, 3, dtype=torch.uint8)
    pictures[0, 0], pictures[0, 1] = 200, 40
    image = InputPicture("difference", 2, scale=32.0)(pictures)
    assert image.shape == (1, 3, 4, 6)
    assert (image == -5.0).all()


def test_four_pictures_make_three_grey_differences_oldest_first() -> None:
    pictures = torch.zeros(1, 4, 2, 2, 3, dtype=torch.uint8)
    for place, level in enumerate((0, 10, 30, 60)):
        pictures[0, place] = level
    image = InputPicture("difference", 4, scale=1.0)(pictures)
    assert image[0, :, 0, 0].tolist() == [10.0, 20.0, 30.0]


def test_a_still_camera_gives_a_difference_of_nothing() -> None:
    still = torch.randint(0, 255, (1, 1, 4, 4, 3), dtype=torch.uint8).expand(1, 2, 4, 4, 3)
    assert (InputPicture("difference", 2, scale=32.0)(still) == 0.0).all()


def test_differences_are_measured_by_their_own_strength_down_to_that_of_noise() -> None:
    pictures = torch.zeros(3, 4, 8, 8, 3, dtype=torch.uint8)
    for sample, step in enumerate((40, 20, 1)):
        pictures[sample, :, :4] = torch.arange(4, dtype=torch.uint8)[:, None, None, None] * step
    strong, weak, noise = InputPicture("difference", 4, scale=8.0, deviations=4.0)(pictures)
    torch.testing.assert_close(strong, weak)
    assert float(strong.square().mean().sqrt()) == pytest.approx(1 / 4)
    assert noise.unique().tolist() == [0.0, 1 / 8], "4 x 0.7 grey levels are less than the scale"


def test_picture_input_takes_the_newest() -> None:
    pictures = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
    pictures[0, 1] = 255
    assert (InputPicture("picture", 2, scale=128.0)(pictures) == 1.0).all()


def test_shapes_from_pictures_to_answer() -> None:
    recipe = RECIPES["demo"]
    model = EventModel(recipe, labels=3).eval()
    shape = recipe.sample
    pictures = torch.zeros((2, recipe.window_slots, 2, shape.height_pixels, shape.width_pixels, 3), dtype=torch.uint8)
    logits, attention = model(pictures, torch.ones(2, recipe.window_slots, dtype=torch.bool))
    assert logits.shape == (2, 3)
    assert attention.shape == (2, recipe.hops, recipe.window_slots)


def test_only_the_last_stages_learn() -> None:
    model = EventModel(RECIPES["demo"], labels=2)
    model.freeze_backbone(1)
    stages = SmallBackbone.stages(model.backbone)  # type: ignore[arg-type]
    learns = [all(parameter.requires_grad for parameter in stage.parameters()) for stage in stages]
    assert learns == [False] * (len(stages) - 1) + [True]


def test_a_difference_of_one_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 pictures"):
        Recipe(sample=SampleShape(pictures=1, context_spacing_seconds=0.0, width_pixels=32, height_pixels=32))


@pytest.mark.parametrize(("backbone", "stages"), [("small", 5), ("efficientnet-lite0", 18)])
def test_the_late_part_goes_on_where_the_early_one_ended(backbone: str, stages: int) -> None:
    shape = SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=64, height_pixels=64)
    recipe = Recipe.model_validate({"sample": shape, "backbone": backbone})
    model = EventModel(recipe, labels=2).eval()
    pictures = torch.randint(0, 255, (2, 3, 2, 64, 64, 3), dtype=torch.uint8)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert len(model.stages()) == stages
    with torch.inference_mode():
        logits, attention = model(pictures, mask)
        for released in (0, 2, stages):
            maps = model.early(pictures.flatten(0, 1), released)
            torch.testing.assert_close(model.late(maps, released), model.embed(pictures.flatten(0, 1)))
            windows = model.late_windows(maps.unflatten(0, (2, 3)), mask, released)
            torch.testing.assert_close(model.head(windows, mask), (logits, attention))
