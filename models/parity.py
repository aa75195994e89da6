"""A labelled folder and engines of one bundle in, what each precision gives and costs out: the parity report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from models.dataset import Dataset
from models.judging import judge_clip
from monitor.bundle import Bundle
from monitor.scoring.engine import OpenedEngine, sample_seconds


@dataclass(frozen=True, slots=True)
class PrecisionParity:
    """What one precision makes of the clips, beside FP32."""

    precision: str
    accuracy: float
    """Share of the clips whose likeliest label is the right one."""
    agreement: float
    """Share of the clips that get the label that FP32 gives them."""
    largest_difference: float
    """Of a clip's probability of any label, from FP32's."""
    least_cosine: float
    """Of the golden embeddings."""
    ms_per_sample: float
    """Median, one sample at a time, all precisions in turn."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """All precisions of one engine on one folder of clips."""

    engine: str
    model: str
    threads: int
    clips: int
    precisions: tuple[PrecisionParity, ...]
    """FP32 first."""
    unavailable: tuple[str, ...]
    """What this machine cannot run, with the reason."""

    def as_json(self) -> dict[str, Any]:
        """Return the report for machines."""
        return asdict(self)

    def table(self) -> Table:
        """Return the report for people."""
        title = f"{self.model} on {self.engine}, {self.clips} clips, {self.threads} thread(s)"
        table = Table(
            "precision",
            "accuracy",
            "same label",
            "largest difference",
            "least cosine",
            "ms a sample",
            "speed",
            title=title,
            caption="; ".join(self.unavailable) or None,
        )
        exact = self.precisions[0]
        for found in self.precisions:
            table.add_row(
                found.precision,
                f"{found.accuracy:.1%}",
                f"{found.agreement:.1%}",
                f"{found.largest_difference:.3f}",
                f"{found.least_cosine:.4f}",
                f"{found.ms_per_sample:.2f}",
                f"{exact.ms_per_sample / found.ms_per_sample:.2f}×",
            )
        return table


def compare(
    dataset: Dataset,
    bundle: Bundle,
    opened: Sequence[OpenedEngine],
    *,
    threads: int,
    unavailable: Sequence[str] = (),
    on_clip: Callable[[], None] = lambda: None,
) -> ParityReport:
    """Judge the clips in every precision.

    Args:
        dataset: labelled clips, sampled as the bundle does.
        bundle: the model.
        opened: one engine a precision, FP32 first.
        threads: that the engines run on.
        unavailable: what cannot be run here, with the reason.
        on_clip: told after each clip.
    """
    judged = []
    for clip in dataset.clips:
        judged.append([judge_clip(each.engine, clip, bundle) for each in opened])
        on_clip()
    probabilities = np.array(judged).transpose(1, 0, 2)  # (P, C, L)
    seconds = sample_seconds([each.engine for each in opened], bundle.golden().pictures[:1])
    exact, targets = probabilities[0], dataset.targets
    answers = probabilities.argmax(axis=2)
    found = tuple(
        PrecisionParity(
            precision=each.engine.precision,
            accuracy=float((answers[index] == targets).mean()),
            agreement=float((answers[index] == answers[0]).mean()),
            largest_difference=float(np.abs(probabilities[index] - exact).max()),
            least_cosine=each.parity.cosine,
            ms_per_sample=1e3 * seconds[index],
        )
        for index, each in enumerate(opened)
    )
    manifest = bundle.manifest
    return ParityReport(
        engine=opened[0].engine.name,
        model=f"{manifest.name} {manifest.version}",
        threads=threads,
        clips=len(dataset.clips),
        precisions=found,
        unavailable=tuple(unavailable),
    )
