"""Rounds and ledgers for the tests. Light: imports no numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from dp import verify_ledger
from dp.arrivals import Arrivals
from dp.events import Gaussian, Guarantee, Holder, PoissonSample, Relation, Release, Trust, Unit
from dp.ledger import Budget, Ledger
from dp.ledger.entries import canonical, parse, survivors_digest
from dp.ledger.heads import note_text
from dp.ledger.proofs import Tree, leaf_hash
from dp.ledger.state import START, Row
from dp.ledger.verify import verify
from dp.noise import Family, NoiseSpec
from dp.secure_sum import SecureSum, Signed
from dp.turns import Turns, roster_of
from dp.windows import Window
from secagg.crypto import labels
from secagg.crypto.keys import SigningKey, digest
from secagg.errors import PeerError

KEY = SigningKey(bytes(range(32)))
CLIENT = SigningKey(bytes(range(1, 33)))
USER = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)
INSIDE = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED, Holder.SILO)
EXAMPLE = Guarantee(Unit.EXAMPLE, Relation.ADD_OR_REMOVE, Trust.LOCAL)
BUDGET = Budget(Fraction(8), Fraction(1, 10**6), slack=Fraction(1, 10**9))
LARGE = Budget(Fraction(45), Fraction(1, 10**6), slack=Fraction(1, 10**7))
"""For a few thousand rounds."""
PLANNED = 10
SKELLAM = NoiseSpec(Family.SKELLAM, Fraction(40_000), dropouts=4, colluders=1, components=2)
GAUSSIANS = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(40_000), dropouts=4, colluders=1)
EXACTLY = replace(GAUSSIANS, components=4)
"""Whoever is missing, as much noise stays in the sum, and it costs what was reserved."""


@cache
def signer(number: int) -> SigningKey:
    return SigningKey(number.to_bytes(32, "big"))


def planned(number: int = 0, noise: NoiseSpec = SKELLAM, session: bytes = bytes(16), **more: Any) -> SecureSum:
    """A round as it is planned."""
    plan = b"plan %d of " % number + session
    facts = SecureSum(
        plan=plan,
        plan_digest=digest(labels.PLAN, plan),
        session=session,
        round=number,
        roster=bytes(32),
        planned=PLANNED,
        noise=noise,
        dimension=1000,
        clip_l2=Fraction(1),
        scale=Fraction(201, 2),
        rotated=True,
        beta=Fraction(1, 7),
        l2_squared=10_200,
        l1=3_100,
        weight_bound=1,
        users=0,
        overlap=1,
        rounding="stochastic",
        sampled=Fraction(1),
        ring_bits=20,
        signers=2,
        survivors=PLANNED,
    )
    return replace(facts, **more)


def happened(number: int = 0, gone: Iterable[int] = (0, 3), signers: int = 3, **more: Any) -> SecureSum:
    """The same round when the survivors have signed; ``gone`` are missing."""
    alive = [u for u in range(PLANNED) if u not in set(gone)]
    bitmap = sum(1 << u for u in alive).to_bytes(2, "little")
    cohort = digest(b"cohort", number.to_bytes(4, "big"))
    facts = replace(planned(number, **more), survivors=len(alive), cohort=cohort, bitmap=bitmap)
    return signed(facts, alive[:signers])


def signed(facts: SecureSum, signers: Iterable[int]) -> SecureSum:
    agreed = survivors_digest(facts)
    return replace(
        facts,
        signatures=tuple(
            Signed(f"client-{u}", signer(u).public, signer(u).sign(labels.SURVIVORS, agreed)) for u in signers
        ),
    )


NAMES = tuple(sorted(f"client-{u}" for u in range(15)))
TURNS = Turns(NAMES, tuple(signer(int(name.removeprefix("client-"))).public for name in NAMES), b"noon", PLANNED)
"""Fifteen clients, of whom ten are in a sum: each is in two of three."""


def plan_of(number: int, roster: bytes, session: bytes = bytes(16)) -> dict[str, bytes]:
    """The bytes of a plan, which begin as those of plans do, and their digest."""
    plan = (4).to_bytes(4, "big") + b"some" + session + number.to_bytes(4, "big") + roster + b" and more"
    return {"plan": plan, "plan_digest": digest(labels.PLAN, plan)}


def turn(number: int = 0, session: bytes = bytes(16), turns: Turns = TURNS, **more: Any) -> SecureSum:
    """A sum as it is planned over those whose turn it is. The plan begins as plans do."""
    roster = turns.roster(number)
    facts = planned(number, EXACTLY, session, planned=turns.size, survivors=turns.size)
    return replace(facts, **plan_of(number, roster, session), roster=roster, **more)


def turn_happened(number: int = 0, facts: SecureSum | None = None, signers: int = 2, turns: Turns = TURNS) -> SecureSum:
    """The same when the survivors have signed; nobody is missing."""
    facts = facts or turn(number, turns=turns)
    whole = (1 << facts.planned) - 1
    facts = replace(
        facts,
        cohort=digest(b"cohort", number.to_bytes(4, "big")),
        bitmap=whole.to_bytes(-(-facts.planned // 8), "little"),
    )
    return signed(facts, [int(name.removeprefix("client-")) for name in turns.cohort(number)][:signers])


ARRIVALS = Arrivals(TURNS.names, TURNS.keys, PLANNED)
"""The same fifteen: ten that are ready are in a sum."""


def arrived(number: int, names: Iterable[str], session: bytes = bytes(16), **more: Any) -> SecureSum:
    """A sum as it is planned over these clients. The plan begins as plans do."""
    members = tuple(sorted(names))
    roster = roster_of({name: key for name, key in zip(ARRIVALS.names, ARRIVALS.keys, strict=True) if name in members})
    plan = (4).to_bytes(4, "big") + b"some" + session + number.to_bytes(4, "big") + roster + b" and more"
    facts = planned(number, EXACTLY, session, planned=len(members), survivors=len(members))
    return replace(facts, plan=plan, plan_digest=digest(labels.PLAN, plan), roster=roster, members=members, **more)


def arrival_happened(facts: SecureSum, signers: int = 2) -> SecureSum:
    """The same when the survivors have signed; nobody is missing."""
    bitmap = ((1 << facts.planned) - 1).to_bytes(-(-facts.planned // 8), "little")
    facts = replace(facts, cohort=digest(b"cohort", facts.round.to_bytes(4, "big")), bitmap=bitmap)
    return signed(facts, [int(name.removeprefix("client-")) for name in facts.members][:signers])


WEEKLY = Guarantee(Unit.USER_WINDOW, Relation.ZERO_OUT, Trust.DISTRIBUTED)
WINDOW = Window(length=7 * 86_400, kept=86_400, start=1_000_000, every=4 * 86_400)
"""Of sums four days apart, two in a row have events of one window in them."""


def dated(number: int = 0, session: bytes = bytes(16), **more: Any) -> SecureSum:
    """A sum as it is planned, whose number is in its plan."""
    return planned(number, GAUSSIANS, session, **{**plan_of(number, bytes(32), session), **more})


def dated_happened(number: int = 0, gone: Iterable[int] = (), session: bytes = bytes(16), **more: Any) -> SecureSum:
    """The same when the survivors have signed."""
    more = {**plan_of(number, bytes(32), session), **more}
    return happened(number, gone, signers=2, noise=GAUSSIANS, session=session, **more)


def step(z: str = "1", rate: str = "1/100") -> Release:
    return Release(Gaussian(Fraction(z)), PoissonSample(Fraction(rate)), EXAMPLE)


def new(
    path: Path, *, key: SigningKey = KEY, budget: Budget = BUDGET, guarantee: Guarantee = USER, **more: Any
) -> Ledger:
    return Ledger.create(path, key, budget, guarantee, run="a test", elsewhere="nothing", **more)


def filled(path: Path, rounds: int = 3) -> Ledger:
    """Rounds that are committed, with fewer and fewer survivors, an aborted one, and one that is still reserved."""
    ledger = new(path)
    for number in range(rounds):
        ledger.reserve(planned(number))
        ledger.commit(happened(number, gone=range(number % 5)))
    ledger.reserve(planned(rounds))
    ledger.abort(planned(rounds), "too few")
    ledger.reserve(planned(rounds + 1))
    return ledger


def forged(rows: Iterable[Row], change: Callable[[list[dict[str, Any]]], object], key: SigningKey = KEY) -> list[Row]:
    """What the ledger's owner can make of it: other entries, numbered, chained and signed as they should be."""
    bodies = [parse(body) for body, _signature in rows]
    change(bodies)
    made, tree = [], Tree()
    for number, body in enumerate(bodies):
        made.append(canonical({**body, "number": number, "previous": (tree.root if number else START).hex()}))
        tree = tree.with_leaf(made[-1])
    return ended(made, key)


