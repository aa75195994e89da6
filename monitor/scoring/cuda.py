"""Device memory, pinned host memory, streams and graphs of the first NVIDIA GPU. The only file that names `cuda`.

Uses the CUDA runtime through `cuda-bindings`, so that no torch is needed. Its functions return the error first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from monitor.errors import EngineUnavailable

ENGINE = "tensorrt"
"""Whose errors these are: nothing else uses the GPU."""
OUT_OF_MEMORY = "out of memory"
DRIVER = Path("/proc/driver/nvidia")
"""Is there where NVIDIA's driver is loaded."""
WITHOUT_GPU = ("cudaErrorNoDevice", "cudaErrorInsufficientDriver", "cudaErrorStubLibrary")


@dataclass(frozen=True, slots=True)
class Gpu:
    """What an engine is built for: it runs on no other."""

    name: str
    compute_capability: str
    """As NVIDIA writes it: `9.0`."""


def find_gpu() -> Gpu:
    """Return the first GPU.

    Raises:
        EngineUnavailable: there is none, or no driver, or `cuda-bindings` is not installed; `expected` where nothing
            says that this machine has a GPU.
    """
    try:
        runtime = load_runtime()
        if _device_count(runtime) < 1:
            raise EngineUnavailable(ENGINE, "no NVIDIA GPU is visible to this process")
    except EngineUnavailable as exc:
        raise EngineUnavailable(ENGINE, exc.reason, expected=not DRIVER.exists()) from exc
    found = _checked(runtime.cudaGetDeviceProperties(0))
    return Gpu(found.name.decode().rstrip("\0"), f"{found.major}.{found.minor}")


def _device_count(runtime: Any) -> int:
    try:
        answer = runtime.cudaGetDeviceCount()
    except RuntimeError as exc:  # a library is missing: the driver's (cuda-bindings before 12.9), or the runtime's
        raise EngineUnavailable(ENGINE, f"no NVIDIA GPU or driver here ({' '.join(str(exc).split())})") from exc
    count: int = _checked(answer)
    return count


class Stream:
    """A CUDA stream of its own: work in it runs in order, beside that of other streams."""

    def __init__(self) -> None:
        self._runtime = load_runtime()
        self._stream = _checked(self._runtime.cudaStreamCreateWithFlags(self._runtime.cudaStreamNonBlocking))

    @property
    def handle(self) -> int:
        """What other libraries call it."""
        return int(self._stream)

    def copy_in(self, buffer: Buffer, size_bytes: int) -> None:
        """Queue the copy of a buffer's first bytes to the device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(self._runtime.cudaMemcpyAsync(buffer.device, buffer.host, size_bytes, kind, self._stream))

    def copy_out(self, buffer: Buffer, size_bytes: int) -> None:
        """Queue the copy of a buffer's first bytes from the device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(self._runtime.cudaMemcpyAsync(buffer.host, buffer.device, size_bytes, kind, self._stream))

    def wait(self) -> None:
        """Wait until all that was queued is done."""
        _checked(self._runtime.cudaStreamSynchronize(self._stream))

    def record(self, queue_work: Callable[[], None]) -> Graph:
        """Record what a function queues, without running it.

        Raises:
            EngineUnavailable: something in it cannot be recorded.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(self._runtime.cudaStreamBeginCapture(self._stream, mode))
        try:
            queue_work()
        finally:
            recorded = self._runtime.cudaStreamEndCapture(self._stream)  # whatever happened: the stream must be let go
        return Graph(self._runtime, _checked(recorded), self._stream)

    def close(self) -> None:
        """Give the stream back."""
        self._runtime.cudaStreamDestroy(self._stream)


class Graph:
    """Recorded work that is launched as one."""

    def __init__(self, runtime: Any, graph: Any, stream: Any) -> None:
        self._runtime, self._graph, self._stream = runtime, graph, stream
        self._executable = _checked(runtime.cudaGraphInstantiate(graph, 0))

    def launch(self) -> None:
        """Queue the work in the stream that it was recorded from."""
        _checked(self._runtime.cudaGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Give the graph back."""
        self._runtime.cudaGraphExecDestroy(self._executable)
        self._runtime.cudaGraphDestroy(self._graph)


class Buffer:
    """The same room twice: pinned in main memory, which the device copies by itself, and on the device.

    Args:
        shape: of the array.
        dtype: of the array.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._runtime = load_runtime()
        self.row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        """Of one entry of the first axis."""
        size = shape[0] * self.row_bytes
        self.host: int = _checked(self._runtime.cudaHostAlloc(size, self._runtime.cudaHostAllocDefault))
        try:
            self.device: int = int(_checked(self._runtime.cudaMalloc(size)))
        except EngineUnavailable:
            self._runtime.cudaFreeHost(self.host)
            raise
        room = (ctypes.c_ubyte * size).from_address(int(self.host))
        self.array: NDArray[Any] = np.ctypeslib.as_array(room).view(dtype).reshape(shape)
        """The pinned side."""

    def close(self) -> None:
        """Give both sides back; the array must not be used any more."""
        self._runtime.cudaFree(self.device)
        self._runtime.cudaFreeHost(self.host)


def load_runtime() -> Any:
    """Import the CUDA runtime's bindings.

    Raises:
        EngineUnavailable: they are not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as exc:
        raise EngineUnavailable(ENGINE, f"cuda-bindings cannot be imported: {' '.join(str(exc).split())}") from exc
    return runtime


@contextmanager
def memory_told(what: str) -> Iterator[None]:
    """Say what was being done when the device's memory ran out."""
    try:
        yield
    except EngineUnavailable as exc:
        if OUT_OF_MEMORY not in exc.reason:
            raise
        raise EngineUnavailable(ENGINE, f"{exc.reason}, while {what}") from exc


def _checked(answer: tuple[Any, ...]) -> Any:
    """Return what a function of the CUDA runtime gave; raise its error as one line."""
    error, *values = answer
    if error.value != 0:
        raise EngineUnavailable(ENGINE, _reason(error))
    return values[0] if values else None


def _reason(error: Any) -> str:
    if error.name in WITHOUT_GPU:
        return f"no NVIDIA GPU or driver here ({error.name})"
    if error.name == "cudaErrorMemoryAllocation":
        return f"the GPU is {OUT_OF_MEMORY}: fewer samples a batch (`monitor compile --max-batch`), or a GPU of its own"
    return f"the GPU failed: {error.name}"
