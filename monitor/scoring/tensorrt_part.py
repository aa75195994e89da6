"""A plan in, one part of the model on the device out: arrays in, arrays out.

A part has lanes: pinned buffers, a stream and an execution context for each profile. What one lane copies runs beside
what another computes. A lone sample and a full batch, the two steady states, are recorded as CUDA graphs: their copies
and kernels are then launched as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import cycle
from typing import Any

import numpy as np
import tensorrt as trt
from numpy.typing import DTypeLike, NDArray

from monitor.errors import EngineUnavailable
from monitor.scoring.cuda import Buffer, Graph, Stream
from monitor.scoring.tensorrt_build import Log
from monitor.scoring.tensorrt_plan import ENGINE, profile_index, profiles_for

Arrays = Mapping[str, NDArray[Any] | Sequence[NDArray[Any]]]
"""By name; a batch is one array, or a sequence of its entries, which lie where they came."""
Inputs = Mapping[str, tuple[tuple[int, ...], DTypeLike]]
Answers = dict[str, NDArray[Any]]


class Part:
    """One graph on the device; used by one thread at a time, beside other parts' threads.

    Args:
        plan: the serialized engine.
        max_batch: that it was built for.
        inputs: name of each input, its shape without the batch axis and its type.
        outputs: name and type of each output.
        lanes: batches that may be on the device at once; each has memory of its own there.
    """

    def __init__(
        self, plan: bytes, max_batch: int, inputs: Inputs, outputs: Mapping[str, DTypeLike], *, lanes: int = 1
    ) -> None:
        self._log = Log()
        self._inputs, self._outputs = inputs, outputs
        self._max_batch = max_batch
        self._engine = self._load(plan)
        with ExitStack() as opened:
            self._lanes = cycle([opened.enter_context(closing(self._lane())) for _ in range(lanes)])
            self._opened = opened.pop_all()

    def run(self, inputs: Arrays) -> Answers:
        """Run a batch of any size; raises what `begin` raises."""
        return self.begin(inputs)()

    def begin(self, inputs: Arrays) -> Callable[[], Answers]:
        """Have the device begin on a batch of any size, in pieces of at most the largest, each in the next lane.

        Returns what waits for the answers; it may be called after batches that began later.

        Raises:
            EngineUnavailable: an input has another shape or type, or the device failed.
        """
        count = len(next(iter(inputs.values())))
        self._check_inputs(inputs, count)
        pieces = [
            next(self._lanes).begin({name: inputs[name][start : start + self._max_batch] for name in self._inputs})
            for start in range(0, count, self._max_batch)
        ]
        return lambda: _joined([piece.answers() for piece in pieces])

    def close(self) -> None:
        """Give back the lanes' contexts, buffers and streams."""
        self._opened.close()

    def _lane(self) -> Lane:
        return Lane(self._engine, self._log, self._max_batch, self._inputs, self._outputs)

    def _load(self, plan: bytes) -> trt.ICudaEngine:
        try:
            self._runtime = trt.Runtime(self._log)  # lives as long as what it has loaded
        except (RuntimeError, TypeError) as exc:
            raise EngineUnavailable(ENGINE, f"cannot start: {self._log.reason or exc}") from exc
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineUnavailable(ENGINE, f"cannot load a plan: {self._log.reason or 'no reason was given'}")
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        wanted = {*self._inputs, *self._outputs}
        if found != wanted:
            raise EngineUnavailable(ENGINE, f"the graph has {sorted(found)}, expected {sorted(wanted)}")
        return engine

    def _check_inputs(self, inputs: Arrays, count: int) -> None:
        for name, (tail, dtype) in self._inputs.items():
            given = inputs[name]
            if len(given) != count:
                raise EngineUnavailable(ENGINE, f"{len(given)} of {name} for a batch of {count}")
            for entry in given:
                if entry.shape != tail or entry.dtype != dtype:
                    found, wanted = f"{entry.dtype} of {entry.shape}", f"{np.dtype(dtype)} of {tail}"
                    raise EngineUnavailable(ENGINE, f"{name} is {found}, expected {wanted}")


class Piece:
    """A batch in a lane."""

    def __init__(self, collect: Callable[[], Answers]) -> None:
        self._collect = collect
        self._answers: Answers | None = None

    def answers(self) -> Answers:
        """Wait for the device, once, and return arrays of the caller's own."""
        if self._answers is None:
            self._answers = self._collect()
        return self._answers


