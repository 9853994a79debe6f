"""Named arrays and measured values as one vector, and back: what every adapter puts between a model and a plan.

Clients do not sum models. Each sums how far its training moved the model, which is what a norm can bound, and with it
what it measured (a loss, an accuracy). So that the encoding has nothing left to clip, both are bounded here::

    change, shortened to norm `clip`  |  metric / its largest value, clipped to [-1, 1], times its share of the norm

A ``Form`` says which coordinate is what. It travels beside the plan, and ``model`` binds it into the plan, together
with the arrays and all else that a training is ``told`` by the server (configuration, round numbers): clients that were
shown different things are in rounds that cannot be combined. Otherwise a server could tell all but one to learn at the
rate 0, and the sum would be that one's update.

What fails goes in as zeros, so that nobody sees whose training failed: that would tell whose data are unusual. With
noise in the sum one more coordinate counts how many failed; without, a count would name the client to its colluders.
"""

from __future__ import annotations

import math
import struct as packing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocols.plan import RoundPlan
from secagg.codec import Codec, boolean, many, positive, struct, text, u8, u32, u64
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.encoding import Encoding
from secagg.errors import PolicyError, UsageError

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Told: TypeAlias = "bool | int | float | str | bytes | Sequence[Told] | Mapping[str, Any] | None"
"""What a training reads from the server besides the arrays."""

FAILED = "failed"
"""The name of the count of failures among the metrics of a sum: a share of the clients, from 0 to 1."""

METRICS_NORM = 0.25
"""All metrics together are at most this long, in units of ``clip``: with noise they cost the change 3% of accuracy."""
_SUMMED = frozenset(order + kind + size for order in "<>" for kind in "fiu" for size in "248") | {"|b1", "|i1", "|u1"}
_MAX_ARRAYS, _MAX_METRICS, _MAX_DIMENSIONS, _MAX_NAME = 1 << 20, 1 << 12, 64, 1 << 10
_STEP = 2.0**62


@dataclass(frozen=True, slots=True)
class Array:
    """One array of a model; ``dtype`` as numpy writes it, byte order included (``<f4``)."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in _SUMMED:
            raise UsageError(
                f"array {self.name!r} is of type {self.dtype}: only floats, integers and booleans have a sum"
            )
        if any(side < 0 for side in self.shape):
            raise UsageError(f"array {self.name!r} has a negative side")

    @classmethod
    def like(cls, name: str, array: NDArray[Any]) -> Array:
        return cls(name, array.dtype.str, array.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured value; what is beyond ``largest``, on either side, counts as ``largest``."""

    name: str
    largest: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.largest) and self.largest > 0):
            raise UsageError(f"the largest value of metric {self.name!r} is a positive number")
        object.__setattr__(self, "largest", float(self.largest))


