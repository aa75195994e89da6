"""Matching what was told with what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.recordings import Span, match, merge, read_events
from monitor.errors import InputInvalid


def _told(start: float, end: float, told: float) -> Span:
    return Span("scuffle", start, end, told)


EVENTS = [Span("scuffle", 10.0, 14.0), Span("scuffle", 30.0, 34.0)]


def test_events_are_matched_one_to_one() -> None:
    found = match(EVENTS, [_told(9.0, 15.0, 12.0), _told(50.0, 53.0, 52.0)], 3600.0)
    assert (found.events, found.told, found.false_alarms) == (2, 2, 1)
    assert found.delays_seconds == (2.0,)
    assert found.recall == 0.5
    assert found.false_alarms_per_hour == 1.0


def test_less_than_a_second_of_overlap_is_no_match() -> None:
    assert match(EVENTS[:1], [_told(13.5, 20.0, 15.0)], 60.0).recall == 0.0


def test_one_event_told_twice_is_found_once_and_false_once() -> None:
    found = match(EVENTS[:1], [_told(9.0, 11.5, 11.0), _told(12.0, 15.0, 14.0)], 60.0)
    assert (len(found.delays_seconds), found.false_alarms) == (1, 1)


def test_another_label_matches_nothing() -> None:
    assert match(EVENTS[:1], [Span("fall", 10.0, 14.0, 12.0)], 60.0).recall == 0.0


def test_a_missed_event_counts_as_never_found() -> None:
    found = match([*EVENTS, Span("scuffle", 50.0, 54.0)], [_told(10.0, 14.0, 11.0)], 60.0)
    assert found.seconds_to_detect_median == float("inf")


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
