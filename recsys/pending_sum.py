"""What goes into a sum, on disk until the sum is out: a run that was killed finishes the sum with the same values.

Updates are computed in floating point, and another processor, number of threads or version of a library computes other
last bits. Keys, masks and noise of a sum follow from the run's secret, so two different updates of one client in one
sum would be two uploads under one mask, or two releases under one draw of noise. So nothing is computed twice:

    before anything leaves a client, all that goes into the sum is on disk: the plan, who will drop out, each client's
    encoded vector, and what the client will keep to itself once that is in the sum (``recsys.kept_by_clients``). A
    restarted run reads it, and computes no update of that sum again.

What is kept is the encoded vector, in the bits of the plan's ring, and not the update. Encoding measures a norm in
floating point, so an update in float64 would be encoded otherwise elsewhere; and it would take two to three times the
room (2,000 clients with 16,384 values of 24 bits: 98 MB instead of 262 MB a sum).

The file is a draft until the last client is in it; then it is synced, once, and gets its name. A draft that a killed
run leaves behind is thrown away: nothing that was computed for it had left the process. A file that has its name holds
the whole sum, and whatever is wrong with it ends the run. Each part is sealed (``secagg.crypto.seal``) under a key
derived from the run's secret for this sum, and bound to the plan (hence session, round and model) and to the client's
name. That is worth as much as the secret, which lies in the same directory: who copies the file alone learns its
length.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from protocols.plan import RoundPlan
from secagg.at_rest import AnyFolder, Folder
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.seal import open_box, seal
from secagg.errors import AtRestError, DecodeError, PeerError, StorageError
from secagg.foreign import as_declared, parse_json

SUM = re.compile(r"sum-(\d+)\.sealed")
"""The name of a pending sum's file."""
_LENGTH_BYTES = 8
_HEADER = b"terms"
"""What the header of a file is bound to."""


@dataclass(frozen=True, slots=True)
class Input:
    """What one client puts into a sum, and what it keeps."""

    vector: bytes = b""
    """its encoded vector, packed by the plan's ring; empty for a client that refused the plan"""
    kept: bytes = field(default=b"", repr=False)
    """what it keeps to itself if the vector is in the sum"""


@dataclass(frozen=True, slots=True)
class PendingSum:
    """All that goes into a sum."""

    plan: RoundPlan
    silent: Mapping[str, str]
    """client -> the phase in which it drops out"""
    inputs: Mapping[str, Input]


@dataclass(frozen=True, slots=True)
class _Header:
    plan: str
    silent: Mapping[str, str]
    names: tuple[str, ...]


WriteInput = Callable[[str, Input], None]
"""Takes a client's name, and what is its part of the sum."""


class PendingSums:
    """The files of pending sums in a directory. At most one sum of a run is pending."""

    def __init__(self, folder: AnyFolder, secret: bytes) -> None:
        self._folder, self._secret = Folder.of(folder), secret

    def read(self, number: int) -> PendingSum | None:
        """What goes into this sum, or None if nothing of it has left a client."""
        if newer := [other for other in self._numbers() if other > number]:
            raise StorageError(
                f"sum {newer[0]} was begun in {self._folder}, and sum {number} is asked for: the checkpoint is older "
                "than that. Start a new run"
            )
        path = self._path(number)
        try:
            sealed_header, *boxes = _parts(self._folder.read(path.name, private=True))
            key = self._key(number)
            header: _Header = as_declared(_Header, parse_json(open_box(key, sealed_header, _HEADER)))
            plan = RoundPlan.decode(bytes.fromhex(header.plan))
            digest = plan.digest()
            inputs = {
                name: _input(open_box(key, box, digest + name.encode()))
                for name, box in zip(header.names, boxes, strict=True)
            }
        except FileNotFoundError:
            return None
        except AtRestError:
            raise
        except (OSError, PeerError, DecodeError, ValueError):
            raise StorageError(f"{path} cannot be read, and sum {number} was begun: start a new run") from None
        return PendingSum(plan, header.silent, inputs)

    @contextmanager
    def writing(
        self, number: int, plan: RoundPlan, silent: Mapping[str, str], names: tuple[str, ...]
    ) -> Iterator[WriteInput]:
        """Takes what all ``names`` put in, in their order. Once this is left, without an error, they are on disk."""
        path, key, digest = self._path(number), self._key(number), plan.digest()

        def write(data: bytes, associated: bytes) -> None:
            # The system's randomness: a draft may be begun again, with other vectors under the same key.
            box = seal(key, data, associated, os.urandom)
            with _stored(path):
                file.write(_part(box))

        with self._folder.writing(path.name, private=True) as file:
            write(json.dumps(asdict(_Header(plan.encode().hex(), silent, names))).encode(), _HEADER)
            yield lambda name, one: write(_part(one.vector) + _part(one.kept), digest + name.encode())

    def delete(self, before: int) -> None:
        """Delete the sums before this number: they are out, and what came of them is on disk."""
        for number in self._numbers():
            if number < before:
                with _stored(self._path(number)):
                    self._path(number).unlink()

    def _numbers(self) -> list[int]:
        names = (SUM.fullmatch(path.name) for path in self._folder.path.iterdir())
        return sorted(int(found[1]) for found in names if found)

    def _path(self, number: int) -> Path:
        return self._folder / f"sum-{number}.sealed"

    def _key(self, number: int) -> bytes:
        return derive(self._secret, labels.SIMULATED, b"begun", number.to_bytes(8, "big"))


def _input(data: bytes) -> Input:
    vector, kept = _parts(data)
    return Input(vector, kept)


def _part(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _parts(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        length, at = int.from_bytes(data[at : at + _LENGTH_BYTES], "big"), at + _LENGTH_BYTES
        yield data[at : at + length]  # one that is cut short does not open
        at += length


@contextmanager
def _stored(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None
