"""One corrupt client at many places of the cohort, at the parameters of a real round.

The tree of adverts is built by the server. A client sees only itself and its neighbours under the root. Were these
only compared with each other, the 10% who are corrupt could stand at 70% of the places, each as often as the server
likes, as long as no two copies are neighbours of the same client: one that sees none has t corrupt neighbours, and
loses its vector. Finding a root under which there is such a victim takes some twenty tries. So the tree itself is
ordered.
"""

from __future__ import annotations

import numpy as np
import pytest

from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from secagg.crypto import merkle
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError
from tests.controls import switch_off
from tests.scenes.pairwise import LENGTH, Evil

N, COPIES = 10_000, 7
CORRUPT = range(5, N, 10)
ASKED = {"corrupt": "0.1", "dropout": "0.1"}


def sybil_cohort() -> tuple[Evil, int]:
    """A cohort of n places, under real (k, t), and the place of a victim in it: its neighbours are all different
    clients, but at least t of them corrupt."""
    names = [f"client-{i:04}" for i in range(N)]
    identities = {name: Identity.generate(name, Prg(name.encode().ljust(32))) for name in names}
    roster, encoding = Roster.of(list(identities.values())), Encoding.integers(LENGTH)
    plan = RoundPlan.propose("secagg+", roster, encoding, min_contributors=100, session=bytes(16), **ASKED)
    evil = Evil(plan, roster, identities, CORRUPT, Policy(min_contributors=100, **ASKED))
    places = np.sort([*CORRUPT] * COPIES + [number for number in range(N) if number % 10 in (0, 3, 7)])
    honest, last = np.flatnonzero(places % 10 != 5), evil.puppets[CORRUPT[-1]]
    adverts = {number: evil.start(number) for number in sorted(set(places.tolist()))}
    evil.found([adverts[number] for number in places.tolist()])
    for attempt in range(1000):
        last.round._self_secret = attempt.to_bytes(32, "big")
        evil.exchange(last.round.opening())
        graph = evil.cohort._graph
        around = np.concatenate([[0], graph._steps])
        seen = np.sort(places[graph._order[(graph._rank[honest][:, None] + around) % N]], axis=1)
        captured = (seen % 10 == 5).sum(axis=1) >= evil.t
        fooled = (seen[:, 1:] != seen[:, :-1]).all(axis=1)
        if (captured & fooled).any():
            return evil, int(honest[captured & fooled][0])
    raise LookupError("the clients see the copies")


def rob(evil: Evil, u: int) -> list[int]:
    evil.share([u])
    corrupt = [v for v in evil.others(u) if evil.puppet(v) is not None]
    evil.deal_falsely(u, corrupt)
    evil.upload([u])
    return evil.sum_of([u])


def test_a_corrupt_client_stands_at_one_place_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is in order: policy, (k, t) for the real size, root, places, neighbours, signatures."""
    evil, u = sybil_cohort()
    with pytest.raises(PeerError, match="leaves out of order, or one of them twice"):
        rob(evil, u)
    switch_off(monkeypatch, merkle, "_join", "not left.low <= left.high < right.low <= right.high")
    assert rob(evil, u) == evil.values[evil.leaves[u].client].tolist()
