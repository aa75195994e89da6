"""The configuration: what it takes, what it refuses, and that every problem is told at once without a secret."""

from __future__ import annotations

import json
import pickle
import tomllib
from pathlib import Path

import jsonschema
import pytest

from monitor.bundle import Manifest
from monitor.cli.schemas import config_schema
from monitor.config import Config, check_against_model, load_config
from monitor.errors import ConfigInvalid

ROOT = Path(__file__).parent.parent
ONE_CAMERA = '[[cameras]]\nid = "yard"\nurl = "rtsp://camera.example/stream"\n'
PLAIN = 'url = "rtsp://camera.example:8554/stream?channel=1"'


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def problems(path: Path) -> dict[str, str]:
    with pytest.raises(ConfigInvalid) as caught:
        load_config(path)
    return {problem.key: problem.reason for problem in caught.value.problems}


def test_the_shipped_configuration_loads_and_matches_its_schema():
    config = load_config(ROOT / "config.toml")
    assert [camera.id for camera in config.cameras] == ["yard"]
    jsonschema.validate(tomllib.loads((ROOT / "config.toml").read_text()), config_schema())


def test_the_shipped_configuration_explains_every_key():
    text = (ROOT / "config.toml").read_text()
    for name, section in Config.model_json_schema()["$defs"].items():
        for key in section["properties"]:
            assert f"{key} =" in text or f"{key}]" in text or f".{key}." in text, f"{name}.{key} is not in config.toml"


def test_the_committed_schema_is_the_one_the_code_makes():
    committed = json.loads((ROOT / "schemas/config.schema.json").read_text())
    assert committed == config_schema(), "run: monitor schema config > schemas/config.schema.json"


def test_the_shipped_configuration_shows_the_defaults(tmp_path):
    shipped = load_config(ROOT / "config.toml")
    plain = load_config(write(tmp_path, ONE_CAMERA))
    for section in type(plain).model_fields:
        if section not in ("cameras", "kafka", "outbox", "evidence", "model"):
            assert getattr(shipped, section) == getattr(plain, section)
    assert shipped.model == plain.model.model_copy(update={"cache": shipped.model.cache})
    for config, folder in ((shipped, ROOT), (plain, tmp_path)):
        assert config.outbox.path == folder / "var/outbox.sqlite"
        assert config.model.cache == folder / "var/engines"


def test_paths_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    path = write(tmp_path, ONE_CAMERA)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(path).outbox.path == tmp_path / "var/outbox.sqlite"
    assert load_config(Path("../config.toml")).outbox.path == tmp_path / "var/outbox.sqlite"


def test_every_problem_is_told_at_once_with_its_key(tmp_path):
    text = """
    colour = "red"
    [model]
    threads = -1
    [kafka]
    bootstrap_servers = "nowhere"
    [[cameras]]
    id = "yard"
    url = "gopher://camera.example/stream"
    zone = [[0, 0], [1, 1]]
    [[cameras]]
    id = "gate"
    url = "rtsp://camera.example/stream"
    password_env = "NO_SUCH_VARIABLE"
    """
    found = problems(write(tmp_path, text))
    assert set(found) == {
        "colour",
        "model.threads",
        "kafka.bootstrap_servers",
        "cameras[0] (yard).url",
        "cameras[0] (yard).zone",
        "cameras[1] (gate).password_env",
    }
    assert found["colour"] == "unknown key"
    assert "NO_SUCH_VARIABLE is not set" in found["cameras[1] (gate).password_env"]


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("", "cameras", "is missing"),
        ("cameras = []", "cameras", "at least 1"),
        (ONE_CAMERA + ONE_CAMERA, "cameras", "camera ids repeat: yard"),
        ("not toml at all", "file", "not a TOML file"),
        (
            ONE_CAMERA + "thresholds = {fight = {on = 0.4, off = 0.6}}",
            "cameras[0] (yard).thresholds.fight",
            "off (0.6)",
        ),
        (ONE_CAMERA + 'password_file = "missing"', "cameras[0] (yard).password_file", "cannot be read"),
        (
            '[kafka]\nbootstrap_servers = "a:1"\nsecurity_protocol = "SASL_SSL"\n' + ONE_CAMERA,
            "kafka",
            "needs sasl_mechanism",
        ),
        ('[kafka]\nbootstrap_servers = "a:1"\ntopic = "x"\nhealth_topic = "x"\n' + ONE_CAMERA, "kafka", "are the same"),
        ('name = "a\\u0000b"\n' + ONE_CAMERA, "file", "U+0000"),
        (ONE_CAMERA + 'tags = ["a", "\\u0000"]', "file", "U+0000"),
    ],
)
def test_bad_values_are_named(tmp_path, text, key, reason):
    found = problems(write(tmp_path, text))
    assert list(found) == [key]
    assert reason in found[key]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ('sasl_mechanism = "PLAIN"\nsasl_username = "u"\nsasl_password_env = "HOME"', "logs in nowhere"),
        ('sasl_username = "u"', "logs in nowhere"),
        ('security_protocol = "SSL"\nsasl_username = "u"', "security_protocol SSL logs in nowhere"),
        ('ssl_cafile = "ca.pem"', "security_protocol PLAINTEXT is not encrypted"),
        (
            'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\nsasl_username = "u"\n'
            'sasl_password_env = "HOME"\nssl_cafile = "ca.pem"',
            "security_protocol SASL_PLAINTEXT is not encrypted",
        ),
    ],
)
def test_what_the_protocol_of_kafka_would_leave_out_is_refused(tmp_path, keys, reason):
    """Alerts would otherwise go out in the clear, or without a login, and nobody would be told."""
    (tmp_path / "ca.pem").touch()
    found = problems(write(tmp_path, f'[kafka]\nbootstrap_servers = "a:1"\n{keys}\n{ONE_CAMERA}'))
    assert list(found) == ["kafka"]
    assert reason in found["kafka"]


