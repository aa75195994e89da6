"""The overlays, rendered once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import require
from tests.k8s.judging import Rendered
from tests.services import kustomize

ROOT = Path(__file__).parent.parent.parent
OVERLAYS = ("cpu", "nvidia", "dev")


@pytest.fixture(scope="session")
def overlays() -> dict[str, list[Rendered]]:
    """Render every overlay."""
    require(kustomize.missing())
    return {name: kustomize.render(ROOT / "k8s/overlays" / name) for name in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, overlays: dict[str, list[Rendered]]) -> list[Rendered]:
    """Give each overlay in turn."""
    return overlays[request.param]
