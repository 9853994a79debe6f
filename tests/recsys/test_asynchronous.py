"""Runs in which whoever is ready is summed up: noise for a lifetime bound, and a ledger that charges whom sums name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dp import verify_ledger
from dp.ledger.file import read
from dp.ledger.verify import verify
from protocols.plan import RoundPlan
from recsys.assembly import prepare
from recsys.config import Config
from recsys.report import write_report
from recsys.report.account import Account
from recsys.run_record import Run
from secagg.errors import UsageError
from tests.scenes.ledger import exported
from tests.scenes.recommender import config
from tests.scenes.whole_runs import Killed, go

DEVICES = ("data.users=24", "clients.kind=devices", "protocol.name=secagg", "evaluation.exact=false")
TIME = ("network.training=60", "network.speeds=1.7", "training.measured=0")
ARRIVALS = (
    *(*DEVICES, *TIME, "privacy.mode=distributed", "training.draw=arrivals", "training.size=8"),
    *("training.rounds=6", "training.most=3", "protocol.dropout=0.13", "protocol.corrupt=0.05"),
)
"""24 devices, eight in each of six sums, none in more than three."""


def checked(folder: Path, run: Run) -> Counter[str]:
    """Verified by both auditors, with what the record says; and how often each client is charged."""
    rows, charged, key = read(folder / "ledger.db"), Counter[str](), bytes.fromhex((folder / "ledger.pub").read_text())
    plans: list[RoundPlan] = []
    state = verify(rows, key, also=lambda what: plans.append(RoundPlan.charged(what)))
    assert list(verify_ledger.problems(exported(rows), key, state.head)) == []
    assert state.genesis.arrivals is not None
    for record in state.records.values():
        charged.update(record.reserved.members)  # type: ignore[union-attr]
    assert run.rounds[-1].epsilon == (state.filter.reached or 0) / 10**12
    assert Account.load(folder).differences == ()
    return charged


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("arrivals") / "run"
    go(config(*ARRIVALS), made)
    return made


def test_a_run_of_whoever_is_ready(folder: Path) -> None:
    run = Run.load(folder)
    assert run.ended == "all rounds are done"
    assert [(one.number, one.planned, one.survivors) for one in run.rounds] == [(number, 8, 8) for number in range(6)]
    charged = checked(folder, run)
    assert sum(charged.values()) == 48
    assert 2 <= max(charged.values()) <= 3
    assert len(charged) > 8
    epsilons, clocks = [one.epsilon or 0.0 for one in run.rounds], [one.clock for one in run.rounds]
    assert epsilons == sorted(epsilons)
    assert epsilons[-1] <= 8
    assert clocks == sorted(clocks)
    assert all(sum(one.staleness.values()) == 8 for one in run.rounds)
    assert (run.protocol["most"], run.protocol["staleness"], run.protocol["corrupt"]) == (3, 16, "2/8")
    (spending,) = run.spendings
    assert "8 of 24 clients are that were ready" in spending.words
    assert "when a client was ready, and from which version it trained, is public" in spending.words
    page = write_report(folder).read_text()
    assert "versions behind, mean" in page
    assert "simulated seconds so far" in page
    assert "When a client was ready, and from which version of the model it trained" in page


def test_all_the_dishonest_of_the_roster_are_counted_in_a_buffer() -> None:
    """A twentieth of 24 is 2: of eight that were drawn it would be 1."""
    arrivals, fixed = (
        prepare(config(*ARRIVALS, *more))
        for more in ((), ("training.draw=fixed", "training.most=0", "network.speeds=0"))
    )
    assert arrivals.distributed is not None
    assert fixed.distributed is not None
    assert (arrivals.distributed.found.noise.colluders, fixed.distributed.found.noise.colluders) == (2, 1)
    assert (arrivals.distributed.planned.count, fixed.distributed.planned.count) == (3, 6)
    with pytest.raises(UsageError, match="fewer than two are left"):
        prepare(config(*ARRIVALS, "protocol.corrupt=0.24"))


def test_a_run_ends_when_too_few_may_be_in_another_sum(tmp_path: Path) -> None:
    run = go(config(*ARRIVALS, "training.rounds=9", "training.most=2"), tmp_path / "run")
    assert run.ended.startswith("the budget is spent: fewer than 8 clients may be in another sum")
    assert 3 <= sum(one.survivors > 0 for one in run.rounds) <= 6
    assert max(checked(tmp_path / "run", run).values()) == 2


def test_a_run_that_was_killed_goes_on_with_the_same_buffers(tmp_path: Path, folder: Path) -> None:
    """Another secret makes other keys and noise, and the same clients come."""

    def watch(run: Run) -> None:
        if len(run.rounds) == 4:
            raise Killed

    with pytest.raises(Killed):
        go(config(*ARRIVALS), tmp_path / "run", watch=watch)
    run, through = go(config(*ARRIVALS), tmp_path / "run"), Run.load(folder)
    assert checked(tmp_path / "run", run) == checked(folder, through)
    seen = [[(one.clock, one.staleness, one.epsilon) for one in each.rounds] for each in (run, through)]
    assert seen[0] == seen[1]


OVER = (
    *(*DEVICES, *TIME, "privacy.mode=distributed", "training.draw=fixed", "training.size=8", "training.rounds=2"),
    *("training.over=1.3", "protocol.dropout=0.28"),
)


def test_more_are_called_than_a_round_waits_for(tmp_path: Path) -> None:
    """Eleven, of whom eight are in the sum: noise allows for three dropouts, and the mean is over eight."""
    prepared = prepare(config(*OVER))
    assert prepared.distributed is not None
    noise = prepared.distributed.found.noise
    assert (prepared.planned_clients, noise.dropouts, noise.colluders) == (11, 3, 1)
    run = go(config(*OVER), tmp_path / "run")
    assert [(one.planned, one.survivors, dict(one.silent)) for one in run.rounds] == [(11, 8, {"advertise": 3})] * 2
    assert 0 < run.rounds[0].clock < run.rounds[1].clock
    with pytest.raises(UsageError, match=r"of whom 3 are late, and protocol\.dropout allows for 1"):
        prepare(config(*OVER, "protocol.dropout=0.1"))
    turns = prepare(config(*OVER, "training.draw=turns", "training.rounds=6"))
    taking = turns.turns(bytes(32))
    assert taking is not None
    assert taking.size == 11


REFUSED = [
    ("network.training=0", "take time to train"),
    ("network.wait=5", "waits for nobody"),
    ("training.measured=0.05", "measured = 0"),
    ("training.concurrent=4", "not below training.size"),
    ("training.staleness=-1", "staleness is not below zero"),
    ("privacy.mode=both", "distributed, or none"),
    ("privacy.ledger=shared.db", "a ledger of its own"),
    ("training.scaffold=true", "belongs to one version"),
    ("upload.kept=0.5", "belongs to one version"),
    ("training.personal=['bias']", "belongs to one version"),
    ("model.name=private-ease", "over all clients"),
    ("training.size=30", "from 24 clients"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_what_no_asynchronous_run_can_be(change: str, said: str) -> None:
    more = {
        "network.training=0": ("network.speeds=0",),
        "model.name=private-ease": ("model.settings={}",),
        "privacy.mode=both": ("model.name=mf", "model.settings={}"),
    }.get(change, ())
    with pytest.raises(UsageError, match=said):
        prepare(config(*ARRIVALS, *more, change))


@pytest.mark.parametrize(
    "change", ["training.most=2", "training.staleness=3", "training.concurrent=8", "training.over=1.3"]
)
def test_what_is_said_of_arrivals_is_said_of_nothing_else(change: str) -> None:
    with pytest.raises(UsageError):
        config(*DEVICES, "training.draw=fixed", "training.size=8", change)
    assert isinstance(config(*DEVICES, "training.draw=fixed", "training.size=8"), Config)
