"""What a run says of its guarantee, in words: each sentence is derived from what the run does.

Records, ledgers and reports print these, and none of their own about the same facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING

from dp.arrivals import Arrivals
from dp.events import Guarantee, Holder, Trust, Unit
from dp.filter import Budget
from dp.ledger import Ledger
from dp.noise import NoiseSpec
from dp.secure_sum import LONGEST_TEXT
from dp.turns import Turns
from dp.verify_ledger import upwards, within
from dp.windows import Window
from protocols.parameters import AUTO, rules_of
from recsys.config import ClientKind, Config, Mode, Source, Spread
from recsys.other_runs import KnownRun
from recsys.run_record import FILE, UNKNOWN, Spending
from secagg.assumptions import MAX_CLIENTS, Adversary, fraction
from secagg.errors import UsageError

if TYPE_CHECKING:
    from recsys.assembly import Prepared

USERS = "users.csv"
SHARING = "runs that share this ledger"
"""What the ledger of more than one run says that it is for."""
SHARED = (
    "what each run computed outside of this budget, what it took as public, and which others it knew of, is in its own "
    "record"
)
"""Where the budget is that of several runs, or there is no room for more."""

_NAMED = 3
"""How many other runs are named in a sentence."""

POPULAR, WITHOUT_NOISE, PLAIN = "ItemPop", "this recipe without noise", "plain federated training"
CENTRAL = "trained in one place"
CLOSED = NEAREST, EASE, TUNED = "ItemKNN", "EASE", "tuned EASE"
FROZEN_MODEL = ", frozen"
"""After the name of a metric: that of the model that is not trained on."""
OWN, START = "this run", "its shared start"
"""References, as results call them; the run's own model, and what of it somebody starts with who has no head yet."""

UNMEASURED = "nothing: clients send no measured values"
EXACT = "exact, and known as a sum over clients only"
NOISED = "part of the noised sum, and charged with it"


def described(config: Config) -> str:
    """What a run is about, in one line.

    >>> described(Config.parse({"privacy": {"mode": "both"}}))
    '2,000 made-up users in 20 silos, autoencoder, local and distributed noise, epsilon 8 each, secagg+'
    >>> described(Config.parse({"clients": {"kind": "devices"}, "privacy": {"mode": "none"}}))
    '2,000 made-up users on their devices, autoencoder, no noise, secagg+'
    """
    data, clients, epsilon = config.data, config.clients, f"epsilon {config.privacy.epsilon:g}"
    users = {
        Source.SYNTHETIC: f"{data.users:,} made-up users",
        Source.MOVIELENS: "users of MovieLens",
        Source.TABLE: "users of a table",
        Source.SPLIT: "users of three tables",
        Source.STREAM: "made-up people of a stream" if config.made_up else "people of a stream",
    }
    where = "on their devices"
    if clients.kind is ClientKind.SILOS:
        where = "in the silos of a file" if clients.spread is Spread.COLUMN else f"in {clients.count:,} silos"
    noise = {
        Mode.NONE: "no noise",
        Mode.LOCAL: f"local noise, {epsilon}",
        Mode.DISTRIBUTED: f"distributed noise, {epsilon}",
        Mode.BOTH: f"local and distributed noise, {epsilon} each",
    }
    protocol = "a chosen protocol" if config.protocol.name == AUTO else config.protocol.name
    parts = (f"{users[data.source]} {where}", config.model.name, noise[config.privacy.mode], protocol)
    return ", ".join(parts)


def feared(protocol: str, agreed: Mapping[str, object]) -> tuple[Adversary | None, str]:
    """The server that a run's parameters were chosen against, and how many clients may be on its side, by the record.

    Never a stronger server than the protocol holds against, whatever the record calls it; None and "" if it does not
    say.

    >>> feared("secagg+", {"adversary": "active", "corrupt": "0.05", "clients": 20})
    (<Adversary.ACTIVE: 'active'>, 'up to 1 of the 20 clients')
    >>> feared("ckks", {"adversary": "active"})
    (<Adversary.CURIOUS: 'curious'>, '')
    """
    if rules_of(protocol).against is Adversary.CURIOUS:
        return Adversary.CURIOUS, share_of(agreed, "corrupt")
    said = str(agreed.get("adversary"))
    return next((each for each in Adversary if each.value == said), None), share_of(agreed, "corrupt")


