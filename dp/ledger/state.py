"""The state that a ledger's entries add up to, and which entry may be next.

Writer and reader share it: the writer prepares an entry, makes it durable and applies it; the reader parses an entry,
prepares it again from its facts, compares byte by byte and applies it. So no reader accepts what the writer may not
write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, TypeAlias

from dp.accountants.rdp import ORDERS
from dp.accountants.schedule import covers
from dp.arrivals import Arrivals
from dp.client_filters import ClientFilters
from dp.events import Event, Guarantee, Relation, Trust, Unit
from dp.filter import RESOLUTION, Budget, Filter, Kind, PrivacyCost
from dp.ledger.entries import (
    ACCOUNTANTS,
    SCHEMA,
    Chargeable,
    Steps,
    canonical,
    check_agreed,
    check_planned,
    cost_of,
    facts,
    from_facts,
    name_of,
    parse,
    picked,
    plain,
    worst,
)
from dp.ledger.heads import SignedHead, note_text
from dp.ledger.proofs import Tree
from dp.secure_sum import SecureSum, check_text
from dp.turns import Turns
from dp.window_filter import WindowFilter
from dp.windows import Window
from secagg.crypto import labels
from secagg.crypto.keys import SigningKey, derive
from secagg.errors import BudgetError, PeerError, SecAggError, UsageError
from secagg.foreign import as_declared

Row: TypeAlias = tuple[bytes, bytes]
"""An entry as it is read: its body, and the owner's signature of the head, which is empty for all entries but the
last."""

_Filter: TypeAlias = Filter | ClientFilters | WindowFilter

START = bytes(32)
"""What stands for the previous head in the first entry."""


@dataclass(frozen=True, slots=True)
class Genesis:
    """The first entry of a ledger: what its budget is for, and who signs.

    ``data`` marks whose data the budget is about and tells nothing about them: a ledger is handed to auditors, and a
    plain hash of events would be an exact statistic of private data, which anybody can test guesses against. So it is
    made with a secret of whoever keeps the ledger (``data_mark``). They can tell whether another run is about the same
    data; to everybody else it is a random number, and two ledgers with two secrets cannot be compared.
    """

    run: str
    elsewhere: str
    """What is charged to other budgets, or to none."""
    guarantee: Guarantee
    budget: Budget
    owner: bytes
    """The Ed25519 key that signs the ledger's heads."""
    data: bytes = b""
    """Empty if it is not said; then nobody can tell from this ledger which others are about the same data."""
    turns: Turns | None = None
    """If clients take turns: each is charged for the sums whose number draws it, and the budget is that of each. None:
    every sum is charged as if everybody were in it."""
    arrivals: Arrivals | None = None
    """If sums are over whoever was ready: each client is charged for the sums that name it, and the budget is that of
    each."""
    window: Window | None = None
    """Under the unit ``user-window``, and no other: how long the events of a unit lie apart, and how long each is
    kept. Each window has the whole budget."""

    def __post_init__(self) -> None:
        check_text(self.run)
        check_text(self.elsewhere)
        if len(self.data) not in (0, 32):
            raise UsageError("a mark of data is 32 bytes, or none")
        if self.turns is not None and self.arrivals is not None:
            raise UsageError("clients take turns, or come when they are ready, and not both")
        if self.of_each is not None:
            if self.budget.kind is not Kind.GDP:
                raise UsageError("what each client spends is counted as mu^2: where each is charged the kind is gdp")
            if (self.guarantee.relation, self.guarantee.trust) != (Relation.ZERO_OUT, Trust.DISTRIBUTED):
                raise UsageError("who is charged for its own sums adds noise inside them, and adds zeros in its place")
            if self.window is not None:
                raise UsageError("a budget is that of each client, or of each window, and not of both")
        if (self.window is None) == (self.guarantee.unit is Unit.USER_WINDOW):
            raise UsageError("a budget for the events within a window says how long that is, and no other budget does")
        if self.window is not None and self.budget.kind is not Kind.GDP:
            raise UsageError("what is charged to a window is counted as mu^2: the kind is gdp")

    @property
    def of_each(self) -> Turns | Arrivals | None:
        """What says who is charged for a sum, where the budget is that of each client."""
        return self.turns if self.arrivals is None else self.arrivals

    def body(self) -> bytes:
        """The entry's canonical bytes."""
        return canonical(
            {
                "number": 0,
                "previous": START.hex(),
                "phase": "genesis",
                "schema": SCHEMA,
                "accountant": ACCOUNTANTS[self.budget.kind],
                "run": self.run,
                "elsewhere": self.elsewhere,
                "data": self.data.hex(),
                "turns": None if self.turns is None else plain(self.turns),
                "arrivals": None if self.arrivals is None else plain(self.arrivals),
                "window": None if self.window is None else plain(self.window),
                **asdict(self.guarantee),
                "epsilon": str(self.budget.epsilon),
                "delta": str(self.budget.delta),
                "slack": str(self.budget.slack),
                "kind": self.budget.kind,
                "order": self.budget.order,
                "orders": ORDERS if self.budget.kind is Kind.RENYI else (),
                "units": str(Fraction(1, RESOLUTION)),
                "limits": self.budget.limits(),
                "samples_limit": self.budget.samples(),
                "owner": self.owner.hex(),
            }
        )


