"""A real stream that is quiet, shows a scuffle and is quiet again, watched with a gate and without, at once."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.scenes import Scene
from monitor.bundle import Bundle, find_bundle, load_bundle
from monitor.capture.camera import CapturePlan
from monitor.config import CameraConfig, CaptureConfig, EventsConfig, ScoringConfig
from monitor.decisions import thresholds_of
from monitor.events.tracker import Tracker
from monitor.records import CaptureCounts, EventChange, GateState, Phase, Sample
from monitor.scoring.engine import open_engine
from monitor.scoring.pipeline import ScoringPipeline
from tests.capture.test_camera import Watched
from tests.conftest import StartRtsp
from tests.services.rtsp import Codec, Mount, Picture, encode_stream

FPS = 15.0
GOP_SECONDS = 1.0
QUIET_SECONDS, REST_SECONDS = 15.0, 3.0
SEED = 7_700_001
SETTINGS = CaptureConfig(gate_quiet_seconds=2.0)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(find_bundle("demo", Path()))


def pictures() -> Iterator[Picture]:
    """Two figures stand, scuffle, and stand: nothing announces it. With the noise of a sensor."""
    scene = Scene(SEED, 320, 180, fps=FPS, event_share=1.0)
    start, end = scene.events(20.0)[0]
    event = list(scene.frames(end - start, start_seconds=start))
    shown = [event[0]] * round(QUIET_SECONDS * FPS) + event + [event[-1]] * round(REST_SECONDS * FPS)
    random = np.random.default_rng(1)
    for picture in shown:
        noise = random.normal(0, 1.5, picture.shape).astype(np.int16)
        yield cv2.add(picture, noise, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


def events(samples: Sequence[Sample], bundle: Bundle, camera: CameraConfig) -> list[EventChange]:
    """Return the events that start in a camera's samples."""
    rules, manifest = EventsConfig(), bundle.manifest
    opened = open_engine(bundle, preference="auto", threads=1, precision="fp32")
    pipeline = ScoringPipeline(opened.engine, manifest, ScoringConfig())
    tracker = Tracker(camera.id, labels=manifest.labels, thresholds=thresholds_of(camera, rules, manifest), rules=rules)
    changes = [change for score in pipeline.score(samples) for change in tracker.observe(score)]
    opened.engine.close()
    return [change for change in changes if change.phase is Phase.STARTED]


def slept(watched: Watched) -> list[CaptureCounts]:
    return [counts for counts in watched.counts if counts.gate is GateState.IDLE]


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_gate_costs_no_event_and_little_else(
    codec: Codec, bundle: Bundle, start_rtsp: StartRtsp, tmp_path: Path
) -> None:
    file = tmp_path / f"yard.{codec}"
    encode_stream(pictures(), file, fps=FPS, codec=codec, gop_seconds=GOP_SECONDS)
    server = start_rtsp({"yard": Mount(file, FPS, codec, shared=True)})
    plan = CapturePlan(SETTINGS, bundle.manifest.sample_fps, bundle.manifest.sample)
    cameras = [
        CameraConfig.model_validate({"id": "yard", "url": server.url("yard"), "gate": g}) for g in ("auto", "off")
    ]
    with Watched(cameras[0], plan) as gated, Watched(cameras[1], plan) as whole:
        gated.wait(lambda w: any(counts.woken for counts in w.counts), 60.0)
        last = gated.samples[-1].slot
        end = last + 8 * bundle.manifest.sample_fps
        for watched in (gated, whole):
            watched.wait(lambda w: w.samples[-1].slot > end, 60.0)

    idle = slept(gated)[1:]
    packets, frames = sum(c.packets for c in idle), sum(c.frames_decoded for c in idle)
    assert packets > 2 * FPS
    assert frames < 0.25 * packets, "a keyframe in two seconds, and the one or two frames that its sample needs"
    assert sum(c.frames_skipped for c in idle) > 0.5 * packets

    late = [s.time_seconds - s.camera_seconds for s in gated.samples if s.idle and s.camera_seconds is not None]
    assert abs(statistics.median(late)) < 0.5 / FPS, "the clock of both is one; an idle camera rests between reads"

    woken = next(
        at
        for at, (one, other) in enumerate(zip(gated.samples, gated.samples[1:], strict=False))
        if one.idle and not other.idle
    )
    asleep, *after = gated.samples[woken:]
    assert after[0].idle_slots == after[0].slot - asleep.slot - 1, (
        "all from the last look on, and what is left out told"
    )
    assert [sample.slot for sample in after] == list(range(after[0].slot, after[0].slot + len(after)))
    told = [events(watched.samples, bundle, cameras[0]) for watched in (gated, whole)]
    assert [[change.label for change in changes] for changes in told] == [["scuffle"], ["scuffle"]]
    apart = told[0][0].started_seconds - told[1][0].started_seconds
    assert -3.5 < apart / bundle.manifest.stride_seconds < 1.5, (
        "the windows after the wake-up hold less of the quiet before it, or nothing: they tell earlier, and never later"
    )
