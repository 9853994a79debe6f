"""Sentences about guarantees follow from what a run does: when a fact changes, so does the sentence.

And the facts are looked for where they would be: in the files that a run leaves.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dp.ledger import Ledger
from dp.ledger.file import read
from dp.ledger.state import replay
from recsys import run as running
from recsys.assembly import Prepared, prepare
from recsys.config import Exact
from recsys.other_runs import KnownRun
from recsys.public_facts import EVERYTHING
from recsys.report import Account, write_report
from recsys.run_record import UNKNOWN, Run
from recsys.run_start import budgets
from recsys.sentences import (
    EXACT,
    NOISED,
    SHARED,
    UNMEASURED,
    elsewhere,
    known_others,
    measured_under,
    outside,
    refusal,
    spending,
)
from secagg.cli.progress import outcome
from secagg.errors import UsageError
from tests.scenes.recommender import KEY, config
from tests.scenes.tables import csv
from tests.scenes.whole_runs import go

EASE = ("model.name=private-ease", "model.settings={}")
QUALITY, RANKS, SUMS = "exact quality of the run's model", "users.csv holds", "known exactly, as a sum over clients"


def ready(*changes: str) -> Prepared:
    return prepare(config("training.rounds=1", "protocol.dropout=0.34", *changes))


# Exact evaluation: whether there is any


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (("privacy.mode=none",), True),
        (("privacy.mode=local",), True),
        (("privacy.mode=distributed",), False),
        (("privacy.mode=both",), False),
        (("privacy.mode=distributed", "data.source=synthetic"), True),
        (("privacy.mode=distributed", "evaluation.exact=true"), True),
        (("privacy.mode=local", "evaluation.exact=false"), False),
        (("privacy.mode=none", "evaluation.exact=false"), False),
    ],
)
def test_whether_anything_is_measured_exactly(changes: tuple[str, ...], expected: bool) -> None:
    """On real data not where noise is to protect users from whoever runs this, unless asked for."""
    assert config("data.source=table", "privacy.n_min=100", *changes).measured_exactly is expected


def test_the_switch_is_a_truth_value_or_a_word() -> None:
    for value, expected in (("true", Exact.ALWAYS), ("false", Exact.NEVER), ('"auto"', Exact.AUTO)):
        assert config(f"evaluation.exact={value}").evaluation.exact is expected
    with pytest.raises(UsageError, match="auto or true or false"):
        config("evaluation.exact=1")
    with pytest.raises(UsageError, match=r"evaluation\.users needs"):
        config("evaluation.exact=false", "evaluation.users=true")


@pytest.mark.thinned(2)
@pytest.mark.parametrize("changes", [("privacy.mode=distributed",), ("privacy.mode=distributed", *EASE)])
def test_where_it_is_off_nothing_exact_is_computed(
    changes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of the run's model nor of others, and report and outcome say what is known instead."""
    calls = list[object]()
    real = running.evaluate
    monkeypatch.setattr(running, "evaluate", lambda *arguments, **more: calls.append(0) or real(*arguments, **more))
    asked = ("training.rounds=2", "protocol.dropout=0.34", *changes)
    run = go(config(*asked, "evaluation.exact=false"), tmp_path / "off")
    assert (calls, run.results, run.outside, run.ended) == ([], (), (), "all rounds are done")
    assert not any(one.exact for one in run.rounds)
    assert not (tmp_path / "off" / "private" / "users.csv").exists()
    account = Account.load(tmp_path / "off")
    assert account.exact == []
    text = write_report(tmp_path / "off").read_text()
    assert "was not measured exactly" in text
    assert "Exact quality" not in text
    assert QUALITY not in text
    assert ("clients measured" in text) == bool(account.measured)  # of noised counts it may be that no mean is known
    assert not (account.measured and EASE[0] in changes)
    outcome(account, tmp_path / "off", tmp_path / "report.html")
    on = go(config(*asked, "evaluation.exact=true"), tmp_path / "on")
    assert calls
    assert QUALITY in " ".join(on.outside)
    assert QUALITY in write_report(tmp_path / "on").read_text().replace("&#x27;", "'")


def test_ranks_of_users_are_written_if_asked_for_and_are_their_owners_alone(tmp_path: Path) -> None:
    asked = ("training.rounds=1", "protocol.dropout=0.34", "privacy.mode=distributed")
    go(config(*asked), tmp_path / "without")
    assert not (tmp_path / "without" / "private" / "users.csv").exists()
    run = go(config(*asked, "evaluation.users=true"), tmp_path / "with")
    assert stat.S_IMODE((tmp_path / "with" / "private" / "users.csv").stat().st_mode) == 0o600
    said = (
        "; ".join(run.outside),
        replay(read(tmp_path / "with" / "ledger.db")).genesis.elsewhere,
        write_report(tmp_path / "with").read_text(),
    )
    assert all(RANKS in each for each in said)
    assert RANKS not in write_report(tmp_path / "without").read_text()


