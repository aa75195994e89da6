"""Decoding by hardware: what happens where there is none, and, on a machine with a GPU, that it shows the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monitor.bundle import SampleShape
from monitor.capture.camera import CapturePlan
from monitor.capture.hardware import hardware
from monitor.capture.sampler import Sampler
from monitor.capture.source import open_source
from monitor.config import CameraConfig, CaptureConfig
from monitor.errors import SourceFailed
from monitor.records import CameraState, CameraStatus, Sample
from monitor.reporting import Reporter
from monitor.telemetry.metrics import Metrics
from tests.capture.drawing import write_video
from tests.capture.test_camera import Watched
from tests.conftest import StreamFiles

SHAPE = SampleShape(pictures=1, context_spacing_seconds=0.0, width_pixels=64, height_pixels=64)


def samples(path: Path, hwaccel: str) -> tuple[list[Sample], str]:
    """Return a file's samples, read without its pace, and why hardware did not make them."""
    camera = CameraConfig(id="yard", url=str(path))
    sampler = Sampler("yard", sample_fps=5.0, shape=SHAPE)
    taken = []
    with open_source(camera, CaptureConfig.model_validate({"hwaccel": hwaccel})) as source:
        assert source.context.is_hwaccel is (hwaccel != "none" and not source.software_because)
        packets = source.packets()
        for number in range(100):
            try:
                arrived = next(packets)
            except SourceFailed:
                break
            for one in source.decode(arrived):
                seconds = number / 15
                sample = sampler.push(one.frame, time_seconds=seconds, received_seconds=seconds)
                taken += [sample] if sample is not None else []
        return taken, source.software_because


def test_software_says_nothing() -> None:
    assert hardware("none").accel is None
    assert hardware("none").missing == ""


@pytest.mark.parametrize("kind", ["cuda", "vaapi"])
def test_without_a_device_the_samples_are_those_of_software(kind: str, stream_files: StreamFiles) -> None:
    if not hardware(kind).missing:
        pytest.skip(f"this machine has {kind}: test_a_device_shows_what_software_shows is the one to run")
    wanted, nothing = samples(stream_files.h264, "none")
    taken, why = samples(stream_files.h264, kind)
    assert nothing == ""
    assert kind in why
    assert len(taken) == len(wanted) > 5
    assert all((one.pictures == other.pictures).all() for one, other in zip(taken, wanted, strict=True))


def test_a_camera_says_once_why_it_is_decoded_in_software(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not hardware("vaapi").missing:
        pytest.skip("this machine has vaapi")
    camera = CameraConfig(id="yard", url=str(write_video(tmp_path / "a.mp4")), hwaccel="vaapi")
    with Watched(camera, CapturePlan(CaptureConfig(), 4.0, SHAPE)) as watched:
        watched.wait(lambda w: len(w.samples) > 2)
    online = next(state for state in watched.states if state.state is CameraState.ONLINE)
    assert online.software_because == hardware("vaapi").missing
    reporter = Reporter(Metrics())
    for name in ("yard", "gate", "yard"):
        reporter.camera_added(CameraConfig(id=name, url="rtsp://camera.example/x"))
        reporter.status(CameraStatus(name, CameraState.ONLINE, 0.0, software_because=online.software_because))
    said = capsys.readouterr()
    assert (said.out + said.err).count("decoding_in_software") == 1


def test_a_camera_may_differ_from_the_others(tmp_path: Path) -> None:
    camera = CameraConfig(id="yard", url=str(write_video(tmp_path / "a.mp4")), hwaccel="none")
    with open_source(camera, CaptureConfig(hwaccel="cuda")) as source:
        assert source.software_because == ""


@pytest.mark.gpu
def test_a_device_shows_what_software_shows(stream_files: StreamFiles) -> None:
    """A device hands out NV12, so colours may differ by their rounding."""
    wanted, _ = samples(stream_files.h264, "none")
    taken, why = samples(stream_files.h264, "cuda")
    assert why == ""
    assert len(taken) == len(wanted)
    for one, other in zip(taken, wanted, strict=True):
        assert np.abs(one.pictures.astype(int) - other.pictures.astype(int)).mean() < 1.0
