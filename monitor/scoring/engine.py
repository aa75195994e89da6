"""A bundle in, an engine that reproduces its golden outputs out; or an error with every engine's reason.

Whatever the library, the bundle's golden outputs are the judge. Each library first runs the bundle in FP32,
where the tolerance is so tight that altered weights, swapped colours or another normalisation show; only then
may another precision serve, under its own wider tolerance. Order of trial: `doors`.

What a processor says of itself does not tell what is fast on it: without AMX, bf16 was measured at 12.6 ms a
sample where fp32 takes 8.5. So with the precision left to us, those that pass are timed and the fastest serves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import Bundle, Golden
from monitor.config import ModelConfig
from monitor.errors import BundleInvalid, EngineUnavailable
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import COMPILED, Classified, Door, Engine, Precision
from monitor.scoring.onnxruntime import OnnxRuntimeDoor
from monitor.scoring.openvino import OpenVinoDoor
from monitor.scoring.tensorrt import TensorRtDoor

__all__ = [
    "AskedPrecision",
    "Classified",
    "Engine",
    "OpenedEngine",
    "Parity",
    "Precision",
    "Preference",
    "Skipped",
    "Tolerance",
    "check_golden",
    "doors_to",
    "half_of_the_cores",
    "open_checked",
    "open_configured",
    "open_engine",
    "sample_seconds",
]

Preference = Literal["auto", "tensorrt", "openvino", "onnxruntime"]
AskedPrecision = Literal["auto", "fp32", "fp16", "bf16", "int8"]

FAINT = 1e-3
"""A golden embedding shorter than this share of the longest has no direction to compare, and its error counts
relative to that share: pictures without motion may give next to nothing."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an engine may stray from the golden outputs."""

    cosine: float
    """Least cosine between an embedding and its reference."""
    embedding_error: float
    """Largest length of an embedding's error, relative to the reference's length; sees what a cosine cannot: scale."""
    probability_difference: float
    """Largest absolute difference of a probability."""
    attention_difference: float
    """Largest absolute difference of an attention weight."""


TOLERANCES: Mapping[Precision, Tolerance] = {
    # Libraries differ by about 1e-6 in FP32; weights perturbed by 1% by about 1e-2.
    Precision.FP32: Tolerance(
        cosine=0.99999, embedding_error=1e-3, probability_difference=1e-4, attention_difference=1e-4
    ),
    # 8 bits of mantissa in the backbone; the head stays in FP32. Measured on `fight`: cosine 0.994, error 0.11, where
    # it loses no accuracy on clips.
    Precision.BF16: Tolerance(
        cosine=0.99, embedding_error=1.5e-1, probability_difference=1e-4, attention_difference=1e-4
    ),
    # 11 bits of mantissa.
    Precision.FP16: Tolerance(
        cosine=0.9995, embedding_error=3e-2, probability_difference=1e-4, attention_difference=1e-4
    ),
    # 256 levels a tensor; measured on `fight`: cosine 0.984 to 0.996, where it loses no accuracy on clips.
    Precision.INT8: Tolerance(
        cosine=0.98, embedding_error=2.5e-1, probability_difference=1e-4, attention_difference=1e-4
    ),
}

CLEARLY_FASTER = 0.9
"""A precision serves in place of a more exact one when a sample takes it at most this share of the time."""
TIMED_RUNS = 9


@dataclass(frozen=True, slots=True)
class Parity:
    """How well an engine reproduces the golden outputs."""

    cosine: float
    """Least over the golden embeddings."""
    embedding_error: float
    """Largest relative length of an embedding's error."""
    probability_difference: float
    """Largest absolute."""
    attention_difference: float
    """Largest absolute."""
    tolerance: Tolerance
    """What the engine's precision allows."""

    @property
    def complaints(self) -> tuple[str, ...]:
        """What is out of tolerance, one line each; empty when the engine may serve. NaN is out of tolerance."""
        allowed = self.tolerance
        lines = [] if self.cosine >= allowed.cosine else [f"cosine {self.cosine:.6f}, needed {allowed.cosine}"]
        for name in ("embedding_error", "probability_difference", "attention_difference"):
            found, most = getattr(self, name), getattr(allowed, name)
            if not found <= most:
                lines.append(f"{name} {found:.2g}, allowed {most:g}")
        return tuple(lines)


class Skipped(NamedTuple):
    """An engine that does not serve, and why."""

    engine: str
    reason: str
    expected: bool = False
    """This machine is not made for it, or it is slower here: nothing that anybody has to look into."""


