"""One seed, one deployment: who takes part, on which terms, what goes wrong, and who lies.

Everything that is drawn comes from one generator, so a seed stands for the whole run. What a deployment promises is
computed here a second time, from the words of the docs: how many may be missing, and whether a sum must come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cache
from math import ceil, floor
from random import Random

import numpy as np
from numpy.typing import NDArray

from dp.noise import Family, NoiseSpec
from protocols import registry
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from secagg.assumptions import Adversary, colluders
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding, Rounding
from secagg.errors import PolicyError, SecAggError, UsageError

PAIRWISE = ("secagg", "secagg+")
WEIGHTS = {"secagg": 30, "secagg+": 34, "oneshot": 22, "threshold_ckks": 9, "ckks": 5}
"""How often each protocol is drawn: by what there is to attack, and by what a round costs."""
BEACON = b"a beacon that nobody chose"


@dataclass(frozen=True)
class Faults:
    """What goes wrong in one round, other than lies."""

    dropouts: Mapping[str, str] = field(default_factory=dict)
    """name -> the first phase in which nothing more is heard of this client"""
    garbled: frozenset[tuple[str, str]] = frozenset()
    """(name, phase): the frame that this client sends in this phase arrives damaged"""
    garbled_down: frozenset[tuple[str, str]] = frozenset()
    """(name, phase): the frame that opens this phase for this client arrives damaged"""
    duplicated: frozenset[str] = frozenset()
    """Phases in which every frame arrives twice, in both directions."""
    shuffled: bool = False
    restarts: frozenset[tuple[str, str]] = frozenset()
    """(name, phase): this client dies and starts again before it hears what opens this phase"""

    @property
    def gone(self) -> frozenset[str]:
        return frozenset(
            [*self.dropouts, *(name for name, _ in self.garbled), *(name for name, _ in self.garbled_down)]
        )


NONE = Faults()
KINDS = tuple(field_.name for field_ in fields(Faults))


@dataclass(frozen=True)
class Deployment:
    seed: int
    plan: RoundPlan
    """Of the first round."""
    roster: Roster
    identities: Mapping[str, Identity]
    policy: Policy
    rounds: int
    liar: str
    """"" for nobody, "server" or "client"."""
    moves: tuple[str, ...]
    """What the lying server does."""
    liars: Mapping[str, str]
    """Lying client -> what it does."""
    corrupt: tuple[str, ...]
    """Clients whose secrets the server has."""
    may_miss: int
    """So many clients may be gone in a round, and a sum must come out all the same."""
    refusing: Mapping[str, str]
    """name -> why this client refuses the plan"""
    durable: frozenset[str]
    """Clients that keep their journal in a file."""
    books: frozenset[str]
    """Clients that keep a privacy budget of their own."""
    strapped: bool
    """The server's budget is not enough for any round."""
    without: frozenset[str] = frozenset()
    """Faults that do not happen, of ``KINDS``."""
    planned: bool = False
    """Never more are missing or lie than the plan allows for."""

    @property
    def phases(self) -> list[str]:
        return [str(phase) for phase in registry.find(self.plan.protocol).server.steps]

    def draw(self, *purpose: object) -> Random:
        return Random(f"{self.seed} {purpose}")

    def updates(self, round_: int) -> dict[str, NDArray[np.float64]]:
        """What each client wants to put in; of a silo a row for each of its users."""
        encoding, draw = self.plan.encoding, np.random.default_rng([self.seed, round_])
        shape = (len(self.roster), *([encoding.users] if encoding.users else []), encoding.length)
        if encoding.scale == 1.0:
            values = draw.integers(-encoding.largest, encoding.largest + 1, shape).astype(float)
        else:
            values = draw.normal(size=shape) * encoding.clip_l2 / np.sqrt(encoding.length) * draw.choice([0.3, 3.0])
        made = dict(zip(self.roster.names, values, strict=True))
        if encoding.users:
            made = {name: rows[: draw.integers(encoding.users + 1)] for name, rows in made.items()}
        return made

    def weights(self, round_: int) -> dict[str, int]:
        draw = self.draw("weights", round_)
        return {name: draw.randint(1, self.plan.encoding.weight_bound) for name in self.roster.names}

    def faults(self, round_: int) -> Faults:
        """Mostly as many missing as are allowed for, or fewer; now and then more."""
        draw = self.draw("faults", round_)
        names = [name for name in self.roster.names if name not in self.refusing and name not in self.liars]
        most = max(self.may_miss - len(self.refusing) - len(self.liars), 0)
        wanted = draw.choice([0, 0, draw.randint(0, most), most, most])
        if draw.random() < 0.06 and not self.planned:
            wanted += draw.randint(1, 3)
        lost = draw.sample(names, min(wanted, len(names)))
        silent, garbled, garbled_down = dict[str, str](), set[tuple[str, str]](), set[tuple[str, str]]()
        for name in lost:
            kind, phase = draw.random(), draw.choice(self.phases)
            if kind < 0.7:
                silent[name] = phase
            elif kind < 0.85 or phase == self.phases[0]:
                garbled.add((name, phase))
            else:
                garbled_down.add((name, phase))
        restarts = {
            (draw.choice(self.roster.names), draw.choice(self.phases[1:])) for _ in range(draw.choice([0, 0, 1, 3]))
        }
        duplicated = draw.sample(self.phases, draw.choice([0, 0, 1]))
        faults = Faults(
            silent,
            frozenset(garbled),
            frozenset(garbled_down),
            frozenset(duplicated),
            draw.random() < 0.3,
            frozenset(restarts),
        )
        return replace(faults, **{kind: getattr(NONE, kind) for kind in self.without})


