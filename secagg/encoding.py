"""The encoding of a client's float update as bounded integers, and of the integers' sum as floats again.

    finite check -> sketch (optional) -> clip L2 -> rotate (optional) -> scale -> clip coordinates -> round -> weigh

A sketch (``secagg.sketches``) is a public linear map to fewer coordinates. It comes first, so what is clipped,
measured and summed is what travels. Rounding (``secagg.rounding``) draws from a CSPRNG and is unbiased, to within
2^-32 of a unit; decoding inverts scale and rotation exactly, so what is lost is lost by the sketch and by rounding.
The class alone knows clip and scale, hence how far one client can move the sum (``sensitivity``) and how wide the ring
must be (``ring_bits``). Rounding can only lengthen a vector so much: a result that is longer than ``sensitivity``
says, measured in exact integers, is thrown away and rounded anew (Kairouz, Liu and Steinke 2021, "The Distributed
Discrete Gaussian Mechanism", Algorithm 1: conditional rounding, with its parameter ``beta``).

A client is one unit, or a silo of many users that adds up one such vector for each of them: what is bounded, and
measured in integers, is each user's vector, so that one user moves the sum by no more than a device would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cache
from itertools import repeat
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secagg import rounding
from secagg.codec import Codec, boolean, enumeration, optional, positive, rational, struct, u8, u16, u32, u64
from secagg.coins import among_others, poisson_sample
from secagg.crypto.prg import Prg, Rng, random_into
from secagg.crypto.ring import Ring
from secagg.errors import UsageError
from secagg.rounding import PART, Integers
from secagg.sketches import SKETCH, Linear, LowRank, Ranges, Sketch

MAX_LENGTH = 1 << 34
_SMALLEST_CLIP, _LARGEST_CLIP = 1e-100, 1e100  # products and squares of them are still numbers
_TYPES = (np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64))
_LARGEST_RATIO = 2.0**64
_LARGEST_BETA, _LARGEST_DENOMINATOR = Fraction(9, 10), (1 << 64) - 1
_MOST_USERS, _MOST_OVERLAP = (1 << 31) - 1, (1 << 16) - 1
_LEAST_STEPS = 100  # nearest rounding: the clip in steps of the grid, over the root of the number of coordinates
_ROUNDINGS = 1000  # at most; that none of them fits has probability below 2^-150
_FEW_BITS = 8
_LARGEST_RESIDUAL = float(np.finfo(np.float32).max)
_ROTATION_TAIL = 40
"""A rotated coordinate exceeds the bound that ``Encoding`` derives for it with probability below 2^-40 per vector."""


class Rounding(StrEnum):
    """How a scaled coordinate becomes an integer."""

    STOCHASTIC = "stochastic"
    """up or down by lot, unbiased: coarse grids are enough, each coordinate costs a random word"""
    NEAREST = "nearest"
    """to the nearest integer, without randomness: for vectors so wide that random words are what costs"""
    EXACT = "exact"
    """not at all, for vectors of whole numbers on the grid, such as counts: what is none, or too long, becomes zeros"""

    @classmethod
    def _missing_(cls, value: object) -> Rounding:
        raise UsageError(f"rounding is stochastic, nearest or exact, not {value!r}")


class UserVectors(Protocol):
    """One float vector for each user of a silo: a list, a two-dimensional array, or an object that makes them lazily.

    Whatever is done to make them must not fail for some users' data: a silo that falls silent says so.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ArrayLike]: ...


@runtime_checkable
class ChosenVectors(UserVectors, Protocol):
    """Vectors that are made when they are asked for, and not for all users where a sum adds a sample of them.

    Making one must take the same time for each user: who else is asked for beside the sample follows from lots.
    """

    def of(self, users: NDArray[np.int64]) -> Iterator[ArrayLike]:
        """The vectors of these users, in this order."""


Residual: TypeAlias = NDArray[np.float32]
"""What is left of a client's earlier vectors, as long as one of them."""


