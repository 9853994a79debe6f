"""Runs for tests: records, and beside them real ledgers that can be verified."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from dp.events import Gaussian, Guarantee, PoissonSample, Relation, Release, Trust, Unit
from dp.ledger import FILE, Budget, Ledger
from dp.noise import Family, NoiseSpec
from dp.secure_sum import Signed
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from recsys.run_record import FILE as RECORD
from recsys.run_record import Quality, Round, Run, Spending
from secagg.crypto import labels
from secagg.crypto.keys import SigningKey, digest
from secagg.encoding import Encoding

MODES = ("none", "local", "distributed", "both")
CLIENTS, ROUNDS = 20, 12
KEY = SigningKey(bytes(range(32)))
IDENTITIES = [Identity(f"silo-{i:02}", SigningKey(bytes([i + 1]) * 32)) for i in range(CLIENTS)]
SURVIVORS = (20, 19, 18, 17, 16)
"""In turn."""

TOGETHER = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)
ALONE = Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.LOCAL)
DELTA = Fraction(1, 10**6)
SLACK = Fraction(1, 10**8)
NOISE = NoiseSpec(Family.SKELLAM, Fraction(6_600_000_000), dropouts=4, colluders=1, components=4)
STEP = Release(Gaussian(Fraction(1)), PoissonSample(Fraction(1, 20)), ALONE)
LOCAL = "local.db"


def make(folder: Path, mode: str, rounds: int = ROUNDS, **changes: Any) -> Run:
    """A run in ``folder``, as training would leave it."""
    spendings: list[Spending] = []
    reached: list[tuple[float | None, str]] = [(None, "")] * rounds
    if mode in ("distributed", "both"):
        reached = _secure_sums(folder, rounds)
        spendings.append(_promise(FILE, TOGETHER, 1))
    if mode in ("local", "both"):
        name = FILE if mode == "local" else LOCAL
        alone = _steps(folder / name, rounds)
        reached = alone if mode == "local" else reached
        spendings.append(_promise(name, ALONE, 0))
    run = Run(
        title="Private matrix factorisation, twenty silos",
        config={"seed": 1, "clients": "silos", "training": {"rounds": rounds, "rate": 0.05, "optimiser": "FedAdam"}},
        data={
            "source": "synthetic",
            "users": 2400,
            "items": 1500,
            "training events": 240_000,
            "clients": CLIENTS,
            "notes": ["3 rows were refused", "12 users are too short to be tested"],
        },
        protocol={
            "name": "secagg+",
            "clients": CLIENTS,
            "degree": 10,
            "threshold": 6,
            "adversary": "active",
            "min_contributors": 16,
            "corrupt": "0.05",
            "dropout": "0.2",
        },
        mode=mode,
        measured_under="summed up under the mask, without noise",
        spendings=tuple(spendings),
        rounds=tuple(_round(number, *spent) for number, spent in enumerate(reached)),
        results=RESULTS,
        ended="all rounds are done" if mode == "none" else "the next round would exceed the budget",
        machine={"cores": 2, "system": "Linux"},
    )
    run = replace(run, owner=KEY.public.hex(), **changes)
    run.save(folder, KEY)
    return run


def put(folder: Path, record: object) -> None:
    """Write any JSON as a run's record, signed by whoever made these runs."""
    if isinstance(record, dict):  # also one with numbers that a run does not write
        record = {"owner": KEY.public.hex(), "signature": ""} | record
        record |= {"owner": KEY.public.hex(), "signature": "0" * 128}
    data = json.dumps(record, indent=1).encode()
    if isinstance(record, dict):
        data = data.replace(b"0" * 128, KEY.sign(labels.RUN_RECORD, data).hex().encode(), 1)
    (folder / RECORD).write_bytes(data)


RESULTS = (
    Quality("ItemPop", {"HR@10": 0.0426, "NDCG@10": 0.0194, "HR@10 of 100": 0.623, "NDCG@10 of 100": 0.362}),
    Quality(
        "without privacy",
        {"HR@10": 0.0885, "NDCG@10": 0.0400, "HR@10 of 100": 0.741, "NDCG@10 of 100": 0.512},
        "same rounds, same seed, no noise",
    ),
    Quality(
        "this run",
        {"HR@10": 0.0713, "NDCG@10": 0.0331, "HR@10 of 100": 0.702, "NDCG@10 of 100": 0.447},
        "95% interval of NDCG@10: 0.0281 to 0.0381",
    ),
)


