"""Cameras and Kafka of a configuration in; what they answer when asked, for `monitor check --probe`, out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from monitor.bundle import Manifest
from monitor.capture.probe import StreamReport, probe
from monitor.capture.siblings import Proposal, propose
from monitor.config import CameraConfig, Config
from monitor.delivery.kafka import KafkaReport, probe_kafka
from monitor.errors import SourceFailed

PROBE_SECONDS = 6.0
"""Long enough to see that keyframes come too seldom for a gate."""
PROBED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class ProbedCamera:
    """What one camera answered."""

    camera: CameraConfig
    report: StreamReport | None
    """None where the stream could not be opened."""
    failure: SourceFailed | None
    for_clips: bool = False
    """Whether it is the camera's large stream."""
    proposal: Proposal | None = None
    """Another of its streams that would do better, where it offers one."""

    @property
    def ok(self) -> bool:
        """Whether pictures came."""
        return self.failure is None


def probe_cameras(config: Config) -> Sequence[ProbedCamera]:
    """Open every camera, a few at a time, and watch each for some seconds; large streams stand behind their cameras."""

    def ask(stream: tuple[CameraConfig, bool]) -> ProbedCamera:
        camera, for_clips = stream
        try:
            report = probe(camera, config.capture, seconds=PROBE_SECONDS)
        except SourceFailed as exc:
            return ProbedCamera(camera, None, exc, for_clips)
        proposal = None if for_clips else propose(camera, report, config.capture)
        return ProbedCamera(camera, report, None, for_clips, proposal)

    streams = [
        (stream, for_clips)
        for camera in config.cameras
        for stream, for_clips in ((camera, False), (camera.clip, True))
        if stream is not None
    ]
    pool = ThreadPoolExecutor(PROBED_AT_ONCE, thread_name_prefix="probe")
    try:
        return list(pool.map(ask, streams))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C waits for nobody


def rate_problem(report: StreamReport, manifest: Manifest, minimum_coverage: float) -> str:
    """Return what is wrong with a camera's frame rate for the model; empty when nothing is."""
    fps, spacing = report.measured_fps, manifest.sample.context_spacing_seconds
    if fps is None:
        return ""
    if fps < manifest.sample_fps * minimum_coverage:
        return f"{fps:.3g} frames a second are too few: the model takes {manifest.sample_fps:g}; nothing will be scored"
    if manifest.sample.pictures > 1 and 1.0 / fps > 1.5 * spacing:
        return (
            f"{fps:.3g} frames a second: the model wants pictures {spacing * 1000:.0f} ms apart, and will be less sure"
        )
    return ""


def probe_delivery(config: Config) -> KafkaReport | None:
    """Ask Kafka; None where it is not configured."""
    return probe_kafka(config.kafka) if config.kafka is not None else None
