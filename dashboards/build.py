"""`python -m dashboards.build` writes the dashboards' JSON beside this file; nothing in it depends on time or place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.camera import camera
from dashboards.overview import overview
from dashboards.pipeline import pipeline

FOLDER = Path(__file__).parent
DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "overview.json": overview,
    "camera.json": camera,
    "pipeline.json": pipeline,
}


def text_of(make: Callable[[], Dashboard]) -> str:
    """Return a dashboard as its file holds it."""
    return json.dumps(make(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every dashboard."""
    for name, make in DASHBOARDS.items():
        (FOLDER / name).write_text(text_of(make), encoding="utf-8")


if __name__ == "__main__":
    main()
