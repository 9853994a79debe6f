"""Two private sums over a table that is too large for one: ``python sparse_sums.py``.

Twenty silos of fifty users have a table of 20,000 rows of 16 numbers in common, of which each user touches thirty rows.
Which rows at least three users touched, and what all want added to these, is learnt at epsilon 8; nobody learns which
rows a user touched. docs/sparse.md goes through it.
"""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dp.calibrate import calibrate, user_level, with_multiplier
from dp.events import Holder, Relation
from dp.filter import Kind
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import simulate
from protocols.sparse import Catalogue, Released
from secagg.crypto.prg import Prg, random_words
from secagg.encoding import Encoding

SILOS, USERS, ROWS, WIDTH, TOUCHES = 20, 50, 20_000, 16, 30
EPSILON, DELTA, CLIP = Fraction(8), Fraction(1, 10**6), 1.0
KIND = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(1), dropouts=4, colluders=2, components=4)


def main() -> None:
    catalogue = Catalogue.of([f"item {row}" for row in range(ROWS)], WIDTH, cap=TOUCHES, least=3)
    policy = Policy(min_contributors=15, corrupt="0.1", dropout="0.2", users=USERS, noise_multiplier="0.5")
    identities = [Identity.generate(f"silo-{number:02}") for number in range(SILOS)]
    roster = Roster.of(identities)
    clients = {one.name: Client(one, roster, policy=policy) for one in identities}
    updates = {name: made_up(number) for number, name in enumerate(clients)}
    multiplier = calibrate(
        epsilon=EPSILON, delta=DELTA, rounds=2, clients=SILOS, length=ROWS, clip_l2=CLIP, users=USERS,
        dropouts=KIND.dropouts, colluders=KIND.colluders, components=KIND.components,
    ).noise_multiplier  # fmt: skip
    budget = Budget(EPSILON, DELTA, slack=DELTA / 100, kind=Kind.GDP)
    guarantee = user_level(Relation.ZERO_OUT, Holder.SILO)

    def planned(encoding: Encoding, noise: NoiseSpec, model: bytes) -> RoundPlan:
        fears: dict[str, Any] = {"min_contributors": 16, "corrupt": "0.1", "dropout": "0.2"}
        return RoundPlan.propose("secagg", roster, encoding, noise=noise, model=model, **fears)

    with TemporaryDirectory() as folder:
        key = Identity.generate("server").key
        path = Path(folder) / "ledger.db"
        with closing(Ledger.create(path, key, budget, guarantee, run="two sums", elsewhere="nothing")) as ledger:
            encoding, noise = catalogue.noised(multiplier, KIND, SILOS, users=USERS)
            first = planned(encoding, noise, catalogue.model())
            catalogue.check(first, policy)  # each client, before it looks at its users' data
            counts = {name: catalogue.touched_by(users) for name, users in updates.items()}
            outcome = simulate(serve(first, roster, ledger=ledger), clients, counts.get).outcome

            released = Released.of(catalogue, outcome)
            encodings = (Encoding(released.length, CLIP, bits, users=USERS) for bits in range(20, 4, -1))
            found = with_multiplier(multiplier, KIND, encodings, SILOS, ring_bits=32)
            if found is None:
                raise SystemExit("no ring of 32 bits holds the noise")
            second = planned(*found, released.model())
            rows = Released.decode(catalogue, released.encode())  # each client, from what the server sends
            rows.check(second, policy, counts=first)
            restricted = {name: rows.restricted_by(users) for name, users in updates.items()}
            outcome = simulate(serve(second, roster, ledger=ledger), clients, restricted.get).outcome
            table = rows.table(outcome.decode().vector)
            print(f"{len(table)} of {ROWS} rows came out; the largest entry of their sum is {np.abs(table).max():.1f}")
            sizes = [plan.ring.packed_size(plan.encoding.coordinates) for plan in (first, second)]
            print(f"a vector of each sum: {sizes[0]} and {sizes[1]} bytes; a dense one: {ROWS * WIDTH * 3} bytes")
            print(f"epsilon spent: {ledger.epsilon:.2f}")


def made_up(silo: int) -> list[dict[int, Any]]:
    """The updates of a silo's users, with rows by Zipf's law."""
    words = random_words(Prg(silo.to_bytes(32, "big")), 4 * TOUCHES * USERS).reshape(USERS, -1)
    law = np.cumsum(1 / np.arange(1, ROWS + 1))
    drawn = np.searchsorted(law, words / 2.0**64 * law[-1])
    return [{row: np.full(WIDTH, 0.05) for row in list(dict.fromkeys(rows.tolist()))[:TOUCHES]} for rows in drawn]


if __name__ == "__main__":
    main()