@dataclass(frozen=True, slots=True)
class OpenedEngine:
    """The engine that serves."""

    engine: Engine
    parity: Parity
    skipped: tuple[Skipped, ...]
    """What was tried before it, or would have been faster, in that order."""


class _GoldenMissed(EngineUnavailable):
    """An engine loaded the bundle and gave other outputs than the golden ones."""


def check_golden(engine: Engine, bundle: Bundle) -> Parity:
    """Run the golden inputs, side by side and one by one, and compare: an engine may have a way for each.

    Raises:
        BundleInvalid: the golden arrays cannot be read.
        EngineUnavailable: the engine failed to run them, or gave another shape.
    """
    golden = bundle.golden()
    together = engine.embed(golden.pictures)
    alone = np.concatenate([engine.embed(golden.pictures[i : i + 1]) for i in range(len(golden.pictures))])
    answers = engine.classify(golden.window_embeddings, golden.window_mask)
    for embeddings in (together, alone):
        _check_shapes(engine, golden, embeddings, answers)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is out of tolerance below
        return _compare(engine, golden, np.stack((together, alone)), answers)


def _compare(engine: Engine, golden: Golden, embeddings: NDArray[np.float32], answers: Classified) -> Parity:
    """Compare (2, N, D) embeddings, both ways of running, and the head's answers."""
    lengths = np.linalg.norm(golden.embeddings, axis=1)
    floor = max(FAINT * float(lengths.max()), float(np.finfo(np.float32).tiny))
    errors = np.linalg.norm(embeddings - golden.embeddings, axis=2) / np.maximum(lengths, floor)
    clear = lengths >= floor
    products = np.einsum("wnd,nd->wn", embeddings, golden.embeddings, dtype=np.float64)[:, clear]
    norms = np.maximum(np.linalg.norm(embeddings, axis=2), floor)[:, clear] * lengths[clear]
    return Parity(
        cosine=float((products / norms).min(initial=1.0)),
        embedding_error=float(errors.max()),
        probability_difference=float(np.abs(answers.probabilities - golden.probabilities).max()),
        attention_difference=float(np.abs(answers.attention - golden.attention).max()),
        tolerance=TOLERANCES[Precision(engine.precision)],
    )


def open_configured(bundle: Bundle, settings: ModelConfig) -> OpenedEngine:
    """Open the engine that a configuration asks for; raises what `open_engine` raises."""
    return open_engine(
        bundle,
        preference=settings.engine,
        threads=settings.threads,
        precision=settings.precision,
        doors=doors_to(EngineCache(settings.cache)),
    )


def doors_to(cache: EngineCache | None) -> tuple[Door, ...]:
    """Return the way to each library, the fastest first; `cache` holds what was compiled on this machine."""
    return (TensorRtDoor(cache), OpenVinoDoor(cache), OnnxRuntimeDoor(cache))


def open_engine(
    bundle: Bundle,
    *,
    preference: Preference,
    threads: int,
    precision: AskedPrecision = "auto",
    doors: Sequence[Door] = doors_to(None),
) -> OpenedEngine:
    """Open the fastest engine that reproduces the bundle's golden outputs.

    Args:
        bundle: what to run.
        preference: `auto` tries every library; otherwise only the one named.
        threads: processor threads; 0 takes half of the cores this process may use.
        precision: `auto` takes the fastest that may serve; otherwise only the one named.
        doors: the libraries to try, in this order.

    Raises:
        BundleInvalid: the golden arrays cannot be read, or every engine that ran gave other outputs.
        EngineUnavailable: no engine could be opened; the message holds every reason.
    """
    failures: list[EngineUnavailable] = []
    wanted = None if precision == "auto" else Precision(precision)
    for door in doors:
        if preference not in ("auto", door.name):
            continue
        try:
            opened = _open_behind(door, bundle, wanted, threads=threads or half_of_the_cores())
        except EngineUnavailable as exc:
            failures.append(exc)
            continue
        skipped = tuple(Skipped(exc.engine, exc.reason, exc.expected) for exc in failures)
        return OpenedEngine(opened.engine, opened.parity, skipped + opened.skipped)
    raise _none_serves(bundle, preference, failures)


def _open_behind(door: Door, bundle: Bundle, wanted: Precision | None, *, threads: int) -> OpenedEngine:
    """Judge the bundle in FP32, then serve what is asked for, or the fastest of what holds."""
    known = door.precisions(bundle)
    if wanted is not None and wanted not in known and wanted not in COMPILED:
        raise EngineUnavailable(door.name, f"cannot compute in {wanted.value} on this machine")
    exact = open_checked(door, bundle, Precision.FP32, threads=threads)
    if wanted is Precision.FP32:
        return exact
    if wanted in COMPILED:
        return _open_compiled(exact, door, bundle, wanted, threads=threads)
    if wanted is not None:
        exact.engine.close()
        return open_checked(door, bundle, wanted, threads=threads)
    return _open_fastest(exact, door, bundle, known[:-1], threads=threads)  # FP32 is the last


