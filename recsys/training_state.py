"""What changes in a training from one round to the next, and its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.run_record import NO_CHECKPOINT, Round
from secagg import tensors
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.errors import DecodeError
from secagg.foreign import as_declared
from secagg.tensors import Pieces

_OPTIMISER, _CALLS = "optimiser ", "calls "


@dataclass(slots=True)
class TrainingState:
    """All of a run that changes from round to round. Its encoded form is the run's checkpoint.

    ``common`` is the server's control variate, ``weight`` how much all clients counted in it, and ``sealed`` what
    clients keep, where they keep anything (``recsys.kept_by_clients``). From ``calls`` and ``called`` follows who is in
    the next sum (``recsys.callers``), as JSON and arrays.
    """

    vector: NDArray[np.float32]
    optimiser: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    rounds: tuple[Round, ...] = ()
    common: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    weight: float = 1.0
    sealed: bytes = b""
    calls: Mapping[str, Any] = field(default_factory=dict)
    called: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def encode(self, secret: bytes) -> Pieces:
        """Authenticated by the run's secret."""
        arrays: dict[str, NDArray[Any]] = {f"{_OPTIMISER}{name}": array for name, array in self.optimiser.items()}
        arrays |= {"vector": self.vector, "common": self.common, "sealed": np.frombuffer(self.sealed, np.uint8)}
        arrays |= {f"{_CALLS}{name}": array for name, array in self.called.items()}
        rounds = [asdict(one) for one in self.rounds]
        header = {"rounds": rounds, "weight": self.weight, "calls": dict(self.calls)}
        return tensors.encode(header, arrays, _key(secret))

    @classmethod
    def decode(cls, data: bytes, secret: bytes) -> TrainingState:
        try:
            header, arrays = tensors.decode(data, _key(secret))
            rounds = as_declared(tuple[Round, ...], header["rounds"])
            vector, common, sealed = arrays.pop("vector"), arrays.pop("common"), arrays.pop("sealed").tobytes()
            weight, calls = as_declared(float, header["weight"]), header["calls"]
            if not isinstance(calls, dict):
                raise DecodeError(NO_CHECKPOINT)
        except (DecodeError, KeyError):
            raise DecodeError(NO_CHECKPOINT) from None
        called = {name.removeprefix(_CALLS): arrays.pop(name) for name in list(arrays) if name.startswith(_CALLS)}
        optimiser = {name.removeprefix(_OPTIMISER): array for name, array in arrays.items()}
        return cls(vector, optimiser, rounds, common, weight, sealed, calls, called)


def _key(secret: bytes) -> bytes:
    return derive(secret, labels.STORED, b"checkpoint of rounds")
