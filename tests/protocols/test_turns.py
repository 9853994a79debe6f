"""Clients that take turns, in the real protocol: cohorts of 10, and each client has two turns.

Everybody draws cohorts again: each client, which refuses a plan for another; its own ledger, which refuses a third
turn; the server's, and both auditors of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from dp import verify_ledger
from dp.calibrate import Calibration, calibrate, release_of, user_level
from dp.events import Relation
from dp.filter import Budget
from dp.ledger import Ledger
from dp.ledger.file import read
from dp.ledger.verify import verify
from dp.secure_sum import SecureSum
from dp.turns import Turns
from protocols.client import Client
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, simulate
from secagg import cli
from secagg.crypto.keys import SigningKey
from secagg.errors import BudgetError, PolicyError, ThresholdError, UsageError
from tests.controls import switch_off
from tests.scenes.journals import KeptJournal
from tests.scenes.ledger import KEY, exported

SIZE, LENGTH = 10, 16
NAMES = [f"c{i:02}" for i in range(100)]
IDENTITIES = {name: Identity(name, SigningKey(name.encode().ljust(32, b"."))) for name in NAMES}
USER = user_level(Relation.ZERO_OUT)
DELTA = Fraction(1, 10**5)


def turns_of(clients: int) -> Turns:
    roster = Roster.of([IDENTITIES[name] for name in NAMES[:clients]])
    return Turns(roster.names, roster.keys, b"thrown dice", SIZE)


def policy_of(turns: Turns) -> Policy:
    return Policy(min_contributors=8, corrupt="0.1", dropout="0.2", turns=turns)


FEW, TURNS = turns_of(20), turns_of(100)
POLICY = policy_of(TURNS)


@cache
def calibrated(turns: int = 2) -> Calibration:
    kind = {"clients": SIZE, "dropouts": 2, "colluders": 1, "components": 2}
    return calibrate(epsilon=8, delta=DELTA, rounds=turns, length=LENGTH, clip_l2=1.0, **kind)


def budget() -> Budget:
    found = calibrated()
    event = release_of(found.encoding, found.noise, SIZE, SIZE - 2, USER)
    return Budget.suited(event, Fraction(8), DELTA, slack=DELTA / 100)


def cohort(number: int, turns: Turns = TURNS) -> Roster:
    return Roster.build(turns.members(number))


def plan_of(number: int, roster: Roster | None = None, session: bytes = b"s" * 16) -> RoundPlan:
    found = calibrated()
    plan = RoundPlan.propose(
        "secagg",
        roster or cohort(number),
        found.encoding,
        min_contributors=8,
        corrupt="0.1",
        dropout="0.2",
        noise=found.noise,
        session=session,
    )
    return replace(plan, round=number)


def sum_up(
    ledger: Ledger, number: int, *mine: Client, session: bytes = b"s" * 16, gone: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The survivors of the sum of this number; ``mine`` take the places of other clients of their names."""
    turns = ledger.turns
    assert turns is not None
    roster = cohort(number, turns)
    clients = {name: Client(IDENTITIES[name], roster, policy=policy_of(turns)) for name in roster.names}
    clients |= {one.identity.name: one for one in mine}
    server, update = serve(plan_of(number, roster, session), roster, ledger=ledger), np.full(LENGTH, 0.01)
    return simulate(server, clients, lambda name: update, faults=Faults(dropouts=gone or {})).outcome.survivors


def books_of(path: Path, turns: Turns = TURNS, epsilon: int = 8) -> Ledger:
    found = replace(budget(), epsilon=Fraction(epsilon))
    return Ledger.create(path, KEY, found, USER, run="turns", elsewhere="nothing", turns=turns)


def check_plan(what: SecureSum) -> None:
    RoundPlan.charged(what)


