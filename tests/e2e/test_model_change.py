"""Model and configuration change while eight cameras are watched: nobody misses a window, and nothing broken serves."""

from __future__ import annotations

import json
import shutil
import signal
import time
import tomllib
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import tomli_w
from onnx import TensorProto, helper, numpy_helper

from monitor.bundle import BACKBONE, HEAD, MANIFEST, Bundle, Manifest, find_bundle, load_bundle, write_manifest
from monitor.scoring.door import Precision
from monitor.scoring.onnxruntime import OnnxRuntimeDoor
from tests.services.monitor import MonitorProcess, configuration
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS

CAMERAS = [f"camera-{number}" for number in range(8)]
SWAP_SECONDS = 25.0


def shipped() -> Bundle:
    return load_bundle(find_bundle("demo", Path()))


def copy_of_demo(folder: Path) -> Path:
    """Make a copy of the bundle that ships, as version 1."""
    shutil.copytree(shipped().path, folder)
    write_manifest(folder, shipped().manifest.model_copy(update={"version": "1"}))
    return folder


def make_version(folder: Path, version: str, *, labels: tuple[str, ...] | None = None, **changes) -> Path:
    """Make another demo bundle: its head's weights are altered, and its golden outputs are its own."""
    copy_of_demo(folder)
    head = onnx.load(folder / HEAD)
    for tensor in head.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim > 1 and array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array * np.float32(0.9), tensor.name))
    onnx.save(head, folder / HEAD)
    manifest = shipped().manifest.model_copy(update={"version": version, **changes})
    if labels is not None:
        manifest = renamed(manifest, labels)
    bundle = write_manifest(folder, manifest)
    golden = dict(np.load(folder / "golden.npz"))
    engine = OnnxRuntimeDoor().open(bundle, precision=Precision.FP32, threads=1)
    answers = engine.classify(golden["window_embeddings"], golden["window_mask"])
    golden["probabilities"], golden["attention"] = answers.probabilities, answers.attention
    np.savez(folder / "golden.npz", **golden)
    write_manifest(folder, manifest)
    return folder


def renamed(manifest: Manifest, labels: tuple[str, ...]) -> Manifest:
    old = manifest.event_labels
    thresholds = {new: manifest.thresholds[name] for name, new in zip(old, labels, strict=True)}
    names = tuple(labels[old.index(name)] if name in old else name for name in manifest.labels)
    return manifest.model_copy(update={"labels": names, "thresholds": thresholds})


def make_brittle(folder: Path, version: str) -> Path:
    """Make a demo bundle that runs on its golden pictures alone: on any others a reshape in its backbone fails."""
    copy_of_demo(folder)
    model = onnx.load(folder / BACKBONE)
    sums = np.load(folder / "golden.npz")["pictures"].astype(np.int64).sum(axis=(1, 2, 3, 4))
    size = shipped().manifest.embedding_size
    constants = {"known": sums, "one": np.ones(1, np.int64), "too_long": np.array([size + 1], np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    [output] = model.graph.output
    last = next(node for node in model.graph.node if output.name in node.output)
    last.output[list(last.output).index(output.name)] = "before"
    model.graph.node.extend(
        [
            helper.make_node("Cast", [model.graph.input[0].name], ["levels"], to=TensorProto.INT64),
            helper.make_node("ReduceSum", ["levels"], ["sum"], keepdims=0),
            helper.make_node("Equal", ["sum", "known"], ["equal"]),
            helper.make_node("Cast", ["equal"], ["equals"], to=TensorProto.INT64),
            helper.make_node("ReduceMax", ["equals"], ["is_known"], keepdims=1),
            helper.make_node("Sub", ["too_long", "is_known"], ["length"]),
            helper.make_node("Concat", ["one", "length"], ["shape"], axis=0),
            helper.make_node("Reshape", ["before", "shape"], [output.name]),
        ]
    )
    onnx.save(model, folder / BACKBONE)
    write_manifest(folder, shipped().manifest.model_copy(update={"version": version}))
    return folder


def install(new: Path, place: Path) -> None:
    """Copy a bundle over another, file by file, as an operator does; the manifest comes in the middle."""
    for name in (BACKBONE, MANIFEST, HEAD, "golden.npz"):
        shutil.copyfile(new / name, place / name)
        time.sleep(0.3)


def windows_by_camera(monitor: MonitorProcess) -> dict[str, list[tuple[int, str]]]:
    windows = defaultdict(list)
    for record in monitor.events("window_scored"):
        windows[record["camera"]].append((record["first_slot"], record["model"]))
    return windows


def watched_on(monitor: MonitorProcess, name: str) -> set[str]:
    cameras = json.loads(monitor.get("/api/v1/cameras")[1])["cameras"]
    return set(next(camera for camera in cameras if camera["id"] == name)["thresholds"])


def assert_no_hole(windows: list[tuple[int, str]]) -> None:
    firsts, stride = [first for first, _ in windows], shipped().manifest.stride_slots
    assert firsts == list(range(firsts[0], firsts[-1] + 1, stride))


@pytest.fixture(scope="module")
def server(scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS, live=True)}) as server:
        yield server


def set_cameras(config: Path, cameras: list[dict], **sections) -> None:
    values = tomllib.loads(config.read_text(encoding="utf-8"))
    values |= {"cameras": cameras, **sections}
    config.write_text(tomli_w.dumps(values), encoding="utf-8")


