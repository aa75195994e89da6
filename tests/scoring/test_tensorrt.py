"""What can be proved of the TensorRT engine without a GPU; `test_tensorrt_gpu.py` has the rest."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monitor.bundle import Bundle
from monitor.errors import EngineUnavailable
from monitor.scoring import cuda
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Precision
from monitor.scoring.engine import doors_to, open_engine
from monitor.scoring.tensorrt import TensorRtDoor, load_library
from monitor.scoring.tensorrt_plan import PlanFolder, PlanKey, profile_index, profiles_for

KEY = PlanKey(
    gpu="NVIDIA H100",
    compute_capability="9.0",
    tensorrt="11.4.0.106",
    graph_sha256="ab" * 32,
    precision="fp16",
    max_batch=8,
    inputs=(("pictures", (2, 224, 224, 3)),),
)
OTHERS = [
    replace(KEY, gpu="NVIDIA L4"),
    replace(KEY, compute_capability="8.9"),
    replace(KEY, tensorrt="10.16.1.11"),
    replace(KEY, graph_sha256="cd" * 32),
    replace(KEY, precision="int8"),
    replace(KEY, max_batch=16),
    replace(KEY, inputs=(("pictures", (1, 224, 224, 3)),)),
]


def test_a_plan_is_found_for_what_it_was_built_for(tmp_path: Path) -> None:
    plans = PlanFolder(tmp_path / "plans")
    assert plans.find(KEY) is None
    plans.put(KEY, b"plan")
    assert plans.find(KEY) == b"plan"
    assert plans.batches() == (8,)
    assert PlanFolder(None).find(KEY) is None


@pytest.mark.parametrize("other", OTHERS, ids=lambda key: next(iter(key.stem.split("-"))))
def test_a_plan_for_anything_else_is_not_loaded(tmp_path: Path, other: PlanKey) -> None:
    plans = PlanFolder(tmp_path)
    plans.put(KEY, b"plan")
    assert other.stem != KEY.stem
    assert plans.find(other) is None
    for ending in (".plan", ".json"):  # not even under the right name
        (tmp_path / f"{KEY.stem}{ending}").rename(tmp_path / f"{other.stem}{ending}")
    assert plans.find(other) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plan: plan.write_bytes(b"plam"),
        lambda plan: plan.unlink(),
        lambda plan: plan.with_suffix(".json").unlink(),
        lambda plan: plan.with_suffix(".json").write_text("{"),
    ],
    ids=["altered", "gone", "without a record", "half a record"],
)
def test_a_damaged_plan_is_built_anew(tmp_path: Path, spoil) -> None:
    plans = PlanFolder(tmp_path)
    plans.put(KEY, b"plan")
    spoil(tmp_path / f"{KEY.stem}.plan")
    assert plans.find(KEY) is None
    plans.put(KEY, b"plan")
    assert plans.find(KEY) == b"plan"


def test_plans_of_larger_batches_are_tried_first(tmp_path: Path) -> None:
    plans = PlanFolder(tmp_path)
    for batch in (4, 16, 8):
        plans.put(replace(KEY, max_batch=batch), b"plan")
    (tmp_path / "foreign.json").write_text("[]")
    assert plans.batches() == (16, 8, 4)


def cuda_error(name: str, value: int) -> Any:
    return types.SimpleNamespace(name=name, value=value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("cudaErrorNoDevice", "no NVIDIA GPU or driver here"),
        ("cudaErrorInsufficientDriver", "no NVIDIA GPU or driver here"),
        ("cudaErrorMemoryAllocation", "the GPU is out of memory: fewer samples a batch"),
        ("cudaErrorIllegalAddress", "the GPU failed: cudaErrorIllegalAddress"),
    ],
)
def test_each_error_of_the_device_is_one_line(error: str, reason: str) -> None:
    with pytest.raises(EngineUnavailable) as raised:
        cuda._checked((cuda_error(error, 1), None))
    assert raised.value.reason.startswith(reason)
    assert "\n" not in raised.value.reason


def test_out_of_memory_says_while_doing_what() -> None:
    with (
        pytest.raises(EngineUnavailable, match=r"out of memory: .*, while opening fight"),
        cuda.memory_told("opening fight"),
    ):
        cuda._checked((cuda_error("cudaErrorMemoryAllocation", 2),))
    with pytest.raises(EngineUnavailable, match="NoDevice"), cuda.memory_told("opening fight"):
        cuda._checked((cuda_error("cudaErrorNoDevice", 100),))


def test_success_gives_the_value() -> None:
    assert cuda._checked((cuda_error("cudaSuccess", 0), 7)) == 7
    assert cuda._checked((cuda_error("cudaSuccess", 0),)) is None


def test_without_cuda_bindings_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineUnavailable, match=r"^engine tensorrt: cuda-bindings cannot be imported"):
        cuda.find_gpu()


def test_without_the_drivers_library_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As cuda-bindings 12.8 does; later ones return an error in its place."""

    def count() -> None:
        raise RuntimeError("Failed to dlopen\nlibcuda.so.1")

    monkeypatch.setattr(cuda, "load_runtime", lambda: types.SimpleNamespace(cudaGetDeviceCount=count))
    with pytest.raises(EngineUnavailable) as raised:
        cuda.find_gpu()
    assert raised.value.reason == "no NVIDIA GPU or driver here (Failed to dlopen libcuda.so.1)"


