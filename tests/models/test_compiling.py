"""`monitor compile`, as a user runs it: real clips, real quantization, real engines; without torch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from models.compiling import find_door
from models.half import to_half
from models.scenes.clips import plan_clips, write_clips
from monitor.bundle import BACKBONE_INPUT, Bundle, find_bundle, load_bundle
from monitor.cli import app
from monitor.errors import MonitorError
from monitor.scoring import onnxruntime
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Precision
from monitor.scoring.engine import FAINT, TOLERANCES, doors_to, open_checked, open_engine
from monitor.scoring.onnxruntime import OnnxRuntimeDoor

pytestmark = pytest.mark.timeout(320)  # two quantizations: seconds alone, minutes on a busy machine

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from monitor.__main__ import main; sys.exit(main())"


def compile_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, "compile", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(find_bundle("demo", Path.cwd()))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    list(write_clips(folder, plan_clips(8, seed=5)))
    return folder


@pytest.fixture(scope="module")
def compiled(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineCache, str]:
    folder = tmp_path_factory.mktemp("engines")
    options = ["--precision", "int8", "--calibrate", str(clips), "--cache", str(folder), "--threads", "1"]
    ran = compile_command("demo", *options, "--report", str(clips), "--json")
    assert ran.returncode == 0, ran.stderr
    return EngineCache(folder), ran.stdout


def test_int8_is_made_of_clips_and_serves(compiled, bundle: Bundle) -> None:
    cache, _ = compiled
    opened = open_engine(bundle, preference="openvino", threads=1, precision="int8", doors=doors_to(cache))
    assert (opened.engine.precision, opened.skipped) == ("int8", ())
    assert 0.98 <= opened.parity.cosine < 0.99999  # it is another graph
    opened.engine.close()
    path = cache.graph(bundle, "openvino", Precision.INT8)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("QuantizeLinear") >= 3


def test_the_report_is_printed_and_kept(compiled, bundle: Bundle) -> None:
    cache, printed = compiled
    report = json.loads(printed)
    assert report == json.loads((cache.folder(bundle) / "openvino-report.json").read_text())
    found = {each["precision"]: each for each in report["precisions"]}
    assert found["fp32"]["agreement"] == 1.0
    assert found["fp32"]["largest_difference"] == 0.0
    assert found["int8"]["agreement"] >= 0.75
    assert 0.0 < found["int8"]["largest_difference"] < 0.3
    assert report["clips"] == 8
    assert found["fp32"]["accuracy"] >= 0.75  # drawn scenes, which the bundle knows
    told = {reason.partition(":")[0] for reason in report["unavailable"]} | found.keys()
    assert told == {"fp32", "fp16", "bf16", "int8"}, "each either measured or with its reason"
    text = (cache.folder(bundle) / "openvino-report.txt").read_text()
    assert "int8" in text
    assert "same label" in text


def test_signed_quantization_is_what_tensorrt_takes(compiled, bundle: Bundle, clips: Path) -> None:
    """One scale a tensor for activations, signed bytes, no offset, and what is left gives the golden outputs.

    Checked without TensorRT: by the graph, and by ONNX Runtime, which reads the same one.
    """
    script = """
import sys; sys.modules["torch"] = None
from pathlib import Path
import onnx
from models.quantization import quantize, read_calibration
from monitor.bundle import load_bundle
bundle = load_bundle(Path(sys.argv[1]))
graph = quantize(bundle, read_calibration(Path(sys.argv[2]), bundle.manifest), exact_share=0.2, signed=True)
onnx.save(graph, sys.argv[3])
"""
    out = clips.parent / "signed.onnx"
    command = [sys.executable, "-c", script, str(bundle.path), str(clips), str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    onnx.checker.check_model(onnx.load(out), full_check=True)
    cache = EngineCache(clips.parent / "signed")
    cache.put_graph(bundle, "onnxruntime", Precision.INT8, out.read_bytes(), {})
    open_checked(OnnxRuntimeDoor(cache), bundle, Precision.INT8, threads=1).engine.close()
    graph = onnx.load(out).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            assert constants[node.input[1]].size == 1, f"{node.name}: activations with a scale a channel"


RETRYING = """
import sys; sys.modules["torch"] = None
from dataclasses import replace
from pathlib import Path
from models import compiling
from monitor.bundle import load_bundle
from monitor.errors import EngineUnavailable
from monitor.scoring import engine
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Precision

