"""ONNX graphs, written operation by operation, from a history to scores.

All graphs have one signature, so whoever runs one need not know the model: ``history`` are the numbers of a user's
items, the oldest first, of any length, and none of them is below zero; ``scores`` has one number for each item. Some
have more to ask for:

    user    what is multiplied with the items' vectors (``Form.vectors``), to give the scores
    added   what each place of the history adds to the scores; its last row belongs to the last item
    apart   what of the scores belongs to no place

Graphs are written by hand, and not traced by torch: half of the models are no torch modules, a trace has transposed
copies of what it multiplies with, and what is made of few operations can be checked for having no others. Tests compare
scores with those of the models.

With ``int8`` each row of a table is bytes times one number of 16 bits: round(127 x / max |x|). Rows are looked up as
bytes and multiplied afterwards. onnxruntime's own quantisation gives a product and a look-up of one table a copy each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, UsageError
from secagg.extras import needing

with needing("edge", "a model for devices"):
    import onnx
    from google.protobuf.message import DecodeError as ProtobufError
    from onnx import TensorProto, helper, numpy_helper

INPUT, SCORES, USER, ADDED, APART = "history", "scores", "user", "added", "apart"
OPSET, IR_VERSION = 20, 9
OPERATIONS = frozenset(
    "Add And Cast Concat ConstantOfShape Div Equal Exp Gather Gelu Gemm GreaterOrEqual Identity"  # noqa: SIM905
    " LayerNormalization MatMul Max Mul Not Or Pad Range ReduceMin ReduceSum Reshape ScatterElements Shape Size Slice"
    " Softmax Sqrt Squeeze Sub Transpose Unsqueeze Where".split()
)
"""All that graphs are made of: none reads a file, holds a graph of its own, or repeats anything."""
_MOST_BYTES = 1 << 30
"""Of a graph's numbers. A file of protobuf ends at twice that."""
_MOST_NODES = 1 << 14
"""Of operations in a graph, and of numbers with a name."""
_WORTH_IT = 256
"""Fewer numbers than that are not rounded."""
_INSIDE = ("g", "graphs", "tensors", "sparse_tensor", "sparse_tensors")
"""Fields that no attribute has here, whatever it says that it is."""
_LEAST, _LARGEST = np.finfo(np.float16).smallest_subnormal, np.finfo(np.float16).max


