"""What clients keep from one sum to the next, and show nobody: arrays of several kinds, each under a client's name.

A kind is a SCAFFOLD control variate (``recsys.control_variates``) or a personal head (``recsys.personal_heads``), say.
For all kinds the same holds:

    who moves   What a client keeps moves when the client is in a sum that is out, and at no other time. Who drops out,
                or is in a sum that fails, goes on with what it had: its training had no effect anywhere.
    once        It moves in the same checkpoint as the model, and to what was decided before anything left the client:
                that is a function of the encoded vector; or, where no integer says it, it is on disk beside that vector
                before the sum begins (``Request.keeping``, ``recsys.pending_sum``). A restarted run reads it, and
                trains nothing twice.
    sealed      On disk it is sealed under a key from the run's secret and bound to the number of rounds, so that what
                was kept after another round, or in another run, does not open. That is worth as much as the secret.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from math import prod
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from secagg import tensors
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.seal import open_box, seal
from secagg.errors import DecodeError, PeerError, StorageError

Kinds = Mapping[str, NDArray[np.float32]]
"""kind -> what one client keeps of it"""
_Held = dict[tuple[str, ...], NDArray[np.float32]]


class KeptByClients:
    """What all clients of a run keep, each of which would have its own on its own disk.

    >>> kept = KeptByClients(bytes(32))
    >>> kept.move({"ann": {"head": np.float32([1, 2])}})
    >>> again = KeptByClients(bytes(32))
    >>> again.open(3, kept.sealed(3))
    >>> again.of("head")["ann"].tolist(), dict(again.of("another kind"))
    ([1.0, 2.0], {})
    """

    def __init__(self, secret: bytes) -> None:
        self._key = derive(secret, labels.SIMULATED, b"kept by clients")
        self._kept = defaultdict[str, dict[str, NDArray[np.float32]]](dict)

    def of(self, kind: str) -> Mapping[str, NDArray[np.float32]]:
        """client -> what it keeps of this kind, now and later; without those that have nothing yet."""
        return MappingProxyType(self._kept[kind])

    def move(self, moved: Mapping[str, Kinds]) -> None:
        """A sum is out: what each client that is in it keeps from now on, of the kinds that are named."""
        for client, kinds in moved.items():
            for kind, array in kinds.items():
                self._kept[kind][client] = array

    def sealed(self, rounds: int) -> bytes:
        """All of it after so many rounds, for a checkpoint."""
        held: _Held = {(kind, client): array for kind, some in self._kept.items() for client, array in some.items()}
        return seal(self._key, _encoded(held), _associated(rounds), os.urandom)

    def open(self, rounds: int, sealed: bytes) -> None:
        """Go on from a checkpoint."""
        try:
            held = _decoded(open_box(self._key, sealed, _associated(rounds)))
        except (PeerError, DecodeError):
            raise StorageError(
                "the checkpoint has something else kept by clients than that round left: start a new run"
            ) from None
        for some in self._kept.values():
            some.clear()
        for (kind, client), array in held.items():
            self._kept[kind][client] = array


def encode_kinds(kinds: Kinds) -> bytes:
    """What one client will keep, to be stored beside its vector; nothing if there is nothing."""
    return _encoded({(kind,): array for kind, array in kinds.items()}) if kinds else b""


def decode_kinds(data: bytes) -> Kinds:
    """
    >>> decode_kinds(encode_kinds({"head": np.float32([[1], [2]])}))["head"].tolist(), dict(decode_kinds(b""))
    ([[1.0], [2.0]], {})
    """
    return {kind: array for (kind,), array in _decoded(data).items()} if data else {}


def _encoded(held: _Held) -> bytes:
    shapes = [[*names, array.shape] for names, array in held.items()]
    numbers = np.concatenate([np.zeros(0, np.float32), *(array.ravel() for array in held.values())])
    return b"".join(tensors.encode({"shapes": shapes}, {"numbers": numbers}))


def _decoded(data: bytes) -> _Held:
    header, arrays = tensors.decode(data)
    named = [(tuple(name), shape) for *name, shape in header["shapes"]]
    parts = np.split(arrays["numbers"], np.cumsum([prod(shape) for _, shape in named])[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(named, parts, strict=False)}


def _associated(rounds: int) -> bytes:
    return rounds.to_bytes(8, "big")
