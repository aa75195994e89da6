"""A recipe: every number that makes a bundle out of a data set. Frozen; the shipped ones stand at the end."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from monitor.bundle import SampleShape
from monitor.errors import InputInvalid

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]


class Recipe(BaseModel):
    """How to sample, what to build and how to train it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    background: str = "normal"
    """The label that means "nothing happens"."""

    sample_fps: Annotated[float, Field(gt=0.0, le=60.0)] = 4.0
    window_slots: Count = 8
    """T."""
    stride_slots: Count = 2
    """Slots between two windows, live and in evaluation."""
    sample: SampleShape = SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=224, height_pixels=224)

    backbone: Literal["small", "efficientnet-lite0"] = "efficientnet-lite0"
    input_kind: Literal["picture", "difference"] = "difference"
    """What the backbone sees of a sample: the newest picture, or how neighbouring pictures differ."""
    input_scale: Annotated[float, Field(gt=0.0)] = 128.0
    """Grey levels that become 1.0 at the backbone's input."""
    input_deviations: Annotated[float, Field(gt=0.0)] | None = None
    """Of a sample's differences: so many times their root mean square become 1.0 instead, where that is more. Large
    figures close by and small ones far away, sharp and soft cameras, then look alike."""
    hops: Count = 4
    """R: rows of the attention."""
    attention_units: Count = 64
    """Rows of W1."""
    merge: Literal["flatten", "mean"] = "mean"
    """How the R rows of M reach the classifier: side by side, or their mean."""
    standardise: bool = False
    """Bring every float of the frozen backbone's embeddings to one centre and spread, taken from what teaches."""
    dropout: Share = 0.3
    penalty_weight: Annotated[float, Field(ge=0.0)] = 0.05
    """Weight of ‖AAᵀ − I‖²_F in the loss."""
    pointing_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight, in the loss, of how far the attention on a recording that is labelled as a whole is from the slots by
    which the classifier itself would know the label."""

    frozen_epochs: Annotated[int, Field(ge=0)] = 60
    """Epochs of the head alone on features of the frozen backbone."""
    tuned_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs of the head with the last `tuned_stages` of the backbone, afterwards."""
    tuned_stages: Annotated[int, Field(ge=0)] = 0
    """Stages of the backbone that learn, counted from its end; more than it has means all."""
    tuned_slots: Count | None = None
    """Slots of a window that are shown in a step of that, chosen at random; None: all. Their order does not count."""
    head_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    """Learning rate of the head (AdamW, falling as a cosine)."""
    attention_rate: Annotated[float, Field(gt=0.0)] | None = None
    """Of the head's attention, where it is to learn slower than the classifier; None: the same."""
    backbone_rate: Annotated[float, Field(gt=0.0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    classifier_penalty: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of ‖W‖² of the classifier in the loss, as in regression (AdamW's decay is no such thing)."""
    batch_windows: Count = 16
    averaging: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.98
    """How much of the running average of the weights each step keeps, while the backbone learns."""
    patience_epochs: Count = 12
    """Epochs without a better validation loss after which a stage ends."""
    early_stopping: bool = True
    """Keep a stage's best epoch by the groups kept aside; False: its last, where the learning rate has come to rest.
    Few groups choose an epoch by chance."""

    changed_copies: Annotated[int, Field(ge=0)] = 0
    """Copies of each clip, changed at random, that teach beside it where layers are frozen, which see each once; 0:
    only one, mirrored."""
    mirror: bool = True
    brightness: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Most that a training window's contrast is changed, as a share."""
    zoom: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Most that is cut off a training window's pictures, as a share of their width and height."""
    backwards_share: Share = 0.0
    """Of the changed windows that are shown backwards in time."""
    compressed_share: Share = 0.0
    """Of the changed windows that are compressed once more, as JPEG."""
    gap_share: Share = 0.1
    """Share of a training window's slots that are turned into gaps."""

    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Share of the groups kept for early stopping, temperature and thresholds."""
    false_alarm_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Share of validation windows without the label that may lie above its on-threshold."""
    refit: bool = False
    """Train anew on all groups once those kept aside have chosen epochs, temperature and thresholds."""
    seed: int = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        differs, pictures = self.input_kind == "difference", self.sample.pictures
        if differs and pictures < 2:
            raise ValueError("input_kind 'difference' needs a sample of at least 2 pictures")
        if differs and self.backbone == "efficientnet-lite0" and pictures not in {2, 4}:
            raise ValueError("efficientnet-lite0 has three channels: 2 pictures (colour) or 4 (three grey differences)")
        if self.frozen_epochs + self.tuned_epochs == 0:
            raise ValueError("frozen_epochs and tuned_epochs are both 0: nothing would be trained")
        return self


RECIPES = {
    "fight": Recipe(
        sample=SampleShape(pictures=4, context_spacing_seconds=1 / 15, width_pixels=192, height_pixels=192),
        input_scale=8.0,
        input_deviations=4.0,
        hops=16,
        standardise=True,
        dropout=0.0,
        frozen_epochs=15,
        early_stopping=False,
        attention_rate=1e-4,
        classifier_penalty=0.1,
        mirror=False,
        false_alarm_share=0.05,
        refit=True,
    ),
    "demo": Recipe(
        sample_fps=5.0,
        window_slots=10,
        stride_slots=2,
        sample=SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=128, height_pixels=72),
        backbone="small",
        input_scale=32.0,
        hops=2,
        attention_units=32,
        dropout=0.2,
        penalty_weight=0.02,
        frozen_epochs=0,
        tuned_epochs=12,
        tuned_stages=99,
        head_rate=2e-3,
        backbone_rate=2e-3,
        weight_decay=0.05,
        batch_windows=16,
        zoom=0.3,
        patience_epochs=5,
        false_alarm_share=0.002,
    ),
}


def find_recipe(name: str) -> Recipe:
    """Return a shipped recipe by its name.

    Raises:
        InputInvalid: there is no such recipe; the message lists them.
    """
    if name not in RECIPES:
        raise InputInvalid(f"recipe {name!r}", f"no such recipe; there are {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
