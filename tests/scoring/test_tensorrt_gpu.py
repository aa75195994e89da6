"""TensorRT on a real GPU: `make test-gpu`. The bundle's golden outputs decide, as they do in production."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from models.half import to_half
from models.scenes.clips import plan_clips, write_clips
from monitor.bundle import Bundle, find_bundle, load_bundle
from monitor.errors import EngineUnavailable
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Precision
from monitor.scoring.engine import check_golden, doors_to, open_checked, open_engine
from monitor.scoring.tensorrt import TensorRtDoor

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]
BATCH = 4


@pytest.fixture(scope="module", params=["demo", "fight"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return load_bundle(find_bundle(request.param, Path.cwd()))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="module")
def door(cache: EngineCache) -> TensorRtDoor:
    return TensorRtDoor(cache, max_batch=BATCH)


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Iterator[object]:
    with closing(open_engine(bundle, preference="onnxruntime", threads=2, precision="fp32").engine) as engine:
        yield engine


def test_fp32_reproduces_the_golden_outputs(door: TensorRtDoor, bundle: Bundle) -> None:
    with closing(open_checked(door, bundle, Precision.FP32, threads=1).engine) as engine:
        for _ in range(4):  # the third run of a batch size is a CUDA graph
            assert check_golden(engine, bundle).complaints == ()


def test_fp16_reproduces_the_golden_outputs(door: TensorRtDoor, bundle: Bundle, cache: EngineCache) -> None:
    cache.put_graph(bundle, "tensorrt", Precision.FP16, to_half(bundle).SerializeToString(), {})
    assert Precision.FP16 in door.precisions(bundle)
    with closing(open_checked(door, bundle, Precision.FP16, threads=1).engine) as engine:
        for _ in range(4):
            assert check_golden(engine, bundle).complaints == ()


def test_int8_is_compiled_reported_and_serves(tmp_path: Path) -> None:
    clips, engines = tmp_path / "clips", tmp_path / "engines"
    list(write_clips(clips, plan_clips(8, seed=5)))
    command = [sys.executable, "-m", "monitor", "compile", "demo", "--engine", "tensorrt", "--precision", "int8"]
    options = ["--calibrate", str(clips), "--report", str(clips), "--cache", str(engines), "--json"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, timeout=900, check=False)
    assert ran.returncode == 0, ran.stderr
    found = {each["precision"]: each for each in json.loads(ran.stdout)["precisions"]}
    assert found["int8"]["agreement"] >= 0.75
    bundle = load_bundle(find_bundle("demo", Path.cwd()))
    doors = doors_to(EngineCache(engines))
    with closing(open_engine(bundle, preference="tensorrt", threads=1, precision="int8", doors=doors).engine) as engine:
        assert (engine.name, engine.precision) == ("tensorrt", "int8")
        for _ in range(4):
            assert check_golden(engine, bundle).complaints == ()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_every_batch_size_gives_what_onnx_runtime_gives(door, bundle, reference, count: int) -> None:
    shape = bundle.golden().pictures.shape[1:]
    pictures = np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)
    expected = reference.embed(pictures)
    with closing(door.open(bundle, precision=Precision.FP32, threads=1)) as engine:
        for _ in range(4):
            found = engine.embed(pictures)
            assert np.linalg.norm(found - expected) <= 1e-3 * np.linalg.norm(expected)


def test_batches_of_other_sizes_between_do_not_disturb_a_recorded_one(door, bundle: Bundle) -> None:
    shape = bundle.golden().pictures.shape[1:]
    pictures = np.random.default_rng(1).integers(0, 256, (BATCH, *shape), dtype=np.uint8)
    with closing(door.open(bundle, precision=Precision.FP32, threads=1)) as engine:
        first = engine.embed(pictures)
        for count in (BATCH, 2, 1, BATCH, 3, BATCH):
            np.testing.assert_allclose(engine.embed(pictures[:count]), first[:count], rtol=1e-3, atol=1e-4)


def test_batches_under_way_do_not_disturb_each_other(door, bundle: Bundle, reference) -> None:
    shape = bundle.golden().pictures.shape[1:]
    given = np.random.default_rng(2).integers(0, 256, (6, BATCH, *shape), dtype=np.uint8)
    with closing(door.open(bundle, precision=Precision.FP32, threads=1)) as engine:
        for _ in range(3):
            answers = [engine.begin(pictures) for pictures in given]
            for answer, pictures in zip(answers, given, strict=True):
                expected = reference.embed(pictures)
                assert np.linalg.norm(answer() - expected) <= 1e-3 * np.linalg.norm(expected)


def test_the_second_start_builds_nothing(door, bundle: Bundle, cache: EngineCache) -> None:
    door.open(bundle, precision=Precision.FP32, threads=1).close()
    plans = {path: path.stat().st_mtime_ns for path in cache.folder(bundle).rglob("*.plan")}
    assert plans
    door.open(bundle, precision=Precision.FP32, threads=1).close()
    assert {path: path.stat().st_mtime_ns for path in cache.folder(bundle).rglob("*.plan")} == plans


def test_a_wrong_input_is_one_line(door, bundle: Bundle) -> None:
    engine = door.open(bundle, precision=Precision.FP32, threads=1)
    with closing(engine), pytest.raises(EngineUnavailable, match="pictures is uint8"):
        engine.embed(np.zeros((1, 1, 8, 8, 3), np.uint8))


def test_a_build_tells_how_far_it_is(bundle: Bundle) -> None:
    told: list[tuple[str, int, int]] = []
    TensorRtDoor(on_progress=lambda *step: told.append(step)).open(bundle, precision=Precision.FP32, threads=1).close()
    assert told
    assert all(0 <= done <= steps for _, done, steps in told)


def test_a_plan_that_is_none_is_refused() -> None:
    from monitor.scoring.tensorrt_part import Part  # where TensorRT is

    with pytest.raises(EngineUnavailable, match="cannot load a plan"):
        Part(b"not a plan", 1, {"pictures": ((2, 224, 224, 3), np.uint8)}, {"embeddings": np.float32})
