"""Each model as a graph from a history to scores (``recsys.edge.graphs``), with the same scores.

A history has any length, and none of its items is left out before the graph: what a model does not read, its graph
does not. NeuMf has no form: it finds a user's factors by gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from recsys.edge.graphs import ADDED, APART, INPUT, SCORES, USER, Graph, Table
from secagg.errors import UsageError

_LAST = (1 << 63) - 1
_MOST_UNKNOWNS = 256
_NORM = 1e-5
"""torch's, which is added to a variance"""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """A model for a device."""

    onnx: bytes
    vectors: NDArray[np.float32] | None
    """of all items, if a score is a product of one of them and ``user``; with a last number for what is the same for
    all users"""


def form_of(model: Any, *, int8: bool = False) -> Form:
    """The graph of a trained model; ``UsageError`` in one line if it has none."""
    name = type(model).__name__
    if name not in _FORMS:
        raise UsageError(f"{name} is no model for devices: those are {', '.join(_FORMS)}")
    graph = Graph(int8=int8)
    vectors = _FORMS[name](model, graph)
    if int8 and not graph.rounded:
        raise UsageError(f"there is nothing in this {name} to be rounded to 8 bits")
    return Form(graph.encoded(), vectors)


def _popular(model: Any, graph: Graph) -> None:
    popularity, places = graph.numbers(model.popularity), _Places(graph, len(model.popularity))
    nothing = graph("Mul", _column(graph, places.newest), graph.constant(np.float32(0)))
    graph.output(SCORES, popularity, [len(model.popularity)])
    graph.output(ADDED, graph("Mul", nothing, popularity), ["places", len(model.popularity)])
    graph.output(APART, popularity, [len(model.popularity)])


def _neighbours(model: Any, graph: Graph) -> None:
    weights = model.similarities.toarray()
    _item_item(graph, weights, np.arange(len(weights)), np.zeros(len(weights), np.float32), 0.0, 0.0)


def _ease(model: Any, graph: Graph) -> None:
    _item_item(graph, model.weights, model.part, model.popularity, model.reach, model.floor)


def _item_item(graph: Graph, weights: Array, part: Array, popularity: Array, reach: float, floor: float) -> None:
    """Sums of rows of a matrix between the items that take part; all others below these, by popularity."""
    items, places = len(popularity), _Places(graph, len(popularity))
    counted, table = places.faded(reach, floor), graph.table(weights)
    known = _Known(graph, part, items)
    counted, rows = known.chosen(places, counted, table)
    own = _sum_of_rows(graph, counted, rows)
    added = graph("Mul", _column(graph, counted), rows)
    below = graph("Sub", graph("ReduceMin", own, keepdims=0), graph.constant(np.float32(1)))
    others = graph("Add", graph.numbers(popularity), below)
    scores = known.spread(own, others, axis=0)
    zero = graph.constant(np.float32(0))
    graph.output(SCORES, scores, [items])
    graph.output(ADDED, known.spread(added, zero, axis=1), ["places", items])
    graph.output(APART, graph("Where", known.takes_part, zero, scores), [items])


