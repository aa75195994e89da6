from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config import EventsConfig
from monitor.events.tracker import Tracker
from monitor.records import ChangeReason, EventChange, Phase, Score, Threshold, Window

FPS, SLOTS, STRIDE = 4.0, 8, 2
LENGTH, STEP = SLOTS / FPS, STRIDE / FPS  # 2 s windows, every half second
LABELS = ("nothing", "fight", "fall")
ON, OFF = 0.6, 0.4
BOTH = {"fight": Threshold(ON, OFF), "fall": Threshold(ON, OFF)}
FIGHT = {"fight": Threshold(ON, OFF)}

PLAIN = {
    "smoothing_windows": 1,
    "minimum_seconds": 0.0,
    "merge_gap_seconds": 0.0,
    "cool_down_seconds": 0.0,
    "maximum_seconds": 1000.0,
    "update_seconds": 1000.0,
}


def make_score(
    number: int,
    fight: float,
    fall: float = 0.0,
    *,
    attended: int = 3,
    gaps: tuple[int, ...] = (),
    idle_seconds: float = 0.0,
) -> Score:
    """The `number`-th window of the grid: ends at `(number + 1) * STEP`."""
    end = (number + 1) * STRIDE
    slots = range(end - SLOTS, end)
    mask = np.array([index not in gaps for index in range(SLOTS)])
    attention = np.full((2, SLOTS), 0.05, np.float32)
    attention[:, attended] = 0.65
    attention[:, ~mask] = 0
    window = Window(
        camera="yard",
        first_slot=slots[0],
        start_seconds=slots[0] / FPS,
        end_seconds=end / FPS,
        embeddings=np.zeros((SLOTS, 1), np.float32),
        mask=mask,
        frame_seconds=tuple(slot / FPS if index not in gaps else None for index, slot in enumerate(slots)),
        received_seconds=end / FPS + 0.1,
        camera_seconds=None,
        idle_seconds=idle_seconds,
    )
    return Score(window, np.array([1 - fight - fall, fight, fall], np.float32), attention)


def end_of(number: int) -> float:
    return (number + 1) * STEP


def start_of(number: int) -> float:
    return end_of(number) - LENGTH


def make_tracker(thresholds=None, **rules) -> Tracker:
    return Tracker("yard", labels=LABELS, thresholds=thresholds or FIGHT, rules=EventsConfig(**{**PLAIN, **rules}))


def feed(tracker: Tracker, values, first: int = 0) -> list[EventChange]:
    """Feed scores of `fight`; None is a window that was not scored."""
    scores = [make_score(first + index, value) for index, value in enumerate(values) if value is not None]
    return [change for score in scores for change in tracker.observe(score)]


def brief(changes: list[EventChange]) -> list[tuple]:
    return [(change.phase, change.reason, change.changed_seconds) for change in changes]


# --- one rule at a time ----------------------------------------------------------------------------------------------


def test_event_starts_at_on_and_ends_below_off() -> None:
    started, ended = feed(make_tracker(), [0.0, 0.59, 0.61, 0.41, 0.7, 0.39])
    assert (started.phase, started.reason, started.sequence) == (Phase.STARTED, None, 0)
    assert (started.started_seconds, started.changed_seconds, started.ended_seconds) == (start_of(2), end_of(2), None)
    assert (started.camera, started.label, started.threshold) == ("yard", "fight", Threshold(ON, OFF))
    assert started.score.window.end_seconds == end_of(2)
    assert (ended.phase, ended.reason, ended.sequence) == (Phase.ENDED, ChangeReason.END, 1)
    assert (ended.started_seconds, ended.changed_seconds, ended.ended_seconds) == (start_of(2), end_of(5), end_of(4))
    assert ended.peak_score == pytest.approx(0.7)
    assert ended.score.window.end_seconds == end_of(5)


