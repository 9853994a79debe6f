"""What a report opens with: what was promised to whom, against whom as configured, how good it is, what is outside.

Of privacy it says what the verified ledgers say. Where only the record knows something it says so, and it never says
of a protocol what that could do with other parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from math import ceil, exp

from dp.verify_ledger import upwards
from recsys.report import words
from recsys.report.account import Account, Spent
from recsys.report.markup import Group, Html, join, table, tag
from recsys.report.numbers import count, delta, metric, plain
from recsys.report.terms import linked
from recsys.report.words import sentence
from recsys.run_record import Quality
from recsys.sentences import POPULAR, feared, protected, share_of
from secagg.assumptions import Adversary

QUESTION = {
    "add-or-remove": "whether one {} was there or not",
    "replace-one": "which of two possible {}s was there",
    "zero-out": "whether what one {} contributed was there, or zeros",
}
OF_WINDOWS = {
    "replace-one": "which of two possible sets of events it was",
    "zero-out": "whether what the person contributed to sums which may hold one of these events was there, or zeros",
}
UNITS = {"example": "interaction"}
SERVERS = {
    Adversary.CURIOUS: "a server that follows the protocol and looks at all it sees",
    Adversary.ACTIVE: "a server that lies",
}
NOTHING = (
    "No differential privacy was promised to anybody. Each single update is hidden in a secure sum, and nothing limits "
    "what the sums and the model say about a user."
)
_SAMPLED = re.compile(r"(.+) of ([0-9]{1,6})")
"""A metric for which the held-out item is ranked among so many."""
_LARGEST = 700
"""Beyond, e to the power of it is no floating-point number."""


def verdict(account: Account) -> Html:
    guarantee = "the guarantee" if account.spent else "any guarantee"
    parts = [
        ("What was promised, and to whom", promised(account)),
        ("Against whom it holds, as this run was configured", against(account)),
        ("How good the model is", quality(account)),
        (f"What left outside of {guarantee}", outside(account)),
    ]
    shown = (tag("div", tag("h3", title), *content) for title, content in parts)
    return join([*_differ(account), tag("div", *shown, class_="parts")])


def _differ(account: Account) -> Iterator[Html]:
    if account.differences:
        yield tag("p", "Record and ledger differ, so do not rely on this page:", class_="warning")
        yield tag("ul", *(tag("li", sentence(each)) for each in account.differences))


# What was promised


def promised(account: Account) -> list[Html]:
    if not account.spent:
        return [tag("p", linked(NOTHING))]
    return [join([tag("p", linked(promise(spent))), tag("p", linked(spending(spent)))]) for spent in account.spent]


def promise(spent: Spent) -> str:
    given = spent.promise
    return f"To {protected(given.unit, given.within)}, with {given.trust} noise: {given.words}."


def spending(spent: Spent) -> str:
    """What has been spent of it, and what that number means."""
    given = spent.promise
    unit = UNITS.get(given.unit, given.unit)
    whom, question = f"a {unit}", QUESTION[given.relation].format(unit)
    if given.within is not None:
        whom, question = protected(given.unit, given.within), OF_WINDOWS[given.relation]
    if spent.epsilon > _LARGEST:
        return f"What has been spent has no bound: nothing is promised to {whom} any more."
    whose = "by all runs that share the ledger" if spent.shared else "so far"
    whose += "" if given.within is None else ", at the most that any such events are charged"
    return (
        f"Spent {whose}: epsilon {upwards(Fraction(spent.epsilon), 4)} at delta {delta(given.delta)}. e^epsilon is "
        f"{likelihood(spent.epsilon)}: who sees all that is charged, knows everything else, and has even odds on "
        f"{question}, will be right with a probability of at most "
        f"{certainty(spent.epsilon)} (50.00% is a coin), but for a failure of probability {delta(given.delta)}."
    )


def likelihood(spent: float) -> str:
    """e to the power of epsilon, rounded up.

    >>> likelihood(0), likelihood(1), likelihood(7.77), likelihood(100), likelihood(float("inf"))
    ('1', '2.72', '2,369', '2.8e+43', 'without bound')
    """
    if spent > _LARGEST:
        return "without bound"
    ratio = exp(spent)
    if ratio < 10:
        return f"{ceil(ratio * 100) / 100:g}"
    return count(ceil(ratio)) if ratio < 1e7 else f"{ratio * 1.05:.1e}"


def certainty(spent: float) -> str:
    """How sure one can become whose odds were even, rounded up.

    >>> certainty(0), certainty(1), certainty(7.77), certainty(100)
    ('50.00%', '73.11%', '99.96%', '100.00%')
    """
    return f"{ceil(1e4 / (1 + exp(-min(spent, _LARGEST)))) / 100:.2f}%"


# Against whom


def against(account: Account) -> list[Html]:
    trusts = {spent.promise.trust for spent in account.spent}
    said = [tag("p", linked(each)) for each in configured(account)]
    if "distributed" in trusts:
        text = "The promise about sums rests on that: an update by itself holds only a share of the noise."
        said.append(tag("p", linked(text)))
    if "local" in trusts:
        text = (
            "The promise with local noise does not rest on that: it holds whatever the server does, as long as each "
            "client adds its noise."
        )
        said.append(tag("p", linked(text)))
    if not trusts:
        said.append(tag("p", "That alone hides what a client sent, and it is no promise about what sums tell."))
    return said


def configured(account: Account) -> Iterator[str]:
    """Against whom the secure sums of this run hold, with its parameters."""
    name, agreed = account.protocol.name, account.agreed
    adversary, share = feared(name, agreed)
    if name == "ckks":
        yield (
            "Single updates are hidden from a server that follows the protocol and works together with nobody: with "
            "the help of one holder of the key, or by lying, it can open them. The protocol has no parameters against "
            "more."
        )
    elif name in words.CURIOUS:
        yield (
            "Single updates are hidden from a server that follows the protocol, also if fewer clients than the "
            "threshold tell it all they know. A server that lies can have them opened: the protocol has no parameters "
            "against that."
        )
    elif adversary is None or not share:
        yield f"Against whom the parameters of {name} were chosen, the record does not say."
    else:
        yield f"Single updates are hidden from {SERVERS[adversary]}, with {share} on its side, says the record."
        if adversary is Adversary.CURIOUS:
            yield f"A server that lies was not counted in: {name} can be, with other parameters than those of this run."
    silent, least = share_of(agreed, "dropout"), account.least
    parts = [f"{silent} may fall silent"] if silent else []
    if least is not None:
        parts.append(f"at least {count(least)} clients are in each sum, by the signed plans")
    elif "min_contributors" in agreed:
        parts.append(f"at least {plain(agreed['min_contributors'])} clients are in each sum, says the record")
    if parts:
        yield sentence(" and ".join(parts))


# How good


def quality(account: Account) -> list[Html]:
    own, name = account.own, account.metric
    if own is None or name is None or name not in own.metrics:
        return [tag("p", linked(f"How good it is in the end was not measured exactly.{words.last_measured(account)}"))]
    said = [_compared(account, own, name, "In full ranking")]
    for sampled in own.metrics:
        if (found := _SAMPLED.fullmatch(sampled)) and found[1] == name:
            said.append(_compared(account, own, sampled, f"Against {int(found[2]) - 1} negatives", name))
    if len(said) == 1:
        said.append("Against 99 negatives it was not measured.")
    shown = [*account.references, own]
    names = list(dict.fromkeys(metric for result in shown for metric in result.metrics))
    groups: dict[str, list[str]] = {}
    for each in names:
        found = _SAMPLED.fullmatch(each)
        groups.setdefault(f"against {int(found[2]) - 1} negatives" if found else "full ranking", []).append(each)
    columns = [each for inside in groups.values() for each in inside]
    rows = [[result.name, *(metric(result.metrics.get(each)) for each in columns)] for result in shown]
    headed = [Group(title, [_plain(each) for each in inside]) for title, inside in groups.items()]
    return [
        *(tag("p", linked(each)) for each in said),
        table("Quality beside the references", [Group("", ["model"]), *headed], rows),
    ]


def _plain(name: str) -> str:
    found = _SAMPLED.fullmatch(name)
    return found[1] if found else name


def _compared(account: Account, own: Quality, name: str, where: str, shown: str = "") -> str:
    value = own.metrics[name]
    known = {other.name: other.metrics[name] for other in account.references if other.metrics.get(name)}
    popular = known.pop(POPULAR, None)
    best = max(known, key=lambda other: known[other], default=None)
    said = []
    if popular is not None:
        said.append(f"{value / popular:.2f} times that of “{POPULAR}” ({metric(popular)})")
    if best is not None:
        times = f"{value / known[best]:.2f} times"
        said.append(f"{times} the best without privacy, that of “{best}” ({metric(known[best])})")
    return f"{where} {shown or name} is {metric(value)}" + (f": {', and '.join(said)}." if said else ".")


# What left


def outside(account: Account) -> list[Html]:
    left, never = words.left(account), words.never_promised(account)
    more = tag(
        "details", tag("summary", "What no such guarantee covers"), tag("ul", *(tag("li", one) for one in never))
    )
    return [tag("ul", *(tag("li", linked(one)) for one in left)), more]