def share_of(agreed: Mapping[str, object], name: str) -> str:
    """A share of the clients that a record says, as the whole number that parameters are chosen for; empty if it says
    none.

    >>> share_of({"corrupt": "0.05", "clients": 6}, "corrupt"), share_of({"corrupt": "1/3"}, "corrupt")
    ('none of the 6 clients', 'up to 33.3% of the clients')
    """
    try:
        share = fraction(str(agreed.get(name)))
    except UsageError:
        return ""
    clients = agreed.get("clients")
    if type(clients) is not int or not 0 < clients <= MAX_CLIENTS:
        return f"up to {float(share * 100):.3g}% of the clients"
    return f"{f'up to {number:,}' if (number := floor(share * clients)) else 'none'} of the {clients:,} clients"


def measured_under(prepared: Prepared) -> str:
    """What protects the values that clients measure and send."""
    if not (prepared.in_rounds and prepared.recipe.measured):
        return UNMEASURED
    return EXACT if prepared.distributed is None else NOISED


def protected(unit: str, seconds: int | None = None) -> str:
    """Whom a guarantee is for. That of a window is never said to be for a user: for all that one does it promises
    nothing.

    >>> protected("user"), protected("example"), protected("user-window", 7 * 86_400)
    ('each user', 'each interaction', 'all events of one person within 7 days')
    """
    if seconds is not None:
        return within(seconds)
    return "each interaction" if unit == Unit.EXAMPLE else f"each {unit}"


def spending(prepared: Prepared, mode: Mode, ledger: Ledger) -> Spending:
    """The promise that a ledger keeps."""
    distributed = prepared.distributed if mode is Mode.DISTRIBUTED else None
    noise, overlap = None if distributed is None else distributed.found.noise, 1
    sampled = Fraction(1) if distributed is None else distributed.found.encoding.sampled
    if prepared.silos is not None:
        overlap = prepared.silos.overlap
    part = prepared.config.privacy.epsilon if ledger.shared else None
    planned = prepared.planned_clients
    return promise(
        ledger.path,
        ledger.shared,
        ledger.guarantee,
        ledger.budget,
        noise,
        planned,
        overlap,
        part,
        of_each=ledger.of_each,
        window=ledger.window,
        sampled=sampled,
    )


def promise(
    path: Path,
    shared: bool,
    guarantee: Guarantee,
    budget: Budget,
    noise: NoiseSpec | None,
    planned: int | None,
    overlap: int = 1,
    part: float | None = None,
    of_each: Turns | Arrivals | None = None,
    window: Window | None = None,
    sampled: Fraction = Fraction(1),
) -> Spending:
    """What a ledger promises. ``noise`` of its sums: None where it has none yet, or is about what clients do by
    themselves; over ``planned`` clients: None where sums differ in that, or in how many may be missing. One person's
    data may be in ``overlap`` silos. ``of_each``: who is charged for which sum, if not all clients for all. ``window``:
    what the unit is. Users are ``sampled`` with that probability at the least."""
    seconds = None if window is None else window.length
    whom = protected(guarantee.unit, seconds)
    private = f"({float(budget.epsilon):g}, {float(upwards(budget.delta, 3)):.3g})-private"
    whose = "all runs that share this ledger" if shared else "all rounds"
    if isinstance(of_each, Turns):
        whose += f", in each of which the next {of_each.size} of {len(of_each.names):,} clients have their turn,"
    elif of_each is not None:
        whose += f", in each of which {of_each.size} of {len(of_each.names):,} clients are that were ready,"
    colluders = 0 if noise is None else noise.colluders
    if guarantee.trust is Trust.DISTRIBUTED:
        inside = guarantee.holder is Holder.SILO
        where = "a silo" if overlap == 1 else f"up to {overlap} silos"
        whom += f" inside {where}" if inside else ""
        words = f"the sums of {whose} together are {private} for {whom}, against {_against(colluders, inside)}"
        if noise is not None:
            allowed = f"at most {noise.dropouts} of {planned}" if planned else "no more than its plan allows for"
            words += f", while {allowed} are missing from a sum"
        if isinstance(of_each, Turns):
            words += "; a turn that is missed is charged, and lost"
        elif of_each is not None:
            words += "; when a client was ready, and from which version it trained, is public"
        if inside:
            own = "user's" if window is None else "person's"
            words += f"; the {own} own {'silo sees its data' if overlap == 1 else 'silos see their data'}"
            if sampled < 1:
                words += f", and the coin by which it is in a sum with a probability of {float(sampled):g}"
    else:
        whom += " of its own" if window is None else ""
        words = (
            f"what each client sends in {whose} together is {private} for {whom}, against everybody else; the client "
            "sees its data"
        )
    if window is not None:
        words += "; nothing is promised for all that a person does"
    return Spending(
        ledger=str(path) if shared else path.name,
        unit=guarantee.unit.value,
        relation=guarantee.relation.value,
        trust=guarantee.trust.value,
        epsilon=float(budget.epsilon),
        delta=float(budget.delta),
        colluders=colluders,
        words=words,
        key=str(path.with_suffix(".pub")) if shared else "ledger.pub",
        part=part,
        holder=guarantee.holder.value,
        within=seconds,
    )


