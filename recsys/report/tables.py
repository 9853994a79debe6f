"""The headline, and the tables of a report: rounds, results, ledgers, configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from shlex import quote
from typing import Any

from dp.filter import RESOLUTION
from dp.ledger.file import FILE
from dp.ledger.verify import book
from dp.verify_ledger import counting
from recsys.report import numbers
from recsys.report.account import Account, Spent
from recsys.report.markup import Group, Html, facts, join, table, tag
from recsys.report.verdict import likelihood
from recsys.report.words import promise
from recsys.run_record import Round
from recsys.sentences import protected

_ENTRIES = 200
"""Of a ledger, shown at most."""


def headline(account: Account) -> Html:
    """The figures that one looks for first."""
    own, name = account.own, account.metric
    found = []
    if own is not None and name is not None:
        sampled = f"{name} of 100"
        shown = ((name, f"{name}, full ranking"), (sampled, f"{name}, against 99 negatives"))
        found += [(numbers.metric(own.metrics[each]), label) for each, label in shown if each in own.metrics]
    for spent in account.spent:
        of = f"epsilon of {numbers.budget(spent.promise.epsilon)}, {spent.promise.trust} noise"
        found += [
            (numbers.epsilon(spent.epsilon), of),
            (likelihood(spent.epsilon), f"e^epsilon, {spent.promise.trust}"),
        ]
    return tag("dl", *(tag("div", tag("dt", label), tag("dd", value)) for value, label in found), class_="headline")


def rounds(account: Account) -> Html:
    """Columns that no round has anything for are left out."""
    entries = account.run.rounds
    exact, measured = _names(entry.exact for entry in entries), _names(entry.measured for entry in entries)
    phases = _names(entry.seconds for entry in entries)
    clock = ["simulated seconds so far"] if any(entry.clock for entry in entries) else []
    staleness = ["versions behind, mean"] if any(entry.staleness for entry in entries) else []
    spending = ["spent", "left"] if account.spent else []
    groups = [
        Group("", ["round", "purpose", "survivors", "fell silent"]),
        Group(f"exact, {'before' if account.streamed else 'after'} the round", exact),
        Group("under the mask, before it", measured),
        Group("epsilon", spending),
        Group("bytes", ["up", "down"]),
        Group("seconds", phases),
        Group("clients that take time", [*clock, *staleness]),
    ]

    def row(entry: Round) -> list[str]:
        return [
            str(entry.number),
            entry.purpose,
            f"{numbers.count(entry.survivors)} of {numbers.count(entry.planned)}",
            ", ".join(f"{number} {phase}" for phase, number in entry.silent.items() if number),
            *(numbers.metric(entry.exact.get(name)) for name in exact),
            *(numbers.metric(entry.measured.get(name)) for name in measured),
            *map(numbers.epsilon, (entry.epsilon, entry.epsilon_left)[: len(spending)]),
            numbers.size(entry.bytes_up),
            numbers.size(entry.bytes_down),
            *(numbers.seconds(entry.seconds.get(name)) for name in phases),
            *([numbers.seconds(entry.clock)] if clock else []),
            *([f"{_mean(entry.staleness):.1f}"] if staleness else []),
        ]

    return table("Rounds", groups, [row(entry) for entry in entries], words=range(4))


def _mean(counted: Mapping[str, int]) -> float:
    """Of numbers, each with how often it occurs."""
    found = {int(age): count for age, count in counted.items() if age.isdecimal() and len(age) < 10 and count > 0}
    return sum(age * count for age, count in found.items()) / max(1, sum(found.values()))


def results(account: Account) -> Html:
    """All models side by side, that of the run last."""
    found = account.run.results
    names = _names(result.metrics for result in found)
    rows = [
        [result.name, *(numbers.metric(result.metrics.get(name)) for name in names), result.note] for result in found
    ]
    return table("Results", [Group("", ["model", *names, "note"])], rows, words=(0, len(names) + 1))


def ledger(spent: Spent) -> Html:
    """What one budget was spent on, and how to check that."""
    given, entries, window = spent.promise, spent.entries, book(spent.state).window
    pairs = facts(
        [
            ("spent", f"epsilon {numbers.epsilon(spent.epsilon)} of {numbers.budget(given.epsilon)}"),
            *([] if window is None else [("counted", counting(window))]),
            ("delta", numbers.delta(given.delta)),
            ("unit", given.unit if given.within is None else protected(given.unit, given.within)),
            ("relation", given.relation),
            ("noise", given.trust),
            ("charged elsewhere, or not at all", spent.state.genesis.elsewhere),
            ("entries", numbers.count(len(entries) + 1)),
            ("head", spent.state.head.hex()),
        ]
    )
    where = given.ledger
    ledger = "." if where == FILE else quote(where)
    command = f"secagg ledger verify {ledger} --key {quote(given.key)} --head {spent.state.head.hex()}"
    shown = table(
        f"Entries of {where}",
        [Group("", ["entry", "phase", "of", "survivors", "epsilon after"])],
        [_entry(entry) for entry in entries[-_ENTRIES:]],
        words=range(3),
    )
    left_out = len(entries) - _ENTRIES
    summary = f"The last {_ENTRIES} entries; {left_out} came before" if left_out > 0 else "The entries"
    return join(
        [
            tag("h3", where),
            tag("p", promise(spent)),
            pairs,
            tag("p", "To compute all of it again, in the directory of the run:"),
            tag("pre", tag("code", command), tabindex=0),
            tag("p", "Keep the head somewhere else, too: it shows if this ledger is ever exchanged, or cut short."),
            tag("details", tag("summary", f"{summary}."), shown),
        ]
    )


def _entry(entry: Mapping[str, Any]) -> list[str]:
    happened, steps = entry.get("sum"), entry.get("steps")
    of = f"round {happened['round']}" if happened else f"{steps['count']} steps" if steps else entry["release"][:12]
    survivors = f"{happened['survivors']} of {happened['planned']}" if happened else ""
    reached = entry["epsilon_after"]
    after = numbers.epsilon(float("inf") if reached is None else reached / RESOLUTION)
    return [str(entry["number"]), entry["phase"], of, survivors, after]


def configuration(account: Account) -> Html:
    run = account.run
    parts = [("Settings", run.config), ("Data", run.data), ("Protocol", run.protocol), ("Machine", run.machine)]
    return join(join([tag("h3", title), facts(numbers.flat(settings))]) for title, settings in parts if settings)


def _names(sources: Iterable[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for source in sources for name in source))
