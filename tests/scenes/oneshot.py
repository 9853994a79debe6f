"""An evil server of one-shot rounds, with corrupt members in its hand, against real ``Client`` objects.

``Evil`` keeps everything that passes, makes every message itself, and in the end tries to open sums with the shares
that it got: with a quorum of them by interpolation, with fewer by lattice reduction, since secrets are short. Clients
are numbers in the roster, called u, v, w; ``alive`` is a set of them.

Usually there are 12 clients, all with a seat, the last two of them corrupt: m = 12, f = 2, Q = 8, and 6 secrets in a
polynomial. Without any flaw 6 honest members and the corrupt give one sum, and the other 4 honest members nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.calibrate import user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from protocols import registry
from protocols.client import Client
from protocols.oneshot import committee as rules
from protocols.oneshot import parameters
from protocols.oneshot.committee import Committee, public_of
from protocols.oneshot.messages import (
    Answer,
    ConsistencySignatures,
    Contribution,
    Delivery,
    Header,
    Join,
    Member,
    Members,
    Upload,
    Vote,
)
from protocols.oneshot.parameters import lattice_of, parameters_of, sharing_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.sets import to_bitmap
from protocols.rounds.survivors import SignedBy
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.field import PRIME, P, multiply, reduce
from secagg.crypto.keys import AgreementKey, SigningKey, digest, transcript
from secagg.crypto.lattice import packing
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.packed import Sharing, _evaluate, _lagrange
from secagg.crypto.prg import Prg
from secagg.crypto.seal import OVERHEAD_BYTES, open_box, seal
from secagg.encoding import Encoding
from secagg.errors import PeerError, SecAggError
from tests.controls import Denied
from tests.scenes.journals import KeptJournal
from tests.scenes.pairwise import LENGTH, Puppet

Share = NDArray[np.uint32]
Shares = Mapping[int, Share]
"""Of one vector or sum, by holder."""


class Evil:
    """One round under attack. ``corrupt`` are puppets, all others of ``present`` real clients; the rest of the roster
    stays away, and those of it in ``outsiders`` sign for the attacker."""

    def __init__(
        self,
        plan: RoundPlan,
        roster: Roster,
        identities: Mapping[str, Identity],
        corrupt: Iterable[int],
        policy: Policy,
        *,
        present: Iterable[int] | None = None,
        seed: int = 0,
        journals: Callable[[str], Any] = lambda name: KeptJournal(),
        ledgers: Callable[[str], Any] = lambda name: None,
    ) -> None:
        self.plan, self.roster, self.identities, self.policy = plan, roster, identities, policy
        self.present = sorted(range(plan.clients) if present is None else present)
        self.corrupt = sorted(corrupt)
        self.honest = [u for u in self.present if u not in self.corrupt]
        self.messages = registry.find("oneshot").messages
        self.values = np.random.default_rng(seed).integers(-99, 100, (len(roster), LENGTH))
        self.clients = {
            u: Client(
                identities[self.name(u)],
                roster,
                policy=policy,
                journal=journals(self.name(u)),
                ledger=ledgers(self.name(u)),
                rng=Prg(seed.to_bytes(16, "big") + u.to_bytes(16, "big")),
            )
            for u in self.honest
        }
        self.puppets = {
            u: Puppet(plan, roster, identities[self.name(u)], self.values[u], u.to_bytes(32, "big"))
            for u in self.corrupt
        }
        self.joins: dict[int, Join] = {}
        self.uploads: dict[int, Upload] = {}
        self.dealt: dict[int, dict[int, Share]] = {v: {} for v in self.corrupt}  # corrupt member -> whose -> share
        self.shares: dict[frozenset[int], dict[int, Share]] = {}  # of the sum over a set, by member

    @property
    def sharing(self) -> Sharing:
        return sharing_of(self.plan)

    @property
    def quorum(self) -> int:
        return parameters_of(self.plan).quorum

    def name(self, number: int) -> str:
        return self.roster.names[number]

    # Speaking to one client, honest or corrupt.

    def frame(self, message: object) -> bytes:
        return self.messages.encode(self.plan, message)

    def tell(self, u: int, message: object) -> Any:
        if u in self.puppets:
            return self.puppets[u].hear(message)
        return self.messages.decode(self.plan, self.clients[u].receive(self.frame(message)))

    def start(self, u: int) -> Join:
        if u in self.puppets:
            return self.puppets[u].round.opening()  # type: ignore[no-any-return]
        return self.messages.decode(self.plan, self.clients[u].start(self.plan, self.values[u]))  # type: ignore[return-value]

    # The phases, each for whom the attacker likes.

    def join(self) -> None:
        for u in self.present:
            self.joins[u] = self.start(u)
        self.form(self.true_seats())

    def true_seats(self) -> list[Member]:
        return [seat for u in self.present if (seat := self.joins[u].member) is not None]

    def form(self, members: Sequence[Member]) -> None:
        """The committee that clients are shown from now on."""
        self.shown = Members(tuple(members))
        self.committee = Committee(self.plan, members)

    def forged_seat(self, u: int, key: AgreementKey, signer: int | None = None) -> Member:
        """A seat for u with a key of the attacker's, signed by somebody in its hand."""
        by = self.identities[self.name(u if signer is None else signer)].key
        signature = by.sign(labels.ONESHOT_SEAT, self.plan.digest(), u32.encode(u), key.public)
        return Member(u, key.public, signature)

    def upload(self, who: Iterable[int] | None = None) -> None:
        for u in self.present if who is None else who:
            self.keep(u, self.tell(u, self.shown))

    def keep(self, u: int, upload: Upload) -> None:
        self.uploads[u] = upload
        for v in self.corrupt:
            if v in self.committee.members:
                self.dealt[v][u] = self.opened(u, v, self.puppets[v].round._member_key)

    def box(self, u: int, v: int, upload: Upload | None = None) -> bytes:
        """From u, for v."""
        size = self.sharing.share_bytes + OVERHEAD_BYTES
        at = list(self.committee.members).index(v) * size
        return (upload or self.uploads[u]).boxes[at : at + size]

    def opened(self, u: int, v: int, key: AgreementKey, upload: Upload | None = None) -> Share:
        """u's share for v, whose seat has this key."""
        sealing = self.committee.box_key(key.agree((upload or self.uploads[u]).header.key), u, v)
        return self.sharing.unpack(open_box(sealing, self.box(u, v, upload), self._associated(u, v)))

    def _associated(self, u: int, v: int) -> bytes:
        return transcript(labels.ONESHOT_BOX, *self.committee.bound(u, v))

    def forged(self, u: int, signer: int | None = None) -> Upload:
        """An upload in u's name, empty, with shares of nothing, signed by somebody in the attacker's hand."""
        key, boxes = AgreementKey(os.urandom(32)), b""
        for v, member in self.committee.members.items():
            sealing = self.committee.box_key(key.agree(member.key), u, v)
            boxes += seal(sealing, bytes(self.sharing.share_bytes), self._associated(u, v), os.urandom)
        return self.signed(u, key.public, b"", boxes, signer)

    def signed(self, u: int, key: bytes, vector: bytes, boxes: bytes, signer: int | None = None) -> Upload:
        hashes = (digest(labels.ONESHOT_VECTOR, vector), digest(labels.ONESHOT_BOX, boxes))
        by = self.identities[self.name(u if signer is None else signer)].key
        signature = by.sign(labels.ONESHOT_UPLOAD, *self.committee.bound(u), key, *hashes)
        return Upload(Header(u, key, *hashes, signature), vector, boxes)

    def delivery(self, v: int, order: Iterable[int], uploads: Mapping[int, Upload] | None = None) -> Delivery:
        """Contributions in this order to v; ``uploads`` take the place of those that the server really has."""
        have = self.uploads | dict(uploads or {})
        return Delivery(tuple(Contribution(have[u].header, self.box(u, v, have[u])) for u in order))

    def consent(self, v: int, alive: Iterable[int], uploads: Mapping[int, Upload] | None = None) -> bytes:
        """v's signature on a set of survivors: asked for, or made, if v is corrupt."""
        if v in self.puppets:
            return self.sign(v, alive)
        consent: Vote = self.tell(v, self.delivery(v, sorted(alive), uploads))
        if consent.unopened:
            raise Denied(f"shares of {consent.unopened} do not open")
        return consent.signature

    def sign(self, number: int, alive: Iterable[int]) -> bytes:
        agreed = self.committee.agreed(self.contributed(alive), len(self.roster), self.bitmap(alive)).digest
        return self.identities[self.name(number)].key.sign(labels.SURVIVORS, agreed)

    def contributed(self, alive: Iterable[int]) -> bytes:
        return self.committee.contributed([self.uploads[u].header for u in sorted(alive)])

    def bitmap(self, alive: Iterable[int]) -> bytes:
        return to_bitmap(set(alive), range(len(self.roster)))

    def consents(self, alive: Iterable[int], signatures: Mapping[int, bytes]) -> ConsistencySignatures:
        return ConsistencySignatures(
            self.contributed(alive),
            self.bitmap(alive),
            tuple(SignedBy(v, signatures[v]) for v in sorted(signatures)),
        )

    def reveal(
        self,
        who: Iterable[int],
        alive: Iterable[int],
        signatures: Mapping[int, bytes],
        really: Iterable[int] | None = None,
    ) -> None:
        """Shares of the sum over ``alive``, or over what these members ``really`` have been shown."""
        for v in who:
            self.keep_answer(v, alive if really is None else really, self.tell(v, self.consents(alive, signatures)))

    def keep_answer(self, v: int, alive: Iterable[int], answer: Answer) -> None:
        if answer.share:
            self.shares.setdefault(frozenset(alive), {})[v] = self.sharing.unpack(answer.share)

    def ask(
        self, who: Iterable[int], alive: Iterable[int], uploads: Mapping[int, Upload] | None = None
    ) -> dict[int, bytes]:
        """The signatures of these honest members, and of all the corrupt."""
        return {v: self.consent(v, alive, uploads) for v in [*who, *self.corrupt] if v in self.committee.members}

    # What can be had from the loot.

    def loot(self, alive: Iterable[int]) -> dict[int, Share]:
        """Shares of the sum over a set: revealed, and the corrupt members' own."""
        alive = frozenset(alive)
        own = {
            v: self.sharing.total([shares[u] for u in sorted(alive)])
            for v, shares in self.dealt.items()
            if shares.keys() >= alive
        }
        return self.shares.get(alive, {}) | own

    def holders(self, members: Iterable[int]) -> list[int]:
        order = {member: holder for holder, member in enumerate(self.committee.members, 1)}
        return [order[v] for v in members]

    def secret(self, shares: Shares) -> NDArray[np.int64]:
        if len(shares) < self.sharing.threshold:
            raise Denied(f"{len(shares)} shares, {self.sharing.threshold} are needed")
        members = sorted(shares)
        try:
            return self.sharing.rebuild(self.holders(members), np.stack([shares[v] for v in members]))
        except PeerError as error:
            raise Denied(str(error)) from None

    def guess(self, full: Shares, part: Shares) -> NDArray[np.int64]:
        """What one vector is more than another, of which there are too few shares: short, so the nearest lattice point
        tells, if the equations outweigh its entropy."""
        sharing, fixed = self.sharing, [v for v in self.corrupt if v in part]
        new = sorted(part.keys() - set(fixed))
        if len(fixed) != sharing.private or len(full) < sharing.threshold:
            raise Denied("too few shares to begin with")
        first = sorted(full)[: sharing.threshold]
        values = np.stack([full[v] for v in first]).astype(np.uint64)
        known = np.concatenate([
            full[v][None] if v in first else _evaluate(tuple(self.holders(first)), tuple(self.holders([v])), values)
            for v in [*fixed, *new]
        ]).astype(np.uint64)  # fmt: skip
        less = np.stack([part[v] for v in [*fixed, *new]]).astype(np.uint64)
        holders = self.holders([*fixed, *new])
        return short_secret(sharing, dict(zip(holders, reduce(known + P - less), strict=True)))

    def total(self, uploads: Iterable[Upload]) -> Any:
        layout = lattice_of(self.plan).layout
        count = layout.coefficients(LENGTH)
        vectors = [Coefficients.unpack(layout.ring, upload.vector, count) for upload in uploads]
        return sum(vectors[1:], start=vectors[0])

    def unmask(self, total: Any, secret: NDArray[np.int64]) -> list[int]:
        """The values, without the mask of this secret; ``Denied`` if it is another's."""
        layout = lattice_of(self.plan).layout
        mask = (public_of(self.plan) * Coefficients.lift(layout.ring, [secret]).evaluations()).coefficients()
        try:
            return packing.decode(layout, total - mask, LENGTH).tolist()  # type: ignore[no-any-return]
        except PeerError as error:
            raise Denied(str(error)) from None

    def sum_of(self, alive: Iterable[int]) -> list[int]:
        """The sum of the vectors of a set, from a quorum of shares."""
        return self.unmask(self.total(self.uploads[u] for u in alive), self.secret(self.loot(alive)))

    def victim(self, more: Iterable[int], fewer: Iterable[int]) -> list[int]:
        """The vector of whoever is in one set only, from a quorum of shares of one and some shares of the other."""
        (v,) = set(more) - set(fewer)
        return self.unmask(self.total([self.uploads[v]]), self.guess(self.loot(more), self.loot(fewer)))

    def plain(self, group: Iterable[int]) -> list[int]:
        return self.values[sorted(group)].sum(axis=0).tolist()  # type: ignore[no-any-return]