@pytest.mark.parametrize("driver", [True, False])
def test_only_a_machine_with_a_driver_has_to_be_looked_into(monkeypatch, tmp_path: Path, driver: bool) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setattr(cuda, "DRIVER", tmp_path if driver else tmp_path / "none")
    with pytest.raises(EngineUnavailable) as raised:
        cuda.find_gpu()
    assert raised.value.expected is not driver


def test_without_tensorrt_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineUnavailable, match=r"^engine tensorrt: the library cannot be imported"):
        load_library()


@pytest.mark.parametrize("version", ["8.6.1", "12.0.0", "unknown"])
def test_another_version_is_refused_with_its_number(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(EngineUnavailable, match=rf"version {version} is neither 10 nor 11"):
        load_library()


def without_gpu() -> bool:
    try:
        cuda.find_gpu()
    except EngineUnavailable:
        return True
    return False


@pytest.mark.skipif(not without_gpu(), reason="this machine has a GPU")
class TestWithoutGpu:
    def test_the_next_library_serves_and_the_first_line_says_why(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        doors = doors_to(EngineCache(tmp_path))
        assert [door.name for door in doors] == ["tensorrt", "openvino", "onnxruntime"]
        opened = open_engine(tiny_bundle, preference="auto", threads=1, doors=doors)
        assert opened.engine.name == "openvino"
        assert opened.skipped[0].engine == "tensorrt"
        assert opened.skipped[0].expected
        assert "no NVIDIA GPU" in opened.skipped[0].reason or "cuda-bindings" in opened.skipped[0].reason
        opened.engine.close()

    def test_asked_for_by_name_it_is_an_error(self, tiny_bundle: Bundle) -> None:
        with pytest.raises(EngineUnavailable, match=r"^engine tensorrt: (no NVIDIA GPU|cuda-bindings)"):
            open_engine(tiny_bundle, preference="tensorrt", threads=1)


def test_bf16_is_not_for_it(tiny_bundle: Bundle) -> None:
    with pytest.raises(EngineUnavailable, match="does not run bf16"):
        TensorRtDoor().open(tiny_bundle, precision=Precision.BF16, threads=1)


@pytest.mark.parametrize("largest", [1, 2, 3, 8, 32])
def test_every_batch_has_exactly_one_profile(largest: int) -> None:
    profiles = profiles_for(largest)
    for batch in range(1, largest + 1):
        fitting = [each for each in profiles if each.smallest <= batch <= each.largest]
        assert len(fitting) == 1
        assert profiles[profile_index(batch, profiles)] is fitting[0]
    assert all(each.smallest <= each.usual <= each.largest for each in profiles)
    for steady in (1, largest):
        assert profiles[profile_index(steady, profiles)].fixed
    with pytest.raises(ValueError, match="no profile"):
        profile_index(largest + 1, profiles)
