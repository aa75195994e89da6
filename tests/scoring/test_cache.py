from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitor.bundle import BACKBONE, Bundle
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Precision
from monitor.scoring.engine import doors_to, open_engine
from tests.scoring.bundles import TinyBundle, backbone_weights, perturbed

INT8 = Precision.INT8


@pytest.fixture
def cache(tiny_bundle: Bundle, tmp_path: Path) -> EngineCache:
    """With the bundle's own graph in the place of one in INT8: what is in it is not this file's business."""
    cache = EngineCache(tmp_path / "engines")
    cache.put_graph(tiny_bundle, "openvino", INT8, tiny_bundle.backbone_path.read_bytes(), {"made_by": {"nncf": "3"}})
    return cache


def record_of(path: Path) -> Path:
    return path.with_suffix(".json")


def test_what_was_put_is_found_with_its_record(cache: EngineCache, tiny_bundle: Bundle) -> None:
    path = cache.graph(tiny_bundle, "openvino", INT8)
    assert path is not None
    record = json.loads(record_of(path).read_text())
    assert record["source_sha256"] == tiny_bundle.manifest.files[BACKBONE]
    assert record["made_by"] == {"nncf": "3"}


def test_nothing_is_found_of_another_engine_precision_or_backbone(cache, tiny_bundle, tmp_path) -> None:
    assert cache.graph(tiny_bundle, "onnxruntime", INT8) is None
    assert cache.graph(tiny_bundle, "openvino", Precision.FP16) is None
    other = TinyBundle(backbone=perturbed(backbone_weights(), lambda array: array * 2)).write(
        tmp_path / "b", golden=True
    )
    assert cache.folder(other) != cache.folder(tiny_bundle)
    assert cache.graph(other, "openvino", INT8) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.unlink(),
        lambda path: record_of(path).write_text("{"),
        lambda path: record_of(path).write_text("[]"),
        lambda path: record_of(path).write_text(record_of(path).read_text().replace('"format": 1', '"format": 0')),
        lambda path: record_of(path).write_text(
            record_of(path).read_text().replace('"source_sha256": "', '"source_sha256": "0')
        ),
    ],
    ids=["cut", "gone", "half a record", "no record", "older format", "of another backbone"],
)
def test_a_stale_or_foreign_graph_is_not_there(cache: EngineCache, tiny_bundle: Bundle, spoil) -> None:
    path = cache.graph(tiny_bundle, "openvino", INT8)
    assert path is not None
    spoil(path)
    assert cache.graph(tiny_bundle, "openvino", INT8) is None


def test_a_removed_graph_is_gone(cache: EngineCache, tiny_bundle: Bundle) -> None:
    cache.remove_graph(tiny_bundle, "openvino", INT8)
    assert cache.graph(tiny_bundle, "openvino", INT8) is None


def test_library_folder_is_keyed_by_version_and_machine(cache: EngineCache, tiny_bundle: Bundle) -> None:
    traits = [("1", "a"), ("1", "b"), ("2", "a"), ("1a",)]
    assert len({cache.library_folder(tiny_bundle, "openvino", *each) for each in traits}) == len(traits)


def test_without_compiling_no_file_is_left(tiny_bundle: Bundle, tmp_path: Path) -> None:
    doors = doors_to(EngineCache(tmp_path / "engines"))
    open_engine(tiny_bundle, preference="auto", threads=1, doors=doors).engine.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preference", ["openvino", "onnxruntime", "auto"])
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_what_was_not_compiled_falls_back_with_one_line(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preference, precision
) -> None:
    monkeypatch.setattr("monitor.scoring.openvino._capabilities", lambda: ("FP32",))  # some processors have FP16
    doors = doors_to(EngineCache(tmp_path))
    opened = open_engine(tiny_bundle, preference=preference, threads=1, precision=precision, doors=doors)
    assert opened.engine.precision == "fp32"
    named = f"{opened.engine.name} {precision}"
    reasons = [skipped.reason for skipped in opened.skipped if skipped.engine == named]
    assert len(reasons) == 1
    assert "not compiled" in reasons[0] or "does not run" in reasons[0]
    opened.engine.close()


def test_a_compiled_graph_that_misses_the_golden_outputs_does_not_serve(tiny_bundle: Bundle, tmp_path: Path) -> None:
    wrong = TinyBundle(channels=(2, 1, 0)).write(tmp_path / "wrong", golden=True)
    cache = EngineCache(tmp_path / "engines")
    cache.put_graph(tiny_bundle, "openvino", INT8, wrong.backbone_path.read_bytes(), {})
    opened = open_engine(tiny_bundle, preference="openvino", threads=1, precision="int8", doors=doors_to(cache))
    assert opened.engine.precision == "fp32"
    [skipped] = opened.skipped
    assert (skipped.engine, skipped.expected) == ("openvino int8", False)
    assert "does not reproduce golden.npz in int8" in skipped.reason
    opened.engine.close()


def test_openvino_keeps_its_compiled_models_beside(cache: EngineCache, tiny_bundle: Bundle) -> None:
    """A second start loads them: no file is added or written anew."""
    kept, loaded = [], []
    for _ in range(2):
        opened = open_engine(tiny_bundle, preference="openvino", threads=1, precision="int8", doors=doors_to(cache))
        assert opened.engine.precision == "int8"
        loaded.append(opened.engine._side_by_side[0].get_compiled_model().get_property("LOADED_FROM_CACHE"))
        opened.engine.close()
        blobs = cache.folder(tiny_bundle).glob("openvino-*/*.blob")
        kept.append({path: path.stat().st_mtime_ns for path in blobs})
    assert kept[0]
    assert kept[0] == kept[1]
    assert loaded[-1]


def test_a_record_that_goes_while_records_are_read_is_left_out(cache: EngineCache, tiny_bundle: Bundle) -> None:
    (cache.folder(tiny_bundle) / "onnxruntime-int8.json").symlink_to("gone")
    assert list(cache.records(tiny_bundle)) == ["openvino-int8.json"]
