"""What the training tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.scenes.clips import plan_clips, write_clips


@pytest.fixture(scope="session")
def drawn_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of drawn scenes, four of each scene, with `clips.csv`; to be read only."""
    folder = tmp_path_factory.mktemp("drawn")
    list(write_clips(folder, plan_clips(24, seed=8)))
    return folder
