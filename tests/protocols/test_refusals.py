"""One client that refuses, whatever and whenever, costs a simulated round that client: its ledger, its journal, its
policy, with the first frame or later. The others' sum is exact, and the refusal is an incident in its name."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp.calibrate import user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.engines.local import Threads
from protocols.journal import SqliteJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation import network as simulate_module
from protocols.simulation import trees as forest_module
from protocols.simulation import workers as crowd_module
from protocols.simulation.network import Envelope, Faults, Incident, Simulation, simulate
from protocols.simulation.trees import Terms, TreeRun, grown, simulate_tree
from protocols.simulation.workers import simulate_on_workers
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import BudgetError, PolicyError, SecAggError, StorageError, ThresholdError, UsageError
from tests.controls import switch_off
from tests.scenes.journals import KeptJournal

pytestmark = pytest.mark.thinned(4)

N, LENGTH = 7, 4
PEOPLE = [Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(N)]
ROSTER, NAMES = Roster.of(PEOPLE), [one.name for one in PEOPLE]
ONE = NAMES[2]
POLICY = Policy(min_contributors=4, dropout="0.3")
NOISE = NoiseSpec(Family.SKELLAM, Fraction(10**6), dropouts=2, colluders=1)
HUGE = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**6))
TINY = Budget(Fraction(1, 10**6), Fraction(1, 10**6), slack=Fraction(1, 10**9))
UPDATES = {name: np.arange(LENGTH) + i for i, name in enumerate(NAMES)}


def plan(noise: NoiseSpec | None = None) -> RoundPlan:
    encoding = Encoding.integers(LENGTH, bits=8)
    return RoundPlan.propose("secagg", ROSTER, encoding, min_contributors=5, dropout="0.3", noise=noise)


def book(path: Path, budget: Budget = HUGE) -> Ledger:
    return Ledger.create(path, SigningKey(bytes(32)), budget, user_level(Relation.ZERO_OUT), run="test", elsewhere="-")


def clients(**of_one: Any) -> dict[str, Client]:
    return {one.name: Client(one, ROSTER, **{"policy": POLICY} | (of_one if one.name == ONE else {})) for one in PEOPLE}


Case = Callable[[Path], Simulation]


def stricter(_folder: Path) -> Simulation:
    return simulate(serve(plan(), ROSTER), clients(policy=replace(POLICY, min_contributors=6)), UPDATES.get)


def spent(folder: Path) -> Simulation:
    with_budget = clients(journal=KeptJournal(), ledger=book(folder / "own.db", TINY))
    return simulate(serve(plan(NOISE), ROSTER, ledger=book(folder / "server.db")), with_budget, UPDATES.get)


def closed(folder: Path, phase: str) -> Simulation:
    own = book(folder / "own.db")

    def close(envelope: Envelope) -> bytes:
        if (envelope.phase, envelope.receiver) == (phase, ONE):
            own.close()
        return envelope.frame

    server = serve(plan(NOISE), ROSTER, ledger=book(folder / "server.db"))
    return simulate(server, clients(journal=KeptJournal(), ledger=own), UPDATES.get, faults=Faults(corrupted=close))


def unreadable(folder: Path, twice: frozenset[str] = frozenset()) -> Simulation:
    """The journal's table is gone before the round begins, or (``twice``: every frame comes again) in the middle."""
    journal = SqliteJournal(folder / "journal.db")

    def gone() -> None:
        other = sqlite3.connect(folder / "journal.db")
        other.execute("DROP TABLE log")
        other.close()

    def close(envelope: Envelope) -> bytes:
        if twice and (envelope.phase, envelope.receiver) == ("share", ONE) and not done:
            done.append(gone())
        return envelope.frame

    done: list[None] = []
    if not twice:
        gone()
    faults = Faults(corrupted=close, duplicated=twice)
    return simulate(serve(plan(), ROSTER), clients(journal=journal), UPDATES.get, faults=faults)


CASES: dict[str, tuple[Case, str, list[type[SecAggError]], str, str]] = {
    "a policy": (stricter, "advertise", [PolicyError], "below the 6 demanded", "first_or_refusal"),
    "a budget": (spent, "advertise", [BudgetError], "epsilon could reach", "first_or_refusal"),
    "a journal at the start": (unreadable, "advertise", [StorageError], "journal", "first_or_refusal"),
    "a ledger at the upload": (
        *(lambda folder: closed(folder, "upload"), "upload", [StorageError], "ledger is closed"),
        "answer_or_refusal",
    ),
    "a ledger at the reveal": (
        *(lambda folder: closed(folder, "reveal"), "reveal", [StorageError], "ledger is closed"),
        "answer_or_refusal",
    ),
    "a journal, and then a latched client": (
        lambda folder: unreadable(folder, frozenset({"share"})),
        *("share", [StorageError, UsageError], "journal"),
        "answer_or_refusal",
    ),
}


UNCAUGHT: dict[str, Callable[..., bytes]] = {
    "first_or_refusal": lambda client, *rest: client.start(*rest),
    "answer_or_refusal": lambda client, frame: client.receive(frame),
}


