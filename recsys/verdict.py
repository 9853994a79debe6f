"""What came of a run, in one sentence: how good the model is, what that cost each user, and what the server saw.

It says what the record measured and what the ledgers account for, and no more than the parameters of the protocol were
chosen to withstand.
"""

from __future__ import annotations

from math import sqrt

from dp.events import Holder, Trust
from recsys.report.account import METRIC, Account, Spent
from recsys.report.numbers import budget, delta, epsilon
from recsys.report.words import CURIOUS, clients
from recsys.sentences import POPULAR, WITHOUT_NOISE, feared, protected
from secagg.assumptions import Adversary

HITS = "HR@10"
_CLEARLY = 2.0
"""Two shares of the same users are told apart from so many standard deviations on, as if they were of different users:
a record has no values of single users, by which smaller differences could be told."""


def verdict(account: Account) -> str:
    """Quality, cost and what the server saw; nothing of it where record and ledger differ."""
    if account.differences:
        return "record and ledger differ, so nothing is said here: see the report"
    return f"{_quality(account)}; {_cost(account)}; {_seen(account)}"


def _quality(account: Account) -> str:
    own = account.own
    if own is None or HITS not in own.metrics:
        return _last_measured(account)
    hits = own.metrics[HITS]
    found = f"for {hits:.1%} of the users the held-out item is among the first ten"
    known = {one.name: one.metrics[HITS] for one in account.references if HITS in one.metrics}
    popular = known.pop(POPULAR, None)
    best = max(known, key=lambda name: known[name], default=None)
    distance = ""
    if best is not None:
        distance = f"{ratio(hits, known[best])} the best without privacy ({best}, {known[best]:.1%})"
    if popular is None:
        return f"{found}, {distance}" if distance else found
    beside = f"{found}, {compared(hits, popular, _users(account))} the most popular items ({popular:.1%})"
    return f"{beside} and {distance}" if distance else beside


def price(account: Account, *others: Account) -> str:
    """What privacy cost in quality, in one sentence; ``others`` are private runs of other kinds on the same users."""
    if (quality := _quality_of(account)) is None:
        return "not measured"
    known = {one.name: one.metrics[METRIC] for one in account.references if METRIC in one.metrics}
    popular, same = known.pop(POPULAR, None), known.get(WITHOUT_NOISE)
    best = max(known, key=lambda name: known[name], default=WITHOUT_NOISE)
    parts = [f"{_private(account)} has an {METRIC} of {quality:.4f}"]
    if same is not None:
        parts.append(f"the same recipe without noise {same:.4f} ({ratio(quality, same)} that)")
    if best != WITHOUT_NOISE:
        parts.append(f"the best without privacy, {best}, {known[best]:.4f} ({ratio(quality, known[best])} that)")
    if popular is not None:
        parts.append(f"the most popular items {popular:.4f}")
    parts += [f"{_private(one)} {found:.4f}" for one in others if (found := _quality_of(one)) is not None]
    return "; ".join(parts)


def _private(account: Account) -> str:
    return f"{account.run.config['model']['name']} at epsilon {epsilon(account.epsilon)}"


def _quality_of(account: Account) -> float | None:
    return None if account.own is None else account.own.metrics.get(METRIC)


def ratio(share: float, other: float) -> str:
    """How many times another share one is.

    >>> ratio(0.071, 0.088), ratio(0.1, 0.0)
    ('0.81 times', 'beyond')
    """
    return f"{share / other:.2f} times" if other else "beyond" if share else "equal to"


def compared(share: float, other: float, users: int) -> str:
    """How one share of so many users compares with another.

    >>> compared(0.20, 0.15, 4000), compared(0.16, 0.15, 4000), compared(0.15, 0.15, 4000), compared(0.10, 0.15, 4000)
    ('better than', 'not clearly better than', 'no better than', 'worse than')
    """
    margin = _CLEARLY * sqrt(max(0.0, share * (1 - share) + other * (1 - other)) / users)
    if share > other:
        return "better than" if share - other > margin else "not clearly better than"
    return "worse than" if other - share > margin else "no better than"


def _users(account: Account) -> int:
    users = account.run.data.get("users")
    return users if type(users) is int and users > 0 else 1


def _last_measured(account: Account) -> str:
    """Where the model is not measured in the end: what new events of a stream said of it before the last sum, or what
    clients said before the last round in which they measured."""
    by_events = [one.exact[HITS] for one in account.run.rounds if HITS in one.exact]
    if account.streamed and by_events:
        return f"by the new events of a stream, {HITS} was {by_events[-1]:.1%} before the last sum that had any"
    last = next((point for point in reversed(account.measured) if HITS in point.values), None)
    if last is None:
        return "how good the model is was not measured"
    rounds = "1 round" if last.rounds == 1 else f"{last.rounds} rounds"
    said = f"after {rounds} clients put {HITS} at {last.values[HITS]:.1%}, {account.run.measured_under}"
    return f"how good the model is was not measured exactly ({said})"


def _cost(account: Account) -> str:
    if not account.spent:
        return "no differential privacy is promised: nothing limits what the sums and the model say about a user"
    return ", and ".join(_spent(account, spent) for spent in account.spent)


def _spent(account: Account, spent: Spent) -> str:
    given = spent.promise
    whose = "all runs that share the ledger have cost" if spent.shared else "the run has cost"
    one = "user" if given.within is None else "person"
    holder = {"silos": "silo", "devices": "device"}.get(clients(account), "client")
    other = "other silo" if given.holder == Holder.SILO else "client"
    helped = {0: "", 1: f" and one {other} with it"}.get(given.colluders, f" and {given.colluders} {other}s with it")
    whom = f"the server{helped}" if given.trust == Trust.DISTRIBUTED else f"everybody but the {one}'s {holder}"
    if given.holder == Holder.SILO:
        whom += f" (the {one}'s own silo sees its data)"
    of = f"{epsilon(spent.epsilon)} of {budget(given.epsilon)}, delta {delta(given.delta)}"
    return f"{whose} {protected(given.unit, given.within)} epsilon {of}, against {whom}"


def _seen(account: Account) -> str:
    rounds, trusts = account.rounds, [spent.promise.trust for spent in account.spent]
    if not rounds:
        return "the server has seen no sum"
    sums = "1 sum" if len(rounds) == 1 else f"{len(rounds)} sums"
    least, most = min(one.survivors for one in rounds), max(one.survivors for one in rounds)
    over = f"over {least:,} {clients(account)}" if least == most else f"over {least:,} to {most:,} {clients(account)}"
    inside = f" with noise in {'it' if len(rounds) == 1 else 'them'}"
    noise = inside if Trust.DISTRIBUTED in trusts else " of noised updates" if trusts else ", exact,"
    return f"{_server(account)} saw {sums}{noise} {over}, and nobody's update alone"


def _server(account: Account) -> str:
    """The server that parameters were chosen against, says the record."""
    name = account.protocol.name
    adversary, share = feared(name, account.agreed)
    if name in CURIOUS:
        helped = "no holder of its key" if name == "ckks" else "fewer clients than its threshold"
        return f"a server that follows the protocol, with the help of {helped},"
    if adversary is None or not share:
        return "the server"
    server = "even a server that lies" if adversary is Adversary.ACTIVE else "a server that follows the protocol"
    return f"{server}, with {share} on its side,"
