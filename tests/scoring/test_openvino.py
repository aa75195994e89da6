"""OpenVINO's two ways to run the backbone: samples side by side, and a lone one on all threads."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from monitor.bundle import Bundle, find_bundle, load_bundle
from monitor.errors import EngineUnavailable
from monitor.scoring.door import Precision
from monitor.scoring.engine import check_golden, open_checked
from monitor.scoring.openvino import OpenVinoDoor, OpenVinoEngine, load_library
from tests.scoring.conftest import make_sample


class Straying(OpenVinoEngine):
    """Its way for a lone sample gives other bits, as a library may."""

    by = np.float32(1 + 1e-6)

    def _embed_alone(self, pictures, embeddings) -> None:
        super()._embed_alone(pictures, embeddings)
        embeddings *= self.by


class StrayingUnnoticed(Straying):
    """It strays far, and on other pictures than those it was tried with."""

    by = np.float32(1.01)

    def _alike(self, _size) -> bool:
        return True


def opened(
    engine: type[OpenVinoEngine], bundle: Bundle, threads: int, precision: Precision = Precision.FP32
) -> OpenVinoEngine:
    path = bundle.backbone_path
    return engine(load_library(), bundle, backbone_path=path, precision=precision, threads=threads, kept=None)


@pytest.mark.parametrize("threads", [2, 4])
def test_a_lone_sample_takes_all_threads_and_keeps_its_bits(threads: int) -> None:
    """With a bundle that ships; batches of every size up to two rounds, so that samples go either way."""
    bundle = load_bundle(find_bundle("fight", Path.cwd()))
    shape = bundle.manifest.sample
    size = (2 * threads, shape.pictures, shape.height_pixels, shape.width_pixels, 3)
    pictures = np.random.default_rng(2).integers(0, 256, size, dtype=np.uint8)
    with (
        closing(opened(OpenVinoEngine, bundle, 1)) as exact,
        closing(opened(OpenVinoEngine, bundle, threads)) as engine,
    ):
        assert (exact.compiled_for_one, engine.compiled_for_one) == (False, True)
        expected = exact.embed(pictures)
        for count in range(1, len(pictures) + 1):
            assert np.array_equal(engine.embed(pictures[-count:]), expected[-count:])


class Noting(OpenVinoEngine):
    """Notes how many samples went which way."""

    def __init__(self, *args, **options) -> None:
        self.ways: list[tuple[str, int]] = []
        super().__init__(*args, **options)
        self.ways.clear()

    def _embed_side_by_side(self, pictures, embeddings) -> None:
        self.ways += [("side by side", len(pictures))] if len(pictures) else []
        super()._embed_side_by_side(pictures, embeddings)

    def _embed_alone(self, pictures, embeddings) -> None:
        self.ways += [("alone", len(pictures))] if len(pictures) else []
        super()._embed_alone(pictures, embeddings)


@pytest.mark.parametrize(
    ("threads", "count", "ways"),
    [
        (1, 1, [("side by side", 1)]),
        (2, 1, [("alone", 1)]),
        (2, 2, [("side by side", 2)]),
        (2, 3, [("side by side", 2), ("alone", 1)]),
        (4, 2, [("alone", 2)]),
        (4, 3, [("side by side", 3)]),
        (4, 6, [("side by side", 4), ("alone", 2)]),
        (4, 8, [("side by side", 8)]),
    ],
)
def test_the_batch_decides_between_throughput_and_latency(tiny_bundle: Bundle, threads, count, ways) -> None:
    pictures = np.stack([make_sample(slot).pictures for slot in range(count)])
    with closing(opened(Noting, tiny_bundle, threads)) as engine:
        hints = [
            request.get_compiled_model().get_property("PERFORMANCE_HINT")
            for request in (engine._side_by_side[0], *([engine._alone] if threads > 1 else []))
        ]
        assert hints == ["THROUGHPUT", "LATENCY"][: len(hints)]
        engine.embed(pictures)
        assert engine.ways == ways


def test_half_precision_is_refused_where_the_processor_has_none(tiny_bundle: Bundle) -> None:
    """Where it has, it serves; and OpenVINO knows the hint anywhere."""
    door = OpenVinoDoor()
    if Precision.FP16 in door.precisions(tiny_bundle):
        open_checked(door, tiny_bundle, Precision.FP16, threads=1).engine.close()
    else:
        with pytest.raises(EngineUnavailable, match="does not run fp16 on this processor"):
            door.open(tiny_bundle, precision=Precision.FP16, threads=1)
    with closing(opened(OpenVinoEngine, tiny_bundle, 1, Precision.FP16)) as engine:
        assert check_golden(engine, tiny_bundle).complaints == ()


def test_a_way_that_gives_other_bits_is_not_taken(tiny_bundle: Bundle) -> None:
    pictures = make_sample(0).pictures[None]
    with closing(opened(Straying, tiny_bundle, 2)) as engine, closing(opened(OpenVinoEngine, tiny_bundle, 1)) as exact:
        assert not engine.compiled_for_one
        assert np.array_equal(engine.embed(pictures), exact.embed(pictures))


def test_golden_outputs_judge_the_way_for_one(tiny_bundle: Bundle) -> None:
    assert len(tiny_bundle.golden().pictures) % 2 == 0  # all of them together go side by side
    with closing(opened(StrayingUnnoticed, tiny_bundle, 2)) as engine:
        assert engine.compiled_for_one
        assert [line.split()[0] for line in check_golden(engine, tiny_bundle).complaints] == ["embedding_error"]