def _against(colluders: int, inside: bool) -> str:
    """Against whom noise inside sums protects. ``inside``: users of a silo, which is not among the colluders."""
    if inside:
        others = f" with up to {colluders} other {'silo' if colluders == 1 else 'silos'}" if colluders else ""
        return f"the server{others}, and against everybody who sees the model"
    if not colluders:
        return "the server, not a client, which knows its own noise"
    return f"the server and up to {colluders} colluding {'client' if colluders == 1 else 'clients'}"


def outside(prepared: Prepared) -> tuple[str, ...]:
    """What is computed from users' data and charged to nobody, as far as this run does it."""
    config, found = prepared.config, []
    if config.measured_exactly and config.streamed:
        found.append(f"exact quality of the run's models, by the new events of everybody, is in {FILE} and the report")
    elif config.measured_exactly:
        found.append(
            "exact quality of the run's model and of references without privacy, over all users' test events, is in "
            f"{FILE} and the report"
        )
    if config.evaluation.users:
        found.append(
            f"private/{USERS} holds each user's id and the exact rank of its held-out item: with the model and the "
            "rest of a history it says which item that was"
        )
    if measured_under(prepared) == EXACT:
        found.append("what clients measure in a round is known exactly, as a sum over clients")
    return tuple(found)


def elsewhere(prepared: Prepared, beside: Sequence[KnownRun] = ()) -> str:
    """The same, for a ledger, with what is taken as public and what is known of other runs."""
    first = "; ".join(outside(prepared) or ("this run charges all that leaves it",))
    public = f". Taken as public: {'; '.join(prepared.taken_as_public)}"
    texts = (f"{first}; {known_others(beside, named=named)}{public}" for named in range(_NAMED, -1, -1))
    return next((text for text in texts if len(text) <= LONGEST_TEXT), SHARED)


def known_others(beside: Sequence[KnownRun], sharing: int = 0, named: int = _NAMED) -> str:
    """``beside``: with budgets of their own; ``sharing``: so many others are charged to the same ledger."""
    parts = []
    if sharing:
        parts.append(f"{sharing} other {'run is' if sharing == 1 else 'runs are'} charged to the same ledger")
    if beside:
        shown = [f"{one.name[:16]} ({one.promise})" for one in beside[:named]]
        shown += [f"{len(beside) - named} more"] if len(beside) > named else []
        listed = ", ".join(shown)
        parts.append(f"other runs on these data with budgets of their own, whose cost comes on top: {listed}")
    return "; ".join((*parts, "further runs on these data: not known here")) if parts else UNKNOWN


def promised(ledgers: Iterable[Ledger]) -> str:
    """What a run may cost a user, for the list of runs."""
    found = [
        f"epsilon {float(ledger.budget.epsilon):g} {_per(ledger)}, {ledger.guarantee.trust} noise" for ledger in ledgers
    ]
    return " and ".join(found) or "without privacy"


def _per(ledger: Ledger) -> str:
    return f"per {ledger.guarantee.unit}" if ledger.window is None else f"for {ledger.window.words}"


def refusal(beside: Sequence[KnownRun]) -> str:
    where = ", ".join(f"{one.folder} ({one.promise})" for one in beside[:_NAMED])
    number = "1 other run is" if len(beside) == 1 else f"{len(beside)} other runs are"
    return (
        f"{number} known on the same data: {where}. What runs cost adds up: let them share a budget (privacy.ledger) "
        "or begin beside them (privacy.beside = true). If only users' ids are the same, name the data (privacy.data)"
    )