def data_mark(secret: bytes, identity: bytes) -> bytes:
    """The mark of data of that ``identity`` in a ledger, or in a list of runs. ``secret`` stays with its keeper."""
    return derive(secret, labels.LEDGER_DATA, identity)


@dataclass(frozen=True, slots=True)
class Record:
    """What the ledger knows of one release; ``happened`` is None while it is only reserved."""

    reserved: Chargeable
    happened: Chargeable | None
    cost: PrivacyCost


def taken(record: Record) -> int:
    """How many steps are taken; none while they are only reserved."""
    return record.happened.count if isinstance(record.happened, Steps) else 0


@dataclass(frozen=True, slots=True)
class PreparedEntry:
    """An entry that may be next, and the state that it leads to. ``record`` is None if the release is aborted."""

    body: bytes
    tree: Tree
    release: str
    record: Record | None
    filter: _Filter


class LedgerState:
    """All releases on record, the heads that the ledger has had, and the privacy filter. A genesis begins it."""

    def __init__(self, genesis: Genesis) -> None:
        self.genesis = genesis
        of_each, window, budget = genesis.of_each, genesis.window, genesis.budget
        self.filter: _Filter = Filter.of(budget) if of_each is None else ClientFilters.of(budget, of_each.names)
        if window is not None:
            self.filter = WindowFilter.of(budget, window)
        self.tree = Tree().with_leaf(genesis.body())
        self.heads = [self.tree.root]
        """The root over the first entry, over the first two, and so on."""
        self.records: dict[str, Record] = {}
        """The records by release. An aborted release has none: it may be reserved again."""
        self.aborted = 0
        """How often a release was aborted."""

    @property
    def head(self) -> bytes:
        return self.heads[-1]

    def cost_of(self, what: Chargeable) -> PrivacyCost:
        """What a release costs this budget."""
        budget = self.genesis.budget
        return cost_of(what, self.genesis.guarantee, budget.kind, budget.delta - budget.slack)

    def reserve(self, what: Chargeable, cost: PrivacyCost | None = None) -> PreparedEntry:
        """The entry that reserves the worst case of a secure sum, or steps as they are planned.

        ``cost`` is what a reader found in the entry; a writer leaves it out, and it is computed.
        """
        check_planned(what, self.genesis.guarantee)
        what = worst(self.named(what))
        if (name := name_of(what)) in self.records:
            raise UsageError(f"release {name} is on record")
        members, time = self._members(what), self.time_of(what)
        cost = self.cost_of(what) if cost is None else cost
        if isinstance(self.filter, ClientFilters):
            after: _Filter = self.filter.reserve(name, cost, members)
        elif isinstance(self.filter, WindowFilter):
            after = self.filter.reserve(name, cost, time)
        else:
            after = self.filter.reserve(name, cost)
        return self._prepare("reserve", name, Record(what, None, cost), after)

    def named(self, what: Chargeable) -> Chargeable:
        """The facts as they stand here: with the names of those in a sum where these say who is charged, and without
        them where they would only be long."""
        if self.genesis.arrivals is not None or not isinstance(what, SecureSum):
            return what
        return replace(what, members=())

    def sum_of(self, session: bytes, round_: int) -> SecureSum | None:
        """What is reserved for the sum of this round of a session, whether it is committed or not."""
        for one in self.records.values():
            if isinstance(one.reserved, SecureSum) and (one.reserved.session, one.reserved.round) == (session, round_):
                return one.reserved
        return None

    def number_taken(self, what: Chargeable) -> bool:
        """Whether clients take turns, and another plan has the number of this one."""
        if self.genesis.turns is None or not isinstance(what, SecureSum):
            return False
        others = (one.reserved for name, one in self.records.items() if name != name_of(what))
        return any(isinstance(other, SecureSum) and other.round == what.round for other in others)

    def _members(self, what: Chargeable) -> Mapping[str, bytes]:
        """Who is charged for a sum, with keys: those whose turn it is, or whom it names, whoever takes part. Empty if
        every sum is charged to everybody.

        Where clients take turns the number says whose turn it is. So a number stands for one plan, and a sum over
        others is refused.
        """
        if (of_each := self.genesis.of_each) is None:
            return {}
        if not isinstance(what, SecureSum):
            raise UsageError("where each client is charged for its own sums, only secure sums are charged")
        members = of_each.charged(what)
        if self.number_taken(what):
            raise BudgetError(f"sum {what.round} is on record under another plan: whoever missed this turn has lost it")
        return members

    def time_of(self, what: Chargeable) -> int | None:
        """The second of a release, where the budget is for windows."""
        window = self.genesis.window
        if isinstance(what, SecureSum):
            return None if window is None else window.charged_at(what)
        if (what.time is None) != (window is None):
            raise UsageError("steps say their time where the budget is for windows, and nowhere else")
        return what.time

    def commit(self, what: Chargeable, cost: PrivacyCost | None = None) -> PreparedEntry:
        """The entry that says what happened, instead of what was reserved for it.

        Of a schedule it says how many of its steps are taken so far, and may be followed by one that says more.
        """
        check_agreed(what := self.named(what))
        if self.genesis.budget.kind is Kind.SCHEDULE:
            return self._gone_on(what)
        record = self._reserved(name := name_of(what))
        if isinstance(what, SecureSum):
            if worst(what) != record.reserved:
                raise BudgetError(f"release {name} was reserved with other facts")
            if (of_each := self.genesis.of_each) is not None:
                of_each.check_signers(what)
        if self.time_of(what) != self.time_of(record.reserved):
            raise BudgetError(f"release {name} was reserved for another time")
        cost = self.cost_of(what) if cost is None else cost
        return self._prepare("commit", name, Record(record.reserved, what, cost), self.filter.commit(name, cost))

    def further(self, event: Event, count: int) -> PreparedEntry:
        """The entry that says that ``count`` more steps of the schedule are taken, each of which is ``event``."""
        record = next(iter(self.records.values()), None)
        if record is None or not isinstance(record.reserved, Steps):
            raise BudgetError("a schedule is reserved as a whole before its first step, and none is")
        if not covers(record.reserved.event, event):
            raise BudgetError("these steps are not those of the schedule that is reserved")
        if count < 1:
            raise UsageError(f"at least one step is taken, not {count}")
        return self._gone_on(replace(record.reserved, count=taken(record) + count))

    def _gone_on(self, what: Chargeable) -> PreparedEntry:
        """The entry that says how many steps of a schedule are taken by now."""
        record = self.records.get(name := name_of(what))
        if record is None or not isinstance(record.reserved, Steps):
            raise BudgetError(f"nothing is reserved for release {name}")
        planned, before = record.reserved, taken(record)
        if not isinstance(what, Steps) or replace(what, count=planned.count) != planned:
            raise BudgetError(f"release {name} was reserved with other facts")
        if what.count > planned.count:
            raise BudgetError(f"the schedule that is reserved has {planned.count} steps, and not {what.count}")
        if what.count <= before:
            raise BudgetError(f"{before} steps of the schedule are taken already")
        after = self.filter.commit(name, record.cost) if record.happened is None else self.filter
        return self._prepare("commit", name, Record(planned, what, record.cost), after)

    def abort(self, name: str, reason: str) -> PreparedEntry:
        """The entry that says that nothing was released."""
        self._reserved(name)
        return self._prepare("abort", name, None, self.filter.abort(name), {"reason": check_text(reason)})

    def _reserved(self, name: str) -> Record:
        record = self.records.get(name)
        if record is None or record.happened is not None:
            raise BudgetError(f"nothing is reserved for release {name}")
        return record

    def _prepare(
        self, phase: str, name: str, record: Record | None, after: _Filter, more: Mapping[str, Any] | None = None
    ) -> PreparedEntry:
        total = after.total
        body = {
            "number": len(self.heads),
            "previous": self.head.hex(),
            "phase": phase,
            "release": name,
            "total": total.amounts,
            "total_samples": total.samples,
            "epsilon_before": self.filter.reached,
            "epsilon_after": after.reached,
            **(more or {}),
        }
        if record is not None:
            body |= {
                "time": self.time_of(record.reserved),
                "cost": record.cost.amounts,
                "samples": record.cost.samples,
                **facts(record.happened or record.reserved),
            }
        data = canonical(body)
        return PreparedEntry(data, self.tree.with_leaf(data), name, record, after)

    def apply(self, entry: PreparedEntry) -> None:
        """Go on to the state after ``entry``."""
        self.filter = entry.filter
        self.tree = entry.tree
        self.heads.append(entry.tree.root)
        if entry.record is None:
            del self.records[entry.release]
            self.aborted += 1
        else:
            self.records[entry.release] = entry.record

    # Reading

    @classmethod
    def begun_by(cls, data: bytes) -> LedgerState:
        """The state of a ledger that has only its first entry, which is ``data``."""
        try:
            body = parse(data)
            texts = {name: as_declared(str, body[name], name) for name in ("run", "elsewhere")}
            marks = {name: as_declared(bytes, body[name], name) for name in ("owner", "data")}
            turns = as_declared(Turns | None, body["turns"], "turns")
            arrivals = as_declared(Arrivals | None, body["arrivals"], "arrivals")
            window = as_declared(Window | None, body["window"], "window")
            genesis = Genesis(
                guarantee=picked(Guarantee, body),
                budget=picked(Budget, body),
                turns=turns,
                arrivals=arrivals,
                window=window,
                **texts,
                **marks,
            )
        except (SecAggError, KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise PeerError(f"entry 0 of the ledger does not begin one: {error}") from None
        if genesis.body() != data:
            raise PeerError("entry 0 of the ledger is of another version, or has been altered")
        return cls(genesis)

    def read(self, data: bytes) -> None:
        """Apply the next entry; ``PeerError`` if it may not be there."""
        number = len(self.heads)
        try:
            entry = self._prepared_again(parse(data))
        except (SecAggError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise PeerError(f"entry {number} of the ledger must not be there: {error}") from None
        if entry.body != data:
            raise PeerError(f"entry {number} of the ledger has been altered, or is out of place")
        self.apply(entry)

    def read_all(self, rows: Sequence[Row]) -> None:
        """Apply these entries, and check that the owner has signed that the ledger ends with them."""
        for body, _signature in rows:
            self.read(body)
        self.check_signed([signature for _body, signature in rows])

    def check_signed(self, signatures: Sequence[bytes]) -> None:
        """Check the ``signatures`` of the latest entries: the last has the owner's signature of the end, no other has
        one."""
        *earlier, signature = signatures
        number = len(self.heads) - 1
        if any(earlier):
            raise PeerError("an entry of the ledger is signed as its last, and is not")
        if not signature:
            raise PeerError(f"the ledger has been cut short: that it ends with entry {number}, nobody has signed")
        try:
            self._signed(signature).check(f"entry {number}")
        except UsageError:
            raise PeerError(f"bad signature of entry {number}") from None

    def signed_by(self, key: SigningKey, entry: PreparedEntry | None = None) -> SignedHead:
        """The signed head of a ledger that ends here, or with ``entry``."""
        tree = self.tree if entry is None else entry.tree
        return self._signed(key.sign_raw(note_text(self.heads[0], tree.size, tree.root)), tree)

    def _signed(self, signature: bytes, tree: Tree | None = None) -> SignedHead:
        tree = self.tree if tree is None else tree
        return SignedHead(self.genesis.owner, self.heads[0], tree.size, tree.root, signature)

    def check_head(self, head: SignedHead) -> None:
        """Raise ``PeerError`` unless this ledger once had this head, which its owner has signed."""
        if (head.owner, head.ledger) != (self.genesis.owner, self.heads[0]):
            raise PeerError("a head of another ledger")
        if head.size > len(self.heads):
            raise PeerError(f"a head of {head.size} entries, of which the ledger has {len(self.heads)}: it is older")
        if self.heads[head.size - 1] != head.root:
            raise PeerError(f"another head of {head.size} entries than this ledger had: a fork")
        head.check()

    def _prepared_again(self, body: Mapping[str, Any]) -> PreparedEntry:
        if body["phase"] == "abort":
            return self.abort(as_declared(str, body["release"]), as_declared(str, body["reason"]))
        amounts = as_declared(tuple[int | None, ...], body["cost"], "cost")
        cost = PrivacyCost(amounts, as_declared(int, body["samples"]))
        prepare = {"reserve": self.reserve, "commit": self.commit}[body["phase"]]
        return prepare(from_facts(body), cost)


def replay(rows: Sequence[Row], key: bytes | None = None, pinned: bytes | None = None) -> LedgerState:
    """The state that entries add up to; ``PeerError`` for the first that may not be there.

    ``key`` must have signed that these are all (by default the one that the ledger itself names), and ``pinned`` must
    have been a head.
    """
    if not rows:
        raise PeerError("the ledger is empty")
    state = LedgerState.begun_by(rows[0][0])
    if key not in (None, state.genesis.owner):
        raise PeerError("the ledger is that of another key")
    for body, _signature in rows[1:]:
        state.read(body)
    state.check_signed([signature for _body, signature in rows])
    if pinned is not None and pinned not in state.heads:
        raise PeerError("the ledger does not contain the pinned head: it is older, or another one")
    return state
