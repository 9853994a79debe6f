"""Sums over clients: the door between learning and the protocols.

``Adder`` is what learning asks for. ``SecureAdder`` answers with the machines of ``protocols``, all parties in this
process: what a server learns here is what it would learn elsewhere. There is no other adder in this package.

Every party's randomness comes from the run's one secret, so a run that was killed in the middle of a sum walks through
it again: the same keys, masks and noise, hence the same release, which the ledger knows and does not charge twice.
That is safe only if the updates are the same, too. So before anything but a key leaves a client, what goes into the
sum is written down (``Begun``); after a restart a difference ends the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from dp.noise import Family, NoiseSpec
from protocols import registry
from protocols.engines import Engine
from protocols.engines.local import HERE
from protocols.machine import Client
from protocols.plan import SESSION_BYTES, RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.simulate import serve, simulate
from recsys.network import Network
from recsys.record import write_whole
from secagg import labels
from secagg.encoding import Encoding
from secagg.errors import StorageError
from secagg.keys import derive
from secagg.params import Adversary, CostModel, fraction
from secagg.prg import Prg

if TYPE_CHECKING:
    from dp.ledger import Ledger

_COMPONENTS = 4
"""Parts in which surplus noise is taken off: each costs every client one more draw of full length."""

Update = Callable[[str], NDArray[np.float64]]
"""What a client adds, made when its turn comes."""


@dataclass(frozen=True, slots=True)
class Question:
    """One sum: what for, of vectors of which form, with how much noise, over whom, from which model."""

    number: int
    """of the sum in its run; a number stands for one sum, whatever happens"""
    purpose: str
    cohort: tuple[str, ...]
    encoding: Encoding
    noise: NoiseSpec | None = None
    model: bytes = bytes(32)
    """hash of what the updates were made from"""
    weights: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """The sum, and how it came about. Times and bytes are those of all parties together."""

    vector: NDArray[np.float64]
    weight: int
    survivors: tuple[str, ...]
    silent: Mapping[str, int]
    """phase -> clients of which nothing was heard from then on"""
    bytes_up: int
    bytes_down: int
    seconds: Mapping[str, float]


class Adder(Protocol):
    """``ThresholdError``: too few stayed, nothing was learnt. ``BudgetError``: the privacy budget does not allow it."""

    def add_up(self, question: Question, update: Update) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Deployment:
    """How the parties are set up; ``corrupt`` and ``dropout`` are fractions of a cohort."""

    protocol: str = "secagg+"
    adversary: Adversary = Adversary.ACTIVE
    corrupt: str = "0.05"
    dropout: str = "0.1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "adversary", Adversary(self.adversary))
        registry.find(self.protocol)
        fraction(self.corrupt), fraction(self.dropout)

    def missing(self, clients: int) -> int:
        """How many may fall silent."""
        return int(fraction(self.dropout) * clients)

    def parameters(self, clients: int) -> object:
        """Of the protocol, for a cohort; ``UsageError`` if nothing resists that much."""
        choose = registry.find(self.protocol).choose
        return choose(
            clients, fraction(self.corrupt), fraction(self.dropout), self.adversary, 40, 20, CostModel.CORE_SVP
        )

    def noise(self, clients: int) -> NoiseSpec:
        """The kind of noise for a cohort, of variance 1: surplus for the missing is taken off, in a few parts."""
        missing, colluders = self.missing(clients), int(fraction(self.corrupt) * clients)
        return NoiseSpec(Family.SKELLAM, Fraction(1), missing, colluders, min(missing, _COMPONENTS))


class SecureAdder:
    """Clients are made for one sum, from their names; who is not in a cohort does not exist while it works."""

    def __init__(
        self,
        deployment: Deployment,
        secret: bytes,
        *,
        network: Network | None = None,
        ledger: Ledger | None = None,
        folder: Path | None = None,
        seed: int = 0,
        engine: Engine = HERE,
    ) -> None:
        self._deployment, self._secret = deployment, secret
        self._network, self._ledger, self._engine, self._seed = network or Network(), ledger, engine, seed
        self._begun = None if folder is None else Begun(folder)

    def add_up(self, question: Question, update: Update) -> Answer:
        """One round of the protocol; then its machines, keys and journals are gone."""
        identities = [self._identity(name) for name in question.cohort]
        roster = Roster.of(identities)
        protocol = registry.find(self._deployment.protocol)
        number = question.number if self._begun is None else self._begun.round_of(question.number, protocol.replays)
        plan = self._plan(question, roster, number)
        policy = self._policy(plan)
        clients = {
            one.name: Client(one, roster, policy=policy, rng=self._drawn(b"client", one.name.encode(), plan.digest()))
            for one in identities
        }
        updates = _Updates(question, update, replace(plan, round=question.number), self._begun)
        server = serve(plan, roster, ledger=self._ledger if plan.noise is not None else None, engine=self._engine)
        phases = [str(phase) for phase in server.steps]
        faults = self._network.faults(question.cohort, phases, seed=self._seed * (1 << 32) + question.number)
        ran = simulate(server, clients, updates, weights=question.weights, faults=faults)
        total = ran.outcome.decode()
        seconds = {"updates": updates.seconds, **{str(phase): value for phase, value in ran.seconds.items()}}
        seconds[phases[0]] -= updates.seconds
        return Answer(
            total.vector,
            total.weight,
            ran.outcome.survivors,
            dict(Counter(faults.silent.values())),
            sum(ran.bytes_up.values()),
            sum(ran.bytes_down.values()),
            seconds,
        )

    def _plan(self, question: Question, roster: Roster, number: int) -> RoundPlan:
        deployment = self._deployment
        first = RoundPlan.propose(
            deployment.protocol,
            roster,
            question.encoding,
            min_contributors=max(2, len(roster) - deployment.missing(len(roster))),
            corrupt=deployment.corrupt,
            dropout=deployment.dropout,
            adversary=deployment.adversary,
            noise=question.noise,
            session=derive(self._secret, labels.SIMULATED, b"session")[:SESSION_BYTES],
            model=question.model,
            beacon=self._beacon,
        )
        return replace(first, round=number)

    def _policy(self, plan: RoundPlan) -> Policy:
        deployment = self._deployment
        return Policy(
            min_contributors=plan.min_contributors,
            protocols={deployment.protocol},
            corrupt=deployment.corrupt,
            dropout=deployment.dropout,
            adversary=deployment.adversary,
            beacon=self._beacon,
            whole_roster=True,
            weight_bound=plan.encoding.weight_bound,
        )

    @property
    def _beacon(self) -> bytes:
        """What a deployment would hand out: lots are not the server's to draw."""
        return derive(self._secret, labels.SIMULATED, b"beacon")

    def _identity(self, name: str) -> Identity:
        return Identity.generate(name, self._drawn(b"identity", name.encode()))

    def _drawn(self, *purpose: bytes) -> Prg:
        return Prg(derive(self._secret, labels.SIMULATED, *purpose))


