"""What a Flower node remembers between two messages of a round, in ``context.state``: a journal and a vector."""

from __future__ import annotations

from hashlib import sha256
from typing import ClassVar

from flwr.app import ConfigRecord, RecordDict

from protocols.adapters.flower.messages import field_of
from protocols.journal import EMPTY_HEAD, OVER, Beside, Kept, chained, check_next
from protocols.plan import RoundPlan
from protocols.roster import Identity
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.prg import Rng
from secagg.crypto.seal import open_box, opened_once, seal, sealed_once
from secagg.errors import PeerError, PolicyError, UsageError

_JOURNAL, _VECTOR = "secagg.journal", "secagg.vector"
RECORD_NAMES = frozenset({_JOURNAL, _VECTOR})
"""The names of these two records in ``context.state``; no train function gets to see them."""


class StateJournal:
    """A journal in ``context.state``: in the memory of the SuperNode, for one series of runs. The SuperLink says which
    series a run belongs to, so a server can make it forget.

    Flower keeps all that one message changes there, or nothing of it.

    >>> state = RecordDict()
    >>> StateJournal(state).append(b"deployment", b"session", 1, 0, b"sealed")
    >>> StateJournal(state).records(b"session", 1), StateJournal(state).last_round(b"session")
    ([b'sealed'], 1)
    """

    durable: ClassVar[bool] = False
    keeps_values: ClassVar[bool] = False

    def __init__(self, state: RecordDict) -> None:
        if _JOURNAL not in state:
            state[_JOURNAL] = ConfigRecord()
        self._record = state.config_records[_JOURNAL]

    def records(self, session: bytes, round_: int) -> list[bytes]:
        records = list[bytes]()
        while (key := _step_key(session, round_, len(records))) in self._record:
            records.append(field_of(self._record, key, bytes))
        return records

    def append(
        self,
        deployment: bytes,
        session: bytes,
        round_: int,
        step: int,
        record: bytes,
        beside: Beside | None = None,
        kept: Kept | None = None,
    ) -> None:
        if kept is not None:
            raise UsageError("a journal in the state of a node keeps no value beside rounds")
        rounds, this = self._known_rounds(), (session.hex(), round_)
        taken = len(self.records(session, round_)) if rounds.get(this) == deployment else 0
        check_next(round_, step, taken, self.last_round(session))
        head = chained(self.head(), deployment, session, round_, step, sha256(record).digest())
        if step == 0:
            self._delete([key for key, of in rounds.items() if of == deployment or key[0] == session.hex()])
            self._record[_deployment_key(*this)] = deployment
            self._record[session.hex()] = round_
        self._record[_step_key(session, round_, step)] = record
        if beside is not None:
            sealed = b"".join(bytes(piece) for piece in sealed_once(beside.key, beside.frame))
            self._record[_step_key(session, round_, step) + _FRAME] = sealed
        self._record["head"] = head

    def frame(self, session: bytes, round_: int, step: int, key: bytes) -> bytes:
        name = _step_key(session, round_, step) + _FRAME
        try:
            return opened_once(key, field_of(self._record, name, bytes) if name in self._record else b"")
        except PeerError:
            raise PolicyError("a frame that this node kept has been lost, or altered") from None

    def retire(self, session: bytes, before: int) -> None:
        rounds = self._known_rounds()
        over = [key for key in rounds if key[0] == session.hex() and key[1] < before]
        for key in over:
            self._record["head"] = chained(self.head(), rounds[key], session, key[1], OVER, sha256().digest())
        self._delete(over)

    def last_round(self, session: bytes) -> int | None:
        return field_of(self._record, session.hex(), int) if session.hex() in self._record else None

    def head(self) -> bytes:
        return field_of(self._record, "head", bytes) if "head" in self._record else EMPTY_HEAD

    def _known_rounds(self) -> dict[tuple[str, int], bytes]:
        """(session, round) -> deployment, for the rounds whose records have not been deleted."""
        parts = [key.split(".") for key in self._record if key.endswith(_DEPLOYMENT)]
        return {
            (session, int(round_)): field_of(self._record, _deployment_key(session, int(round_)), bytes)
            for session, round_, _ in parts
        }

    def _delete(self, rounds: list[tuple[str, int]]) -> None:
        for session, round_ in rounds:
            for key in [key for key in self._record if key.startswith(f"{session}.{round_}.")]:
                del self._record[key]


_DEPLOYMENT, _FRAME = ".deployment", ".frame"


def _deployment_key(session: str, round_: int) -> str:
    return f"{session}.{round_}{_DEPLOYMENT}"


def _step_key(session: bytes, round_: int, step: int) -> str:
    return f"{session.hex()}.{round_}.{step}"


class SealedVector:
    """What a client puts into one round's sum, in ``context.state``, sealed under a key that only this identity has.

    It is the encoded vector, packed as it will be uploaded, and not the update: a simulation carries the state of every
    node there and back with every message, so a large state makes rounds slow.
    """

    def __init__(self, state: RecordDict, identity: Identity, plan: RoundPlan, rng: Rng) -> None:
        self._state, self._rng, self._plan = state, rng, plan.digest()
        self._key = derive(identity.key.secret, labels.ADAPTER_UPDATE, self._plan)

    def save(self, vector: bytes) -> None:
        box = seal(self._key, vector, self._plan, self._rng)
        self._state[_VECTOR] = ConfigRecord({"plan": self._plan, "box": box})

    def load(self) -> bytes:
        return open_box(self._key, self.sealed(), self._plan)

    def sealed(self) -> bytes:
        """The vector as it was sealed; ``PolicyError`` if it is not there any more."""
        record = self._state.config_records.get(_VECTOR)
        if record is None or record["plan"] != self._plan:
            raise PolicyError("the update of this round has been lost: this client stays out of it")
        return field_of(record, "box", bytes)

    def delete(self) -> None:
        self._state.pop(_VECTOR, None)