def _private_ease(model: Any, graph: Graph) -> None:
    from recsys.models.private_ease import tie_breaks

    items, places = len(model.popularity), _Places(graph, len(model.popularity))
    counted = _shares(graph, places, model.settings.recency, featured=model.featured)
    alike, centre = graph.table(model.alike.toarray()), graph.constant(model.centre)
    popularity, ties = graph.numbers(model.popularity), graph.constant(tie_breaks(model.popularity))
    known = _Known(graph, model.items, items)
    own, rows = known.chosen(places, counted, graph.table(model.weights))
    in_all = graph("ReduceSum", own, keepdims=0)
    said = graph("Mul", graph("Sub", alike.rows(places.ids), centre), _column(graph, graph("Mul", counted, in_all)))
    liked = graph("ReduceSum", said, graph.constant([0]), keepdims=1)

    def like(rows: str) -> str:
        """How like all items are to each of these rows."""
        apart = graph("MatMul", rows, graph("Unsqueeze", centre, graph.constant([1])))
        return graph("Sub", alike.products(rows), apart)

    base = graph("Mul", popularity, graph("Mul", in_all, graph.constant(np.float32(model.base))))
    others = graph("Add", graph("Mul", popularity, graph("Squeeze", like(liked), graph.constant([0]))), base)
    weighed = _sum_of_rows(graph, own, rows)
    each = graph("Mul", like(said), popularity)
    zero = graph.constant(np.float32(0))
    graph.output(SCORES, graph("Add", known.spread(weighed, others, axis=0), ties), [items])
    chosen = graph("Mul", _column(graph, own), rows)
    graph.output(ADDED, known.spread(chosen, each, axis=1), ["places", items])
    graph.output(APART, graph("Add", graph("Where", known.takes_part, zero, base), ties), [items])


def _factors(model: Any, graph: Graph) -> NDArray[np.float32]:
    """Matrix factorisation: a user's factor is the solution of a ridge regression."""
    rows = model.vector.reshape(-1, model.width + 1)
    items = np.ascontiguousarray(rows[:, :-1])
    common = model.ridge * np.eye(model.width) + model.unseen * (items.T.astype(np.float64) @ items)
    table, places = graph.table(items), _Places(graph, len(items))
    user = _ridge(graph, table.rows(places.ids), graph("Mul", places.there, places.power(model.fading)), common)
    return _ranked(graph, table, items, rows[:, -1] * np.float32(model.bias), user)


def _private_factors(model: Any, graph: Graph) -> NDArray[np.float32]:
    from recsys.models.private_ease import tie_breaks
    from recsys.models.private_mf import RIDGE

    items, rank = len(model.popularity), model.factors.shape[1]
    factors, bias = np.zeros((items, rank), np.float32), tie_breaks(model.popularity)
    factors[model.items] = model.factors
    bias[model.items] += model.bias
    places, table = _Places(graph, items), graph.table(factors)
    counted = _shares(graph, places, model.settings.recency, featured=False)
    user = _ridge(graph, table.rows(places.ids), counted, RIDGE * np.eye(rank))
    mapped = _sum_of_rows(graph, user, graph.constant(model.map))
    return _ranked(graph, table, factors, bias, mapped)


def _autoencoder(model: Any, graph: Graph) -> NDArray[np.float32]:
    towers, width = model.towers(), model.width
    table, (ids, there) = graph.table(towers.vectors), _latest(graph, model.recent)
    fading = model.fading ** np.arange(model.recent - 1, -1, -1)
    weights = graph("Mul", there, graph.constant(fading.astype(np.float32)))
    norm = graph("Sqrt", graph("ReduceSum", graph("Mul", weights, weights), keepdims=0))
    weights = graph("Div", weights, graph("Max", norm, graph.constant(np.float32(1e-12))))
    weighted = graph("Mul", table.rows(ids), _column(graph, weights))
    taste = graph("ReduceSum", weighted, graph.constant([0]), keepdims=0)
    graph.output(ADDED, table.products(weighted), [model.recent, len(towers.vectors)])
    graph.output(APART, graph.numbers(towers.bias), [len(towers.vectors)])
    return _ranked(graph, table, towers.vectors, towers.bias, graph("Reshape", taste, graph.constant([width])))


