"""A device that is none: what TensorRT's and CUDA's bindings are asked for is done by ONNX Runtime in main memory.

It claims nothing of NVIDIA's libraries. What it holds our side to: a device is as late as it may be, so nothing that is
queued happens before its stream is waited for; whoever changes a buffer too early, reads one too early, mixes the two
batches up or leaves something behind is found out.
"""

# ruff: noqa: N802, N815 (names are those of CUDA)
from __future__ import annotations

import ctypes
import itertools
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

Work = Callable[[], None]
OK = SimpleNamespace(value=0, name="cudaSuccess")
NO_MEMORY = SimpleNamespace(value=2, name="cudaErrorMemoryAllocation")


class CudaStandIn:
    """Stands in for `cuda.bindings.runtime`."""

    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.streams: dict[int, list[Work]] = {}
        self.captures: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.launches = 0
        self.room_bytes = 1 << 40
        """That can still be had."""
        self._numbers = itertools.count(1)

    @property
    def left(self) -> int:
        """What nobody has given back."""
        return len(self.memory) + len(self.streams) + len(self.graphs)

    def queue(self, stream: int, work: Work) -> None:
        (self.captures if stream in self.captures else self.streams)[stream].append(work)

    def cudaGetDeviceCount(self):
        return OK, 1

    def cudaGetDeviceProperties(self, _device):
        return OK, SimpleNamespace(name=b"Stand-in\0", major=9, minor=0)

    def cudaMalloc(self, size):
        if size > self.room_bytes:
            return (NO_MEMORY,)
        self.room_bytes -= size
        room = (ctypes.c_ubyte * size)()
        self.memory[ctypes.addressof(room)] = room
        return OK, ctypes.addressof(room)

    def cudaHostAlloc(self, size, _flags):
        return self.cudaMalloc(size)

    def cudaFree(self, address):
        del self.memory[address]
        return (OK,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, to, source, size, _kind, stream):
        self.queue(stream, lambda: ctypes.memmove(to, source, size) and None)
        return (OK,)

    def cudaStreamCreateWithFlags(self, _flags):
        stream = next(self._numbers)
        self.streams[stream] = []
        return OK, stream

    def cudaStreamSynchronize(self, stream):
        queued, self.streams[stream] = self.streams[stream], []
        for work in queued:
            work()
        return (OK,)

    def cudaStreamDestroy(self, stream):
        assert self.streams.pop(stream) == [], "the device was still at work"
        return (OK,)

    def cudaStreamBeginCapture(self, stream, _mode):
        self.captures[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream):
        graph = next(self._numbers)
        self.graphs[graph] = self.captures.pop(stream)
        return OK, graph

    def cudaGraphInstantiate(self, graph, _flags):
        executable = next(self._numbers)
        self.graphs[executable] = self.graphs[graph]
        return OK, executable

    def cudaGraphLaunch(self, executable, stream):
        self.launches += 1
        self.streams[stream] += self.graphs[executable]
        return (OK,)

    def cudaGraphDestroy(self, graph):
        del self.graphs[graph]
        return (OK,)

    cudaGraphExecDestroy = cudaGraphDestroy


class _Context:
    def __init__(self, device: CudaStandIn, session: ort.InferenceSession, profiles: list[dict[str, Any]]) -> None:
        self._device, self._session, self._profiles = device, session, profiles
        self._profile: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, _stream: int) -> bool:
        self._profile = self._profiles[index]
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self._profile[name]
        if not all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        size = next(iter(self._shapes.values()))[0]
        return (size, *self._run_on({n: np.zeros(s, self._type(n)) for n, s in self._shapes.items()})[name].shape[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        self._device.queue(stream, lambda: self._execute(shapes, addresses))
        return True

    def _execute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        found = self._run_on({n: _array_at(addresses[n], shape, self._type(n)) for n, shape in shapes.items()})
        for name, answer in found.items():
            ctypes.memmove(addresses[name], np.ascontiguousarray(answer).ctypes.data, answer.nbytes)

    def _run_on(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Entry by entry, as ONNX Runtime's door does: the answers are then those of that engine, to the bit."""
        count = len(next(iter(inputs.values())))
        names = [output.name for output in self._session.get_outputs()]
        each = [self._session.run(names, {n: a[i : i + 1] for n, a in inputs.items()}) for i in range(count)]
        return {name: np.concatenate(column) for name, column in zip(names, zip(*each, strict=True), strict=True)}

    def _type(self, name: str) -> type:
        [kind] = [found.type for found in self._session.get_inputs() if found.name == name]
        return {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(bool)": np.bool_}[kind]


class _Engine:
    def __init__(self, device: CudaStandIn, plan: bytes) -> None:
        graph, self._profiles = pickle.loads(plan)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._device, self._session = device, ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._names = [tensor.name for tensor in (*self._session.get_inputs(), *self._session.get_outputs())]
        self.num_io_tensors = len(self._names)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def create_execution_context(self) -> _Context:
        return _Context(self._device, self._session, self._profiles)


class _Network:
    graph = b""


class _Parser:
    num_errors = 0

    def __init__(self, network: _Network, _log: Any) -> None:
        self._network = network

    def parse(self, model: bytes) -> bool:
        self._network.graph = model
        return True


class _Profile(dict):
    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self[name] = shapes


class _Config:
    progress_monitor: Any = None

    def __init__(self) -> None:
        self.profiles: list[_Profile] = []

    def clear_flag(self, _flag: str) -> None: ...

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, _kept: bytes) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: b"timings")

    def set_timing_cache(self, _cache: Any, _ignore_mismatch: bool) -> bool:
        return True


class _Builder:
    def __init__(self, _log: Any) -> None: ...

    def create_network(self, _flags: int) -> _Network:
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes:
        config.progress_monitor.phase_start("Building", None, 1)
        config.progress_monitor.step_complete("Building", 0)
        config.progress_monitor.phase_finish("Building")
        return pickle.dumps((network.graph, [dict(profile) for profile in config.profiles]))


def tensorrt_on(device: CudaStandIn) -> SimpleNamespace:
    """Return what stands in for the module `tensorrt`."""
    return SimpleNamespace(
        __version__="10.13.0.35",
        Builder=_Builder,
        BuilderFlag=SimpleNamespace(TF32="TF32"),
        Dims=tuple,
        ICudaEngine=_Engine,
        IExecutionContext=_Context,
        ILogger=type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)}),
        INetworkDefinition=_Network,
        IProgressMonitor=type("IProgressMonitor", (), {}),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        OnnxParser=_Parser,
        Runtime=lambda _log: SimpleNamespace(deserialize_cuda_engine=lambda plan: _Engine(device, plan)),
    )


def _array_at(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address)).view(dtype).reshape(shape).copy()