class Graph:
    """
    >>> graph = Graph()
    >>> graph.output(SCORES, graph("Add", graph.constant(np.float32([1, 2])), graph.constant(np.float32(1))), [2])
    >>> len(graph.encoded()) < 300
    True
    """

    def __init__(self, *, int8: bool = False) -> None:
        self.int8 = int8
        self.rounded = 0
        """how many tables consist of bytes"""
        self._nodes: list[onnx.NodeProto] = []
        self._kept: dict[tuple[bytes, str, tuple[int, ...]], onnx.TensorProto] = {}
        self._outputs: list[onnx.ValueInfoProto] = []

    def __call__(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation; returns the name of what comes out."""
        if operation not in OPERATIONS:
            raise UsageError(f"{operation} is no operation of these graphs")
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operation, inputs, [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        """The name of an array, which is kept once, however often it is asked for. Lists are whole numbers."""
        array = np.ascontiguousarray(value if isinstance(value, np.ndarray | np.generic) else np.int64(value))
        array = array.reshape(np.shape(value))
        key = array.tobytes(), array.dtype.str, array.shape
        if key not in self._kept:
            self._kept[key] = numpy_helper.from_array(array, f"c{len(self._kept)}")
        name: str = self._kept[key].name
        return name

    def numbers(self, array: NDArray[np.float32]) -> str:
        """A vector of floats, of half the precision in a rounded graph."""
        if self.int8 and array.size >= _WORTH_IT and np.abs(array).max() <= _LARGEST:
            return self("Cast", self.constant(array.astype(np.float16)), to=TensorProto.FLOAT)
        return self.constant(array.astype(np.float32))

    def table(self, array: NDArray[np.float32]) -> Table:
        if not self.int8 or array.size < _WORTH_IT:
            return Table(self, self.constant(array.astype(np.float32)), None)
        self.rounded += 1
        return Table(self, *map(self.constant, rounded(array)))

    def matrix(self, array: NDArray[np.float32]) -> str:
        """A table that is needed as a whole."""
        return self.table(array).whole()

    def output(self, name: str, value: str, shape: Sequence[int | str]) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def encoded(self) -> bytes:
        """The file. ``UsageError`` if it would be too long."""
        if sum(len(raw) for raw, *_ in self._kept) > _MOST_BYTES:
            raise UsageError(f"the model is too large for a device: more than {_MOST_BYTES} bytes")
        asked = helper.make_tensor_value_info(INPUT, TensorProto.INT64, ["length"])
        graph = helper.make_graph(self._nodes, "recommender", [asked], self._outputs, list(self._kept.values()))
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        encoded: bytes = made.SerializeToString(deterministic=True)
        return encoded


def check(data: bytes) -> None:
    """``DecodeError`` if a file, perhaps a stranger's, is no graph like those that are written here: it consists of
    ``OPERATIONS``, has all its numbers in itself, and no graph inside of it."""
    model = _read(data)
    graph = model.graph
    if len(graph.node) + len(graph.initializer) > _MOST_NODES:
        raise DecodeError(f"a model of more than {_MOST_NODES} operations")
    attributes = [one for node in graph.node for one in node.attribute]
    kept = [*graph.initializer, *(one.t for one in attributes if one.HasField("t"))]
    if any(one.external_data or one.data_location != TensorProto.DEFAULT for one in kept):
        raise DecodeError("a model whose numbers are in other files")
    if strange := [node for node in graph.node if node.domain or node.op_type not in OPERATIONS]:
        raise DecodeError(f"a model with an operation {strange[0].op_type[:40]!r}")
    whole = (*graph.sparse_initializer, *model.functions, *model.training_info)
    if whole or any(field.name in _INSIDE for one in attributes for field, _ in one.ListFields()):
        raise DecodeError("a model of more than one graph of plain operations")
    if [one.name for one in graph.input] != [INPUT] or SCORES not in {one.name for one in graph.output}:
        raise DecodeError("a model that is not from a history to scores")


def results(data: bytes) -> list[str]:
    """What a graph has to ask for."""
    return [one.name for one in _read(data).graph.output]


def part(data: bytes, result: Sequence[str]) -> bytes:
    """A graph with no other results, and no operation that leads to none of them: ONNX Runtime computes all there are,
    whatever it is asked for."""
    model = _read(data)
    graph, wanted = model.graph, set(result)
    outputs = [one for one in graph.output if one.name in wanted]
    nodes = list[onnx.NodeProto]()
    for node in reversed(graph.node):
        if wanted & set(node.output):
            nodes.append(node)
            wanted |= set(node.input)
    kept = [one for one in graph.initializer if one.name in wanted]
    for field, some in ((graph.output, outputs), (graph.node, nodes[::-1]), (graph.initializer, kept)):
        del field[:]
        field.extend(some)
    encoded: bytes = model.SerializeToString()
    return encoded


def _read(data: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(data)
    except ProtobufError:
        raise DecodeError("not a file of ONNX") from None


@dataclass(frozen=True, slots=True)
class Table:
    """A matrix of a graph, with a scale for each row if it consists of bytes."""

    graph: Graph
    numbers: str
    scales: str | None

    def rows(self, ids: str) -> str:
        """Some of the rows, one for each id."""
        found = self.graph("Gather", self.numbers, ids, axis=0)
        if self.scales is None:
            return found
        return self._scaled(found, self.graph("Gather", self.scales, ids, axis=0))

    def products(self, rows: str) -> str:
        """Of each of these rows with each row of the table, 50 times as fast as ``MatMul`` with a column."""
        return self.graph("Gemm", rows, self.whole(), transB=1)

    def times(self, vector: str) -> str:
        """The products of all rows with one vector."""
        one = self.graph("Unsqueeze", vector, self.graph.constant([0]))
        return self.graph("Squeeze", self.products(one), self.graph.constant([0]))

    def whole(self) -> str:
        return self.numbers if self.scales is None else self._scaled(self.numbers, self.scales)

    def _scaled(self, numbers: str, scales: str) -> str:
        numbers, scales = (self.graph("Cast", one, to=TensorProto.FLOAT) for one in (numbers, scales))
        return self.graph("Mul", numbers, scales)


def rounded(array: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Bytes, and for each row what they are multiplied with: never too little for the largest number of the row.

    >>> numbers, scales = rounded(np.float32([[1, -2], [0, 0]]))
    >>> numbers.tolist(), scales.shape
    ([[63, -127], [0, 0]], (2, 1))
    """
    least = np.clip(np.abs(array).max(axis=1, keepdims=True) / 127, _LEAST, _LARGEST)
    scales = least.astype(np.float16)
    scales = np.where(scales < least, np.nextafter(scales, np.float16(np.inf)), scales)
    numbers = np.clip(np.rint(array / scales.astype(np.float32)), -127, 127).astype(np.int8)
    return numbers, scales