def test_on_is_reached_and_off_is_not_yet_below() -> None:
    """Thresholds that float32 holds exactly."""
    tracker = make_tracker({"fight": Threshold(on=0.5, off=0.25)})
    assert [change.changed_seconds for change in feed(tracker, [0.5, 0.25, 0.125])] == [end_of(0), end_of(2)]


def test_scores_are_averaged_and_begin_anew_after_a_gap() -> None:
    tracker = make_tracker(smoothing_windows=2)
    (started,) = feed(tracker, [0.0, 0.9, 0.9])
    assert started.changed_seconds == end_of(2)
    assert feed(make_tracker(smoothing_windows=2), [0.9])[0].smoothed_score == pytest.approx(0.9)
    # Windows of 2 s every 0.5 s: after four without a score there is no overlap, but no gap either.
    assert feed(make_tracker(smoothing_windows=2), [0.0, None, None, None, 0.9]) == []
    assert len(feed(make_tracker(smoothing_windows=2), [0.0, None, None, None, None, 0.9])) == 1


def test_minimum_length_counts_from_the_end_of_the_first_window() -> None:
    tracker = make_tracker(minimum_seconds=1.0)
    (started,) = feed(tracker, [0.7, 0.5, 0.5])
    assert (started.started_seconds, started.changed_seconds) == (start_of(0), end_of(2))
    assert started.peak_score == pytest.approx(0.7)
    assert feed(make_tracker(minimum_seconds=1.0), [0.7, 0.5]) == []


def test_short_ones_are_not_told_but_counted() -> None:
    tracker = make_tracker(minimum_seconds=1.0)
    assert feed(tracker, [0.7, 0.7, 0.0, 0.7, 0.0, 0.0]) == []
    assert tracker.suppressed == {"short": 2, "cool_down": 0}
    assert tracker.active == 0


def test_return_within_the_merge_gap_continues_the_event() -> None:
    tracker = make_tracker(merge_gap_seconds=1.0)
    started, ended = feed(tracker, [0.7, 0.0, 0.7, 0.0, 0.5, 0.0])
    assert started.phase is Phase.STARTED
    assert (ended.changed_seconds, ended.ended_seconds) == (end_of(5), end_of(2))


def test_return_below_on_does_not_continue() -> None:
    (_, ended) = feed(make_tracker(merge_gap_seconds=1.0), [0.7, 0.0, 0.59, 0.59])
    assert (ended.changed_seconds, ended.ended_seconds) == (end_of(3), end_of(0))


def test_silence_longer_than_a_window_ends_an_event_like_a_fall() -> None:
    changes = feed(make_tracker(merge_gap_seconds=2.0), [0.7, *[None] * 9, 0.7])
    assert brief(changes) == [
        (Phase.STARTED, None, end_of(0)),
        (Phase.ENDED, ChangeReason.END, end_of(10)),
        (Phase.STARTED, None, end_of(10)),
    ]
    assert changes[1].ended_seconds == end_of(0)
    assert len(feed(make_tracker(merge_gap_seconds=6.0), [0.7, *[None] * 9, 0.7])) == 1


def test_cool_down_holds_back_and_counts_what_came_and_went() -> None:
    tracker = make_tracker(cool_down_seconds=3.0)
    changes = feed(tracker, [0.7, 0.0, 0.7, 0.7, 0.0, 0.7])
    assert [change.phase for change in changes] == [Phase.STARTED, Phase.ENDED]
    assert tracker.suppressed == {"short": 0, "cool_down": 1}
    # The second one still holds when the cool-down has passed, 3 s after the end of window 0: it is told.
    (started,) = feed(tracker, [0.7], first=6)
    assert (started.started_seconds, started.changed_seconds) == (start_of(6), end_of(6))
    assert tracker.suppressed["cool_down"] == 1


