"""The heads of a server's ledger that its clients see in plans, of which each keeps the latest in its journal.

A plan's head has to be a later one of the same ledger. Of two heads alone that cannot be computed (a witness asks for a
proof, ``dp.ledger.witness``), but some are seen to be none at once: a head of another ledger of the same owner, an
older one, another one of the same length, and one that has not grown although a sum with noise was reserved since. So
a server that forgets a release, or shows its clients a ledger that stands still, is caught by any of them; one that
shows each half of them its own is not.

There is one for each owner in each deployment, since only the plans of a deployment come one after the other. It is
kept as a round of its own, sealed, in the place of the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dp.ledger.heads import HEAD, SignedHead
from protocols.journal import Journal
from protocols.plan import RoundPlan
from secagg.codec import boolean, struct, u32
from secagg.crypto import labels
from secagg.crypto.keys import digest, transcript
from secagg.crypto.prg import Rng
from secagg.crypto.seal import open_box, seal
from secagg.errors import DecodeError, PeerError, PolicyError


@dataclass(frozen=True, slots=True)
class _Seen:
    head: SignedHead
    reserved: bool
    """Whether a sum is reserved whose plan has this head."""


_SEEN = struct(_Seen, head=HEAD, reserved=boolean)


class SeenHeads:
    """Those of one deployment of a client, in its journal, sealed under the journal's key."""

    def __init__(self, journal: Journal, deployment: bytes, key: bytes, rng: Rng) -> None:
        self._journal, self._deployment, self._key, self._rng = journal, deployment, key, rng
        self._known: dict[tuple[bytes, int], _Seen] = {}  # what was written here, for journals that forget

    def latest(self, owner: bytes) -> SignedHead | None:
        """The latest head that this key has signed."""
        seen = self._read(self._name(owner))
        return None if seen is None else seen.head

    def check(self, head: SignedHead) -> None:
        """Refuse a head that cannot be a later one of the ledger of the same owner that was seen before."""
        seen = self._read(self._name(head.owner))
        if seen is None:
            return
        before = seen.head
        if head.ledger != before.ledger:
            raise PolicyError("split view: the plan has a head of another ledger of its owner than an earlier plan")
        if head.size < before.size:
            raise PolicyError(
                f"the ledger in the plan has {head.size} entries: it had {before.size}, and has been rewound"
            )
        if head.size == before.size and head.root != before.root:
            raise PolicyError(f"split view: two heads of {head.size} entries of one ledger")
        if head.size == before.size and seen.reserved:
            raise PolicyError(f"the ledger still has {head.size} entries, and a sum has been reserved since")

    def remember(self, head: SignedHead, reserved: bool) -> None:
        """Keep a head, and whether a sum is reserved whose plan has it."""
        name, seen = self._name(head.owner), _Seen(head, reserved)
        before = self._read(name)
        if before == seen or (before is not None and before.head.size > head.size):  # of a round that was resumed
            return
        last = self._journal.last_round(name)
        number = 0 if last is None else last + 1
        box = seal(self._key, _SEEN.encode(seen), self._associated(name, number), self._rng)
        self._journal.append(name, name, number, 0, box)
        self._known = {(name, number): seen}

    def _read(self, name: bytes) -> _Seen | None:
        last = self._journal.last_round(name)
        if last is None or (name, last) in self._known:
            return None if last is None else self._known[name, last]
        try:
            [box] = self._journal.records(name, last)
            return _SEEN.decode(open_box(self._key, box, self._associated(name, last)))
        except (PeerError, DecodeError, ValueError):
            raise PolicyError("the journal is not this client's, or has been altered") from None

    def _name(self, owner: bytes) -> bytes:
        return digest(labels.JOURNAL_HEAD, self._deployment, owner)

    def _associated(self, name: bytes, number: int) -> bytes:
        return transcript(labels.JOURNAL_HEAD, name, u32.encode(number))


def heads_in(entries: Iterable[Mapping[str, Any]]) -> list[SignedHead]:
    """The heads in the plans of the sums in a ledger, each once, in the order of the entries: of the ledger itself, or,
    where a client keeps it, of the server's. Whether they are signed is not looked at."""
    try:
        plans = [RoundPlan.decode(bytes.fromhex(entry["sum"]["plan"])) for entry in entries if "sum" in entry]
    except DecodeError as error:
        raise PeerError(f"a plan in the ledger is none: {error}") from None
    return list(dict.fromkeys(plan.ledger for plan in plans if plan.ledger is not None))
