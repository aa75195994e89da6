"""A monitor whose scores follow a seeded script: real tracker, decider, outbox and publisher, no camera and no model.

It is run in a process of its own, so that it can be killed at any moment. The script is a function of the time on the
grid, as the world before a camera is: a monitor that starts again goes on where the world is by then, and may see the
last windows once more.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monitor.config import EventsConfig, HealthConfig, KafkaConfig, OutboxConfig
from monitor.deadline import Deadline
from monitor.decisions import Commitment, Decider, Watch
from monitor.delivery.kafka import Publisher
from monitor.delivery.outbox import Outbox
from monitor.events.alerts import AlertContext, recovered
from monitor.records import Score, Threshold, Window

CAMERAS = ("yard", "gate", "hall")
LABELS = ("normal", "fight")
FPS = 50.0
"""Windows a second and camera: fifty times what a real one brings, so that a kill hits something."""
SLOTS = 8
BLOCK = 12
"""Windows for which the script keeps its mind."""
RULES = EventsConfig(
    smoothing_windows=1,
    merge_gap_seconds=0.05,
    cool_down_seconds=0.0,
    maximum_seconds=1.5,
    update_seconds=0.1,
)


@dataclass(frozen=True, slots=True)
class Script:
    """One run of the scripted monitor."""

    store: Path
    said: Path
    """Gets a line `alert_id:sequence` for each alert after its commit."""
    bootstrap: str
    topic: str
    seed: int
    seconds: float
    """How long it runs unless it is killed; then it stops in order."""
    seen_again: int
    """Windows before the start that it sees once more."""


def run(script: Script) -> None:
    """Run to the end of the script, or to the kill."""
    outbox = Outbox.open(OutboxConfig(path=script.store), deliver=True)
    settings = KafkaConfig(bootstrap_servers=script.bootstrap, topic=script.topic)
    publisher = Publisher(outbox, settings, on_report=lambda _report: None)
    with script.said.open("ab", buffering=0) as said:

        def committed(commitment: Commitment) -> None:
            assert not commitment.error, commitment.error
            for alert in commitment.said:
                os.write(said.fileno(), f"{alert.alert_id}:{alert.sequence}\n".encode())
            publisher.notify()

        decider = Decider(
            outbox,
            on_decision=lambda _decision: None,
            on_commitment=committed,
            on_failure=fail,
            lost_after_seconds=60.0,
        )
        for camera in CAMERAS:
            decider.watch(make_watch(camera, script))
        decider.say([recovered(last, published_seconds=time.time()) for last in outbox.unfinished()])
        decider.start()
        publisher.start()
        play(decider, script)
        decider.stop(Deadline(10.0))
        publisher.stop(Deadline(30.0))
        outbox.close()


def play(decider: Decider, script: Script) -> None:
    """Give the decider each window when its time has come."""
    end = time.time() + script.seconds
    number = int(time.time() * FPS) - script.seen_again
    while time.time() < end:
        time.sleep(max(0.0, number / FPS - time.time()))
        for camera in CAMERAS:
            decider.put(score(camera, number, script.seed))
        number += 1


def fail(error: BaseException) -> None:
    """End the process at once: its parent sees a code that is not its kill."""
    print(f"the scripted monitor failed: {error!r}", flush=True)
    os._exit(3)


def make_watch(camera: str, script: Script) -> Watch:
    """Watch for one label."""
    thresholds = {"fight": Threshold(0.6, 0.4)}
    return Watch(camera, LABELS, thresholds, context(camera, script), RULES, HealthConfig(), blind_after_seconds=60.0)


def score(camera: str, number: int, seed: int) -> Score:
    """Return what the script shows before this camera at this point of the grid."""
    mood = random.Random(f"{seed}/{camera}/{number // BLOCK}").choice((0.1, 0.1, 0.7, 0.8))
    fight = mood + random.Random(f"{seed}/{camera}/{number}").uniform(-0.1, 0.19)
    slots = range(number - SLOTS, number)
    window = Window(
        camera=camera,
        first_slot=slots[0],
        start_seconds=slots[0] / FPS,
        end_seconds=number / FPS,
        embeddings=np.zeros((SLOTS, 1), np.float32),
        mask=np.ones(SLOTS, np.bool_),
        frame_seconds=tuple(slot / FPS for slot in slots),
        received_seconds=time.time(),
        camera_seconds=None,
    )
    attention = np.full((1, SLOTS), 1 / SLOTS, np.float32)
    return Score(window, np.array([1 - fight, fight], np.float32), attention)


def context(camera: str, script: Script) -> AlertContext:
    """Return what the alerts of this camera say besides."""
    return AlertContext(
        camera=camera,
        camera_name=camera,
        site="",
        tags=(),
        model="script",
        model_version="1",
        model_sha256="0" * 64,
        engine="none",
        precision="none",
        instance="scripted",
        version="0",
        topic=script.topic,
        health_topic=f"{script.topic}-health",
    )