# Short solutions of linear equations.


def short_secret(sharing: Sharing, shares: Mapping[int, NDArray[Any]]) -> NDArray[np.int64]:
    """A short vector from its shares, by holder: more than ``private``, so that there are equations, and fewer than a
    threshold, so that the nearest lattice point is needed."""
    holders = tuple(shares)
    fixed, new = holders[: sharing.private], holders[sharing.private :]
    values = np.stack([shares[holder] for holder in holders]).astype(np.uint64)
    points = (*sharing._secret_points(), *fixed)
    weights = _lagrange(points, new)
    zeros = np.zeros((sharing.packing, sharing.polynomials), np.uint64)
    of_fixed = _evaluate(points, new, np.concatenate([zeros, values[: len(fixed)]]))
    right = reduce(values[len(fixed) :] + P - of_fixed)
    powers = [np.uint64((2 * sharing.bound + 1) ** k) for k in range(sharing.digits)]
    left = np.concatenate([multiply(weights[:, : sharing.packing], power) for power in powers], axis=1)
    return shortest(left, right).reshape(-1)[: sharing.length]  # (digits * packing, polynomials)


def shortest(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Column by column a short x with left x = right modulo the prime: Babai's nearest plane in an LLL-reduced basis
    of the x with left x = 0."""
    rows, unknowns = left.shape
    system = [[int(x) for x in row] + [int(y) for y in other] for row, other in zip(left, right, strict=True)]
    for i in range(rows):  # to [I | R | Y]; the first columns are never dependent here
        inverse = pow(system[i][i], -1, PRIME)
        system[i] = [x * inverse % PRIME for x in system[i]]
        for j in range(rows):
            if j != i:
                factor = system[j][i]
                system[j] = [(x - factor * y) % PRIME for x, y in zip(system[j], system[i], strict=True)]
    basis = [[PRIME * (i == j) for j in range(unknowns)] for i in range(rows)]
    for free in range(rows, unknowns):
        basis.append([-system[i][free] % PRIME for i in range(rows)] + [int(j == free) for j in range(rows, unknowns)])
    reduced = lll(basis)
    out = np.zeros((unknowns, right.shape[1]))
    out[:rows] = np.array([row[unknowns:] for row in system], float)
    orthogonal = gram_schmidt(reduced)[0]
    for vector, direction in zip(reduced[::-1], orthogonal[::-1], strict=True):
        out -= np.outer(vector, np.rint(direction @ out / (direction @ direction)))
    return out.astype(np.int64)


def gram_schmidt(basis: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    orthogonal, mu = basis.copy(), np.eye(len(basis))
    for i in range(len(basis)):
        for j in range(i):
            mu[i, j] = basis[i] @ orthogonal[j] / (orthogonal[j] @ orthogonal[j])
            orthogonal[i] -= mu[i, j] * orthogonal[j]
    return orthogonal, mu


def lll(rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Lenstra, Lenstra and Lovasz 1982. In floating point, which holds 31-bit numbers in so few dimensions."""
    basis, k = np.array(rows, float), 1
    orthogonal, mu = gram_schmidt(basis)
    while k < len(basis):
        for j in range(k - 1, -1, -1):
            if factor := np.rint(mu[k, j]):
                basis[k] -= factor * basis[j]
                mu[k, : j + 1] -= factor * mu[j, : j + 1]
        norms = (orthogonal[k] @ orthogonal[k], orthogonal[k - 1] @ orthogonal[k - 1])
        if norms[0] >= (0.99 - mu[k, k - 1] ** 2) * norms[1]:
            k += 1
        else:
            basis[[k - 1, k]] = basis[[k, k - 1]]
            orthogonal, mu = gram_schmidt(basis)
            k = max(k - 1, 1)
    return basis


# Scenes.


@cache
def people(count: int) -> tuple[Roster, dict[str, Identity]]:
    names = [f"client-{i:03}" for i in range(count)]
    identities = {name: Identity.generate(name, Prg(name.encode().ljust(32))) for name in names}
    return Roster.of(list(identities.values())), identities


def make(
    *,
    clients: int = 12,
    corrupt: Iterable[int] = (10, 11),
    outsiders: int = 0,
    parameters: Any = None,
    min_contributors: int = 4,
    policy: Policy | None = None,
    session: bytes = bytes(16),
    beacon: bytes = b"",
    noise: Any = None,
    bits: int = 16,
    **options: Any,
) -> Evil:
    """Everybody has a seat, unless ``parameters`` say otherwise, and the roster has ``outsiders`` more."""
    roster, identities = people(clients + outsiders)
    plan = RoundPlan.propose(
        "oneshot",
        roster,
        Encoding.integers(LENGTH, bits),
        min_contributors=min_contributors,
        clients=clients,
        corrupt="1/6",
        dropout=0,
        session=session,
        beacon=beacon,
        noise=noise,
    )
    if parameters is not None:
        plan = replace(plan, parameters=parameters)
    if policy is None:
        policy = Policy(min_contributors=min_contributors, protocols={"oneshot"}, corrupt="1/6", beacon=beacon)
    return Evil(plan, roster, identities, corrupt, policy, **options)


VICTIM = 0
Fixture = pytest.MonkeyPatch


def attempt(attack: Callable[[], Any], error: type[SecAggError], match: str) -> None:
    with pytest.raises(error, match=match):
        attack()


def cloned(evil: Evil, update: np.ndarray[Any, Any]) -> Upload:
    """The victim's upload is kept; its clone's, of another update, is the answer."""
    clone = Client(
        evil.identities[evil.name(VICTIM)],
        evil.roster,
        policy=evil.policy,
        rng=Prg(bytes(16) + VICTIM.to_bytes(16, "big")),
    )
    clone.start(evil.plan, update)
    return evil.messages.decode(evil.plan, clone.receive(evil.frame(evil.shown)))  # type: ignore[return-value]


COURT, GROUND = b"a beacon of the deployment", b"the beacon that the server likes best"


def by_lot(beacon: bytes, known: bytes, corrupt: list[int], present: list[int], outsiders: int = 0) -> Evil:
    """``known`` to clients, and ``beacon`` in the plan. So small a committee is for who wants one bit of security."""
    policy = Policy(min_contributors=10, protocols={"oneshot"}, corrupt="0.0625", security=1, beacon=known)
    return make(
        clients=129,
        outsiders=outsiders,
        corrupt=corrupt,
        present=present,
        parameters=parameters.CommitteeSize(6, 3),
        min_contributors=10,
        policy=policy,
        beacon=beacon,
    )


def drawn(beacon: bytes, outsiders: int = 0) -> list[int]:
    evil = by_lot(beacon, beacon, [], [], outsiders)
    return sorted(rules.sortition(evil.plan, evil.roster))


def new_ledger(path: Path, epsilon: int = 30) -> Ledger:
    budget = Budget(Fraction(epsilon), Fraction(1, 1000), slack=Fraction(1, 10**6))
    return Ledger.create(path, SigningKey(b"l" * 32), budget, user_level(Relation.ZERO_OUT), run="test", elsewhere="-")
