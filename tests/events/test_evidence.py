from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from monitor.config import EvidenceConfig
from monitor.events.alerts import alert_id, compose, recovered
from monitor.events.evidence import EvidenceLinks, links_of, most_attended, requests_for
from monitor.records import BeginClip, EndClip, EventChange, Phase, TakePictures, Threshold
from tests.events.test_tracker import make_score
from tests.test_decisions import CONTEXT

SETTINGS = EvidenceConfig(pre_seconds=4.0, post_seconds=3.0)


def change(phase: Phase, *, ended: float | None = None) -> EventChange:
    score = make_score(3, 0.9)
    return EventChange(
        camera="yard",
        label="fight",
        phase=phase,
        reason=None,
        sequence=0,
        started_seconds=100.0,
        changed_seconds=104.0,
        ended_seconds=ended,
        smoothed_score=0.9,
        peak_score=0.9,
        peak_seconds=102.0,
        threshold=Threshold(0.6, 0.4),
        score=score,
    )


def test_a_start_begins_a_clip_and_takes_pictures_of_its_window():
    started = change(Phase.STARTED)
    begin, pictures = requests_for(started, "id", SETTINGS, longest_seconds=120.0)
    assert isinstance(begin, BeginClip)
    assert (begin.from_seconds, begin.event_seconds, begin.file_name) == (96.0, 100.0, "id.mp4")
    assert begin.latest_seconds > 100.0 + 120.0 + 3.0
    assert isinstance(pictures, TakePictures)
    assert pictures.frame_seconds == started.score.window.frame_seconds
    assert pictures.attention == tuple(float(weight) for weight in started.score.attention_per_slot)
    assert pictures.most_attended == most_attended(started.score)


def test_an_end_ends_the_clip_after_the_post_roll_and_an_update_asks_for_nothing():
    assert requests_for(change(Phase.ENDED, ended=110.0), "id", SETTINGS, longest_seconds=1.0) == (
        EndClip("yard", "id", 113.0),
    )
    assert requests_for(change(Phase.UPDATED), "id", SETTINGS, longest_seconds=1.0) == ()


def test_a_window_of_gaps_alone_has_no_picture():
    started = change(Phase.STARTED)
    window = replace(
        started.score.window,
        mask=np.zeros_like(started.score.window.mask),
        frame_seconds=(None,) * len(started.score.window.frame_seconds),
    )
    started = replace(started, score=replace(started.score, window=window))
    assert len(requests_for(started, "id", SETTINGS, longest_seconds=1.0)) == 1


def test_links_are_the_base_and_the_file_and_stay_in_a_recovered_message():
    told_id = alert_id("yard", "fight", 100.0)
    links = links_of(told_id, "https://monitor.example/media/")
    assert links.clip == f"https://monitor.example/media/{told_id}.mp4"
    said = compose(change(Phase.STARTED), CONTEXT, decided_seconds=104.0, published_seconds=104.0, links=links)
    for alert in (said, recovered(said, published_seconds=200.0)):
        evidence = json.loads(alert.value)["evidence"]
        assert EvidenceLinks(evidence["snapshot"], evidence["strip"], evidence["clip"]) == links