@cache
def people(count: int) -> tuple[Roster, dict[str, Identity]]:
    """The same people in every deployment of this size: keys are long-term, and making them takes time."""
    names = [f"client-{i:02}" for i in range(count)]
    identities = {name: Identity.generate(name, Prg(name.encode().ljust(32, b"."))) for name in names}
    return Roster.of(list(identities.values())), identities


@dataclass(frozen=True)
class Narrowed:
    """What is not left to the seed. For the command line, and for controls."""

    protocol: str | None = None
    liar: str | None = None
    """"" for nobody, "server" or "client"."""
    move: str | None = None
    planned: bool = False
    """20 to 60 clients, of whom as many lie as the plan allows for, each in its own way; others are silent."""
    noisy: bool | None = None
    length: int | None = None
    without: frozenset[str] = frozenset()
    """Faults that do not happen, of ``KINDS``."""


def deployed(seed: int, narrowed: Narrowed = Narrowed()) -> Deployment:  # frozen
    """What this seed stands for."""
    from tests.simulator.moves import CLIENT_MOVES, server_moves

    draw = Random(seed)
    drawn = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if narrowed.planned:
        drawn = draw.choice(PAIRWISE)
    protocol, move = narrowed.protocol or drawn, narrowed.move
    kind = draw.choices(["", "server", "client"], [40, 35, 25])[0]
    kind = kind if narrowed.liar is None else narrowed.liar
    kind = "client" if narrowed.planned else kind
    terms = _terms(draw, protocol, kind, narrowed)
    plan, policy = terms.plan, terms.policy
    roster, identities = people(plan.clients)
    corrupt: tuple[str, ...] = ()
    if kind != "client" and terms.corrupt:
        corrupt = tuple(sorted(draw.sample(roster.names, draw.randint(0, terms.corrupt))))
    liars, moves = dict[str, str](), tuple[str, ...]()
    if kind == "server":
        known = server_moves(protocol)
        moves = tuple(draw.sample(sorted(known), draw.choices([1, 2], [3, 1])[0])) if move is None else (move,)
    elif kind == "client":
        known = [name for name, one in CLIENT_MOVES.items() if protocol in one.protocols]
        for _ in range(terms.corrupt if narrowed.planned else 1):
            one = draw.choice(known) if move is None else move
            liars[draw.choice([name for name in roster.names if name not in liars])] = one
    refusing = dict[str, str]()
    room = terms.may_miss - len(liars)
    if kind != "server" and room > 0 and draw.random() < 0.15:
        reasons = ["other protocol", "more contributors", "another roster", *(["poor"] if plan.noise else ["noise"])]
        honest = [name for name in roster.names if name not in liars and name not in corrupt]
        refusing[draw.choice(honest)] = draw.choice(reasons)
    rounds = draw.choices([1, 2, 3], [60, 28, 12])[0] if "earlier_round" not in moves else draw.choice([2, 3])
    books, strapped = frozenset[str](), False
    if plan.noise is not None:
        others = [name for name in roster.names if name not in (*refusing, *corrupt, *liars)]
        books = frozenset(draw.sample(others, min(draw.choice([0, 0, 1, 2]), len(others))))
        strapped = kind != "server" and draw.random() < 0.08
    durable = frozenset(draw.sample(roster.names, 1)) if draw.random() < 0.08 else frozenset[str]()
    return Deployment(
        seed, plan, roster, identities, policy, rounds, kind, moves, liars, corrupt, terms.may_miss, refusing, durable,
        books, strapped, narrowed.without, narrowed.planned,
    )  # fmt: skip