def test_longest_length_ends_the_event_and_the_rest_is_a_new_one() -> None:
    changes = feed(make_tracker(maximum_seconds=3.0, cool_down_seconds=60.0), [0.7] * 6)
    assert brief(changes) == [
        (Phase.STARTED, None, end_of(0)),
        (Phase.ENDED, ChangeReason.MAX_LENGTH, end_of(3)),
        (Phase.STARTED, None, end_of(3)),
    ]
    assert changes[1].ended_seconds - changes[1].started_seconds == 3.0
    assert changes[2].started_seconds == start_of(3)
    assert changes[2].sequence == 0


def test_what_goes_on_below_on_waits_for_on_and_needs_no_cool_down() -> None:
    rules = {"maximum_seconds": 3.0, "cool_down_seconds": 60.0}
    changes = feed(make_tracker(**rules), [0.7, 0.7, 0.7, 0.5, 0.5, 0.7])
    assert [change.changed_seconds for change in changes] == [end_of(0), end_of(3), end_of(5)]
    changes = feed(make_tracker(**rules), [0.7, 0.7, 0.7, 0.5, 0.0, 0.7])
    assert [change.changed_seconds for change in changes] == [end_of(0), end_of(3)]


def test_higher_peaks_are_told_at_most_so_often() -> None:
    changes = feed(make_tracker(update_seconds=1.0), [0.61, 0.7, 0.64, 0.7, 0.72, 0.74, 0.76, 0.79, 0.9])
    updates = changes[1:]
    assert {change.phase for change in updates} == {Phase.UPDATED}
    assert {change.reason for change in updates} == {ChangeReason.PEAK}
    # 0.7 is told as soon as the start is a second old, though it has passed; then 0.76, then 0.9.
    assert [change.changed_seconds for change in updates] == [end_of(2), end_of(6), end_of(8)]
    assert [change.peak_score for change in updates] == pytest.approx([0.7, 0.76, 0.9])
    assert [change.sequence for change in changes] == [0, 1, 2, 3]
    assert updates[0].smoothed_score == pytest.approx(0.64)


def test_peak_is_the_most_attended_frame_of_the_highest_window() -> None:
    tracker = make_tracker()
    tracker.observe(make_score(0, 0.7))
    tracker.observe(make_score(1, 0.9, attended=5))
    tracker.observe(make_score(2, 0.8))
    (ended,) = tracker.observe(make_score(3, 0.0))
    assert ended.peak_seconds == start_of(1) + 5 / FPS


def test_peak_is_never_a_gap() -> None:
    (started,) = make_tracker().observe(make_score(0, 0.7, attended=0, gaps=(0,)))
    assert started.peak_seconds == start_of(0) + 1 / FPS


def test_another_label_that_overtakes_is_told_and_back() -> None:
    tracker = make_tracker(BOTH, update_seconds=1.0)
    pairs = [(0.65, 0.0), (0.45, 0.5), (0.45, 0.5), (0.45, 0.5), (0.5, 0.45), (0.5, 0.45)]
    changes = [change for number, pair in enumerate(pairs) for change in tracker.observe(make_score(number, *pair))]
    assert brief(changes) == [
        (Phase.STARTED, None, end_of(0)),
        (Phase.UPDATED, ChangeReason.CLASS, end_of(2)),
        (Phase.UPDATED, ChangeReason.CLASS, end_of(4)),
    ]


def test_unwatched_labels_neither_start_nor_overtake() -> None:
    tracker = make_tracker(FIGHT, update_seconds=0.5)
    assert tracker.observe(make_score(0, 0.1, 0.9)) == []
    assert [change.label for change in tracker.observe(make_score(1, 0.6001))] == ["fight"]
    assert tracker.observe(make_score(2, 0.45, 0.5)) == []


