"""The bundles that ship: whole, small, and what their cards say they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import models
from models.recipe import RECIPES, Recipe, find_recipe
from monitor.bundle import BACKBONE, CARD, MANIFEST, find_bundle, load_bundle, write_manifest
from monitor.errors import BundleInvalid, InputInvalid
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
    assert Recipe.model_validate(manifest.training["recipe"]) == recipe


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputInvalid, match=", ".join(sorted(RECIPES))):
        find_recipe("dance")


def one_percent(array: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(3).standard_normal(array.shape)
    return (array * (1 + 0.01 * noise)).astype(array.dtype)


def perturb(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim > 1 and array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(one_percent(array), tensor.name))


def swap_colours(graph: onnx.GraphProto) -> None:
    """Read the pictures as blue, green, red."""
    graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "swapped"))
    first = graph.node[0]
    given = first.input[0]
    first.input[0] = "as_bgr"
    graph.node.insert(0, helper.make_node("Gather", [given, "swapped"], ["as_bgr"], axis=4))


def scale_otherwise(graph: onnx.GraphProto) -> None:
    """Divide grey levels by 2 % more than they were taught."""
    division = next(node for node in graph.node if node.op_type == "Div")
    graph.initializer.append(numpy_helper.from_array(np.array(255 * 1.02, np.float32), "other_scale"))
    division.input[1] = "other_scale"


@pytest.mark.parametrize(
    ("name", "alter"),
    [
        ("demo", perturb),
        ("demo", swap_colours),
        ("demo", scale_otherwise),
        ("fight", perturb),  # it sees in grey: there are no colours to swap
        ("fight", scale_otherwise),
    ],
)
@pytest.mark.parametrize("preference", ["onnxruntime", "openvino"])
def test_a_shipped_bundle_that_was_altered_is_refused(name: str, preference, alter, tmp_path: Path) -> None:
    """Under a manifest that fits, so that the golden outputs alone can tell."""
    shipped = load_bundle(find_bundle(name, near=tmp_path))
    shutil.copytree(shipped.path, tmp_path / name)
    model = onnx.load(shipped.backbone_path)
    alter(model.graph)
    onnx.save(model, tmp_path / name / BACKBONE)
    bundle = write_manifest(tmp_path / name, shipped.manifest)
    with pytest.raises(BundleInvalid, match=r"does not reproduce golden.npz in fp32: .*embedding_error"):
        open_engine(bundle, preference=preference, threads=1)