def _attentive(model: Any, graph: Graph) -> NDArray[np.float32]:
    towers = model.towers()
    table, (ids, there) = graph.table(towers.vectors), _latest(graph, model.recent)
    length, user = model.recent, towers.user
    state = graph("Add", table.rows(ids), graph.matrix(user["places"]))
    state = graph("Mul", state, _column(graph, there))
    earlier, itself = np.tril(np.ones((length, length), bool)), np.eye(length, dtype=bool)
    visible = graph("And", graph.constant(earlier), graph("Cast", there, to=TensorProto.BOOL))
    hidden = graph("Not", graph("Or", visible, graph.constant(itself)))
    for number in range(model.blocks):
        part = {name.removeprefix(f"blocks.{number}."): array for name, array in user.items()}
        state = _block(graph, part, state, hidden, model.heads, (length, model.width))
    last = graph("Gather", _norm(graph, user, "norm", state), graph.constant(length - 1), axis=0)
    return _ranked(graph, table, towers.vectors, towers.bias, last)


def _block(graph: Graph, part: Mapping[str, Array], state: str, hidden: str, heads: int, shape: tuple[int, int]) -> str:
    """One block of attention, over all places."""
    length, width = shape
    each = width // heads
    normed = _norm(graph, part, "before_attention", state)

    def split(name: str, rows: slice) -> str:
        """A linear map, and its numbers by heads."""
        some = {f"{name}.weight": part[f"{name}.weight"][rows], f"{name}.bias": part[f"{name}.bias"][rows]}
        said = graph("Reshape", _linear(graph, some, name, normed), graph.constant([length, heads, each]))
        return graph("Transpose", said, perm=[1, 0, 2])

    wanted = split("wanted", slice(None))
    offered, values = split("offered", slice(width)), split("offered", slice(width, None))
    alike = graph("MatMul", wanted, graph("Transpose", offered, perm=[0, 2, 1]))
    alike = graph("Mul", alike, graph.constant(np.float32(each**-0.5)))
    alike = graph("Where", hidden, graph.constant(np.float32(-np.inf)), alike)
    found = graph("MatMul", graph("Softmax", alike, axis=-1), values)
    found = graph("Reshape", graph("Transpose", found, perm=[1, 0, 2]), graph.constant([length, width]))
    state = graph("Add", state, _linear(graph, part, "mixed", found))
    layers = _norm(graph, part, "before_layers", state)
    layers = _linear(graph, part, "layers.2", graph("Gelu", _linear(graph, part, "layers.0", layers)))
    return graph("Add", state, layers)


def _pooled(model: Any, graph: Graph) -> NDArray[np.float32]:
    towers = model.towers()
    table, (ids, there) = graph.table(towers.vectors), _latest(graph, model.recent)
    kept = float(1 / (1 + np.exp(-towers.user["fading"][0])))
    fading = kept ** np.arange(model.recent - 1, -1, -1)
    weights = graph("Mul", there, graph.constant(fading.astype(np.float32)))
    weighted = graph("Mul", table.rows(ids), _column(graph, weights))
    in_all = graph("Max", graph("ReduceSum", weights, keepdims=0), graph.constant(np.float32(1e-6)))
    pooled = graph("Div", graph("ReduceSum", weighted, graph.constant([0]), keepdims=1), in_all)
    layers = _norm(graph, towers.user, "layers.0", pooled)
    layers = _linear(graph, towers.user, "layers.3", graph("Gelu", _linear(graph, towers.user, "layers.1", layers)))
    user = _norm(graph, towers.user, "norm", graph("Add", pooled, layers))
    return _ranked(graph, table, towers.vectors, towers.bias, graph("Reshape", user, graph.constant([-1])))


_FORMS: dict[str, Callable[[Any, Graph], NDArray[np.float32] | None]] = {
    "ItemPop": _popular,
    "ItemKnn": _neighbours,
    "Ease": _ease,
    "PrivateEase": _private_ease,
    "MatrixFactorisation": _factors,
    "PrivateMf": _private_factors,
    "Autoencoder": _autoencoder,
    "SasRec": _attentive,
    "SasRecOverText": _attentive,
    "TwoTower": _pooled,
    "TunedEncoder": _pooled,
}


