"""What is built, loaded, kept and built anew on the way to TensorRT; a stand-in notes what the device is asked for.

It gives no answers, and claims nothing of TensorRT: the device's own side is in `test_tensorrt_gpu.py`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from monitor.bundle import Bundle
from monitor.errors import EngineUnavailable
from monitor.scoring import tensorrt
from monitor.scoring.cache import EngineCache
from monitor.scoring.cuda import Gpu
from monitor.scoring.door import Precision
from monitor.scoring.tensorrt import USUAL_BATCH, TensorRtDoor

L4 = Gpu("NVIDIA L4", "8.9")
BOTH = ["backbone.onnx", "head.onnx"]
OUT_OF_MEMORY = "the GPU is out of memory: fewer samples a batch"


@dataclass
class Device:
    """Notes what is asked of it."""

    gpu: Gpu = L4
    version: str = "11.4.0.106"
    built: list[str] = field(default_factory=list)
    loaded: list[tuple[bytes, int]] = field(default_factory=list)
    closed: int = 0
    refusals: dict[bytes, str] = field(default_factory=dict)
    """Plans that do not load, and why."""

    def build_plan(self, graph: Path, inputs, profiles, **_) -> bytes:
        self.built.append(graph.name)
        return f"{graph.name}, build {len(self.built)}".encode()

    def part(self, plan: bytes, max_batch: int, inputs, outputs, *, lanes) -> SimpleNamespace:
        if plan in self.refusals:
            raise EngineUnavailable("tensorrt", self.refusals[plan])
        self.loaded.append((plan, max_batch))
        return SimpleNamespace(close=self._close)

    def _close(self) -> None:
        self.closed += 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(tensorrt, "find_gpu", lambda: device.gpu)
    monkeypatch.setattr(tensorrt, "load_library", lambda: SimpleNamespace(__version__=device.version))
    stand_ins = {"tensorrt_build": {"build_plan": device.build_plan}, "tensorrt_part": {"Part": device.part}}
    for name, offers in stand_ins.items():
        monkeypatch.setitem(sys.modules, f"monitor.scoring.{name}", SimpleNamespace(**offers))
    return device


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def start(cache: EngineCache | None, bundle: Bundle, precision: Precision = Precision.FP32, **options) -> None:
    TensorRtDoor(cache, **options).open(bundle, precision=precision, threads=1).close()


def test_the_second_start_builds_nothing(device: Device, cache: EngineCache, tiny_bundle: Bundle) -> None:
    start(cache, tiny_bundle)
    assert device.built == BOTH
    start(cache, tiny_bundle)
    assert device.built == BOTH
    assert (
        device.loaded[2:] == device.loaded[:2] == [(f"{BOTH[i]}, build {i + 1}".encode(), USUAL_BATCH) for i in (0, 1)]
    )
    assert device.closed == 4


def test_without_a_cache_each_start_builds(device: Device, tiny_bundle: Bundle) -> None:
    start(None, tiny_bundle)
    start(None, tiny_bundle)
    assert device.built == 2 * BOTH


@pytest.mark.parametrize(
    "other",
    [{"version": "10.16.1.11"}, {"gpu": Gpu("NVIDIA L40", "8.9")}, {"gpu": Gpu("NVIDIA L4", "9.0")}],
    ids=["version", "gpu", "compute capability"],
)
def test_a_plan_of_another_machine_or_version_is_built_anew(device, cache, tiny_bundle, other) -> None:
    start(cache, tiny_bundle)
    for name, value in other.items():
        setattr(device, name, value)
    start(cache, tiny_bundle)
    assert device.built == 2 * BOTH


def test_a_damaged_plan_is_built_anew(device: Device, cache: EngineCache, tiny_bundle: Bundle) -> None:
    start(cache, tiny_bundle)
    [path] = [path for path in cache.root.rglob("*.plan") if path.read_bytes().startswith(b"backbone")]
    path.write_bytes(b"backbone.onnx, cut")
    start(cache, tiny_bundle)
    assert device.built == [*BOTH, "backbone.onnx"]


def test_a_plan_that_the_library_refuses_is_built_anew_once(device, cache, tiny_bundle) -> None:
    start(cache, tiny_bundle)
    device.refusals[b"head.onnx, build 2"] = "cannot load a plan: serialized by another build"
    with capture_logs() as lines:
        start(cache, tiny_bundle)
    assert [(line["event"], line["reason"]) for line in lines if line["event"] == "engine_rebuilt"] == [
        ("engine_rebuilt", "cannot load a plan: serialized by another build")
    ]
    start(cache, tiny_bundle)
    assert device.built == [*BOTH, "head.onnx"]


def test_memory_that_runs_out_is_no_reason_to_build(device: Device, cache: EngineCache, tiny_bundle: Bundle) -> None:
    """It is said in one line, with what was being done; what was already on the device is given back."""
    start(cache, tiny_bundle)
    device.refusals[b"head.onnx, build 2"] = OUT_OF_MEMORY
    closed = device.closed
    with pytest.raises(EngineUnavailable) as raised:
        start(cache, tiny_bundle)
    assert raised.value.reason == f"{OUT_OF_MEMORY}, while opening tiny in fp32"
    assert device.built == BOTH
    assert device.closed == closed + 1


def test_a_start_takes_the_batch_that_was_compiled(device: Device, cache: EngineCache, tiny_bundle: Bundle) -> None:
    start(cache, tiny_bundle, max_batch=16)
    start(cache, tiny_bundle)
    assert device.built == BOTH
    assert {batch for _, batch in device.loaded} == {16}


def test_a_precision_has_plans_of_its_own(device: Device, cache: EngineCache, tiny_bundle: Bundle) -> None:
    with pytest.raises(EngineUnavailable, match="fp16 was not compiled for this model: `monitor compile` does it"):
        start(cache, tiny_bundle, Precision.FP16)
    cache.put_graph(tiny_bundle, "tensorrt", Precision.FP16, tiny_bundle.backbone_path.read_bytes(), {})
    assert TensorRtDoor(cache).precisions(tiny_bundle) == (Precision.FP16, Precision.FP32)
    start(cache, tiny_bundle)
    start(cache, tiny_bundle, Precision.FP16)
    assert device.built == [*BOTH, "tensorrt-fp16.onnx"]  # the head is FP32's


def test_where_nothing_can_be_kept_it_serves_all_the_same(device: Device, tmp_path: Path, tiny_bundle: Bundle) -> None:
    (tmp_path / "engines").write_text("a file where the folder should be")
    with capture_logs() as lines:
        start(EngineCache(tmp_path / "engines"), tiny_bundle)
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["engine_not_kept"]
    assert device.built == BOTH


def test_a_plan_that_finds_no_room_is_not_kept_and_serves_all_the_same(device, cache, tiny_bundle) -> None:
    start(cache, tiny_bundle)
    for plan in list(cache.root.rglob("*.plan")):
        plan.unlink()
        plan.with_name(f"{plan.name}.part").symlink_to("/dev/full")
    with capture_logs() as lines:
        start(cache, tiny_bundle)
    reasons = [line["reason"] for line in lines if line["event"] == "engine_not_kept"]
    assert reasons == 2 * ["No space left on device"]
    assert device.built == 2 * BOTH
    start(cache, tiny_bundle)
    assert device.built == 3 * BOTH
