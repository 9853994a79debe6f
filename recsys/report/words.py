"""What happened, and what it means, in sentences: the course of a run, trust, who could see what, what is not promised.

Facts about protocols are those of ``protocols.registry``; the sentences on trust are short forms of
docs/threat_model.md and docs/privacy.md, and must stay true to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dp.filter import Kind
from dp.verify_ledger import RELATION_OF_WINDOWS
from protocols.parameters import PACKAGES, rules_of
from recsys.report.account import Account, Spent
from recsys.report.markup import Html, join, tag
from recsys.report.numbers import count, delta, epsilon, metric, plain
from recsys.run_record import Run
from recsys.sentences import protected
from secagg.assumptions import Adversary

NOISE = {
    "local": "each client adds noise by itself, while it trains, before anything leaves it",
    "distributed": "clients add shares of noise that only the sum holds in full, and only the sum is seen",
}
NEIGHBOURS = {
    "add-or-remove": "one {} more or less",
    "replace-one": "one {} exchanged for another",
    "zero-out": "one {} whose contribution becomes zero, while it stays known that it took part",
}
CURIOUS = tuple(name for name in PACKAGES if rules_of(name).against is Adversary.CURIOUS)
"""Protocols that encrypt, and hold against a server that follows them, whatever their parameters are."""

ADVERSARIES = {
    "curious": "a server that follows the protocol, and looks at all it sees",
    "active": "a server that lies to everybody, together with a fraction of the clients",
}


def clients(account: Account) -> str:
    """What the clients of this run are."""
    data = account.run.data
    if "users" not in data or "clients" not in data:
        return "clients"
    return "devices" if data["clients"] == data["users"] and "declared" not in data else "silos"


def course(account: Account) -> Html:
    """What was done, in one paragraph."""
    return tag("p", join(_sentences(account), " "))


def _sentences(account: Account) -> Iterator[str]:
    run, data, who = account.run, account.run.data, clients(account)
    said = {"users": "declared users"} if "declared" in data else {}
    numbers = {name: size for name, size in data.items() if type(size) is int and name != "clients"}
    sizes = [f"{count(size)} {said.get(name, name)}" for name, size in numbers.items()]
    number = f"{count(data['clients'])} {who}" if type(data.get("clients")) is int else who.capitalize()
    source = [str(data["source"])] if "source" in data else []
    yield f"{number} trained one recommender together" + (f" ({', '.join(source + sizes)})." if source + sizes else ".")
    yield _rounds(account) if account.rounds else "No secure sum is done yet."
    if "caution" in data:
        yield f"Mind that {data['caution']}."
    yield f"Why it ended: {run.ended}." if run.ended else "It has not ended: this is how far it has come."


def _rounds(account: Account) -> str:
    rounds = account.rounds
    purposes = Counter(entry.purpose for entry in rounds)
    kinds = ", ".join(f"{number} {purpose}" if len(purposes) > 1 else purpose for purpose, number in purposes.items())
    survived = [entry.survivors for entry in rounds]
    least, most = min(survived), max(survived)
    planned = sorted(entry.planned for entry in rounds)
    between, of = _span(least, most), _span(planned[0], planned[-1])
    sums = "1 secure sum" if len(rounds) == 1 else f"{len(rounds)} secure sums"
    lost = len(account.run.rounds) - len(rounds)
    given_up = f" {lost} more had to be given up." if lost else ""
    return f"It took {sums} ({kinds}) with {account.protocol.name}; {between} of {of} clients survived.{given_up}"


def _span(least: int, most: int) -> str:
    return f"{count(least)} to {count(most)}" if least < most else count(most)


def last_measured(account: Account) -> str:
    """What clients said of it, as far as that got."""
    name = account.metric
    by_events = [one.exact[name] for one in account.run.rounds if name in one.exact] if name else []
    if account.streamed and by_events:
        return f" By the new events of a stream, {name} was {metric(by_events[-1])} before the last sum that had any."
    known = [point for point in account.measured if name in point.values]
    if name is None or not known:
        return ""
    last = known[-1]
    rounds = "1 round" if last.rounds == 1 else f"{last.rounds} rounds"
    return f" After {rounds} clients measured {name} {metric(last.values[name])} ({account.run.measured_under})."


def sentence(words: str) -> str:
    """
    >>> sentence("the sum of all")
    'The sum of all.'
    """
    return f"{words[:1].upper()}{words[1:].removesuffix('.')}."


def promise(spent: Spent) -> str:
    """One guarantee, word by word."""
    given = spent.promise
    neighbours = NEIGHBOURS[given.relation].format(given.unit)
    if given.within is not None:
        neighbours = f"{protected(given.unit, given.within)}, with {RELATION_OF_WINDOWS[given.relation]}"
    said = (
        f"That means: two worlds that differ in {neighbours}, look alike to whoever sees all that this ledger charges "
        "and knows everything else, up to a likelihood ratio of e to the power of epsilon, and but for a failure of "
        f"probability {delta(given.delta)}. For that, {NOISE[given.trust]}."
    )
    if spent.state.genesis.budget.kind is Kind.SCHEDULE:
        said += (
            " All steps of training were reserved as a whole before the first one: what is spent is the same from the "
            "first round on, and stopping early would have given nothing back."
        )
    return f"{sentence(given.words)} {said}" if given.words else said


def _colluders(number: int) -> str:
    if not number:
        return "That holds as long as no client works together with the server."
    some = f"up to {count(number)} clients work" if number > 1 else "one client works"
    return f"That holds even if {some} together with the server."


def believed(account: Account) -> Html:
    """On whose word this page is, and where record and ledger are not of one mind."""
    if not account.spent:
        return tag("p", "All of this is said by the record of the run, which nobody but the run's own key has signed.")
    said = (
        "What is promised and spent, and of how many clients, is computed here from the ledger, which its owner has "
        "signed, and the survivors of each sum. Who the owner is, shows the key (see below). Everything else, such as "
        "quality, times, and who the clients are, is said by the record of the run."
    )
    return tag("p", said)


# Whom one trusts


def trusted(account: Account) -> list[tuple[str, str]]:
    """Party, and what it is trusted with."""
    noise = [spent.promise for spent in account.spent if spent.promise.trust == "distributed"]
    rows: list[tuple[str, str]] = []
    if account.protocol.name == "threshold_ckks":
        rows += [
            (
                "The server",
                "Following the protocol: one that lies can have clients decrypt what it made up.",
            ),
            ("Clients, with their part of the key", "Fewer than the threshold working together with the server."),
        ]
    elif account.protocol.name == "ckks":
        rows += [
            (
                "The server",
                "Following the protocol: together with one holder of the key it can open every update.",
            ),
            ("Holders of the key", "Not working together with the server; a minority that lies is outvoted."),
        ]
    else:
        rows += [("The server", "No update, and no key. It can stop a round, as can whoever controls the network.")]
    rows += [("Clients", "Sending what they should: nobody can look into a masked vector.")]
    if noise:
        rows += [
            ("Clients, with noise", f"Adding it: one that does not is not found out. {_spared(noise[0].colluders)}")
        ]
    if any(spent.promise.trust == "local" for spent in account.spent):
        rows += [("Each client, with its own noise", "Adding it while it trains; nobody else can check.")]
    if clients(account) == "silos":
        rows += [("A silo", _of_a_silo(account))]
    rows += [("The roster", "Holding the right identity keys."), ("One's own machine", "Everything on it.")]
    return rows


def _of_a_silo(account: Account) -> str:
    before = "The data of its own users, as before."
    if not any(spent.promise.holder == "silo" for spent in account.spent):
        return before
    sampled = any(plan.encoding.sampled < 1 for spent in account.spent for plan in spent.plans)
    coins = " Tossing a coin for each of them, anew for each sum, and telling nobody how it fell." if sampled else ""
    return f"{before}{coins} Adding up one bounded vector for each of them: nobody else can check."


def _spared(number: int) -> str:
    return f"Up to {count(number)} may leave it out." if number else "All of it is needed."


# Who could see what


def seen(account: Account) -> list[tuple[str, str, str]]:
    """Party, what it could see, and what bounds what it can learn from that."""
    least, signed = account.run.protocol.get("min_contributors"), account.least
    sums = f"There are at least {plain(least)} clients in each sum, says the record. " if least else ""
    if signed is not None:
        sums = f"There are at least {count(signed)} clients in each sum. "
    inside = _inside(account)
    own = {"silos": "The silo itself", "devices": "The device itself", "clients": "The client itself"}[clients(account)]
    data = {"silos": "The whole histories of its users.", "devices": "Its one user's history."}
    ckks, encrypted = account.protocol.name == "ckks", account.protocol.name in CURIOUS
    return [
        (
            "Server",
            f"{sentence(account.protocol.server_learns)} The model. "
            + ("Ciphertexts of single updates, without the key." if encrypted else "Single updates only under masks."),
            f"{sums}{inside}",
        ),
        (
            "Other clients",
            "The model before each round, and so what each sum did to it. Of updates, their own."
            + (" Holders of the key: the sums." if ckks else ""),
            _inside(account, of_a_client=True),
        ),
        (
            "Outsiders",
            "The model, if it is published. On the network: who talks to the server, when, and how much.",
            _outsiders(account),
        ),
        (own, data.get(clients(account), "Its own data."), "Nothing: these data are in its hands anyway."),
    ]


def _inside(account: Account, *, of_a_client: bool = False) -> str:
    parts = []
    for spent in account.spent:
        given = spent.promise
        if of_a_client and given.trust == "distributed" and not given.colluders:
            parts.append("Noise in every sum, but a client knows its own share of it: no epsilon is claimed here.")
            continue
        where = "every sum" if given.trust == "distributed" else "every update"
        whom = f"per {given.unit}" if given.within is None else f"for {protected(given.unit, given.within)}"
        parts.append(f"Noise in {where}: epsilon {epsilon(spent.epsilon)} {whom}.")
        if given.trust == "distributed":
            parts.append(_colluders(given.colluders))
    return " ".join(parts) or "Nothing else: the sums are exact."


def _outsiders(account: Account) -> str:
    if not account.spent:
        return "Nothing: what the model says about a user is not bounded."
    return "The same epsilon as against the server; nothing smaller is claimed."


# What is not promised


def measured(account: Account) -> str:
    """What of the clients' own measurements leaves them, and under what."""
    return f"Measured by clients and sent, under the mask: {account.run.measured_under}."