@runtime_checkable
class NamedVectors(UserVectors, Protocol):
    """Vectors of users who have names, in the same order: with these a silo finds each one's residual again."""

    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What one round's public seed draws, and room for a vector that is rotated."""

    linear: Linear | None
    signs: NDArray[np.uint8] | None
    room: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class _Bounded:
    """A vector that is to be rounded, times a factor; what travels, before the clip; and all, before the sketch."""

    vector: NDArray[Any]
    factor: float
    sent: NDArray[Any]
    whole: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Sum:
    """The result of a round: the weighted sum of the clipped updates, and the sum of the weights.

    The weight is 0 if weights are summed and nobody had anything to contribute. Where clients are silos it is the
    number of silos: how many users they have stays with them.
    """

    vector: NDArray[np.float64]
    weight: int


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The most by which one unit, a client or a user of silos, can move the sum of integers: in the L1 norm, and in the
    squared L2 norm."""

    l1: int
    l2_squared: int


@dataclass(frozen=True, slots=True)
class Encoding:
    """``length`` floats of L2 norm at most ``clip_l2`` become signed integers of ``bits`` bits.

    Of 1 bit they are -1 or 1, by lot: there is no zero among them, so a sum with noise is not made of these.
    With a ``sketch`` less than all coordinates travel, and it is that part of the vector whose norm is clipped.
    With ``feedback`` a client adds to its vector what the sketch has left out of its earlier ones, or without a sketch
    what rounding has lost of them: its residual, which it keeps. Nothing is multiplied in ``decode`` then.
    ``clip_inf`` bounds single coordinates (default: what ``clip_l2`` implies; much less after a rotation, which
    spreads a vector evenly). With ``weight_bound`` above 1 a client contributes (w*x, w) for a weight w of its own,
    from 1 to that bound, or (0, 0) if it has nothing to contribute.
    ``beta`` above 0 makes the sensitivity smaller: rounding is repeated until it stays within a norm that it exceeds
    with probability at most ``beta``, which biases it a little. 0 is the worst case.

    With ``users`` above 0 a client is a silo, which adds up one vector for each of its users, ``users`` of them at most
    (``encode_users``); the ring holds that many of every client. One person's data may lie in ``overlap`` silos: their
    parts of one sum add up before they are squared, so the squared norm is ``overlap``^2 times that of one.
    With ``sampled`` below 1 each user is in a sum with that probability, by a secret coin of its own that its silo
    tosses anew for each sum; nobody is in several silos then, where there would be several coins.
    ``rounding`` "nearest" wants a fine grid, 100 steps times the root of the number of coordinates within ``clip_l2``.
    With "exact" nothing is clipped: a vector of which a coordinate times ``scale`` is not whole or too large, or of
    which the squared norm, measured in integers, is above (scale * clip_l2)^2, contributes zeros.

    >>> encoding = Encoding(length=3, clip_l2=1.0, bits=16)
    >>> values = encoding.encode([0.5, -0.25, 3.0], weight=1, seed=bytes(32), rng=__import__("os").urandom)
    >>> encoding.decode(values, count=1, seed=bytes(32)).vector.round(3).tolist()
    [0.164, -0.082, 0.983]
    >>> encoding.ring_bits(1024)
    26
    >>> silos = Encoding(length=3, clip_l2=1.0, bits=16, users=200, overlap=2)
    >>> silos.sensitivity().l2_squared == 4 * encoding.sensitivity().l2_squared, silos.ring_bits(20)
    (True, 28)
    """

    length: int
    clip_l2: float
    bits: int = 16
    rotate: bool = False
    clip_inf: float = 0.0
    weight_bound: int = 1
    beta: Fraction = Fraction(0)
    users: int = 0
    overlap: int = 1
    rounding: Rounding = Rounding.STOCHASTIC
    sampled: Fraction = Fraction(1)
    sketch: Sketch | None = None
    feedback: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.length <= MAX_LENGTH:
            raise UsageError(f"a vector has 1 to {MAX_LENGTH} coordinates, not {self.length}")
        if not 1 <= self.bits <= 32:
            raise UsageError(f"a coordinate has 1 to 32 bits, not {self.bits}")
        if self.sketch is not None and not isinstance(self.sketch, Sketch):
            raise UsageError(f"{self.sketch!r} is no sketch")
        if not self._sent:  # which asks the sketch
            raise UsageError("a sketch leaves something of a vector")
        if not 1 <= self.weight_bound < 1 << 31:
            raise UsageError(f"weight_bound must be between 1 and 2^31 - 1, not {self.weight_bound}")
        if not 0 <= self.beta <= _LARGEST_BETA or Fraction(self.beta).denominator > _LARGEST_DENOMINATOR:
            raise UsageError(f"beta must be a fraction of 64-bit terms between 0 and {_LARGEST_BETA}")
        if not _SMALLEST_CLIP <= self.clip_l2 <= _LARGEST_CLIP:
            raise UsageError(f"clip_l2 must be between {_SMALLEST_CLIP} and {_LARGEST_CLIP}")
        if self.clip_inf == 0:
            object.__setattr__(self, "clip_inf", self._implied_bound())
        if not _SMALLEST_CLIP <= self.clip_inf <= _LARGEST_CLIP:
            raise UsageError(
                f"clip_inf must be between {_SMALLEST_CLIP} and {_LARGEST_CLIP}, or 0 for what clip_l2 implies"
            )
        if self.clip_l2 / self.clip_inf > _LARGEST_RATIO:
            raise UsageError(f"clip_l2 is at most 2^64 times clip_inf, not {self.clip_l2 / self.clip_inf:g} times")
        if not 0 <= self.users <= _MOST_USERS:
            raise UsageError(f"a silo has at most {_MOST_USERS} users, not {self.users}")
        if not 1 <= self.overlap <= _MOST_OVERLAP:
            raise UsageError(f"a user is in 1 to {_MOST_OVERLAP} silos, not {self.overlap}")
        if self.users and self.weight_bound > 1:
            raise UsageError("users inside silos have no weights: each contributes one bounded vector")
        if self.overlap > 1 and not self.users:
            raise UsageError("only users of silos can be in more than one of them")
        self._check_sampled()
        object.__setattr__(self, "rounding", Rounding(self.rounding))
        if self.rounding is Rounding.NEAREST:
            self._check_grid()
        if self.rounding is Rounding.EXACT:
            self._check_exact()
        if self.bits == 1 and (self.rounding is not Rounding.STOCHASTIC or self.beta):
            raise UsageError("one bit is drawn by lot, once: rounding is stochastic, and there is no beta")
        if self.bits == 1 and self.users:
            raise UsageError("sums of one bit show how many users silos have: take 2 bits")
        if self.feedback:
            self._check_feedback()
        object.__setattr__(self, "beta", Fraction(self.beta))
        object.__setattr__(self, "clip_l2", float(self.clip_l2))
        object.__setattr__(self, "clip_inf", float(self.clip_inf))
        object.__setattr__(self, "sampled", Fraction(self.sampled))

    def _check_sampled(self) -> None:
        if not 0 < self.sampled <= 1 or Fraction(self.sampled).denominator > _LARGEST_DENOMINATOR:
            raise UsageError("sampled is a fraction of 64-bit terms above 0 and at most 1")
        if self.sampled < 1 and not self.users:
            raise UsageError("only users of silos can be sampled in secret: all parties know which clients take part")
        if self.sampled < 1 and self.overlap > 1:
            raise UsageError("a user in several silos would have several coins: sampled is 1 then")

    def _check_grid(self) -> None:
        """Nearest rounding moves a vector by up to half the root of its width: that must be little, and has no beta."""
        steps = Fraction(self.scale) * Fraction(self.clip_l2)
        if steps**2 < _LEAST_STEPS**2 * self._width:
            raise UsageError(
                f"nearest rounding wants a clip_l2 of {_LEAST_STEPS} * sqrt({self._width}) steps of the grid or more, "
                f"not {float(steps):.0f}: take more bits"
            )
        if self.beta:
            raise UsageError("nearest rounding draws no lots, so it has no beta")

    def _check_exact(self) -> None:
        if self.rotate or self.beta:
            raise UsageError("what is exact is neither rotated nor rounded by lot, so it has no beta")
        if isinstance(self.sketch, LowRank):
            raise UsageError("products with a random matrix are no whole numbers: they are not exact")
        if not self._longest():
            raise UsageError("clip_l2 is below one step of the grid: no exact vector but zeros would fit")

    def _check_feedback(self) -> None:
        if isinstance(self.sketch, Ranges) or self.rounding is Rounding.EXACT:
            raise UsageError("what is frozen is not sent later, and of what is exact nothing is lost: no feedback")
        if self.sketch is None and self.bits > _FEW_BITS:
            raise UsageError(f"feedback is for what a sketch loses, or {_FEW_BITS} bits or fewer, not {self.bits} bits")
        if self.sampled < 1:
            raise UsageError("users who are sampled have no feedback: what is kept would follow from their coins")

    @classmethod
    def integers(cls, length: int, bits: int = 16, weight_bound: int = 1, l2_squared: int = 0) -> Encoding:
        """For vectors that are integers of ``bits`` bits already, of a squared norm up to ``l2_squared``, if it is not
        0: scale 1, nothing rounded, nothing clipped, nothing lost. What is no such vector becomes zeros.

        >>> counts = Encoding.integers(4, bits=2, l2_squared=3)
        >>> counts.scale, counts.sensitivity(), counts.ring_bits(20)
        (1.0, Sensitivity(l1=3, l2_squared=3), 6)
        >>> [counts.encode(x, weight=1, seed=b"", rng=bytes).tolist() for x in ([1, 0, 1, 1], [1, 1, 1, 1])]
        [[1, 0, 1, 1], [0, 0, 0, 0]]
        """
        if l2_squared < 0:
            raise UsageError(f"a squared norm is not {l2_squared}")
        largest = cls(length, clip_l2=1.0, bits=bits).largest
        return cls(
            length,
            clip_l2=clip_for(l2_squared or largest**2 * length),
            bits=bits,
            clip_inf=float(largest),
            weight_bound=weight_bound,
            rounding=Rounding.EXACT,
        )

    def _implied_bound(self) -> float:
        if not self.rotate:
            return self.clip_l2
        spread = math.sqrt(2 * math.log(2 * self._width * 2.0**_ROTATION_TAIL) / self._width)  # Hoeffding
        return self.clip_l2 * min(1.0, spread)

    @property
    def _sent(self) -> int:
        """The number of coordinates after the sketch."""
        return self.length if self.sketch is None else self.sketch.width(self.length)

    @property
    def _width(self) -> int:
        """The number of coordinates after rotation, which needs a power of two."""
        return 1 << (self._sent - 1).bit_length() if self.rotate else self._sent

    @property
    def coordinates(self) -> int:
        """The number of integers that a client contributes: the vector, and its weight if it has one."""
        return self._width + (self.weight_bound > 1)

    @property
    def largest(self) -> int:
        """The largest magnitude of an unweighted coordinate."""
        return max((1 << (self.bits - 1)) - 1, 1)

    @property
    def dtype(self) -> np.dtype[np.signedinteger[Any]]:
        """The narrowest type of signed integers that holds what one client contributes.

        >>> Encoding(3, clip_l2=1.0, bits=16).dtype, Encoding(3, clip_l2=1.0, bits=16, weight_bound=2).dtype
        (dtype('int16'), dtype('int32'))
        """
        largest = max(self.users, 1) * self.weight_bound * self.largest
        return next(one for one in _TYPES if largest < 1 << (8 * one.itemsize - 1))

    @property
    def scale(self) -> float:
        return self.largest / self.clip_inf

    def encode(
        self, update: ArrayLike | None, *, weight: int, seed: bytes, rng: Rng, residual: Residual | None = None
    ) -> NDArray[np.int64]:
        """This client's integers. ``seed`` is public and fixes sketch and rotation; ``rng`` is private and rounds.

        No weight is refused, since a refusal would tell it: the nearest one that is allowed counts. Without an update
        all integers are zero, that of the weight included. Of one bit without weights they are then drawn, as those of
        a vector of zeros are: sums of -1 and 1 would else be even or odd by who had an update.
        """
        values = np.empty(self.coordinates, np.int64)
        self.encode_into(update, values, weight=weight, seed=seed, rng=rng, residual=residual)
        return values

    @np.errstate(all="ignore")  # if numpy raised for an underflow, the error would tell something of the data
    def encode_into(
        self,
        update: ArrayLike | None,
        values: Integers,
        *,
        weight: int,
        seed: bytes,
        rng: Rng,
        residual: Residual | None = None,
    ) -> None:
        """``encode``, written into ``values``: one for each of ``coordinates``, of ``dtype`` or a wider type.

        With ``feedback`` there is a ``residual``, zeros in the beginning, which is added to the update, and overwritten
        with what is left of both: after an error it stays what it was. Without an update there is none.

        No integer wraps there, nor in a ring that ``check_ring`` accepts: its magnitude is at most that of the largest
        unweighted coordinate times ``weight_bound``, whatever the update is. After an error all are zero.

        >>> encoding = Encoding(length=3, clip_l2=1.0, bits=16)
        >>> values = np.empty(3, encoding.dtype)
        >>> encoding.encode_into([0.0, 1.0, 0.0], values, weight=1, seed=bytes(32), rng=__import__("os").urandom)
        >>> values.tolist()
        [0, 32767, 0]
        """
        self._check_room(values)
        done = False
        try:
            if update is not None:
                self._check_residuals(residual if residual is None else [residual], 1)
                self._encode(self._checked(update), values, self._admitted(weight), self._drawn_at(seed), rng, residual)
                done = True
            elif self.bits == 1 and self.weight_bound == 1:
                self._drawn(np.zeros(self._width), 1.0, rng, values, 1)
                done = True
        finally:
            if not done:
                values[:] = 0

    def _encode(
        self, vector: NDArray[Any], values: Integers, weight: int, drawn: _Drawn, rng: Rng, residual: Residual | None
    ) -> None:
        found = self._bounded(vector, drawn, residual)
        if found is None:
            raise UsageError("an update holds NaN or infinite values")
        values[self._width :] = weight
        integers = values[: self._width]
        if not self._round(found.vector, found.factor, rng, self._longest(), integers, weight):
            if self.rounding is Rounding.STOCHASTIC:
                raise UsageError("rounding does not get shorter than the sensitivity: beta is too large for this rng")
            integers[:] = 0
        if residual is not None:
            residual[:] = self._left(found, integers // weight, drawn)

    def _drawn_at(self, seed: bytes) -> _Drawn:
        linear = None if self.sketch is None else self.sketch.at(self.length, seed)
        if not self.rotate:
            return _Drawn(linear, None, None)
        return _Drawn(linear, _signs(seed, self._width), np.empty(self._width))

    def _check_room(self, values: Integers) -> None:
        if values.shape != (self.coordinates,) or not values.flags.carray or values.dtype not in _TYPES:
            raise UsageError(f"an encoded vector is {self.coordinates} signed integers of 16 to 64 bits")
        if values.itemsize < self.dtype.itemsize:
            raise UsageError(f"what is encoded does not fit into {values.dtype}, but into {self.dtype}")

    @np.errstate(all="ignore")
    def encode_users(
        self, vectors: UserVectors, *, seed: bytes, rng: Rng, residuals: Sequence[Residual] | None = None
    ) -> NDArray[np.int64]:
        """A silo's integers: the sum of one bounded vector for each of its users, or of those in a sample.

        ``rng`` tosses the coins of a sample, once, and rounds. What is made, encoded and added up in vain beside the
        sample does not follow from the coins (``ChosenVectors`` are made for some of the users, all others for all).

        More than ``users`` are refused before anything is read. Whatever else is wrong with a user's vector, that it is
        not finite, or none at all, makes it zero: a refusal would tell something about the user.

        With ``feedback`` there is one of ``residuals`` for each user, in their order, as ``encode_into`` has one. The
        residual of a user whose vector becomes zero stays what it was.

        >>> encoding = Encoding(length=2, clip_l2=1.0, bits=16, clip_inf=1.0, users=3)
        >>> vectors = [[0.5, 0.0], [30.0, 40.0], [float("nan"), 0.0]]
        >>> values = encoding.encode_users(vectors, seed=bytes(32), rng=__import__("os").urandom)
        >>> encoding.decode(values, count=1, seed=bytes(32)).vector.round(3).tolist()
        [1.1, 0.8]
        """
        if not self.users:
            raise UsageError("the clients of this encoding are no silos: encode takes their vectors")
        if (count := len(vectors)) > self.users:
            raise UsageError(f"a silo has at most {self.users} users, this one has more")
        if isinstance(vectors, np.ndarray) and vectors.shape != (count, self.length):
            raise UsageError(f"users' vectors are rows of {self.length} numbers each")
        self._check_residuals(residuals, count)
        drawn, longest = cache(lambda: self._drawn_at(seed)), self._longest()
        totals = np.zeros((1 + (self.sampled < 1), self.coordinates), np.int64)  # the last one is the silo's
        integers = np.empty(self.coordinates, np.int32)
        of_each = repeat(None) if residuals is None else residuals
        for (is_in, given), residual in zip(self._tossed(vectors, count, rng), of_each, strict=False):
            if (found := self._admissible(given, drawn, residual)) is None:
                continue
            if self._round(found.vector, found.factor, rng, longest, integers):
                rounding.add(integers, totals[-1 if is_in else 0])
                if residual is not None:
                    residual[:] = self._left(found, integers, drawn())
        silo: NDArray[np.int64] = totals[-1]
        return silo.copy() if self.sampled < 1 else silo

    def _tossed(self, vectors: UserVectors, count: int, rng: Rng) -> Iterator[tuple[bool, ArrayLike]]:
        """Users' vectors, no more than there are said to be, and whether each of them is in the sum."""
        if self.sampled < 1 and isinstance(vectors, ChosenVectors):
            places, sampled = among_others(count, self.sampled, rng)
            return zip(sampled.tolist(), vectors.of(places), strict=False)
        coins = np.zeros(count, bool)
        coins[poisson_sample(count, self.sampled, rng)] = True
        return zip(coins.tolist(), vectors, strict=False)

    def _admissible(self, given: ArrayLike, drawn: Callable[[], _Drawn], residual: Residual | None) -> _Bounded | None:
        """What is to be rounded of a user's vector; None if it is not one of finite numbers.

        It is no copy: should somebody write into it meanwhile, what is added are the integers that were checked.
        """
        try:
            return self._bounded(self._checked(given), drawn(), residual)
        except UsageError:
            return None

    def _bounded(self, vector: NDArray[Any], drawn: _Drawn, residual: Residual | None) -> _Bounded | None:
        """What is to be rounded of a vector and its residual; None if the vector is not one of finite numbers."""
        if residual is not None:
            vector = np.add(vector, residual, dtype=np.float64)
        sent = vector
        if drawn.linear is not None:
            if not np.isfinite(vector).all():
                return None
            sent = drawn.linear.apply(vector)
        if (clipped := self._clipped(sent)) is None:
            return None
        to_round, factor = clipped
        if drawn.signs is not None and drawn.room is not None:
            to_round, factor = self._rotated(to_round, factor, drawn.signs, drawn.room)
        return _Bounded(to_round, factor, sent, vector)

    def _left(self, found: _Bounded, integers: NDArray[Any], drawn: _Drawn) -> NDArray[np.float64]:
        """What a sketch has left out of a vector, or without a sketch what rounding it to these integers has lost.

        Rounding is unbiased, and on a coarse grid it loses more than a vector has: kept beside a sketch's loss that
        would only grow with it. What the clip has cut off is kept in neither case: else one very long vector would be
        in a client's sums for good. So what a sketch has sent is forgotten, and what it has left out is clipped, to as
        many times ``clip_l2`` as it is shorter than the vector. Without one no more is left than ``clip_l2`` and the
        rounding error.
        """
        if drawn.linear is not None:
            unsent = found.whole - drawn.linear.lift(np.asarray(found.sent, np.float64), unbiased=False)
            clipped = rounding.shortened(unsent, self.clip_l2 * self.length / self._sent)
            lost = np.zeros(self.length) if clipped is None else np.multiply(*clipped)
        else:
            lost = np.multiply(found.vector, found.factor * self.scale, dtype=np.float64)
            lost -= integers
            lost /= self.scale
            if drawn.signs is not None:
                lost = _hadamard(lost)[: self.length]
                rounding.flip(lost, drawn.signs, lost)
        np.clip(lost, -_LARGEST_RESIDUAL, _LARGEST_RESIDUAL, out=lost)
        return lost

    def _check_residuals(self, residuals: Sequence[Residual] | None, count: int) -> None:
        if self.feedback != (residuals is not None):
            raise UsageError("a client has a residual where the encoding has feedback, and only there")
        for one in residuals or ():
            if one.dtype != np.float32 or one.shape != (self.length,) or not one.flags.carray:
                raise UsageError(f"a residual is {self.length} floats of 32 bits that can be written")
        if residuals is not None and len(residuals) != count:
            raise UsageError(f"{count} users have as many residuals, not {len(residuals)}")

    def _rotated(
        self, vector: NDArray[Any], factor: float, signs: NDArray[np.uint8], room: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """The rotated vector, written into ``room``, times the root of its width, for which the factor makes up."""
        own = room[: self._sent]
        np.copyto(own, vector, casting="unsafe")
        rounding.flip(own, signs, own)
        room[self._sent :] = 0
        rounding.hadamard(room)
        return room, factor / math.sqrt(self._width)

    def decode(self, total: NDArray[np.int64], *, count: int, seed: bytes) -> Sum:
        """The sum of ``count`` clients' integers as a float vector and a total weight.

        What a sketch has left out comes back on average, over what it draws, or as zeros where it draws nothing; with
        feedback as zeros, and in later sums.
        """
        if total.shape != (self.coordinates,):
            raise UsageError(f"a sum has shape ({self.coordinates},), not {total.shape}")
        vector = total[: self._width] / self.scale
        if self.rotate:
            vector = _hadamard(vector)[: self._sent]
            rounding.flip(vector, _signs(seed, self._width), vector)
        if self.sketch is not None:
            vector = self.sketch.at(self.length, seed).lift(vector, unbiased=not self.feedback)
        return Sum(vector, int(total[-1]) if self.weight_bound > 1 else count)

    def ring_bits(self, n: int, noise_bound: int = 0) -> int:
        """The narrowest ring in which n clients' integers, plus noise up to ``noise_bound``, cannot wrap."""
        largest = n * max(self.users, 1) * self.weight_bound * self.largest + noise_bound
        bits = largest.bit_length() + 1
        if bits > 64:
            raise UsageError(f"{n} clients need a ring of {bits} bits, at most 64 are possible")
        return bits

    def check_ring(self, ring: Ring, n: int, noise_bound: int = 0) -> None:
        """Refuse a ring in which the sum could wrap."""
        if ring.bits < (needed := self.ring_bits(n, noise_bound)):
            raise UsageError(f"a ring of {ring.bits} bits is too narrow for {n} clients: {needed} bits are needed")

    def sensitivity(self) -> Sensitivity:
        """How far one client can move the sum, its weight included, or one user through all silos that it is in.

        Integers have |x| <= x^2, so L1 <= L2^2.
        """
        l2_squared = self._longest()
        if self.weight_bound > 1:
            l2_squared = self.weight_bound**2 * (l2_squared + 1)
        l1 = min(math.isqrt(self.coordinates * l2_squared), l2_squared)
        return Sensitivity(self.overlap * l1, self.overlap**2 * l2_squared)

    def _longest(self) -> int:
        """The squared L2 norm that an unweighted vector may have.

        Rounding moves each of d coordinates by less than 1, so c = scale * clip_l2 becomes at most c + sqrt(d). With
        probability 1 - beta its square is at most c^2 + d/4 + sqrt(2 ln(1/beta)) (c + sqrt(d)/2). To the nearest
        integer each moves by at most a half, so c becomes at most c + sqrt(d)/2. What is exact does not move. Signs
        are as long as they are many.
        """
        most = self.largest**2 * self._width
        if self.bits == 1:
            return most
        if self.rounding is Rounding.EXACT:
            return min(math.floor((Fraction(self.scale) * Fraction(self.clip_l2)) ** 2), most)
        clip, root = self.scale * self.clip_l2, math.sqrt(self._width)
        longest = (clip + (root / 2 if self.rounding is Rounding.NEAREST else root)) ** 2
        if self.beta:
            deviation = math.sqrt(2 * math.log(1 / self.beta)) * (clip + root / 2)
            longest = min(longest, clip**2 + self._width / 4 + deviation)
        return min(math.floor(longest), most)

    def _clipped(self, vector: NDArray[Any]) -> tuple[NDArray[Any], float] | None:
        """The vector and the factor that clips it, 1 if it is exact; None if it holds NaN or infinite values."""
        if self.rounding is Rounding.EXACT:
            return (vector, 1.0) if np.isfinite(vector).all() else None
        return rounding.shortened(vector, self.clip_l2)

    def _round(
        self, vector: NDArray[Any], factor: float, rng: Rng, longest: int, values: Integers, weight: int = 1
    ) -> bool:
        """Whether the vector, clipped by the factor, became integers of at most that squared norm, which is checked in
        exact integers, before they are weighted.

        By lot it is tried again. To the nearest integer only an error of floating point makes a vector too long.
        """
        for _ in range(_ROUNDINGS if self.rounding is Rounding.STOCHASTIC else 1):
            norm_squared: float
            if self.rounding is Rounding.EXACT:
                norm_squared = self._copied(vector, values, weight)
            else:
                norm_squared = self._drawn(vector, factor * self.scale, rng, values, weight)
            if norm_squared <= longest:
                return True
        return False

    def _drawn(self, vector: NDArray[Any], factor: float, rng: Rng, values: Integers, weight: int) -> int:
        """Write the integers of one rounding, weighted; the squared norm that they have without their weight."""
        norm_squared = 0
        room = np.empty(0 if self.rounding is Rounding.NEAREST else min(PART, len(vector)), "<u4")
        for start, part in rounding.parts(vector):
            block = values[start : start + len(part)]
            if self.rounding is Rounding.NEAREST:
                norm_squared += rounding.nearest(part, factor, self.largest, block, weight)
            else:
                words = room[: len(part)]
                random_into(rng, words.view(np.uint8))
                rounded = rounding.signs if self.bits == 1 else rounding.stochastic
                norm_squared += rounded(part, factor, self.largest, words, block, weight)
        return norm_squared

    def _copied(self, vector: NDArray[Any], values: Integers, weight: int) -> float:
        """Write the integers that the scaled coordinates are, weighted; the squared norm that they have without their
        weight, or infinity if some are none, or larger than a coordinate may be."""
        norm_squared, exact = 0, True
        for start, part in rounding.parts(vector):
            block = values[start : start + len(part)]
            norm_squared += rounding.nearest(part, self.scale, self.largest, block)
            exact = np.array_equal(np.multiply(part, self.scale, dtype=np.float64), block) and exact
            block *= weight
        return norm_squared if exact else math.inf

    def _admitted(self, weight: float) -> int:
        if not weight > 1:  # which NaN is not
            return 1
        return self.weight_bound if weight >= self.weight_bound else int(weight)

    def _checked(self, update: ArrayLike) -> NDArray[Any]:
        """The update as an array of numbers. One that it is already is not copied, whatever their type."""
        try:
            vector = np.require(update, None if _numbers(update) else np.float64, "E")
        except (TypeError, ValueError, OverflowError):
            raise UsageError("an update is a one-dimensional array of numbers") from None
        if vector.shape != (self.length,):
            raise UsageError(f"an update has shape ({self.length},), not {vector.shape}")
        return vector


def _numbers(update: ArrayLike) -> bool:
    """Whether this is an array of integers or floats."""
    return isinstance(update, np.ndarray) and update.dtype.kind in "biuf"


def clip_for(l2_squared: int) -> float:
    """The ``clip_l2`` that lets vectors of this squared norm through: the smallest float that is no less than its root.

    >>> clip_for(9), Fraction(clip_for(2)) ** 2 >= 2 > Fraction(math.nextafter(clip_for(2), 0)) ** 2
    (3.0, True)
    """
    clip = math.sqrt(l2_squared)
    while Fraction(clip) ** 2 < l2_squared:
        clip = math.nextafter(clip, math.inf)
    return clip


def _signs(seed: bytes, count: int) -> NDArray[np.uint8]:
    """A bit for each coordinate: whether its sign is changed."""
    return np.frombuffer(Prg(seed)(-(-count // 8)), np.uint8)


def _hadamard(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthonormal Walsh-Hadamard transform, its own inverse, in place."""
    rounding.hadamard(vector)
    vector /= math.sqrt(len(vector))
    return vector


ENCODING: Codec[Encoding] = struct(
    Encoding,
    length=u64,
    clip_l2=positive,
    bits=u8,
    rotate=boolean,
    clip_inf=positive,
    weight_bound=u32,
    beta=rational,
    users=u32,
    overlap=u16,
    rounding=enumeration(Rounding),
    sampled=rational,
    sketch=optional(SKETCH),
    feedback=boolean,
)