@pytest.mark.parametrize("reason", [ChangeReason.CAMERA_LOST, ChangeReason.SHUTDOWN])
def test_end_ends_open_and_fading_events_and_drops_candidates(reason: ChangeReason) -> None:
    tracker = make_tracker(BOTH, merge_gap_seconds=5.0)
    tracker.observe(make_score(0, 0.7))
    tracker.observe(make_score(1, 0.1, 0.8))
    assert tracker.active == 2
    fight, fall = tracker.end(reason, at_seconds=99.0)
    assert (fight.label, fight.reason, fight.changed_seconds, fight.ended_seconds) == ("fight", reason, 99.0, end_of(0))
    assert (fall.label, fall.ended_seconds, fall.score.window.end_seconds) == ("fall", end_of(1), end_of(1))
    assert fight.score.window.end_seconds == end_of(0)
    assert (tracker.active, tracker.end(reason, at_seconds=100.0)) == (0, [])
    candidate = make_tracker(minimum_seconds=9.0)
    assert feed(candidate, [0.7]) == []
    assert candidate.end(reason, at_seconds=1.0) == []
    assert candidate.suppressed["short"] == 1


def test_clock_set_back_ends_what_is_open_and_begins_anew() -> None:
    tracker = make_tracker(cool_down_seconds=1000.0)
    feed(tracker, [0.7], first=100)
    changes = feed(tracker, [0.7], first=20)
    assert brief(changes) == [(Phase.ENDED, ChangeReason.END, end_of(100)), (Phase.STARTED, None, end_of(20))]


def test_the_same_window_twice_changes_nothing() -> None:
    tracker = make_tracker(smoothing_windows=3)
    feed(tracker, [0.9])
    assert tracker.observe(make_score(0, 0.0)) == []
    assert feed(tracker, [0.0], first=1) == []


def test_threshold_for_an_unknown_label_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\['flood'\]"):
        Tracker("yard", labels=LABELS, thresholds={"flood": Threshold(0.5, 0.4)}, rules=EventsConfig())


# --- what holds for any scores ---------------------------------------------------------------------------------------

shares = st.sampled_from([0.0, 0.2, 0.39, 0.4, 0.5, 0.6, 0.61, 0.7, 0.9, 1.0])
MOST_BETWEEN_LOOKS = 13
scored = st.tuples(st.sampled_from([1, 1, 1, 1, 1, 1, 2, 4, 5, 20]), shares, shares, st.just(False))
looks = st.tuples(st.integers(2, MOST_BETWEEN_LOOKS), shares, shares, st.just(True))
windows = st.lists(
    st.one_of(scored, scored, looks).map(lambda t: (t[0], t[1], min(t[2], 1 - t[1]), t[3])),
    max_size=80,
)
"""Steps to the next window, two scores, and whether an idle gate left out what lies between."""
all_rules = st.fixed_dictionaries(
    {
        "smoothing_windows": st.integers(1, 4),
        "minimum_seconds": st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        "merge_gap_seconds": st.sampled_from([0.0, 1.0, 2.0, 6.0]),
        "cool_down_seconds": st.sampled_from([0.0, 1.0, 5.0]),
        "maximum_seconds": st.sampled_from([0.5, 3.0, 6.0, 100.0]),
        "update_seconds": st.sampled_from([0.5, 2.0, 50.0]),
    }
)


def make_scores(steps, first: int = 0) -> list[Score]:
    number, scores = first, []
    for step, fight, fall, idle in steps:
        number += step
        scores.append(make_score(number, fight, fall, idle_seconds=(step - 1) * STEP if idle else 0.0))
    return scores


def run(rules, scores) -> list[EventChange]:
    tracker = make_tracker(BOTH, **rules)
    changes = [change for score in scores for change in tracker.observe(score)]
    assert tracker.active == sum({Phase.STARTED: 1, Phase.ENDED: -1}.get(change.phase, 0) for change in changes)
    at = scores[-1].window.end_seconds + 1 if scores else 0.0
    return changes + tracker.end(ChangeReason.SHUTDOWN, at_seconds=at)


def events_of(changes: list[EventChange]) -> dict[tuple[str, float], list[EventChange]]:
    events = defaultdict(list)
    for change in changes:
        events[change.label, change.started_seconds].append(change)
    return events


