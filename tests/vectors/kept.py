"""Makes the vectors of what is kept on disk: a ledger as it is exported, and a client's journal."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from dp.arrivals import Arrivals
from dp.events import Gaussian, Guarantee, PoissonSample, Relation, Release, Trust, Unit
from dp.filter import Kind
from dp.ledger import Budget, Ledger, Steps
from dp.ledger.entries import canonical, parse, survivors_digest
from dp.ledger.file import read
from dp.noise import Family, NoiseSpec
from dp.secure_sum import SecureSum, Signed
from dp.turns import Turns
from dp.windows import Window
from protocols.client import Client
from protocols.journal import MemoryJournal
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from protocols.rounds.sets import to_bitmap
from secagg.crypto import labels
from secagg.crypto.keys import SigningKey

SUMS = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)
GAUSSIANS = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(10**6), dropouts=2, colluders=1, components=1)
LOCAL = Guarantee(Unit.EXAMPLE, Relation.ADD_OR_REMOVE, Trust.LOCAL)


def ledgers(plan: RoundPlan, identities: list[Identity], key: SigningKey) -> list[dict[str, Any]]:
    """A ledger of secure sums, one committed, one aborted and one reserved; one of local training; one of clients that
    take turns, all but the last in each sum, with one that is committed and one that is reserved; and the same of
    clients that come when they are ready, and of windows."""
    step = Release(Gaussian(Fraction(1)), PoissonSample(Fraction(1, 100)), LOCAL)
    with tempfile.TemporaryDirectory() as folder:
        sums = Ledger.create(
            f"{folder}/sums.db",
            key,
            Budget(Fraction(8), Fraction(1, 10**6), slack=Fraction(1, 10**9)),
            SUMS,
            run="vectors",
            elsewhere="nothing",
        )
        sums.reserve(plan.secure_sum(plan.clients))
        sums.commit(_signed(plan, identities))
        aborted = plan.next_round()
        sums.reserve(aborted.secure_sum(plan.clients))
        sums.abort(aborted.secure_sum(plan.clients), "too few")
        sums.reserve(aborted.next_round().secure_sum(plan.clients))
        local = Ledger.create(
            f"{folder}/local.db",
            key,
            Budget.suited(step, Fraction(2), Fraction(1, 10**5), slack=Fraction(0)),
            LOCAL,
            run="vectors",
            elsewhere="sums.db",
        )
        local.reserve(Steps("training", step, 100))
        local.commit(Steps("training", step, 100))
        others = (make(folder, plan, identities, key) for make in (_turns, _arrivals, _windows))
        return [_exported(ledger) for ledger in (sums, local, *others)]


def _turns(folder: str, plan: RoundPlan, identities: list[Identity], key: SigningKey) -> Ledger:
    everybody = Roster.of(everybody_of(identities))
    turns = Turns(everybody.names, everybody.keys, b"thrown dice", len(identities))
    budget = Budget(Fraction(8), Fraction(1, 10**6), slack=Fraction(1, 10**9), kind=Kind.GDP)
    ledger = Ledger.create(f"{folder}/turns.db", key, budget, SUMS, run="vectors", elsewhere="nothing", turns=turns)
    mine = {one.name: one for one in everybody_of(identities)}
    for number in range(2):
        members = turns.members(number)
        planned = replace(plan, noise=GAUSSIANS, round=number, roster=turns.roster(number))
        ledger.reserve(planned.secure_sum(planned.clients))
        if number == 0:
            ledger.commit(_signed(planned, [mine[name] for name in members]))
    return ledger


def _arrivals(folder: str, plan: RoundPlan, identities: list[Identity], key: SigningKey) -> Ledger:
    everybody = Roster.of(everybody_of(identities))
    arrivals = Arrivals(everybody.names, everybody.keys, len(identities))
    noise = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(10**6), dropouts=2, colluders=1, components=1)
    budget = Budget(Fraction(8), Fraction(1, 10**6), slack=Fraction(1, 10**9), kind=Kind.GDP)
    path = f"{folder}/arrivals.db"
    ledger = Ledger.create(path, key, budget, SUMS, run="vectors", elsewhere="nothing", arrivals=arrivals)
    for number, gone in enumerate(("ann", "cat")):
        members = Roster.of([one for one in everybody_of(identities) if one.name != gone])
        planned = replace(plan, noise=noise, round=number, roster=members.digest)
        ledger.reserve(planned.secure_sum(planned.clients, members=members.names))
        if number == 0:
            mine = [one for one in everybody_of(identities) if one.name != gone]
            ledger.commit(replace(_signed(planned, mine), members=members.names))
    return ledger


def _windows(folder: str, plan: RoundPlan, identities: list[Identity], key: SigningKey) -> Ledger:
    guarantee = replace(SUMS, unit=Unit.USER_WINDOW)
    window = Window(length=7 * 86_400, kept=86_400, start=1_000_000, every=3600)
    budget = Budget(Fraction(8), Fraction(1, 10**6), slack=Fraction(1, 10**9), kind=Kind.GDP)
    path = f"{folder}/windows.db"
    ledger = Ledger.create(path, key, budget, guarantee, run="vectors", elsewhere="nothing", window=window)
    first = replace(plan, noise=GAUSSIANS)
    for planned in (first, first.next_round()):
        ledger.reserve(planned.secure_sum(planned.clients))
        if planned is first:
            ledger.commit(_signed(planned, identities))
    return ledger


def everybody_of(identities: list[Identity]) -> list[Identity]:
    return [*identities, Identity("zoe", SigningKey(bytes(31) + b"z"))]


def _signed(plan: RoundPlan, identities: list[Identity]) -> SecureSum:
    """The plan's sum, over all but the last of the clients, who have signed that."""
    alive = range(plan.clients - 1)
    cohort, bitmap = bytes(range(32)), to_bitmap(set(alive), range(plan.clients))
    agreed = plan.secure_sum(len(alive), cohort=cohort, bitmap=bitmap)
    signed = [
        Signed(one.name, one.key.public, one.key.sign(labels.SURVIVORS, survivors_digest(agreed)))
        for one in (identities[number] for number in alive)
    ]
    return plan.secure_sum(len(alive), cohort=cohort, bitmap=bitmap, signatures=signed)


def _exported(ledger: Ledger) -> dict[str, Any]:
    path, head = ledger.path, ledger.head.hex()
    ledger.close()
    rows = read(path)
    lines = [canonical({"body": parse(body), "signature": signature.hex()}).decode() for body, signature in rows]
    return {"name": path.stem, "head": head, "lines": lines}


class Noting(MemoryJournal):
    """A journal that keeps what it was asked to keep, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[dict[str, Any]] = []

    def append(
        self, deployment: bytes, session: bytes, round_: int, step: int, record: bytes, beside: Any = None
    ) -> None:
        super().append(deployment, session, round_, step, record, beside)
        self.kept.append(
            {
                "deployment": deployment.hex(),
                "session": session.hex(),
                "round": round_,
                "step": step,
                "record": record.hex(),
                "link": self.head().hex(),
            }
        )


def journal(client: Client, noting: Noting, plan: RoundPlan, update: Any, frames: Iterable[bytes]) -> dict[str, Any]:
    """What a client keeps of the round in which it hears these frames."""
    client.start(plan, update)
    for frame in frames:
        client.receive(frame)
    return {"identity": client.identity.key.secret.hex(), "records": noting.kept}