@pytest.mark.alone
@pytest.mark.timeout(170)
def test_models_and_cameras_change_while_eight_are_watched(tmp_path, server, record_property):
    place = copy_of_demo(tmp_path / "model")
    brittle = make_brittle(tmp_path / "brittle", "1 brittle")
    second = make_version(tmp_path / "second", "2")
    broken = make_version(tmp_path / "broken", "3")
    perturbed = dict(np.load(broken / "golden.npz"))
    perturbed["probabilities"] = perturbed["probabilities"][:, ::-1]
    np.savez(broken / "golden.npz", **perturbed)
    write_manifest(broken, shipped().manifest.model_copy(update={"version": "3"}))
    other_grid = make_version(tmp_path / "other-grid", "4", sample_fps=10.0)
    renamed_labels = make_version(tmp_path / "renamed", "5", labels=("brawl",))
    cameras = [{"id": name, "url": server.url("yard")} for name in CAMERAS]
    config = configuration(
        tmp_path,
        cameras,
        bundle=place,
        logs={"level": "debug"},
        model={"bundle": str(place), "shadow": str(second)},
        scoring={"shed_wait_seconds": 0.0},
        evidence={"enabled": False},
    )
    with MonitorProcess(config) as monitor:
        for name in CAMERAS:
            monitor.wait_for_metric("monitor_windows_scored_total", 3, 40, camera=name)
        install(brittle, place)
        back = monitor.wait_for_event("model_rolled_back", SWAP_SECONDS)
        assert (back["model"], back["serving"]) == ("demo 1 brittle", "demo 1")
        assert "the backbone failed" in back["reason"] or "a run failed" in back["reason"]
        assert monitor.metric("monitor_model_info", version="1") == 1

        install(second, place)
        swapped = monitor.wait_for_event("model_swapped", SWAP_SECONDS)
        assert (swapped["before"], swapped["model"]) == ("demo 1", "demo 2")

        install(broken, place)
        refused = monitor.wait_for_event("model_refused", SWAP_SECONDS)
        assert "does not reproduce golden.npz" in refused["reason"]
        (place / "head.onnx").write_bytes((place / "head.onnx").read_bytes()[:1000])  # half a file, left like that
        monitor.wait_for_event("model_refused", SWAP_SECONDS, lambda record: "head.onnx" in record["reason"])
        install(other_grid, place)
        monitor.wait_for_event("model_restart_needed", SWAP_SECONDS)
        assert monitor.metric("monitor_model_info", version="2") == monitor.metric("monitor_model_info") == 1
        assert monitor.metric("monitor_model_swaps_total", result="refused") >= 2
        assert monitor.metric("monitor_model_swaps_total", result="rolled_back") == 1

        set_cameras(config, [*cameras[:6], {"id": "camera-6", "url": server.url("yard"), "zone": "everywhere"}])
        monitor.process.send_signal(signal.SIGHUP)
        problems = monitor.wait_for_event("configuration_not_reloaded", 5)["problems"]
        assert any("cameras[6] (camera-6).zone" in problem for problem in problems)
        assert monitor.metric("monitor_camera_up") == 8

        newcomer = {"id": "newcomer", "url": server.url("yard"), "priority": 9}
        set_cameras(
            config,
            [{**cameras[0], "labels": ["brawl"]}, *cameras[1:6], {**cameras[6], "name": "Renamed"}, newcomer],
            http={"port": 1},
            model={"bundle": str(renamed_labels), "shadow": ""},
        )
        monitor.process.send_signal(signal.SIGHUP)
        reloaded = monitor.wait_for_event("configuration_reloaded", 10)
        assert (reloaded["added"], reloaded["removed"], reloaded["changed"]) == (
            ["newcomer"],
            ["camera-7"],
            ["camera-0", "camera-6"],
        )
        assert watched_on(monitor, "camera-0") == {"scuffle"}  # until the model that knows the new label takes over
        assert monitor.wait_for_event("restart_needed", 5)["keys"] == ["http.port"]
        monitor.wait_for_event("model_swapped", SWAP_SECONDS, lambda record: record["model"] == "demo 5")
        monitor.wait_for_metric("monitor_windows_scored_total", 3, 20, camera="newcomer")
        time.sleep(3.0)

        text = monitor.get("/metrics")[1]
        assert 'camera="camera-7"' not in text
        assert 'camera="newcomer"' in text
        assert watched_on(monitor, "camera-0") == watched_on(monitor, "newcomer") == {"brawl"}
        assert 'monitor_alerts_total{camera="camera-0",label="brawl",phase="ended"}' in text
        assert "Renamed" in monitor.get("/")[1]
        assert monitor.metric("monitor_shadow_windows_total", bundle="demo 2") > 0
        assert monitor.metric("monitor_inference_seconds_count", part="backbone") > 0
        assert monitor.metric("monitor_frames_dropped_total") == 0
        assert monitor.metric("monitor_windows_skipped_total") == 0
        assert not monitor.events("camera_lost")
        code, _ = monitor.stop()
    assert code == 0, monitor.log_text[-3000:]
    windows = windows_by_camera(monitor)
    for name in CAMERAS:
        assert_no_hole(windows[name])
        models = [model for _, model in windows[name]]
        assert models == sorted(models)
        assert set(models) == ({"demo 1", "demo 2"} if name == "camera-7" else {"demo 1", "demo 2", "demo 5"})
    record_property("windows", sum(len(found) for found in windows.values()))
