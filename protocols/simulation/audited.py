"""Private sums as ``dp.audit`` takes them: a callable that is given the clients' updates and releases one noised sum.

What an update meets on its way is what runs in production: encoding, noise, the parties' machines, dropouts, a ledger.
Only the clients are made up, so nobody's privacy is spent. Whatever a client is trusted with (above all, that it adds
its noise) is done here by the library's own client: other clients are not audited by this.

Where clients are silos the updates are users', dealt out to the silos in turn. A user who may be in several silos is in
as many, and each has an equal part of the update: together they may add up to so many times the clip.

What is claimed of a sum is written down here a second time, from the words of ``dp.noise`` and not with the functions
by which clients, server and accountant go: asked what is right, a wrong function would say that it is.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import ceil, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np

from dp.audit import Claim, Draw, Noise, Vector
from dp.calibrate import SLACK, Calibration, evaluate, holder_of, user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols import registry
from protocols.plan import SESSION_BYTES, RoundPlan
from protocols.policy import Policy
from protocols.server import serve
from protocols.simulation.network import Faults, local_clients, simulate
from secagg.crypto.keys import KEY_BYTES, SigningKey
from secagg.crypto.prg import Rng
from secagg.errors import UsageError

RELATION = Relation.ZERO_OUT


class PrivateSums:
    """Rounds of one plan, as many as are called for. Each ``rounds`` of them are charged to a ledger of their own.

    >>> import numpy as np
    >>> from dp.calibrate import calibrate
    >>> found = calibrate(epsilon=8, delta=1e-3, rounds=2, clients=4, length=3, clip_l2=1.0, dropouts=1)
    >>> with PrivateSums(found, rounds=2, delta=1e-3) as sums:
    ...     claim = sums.claim(missing=1)
    ...     total = sums.release([np.full(3, 0.5)] * 4, missing=[0])
    >>> bool(np.abs(total - 1.5).max() < 8 * claim.noise_std)
    True
    """

    def __init__(
        self, found: Calibration, *, rounds: int, delta: float, protocol: str = "secagg", rng: Rng = os.urandom
    ) -> None:
        if found.encoding.weight_bound > 1:
            raise UsageError("only sums without weights are audited")
        if found.encoding.sampled < 1:
            raise UsageError("only sums of all users are audited: what is claimed of one is not what a sample moves")
        users, overlap = found.encoding.users, found.encoding.overlap
        if users and users < overlap:
            raise UsageError(f"audited are silos of at least as many users as one user has silos: {overlap}")
        n, least = found.clients, found.clients - found.noise.dropouts
        self.units = n * (users // overlap) if users else n
        """Users, as many as the silos may have together; or clients."""
        corrupt, dropout = f"{found.noise.colluders}/{n}", f"{found.noise.dropouts}/{n}"
        self._policy = Policy(min_contributors=least, corrupt=corrupt, dropout=dropout, users=users, overlap=overlap)
        self.roster, self._clients = local_clients(n, self._policy, rng)
        self._plan = RoundPlan.propose(
            protocol,
            self.roster,
            found.encoding,
            min_contributors=least,
            corrupt=corrupt,
            dropout=dropout,
            noise=found.noise,
            session=rng(SESSION_BYTES),
        )
        self.found, self.rounds, self.delta = found, rounds, delta
        self.charged: list[list[float]] = []
        """For each ledger, the epsilon that it came to after each round."""
        self._key = SigningKey(rng(KEY_BYTES))
        self._ledger: Ledger | None = None
        self._held = ExitStack()
        self._folder = Path(self._held.enter_context(TemporaryDirectory()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_ledger()
        self._held.close()

    def release(self, updates: Sequence[Vector], missing: Collection[int] = (), overlap: int | None = None) -> Vector:
        """One round, in which the clients ``missing`` fall silent before they upload.

        Each user is in ``overlap`` silos, by default in as many as there may be. Users beyond ``updates`` have nothing.
        """
        ledger, inputs = self._ledger_with_room(), self._dealt(updates, overlap or self.found.encoding.overlap)
        names = self.roster.names
        faults = Faults(dropouts={names[i]: "upload" for i in missing})
        server = serve(self._plan, self.roster, ledger=ledger)
        ran = simulate(server, self._clients, dict(zip(names, inputs, strict=True)).get, faults=faults)
        for incident in ran.incidents:
            raise incident.error
        self.charged[-1].append(ledger.epsilon)
        self._plan = self._plan.next_round()
        for client in self._clients.values():
            client.finish()
        return ran.outcome.decode().vector

    def _dealt(self, updates: Sequence[Vector], overlap: int) -> Sequence[Any]:
        """What each client starts with."""
        if not self.found.encoding.users:
            return updates
        silos: list[list[Vector]] = [[] for _ in self.roster.names]
        for user, update in enumerate(updates):
            for i in range(overlap):
                silos[(user + i) % len(silos)].append(update / overlap)
        return silos

    def claim(self, missing: int = 0) -> Claim:
        """Of one round with so many clients missing, for whoever sees its sum (colluders see less noise than this)."""
        found, sensitivity = self.found, self.found.encoding.sensitivity()
        n, noise = found.clients, found.noise
        one = evaluate(found.encoding, noise, clients=n, rounds=1, delta=self.delta, survivors=n - missing)
        variance = float(planned_variance(noise, n, missing))
        return Claim(
            noise_std=sqrt(variance) / found.encoding.scale,
            clip_l2=found.encoding.clip_l2 * found.encoding.overlap,
            mu=sqrt(sensitivity.l2_squared / variance),
            epsilon=one.epsilon,
            delta=self.delta,
            relation=RELATION,
            excess_kurtosis=1 / variance if noise.family is Family.SKELLAM else 0.0,
            step=1 / found.encoding.scale,
        )

    def drawn(self, draw: Draw, count: int) -> Vector:
        """The noise, in whole numbers, that one client's machine adds to ``count`` zeros when all else is as given."""
        plan = replace(self._plan, round=draw.round)
        identity = self._clients[self.roster.names[draw.client]].identity
        protocol, zeros = registry.find(plan.protocol), np.zeros(count, np.int64)
        made = protocol.client(plan, self.roster, protocol.messages, identity, self._policy, lambda: zeros, draw.secret)
        return made.noised(draw.bound).astype(np.float64)

    def share(self) -> Noise:
        """What one client adds, in whole numbers."""
        noise = self.found.noise
        variance = float(noise.variance / (self.found.clients - noise.dropouts - noise.colluders))
        kurtosis = 1 / variance if noise.family is Family.SKELLAM else 0.0
        return Noise(sqrt(variance), kurtosis, step=1.0)

    def parts(self, count: int, seed: bytes) -> list[Vector]:
        """What comes off the sum of one client's noise, level by level, in units of its planned deviation."""
        noise, n = self.found.noise, self.found.clients
        left = [noise.excess(n, count, noise.seed(seed, level), level) for level in range(noise.components + 1)]
        planned = _part_variances(noise, n)
        return [(more - less) / sqrt(v) for (more, less), v in zip(pairwise(left), planned, strict=True)]

    def part(self) -> Noise:
        """Of the smallest removable part, in units of its deviation."""
        noise = self.found.noise
        least = min(_part_variances(noise, self.found.clients))
        return Noise(1.0, 1 / least if noise.family is Family.SKELLAM else 0.0, step=1 / sqrt(least))

    def _ledger_with_room(self) -> Ledger:
        if self._ledger is None or len(self.charged[-1]) == self.rounds:
            self._close_ledger()
            guarantee = user_level(RELATION, holder_of(self.found.encoding))
            epsilon, delta = Fraction(self.found.epsilon), Fraction(self.delta)
            event = self._plan.secure_sum(self._plan.clients).worst().release(guarantee)
            budget = Budget.suited(event, epsilon, delta, slack=delta * SLACK)
            path = self._folder / f"{len(self.charged)}.db"
            self._ledger = Ledger.create(path, self._key, budget, guarantee, run="audit", elsewhere="made-up clients")
            self.charged.append([])
        return self._ledger

    def _close_ledger(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None


def planned_variance(noise: NoiseSpec, clients: int, missing: int) -> Fraction:
    """Of the noise in a sum from which so many clients are missing, colluders' included, in integer units.

    >>> from dp.noise import Family
    >>> noise = NoiseSpec(Family.SKELLAM, Fraction(900), dropouts=4, colluders=1, components=2)
    >>> [str(planned_variance(noise, 10, missing)) for missing in range(5)]
    ['1000', '8100/7', '7200/7', '1260', '1080']
    """
    tolerated = min(level for level in _levels(noise) if level >= missing)
    return (clients - missing) * noise.variance / (clients - tolerated - noise.colluders)


def _levels(noise: NoiseSpec) -> list[int]:
    """How many clients may be missing, at each level of removable noise."""
    steps = noise.components
    return [ceil(Fraction(j * noise.dropouts, steps)) for j in range(steps + 1)] if steps else [noise.dropouts]


def _part_variances(noise: NoiseSpec, clients: int) -> list[float]:
    each = [noise.variance / (clients - missing - noise.colluders) for missing in _levels(noise)]
    return [float(more - less) for less, more in pairwise(each)]


def without_rotation(found: Calibration) -> Calibration:
    """The same scale, bounds and noise, in the basis in which the noise is drawn: there rounds can be compared."""
    encoding = found.encoding
    flat = replace(encoding, length=encoding.coordinates, rotate=False, clip_inf=encoding.clip_inf)
    return replace(found, encoding=flat)
