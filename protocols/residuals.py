"""What a client keeps of its updates from one round to the next, where plans have feedback: residuals, in its journal.

There is one for each unit of a deployment: the client, or each user of a silo, by name. A user's residual follows from
that user's vectors and from what is public, and from nothing else of the silo, so that the user moves a sum by no more
than its own bounded vector. All of them are one value that outlives rounds (``protocols.journal.Kept``), sealed, and
long as they are beside their record. It is written in the transaction that writes the upload, and takes the place of
what was left before. So a crash comes before both, and the next attempt begins with what was left before; or after
both, and what was sent is not sent again. A round that comes to no sum after that costs what was sent in it.

Users who are not in a round leave nothing: what was kept of them is destroyed with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from protocols.journal import Beside, Journal, Kept
from secagg.codec import blob, many, struct, text, u32, u64
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, digest, transcript
from secagg.crypto.prg import Rng
from secagg.crypto.seal import open_box, seal
from secagg.encoding import Encoding, Residual
from secagg.errors import DecodeError, PeerError, PolicyError, UsageError

UNIT = ("",)
"""The name of a client that is one unit."""

_LONG = 1 << 16
_LONGEST_NAME, _MOST_NAMES = 1 << 10, (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Left:
    """What an update is added to, and then what is left of it: for each name an array that can be written."""

    names: tuple[str, ...]
    residuals: Sequence[Residual] = field(repr=False)
    number: int
    """Of how many that were kept this one will be the last."""


@dataclass(frozen=True, slots=True, repr=False)
class _Record:
    """Residuals one after the other in the order of the names, here or beside the record, sealed under ``key``."""

    family: str
    length: int
    names: tuple[str, ...]
    values: bytes = b""
    key: bytes = b""


_RECORD = struct(
    _Record,
    family=text(64),
    length=u64,
    names=many(text(_LONGEST_NAME), _MOST_NAMES),
    values=blob(1 << 40),
    key=blob(KEY_BYTES),
)


class Residuals:
    """Those of one deployment of a client, in its journal, sealed under the journal's key."""

    def __init__(self, journal: Journal, deployment: bytes, key: bytes, rng: Rng) -> None:
        self._journal, self._key, self._rng = journal, key, rng
        self._name = digest(labels.JOURNAL_RESIDUAL, deployment)

    def check(self, encoding: Encoding) -> None:
        """Refuse an encoding with feedback that does not go on with what is kept here, or where nothing can be."""
        if not self._journal.keeps_values:
            raise UsageError("feedback needs a journal that keeps values beside rounds, and this one does not")
        found = self._read(self._journal.last_round(self._name))
        if found is not None and (found.family, found.length) != (family := _family(encoding), encoding.length):
            raise PolicyError(
                f"what is left of earlier updates is of {found.length} coordinates ({found.family}), and the plan's "
                f"vectors have {encoding.length} ({family}): another model is another deployment"
            )

    def left(self, encoding: Encoding, names: Sequence[str]) -> Left:
        """What was left of the vectors of these, zeros for who is new."""
        if len(set(names)) != len(names):
            raise UsageError("two users of a silo have the same name")
        if any(len(name.encode()) > _LONGEST_NAME for name in names):
            raise UsageError(f"a user's name has at most {_LONGEST_NAME} bytes")
        last = self._journal.last_round(self._name)
        found, kept = self._read(last), dict[str, Residual]()
        if found is not None and last is not None:
            values = self._journal.frame(self._name, last, 0, found.key) if found.key else found.values
            rows = np.frombuffer(values, "<f4").reshape(len(found.names), found.length)
            kept = dict(zip(found.names, rows, strict=True))
        residuals = [
            kept[name].astype(np.float32) if name in kept else np.zeros(encoding.length, np.float32) for name in names
        ]
        return Left(tuple(names), residuals, 0 if last is None else last + 1)

    def kept(self, encoding: Encoding, left: Left) -> Kept:
        """What a journal is to keep."""
        values, beside = b"".join(one.astype("<f4").tobytes() for one in left.residuals), None
        record = _Record(_family(encoding), encoding.length, left.names, values)
        if len(values) >= _LONG:
            beside = Beside(values, self._rng(KEY_BYTES))
            record = _Record(_family(encoding), encoding.length, left.names, key=beside.key)
        box = seal(self._key, _RECORD.encode(record), self._associated(left.number), self._rng)
        return Kept(self._name, left.number, box, beside)

    def _read(self, last: int | None) -> _Record | None:
        if last is None:
            return None
        try:
            [box] = self._journal.records(self._name, last)
            return _RECORD.decode(open_box(self._key, box, self._associated(last)))
        except (PeerError, DecodeError, ValueError):
            raise PolicyError("the journal is not this client's, or has been altered") from None

    def _associated(self, number: int) -> bytes:
        return transcript(labels.JOURNAL_RESIDUAL, self._name, u32.encode(number))


def _family(encoding: Encoding) -> str:
    """What it is that an encoding leaves."""
    return "rounding" if encoding.sketch is None else type(encoding.sketch).__name__
