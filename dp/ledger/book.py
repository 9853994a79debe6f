"""What a ledger's entries come to, and which entry may be next.

Writer and reader share this: the writer drafts an entry, makes it durable and adopts it; the reader parses an entry,
drafts it again from its facts, compares byte by byte and adopts it. So whatever the writer may not write, no reader
accepts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, TypeAlias

from dp.accountants.rdp import ORDERS
from dp.events import Guarantee
from dp.filter import UNITS, Budget, Charge, Filter
from dp.ledger.entries import (
    ACCOUNTANT,
    SCHEMA,
    Charged,
    canonical,
    charge_of,
    check_agreed,
    check_planned,
    facts,
    from_facts,
    link,
    name_of,
    parse,
    parsed,
    worst,
)
from dp.secure_sum import SecureSum, check_text
from secagg.crypto import labels
from secagg.crypto.keys import SigningKey, derive, verify
from secagg.errors import BudgetError, PeerError, SecAggError, UsageError

Row: TypeAlias = tuple[bytes, bytes]
"""An entry as it is read: its body and, with the last one, the owner's signature of the head; with others nothing."""

START = bytes(32)


@dataclass(frozen=True, slots=True)
class Genesis:
    """What a ledger is for.

    Whose data the budget is about is said in a way that tells nothing about them: a ledger is handed to auditors, and a
    plain hash of events would be an exact statistic of private data, which anybody can test guesses against. So
    ``data`` is made with a secret of whoever keeps the ledger (``data_mark``). They can tell whether another run is
    about the same data; to everybody else it is a random number, and two ledgers with two secrets cannot be compared.
    """

    run: str
    elsewhere: str
    guarantee: Guarantee
    budget: Budget
    owner: bytes
    """The Ed25519 key that signs the entries."""
    data: bytes = b""
    """Empty: not said, so nobody can tell from this ledger which others are about the same data."""

    def __post_init__(self) -> None:
        check_text(self.run)
        check_text(self.elsewhere)
        if len(self.data) not in (0, 32):
            raise UsageError("a mark of data is 32 bytes, or none")

    def body(self) -> bytes:
        """The first entry."""
        return canonical(
            {
                "number": 0,
                "previous": START.hex(),
                "phase": "genesis",
                "schema": SCHEMA,
                "accountant": ACCOUNTANT,
                "run": self.run,
                "elsewhere": self.elsewhere,
                "data": self.data.hex(),
                **asdict(self.guarantee),
                "epsilon": str(self.budget.epsilon),
                "delta": str(self.budget.delta),
                "slack": str(self.budget.slack),
                "order": self.budget.order,
                "orders": ORDERS,
                "units": str(Fraction(1, UNITS)),
                "limits": self.budget.limits(),
                "samples_limit": self.budget.samples(),
                "owner": self.owner.hex(),
            }
        )


def data_mark(secret: bytes, identity: bytes) -> bytes:
    """What stands for data of that ``identity`` in a ledger, or a list of runs. ``secret`` stays with its keeper."""
    return derive(secret, labels.LEDGER_DATA, identity)


