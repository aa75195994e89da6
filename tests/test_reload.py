"""What a reload applies at once, and what it only names."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.config import Config, load_config
from monitor.reload import applied, changes_between
from monitor.telemetry.redaction import Redactor

PLAIN = """
[[cameras]]
id = "yard"
url = "rtsp://127.0.0.1/yard"
username = "anna"
password_file = "secret"
[[cameras]]
id = "gate"
url = "rtsp://127.0.0.1/gate"
"""


@pytest.fixture
def read(tmp_path: Path):
    (tmp_path / "secret").write_text("one")

    def read(text: str = PLAIN) -> Config:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return load_config(path)

    return read


def test_the_same_configuration_changes_nothing(read) -> None:
    changes = changes_between(read(), read())
    assert not changes.any
    assert changes.needs_restart == ()


def test_cameras_come_and_go_and_the_others_are_left_alone(read) -> None:
    after = PLAIN.replace('"gate"', '"dock"')
    changes = changes_between(read(), read(after))
    assert [camera.id for camera in changes.added] == ["dock"]
    assert (changes.removed, changes.reopened, changes.retold) == (("gate",), (), ())


@pytest.mark.parametrize(
    ("line", "opens_anew"),
    [
        ('name = "Gate"', False),
        ("priority = 9", False),
        ('tags = ["a"]', False),
        ("thresholds = { fight = { on = 0.9, off = 0.2 } }", False),
        ('transport = "udp"', True),
        ("zone = [[0, 0], [1, 0], [1, 1]]", True),
    ],
)
def test_only_what_touches_the_stream_opens_it_anew(read, line: str, opens_anew: bool) -> None:
    changes = changes_between(read(), read(PLAIN + line))
    found = [camera.id for camera in (changes.reopened if opens_anew else changes.retold)]
    assert found == ["gate"]
    assert not (changes.retold if opens_anew else changes.reopened)


def test_a_password_changed_in_its_file_opens_the_stream_anew(read, tmp_path: Path) -> None:
    before = read()
    (tmp_path / "secret").write_text("two")
    changes = changes_between(before, read())
    assert [camera.id for camera in changes.reopened] == ["yard"]


def test_thresholds_for_all_are_told_to_all(read) -> None:
    changes = changes_between(read(), read(PLAIN + "[events.thresholds.fight]\non = 0.9\noff = 0.2\n"))
    assert [camera.id for camera in changes.retold] == ["yard", "gate"]
    assert changes.needs_restart == ()


def test_what_needs_a_restart_is_named_and_not_applied(read) -> None:
    running = read()
    other = read(
        'instance = "b"\n[http]\nport = 1\n[events]\nmerge_gap_seconds = 9.0\n[model]\nbundle = "demo"\n'
        '[kafka]\nbootstrap_servers = "a:1"\n' + PLAIN
    )
    changes = changes_between(running, other)
    assert set(changes.needs_restart) == {"instance", "http.port", "events.merge_gap_seconds", "kafka"}
    assert changes.model
    now = applied(running, other)
    assert (now.model.bundle, now.http.port, now.events.merge_gap_seconds) == ("demo", 8080, 2.0)
    assert now.folder == running.folder


def test_a_changed_kafka_password_is_named_without_being_shown(read, tmp_path: Path) -> None:
    kafka = (
        '[kafka]\nbootstrap_servers = "a:1"\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"\n'
        'sasl_username = "u"\nsasl_password_file = "secret"\n'
    )
    before = read(kafka + PLAIN.replace('password_file = "secret"', "").replace('username = "anna"', ""))
    (tmp_path / "secret").write_text("two")
    after = read(kafka + PLAIN.replace('password_file = "secret"', "").replace('username = "anna"', ""))
    assert changes_between(before, after).needs_restart == ("kafka.password",)


def test_a_changed_token_is_named_without_being_shown(read, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("open-sesame-0123456789")
    before = read('[http]\ntoken_file = "secret"\n' + PLAIN)
    (tmp_path / "secret").write_text("another-sesame-0123456789")
    after = read('[http]\ntoken_file = "secret"\n' + PLAIN)
    assert changes_between(before, after).needs_restart == ("http.token",)


def test_secrets_learned_later_are_redacted_as_the_first_ones() -> None:
    redactor = Redactor(["first"])
    redactor.learn(["second!"])
    assert redactor.clean("first second! second%21") == "[redacted] [redacted] [redacted]"