def _open_compiled(exact: OpenedEngine, door: Door, bundle: Bundle, wanted: Precision, *, threads: int) -> OpenedEngine:
    """Serve what was compiled; where that cannot be, go on in FP32 and say why: cameras do not wait for a compiler."""
    try:
        compiled = open_checked(door, bundle, wanted, threads=threads)
    except EngineUnavailable as exc:
        return replace(exact, skipped=(Skipped(f"{door.name} {wanted.value}", exc.reason),))
    exact.engine.close()
    return compiled


def _open_fastest(
    exact: OpenedEngine, door: Door, bundle: Bundle, others: Sequence[Precision], *, threads: int
) -> OpenedEngine:
    best, skipped = exact, []
    for precision in others:
        try:
            other = open_checked(door, bundle, precision, threads=threads)
        except EngineUnavailable as exc:
            skipped.append(Skipped(f"{exc.engine} {precision.value}", exc.reason))
            continue
        best, slower = _faster(bundle, best, other)
        skipped += slower
    return OpenedEngine(best.engine, best.parity, tuple(skipped))


def _faster(bundle: Bundle, best: OpenedEngine, other: OpenedEngine) -> tuple[OpenedEngine, list[Skipped]]:
    """Return the engine to go on with; close the other, and say why where it would have been the newer."""
    seconds = sample_seconds((best.engine, other.engine), bundle.golden().pictures)
    if seconds[1] <= CLEARLY_FASTER * seconds[0]:
        best.engine.close()
        return other, []
    other.engine.close()
    ours, theirs = (1e3 * each for each in seconds)
    reason = f"not clearly faster here: {theirs:.1f} ms a sample, {best.engine.precision} {ours:.1f} ms"
    return best, [Skipped(f"{other.engine.name} {other.engine.precision}", reason, expected=True)]


def sample_seconds(engines: Sequence[Engine], pictures: NDArray[np.uint8]) -> list[float]:
    """Return each engine's median time a sample, of a batch of these; taken in turn, so that load hits all alike."""
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(TIMED_RUNS):
        for engine, taken in zip(engines, times, strict=True):
            began = time.perf_counter()
            engine.embed(pictures)
            taken.append((time.perf_counter() - began) / len(pictures))
    return [float(np.median(taken)) for taken in times]


def open_checked(door: Door, bundle: Bundle, precision: Precision, *, threads: int) -> OpenedEngine:
    """Open one engine in one precision, and hold it to the golden outputs.

    Raises:
        BundleInvalid: the golden arrays cannot be read.
        EngineUnavailable: it cannot be opened, or gives other outputs.
    """
    engine = door.open(bundle, precision=precision, threads=threads)
    try:
        parity = check_golden(engine, bundle)
        if parity.complaints:
            reason = f"does not reproduce golden.npz in {precision.value}: {', '.join(parity.complaints)}"
            raise _GoldenMissed(door.name, reason)
    except (EngineUnavailable, BundleInvalid):
        engine.close()
        raise
    return OpenedEngine(engine, parity, ())


def _check_shapes(engine: Engine, golden: Golden, embeddings: NDArray[np.float32], answers: Classified) -> None:
    pairs = (
        ("embeddings", embeddings, golden.embeddings),
        ("probabilities", answers.probabilities, golden.probabilities),
        ("attention", answers.attention, golden.attention),
    )
    for name, found, wanted in pairs:
        if found.shape != wanted.shape:
            raise EngineUnavailable(engine.name, f"{name} come in shape {found.shape}, expected {wanted.shape}")


def _none_serves(
    bundle: Bundle, preference: Preference, failures: list[EngineUnavailable]
) -> BundleInvalid | EngineUnavailable:
    """Say why nothing serves: the bundle is to blame when whatever ran it gave other outputs."""
    reasons = "; ".join(f"{exc.engine}: {exc.reason}" for exc in failures)
    if any(isinstance(exc, _GoldenMissed) for exc in failures):
        return BundleInvalid(bundle.path, f"no engine reproduces the golden outputs: {reasons}")
    if len(failures) == 1:
        return failures[0]
    return EngineUnavailable(preference, f"none can run {bundle.path}: {reasons}")


def half_of_the_cores() -> int:
    """Return how many threads an engine takes unless told otherwise, so that capture keeps the other cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)
