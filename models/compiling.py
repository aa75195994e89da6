"""A bundle in, an engine compiled for this machine and proved against the golden outputs out, kept for later starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

from models.half import to_half
from models.judging import read_labelled
from models.parity import ParityReport, compare
from models.progress import progress_bar
from models.quantization import EXACT_SHARES, Calibration, quantize, read_calibration
from monitor.bundle import Bundle
from monitor.errors import EngineUnavailable, InputInvalid
from monitor.scoring.cache import EngineCache, write_whole
from monitor.scoring.door import COMPILED, Door, Precision
from monitor.scoring.engine import OpenedEngine, doors_to, open_checked
from monitor.scoring.tensorrt import TensorRtDoor

REPORT_WIDTH = 110


def compile_bundle(
    bundle: Bundle, *, door: Door, cache: EngineCache, precision: Precision, calibrate: Path | None, threads: int
) -> OpenedEngine:
    """Make what a precision needs, open it and hold it to the golden outputs; the engine is the caller's to close.

    Raises:
        BundleInvalid: the golden arrays cannot be read.
        EngineUnavailable: the engine is not to be had here, or no graph in this precision meets the golden outputs.
        InputInvalid: INT8 without clips to calibrate by, or a library of the extra `compile` is missing.
    """
    open_checked(door, bundle, Precision.FP32, threads=threads).engine.close()  # the bundle itself has to be sound
    cache.folder(bundle).mkdir(parents=True, exist_ok=True)
    if precision not in COMPILED:
        return open_checked(door, bundle, precision, threads=threads)
    missed: EngineUnavailable | None = None
    for graph, remarks in _graphs(bundle, door.name, precision, calibrate):
        cache.put_graph(bundle, door.name, precision, graph.SerializeToString(), remarks)
        try:
            return open_checked(door, bundle, precision, threads=threads)
        except EngineUnavailable as exc:
            cache.remove_graph(bundle, door.name, precision)
            missed = exc
    assert missed is not None  # noqa: S101  there is at least one graph
    raise missed


def _graphs(
    bundle: Bundle, engine: str, precision: Precision, calibrate: Path | None
) -> Iterator[tuple[onnx.ModelProto, dict[str, Any]]]:
    """Make the backbone's graph in a precision; where the golden outputs are missed, one that is more exact."""
    if precision is Precision.FP16:
        yield to_half(bundle), {"made_by": _versions("onnx", "onnxruntime")}
        return
    if calibrate is None:
        raise InputInvalid("--precision int8", "needs clips to measure by: --calibrate FOLDER")
    calibration: Calibration = read_calibration(calibrate, bundle.manifest)
    for share in EXACT_SHARES:
        graph = quantize(bundle, calibration, exact_share=share, signed=engine == "tensorrt")
        yield (
            graph,
            {
                "made_by": _versions("nncf", "onnx"),
                "exact_share": share,
                "calibration": {"clips": calibration.clips, "samples": len(calibration.samples)},
            },
        )


def report(
    data: Path, *, bundle: Bundle, engine: str, cache: EngineCache, threads: int, console: Console, prefix: str = ""
) -> ParityReport:
    """Compare all precisions that an engine has here on labelled clips, and keep the report beside the engine.

    Raises:
        BundleInvalid: the golden arrays cannot be read.
        EngineUnavailable: the engine does not run here.
        InputInvalid: the clips cannot be used.
    """
    door = find_door(engine, cache, console=console)
    folder = cache.folder(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = read_labelled(data, bundle, console=console, cache=folder / "samples", prefix=prefix)
    opened: list[OpenedEngine] = []
    unavailable = []
    with ExitStack() as engines:
        for precision in (Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8):
            try:
                if precision not in door.precisions(bundle):
                    raise EngineUnavailable(engine, _absent(engine, precision))
                opened.append(open_checked(door, bundle, precision, threads=threads))
            except EngineUnavailable as exc:
                if precision is Precision.FP32:
                    raise
                unavailable.append(f"{precision.value}: {exc.reason}")
            else:
                engines.enter_context(closing(opened[-1].engine))
        with progress_bar(console) as progress:
            task = progress.add_task("Judging clips", total=len(dataset.clips))
            found = compare(
                dataset,
                bundle,
                opened,
                threads=threads,
                unavailable=unavailable,
                on_clip=lambda: progress.advance(task),
            )
    keep_report(found, folder)
    return found


def keep_report(found: ParityReport, folder: Path) -> None:
    """Write the report as JSON and as a table."""
    write_whole(folder / f"{found.engine}-report.json", (json.dumps(found.as_json(), indent=2) + "\n").encode())
    text = StringIO()
    Console(file=text, width=REPORT_WIDTH).print(found.table())
    write_whole(folder / f"{found.engine}-report.txt", text.getvalue().encode())


def find_door(engine: str, cache: EngineCache, *, max_batch: int | None = None, console: Console) -> Door:
    """Return the way to the library of this name.

    Raises:
        InputInvalid: `max_batch` is given for a library that runs one sample at a time.
    """
    if engine == "tensorrt":
        return TensorRtDoor(cache, max_batch=max_batch, on_progress=_BuildProgress(console))
    if max_batch is not None:
        raise InputInvalid("--max-batch", f"is for tensorrt; {engine} runs one sample at a time on each core")
    return next(door for door in doors_to(cache) if door.name == engine)


class _BuildProgress:
    """Shows how far TensorRT is: one line a phase, on a terminal alone."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, phase: str, done: int, steps: int) -> None:
        if self._console.is_terminal:
            end = "\n" if done == steps else "\r"
            self._console.print(f"{phase}: {done} of {steps}", end=end, highlight=False, markup=False)


def _absent(engine: str, precision: Precision) -> str:
    could_be = precision is Precision.INT8 or (engine == "tensorrt" and precision in COMPILED)
    return "not compiled" if could_be else "not on this machine"


def _versions(*packages: str) -> dict[str, str]:
    return {package: version(package) for package in packages}
