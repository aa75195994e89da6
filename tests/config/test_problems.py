"""Problems of a configuration are told in plain words, with the key that may be meant, and without a secret."""

from __future__ import annotations

import re

import pytest

from tests.test_config import ONE_CAMERA, problems, write


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ('[model]\nbundel = "fight"', "model.bundel", "unknown key; did you mean bundle?"),
        ('bundel = "fight"', "bundel", "unknown key; did you mean bundle below [model]?"),
        ('url = "rtsp://camera.example/"', "url", "unknown key; did you mean url below [[cameras]]?"),
        ("[captur]\nworkers = 1", "captur", "unknown key; did you mean [capture]?"),
        ("[zzz]\nworkers = 1", "zzz", "unknown key"),
        (
            "[events.thresholds.fight]\non = 0.5\noff = 0.4\nonn = 1",
            "events.thresholds.fight.onn",
            "unknown key; did you mean on?",
        ),
        ("[scoring]\nbatch_samples = 'many'", "scoring.batch_samples", "must be a whole number, not 'many'"),
        ("[scoring]\nbatch_samples = 2.5", "scoring.batch_samples", "must be a whole number, not 2.5"),
        ("[scoring]\nbatch_samples = 300", "scoring.batch_samples", "must be at most 256, not 300"),
        ("[capture]\nretry_max_seconds = 0", "capture.retry_max_seconds", "must be more than 0, not 0"),
        ("[health]\ndark_seconds = 'x'", "health.dark_seconds", "must be a number, not 'x'"),
        ("[evidence]\nenabled = 'maybe'", "evidence.enabled", "must be true or false, not 'maybe'"),
        ("[evidence]\nfolder = 3", "evidence.folder", "must be a path in quotes"),
        ("[logs]\nlevel = true", "logs.level", "must be 'debug', 'info', 'warning' or 'error', not true"),
        ("[events]\nthresholds = 3", "events.thresholds", "must be a table of its own, not 3"),
        ("logs = 'info'", "logs", "must be a table with the keys level, format"),
        ("instance = 'a b'", "instance", "must be letters, digits and . _ -, at most 63, the first a letter or digit"),
    ],
)
def test_a_problem_is_told_in_plain_words(tmp_path, text, key, reason):
    assert problems(write(tmp_path, f"{text}\n{ONE_CAMERA}")) == {key: reason}


@pytest.mark.parametrize("text", ['cameras = "x"', '[cameras]\nid = "x"', 'cameras = ["x"]'])
def test_cameras_that_are_no_list_of_tables_are_told_how_to_be_written(tmp_path, text):
    assert list(problems(write(tmp_path, text)).values()) == ["write [[cameras]] before the keys of each camera"]


def test_single_brackets_are_told(tmp_path):
    found = problems(write(tmp_path, '[camera]\nid = "yard"\n'))
    assert found == {"cameras": "is missing", "camera": "unknown key; did you mean [[cameras]]?"}


def test_a_wrong_value_that_may_hold_a_secret_is_not_shown(tmp_path):
    wrong = (
        ONE_CAMERA
        + 'password_env = 1234567\ntransport = "rtsp://anna:hunter2@camera.example/"\ntags = ["a", {hunter2 = 1}]\n'
    )
    found = problems(write(tmp_path, wrong))
    assert found["cameras[0] (yard).transport"] == "must be 'tcp' or 'udp'"
    assert found["cameras[0] (yard).password_env"] == "must be a text in quotes"
    assert not {"hunter2", "1234567"} & set(re.findall(r"\w+", str(found)))
