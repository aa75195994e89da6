"""Which of ONNX Runtime's providers run the backbone; NVIDIA's themselves have not been run."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.scoring.onnxruntime import ON_CPU, providers_of

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ([CPU], [CPU]),
        (["AzureExecutionProvider", CPU], [CPU]),
        ([CUDA, CPU], [CUDA, CPU]),
        ([TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU]),
    ],
)
def test_the_best_comes_first_and_the_processor_last(available, expected) -> None:
    assert [name for name, _ in providers_of(available, None)] == expected


def test_fp32_means_fp32_and_engines_are_kept_where_something_was_compiled() -> None:
    options = dict(providers_of([TENSORRT, CUDA, CPU], Path("engines")))
    assert options[CUDA] == {"use_tf32": "0"}
    assert options[TENSORRT] == {"trt_engine_cache_enable": "1", "trt_engine_cache_path": "engines"}
    assert dict(providers_of([TENSORRT, CPU], None))[TENSORRT] == {}
    assert providers_of([CPU], None) == ON_CPU