@pytest.mark.parametrize("given", ["file", "env"])
def test_an_empty_password_is_refused(tmp_path, monkeypatch, given):
    """It would be refused by the camera or the broker, again and again, until the account is locked."""
    monkeypatch.setenv("NO_PASSWORD", "")
    (tmp_path / "NO_PASSWORD").write_text("\n")
    kafka = '[kafka]\nbootstrap_servers = "a:1"\nsasl_mechanism = "PLAIN"\nsasl_username = "monitor"\n'
    text = (
        f'{kafka}sasl_password_{given} = "NO_PASSWORD"\n{ONE_CAMERA}username = "u"\npassword_{given} = "NO_PASSWORD"\n'
    )
    found = problems(write(tmp_path, text))
    assert found.keys() == {f"kafka.sasl_password_{given}", f"cameras[0] (yard).password_{given}"}
    assert all("NO_PASSWORD is empty" in reason for reason in found.values())


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    (tmp_path / "secret").write_text("open-sesame-0123456789\r\n", encoding="utf-8-sig")
    path = write(tmp_path, "")
    path.write_text('[http]\ntoken_file = "secret"\n' + ONE_CAMERA, encoding="utf-8-sig")
    assert load_config(path).http.token.get_secret_value() == "open-sesame-0123456789"


def test_a_missing_file_is_named(tmp_path):
    told = problems(tmp_path / "none.toml")["file"]
    assert told.startswith("cannot be read: No such file or directory; give --config FILE or MONITOR_CONFIG, or begin")


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MONITOR_MODEL__THREADS", "3")
    monkeypatch.setenv("MONITOR_KAFKA__BOOTSTRAP_SERVERS", "broker:9092")
    config = load_config(write(tmp_path, "[model]\nthreads = 1\n" + ONE_CAMERA))
    assert config.model.threads == 3
    assert config.kafka is not None
    assert config.kafka.bootstrap_servers == "broker:9092"


def test_paths_are_relative_to_the_file(tmp_path):
    config = load_config(write(tmp_path, '[outbox]\npath = "store/a.sqlite"\n' + ONE_CAMERA))
    assert config.outbox.path == tmp_path / "store/a.sqlite"
    assert config.folder == tmp_path


def test_the_configuration_cannot_be_changed(tmp_path):
    config = load_config(write(tmp_path, ONE_CAMERA))
    with pytest.raises(ValueError, match="frozen"):
        config.model.threads = 2