def _round(number: int, epsilon: float | None, head: str) -> Round:
    quality = 0.0331 * (1 - 0.7 ** (number + 1)) / (1 - 0.7**ROUNDS)
    survivors = SURVIVORS[number % len(SURVIVORS)]
    silent = {"upload": CLIENTS - survivors} if survivors < CLIENTS else {}
    before = 0.0331 * (1 - 0.7**number) / (1 - 0.7**ROUNDS)
    return Round(
        number=number,
        purpose="training",
        planned=CLIENTS,
        survivors=survivors,
        silent=silent,
        bytes_up=9_400_000 - 100_000 * (CLIENTS - survivors),
        bytes_down=4_100_000,
        seconds={"updates": 4.81, "advertise": 0.02, "share": 0.31, "upload": 0.44, "confirm": 0.01, "unmask": 0.62},
        measured={"HR@10": 2.15 * before, "NDCG@10": before} if number % 3 == 0 else {},
        exact={"HR@10": 2.15 * quality, "NDCG@10": quality},
        epsilon=epsilon,
        epsilon_left=None if epsilon is None else 8 - epsilon,
        head=head,
    )


def _promise(ledger: str, guarantee: Guarantee, colluders: int) -> Spending:
    unit = "user" if guarantee is TOGETHER else "user (an example is a whole history)"
    words = f"the sums of all rounds together are (8, 1e-06)-private for each {unit}"
    unit, relation, trust = map(str, (guarantee.unit, guarantee.relation, guarantee.trust))
    return Spending(ledger, unit, relation, trust, 8.0, float(DELTA), colluders, words)


def _secure_sums(folder: Path, rounds: int) -> list[tuple[float | None, str]]:
    """Epsilon and head after each of them."""
    reached: list[tuple[float | None, str]] = []
    ledger = _created(folder / FILE, TOGETHER, Budget(Fraction(8), DELTA, SLACK))
    for plan, gone in zip(_plans(rounds), SURVIVORS * rounds, strict=False):
        ledger.reserve(plan.secure_sum(CLIENTS))
        alive = IDENTITIES[:gone]
        cohort, bitmap = bytes(32), ((1 << gone) - 1).to_bytes(3, "little")
        agreed = digest(labels.SURVIVORS, plan.digest(), cohort, bitmap)
        signatures = [Signed(i.name, i.key.public, i.key.sign(labels.SURVIVORS, agreed)) for i in alive]
        ledger.commit(plan.secure_sum(gone, cohort=cohort, bitmap=bitmap, signatures=signatures))
        reached.append((ledger.epsilon, ledger.head.hex()))
    ledger.close()
    return reached


@cache
def _plans(rounds: int) -> tuple[RoundPlan, ...]:
    plan = RoundPlan.propose(
        "secagg+",
        Roster.of(IDENTITIES),
        Encoding(1000, clip_l2=1.0, bits=16),
        min_contributors=16,
        dropout="0.2",
        noise=NOISE,
    )
    plans = [plan]
    while len(plans) < rounds:
        plans.append(plans[-1].next_round())
    return tuple(plans)


def _steps(path: Path, rounds: int) -> list[tuple[float | None, str]]:
    reached: list[tuple[float | None, str]] = []
    ledger = _created(path, ALONE, Budget.suited(STEP, Fraction(8), DELTA, SLACK))
    for _ in range(rounds):
        ledger.charge(STEP, 29)
        reached.append((ledger.epsilon, ledger.head.hex()))
    ledger.close()
    return reached


def _created(path: Path, guarantee: Guarantee, budget: Budget) -> Ledger:
    (path.parent / "ledger.pub").write_text(KEY.public.hex() + "\n")
    return Ledger.create(path, KEY, budget, guarantee, run="a run for tests", elsewhere="exact metrics, not charged")
