"""Sums over clients: the door between learning and the protocols.

``Adder`` is what learning asks for. ``SecureAdder`` answers with the machines of ``protocols``, all parties in this
process: what a server learns here is what it would learn elsewhere. There is no other adder in this package.

Every party's randomness comes from the run's one secret, so a run that was killed in the middle of a sum walks through
it again: the same keys, masks and noise, hence the same release, which the ledger knows and does not charge twice. That
is safe only if what goes into the sum is the same, too, and no processor need compute an update twice alike. So before
anything but a key leaves a client, all of it is on disk (``recsys.pending_sum``), and after a restart it is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from dp.noise import Family, NoiseSpec
from protocols import registry
from protocols.client import Client
from protocols.engines import Engine
from protocols.engines.local import HERE
from protocols.parameters import rules_of
from protocols.plan import SESSION_BYTES, RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Answers, Faults, Frames, answer_or_refusal, drive, first_or_refusal
from recsys.network import Network
from recsys.pending_sum import Begun, Keep, Kept, Terms
from secagg.assumptions import Adversary, CostModel, fraction
from secagg.crypto import labels
from secagg.crypto.keys import derive, verifying_once
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import SecAggError, StorageError

if TYPE_CHECKING:
    from dp.ledger import Ledger

_COMPONENTS = 4
"""Parts in which excess noise is taken off: each costs every client one more draw of full length."""

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
    left: bool = False
    """what clients made for this sum left them before, and was charged to a ledger of theirs"""


@dataclass(frozen=True, slots=True, eq=False)
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
        choose = rules_of(self.protocol).choose
        return choose(
            clients, fraction(self.corrupt), fraction(self.dropout), self.adversary, 40, 20, CostModel.CORE_SVP
        )

    def noise(self, clients: int) -> NoiseSpec:
        """The kind of noise for a cohort, of variance 1: excess for the missing is taken off, in a few parts."""
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
        self._begun = None if folder is None else Begun(folder, secret)

    def add_up(self, question: Question, update: Update) -> Answer:
        """One round of the protocol; then its machines, keys and journals are gone."""
        identities = [self._identity(name) for name in question.cohort]
        roster = Roster.of(identities)
        kept = None if self._begun is None else self._begun.read(question.number)
        if kept is None:
            terms = self._terms(question, roster)
            plan = terms.plan
            self._check_new(plan, question)
        else:
            terms = kept.terms
            plan = self._once_more(terms.plan, question, roster)
        policy = self._policy(plan)
        clients = {
            one.name: Client(one, roster, policy=policy, rng=self._drawn(b"client", one.name.encode(), plan.digest()))
            for one in identities
        }
        server = serve(plan, roster, ledger=self._ledger if plan.noise is not None else None, engine=self._engine)
        parties = _Parties(plan, clients, question, update, kept, self._writing(question, terms))
        with verifying_once():
            ran = drive(server, parties, Faults(silent=terms.silent))
        total = terms.plan.decode_total(ran.outcome.total, len(ran.outcome.survivors))
        phases = [str(phase) for phase in server.steps]
        seconds = {"updates": parties.seconds, **{str(phase): value for phase, value in ran.seconds.items()}}
        seconds[phases[0]] -= parties.seconds
        return Answer(
            total.vector,
            total.weight,
            ran.outcome.survivors,
            dict(Counter(terms.silent.values())),
            sum(ran.bytes_up.values()),
            sum(ran.bytes_down.values()),
            seconds,
        )

    def _check_new(self, plan: RoundPlan, question: Question) -> None:
        """A sum that was paid for is not begun again: with other vectors it would be another release, for nothing."""
        ledger = self._ledger if plan.noise is not None else None
        if question.left or (ledger is not None and ledger.committed(plan.secure_sum(plan.clients))):
            raise StorageError(
                f"sum {question.number} is in the ledger, and what it was begun with is gone: start a new run"
            )

    def retire(self, before: int) -> None:
        """What came of the sums before this one is on disk: what went into them is not needed any more."""
        if self._begun is not None:
            self._begun.retire(before)

    def _writing(self, question: Question, terms: Terms) -> AbstractContextManager[Keep]:
        if self._begun is None:
            return nullcontext(_forget)
        return self._begun.writing(question.number, terms, question.cohort)

    def _terms(self, question: Question, roster: Roster) -> Terms:
        """Of a sum that is begun now."""
        deployment = self._deployment
        protocol = registry.find(deployment.protocol)
        session = derive(self._secret, labels.SIMULATED, b"session") if protocol.replays else os.urandom(SESSION_BYTES)
        plan = RoundPlan.propose(
            deployment.protocol,
            roster,
            question.encoding,
            min_contributors=max(2, len(roster) - deployment.missing(len(roster))),
            corrupt=deployment.corrupt,
            dropout=deployment.dropout,
            adversary=deployment.adversary,
            noise=question.noise,
            session=session[:SESSION_BYTES],
            model=question.model,
            beacon=self._beacon,
        )
        phases = [str(phase) for phase, step in protocol.server.steps.items() if not step.optional]
        faults = self._network.faults(question.cohort, phases, seed=self._seed * (1 << 32) + question.number)
        return Terms(replace(plan, round=question.number), faults.silent)

    def _once_more(self, plan: RoundPlan, question: Question, roster: Roster) -> RoundPlan:
        """The plan of a sum that was begun before. What cannot be said twice alike is said in a session of its own.

        Encoding and noise are those of the plan: they were calibrated in floating point.
        """
        asked = (question.number, question.model, roster.digest, question.encoding.length)
        if (plan.round, plan.model, plan.roster, plan.encoding.length) != asked:
            raise StorageError(f"sum {question.number} was begun as another one: start a new run")
        return plan if registry.find(plan.protocol).replays else replace(plan, session=os.urandom(SESSION_BYTES))

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


class _Parties:
    """All clients in this process, and what making updates took."""

    def __init__(
        self,
        plan: RoundPlan,
        clients: Mapping[str, Client],
        question: Question,
        update: Update,
        kept: Kept | None,
        writing: AbstractContextManager[Keep],
    ) -> None:
        self._plan, self._clients, self._question = plan, clients, question
        self._update, self._kept, self._writing = update, kept, writing
        self.seconds = 0.0

    def begin(self) -> Answers:
        """The server hears all of them before it answers anybody: by then their vectors are on disk."""
        if self._kept is not None:
            for name, vector in self._kept.vectors.items():
                yield name, self._resumed(self._clients[name], vector)
            return
        with self._writing as keep:
            for name in self._question.cohort:
                update = self._made(name)  # what fails in the making is no refusal
                client, weight = self._clients[name], self._question.weights.get(name, 1)
                first = first_or_refusal(client, self._plan, update, weight)
                keep(name, client.encoded() if isinstance(first, bytes) else b"")
                yield name, first

    def answers(self, requests: Frames) -> Answers:
        for name, frame in requests:
            yield name, answer_or_refusal(self._clients[name], frame)

    def _resumed(self, client: Client, vector: bytes) -> bytes | SecAggError:
        """Joined with nothing, which gives the first frame again; what it puts into the sum is what it put there."""
        first = first_or_refusal(client, self._plan, None)
        return client.resume(self._plan, lambda: vector) if isinstance(first, bytes) and vector else first

    def _made(self, name: str) -> NDArray[np.float64]:
        began = perf_counter()
        try:
            return np.ascontiguousarray(self._update(name), np.float64)
        finally:
            self.seconds += perf_counter() - began


def _forget(name: str, vector: bytes) -> None:
    """A run without a directory keeps nothing: it cannot be begun again."""