class TestSecrets:
    @pytest.fixture(params=["url", "environment", "file"])
    def config(self, request, tmp_path, monkeypatch):
        monkeypatch.setenv("YARD_PASSWORD", "p@ss/w:rd")
        (tmp_path / "secret").write_text("p@ss/w:rd\n")
        camera = {
            "url": 'url = "rtsp://anna:p%40ss%2Fw%3Ard@camera.example:8554/stream?channel=1"',
            "environment": f'{PLAIN}\nusername = "anna"\npassword_env = "YARD_PASSWORD"',
            "file": f'{PLAIN}\nusername = "anna"\npassword_file = "secret"',
        }[request.param]
        return load_config(write(tmp_path, f'[[cameras]]\nid = "yard"\n{camera}\n'))

    def test_the_login_address_is_percent_encoded(self, config):
        login = config.cameras[0].login_url.get_secret_value()
        assert login == "rtsp://anna:p%40ss%2Fw%3Ard@camera.example:8554/stream?channel=1"

    def test_nothing_that_is_shown_holds_the_secret(self, config):
        shown = f"{config!r} {config} {config.cameras[0].display_url} {config.cameras[0].login_url}"
        for spelling in ("p@ss/w:rd", "p%40ss"):
            assert spelling not in shown

    def test_the_secret_is_known_to_redaction(self, config):
        assert "p@ss/w:rd" in config.secrets()

    def test_the_secret_travels_to_a_worker(self, config):
        copy = pickle.loads(pickle.dumps(config.cameras[0]))
        assert copy.login_url == config.cameras[0].login_url

    @pytest.mark.parametrize(
        "lines",
        [
            'url = "gopher://anna:hunter2@camera.example/"\nzone = 3',
            'url = "rtsp://anna:hunter2\u2100@camera.example/"',
            'url = "rtsp://anna:hun/ter2@camera.example/"',
            'url = "rtsp://anna:hun#ter2@camera.example/"',
            'url = "rtsp://anna:hun?ter2@camera.example/"',
            'url = "rtsp://anna:hunter2@camera.example:99999/"',
            'url = "rtsp://camera.example/"\nusername = "anna"\npassword_env = "hunter2"',
        ],
    )
    def test_an_error_does_not_hold_the_secret(self, tmp_path, lines):
        path = write(tmp_path, f'[[cameras]]\nid = "yard"\n{lines}\n')
        with pytest.raises(ConfigInvalid) as caught:
            load_config(path)
        for piece in ("hunter2", "hun/ter2", "ter2@", "hun#", "hun?"):
            assert piece not in str(caught.value)

    def test_a_password_in_the_path_is_a_secret(self, tmp_path):
        url = "rtsp://camera.example/user=admin&password=hunter2&channel=1.sdp"
        camera = load_config(write(tmp_path, f'[[cameras]]\nid = "yard"\nurl = "{url}"\n')).cameras[0]
        assert camera.display_url == "rtsp://camera.example/user=admin&password=…&channel=1.sdp"
        assert camera.secrets() == ("hunter2",)
        assert camera.login_url.get_secret_value() == url

    def test_a_password_without_a_user_is_an_error(self, tmp_path, monkeypatch):
        monkeypatch.setenv("YARD_PASSWORD", "hunter2")
        found = problems(write(tmp_path, ONE_CAMERA + 'password_env = "YARD_PASSWORD"\n'))
        assert found == {"cameras[0] (yard)": "a password needs a username"}

    def test_servers_with_credentials_are_refused_unshown(self, tmp_path):
        found = problems(write(tmp_path, '[kafka]\nbootstrap_servers = "u:hunter2@kafka:9092"\n' + ONE_CAMERA))
        assert "hunter2" not in found["kafka.bootstrap_servers"]


def test_tokens_in_the_query_are_secrets(tmp_path):
    text = '[[cameras]]\nid = "yard"\nurl = "http://camera.example/v?token=abc123&channel=1"\n'
    camera = load_config(write(tmp_path, text)).cameras[0]
    assert camera.secrets() == ("abc123",)
    assert "abc123" not in camera.display_url
    assert camera.login_url.get_secret_value().endswith("token=abc123&channel=1")


