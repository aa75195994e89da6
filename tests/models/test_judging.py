"""What a bundle is measured by."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from models.judging import judging_engine
from monitor.bundle import find_bundle, load_bundle
from monitor.scoring.door import Precision


def test_a_bundle_is_measured_in_fp32_whatever_would_serve() -> None:
    """Where the processor has BF16 the live path serves `fight` in it, and its answers are others."""
    with closing(judging_engine(load_bundle(find_bundle("fight", Path.cwd())))) as engine:
        assert engine.precision == Precision.FP32.value
