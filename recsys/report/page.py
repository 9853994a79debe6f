"""The report as one page of HTML: no script, nothing from elsewhere, readable on a phone, in the dark and on paper."""

from __future__ import annotations

import json

from recsys import verdict as one_sentence
from recsys.report import curves, numbers, tables, terms, verdict, words
from recsys.report.account import Account
from recsys.report.markup import Html, facts, join, prose, tag
from recsys.report.style import STYLE
from secagg.errors import UsageError

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""A browser that knows this loads and runs nothing, whatever a title tries."""


_CELLS, _SETTINGS = 2_000_000, 1 << 16
"""Of the table of rounds, and bytes of all settings: what a record may have, so that its report can be drawn."""


def page(account: Account) -> str:
    _check_size(account)
    title = account.run.title
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    body = tag("body", tag("main", tag("h1", title), *_sections(account)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _check_size(account: Account) -> None:
    """A name that each round has for itself would make a column of its own, and settings are named by all levels."""
    run = account.run
    names = {name for entry in run.rounds for name in (*entry.exact, *entry.measured, *entry.seconds)}
    names |= {name for result in run.results for name in result.metrics}
    if len(names) * (len(run.rounds) + len(run.results)) > _CELLS:
        raise UsageError("the record is too large for a report: so many rounds have so many different figures")
    if len(json.dumps([run.config, run.data, run.protocol, run.machine])) > _SETTINGS:
        raise UsageError("the record is too large for a report: its settings are longer than any configuration")


def _sections(account: Account) -> list[Html]:
    plots = join(
        [curves.utility_by_rounds(account), curves.epsilon_by_rounds(account), curves.utility_by_epsilon(account)]
    )
    return [
        _section("Verdict", *_in_short(account), tables.headline(account), verdict.verdict(account)),
        _section("What was done", words.course(account), words.believed(account)),
        _section("Threat model", *_threats(account)),
        _section("What each party could see", _seen(account)),
        _section("Plots", tag("div", plots, class_="plots")),
        _section("Rounds", tables.rounds(account), tag("p", words.measured(account))),
        _section("Results", tables.results(account)),
        _section("The ledger", *_ledgers(account)),
        _section("Configuration", tables.configuration(account)),
        _section("Words", terms.explained()),
    ]


def _in_short(account: Account) -> list[Html]:
    """The sentence with which a run ends on a terminal. Where record and ledger differ the section begins with that."""
    said = words.sentence(one_sentence.verdict(account))
    return [] if account.differences else [tag("p", said, class_="outcome")]


def _section(title: str, *content: Html) -> Html:
    return tag("section", tag("h2", title), *content)


def _ledgers(account: Account) -> list[Html]:
    if not account.spent:
        return [tag("p", "There is none: this run promises no differential privacy, and so it spends none.")]
    return [tables.ledger(spent) for spent in account.spent]


def _threats(account: Account) -> list[Html]:
    protocol, agreed = account.protocol, account.run.protocol
    pairs = [
        ("protocol", protocol.name),
        ("paper", protocol.paper),
        ("can hold against", protocol.threat_model),
        ("the server learns", protocol.server_learns),
        ("cost", protocol.cost),
    ]
    adversary = words.ADVERSARIES.get(str(agreed.get("adversary")))
    if adversary and protocol.name not in words.CURIOUS:
        pairs.append(("parameters chosen against", f"{adversary}, says the record"))
    for label, name in (("may be corrupt", "corrupt"), ("may drop out", "dropout")):
        if name in agreed and (name, protocol.name) != ("corrupt", "ckks"):  # with one it is open
            pairs.append((label, f"{numbers.plain(agreed[name])} of the clients, says the record"))
    trust = prose("Who is trusted with what", ["party", "is trusted with"], words.trusted(account))
    return [facts(pairs), tag("h3", "Who is trusted with what"), trust]


def _seen(account: Account) -> Html:
    return prose("What each party could see", ["party", "sees", "bounded by"], words.seen(account))
