"""A budget for windows in real rounds: what is charged when, and that nobody is told it were a user's.

The guarantee is about the events of one person within a stretch of time, and promises nothing for all that a person
does. So the word "user" stands in no sentence about it, but in the name of the unit, ``user-window``.
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp import verify_ledger
from dp.events import Everyone, Gaussian, Guarantee, Holder, Relation, Release, Trust, Unit
from dp.filter import Budget, Kind
from dp.ledger import Ledger
from dp.noise import Family, NoiseSpec
from dp.windows import Window
from protocols.client import Client
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import simulate
from recsys import sentences
from recsys import verdict as in_one_line
from recsys.report import Account, tables, verdict, words
from recsys.report.account import Spent
from secagg import cli
from secagg.crypto.keys import SigningKey
from secagg.encoding import Encoding
from secagg.errors import BudgetError
from tests.scenes.journals import KeptJournal
from tests.scenes.runs import make

N, LENGTH, HOUR = 6, 20, 3600
NOISE = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(4_000_000), dropouts=2, colluders=1, components=2)
WINDOW = Window(length=24 * HOUR, kept=6 * HOUR, start=1_700_000_000, every=10 * HOUR)
WEEKLY = Guarantee(Unit.USER_WINDOW, Relation.ZERO_OUT, Trust.DISTRIBUTED)
BUDGET = Budget(Fraction(4), Fraction(1, 10**5), slack=Fraction(1, 10**8), kind=Kind.GDP)
KEY = SigningKey(bytes(range(32)))
IDENTITIES = [Identity(f"client-{i}", SigningKey(bytes([i + 1]) * 32)) for i in range(N)]
ROSTER = Roster.of(IDENTITIES)
POLICY = Policy(min_contributors=4, corrupt=0, dropout="0.34")


def proposed(**more: Any) -> RoundPlan:
    encoding = replace(Encoding.integers(LENGTH, bits=4), **more)
    return RoundPlan.propose(
        "secagg", ROSTER, encoding, min_contributors=4, dropout="0.34", corrupt=0, adversary="curious", noise=NOISE
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds, and a reservation for a third; with the ledger that client-0 kept."""
    folder = tmp_path_factory.mktemp("run")
    arguments: dict[str, Any] = {"run": "a stream", "elsewhere": "nothing", "window": WINDOW}
    plan = proposed()
    updates = {one.name: np.ones(LENGTH) for one in IDENTITIES}
    with (
        closing(Ledger.create(folder / "ledger.db", KEY, BUDGET, WEEKLY, **arguments)) as server,
        closing(Ledger.create(folder / "client-0.db", IDENTITIES[0].key, BUDGET, WEEKLY, **arguments)) as own,
    ):
        clients = {one.name: Client(one, ROSTER, policy=POLICY) for one in IDENTITIES}
        clients["client-0"] = Client(IDENTITIES[0], ROSTER, policy=POLICY, journal=KeptJournal(), ledger=own)
        for _ in range(2):
            simulate(serve(plan, ROSTER, ledger=server), clients, updates.get)
            plan = plan.next_round()
        server.reserve(plan.secure_sum(N))
        assert server.epsilon_at(WINDOW.time_of(plan.round)) == server.epsilon
        back = replace(plan, session=bytes(16), round=0)
        with pytest.raises(BudgetError, match="goes back"):
            server.reserve(back.secure_sum(N))
        with pytest.raises(BudgetError, match="goes back"):
            clients["client-0"].start(back, updates["client-0"])
    (folder / "ledger.pub").write_text(KEY.public.hex() + "\n")
    return folder


def secagg(capsys: pytest.CaptureFixture[str], *said: object) -> str:
    assert cli.main(["ledger", *map(str, said)]) == 0
    return capsys.readouterr().out


def names_a_user(text: str) -> bool:
    return re.search("user", text.replace(Unit.USER_WINDOW, ""), re.IGNORECASE) is not None


def test_the_commands_say_what_counts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = run / "ledger.pub"
    against = ["--against", run / "client-0.db", "--against-key", run / "client.pub"]
    (run / "client.pub").write_text(IDENTITIES[0].key.public.hex())
    said = secagg(capsys, "verify", run, "--key", key, *against)
    assert "all events of one person within 1 day" in said
    found = json.loads(secagg(capsys, "verify", run, "--key", key, "--json"))
    last = WINDOW.time_of(2)
    assert found["window"]["counts"]["second"] == last
    assert found["window"]["counts"]["free"] == [WINDOW.time_of(0) + WINDOW.span, last + WINDOW.span]
    assert found["window"]["counts"]["epsilon"] == found["epsilon"]
    shown = secagg(capsys, "show", run)
    assert "counts" in shown
    assert str(last) in shown
    (run / "export.jsonl").write_text(exported := secagg(capsys, "export", run))
    assert verify_ledger.main([str(run / "export.jsonl"), "--key", str(key)]) == 0
    theirs = capsys.readouterr().out
    assert " ".join(theirs.split()).count("epsilon is the most that any window was charged") == 1
    assert not any(map(names_a_user, (said, str(found), theirs)))
    assert [json.loads(line)["body"].get("time") for line in exported.splitlines()][1:] == [
        WINDOW.time_of(number) for number in (0, 0, 1, 1, 2)
    ]


def of_silos(path: Path, relation: Relation) -> None:
    guarantee = replace(WEEKLY, relation=relation, holder=Holder.SILO)
    with closing(new(path, guarantee)) as ledger:
        ledger.reserve(proposed(users=100, overlap=2).secure_sum(N))


def of_devices(path: Path, relation: Relation) -> None:
    with closing(new(path, replace(WEEKLY, relation=relation))) as ledger:
        ledger.reserve(proposed().secure_sum(N))


def local(path: Path, relation: Relation) -> None:
    guarantee = replace(WEEKLY, relation=relation, trust=Trust.LOCAL)
    with closing(new(path, guarantee)) as ledger:
        ledger.charge(Release(Gaussian(Fraction(9)), Everyone(), guarantee), time=9)


def new(path: Path, guarantee: Guarantee) -> Ledger:
    return Ledger.create(path, KEY, BUDGET, guarantee, run="a stream", elsewhere="nothing", window=WINDOW)


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Account:
    """Of which everything is taken but its promise."""
    make(folder := tmp_path_factory.mktemp("another"), "distributed")
    return Account.load(folder)


@pytest.mark.parametrize("relation", [Relation.ZERO_OUT, Relation.REPLACE_ONE])
@pytest.mark.parametrize("made", [of_silos, of_devices, local])
def test_no_sentence_of_a_report_names_a_user(made: Any, relation: Relation, a_run: Account, tmp_path: Path) -> None:
    made(tmp_path / "ledger.db", relation)
    spent = Spent.load(tmp_path / "ledger.db")
    account = replace(a_run, spent=(spent,))
    with closing(Ledger.open(tmp_path / "ledger.db", KEY)) as ledger:
        in_lists = sentences.promised([ledger])
    said = [
        spent.promise.words,
        in_lists,
        verdict.promise(spent),
        verdict.spending(spent),
        words.promise(spent),
        words._inside(account),
        words._inside(account, of_a_client=True),
        in_one_line._spent(account, spent),
        str(tables.ledger(spent)),
    ]
    assert [text for text in said if names_a_user(text)] == []
    assert sum("all events of one person within 1 day" in text for text in said) >= 7
    assert "nothing is promised for all that a person does" in spent.promise.words
