"""What a Flower node remembers between two messages of a round: a journal and a vector, both in ``context.state``."""

from __future__ import annotations

from hashlib import sha256
from typing import ClassVar, TypeVar

from flwr.app import ConfigRecord, RecordDict

from protocols.journal import EMPTY_HEAD, OVER, chained, check_next
from protocols.plan import RoundPlan
from protocols.roster import Identity
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.prg import Rng
from secagg.crypto.seal import open_box, seal
from secagg.errors import DecodeError, PolicyError

_JOURNAL, _VECTOR = "secagg.journal", "secagg.vector"
OURS = frozenset({_JOURNAL, _VECTOR})
"""The names of our records in ``context.state``; no app gets to see them."""

T = TypeVar("T")


class StateJournal:
    """A journal in ``context.state``: in the memory of the SuperNode, for one series of runs. The SuperLink says which
    series a run belongs to, so a server can make it forget.

    What one message changes there, Flower keeps as a whole or not at all.

    >>> state = RecordDict()
    >>> StateJournal(state).append(b"deployment", b"session", 1, 0, b"sealed")
    >>> StateJournal(state).records(b"session", 1), StateJournal(state).last_round(b"session")
    ([b'sealed'], 1)
    """

    durable: ClassVar[bool] = False

    def __init__(self, state: RecordDict) -> None:
        if _JOURNAL not in state:
            state[_JOURNAL] = ConfigRecord()
        self._kept = state.config_records[_JOURNAL]

    def records(self, session: bytes, round_: int) -> list[bytes]:
        records = list[bytes]()
        while (key := _step_key(session, round_, len(records))) in self._kept:
            records.append(value_of(self._kept, key, bytes))
        return records

    def append(self, deployment: bytes, session: bytes, round_: int, step: int, record: bytes) -> None:
        rounds, place = self._living(), (session.hex(), round_)
        taken = len(self.records(session, round_)) if rounds.get(place) == deployment else 0
        check_next(round_, step, taken, self.last_round(session))
        head = chained(self.head(), deployment, session, round_, step, sha256(record).digest())
        if step == 0:
            self._destroy([key for key, of in rounds.items() if of == deployment or key[0] == session.hex()])
            self._kept[_deployment_key(*place)] = deployment
            self._kept[session.hex()] = round_
        self._kept[_step_key(session, round_, step)] = record
        self._kept["head"] = head

    def retire(self, session: bytes, before: int) -> None:
        living = self._living()
        over = [place for place in living if place[0] == session.hex() and place[1] < before]
        for place in over:
            self._kept["head"] = chained(self.head(), living[place], session, place[1], OVER, sha256().digest())
        self._destroy(over)

    def last_round(self, session: bytes) -> int | None:
        return value_of(self._kept, session.hex(), int) if session.hex() in self._kept else None

    def head(self) -> bytes:
        return value_of(self._kept, "head", bytes) if "head" in self._kept else EMPTY_HEAD

    def _living(self) -> dict[tuple[str, int], bytes]:
        """(session, round) -> deployment, of the rounds whose records are there."""
        places = [key.split(".") for key in self._kept if key.endswith(_DEPLOYMENT)]
        return {
            (session, int(round_)): value_of(self._kept, _deployment_key(session, int(round_)), bytes)
            for session, round_, _ in places
        }

    def _destroy(self, rounds: list[tuple[str, int]]) -> None:
        for session, round_ in rounds:
            for key in [key for key in self._kept if key.startswith(f"{session}.{round_}.")]:
                del self._kept[key]


_DEPLOYMENT = ".deployment"


def _deployment_key(session: str, round_: int) -> str:
    return f"{session}.{round_}{_DEPLOYMENT}"


def _step_key(session: bytes, round_: int, step: int) -> str:
    return f"{session.hex()}.{round_}.{step}"


class KeptVector:
    """What a client puts into one round's sum, in ``context.state``, sealed under a key that only this identity has.

    It is the encoded vector, packed as it will be uploaded, and not the update: a simulation carries the state of every
    node there and back with every message, so its size is time.
    """

    def __init__(self, state: RecordDict, identity: Identity, plan: RoundPlan, rng: Rng) -> None:
        self._state, self._rng, self._plan = state, rng, plan.digest()
        self._key = derive(identity.key.secret, labels.ADAPTER_UPDATE, self._plan)

    def keep(self, vector: bytes) -> None:
        box = seal(self._key, vector, self._plan, self._rng)
        self._state[_VECTOR] = ConfigRecord({"plan": self._plan, "box": box})

    def vector(self) -> bytes:
        return open_box(self._key, self.sealed(), self._plan)

    def sealed(self) -> bytes:
        record = self._state.config_records.get(_VECTOR)
        if record is None or record["plan"] != self._plan:
            raise PolicyError("the update of this round has been lost: this client stays out of it")
        return value_of(record, "box", bytes)

    def forget(self) -> None:
        self._state.pop(_VECTOR, None)


def value_of(record: ConfigRecord, key: str, kind: type[T]) -> T:
    value = record.get(key)
    if type(value) is not kind:
        raise DecodeError(f"a secagg record without {key}")
    return value
