"""What the environment sets: every variable of ours is read, named by the configuration, or a problem."""

from __future__ import annotations

import pytest

from monitor.config import load_config
from tests.test_config import ONE_CAMERA, problems, write


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MONITOR_KAFKA_BOOTSTRAP_SERVERS", "did you mean MONITOR_KAFKA__BOOTSTRAP_SERVERS?"),
        ("MONITOR_INSTANCE__NAME", "did you mean MONITOR_INSTANCE?"),
        ("MONITOR_CONFG", "did you mean MONITOR_CONFIG?"),
        ("MONITOR_ZZZ", "unset it"),
        ("monitor_modell__bundle", "did you mean MONITOR_MODEL__BUNDLE?"),
    ],
)
def test_a_variable_that_nothing_reads_is_a_problem(tmp_path, monkeypatch, name, meant):
    monkeypatch.setenv(name, "broker:9092")
    assert problems(write(tmp_path, ONE_CAMERA)) == {name: f"nothing reads this variable; {meant}"}


def test_it_is_told_with_all_other_problems(tmp_path, monkeypatch):
    monkeypatch.setenv("MONITOR_MODEL__THREDS", "1")
    monkeypatch.setenv("MONITOR_ZZZ", "1")
    assert problems(write(tmp_path, "colour = 1\n" + ONE_CAMERA)).keys() == {"colour", "model.threds", "MONITOR_ZZZ"}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MONITOR_HTTP__PORT", "abc", {"http.port": "must be a whole number, not 'abc' (set by MONITOR_HTTP__PORT)"}),
        ("monitor_http__port", "abc", {"http.port": "must be a whole number, not 'abc' (set by monitor_http__port)"}),
        ("MONITOR_CAMERAS", "[]", {"cameras": "must have at least 1 (set by MONITOR_CAMERAS)"}),
        ("MONITOR_CAMERAS", '[{"id": "gate"}]', {"cameras[0].url": "is missing (set by MONITOR_CAMERAS)"}),
        ("MONITOR_CAMERAS", "yard", {"MONITOR_CAMERAS": 'is not JSON: [{"id": "yard", "url": "…"}]'}),
        ("MONITOR_MODEL", "demo", {"MONITOR_MODEL": "is not JSON: MONITOR_MODEL__… sets one key of it"}),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(tmp_path, monkeypatch, name, value, told):
    monkeypatch.setenv(name, value)
    assert problems(write(tmp_path, ONE_CAMERA)) == told


def test_what_is_read_is_none(tmp_path, monkeypatch):
    for name in ("MONITOR_CONFIG", "MONITOR_TOKEN", "MONITOR_YARD", "monitor_instance", "MONITOR_GATE"):
        monkeypatch.setenv(name, "open-sesame-0123456789")
    monkeypatch.setenv("MONITOR_EVENTS__THRESHOLDS__FIGHT__ON", "0.7")
    monkeypatch.setenv("MONITOR_EVENTS__THRESHOLDS__FIGHT__OFF", "0.6")
    monkeypatch.setenv("MONITOR_HTTP__TOKEN_ENV", "MONITOR_GATE")
    config = load_config(write(tmp_path, ONE_CAMERA + 'username = "anna"\npassword_env = "MONITOR_YARD"\n'))
    assert config.events.thresholds["fight"].on == 0.7
    assert config.instance == config.http.token.get_secret_value() == "open-sesame-0123456789"


def test_cameras_come_all_together(tmp_path, monkeypatch):
    monkeypatch.setenv("MONITOR_CAMERAS", '[{"id": "gate", "url": "rtsp://camera.example/gate"}]')
    assert [camera.id for camera in load_config(write(tmp_path, ONE_CAMERA)).cameras] == ["gate"]
    monkeypatch.delenv("MONITOR_CAMERAS")
    monkeypatch.setenv("MONITOR_CAMERAS__0__URL", "rtsp://camera.example/gate")
    assert problems(write(tmp_path, ONE_CAMERA))["MONITOR_CAMERAS__0__URL"].endswith("did you mean MONITOR_CAMERAS?")


def test_what_kubernetes_sets_beside_a_service_monitor_is_none(tmp_path, monkeypatch):
    """In every pod of its namespace, where the manifests are not ours, which turn it off."""
    for name in (
        "MONITOR_SERVICE_HOST",
        "MONITOR_SERVICE_PORT_HTTP",
        "MONITOR_PORT_8080_TCP_ADDR",
        "MONITOR_PAGE_PORT",
    ):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8080" if name.endswith("_PORT") else "10.0.0.1")
    assert load_config(write(tmp_path, ONE_CAMERA)).cameras
    monkeypatch.setenv("MONITOR_HTTP_PORT", "8081")
    assert problems(write(tmp_path, ONE_CAMERA))["MONITOR_HTTP_PORT"].endswith("did you mean MONITOR_HTTP__PORT?")