class _Places:
    """A history of any length, with one place before it at which there is nothing, so that it is never empty."""

    def __init__(self, graph: Graph, items: int) -> None:
        self._graph, nothing = graph, graph.constant([-1])
        read = graph("Concat", nothing, INPUT, axis=0)
        there = graph("GreaterOrEqual", read, graph.constant(0))
        self.ids = graph("Max", read, graph.constant(0))
        length, one = graph("Size", read), graph.constant(1)
        numbers = graph("Range", graph.constant(0), length, one)
        ages = graph("Sub", graph("Sub", length, one), numbers)
        self.ages = graph("Cast", ages, to=TensorProto.FLOAT)
        self.there = graph("Cast", there, to=TensorProto.FLOAT)
        value = helper.make_tensor("value", TensorProto.INT64, [1], [-1])
        nowhere = graph("ConstantOfShape", graph.constant([items]), value=value)
        taken = graph("Where", there, numbers, graph.constant(-1))
        last = graph("ScatterElements", nowhere, self.ids, taken, axis=0, reduction="max")
        newest = graph("And", there, graph("Equal", graph("Gather", last, self.ids), numbers))
        self.newest = graph("Cast", newest, to=TensorProto.FLOAT)
        """1 where an item is taken for the last time"""

    def faded(self, reach: float, floor: float) -> str:
        """What each place counts, if only the last time counts that an item is taken."""
        if not reach:
            return self.newest
        left = self.power(float(np.exp(-1 / reach)))
        scaled = self._graph("Mul", left, self._graph.constant(np.float32(1 - floor)))
        return self._graph("Mul", self.newest, self._graph("Add", scaled, self._graph.constant(np.float32(floor))))

    def power(self, base: float) -> str:
        """The base to the power of each place's age."""
        return self._graph("Exp", self._graph("Mul", self.ages, self._graph.constant(np.float32(np.log(base)))))


class _Known:
    """Which of all items take part in a matrix between items, and where in it they stand."""

    def __init__(self, graph: Graph, part: Array, items: int) -> None:
        self._graph, self._all = graph, len(part) == items
        known, rows, columns = np.zeros(items, bool), np.zeros(items, np.int64), np.full(items, len(part), np.int64)
        known[part], rows[part], columns[part] = True, np.arange(len(part)), np.arange(len(part))
        self.takes_part, self._rows, self._columns = graph.constant(known), rows, columns

    def chosen(self, places: _Places, counted: str, table: Table) -> tuple[str, str]:
        """What each place of the history counts, which is nothing if its item takes no part; and its item's row."""
        if self._all:
            return counted, table.rows(places.ids)
        graph = self._graph
        takes_part = graph("Cast", graph("Gather", self.takes_part, places.ids), to=TensorProto.FLOAT)
        rows = table.rows(graph("Gather", graph.constant(self._rows), places.ids))
        return graph("Mul", counted, takes_part), rows

    def spread(self, own: str, others: str, *, axis: int) -> str:
        """Numbers of the items that take part, along an axis, and those of all others."""
        if self._all:
            return own
        graph = self._graph
        pads = graph.constant([0] * (2 * axis + 1) + [1])
        padded = graph("Pad", own, pads, graph.constant(np.float32(0)))
        everywhere = graph("Gather", padded, graph.constant(self._columns), axis=axis)
        return graph("Where", self.takes_part, everywhere, others)


def _ranked(graph: Graph, table: Table, items: Array, bias: Array, user: str) -> NDArray[np.float32]:
    """Scores that are products of a user's vector and items' vectors, and a number for each item."""
    graph.output(SCORES, graph("Add", table.times(user), graph.numbers(bias)), [len(items)])
    graph.output(USER, graph("Concat", user, graph.constant(np.ones(1, np.float32)), axis=0), [items.shape[1] + 1])
    return np.column_stack([items, bias]).astype(np.float32)


