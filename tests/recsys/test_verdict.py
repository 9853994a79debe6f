"""The sentence in the end says what the record and the ledgers say, in each mode, and changes when they do."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from recsys.report import Account
from recsys.run_record import Quality, Run
from recsys.verdict import compared, price, verdict
from tests.scenes.runs import KEY, MODES, make

LYING = "even a server that lies, with up to 1 of the 20 clients on its side, saw 12 sums"
COST = {
    "none": "no differential privacy is promised: nothing limits what the sums and the model say about a user",
    "local": "the run has cost each interaction epsilon {0} of 8, delta 1e-6, against everybody but the user's silo",
    "distributed": "the run has cost each user epsilon {0} of 8, delta 1e-6, against the server and one client with it",
}
SEEN = {
    "none": f"{LYING}, exact, over 16 to 20 silos, and nobody's update alone",
    "local": f"{LYING} of noised updates over 16 to 20 silos, and nobody's update alone",
    "distributed": f"{LYING} with noise in them over 16 to 20 silos, and nobody's update alone",
}


def changed(run: Run, folder: Path, **changes: Any) -> None:
    replace(run, **changes).save(folder, KEY)


@pytest.mark.parametrize("mode", MODES)
def test_it_is_about_what_was_promised(mode: str, tmp_path: Path) -> None:
    make(tmp_path, mode)
    account = Account.load(tmp_path)
    quality, *others = verdict(account).split("; ")
    spent = [f"{ceil(each.epsilon * 100) / 100:.2f}" for each in account.spent]  # never less than it is
    if mode == "both":
        parts = [COST["distributed"].format(spent[0]), COST["local"].format(spent[1])]
        assert others == [", and ".join(parts), SEEN["distributed"]]
    else:
        assert others == [COST[mode].format(*spent), SEEN[mode]]
    assert quality == (
        "for 7.1% of the users the held-out item is among the first ten, better than the most popular items (4.3%) "
        "and 0.81 times the best without privacy (without privacy, 8.8%)"
    )


@pytest.mark.parametrize(
    ("hits", "words"),
    [(0.0426, "no better than"), (0.045, "not clearly better than"), (0.06, "better than"), (0.02, "worse than")],
)
def test_quality_is_called_what_it_is(hits: float, words: str, tmp_path: Path) -> None:
    run = make(tmp_path, "none")
    results = (*run.results[:-1], Quality("this run", {"HR@10": hits, "NDCG@10": 0.01}))
    changed(run, tmp_path, results=results)
    assert f"among the first ten, {words} the most popular items (4.3%" in verdict(Account.load(tmp_path))


def test_the_shared_start_of_personal_heads_is_no_reference(tmp_path: Path) -> None:
    """It is the run's own, and may be the better of both."""
    run = make(tmp_path, "none")
    start = Quality("its shared start", {"HR@10": 0.5, "NDCG@10": 0.4})
    changed(run, tmp_path, results=(*run.results[:-1], start, run.results[-1]))
    account = Account.load(tmp_path)
    assert account.own == run.results[-1]
    assert "the best without privacy (without privacy, 8.8%)" in verdict(account)


def test_a_difference_counts_by_how_many_users_it_was_measured_on() -> None:
    assert compared(0.5, 0.4, 20) == "not clearly better than"
    assert compared(0.5, 0.4, 2000) == "better than"
    assert compared(0.4, 0.5, 20) == "no better than"
    assert compared(0.4, 0.5, 2000) == "worse than"
    assert compared(0.0, 0.0, 1) == "no better than"


def test_of_a_stream_it_says_what_new_events_said(tmp_path: Path) -> None:
    run = make(tmp_path, "none")
    rounds = [replace(one, exact={"HR@10": 0.1 + one.number / 100}) for one in run.rounds[:3]]
    changed(run, tmp_path, results=(), rounds=rounds, data={**run.data, "source": "stream"})
    assert verdict(Account.load(tmp_path)).startswith("by the new events of a stream, HR@10 was 12.0% before the last")
    changed(run, tmp_path, results=(), rounds=rounds)
    assert "by the new events" not in verdict(Account.load(tmp_path))


def test_what_was_not_measured_exactly_is_not_said(tmp_path: Path) -> None:
    run = make(tmp_path, "distributed")
    changed(run, tmp_path, results=(), rounds=tuple(replace(one, exact={}) for one in run.rounds))
    said = verdict(Account.load(tmp_path))
    assert said.startswith("how good the model is was not measured exactly (after 9 rounds clients put HR@10 at 6.9%, ")
    changed(run, tmp_path, results=(), rounds=tuple(replace(one, exact={}, measured={}) for one in run.rounds))
    assert verdict(Account.load(tmp_path)).startswith("how good the model is was not measured; the run has cost")


