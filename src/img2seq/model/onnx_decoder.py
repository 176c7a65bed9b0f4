"""A trained decoder as an ONNX graph: the same numbers up to rounding, from any runtime.

Shapes: B images, R rows (captions being written, W neighbours of an image: R = B W), S new tokens of each, T tokens before them, V vocabulary,
L layers, D width, H heads, K = D / H, P places of the memory.

    input_ids                     (R, S) int64
    encoder_hidden_states         (B, 2 L D, P): keys and values of the memory for all layers, as `onnx_encoder.encoder_graph` gives them; or, where the
                                  steps of a batch are to be spared cutting it, memory.N.key and memory.N.value (B, D, P)
    past_key_values.N.key/value   (R, H, T, K)
    logits                        (R, S, V)
    present.N.key/value           (R, H, T + S, K): the past with the new tokens behind it
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from img2seq.model.decoder import Block, Decoder

OPSET, IR_VERSION = 17, 8  # what runtimes of the last years read, in browsers too
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
KEPT = ("key", "value")


def decoder_graph(decoder: Decoder, *, merged: bool) -> bytes:
    """Return the graph of a decoder with memory.

    Args:
        decoder: in evaluation mode.
        merged: with `encoder_hidden_states`, as others read it; else with the memory by layer.
    """
    graph = _Graph()
    H, D, L = decoder.n_heads, decoder.width, len(decoder.blocks)
    K = D // H
    memory = [[f"memory.{n}.{kind}" for kind in KEPT] for n in range(L)]
    if merged:
        graph.ops("Split", "encoder_hidden_states", names=[name for pair in memory for name in pair], axis=1)
    rows, new, images = graph.size("input_ids", 0), graph.size("input_ids", 1), graph.size(memory[0][0], 0)
    before = graph.size("past_key_values.0.key", 2)
    shapes = {
        "qkv": graph.op("Concat", rows, graph.ints(-1, 3, H, K), axis=0),
        "states": graph.op("Concat", rows, graph.ints(-1, D), axis=0),
        "q": graph.op("Concat", images, graph.ints(-1, H, K), axis=0),
        "memory": graph.op("Concat", images, graph.ints(H, K, -1), axis=0),
        "logits": graph.op("Concat", rows, graph.ints(-1, len(decoder.bias)), axis=0),
    }
    positions = graph.op("Add", graph.range(new), before)
    seen = _seen(graph, positions, graph.range(graph.op("Add", before, new)))

    x = graph.op("Gather", graph.constant("embedding", decoder.embedding.weight), "input_ids")
    x = graph.op("Mul", x, graph.constant("root_of_width", np.float32(math.sqrt(D))))
    x = graph.op("Add", x, graph.op("Gather", graph.constant("position", decoder.position), positions))
    for n, block in enumerate(decoder.blocks):
        assert isinstance(block, Block)
        name = f"blocks.{n}"
        qkv = graph.linear(
            graph.norm(x, f"{name}.self_norm", block.self_norm), f"{name}.self_qkv", *_with_small_q(block.self_qkv, K)
        )
        gathered = graph.op("Reshape", _of_caption(graph, n, qkv, shapes, seen), shapes["states"])
        x = graph.op("Add", x, graph.linear(gathered, f"{name}.self_out", *_parts(block.self_out)))
        q = graph.linear(
            graph.norm(x, f"{name}.memory_norm", block.memory_norm),
            f"{name}.memory_q",
            *_with_small_q(block.memory_q, K),
        )
        gathered = graph.op("Reshape", _of_memory(graph, q, memory[n], shapes), shapes["states"])
        x = graph.op("Add", x, graph.linear(gathered, f"{name}.memory_out", *_parts(block.memory_out)))
        hidden = graph.linear(
            graph.norm(x, f"{name}.feedforward_norm", block.feedforward_norm),
            f"{name}.feedforward_in",
            *_parts(block.feedforward_in),
        )
        x = graph.op(
            "Add", x, graph.linear(graph.gelu(hidden), f"{name}.feedforward_out", *_parts(block.feedforward_out))
        )
    outputs = graph.op("Reshape", graph.norm(x, "norm", decoder.norm), graph.ints(-1, D))
    logits = graph.op("Gemm", outputs, "embedding", graph.constant("bias", decoder.bias), transB=1)
    graph.op("Reshape", logits, shapes["logits"], name="logits")
    return _file(graph, decoder, merged=merged)


class _Graph:
    """Nodes and constants of a graph that is being written. Functions return the name of what a node gives."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: Tensor | NDArray[Any] | np.number[Any]) -> str:
        if name not in self.constants:
            array = values.detach().float().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return name

    def ints(self, *values: int) -> str:
        return self.constant("_".join(["ints", *map(str, values)]), np.array(values, dtype=np.int64))

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        (output,) = self.ops(kind, *inputs, names=[name or f"{kind}_{len(self.nodes)}"], **attributes)
        return output

    def ops(self, kind: str, *inputs: str, names: list[str], **attributes: Any) -> list[str]:
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], **attributes))
        return names

    def size(self, name: str, axis: int) -> str:
        """Return (1,): the size of an axis."""
        return self.op("Shape", name, start=axis, end=axis + 1)

    def range(self, n: str) -> str:
        """Return (n,): 0 to n - 1, for (1,)."""
        zero, one = (self.constant(f"int_{value}", np.int64(value)) for value in (0, 1))
        return self.op("Range", zero, self.op("Squeeze", n), one)

    def norm(self, x: str, name: str, norm: nn.LayerNorm) -> str:
        weights = [self.constant(f"{name}.{part}", getattr(norm, part)) for part in ("weight", "bias")]
        return self.op("LayerNormalization", x, *weights, axis=-1, epsilon=norm.eps)

    def linear(self, x: str, name: str, weight: Tensor, bias: Tensor) -> str:
        product = self.op("MatMul", x, self.constant(f"{name}.weight", weight.t()))
        return self.op("Add", product, self.constant(f"{name}.bias", bias))

    def gelu(self, x: str) -> str:
        """The pattern that runtimes know and fuse."""
        error = self.op("Erf", self.op("Div", x, self.constant("root_of_2", np.float32(math.sqrt(2)))))
        half = self.op("Mul", x, self.constant("half", np.float32(0.5)))
        return self.op("Mul", half, self.op("Add", error, self.constant("one", np.float32(1))))