class Begun:
    """Which sums were begun, and of what: written before they can be learnt."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "begun.json"

    @cached_property
    def _known(self) -> list[dict[str, object]]:
        try:
            return [dict(one) for one in json.loads(self._path.read_bytes())]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError):
            raise StorageError(f"{self._path} cannot be read") from None

    def round_of(self, sum_: int, replays: bool) -> int:
        """The protocol's round number for a sum. Where a protocol cannot be replayed, each attempt has a new one."""
        if replays:
            return sum_
        attempt = 1 + max(int(str(one.get("round", -1))) for one in [{}, *self._known])
        self._write({"round": attempt})
        return attempt

    def write(self, sum_: int, digest: str) -> None:
        """Before the updates leave. ``StorageError`` if this sum was begun with others."""
        for last in self._known:
            if last.get("sum") == sum_ and last.get("digest") != digest:
                raise StorageError(
                    f"sum {sum_} was begun with other updates, which may be known already: this machine computes "
                    "otherwise than the one that began. Start a new run"
                )
        self._write({"sum": sum_, "digest": digest})

    def _write(self, what: dict[str, object]) -> None:
        if what not in self._known:
            known = [*self._known, what]
            write_whole(self._path, json.dumps(known).encode())
            self.__dict__["_known"] = known


class _Updates(Mapping[str, NDArray[np.float64]]):
    """Updates in the order of the cohort, each made when the machines ask for it, and timed."""

    def __init__(self, question: Question, update: Update, plan: RoundPlan, begun: Begun | None) -> None:
        self._question, self._update, self._begun = question, update, begun
        self._digest = sha256(plan.digest())
        self._left = len(question.cohort)
        self.seconds = 0.0

    def __iter__(self) -> Iterator[str]:
        return iter(self._question.cohort)

    def __len__(self) -> int:
        return len(self._question.cohort)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        began = perf_counter()
        vector = np.ascontiguousarray(self._update(name), np.float64)
        self.seconds += perf_counter() - began
        self._left -= 1
        if self._begun is not None:
            self._digest.update(vector.data)
            if not self._left:
                self._begun.write(self._question.number, self._digest.hexdigest())
        return vector
