"""The last hour of scores: what is kept, what is thinned and what is forgotten."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.records import Alert, CameraPicture, EvidenceKind, EvidenceReport, EvidenceResult, Phase, Sample
from monitor.web import pictures as pictures_module
from monitor.web.history import BLOCK_WINDOWS, KEEP_SECONDS, RECENT_WINDOWS, History, Scores, thinned
from monitor.web.news import KEPT_NEWS, News
from monitor.web.pictures import Pictures
from tests.events.test_tracker import STEP, end_of, make_score


def noted(numbers, *, history=None):
    history = history or History()
    for number in numbers:
        history.note(make_score(number, number % 100 / 100), {"fight": number % 100 / 100})
    return history


def test_windows_come_back_as_they_were_decided():
    history = noted(range(5))
    scores = history.scores("yard")
    assert (scores.labels, scores.window_seconds) == (("fight",), 2.0)
    assert scores.ends.tolist() == [end_of(number) for number in range(5)]
    assert scores.probabilities[:, 0].tolist() == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])
    assert scores.attention.shape == (5, 8)
    assert scores.attention[0].argmax() == 3
    assert history.scores("gate") is None
    assert history.newest("yard").ends.tolist() == [end_of(4)]
    within = history.scores("yard", since=end_of(1), until=end_of(3))
    assert within.ends.tolist() == [end_of(1), end_of(2), end_of(3)]


def test_memory_is_bounded_by_the_hour():
    an_hour = round(KEEP_SECONDS / STEP)
    history = noted(range(an_hour + 3 * BLOCK_WINDOWS))
    kept = len(history.scores("yard"))
    assert an_hour <= kept <= an_hour + BLOCK_WINDOWS
    _, recent = history.after(0)
    assert len(recent) == RECENT_WINDOWS


def test_a_reader_gets_each_window_once():
    history = noted(range(3))
    serial, first = history.after(0)
    assert [window.end_seconds for window in first] == [end_of(0), end_of(1), end_of(2)]
    assert history.after(serial) == (serial, [])
    noted(range(3, 5), history=history)
    assert [window.end_seconds for window in history.after(serial)[1]] == [end_of(3), end_of(4)]


def test_another_model_or_a_clock_set_back_begins_anew():
    history = noted(range(5))
    history.note(make_score(5, 0.5, 0.2), {"fight": 0.5, "fall": 0.2})
    assert history.scores("yard").labels == ("fight", "fall")
    assert len(history.scores("yard")) == 1
    history.note(make_score(2, 0.5), {"fight": 0.5, "fall": 0.0})
    assert history.scores("yard").ends.tolist() == [end_of(2)]


def test_cameras_that_are_gone_are_forgotten():
    history = noted(range(3))
    history.keep_only({"yard", "gate"})
    assert history.scores("yard") is not None
    history.keep_only({"gate"})
    assert history.scores("yard") is None


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=300), st.integers(1, 50))
def test_thinning_keeps_the_highest_and_invents_nothing(highest, points):
    count = len(highest)
    scores = Scores(
        ("fight",),
        2.0,
        np.arange(count, dtype=np.float64),
        np.array(highest, np.float32)[:, None],
        np.zeros((count, 8), np.float16),
    )
    few = thinned(scores, points)
    assert len(few) <= points or count <= points
    assert few.probabilities.max() == scores.probabilities.max()
    assert (np.diff(few.ends) > 0).all()
    assert all(few.probabilities[at, 0] == scores.probabilities[int(end), 0] for at, end in enumerate(few.ends))


def test_writers_and_readers_may_be_many():
    history = History()
    stop = threading.Event()

    def read():
        while not stop.is_set():
            scores = history.scores("yard", points=10)
            assert scores is None or (np.diff(scores.ends) > 0).all()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    noted(range(2000), history=history)
    stop.set()
    for reader in readers:
        reader.join(5)
    assert len(history.scores("yard")) == 2000


def alert(number):
    return Alert(f"alert-{number}", 0, "yard", "fight", Phase.STARTED, 0.0, "topic", (), b"{}")


def test_news_are_told_from_a_serial_on_or_not_at_all():
    news = News()
    assert news.after(0) == []
    for number in range(KEPT_NEWS + 10):
        news.note_alert(alert(number))
    assert [item.told["alert_id"] for item in news.after(news.serial - 2)] == ["alert-520", "alert-521"]
    assert news.after(news.serial) == []
    assert len(news.after(10)) == KEPT_NEWS
    assert news.after(9) is None, "more was missed than is kept"
    assert news.after(news.serial + 1) is None, "of another run"


def test_only_evidence_that_is_complete_is_news():
    news = News()
    for result in EvidenceResult:
        news.note_evidence(EvidenceReport("yard", "alert-1", EvidenceKind.CLIP, result))
    assert [item.told for item in news.after(0)] == [{"alert_id": "alert-1", "camera": "yard", "kind": "clip"}]


def sample(seconds, value):
    pixels = np.full((2, 72, 128, 3), value, np.uint8)
    return Sample("yard", 0, seconds, seconds, None, pixels)


def test_the_latest_picture_is_the_keyframe_or_else_the_sample(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pictures_module.time, "monotonic", lambda: now[0])
    asked = []
    pictures = Pictures(asked.append)
    assert pictures.latest("yard") is None
    pictures.note_sample(sample(1000.0, 200))
    of_sample = pictures.latest("yard")
    assert of_sample.seconds == 1000.0
    assert of_sample.jpeg[:2] == b"\xff\xd8"
    assert pictures.latest("yard") is of_sample, "it is coded once"
    keyframe = CameraPicture("yard", 998.0, b"jpeg")
    pictures.note_keyframe(keyframe)
    assert pictures.latest("yard") is keyframe
    pictures.note_sample(sample(1030.0, 100))
    assert pictures.latest("yard").seconds == 1030.0, "a keyframe that old shows another scene"


def test_a_camera_is_asked_no_more_often_however_many_look(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pictures_module.time, "monotonic", lambda: now[0])
    asked = []
    pictures = Pictures(asked.append)
    for _ in range(50):
        pictures.latest("yard")
    assert asked == ["yard"]
    now[0] += pictures_module.ASK_SECONDS
    pictures.latest("yard")
    assert asked == ["yard", "yard"]
    pictures.note_sample(sample(1.0, 1))
    assert len(asked) == 2, "nobody looks, nothing is asked for"