def _shares(graph: Graph, places: _Places, recency: Any, *, featured: bool) -> str:
    """What each place counts in private EASE, all together 1, or 0 where there is no history."""
    if recency is None:
        counted = places.newest
    else:
        floor = float(recency.of_history(np.array([1 << 40]), featured=featured)[0])
        counted = places.faded(recency.history, floor)
    in_all = graph("ReduceSum", counted, keepdims=0)
    return graph("Div", counted, graph("Max", in_all, graph.constant(np.float32(1e-12))))


def _latest(graph: Graph, recent: int) -> tuple[str, str]:
    """So many of the latest items, filled up with the first item at the front, and 1 where one of the history is."""
    shown = graph("Slice", INPUT, graph.constant([-recent]), graph.constant([_LAST]), graph.constant([0]))
    missing = graph("Sub", graph.constant([recent]), graph("Shape", shown))
    padded = graph("Pad", shown, graph("Concat", missing, graph.constant([0]), axis=0), graph.constant(-1))
    padded = graph("Reshape", padded, graph.constant([recent]))
    there = graph("GreaterOrEqual", padded, graph.constant(0))
    return graph("Max", padded, graph.constant(0)), graph("Cast", there, to=TensorProto.FLOAT)


def _ridge(graph: Graph, rows: str, weights: str, common: Array) -> str:
    """(sum of weight row row' + common)^-1 sum of weight row: elimination in double precision, unknown by unknown.

    The matrix is symmetric and positive, so no pivot is looked for.
    """
    unknowns = len(common)
    if unknowns > _MOST_UNKNOWNS:
        raise UsageError(f"a factor has at most {_MOST_UNKNOWNS} numbers on a device, and here {unknowns}")
    rows, weights = (graph("Cast", one, to=TensorProto.DOUBLE) for one in (rows, weights))
    weighted = graph("Mul", rows, _column(graph, weights))
    square = graph("MatMul", graph("Transpose", weighted), rows)
    square = graph("Add", square, graph.constant(common.astype(np.float64)))
    right = _column(graph, graph("ReduceSum", weighted, graph.constant([0]), keepdims=0))
    left, columns, first, second = graph("Concat", square, right, axis=1), [1], [0], [1]
    for number in range(unknowns):
        row = graph("Slice", left, graph.constant([number]), graph.constant([number + 1]), graph.constant([0]))
        pivot, rest = (
            graph("Slice", row, *map(graph.constant, place))
            for place in ((first, second, columns), (second, [_LAST], columns))
        )
        column, others = (
            graph("Slice", left, *map(graph.constant, place))
            for place in ((first, second, columns), (second, [_LAST], columns))
        )
        unit = np.zeros((unknowns, 1))
        unit[number] = 1
        taken = graph("MatMul", graph("Sub", column, graph.constant(unit)), graph("Div", rest, pivot))
        left = graph("Sub", others, taken)
    return graph("Reshape", graph("Cast", left, to=TensorProto.FLOAT), graph.constant([unknowns]))


def _linear(graph: Graph, part: Mapping[str, Array], name: str, rows: str) -> str:
    return graph(
        "Add",
        graph("MatMul", rows, graph.matrix(np.ascontiguousarray(part[f"{name}.weight"].T))),
        graph.constant(part[f"{name}.bias"]),
    )


def _norm(graph: Graph, part: Mapping[str, Array], name: str, rows: str) -> str:
    scale, bias = (graph.constant(part[f"{name}.{one}"]) for one in ("weight", "bias"))
    return graph("LayerNormalization", rows, scale, bias, epsilon=_NORM)


def _sum_of_rows(graph: Graph, vector: str, rows: str) -> str:
    """Rows of a matrix, each as often as a vector says."""
    one = graph("Unsqueeze", vector, graph.constant([0]))
    return graph("Squeeze", graph("MatMul", one, rows), graph.constant([0]))


def _column(graph: Graph, vector: str) -> str:
    return graph("Unsqueeze", vector, graph.constant([1]))
