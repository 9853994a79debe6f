"""Named arrays and measured values as one vector, and back: what every adapter puts between a model and a plan.

Clients do not sum models. Each sums how far its training moved the model, which is what a norm can bound, and with it
what it measured (a loss, an accuracy). So that the encoding has nothing left to clip, both are bounded here::

    change, shortened to norm `clip`  |  metric / its largest value, clipped to [-1, 1], times its share of the norm

A ``Form`` says which coordinate is what. It travels beside the plan. ``Form.model_digest`` binds it into the plan,
together with the arrays and all other ``instructions`` that a training gets from the server (configuration, round
numbers): clients that were told different things are in rounds that cannot be combined. Otherwise a server could tell
all but one to learn at the rate 0, and the sum would be that one's update.

A training that fails contributes zeros (``Form.contribution``), so that nobody sees whose training failed: that would
tell whose data are unusual. With noise in the sum one more coordinate counts how many failed; without noise a count
would name the client to all others together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from logging import Logger
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocols.adapters.instructions import Instructions, canonical_bytes
from protocols.adapters.users import Contributions, Trainings
from protocols.plan import RoundPlan
from secagg.codec import Codec, boolean, many, positive, struct, text, u8, u16, u32, u64
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.encoding import Encoding
from secagg.errors import PolicyError, UsageError

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

FAILED = "failed"
"""The name of the count of failures among the metrics of a sum: a share of the clients, or users, from 0 to 1."""

METRICS_NORM = 0.25
"""All metrics together are at most this long, in units of ``clip``: with noise they cost the change 3% of accuracy."""
_SUMMABLE_TYPES = frozenset(order + kind + size for order in "<>" for kind in "fiu" for size in "248") | {
    "|b1",
    "|i1",
    "|u1",
}
_MAX_ARRAYS, _MAX_METRICS, _MAX_DIMENSIONS, _MAX_NAME = 1 << 20, 1 << 12, 64, 1 << 10
_LARGEST_STEP = 2.0**62


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a model; ``dtype`` as numpy writes it, byte order included (``<f4``)."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in _SUMMABLE_TYPES:
            raise UsageError(
                f"array {self.name!r} is of type {self.dtype}: only floats, integers and booleans have a sum"
            )
        if any(side < 0 for side in self.shape):
            raise UsageError(f"array {self.name!r} has a negative side")

    @classmethod
    def like(cls, name: str, array: NDArray[Any]) -> ArraySpec:
        return cls(name, array.dtype.str, array.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class MetricSpec:
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

    ``weight`` names the metric by which clients are weighted, if ``weight_bound`` is above 1. ``failures`` is for sums
    with noise, and only for these: the last coordinate counts the clients of which something failed.

    ``users`` above 0 is for silos: the most users that one of them has, each of whom contributes a vector of its own,
    and ``overlap`` is in how many silos the data of one person can lie. No weights then: every user counts once.

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

    arrays: tuple[ArraySpec, ...]
    clip: float
    bits: int = 16
    metrics: tuple[MetricSpec, ...] = ()
    weight_bound: int = 1
    rotate: bool = False
    weight: str = ""
    failures: bool = False
    users: int = 0
    overlap: int = 1

    def __post_init__(self) -> None:
        if (self.weight_bound > 1) != bool(self.weight):
            raise UsageError(
                "a form names the metric by which clients are weighted if it bounds weights, and only then"
            )
        if self.failures and any(metric.name == FAILED for metric in self.metrics):
            raise UsageError(f"no metric can be named {FAILED!r} in a sum with noise: failures are counted there")
        for kind, names in (("arrays", [a.name for a in self.arrays]), ("metrics", [m.name for m in self.metrics])):
            if len(set(names)) != len(names):
                raise UsageError(f"two {kind} have the same name")
        if self.bits == 1:
            raise UsageError("a form has 2 bits or more: of one bit a metric would be nothing but lots")
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
        users: int = 0,
        overlap: int = 1,
    ) -> Form:
        """The form for this model; ``metrics`` are names with their largest values."""
        bounded = tuple(MetricSpec(name, largest) for name, largest in (metrics or {}).items())
        weighted_by = weight if weight_bound > 1 else ""
        return cls(_specs_of(arrays), clip, bits, bounded, weight_bound, rotate, weighted_by, failures, users, overlap)

    @property
    def model_length(self) -> int:
        """How many coordinates the model has."""
        return sum(array.size for array in self.arrays)

    @property
    def length(self) -> int:
        """How many coordinates the vector has."""
        return self.model_length + self._metric_count

    @property
    def clip_l2(self) -> float:
        """How long the vector can be: the change and the metrics together. This is what privacy is calibrated for."""
        return math.hypot(self.clip, METRICS_NORM * self.clip) if self._metric_count else self.clip

    @property
    def encoding(self) -> Encoding:
        return Encoding(
            self.length,
            self.clip_l2,
            self.bits,
            self.rotate,
            weight_bound=self.weight_bound,
            users=self.users,
            overlap=self.overlap,
        )

    def model_digest(self, arrays: Arrays, instructions: Instructions = None) -> bytes:
        """The hash of all that a round's trainings start from, for ``RoundPlan.model``."""
        self._check_arrays(arrays)
        hashes = [sha256(np.ascontiguousarray(arrays[array.name]).ravel().data).digest() for array in self.arrays]
        return digest(labels.ADAPTER_MODEL, FORM.encode(self), canonical_bytes(instructions), *hashes)

    def check_plan(
        self, plan: RoundPlan, arrays: Arrays, instructions: Instructions = None, *, weighted_by: str = ""
    ) -> None:
        """Raise ``PolicyError`` unless the plan is for this form, these arrays and these instructions.

        A client asks before it trains. ``weighted_by`` is the one metric by which it lets itself be weighted. The
        encoding of a private sum has what ``dp.calibrate`` found (bits, rotation); without noise it is the form's.
        """
        if self.weight not in ("", weighted_by):
            raise PolicyError("this client is not weighted by the metric that the form names")
        if _specs_of(arrays) != self.arrays:
            raise PolicyError("the form is not that of the model")
        ours, theirs = self.encoding, plan.encoding
        fixed = _what_noise_leaves_alone(theirs) == _what_noise_leaves_alone(ours)
        if not (fixed if plan.noise is not None else theirs == ours):
            raise PolicyError("the plan's encoding is not that of the form")
        if self.failures != (plan.noise is not None):
            raise PolicyError("failures are counted where there is noise in the sum, and only there")
        if plan.model != self.model_digest(arrays, instructions):
            raise PolicyError("the plan is for another model, another form, or other instructions to those who train")

    def check_arrays(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ``PolicyError`` unless the form has arrays of these names and shapes, and no others.

        >>> Form.of({"up": np.zeros((3, 8))}, clip=1.0).check_arrays({"up": (3, 4)})
        Traceback (most recent call last):
        secagg.errors.PolicyError: the model here has other arrays than the round: there 'up' is (3, 8), here (3, 4)
        """
        theirs = {one.name: one.shape for one in self.arrays}
        for name in sorted({**theirs, **shapes}):
            if (asked := theirs.get(name)) != (own := shapes.get(name)):
                raise PolicyError(
                    "the model here has other arrays than the round: "
                    f"there {name!r} is {'nothing' if asked is None else asked}, "
                    f"here {'nothing' if own is None else own}"
                )

    def contribution(
        self, old: Arrays, train: Callable[[], tuple[Arrays, Mapping[str, Any], int]], log: Logger, details: int
    ) -> tuple[NDArray[np.float64] | None, int]:
        """What this client puts into the sum, and its weight, whatever comes of its training.

        ``train`` returns the trained arrays, the metrics and the weight. If it fails, in whatever way, zeros are put
        in: neither its result nor its failure goes any further. The client's log has the kind of the error, and at the
        level ``details`` all of it, which may tell something about the data.
        """
        try:
            new, metrics, weight = train()
            if missing := self.missing_metrics(metrics):
                log.warning("secagg: not measured, or no finite number: %s", ", ".join(missing))
            return self.change(old, new, metrics), weight
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of Rust code, too: nobody but this client may notice
            log.error("secagg: training failed, and counts as nothing: %s", type(error).__name__)
            log.log(details, "secagg: how training failed", exc_info=error)
            return self.failure_vector(), 1

    def contributions(
        self,
        old: Arrays,
        train: Callable[[], Trainings],
        log: Logger,
        details: int,
        interrupted: Callable[[], None] = lambda: None,
    ) -> Contributions | None:
        """What a silo puts into the sum, whatever comes of its users' trainings: one vector for each user.

        A user whose training fails counts as zeros. If ``train`` itself fails, or answers for more users than the form
        allows, the whole silo counts as zeros (None). What fails is only written into the silo's log, as in
        ``contribution``. ``interrupted`` may raise after each training, to end it.
        """
        try:
            trainings = train()
            if trainings.count > self.users:
                raise UsageError(f"a silo has at most {self.users} users, and this one trains for {trainings.count}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of Rust code, too: nobody but this client may notice
            log.error("secagg: training failed, and all users count as nothing: %s", type(error).__name__)
            log.log(details, "secagg: how training failed", exc_info=error)
            return None
        failed = self.failure_vector()
        return Contributions(
            trainings,
            partial(self.change, old),
            np.zeros(self.length) if failed is None else failed,
            self.missing_metrics,
            log,
            details,
            interrupted,
        )

    @np.errstate(all="ignore")  # what overflows is found below, and what underflows does not matter
    def change(self, old: Arrays, new: Arrays, metrics: Mapping[str, float] | None = None) -> NDArray[np.float64]:
        """The vector of a training that worked. Its arrays may be of other types than the model's, not other shapes.

        Raises ``UsageError`` for arrays with NaN or infinite values. A metric that is missing counts as 0, and the
        arrays count all the same: or a server that asks for what only one client can measure would have the sum of
        that one.
        """
        self._check_arrays(old)
        if new.keys() != old.keys() or any(new[array.name].shape != array.shape for array in self.arrays):
            raise UsageError("the trained arrays have other names or shapes than the model")
        vector = np.empty(self.length)
        at = 0
        for array in self.arrays:
            ArraySpec.like(array.name, new[array.name])  # refuses types that have no sum
            part = vector[at : at + array.size]
            np.subtract(new[array.name].ravel(), old[array.name].ravel(), out=part, dtype=np.float64)
            at += array.size
        _clip_norm(vector[:at], self.clip)
        missing = self.missing_metrics(metrics or {})
        vector[at:] = 0
        for metric in self.metrics:
            if metric.name not in missing:
                vector[at] = self._scaled(metric, (metrics or {})[metric.name])
            at += 1
        if self.failures and missing:
            vector[-1] = self._metric_norm
        return vector

    def missing_metrics(self, metrics: Mapping[str, object]) -> list[str]:
        """The names of those metrics that are not there, or no finite numbers."""
        return [metric.name for metric in self.metrics if not _is_number(metrics.get(metric.name))]

    def failure_vector(self) -> NDArray[np.float64] | None:
        """What a client whose training failed puts into the sum: zeros (``Client.start`` takes None for them), but for
        the coordinate that counts failures, if there is one."""
        if not self.failures:
            return None
        vector = np.zeros(self.length)
        vector[-1] = self._metric_norm
        return vector

    def applied(self, old: Arrays, mean: NDArray[np.float64]) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
        """The model moved by a mean of vectors, in its own types and shapes, and the mean of each metric."""
        self._check_arrays(old)
        if mean.shape != (self.length,):
            raise UsageError(f"a mean has shape ({self.length},), not {mean.shape}")
        moved, at = dict[str, NDArray[Any]](), 0
        for array in self.arrays:
            step = mean[at : at + array.size].reshape(array.shape)
            moved[array.name] = _added(old[array.name], step)
            at += array.size
        counted = (MetricSpec(FAILED, 1.0),) if self.failures else ()
        values = zip(self.metrics + counted, mean[at:].tolist(), strict=True)
        return moved, {metric.name: value / self._metric_norm * metric.largest for metric, value in values}

    def restored(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """These arrays in the types that the model has. Averaging code makes floats of integers, for instance."""
        if {name: array.shape for name, array in arrays.items()} != {array.name: array.shape for array in self.arrays}:
            raise UsageError("these arrays have other names or shapes than the model")
        return {
            array.name: _added(np.zeros(array.shape, array.dtype), arrays[array.name].astype(np.float64))
            if arrays[array.name].dtype.str != array.dtype
            else arrays[array.name]
            for array in self.arrays
        }

    @property
    def _metric_count(self) -> int:
        """How many coordinates hold measured values, the count of failures included."""
        return len(self.metrics) + self.failures

    @property
    def _metric_norm(self) -> float:
        """How large the coordinate of one metric can be."""
        return METRICS_NORM * self.clip / math.sqrt(self._metric_count)

    def _scaled(self, metric: MetricSpec, value: float) -> float:
        return min(max(float(value) / metric.largest, -1.0), 1.0) * self._metric_norm

    def _check_arrays(self, arrays: Arrays) -> None:
        if _specs_of(arrays) != self.arrays:
            raise UsageError("these arrays are of another form")


def _specs_of(arrays: Arrays) -> tuple[ArraySpec, ...]:
    return tuple(ArraySpec.like(name, array) for name, array in arrays.items())


def _what_noise_leaves_alone(encoding: Encoding) -> tuple[object, ...]:
    """What of an encoding says how long a client's vector can be, what of it travels, and of whom it is; the rest
    calibration chooses."""
    mine = encoding.length, encoding.clip_l2, encoding.weight_bound, encoding.users, encoding.overlap
    return *mine, encoding.sketch, encoding.feedback


def _is_number(value: object) -> bool:
    try:
        return math.isfinite(float(value))  # type: ignore[arg-type]  # whatever a training reports
    except (TypeError, ValueError, OverflowError):
        return False


def _clip_norm(vector: NDArray[np.float64], clip: float) -> None:
    """Shorten a vector in place to a norm of at most ``clip``, even where the square of its norm overflows.

    What is lost where squares underflow is shorter than the shortest clip of an encoding.
    """
    norm = math.sqrt(np.dot(vector, vector))  # not finite if a coordinate is not
    if norm > clip and math.isfinite(norm):
        vector *= clip / norm
    elif not norm <= clip:
        _clip_long(vector, clip)


def _clip_long(vector: NDArray[np.float64], clip: float) -> None:
    if not np.isfinite(vector).all():
        raise UsageError("the update holds NaN or infinite values")
    vector /= float(np.abs(vector).max())
    vector *= clip / math.sqrt(np.dot(vector, vector))


def _added(old: NDArray[Any], step: NDArray[np.float64]) -> NDArray[Any]:
    """``old + step`` in the type of ``old``; integers and booleans are rounded, and stop at the ends of their range."""
    if old.dtype.kind == "f":
        return np.asarray(old + step).astype(old.dtype)
    low, high = (0, 1) if old.dtype.kind == "b" else (np.iinfo(old.dtype).min, np.iinfo(old.dtype).max)
    whole = np.rint(np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)).astype(np.int64).astype(object)
    return np.asarray(np.clip(old.astype(object) + whole, low, high)).astype(old.dtype).reshape(old.shape)


_ARRAY_SPEC: Codec[ArraySpec] = struct(ArraySpec, name=text(_MAX_NAME), dtype=text(8), shape=many(u64, _MAX_DIMENSIONS))
_METRIC_SPEC: Codec[MetricSpec] = struct(MetricSpec, name=text(_MAX_NAME), largest=positive)
FORM: Codec[Form] = struct(
    Form,
    arrays=many(_ARRAY_SPEC, _MAX_ARRAYS),
    clip=positive,
    bits=u8,
    metrics=many(_METRIC_SPEC, _MAX_METRICS),
    weight_bound=u32,
    rotate=boolean,
    weight=text(_MAX_NAME),
    failures=boolean,
    users=u32,
    overlap=u16,
)