@dataclass(frozen=True, slots=True)
class Record:
    """Where a release stands."""

    reserved: Charged
    happened: Charged | None
    charge: Charge


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry that may be next, and what it would change."""

    body: bytes
    link: bytes
    release: str
    record: Record | None
    filter: Filter


class Book:
    """The state that entries add up to; begun by a genesis."""

    def __init__(self, genesis: Genesis) -> None:
        self.genesis = genesis
        self.filter = Filter.of(genesis.budget)
        self.links = [link(START, genesis.body())]
        self.records: dict[str, Record] = {}
        """By release. An aborted one has none: it may be reserved again."""

    @property
    def head(self) -> bytes:
        return self.links[-1]

    def reserve(self, what: Charged, charge: Charge | None = None) -> Draft:
        """The worst case of a secure sum; steps as they are planned. ``charge``: as recorded, else computed."""
        check_planned(what)
        what = worst(what)
        if (name := name_of(what)) in self.records:
            raise UsageError(f"release {name} is on record")
        charge = charge_of(what, self.genesis.guarantee) if charge is None else charge
        return self._draft("reserve", name, Record(what, None, charge), self.filter.reserve(name, charge))

    def commit(self, what: Charged, charge: Charge | None = None) -> Draft:
        """What happened, instead of what was reserved for it."""
        check_agreed(what)
        record = self._reserved(name := name_of(what))
        if isinstance(what, SecureSum) and worst(what) != record.reserved:
            raise BudgetError(f"release {name} was reserved with other facts")
        charge = charge_of(what, self.genesis.guarantee) if charge is None else charge
        return self._draft("commit", name, Record(record.reserved, what, charge), self.filter.commit(name, charge))

    def abort(self, name: str, reason: str) -> Draft:
        """Nothing was released."""
        self._reserved(name)
        return self._draft("abort", name, None, self.filter.abort(name), {"reason": check_text(reason)})

    def _reserved(self, name: str) -> Record:
        record = self.records.get(name)
        if record is None or record.happened is not None:
            raise BudgetError(f"nothing is reserved for release {name}")
        return record

    def _draft(
        self, phase: str, name: str, record: Record | None, after: Filter, more: Mapping[str, Any] | None = None
    ) -> Draft:
        total = after.total
        body = {
            "number": len(self.links),
            "previous": self.head.hex(),
            "phase": phase,
            "release": name,
            "total": total.rdp,
            "total_samples": total.samples,
            "epsilon_before": self.filter.reached,
            "epsilon_after": after.reached,
            **(more or {}),
        }
        if record is not None:
            body |= {
                "rdp": record.charge.rdp,
                "samples": record.charge.samples,
                **facts(record.happened or record.reserved),
            }
        data = canonical(body)
        return Draft(data, link(self.head, data), name, record, after)

    def adopt(self, draft: Draft) -> None:
        self.filter = draft.filter
        self.links.append(draft.link)
        if draft.record is None:
            del self.records[draft.release]
        else:
            self.records[draft.release] = draft.record

    # Reading

    @classmethod
    def begun_by(cls, data: bytes) -> Book:
        """The ledger that this entry begins."""
        try:
            body = parse(data)
            texts = {name: parsed(str, body[name]) for name in ("run", "elsewhere")}
            marks = {name: parsed(bytes, body[name]) for name in ("owner", "data")}
            genesis = Genesis(guarantee=parsed(Guarantee, body), budget=parsed(Budget, body), **texts, **marks)
        except (SecAggError, KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise PeerError(f"entry 0 of the ledger does not begin one: {error}") from None
        if genesis.body() != data:
            raise PeerError("entry 0 of the ledger is of another version, or has been altered")
        return cls(genesis)

    def read(self, data: bytes) -> None:
        """Adopt the next entry, if it is one."""
        number = len(self.links)
        try:
            draft = self._drafted_again(parse(data))
        except (SecAggError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise PeerError(f"entry {number} of the ledger must not be there: {error}") from None
        if draft.body != data:
            raise PeerError(f"entry {number} of the ledger has been altered, or is out of place")
        self.adopt(draft)

    def follow(self, rows: Sequence[Row]) -> None:
        """Adopt these entries, and see that the owner has signed that the ledger ends there."""
        for body, _signature in rows:
            self.read(body)
        self.check_signed([signature for _body, signature in rows])

    def check_signed(self, signatures: Sequence[bytes]) -> None:
        """``signatures`` of the latest entries: the last one has the owner's, as the last, and no other has any."""
        *earlier, signature = signatures
        number = len(self.links) - 1
        if any(earlier):
            raise PeerError("an entry of the ledger is signed as its last, and is not")
        if not signature:
            raise PeerError(f"the ledger has been cut short: that it ends with entry {number}, nobody has signed")
        verify(self.genesis.owner, signature, labels.LEDGER_HEAD, *self._end(), culprit=f"entry {number}")

    def signed_by(self, key: SigningKey, draft: Draft | None = None) -> bytes:
        """The one signature of a ledger that ends here, or with this ``draft``."""
        return key.sign(labels.LEDGER_HEAD, *self._end(draft))

    def _end(self, draft: Draft | None = None) -> tuple[bytes, bytes]:
        """How many entries there are, and the last link, which covers them all."""
        count, head = (len(self.links), self.head) if draft is None else (len(self.links) + 1, draft.link)
        return count.to_bytes(8, "big"), head

    def _drafted_again(self, body: Mapping[str, Any]) -> Draft:
        if body["phase"] == "abort":
            return self.abort(parsed(str, body["release"]), parsed(str, body["reason"]))
        rdp = tuple(None if value is None else parsed(int, value) for value in body["rdp"])
        charge = Charge(rdp, parsed(int, body["samples"]))
        draft = {"reserve": self.reserve, "commit": self.commit}[body["phase"]]
        return draft(from_facts(body), charge)


def replay(rows: Sequence[Row], key: bytes | None = None, pinned: bytes | None = None) -> Book:
    """The state that entries come to; ``PeerError`` for the first that must not be there.

    ``key`` (default: the one that the ledger names itself) has signed that these are all, and ``pinned`` was a head.
    """
    if not rows:
        raise PeerError("the ledger is empty")
    book = Book.begun_by(rows[0][0])
    if key not in (None, book.genesis.owner):
        raise PeerError("the ledger is that of another key")
    for body, _signature in rows[1:]:
        book.read(body)
    book.check_signed([signature for _body, signature in rows])
    if pinned is not None and pinned not in book.links:
        raise PeerError("the ledger does not contain the pinned head: it is older, or another one")
    return book
