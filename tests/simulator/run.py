"""One seed from beginning to end, and many of them in several processes."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dp.calibrate import holder_of
from dp.ledger import Budget, Ledger
from protocols.policy import Policy
from protocols.roster import SERVER
from secagg.assumptions import Adversary
from secagg.crypto.keys import SigningKey, digest, verifying_once
from tests.simulator import oneshot_server, pairwise_server
from tests.simulator.deployment import PAIRWISE, Deployment, Faults, Narrowed, deployed
from tests.simulator.leaks import Memory
from tests.simulator.moves import CLIENT_MOVES
from tests.simulator.network import run_round
from tests.simulator.oracles import GUARANTEES, Noise, check, check_charges, check_ledger, noise_of
from tests.simulator.parties import Failure, Liar, Party, Record
from tests.simulator.tampering import Tampering

AMPLE = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**4))
SHARED = Path("/dev/shm")  # ledgers and journals sync their files after every entry: in memory that costs nothing


@dataclass
class Result:
    """What one seed came to."""

    seed: int
    deployment: Deployment | None = None
    records: list[Record] = field(default_factory=list)
    noise: list[Noise] = field(default_factory=list)
    failure: str = ""
    computable: int = 0
    """Rounds of a lying server in which it got the sum that it may have."""

    @property
    def kind(self) -> str:
        if self.deployment is None:
            return "?"
        return f"{self.deployment.plan.protocol} {self.deployment.liar or 'nobody'}"

    def ends(self) -> Iterator[str]:
        """How each round ended."""
        for record in self.records:
            refusals = any(party != SERVER for _, party, _, _ in record.errors)
            if record.outcome is not None:
                yield "sum"
            elif self.deployment is not None and self.deployment.liar == SERVER:
                yield "refused" if refusals else "went on"
            else:
                named = getattr(record.failed, "culprits", ())
                yield "named" if named else "too few" if record.server is not None else "no budget"


def run(seed: int, narrowed: Narrowed = Narrowed(), fully: bool = True) -> Result:  # noqa: B008  # frozen
    """Play a seed. A broken promise is in ``failure``, and so is an exception that nobody declared."""
    result = Result(seed)
    try:
        _play(result, deployed(seed, narrowed), fully)
    except Failure as failure:
        result.failure = str(failure)
    except Exception:  # noqa: BLE001  # whatever it is, it is a finding
        result.failure = traceback.format_exc()
    return result


def _play(result: Result, deployment: Deployment, fully: bool) -> None:
    result.deployment = deployment
    with ExitStack() as held:
        held.enter_context(verifying_once())
        folder = None
        if deployment.durable or deployment.plan.noise is not None:
            shared = SHARED if SHARED.is_dir() else None
            folder = Path(held.enter_context(TemporaryDirectory(prefix="secagg-simulator-", dir=shared)))
        world = _World(deployment, folder, held)
        for number in range(deployment.rounds):
            record = Record(world.plan, number)
            result.records.append(record)
            world.play(record, result)
            if record.server is None and deployment.strapped:
                break
            world.next_round()
        world.close()
        if folder is not None:
            world.check_ledgers(folder, result.records, fully)


class _World:
    def __init__(self, deployment: Deployment, folder: Path | None, held: ExitStack) -> None:
        self.deployment, self.plan, self.memory = deployment, deployment.plan, Memory()
        self.keys: dict[str, SigningKey] = {}
        self.ledger: Ledger | None = None
        if self.plan.noise is not None and folder is not None:
            self.ledger = self._book(folder, SERVER, self._budget())
            held.callback(self.ledger.close)
        self.parties = {
            name: self._party(name, folder) for name in deployment.roster.names if name not in deployment.liars
        }
        for party in self.parties.values():
            held.callback(party.close)
        friends = frozenset(map(deployment.roster.number, deployment.liars))
        self.liars = {name: self._liar(name, move, friends) for name, move in deployment.liars.items()}
        self.tampering: Tampering | None = None
        if deployment.liar == SERVER and self.plan.protocol not in (*PAIRWISE, "oneshot"):
            names = list(deployment.roster.names)
            self.tampering = Tampering(self.plan, names, deployment.draw("tampering"), deployment.moves)

    def _liar(self, name: str, move: str, friends: frozenset[int]) -> Liar:
        d = self.deployment
        draw, says = d.draw("liar", name), CLIENT_MOVES[move].says
        return Liar(d.identities[name], d.roster, draw, says, self._lax(), friends)

    def _lax(self) -> Policy:
        found = self.plan.encoding
        bounds = {"weight_bound": found.weight_bound, "users": found.users, "overlap": found.overlap}
        bounds |= {"sampled": found.sampled}
        return Policy(2, corrupt=0, dropout=0, adversary=Adversary.CURIOUS, security=1, **bounds)

    def _budget(self) -> Budget:
        if not self.deployment.strapped:
            return AMPLE
        return replace(AMPLE, epsilon=Fraction(1, 1000))

    def _book(self, folder: Path, whose: str, budget: Budget) -> Ledger:
        key = self.keys[whose] = SigningKey(digest(b"ledger", whose.encode()))
        guarantee = GUARANTEES[holder_of(self.plan.encoding)]
        return Ledger.create(folder / f"{whose}.ledger", key, budget, guarantee, run="simulated", elsewhere="nothing")

    def _party(self, name: str, folder: Path | None) -> Party:
        d = self.deployment
        policy, book, roster = d.policy, None, d.roster
        reason = d.refusing.get(name, "")
        if reason == "other protocol":
            policy = replace(policy, protocols={"secagg+" if d.plan.protocol == "secagg" else "secagg"})
        elif reason == "more contributors":
            policy = replace(policy, min_contributors=d.plan.min_contributors + 1)
        elif reason == "noise":
            policy = replace(policy, noise_multiplier="1/2")
        elif reason == "another roster":
            policy = replace(policy, min_contributors=len(roster) + 1)
        if folder is not None and (reason == "poor" or name in d.books):
            budget = replace(AMPLE, epsilon=Fraction(1, 1000)) if reason == "poor" else AMPLE
            book = self._book(folder, name, budget)
        seed = digest(b"client", str(d.seed).encode(), name.encode())
        return Party(d.identities[name], roster, policy, seed, folder if name in d.durable else None, book)

    def play(self, record: Record, result: Result) -> None:
        d = self.deployment
        faults = d.faults(record.number) if d.liar != SERVER or self.tampering is not None else Faults()
        corrupt: list[Any] = []
        if d.liar == SERVER and self.tampering is None:
            attack = pairwise_server.attack if d.plan.protocol in PAIRWISE else oneshot_server.attack
            attack(d, record, self.parties, result.records[:-1])
            corrupt = [record.machines[name] for name in d.corrupt]
        else:
            run_round(d, record, self.parties, self.liars, faults, self.ledger, self.tampering)
            corrupt = [record.machines[name] for name in d.corrupt if name in record.machines]
            if record.server is not None:
                record.liars = self.liars
                corrupt += [liar.machine for liar in self.liars.values()]
            check_charges(d, record)
        record.insiders = frozenset(d.corrupt)
        result.computable += check(d, record, faults, corrupt, self.memory)
        if (noise := noise_of(d, record)) is not None:
            result.noise.append(noise)

    def next_round(self) -> None:
        self.plan = self.plan.next_round()
        if self.tampering is not None:
            self.tampering.next_round(self.plan)

    def close(self) -> None:
        for party in self.parties.values():
            party.close()
        if self.ledger is not None:
            self.ledger.close()

    def check_ledgers(self, folder: Path, records: list[Record], fully: bool) -> None:
        for whose, key in self.keys.items():
            check_ledger(folder / f"{whose}.ledger", key, records, whose, fully)


# Many seeds


@dataclass
class Tally:
    rounds: int = 0
    cpu_seconds: float = 0.0
    ends: dict[str, Counter[str]] = field(default_factory=dict)
    """kind of deployment -> how its rounds ended"""
    moves: dict[str, Counter[str]] = field(default_factory=dict)
    noise: dict[str, Noise] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.rounds += len(result.records)
        if result.deployment is not None:
            protocol = result.deployment.plan.protocol
            ends = list(result.ends())
            self.ends.setdefault(result.kind, Counter()).update(ends)
            for move in {*result.deployment.moves, *result.deployment.liars.values()}:
                who = "server" if result.deployment.liar == SERVER else "client"
                found = self.moves.setdefault(f"{who} {move}", Counter())
                found.update(ends)
                found["sum computable"] += result.computable if who == "server" else 0
            for one in result.noise:
                self.noise[protocol] = added(self.noise.get(protocol), one)
        if result.failure:
            self.failures.append((result.seed, result.failure))

    def merge(self, other: Tally) -> None:
        self.rounds += other.rounds
        self.cpu_seconds += other.cpu_seconds
        for mine, theirs in ((self.ends, other.ends), (self.moves, other.moves)):
            for key, counter in theirs.items():
                mine.setdefault(key, Counter()).update(counter)
        for protocol, noise in other.noise.items():
            self.noise[protocol] = added(self.noise.get(protocol), noise)
        self.failures += other.failures


def added(a: Noise | None, b: Noise) -> Noise:
    if a is None:
        return b
    return Noise(a.squares + b.squares, a.coordinates + b.coordinates, a.spread + b.spread)


def run_many(first: int, rounds: int, narrowed: Narrowed, worker: int = 0, workers: int = 1) -> Tally:
    """Seeds from ``first`` on, every ``workers``-th of them, until there are so many rounds.

    An auditor's own program looks at one ledger in five; the library's at all of them.
    """
    tally, seed, began = Tally(), first + worker, time.process_time()
    while tally.rounds < rounds:
        fully = (seed // workers) % 5 == 0
        tally.add(run(seed, narrowed, fully))
        seed += workers
        if len(tally.failures) >= 20:
            break
    tally.cpu_seconds = time.process_time() - began
    return tally
