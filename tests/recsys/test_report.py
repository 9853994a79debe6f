"""The report: what it says in each mode, that it stands alone, and that nothing in a record can break it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cache, reduce
from html.parser import HTMLParser
from math import inf
from pathlib import Path
from typing import Any

import pytest

from recsys.report import Account, verdict, words, write_report
from recsys.report.account import Spent
from recsys.report.style import STYLE
from recsys.run_record import FILE, Quality, Round, Run
from recsys.sentences import CLOSED
from secagg import cli
from secagg.errors import DecodeError, PeerError, StorageError, UsageError
from secagg.printable import printable
from tests.scenes import runs

EVIL = "<script>alert('x')</script>\"&'\u202e\x1b[2J\u2028"


class Page(HTMLParser):
    """Text, and a check that every element is closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for mode in runs.MODES:
        made[mode] = tmp_path_factory.mktemp(mode)
        runs.make(made[mode], mode)
    return made


@pytest.fixture(scope="module")
def pages(folders: dict[str, Path]) -> dict[str, str]:
    return {mode: write_report(folder).read_text() for mode, folder in folders.items()}


def page(folder: Path) -> Page:
    return Page(write_report(folder).read_text())


# What it says


@pytest.mark.parametrize("mode", runs.MODES)
@pytest.mark.thinned(2)
def test_stands_alone(pages: dict[str, str], mode: str) -> None:
    html, found = pages[mode], Page(pages[mode])
    assert len(html.encode()) < 100_000
    for foreign in ("script", "link", "img", "iframe", "object", "base"):
        assert foreign not in found.tags
    assert "://" not in html
    assert "@import" not in html
    assert set(re.findall(r'(?:href="|url\()([^")]?)', html)) <= {"#"}
    assert '<meta http-equiv="Content-Security-Policy" content="default-src &#x27;none&#x27;; ' in html
    assert len(found.ids) == len(set(found.ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(found.ids)
    assert sorted({tag for tag in found.tags if re.fullmatch("h[1-6]", tag)}) == ["h1", "h2", "h3"]


@pytest.mark.parametrize("mode", runs.MODES)
def test_sections_and_figures(pages: dict[str, str], mode: str) -> None:
    html = pages[mode]
    assert re.findall("<h2>(.*?)</h2>", html) == [
        "Verdict",
        "What was done",
        "Threat model",
        "What each party could see",
        "Plots",
        "Rounds",
        "Results",
        "The ledger",
        "Configuration",
        "Words",
    ]
    for part in (
        "20 silos trained one recommender together (synthetic, 2,400 users, 1,500 items, 240,000 training events).",
        "It took 12 secure sums (training) with secagg+; 16 to 20 of 20 clients survived.",
        "In full ranking NDCG@10 is 0.0331: 1.71 times that of “ItemPop” (0.0194), and 0.83 times the best without",
        "the sum over the survivors, and who dropped out when",
        f"There are at least 16 clients in each sum{'.' if mode in ('distributed', 'both') else ', says the record.'}",
        "training.optimiser",
        "3 rows were refused",
    ):
        assert part in Page(html).text
    assert '<td class="figure">9.3 MB</td>' in html
    assert html.count("<svg") == (1 if mode == "none" else 3)
    assert html.count('role="img"') == html.count("<svg")


def test_without_privacy_it_says_so(pages: dict[str, str]) -> None:
    text = Page(pages["none"]).text
    assert "No differential privacy was promised to anybody. Each single update is hidden in a secure sum" in text
    assert "no epsilon bounds it" in text
    assert "There is none: this run promises no differential privacy" in text
    assert "Nothing else: the sums are exact." in text
    assert "there is no guarantee in this run" in text


def test_what_was_promised(pages: dict[str, str]) -> None:
    text = Page(pages["distributed"]).text
    assert "To each user, with distributed noise: the sums of all rounds together are (8, 1e-06)-private" in text
    assert "Spent so far: epsilon 7.774 at delta 1e-6. e^epsilon is 2,378: " in text
    assert "Why it ended: the next round would exceed the budget." in text
    assert "one user whose contribution becomes zero" in text
    assert "Noise in every sum: epsilon 7.78 per user. That holds even if one client works together" in text
    assert "Noise in every update" not in text
    assert "exact metrics, not charged" in text
    text = Page(pages["local"]).text
    assert "To each interaction, with local noise: what each client sends in all rounds together is" in text
    assert "Spent so far: epsilon 7.835 at delta 1e-6. e^epsilon is 2,528: " in text
    assert "Noise in every update: epsilon 7.84 per example." in text
    assert "Noise in every sum" not in text
    text = Page(pages["both"]).text
    for part in ("Noise in every sum: epsilon 7.78", "Noise in every update: epsilon 7.84", "ledger.db", "local.db"):
        assert part in text


def test_against_a_client_nothing_is_promised_unless_colluders_are_counted_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows its own share of the noise, so it sees less of it than the server does."""
    made = {}
    for colluders in (1, 0):
        with monkeypatch.context() as patched:
            patched.setattr(runs, "NOISE", replace(runs.NOISE, colluders=colluders))
            patched.setattr(runs, "_plans", runs._plans.__wrapped__)
            (folder := tmp_path / str(colluders)).mkdir()
            runs.make(folder, "distributed", rounds=2)
        made[colluders] = page(folder).text
    counted, alone = made[1], made[0]
    said = "a client knows its own share of it: no epsilon is claimed here"
    assert (said in counted, said in alone) == (False, True)
    assert [text.count("Noise in every sum: epsilon") for text in (counted, alone)] == [2, 1]


def test_who_the_clients_are(tmp_path: Path) -> None:
    def text(**data: int) -> str:
        runs.make(tmp_path, "none", data=data)
        return page(tmp_path).text

    devices = text(users=20, clients=20)
    assert "20 devices trained" in devices
    assert "The device itself" in devices
    assert "A silo" not in devices
    assert "The silo itself" in text(users=21, clients=20)
    unknown = text()
    assert "Clients trained one recommender together." in unknown
    assert "The client itself" in unknown


def test_ckks_is_another_trust_model(tmp_path: Path) -> None:
    runs.make(tmp_path, "none", protocol={"name": "ckks"})
    text = page(tmp_path).text
    assert "together with one holder of the key it can open every update" in text
    assert "Ciphertexts of single updates" in text
    assert "No update, and no key" not in text


def test_threshold_ckks_is_another_one(tmp_path: Path) -> None:
    runs.make(tmp_path, "none", protocol={"name": "threshold_ckks"})
    text = page(tmp_path).text
    assert "Fewer than the threshold working together with the server" in text
    assert "parameters chosen against" not in text
    assert "Ciphertexts of single updates" in text
    assert "No update, and no key" not in text


@pytest.mark.parametrize("name", [runs.FILE, runs.LOCAL])
def test_the_command_that_it_prints_verifies(
    folders: dict[str, Path],
    pages: dict[str, str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = re.findall("<code>(.*?)</code>", pages["both"])
    monkeypatch.chdir(folders["both"])
    words = shlex.split(commands[name == runs.LOCAL])
    assert words[:4] == ["secagg", "ledger", "verify", "." if name == runs.FILE else name]
    assert cli.main(words[1:]) == 0
    assert "verified" in capsys.readouterr().out


def test_entries_of_the_ledger(
    folders: dict[str, Path], pages: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    html = pages["distributed"]
    assert html.count('<td class="figure">16 of 20</td>') == 12 + 2, "reserved for the worst case, and happened"
    assert "round 11" in html
    assert pages["local"].count("<td>29 steps</td>") == 2 * 12
    monkeypatch.setattr("recsys.report.tables._ENTRIES", 5)
    shorter = write_report(folders["distributed"]).read_text()
    assert "The last 5 entries; 19 came before." in shorter
    assert "round 11" in shorter
    assert "round 8" not in shorter


# What is drawn


def test_curves_are_the_figures(tmp_path: Path) -> None:
    """The exact curve has as many points as rounds, what clients measured is of the model before the round."""
    runs.make(tmp_path, "distributed", rounds=4)
    account = Account.load(tmp_path)
    assert [point.rounds for point in account.exact] == [1, 2, 3, 4]
    assert [point.rounds for point in account.measured] == [0, 3]
    epsilons = [entry.epsilon for entry in account.run.rounds]
    assert [point.epsilon for point in account.exact] == epsilons
    assert [point.epsilon for point in account.measured] == [0.0, epsilons[2]]
    svgs = re.findall("<svg.*?</svg>", write_report(tmp_path).read_text(), re.DOTALL)
    marks = [[svg.count(f'style="fill: var(--curve-{k}); stroke') for k in (0, 1)] for svg in svgs]
    assert marks == [[4, 0]] * 3
    assert [svg.count('style="fill-opacity: 0; stroke: var(--curve-1)') for svg in svgs] == [2, 0, 2]
    assert [svg.count("stroke-dasharray") for svg in svgs] == [2, 1, 2], "references, and the budget"
    assert "#" not in re.sub(r"url\(#\w+\)|href=\"#\w+\"", "", "".join(svgs)), "colours are those of the page"


def test_of_references_in_closed_form_the_best_is_drawn_and_all_are_told(tmp_path: Path) -> None:
    closed = [Quality(name, {"NDCG@10": 0.03 + place / 100}) for place, name in enumerate(CLOSED)]
    more = Quality("this recipe without noise", {"NDCG@10": 0.03})
    runs.make(tmp_path, "none", rounds=4, results=(runs.RESULTS[0], *closed, more, runs.RESULTS[-1]))
    html = write_report(tmp_path).read_text()
    (svg, *_), legend = re.findall("<svg.*?</svg>", html, re.DOTALL), re.findall('<ul class="legend">.*?</ul>', html)[0]
    assert svg.count("stroke-dasharray") == 3
    assert [name for name in ("ItemPop", *CLOSED, "this recipe") if name in legend] == [
        "ItemPop",
        "EASE",  # in the name of the next
        "tuned EASE",
        "this recipe",
    ]
    assert "that of “tuned EASE” (0.0500)" in Page(html).text


def test_noise_does_not_set_the_scale(tmp_path: Path) -> None:
    """Noised measurements may be far from anything possible; those are told, not drawn."""
    run = runs.make(tmp_path, "distributed", rounds=4)
    noised = [-1.2, 0.02, 0.9, 0.01]
    rounds = [replace(entry, measured={"NDCG@10": value}) for entry, value in zip(run.rounds, noised, strict=True)]
    replace(run, rounds=tuple(rounds)).save(tmp_path, runs.KEY)
    html = write_report(tmp_path).read_text()
    first = html[html.index("<svg") : html.index("</svg>")]
    assert first.count('style="fill-opacity: 0; stroke: var(--curve-1)') == 2
    assert re.findall(r">(0\.\d+)</text>", first)[-1] == "0.04"
    assert html.count("Outside of the picture, by their noise: 2 values measured under the mask.") == 2
    assert "-1.2000" in html
    replace(run, rounds=tuple(replace(entry, exact={}) for entry in rounds), results=()).save(tmp_path, runs.KEY)
    html = write_report(tmp_path).read_text()
    assert html.count('style="fill-opacity: 0; stroke: var(--curve-1)') == 8, "with nothing else, all are drawn"
    assert "Outside of the picture" not in html


def test_a_round_that_was_given_up_is_none(tmp_path: Path) -> None:
    run = runs.make(tmp_path, "none", rounds=2)
    lost = Round(2, "training, given up: too few", 20, 0, {}, 0, 0, {})
    again = replace(run.rounds[1], number=3)
    replace(run, rounds=(*run.rounds, lost, again)).save(tmp_path, runs.KEY)
    account = Account.load(tmp_path)
    assert [point.rounds for point in account.exact] == [1, 2, 3]
    assert account.figures()["rounds"] == 3
    text = page(tmp_path).text
    assert "3 secure sums (training)" in text
    assert "1 more had to be given up" in text
    assert "training, given up: too few" in text


def test_two_sums_and_no_training(tmp_path: Path) -> None:
    """Private EASE: quality is known in the end only."""
    run = runs.make(tmp_path, "distributed", rounds=2)
    sums = [
        replace(entry, purpose=purpose, exact={}, measured={})
        for entry, purpose in zip(run.rounds, ("popularity", "item pairs"), strict=True)
    ]
    replace(run, rounds=tuple(sums)).save(tmp_path, runs.KEY)
    html = write_report(tmp_path).read_text()
    assert "2 secure sums (1 popularity, 1 item pairs)" in html
    assert html.count("<svg") == 1, "of epsilon; of quality there is one value"
    assert html.count("There is one value of NDCG@10 and no curve") == 2
    assert [(point.rounds, point.values["NDCG@10"]) for point in Account.load(tmp_path).exact] == [(2, 0.0331)]


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    """Then the last result is not that of the run."""
    run = runs.make(tmp_path, "none", results=runs.RESULTS[:2], ended="")
    text = page(tmp_path).text
    assert "It has not ended" in text
    assert "How good it is in the end was not measured exactly. After 9 rounds clients measured NDCG@10 0.0" in text
    replace(run, rounds=(), results=()).save(tmp_path, runs.KEY)
    text = page(tmp_path).text
    for part in ("No secure sum is done yet.", "Quality was not measured.", "Rounds: none.", "Results: none."):
        assert part in text
    run = runs.make(tmp_path, "distributed", rounds=0, ended="", results=())
    assert "No round has spent anything yet." in page(tmp_path).text


def test_other_metrics(tmp_path: Path) -> None:
    runs.make(tmp_path, "none", rounds=0, results=(Quality("this run", {"MRR": 0.25}),))
    text = page(tmp_path).text
    assert "In full ranking MRR is 0.2500." in text


def test_an_epsilon_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later rounds may be without: they are not drawn."""
    runs.make(tmp_path, "distributed", rounds=3)
    kept = Spent.epsilon_after
    monkeypatch.setattr(Spent, "epsilon_after", lambda self, number: inf if number > 5 else kept(self, number))
    assert "unbounded" in page(tmp_path).text


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    run = runs.make(tmp_path, "distributed", rounds=3)
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text.replace(str(run.rounds[1].epsilon), "Infinity"))
    with pytest.raises(DecodeError, match="not finite"):
        write_report(tmp_path)


def test_many_rounds_stay_small(tmp_path: Path) -> None:
    run = runs.make(tmp_path, "none")
    replace(run, rounds=tuple(replace(entry, number=n) for n, entry in enumerate(run.rounds * 10))).save(
        tmp_path, runs.KEY
    )
    assert write_report(tmp_path).stat().st_size < 400_000


# What is put into it


def test_a_record_cannot_break_the_page(tmp_path: Path) -> None:
    run = runs.make(tmp_path, "distributed", rounds=2)
    rounds = tuple(
        replace(
            entry,
            purpose=EVIL,
            silent={EVIL: 1},
            seconds={EVIL: 1.0},
            measured={EVIL: 0.1, "NDCG@10": 0.2},
            exact={EVIL: 0.1, "NDCG@10": 0.2},
        )
        for entry in run.rounds
    )
    promise = replace(run.spendings[0], words=EVIL)
    changed = replace(
        run,
        title=EVIL,
        config={EVIL: {EVIL: [EVIL]}},
        data={"source": EVIL, EVIL: EVIL, "clients": 20, "users": 30},
        protocol={"name": "secagg", "adversary": EVIL, "min_contributors": EVIL, "corrupt": EVIL},
        measured_under=EVIL,
        spendings=(promise,),
        rounds=rounds,
        results=(Quality(EVIL, {EVIL: 0.1, "NDCG@10": 0.1}, EVIL), Quality("$_{" + EVIL, {EVIL: 0.1, "NDCG@10": 0.1})),
        ended=EVIL,
        machine={EVIL: EVIL},
    )
    changed.save(tmp_path, runs.KEY)
    html = write_report(tmp_path).read_text()
    found = Page(html)
    assert "script" not in found.tags
    assert found.text.count(printable(EVIL)) > 20
    assert not set(html) & set("\u202e\x1b\u2028")
    honest = Page(write_report_of(tmp_path, run))
    assert set(found.tags) == set(honest.tags)


def write_report_of(folder: Path, run: Run) -> str:
    run.save(folder, runs.KEY)
    return write_report(folder).read_text()


# Records and ledgers that are none


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "central"},
        {"mode": "none"},
        {"mode": "local"},
        {"protocol": {}},
        {"protocol": {"name": "none"}},
        {"rounds": None},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_record_that_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    runs.make(tmp_path, "distributed", rounds=1)
    fields = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**fields, **change}))
    with pytest.raises((DecodeError, StorageError)):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_ledgers_that_are_none(tmp_path: Path) -> None:
    runs.make(tmp_path, "distributed", rounds=1)
    write_report(tmp_path)
    before = (tmp_path / "report.html").read_bytes()
    data = bytearray((tmp_path / "ledger.db").read_bytes())
    data[data.index(b'"phase":"commit"') + 10] ^= 1
    (tmp_path / "ledger.db").write_bytes(data)
    with pytest.raises(PeerError):
        write_report(tmp_path)
    (tmp_path / "ledger.db").unlink()
    with pytest.raises(StorageError, match="missing"):
        write_report(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(UsageError):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


# A record that lies


def told(account: Account) -> list[object]:
    """All that a report says of privacy."""
    return [
        [(verdict.promise(spent), verdict.spending(spent), words.promise(spent)) for spent in account.spent],
        verdict.against(account),
        [(entry.epsilon, entry.epsilon_left) for entry in account.run.rounds],
        words.seen(account),
        words.trusted(account),
        {name: account.figures()[name] for name in ("mode", "epsilon", "epsilon_outsiders", "budgets")},
    ]


def numbers_in(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers_in(item, (*at, name))
    elif isinstance(value, int | float):
        yield at


def lies(folder: Path) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """For each number in the record of a run: records that have another one there."""
    fields = json.loads((folder / FILE).read_text())
    found = {}
    for at in numbers_in(fields):
        for change in (lambda x: 2 * x + 1, lambda x: type(x)(0)):
            other = deepcopy(fields)
            *inside, last = at
            place = reduce(lambda value, name: value[name], inside, other)
            if (value := change(place[last])) != place[last]:
                place[last] = value
                found.setdefault(at, []).append(other)
    return found


def believed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[tuple[Any, ...]]:
    """Where another number makes the report say something else of privacy, and nothing of a difference."""
    monkeypatch.setattr(Spent, "load", cache(Spent.load))  # the ledgers stay as they are
    honest, found = Account.load(folder), set()
    assert honest.differences == ()
    said = told(honest)
    for at, records in lies(folder).items():
        for fields in records:
            runs.put(folder, fields)
            with suppress(DecodeError):  # no record at all: nothing is said
                account = Account.load(folder)
                if not account.differences and told(account) != said:
                    found.add(at)
    return found


@pytest.mark.thinned(3)
@pytest.mark.parametrize("mode", ["local", "distributed", "both"])
def test_no_number_in_a_record_changes_what_is_said_of_privacy(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for how many clients there were, where no plan is on record: the report says on whose word that is."""
    runs.make(tmp_path, mode, rounds=2)
    cohorts: set[tuple[Any, ...]] = {("protocol", "min_contributors"), ("protocol", "clients")}
    cohorts |= {("rounds", number, "planned") for number in range(2)}
    assert believed(tmp_path, monkeypatch) == (cohorts if mode == "local" else set())


def test_control_a_record_that_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was: what had been spent by a round stood in the record."""
    runs.make(tmp_path, "distributed", rounds=2)
    monkeypatch.setattr("recsys.report.account._accounted", lambda entry, spent: entry)
    changed = believed(tmp_path, monkeypatch)
    assert {("rounds", 1, "epsilon"), ("rounds", 1, "epsilon_left")} <= changed


@pytest.mark.thinned(4)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: {"spendings": ()}, "does not promise what ledger.db keeps account of"),
        (lambda run: {"spendings": (*run.spendings, replace(run.spendings[0], trust="local"))}, "2 budgets"),
        (lambda run: {"spendings": (replace(run.spendings[0], epsilon=1.0),)}, "epsilon is 1.0, says the record"),
        (lambda run: {"spendings": (replace(run.spendings[0], unit="example"),)}, "ledger.db has user"),
        (lambda run: {"rounds": run.rounds[:1]}, "the record has 1 rounds, and 2 sums are committed"),
        (lambda run: {"rounds": run.rounds[::-1]}, "points to no entry of ledger.db, or to one before the last"),
        (lambda run: {"rounds": (*run.rounds, run.rounds[1])}, "is not in ledger.db"),
        (lambda run: {"rounds": (replace(run.rounds[0], survivors=19), run.rounds[1])}, "19 of 20 survived, is not in"),
        (lambda run: {"rounds": (replace(run.rounds[0], head=""), run.rounds[1])}, "points to no entry"),
        (lambda run: {"protocol": {**run.protocol, "name": "oneshot"}}, "the plans have secagg+"),
        (lambda run: {"protocol": {**run.protocol, "min_contributors": 19}}, "the plans have 16"),
    ],
)
def test_where_record_and_ledger_differ(tmp_path: Path, change: Any, said: str) -> None:
    run = runs.make(tmp_path, "distributed", rounds=2)
    assert "Record and ledger differ" not in page(tmp_path).text
    replace(run, **change(run)).save(tmp_path, runs.KEY)
    text = page(tmp_path).text
    assert "Record and ledger differ" in text
    assert said in text.lower()
    assert "Spent so far: epsilon 3.73 at" in text
    assert "with secagg+;" in text