@dataclass(frozen=True, slots=True)
class Form:
    """What the coordinates of a round's vector mean.

    ``weight`` names what a client counts by, if ``weight_bound`` is above 1. ``failures`` is for sums with noise, and
    only for these: the last coordinate counts the clients of which something failed.

    >>> old = {"w": np.zeros((2, 2), np.float32), "steps": np.array(10)}
    >>> form = Form.of(old, clip=8.0, metrics={"loss": 10.0})
    >>> new = {"w": np.full((2, 2), 0.5, np.float32), "steps": np.array(12)}
    >>> change = form.change(old, new, {"loss": 2.5})
    >>> change.tolist()
    [0.5, 0.5, 0.5, 0.5, 2.0, 0.5]
    >>> arrays, metrics = form.applied(old, change)
    >>> arrays["w"].tolist(), arrays["w"].dtype.name, int(arrays["steps"]), metrics
    ([[0.5, 0.5], [0.5, 0.5]], 'float32', 12, {'loss': 2.5})
    """

    arrays: tuple[Array, ...]
    clip: float
    bits: int = 16
    metrics: tuple[Metric, ...] = ()
    weight_bound: int = 1
    rotate: bool = False
    weight: str = ""
    failures: bool = False

    def __post_init__(self) -> None:
        if (self.weight_bound > 1) != bool(self.weight):
            raise UsageError("a form that bounds weights says what clients count by, and only such a form")
        if self.failures and any(metric.name == FAILED for metric in self.metrics):
            raise UsageError(f"no metric can be named {FAILED!r} in a sum with noise: failures are counted there")
        for kind, names in (("arrays", [a.name for a in self.arrays]), ("metrics", [m.name for m in self.metrics])):
            if len(set(names)) != len(names):
                raise UsageError(f"two {kind} have the same name")
        object.__setattr__(self, "clip", float(self.clip))
        _ = self.encoding  # refuses what makes no sense

    @classmethod
    def of(
        cls,
        arrays: Arrays,
        *,
        clip: float,
        bits: int = 16,
        metrics: Mapping[str, float] | None = None,
        weight_bound: int = 1,
        rotate: bool = False,
        weight: str = "",
        failures: bool = False,
    ) -> Form:
        """For a model; ``metrics`` are names with their largest values."""
        bounded = tuple(Metric(name, largest) for name, largest in (metrics or {}).items())
        counted_by = weight if weight_bound > 1 else ""
        return cls(_described(arrays), clip, bits, bounded, weight_bound, rotate, counted_by, failures)

    @property
    def size(self) -> int:
        """Coordinates of the model."""
        return sum(array.size for array in self.arrays)

    @property
    def length(self) -> int:
        return self.size + self._measured

    @property
    def clip_l2(self) -> float:
        """How long the vector can be: the change and the metrics together. This is what privacy is calibrated for."""
        return math.hypot(self.clip, METRICS_NORM * self.clip) if self._measured else self.clip

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.length, self.clip_l2, self.bits, self.rotate, weight_bound=self.weight_bound)

    def model(self, arrays: Arrays, told: Told = None) -> bytes:
        """What a plan calls all that a round's trainings start from: this form, the arrays, what else is ``told``."""
        self._check(arrays)
        hashes = [sha256(np.ascontiguousarray(arrays[array.name]).ravel().data).digest() for array in self.arrays]
        return digest(labels.ADAPTER_MODEL, FORM.encode(self), canonical(told), *hashes)

    def check_plan(self, plan: RoundPlan, arrays: Arrays, told: Told = None) -> None:
        """Raise ``PolicyError`` unless the plan is for this form, these arrays and what else this client was told.

        A client asks before it trains. The encoding of a private sum has what ``dp.calibrate`` found (bits, rotation);
        without noise it is the form's.
        """
        if _described(arrays) != self.arrays:
            raise PolicyError("the form is not that of the model")
        ours, theirs = self.encoding, plan.encoding
        private = (theirs.length, theirs.clip_l2, theirs.weight_bound) == (ours.length, ours.clip_l2, ours.weight_bound)
        if not (private if plan.noise is not None else theirs == ours):
            raise PolicyError("the plan's encoding is not that of the form")
        if self.failures != (plan.noise is not None):
            raise PolicyError("failures are counted where there is noise in the sum, and only there")
        if plan.model != self.model(arrays, told):
            raise PolicyError("the plan is for another model, another form, or other words to those who train")

    @np.errstate(all="ignore")  # what overflows is found below; what underflows is nobody's business
    def change(self, old: Arrays, new: Arrays, metrics: Mapping[str, float] | None = None) -> NDArray[np.float64]:
        """What this client puts into the sum. Its arrays may be of other types than the model's, not of other shapes.

        ``UsageError`` for arrays with NaN or infinite values: then ``failed`` goes in. A metric that is ``missing``
        counts as 0, and the arrays count all the same: or a server that asks for what only one client can measure
        would have the sum of that one.
        """
        self._check(old)
        if new.keys() != old.keys() or any(new[array.name].shape != array.shape for array in self.arrays):
            raise UsageError("the trained arrays have other names or shapes than the model")
        vector = np.empty(self.length)
        at = 0
        for array in self.arrays:
            Array.like(array.name, new[array.name])  # refuses types that have no sum
            part = vector[at : at + array.size]
            np.subtract(new[array.name].ravel(), old[array.name].ravel(), out=part, dtype=np.float64)
            at += array.size
        if not np.isfinite(vector[:at]).all():
            raise UsageError("the update holds NaN or infinite values")
        _shorten(vector[:at], self.clip)
        missing = self.missing(metrics or {})
        vector[at:] = 0
        for metric in self.metrics:
            if metric.name not in missing:
                vector[at] = self._scaled(metric, (metrics or {})[metric.name])
            at += 1
        if self.failures and missing:
            vector[-1] = self._share
        return vector

    def missing(self, metrics: Mapping[str, object]) -> list[str]:
        """The names of those metrics that are not there, or no finite numbers."""
        return [metric.name for metric in self.metrics if not _is_number(metrics.get(metric.name))]

    def failed(self) -> NDArray[np.float64] | None:
        """What a client whose training failed puts into the sum: nothing (see ``Client.start``), but for the count."""
        if not self.failures:
            return None
        vector = np.zeros(self.length)
        vector[-1] = self._share
        return vector

    def applied(self, old: Arrays, mean: NDArray[np.float64]) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
        """The model moved by a mean of such vectors, in its own types and shapes, and the mean of each metric."""
        self._check(old)
        if mean.shape != (self.length,):
            raise UsageError(f"a mean has shape ({self.length},), not {mean.shape}")
        moved, at = dict[str, NDArray[Any]](), 0
        for array in self.arrays:
            step = mean[at : at + array.size].reshape(array.shape)
            moved[array.name] = _moved(old[array.name], step)
            at += array.size
        counted = (Metric(FAILED, 1.0),) if self.failures else ()
        values = zip(self.metrics + counted, mean[at:].tolist(), strict=True)
        return moved, {metric.name: value / self._share * metric.largest for metric, value in values}

    def restored(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Arrays that came back from other code, in the types that the model has: a mean of integers is a float."""
        if {name: array.shape for name, array in arrays.items()} != {array.name: array.shape for array in self.arrays}:
            raise UsageError("these arrays have other names or shapes than the model")
        return {
            array.name: _moved(np.zeros(array.shape, array.dtype), arrays[array.name].astype(np.float64))
            if arrays[array.name].dtype.str != array.dtype
            else arrays[array.name]
            for array in self.arrays
        }

    @property
    def _measured(self) -> int:
        """Coordinates of what is measured, failures included."""
        return len(self.metrics) + self.failures

    @property
    def _share(self) -> float:
        return METRICS_NORM * self.clip / math.sqrt(self._measured)

    def _scaled(self, metric: Metric, value: float) -> float:
        return min(max(float(value) / metric.largest, -1.0), 1.0) * self._share

    def _check(self, arrays: Arrays) -> None:
        if _described(arrays) != self.arrays:
            raise UsageError("these arrays are of another form")


def _described(arrays: Arrays) -> tuple[Array, ...]:
    return tuple(Array.like(name, array) for name, array in arrays.items())


_EXACTLY = frozenset({type(None), bool, int, float, str, bytes, list, tuple})


def canonical(told: Told) -> bytes:
    """One encoding for each value, and another for each other: a letter for the type, a length, the contents.

    The order of a mapping does not count (whoever trains must not see it either), that of a sequence does. NaN is equal
    to itself, bit by bit; 1, 1.0 and True are three different values.

    >>> canonical({"rate": 0.5, "steps": 3}) == canonical({"steps": 3, "rate": 0.5})
    True
    >>> len({canonical(value) for value in (1, 1.0, True, "1", b"1", [1], (1,), None, 0.0, -0.0, [], {}, "")})
    13
    """
    if type(told) not in _EXACTLY and not isinstance(told, Mapping):  # a subclass may be read as something else
        raise UsageError(f"what clients are told cannot hold a {type(told).__name__}")
    match told:
        case None:
            kind, body = b"N", b""
        case bool():
            kind, body = b"B", bytes([told])
        case int():
            kind, body = b"I", f"{told:x}".encode()
        case float():
            kind, body = b"F", packing.pack(">d", told)
        case str():
            kind, body = b"S", told.encode("utf-8", "surrogatepass")
        case bytes():
            kind, body = b"Y", bytes(told)
        case Mapping():
            items = sorted((canonical(key), canonical(value)) for key, value in told.items())
            kind, body = b"M", b"".join(key + value for key, value in items)
        case _:
            kind, body = b"T" if isinstance(told, tuple) else b"L", b"".join(canonical(value) for value in told)
    return kind + u64.encode(len(body)) + body


def _is_number(value: object) -> bool:
    try:
        return math.isfinite(float(value))  # type: ignore[arg-type]  # whatever a training reports
    except (TypeError, ValueError, OverflowError):
        return False


def _shorten(vector: NDArray[np.float64], clip: float) -> None:
    """In place, to a norm of at most ``clip``, whose square need not be a number."""
    peak = float(np.abs(vector).max(initial=0.0))
    norm = float(np.sqrt(np.square(vector / peak).sum())) if peak else 0.0
    if peak * norm > clip:
        vector /= peak
        vector *= clip / norm


def _moved(old: NDArray[Any], step: NDArray[np.float64]) -> NDArray[Any]:
    """``old + step`` in the type of ``old``; integers and booleans go to the nearest and stop at their ends."""
    if old.dtype.kind == "f":
        return np.asarray(old + step).astype(old.dtype)
    low, high = (0, 1) if old.dtype.kind == "b" else (np.iinfo(old.dtype).min, np.iinfo(old.dtype).max)
    whole = np.rint(np.clip(step, -_STEP, _STEP)).astype(np.int64).astype(object)
    return np.asarray(np.clip(old.astype(object) + whole, low, high)).astype(old.dtype).reshape(old.shape)


_ARRAY: Codec[Array] = struct(Array, name=text(_MAX_NAME), dtype=text(8), shape=many(u64, _MAX_DIMENSIONS))
_METRIC: Codec[Metric] = struct(Metric, name=text(_MAX_NAME), largest=positive)
FORM: Codec[Form] = struct(
    Form,
    arrays=many(_ARRAY, _MAX_ARRAYS),
    clip=positive,
    bits=u8,
    metrics=many(_METRIC, _MAX_METRICS),
    weight_bound=u32,
    rotate=boolean,
    weight=text(_MAX_NAME),
    failures=boolean,
)