class Lane:
    """Room for one batch on the device: buffers, a stream, a context for each profile.

    Args:
        engine: of the part; outlives the lane.
        log: where the engine says what went wrong.
        max_batch: that the engine was built for.
        inputs: name of each input, its shape without the batch axis and its type.
        outputs: name and type of each output.
    """

    def __init__(
        self, engine: trt.ICudaEngine, log: Log, max_batch: int, inputs: Inputs, outputs: Mapping[str, DTypeLike]
    ) -> None:
        self._engine, self._log = engine, log
        self._inputs, self._outputs = inputs, tuple(outputs)
        self._profiles = profiles_for(max_batch)
        with ExitStack() as opened:
            self._stream = opened.enter_context(closing(Stream()))
            self._contexts = [self._context(index) for index in range(len(self._profiles))]
            rooms = {name: ((max_batch, *tail), dtype) for name, (tail, dtype) in inputs.items()}
            rooms |= {name: (self._output_shape(name), dtype) for name, dtype in outputs.items()}
            self._buffers = {
                name: opened.enter_context(closing(Buffer(shape, dtype))) for name, (shape, dtype) in rooms.items()
            }
            for context in self._contexts:
                for name, buffer in self._buffers.items():
                    context.set_tensor_address(name, buffer.device)
            self._opened = opened.pop_all()
        self._graphs: dict[int, Graph] = {}
        self._runs: Counter[int] = Counter()
        self._piece: Piece | None = None

    def begin(self, inputs: Arrays) -> Piece:
        """Copy a batch of at most the largest size and queue its work; one that is still here is waited for first."""
        if self._piece is not None:
            self._piece.answers()
        size = len(inputs[next(iter(self._inputs))])
        for name in self._inputs:
            for place, entry in zip(self._buffers[name].array, inputs[name], strict=False):
                place[...] = entry
        self._launch(size)
        self._piece = Piece(lambda: self._collect(size))
        return self._piece

    def close(self) -> None:
        """Give back graphs, contexts, buffers and stream."""
        with suppress(EngineUnavailable):  # a device that failed has told so before
            self._stream.wait()  # the device may still be at the buffers
        for graph in self._graphs.values():
            graph.close()
        self._contexts.clear()  # before what they point to
        self._opened.close()

    def _collect(self, size: int) -> Answers:
        self._stream.wait()
        return {name: self._buffers[name].array[:size].copy() for name in self._outputs}

    def _launch(self, size: int) -> None:
        """Queue one batch; where its profile has one size, as a graph from the third run on."""
        profile = profile_index(size, self._profiles)
        graph = self._graphs.get(profile)
        if graph is not None:
            graph.launch()
            return
        self._queue(profile, size)
        self._runs[profile] += 1
        if self._profiles[profile].fixed and self._runs[profile] == 2:  # TensorRT wants a run before a recorded one
            self._record(profile, size)

    def _record(self, profile: int, size: int) -> None:
        self._stream.wait()
        # Some layers cannot be recorded: they are queued one by one, as before.
        with suppress(EngineUnavailable):
            self._graphs[profile] = self._stream.record(lambda: self._queue(profile, size))

    def _queue(self, profile: int, size: int) -> None:
        """Queue the copies and the kernels of one batch."""
        context = self._contexts[profile]
        for name in self._inputs:
            self._stream.copy_in(self._buffers[name], size * self._buffers[name].row_bytes)
        if not self._profiles[profile].fixed:
            self._set_shapes(context, size)
        if not context.execute_async_v3(self._stream.handle):
            raise EngineUnavailable(ENGINE, f"a run failed: {self._log.reason or 'no reason was given'}")
        for name in self._outputs:
            self._stream.copy_out(self._buffers[name], size * self._buffers[name].row_bytes)

    def _context(self, profile: int) -> trt.IExecutionContext:
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineUnavailable(ENGINE, f"no execution context: {self._log.reason or 'no reason was given'}")
        if not context.set_optimization_profile_async(profile, self._stream.handle):
            raise EngineUnavailable(ENGINE, f"profile {profile} is not to be had: {self._log.reason}")
        self._stream.wait()
        self._set_shapes(context, self._profiles[profile].largest)
        return context

    def _set_shapes(self, context: trt.IExecutionContext, size: int) -> None:
        for name in self._inputs:
            shape = (size, *self._inputs[name][0])
            if not context.set_input_shape(name, shape):
                raise EngineUnavailable(ENGINE, f"{name} cannot be {shape}: {self._log.reason}")

    def _output_shape(self, name: str) -> tuple[int, ...]:
        """Return an output's shape in the largest batch, which the last profile has."""
        return self._contexts[-1].get_tensor_shape(name)[:]


def _joined(pieces: Sequence[Answers]) -> Answers:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