def _parts(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    return linear.weight, linear.bias


def _with_small_q(linear: nn.Linear, K: int) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer whose first D outputs, the queries, are divided by the root of K already."""
    scale = torch.ones_like(linear.bias)
    scale[: linear.in_features] = K**-0.5
    return linear.weight * scale.unsqueeze(1), linear.bias * scale


def _seen(graph: _Graph, positions: str, places: str) -> str:
    """Return (S, T + S): 0 where a new token sees a place, minus infinity where it comes later."""
    comes_later = graph.op(
        "Less", graph.op("Unsqueeze", positions, graph.ints(1)), graph.op("Unsqueeze", places, graph.ints(0))
    )
    off, on = graph.constant("off", np.float32(-np.inf)), graph.constant("on", np.float32(0))
    return graph.op("Where", comes_later, off, on)


def _of_caption(graph: _Graph, n: int, qkv: str, shapes: dict[str, str], seen: str) -> str:
    """Return (R, S, H, K): what each new token gathers from its caption."""
    apart = graph.op("Transpose", graph.op("Reshape", qkv, shapes["qkv"]), perm=[2, 0, 3, 1, 4])  # (3, R, H, S, K)
    parts = graph.ops("Split", apart, names=[f"{part}.{n}" for part in ("q", "k", "v")], axis=0)
    q, *new = (graph.op("Squeeze", part, graph.ints(0)) for part in parts)
    keys, values = (
        graph.op("Concat", f"past_key_values.{n}.{kind}", of_new, axis=2, name=f"present.{n}.{kind}")
        for kind, of_new in zip(KEPT, new, strict=True)
    )
    scores = graph.op("MatMul", q, graph.op("Transpose", keys, perm=[0, 1, 3, 2]))
    weights = graph.op("Softmax", graph.op("Add", scores, seen), axis=-1)
    return graph.op("Transpose", graph.op("MatMul", weights, values), perm=[0, 2, 1, 3])


def _of_memory(graph: _Graph, q: str, memory: list[str], shapes: dict[str, str]) -> str:
    """Return (B, W S, H, K): what each new token gathers from its image's memory."""
    q = graph.op("Transpose", graph.op("Reshape", q, shapes["q"]), perm=[0, 2, 1, 3])  # (B, H, W S, K)
    keys, values = (graph.op("Reshape", part, shapes["memory"]) for part in memory)  # (B, H, K, P)
    weights = graph.op("Softmax", graph.op("MatMul", q, keys), axis=-1)
    gathered = graph.op("MatMul", weights, graph.op("Transpose", values, perm=[0, 1, 3, 2]))
    return graph.op("Transpose", gathered, perm=[0, 2, 1, 3])


def _file(graph: _Graph, decoder: Decoder, *, merged: bool) -> bytes:
    H, D, L, V = decoder.n_heads, decoder.width, len(decoder.blocks), len(decoder.bias)
    names = [f"{n}.{kind}" for n in range(L) for kind in KEPT]
    memory = {"encoder_hidden_states": 2 * L * D} if merged else {f"memory.{name}": D for name in names}
    # transformers.js makes the first past from this: "batch_size" is known to it, other names are sizes of 0.
    past: list[str | int | None] = ["batch_size", H, "past_sequence_length", D // H]
    present: list[str | int | None] = ["batch_size", H, "total_sequence_length", D // H]
    inputs = [
        helper.make_tensor_value_info("input_ids", INT, ["batch_size", "sequence_length"]),
        *(helper.make_tensor_value_info(name, FLOAT, ["images", size, "places"]) for name, size in memory.items()),
        *(helper.make_tensor_value_info(f"past_key_values.{name}", FLOAT, past) for name in names),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", FLOAT, ["batch_size", "sequence_length", V]),
        *(helper.make_tensor_value_info(f"present.{name}", FLOAT, present) for name in names),
    ]
    proto = helper.make_graph(graph.nodes, "decoder", inputs, outputs, list(graph.constants.values()))
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(proto, opset_imports=opset, ir_version=IR_VERSION, producer_name="img2seq")
    return bytes(model.SerializeToString())
