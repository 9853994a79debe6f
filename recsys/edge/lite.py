"""The same graph as a file of LiteRT (TensorFlow Lite), for devices that have that and no ONNX Runtime.

Each operation of a graph (``recsys.edge.graphs``) becomes the one of the same meaning, or a few; only what leads to the
scores is taken along. Whole numbers have 32 bits here, and so has double precision. The file's only signature: from
``history``, of any length but none, where -1 stands for nothing, to ``scores``.

litert-torch was looked at. It traces torch modules, which half of the models are not; of lengths that are not known
beforehand its version 0.10 cannot compile a comparison; and it wants other versions of what else is here, and two
gigabytes. This is written with the schema that the runtime has with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from recsys.edge.graphs import INPUT, SCORES
from secagg.extras import needing

with needing("litert", "a model for LiteRT"):
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

_LEAST, _MOST = np.iinfo(np.int32).min, np.iinfo(np.int32).max
_FLOAT, _WHOLE = schema.TensorType.FLOAT32, schema.TensorType.INT32
_TYPES = {
    TensorProto.FLOAT: _FLOAT,
    TensorProto.FLOAT16: _FLOAT,
    TensorProto.DOUBLE: _FLOAT,
    TensorProto.INT64: _WHOLE,
    TensorProto.INT8: schema.TensorType.INT8,
    TensorProto.BOOL: schema.TensorType.BOOL,
}
_READ = {"ReduceMin": 1, "ReduceSum": 1, "Reshape": 1, "Slice": 1, "Squeeze": 1, "Unsqueeze": 1}
"""How many of the inputs are tensors; the others are numbers that are known."""

Node = Any


def converted(graph: bytes) -> bytes:
    """The file of LiteRT with the scores of a graph that was written here."""
    return _Converted(shape_inference.infer_shapes(onnx.load_model_from_string(graph), data_prop=True)).encoded()


class _Converted:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._made = {name: node for node in self._graph.node for name in node.output}
        self._known = {one.name: numpy_helper.to_array(one) for one in self._graph.initializer}
        self._said = {one.name: one.type.tensor_type for one in (*self._graph.value_info, *self._graph.output)}
        self._codes: dict[int, int] = {}
        self._buffers: list[Any] = [schema.BufferT()]
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._places: dict[str, int] = {INPUT: self._tensor(_WHOLE, [None], INPUT)}

    def encoded(self) -> bytes:
        scores = self._place(SCORES)
        inputs, outputs = [self._places[INPUT]], [scores]
        part = schema.SubGraphT(self._tensors, inputs, outputs, self._operators, "recommender")
        named = [[schema.TensorMapT(name, place)] for name, (place,) in ((INPUT, inputs), (SCORES, outputs))]
        model = schema.ModelT(
            version=3,
            operatorCodes=[schema.OperatorCodeT(min(one, 127), builtinCode=one) for one in self._codes],
            subgraphs=[part],
            description="recommender",
            buffers=self._buffers,
            signatureDefs=[schema.SignatureDefT(*named, "serving_default")],
        )
        builder = flatbuffers.Builder(sum(len(one.data) for one in self._buffers if one.data is not None) + (1 << 16))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _place(self, name: str) -> int:
        """The number of a value's tensor, with all that it is computed from before it."""
        todo = [name]
        while todo:  # and no recursion: an elimination is hundreds of operations deep
            if (here := todo[-1]) in self._places:
                todo.pop()
            elif here in self._known:
                self._places[here] = self.constant(self._known[here])
            elif missing := [one for one in self._wanted(self._made[here]) if one not in self._places]:
                todo += missing
            else:
                node = self._made[here]
                self._places[here] = _OPERATIONS[node.op_type](self, node)
        return self._places[name]

    def _wanted(self, node: Node) -> list[str]:
        """What of a node's inputs is a tensor here, too."""
        return list(node.input)[: _READ.get(node.op_type, len(node.input))]

    def inputs(self, node: Node) -> list[int]:
        return [self._places[name] for name in self._wanted(node)]

    def known(self, name: str) -> list[int]:
        """Whole numbers that do not depend on the history."""
        return [int(one) for one in self._known[name].ravel()]

    def rank(self, name: str) -> int:
        if name in self._known:
            return int(self._known[name].ndim)
        return 1 if name == INPUT else len(self._said[name].shape.dim)

    def constant(self, value: Any) -> int:
        """The number of a tensor that is in the file. Lists are whole numbers."""
        array = np.asarray(value if isinstance(value, np.ndarray | np.generic) else np.int64(value))
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        if kind == TensorProto.FLOAT16:  # made floats when the file is loaded
            return self.add("DEQUANTIZE", [self._kept(array, schema.TensorType.FLOAT16)], _FLOAT, array.shape)
        if kind == TensorProto.INT64:
            array = array.clip(_LEAST, _MOST).astype(np.int32)
        if kind == TensorProto.DOUBLE:
            array = array.astype(np.float32)
        return self._kept(array, _TYPES[kind])

    def _kept(self, array: NDArray[Any], kind: int) -> int:
        self._buffers.append(schema.BufferT(np.frombuffer(array.tobytes(), np.uint8)))
        return self._tensor(kind, array.shape, buffer=len(self._buffers) - 1)

    def _tensor(self, kind: int, shape: Sequence[int | None], name: str = "", buffer: int = 0) -> int:
        """``None``: as long as it comes to."""
        known, name = [1 if one is None else one for one in shape], name or f"t{len(self._tensors)}"
        any_length = [-1 if one is None else one for one in shape] if None in shape else None
        tensor = schema.TensorT(known, kind, buffer, name, shapeSignature=any_length, hasRank=True)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def made(self, node: Node, operation: str, *inputs: int, **options: Any) -> int:
        """Add an operation with the result of this node; returns the number of its tensor."""
        return self.add(operation, inputs, *self.said(node), **options)

    def said(self, node: Node) -> tuple[int, list[int | None]]:
        """The kind of a node's result, and its shape."""
        said = self._said[node.output[0]]
        return _TYPES[said.elem_type], [one.dim_value if one.HasField("dim_value") else None for one in said.shape.dim]

    def kind(self, place: int) -> int:
        return int(self._tensors[place].type)

    def add(
        self,
        operation: str,
        inputs: Sequence[int],
        kind: int,
        shape: Sequence[int | None],
        options: str = "",
        **told: Any,
    ) -> int:
        """Add an operation, with what its table of options is told; returns the number of its result's tensor."""
        code, result = getattr(schema.BuiltinOperator, operation), self._tensor(kind, shape)
        made = schema.OperatorT(self._codes.setdefault(code, len(self._codes)), list(inputs), [result])
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, f"{options}Options")
            made.builtinOptions = getattr(schema, f"{options}OptionsT")(**told)
        self._operators.append(made)
        return result