@pytest.mark.parametrize(
    ("protocol", "agreed", "words"),
    [
        (
            "secagg",
            {"adversary": "curious", "corrupt": "1/3"},
            "a server that follows the protocol, with up to 6 of the 20",
        ),
        (
            "secagg",
            {"adversary": "curious", "corrupt": "0.049"},
            "a server that follows the protocol, with none of the 20 clients on its side, saw",
        ),
        ("ckks", {"adversary": "active", "corrupt": "0.1"}, "with the help of no holder of its key, saw"),
        ("threshold_ckks", {"adversary": "active"}, "with the help of fewer clients than its threshold, saw"),
        ("secagg+", {"adversary": "active", "corrupt": "many"}, "; the server saw 12 sums"),
        ("secagg+", {"adversary": "kind", "corrupt": "0.1"}, "; the server saw 12 sums"),
    ],
)
def test_the_server_is_the_one_that_parameters_were_chosen_against(
    protocol: str, agreed: dict[str, str], words: str, tmp_path: Path
) -> None:
    """And not the worst that the protocol can withstand; a record that does not say it is not completed."""
    run = make(tmp_path, "none")
    changed(run, tmp_path, protocol={**run.protocol, "name": protocol, **agreed})
    said = verdict(Account.load(tmp_path))
    assert words in said
    assert ("lies" in said) == (agreed["adversary"] == "active" and protocol == "secagg")


def test_where_record_and_ledger_differ_there_is_none(tmp_path: Path) -> None:
    run = make(tmp_path, "distributed")
    changed(run, tmp_path, spendings=(replace(run.spendings[0], epsilon=4.0),))
    assert verdict(Account.load(tmp_path)) == "record and ledger differ, so nothing is said here: see the report"


def test_of_cohorts_that_vary_there_is_no_one_number(tmp_path: Path) -> None:
    """A share of the mean is more than that share of a smaller cohort."""
    run = make(tmp_path, "none")
    changed(run, tmp_path, rounds=(replace(run.rounds[0], planned=21), *run.rounds[1:]))
    assert "even a server that lies, with up to 5% of the clients on its side, saw" in verdict(Account.load(tmp_path))


@pytest.mark.parametrize("mode", ["none", "distributed"])
@pytest.mark.parametrize("name", ["clients", "min_contributors"])
def test_where_a_number_belongs_a_list_is_a_difference_or_nothing(mode: str, name: str, tmp_path: Path) -> None:
    run = make(tmp_path, mode)
    changed(run, tmp_path, protocol={**run.protocol, name: []})
    account = Account.load(tmp_path)
    assert verdict(account)
    assert (f"{name} of the protocol is []" in "".join(account.differences)) == (mode == "distributed")


def test_one_sum_is_one(tmp_path: Path) -> None:
    make(tmp_path, "distributed", rounds=1)
    assert "saw 1 sum with noise in it over" in verdict(Account.load(tmp_path))


def test_no_sum_was_made(tmp_path: Path) -> None:
    run = make(tmp_path, "none")
    changed(run, tmp_path, rounds=(replace(run.rounds[0], survivors=0),))
    assert verdict(Account.load(tmp_path)).endswith("; the server has seen no sum")


def test_the_price_names_what_is_measured_and_nothing_else(tmp_path: Path) -> None:
    run = make(tmp_path, "distributed")
    run = replace(run, config={**run.config, "model": {"name": "autoencoder"}})
    own = Quality("this run", {"HR@10": 0.1, "NDCG@10": 0.06})
    found = {"ItemPop": 0.03, "this recipe without noise": 0.08, "tuned EASE": 0.07, "trained in one place": 0.12}
    others = [Quality(name, {"NDCG@10": value}) for name, value in found.items()]
    changed(run, tmp_path, results=(*others, Quality("odd", {"HR@10": 0.9}), own))
    account = Account.load(tmp_path)
    mine = f"autoencoder at epsilon {ceil(account.spent[0].epsilon * 100) / 100:.2f}"
    assert price(account, account) == (
        f"{mine} has an NDCG@10 of 0.0600; the same recipe without noise 0.0800 (0.75 times that); the best without "
        f"privacy, trained in one place, 0.1200 (0.50 times that); the most popular items 0.0300; {mine} 0.0600"
    )
    changed(run, tmp_path, results=(own,))
    assert price(Account.load(tmp_path)) == f"{mine} has an NDCG@10 of 0.0600"
    changed(run, tmp_path, results=(*others, Quality("this run", {"HR@10": 0.1})))
    assert price(Account.load(tmp_path), account) == "not measured"
