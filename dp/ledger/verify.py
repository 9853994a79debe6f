"""What an auditor asks of a ledger: that it is whole, and that its numbers follow from its facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from dp.accountants.schedule import scheduled
from dp.events import Release
from dp.filter import Kind, PrivacyCost
from dp.ledger.entries import Chargeable, Steps, from_facts, parse, survivors_digest, unsigned
from dp.ledger.state import LedgerState, Row, replay
from dp.secure_sum import SecureSum
from dp.verify_ledger import Book, Sum, Window
from dp.window_filter import WindowFilter
from secagg.crypto import labels
from secagg.crypto.keys import verify as verify_signature
from secagg.errors import MissingExtraError, PeerError, SecAggError

_ROUNDING, _RELATIVE = 3, 10**9
"""By how much divergences may differ from one machine to another: by ``_ROUNDING`` multiples of 10^-12 for each step,
and by one part in ``_RELATIVE``."""
_DISTRIBUTION = 10**4
"""By one part in so many the epsilon of a schedule with sampling may differ."""


def verify(
    rows: Sequence[Row],
    key: bytes | None = None,
    head: bytes | None = None,
    also: Callable[[SecureSum], None] = lambda what: None,
) -> LedgerState:
    """Check a ledger and return its state; ``PeerError`` says what is wrong.

    Without ``key`` and ``head`` it is only checked whether the ledger agrees with itself.

    ``also`` is called with every secure sum, for checks that need to know what a plan is.
    """
    state = replay(rows, key, head)
    kind = state.genesis.budget.kind
    for number, (body, _signature) in enumerate(rows):
        entry = parse(body)
        if "cost" not in entry or (kind is Kind.SCHEDULE and entry["phase"] == "commit"):
            continue  # what is said of a schedule later costs what was reserved, which was compared
        what = from_facts(entry)
        try:
            computed = state.cost_of(what)
            if isinstance(what, SecureSum):
                digest = survivors_digest(what)
                for signed in what.signatures:
                    verify_signature(signed.key, signed.signature, labels.SURVIVORS, digest, culprit=signed.name)
                also(what)
        except MissingExtraError:  # says nothing of the ledger
            raise
        except (SecAggError, ArithmeticError) as error:
            raise PeerError(f"entry {number} of the ledger: {error}") from None
        count = what.count if isinstance(what, Steps) else 1
        charged = PrivacyCost(tuple(entry["cost"]), entry["samples"])
        if not (charged == computed if _exact(what, kind) else _close(computed, charged, kind, count)):
            raise PeerError(f"entry {number} of the ledger charges something else than it costs")
    return state


def book(state: LedgerState) -> Book:
    """What the entries amount to, for the statement whose words the stand-alone auditor has, too."""
    genesis, happened = state.genesis, [one.happened for one in state.records.values() if one.happened is not None]
    planned = [one.reserved for one in state.records.values()]
    return Book(
        run=genesis.run,
        elsewhere=genesis.elsewhere,
        data=genesis.data.hex(),
        unit=genesis.guarantee.unit.value,
        relation=genesis.guarantee.relation.value,
        trust=genesis.guarantee.trust.value,
        holder=genesis.guarantee.holder.value,
        owner=genesis.owner.hex(),
        kind=genesis.budget.kind.value,
        budget=genesis.budget.epsilon,
        delta=genesis.budget.delta,
        reached=state.filter.reached,
        sums=[
            Sum(
                one.survivors,
                one.planned,
                frozenset(signed.key.hex() for signed in one.signatures),
            )
            for one in happened
            if isinstance(one, SecureSum)
        ],
        steps=[one.count for one in happened if isinstance(one, Steps)],
        reserved=len(state.records) - len(happened),
        aborted=state.aborted,
        colluders=min((one.noise.colluders for one in planned if isinstance(one, SecureSum)), default=None),
        overlap=min((one.overlap for one in planned if isinstance(one, SecureSum)), default=1),
        sampled=min((one.sampled for one in planned if isinstance(one, SecureSum)), default=Fraction(1)),
        entries=len(state.heads),
        head=state.head.hex(),
        turns=None if (turns := genesis.turns) is None else (turns.size, len(turns.names)),
        arrivals=None if (arrivals := genesis.arrivals) is None else (arrivals.size, len(arrivals.names)),
        window=_window(state),
    )


def _window(state: LedgerState) -> Window | None:
    if (window := state.genesis.window) is None or not isinstance(spent := state.filter, WindowFilter):
        return None
    free = [one.time + window.span for one in spent.recent if any(one.cost.amounts)]
    reached = spent.reached_at(spent.latest) or 0
    return Window(window.length, window.kept, spent.latest, reached, (*free[:1], *free[-1:]))


def compare(ledger: LedgerState, other: LedgerState) -> int:
    """How many committed sums of ``other`` are in this one, too; ``PeerError`` if they cannot both be true, or if
    ``other`` is a later copy of this one.

    ``other`` is a copy of this ledger, or kept by a client. With nothing in common, nothing was compared.
    """
    if copies(ledger, other):
        if any(ours != theirs for ours, theirs in zip(ledger.heads, other.heads, strict=False)):
            raise PeerError("a fork: the two ledgers begin alike and then differ")
        if (later := len(other.heads) - len(ledger.heads)) > 0:
            raise PeerError(f"this is an older copy of the other ledger, which has {later} more entries")
    common = 0
    for name, theirs in other.records.items():
        if not isinstance(theirs.happened, SecureSum):
            continue
        ours = ledger.records.get(name)
        if ours is None or ours.happened is None:
            raise PeerError(f"release {name} is committed in the other ledger and not in this one")
        if unsigned(ours.happened) != unsigned(theirs.happened):
            raise PeerError(f"a fork: release {name} has other facts in the other ledger")
        kinds = ledger.genesis.budget.kind, other.genesis.budget.kind
        same = ledger.genesis.guarantee == other.genesis.guarantee and kinds[0] is kinds[1]
        if same and not _close(ours.cost, theirs.cost, kinds[0]):
            raise PeerError(f"release {name} is charged otherwise in the other ledger")
        common += 1
    return common


def copies(ledger: LedgerState, other: LedgerState) -> bool:
    """Whether both begin with the same entry."""
    return ledger.heads[0] == other.heads[0]


def _exact(what: Chargeable, kind: Kind) -> bool:
    """Whether costs are the same on every machine."""
    if kind is not Kind.SCHEDULE:
        return kind is Kind.GDP
    return isinstance(what, Steps) and isinstance(what.event, Release) and scheduled(what.event)[1] == 1


def _close(a: PrivacyCost, b: PrivacyCost, kind: Kind, count: int = 1) -> bool:
    """Whether two costs are the same: exactly, or divergences but for rounding. Each of ``count`` equal steps was
    rounded up by itself."""
    if kind is Kind.GDP:
        return a == b
    if kind is Kind.SCHEDULE:
        (x,), (y,) = a.amounts, b.amounts
        return a.samples == b.samples and x is not None and y is not None and abs(x - y) * _DISTRIBUTION <= x
    return a.samples == b.samples and all(
        x == y or (x is not None and y is not None and (abs(x - y) - _ROUNDING * count) * _RELATIVE <= x)
        for x, y in zip(a.amounts, b.amounts, strict=True)
    )