def left(account: Account) -> list[str]:
    """What was known or handed out in this run, and no epsilon here is about."""
    run, found = account.run, []
    if not account.spent:
        found.append("Everything that the sums and the model say about a user: there is no guarantee in this run.")
    if run.results or account.exact:
        found.append(
            "Exact quality, in the results and after rounds, was measured by whoever runs this and sees all data. It "
            "is for readers of this report: this run used no such value to choose anything. What people did with "
            "earlier runs is not known here. Where nobody sees all data, there is no such measurement."
        )
    found += [f"{sentence(one)}" for one in run.outside]
    if account.measured and not any(spent.promise.trust == "distributed" for spent in account.spent):
        found.append(f"What clients measured in rounds is protected by no more than this: {run.measured_under}.")
    if run.public:
        found.append(f"Taken as public: {'; '.join(run.public)}.")
    for elsewhere in dict.fromkeys(spent.state.genesis.elsewhere for spent in account.spent):
        if not _said(elsewhere, run):
            found.append(f"Charged elsewhere, or not at all, says the ledger: {elsewhere}.")
    found.append(sentence(run.others))
    return found


def _said(elsewhere: str, run: Run) -> bool:
    """Whether all of what a ledger says is in the record, too: then it need not be read twice."""
    for part in sorted((*run.outside, run.others, "; ".join(run.public), "Taken as public"), key=len, reverse=True):
        elsewhere = elsewhere.replace(part, "") if part else elsewhere
    return not any(map(str.isalnum, elsewhere))


def never_promised(account: Account) -> list[str]:
    """What runs of this kind do not hide."""
    found = [
        "Who takes part, who falls silent and when, how long an answer takes, and the size of messages: the server "
        "sees it. How long all of them took together is in the record."
    ]
    if any(one.staleness for one in account.run.rounds):
        found.append(
            "When a client was ready, and from which version of the model it trained: all see it in a sum's plan."
        )
    if any(spent.promise.trust == "distributed" for spent in account.spent):
        found.append("Noise that more clients leave out than are allowed for. A ledger cannot show it either.")
    found.append("Python cannot promise to wipe secrets from memory.")
    return found
