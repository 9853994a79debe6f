"""The round plan: everything the parties must agree on before a byte moves.

``digest()`` is bound into every signature, key derivation and associated data of the round. A server that shows two
clients two plans gets two rounds whose messages do not fit together.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from math import floor
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dp.ledger.heads import HEAD, SignedHead
from dp.noise import NOISE, Family, NoiseSpec
from dp.secure_sum import SecureSum, Signed
from protocols.choice import Choice, compare
from protocols.parameters import ALLOWED, AUTO, rules_of
from protocols.roster import Roster
from secagg.assumptions import MAX_CLIENTS, Adversary, CostModel, fraction
from secagg.codec import Codec, Reader, blob, fixed, optional, struct, text, u8, u32
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.crypto.prg import Rng
from secagg.crypto.ring import Ring
from secagg.encoding import ENCODING, Encoding, Residual, Sum, UserVectors
from secagg.errors import DecodeError, PeerError, UsageError
from secagg.rounding import Integers
from secagg.signed_versions import VERSION, Version

SESSION_BYTES = 16
HASH_BYTES = 32
MAX_BEACON = 64
NO_MODEL = bytes(HASH_BYTES)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """One round of one session, as all parties see it. Build one with ``propose``; the next with ``next_round``."""

    protocol: str
    session: bytes = field(repr=False)
    round: int
    roster: bytes = field(repr=False)
    model: bytes = field(repr=False)
    clients: int
    min_contributors: int
    ring_bits: int
    encoding: Encoding
    noise: NoiseSpec | None
    parameters: object
    beacon: bytes = b""
    """Random bytes that nobody in the round has chosen, from the deployment or from a public source: for lots."""
    version: Version | None = None
    """The number of the model, and the deployment's signature on both (``signed``)."""
    ledger: SignedHead | None = None
    """The head, when the plan was made, of the ledger that it is charged to: so all clients sign one."""
    _digest: bytes = field(init=False, repr=False, compare=False, default=b"")

    def __post_init__(self) -> None:
        if len(self.session) != SESSION_BYTES or len(self.roster) != HASH_BYTES or len(self.model) != HASH_BYTES:
            raise UsageError("a session id has 16 bytes, a roster digest and a model hash have 32")
        if len(self.beacon) > MAX_BEACON:
            raise UsageError(f"a beacon has at most {MAX_BEACON} bytes, not {len(self.beacon)}")
        if not 0 <= self.round < 1 << 32:
            raise UsageError("a round number is between 0 and 2^32 - 1")
        if not 2 <= self.clients <= MAX_CLIENTS:
            raise UsageError(f"a round has 2 to {MAX_CLIENTS} clients, not {self.clients}")
        if not 2 <= self.min_contributors <= self.clients:
            raise UsageError(f"min_contributors must be between 2 and {self.clients}, not {self.min_contributors}")
        if self.encoding.overlap > self.clients:
            raise UsageError(f"a user is in no more silos than the {self.clients} that there are")
        if self.noise is not None and (least := self.clients - self.noise.dropouts) > self.min_contributors:
            raise UsageError(f"the noise allows for {self.noise.dropouts} missing: min_contributors is {least} then")
        if self.encoding.sampled < 1 and (self.noise is None or self.noise.family is not Family.DISCRETE_GAUSSIAN):
            raise UsageError(
                "users are sampled under discrete Gaussian noise only: without noise a sum may be one user's vector, "
                "and of other noise no bound is known"
            )
        if self.noise is not None and self.encoding.bits == 1:
            raise UsageError(
                "noise hides whether somebody adds zeros, and a coordinate of one bit is none: take 2 bits"
            )
        if self.noise is not None and not self.noise.drawable(self.clients):
            raise UsageError("no client can draw so much noise, or so little that it would not count")
        self.encoding.check_ring(self.ring, self.clients, self.noise_bound)
        rules_of(self.protocol).check(self)

    @classmethod
    def propose(
        cls,
        protocol: str,
        roster: Roster,
        encoding: Encoding,
        *,
        min_contributors: int,
        clients: int | None = None,
        corrupt: str | float = "0.05",
        dropout: str | float = "0.1",
        adversary: Adversary | str = Adversary.ACTIVE,
        security: int = 40,
        correctness: int = 20,
        cost_model: CostModel | str = CostModel.CORE_SVP,
        noise: NoiseSpec | None = None,
        session: bytes | None = None,
        model: bytes = NO_MODEL,
        beacon: bytes = b"",
        ledger: SignedHead | None = None,
        allowed: Set[str] = ALLOWED,
        tell: Callable[[str], object] = _LOG.info,
    ) -> RoundPlan:
        """The first round of a session: protocol parameters and ring width follow from what is asked for.

        ``clients`` is the most that may take part (default: the whole roster); at most a fraction ``corrupt`` of
        them is dishonest, or as many as the noise is counted against if these are more, and the round is to survive
        that ``dropout`` of them fall silent. ``encoding`` and ``noise``
        of a private sum come from ``dp.calibrate``. ``beacon`` is for protocols that draw lots: bytes that the clients
        know from elsewhere (``Policy.beacon``). ``ledger`` is the ``signed_head`` of the ledger that a sum with noise
        is charged to. ``cost_model`` is for protocols with lattices: how their security is counted
        (``secagg.assumptions.CostModel``).

        The protocol "auto" stands for that of the ``allowed`` ones with which such a round is predicted to take the
        fewest seconds (``compare``), and ``tell`` is called with one line that says why. ``allowed`` are those that
        the clients' policies allow; a plan with any other would be refused by them.

        >>> from protocols.roster import Identity
        >>> roster = Roster.of([Identity.generate(f"client-{i}") for i in range(200)])
        >>> asked = {"min_contributors": 150, "beacon": bytes(32)}
        >>> RoundPlan.propose("auto", roster, Encoding.integers(10_000), **asked).protocol
        'secagg+'
        >>> allowed = {"secagg", "secagg+", "oneshot"}
        >>> RoundPlan.propose("auto", roster, Encoding.integers(10_000), **asked, allowed=allowed).protocol
        'oneshot'
        """
        n = len(roster) if clients is None else clients
        if n > len(roster):
            raise UsageError(f"the roster has {len(roster)} clients, not {n}")
        fears = corrupt, dropout, adversary, security, correctness, cost_model
        asked = _Asked.of(n, encoding, min_contributors, fears, noise, beacon)
        if protocol == AUTO:
            choice = _compare(asked, allowed, len(roster))
            tell(choice.why)
            protocol = choice.protocol
        session = os.urandom(SESSION_BYTES) if session is None else session
        return replace(asked.plan(protocol, roster.digest, session, model), ledger=ledger)

    @classmethod
    def compare(
        cls,
        clients: int,
        encoding: Encoding,
        *,
        min_contributors: int,
        roster: int | None = None,
        corrupt: str | float = "0.05",
        dropout: str | float = "0.1",
        adversary: Adversary | str = Adversary.ACTIVE,
        security: int = 40,
        correctness: int = 20,
        cost_model: CostModel | str = CostModel.CORE_SVP,
        noise: NoiseSpec | None = None,
        beacon: bytes = b"",
        allowed: Set[str] = ALLOWED,
    ) -> Choice:
        """How protocols compare for such a round, by prediction, and which of them "auto" stands for in ``propose``.

        ``roster`` is how many clients the roster has, if these are not all of them. ``UsageError`` says of each
        protocol why it is none for this round, if that holds for all of them.

        >>> found = RoundPlan.compare(1000, Encoding.integers(10**6), min_contributors=800)
        >>> found.protocol, [one.protocol for one in found.candidates if one.why_not]
        ('secagg+', ['oneshot'])
        """
        fears = corrupt, dropout, adversary, security, correctness, cost_model
        asked = _Asked.of(clients, encoding, min_contributors, fears, noise, beacon)
        return _compare(asked, allowed, clients if roster is None else roster)

    def signed(self, sign: Callable[[bytes], Version]) -> RoundPlan:
        """The same plan with a version of its model, as whoever has the deployment's key gives it for the digest: the
        method ``model`` of a ``secagg.signed_versions.Signer``, say, or a call to another process."""
        return replace(self, version=sign(self.model))

    def next_round(self, model: bytes | None = None, ledger: SignedHead | None = None) -> RoundPlan:
        """The same session, one round later: same identities, new keys and masks, and the next turn of a sketch.

        With another model it is unsigned until somebody signs that. Where clients demand it, it has the ledger's head
        of now."""
        encoding, sketch = self.encoding, self.encoding.sketch
        if sketch is not None:
            encoding = replace(encoding, sketch=sketch.next_turn())
        ledger = self.ledger if ledger is None else ledger
        following = replace(self, round=self.round + 1, encoding=encoding, ledger=ledger)
        if model is None or model == self.model:
            return following
        return replace(following, model=model, version=None)

    @property
    def ring(self) -> Ring:
        return Ring(self.ring_bits)

    @property
    def noise_bound(self) -> int:
        """What noise may add to a coordinate of the sum."""
        return _noise_bound(self.encoding, self.noise, self.clients)

    def encode(self) -> bytes:
        return PLAN.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> RoundPlan:
        return PLAN.decode(data)

    def digest(self) -> bytes:
        """What this plan is called in every signature and key; computed once."""
        if not self._digest:
            object.__setattr__(self, "_digest", digest(labels.PLAN, self.encode()))
        return self._digest

    def encode_update(
        self,
        update: ArrayLike | UserVectors | None,
        weight: int,
        rng: Rng,
        residuals: Sequence[Residual] | None = None,
    ) -> Integers:
        """A client's float update as integers to be summed, of ``Encoding.dtype``; None is nothing to contribute.

        Where clients are silos it is one vector for each user, and the weight is ignored. No integer wraps in the ring
        of a plan: it holds the sum of as many of the largest as there are clients. ``residuals``, where the encoding
        has feedback, are that of the client, or one for each user, and are overwritten.
        """
        encoding, seed = self.encoding, self._rotation_seed()
        if encoding.users and update is not None:
            users = cast(UserVectors, update)
            return encoding.encode_users(users, seed=seed, rng=rng, residuals=residuals).astype(encoding.dtype)
        if residuals is not None and len(residuals) != 1 and update is not None:
            raise UsageError(f"a client that is one unit has one residual, not {len(residuals)}")
        integers = np.empty(encoding.coordinates, encoding.dtype)
        residual = None if residuals is None or update is None else residuals[0]
        one = cast("ArrayLike | None", update)
        encoding.encode_into(one, integers, weight=weight, seed=seed, rng=rng, residual=residual)
        return integers

    def decode_total(self, total: NDArray[np.int64], contributors: int) -> Sum:
        """The integer sum of the contributors as floats."""
        return self.encoding.decode(total, count=contributors, seed=self._rotation_seed())

    def secure_sum(
        self,
        survivors: int,
        *,
        cohort: bytes = b"",
        bitmap: bytes = b"",
        signatures: Iterable[Signed] = (),
        members: tuple[str, ...] = (),
    ) -> SecureSum:
        """What is to be charged for a round with so many survivors. ``members`` are the names of the roster: a ledger
        that charges each client for its own sums asks for them, and every other leaves them out."""
        if self.noise is None:
            raise UsageError("the plan has no noise: what its sum costs in privacy has no bound")
        sensitivity = self.encoding.sensitivity()
        return SecureSum(
            plan=self.encode(),
            plan_digest=self.digest(),
            session=self.session,
            round=self.round,
            roster=self.roster,
            planned=self.clients,
            noise=self.noise,
            dimension=self.encoding.coordinates,
            clip_l2=Fraction(self.encoding.clip_l2),
            scale=Fraction(self.encoding.scale),
            rotated=self.encoding.rotate,
            beta=self.encoding.beta,
            l2_squared=sensitivity.l2_squared,
            l1=sensitivity.l1,
            weight_bound=self.encoding.weight_bound,
            users=self.encoding.users,
            overlap=self.encoding.overlap,
            rounding=self.encoding.rounding.value,
            sampled=self.encoding.sampled,
            ring_bits=self.ring_bits,
            signers=rules_of(self.protocol).signers(self),
            survivors=survivors,
            cohort=cohort,
            bitmap=bitmap,
            signatures=tuple(signatures),
            members=members,
        )

    @classmethod
    def charged(cls, what: SecureSum) -> RoundPlan:
        """The plan under which a sum in a ledger was made; ``PeerError`` unless all that it says is of that plan."""
        plan = cls.decode(what.plan)
        agreed = plan.secure_sum(
            what.survivors,
            cohort=what.cohort,
            bitmap=what.bitmap,
            signatures=what.signatures,
            members=what.members,
        )
        if agreed != what:
            raise PeerError("these are not the facts of the plan")
        return plan

    def _rotation_seed(self) -> bytes:
        return digest(labels.ROTATION, self.session, u32.encode(self.round))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A round as it is asked for, before it has a protocol."""

    clients: int
    encoding: Encoding
    min_contributors: int
    corrupt: Fraction
    dropout: Fraction
    adversary: Adversary
    security: int
    correctness: int
    cost_model: CostModel
    noise: NoiseSpec | None
    beacon: bytes

    @classmethod
    def of(
        cls,
        clients: int,
        encoding: Encoding,
        min_contributors: int,
        fears: tuple[str | float, str | float, Adversary | str, int, int, CostModel | str],
        noise: NoiseSpec | None,
        beacon: bytes,
    ) -> _Asked:
        """``fears`` as whoever proposes a plan may write them."""
        corrupt, dropout, adversary, security, correctness, cost_model = fears
        exact = fraction(corrupt), fraction(dropout), Adversary(adversary)
        return cls(
            clients, encoding, min_contributors, *exact, security, correctness, CostModel(cost_model), noise, beacon
        )

    @property
    def dishonest(self) -> Fraction:
        """The fraction of clients against which parameters are chosen."""
        noise, n = self.noise, self.clients
        if noise is not None and noise.dropouts + noise.colluders < n and not noise.enough_alone(n):
            # those whose noise does not count could else help a server that lies to open two sums
            return max(self.corrupt, Fraction(noise.colluders, n))
        return self.corrupt

    def plan(self, protocol: str, roster: bytes, session: bytes, model: bytes) -> RoundPlan:
        n = self.clients
        parameters = rules_of(protocol).choose(
            n, self.dishonest, self.dropout, self.adversary, self.security, self.correctness, self.cost_model
        )
        return RoundPlan(
            protocol=protocol,
            session=session,
            round=0,
            roster=roster,
            model=model,
            clients=n,
            min_contributors=self.min_contributors,
            ring_bits=self.encoding.ring_bits(n, _noise_bound(self.encoding, self.noise, n)),
            encoding=self.encoding,
            noise=self.noise,
            parameters=parameters,
            beacon=self.beacon,
        )


def _compare(asked: _Asked, allowed: Set[str], roster: int) -> Choice:
    """With as many silent clients as the round is to survive, as long as the least number of contributors is left."""
    silent = min(floor(asked.dropout * asked.clients), asked.clients - asked.min_contributors)
    return compare(
        lambda protocol: asked.plan(protocol, bytes(HASH_BYTES), bytes(SESSION_BYTES), NO_MODEL),
        allowed,
        asked.adversary,
        roster=roster,
        corrupt=floor(asked.dishonest * asked.clients),
        silent=max(silent, 0),
    )


def _noise_bound(encoding: Encoding, noise: NoiseSpec | None, clients: int) -> int:
    return 0 if noise is None else noise.coordinate_bound(clients, encoding.coordinates)


def _read(reader: Reader) -> RoundPlan:
    protocol = _PROTOCOL.read(reader)
    try:
        parameters = rules_of(protocol).codec
    except UsageError as error:
        raise DecodeError(str(error)) from None
    return _body(protocol, parameters).read(reader)


def _write(out: bytearray, plan: RoundPlan) -> None:
    _PROTOCOL.write(out, plan.protocol)
    _body(plan.protocol, rules_of(plan.protocol).codec).write(out, plan)


@cache  # of the few protocols that there are; every message of a round names its plan
def _body(protocol: str, parameters: Codec[object]) -> Codec[RoundPlan]:
    constant: Codec[str] = Codec(lambda out, value: None, lambda reader: protocol, 0)  # written already
    return struct(
        RoundPlan,
        protocol=constant,
        session=fixed(SESSION_BYTES),
        round=u32,
        roster=fixed(HASH_BYTES),
        model=fixed(HASH_BYTES),
        clients=u32,
        min_contributors=u32,
        ring_bits=u8,
        encoding=ENCODING,
        noise=optional(NOISE),
        parameters=parameters,
        beacon=blob(MAX_BEACON),
        version=optional(VERSION),
        ledger=optional(HEAD),
    )


_PROTOCOL = text(32)
PLAN: Codec[RoundPlan] = Codec(_write, _read, _PROTOCOL.least)