def test_a_variable_that_is_no_json_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MONITOR_CAMERAS", "[{")
    assert "is not JSON" in problems(write(tmp_path, ONE_CAMERA))["MONITOR_CAMERAS"]


def test_labels_must_be_the_models(tmp_path):
    text = ONE_CAMERA + 'labels = ["fall"]\n[events.thresholds.smoke]\non = 0.5\noff = 0.4\n'
    manifest = Manifest.model_validate(
        {
            "name": "fight",
            "version": "1",
            "labels": ["normal", "fight"],
            "background": "normal",
            "sample_fps": 4.0,
            "window_slots": 8,
            "stride_slots": 2,
            "embedding_size": 4,
            "hops": 1,
            "sample": {"pictures": 1, "context_spacing_seconds": 0.0, "width_pixels": 32, "height_pixels": 32},
            "thresholds": {"fight": {"on": 0.5, "off": 0.4}},
        }
    )
    path = write(tmp_path, text)
    with pytest.raises(ConfigInvalid) as caught:
        check_against_model(load_config(path), manifest, path)
    assert {problem.key for problem in caught.value.problems} == {
        "events.thresholds.smoke",
        "cameras[0] (yard).labels",
    }


def test_a_large_stream_has_the_cameras_credentials_unless_it_brings_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("YARD_PASSWORD", "p@ss word")
    plain = ONE_CAMERA + 'clip_url = "rtsp://camera.example/large?token=t0ken"\n'
    camera = load_config(write(tmp_path, plain + 'username = "user"\npassword_env = "YARD_PASSWORD"\n')).cameras[0]
    assert camera.clip is not None
    assert camera.clip.login_url.get_secret_value() == "rtsp://user:p%40ss%20word@camera.example/large?token=t0ken"
    assert set(camera.secrets()) == {"p@ss word", "t0ken"}
    assert "t0ken" not in repr(camera) + camera.clip.display_url + camera.clip.shared_url
    own = ONE_CAMERA.replace("://", "://user:one@") + 'clip_url = "rtsp://other:two@camera.example/large"\n'
    camera = load_config(write(tmp_path, own)).cameras[0]
    assert camera.login_url.get_secret_value() == "rtsp://user:one@camera.example/stream"
    assert camera.clip is not None
    assert camera.clip.login_url.get_secret_value() == "rtsp://other:two@camera.example/large"
    assert set(camera.secrets()) == {"one", "two"}
    assert load_config(write(tmp_path, ONE_CAMERA)).cameras[0].clip is None


def test_a_large_stream_is_checked_as_the_small_one_is(tmp_path):
    wrong = ONE_CAMERA + 'clip_url = "gopher://camera.example/s3cret"\n'
    assert "scheme" in problems(write(tmp_path, wrong))["cameras[0] (yard).clip_url"]
    same = ONE_CAMERA + 'clip_url = "rtsp://camera.example/stream"\n'
    assert "same as url" in str(problems(write(tmp_path, same)))


TOKEN = "open-sesame-0123456789"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_on_this_machine_no_token_is_needed(tmp_path, host):
    config = load_config(write(tmp_path, f'[http]\nhost = "{host}"\n' + ONE_CAMERA))
    assert config.http.token.get_secret_value() == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "monitor.example"])
def test_an_address_that_others_reach_needs_a_token(tmp_path, host):
    found = problems(write(tmp_path, f'[http]\nhost = "{host}"\n' + ONE_CAMERA))
    assert "give token_env or token_file" in found["http"]


@pytest.mark.parametrize("source", ["variable", "file"])
def test_the_token_is_read_and_shown_nowhere(tmp_path, monkeypatch, source):
    monkeypatch.setenv("MONITOR_TOKEN", TOKEN)
    (tmp_path / "token").write_text(TOKEN + "\n")
    line = 'token_env = "MONITOR_TOKEN"' if source == "variable" else 'token_file = "token"'
    config = load_config(write(tmp_path, f'[http]\nhost = "0.0.0.0"\n{line}\n' + ONE_CAMERA))
    assert config.http.token.get_secret_value() == TOKEN
    assert TOKEN in config.secrets()
    assert TOKEN not in repr(config) + config.model_dump_json()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('token_env = "NO_SUCH_VARIABLE"', "NO_SUCH_VARIABLE is not set"),
        ('token_file = "none"', "cannot be read"),
        ('token_env = "MONITOR_TOKEN"\ntoken_file = "token"', "not both"),
        ('token_env = "SHORT"', "16 characters or more"),
        ('token_env = "SPACES"', "16 characters or more"),
        ('token_file = "empty"', "is empty"),
    ],
)
def test_a_token_that_is_missing_or_too_weak_is_refused_and_not_shown(tmp_path, monkeypatch, lines, told):
    for name, value in (("MONITOR_TOKEN", TOKEN), ("SHORT", "hunter2hunter2"), ("SPACES", "hunter2 hunter2 hunter2")):
        monkeypatch.setenv(name, value)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "empty").write_text("")
    found = problems(write(tmp_path, f"[http]\n{lines}\n" + ONE_CAMERA))
    assert told in str(found)
    assert "hunter2" not in str(found)
