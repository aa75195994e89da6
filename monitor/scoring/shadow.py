"""The samples that were scored in, how a second model differs on the same windows out; never an alert.

The shadow works when the main model has nothing to do, one sample at a time, so it delays a batch by one sample at
most. It is the first to be dropped: when it falls behind or a camera is thinned, that camera's samples are let go
and its windows begin anew. A window counts where both models scored it: they agree when both see the same label
over its own threshold, or both see none.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from monitor.bundle import Bundle, Manifest
from monitor.config import ScoringConfig
from monitor.errors import EngineUnavailable
from monitor.records import Score
from monitor.scoring.door import Engine
from monitor.scoring.pipeline import ScoringPipeline
from monitor.scoring.waiting import Waiting

REPORT_SECONDS = 10.0
"""A camera's disagreements are told at most this often."""
KEPT_WINDOWS = 4096
"""Decisions of the main model that wait for the shadow's, of all cameras."""
NOTHING = ""
"""Stands for no label over its threshold."""


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What came of comparing windows."""

    bundle: str
    """The shadow's name and version."""
    agreed: int = 0
    disagreed: int = 0
    disagreement: Disagreement | None = None
    """To be logged."""
    failure: str = ""
    """Why the shadow ended."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Windows of one camera, in a row or nearly, on which the models differ."""

    camera: str
    windows: int
    start_seconds: float
    """Start of the first."""
    end_seconds: float
    """End of the last."""
    main_label: str
    """Of the window at which the shadow's probability was furthest from the main model's; empty: none."""
    shadow_label: str
    difference: float
    """Largest absolute difference of the probability of either label."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a model makes of a window."""

    label: str
    probabilities: dict[str, float]


@dataclass(slots=True)
class _Told:
    """A camera's disagreements that have not been told yet."""

    begun: float
    windows: int = 0
    start_seconds: float = 0.0
    end_seconds: float = 0.0
    main_label: str = NOTHING
    shadow_label: str = NOTHING
    difference: float = -1.0


def verdict(score: Score, manifest: Manifest) -> str:
    """Return the likeliest label that is over its own threshold; empty where none is."""
    over = {
        label: float(probability)
        for label, probability in zip(manifest.labels, score.probabilities, strict=True)
        if label in manifest.thresholds and probability >= manifest.thresholds[label].on
    }
    return max(over, key=lambda label: over[label], default=NOTHING)


@dataclass(slots=True)
class Comparison:
    """Two models' verdicts on the same windows. The main model's come first; used by two threads.

    Args:
        shadow: the shadow's manifest.
    """

    shadow: Manifest
    _waiting: OrderedDict[tuple[str, float], _Verdict] = field(default_factory=OrderedDict)
    _told: dict[str, _Told] = field(default_factory=dict)
    _quiet_until: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_main(self, score: Score, manifest: Manifest) -> None:
        """Keep what the main model makes of a window."""
        probabilities = dict(zip(manifest.labels, map(float, score.probabilities), strict=True))
        with self._lock:
            key = (score.window.camera, score.window.end_seconds)
            self._waiting[key] = _Verdict(verdict(score, manifest), probabilities)
            while len(self._waiting) > KEPT_WINDOWS:
                self._waiting.popitem(last=False)

    def note_shadow(self, score: Score, now: float) -> tuple[bool, Disagreement | None] | None:
        """Return whether the models agree on a window, and what is to be told; None where the main has not scored it.

        Args:
            score: the shadow's.
            now: on the monotonic clock, for the rate of what is told.
        """
        camera = score.window.camera
        with self._lock:
            main = self._waiting.pop((camera, score.window.end_seconds), None)
        if main is None:
            return None
        label = verdict(score, self.shadow)
        agrees = label == main.label
        if not agrees:
            self._note(score, main, label, now)
        return agrees, self._due(camera, now, over=agrees)

    def _note(self, score: Score, main: _Verdict, label: str, now: float) -> None:
        window = score.window
        told = self._told.get(window.camera)
        if told is None:
            told = self._told[window.camera] = _Told(now, start_seconds=window.start_seconds)
        told.windows += 1
        told.end_seconds = window.end_seconds
        mine = dict(zip(self.shadow.labels, map(float, score.probabilities), strict=True))
        names = {name for name in (label, main.label) if name}
        difference = max(abs(mine.get(name, 0.0) - main.probabilities.get(name, 0.0)) for name in names)
        if difference > told.difference:
            told.main_label, told.shadow_label, told.difference = main.label, label, difference

    def _due(self, camera: str, now: float, *, over: bool) -> Disagreement | None:
        """Return an interval that is over, or has gone on long enough, and that it is time to tell."""
        told = self._told.get(camera)
        if told is None or now < self._quiet_until.get(camera, 0.0):
            return None
        if not over and now - told.begun < REPORT_SECONDS:
            return None
        del self._told[camera]
        self._quiet_until[camera] = now + REPORT_SECONDS
        return Disagreement(
            camera,
            told.windows,
            told.start_seconds,
            told.end_seconds,
            told.main_label,
            told.shadow_label,
            told.difference,
        )


class Shadow:
    """A second model that looks on.

    Owns its engine. Everything but `note_main` belongs to the thread that embeds.

    Args:
        bundle: the shadow's.
        engine: opened and checked.
        settings: of scoring.
        on_report: told of each comparison.
    """

    def __init__(
        self, bundle: Bundle, engine: Engine, settings: ScoringConfig, *, on_report: Callable[[ShadowReport], None]
    ) -> None:
        manifest = bundle.manifest
        self.manifest = manifest
        self._name = f"{manifest.name} {manifest.version}"
        self._engine = engine
        self._pipeline = ScoringPipeline(engine, manifest, settings)
        self._comparison = Comparison(manifest)
        self._queue: deque[Waiting] = deque()
        self._most = max(1, settings.queue_samples // 4)
        self._on_report = on_report
        self._failed = False

    @property
    def waits(self) -> bool:
        """Whether there is something to do."""
        return bool(self._queue)

    def offer(self, batch: Sequence[Waiting], *, thinned: bool) -> None:
        """Take the samples of a batch that the main model has seen; let them go while anything is thinned."""
        if self._failed:
            return
        if thinned:
            self._let_go({waiting.sample.camera for waiting in (*self._queue, *batch)})
            return
        self._queue.extend(batch)
        if len(self._queue) > self._most:
            self._let_go({waiting.sample.camera for waiting in self._queue})

    def step(self) -> None:
        """Score one sample and compare what it completes."""
        waiting = self._queue.popleft()
        try:
            embedding = self._pipeline.embed([waiting.sample])
            scores = self._pipeline.finish([waiting], embedding).scores
        except EngineUnavailable as exc:
            self._failed = True
            self._queue.clear()
            self._on_report(ShadowReport(self._name, failure=str(exc)))
            return
        for score in scores:
            compared = self._comparison.note_shadow(score, time.monotonic())
            if compared is not None:
                agrees, disagreement = compared
                self._on_report(ShadowReport(self._name, int(agrees), int(not agrees), disagreement))

    def note_main(self, score: Score, manifest: Manifest) -> None:
        """Keep what the main model made of a window; from any thread."""
        self._comparison.note_main(score, manifest)

    def forget(self, camera: str) -> None:
        """Let a camera go."""
        self._let_go({camera})

    def close(self) -> None:
        """Give back the engine; nothing is asked of the shadow after this."""
        self._engine.close()

    def _let_go(self, cameras: set[str]) -> None:
        self._queue = deque(waiting for waiting in self._queue if waiting.sample.camera not in cameras)
        for camera in cameras:
            self._pipeline.forget(camera)
