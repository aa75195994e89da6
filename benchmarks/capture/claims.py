"""Figures in; what we say of them, each with the figure that it stands or falls by, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

IDLE_SHARE = 1 / 6
BUSY_SHARE = 0.85
GROWTH = 1.2
CAMERA_BYTES = 25e6
OURS = ("monitor gate on", "monitor gate off")
PIPE = "ffmpeg pipe"


def claims(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each claim that these figures can decide, with what it may be at most."""
    return list(_claims(_Figures(results)))


class _Figures:
    def __init__(self, results: Sequence[dict[str, Any]]) -> None:
        self._rows = {(row["name"], row["scene"], row["cameras"]): row for row in results}

    def of(self, key: str, name: str, scene: str, cameras: int) -> float | None:
        row = self._rows.get((name, scene, cameras))
        return None if row is None else row[key]

    def most(self, name: str, scene: str) -> int | None:
        """Return the largest number of cameras up to 16 at which it kept up."""
        kept = (cameras for (n, s, cameras), row in self._rows.items() if (n, s) == (name, scene) and row["keeps_up"])
        return max((cameras for cameras in kept if cameras <= 16), default=None)


def _claims(figures: _Figures) -> Iterator[dict[str, Any]]:
    for ours, scene, most in (
        ("monitor gate on", "idle", IDLE_SHARE),
        ("monitor gate on", "busy", BUSY_SHARE),
        ("monitor gate off", "busy", BUSY_SHARE),
    ):
        yield from _shares_of_the_pipe(figures, ours, scene, most)
    few, many = (figures.of("cpu_per_camera", "monitor gate on", "idle", cameras) for cameras in (4, 64))
    if few and many:
        yield _claim("idle, monitor gate on: processor time of a camera at 64 against that at 4", many / few, GROWTH)
    for name in OURS:
        for scene in ("idle", "busy"):
            for cameras in (64, 16, 4):
                memory = figures.of("pss_per_camera_bytes", name, scene, cameras)
                if memory is not None:
                    told = f"{scene}, {name}: bytes of a camera beyond the first, of {cameras}"
                    yield _claim(told, memory, CAMERA_BYTES)
                    break


def _shares_of_the_pipe(figures: _Figures, ours: str, scene: str, most: float) -> Iterator[dict[str, Any]]:
    """Compare at the largest number that both kept up with; and ours at its own largest, where the pipe's is smaller.

    The pipe is one process a camera: what a camera costs it does not fall with their number.
    """
    our_most, pipes_most = figures.most(ours, scene), figures.most(PIPE, scene)
    if our_most is None or pipes_most is None:
        return
    theirs = figures.of("cpu_per_camera", PIPE, scene, pipes_most)
    for cameras in sorted({min(our_most, pipes_most), our_most}):
        mine = figures.of("cpu_per_camera", ours, scene, cameras)
        if mine and theirs:
            at = f"{cameras} cameras" if cameras == pipes_most else f"{cameras} cameras, of the pipe's at {pipes_most}"
            yield _claim(f"{scene}, {ours}: share of the ffmpeg pipe's processor time at {at}", mine / theirs, most)


def _claim(text: str, figure: float, most: float) -> dict[str, Any]:
    return {"claim": text, "figure": round(figure, 4), "most": round(most, 4), "holds": figure <= most}