@pytest.mark.parametrize("turns", [FEW, pytest.param(TURNS, marks=pytest.mark.long)], ids=["20", "100"])
def test_sums_of_which_each_client_is_in_two(turns: Turns, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some drop out, some never come, one sum fails. The noise is that for two sums, and the dearest client reaches the
    budget; both auditors rebuild it. Then those who have had two turns have none left."""
    books, survived, charged = books_of(tmp_path / "ledger.db", turns), Counter[str](), Counter[str]()
    sums, failed = 2 * len(turns.names) // SIZE, len(turns.names) // SIZE + 1
    for number in range(sums):
        names = cohort(number, turns).names
        lost: list[dict[str, str]] = [{}, {names[3]: "upload"}, {names[0]: "advertise", names[9]: "upload"}]
        if number == failed:
            with pytest.raises(ThresholdError):
                sum_up(books, number, gone=dict.fromkeys(names[:3], "advertise"))
            continue
        survived.update(sum_up(books, number, gone=lost[number % 3]))
        charged.update(names)
    assert max(charged.values()) == 2
    assert survived < charged
    assert {charged[name] for name in cohort(failed, turns).names} == {1}  # it failed before anybody had masked
    assert books.epsilon == pytest.approx(8, rel=1e-3)
    assert books.epsilon <= 8
    with pytest.raises(BudgetError, match="client c"):
        sum_up(books, sums)
    books.close()
    rows = read(tmp_path / "ledger.db")
    state = verify(rows, KEY.public, also=check_plan)
    assert (state.filter.reached or 0) / 10**12 == books.epsilon
    assert list(verify_ledger.problems(exported(rows), KEY.public, None)) == []
    compared_with_rosters(tmp_path, turns, capsys)


def compared_with_rosters(folder: Path, turns: Turns, capsys: pytest.CaptureFixture[str]) -> None:
    """``secagg ledger verify --roster``: with that of all, and with those of others."""
    Roster(turns.names, turns.keys).save(folder / "roster.toml")
    Roster(turns.names[1:], turns.keys[1:]).save(folder / "fewer.toml")
    stranger = SigningKey(bytes(32)).public
    Roster(turns.names, (stranger, *turns.keys[1:])).save(folder / "others.toml")
    (folder / "ledger.pub").write_text(KEY.public.hex())
    verified = ["ledger", "verify", str(folder / "ledger.db"), "--key", str(folder / "ledger.pub"), "--roster"]
    assert cli.main([*verified, str(folder / "roster.toml")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"each sum is over the next {SIZE} of {len(turns.names)} clients in a cyclic order" in said
    assert "all are in the roster that was given" in said
    for other in ("fewer.toml", "others.toml"):
        assert cli.main([*verified, str(folder / other)]) == 4


def test_ten_times_fewer_turns_than_sums_take_a_third_of_the_noise() -> None:
    assert calibrated(2).noise_multiplier < 0.33 * calibrated(20).noise_multiplier


def test_a_clients_own_ledger_refuses_its_third_turn(tmp_path: Path) -> None:
    """The server has forgotten all, and its noise is that of two sums: each client remembers."""
    name, forgetful = cohort(0).names[0], books_of(tmp_path / "forgetful.db", epsilon=50)
    own = Ledger.create(tmp_path / "own.db", SigningKey(b"k" * 32), budget(), USER, run="mine", elsewhere="nothing")
    journal, numbers = KeptJournal(), [number for number in range(60) if name in cohort(number).names][:3]
    for number in numbers:
        client = Client(
            IDENTITIES[name], cohort(number), policy=POLICY, journal=journal, ledger=own, deployment="turns"
        )
        survivors = sum_up(forgetful, number, client)
        assert (name in survivors) == (number != numbers[2])
    with pytest.raises(BudgetError, match="epsilon could reach"):
        client.check(plan_of(numbers[2], session=b"t" * 16))
    forgetful.close()
    own.close()


def test_a_client_refuses_a_plan_for_others_than_those_whose_turn_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server hands out a roster that suits it, or calls a cohort by another number. Control: without the check a
    client would take part in as many sums as it is asked to."""
    name = cohort(0).names[0]
    suits = Roster.build({one: TURNS.members(number)[one] for number in (0, 1) for one in cohort(number).names[:5]})
    lies = [(plan_of(0, suits), suits), (plan_of(1, cohort(0)), cohort(0)), (replace(plan_of(0), round=4), cohort(0))]
    for plan, roster in lies:
        with pytest.raises(PolicyError, match="others than those whose turn it is"):
            Client(IDENTITIES[name], roster, policy=POLICY).check(plan)
    for number in (0, 10):
        Client(IDENTITIES[name], cohort(number), policy=POLICY).check(plan_of(number))
    switch_off(
        monkeypatch, Policy, "_check_turn", "(plan.roster, plan.clients) != (turns.roster(plan.round), turns.size)"
    )
    for plan, roster in lies:
        Client(IDENTITIES[name], roster, policy=POLICY).check(plan)


def test_a_client_draws_with_its_own_beacon_names_and_keys() -> None:
    """A name that was added when the beacon was known makes other cohorts of all: no plan fits what a client draws."""
    late = SigningKey(bytes(32)).public
    others = [
        Turns((*TURNS.names, "late"), (*TURNS.keys, late), TURNS.beacon, SIZE),
        replace(TURNS, beacon=b"loaded dice"),
        replace(TURNS, keys=(late, *TURNS.keys[1:])),
    ]
    for other in others:
        number = next(number for number in range(10) if other.roster(number) != TURNS.roster(number))
        roster = cohort(number, other)
        member = next(name for name in roster.names if name in TURNS.names[1:])
        with pytest.raises((PolicyError, UsageError)):
            Client(IDENTITIES[member], roster, policy=POLICY).check(plan_of(number, roster))


def test_two_sessions_under_one_number(tmp_path: Path) -> None:
    """A server that begins a sum again, with other vectors, is refused by its ledger; a new attempt is a new number."""
    books = books_of(tmp_path / "ledger.db")
    sum_up(books, 0)
    with pytest.raises(BudgetError, match="on record under another plan"):
        sum_up(books, 0, session=b"another session ")
    sum_up(books, 1)
    books.close()
