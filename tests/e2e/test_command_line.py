"""Commands, their output and their exit codes, on good and on bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import cv2
import jsonschema
import pytest

from models.scenes import Scene
from monitor.__main__ import INTERRUPTED
from monitor.bundle import load_bundle, write_manifest
from monitor.cli.training import next_version
from monitor.events.messages import alert_schema
from tests.services.monitor import COMMAND, MonitorProcess, configuration, run_command
from tests.services.ports import free_port
from tests.services.rtsp import Mount, RtspServer

from .conftest import FPS, FROM_SECONDS, SEED

ROOT = Path(__file__).parents[2]
TERMINAL = {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "0", "NO_COLOR": "1"}
"""What has rich write as to a terminal."""


@pytest.fixture(scope="session")
def scene_video(tmp_path_factory):
    """A video file of the scene with an event in it."""
    path = tmp_path_factory.mktemp("videos") / "yard.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (640, 360))
    for picture in Scene(SEED, fps=FPS).frames(14.0, start_seconds=FROM_SECONDS):
        writer.write(picture[:, :, ::-1])
    writer.release()
    return path


class TestReplay:
    def test_twice_gives_identical_bytes(self, scene_video):
        first = run_command("replay", str(scene_video), "--model", "demo", "--json")
        second = run_command("replay", str(scene_video), "--model", "demo", "--json")
        assert first == second
        code, output = first
        assert code == 0
        told = [json.loads(line) for line in output.splitlines()]
        assert [told[0]["phase"], told[-1]["phase"]] == ["started", "ended"]
        for message in told:
            jsonschema.validate(message, alert_schema())
            assert message["pipeline"]["replayed"] is True

    def test_for_people_it_prints_a_table(self, scene_video):
        code, output = run_command("replay", str(scene_video), "--model", "demo")
        assert code == 0
        assert "scuffle" in output

    def test_the_plot_is_a_picture(self, scene_video, tmp_path):
        code, _ = run_command("replay", str(scene_video), "--model", "demo", "--plot", str(tmp_path / "plot.png"))
        assert code == 0
        picture = cv2.imread(str(tmp_path / "plot.png"))
        assert picture.shape[1] > 1000
        assert picture.std() > 10

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda path: None, "clip.mp4"),
            (lambda path: path.write_text("this is a text file\n" * 50), "clip.mp4"),
            (lambda path: path.write_bytes(b""), "clip.mp4"),
        ],
        ids=["missing", "text", "empty"],
    )
    def test_a_file_that_is_no_video_is_named(self, tmp_path, make, said):
        path = tmp_path / "clip.mp4"
        make(path)
        code, output = run_command("replay", str(path), "--model", "demo")
        assert code == 2
        assert said in output
        assert "Traceback" not in output


@pytest.mark.parametrize("seconds", [0.15, 0.4])
def test_an_interrupt_while_the_program_loads_shows_no_traceback(seconds):
    process = subprocess.Popen([*COMMAND, "schema", "config"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert b"Traceback" not in output
    assert process.returncode in (INTERRUPTED, -signal.SIGINT)  # before Python minds signals, SIGINT ends it itself


class TestBadInput:
    def test_a_config_with_three_mistakes(self, tmp_path):
        config = tmp_path / "config.toml"
        config.write_text(
            'colour = "red"\n[model]\nthreads = -1\n[[cameras]]\nid = "yard"\nurl = "gopher://anna:hunter2@camera/x"\n'
        )
        for command in ("run", "check", "alerts"):
            code, output = run_command(command, "--config", str(config))
            assert code == 2
            for key in ("colour", "model.threads", "cameras[0] (yard).url"):
                assert key in output
            assert "hunter2" not in output
            assert "Traceback" not in output

    def test_a_bundle_with_a_flipped_byte(self, tmp_path):
        bundle = shutil.copytree(ROOT / "models/bundles/demo", tmp_path / "demo")
        raw = bytearray((bundle / "backbone.onnx").read_bytes())
        raw[-20] ^= 1
        (bundle / "backbone.onnx").write_bytes(raw)
        config = configuration(tmp_path, [{"id": "yard", "url": "rtsp://127.0.0.1:1/x"}], bundle="demo")
        code, output = run_command("run", "--config", str(config))
        assert code == 2
        assert "backbone.onnx is not the file the manifest was written for" in output
        assert "Traceback" not in output

    def test_a_bundle_that_is_not_there(self, tmp_path):
        camera = {"id": "yard", "url": "rtsp://127.0.0.1:1/x"}
        for model in ({"bundle": "nothing"}, {"bundle": "demo", "shadow": "nothing"}):
            config = configuration(tmp_path, [camera], model=model, bundle="demo")
            code, output = run_command("run", "--config", str(config))
            assert code == 2
            assert f"{config}: 1 problem" in output
            assert f"model.{list(model)[-1]}: nothing: no bundle here" in output
            assert "shipped bundles (demo, fight)" in output

    def test_a_label_that_the_model_does_not_have(self, tmp_path):
        camera = {"id": "yard", "url": "rtsp://127.0.0.1:1/x", "labels": ["fall"]}
        code, output = run_command("check", "--config", str(configuration(tmp_path, [camera], bundle="demo")))
        assert code == 2
        assert "cameras[0] (yard).labels" in output

    def test_a_store_that_cannot_be_opened(self, tmp_path):
        (tmp_path / "file").write_text("")
        config = configuration(
            tmp_path,
            [{"id": "yard", "url": "rtsp://127.0.0.1:1/x"}],
            bundle="demo",
            outbox={"path": "file/outbox.sqlite"},
        )
        code, output = run_command("run", "--config", str(config))
        assert code == 2
        assert "outbox.path: the folder" in output
        assert "Traceback" not in output

    def test_a_port_that_is_taken(self, tmp_path, scene_streams):
        with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
            config = configuration(
                tmp_path, [{"id": "yard", "url": "rtsp://127.0.0.1:1/x"}], bundle="demo", http={"port": server.port}
            )
            for command in ("run", "check"):
                code, output = run_command(command, "--config", str(config))
                assert code == 2
                assert f"http.port: {server.port} is taken by another program; stop it or choose another" in output
                for unsaid in ("monitor_stopp", "Traceback"):
                    assert unsaid not in output

    def test_clips_that_cannot_be_learned_from(self, tmp_path):
        clips = tmp_path / "clips/fight"
        clips.mkdir(parents=True)
        (clips / "text.mp4").write_text("no video\n" * 100)
        (clips / "empty.mp4").touch()
        for command in (["train", "--out", str(tmp_path / "mine")], ["evaluate", "--cache", str(tmp_path / "cache")]):
            code, output = run_command(*command, str(tmp_path / "clips"), timeout=150.0)
            assert code == 2, output
            for said in (
                "4 problems",
                "fight/text.mp4: not a video",
                "fight/empty.mp4",
                "background label",
                "only one",
            ):
                assert said in output, command
            assert "Traceback" not in output


class TestCheck:
    def test_the_shipped_configuration_is_good(self):
        environment = {"MONITOR_HTTP__PORT": "0"}  # whatever else runs on this machine
        code, output = run_command("check", "--config", str(ROOT / "config.toml"), environment=environment)
        assert code == 0, output
        assert "fight" in output

    def test_a_monitor_that_runs_may_hold_the_port(self, tmp_path):
        camera = {"id": "yard", "url": "rtsp://127.0.0.1:1/x"}
        config = configuration(tmp_path, [camera], bundle="demo", http={"port": free_port()})
        with MonitorProcess(config):
            code, output = run_command("check", "--config", str(config))
            assert code == 0, output
            assert "a running monitor serves port" in output
            assert run_command("run", "--config", str(config))[0] == 2

    def test_probe_tells_of_each_camera(self, tmp_path, scene_streams):
        (tmp_path / "notes.txt").write_text("not a video\n" * 100)
        with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}, user="anna", password="right") as server:
            cameras = [
                {"id": "good", "url": server.url("yard", "anna", "right")},
                {"id": "refused", "url": server.url("yard", "anna", "hunter2")},
                {"id": "text", "url": str(tmp_path / "notes.txt")},
                {"id": "closed", "url": "rtsp://127.0.0.1:1/x"},
            ]
            config = configuration(tmp_path, cameras, bundle="demo", kafka={"bootstrap_servers": "127.0.0.1:1"})
            narrow = {"COLUMNS": "80", **TERMINAL}
            code, output = run_command("check", "--probe", "--config", str(config), environment=narrow)
        assert code == 1
        assert "closed: connection_refused: " in output
        assert str(server.port) in output
        assert not any(line.endswith("…") for line in output.splitlines())
        for word in ("h264", "640×360", "15/", "30 / 2 s", "refused", "unsupported", "connection_refused"):
            assert word in output, output
        assert "hunter2" not in output
        assert "Traceback" not in output


def test_alerts_are_listed(tmp_path, scene_streams):
    with RtspServer({"yard": Mount(scene_streams["h264"], FPS)}) as server:
        config = configuration(tmp_path, [{"id": "yard", "url": server.url("yard")}], bundle="demo")
        code, output = run_command("alerts", "--config", str(config))
        assert code == 2
        assert "outbox" in output
        with MonitorProcess(config) as monitor:
            monitor.wait_for_event("event_ended", 45)
            code, output = run_command("alerts", "--config", str(config), "--json")
            monitor.stop()
    assert code == 0
    phases = [json.loads(line)["phase"] for line in output.splitlines()]
    assert phases[0] == "started"
    assert "ended" in phases
    ids = {json.loads(line)["alert_id"] for line in output.splitlines()}
    for surroundings in ({"COLUMNS": "50", **TERMINAL}, {"COLUMNS": "80", **TERMINAL}, {"COLUMNS": "80"}):
        code, output = run_command("alerts", "--config", str(config), environment=surroundings)
        assert ids <= set(output.split()), output  # whole, as `monitor label` takes them
        assert "…" not in output
    assert "scuffle" in output


def test_an_encoding_that_lacks_a_sign_ends_nothing(tmp_path):
    config = configuration(tmp_path, [{"id": "yard", "url": "rtsp://127.0.0.1:1/x"}], bundle="demo")
    code, output = run_command("check", "--config", str(config), environment={"PYTHONIOENCODING": "ascii"})
    assert code == 0
    assert f"? {config}: 1 camera(s)" in output


def test_schemas_are_json_schemas():
    for name in ("config", "alert", "camera"):
        code, output = run_command("schema", name)
        assert code == 0
        jsonschema.Draft202012Validator.check_schema(json.loads(output))
    code, output = run_command("schema", "asyncapi")
    assert code == 0
    assert json.loads(output)["asyncapi"] == "3.0.0"


@pytest.mark.parametrize(
    "command", ["", "run", "check", "replay", "alerts", "label", "consume", "schema", "train", "evaluate", "compile"]
)
def test_help_teaches(command):
    code, output = run_command(*([command] if command else []), "--help")
    assert code == 0
    assert "Usage" in output


def test_a_bundle_that_is_trained_again_has_another_version(tmp_path):
    assert next_version(tmp_path / "new") == "1"
    bundle = shutil.copytree(ROOT / "models/bundles/demo", tmp_path / "demo")
    assert int(next_version(bundle)) == int(load_bundle(bundle).manifest.version) + 1
    write_manifest(bundle, load_bundle(bundle).manifest.model_copy(update={"version": "spring"}))
    assert next_version(bundle) == "1"


def test_a_wrong_option_is_exit_code_2():
    assert run_command("run", "--colour")[0] == 2
