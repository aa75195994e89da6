"""Drawn scenes: deterministic, with events at known times that single pictures do not show."""

from __future__ import annotations

import csv
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from models.scenes import BACKGROUND_LABEL, EVENT_LABEL, Scene
from models.scenes.clips import CLIP_SECONDS, plan_clips, write_clips, write_recordings
from models.scenes.script import Sway, Tempo


def test_equal_seeds_draw_equal_pictures() -> None:
    one, other = Scene(4, 160, 90), Scene(4, 160, 90)
    for left, right in zip(one.frames(2.0), other.frames(2.0), strict=True):
        np.testing.assert_array_equal(left, right)
    assert one.events(120.0) == other.events(120.0)


def test_other_seeds_draw_other_scenes() -> None:
    assert not np.array_equal(Scene(4, 160, 90).picture(0), Scene(5, 160, 90).picture(0))


def test_a_picture_does_not_depend_on_those_drawn_before() -> None:
    scene = Scene(6, 160, 90, fps=15)
    late = scene.picture(600)
    np.testing.assert_array_equal(late, next(islice(Scene(6, 160, 90, fps=15).frames(41.0), 600, None)))
    np.testing.assert_array_equal(late, next(Scene(6, 160, 90, fps=15).frames(1.0, start_seconds=40.0)))


@pytest.mark.parametrize(("width", "height"), [(640, 360), (320, 240), (96, 64)])
def test_pictures_have_the_size_asked_for(width: int, height: int) -> None:
    pictures = list(Scene(1, width, height, fps=10).frames(1.0))
    assert len(pictures) == 10
    assert {picture.shape for picture in pictures} == {(height, width, 3)}
    assert pictures[0].dtype == np.uint8


def test_events_last_three_to_six_seconds_and_do_not_overlap() -> None:
    events = Scene(11).events(1800.0)
    assert len(events) > 20
    for start, end in events:
        assert 3.0 <= end - start <= 6.0
    for (_, end), (start, _) in pairwise(events):
        assert start > end


def test_a_scene_without_events_has_none() -> None:
    assert Scene(3, event_share=0.0).events(600.0) == []


def test_a_scuffle_shows_more_change_between_pictures_than_the_talk_before() -> None:
    ratios = []
    for seed in range(8):
        scene = Scene(seed, 320, 180, event_share=1.0)
        start, end = scene.events(30.0)[0]
        ratios.append(_change(scene, start + 0.5, end) / _change(scene, start - 1.5, start))
    assert np.median(ratios) > 1.5


def test_talk_and_scuffle_take_the_same_poses_at_another_speed() -> None:
    rng = np.random.default_rng(5)
    slow, fast = [], []
    for _ in range(400):
        sway = Sway(rng, 1, Tempo(slow=0.5, fast=6.0, fast_from_seconds=100.0, fast_until_seconds=200.0))
        slow += [sway(time)[0] for time in (20.0, 50.0)]
        fast += [sway(time)[0] for time in (120.0, 150.0)]
    assert abs(np.mean(slow) - np.mean(fast)) < 0.08
    assert np.std(fast) == pytest.approx(np.std(slow), rel=0.1)


def test_clips_are_written_with_their_labels(tmp_path: Path) -> None:
    plans = plan_clips(6, seed=2)
    assert [plan.path for plan in write_clips(tmp_path, plans)] == [plan.path for plan in plans]
    rows = list(csv.DictReader((tmp_path / "clips.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["label"] for row in rows] == [EVENT_LABEL, BACKGROUND_LABEL] * 3
    assert len({row["group"] for row in rows}) == 2
    with av.open(str(tmp_path / rows[0]["path"])) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.frames == pytest.approx(CLIP_SECONDS * float(stream.average_rate or 0), abs=1)


def test_recordings_come_with_their_events(tmp_path: Path) -> None:
    list(write_recordings(tmp_path, 1, seed=3, duration_seconds=20.0))
    rows = list(csv.DictReader((tmp_path / "events.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["label"] for row in rows} <= {EVENT_LABEL}
    assert all(float(row["end_seconds"]) > float(row["start_seconds"]) for row in rows)


def test_the_demo_draws_without_torch() -> None:
    code = "import sys, models.scenes; sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def _change(scene: Scene, start_seconds: float, end_seconds: float) -> float:
    frames = scene.frames(end_seconds - start_seconds, start_seconds=start_seconds)
    pictures = [picture.astype(np.int16) for picture in frames]
    return float(np.mean([(np.abs(after - before) > 30).mean() for before, after in pairwise(pictures)]))
