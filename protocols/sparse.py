"""Sums over a large table of which each client touches a few rows: two ordinary sums instead of one dense one.

    counts   each unit (a client, or a user of a silo) adds 1 to each row that it touches, at most ``cap`` of them
    rows     those that at least ``least`` units touched, as far as the noise lets it be told, are released; then a sum
             of these rows only: each unit's update is restricted to them first, and clipped then

There is no message beside those of the two rounds but the list of released rows, which is bound by its digest into the
second plan, together with the first one. So all clients of the second sum have the same list, and one that was in both
sums knows that the list is said to be of its own. Each sum is planned, journaled, noised and charged like any other.

*Threat model.* With noise in both sums: that of the protocol. The server sees all noised counts, and the second sum is
noised and charged whatever rows it is over, so a server that lies about which rows came out gains nothing that is not
paid for. What is kept by an honest server only is the threshold: "the released rows reached the noised threshold".
Rows that no other unit touched stay out, all of a unit's together, except with probability ``failing``
(``dp.threshold``), as long as no client that lies adds to them: one that does can lift any row over any threshold.
Without noise in the counts the server sees exact ones, those of 1 among them; without noise in the rows one that lied
could ask for the sum of a row that one client touched. So either is for honest clients and a curious server, and a
client that bears it says so (``Policy.exact_counts``). With buckets, counts are those of buckets, and a row is released
if its bucket is: a row that one unit touched comes out beside a popular one.

*Cost.* A client's counts are ``length`` small integers, its second vector has the released rows times ``width``;
nothing has rows times width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from operator import index
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp.calibrate import with_multiplier
from dp.noise import Family, NoiseSpec
from dp.threshold import threshold
from protocols.outcome import RoundOutcome
from protocols.plan import HASH_BYTES, NO_MODEL, RoundPlan
from protocols.policy import Policy
from secagg.codec import Codec, fixed, rational, struct, u32
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.crypto.prg import SEED_BYTES, Prg, Rng, random_words
from secagg.encoding import Encoding, Rounding, clip_for
from secagg.errors import DecodeError, PolicyError, UsageError

_MOST_ROWS, _MOST_CAP = (1 << 32) - 1, 1 << 20
_BITS = range(2, 17)
_WORD, _WORDS = 8, 2  # bytes of a word, and words of a block at which a stream is entered
_TOGETHER = 1 << 20

Unit = TypeVar("Unit")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """``rows`` rows of ``width`` numbers, what they mean, and how touches are counted.

    ``numbering`` is a digest of which row has which number: two parties that number rows differently have different
    catalogues. ``of`` makes it from the rows' ids. A unit counts in at most ``cap`` rows, and rows of fewer than
    ``least`` units stay out. ``failing`` is for counts with noise: the probability, at most, that any of a unit's rows
    comes out which fewer than ``least`` units touched. With ``buckets`` above 0 rows are hashed by ``seed``, which is
    public, into so many buckets, and these are counted.

    >>> catalogue = Catalogue.of(["ale", "beer", "cider", "draught"], width=2, cap=3)
    >>> catalogue.touched([1, 3]).tolist()
    [0, 1, 0, 1]
    >>> int(catalogue.touched([0, 1, 2, 3]).sum())
    3
    >>> catalogue.counts().ring_bits(1000)
    11
    """

    rows: int
    width: int
    numbering: bytes = field(repr=False)
    cap: int = 100
    least: int = 2
    failing: Fraction = Fraction(1, 10**6)
    buckets: int = 0
    seed: bytes = bytes(SEED_BYTES)

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= _MOST_ROWS or not 1 <= self.width < 1 << 32:
            raise UsageError("a catalogue has 1 to 2^32 - 1 rows of as many numbers")
        if len(self.numbering) != HASH_BYTES or len(self.seed) != SEED_BYTES:
            raise UsageError("the digest of a numbering has 32 bytes, and the seed of buckets has 32")
        if not 1 <= self.cap <= min(self.rows, _MOST_CAP):
            raise UsageError(f"a unit counts in 1 to {min(self.rows, _MOST_CAP)} rows, not in {self.cap}")
        if not 2 <= self.least < 1 << 32:
            raise UsageError(f"rows are released that 2 units touched, or more, not {self.least}")
        object.__setattr__(self, "failing", Fraction(self.failing))
        threshold(1, Fraction(1), 1, self.failing)
        if not 0 <= self.buckets < self.rows:
            raise UsageError(f"{self.rows} rows are hashed into fewer buckets, or 0 for none, not into {self.buckets}")

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        width: int,
        *,
        cap: int = 100,
        least: int = 2,
        failing: Fraction = Fraction(1, 10**6),
        buckets: int = 0,
        seed: bytes = bytes(SEED_BYTES),
    ) -> Catalogue:
        """The catalogue whose rows have these ids, in this order."""
        if len(set(ids)) < len(ids):
            raise UsageError("two rows of a catalogue have one id")
        numbering = digest(labels.SPARSE_IDS, *[one.encode() for one in ids])
        return cls(len(ids), width, numbering, cap, least, failing, buckets, seed)

    @property
    def length(self) -> int:
        """How many counts there are."""
        return self.buckets or self.rows

    # Counts

    def counts(self, bits: int = 2, *, users: int = 0, overlap: int = 1, sampled: Fraction | int = 1) -> Encoding:
        """The encoding of the counts: exact integers, of which a unit moves ``cap`` by one touch.

        A touch is 2^(bits - 1) - 1 units of the sum: 1, or more where the noise needs a finer grid (``noised``).
        """
        if bits not in _BITS:
            raise UsageError(f"a touch takes {_BITS[0]} to {_BITS[-1]} bits, not {bits}")
        return Encoding(
            self.length,
            clip_for(self.cap),
            bits,
            clip_inf=1.0,
            users=users,
            overlap=overlap,
            sampled=Fraction(sampled),
            rounding=Rounding.EXACT,
        )

    def noised(
        self,
        multiplier: float,
        noise: NoiseSpec,
        clients: int,
        *,
        users: int = 0,
        overlap: int = 1,
        sampled: Fraction | int = 1,
    ) -> tuple[Encoding, NoiseSpec]:
        """The encoding of the counts with the coarsest grid that allows a noise multiplier, and that noise.

        ``noise`` says of which kind it is. Each client's share has to have a variance of 8 or more
        (docs/gaussian_sums.md), so with many clients a touch is more than one unit.

        >>> catalogue = Catalogue(10**6, 64, bytes(32))
        >>> kind = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(1), colluders=50)
        >>> encoding, noise = catalogue.noised(1.0, kind, clients=1000)
        >>> encoding.largest, encoding.sensitivity().l2_squared, str(noise.variance)
        (15, 22500, '22504')
        """
        encodings = (self.counts(bits, users=users, overlap=overlap, sampled=sampled) for bits in _BITS)
        found = with_multiplier(multiplier, noise, encodings, clients, ring_bits=64)
        if found is None:
            raise UsageError("no grid for counts allows so little noise, or so much")
        return found

    def model(self, inputs: bytes = NO_MODEL) -> bytes:
        """The ``model`` of a plan for counts: a digest of this catalogue, and of what else clients compute from."""
        return digest(labels.SPARSE_COUNTS, CATALOGUE.encode(self), inputs)

    def check(self, plan: RoundPlan, policy: Policy, inputs: bytes = NO_MODEL) -> None:
        """``PolicyError`` unless the plan is for the counts of this catalogue, under which this client can be counted.

        A client asks this beside ``Client.check``, before it looks at what it touched.
        """
        if plan.model != self.model(inputs):
            raise PolicyError("the counts are of another catalogue, numbering, cap or threshold, or of other inputs")
        if not self._counted_by(plan.encoding):
            raise PolicyError("the plan for the counts has another encoding than counts of this catalogue")
        if (plan.noise is None or not policy.demands_noise) and not policy.exact_counts:
            raise PolicyError(
                "counts without noise that it demands, and exact_counts of this client's policy does not allow them"
            )
        if plan.noise is not None and plan.noise.family is not Family.DISCRETE_GAUSSIAN:
            raise PolicyError(f"for counts with {plan.noise.family} noise no threshold is known")

    def touched(self, rows: Iterable[int], rng: Rng = os.urandom) -> NDArray[np.int8]:
        """What a unit that touched these rows adds to the counts; of more than ``cap`` different rows, ``cap`` by lot.

        ``rng`` is secret: whoever knew which rows count would know something of those that do not.
        """
        chosen = np.unique(np.array([index(row) for row in rows], np.int64))
        self._check_rows(chosen)
        if len(chosen) > self.cap:
            chosen = chosen[np.argsort(random_words(rng, len(chosen)), kind="stable")[: self.cap]]
        vector = np.zeros(self.length, np.int8)
        vector[self._places(chosen)] = 1
        return vector

    def touched_by(self, users: Sequence[Iterable[int]], rng: Rng = os.urandom) -> Vectors[Iterable[int]]:
        """What a silo adds to the counts: a vector for each of its users, made when it is asked for.

        A user with a row that is not in the catalogue adds zeros, since a refusal would tell something about the user.
        """
        return Vectors(users, lambda rows: self.touched(rows, rng), self.length)

    def _counted_by(self, encoding: Encoding) -> bool:
        """Whether these are counts of this catalogue, of whatever units."""
        return encoding.bits in _BITS and encoding == self.counts(
            encoding.bits, users=encoding.users, overlap=encoding.overlap, sampled=encoding.sampled
        )

    def _check_rows(self, rows: NDArray[np.int64]) -> None:
        if ((rows < 0) | (rows >= self.rows)).any():
            raise UsageError(f"a row that is not among the {self.rows} of the catalogue")

    def least_count(self, outcome: RoundOutcome) -> int:
        """The integer from which on a count of this sum is released: ``least`` units without noise; with noise, what
        fewer of them reach in none of a unit's rows, except with probability ``failing``.

        The noise is what may be in the sum that came out: all survivors' and what they did not take off again.
        """
        plan, event = outcome.event.plan, outcome.event
        most = (self.least - 1) * plan.encoding.overlap * plan.encoding.largest
        if plan.noise is None:
            return most + 1
        variance = plan.noise.whole_variance(plan.clients, len(event.survivors), len(event.excess_left))
        return threshold(most, variance, self.cap * plan.encoding.overlap, self.failing)

    # Buckets: that of a row is the row's word in a public stream, modulo their number.

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where these rows, a few of them, are counted."""
        if not self.buckets:
            return rows
        return np.array([self._bucket_of_each(row, row + 1)[0] for row in rows.tolist()], np.int64)

    def _bucket_of_each(self, start: int, stop: int) -> NDArray[np.int64]:
        """The buckets of the rows in a range."""
        before = start % _WORDS
        stream = Prg(digest(labels.SPARSE_BUCKETS, self.seed), _WORD * (start - before))
        words = random_words(stream, stop - start + before)[before:]
        return (words % np.uint64(self.buckets)).astype(np.int64)

    def _rows_at(self, reached: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The rows that are counted at these places, in order."""
        if not self.buckets:
            return np.flatnonzero(reached)
        found = list[NDArray[np.int64]]()
        for start in range(0, self.rows, _TOGETHER):
            buckets = self._bucket_of_each(start, min(start + _TOGETHER, self.rows))
            found.append(start + np.flatnonzero(reached[buckets]))
        return np.concatenate(found)


@dataclass(frozen=True, slots=True, eq=False)
class Released:
    """The rows of a catalogue that came out of a sum of counts, in order. The server sends it (``encode``) with the
    plan of the second sum."""

    catalogue: Catalogue
    counted: bytes = field(repr=False)
    """The digest of the plan of the counts."""
    rows: NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        rows = self.rows
        if len(self.counted) != HASH_BYTES:
            raise UsageError("the digest of a plan has 32 bytes")
        if not len(rows):
            raise UsageError("no row reached the threshold: there is nothing to add up")
        if rows[0] < 0 or rows[-1] >= self.catalogue.rows or (np.diff(rows) <= 0).any():
            raise UsageError(f"released rows are numbers below {self.catalogue.rows}, each once and in order")
        rows.flags.writeable = False

    @classmethod
    def of(cls, catalogue: Catalogue, outcome: RoundOutcome, inputs: bytes = NO_MODEL) -> Released:
        """The rows that reached the threshold in a sum of counts; ``UsageError`` if there are none."""
        plan = outcome.event.plan
        if plan.model != catalogue.model(inputs) or not catalogue._counted_by(plan.encoding):
            raise UsageError("this is no sum of counts of this catalogue")
        reached = outcome.total >= catalogue.least_count(outcome)
        return cls(catalogue, plan.digest(), catalogue._rows_at(reached))

    @property
    def length(self) -> int:
        """The length of the vectors of the second sum."""
        return len(self.rows) * self.catalogue.width

    def encode(self) -> bytes:
        return self.counted + self.rows.astype(">u4").tobytes()

    @classmethod
    def decode(cls, catalogue: Catalogue, data: bytes) -> Released:
        """``DecodeError`` unless these are rows of the catalogue, in order."""
        if len(data) % 4 or len(data) > HASH_BYTES + 4 * catalogue.rows:
            raise DecodeError(f"{len(data)} bytes are no list of rows")
        try:
            return cls(catalogue, data[:HASH_BYTES], np.frombuffer(data[HASH_BYTES:], ">u4").astype(np.int64))
        except UsageError as error:
            raise DecodeError(str(error)) from None

    def model(self, inputs: bytes = NO_MODEL) -> bytes:
        """The ``model`` of the second plan: a digest of the rows, of the first plan, of the catalogue, and of what else
        clients compute from."""
        return digest(labels.SPARSE_ROWS, CATALOGUE.encode(self.catalogue), self.encode(), inputs)

    def check(
        self, plan: RoundPlan, policy: Policy, inputs: bytes = NO_MODEL, *, counts: RoundPlan | None = None
    ) -> None:
        """``PolicyError`` unless the plan is for the sum of these rows, under which this client can be in it. A client
        asks this beside ``Client.check``, before it looks at its update; if it was in the sum of the counts, it names
        that one's plan, too."""
        if plan.model != self.model(inputs):
            raise PolicyError("the plan is for other rows, or for another catalogue, sum of counts or inputs")
        if plan.encoding.length != self.length:
            raise PolicyError(f"{len(self.rows)} rows have {self.length} numbers, and the plan {plan.encoding.length}")
        if (plan.noise is None or not policy.demands_noise) and not policy.exact_counts:
            raise PolicyError(
                "rows without noise that it demands, and exact_counts of this client's policy does not allow them"
            )
        if counts is not None and self.counted != counts.digest():
            raise PolicyError("the rows are said to be of another sum of counts than this client was in")

    def restricted(self, update: Mapping[int, ArrayLike]) -> NDArray[np.float64]:
        """A unit's update, a vector for each row that it touched, as what it adds to the second sum."""
        touched = np.array([index(row) for row in update], np.int64)
        self.catalogue._check_rows(touched)
        places = np.searchsorted(self.rows, touched)
        table = np.zeros((len(self.rows), self.catalogue.width))
        for row, place in zip(touched.tolist(), places.tolist(), strict=True):
            vector = np.asarray(update[row], np.float64)
            if vector.shape != (self.catalogue.width,):
                raise UsageError(f"a row has {self.catalogue.width} numbers, not {vector.shape}")
            if place < len(self.rows) and self.rows[place] == row:
                table[place] = vector
        return table.reshape(-1)

    def restricted_by(self, users: Sequence[Mapping[int, ArrayLike]]) -> Vectors[Mapping[int, ArrayLike]]:
        """What a silo adds to the second sum: a vector for each of its users, made when it is asked for; zeros for an
        update that is none."""
        return Vectors(users, self.restricted, self.length)

    def table(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """The second sum's vector, row by row."""
        return vector.reshape(len(self.rows), self.catalogue.width)


class Vectors(Generic[Unit]):
    """Users' vectors of one kind, none of which is kept. They are made for all users, also where some are sampled: how
    long one takes follows from the rows that a user touched, and so would tell who was in a sample."""

    def __init__(
        self, users: Sequence[Unit], made: Callable[[Unit], NDArray[np.int8 | np.float64]], length: int
    ) -> None:
        self._users, self._made, self._length = users, made, length

    def __len__(self) -> int:
        return len(self._users)

    def __iter__(self) -> Iterator[NDArray[np.int8 | np.float64]]:
        for user in self._users:
            try:
                yield self._made(user)
            except (UsageError, TypeError, ValueError, OverflowError):
                yield np.zeros(self._length, np.int8)


CATALOGUE: Codec[Catalogue] = struct(
    Catalogue,
    rows=u32,
    width=u32,
    numbering=fixed(HASH_BYTES),
    cap=u32,
    least=u32,
    failing=rational,
    buckets=u32,
    seed=fixed(SEED_BYTES),
)