def _attributes(node: Node) -> Mapping[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _plain(operation: str, **options: Any) -> Callable[[_Converted, Node], int]:
    """An operation that takes the same inputs, and has no more to be told."""
    return lambda to, node: to.made(node, operation, *to.inputs(node), **options)


def _reduced(operation: str) -> Callable[[_Converted, Node], int]:
    def convert(to: _Converted, node: Node) -> int:
        axes = to.known(node.input[1]) if len(node.input) > 1 else list(range(to.rank(node.input[0])))
        keep = bool(_attributes(node).get("keepdims", 1))
        place = to.constant(axes)
        return to.made(node, operation, *to.inputs(node), place, options="Reducer", keepDims=keep)

    return convert


def _cast(to: _Converted, node: Node) -> int:
    (place,) = to.inputs(node)
    kind = _TYPES[_attributes(node)["to"]]
    return place if to.kind(place) == kind else to.made(node, "CAST", place)


def _reshaped(to: _Converted, node: Node) -> int:
    shape = to.known(node.input[1])
    place = to.constant(shape)
    return to.made(node, "RESHAPE", *to.inputs(node), place, options="Reshape", newShape=shape)


def _slice(to: _Converted, node: Node) -> int:
    starts, ends, axes = map(to.known, node.input[1:])
    rank = to.rank(node.input[0])
    begin, end, all_of = [0] * rank, [0] * rank, (1 << rank) - 1
    to_the_end = all_of
    for axis, start, stop in zip(axes, starts, ends, strict=True):
        begin[axis], end[axis] = start, min(stop, _MOST)
        all_of &= ~(1 << axis)
        to_the_end &= ~(1 << axis) if stop < _MOST else -1
    places = (to.constant(one) for one in (begin, end, [1] * rank))
    return to.made(
        node, "STRIDED_SLICE", *to.inputs(node), *places, options="StridedSlice", beginMask=all_of, endMask=to_the_end
    )


def _pad(to: _Converted, node: Node) -> int:
    """ONNX has what comes before for all axes, and then what comes after; LiteRT has both for each axis."""
    what, pads, value = to.inputs(node)
    rank = to.rank(node.input[0])
    pairs = to.add("RESHAPE", [pads, to.constant([2, rank])], _WHOLE, [2, rank], "Reshape", newShape=[2, rank])
    pairs = to.add("TRANSPOSE", [pairs, to.constant([1, 0])], _WHOLE, [rank, 2])
    return to.made(node, "PADV2", what, pairs, value)


def _size(to: _Converted, node: Node) -> int:
    lengths = to.add("SHAPE", to.inputs(node), _WHOLE, [to.rank(node.input[0])], "Shape", outType=_WHOLE)
    return to.made(node, "REDUCE_PROD", lengths, to.constant([0]), options="Reducer", keepDims=False)


def _filled(to: _Converted, node: Node) -> int:
    value = numpy_helper.to_array(_attributes(node)["value"])
    return to.made(node, "FILL", *to.inputs(node), to.constant(value.reshape(())))


def _largest(to: _Converted, node: Node) -> int:
    """Of what is there, and all numbers that are written to a place."""
    there, places, numbers = to.inputs(node)
    kind, shape = to.said(node)
    written = to.add("UNSORTED_SEGMENT_MAX", [numbers, places, to.constant(shape[0])], kind, shape)
    return to.made(node, "MAXIMUM", there, written)


def _normalised(to: _Converted, node: Node) -> int:
    rows, scale, bias = to.inputs(node)
    kind, shape = to.said(node)
    one, last = [*shape[:-1], 1], to.constant([-1])
    mean = to.add("MEAN", [rows, last], kind, one, "Reducer", keepDims=True)
    apart = to.add("SUB", [rows, mean], kind, shape)
    square = to.add("MUL", [apart, apart], kind, shape)
    variance = to.add("MEAN", [square, last], kind, one, "Reducer", keepDims=True)
    more = to.add("ADD", [variance, to.constant(np.float32(_attributes(node)["epsilon"]))], kind, one)
    normed = to.add("MUL", [apart, to.add("RSQRT", [more], kind, one)], kind, shape)
    return to.made(node, "ADD", to.add("MUL", [normed, scale], kind, shape), bias)


def _transposed(to: _Converted, node: Node) -> int:
    order = _attributes(node).get("perm") or list(range(to.rank(node.input[0])))[::-1]
    return to.made(node, "TRANSPOSE", *to.inputs(node), to.constant(order))


_OPERATIONS: Mapping[str, Callable[[_Converted, Node], int]] = {
    "Add": _plain("ADD"),
    "And": _plain("LOGICAL_AND"),
    "Cast": _cast,
    "Concat": lambda to, node: to.made(
        node, "CONCATENATION", *to.inputs(node), options="Concatenation", axis=_attributes(node)["axis"]
    ),
    "ConstantOfShape": _filled,
    "Div": _plain("DIV"),
    "Equal": _plain("EQUAL"),
    "Exp": _plain("EXP"),
    "Gather": lambda to, node: to.made(
        node, "GATHER", *to.inputs(node), options="Gather", axis=_attributes(node).get("axis", 0)
    ),
    "Gelu": _plain("GELU"),
    "Gemm": lambda to, node: to.made(node, "FULLY_CONNECTED", *to.inputs(node), -1, options="FullyConnected"),
    "GreaterOrEqual": _plain("GREATER_EQUAL"),
    "Identity": lambda to, node: to.inputs(node)[0],
    "LayerNormalization": _normalised,
    "MatMul": _plain("BATCH_MATMUL"),
    "Max": _plain("MAXIMUM"),
    "Mul": _plain("MUL"),
    "Not": _plain("LOGICAL_NOT"),
    "Or": _plain("LOGICAL_OR"),
    "Pad": _pad,
    "Range": _plain("RANGE"),
    "ReduceMin": _reduced("REDUCE_MIN"),
    "ReduceSum": _reduced("SUM"),
    "Reshape": _reshaped,
    "ScatterElements": _largest,
    "Shape": _plain("SHAPE", options="Shape", outType=_WHOLE),
    "Size": _size,
    "Slice": _slice,
    "Softmax": _plain("SOFTMAX", options="Softmax", beta=1.0),
    "Sqrt": _plain("SQRT"),
    "Squeeze": lambda to, node: to.made(
        node, "SQUEEZE", *to.inputs(node), options="Squeeze", squeezeDims=to.known(node.input[1])
    ),
    "Sub": _plain("SUB"),
    "Transpose": _transposed,
    "Unsqueeze": lambda to, node: to.made(
        node, "EXPAND_DIMS", *to.inputs(node), to.constant(to.known(node.input[1])[0])
    ),
    "Where": _plain("SELECT_V2"),
}