@given(rules=all_rules, steps=windows)
def test_every_event_starts_once_and_ends_once_in_sequence(rules, steps) -> None:
    events = events_of(run(rules, make_scores(steps)))
    for changes in events.values():
        phases = [change.phase for change in changes]
        assert phases == [Phase.STARTED, *[Phase.UPDATED] * (len(phases) - 2), Phase.ENDED]
        assert [change.sequence for change in changes] == list(range(len(changes)))
        assert [change.ended_seconds is None for change in changes] == [True] * (len(changes) - 1) + [False]
        times = [change.changed_seconds for change in changes]
        assert times == sorted(times)
        peaks = [change.peak_score for change in changes]
        assert peaks == sorted(peaks)


@given(rules=all_rules, steps=windows)
def test_never_two_open_events_of_one_label(rules, steps) -> None:
    is_open = defaultdict(bool)
    for change in run(rules, make_scores(steps)):
        assert is_open[change.label] is (change.phase is not Phase.STARTED)
        is_open[change.label] = change.phase is not Phase.ENDED
    assert not any(is_open.values())


@given(rules=all_rules, steps=windows)
def test_thresholds_are_kept(rules, steps) -> None:
    """With no smoothing and no minimum a start is at least `on`, and an update is of an event that holds."""
    rules = {**rules, "smoothing_windows": 1, "minimum_seconds": 0.0}
    for change in run(rules, make_scores(steps)):
        if change.phase is Phase.STARTED:
            assert change.smoothed_score >= ON
        if change.phase is Phase.UPDATED:
            assert change.smoothed_score >= OFF
        assert change.peak_score >= ON


@given(rules=all_rules, steps=windows)
def test_events_are_never_too_long_nor_too_short(rules, steps) -> None:
    for changes in events_of(run(rules, make_scores(steps))).values():
        started, ended = changes[0], changes[-1]
        length = ended.ended_seconds - ended.started_seconds
        least = LENGTH + rules["minimum_seconds"]
        assert least <= length <= max(rules["maximum_seconds"], least + MOST_BETWEEN_LOOKS * STEP)
        if rules["minimum_seconds"] == 0:
            assert length <= max(rules["maximum_seconds"], LENGTH)
        assert started.changed_seconds - started.started_seconds >= least


@given(rules=all_rules, steps=windows)
def test_gaps_between_events_of_a_label(rules, steps) -> None:
    """After an end, the cool-down passes before the next first window; after the longest length nothing need."""
    last: dict[str, EventChange] = {}
    for change in run(rules, make_scores(steps)):
        if change.phase is Phase.ENDED:
            last[change.label] = change
            if change.reason is ChangeReason.END:
                assert change.changed_seconds - change.ended_seconds > rules["merge_gap_seconds"]
        before = last.get(change.label)
        if change.phase is Phase.STARTED and before is not None:
            first_end = change.started_seconds + LENGTH
            assert change.started_seconds > before.started_seconds
            if before.reason is ChangeReason.END:
                assert first_end - before.ended_seconds >= rules["cool_down_seconds"]
                assert first_end - before.ended_seconds > rules["merge_gap_seconds"]


@given(rules=all_rules, steps=windows)
def test_what_an_idle_gate_left_out_went_on_as_before(rules, steps) -> None:
    """Had the windows been scored, each as the one before, as many events would go on at each look."""
    rules = {**rules, "smoothing_windows": 1, "minimum_seconds": 0.0, "cool_down_seconds": 0.0, "maximum_seconds": 1000}
    idle, whole = (make_tracker(FIGHT, **rules) for _ in range(2))
    number, last = 0, 0.0
    for step, fight, _, left_out in steps:
        for between in range(number + 1, number + step if left_out else 0):
            whole.observe(make_score(between, last))
        number, last = number + step, fight
        idle.observe(make_score(number, fight, idle_seconds=(step - 1) * STEP if left_out else 0.0))
        whole.observe(make_score(number, fight))
        assert idle.active == whole.active


