"""An aggregator that runs the protocols, with all parties in this process.

What a server learns here is what it would learn elsewhere. Every party's randomness comes from the run's one secret, so
a run that was killed in the middle of a sum walks through it again: the same keys, masks and noise, hence the same
release, which the ledger knows and does not charge twice. That is safe only if what goes into the sum is the same, too,
and no processor need compute an update twice alike. So before anything leaves a client, all of it is on disk
(``recsys.pending_sum``), and after a restart it is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from protocols import registry
from protocols.buffers import Buffers
from protocols.client import Client
from protocols.engines.local import HERE, Threads
from protocols.plan import SESSION_BYTES, RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.server import ServerRound
from protocols.server import serve
from protocols.simulation.network import Answers, Faults, Frames, answer_or_refusal, drive, first_or_refusal
from recsys.aggregator import Request, Result, TimedUpdate, Update
from recsys.deployment import Deployment
from recsys.network import Network
from recsys.pending_sum import Input, PendingSum, PendingSums, WriteInput
from recsys.turns import identity_of
from secagg.at_rest import AnyFolder
from secagg.crypto import labels
from secagg.crypto.keys import Known, derive, verifying_once
from secagg.crypto.prg import Prg
from secagg.errors import SecAggError, StorageError, ThresholdError

if TYPE_CHECKING:
    from dp.ledger import Ledger
    from dp.turns import Turns


class SecureAggregator:
    """Clients are made for one sum, from their names; whoever is not in a cohort does not exist while it works."""

    def __init__(
        self,
        deployment: Deployment,
        secret: bytes,
        *,
        network: Network | None = None,
        ledger: Ledger | None = None,
        turns: Turns | None = None,
        buffers: Buffers | None = None,
        folder: AnyFolder | None = None,
        seed: int = 0,
        engine: Threads = HERE,
        tell: Callable[[str], None] = lambda doing: None,
    ) -> None:
        """``turns``: clients refuse a sum that is not their turn. ``buffers``: what they agreed on where sums are over
        whoever is ready. ``engine``: so many clients answer at a time, and so
        many threads remove masks. ``tell`` is called when a phase begins."""
        self._deployment, self._secret, self._turns, self._buffers = deployment, secret, turns, buffers
        self._network, self._ledger, self._engine, self._seed = network or Network(), ledger, engine, seed
        self._tell = tell
        self._pending = None if folder is None else PendingSums(folder, secret)

    def aggregate(self, request: Request, update: Update) -> Result:
        """One round of the protocol; then its machines, keys and journals are gone."""
        identities = [self._identity(name) for name in request.cohort]
        roster = Roster.of(identities)
        pending = self._begun(request)
        if pending is None:
            plan, silent = self._plan(request, roster), self._silent(request)
            self._check_new(plan, request)
        else:
            plan, silent = self._same_plan(pending.plan, request, roster), pending.silent
        self._check_turn(plan)
        self._check_buffer(plan, request)
        policy = self._policy(plan)
        clients = {
            one.name: Client(one, roster, policy=policy, rng=self._rng(b"client", one.name.encode(), plan.digest()))
            for one in identities
        }
        server = serve(plan, roster, ledger=self._ledger if plan.noise is not None else None, engine=self._engine)
        timed, known = TimedUpdate(update), Known()
        with verifying_once(known):
            self._tell(f"sum {request.number}, updates")
            began = perf_counter()
            if pending is None:
                first_frames, inputs = self._start(clients, plan, silent, request, timed)
            else:
                inputs = pending.inputs
                first_frames = {name: _resumed(clients[name], plan, one.vector) for name, one in inputs.items()}
            starting = perf_counter() - began - timed.seconds
            began_phase = partial(self._began_phase, request, server)
            started = _StartedClients(clients, first_frames, began_phase, self._engine, known)
            ran = drive(server, started, Faults(dropouts=silent))
        encoded_for = plan if pending is None else pending.plan
        total = encoded_for.decode_total(ran.outcome.total, len(ran.outcome.survivors))
        if request.sent is not None:
            for name in ran.outcome.survivors:
                request.sent(name, _decoded(encoded_for, inputs[name].vector), inputs[name].kept)
        seconds = {"updates": timed.seconds, **{str(phase): value for phase, value in ran.seconds.items()}}
        seconds[str(next(iter(server.steps)))] += starting
        phases = len(self._phases)
        return Result(
            total.vector,
            total.weight,
            ran.outcome.survivors,
            dict(Counter(silent.values())),
            sum(ran.bytes_up.values()),
            sum(ran.bytes_down.values()),
            seconds,
            self._network.messages(len(request.cohort), phases, self._seed_of(request.number)),
        )

    def _began_phase(self, request: Request, server: ServerRound) -> None:
        self._tell(f"sum {request.number}, phase {server.phase}")

    def _begun(self, request: Request) -> PendingSum | None:
        """What goes into a sum that was begun, if it can be finished as it is.

        A protocol that cannot repeat itself makes another release of it, with other noise. Users are sampled anew for
        that: with the coins of the first one, both together would be one sum with less noise.
        """
        if self._pending is None or (pending := self._pending.read(request.number)) is None:
            return None
        again = registry.find(pending.plan.protocol).replays or pending.plan.encoding.sampled == 1
        return pending if again else None

    def delete_pending(self, before: int) -> None:
        """Delete what went into the sums before this number: what came of them is on disk."""
        if self._pending is not None:
            self._pending.delete(before)

    def _start(
        self,
        clients: Mapping[str, Client],
        plan: RoundPlan,
        silent: Mapping[str, str],
        request: Request,
        update: TimedUpdate,
    ) -> tuple[dict[str, bytes | SecAggError], Mapping[str, Input]]:
        """Make all updates, and let clients start with them. When this returns, all encoded vectors are on disk.

        Gives each client's first frame, or its refusal of the plan; and the encoded vectors with what clients will
        keep, if they are to be told of them. An error while an update is made is no refusal.
        """
        first_frames, inputs = dict[str, bytes | SecAggError](), dict[str, Input]()
        with self._writing(request, plan, silent) as write_input:
            for name, client in clients.items():
                if name in request.late:
                    if write_input is not None:
                        write_input(name, Input())
                    continue
                first = first_or_refusal(client, plan, update(name), request.weights.get(name, 1))
                update.check()
                if write_input is not None or request.sent is not None:
                    one = Input(client.encoded(), request.keeping(name)) if isinstance(first, bytes) else Input()
                    if write_input is not None:
                        write_input(name, one)
                    if request.sent is not None:
                        inputs[name] = one
                first_frames[name] = first
        return first_frames, inputs

    def _writing(
        self, request: Request, plan: RoundPlan, silent: Mapping[str, str]
    ) -> AbstractContextManager[WriteInput | None]:
        """A run without a directory keeps nothing, and cannot finish a sum after a restart."""
        if self._pending is None:
            return nullcontext()
        return self._pending.writing(request.number, plan, silent, request.cohort)

    def _check_new(self, plan: RoundPlan, request: Request) -> None:
        """A sum that was paid for is not begun again: with other vectors it would be another release, for nothing."""
        ledger = self._ledger if plan.noise is not None else None
        if request.charged_before or (ledger is not None and ledger.committed(plan.secure_sum(plan.clients))):
            raise StorageError(
                f"sum {request.number} is in the ledger, and what it was begun with is gone: start a new run"
            )

    def _check_turn(self, plan: RoundPlan) -> None:
        """A sum that was begun under another plan, which its protocol cannot repeat, is not made again: with turns the
        next number is for other clients."""
        ledger = self._ledger if plan.noise is not None else None
        if ledger is not None and ledger.number_taken(plan.secure_sum(plan.clients)):
            raise ThresholdError(f"sum {plan.round} was interrupted, and cannot be repeated: its turn is lost")

    def _check_buffer(self, plan: RoundPlan, request: Request) -> None:
        """What each client of a buffer asks before it looks at its update."""
        if self._buffers is not None and request.buffer is not None:
            for name in request.cohort:
                self._buffers.check(plan, request.buffer, name, request.starts.get(name))

    def _plan(self, request: Request, roster: Roster) -> RoundPlan:
        """The plan of a new sum."""
        deployment = self._deployment
        replays = registry.find(deployment.protocol).replays
        session = derive(self._secret, labels.SIMULATED, b"session") if replays else os.urandom(SESSION_BYTES)
        plan = RoundPlan.propose(
            deployment.protocol,
            roster,
            request.encoding,
            min_contributors=deployment.least(len(roster)),
            corrupt=deployment.corrupt,
            dropout=deployment.dropout,
            adversary=deployment.adversary,
            noise=request.noise,
            session=session[:SESSION_BYTES],
            model=request.model,
            beacon=self._beacon,
        )
        return self._with_head(replace(plan, round=request.number))

    def _with_head(self, plan: RoundPlan) -> RoundPlan:
        """The plan with the head of the ledger that it is charged to: of a sum that was reserved and not begun, that of
        the time when it was reserved, so that it is the same plan."""
        if plan.noise is None or self._ledger is None:
            return plan
        reserved = self._ledger.sum_of(plan.session, plan.round)
        head = self._ledger.signed_head if reserved is None else RoundPlan.decode(reserved.plan).ledger
        return replace(plan, ledger=head)

    def _silent(self, request: Request) -> Mapping[str, str]:
        """Who drops out of a new sum, and in which phase."""
        phases = self._phases
        gone = self._network.faults(request.cohort, phases, seed=self._seed_of(request.number)).dropouts
        return {**gone, **dict.fromkeys(sorted(request.late), phases[0])}

    @property
    def _phases(self) -> list[str]:
        """Those in which the server waits for answers, whatever happens."""
        steps = registry.find(self._deployment.protocol).server.steps
        return [str(phase) for phase, step in steps.items() if not step.optional]

    def _seed_of(self, number: int) -> int:
        return self._seed * (1 << 32) + number

    def _same_plan(self, plan: RoundPlan, request: Request, roster: Roster) -> RoundPlan:
        """The plan of a sum that is pending. A protocol that cannot repeat itself gets a new session for each attempt.

        Encoding and noise are those of the plan: they were calibrated in floating point.
        """
        asked = (request.number, request.model, roster.digest, request.encoding.length)
        if (plan.round, plan.model, plan.roster, plan.encoding.length) != asked:
            raise StorageError(f"sum {request.number} was begun as another one: start a new run")
        if registry.find(plan.protocol).replays:
            return plan
        return self._with_head(replace(plan, session=os.urandom(SESSION_BYTES)))

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
            turns=self._turns,
            weight_bound=plan.encoding.weight_bound,
            users=plan.encoding.users,
            overlap=plan.encoding.overlap,
            sampled=plan.encoding.sampled,
            ledger_owner=b"" if plan.noise is None or self._ledger is None else self._ledger.owner,
        )

    @property
    def _beacon(self) -> bytes:
        """What a deployment would hand out, so that the server does not draw the committee. None where whoever is ready
        is summed up: it could be tried on whom the lots fall."""
        if self._buffers is not None:
            return b""
        return derive(self._secret, labels.SIMULATED, b"beacon")

    def _identity(self, name: str) -> Identity:
        return identity_of(name, self._secret)

    def _rng(self, *purpose: bytes) -> Prg:
        return Prg(derive(self._secret, labels.SIMULATED, *purpose))


def _decoded(plan: RoundPlan, encoded: bytes) -> NDArray[np.float64]:
    """One client's vector as the sum has it, but not weighed."""
    integers = plan.ring.centred(plan.ring.unpack(encoded, plan.encoding.coordinates))
    alone = plan.decode_total(integers.astype(np.int64), 1)
    return alone.vector / max(alone.weight, 1)


def _resumed(client: Client, plan: RoundPlan, vector: bytes) -> bytes | SecAggError:
    """The first frame of a client that goes on with the encoded vector it had put into the sum."""
    first = first_or_refusal(client, plan, None)  # the frame does not depend on the update
    return client.resume(plan, lambda: vector) if isinstance(first, bytes) and vector else first


@dataclass(frozen=True, slots=True)
class _StartedClients:
    """Clients whose first frames are there, as the simulated network wants them."""

    clients: Mapping[str, Client]
    first_frames: Mapping[str, bytes | SecAggError]
    began_phase: Callable[[], None]
    engine: Threads
    known: Known
    """Signatures that one of the parties has verified."""

    def begin(self) -> Answers:
        yield from self.first_frames.items()

    def answers(self, requests: Frames) -> Answers:
        """Several clients at a time: what one of them says follows from nothing that another one does."""
        self.began_phase()
        yield from self.engine.map(self._answer, requests)

    def _answer(self, request: tuple[str, bytes]) -> tuple[str, bytes | SecAggError]:
        name, frame = request
        with verifying_once(self.known):
            return name, answer_or_refusal(self.clients[name], frame)
