"""Scored windows in; the scores and attention of each camera's last hour out, bounded in memory.

About 45 bytes a window of ten slots and one label: 0.4 MB for an hour of a camera that is scored 2.5 times a second.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.records import Score

KEEP_SECONDS = 3600.0
BLOCK_WINDOWS = 256
"""Windows are kept and forgotten in blocks of this many."""
RECENT_WINDOWS = 4096
"""Windows of all cameras that a reader may lag behind before it misses some."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Windows of one camera, oldest first."""

    labels: tuple[str, ...]
    window_seconds: float
    ends: NDArray[np.float64]
    """(N,) ends of the windows, seconds since the epoch."""
    probabilities: NDArray[np.float32]
    """(N, L) of each label."""
    attention: NDArray[np.float16]
    """(N, T) weights of the window's slots, oldest first; each row sums to 1, gaps have 0."""

    def __len__(self) -> int:
        return len(self.ends)


@dataclass(frozen=True, slots=True)
class ScoredWindow:
    """One window as it was decided on."""

    camera: str
    end_seconds: float
    window_seconds: float
    scores: Mapping[str, float]
    """Watched label to probability."""
    attention: tuple[float, ...]
    """T weights."""


class _Block:
    __slots__ = ("attention", "count", "ends", "probabilities")

    def __init__(self, labels: int, slots: int) -> None:
        self.count = 0
        self.ends = np.zeros(BLOCK_WINDOWS, np.float64)
        self.probabilities = np.zeros((BLOCK_WINDOWS, labels), np.float32)
        self.attention = np.zeros((BLOCK_WINDOWS, slots), np.float16)


class _Track:
    """The windows of one camera that have the same labels and length."""

    def __init__(self, labels: tuple[str, ...], window_seconds: float, slots: int) -> None:
        self.shape = (labels, window_seconds, slots)
        self.blocks: deque[_Block] = deque()
        self.last_end = -math.inf

    def append(self, window: ScoredWindow) -> None:
        if not self.blocks or self.blocks[-1].count == BLOCK_WINDOWS:
            self.blocks.append(_Block(len(self.shape[0]), self.shape[2]))
        block = self.blocks[-1]
        block.ends[block.count] = self.last_end = window.end_seconds
        block.probabilities[block.count] = list(window.scores.values())
        block.attention[block.count] = window.attention
        block.count += 1
        while self.blocks[0].count == BLOCK_WINDOWS and self.blocks[0].ends[-1] < window.end_seconds - KEEP_SECONDS:
            self.blocks.popleft()

    def scores(self, since: float, until: float) -> Scores:
        labels, window_seconds, slots = self.shape
        wanted = [block for block in self.blocks if block.ends[block.count - 1] >= since] or [
            _Block(len(labels), slots)
        ]
        ends = np.concatenate([block.ends[: block.count] for block in wanted])
        kept = slice(*np.searchsorted(ends, [since, np.nextafter(until, math.inf)]))
        probabilities = np.concatenate([block.probabilities[: block.count] for block in wanted])
        attention = np.concatenate([block.attention[: block.count] for block in wanted])
        return Scores(labels, window_seconds, ends[kept], probabilities[kept], attention[kept])


class History:
    """Each camera's last hour, and the newest windows of all. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tracks: dict[str, _Track] = {}
        self._recent: deque[ScoredWindow] = deque(maxlen=RECENT_WINDOWS)
        self._serial = 0

    def note(self, score: Score, watched: Mapping[str, float]) -> None:
        """Take a window with the probabilities of the labels that are watched for."""
        window = ScoredWindow(
            camera=score.window.camera,
            end_seconds=score.window.end_seconds,
            window_seconds=score.window.end_seconds - score.window.start_seconds,
            scores=dict(watched),
            attention=tuple(float(weight) for weight in score.attention_per_slot),
        )
        shape = (tuple(watched), round(window.window_seconds, 6), len(window.attention))
        with self._lock:
            track = self._tracks.get(window.camera)
            if track is None or track.shape != shape or window.end_seconds <= track.last_end:
                track = self._tracks[window.camera] = _Track(*shape)  # another model, or the clock was set back
            track.append(window)
            self._recent.append(window)
            self._serial += 1

    def scores(
        self, camera: str, *, since: float = -math.inf, until: float = math.inf, points: int | None = None
    ) -> Scores | None:
        """Return the windows of a camera that ended within a time; None where none has been scored.

        Args:
            camera: its id.
            since: seconds since the epoch.
            until: likewise.
            points: at most so many windows; of neighbours the one with the highest score is kept, as it was.
        """
        with self._lock:
            track = self._tracks.get(camera)
            found = None if track is None else track.scores(since, until)
        return found if found is None or points is None else thinned(found, points)

    @property
    def serial(self) -> int:
        """Of the newest window; 0 before there is one."""
        return self._serial

    def newest(self, camera: str) -> Scores | None:
        """Return a camera's newest window; None where none has been scored."""
        with self._lock:
            track = self._tracks.get(camera)
            return None if track is None else track.scores(track.last_end, math.inf)

    def after(self, serial: int) -> tuple[int, Sequence[ScoredWindow]]:
        """Return the newest serial and the windows behind one; those that nobody fetched in time are gone."""
        with self._lock:
            count = min(self._serial - serial, len(self._recent))
            newest = [self._recent[index] for index in range(len(self._recent) - count, len(self._recent))]
            return self._serial, newest

    def keep_only(self, cameras: set[str]) -> None:
        """Forget the cameras that are none of these."""
        with self._lock:
            for camera in self._tracks.keys() - cameras:
                del self._tracks[camera]


def thinned(scores: Scores, points: int) -> Scores:
    """Return at most so many of the windows: of each run of neighbours the one with the highest score."""
    count = len(scores)
    if count <= points:
        return scores
    run = math.ceil(count / points)
    highest = np.full(math.ceil(count / run) * run, -1.0, np.float32)
    highest[:count] = scores.probabilities.max(axis=1, initial=0.0)
    rows = highest.reshape(-1, run).argmax(axis=1) + np.arange(0, len(highest), run)
    return Scores(
        scores.labels, scores.window_seconds, scores.ends[rows], scores.probabilities[rows], scores.attention[rows]
    )
