"""Matching what was told with what happened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.matching import Span, match, merge
from models.recordings import CurvePoint, Recording, Watched, judge, read_events
from monitor.bundle import find_bundle, load_bundle
from monitor.errors import InputInvalid
from monitor.records import Score, Window


def _told(start: float, end: float, told: float) -> Span:
    return Span("scuffle", start, end, told)


EVENTS = [Span("scuffle", 10.0, 14.0), Span("scuffle", 30.0, 34.0)]


def test_events_are_matched_one_to_one() -> None:
    found = match(EVENTS, [_told(9.0, 15.0, 12.0), _told(50.0, 53.0, 52.0)], 3600.0)
    assert (found.events, found.told, found.false_alarms) == (2, 2, 1)
    assert found.delays_seconds == (2.0,)
    assert found.recall.value == found.precision.value == 0.5
    assert found.f1.value == 0.5
    assert found.false_alarms_per_hour.value == 1.0


def test_less_than_a_second_of_overlap_is_no_match() -> None:
    assert match(EVENTS[:1], [_told(13.5, 20.0, 15.0)], 60.0).recall.value == 0.0


def test_one_event_told_twice_is_found_once_and_false_once() -> None:
    found = match(EVENTS[:1], [_told(9.0, 11.5, 11.0), _told(12.0, 15.0, 14.0)], 60.0)
    assert (len(found.delays_seconds), found.false_alarms) == (1, 1)


def test_as_many_as_can_be_are_matched() -> None:
    """In the order of time the first event would take the only span that the second could have."""
    events = [Span("scuffle", 0.0, 10.0), Span("scuffle", 8.0, 20.0)]
    told = [_told(8.0, 18.0, 9.0), _told(0.5, 3.0, 2.0)]
    found = match(events, told, 60.0)
    assert (found.found, found.false_alarms) == (2, 0)
    assert sorted(found.delays_seconds) == [1.0, 2.0]


def test_of_two_matches_the_longer_overlap_wins() -> None:
    found = match(EVENTS[:1], [_told(9.0, 11.5, 11.0), _told(11.5, 15.0, 14.0)], 60.0)
    assert found.delays_seconds == (4.0,)


def test_an_event_shorter_than_a_second_can_be_found() -> None:
    assert match([Span("scuffle", 10.0, 10.8)], [_told(9.0, 12.0, 11.0)], 60.0).found == 1


def test_intervals_are_the_exact_ones() -> None:
    """Values of Clopper and Pearson 1934 for 8 of 10, and of Garwood 1936 for 3 in an hour and none in two."""
    events = [Span("scuffle", 20.0 * n, 20.0 * n + 4.0) for n in range(10)]
    told = [_told(20.0 * n, 20.0 * n + 4.0, 20.0 * n + 1.0) for n in range(8)]
    falses = [_told(1000.0 + 20 * n, 1002.0 + 20 * n, 1001.0) for n in range(3)]
    found = match(events, [*told, *falses], 3600.0)
    assert (found.recall.low, found.recall.high) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    rate = found.false_alarms_per_hour
    assert (rate.value, rate.low, rate.high) == pytest.approx((3.0, 0.6187, 8.7673), abs=1e-4)
    none = match([], [], 7200.0).false_alarms_per_hour
    assert (none.value, none.low, none.high) == pytest.approx((0.0, 0.0, 1.8444), abs=1e-4)
    assert found.seconds_to_detect_median.value == 1.0
    assert found.seconds_to_detect_p90.value == float("inf")
    assert found.as_json()["seconds_to_detect_p90"]["value"] is None  # type: ignore[index]


def test_the_most_attended_frame_counts_where_it_lies_in_the_event() -> None:
    told = [Span("scuffle", 9.0, 15.0, 12.0, 10.5), Span("scuffle", 29.0, 35.0, 32.0, 29.5)]
    assert match(EVENTS, told, 60.0).attended_inside_share.value == 0.5


def test_the_curve_is_read_at_a_rate_of_false_alarms() -> None:
    few = match(EVENTS, [_told(10.0, 14.0, 11.0)], 3600.0)
    many = match(EVENTS, [_told(10.0, 14.0, 11.0), _told(30.0, 34.0, 31.0), *[_told(50.0, 52.0, 51.0)] * 5], 3600.0)
    watched = Watched(many, (CurvePoint(0.3, many), CurvePoint(0.9, few)))
    assert watched.best_at(4.0) == CurvePoint(0.9, few)
    assert watched.best_at(5.0) == CurvePoint(0.3, many)
    assert Watched(many, (CurvePoint(0.3, many),)).best_at(1.0) is None


def test_a_higher_threshold_never_tells_more_windows() -> None:
    """Scored windows of a drawn probability: the curve's ends find everything and nothing."""
    scores = tuple(_score(slot, 0.9 if 40 <= slot < 60 else 0.1) for slot in range(0, 100, 2))
    recording = Recording("yard", (Span("scuffle", 8.5, 12.0),), scores, 20.0, 1.0)
    watched = judge([recording], load_bundle(find_bundle("demo", Path())).manifest)
    assert watched.found.found == 1
    assert watched.found.false_alarms == 0
    assert watched.found.attended_inside == 1
    assert watched.found.real_time_factor == 20.0
    assert [point.found.told for point in watched.curve][-1] == 0
    assert watched.curve[0].found.recall.value == 1.0


def _score(first_slot: int, probability: float) -> Score:
    times = tuple((first_slot + slot) / 5.0 for slot in range(10))
    window = Window(
        camera="yard",
        first_slot=first_slot,
        start_seconds=times[0],
        end_seconds=times[-1] + 0.2,
        embeddings=np.zeros((0, 0), np.float32),
        mask=np.ones(10, np.bool_),
        frame_seconds=times,
        received_seconds=times[-1],
        camera_seconds=None,
    )
    attention = np.eye(10, dtype=np.float32)[[4]]
    return Score(window, np.array([1.0 - probability, probability], np.float32), attention)


def test_another_label_matches_nothing() -> None:
    assert match(EVENTS[:1], [Span("fall", 10.0, 14.0, 12.0)], 60.0).recall.value == 0.0


def test_a_missed_event_counts_as_never_found() -> None:
    found = match([*EVENTS, Span("scuffle", 50.0, 54.0)], [_told(10.0, 14.0, 11.0)], 60.0)
    assert found.seconds_to_detect_median.value == float("inf")


def test_recordings_add_up() -> None:
    part = match(EVENTS, [_told(10.0, 14.0, 11.0)], 1800.0)
    both = merge([part, part])
    assert (both.events, both.told, both.recording_seconds) == (4, 2, 3600.0)


def test_a_recording_without_events_is_listed_without_times(tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    table.write_text("path,start_seconds,end_seconds,label\na.mp4,1,2,x\nb.mp4,,,\n", encoding="utf-8")
    assert read_events(table) == {"a.mp4": [Span("x", 1.0, 2.0)], "b.mp4": []}


@pytest.mark.parametrize("text", ["path,label\na,b\n", "path,start_seconds,end_seconds,label\na,x,2,l\n"])
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "events.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputInvalid, match="needs path"):
        read_events(tmp_path / "events.csv")
