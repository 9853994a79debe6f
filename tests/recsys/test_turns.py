"""Runs whose clients take turns: noise for the turns of each, in a ledger that charges each for its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dp import verify_ledger
from dp.ledger import Ledger
from dp.ledger.file import read
from dp.ledger.verify import verify
from protocols import registry
from protocols.plan import RoundPlan
from recsys.aggregator import Request
from recsys.assembly import Prepared, prepare
from recsys.participation import Draw, Participation, beacon
from recsys.report.account import Account
from recsys.run_record import Run
from recsys.run_start import budgets
from recsys.secure_aggregator import SecureAggregator
from secagg.errors import ThresholdError, UsageError
from tests.scenes.ledger import exported
from tests.scenes.recommender import KEY, SECRET, config
from tests.scenes.whole_runs import Killed, go

DEVICES = ("data.users=24", "clients.kind=devices", "protocol.name=secagg", "evaluation.exact=false")
TURNS = (*DEVICES, "privacy.mode=distributed", "training.draw=turns", "training.size=8", "training.rounds=6")
"""24 devices, eight in each of six rounds: two turns each."""


LOST = ("network.dropout=0.12", "protocol.dropout=0.13", "seed=3")


def ready(*changes: str) -> Prepared:
    return prepare(config(*TURNS, *changes))


def checked(folder: Path, run: Run) -> Counter[str]:
    """Verified by both auditors, with what the record says; and how often each client is charged."""
    rows, charged, key = read(folder / "ledger.db"), Counter[str](), bytes.fromhex((folder / "ledger.pub").read_text())
    plans: list[RoundPlan] = []
    state = verify(rows, key, also=lambda what: plans.append(RoundPlan.charged(what)))
    assert list(verify_ledger.problems(exported(rows), key, state.head)) == []
    turns = state.genesis.turns
    assert turns is not None
    for name in state.records:
        what = state.records[name].reserved
        charged.update(turns.cohort(what.round))  # type: ignore[union-attr]
    assert run.rounds[-1].epsilon == (state.filter.reached or 0) / 10**12
    assert Account.load(folder).differences == ()
    return charged


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("turns") / "run"
    go(config(*TURNS), made)
    return made


def test_a_run_in_which_each_device_has_two_turns(folder: Path) -> None:
    run = Run.load(folder)
    assert run.ended == "all rounds are done"
    assert [(one.number, one.planned) for one in run.rounds] == [(number, 8) for number in range(6)]
    charged = checked(folder, run)
    assert len(charged) == 24
    assert set(charged.values()) == {2}
    epsilons = [one.epsilon or 0.0 for one in run.rounds]
    assert epsilons[0] == epsilons[1] == epsilons[2] < epsilons[3] == epsilons[5]  # the second turn of each
    assert epsilons[5] == pytest.approx(8, rel=5e-3)
    assert epsilons[5] <= 8
    (spending,) = run.spendings
    assert "the next 8 of 24 clients have their turn" in spending.words
    assert "a turn that is missed is charged, and lost" in spending.words


def test_noise_is_made_for_the_turns_of_each(tmp_path: Path) -> None:
    turns, fixed = ready().distributed, prepare(config(*TURNS, "training.draw=fixed")).distributed
    assert turns is not None
    assert fixed is not None
    assert (turns.planned.count, fixed.planned.count) == (2, 6)
    assert turns.found.noise_multiplier == pytest.approx(fixed.found.noise_multiplier / 3**0.5, rel=0.02)
    plain = prepare(config(*DEVICES, "training.draw=turns", "training.size=8"))
    assert plain.distributed is None
    assert plain.turns(SECRET) is not None


def test_a_round_that_fails_is_not_made_again(tmp_path: Path) -> None:
    """In all there are as many attempts as rounds."""
    run = go(config(*TURNS, *LOST), tmp_path / "turns")
    failed = [one for one in run.rounds if not one.survivors]
    assert 0 < len(failed) < 6
    assert len(run.rounds) == 6
    charged = checked(tmp_path / "turns", run)
    assert max(charged.values()) <= 2


@pytest.mark.long
def test_control_without_turns_what_fails_is_made_again(tmp_path: Path) -> None:
    fixed = go(config(*TURNS, *LOST, "training.draw=fixed", "privacy.mode=none"), tmp_path / "fixed")
    assert sum(one.survivors > 0 for one in fixed.rounds) == 6
    assert len(fixed.rounds) > 6


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_with_the_same_turns(tmp_path: Path, folder: Path) -> None:
    def watch(run: Run) -> None:
        if len(run.rounds) == 4:
            raise Killed

    with pytest.raises(Killed):
        go(config(*TURNS), tmp_path / "run", watch=watch)
    run = go(config(*TURNS), tmp_path / "run")
    assert set(checked(tmp_path / "run", run).values()) == {2}
    assert [one.epsilon for one in run.rounds] == [one.epsilon for one in Run.load(folder).rounds]


# A sum that cannot be repeated


def ledger_of(prepared: Prepared, path: Path) -> Ledger:
    ((_, _, budget, guarantee),) = budgets(prepared)
    turns = prepared.turns(SECRET)
    return Ledger.create(path, KEY, budget, guarantee, run="test", elsewhere="nothing", turns=turns)


def request_of(prepared: Prepared, number: int, cohort_of: int | None = None) -> Request:
    names, drawn = prepared.client_data.names, number if cohort_of is None else cohort_of
    cohort = prepared.participation.cohort(names, beacon(prepared.config.seed), drawn)
    return Request(number, "training", cohort, prepared.encoding, prepared.noise(len(cohort)))


def zeros_of(prepared: Prepared) -> Callable[[str], NDArray[np.float64]]:
    return lambda name: np.zeros(prepared.encoding.length)


def test_an_interrupted_sum_of_a_protocol_that_does_not_repeat_itself_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second attempt would be another plan with the same number. The clients stay charged for the first. Control:
    where it repeats itself, the same sum is finished."""
    prepared = ready("protocol.dropout=0")
    ledger, found = ledger_of(prepared, tmp_path / "ledger.db"), registry.find("secagg")
    (tmp_path / "private").mkdir(mode=0o700)

    def aggregator() -> SecureAggregator:
        return SecureAggregator(
            prepared.deployment, SECRET, ledger=ledger, turns=prepared.turns(SECRET), folder=tmp_path / "private"
        )

    def killed(what: object) -> None:
        raise Killed

    def summed(number: int) -> int:
        return len(aggregator().aggregate(request_of(prepared, number), zeros_of(prepared)).survivors)

    def interrupted(number: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "commit", killed)
            with pytest.raises(Killed):
                summed(number)

    interrupted(0)
    assert summed(0) == 8
    interrupted(1)
    monkeypatch.setattr(registry, "find", lambda name: replace(found, replays=False))
    with pytest.raises(ThresholdError, match="its turn is lost"):
        summed(1)
    assert summed(2) == 8
    ledger.close()