@given(rules=all_rules, steps=windows)
def test_updates_keep_their_distance(rules, steps) -> None:
    for changes in events_of(run(rules, make_scores(steps))).values():
        told = [change.changed_seconds for change in changes if change.phase is not Phase.ENDED]
        assert all(later - sooner >= rules["update_seconds"] for sooner, later in pairwise(told))


@given(rules=all_rules, steps=windows)
def test_same_scores_same_changes(rules, steps) -> None:
    scores = make_scores(steps)
    assert run(rules, scores) == run(rules, scores)


@given(rules=all_rules, steps=windows, quiet=st.integers(4, 30), more=st.integers(0, 30), silent=st.booleans())
def test_a_quiet_past_changes_nothing(rules, steps, quiet, more, silent) -> None:
    """However long it was quiet before, as long as the mean is full of quiet or silence has emptied it."""
    first = 100
    scores = make_scores(steps, first)
    begin = first - (10 if silent else 0)
    pasts = [[make_score(number, 0.1) for number in range(begin - count, begin + 1)] for count in (quiet, quiet + more)]
    one, other = (run(rules, past + scores) for past in pasts)
    assert one == other
    if silent and scores:
        assert one == run(rules, scores)


@given(steps=windows)
def test_each_label_goes_its_own_way(steps) -> None:
    """Watching another label as well changes no start and no end."""
    scores = make_scores(steps)
    alone = make_tracker(FIGHT)
    expected = [change for score in scores for change in alone.observe(score)]
    both = make_tracker(BOTH)
    found = [change for score in scores for change in both.observe(score) if change.label == "fight"]
    assert found == expected


def test_times_since_1970_are_compared_without_rounding_trouble() -> None:
    """At a sampling rate whose windows are no round numbers, 2 s of merge gap are 2 s."""
    tracker = make_tracker(merge_gap_seconds=2.0, minimum_seconds=1.0)
    first = int(1_700_000_000 / STEP)
    changes = feed(tracker, [0.7, 0.7, 0.7, 0.0, 0.0, 0.0, 0.7, 0.0], first=first)
    assert [change.phase for change in changes] == [Phase.STARTED]


# --- another model ---------------------------------------------------------------------------------------------------


def test_another_model_keeps_what_stays_ends_what_goes_and_smooths_anew() -> None:
    tracker = make_tracker(BOTH, smoothing_windows=2, merge_gap_seconds=5.0)
    tracker.observe(make_score(0, 0.8, 0.1))
    tracker.observe(make_score(1, 0.2, 0.9))
    assert tracker.active == 1
    tracker.observe(make_score(2, 0.0, 0.9))
    assert tracker.active == 2
    labels = ("calm", "fight", "theft")
    (ended,) = tracker.watch_for(labels, {"fight": Threshold(0.7, 0.3), "theft": Threshold(0.7, 0.3)}, at_seconds=2.0)
    assert (ended.label, ended.phase, ended.reason) == ("fall", Phase.ENDED, ChangeReason.LABEL_REMOVED)
    assert ended.ended_seconds == end_of(2)
    assert tracker.active == 1
    changes = tracker.observe(make_score(3, 0.1, 0.75))  # the third label is theft now
    assert [(change.label, change.phase) for change in changes] == [("theft", Phase.STARTED)]
    assert changes[0].smoothed_score == pytest.approx(0.75)  # the old model's scores are not in the mean
    with pytest.raises(ValueError, match="fall"):
        tracker.watch_for(labels, {"fall": Threshold(0.7, 0.3)}, at_seconds=3.0)


def test_other_thresholds_count_from_the_next_window_on() -> None:
    tracker = make_tracker()
    started = feed(tracker, [0.65])
    assert [change.phase for change in started] == [Phase.STARTED]
    assert tracker.watch_for(LABELS, {"fight": Threshold(0.9, 0.7)}, at_seconds=end_of(0)) == []
    assert [(c.phase, c.reason) for c in feed(tracker, [0.65, 0.65], first=1)] == [(Phase.ENDED, ChangeReason.END)]
