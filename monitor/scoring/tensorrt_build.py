"""An ONNX graph in, a serialized TensorRT engine ("plan") for the GPU of this machine out.

Written against the Python API that TensorRT 10.0 to 11.4 have in common. Networks are strongly typed on all of them:
what runs in FP16 or INT8 stands in the graph (`models/half.py`, `models/quantization.py`). The flags by which TensorRT
chose the types itself, calibrators and EXPLICIT_BATCH are gone from 11, so nothing here uses them.

Imported by `monitor/scoring/tensorrt.py` alone, once it has found the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import tensorrt as trt

from monitor.errors import EngineUnavailable
from monitor.scoring.cache import write_whole
from monitor.scoring.tensorrt_plan import ENGINE, Profile

Progress = Callable[[str, int, int], None]
"""Told the name of a phase, the steps done and the steps it has."""


def build_plan(
    graph: Path,
    inputs: Mapping[str, tuple[int, ...]],
    profiles: Sequence[Profile],
    *,
    timing_cache: Path | None,
    on_progress: Progress,
) -> bytes:
    """Build an engine; takes seconds to minutes, since TensorRT tries kernels on the device.

    Args:
        graph: an ONNX file.
        inputs: name of each input, and its shape without the batch axis.
        profiles: of batch sizes.
        timing_cache: what earlier builds have measured; read and written. None: nothing is kept.
        on_progress: told how far it is; from any thread.

    Raises:
        EngineUnavailable: TensorRT cannot build it, with its own reason.
    """
    log = Log()
    try:
        builder = trt.Builder(log)
    except (RuntimeError, TypeError) as exc:
        raise EngineUnavailable(ENGINE, f"cannot start its builder: {log.reason or exc}") from exc
    network = _parse(graph, builder, log)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; ten bits of mantissa are not FP32
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        for name, tail in inputs.items():
            sizes = (profile.smallest, profile.usual, profile.largest)
            shapes.set_shape(name, *(trt.Dims([size, *tail]) for size in sizes))
        config.add_optimization_profile(shapes)
    timings = config.create_timing_cache(_read(timing_cache))
    if not config.set_timing_cache(timings, False):  # False: not that of another device
        timings = config.create_timing_cache(b"")
        config.set_timing_cache(timings, False)
    progress = _ProgressMonitor(on_progress)
    config.progress_monitor = progress
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineUnavailable(ENGINE, f"cannot build {graph.name}: {log.reason or 'no reason was given'}")
    if timing_cache is not None:
        with suppress(OSError):  # the next build measures anew; whoever keeps the plan says that nothing can be kept
            write_whole(timing_cache, bytes(memoryview(timings.serialize())))
    return bytes(memoryview(plan))


def _parse(graph: Path, builder: trt.Builder, log: Log) -> trt.INetworkDefinition:
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # ignored from 11 on: always so
    network = builder.create_network(strongly_typed)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph.read_bytes()):
        reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise EngineUnavailable(ENGINE, f"cannot read {graph.name}: {' '.join(reasons.split())}")
    return network


def _read(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path is not None else b""
    except OSError:  # not there, or of no use
        return b""


class Log(trt.ILogger):
    """Keeps the last error that TensorRT reports; its functions return None and say why only here."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.reason = ""

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Take a message; from any thread."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            line = " ".join(msg.split())
            memory = "out of memory" in line.lower() or "OutOfMemory" in line
            self.reason = f"the GPU is out of memory: {line}" if memory else line


class _ProgressMonitor(trt.IProgressMonitor):
    """Tells how far the outermost phase is; TensorRT calls it from several threads."""

    def __init__(self, on_progress: Progress) -> None:
        trt.IProgressMonitor.__init__(self)
        self._on_progress = on_progress
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        if parent_phase is None:
            self._steps[phase_name] = num_steps
            self._on_progress(phase_name, 0, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        if phase_name in self._steps:
            self._on_progress(phase_name, step + 1, self._steps[phase_name])
        return True  # go on

    def phase_finish(self, phase_name: str) -> None:
        steps = self._steps.pop(phase_name, None)
        if steps is not None:
            self._on_progress(phase_name, steps, steps)
