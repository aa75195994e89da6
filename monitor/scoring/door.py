"""A bundle and a number of threads in, an engine out: what each library's own file must offer.

A door is the only place that names its library. It loads the library when it is first asked, not when
it is imported, and turns the library's errors into `EngineUnavailable`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from monitor.bundle import Bundle


class Precision(StrEnum):
    """The numbers that the backbone reckons in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


Pictures = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
"""Of N samples, (K, H, W, 3) uint8 RGB each, the newest picture last: one array of all, or each sample's own."""

COMPILED = (Precision.FP16, Precision.INT8)
"""Need a graph of their own, which `monitor compile` makes; the others are a way of running the bundle's.

OpenVINO alone runs the bundle's own in FP16, where the processor has that."""


@dataclass(frozen=True, slots=True)
class Classified:
    """The head's answers for N windows."""

    probabilities: NDArray[np.float32]
    """(N, L) float32, one per label of the bundle; each row sums to 1."""
    attention: NDArray[np.float32]
    """(N, R, T) float32; each hop's weights over the slots sum to 1, gaps have 0."""


class Engine(Protocol):
    """A bundle made ready to run on this machine.

    `embed` is used by one thread at a time and `classify` by one; these are two, and may be at it at once.
    """

    name: str
    """Of the library: `tensorrt`, `openvino`, `onnxruntime`."""
    precision: str
    """What the backbone reckons in, one of `Precision`."""

    def embed(self, pictures: Pictures) -> NDArray[np.float32]:
        """Run the backbone on N samples: to (N, D) float32.

        Raises:
            EngineUnavailable: the library failed.
        """

    def classify(self, embeddings: NDArray[np.float32], mask: NDArray[np.bool_]) -> Classified:
        """Run the head on (N, T, D) float32 embeddings and their (N, T) bool mask.

        Raises:
            EngineUnavailable: the library failed.
        """

    def close(self) -> None:
        """Give back the memory; the engine is not used after this."""


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine whose device computes by itself: meanwhile the processor copies the next batch to it."""

    def begin(self, pictures: Pictures) -> Callable[[], NDArray[np.float32]]:
        """Copy N samples to the device and have it begin; belongs to the thread that `embed` belongs to.

        Returns what waits for the (N, D) float32 embeddings; it may be called after the next `begin`, and raises what
        `embed` raises.

        Raises:
            EngineUnavailable: the library failed.
        """


class Door(Protocol):
    """The way to one library."""

    name: str

    def precisions(self, bundle: Bundle) -> tuple[Precision, ...]:
        """Return what this machine can run the bundle in, FP32 last; which is the fastest is measured.

        Raises:
            EngineUnavailable: the library is missing or finds no device.
        """

    def open(self, bundle: Bundle, *, precision: Precision, threads: int) -> Engine:
        """Load the bundle's two graphs; the backbone's as compiled, where the precision needs it.

        Raises:
            EngineUnavailable: the library is missing, cannot load the graphs, or there is none in this precision.
        """


def not_compiled(precision: Precision) -> str:
    """Say why a precision cannot be had, and what to do."""
    return f"{precision.value} was not compiled for this model: `monitor compile` does it"
