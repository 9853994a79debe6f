"""What a cell of the grid spends: each noised sum is charged to a ledger, and an auditor's script reads that.

Through a real protocol the server charges, as in any run. The ideal functionality has no server: ``Charged`` writes
each sum down before it is made. Either way ``dp/verify_ledger.py`` computes the epsilon again, from the facts alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dp.calibrate import release_of
from dp.filter import RESOLUTION
from dp.ledger import FILE, Ledger
from dp.verify_ledger import Audit, export_of, problems
from recsys.aggregator import Aggregator, Request, Result, Update
from recsys.budgets import DistributedNoise
from secagg.crypto.keys import SigningKey
from secagg.errors import StorageError, UsageError

NEARLY = 1e-3
"""The ledger and the script may differ by so much in epsilon."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Epsilon, by the ledger and by the auditor's script."""

    charged: float = 0.0
    verified: float = 0.0


@contextmanager
def ledger_of(privacy: DistributedNoise, secret: bytes) -> Iterator[Ledger]:
    """A ledger that is gone when this is left."""
    with TemporaryDirectory() as folder:
        ledger = Ledger.create(
            Path(folder) / FILE,
            SigningKey(secret),
            privacy.budget,
            privacy.guarantee,
            run="a cell of a benchmark",
            elsewhere="all that the benchmark measures, which is exact",
        )
        with closing(ledger):
            yield ledger


def spent(ledger: Ledger, secret: bytes) -> Spent:
    """What the ledger says, which is closed, and what the script finds. ``StorageError``: they do not agree."""
    ledger.close()
    key = SigningKey(secret).public
    audit = Audit(key)
    found = list(problems(export_of(ledger.path), key, None, audit))
    reached = None if found else audit.book().reached
    if reached is None or abs(reached / RESOLUTION - ledger.epsilon) > NEARLY:
        raise StorageError(f"the ledger says {ledger.epsilon:.6f}, and the script: {'; '.join(found) or reached}")
    return Spent(ledger.epsilon, reached / RESOLUTION)


class Charged:
    """Charges each sum over all of a cohort, and then has it made: what the ledger does not allow is not added up."""

    def __init__(self, aggregator: Aggregator, ledger: Ledger) -> None:
        self._adder, self._ledger = aggregator, ledger

    def aggregate(self, request: Request, update: Update) -> Result:
        encoding, noise, clients = request.encoding, request.noise, len(request.cohort)
        if noise is None:
            raise UsageError("a sum without noise has no place under a budget")
        event = release_of(encoding, noise, clients, clients, self._ledger.guarantee)
        self._ledger.charge(event, samples=noise.samples(clients, encoding.coordinates))
        return self._adder.aggregate(request, update)