def test_ledgers_are_looked_for_in_the_folder_alone(tmp_path: Path) -> None:
    """Whatever the record calls them: a database elsewhere is not opened, and nothing is made beside it."""
    (mine := tmp_path / "mine").mkdir()
    (theirs := tmp_path / "theirs").mkdir()
    runs.make(mine, "distributed", rounds=2)
    run = runs.make(theirs, "distributed", rounds=1)
    for name in ("../mine/ledger.db", str(mine / "ledger.db")):
        replace(run, spendings=(replace(run.spendings[0], ledger=name),)).save(theirs, runs.KEY)
        assert len(Account.load(theirs).spent[0].sums) == 1
    (theirs / "ledger.db").unlink()
    with pytest.raises(StorageError, match="say which it is"):
        write_report(theirs)
    (theirs / "ledger.db").symlink_to(mine / "ledger.db")
    with pytest.raises(StorageError, match="is a link"):
        write_report(theirs)
    assert sorted(path.name for path in mine.iterdir()) == ["ledger.db", "ledger.pub", "run.json"]
    with pytest.raises(UsageError, match="a ledger of its own"):
        Account.load(mine, theirs / "ledger.db")


# How it looks


def _colours(block: str) -> dict[str, tuple[float, ...]]:
    found = re.findall(r"--([\w-]+): #([0-9a-f]{6});", block)
    return {name: tuple(int(value[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, value in found}


def _luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast() -> None:
    """WCAG 2: 4.5 for text, 3 for lines, by day and by night."""
    light, dark = STYLE.index(":root"), STYLE.index("prefers-color-scheme: dark")
    for colours in (_colours(STYLE[light:dark]), _colours(STYLE[dark : STYLE.index("box-sizing")])):
        assert {f"curve-{number}" for number in range(6)} < set(colours)
        for name, least in {"ink": 4.5, "soft": 4.5, "accent": 4.5, **{f"curve-{k}": 3.0 for k in range(6)}}.items():
            for behind in ("paper", "raised"):
                a, b = sorted((_luminance(colours[name]), _luminance(colours[behind])))
                assert (b + 0.05) / (a + 0.05) >= least, (name, behind)