def test_real_users_of_a_table_are_not_measured_exactly_by_default(tmp_path: Path) -> None:
    table = csv(tmp_path / "a.csv")
    asked = ("data.source=table", f"data.path={table}", "data.time=time", "clients.count=4", "privacy.mode=distributed")
    asked = (*asked, "privacy.n_min=100", "protocol.dropout=0.25")
    assert outside(ready(*asked)) == ()
    assert QUALITY in outside(ready(*asked, "evaluation.exact=true"))[0]


# What is said of measured values, budgets, other runs


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (("privacy.mode=none",), EXACT),
        (("privacy.mode=none", "training.measured=0"), UNMEASURED),
        (("privacy.mode=distributed",), NOISED),
        (("privacy.mode=distributed", "training.measured=0"), UNMEASURED),
        (("privacy.mode=distributed", *EASE), UNMEASURED),
    ],
)
def test_charged_with_it_is_said_where_something_was_measured(changes: tuple[str, ...], expected: str) -> None:
    prepared = ready(*changes)
    assert measured_under(prepared) == expected
    assert any(SUMS in one for one in outside(prepared)) == (expected == EXACT)


def test_a_ledger_says_all_that_is_outside_of_it_or_that_nothing_is() -> None:
    """Never that there is nothing elsewhere: of other runs that is not known."""
    quiet = ready("privacy.mode=distributed", "evaluation.exact=false")
    public = f". Taken as public: {'; '.join(quiet.taken_as_public)}"
    assert elsewhere(quiet) == f"this run charges all that leaves it; {UNKNOWN}{public}"
    loud = ready("privacy.mode=distributed", "evaluation.users=true")
    for one in (QUALITY, RANKS, UNKNOWN, *loud.taken_as_public):
        assert one in elsewhere(loud)
    assert "charges all" not in elsewhere(loud)


def others(count: int) -> list[KnownRun]:
    promise = "epsilon 8 per user, distributed noise and epsilon 8 per user, local noise"
    return [KnownRun(f"{number:064x}", f"/runs/{number}", "", promise) for number in range(count)]


def test_other_runs_are_named_as_far_as_there_is_room() -> None:
    assert known_others([]) == UNKNOWN
    assert known_others([], 2).startswith("2 other runs are charged to the same ledger; further runs")
    assert known_others(others(1)).count("epsilon 8 per user") == 2
    many = known_others(others(1000), 1000)
    assert "997 more; further runs" in many
    assert known_others(others(5), named=0).startswith("other runs on these data with budgets of their own")
    loud = ready("privacy.mode=distributed", "evaluation.users=true")
    for public in ((), EVERYTHING, EVERYTHING * 5):
        said = elsewhere(replace(loud, taken_as_public=public), others(1000))
        assert len(said) <= 1000
        assert (" more; further runs" in said) == (said != SHARED)
        assert (said == SHARED) == (len(public) > len(EVERYTHING))
    assert "1000 other runs are known" in refusal(others(1000))


def promises(tmp_path: Path, *changes: str) -> Sequence[str]:
    prepared, found = ready(*changes), []
    for mode, name, budget, guarantee in budgets(prepared):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))} {name}"
        with closing(Ledger.create(path, KEY, budget, guarantee, run="a test", elsewhere="nothing")) as ledger:
            found.append(spending(prepared, mode, ledger).words)
    return found


def test_a_promise_follows_from_the_budget_and_the_noise(tmp_path: Path) -> None:
    (silos,) = promises(tmp_path, "privacy.mode=distributed", "privacy.epsilon=4.0", "privacy.delta=0.001")
    assert (
        "together are (4, 0.001)-private for each user inside a silo, against the server with up to 1 other silo, and "
        "against everybody who sees the model" in silos
    )
    assert "at most 2 of 6 are missing" in silos
    assert silos.endswith("; the user's own silo sees its data")
    (corrupt,) = promises(tmp_path, "privacy.mode=distributed", "clients.count=20", "protocol.corrupt=0.1")
    assert "up to 2 other silos" in corrupt
    assert "at most 6 of 20 are missing" in corrupt
    distributed, local = promises(tmp_path, "privacy.mode=both")
    assert re.search(r"^the sums of .* against the server", distributed)
    assert re.search(r"^what each client sends .* for each user of its own, against everybody", local)
    (devices,) = promises(
        tmp_path, "privacy.mode=local", "clients.kind=devices", "model.name=mf", "model.settings={}", "data.users=30"
    )
    assert "for each interaction of its own" in devices


def test_the_report_does_not_say_what_it_cannot_know(tmp_path: Path) -> None:
    run = go(config("training.rounds=1", "protocol.dropout=0.34", "privacy.mode=local"), tmp_path / "run")
    text = write_report(tmp_path / "run").read_text()
    assert "this run used no such value to choose anything" in text
    assert "What people did with earlier runs is not known here" in text
    assert "selected no model" not in text
    assert UNKNOWN[1:] in text
    run = Run.load(tmp_path / "run")
    assert run.others == UNKNOWN
