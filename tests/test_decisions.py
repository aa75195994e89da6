"""The deciding thread: what it says, in which order, and that nothing is lost while the outbox cannot be written."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from monitor.bundle import load_bundle
from monitor.config import CameraConfig, EventsConfig, HealthConfig, OutboxConfig
from monitor.deadline import Deadline
from monitor.decisions import Decider, Unwatch, Watch, thresholds_of
from monitor.delivery.outbox import Outbox
from monitor.events.alerts import AlertContext
from monitor.records import CameraState, CameraStatus, CaptureCounts, FailureReason, Phase, Threshold
from tests.delivery.test_outbox import make_alert
from tests.events.test_tracker import FIGHT, LABELS, PLAIN, make_score

CONTEXT = AlertContext(
    camera="yard",
    camera_name="Yard",
    site="",
    tags=(),
    model="m",
    model_version="1",
    model_sha256="0" * 64,
    engine="openvino",
    precision="fp32",
    instance="test",
    version="0",
    topic="alerts",
    health_topic="cameras",
)


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


def make_watch(labels=LABELS, thresholds=FIGHT, context=CONTEXT, blind_after_seconds: float = 60.0) -> Watch:
    rules = EventsConfig(**PLAIN)
    return Watch("yard", labels, thresholds, context, rules, HealthConfig(), blind_after_seconds, labels[0])


class Desk:
    """A decider on one camera, with everything it told."""

    def __init__(self, outbox: Outbox, lost_after_seconds: float = 0.3, blind_after_seconds: float = 60.0) -> None:
        self.outbox = outbox
        self.decisions, self.commitments, self.failures = [], [], []
        self.decider = Decider(
            outbox,
            on_decision=self.decisions.append,
            on_commitment=self.commitments.append,
            on_failure=self.failures.append,
            lost_after_seconds=lost_after_seconds,
        )
        self.decider.watch(make_watch(blind_after_seconds=blind_after_seconds))

    def said(self) -> list[tuple[str, str | None]]:
        messages = [json.loads(stored.value) for stored in self.outbox.after(0) if stored.alert.label]
        return [(message["phase"], message["reason"]) for message in messages]


@pytest.fixture
def desk(tmp_path):
    outbox = Outbox.open(OutboxConfig(path=tmp_path / "outbox.sqlite"), deliver=False)
    desk = Desk(outbox)
    yield desk
    desk.decider.stop(Deadline(5))
    outbox.close()
    assert desk.failures == []


@contextmanager
def full_disk():
    """No file of this process may grow: what SQLite then meets is a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_event_is_committed_as_it_is_decided(desk):
    desk.decider.start()
    for number, fight in enumerate([0.1, 0.9, 0.9, 0.1, 0.1]):
        desk.decider.put(make_score(number, fight))
    wait_until(lambda: len(desk.decisions) == 5)
    assert desk.said() == [("started", None), ("ended", "end")]
    assert desk.decider.active_events() == {"yard": 0}


def test_stopping_ends_open_events(desk):
    desk.decider.start()
    desk.decider.put(make_score(0, 0.9))
    desk.decider.stop(Deadline(5))
    assert desk.said() == [("started", None), ("ended", "shutdown")]


def test_stopping_ends_the_events_of_all_cameras_with_one_commit(desk):
    """Each commit waits for the disk, and a stop waits for no more than a second or two."""
    others = [f"yard-{number}" for number in range(7)]
    for camera in others:
        desk.decider.watch(replace(make_watch(context=replace(CONTEXT, camera=camera)), camera=camera))
    desk.decider.start()
    score = make_score(0, 0.9)
    for camera in ("yard", *others):
        desk.decider.put(replace(score, window=replace(score.window, camera=camera)))
    wait_until(lambda: sum(len(each.said) for each in desk.commitments) == 8)
    before = len(desk.commitments)
    desk.decider.stop(Deadline(5))
    [commitment] = desk.commitments[before:]
    assert [(alert.camera, alert.phase) for alert in commitment.said] == [
        (camera, Phase.ENDED) for camera in ("yard", *others)
    ]


def lost(state=CameraState.OFFLINE) -> CameraStatus:
    return CameraStatus("yard", state, time.time(), reason=FailureReason.STALLED)


def test_a_camera_that_stays_away_ends_its_events(desk):
    desk.decider.start()
    desk.decider.put(make_score(0, 0.9))
    desk.decider.put(lost())
    wait_until(lambda: desk.said()[-1:] == [("ended", "camera_lost")])


def test_a_camera_that_comes_back_in_time_keeps_its_events(desk):
    desk.decider.start()
    desk.decider.put(make_score(0, 0.9))
    desk.decider.put(lost())
    desk.decider.put(lost(CameraState.CONNECTING))
    desk.decider.put(CameraStatus("yard", CameraState.ONLINE, time.time()))
    time.sleep(0.8)
    assert desk.said() == [("started", None)]
    assert desk.decider.active_events() == {"yard": 1}


def test_an_event_of_which_nothing_is_seen_any_more_ends(tmp_path):
    outbox = Outbox.open(OutboxConfig(path=tmp_path / "outbox.sqlite"), deliver=False)
    desk = Desk(outbox, blind_after_seconds=0.5)
    desk.decider.start()
    desk.decider.put(CameraStatus("yard", CameraState.ONLINE, time.time()))
    desk.decider.put(make_score(0, 0.9))
    wait_until(lambda: desk.said()[-1:] == [("ended", "camera_lost")])
    desk.decider.stop(Deadline(5))
    outbox.close()


