"""The bundles that ship: whole, small, and what their cards say they are."""

from __future__ import annotations

from pathlib import Path

import pytest

import models
from models.recipe import RECIPES, find_recipe
from monitor.bundle import CARD, MANIFEST, find_bundle, load_bundle
from monitor.errors import InputInvalid
from monitor.scoring.engine import open_engine

SHIPPED = sorted(Path(models.__file__).parent.glob(f"bundles/*/{MANIFEST}"))


def test_both_bundles_ship() -> None:
    assert [manifest.parent.name for manifest in SHIPPED] == ["demo", "fight"]


@pytest.mark.parametrize("name", ["demo", "fight"])
def test_a_shipped_bundle_gives_its_golden_outputs(name: str, tmp_path: Path) -> None:
    bundle = load_bundle(find_bundle(name, near=tmp_path))
    for preference in ("onnxruntime", "openvino"):
        opened = open_engine(bundle, preference=preference, threads=1)
        assert not opened.parity.complaints
        opened.engine.close()


@pytest.mark.parametrize("name", ["demo", "fight"])
def test_a_shipped_bundle_is_small_and_tells_where_it_comes_from(name: str, tmp_path: Path) -> None:
    bundle = load_bundle(find_bundle(name, near=tmp_path))
    assert all(path.stat().st_size < 20_000_000 for path in bundle.path.iterdir())
    card = (bundle.path / CARD).read_text(encoding="utf-8")
    assert f"python -m models.shipped {name}" in card
    for text in (card, (bundle.path / MANIFEST).read_text(encoding="utf-8")):
        assert "/work" not in text
        assert "/tmp" not in text
        assert "/home" not in text


@pytest.mark.parametrize("name", ["demo", "fight"])
def test_a_shipped_bundle_samples_as_its_recipe_says(name: str, tmp_path: Path) -> None:
    manifest, recipe = load_bundle(find_bundle(name, near=tmp_path)).manifest, find_recipe(name)
    assert (manifest.sample_fps, manifest.window_slots, manifest.stride_slots) == (
        recipe.sample_fps,
        recipe.window_slots,
        recipe.stride_slots,
    )
    assert manifest.sample == recipe.sample
    assert manifest.training["recipe"] == recipe.model_dump(mode="json")


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputInvalid, match=", ".join(sorted(RECIPES))):
        find_recipe("dance")
