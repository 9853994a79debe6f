"""Asynchronous training over secure sums: whoever is ready goes into the next sum, from whatever version it trained.

Papers: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation" (FedBuff, AISTATS); Huba et al.
2022, "Papaya: Practical, Private, and Scalable Federated Learning" (MLSys). There a server that is trusted, or trusted
hardware, weighs updates and adds them up as they come. Here each sum is an ordinary round:

    ready     a client takes the newest version of the model, trains at its own pace, and tells the server when it is
              ready and from which version it started. No message of a protocol: the transport carries it
    buffer    when ``size`` clients are ready, the server plans a round over these and nobody else. The plan's ``model``
              is the digest of a ``Buffer``: to which version the sum is applied, who started from which one, and the
              digests of all these versions
    sum       each of them checks that (``Buffers.check``), multiplies its update by w(staleness) <= 1 before it is
              clipped, and takes part. Any protocol will do that draws no lots from a beacon

Every header and signature of a round is bound to its plan, and a client refuses a plan that says another version of it
than it started from: so each one's signature is on its own version, and on those that all others claim.

*Threat model.* That of the protocol, against a server that also decides who is in a buffer: by whom it tells of a new
version, by whom it keeps waiting. So the dishonest are counted over the whole roster, and all of them may be in one
buffer: C = ``colluders``, of ``size``, in plans, policies and noise. Buffers have one size. With up to ``missing``
clients gone after the plan each honest one keeps 1/(size - missing - C) of the noise.

The weight is a fixed function of two numbers that both stand in the plan, and it is applied before the clip, so a
server cannot weigh clients as it likes, and no weight moves the sensitivity. A client that lies about its version, or
weighs itself otherwise, does what it could do by sending another update: clip and noise bound it.

*What is not protected.* When a client is ready, from which version it started, in which buffers it is. A client whose
work depends on its data (how many events it trains on) shows that in how long it takes. A client compares versions with
those that it was told of, so none has two models of one number. But a server that lies can give one client a version
that nobody else has seen, under a number of its own, and the others one from which their updates are next to nothing
(Pasquini et al. 2022): the sum is then this client's, with the noise. In a round that waits, where all start from the
plan's model, it cannot. What holds against it is noise that the policy demands, or versions that the deployment signs
(``Policy.signed_by``), if who signs a buffer knows its versions.

*Accounting.* Each client is charged for the buffers that it is in, and for no others (``dp.arrivals``): which ones that
are may follow from everything that came out before, since each client's filter stops it before its own budget is
passed (docs/privacy.md). A budget with room for B contributions is a lifetime bound of B; a client's own ledger refuses
the next one. No amplification is claimed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp.arrivals import Arrivals
from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.journal import Journal
from protocols.plan import HASH_BYTES, RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from secagg.assumptions import MAX_CLIENTS, colluders
from secagg.codec import Codec, fixed, many, struct, text, u32
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.crypto.prg import Rng
from secagg.encoding import UserVectors
from secagg.errors import PolicyError, UsageError

if TYPE_CHECKING:
    from dp.ledger import Ledger

MOST_STALENESS = 1 << 16


def weight(staleness: int) -> float:
    """By what an update is multiplied that was trained from a version so many versions ago: 1 / sqrt(1 + staleness), as
    in FedBuff.

    >>> [round(weight(staleness), 3) for staleness in (0, 1, 3)]
    [1.0, 0.707, 0.5]
    """
    return float(1 / np.sqrt(1 + staleness))


@dataclass(frozen=True, slots=True)
class Start:
    """From what a client trains: the number of a version of the model, and a digest of it and of all else that a client
    reads from the server to train."""

    version: int
    model: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.version < 1 << 32 or len(self.model) != HASH_BYTES:
            raise UsageError("a version has a number from 0 on, and a digest of 32 bytes")


@dataclass(frozen=True, slots=True)
class Buffer:
    """Who is summed up, and what each of them trained from. The server sends it (``encode``) with the plan.

    ``models`` are the digests of the version to which the sum is applied, and of as many before it as anybody started
    from; ``starts`` has the number of the version that each of ``names`` started from.

    >>> buffer = Buffer(7, 4, (b"7" * 32, b"6" * 32), ("anna", "bert"), (7, 6))
    >>> [buffer.staleness_of(name) for name in buffer.names], Buffer.decode(buffer.encode()) == buffer
    ([0, 1], True)
    """

    version: int
    staleness: int
    """the greatest that is allowed"""
    models: tuple[bytes, ...] = field(repr=False)
    names: tuple[str, ...]
    starts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.version < 1 << 32 or not 0 <= self.staleness <= MOST_STALENESS:
            raise UsageError("a buffer is for a version, and has a bound on staleness")
        if any(a >= b for a, b in pairwise(self.names)) or len(self.starts) != len(self.names):
            raise UsageError("a buffer names each client once, in order, with the version that it started from")
        oldest = max(0, self.version - self.staleness)
        if not self.starts or not oldest <= min(self.starts) <= max(self.starts) <= self.version:
            raise UsageError(f"clients of this buffer started from versions {oldest} to {self.version}")
        if {len(one) for one in self.models} != {HASH_BYTES} or len(self.models) != self.version - min(self.starts) + 1:
            raise UsageError("a buffer has the digests of all versions back to the oldest that somebody started from")

    @classmethod
    def of(cls, version: int, staleness: int, starts: dict[str, Start], model: bytes) -> Buffer:
        """The buffer of these clients, for the version of this number and digest. ``UsageError`` if two of them started
        from different models of one number, or one from a version that is too old."""
        models = {version: model}
        for name, start in starts.items():
            if models.setdefault(start.version, start.model) != start.model:
                raise UsageError(f"{name} started from another version {start.version} than others did")
        oldest = min(models)
        listed = tuple(models.get(number, bytes(HASH_BYTES)) for number in range(version, oldest - 1, -1))
        names = tuple(sorted(starts))
        return cls(version, staleness, listed, names, tuple(starts[name].version for name in names))

    def encode(self) -> bytes:
        return BUFFER.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Buffer:
        """``DecodeError`` unless this is one."""
        return BUFFER.decode(data)

    def model(self) -> bytes:
        """The ``model`` of the plan: a digest of all that a buffer says."""
        return digest(labels.BUFFER, self.encode())

    def known(self) -> dict[int, bytes]:
        """The digests of the versions that somebody started from, and of the one to which the sum is applied."""
        return {number: self.models[self.version - number] for number in {*self.starts, self.version}}

    def staleness_of(self, name: str) -> int:
        """How many versions ago the version was made that this client is said to have started from."""
        return self.version - self.starts[self.names.index(name)]


BUFFER: Codec[Buffer] = struct(
    Buffer,
    version=u32,
    staleness=u32,
    models=many(fixed(HASH_BYTES), MOST_STALENESS + 1),
    names=many(text(64), MAX_CLIENTS),
    starts=many(u32, MAX_CLIENTS),
)


@dataclass(frozen=True, slots=True)
class Buffers:
    """What an asynchronous deployment agrees on, and each of its clients has from it, not from the server.

    ``size`` clients are planned in a buffer, and up to ``missing`` of them may be gone before their vector is in the
    sum. At most a fraction ``corrupt`` of the *roster* is dishonest. An update is at most ``staleness`` versions old.

    >>> roster = Roster.of([Identity.generate(f"client-{i:02}") for i in range(40)])
    >>> buffers = Buffers(roster, size=12, missing=2, staleness=5)
    >>> buffers.colluders, buffers.noise().kept_variance(12), buffers.policy().corrupt
    (2, Fraction(1, 8), Fraction(1, 6))
    """

    roster: Roster
    size: int
    missing: int = 0
    corrupt: Fraction | str | float = "0.05"
    staleness: int = 16

    def __post_init__(self) -> None:
        if not 2 <= self.size <= len(self.roster) or self.missing < 0:
            raise UsageError(f"a buffer is of 2 to {len(self.roster)} clients, none or more of which may be missing")
        if not 0 <= self.staleness <= MOST_STALENESS:
            raise UsageError(f"an update is from 0 to {MOST_STALENESS} versions old")
        if self.size - self.missing - self.colluders < 2:
            raise UsageError(
                f"of a buffer of {self.size} {self.missing} may be missing, and all {self.colluders} dishonest ones of "
                f"{len(self.roster)} clients may be in it: fewer than two are left. Make it larger"
            )

    @property
    def colluders(self) -> int:
        """How many of all clients may be dishonest, and so of any buffer."""
        return colluders(self.corrupt, len(self.roster))

    @property
    def arrivals(self) -> Arrivals:
        """Whom the server's ledger charges (``Ledger.create(arrivals=...)``)."""
        return Arrivals(self.roster.names, self.roster.keys, self.size)

    def noise(self, variance: Fraction = Fraction(1), components: int = 0) -> NoiseSpec:
        """Of which kind the noise in a buffer's sum is."""
        return NoiseSpec(Family.DISCRETE_GAUSSIAN, variance, self.missing, self.colluders, components)

    def policy(self, **more: Any) -> Policy:
        """What a client insists on in every buffer; ``more`` is what else a ``Policy`` has, such as the noise that it
        demands. The corrupt fraction is that of a buffer into which all colluders were put."""
        return Policy(
            self.size - self.missing,
            corrupt=Fraction(self.colluders, self.size),
            dropout=Fraction(self.missing, self.size),
            whole_roster=True,
            **more,
        )

    def cohort(self, names: Sequence[str]) -> Roster:
        """The roster of these clients."""
        return self.roster.part(names)

    def _digest_of(self, names: Sequence[str]) -> bytes:
        """That of the roster of these clients; none if one of them is a stranger."""
        try:
            return self.cohort(names).digest
        except UsageError:
            return b""

    def check(self, plan: RoundPlan, buffer: Buffer, name: str, start: Start | None) -> None:
        """``PolicyError`` unless the plan is for this buffer, and this client goes into it with an update from
        ``start``; None is a client that has no update. A client asks this beside ``Client.check``, before it looks at
        its update."""
        if start is None:
            raise PolicyError("this client has no update that is in no buffer yet: it does not know its start")
        if plan.model != buffer.model():
            raise PolicyError("the plan is for another buffer, or for other versions")
        if plan.clients != self.size:
            raise PolicyError(f"a buffer is of {self.size} clients, not of {plan.clients}")
        if plan.roster != self._digest_of(buffer.names):
            raise PolicyError("the plan is for others than those whom the buffer names")
        if plan.beacon:
            raise PolicyError("lots of a buffer could be tried: who decides who is in it decides on whom they fall")
        if buffer.staleness > self.staleness:
            raise PolicyError(f"updates may be {buffer.staleness} versions old here, not {self.staleness} as agreed on")
        if name not in buffer.names or buffer.version - buffer.staleness_of(name) != start.version:
            raise PolicyError(f"the buffer does not say that {name} started from version {start.version}")
        if buffer.models[buffer.staleness_of(name)] != start.model:
            raise PolicyError(f"version {start.version} is another one here than that from which this client started")


