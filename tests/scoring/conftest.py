from __future__ import annotations

import numpy as np
import pytest

from monitor.bundle import Bundle
from monitor.records import Sample
from monitor.scoring.engine import Engine, open_engine
from tests.scoring.bundles import PICTURES, SIDE, TinyBundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return TinyBundle().write(tmp_path_factory.mktemp("bundles") / "tiny", golden=True)


@pytest.fixture(scope="session", params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest, tiny_bundle: Bundle) -> Engine:
    """Each real engine, opened and checked."""
    return open_engine(tiny_bundle, preference=request.param, threads=2, precision="fp32").engine


@pytest.fixture(scope="session")
def quick_engine(tiny_bundle: Bundle) -> Engine:
    """One real engine, where the test is not about engines."""
    return open_engine(tiny_bundle, preference="onnxruntime", threads=1).engine


def make_sample(slot: int, *, camera: str = "yard", fps: float = 4.0) -> Sample:
    """A sample whose pictures are its camera's and slot's own."""
    rng = np.random.default_rng([slot, *camera.encode()])
    seconds = (slot + 0.5) / fps
    return Sample(
        camera=camera,
        slot=slot,
        time_seconds=seconds,
        received_seconds=seconds + 0.1,
        camera_seconds=seconds - 0.2,
        pictures=rng.integers(0, 256, (PICTURES, SIDE, SIDE, 3), dtype=np.uint8),
    )
