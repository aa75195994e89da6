"""What frozen layers make of clips, kept on disk: seen once, seen changed, and taken up by the layers that learn."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from models.augmentation import MIRRORED, UNCHANGED
from models.dataset import Clip
from models.entries import ClipEntry
from models.event_model import EventModel
from models.features import changes, clip_features, clip_maps, embed_maps
from models.recipe import Recipe
from monitor.bundle import SampleShape

CONSOLE = Console(file=StringIO())
RECIPE = Recipe(
    sample=SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=64, height_pixels=32),
    backbone="small",
    changed_copies=2,
)


def _clip(key: str = "a") -> Clip:
    pictures = np.random.default_rng(1).integers(0, 255, (20, 2, 32, 64, 3), dtype=np.uint8)
    return Clip(ClipEntry(Path("a.mp4"), "fight", group="a"), pictures, np.arange(20), key=key)


def _model() -> EventModel:
    torch.manual_seed(1)
    return EventModel(RECIPE, labels=2)


def test_a_clip_is_shown_as_it_is_and_changed_always_alike() -> None:
    shown = changes(_clip(), RECIPE)
    assert shown[0] == UNCHANGED
    assert len(set(shown)) == 3
    assert changes(_clip(), RECIPE) == shown
    assert changes(_clip("b"), RECIPE)[1:] != shown[1:]
    assert changes(_clip(), RECIPE.model_copy(update={"seed": 2}))[1:] != shown[1:]
    assert changes(_clip(), RECIPE.model_copy(update={"changed_copies": 0})) == [UNCHANGED, MIRRORED]
    assert changes(_clip(), RECIPE.model_copy(update={"mirror": False, "changed_copies": 0})) == [UNCHANGED]


def test_features_rest_on_disk_one_file_a_change(tmp_path: Path) -> None:
    model, clip = _model(), _clip()
    for shown in changes(clip, RECIPE):
        [first] = clip_features(model, [clip], cache=tmp_path, console=CONSOLE, shown=[shown])
        assert first.shape == (20, model.embedding_size)
        unread = replace(clip, pictures=np.zeros((0, 2, 32, 64, 3), np.uint8))
        [again] = clip_features(model, [unread], cache=tmp_path, console=CONSOLE, shown=[shown])
        np.testing.assert_array_equal(first, again)
    assert len(list(tmp_path.iterdir())) == 3


def test_mirrored_features_are_those_of_mirrored_pictures(tmp_path: Path) -> None:
    model, clip = _model(), _clip()
    flipped = replace(clip, pictures=clip.pictures[:, :, :, ::-1], key="flipped")
    [mirrored] = clip_features(model, [clip], cache=tmp_path, console=CONSOLE, shown=[MIRRORED])
    [expected] = clip_features(model, [flipped], cache=tmp_path, console=CONSOLE)
    np.testing.assert_array_equal(mirrored, expected)


def test_embeddings_of_kept_maps_are_those_of_the_pictures(tmp_path: Path) -> None:
    model, clip = _model(), _clip()
    [features] = clip_features(model, [clip], cache=tmp_path, console=CONSOLE)
    kept = {"cache": tmp_path, "console": CONSOLE, "shown": [UNCHANGED], "title": "Maps"}
    [maps] = clip_maps(model, [clip], released=2, **kept)  # type: ignore[arg-type]
    assert maps.dtype == np.float16
    np.testing.assert_allclose(embed_maps(model, maps, released=2), features, rtol=1e-2, atol=1e-2)