bundle, clips, cache = load_bundle(Path(sys.argv[1])), Path(sys.argv[2]), EngineCache(Path(sys.argv[3]))
INT8 = Precision.INT8
engine.TOLERANCES[INT8] = replace(engine.TOLERANCES[INT8], embedding_error=0.05)
door = compiling.find_door("openvino", cache, console=None)
for shares in ((0.0,), (0.0, 1.0)):
    compiling.EXACT_SHARES = shares
    try:
        made = compiling.compile_bundle(bundle, door=door, cache=cache, precision=INT8, calibrate=clips, threads=1)
    except EngineUnavailable as exc:
        print("missed", "embedding_error" in exc.reason, cache.graph(bundle, "openvino", INT8))
    else:
        print("made", made.engine.precision, made.parity.complaints)
"""


def test_a_graph_that_misses_the_golden_outputs_is_made_anew_more_exact(bundle: Bundle, clips: Path) -> None:
    """With a tolerance between what all convolutions quantized (0.20) and none of them (0.01) give here."""
    one, folder = clips.parent / "one", clips.parent / "retried"
    one.mkdir()
    shutil.copy(min(clips.rglob("*.mp4")), one)
    command = [sys.executable, "-c", RETRYING, str(bundle.path), str(one), str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["missed True None", "made int8 ()"]
    [record] = EngineCache(folder).records(bundle).values()
    assert json.loads(record)["exact_share"] == 1.0


@pytest.mark.parametrize(("terminal", "lines"), [(True, ["Tactics: 1 of 2", "Tactics: 2 of 2"]), (False, [])])
def test_a_build_for_tensorrt_shows_how_far_it_is(tmp_path: Path, terminal: bool, lines: list[str]) -> None:
    shown = StringIO()
    door = find_door("tensorrt", EngineCache(tmp_path), console=Console(file=shown, force_terminal=terminal))
    door._on_progress("Tactics", 1, 2)
    door._on_progress("Tactics", 2, 2)
    assert re.findall(r"\w+: \d+ of \d+", shown.getvalue()) == lines


@pytest.mark.parametrize("name", ["demo", "fight"])
def test_half_precision_is_a_sound_graph_that_gives_the_golden_outputs(name: str) -> None:
    """Checked without TensorRT: ONNX Runtime reads the same graph."""
    bundle = load_bundle(find_bundle(name, Path.cwd()))
    model = to_half(bundle)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.load_library().InferenceSession(model.SerializeToString())
    golden = bundle.golden()
    lengths = np.linalg.norm(golden.embeddings, axis=1)
    for pictures, expected in zip(golden.pictures, golden.embeddings, strict=True):
        [found] = session.run(None, {BACKBONE_INPUT: pictures[None]})
        length = max(np.linalg.norm(expected), FAINT * lengths.max())
        assert np.linalg.norm(found[0] - expected) <= TOLERANCES[Precision.FP16].embedding_error * length


def test_half_precision_keeps_what_is_outside(bundle: Bundle) -> None:
    graph = to_half(bundle).graph
    kinds = {tensor.data_type for tensor in graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert [value.type.tensor_type.elem_type for value in graph.input] == [onnx.TensorProto.UINT8]
    assert [value.type.tensor_type.elem_type for value in graph.output] == [onnx.TensorProto.FLOAT]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--precision: say what to compile"),
        ({"precision": "int8"}, "needs clips to measure by: --calibrate FOLDER"),
        ({"precision": "int8", "calibrate": "."}, "holds no video clips"),
        ({"precision": "int8", "calibrate": "none"}, "no such folder"),
        ({"precision": "fp16"}, "engine openvino: does not run fp16"),
        ({"precision": "bf16", "engine": "onnxruntime"}, "engine onnxruntime: does not run bf16"),
        ({"precision": "int8", "max-batch": "4"}, "--max-batch: is for tensorrt"),
        ({"report": "."}, "there are no clips"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, monkeypatch, options, message) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("monitor.scoring.openvino._capabilities", lambda: ("FP32",))  # some processors have FP16
    given = [text for name, value in options.items() for text in (f"--{name}", value)]
    refusal = CliRunner().invoke(app, ["compile", "demo", *given, "--threads", "1", "--cache", "engines"]).exception
    assert isinstance(refusal, MonitorError)
    assert message in str(refusal)
    assert refusal.exit_code == 2
    assert list(tmp_path.rglob("*.onnx")) == []
