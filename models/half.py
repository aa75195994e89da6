"""A backbone in, the same backbone in 16-bit floating point out, for engines that take types from the graph.

TensorRT's networks are strongly typed here, on 10 as on 11, where the flags that let it choose are gone: what is to
run in FP16 has to stand in the graph. What makes the input of the pictures stays FP32: differences of grey levels are
scaled there, and it is a thousandth of the work.
"""

from __future__ import annotations

import warnings

import onnx

from monitor.bundle import Bundle
from monitor.scoring.onnxruntime import load_library


def to_half(bundle: Bundle) -> onnx.ModelProto:
    """Return the backbone in FP16; its input and output keep their types."""
    load_library()  # without its telemetry
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are rounded to the smallest number: meant
        from onnxruntime.transformers.float16 import convert_float_to_float16
        from onnxruntime.transformers.onnx_model import OnnxModel

        model = onnx.load(bundle.backbone_path)
        nodes = list(model.graph.node)
        first = next((index for index, node in enumerate(nodes) if node.op_type == "Conv"), 0)
        half: onnx.ModelProto = convert_float_to_float16(
            model, keep_io_types=True, node_block_list=[node.name for node in nodes[:first]]
        )
        OnnxModel(half).topological_sort()  # the casts that it adds stand at the end, behind those who read them
    return half
