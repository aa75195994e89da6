from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from monitor.bundle import BACKBONE, GOLDEN, Bundle, write_manifest
from monitor.errors import BundleInvalid, EngineUnavailable
from monitor.scoring.door import Classified, Door, Engine, Precision
from monitor.scoring.engine import check_golden, open_engine
from monitor.scoring.onnxruntime import OnnxRuntimeDoor, OnnxRuntimeEngine
from monitor.scoring.openvino import OpenVinoDoor, precisions_of
from tests.scoring.bundles import MANIFEST, TinyBundle, backbone_graph, backbone_weights, head_weights, perturbed
from tests.scoring.conftest import make_sample


def one_percent(array: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(3).standard_normal(array.shape)
    return (array * (1 + 0.01 * noise)).astype(np.float32)


def scaled(array: np.ndarray) -> np.ndarray:
    return (array * 1.01).astype(np.float32)


WRONG_NORMALISATION = {
    **backbone_weights(),
    "mean": np.full(3, 127.0, np.float32),
    "std": np.full(3, 128.0, np.float32),
}
BACKBONE_FIGURES, HEAD_FIGURES = {"cosine", "embedding_error"}, {"probability_difference", "attention_difference"}
ALTERED = {
    "backbone weights perturbed by 1%": TinyBundle(backbone=perturbed(backbone_weights(), one_percent)),
    "backbone weights scaled by 1%": TinyBundle(backbone=perturbed(backbone_weights(), scaled)),
    "head weights perturbed by 1%": TinyBundle(head=perturbed(head_weights(), one_percent)),
    "colours swapped": TinyBundle(channels=(2, 1, 0)),
    "wrong normalisation": TinyBundle(backbone=WRONG_NORMALISATION),
}
COMPLAINTS = dict.fromkeys(ALTERED, BACKBONE_FIGURES) | {
    "backbone weights scaled by 1%": {"embedding_error"},  # the direction stays
    "head weights perturbed by 1%": HEAD_FIGURES,
}


def copy_with(bundle: Bundle, folder: Path, altered: TinyBundle) -> Bundle:
    """The altered graphs under a fresh manifest, beside the golden outputs of the right ones."""
    folder.mkdir()
    (folder / GOLDEN).write_bytes((bundle.path / GOLDEN).read_bytes())
    return altered.write(folder, golden=False)


def test_engine_reproduces_golden(engine: Engine, tiny_bundle: Bundle) -> None:
    parity = check_golden(engine, tiny_bundle)
    assert parity.complaints == ()
    assert parity.cosine > 0.999999
    assert parity.embedding_error < 1e-5
    assert parity.probability_difference < 1e-5


@pytest.mark.parametrize("preference", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("what", ALTERED)
def test_altered_model_is_refused(tiny_bundle: Bundle, tmp_path: Path, what: str, preference) -> None:
    bundle = copy_with(tiny_bundle, tmp_path / "altered", ALTERED[what])
    with pytest.raises(BundleInvalid, match=r"no engine reproduces the golden outputs: .*in fp32") as raised:
        open_engine(bundle, preference=preference, threads=1)
    assert {name for name in BACKBONE_FIGURES | HEAD_FIGURES if f"{name} " in str(raised.value)} == COMPLAINTS[what]


def test_auto_takes_the_first_library(tiny_bundle: Bundle) -> None:
    opened = open_engine(tiny_bundle, preference="auto", threads=1)
    assert opened.engine.name == "openvino"
    not_faster_here = {"openvino bf16", "openvino fp16"}
    assert {skipped.engine for skipped in opened.skipped} <= {"tensorrt"} | not_faster_here
    opened.engine.close()


def threads_of(engine: Engine) -> set[int]:
    """How many threads its library says that each graph has, the head of OpenVINO aside, which has one."""
    if isinstance(engine, OnnxRuntimeEngine):
        return {each.get_session_options().intra_op_num_threads for each in (engine._backbone, engine._head)}
    requests = [engine._side_by_side[0], *([engine._alone] if engine.compiled_for_one else [])]
    return {each.get_compiled_model().get_property("INFERENCE_NUM_THREADS") for each in requests}


@pytest.mark.parametrize("preference", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(("asked", "given"), [(1, 1), (2, 2), (3, 3), (0, 1)])
def test_an_engine_has_the_threads_it_was_given(tiny_bundle, monkeypatch, preference, asked, given) -> None:
    """Zero: half of the cores, so that capture keeps the others. OpenVINO takes no more than there are."""
    if preference == "openvino":
        given = min(given, len(os.sched_getaffinity(0)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    opened = open_engine(tiny_bundle, preference=preference, threads=asked, precision="fp32")
    assert threads_of(opened.engine) == {given}
    opened.engine.close()


def test_every_reason_is_told_when_none_serves(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = copy_with(tiny_bundle, tmp_path / "broken", TinyBundle())
    (bundle.path / BACKBONE).write_bytes(b"not a graph")
    bundle = write_manifest(bundle.path, MANIFEST)
    with pytest.raises(EngineUnavailable) as raised:
        open_engine(bundle, preference="auto", threads=1)
    assert "openvino: cannot load the graphs" in str(raised.value)
    assert "onnxruntime: cannot load backbone.onnx" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_wrong_input_name_is_refused_by_each(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = copy_with(tiny_bundle, tmp_path / "renamed", TinyBundle())
    model = backbone_graph(backbone_weights())
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    onnx.save(model, bundle.backbone_path)
    bundle = write_manifest(bundle.path, MANIFEST)
    with pytest.raises(EngineUnavailable, match=r"openvino: .*; onnxruntime: "):
        open_engine(bundle, preference="auto", threads=1)


def test_operator_that_one_engine_lacks_goes_to_the_next(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """An operator of ONNX Runtime's own domain that OpenVINO does not know."""
    bundle = copy_with(tiny_bundle, tmp_path / "foreign", TinyBundle())
    model = backbone_graph(backbone_weights())
    model.graph.node[-1].output[0] = "flat"
    model.graph.initializer.append(helper.make_tensor("one", TensorProto.INT32, [], [1]))
    model.graph.node.extend(
        [
            helper.make_node("ExpandDims", ["flat", "one"], ["wide"], domain="com.microsoft"),
            helper.make_node("Flatten", ["wide"], ["embeddings"]),
        ]
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, bundle.backbone_path)
    opened = open_engine(write_manifest(bundle.path, MANIFEST), preference="auto", threads=1)
    assert opened.engine.name == "onnxruntime"
    assert [skipped.engine for skipped in opened.skipped] == ["tensorrt", "openvino"]
    assert "ExpandDims" in opened.skipped[1].reason
    opened.engine.close()


def test_missing_library_is_skipped(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # Python's own way to say: not installed
    opened = open_engine(tiny_bundle, preference="auto", threads=1)
    assert opened.engine.name == "onnxruntime"
    assert [skipped.engine for skipped in opened.skipped] == ["tensorrt", "openvino"]
    assert "cannot be imported" in opened.skipped[1].reason
    with pytest.raises(EngineUnavailable, match=r"^engine openvino: the library cannot be imported"):
        open_engine(tiny_bundle, preference="openvino", threads=1)


def test_golden_that_cannot_be_read_is_the_bundles_fault(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = copy_with(tiny_bundle, tmp_path / "golden", TinyBundle())
    (bundle.path / GOLDEN).write_bytes(b"PK")
    with pytest.raises(BundleInvalid, match="golden arrays cannot be read"):
        open_engine(write_manifest(bundle.path, MANIFEST), preference="auto", threads=1)


def test_answers_do_not_depend_on_the_batch(engine: Engine) -> None:
    """To the bit: a replay and a live run over the same samples say the same."""
    pictures = np.stack([make_sample(slot).pictures for slot in range(16)])
    embeddings = engine.embed(pictures)
    windows = np.stack([embeddings[start : start + 8] for start in range(8)])
    mask = np.random.default_rng(1).random((8, 8)) < 0.8
    together = engine.classify(windows, mask)
    for size in (1, 3, 8):
        again = np.concatenate([engine.embed(pictures[start : start + size]) for start in range(0, 16, size)])
        assert np.array_equal(again, embeddings)
        parts = [engine.classify(windows[i : i + size], mask[i : i + size]) for i in range(0, 8, size)]
        assert np.array_equal(np.concatenate([part.probabilities for part in parts]), together.probabilities)
        assert np.array_equal(np.concatenate([part.attention for part in parts]), together.attention)


def test_answers_are_shaped_and_normalised(engine: Engine) -> None:
    embeddings = engine.embed(np.stack([make_sample(slot).pictures for slot in range(8)]))
    mask = np.array([[True] * 6 + [False] * 2])
    answers = engine.classify(embeddings[None] * mask[..., None], mask)
    assert embeddings.shape == (8, 24)
    assert answers.probabilities.shape == (1, 3)
    assert answers.attention.shape == (1, 3, 8)
    assert (embeddings.dtype, answers.probabilities.dtype, answers.attention.dtype) == (np.float32,) * 3
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(answers.attention.sum(axis=2), 1, rtol=1e-5)
    assert (answers.attention[:, :, 6:] == 0).all()


def test_wrong_shape_is_the_engines_error(engine: Engine) -> None:
    with pytest.raises(EngineUnavailable):
        engine.embed(np.zeros((1, 1, 8, 8, 3), np.uint8))
    with pytest.raises(EngineUnavailable):
        engine.classify(np.zeros((1, 3, 24), np.float32), np.ones((1, 3), bool))


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (["FP32", "INT8"], (Precision.FP32,)),
        (["FP32", "BF16"], (Precision.BF16, Precision.FP32)),
        (["FP32", "FP16"], (Precision.FP16, Precision.FP32)),
        (["FP32", "BF16", "FP16"], (Precision.BF16, Precision.FP16, Precision.FP32)),
    ],
)
def test_what_the_processor_has_is_tried_and_fp32_comes_last(capabilities, expected) -> None:
    assert precisions_of(capabilities) == expected


class EagerDoor:
    """A real door that believes that the processor has bf16."""

    def __init__(self, door: Door) -> None:
        self.door, self.name = door, door.name

    def precisions(self, bundle: Bundle) -> tuple[Precision, ...]:
        return (Precision.BF16, *self.door.precisions(bundle))

    def open(self, bundle: Bundle, *, precision: Precision, threads: int) -> Engine:
        return self.door.open(bundle, precision=precision, threads=threads)


def test_fp32_serves_when_a_faster_precision_fails(tiny_bundle: Bundle) -> None:
    opened = open_engine(tiny_bundle, preference="auto", threads=1, doors=[EagerDoor(OnnxRuntimeDoor())])
    assert (opened.engine.name, opened.engine.precision) == ("onnxruntime", "fp32")
    assert opened.skipped == (("onnxruntime bf16", "does not run bf16", False),)
    opened.engine.close()


def test_faster_precision_serves_only_what_fp32_has_reproduced(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """OpenVINO takes the hint on any processor; where there is no bf16 it reckons in fp32 all the same."""
    doors = [EagerDoor(OpenVinoDoor())]
    opened = open_engine(tiny_bundle, preference="auto", threads=1, precision="bf16", doors=doors)
    assert (opened.engine.precision, opened.skipped) == ("bf16", ())
    opened.engine.close()
    altered = copy_with(tiny_bundle, tmp_path / "altered", ALTERED["backbone weights perturbed by 1%"])
    with pytest.raises(BundleInvalid, match="in fp32"):
        open_engine(altered, preference="auto", threads=1, precision="bf16", doors=doors)


class SlowedEngine:
    """A real engine that waits before each run of the backbone."""

    precision = "bf16"

    def __init__(self, engine: Engine, wait_seconds: float) -> None:
        self.engine, self.wait_seconds, self.name = engine, wait_seconds, engine.name
        self.closed = False

    def embed(self, pictures: np.ndarray) -> np.ndarray:
        time.sleep(self.wait_seconds)
        return self.engine.embed(pictures)

    def classify(self, embeddings: np.ndarray, mask: np.ndarray) -> Classified:
        return self.engine.classify(embeddings, mask)

    def close(self) -> None:
        self.closed = True
        self.engine.close()


class UnevenDoor(EagerDoor):
    """A door whose two precisions differ in speed as told."""

    def __init__(self, *, fp32_seconds: float, bf16_seconds: float) -> None:
        super().__init__(OnnxRuntimeDoor())
        self.waits = {Precision.FP32: fp32_seconds, Precision.BF16: bf16_seconds}
        self.opened: list[SlowedEngine] = []

    def open(self, bundle: Bundle, *, precision: Precision, threads: int) -> Engine:
        engine = self.door.open(bundle, precision=Precision.FP32, threads=threads)
        self.opened.append(slowed := SlowedEngine(engine, self.waits[precision]))
        slowed.precision = precision.value
        return slowed


def test_the_precision_measured_faster_serves(tiny_bundle: Bundle) -> None:
    door = UnevenDoor(fp32_seconds=0.02, bf16_seconds=0.002)
    opened = open_engine(tiny_bundle, preference="auto", threads=1, doors=[door])
    assert (opened.engine.precision, opened.skipped) == ("bf16", ())
    assert [engine.closed for engine in door.opened] == [True, False]
    opened.engine.close()


def test_a_precision_that_is_slower_here_does_not_serve_and_says_so(tiny_bundle: Bundle) -> None:
    door = UnevenDoor(fp32_seconds=0.002, bf16_seconds=0.02)
    opened = open_engine(tiny_bundle, preference="auto", threads=1, doors=[door])
    assert opened.engine.precision == "fp32"
    [skipped] = opened.skipped
    assert skipped.engine == "onnxruntime bf16"
    assert "not clearly faster here" in skipped.reason
    assert skipped.expected
    assert [engine.closed for engine in door.opened] == [False, True]
    opened.engine.close()


@pytest.mark.parametrize(("asked", "closed"), [("fp32", [False]), ("bf16", [True, False])])
def test_a_precision_that_is_asked_for_serves_whatever_its_speed(tiny_bundle: Bundle, asked, closed) -> None:
    door = UnevenDoor(fp32_seconds=0.005, bf16_seconds=0.005)
    opened = open_engine(tiny_bundle, preference="auto", threads=1, precision=asked, doors=[door])
    assert opened.engine.precision == asked
    assert [engine.closed for engine in door.opened] == closed
    opened.engine.close()


def test_a_precision_that_cannot_be_had_says_why(tiny_bundle: Bundle) -> None:
    with pytest.raises(EngineUnavailable, match=r"^engine onnxruntime: cannot compute in bf16 on this machine"):
        open_engine(tiny_bundle, preference="onnxruntime", threads=1, precision="bf16")


QUIET = """
import socket, sys
from pathlib import Path
reached = []
network = ("socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, args: reached.append(args) if event in network else None)
from monitor.bundle import load_bundle
from monitor.scoring.engine import open_engine
bundle = load_bundle(Path(sys.argv[1]))
for preference in ("openvino", "onnxruntime"):
    open_engine(bundle, preference=preference, threads=1).engine.close()
assert not reached, reached
"""


def test_libraries_tell_nobody(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """Both libraries phone home by default, and keep an id for it under the home folder: none appears."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", QUIET, str(tiny_bundle.path)]
    subprocess.run(command, check=True, env=environment, timeout=60)
    assert sorted(tmp_path.rglob("*")) == []


def test_importing_the_room_loads_no_library() -> None:
    libraries = ("openvino", "onnxruntime", "tensorrt", "cuda")
    code = f"import sys, monitor.scoring.engine; print([n for n in {libraries} if n in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert answer.stdout.strip() == "[]"