def signature_in(facts: dict[str, Any], name: str, key: SigningKey) -> dict[str, str]:
    """A good signature of the survivors in these facts by that key, as it stands in an entry."""
    signature = key.sign(labels.SURVIVORS, bytes.fromhex(facts["survivors_digest"]))
    return {"name": name, "key": key.public.hex(), "signature": signature.hex()}


def ended(bodies: Sequence[bytes], key: SigningKey = KEY) -> list[Row]:
    """These entries, the last of them signed as the last."""
    signatures = [b""] * (len(bodies) - 1) + [key.sign_raw(note(bodies))]
    return list(zip(bodies, signatures, strict=True))


def note(bodies: Sequence[bytes]) -> bytes:
    """What the owner of a ledger of these entries signs."""
    tree = Tree()
    for body in bodies:
        tree = tree.with_leaf(body)
    return note_text(leaf_hash(bodies[0]), tree.size, tree.root)


def exported(rows: Iterable[Row]) -> bytes:
    """As ``secagg ledger export`` prints it."""
    lines = [{"body": parse(body), "signature": signature.hex()} for body, signature in rows]
    return b"".join(canonical(line) + b"\n" for line in lines)


def ours(rows: list[Row]) -> str:
    """Why the library refuses these entries; empty if it does not."""
    try:
        verify(rows, KEY.public)
    except PeerError as error:
        return str(error)
    return ""


def theirs(rows: list[Row]) -> str:
    """Why the stand-alone script does."""
    return "; ".join(verify_ledger.problems(exported(rows), KEY.public, None))