def test_alerts_wait_in_order_while_the_disk_is_full(desk):
    with full_disk():
        desk.decider.start()
        for number, fight in enumerate([0.9, 0.1, 0.9]):
            desk.decider.put(make_score(number, fight))
        wait_until(lambda: bool(desk.commitments) and desk.commitments[-1].unsaid == 3)
        assert desk.decider.unsaid == 3
        assert desk.commitments[-1].error
        assert not any(commitment.said for commitment in desk.commitments)
    wait_until(lambda: len(desk.said()) == 3)
    assert desk.said() == [("started", None), ("ended", "end"), ("started", None)]
    assert desk.commitments[-1].unsaid == 0


def test_what_a_crowded_outbox_turns_away_after_an_outage_holds_nothing_up(tmp_path):
    """Thousands of updates may have waited; the cameras' decisions wait behind them."""
    outbox = Outbox.open(OutboxConfig(path=tmp_path / "outbox.sqlite", maximum_records=100), deliver=True)
    outbox.commit([make_alert(number, camera="gate") for number in range(95)], now=1.0)
    desk = Desk(outbox)
    began = time.monotonic()
    desk.decider.say([make_alert(number, sequence=1, phase=Phase.UPDATED) for number in range(10_000)])
    assert time.monotonic() - began < 3.0
    assert [(len(each.said), len(each.refused)) for each in desk.commitments] == [(0, 10_000)]
    outbox.close()


def test_an_unexpected_error_is_passed_on_and_ends_the_thread(tmp_path):
    outbox = Outbox.open(OutboxConfig(path=tmp_path / "outbox.sqlite"), deliver=False)
    desk = Desk(outbox)
    desk.decider.start()
    desk.decider.put(make_score(0, float("nan"), fall=float("nan")))
    broken = make_score(1, 0.9)
    object.__setattr__(broken, "probabilities", None)
    desk.decider.put(broken)
    wait_until(lambda: bool(desk.failures))
    assert not desk.decider.alive
    desk.decider.put(make_score(1, 0.9))  # returns although nobody takes it
    desk.decider.stop(Deadline(1))
    outbox.close()


def test_what_was_on_its_way_of_a_camera_taken_away_is_ignored(desk):
    desk.decider.start()
    desk.decider.put(make_score(0, 0.9))
    desk.decider.put(Unwatch("yard"))
    for record in (make_score(1, 0.9), lost(), CaptureCounts("yard"), Unwatch("yard")):
        desk.decider.put(record)
    wait_until(lambda: desk.decider._inbox.empty())
    wait_until(lambda: desk.said() == [("started", None), ("ended", "camera_removed")])
    assert desk.decider.active_events() == {}
    desk.decider.put(make_watch())
    desk.decider.put(make_score(9, 0.9))
    wait_until(lambda: desk.decider.active_events() == {"yard": 1})


def test_another_model_keeps_events_of_labels_that_stay_and_ends_the_others(desk):
    desk.decider.start()
    both = {**FIGHT, "fall": Threshold(0.6, 0.4)}
    desk.decider.put(make_watch(thresholds=both))
    desk.decider.put(make_score(0, 0.0, 0.9))
    desk.decider.put(make_score(1, 0.9, 0.0))
    wait_until(lambda: desk.said() == [("started", None), ("started", None), ("ended", "end")])
    new = replace(CONTEXT, model_version="2")
    desk.decider.put(make_watch(labels=("calm", "theft", "fight"), context=new))
    moved = make_score(2, 0.0, 0.9)  # the new model has `fight` in the third place
    desk.decider.put(moved)
    desk.decider.put(make_watch(labels=("calm", "theft"), thresholds={"theft": Threshold(0.5, 0.5)}, context=new))
    wait_until(lambda: desk.said()[-1] == ("ended", "label_removed"))
    assert len(desk.said()) == 4
    wait_until(lambda: [decision.model for decision in desk.decisions] == ["m 1", "m 1", "m 2"])
    assert [set(decision.scores) for decision in desk.decisions] == 2 * [{"fight", "fall"}] + [{"theft", "fight"}]
    assert desk.decisions[-1].scores["fight"] == pytest.approx(0.9)


def test_thresholds_camera_before_events_before_model():
    manifest = load_bundle(Path(__file__).parent.parent / "models/bundles/demo").manifest
    camera = CameraConfig(id="yard", url="a.mp4")
    own = manifest.thresholds["scuffle"].record()
    assert thresholds_of(camera, EventsConfig(), manifest) == {"scuffle": own}
    events = EventsConfig(thresholds={"scuffle": {"on": 0.7, "off": 0.6}})
    assert thresholds_of(camera, events, manifest) == {"scuffle": Threshold(0.7, 0.6)}
    camera = CameraConfig(id="yard", url="a.mp4", thresholds={"scuffle": {"on": 0.3, "off": 0.2}})
    assert thresholds_of(camera, events, manifest) == {"scuffle": Threshold(0.3, 0.2)}
