"""What a report opens with is true in each mode, of each protocol, and of the parameters that the run had."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from math import exp, inf
from pathlib import Path
from typing import Any

import pytest

from recsys.report import Account, page, terms, verdict, write_report
from recsys.run_record import Quality
from recsys.verdict import verdict as one_sentence
from tests.scenes import runs

TAGS = re.compile("<[^>]+>")
CONFIGURED = {"clients": 20, "corrupt": "0.05", "dropout": "0.2", "min_contributors": 16}


def loaded(folder: Path, mode: str = "none", rounds: int = 2, **changes: Any) -> Account:
    runs.make(folder, mode, rounds=rounds, **changes)
    return Account.load(folder)


def text(html: Any) -> str:
    return TAGS.sub("", html if isinstance(html, str) else " ".join(html))


# What was promised, in each mode


@pytest.mark.parametrize(
    ("mode", "said", "never"),
    [
        ("none", ["No differential privacy was promised to anybody"], ["e^epsilon", "To each"]),
        ("local", ["To each interaction, with local noise"], ["distributed", "of what is summed", "nobody"]),
        ("distributed", ["To each user, with distributed noise"], ["local", "interaction"]),
        ("both", ["To each user, with distributed noise", "To each interaction, with local noise"], ["anybody"]),
    ],
)
def test_what_was_promised_in_each_mode(tmp_path: Path, mode: str, said: list[str], never: list[str]) -> None:
    found = text(verdict.promised(loaded(tmp_path, mode)))
    assert all(each in found for each in said)
    assert not any(each in found for each in never)
    assert found.count("e^epsilon is") == len(said) - (mode == "none")


@pytest.mark.parametrize(
    ("mode", "sums", "local", "alone"),
    [("none", False, False, True), ("local", False, True, False), ("distributed", True, False, False)],
)
def test_what_rests_on_the_secure_sum(tmp_path: Path, mode: str, sums: bool, local: bool, alone: bool) -> None:
    """Distributed noise needs it, local noise does not, and without noise there is nothing else."""
    found = text(verdict.against(loaded(tmp_path, mode)))
    assert ("The promise about sums rests on that" in found) == sums
    assert ("it holds whatever the server does" in found) == local
    assert ("That alone hides what a client sent" in found) == alone


# Against whom, as configured


def configured(folder: Path, **protocol: Any) -> str:
    return " ".join(verdict.configured(loaded(folder, protocol={**CONFIGURED, **protocol})))


@pytest.mark.parametrize("name", ["secagg", "secagg+", "oneshot"])
def test_of_a_protocol_that_can_do_more_the_parameters_count(tmp_path: Path, name: str) -> None:
    lying = configured(tmp_path, name=name, adversary="active")
    assert "hidden from a server that lies, with up to 1 of the 20 clients on its side, says the record." in lying
    assert "not counted in" not in lying
    curious = configured(tmp_path, name=name, adversary="curious")
    assert "hidden from a server that follows the protocol and looks at all it sees, with up to 1 of the 20" in curious
    assert "hidden from a server that lies" not in curious
    assert f"A server that lies was not counted in: {name} can be" in curious


@pytest.mark.parametrize("name", ["ckks", "threshold_ckks"])
@pytest.mark.parametrize("adversary", ["active", "curious"])
def test_what_no_parameters_give_is_not_promised(tmp_path: Path, name: str, adversary: str) -> None:
    """Whatever the record calls its adversary: the default of a configuration is an active one."""
    found = configured(tmp_path, name=name, adversary=adversary)
    assert "hidden from a server that follows the protocol" in found
    assert "hidden from a server that lies" not in found
    assert "has no parameters against" in found
    assert ("one holder of the key" in found) == (name == "ckks")


@pytest.mark.parametrize("adversary", [None, "magic", 3, "active "])
def test_an_unknown_adversary_is_none(tmp_path: Path, adversary: Any) -> None:
    found = configured(tmp_path, name="secagg+", adversary=adversary)
    assert "the record does not say" in found
    assert "hidden" not in found


@pytest.mark.parametrize("corrupt", ["", "abc", "2", "1", "-1", "nan", "1/0", None, []])
def test_a_fraction_that_is_none(tmp_path: Path, corrupt: Any) -> None:
    found = configured(tmp_path, name="secagg", adversary="active", corrupt=corrupt)
    assert "Against whom the parameters of secagg were chosen, the record does not say." in found
    assert "hidden" not in found


def test_the_fewest_in_a_sum_are_those_of_the_plans(tmp_path: Path) -> None:
    account = loaded(tmp_path, "distributed", protocol={"name": "secagg+", "min_contributors": 19})
    assert "At least 16 clients are in each sum, by the signed plans." in " ".join(verdict.configured(account))
    (tmp_path / "unsigned").mkdir()
    other = loaded(tmp_path / "unsigned", protocol={"name": "secagg+", "min_contributors": 19})
    assert "At least 19 clients are in each sum, says the record." in " ".join(verdict.configured(other))


# What a number means


def test_a_likelihood_is_never_too_small() -> None:
    for spent in (0.0, 0.001, 0.5, 1.0, 2.3, 5.0, 7.7735, 16.0, 20.5, 300.0):
        shown = float(verdict.likelihood(spent).replace(",", ""))
        assert exp(spent) <= shown <= 1.12 * exp(spent) + 1
        assert float(verdict.certainty(spent)[:-1]) / 100 >= exp(spent) / (1 + exp(spent))
    assert verdict.likelihood(inf) == "without bound"


def test_what_has_no_bound_promises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (spent,) = loaded(tmp_path, "distributed").spent
    monkeypatch.setattr(type(spent), "epsilon", property(lambda self: inf))
    assert verdict.spending(spent) == "What has been spent has no bound: nothing is promised to a user any more."


@pytest.mark.parametrize(
    ("relation", "question"),
    [
        ("zero-out", "whether what one user contributed was there, or zeros"),
        ("replace-one", "which of two possible users was there"),
        ("add-or-remove", "whether one user was there or not"),
    ],
)
def test_what_is_asked_follows_from_the_relation(tmp_path: Path, relation: str, question: str) -> None:
    (spent,) = loaded(tmp_path, "distributed").spent
    assert question in verdict.spending(replace(spent, promise=replace(spent.promise, relation=relation)))


def test_a_shared_budget_is_that_of_all_runs(tmp_path: Path) -> None:
    (spent,) = loaded(tmp_path, "distributed").spent
    assert verdict.spending(spent).startswith("Spent so far: epsilon 3.73 at")
    assert verdict.spending(replace(spent, shared=True)).startswith("Spent by all runs that share the ledger: ")


# How good


def test_quality_in_both_ways_of_ranking(tmp_path: Path) -> None:
    found = text(verdict.quality(loaded(tmp_path)))
    assert "In full ranking NDCG@10 is 0.0331: 1.71 times that of “ItemPop” (0.0194), and 0.83 times the best" in found
    assert (
        "Against 99 negatives NDCG@10 is 0.4470: 1.23 times that of “ItemPop” (0.3620), and 0.87 times the best"
        in found
    )
    table = verdict.quality(loaded(tmp_path))[-1]
    assert re.findall('scope="colgroup" colspan="2">(.*?)<', table) == ["full ranking", "against 99 negatives"]
    assert re.findall('scope="col" class="figure">(.*?)<', table) == ["HR@10", "NDCG@10"] * 2


def test_quality_that_is_not_known(tmp_path: Path) -> None:
    found = text(verdict.quality(loaded(tmp_path, ended="", results=runs.RESULTS[:2])))
    assert found.startswith("How good it is in the end was not measured exactly.")
    only = (Quality("this run", {"NDCG@10": 0.5}),)
    found = text(verdict.quality(loaded(tmp_path, results=only)))
    assert found.startswith("In full ranking NDCG@10 is 0.5000. ")
    assert "Against 99 negatives it was not measured." in found


def test_what_a_ledger_says_once_more_is_said_once(tmp_path: Path) -> None:
    """But whatever is not in the record, is."""
    account = loaded(tmp_path, "distributed")
    said = "says the ledger: exact metrics, not charged."
    assert said in text(verdict.outside(account))
    alike = replace(account, run=replace(account.run, outside=("exact metrics",)))
    assert said in text(verdict.outside(alike))
    same = replace(account, run=replace(account.run, outside=("exact metrics, not charged",)))
    assert "says the ledger" not in text(verdict.outside(same))
    assert "Exact metrics, not charged." in text(verdict.outside(same))


# What it opens with, and its words


def test_a_lie_is_said_before_all_else(tmp_path: Path) -> None:
    run = runs.make(tmp_path, "distributed", rounds=2)
    html = write_report(tmp_path).read_text()
    assert "do not rely on this page" not in html
    replace(run, rounds=run.rounds[:1]).save(tmp_path, runs.KEY)
    html = write_report(tmp_path).read_text()
    assert html.index("do not rely on this page") < html.index("What was promised")


@pytest.mark.thinned(4)
@pytest.mark.parametrize("mode", runs.MODES)
def test_first_the_verdict_then_parties_then_plots_then_tables(tmp_path: Path, mode: str) -> None:
    loaded(tmp_path, mode)
    html = write_report(tmp_path).read_text()
    order = ["What was promised", "Against whom", "How good", "What left", "What each party", "<h2>Plots", "<h2>Rounds"]
    assert [html.index(part) for part in order] == sorted(html.index(part) for part in order)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("mode", runs.MODES)
def test_the_first_sentence_is_that_of_the_terminal(tmp_path: Path, mode: str) -> None:
    """Word by word; and none where record and ledger differ."""
    account = loaded(tmp_path, mode)
    html = write_report(tmp_path).read_text()
    (said,) = re.findall('<p class="outcome">(.*?)</p>', html)
    assert unescape(said).lower() == one_sentence(account).lower() + "."
    assert html.index('<p class="outcome">') < html.index('class="headline"')
    assert "outcome" not in "".join(page._in_short(replace(account, differences=("something",))))


@pytest.mark.long
@pytest.mark.parametrize("first", ["recsys.verdict", "recsys.report", "recsys.report.page", "recsys.sentences"])
def test_modules_can_be_imported_in_any_order(first: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {first}, recsys.verdict, recsys.report"], check=False)
    assert done.returncode == 0


def test_one_round_is_no_curve(tmp_path: Path) -> None:
    loaded(tmp_path, "distributed", rounds=1)
    html = write_report(tmp_path).read_text()
    assert "<svg" not in html
    assert "There is one value and no curve: 2.59 after one round." in html
    assert "There is one value of NDCG@10 and no curve" in html


def test_words_are_explained_where_a_finger_gets(tmp_path: Path) -> None:
    """Each link leads to its explanation; nothing is said only to a mouse."""
    loaded(tmp_path, "both")
    html = write_report(tmp_path).read_text()
    links = set(re.findall('href="#(term-[^"]+)"', html))
    assert {"term-epsilon", "term-delta", "term-local-noise", "term-ndcg-10", "term-99-negatives"} <= links
    assert links <= set(re.findall('id="([^"]+)"', html))
    assert "title=" not in html
    assert html.count('id="term-') == len(terms.TERMS)