def test_clients_of_a_run_refuse_a_sum_that_is_not_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each draws with the run's beacon. Control: clients that know of no turns go along."""
    prepared = ready()
    zeros = zeros_of(prepared)
    wrong = replace(request_of(prepared, 0, cohort_of=1), noise=None)
    with pytest.raises(ThresholdError):
        SecureAggregator(prepared.deployment, SECRET, turns=prepared.turns(SECRET)).aggregate(wrong, zeros)
    right = replace(request_of(prepared, 1), noise=None)
    SecureAggregator(prepared.deployment, SECRET, turns=prepared.turns(SECRET)).aggregate(right, zeros)
    SecureAggregator(prepared.deployment, SECRET).aggregate(wrong, zeros)


# What is refused


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (("privacy.mode=both", "clients.kind=silos", "clients.count=12"), "for privacy.mode = distributed, or none"),
        (("privacy.mode=local", "clients.kind=silos", "clients.count=12"), "for privacy.mode = distributed, or none"),
        (("privacy.ledger=shared.db",), "in a ledger of its own"),
        (("clients.kind=silos", "clients.count=12", "clients.overlap=2"), "no user is in two clients"),
        (("training.size=1",), "at least two clients"),
        (("training.size=25",), "cannot be drawn from 24"),
        (("model.name=private-ease", "model.settings={}"), "over all clients"),
    ],
)
def test_what_turns_are_not_for(changes: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        ready(*changes)


def test_silos_take_turns_too() -> None:
    prepared = ready("clients.kind=silos", "clients.count=12", "training.size=6", "data.users=60")
    assert prepared.silos is not None
    assert prepared.distributed is not None
    assert prepared.distributed.planned.count == 3
    assert Participation(Draw.TURNS, 6).charged(12, 6) == 3
