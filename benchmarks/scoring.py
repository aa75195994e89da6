"""What a sample and a window cost: each engine and precision, beside the plain PyTorch model that a user would write.

Run: `python -m benchmarks.scoring [--quick] [--cache DIR] --json FILE`. All contenders take turns in one process, so
that other load hits them alike, and the fastest of their turns counts. INT8 takes part where `monitor compile` has put
it into --cache. Reuse is measured with a head for windows of 16 slots, every second one scored.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from monitor.bundle import Bundle, find_bundle, load_bundle
from monitor.errors import EngineUnavailable
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Door, Engine, Precision
from monitor.scoring.engine import doors_to

REUSE_SLOTS, REUSE_STRIDE = 16, 2
MANY = REUSE_SLOTS // REUSE_STRIDE
"""Cameras whose heads are timed together."""
LEAST_TURNS = 9
Run = Callable[[np.ndarray], Any]
"""Takes samples (N, K, H, W, 3) uint8."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that runs the model."""

    engine: str
    precision: str
    embed: Run
    head_seconds: float
    """Of one window."""


def turns(works: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Return each one's fastest time in seconds; they take turns, and the first turn warms up."""
    best = [float("inf")] * len(works)
    for turn in range(rounds + 1):
        for index, work in enumerate(works):
            began = time.perf_counter()
            work()
            if turn:
                best[index] = min(best[index], time.perf_counter() - began)
    return best


def pytorch(bundle: Bundle, threads: int) -> Contender:
    """The model as its training code has it, in eager mode. Its speed does not depend on its weights."""
    import torch

    from models.event_model import EventModel
    from models.recipe import Recipe

    torch.set_num_threads(threads)
    model = EventModel(Recipe.model_validate(bundle.manifest.training["recipe"]), len(bundle.manifest.labels)).eval()
    manifest = bundle.manifest
    window = torch.zeros((1, manifest.window_slots, manifest.embedding_size))
    mask = torch.ones((1, manifest.window_slots), dtype=torch.bool)

    def embed(pictures: np.ndarray) -> Any:
        with torch.inference_mode():
            return model.embed(torch.from_numpy(pictures))

    def classify() -> None:
        with torch.inference_mode():
            model.head(window, mask)

    return Contender("pytorch eager", "fp32", embed, turns([classify], 20)[0])


def engines(bundle: Bundle, cache: EngineCache, threads: int) -> Iterator[tuple[Door, Engine]]:
    for door in doors_to(cache):
        try:
            for precision in door.precisions(bundle):
                yield door, door.open(bundle, precision=precision, threads=threads)
        except EngineUnavailable as exc:
            Console().print(f"left out: {exc}", highlight=False)


def contender(engine: Engine, bundle: Bundle) -> Contender:
    golden = bundle.golden()
    window, mask = golden.window_embeddings[:1], golden.window_mask[:1]
    [seconds] = turns([lambda: engine.classify(window, mask)], 20)
    return Contender(engine.name, engine.precision, engine.embed, seconds)


def measure(
    contenders: Sequence[Contender], bundle: Bundle, *, batches: Sequence[int], threads: int, samples: int
) -> list[dict[str, Any]]:
    manifest = bundle.manifest
    shape = manifest.sample
    random = np.random.default_rng(1)
    results = []
    for batch in batches:
        size = (batch, shape.pictures, shape.height_pixels, shape.width_pixels, 3)
        pictures = random.integers(0, 256, size, dtype=np.uint8)
        best = turns([partial(each.embed, pictures) for each in contenders], max(LEAST_TURNS, samples // batch))
        for each, seconds in zip(contenders, best, strict=True):
            sample = seconds / batch
            results.append(
                {
                    "engine": each.engine,
                    "precision": each.precision,
                    "batch": batch,
                    "threads": threads,
                    "ms_per_sample": 1e3 * sample,
                    "ms_per_window": 1e3 * (manifest.stride_slots * sample + each.head_seconds),
                    "ms_head": 1e3 * each.head_seconds,
                }
            )
    return results


def long_window_bundle(bundle: Bundle, folder: Path) -> Bundle:
    """The same backbone, and a head for windows of 16 slots; random weights, since only time is asked for."""
    import torch

    from models.event_model import EventModel
    from models.export import export_graphs
    from models.recipe import Recipe

    taught = {**bundle.manifest.training["recipe"], "window_slots": REUSE_SLOTS, "stride_slots": REUSE_STRIDE}
    recipe = Recipe.model_validate(taught)
    torch.manual_seed(1)
    export_graphs(EventModel(recipe, len(bundle.manifest.labels)).eval(), 1.0, recipe, folder)
    manifest = bundle.manifest.model_copy(update={"window_slots": REUSE_SLOTS, "stride_slots": REUSE_STRIDE})
    return Bundle(folder, manifest, bundle.sha256)


def reuse(bundle: Bundle, *, rounds: int) -> list[dict[str, Any]]:
    """What a window costs when its samples pass the backbone once, and when each window passes whole."""
    shape, size = bundle.manifest.sample, bundle.manifest.embedding_size
    random = np.random.default_rng(1)
    samples = (REUSE_SLOTS, shape.pictures, shape.height_pixels, shape.width_pixels, 3)
    pictures = random.integers(0, 256, samples, dtype=np.uint8)
    window = random.standard_normal((1, REUSE_SLOTS, size)).astype(np.float32)
    mask = np.ones((1, REUSE_SLOTS), bool)
    found = []
    for door in doors_to(None):
        try:
            engine = door.open(bundle, precision=Precision.FP32, threads=1)
        except EngineUnavailable:
            continue
        with closing(engine):
            (whole,) = turns([partial(engine.embed, pictures)], rounds)
            # Apart from it, as in the pipeline: what the processor's caches still hold is half of a lone head's time.
            stride, head = turns(strides(engine, pictures, window, mask, cameras=1), rounds)
            strides_of_many, heads_of_many = turns(strides(engine, pictures, window, mask, cameras=MANY), rounds)
            found.append(
                {
                    "engine": engine.name,
                    "ms_reused": 1e3 * (stride + head),
                    "ms_whole": 1e3 * (whole + head),
                    "share": (stride + head) / (whole + head),
                    "head_share": head / stride,
                    "head_share_of_many": heads_of_many / strides_of_many,
                }
            )
    return found


def strides(
    engine: Engine, pictures: np.ndarray, window: np.ndarray, mask: np.ndarray, *, cameras: int
) -> list[Callable[[], Any]]:
    """What a stride takes when the samples of so many cameras come together: the backbone's part, and the heads'."""
    windows, masks = np.repeat(window, cameras, axis=0), np.repeat(mask, cameras, axis=0)
    return [partial(engine.embed, pictures[: cameras * REUSE_STRIDE]), partial(engine.classify, windows, masks)]


def claims(results: Sequence[dict[str, Any]], reused: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The figures that the project holds itself to: one thread, one sample at a time."""
    ms = {
        (each["engine"], each["precision"]): each["ms_per_sample"]
        for each in results
        if each["threads"] == 1 and each["batch"] == 1
    }
    openvino = min((figure for (engine, _), figure in ms.items() if engine == "openvino"), default=float("nan"))
    return {
        "openvino_best_over_pytorch_eager": ms[("pytorch eager", "fp32")] / openvino,
        "openvino_best_over_onnxruntime_fp32": ms[("onnxruntime", "fp32")] / openvino,
        "openvino_fp32_over_pytorch_eager": ms[("pytorch eager", "fp32")] / ms[("openvino", "fp32")],
        "reuse_share_of_whole_windows": max(each["share"] for each in reused),
        "head_share_of_backbone_per_stride": max(each["head_share"] for each in reused),
        "head_share_of_many_cameras": max(each["head_share_of_many"] for each in reused),
    }


def show(results: Sequence[dict[str, Any]], reused: Sequence[dict[str, Any]], figures: dict[str, float]) -> None:
    console = Console()
    table = Table("threads", "batch", "engine", "precision", "ms a sample", "ms a window", "ms head", title="Scoring")
    for each in results:
        table.add_row(
            str(each["threads"]),
            str(each["batch"]),
            each["engine"],
            each["precision"],
            *(f"{each[name]:.2f}" for name in ("ms_per_sample", "ms_per_window", "ms_head")),
        )
    console.print(table)
    table = Table("engine", "ms reused", "ms whole", "share", "head", f"{MANY} heads", title="Windows of 16, stride 2")
    for each in reused:
        table.add_row(
            each["engine"],
            f"{each['ms_reused']:.1f}",
            f"{each['ms_whole']:.1f}",
            f"1/{1 / each['share']:.1f}",
            f"{each['head_share']:.2%}",
            f"{each['head_share_of_many']:.2%}",
        )
    console.print(table)
    for name, figure in figures.items():
        console.print(f"{name}: {figure:.3f}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one thread, batches of 1 and 8, fewer rounds")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--model", default="fight", help="a bundle that names its recipe")
    parser.add_argument(
        "--cache", type=Path, default=Path("var/engines"), help="where `monitor compile` keeps its work"
    )
    arguments = parser.parse_args()
    bundle = load_bundle(find_bundle(arguments.model, Path.cwd()))
    cache = EngineCache(arguments.cache)
    samples = 60 if arguments.quick else 200
    results: list[dict[str, Any]] = []
    for threads in (1,) if arguments.quick else (1, 2):
        with ExitStack() as opened:
            contenders = [pytorch(bundle, threads)]
            for _, engine in engines(bundle, cache, threads):
                opened.enter_context(closing(engine))
                contenders.append(contender(engine, bundle))
            batches = (1, 8) if arguments.quick else (1, 8, 32)
            results += measure(contenders, bundle, batches=batches, threads=threads, samples=samples)
    with tempfile.TemporaryDirectory() as folder:
        reused = reuse(long_window_bundle(bundle, Path(folder)), rounds=15 if arguments.quick else 25)
    figures = claims(results, reused)
    show(results, reused, figures)
    if arguments.json:
        written = {"model": arguments.model, "results": results, "reuse": reused, "claims": figures}
        arguments.json.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
