"""What the end-to-end tests share: streams with an event in them, and the program as a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.scenes import Scene
from tests.services.rtsp import encode_stream

FPS = 15.0
SEED = 911
FROM_SECONDS, FOR_SECONDS = 2.0, 16.0
"""A piece of the scene with one event, about 6 to 9 seconds into it."""
FIGHT_CLIPS = Path(__file__).parents[3] / "shared" / "data" / "fight"


@pytest.fixture(scope="session")
def scene_streams(tmp_path_factory) -> dict[str, Path]:
    """The same drawn scene with an event, as H.264 and as H.265."""
    folder = tmp_path_factory.mktemp("scenes")
    streams = {}
    for codec in ("h264", "h265"):
        streams[codec] = folder / f"scene.{codec}"
        frames = Scene(SEED, fps=FPS).frames(FOR_SECONDS, start_seconds=FROM_SECONDS)
        encode_stream(frames, streams[codec], fps=FPS, codec=codec)
    return streams


@pytest.fixture(scope="session")
def fight_stream(tmp_path_factory) -> Path:
    """Real clips of one recording camera after another, quiet, fight, quiet, as one H.264 stream."""
    if not FIGHT_CLIPS.is_dir():
        pytest.skip("the fight clips are not here; the drawn scenes prove the same path")
    folder = tmp_path_factory.mktemp("fight")
    out = folder / "fight.h264"
    clips = _clips()
    with out.open("wb") as joined:
        for number, clip in enumerate(clips):
            part = folder / f"{number}.h264"
            encode_stream(clip, part, fps=25.0, size=(480, 360))
            joined.write(part.read_bytes())
    return out


def _clips() -> list[Path]:
    """Two quiet clips, three of a fight, two quiet ones."""
    normal = sorted((FIGHT_CLIPS / "normal").glob("surv_*.mp4"))
    fight = sorted((FIGHT_CLIPS / "fight").glob("surv_*.mp4"))
    return [*normal[:2], *fight[:3], *normal[2:4]]