class Contributor:
    """A client of an asynchronous deployment, buffer after buffer: one update goes into one of them.

    ``begin`` is told each version from which it trains; ``start`` takes a plan, its buffer and the update, and gives
    the client of this round (``Client``) and its first frame. Journal, ledger and policy are those of a ``Client``, for
    all buffers together: with a ledger it refuses a contribution for which its own budget has no room. What it trains
    from, and which versions it has seen, is kept in memory only: after a restart it goes on with a round that its
    journal has if it is told the same start, and begins anew otherwise.
    """

    def __init__(
        self,
        buffers: Buffers,
        identity: Identity,
        *,
        policy: Policy | None = None,
        journal: Journal | None = None,
        ledger: Ledger | None = None,
        deployment: str = "buffers",
        rng: Rng = os.urandom,
    ) -> None:
        self.buffers, self.identity = buffers, identity
        self._policy = buffers.policy() if policy is None else policy
        self._more: dict[str, Any] = {"journal": journal, "ledger": ledger, "deployment": deployment, "rng": rng}
        self._start: Start | None = None
        self._newest, self._plan = 0, b""
        self._known: dict[int, bytes] = {}

    def begin(self, version: int, model: bytes) -> None:
        """Train from this version from now on. ``PolicyError`` if it is older than one that this client has seen, or
        another one under the same number."""
        if version < self._newest:
            raise PolicyError(f"version {version} is older than {self._newest}, which this client has seen")
        start = Start(version, model)
        self._check_known({version: model})
        self._start, self._plan = start, b""
        self._see(version, {version: model})

    def _check_known(self, models: dict[int, bytes]) -> None:
        """``PolicyError`` if one of these digests is not that of the version which this client has seen."""
        if changed := [number for number, model in models.items() if self._known.get(number, model) != model]:
            raise PolicyError(f"version {changed[0]} is another one than this client has seen under that number")

    def _see(self, newest: int, models: dict[int, bytes]) -> None:
        """Remember these digests, as long as a buffer may have them."""
        self._newest = max(self._newest, newest)
        oldest = self._newest - self.buffers.staleness
        self._known = {number: model for number, model in {**self._known, **models}.items() if number >= oldest}

    def check(self, plan: RoundPlan, buffer: Buffer) -> Client:
        """The client of this round. ``PolicyError`` or ``BudgetError`` unless it may take part with the update that
        follows from its start."""
        if self._plan not in (b"", plan.digest()):
            raise PolicyError("this update is in another buffer: it goes into one")
        self.buffers.check(plan, buffer, self.identity.name, self._start)
        self._check_known(buffer.known())
        client = Client(self.identity, self.buffers.cohort(buffer.names), policy=self._policy, **self._more)
        client.check(plan)
        return client

    def start(self, plan: RoundPlan, buffer: Buffer, update: ArrayLike | UserVectors | None) -> tuple[Client, bytes]:
        """The client of this round and its first frame. The update is multiplied by its ``weight``, then encoded, which
        clips it."""
        client = self.check(plan, buffer)
        self._plan = plan.digest()
        self._see(buffer.version, buffer.known())
        by = weight(buffer.staleness_of(self.identity.name))
        if update is not None:
            users = plan.encoding.users
            update = _Weighed(update, by) if users else by * np.asarray(update, np.float64)  # type: ignore[arg-type]
        return client, client.start(plan, update)


@dataclass(frozen=True, slots=True)
class _Weighed:
    """The vectors of a silo's users, each multiplied when it is made."""

    vectors: UserVectors
    by: float

    def __len__(self) -> int:
        return len(self.vectors)

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        for vector in self.vectors:
            yield self.by * np.asarray(vector, np.float64)
