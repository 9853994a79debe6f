"""Rounds of federated training: a model's vector goes out, and the sum of the clients' changes to it comes back.

    cohort -> each client or user: train, clip; measure the model on own held-out events; [change | measured]
           -> one secure sum, with noise inside it or not -> mean over a constant -> the server's optimiser

There are two ways of protecting users, which can be combined:

    distributed  The sum is noised (``noise``). One unit is a client; or one user of a silo (``silos``): each user of
                 the silo then moves the round's model alone, by steps on its own data (``SharedModel.changes``), and
                 the silo adds up one clipped vector for each: no step mixes users. With one step and the optimiser on
                 the server that is DP-SGD, with its noise inside the sum. Measured values are coordinates of the same
                 vector, with the same noise, and are part of the same charge.
    local        Each client trains with DP-SGD (``LocalPrivacy``), so that what it sends is private whoever sees it. It
                 sends nothing else: measured values would be exact, and are refused.

Without either, measured values are exact, and the server knows their sums only. What the server knows of a sum is a
``Round``. Clients measure in the first round and in every so many-th after it; all that is chosen by measured values is
when to stop (``patience``).

Where clients differ, each can correct its steps by how its gradient differs from everybody's, and sends a vector twice
as long (``UpdateRecipe.scaffold``, ``recsys.control_variates``). Local privacy allows that: what corrects a client's
steps follows from models of its own that are private already. Or each keeps some layers to itself, and sends a vector
without them (``UpdateRecipe.personal``, ``recsys.personal_heads``). Or a part of an update travels in each round, and
each client goes on from what it has not sent yet (``recsys.unsent``).

Who is in a round, from which version of the model each client trains, and what time it is in a simulation, say the
``callers`` (``recsys.callers``): cohorts that are drawn, or whoever is ready.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from dp.events import Gaussian, Guarantee, Relation, Release, Trust, Unit
from dp.filter import Kind
from dp.ledger import Ledger
from dp.ledger.entries import Steps
from dp.noise import NoiseSpec
from recsys.aggregator import Aggregator, ChosenLazyVectors, LazyVectors, Request, Result, Update
from recsys.callers import Called, Callers, Drawn
from recsys.control_variates import CONTROL, ControlVariates
from recsys.data.interactions import History, Interactions
from recsys.kept_by_clients import KeptByClients, Kinds, decode_kinds, encode_kinds
from recsys.metrics.ranking import measure
from recsys.models.recommender import Local, SharedModel
from recsys.optimisers import Optimiser
from recsys.participation import Participation
from recsys.personal_heads import HEAD, personal
from recsys.run_record import Round
from recsys.training_state import TrainingState
from recsys.unsent import UNSENT, at_round, keeps_unsent, left_of, linear_of
from recsys.users_in_silos import UsersInSilos
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.crypto.prg import Prg, Rng
from secagg.encoding import Encoding
from secagg.errors import BudgetError, ThresholdError, UsageError
from secagg.sketches import Linear

if TYPE_CHECKING:
    from dp.training import Settings

METRICS = ("HR@10", "NDCG@10")
_LOG = logging.getLogger(__name__)


class PrivatelyTrained(SharedModel, Protocol):
    """A shared model that can also be trained with DP-SGD."""

    def train_privately(
        self,
        histories: Sequence[History],
        settings: Settings,
        steps: int,
        rate: float,
        *,
        unit: Unit,
        charge: Callable[..., None] | None,
        seed: int,
        rng: Rng,
        drift: NDArray[np.float32] | None,
    ) -> Settings:
        """With ``charge`` None the same steps are made without noise: a reference, which is not private."""


@dataclass(frozen=True, slots=True, eq=False)
class ClientData:
    """Which client holds the data of which users. ``held_out`` is what models are measured on; its users have the same
    numbers as those of ``train``."""

    names: tuple[str, ...]
    members: tuple[NDArray[np.int64], ...]
    train: Interactions
    held_out: Interactions
    numbers: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.members) or any(not len(users) for users in self.members):
            raise UsageError("each client holds the data of at least one user")
        object.__setattr__(self, "numbers", {name: number for number, name in enumerate(self.names)})

    def users(self, name: str) -> NDArray[np.int64]:
        return self.members[self.numbers[name]]

    def histories(self, name: str) -> list[History]:
        return [self.train.history(user) for user in self.users(name)]

    def examples(self, names: Sequence[str], unit: Unit) -> list[int]:
        """How many units each of these clients has."""
        if unit is Unit.USER:
            return [len(self.users(name)) for name in names]
        return [sum(len(history) for history in self.histories(name)) for name in names]


@dataclass(frozen=True, slots=True)
class LocalPrivacy:
    """DP-SGD at each client: ``steps`` steps a round, in which each example is in a batch with probability ``share``.

    An example is a user, or an interaction on a device. A step is charged once for all clients, with the highest
    sampling rate among them. No two clients share an example, so no example costs more (parallel composition).
    ``rounds`` is how many rounds there are to be: their steps are one schedule, where a ledger is for that.
    """

    settings: Settings
    share: float
    steps: int
    rate: float
    unit: Unit = Unit.USER
    rounds: int = 1

    def of(self, examples: int) -> Settings:
        """The settings of a client with this many examples."""
        return replace(self.settings, expected_batch=max(1, int(self.share * examples)))

    def event(self, examples: Sequence[int]) -> Release:
        """What one step costs the client with the highest sampling rate."""
        sampling = max((self.of(count).sampling(count) for count in examples), key=lambda sample: sample.rate)
        guarantee = Guarantee(self.unit, Relation.ZERO_OUT, Trust.LOCAL)
        return Release(Gaussian(self.settings.noise_multiplier), sampling, guarantee)


@dataclass(frozen=True, slots=True)
class UpdateRecipe:
    """How clients make what they send.

    clip: the largest L2 norm of what a client sends, or adds for one of its users.
    measured: the share of the squared norm that measured values take up; with 0 clients measure nothing.
    weight_bound: a client counts as often as it has users, up to this bound. With noise in the sum it is 1.
    measured_every: clients measure in the rounds whose number, from 0 on, is divided by this. In all others the
    coordinates of measured values are zeros, and the whole clip is for the change.
    scaffold: beside its change a client sends how far its control variate moves; both together are what is clipped.
    personal: names of layers that each client keeps to itself, and that are in nothing it sends.
    """

    local: Local
    clip: float
    measured: float = 0.05
    weight_bound: int = 1
    measured_every: int = 1
    scaffold: bool = False
    personal: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.measured < 1:
            raise UsageError("measured values take up a share of the norm from 0 to below 1")
        if self.measured_every < 1:
            raise UsageError("clients measure every so many rounds, one at least")

    def length(self, parameters: int) -> int:
        """How many coordinates a client sends for a model of which this many parameters are shared."""
        return parameters * (2 if self.scaffold else 1) + (len(METRICS) + 1 if self.measured else 0)

    def measures(self, number: int) -> bool:
        """Whether clients measure in the round of this number, from 0 on."""
        return self.measured > 0 and number % self.measured_every == 0


class Federation:
    """The server and the clients of a federated training. ``model`` is the server's; each client trains its own."""

    def __init__(
        self,
        model: SharedModel,
        client_data: ClientData,
        aggregator: Aggregator,
        recipe: UpdateRecipe,
        *,
        encoding: Encoding,
        noise: Callable[[int], NoiseSpec] | None = None,
        local_privacy: LocalPrivacy | None = None,
        ledger: Ledger | None = None,
        noiseless: bool = False,
        silos: UsersInSilos | None = None,
        participation: Participation | None = None,
        callers: Callers | None = None,
        optimiser: Optimiser | None = None,
        patience: int = 0,
        secret: bytes,
        seed: int,
    ) -> None:
        """``silos``: each user trains alone, and is the unit of privacy; None: a client is. ``patience``: after how
        many measured rounds in a row without a better model it is time to stop; 0: never."""
        if (0 if silos is None else silos.most) != encoding.users:
            raise UsageError("the encoding is one vector for each client or for each user, and training is the same")
        if silos is not None and local_privacy is not None:
            raise UsageError("users in silos train alone, without noise of their own")
        if silos is not None and recipe.scaffold:
            raise UsageError(
                "users in silos move the model alone, each from where the round began: no silo drifts, and what it "
                "kept of its users for the next round would be in no user's clip"
            )
        if silos is not None and recipe.personal:
            raise UsageError(
                "users in silos move the model alone: a head of their silo would carry each of them into the vectors "
                "of all others, which no user's clip bounds"
            )
        if keeps_unsent(encoding) and (silos is not None or recipe.scaffold):
            raise UsageError("users in silos keep nothing that they have not sent, and with SCAFFOLD all is sent")
        if noise is not None and recipe.weight_bound > 1:
            raise UsageError("with noise in the sum every client counts once")
        self._model, self._data, self._aggregator, self._recipe = model, client_data, aggregator, recipe
        if (local_privacy is None or noiseless) != (ledger is None):
            raise UsageError("local training under privacy is charged to a ledger, and only that")
        if local_privacy is not None and recipe.measured:
            raise UsageError("what a client measures would leave it without noise of its own: it sends what it trained")
        self._encoding, self._noise, self._noiseless = encoding, noise, noiseless
        self._local_privacy, self._ledger, self._silos = local_privacy, ledger, silos
        self._participation = participation or Participation()
        self._callers: Callers = callers or Drawn(client_data.names, self._participation, seed=seed)
        self._optimiser = optimiser or Optimiser()
        self._patience = patience
        self._secret, self._seed = secret, seed
        self._run = derive(secret, labels.SIMULATED, b"run").hex()[:16]  # runs may share a ledger
        model.begin(client_data.train.item_count, seed)
        self.state = TrainingState(model.vector)
        self._personal = personal(model, recipe.personal)
        travels = int(np.count_nonzero(~self._personal))
        self._kept, self._will_keep, self._controls = KeptByClients(secret), dict[str, Kinds](), None
        self._heads, self._unsent = self._kept.of(HEAD), self._kept.of(UNSENT)
        if recipe.scaffold:
            steps, rate = self._pace(1)
            self._controls = ControlVariates(self._kept.of(CONTROL), travels, steps * rate)
        self._keep()
        if encoding.length != recipe.length(travels):
            raise UsageError(f"the encoding is for {encoding.length} numbers")

    def resume(self, state: TrainingState) -> None:
        """Continue from a checkpoint."""
        found, own = [(one.vector.shape, one.common.shape, bool(one.sealed)) for one in (state, self.state)]
        if found != own:
            raise UsageError("the checkpoint is of another model")
        if state.sealed:
            self._kept.open(len(state.rounds), state.sealed)
        if self._controls is not None:
            self._controls.common, self._controls.weight = state.common, state.weight
        self._callers.read(state.calls, state.called)
        self.state, self._optimiser.state = state, dict(state.optimiser)
        self._model.vector = state.vector

    def on(self, client_data: ClientData) -> None:
        """Go on with other data of the same clients, from the next round on."""
        own = self._data
        if (client_data.names, client_data.train.item_count) != (own.names, own.train.item_count):
            raise UsageError("a training goes on with the same clients and items")
        self._data = client_data

    @property
    def stalled(self) -> bool:
        """Whether it is time to stop early. This follows from what the records of rounds say was measured, and from
        nothing else."""
        found = [one.measured[METRICS[1]] for one in self.state.rounds if METRICS[1] in one.measured]
        return 0 < self._patience < len(found) and found.index(max(found)) < len(found) - self._patience

    def advance(self) -> Round:
        """Carry out one round. If too many clients drop out, the model does not change, and the record says so."""
        number = len(self.state.rounds)
        called = self._callers.call(number, self.state.vector)
        cohort, expected = called.names, self._participation.expected(len(self._data.names))
        moved, self._will_keep = dict[str, Kinds](), {}
        try:
            if len(cohort) < 2:
                raise ThresholdError(f"a cohort of {len(cohort)} hides nobody")
            with self._charged(number, cohort) as charged_before:
                request = self._request(number, called, charged_before, moved)
                result = self._aggregator.aggregate(request, self._client(number, called))
        except ThresholdError as error:
            done = failed_round(number, "training", len(cohort), error)
            self._callers.done(called, self.state.vector, 0.0, summed=False)
        else:
            self._kept.move(moved)
            measured = self._learn(result, expected, measures=self._recipe.measures(number))
            done = completed_round(number, "training", len(cohort), result, measured)
            self._callers.done(called, self.state.vector, result.simulated, summed=True)
        done = replace(done, clock=self._callers.now, staleness=called.staleness)
        self.state.rounds += (done,)
        self._keep()
        return done

    def _keep(self) -> None:
        """Bring what is not the model's in the checkpoint up to date."""
        self.state.calls, self.state.called = self._callers.written()
        if (controls := self._controls) is not None:
            self.state.common, self.state.weight = controls.common, controls.weight
        if self._keeps:
            self.state.sealed = self._kept.sealed(len(self.state.rounds))

    @property
    def _keeps(self) -> bool:
        """Whether clients keep anything from sum to sum."""
        return bool(self._recipe.scaffold or self._recipe.personal or keeps_unsent(self._encoding))

    def _request(self, number: int, called: Called, charged_before: bool, moved: dict[str, Kinds]) -> Request:
        """``moved`` gets what all who are in the sum keep from then on."""
        controls, started, cohort = self._controls, [self.state.vector.tobytes()], called.names

        def sent(name: str, vector: NDArray[np.float64], kept: bytes) -> None:
            after = {} if controls is None else {CONTROL: controls.after(name, vector)}
            moved[name] = {**decode_kinds(kept), **after}

        if controls is not None:
            started.append(controls.common.tobytes())
        return Request(
            number,
            "training",
            cohort,
            at_round(self._encoding, number),
            None if self._noise is None or self._noiseless else self._noise(len(cohort)),
            sha256(b"".join(started)).digest() if called.buffer is None else called.buffer.model(),
            {name: self._weight(name) for name in cohort},
            charged_before,
            lambda name: encode_kinds(self._will_keep.pop(name, {})),
            sent if self._keeps else None,
            called.late,
            called.buffer,
            called.starts,
        )

    def _weight(self, name: str) -> int:
        return min(len(self._data.users(name)), self._recipe.weight_bound)

    @contextmanager
    def _charged(self, number: int, cohort: Sequence[str]) -> Iterator[bool]:
        """Charge the steps of a round to the clients' ledger: reserve them before anybody trains, and commit them when
        updates have left. The same round is charged once, however often it is attempted. Gives whether it had been
        committed by an earlier attempt."""
        private, ledger = self._local_privacy, self._ledger
        if private is None or ledger is None:
            yield False
            return
        reserved, steps = self._steps(private, ledger.budget.kind, number, cohort)
        ledger.reserve(reserved)
        try:
            yield ledger.committed(steps)
        except ThresholdError:  # a sum that failed has heard its clients
            ledger.commit(steps)
            raise
        ledger.commit(steps)

    def _steps(self, private: LocalPrivacy, kind: Kind, number: int, cohort: Sequence[str]) -> tuple[Steps, Steps]:
        """What is reserved before a round, and what is committed after it: its own steps, or the schedule of all rounds
        at the rate of the client that samples most, of which so many steps are taken by then."""
        if kind is not Kind.SCHEDULE:
            event = private.event(self._data.examples(cohort, private.unit))
            steps = Steps(f"round {number} of {self._run}", event, private.steps)
            return steps, steps
        event = private.event(self._data.examples(self._data.names, private.unit))
        whole = Steps(f"schedule of {self._run}", event, private.rounds * private.steps)
        if number >= private.rounds:
            raise BudgetError(f"the schedule that is reserved ends with round {private.rounds}: no step is left")
        return whole, replace(whole, count=(number + 1) * private.steps)

    # What clients do

    def _client(self, number: int, called: Called) -> Update:
        newest, measured, unit = self.state.vector, self._measured(number, called.names), self._unit
        measures, room = self._recipe.measures(number), self._recipe.clip * (1 - self._recipe.measured) ** 0.5

        def sent(who: str, change: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
            if not np.isfinite(change).all():  # nobody may see whose training failed
                _LOG.warning("round %d: the training of %s is no number, and counts as zeros", number, who)
                change = np.zeros_like(change)
            if measures:  # else encoding clips the change to all of the norm
                change = change * min(1.0, room / max(float(np.sqrt(np.square(change).sum())), 1e-300))
            return np.concatenate([change, values * unit])

        def of_users(name: str, users: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
            model = self._model.with_vector(called.vector(name, newest))
            weight, histories = called.weight(name), self._data.histories(name)
            some = [histories[user] for user in users]
            changes = model.changes(some, self._recipe.local, self._seed_of("users", number))
            for user, change, values in zip(users, changes, measured[name][users], strict=True):
                yield sent(f"{name}, user {user}", weight * change, values)

        def update(name: str) -> NDArray[np.float64] | LazyVectors:
            count = len(self._data.users(name))
            if self._encoding.users and getattr(self._model, "even", False):
                return ChosenLazyVectors(count, lambda users: of_users(name, users))
            if self._encoding.users:  # who is in a sample would show in how long it takes: it is made for all
                return LazyVectors(count, lambda: of_users(name, np.arange(count)))
            change = self._moved(name, number, called.vector(name, newest))
            return sent(name, called.weight(name) * change, measured[name].mean(axis=0))

        return update

    def _moved(self, name: str, number: int, begun: NDArray[np.float32] | None = None) -> NDArray[np.float64]:
        """How far a client is, after its training, from the model that it began with; and how far its control variate
        moves, if it has one."""
        local, controls, histories = self._recipe.local, self._controls, self._data.histories(name)
        start, shared = self._own_vector(name, begun), ~self._personal
        linear = linear_of(at_round(self._encoding, number))
        first = start.copy()
        if linear is not None and name in self._unsent:
            first[shared] += self._unsent[name]
        model = self._model.with_vector(first)
        if controls is not None:
            drift = np.zeros_like(start)
            drift[shared] = controls.drift(name)
            local = replace(local, drift=drift)
        self._train(model, name, histories, local, number)
        moved = model.vector
        change = moved[shared].astype(np.float64) - start[shared]
        if self._recipe.personal:
            if np.isfinite(moved).all():
                self._will_keep[name] = {HEAD: moved[self._personal]}
            else:  # a training that came to nothing in one part came to nothing
                change[:] = np.nan
        if linear is not None:
            self._will_keep[name] = {**self._will_keep.get(name, {}), UNSENT: self._left(linear, change)}
        return change if controls is None else controls.sent(name, change, *self._pace(len(histories)))

    def _left(self, linear: Linear, change: NDArray[np.float64]) -> NDArray[np.float32]:
        """What this client has not sent once this change is in a sum. Who went nowhere begins anew: with what it had it
        would go nowhere in the next round, too."""
        if not np.isfinite(change).all():
            return np.zeros(len(change), np.float32)
        others = np.zeros(self._encoding.length - len(change))
        return left_of(linear, np.concatenate([change, others]))[: len(change)]

    def _own_vector(self, name: str, begun: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The model that a client begins with (None: the newest), with this client's own head, if it has one."""
        vector = (self.state.vector if begun is None else begun).copy()
        if name in self._heads:
            vector[self._personal] = self._heads[name]
        return vector

    def owned(self) -> Iterator[tuple[SharedModel, NDArray[np.int64]]]:
        """The model of each client, with its own head, and which users have it; all others have the shared start."""
        rest = np.setdiff1d(np.arange(self._data.train.user_count), np.concatenate(self._data.members))
        if len(rest):
            yield self._model, rest
        for name in self._data.names:
            yield self._model.with_vector(self._own_vector(name)), self._data.users(name)

    def _pace(self, users: int) -> tuple[int, float]:
        """How many steps a client with so many users takes in a round, and how large they are."""
        local, private = self._recipe.local, self._local_privacy
        return (local.steps(users), local.rate) if private is None else (private.steps, private.rate)

    @property
    def _unit(self) -> float:
        """The coordinate that stands for a measured value of 1. So all measured values that are sent together stay
        within their share of the norm."""
        return float(self._recipe.clip * np.sqrt(self._recipe.measured / (len(METRICS) + 1)))

    def _train(self, model: SharedModel, who: str, histories: Sequence[History], local: Local, number: int) -> None:
        """Train as one client does."""
        private = self._local_privacy
        seed = self._seed_of(who, number)
        if private is None:
            model.train(histories, local, seed)
            return
        (examples,) = self._data.examples([who], private.unit)
        event = private.event([examples])

        def charged(asked: Release, count: int) -> None:
            if asked != event or count > private.steps:
                raise BudgetError("a client trains otherwise than the round was charged for")

        rng = Prg(derive(self._secret, labels.SIMULATED, b"training", who.encode(), number.to_bytes(8, "big")))
        cast(PrivatelyTrained, model).train_privately(  # the caller's choice of a mode says that it can
            histories,
            private.of(examples),
            private.steps,
            private.rate,
            unit=private.unit,
            charge=None if self._noiseless else charged,
            seed=seed,
            rng=rng,
            drift=local.drift,
        )

    def _measured(self, number: int, cohort: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """For each client a row for each of its users: the values, and whether there are held-out events of theirs.

        Real devices and silos would each do this by themselves. Here it is computed for all at once, in batches that
        follow from nobody's data. Rows are zeros in rounds in which nothing is measured, and have no columns if nothing
        is measured in any. In a reference without noise, nobody but ``stalled`` would look at them.
        """
        client_data = self._data
        if not self._recipe.measures(number) or (self._noiseless and not self._patience):
            columns = len(METRICS) + 1 if self._recipe.measured else 0
            return {name: np.zeros((len(client_data.users(name)), columns)) for name in cohort}
        if self._recipe.personal:  # each by its own model, with its own head
            return {
                name: self._table(self._model.with_vector(self._own_vector(name)), client_data.users(name))
                for name in cohort
            }
        users = np.concatenate([client_data.users(name) for name in cohort])
        ends = np.cumsum([len(client_data.users(name)) for name in cohort])
        return dict(zip(cohort, np.split(self._table(self._model, users), ends[:-1]), strict=True))

    def _table(self, model: SharedModel, users: NDArray[np.int64]) -> NDArray[np.float64]:
        train, held_out = self._data.train.of_users(users), self._data.held_out.of_users(users)
        found = measure(_Numbers(model), train, held_out, everybody=True)
        table = np.zeros((len(users), len(METRICS) + 1))
        table[found.users] = np.column_stack([*(found.values[name] for name in METRICS), np.ones(len(found.users))])
        return table

    def _seed_of(self, who: str, number: int) -> int:
        text = f"{self._seed} {number} {who}".encode()
        return int.from_bytes(sha256(text).digest()[:4], "big")

    # What the server does

    def _learn(self, result: Result, expected: int, *, measures: bool) -> dict[str, float]:
        """Move the server's model by a sum, and its control variate if it has one. Returns the means of what
        clients measured, if it was a round for that: else there is nothing but noise."""
        shared = ~self._personal
        parameters = np.count_nonzero(shared)
        denominator: float = expected if self._noise is not None else result.weight
        if self._silos is not None:  # the declared users, as if the silos had their part of them
            denominator = self._silos.users * expected / len(self._data.names)
            denominator *= float(self._encoding.sampled)  # those whose coins come up heads, on average
        before, vector = self.state.vector[shared].astype(np.float64), self.state.vector.copy()
        vector[shared] = before + self._optimiser(result.vector[:parameters] / denominator, before)
        self.state.vector = vector
        self.state.optimiser = dict(self._optimiser.state)
        self._model.vector = self.state.vector
        if self._controls is not None:
            weight = result.weight * len(self._data.names) / len(result.survivors)
            self._controls.learn(result.vector[parameters : 2 * parameters], weight)
        if not measures:
            return {}
        *totals, having = (result.vector[-len(METRICS) - 1 :] / self._unit).tolist()
        return {name: total / having for name, total in zip(METRICS, totals, strict=True)} if having > 0 else {}


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A model whose scores are numbers: where one of a user is none, that user's are all equal. An error would end the
    run, and tell that somebody has such a history."""

    model: SharedModel

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        scores = np.array(self.model.scores(histories))
        scores[~(scores < np.inf).all(axis=1)] = 0  # what is not a number is not below infinity
        return scores


def completed_round(
    number: int, purpose: str, planned: int, result: Result, measured: Mapping[str, float] | None = None
) -> Round:
    """The record of a sum that came out."""
    return Round(
        number,
        purpose,
        planned,
        len(result.survivors),
        result.silent,
        result.bytes_up,
        result.bytes_down,
        result.seconds,
        measured or {},
    )


def failed_round(number: int, purpose: str, planned: int, error: ThresholdError) -> Round:
    """The record of a sum that failed since too many clients dropped out."""
    return Round(number, f"{purpose}, given up: {error}", planned, 0, {}, 0, 0, {})
