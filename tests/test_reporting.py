"""What the rooms report arrives in the metrics."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from monitor.bundle import find_bundle, load_bundle
from monitor.config import CameraConfig
from monitor.decisions import Decision
from monitor.delivery.disk import disk_of
from monitor.delivery.outbox import OutboxStats
from monitor.records import (
    CameraState,
    CameraStatus,
    CaptureCounts,
    ClipStreamStatus,
    FailureReason,
    HealthChange,
    HealthState,
)
from monitor.reporting import Reporter
from monitor.scoring.engine import Skipped, open_engine
from monitor.scoring.shadow import Disagreement, ShadowReport
from monitor.telemetry.metrics import Metrics
from tests.events.test_tracker import make_score

CAMERA = CameraConfig(id="yard", url="rtsp://127.0.0.1/yard")


@pytest.fixture(scope="module")
def model():
    bundle = load_bundle(find_bundle("demo", Path()))
    opened = open_engine(bundle, preference="auto", threads=1)
    yield bundle, opened
    opened.engine.close()


@pytest.fixture
def reporter(model):
    reporter = Reporter(Metrics())
    reporter.engine_opened(*model)
    reporter.camera_added(CAMERA)
    return reporter


def read(reporter: Reporter, name: str, **labels: str) -> float | None:
    return reporter.metrics.registry.get_sample_value(name, labels)


def decide(reporter: Reporter, scuffle: float, *, seconds: float) -> None:
    score = make_score(0, scuffle)
    reporter.decision(
        Decision(
            score=score,
            model="fight 1",
            changes=(),
            seconds=0.0,
            capture_to_decision_seconds=seconds,
            suppressed={},
            scores={"scuffle": scuffle},
        )
    )


def test_the_model_says_its_rate_and_what_is_in_time(reporter):
    assert read(reporter, "monitor_sample_rate_hertz") == 5.0
    assert read(reporter, "monitor_latency_aim_seconds") == pytest.approx(0.9)


def test_an_engine_that_is_not_for_this_machine_is_no_warning(reporter, model):
    bundle, opened = model
    skipped = (Skipped("tensorrt", "no GPU", expected=True), Skipped("openvino", "does not reproduce golden.npz"))
    with capture_logs() as lines:
        reporter.engine_opened(bundle, dataclasses.replace(opened, skipped=skipped))
    levels = {line["engine"]: line["log_level"] for line in lines if line["event"] == "engine_skipped"}
    assert levels == {"tensorrt": "info", "openvino": "warning"}


def test_what_was_passed_over_is_told_in_order_and_how_well_the_engine_that_serves_does(reporter, model):
    bundle, opened = model
    skipped = (Skipped("tensorrt", "no GPU"), Skipped("openvino", "does not reproduce golden.npz"))
    parity = dataclasses.replace(
        opened.parity, cosine=0.9, embedding_error=0.1, probability_difference=0.2, attention_difference=0.3
    )
    with capture_logs() as lines:
        reporter.engine_opened(bundle, dataclasses.replace(opened, parity=parity, skipped=skipped))
    *passed, serves = lines
    assert [(line["event"], line["engine"], line["reason"]) for line in passed] == [
        ("engine_skipped", *each[:2]) for each in skipped
    ]
    assert serves["event"] == "engine_opened"
    for measure, figure in (
        ("cosine", 0.9),
        ("embedding_error", 0.1),
        ("probability_difference", 0.2),
        ("attention_difference", 0.3),
    ):
        assert serves[measure] == figure
        assert read(reporter, "monitor_engine_parity", engine=opened.engine.name, measure=measure) == figure


def test_of_a_shadow_only_its_disagreement_is_told(reporter):
    differs = Disagreement("yard", 3, 10.0, 12.5, "", "scuffle", 0.7)
    with capture_logs() as lines:
        reporter.shadow(ShadowReport("demo 2", agreed=5))
        assert lines == []
        reporter.shadow(ShadowReport("demo 2", disagreed=3, disagreement=differs))
    [told] = lines
    assert (told["event"], told["camera"], told["windows"], told["shadow_label"]) == (
        "shadow_disagreed",
        "yard",
        3,
        "scuffle",
    )
    assert read(reporter, "monitor_shadow_windows_total", bundle="demo 2", verdict="agrees") == 5
    assert read(reporter, "monitor_shadow_windows_total", bundle="demo 2", verdict="disagrees") == 3


def test_a_window_decided_after_the_aim_is_late(reporter):
    decide(reporter, 0.2, seconds=0.89)
    assert read(reporter, "monitor_windows_late_total", camera="yard") == 0
    decide(reporter, 0.2, seconds=0.91)
    assert read(reporter, "monitor_windows_late_total", camera="yard") == 1
    assert read(reporter, "monitor_windows_scored_total", camera="yard") == 2


def test_scores_are_spread_by_label(reporter):
    decide(reporter, 0.75, seconds=0.1)
    assert read(reporter, "monitor_score_count", label="scuffle") == 1
    assert read(reporter, "monitor_score_sum", label="scuffle") == pytest.approx(0.75)
    assert read(reporter, "monitor_score_bucket", label="scuffle", le="0.7") == 0
    assert read(reporter, "monitor_score_bucket", label="scuffle", le="0.8") == 1


def test_coverage_is_the_share_of_the_slots_that_hold_a_picture(reporter):
    score = make_score(0, 0.5)
    half = np.arange(len(score.window.mask)) % 2 == 0
    score = dataclasses.replace(score, window=dataclasses.replace(score.window, mask=half))
    reporter.decision(
        Decision(score, model="fight 1", changes=(), seconds=0.0, capture_to_decision_seconds=0.1, suppressed={})
    )
    assert read(reporter, "monitor_window_coverage_sum") == pytest.approx(half.mean())


def test_exactly_one_state_holds_and_a_lost_camera_stays_lost_while_it_is_tried(reporter):
    def states() -> dict[str, float | None]:
        return {state: read(reporter, "monitor_camera_state", camera="yard", state=state) for state in CameraState}

    assert states() == {"connecting": 1, "online": 0, "offline": 0, "refused": 0}
    reporter.status(CameraStatus("yard", CameraState.ONLINE, 1.0))
    assert states() == {"connecting": 0, "online": 1, "offline": 0, "refused": 0}
    reporter.status(CameraStatus("yard", CameraState.OFFLINE, 2.0, reason=FailureReason.STALLED))
    reporter.status(CameraStatus("yard", CameraState.CONNECTING, 3.0))
    assert states() == {"connecting": 0, "online": 0, "offline": 1, "refused": 0}


@pytest.mark.parametrize(("state", "frozen", "dark"), [("frozen", 1, 0), ("dark", 0, 1), ("online", 0, 0)])
def test_a_camera_is_frozen_or_dark_as_long_as_its_health_says_so(reporter, state, frozen, dark):
    for told in (HealthState.FROZEN, HealthState(state)):
        reporter.health(HealthChange("yard", told, None, 1.0, 2.0, None, ""))
    assert read(reporter, "monitor_camera_frozen", camera="yard") == frozen
    assert read(reporter, "monitor_camera_dark", camera="yard") == dark


def lines_of(lines: list) -> list[tuple[str, str | None]]:
    """Event and reason of what an operator sees, each of which names the camera."""
    shown = [line for line in lines if line["log_level"] != "debug"]
    assert all(line["camera"] == "yard" for line in shown)
    return [(line["event"], line.get("reason")) for line in shown]


def test_a_camera_that_stays_lost_is_one_line(reporter):
    with capture_logs() as lines:
        for reason in (FailureReason.STALLED, FailureReason.STALLED, FailureReason.STALLED, FailureReason.NOT_FOUND):
            reporter.status(CameraStatus("yard", CameraState.CONNECTING, 1.0))
            reporter.status(CameraStatus("yard", CameraState.OFFLINE, 2.0, reason=reason))
        reporter.status(CameraStatus("yard", CameraState.ONLINE, 3.0))
    assert lines_of(lines) == [("camera_lost", "stalled"), ("camera_lost", "not_found"), ("camera_connected", None)]


def test_a_camera_that_sees_nothing_is_one_line_and_another_when_it_does(reporter):
    with capture_logs() as lines:
        for state in ("online", "frozen", "frozen", "dark", "online", "online", "offline", "online"):
            reporter.health(HealthChange("yard", HealthState(state), None, 1.0, 2.0, None, ""))
    assert lines_of(lines) == [("camera_frozen", None), ("camera_dark", None), ("camera_sees_again", None)]


def test_the_first_alert_of_a_label_has_an_increase(reporter):
    reporter.watched("yard", ["scuffle"])
    for phase in ("started", "updated", "ended"):
        assert read(reporter, "monitor_alerts_total", camera="yard", label="scuffle", phase=phase) == 0


def test_series_of_a_large_stream_go_with_it(reporter):
    def series() -> list[float | None]:
        return [read(reporter, name, camera="yard") for name in ("monitor_camera_clip_up", "monitor_clip_ring_bytes")]

    def tell() -> None:
        reporter.clip_stream(ClipStreamStatus("yard", True, None, "", None))
        reporter.counts(CaptureCounts("yard", clip_ring_bytes=9))

    reporter.camera_added(CAMERA.model_copy(update={"clip_url": "rtsp://127.0.0.1/large"}))
    assert series() == [0, None]
    tell()
    assert series() == [1, 9]
    reporter.camera_added(CAMERA)
    assert series() == [None, None]
    tell()  # on its way as the address was taken away
    assert series() == [None, None]


def test_room_is_told_for_a_folder_that_is_not_there_yet(reporter, tmp_path):
    stats = disk_of(tmp_path / "var" / "media")
    reporter.disk("media", stats)
    assert 0 < read(reporter, "monitor_disk_free_bytes", folder="media") <= stats.size_bytes
    reporter.outbox(OutboxStats(9, 900, 1.0, 0, crowded=True, filled_ratio=0.9))
    assert read(reporter, "monitor_outbox_filled_ratio") == 0.9
