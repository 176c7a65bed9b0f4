"""Smaller graphs: weights of 16 or 8 bits, which are computed with in single precision or, where that is faster, as whole numbers."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from img2seq.run.onnx_folder import Precision

LEAST = 1024  # numbers; smaller constants stay as they are
Smaller: TypeAlias = Callable[[str, NDArray[np.float32]], tuple[list[onnx.TensorProto], list[onnx.NodeProto]]]


def in_precision(graph: bytes, precision: Precision) -> bytes:
    """Return a graph whose weights are kept in a precision.

    fp16: half of the bytes; the runtime turns them into single precision when it loads the graph, so its speed stays. int8: matrix products as
    products of whole numbers, each row of activations with a scale of its own as it comes (dynamic quantization); convolutions and the
    embedding keep weights of 8 bits with a scale for each channel or token, and are computed in single precision.
    """
    if precision == "fp32":
        return graph
    model = onnx.load_from_string(graph)
    floats = {weight.name for weight in model.graph.initializer if _is_large(weight)}
    if precision == "fp16":
        return bytes(_with_weights(model, dict.fromkeys(floats, _half)).SerializeToString())
    looked_up = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    filters = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    return _with_whole_products(_with_weights(model, dict.fromkeys(floats & (looked_up | filters), _eighth)))


def _is_large(weight: onnx.TensorProto) -> bool:
    return weight.data_type == TensorProto.FLOAT and math.prod(weight.dims) >= LEAST


def _with_weights(model: onnx.ModelProto, smaller: Mapping[str, Smaller]) -> onnx.ModelProto:
    """Replace constants by smaller ones, and nodes that give them back."""
    kept: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for weight in model.graph.initializer:
        if weight.name in smaller:
            constants, givers = smaller[weight.name](weight.name, numpy_helper.to_array(weight))
            kept += constants
            nodes += givers
        else:
            kept.append(weight)
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    return model


def _half(name: str, values: NDArray[np.float32]) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    stored = numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16")
    return [stored], [helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT)]


def _eighth(name: str, values: NDArray[np.float32]) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Keep each row (..., of what a channel or a token has) with a scale of its own."""
    scale = np.maximum(np.abs(values).reshape(len(values), -1).max(1), 1e-12).astype(np.float32) / 127
    scale = scale.reshape(-1, *[1] * (values.ndim - 1))
    stored = numpy_helper.from_array(np.round(values / scale).astype(np.int8), f"{name}.int8")
    scales, wide = numpy_helper.from_array(scale, f"{name}.scale"), f"{name}.wide"
    cast = helper.make_node("Cast", [stored.name], [wide], to=TensorProto.FLOAT)
    return [stored, scales], [cast, helper.make_node("Mul", [wide, scales.name], [name])]


def _with_whole_products(model: onnx.ModelProto) -> bytes:
    """Quantize matrix products. Weights take 7 of the 8 bits: processors without VNNI add pairs of products in 16."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, quiet_log():
        path = Path(folder) / "graph.onnx"
        quantize_dynamic(
            model, path, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=True, weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
        return path.read_bytes()


@contextmanager
def quiet_log() -> Iterator[None]:
    """Leave out the advice that the quantizer logs: our graphs need none of it."""
    logger = logging.getLogger()
    logger.addFilter(_is_no_advice)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()