@dataclass(frozen=True)
class _Terms:
    plan: RoundPlan
    policy: Policy
    corrupt: int
    """So many clients may be corrupt."""
    may_miss: int


def _terms(draw: Random, protocol: str, liar: str, narrowed: Narrowed) -> _Terms:
    last: SecAggError | None = None
    for _ in range(1000):
        try:
            return _drawn_terms(draw, protocol, liar, narrowed)
        except (UsageError, PolicyError) as error:  # too few clients for so many dropouts and liars, no room for noise
            last = error
    raise UsageError(f"no such deployment of {protocol} can be found: {last}")


def _drawn_terms(draw: Random, protocol: str, liar: str, narrowed: Narrowed) -> _Terms:
    weights = [45, 38, 15, 2, 0.4 if protocol in PAIRWISE else 0]
    if protocol == "secagg+" and liar == "server":  # what can be cut is large
        weights = [5, 25, 45, 25, 0.4]
    low, high = draw.choices([(3, 6), (5, 9), (8, 13), (14, 24), (40, 60)], weights)[0]
    if narrowed.planned:
        low, high = 20, 60
    n = draw.randint(low, high)
    roster, _ = people(n)
    ring = protocol == "secagg+" and n >= 6 and draw.random() < 0.7
    corrupt, dropout = draw.choice(["0", "0.1", "0.2", "0.3"]), draw.choice(["0", "0.1", "0.2", "0.3", "0.4"])
    if narrowed.planned:
        corrupt = draw.choice(["0.05", "0.1", "0.15", "0.2"])
    elif liar == "client" or (liar == "server" and draw.random() < 0.5):
        corrupt = f"{draw.choice([1, 1, max(n // 5, 1)])}/{n}"  # whoever lies is among those feared
    adversary = Adversary.CURIOUS if liar != "server" and draw.random() < 0.25 else Adversary.ACTIVE
    bad, gone = floor(Fraction(corrupt) * n), floor(Fraction(dropout) * n)
    if ring:
        bad, degree = min(bad, 2), draw.choice(range(4, min(n - 1, draw.choice([5, 10])) + 1, 2))
        if narrowed.planned:
            degree = draw.choice(range(10, min(n - 1, 30), 2))
        threshold = draw.randint(degree // 2 + bad + 1, max(degree // 2 + bad + 1, degree - 1))
        quorum = (n + bad) // 2 + 1
        gone = min(gone, degree - threshold, n - quorum)
        if threshold > degree or gone < 0:
            raise UsageError("no such ring")
    if narrowed.planned and not 1 <= bad <= gone:
        raise UsageError("liars are among those who may be missing")
    if liar == "client" and not gone and draw.random() < 0.8:
        raise UsageError("a liar must be missed by nobody, or whatever it does may end the round")
    least = draw.randint(min(bad + 2, n - gone), n - gone)
    if liar == "server":
        least = min(least, draw.randint(min(bad + 2, n - gone), n - gone))
    if least < 2:
        raise UsageError("too few would stay")
    noisy = draw.random() < 0.35
    noisy = noisy if narrowed.noisy is None else narrowed.noisy
    length = draw.randint(20, 80) if noisy and liar != "server" else draw.randint(3, 12)
    encoding = _encoding(draw, liar, narrowed.length or length)
    noise = _noise(draw, encoding, n, colluders(corrupt, n), gone) if noisy else None
    if noise is not None:
        least = n - noise.dropouts
        if noise.family is Family.DISCRETE_GAUSSIAN and encoding.users and encoding.overlap == 1:
            encoding = replace(encoding, sampled=Fraction(1, draw.choice([1, 2, 3])))
    beacon = BEACON if protocol == "oneshot" else b""
    plan = RoundPlan.propose(
        "secagg" if ring else protocol,
        roster,
        encoding,
        min_contributors=least,
        corrupt="0" if ring else corrupt,
        dropout="0" if ring else dropout,
        adversary=adversary,
        noise=noise,
        session=draw.randbytes(16),
        model=draw.randbytes(32),
        beacon=beacon,
    )
    policy = Policy(
        min_contributors=draw.randint(2, least),
        protocols={protocol},
        corrupt=corrupt,
        dropout=dropout,
        adversary=adversary if rules_of(protocol).against is Adversary.ACTIVE else Adversary.CURIOUS,
        beacon=beacon,
        weight_bound=encoding.weight_bound,
        users=encoding.users,
        overlap=encoding.overlap,
        sampled=encoding.sampled,
    )
    if ring:
        parameters = GraphParameters(Graph.RING, degree, threshold, n, quorum)
        plan = replace(plan, protocol="secagg+", parameters=parameters)
        lax = replace(policy, corrupt=f"{bad}/{n}", dropout="0", adversary=Adversary.CURIOUS)
        return _Terms(plan, lax, bad, gone)
    registry.find(protocol).check_policy(plan, policy)
    return _Terms(plan, policy, bad, gone)


def _encoding(draw: Random, liar: str, length: int) -> Encoding:
    bits = draw.choice([4, 8, 12, 16])
    if liar == "server":
        return Encoding.integers(length, bits)
    kind = draw.random()
    if int(1000 * kind) % 10 < 3:
        silos = {"users": draw.choice([1, 3, 8]), "overlap": draw.choice([1, 1, 2])}
        if kind < 0.6:
            return replace(Encoding.integers(length, bits), **silos)
        rounding = draw.choice([Rounding.STOCHASTIC, Rounding.NEAREST]) if bits == 16 else Rounding.STOCHASTIC
        return Encoding(length, 1.0, max(bits, 8), kind > 0.8, rounding=rounding, **silos)
    if kind < 0.6:
        return Encoding.integers(length, bits, draw.choice([1, 1, 7]))
    rotate = kind > 0.8
    return Encoding(length, draw.choice([0.5, 1.0, 8.0]), max(bits, 8), rotate, weight_bound=draw.choice([1, 3]))


def _noise(draw: Random, encoding: Encoding, n: int, bad: int, gone: int) -> NoiseSpec:
    family = draw.choice([Family.SKELLAM, Family.SKELLAM, Family.DISCRETE_GAUSSIAN])
    components = draw.randint(0, gone) if family is Family.SKELLAM else 0
    variance = Fraction(ceil(draw.choice([1.0, 2.5, 6.0]) ** 2 * encoding.sensitivity().l2_squared))
    noise = NoiseSpec(family, max(variance, Fraction(4 * n)), gone, bad, components)
    noise.check(n)
    if not noise.drawable(n):
        raise UsageError("more noise than can be drawn")
    return noise