@pytest.mark.parametrize("case", CASES)
def test_one_client_that_refuses(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: nothing is caught, and the round ends for everybody."""
    run, phase, errors, said, caught = CASES[case]
    (tmp_path / "a").mkdir()
    ran = run(tmp_path / "a")
    assert [(one.phase, one.party, type(one.error)) for one in ran.incidents] == [(phase, ONE, kind) for kind in errors]
    assert said in str(ran.incidents[0].error)
    survivors = set(ran.outcome.survivors)
    assert survivors == set(NAMES) - ({ONE} if phase != "reveal" else set())
    if ran.outcome.event.plan.noise is None:
        assert ran.outcome.total.tolist() == sum(UPDATES[name] for name in survivors).tolist()  # type: ignore[union-attr]

    (tmp_path / "b").mkdir()
    monkeypatch.setattr(simulate_module, caught, UNCAUGHT[caught])
    with pytest.raises(errors[0], match=said):
        run(tmp_path / "b")


def test_if_all_refuse_the_reason_is_told() -> None:
    everybody = {one.name: Client(one, ROSTER, policy=replace(POLICY, min_contributors=6)) for one in PEOPLE}
    with pytest.raises(ThresholdError, match=r"0 clients advertised.* client-0 said: .*below the 6 demanded") as caught:
        simulate(serve(plan(), ROSTER), everybody, UPDATES.get)
    assert isinstance(caught.value.__cause__, PolicyError)


def test_an_update_that_is_none_is_the_callers_mistake_and_no_refusal() -> None:
    for wrong in (np.zeros(LENGTH + 1), np.full(LENGTH, np.nan)):
        with pytest.raises(UsageError):
            simulate(serve(plan(), ROSTER), clients(), (UPDATES | {ONE: wrong}).get)


# Crowds.


def crowd(update: Callable[[str], Any] = UPDATES.__getitem__) -> Simulation:
    return simulate_on_workers(serve(plan(), ROSTER), PEOPLE, update, policy=POLICY, engine=Threads(2))


def test_one_of_a_crowd_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    of_all = crowd_module.clients_of

    def with_one_stricter(*arguments: Any) -> dict[str, Client]:
        made = of_all(*arguments)
        if ONE in made:
            made[ONE].policy = replace(POLICY, min_contributors=6)
        return made

    monkeypatch.setattr(crowd_module, "clients_of", with_one_stricter)
    ran = crowd()
    [incident] = ran.incidents
    assert isinstance(incident, Incident)
    assert (incident.phase, incident.party, type(incident.error)) == ("advertise", ONE, PolicyError)
    assert set(ran.outcome.survivors) == set(NAMES) - {ONE}

    with monkeypatch.context() as patched:
        patched.setattr(crowd_module, "first_or_refusal", lambda client, *rest: client.start(*rest))
        with pytest.raises(PolicyError, match="below the 6 demanded"):
            crowd()


def test_what_fails_in_the_making_of_an_update_is_no_refusal() -> None:
    def failing(name: str) -> Any:
        if name == ONE:
            raise BudgetError("trained otherwise than charged")
        return UPDATES[name]

    with pytest.raises(BudgetError, match="trained otherwise"):
        crowd(failing)


# Trees: a cohort is to the tree what a client is to a round.

SECRET = b"t" * 32


def tree(ledger: Callable[[int], Ledger]) -> TreeRun:
    return simulate_tree(
        grown(48, 12, SECRET, Terms(9, corrupt="0.03", dropout="0.03"), Terms(2, "secagg", dropout="0.4")),
        Encoding.integers(LENGTH, bits=6),
        lambda name: np.ones(LENGTH),
        engine=Threads(1),
        secret=SECRET,
        round_=0,
        noise=NoiseSpec(Family.SKELLAM, Fraction(500_000), dropouts=3, colluders=2, components=3),
        ledger=ledger,
    )


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda path: book(path, TINY), "epsilon could reach"),
        (lambda path: Ledger.open(path, SigningKey(bytes(32))), "ledger"),  # there is none
    ],
)
def test_one_cohort_whose_ledger_refuses(
    bad: Callable[[Path], Ledger], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ledgers(folder: Path) -> Callable[[int], Ledger]:
        folder.mkdir()
        return lambda number: bad(folder / "1.db") if number == 1 else book(folder / f"{number}.db")

    ran = tree(ledgers(tmp_path / "a"))
    assert [isinstance(one, str) for one in ran.rounds[0]] == [False, True, False, False]
    assert said in ran.rounds[0][1]  # type: ignore[operator]
    assert ran.total.weight == 36
    assert ran.made is not None
    assert len(ran.made.cohorts) == 3

    switch_off(
        monkeypatch,
        forest_module._Level,
        "run",
        "(PeerError, ThresholdError, BudgetError, StorageError)",
        "(PeerError, ThresholdError)",
    )
    with pytest.raises((BudgetError, StorageError), match=said):
        tree(ledgers(tmp_path / "b"))
