"""Random rounds with as many liars as are planned for: an exact sum over all the others, or names; and what is spent.

Silent and lying clients together are at most the planned dropouts, liars at most the planned corrupt ones. What each
liar does is drawn from ``lies.LIES``, in which phase a silent client leaves, from all phases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmarks.rounds import people
from benchmarks.studies.liars.lies import LIES
from benchmarks.studies.liars.parties import Mixed, Setting, check_sum, played
from dp.calibrate import calibrate, user_level
from dp.events import Relation
from dp.filter import Kind
from dp.ledger import Budget, Ledger
from protocols.pairwise.client import PairwiseClient
from protocols.pairwise.server import PairwiseServer
from protocols.plan import RoundPlan
from protocols.server import serve
from secagg.crypto.keys import SigningKey
from secagg.errors import BudgetError, PeerError, ThresholdError


@dataclass(frozen=True, slots=True)
class Ended:
    """How a round ended. ``named`` are those caught lying in it, and those whom the error blames that ends it."""

    liars: int
    exact: bool
    named: tuple[str, ...]
    burnt: bool
    """Whether somebody has revealed shares, before which a privacy budget is committed, and there is no sum."""


def random_round(seed: int, number: int, corrupt: str, dropout: str) -> Ended:
    """``corrupt`` is not above ``dropout``, since who is caught is a dropout."""
    rng = np.random.default_rng([seed, number])
    setting = Setting(("secagg", "secagg+")[number % 2], int(rng.integers(20, 61)), 16, corrupt, dropout)
    bad = int(Fraction(dropout) * setting.n)
    lying = int(rng.integers(1, min(bad, int(Fraction(corrupt) * setting.n)) + 1))
    chosen, kinds, phases = rng.permutation(setting.n)[:bad].tolist(), list(LIES), list(PairwiseServer.steps)
    lies = {one: LIES[kinds[int(rng.integers(len(kinds)))]] for one in chosen[:lying]}
    silent = {one: str(phases[int(rng.integers(len(phases)))]) for one in chosen[lying:]}
    return ended(setting, lies, silent)


def ended(setting: Setting, lies: Mapping[int, type[PairwiseClient]], silent: Mapping[int, str]) -> Ended:
    """One round, in which nothing may happen that the protocol excludes: ``RuntimeError`` if it does."""
    plan, roster = setting.plan()
    liars = {roster.names[one]: lie for one, lie in lies.items()}
    gone = {roster.names[one]: phase for one, phase in silent.items()}
    parties, server = Mixed(plan, setting.policy, liars), serve(plan, roster)
    named = set[str]()
    try:
        ran = played(server, parties, gone)
    except (PeerError, ThresholdError) as error:
        named.update(error.culprits)
        if not named:
            raise RuntimeError(f"the round ended, and nobody is named: {error}") from error
    else:
        check_sum(ran, parties, gone)
    named.update(server.liars)
    if innocent := named - liars.keys():
        raise RuntimeError(f"{len(innocent)} honest clients are named")
    if left_out := set(server.excluded) - liars.keys() - gone.keys():
        raise RuntimeError(f"{len(left_out)} clients are left out that did nothing wrong")
    exact = server.outcome is not None
    burnt = not exact and any(client.done for client in parties.honest.values())
    return Ended(len(lies), exact, tuple(sorted(named)), burnt)


_ROUNDS, _EPSILON, _DELTA = 3, 4, Fraction(1, 10**5)


@dataclass(frozen=True, slots=True)
class Spent:
    """Of rounds that were begun one after the other under a budget for three."""

    sums: int
    burnt: int
    """Rounds that were paid for and had no sum."""
    epsilon: float
    named: tuple[str, ...]


def spent(lie: type[PairwiseClient] | None, folder: Path, attempts: int = 4, clients: int = 20) -> Spent:
    """What one liar costs the server's ledger, if it lies in each round and is never thrown out."""
    found = calibrate(
        epsilon=_EPSILON,
        delta=float(_DELTA),
        rounds=_ROUNDS,
        clients=clients,
        length=16,
        clip_l2=1.0,
        dropouts=clients // 5,
        colluders=clients // 10,
        components=2,
    )
    _, roster = people(clients)
    setting = Setting("secagg", clients, 16, "0.1", "0.2")
    budget = Budget(Fraction(_EPSILON), _DELTA, slack=_DELTA / 10**4, kind=Kind.GDP)
    key, guarantee = SigningKey(bytes(32)), user_level(Relation.ZERO_OUT)
    ledger = Ledger.create(folder / "ledger.db", key, budget, guarantee, run="liars", elsewhere="nothing")
    lies = {} if lie is None else {roster.names[1]: lie}
    sums, burnt, named = 0, 0, set[str]()
    for _ in range(attempts):
        plan = RoundPlan.propose(
            "secagg",
            roster,
            found.encoding,
            noise=found.noise,
            min_contributors=clients - clients // 5,
            corrupt=setting.corrupt,
            dropout=setting.dropout,
        )
        try:
            server = serve(plan, roster, ledger=ledger)
        except BudgetError:  # spent
            break
        try:
            played(server, Mixed(plan, setting.policy, lies), {})
        except (PeerError, ThresholdError) as error:
            named.update(error.culprits)
            burnt += ledger.committed(plan.secure_sum(plan.clients))
        else:
            sums += 1
        named.update(server.liars)
    epsilon = ledger.epsilon
    ledger.close()
    return Spent(sums, burnt, epsilon, tuple(sorted(named)))
