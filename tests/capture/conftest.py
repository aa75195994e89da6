"""The streams that the tests of faults share."""

from __future__ import annotations

import pytest

from tests.capture.faults import Clips, make_clips


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory, rtsp_available: None) -> Clips:
    return make_clips(tmp_path_factory.mktemp("numbered"))
