"""Makes everything that a run needs from its configuration: data, clients, model, noise and budgets.

Whatever can be refused is refused here, before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from functools import lru_cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dp.calibrate import SLACK, Calibration, calibrate, release_of, steps_multiplier, user_level, with_multiplier
from dp.events import Gaussian, Guarantee, Holder, Relation, Release, Trust, Unit
from dp.filter import Budget, Filter, Kind, PrivacyCost
from dp.ledger import Ledger
from dp.noise import NoiseSpec
from recsys.aggregator import Aggregator
from recsys.config import ClientKind, Clients, Config, Data, HoldOut, Mode, Privacy, Source, Spread, Training
from recsys.data import download, films, movielens, partition, split, synthetic, tables
from recsys.data.interactions import Interactions
from recsys.data.items import Items
from recsys.data.split import Split
from recsys.deployment import Deployment
from recsys.federated import ClientData, Federation, LocalPrivacy, UpdateRecipe
from recsys.models.private_sums import Sums
from recsys.models.recommender import Local, Recommender, SharedModel
from recsys.optimisers import Optimiser
from recsys.other_runs import identity
from recsys.participation import Draw, Participation
from recsys.public_facts import taken_as_public
from recsys.requested_sums import RING_BITS, beta_of, sums_of, ways
from recsys.run_record import Round
from recsys.users_in_silos import UsersInSilos, declared
from secagg.encoding import Encoding, Rounding
from secagg.errors import UsageError

if TYPE_CHECKING:
    from dp.training import Settings

MODELS = {
    "autoencoder": "recsys.models.autoencoder:Autoencoder",
    "mf": "recsys.models.mf:MatrixFactorisation",
    "neumf": "recsys.models.neumf:NeuMf",
    "sasrec": "recsys.models.sasrec:SasRec",
    "private-ease": "recsys.models.private_ease:PrivateEase",
    "private-mf": "recsys.models.private_mf:PrivateMf",
}
"""The models that can be trained. The last two are made of a few sums; all others move one vector in each round."""

NEEDED = {
    Source.SYNTHETIC: (),
    Source.MOVIELENS: ("path",),
    Source.TABLE: ("path",),
    Source.SPLIT: ("train", "test"),
}
"""The keys of ``[data]`` without which there is nothing to read."""

_EXACT_BITS = 24
_SAMPLED_BITS = 8
"""The ring is so much narrower where cohorts differ in size. So there is room for larger cohorts, and for smaller ones,
in which each client draws more noise."""
_IN_PARTS = 1 + 1e-9
"""Several sums with shares of the budget have so much more noise than one with the whole: each cost is rounded up."""


@dataclass(frozen=True, slots=True)
class PlannedCost:
    """The most that a run will cost: ``count`` releases like ``event``, for which ``samples`` samples are drawn."""

    event: Release
    count: int
    samples: int = 0

    def cost(self, kind: Kind) -> PrivacyCost:
        """What it takes from a budget of that kind."""
        return PrivacyCost.of(self.event, self.count, self.samples, kind)

    def suited(self, budget: Budget, epsilon: float) -> Budget:
        """The budget with another epsilon, and the same kind, delta and slack."""
        return Budget.suited(self.event, Fraction(str(epsilon)), budget.delta, budget.slack)


@dataclass(frozen=True, slots=True)
class DistributedNoise:
    """Noise inside the sums, what it costs, and the budget for that."""

    found: Calibration
    planned: PlannedCost
    budget: Budget
    guarantee: Guarantee


@dataclass(frozen=True, slots=True)
class LocalNoise:
    """Noise in local training, what it costs, and the budget for that."""

    settings: Settings
    planned: PlannedCost
    budget: Budget
    guarantee: Guarantee


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    config: Config
    split: Split
    items: Items | None
    """The public table of items, which models may use; None where items are those that occur, or are made up."""
    notes: tuple[str, ...]
    """What people should know about the data. These are exact counts over users, for whoever has the data."""
    taken_as_public: tuple[str, ...]
    """The facts that guarantees take as public (``recsys.public_facts``)."""
    client_data: ClientData
    deployment: Deployment
    participation: Participation
    recipe: UpdateRecipe
    plain: Encoding | None
    """The encoding of what a client sends in training without noise; None for a model made of sums."""
    distributed: DistributedNoise | None
    locally: LocalNoise | None
    silos: UsersInSilos | None
    """Where a silo adds up one vector for each of its users: what is declared of them. None: a client sends one."""

    @property
    def data_identity(self) -> bytes:
        """Identifies the users whose data the run is about."""
        return identity(self.config, self.split.train.user_ids)

    @property
    def in_rounds(self) -> bool:
        return self.plain is not None

    @property
    def encoding(self) -> Encoding:
        """The encoding of what a client sends in training."""
        return self.distributed.found.encoding if self.distributed is not None else cast(Encoding, self.plain)

    @property
    def planned_clients(self) -> int:
        """How many clients take part in a sum, on average."""
        return self.participation.planned(len(self.client_data.names))

    def model(self) -> Recommender:
        """A new model, which has not been trained."""
        return model_of(self.config, self.items)

    def noise(self, clients: int) -> NoiseSpec:
        """The noise for a cohort of this size. A cohort that is larger than planned may need a wider ring."""
        found = cast(DistributedNoise, self.distributed).found
        kind = self.deployment.noise(clients)
        fitted = with_multiplier(found.noise_multiplier, kind, [found.encoding], clients, 2 * RING_BITS)
        if fitted is None:
            raise UsageError(f"a cohort of {clients} does not fit a ring of {2 * RING_BITS} bits")
        return fitted[1]

    def without_privacy(self) -> Prepared:
        """The same without privacy: a baseline."""
        return replace(self, distributed=None, locally=None)

    def federation(
        self,
        model: SharedModel,
        aggregator: Aggregator,
        secret: bytes,
        ledger: Ledger | None = None,
        *,
        noiseless: bool = False,
    ) -> Federation:
        """A federated training of ``model``. ``ledger`` is for local training with privacy; ``noiseless`` makes the
        same training without noise, as a reference."""
        training, privacy, locally = self.config.training, self.config.privacy, self.locally
        return Federation(
            model,
            self.client_data,
            aggregator,
            self.recipe,
            encoding=self.encoding,
            noise=self.noise if self.distributed is not None else None,
            local_privacy=None
            if locally is None
            else LocalPrivacy(locally.settings, privacy.share, privacy.steps, privacy.rate, locally.guarantee.unit),
            ledger=ledger,
            noiseless=noiseless,
            silos=self.silos,
            participation=self.participation,
            optimiser=_optimiser(training),
            secret=secret,
            seed=self.config.seed,
        )

    def sums(self, aggregator: Aggregator, done: Callable[[Round], None] = lambda one: None) -> Sums:
        """What a model that is made of sums asks for them."""
        if self.distributed is None:
            return sums_of(self.client_data, aggregator, silos=self.silos, done=done)
        found = self.distributed.found
        return sums_of(
            self.client_data,
            aggregator,
            silos=self.silos,
            multiplier=_IN_PARTS * found.noise_multiplier,
            noise=found.noise,
            done=done,
        )


def prepare(config: Config) -> Prepared:
    """Everything that the run of ``config`` needs. ``UsageError``: it cannot be carried out at all. ``BudgetError``: it
    cannot be carried out within its budget."""
    check_names(config)
    data, notes, items = data_of(config.data)
    client_data = client_data_of(config, data)
    deployment = _deployment(config)
    training = config.training
    participation = Participation(training.draw, training.size)
    if len(client_data.names) < 2:
        raise UsageError("a sum over fewer than two clients hides nobody")
    planned = participation.planned(len(client_data.names))
    noised = config.privacy.mode in (Mode.DISTRIBUTED, Mode.BOTH)
    deployment.parameters(planned, noised=noised), _optimiser(training)  # refused here, if at all
    local = Local(training.epochs, training.batch, training.rate, training.proximal)
    recipe = UpdateRecipe(local, training.clip, 0.0 if config.locally else training.measured, training.weight_bound)
    model, plain = model_of(config, items), None
    silos = _silos(config, client_data, made_of_sums(model))
    if made_of_sums(model):
        if config.locally:
            raise UsageError(f"{config.model.name} has no local training: its privacy is distributed, or none")
        if participation.draw is not Draw.EVERYONE:
            raise UsageError(f"{config.model.name} is made of sums over all clients: training.draw is everyone")
        length = data.train.item_count
    else:
        shared = cast(SharedModel, model)
        try:
            shared.begin(data.train.item_count, config.seed)
        except TypeError as error:
            raise UsageError(f"model.settings: {error}") from None
        length = recipe.length(len(shared.vector))
        plain = _plain(length, training, silos)
    distributed, locally = None, None
    if noised:
        delta = delta_of(config.privacy, data.train.user_count if silos is None else silos.users)
        distributed = _distributed(config, deployment, planned, length, delta, silos, in_rounds=plain is not None)
    if config.locally:
        locally = _locally(config, client_data, data)
    public = taken_as_public(config, listed=items is not None or config.data.source is Source.SYNTHETIC)
    return Prepared(
        config,
        data,
        items,
        notes,
        public,
        client_data,
        deployment,
        participation,
        recipe,
        plain,
        distributed,
        locally,
        silos,
    )


def _silos(config: Config, client_data: ClientData, sums: bool) -> UsersInSilos | None:
    """What is declared of users, if silos add up one vector for each. A silo with more than it may have refuses.

    Without privacy a model made of sums wants the same sums, and what is not declared may follow from the data.
    """
    if config.clients.kind is ClientKind.DEVICES or not (config.users_in_silos or (sums and not config.private)):
        return None
    names, members = client_data.names, client_data.members
    found = declared(config, len(names))
    if not config.private:
        sizes = [len(users) for users in members]
        found = replace(found, users=config.privacy.n_min or sum(sizes), most=config.clients.most or max(sizes))
    for name, held in zip(names, members, strict=True):
        if len(held) > found.most:
            raise UsageError(f"{name} has more than {found.most} users, the most that a silo may have (clients.most)")
    if found.overlap > len(names):
        raise UsageError(f"clients.overlap is {found.overlap}, and there are {len(names)} silos")
    return found


def _plain(length: int, training: Training, silos: UsersInSilos | None) -> Encoding:
    if silos is None:
        return Encoding(length, training.clip, _EXACT_BITS, weight_bound=training.weight_bound)
    return Encoding(length, training.clip, _EXACT_BITS, users=silos.most, overlap=silos.overlap)


def made_of_sums(model: Recommender) -> bool:
    return hasattr(model, "learn")


def _optimiser(training: Training) -> Optimiser:
    return Optimiser(training.server, training.server_rate, training.momentum)


# Data and clients


@lru_cache(1)
def data_of(data: Data) -> tuple[Split, tuple[str, ...], Items | None]:
    """The split, notes about it, and the table of items if there is one, which does not depend on any user's events."""
    for name in NEEDED[data.source]:
        if not getattr(data, name):
            raise UsageError(f"data.source = {data.source} needs data.{name}: where the file or folder is")
    columns = {"user": data.user, "item": data.item, "time": data.time, "rating": data.rating}
    listed = _listed(data)
    if data.source is Source.SPLIT:
        found = Split.load(data.train, data.valid, data.test, **columns, listed=listed)
        return found, tuple(found.report()), listed
    if data.source is Source.SYNTHETIC:
        events, said = synthetic.population(data.users, data.item_count, data.seed), ["a made-up population"]
    else:
        loaded = (
            movielens.load(download.fetch(data.download, data.path) if data.download else data.path, listed=listed)
            if data.source is Source.MOVIELENS
            else tables.load(data.path, **columns, listed=listed)
        )
        events, said, listed = loaded.interactions, loaded.report(), loaded.items
    rules: dict[HoldOut, Callable[[Interactions], Split]] = {
        HoldOut.LAST: split.leave_last_out,
        HoldOut.RATIO: split.by_ratio,
        HoldOut.TIME: _by_moments(data) if data.test_from else split.by_time,
    }
    divided = rules[data.held_out](events.ties_drawn(data.order) if data.order else events)
    return divided, (*said, *divided.report()), listed


def _listed(data: Data) -> Items | None:
    """The table that ``data.items`` names."""
    if not data.items:
        return None
    if Path(data.items).name not in films.NAMES:
        return tables.items(data.items, item=data.item)
    found, bad = films.read(data.items)
    if found is None:
        raise UsageError(f"{data.items} lists no items" + (f": line {bad.rows[0].line} names none" if bad.rows else ""))
    return found


def _by_moments(data: Data) -> Callable[[Interactions], Split]:
    """A split by the moments that the configuration names. Tables keep dates as microseconds; MovieLens and the
    synthetic population keep them as seconds."""
    unit = 1 if data.source is Source.TABLE else 10**6
    moments = []
    for name, text in (("valid_from", data.valid_from), ("test_from", data.test_from)):
        try:
            moment, is_date = tables.moment_of(text)
        except ValueError as error:
            raise UsageError(f"data.{name}: {error}") from None
        moments.append(moment // unit if is_date else moment)
    return lambda events: split.by_time(events, *moments, fractions=False)


def client_data_of(config: Config, data: Split) -> ClientData:
    """Clients and the users of each. Clients are named by number, so that users' names stay with them.

    With noise in the sums, devices without an event to train on take part, too: otherwise what one user did would
    change how many clients there are, and the numbers of others. (With local training on devices it is public how many
    events each device has, and a device without any has nothing to train on.)
    """
    clients: Clients = config.clients
    train = data.train
    if clients.kind is ClientKind.DEVICES:
        everybody = np.arange(train.user_count)
        present = everybody[np.diff(train.starts) > 0] if config.locally or not config.private else everybody
        members = tuple(present.reshape(-1, 1))
    elif clients.spread is Spread.COLUMN:
        if not clients.file:
            raise UsageError("clients.spread = column needs clients.file: a table with columns user and silo")
        members = partition.natural(train, tables.mapping(clients.file, user="user", silo="silo")).members
    else:
        members = partition.silos(
            train, clients.count, cast(Any, clients.spread.value), alpha=clients.alpha, seed=config.seed
        ).members
    digits = len(str(len(members) - 1))
    names = tuple(f"client-{number:0{digits}}" for number in range(len(members)))
    return ClientData(names, members, train, data.valid)


def check_names(config: Config) -> None:
    """Refuse a model or a protocol that does not exist, before anything slow is done."""
    _check_model_name(config)
    _deployment(config)


def _check_model_name(config: Config) -> None:
    if config.model.name not in MODELS:
        raise UsageError(f"unknown model {config.model.name!r}; there are {', '.join(MODELS)}")


def _deployment(config: Config) -> Deployment:
    protocol = config.protocol
    return Deployment(protocol.name, protocol.adversary, protocol.corrupt, protocol.dropout)


def model_of(config: Config, items: Items | None = None) -> Recommender:
    """A new model of the configured kind; ``items`` is the public table of items, for the models that use it."""
    _check_model_name(config)
    module, name = MODELS[config.model.name].split(":")
    try:
        made = getattr(import_module(module), name)
        settings = config.model.settings
        names = signature(made).parameters
        if not hasattr(made, "configured") and (strange := settings.keys() - names):
            raise UsageError(
                f"model.settings of {config.model.name} are {', '.join(names)}, and not {min(strange)[:40]!r}"
            )
        model: Recommender = made.configured(settings, items) if hasattr(made, "configured") else made(**settings)
    except TypeError:
        raise UsageError(f"model.settings of {config.model.name}: a value is of a wrong type") from None
    except ValueError as error:
        raise UsageError(f"model.settings: {error}") from None
    return model


# Privacy


def delta_of(privacy: Privacy, units: int) -> Fraction:
    """The delta of the configuration, or 1 / (100 n) for a public number n of units, rounded down to three digits.

    Delta is the probability with which the guarantee may fail altogether, and a mechanism that publishes one unit of n
    at random has delta 1/n: so more than 1/n is refused.

    >>> float(delta_of(Privacy(), 610)), float(delta_of(Privacy(n_min=600), 610))
    (1.63e-05, 1.66e-05)
    """
    public = privacy.n_min or units
    made = 1 / (100 * Decimal(public))
    delta = Fraction(made.quantize(Decimal(1).scaleb(made.adjusted() - 2), ROUND_FLOOR))
    if privacy.delta:
        delta = Fraction(str(privacy.delta))
    most = max(public, units)
    if delta > Fraction(1, most):
        named = "privacy.delta" if privacy.delta else "delta, made from privacy.n_min,"
        raise UsageError(
            f"{named} = {float(delta):g} is more than one over the number of units, {most}: publishing one of them "
            "whole, at random, would be as private"
        )
    return delta


def _distributed(
    config: Config,
    deployment: Deployment,
    planned: int,
    length: int,
    delta: Fraction,
    silos: UsersInSilos | None,
    *,
    in_rounds: bool,
) -> DistributedNoise:
    privacy, kind = config.privacy, deployment.noise(planned)
    rounds = config.training.rounds if in_rounds else 1

    def tried(ring_bits: int, rounding: Rounding) -> Calibration:
        return calibrate(
            epsilon=Fraction(str(privacy.epsilon)),
            delta=delta,
            rounds=rounds,
            clients=planned,
            length=length,
            clip_l2=config.training.clip if in_rounds else 1.0,
            ring_bits=ring_bits - _SAMPLED_BITS if config.training.draw is Draw.POISSON else ring_bits,
            dropouts=kind.dropouts,
            colluders=kind.colluders,
            components=kind.components,
            rotate=False,
            beta=beta_of(rounding),
            users=0 if silos is None else silos.most,
            overlap=1 if silos is None else silos.overlap,
            rounding=rounding,
        )

    found = _first(tried, ways(silos))
    guarantee = user_level(Relation.ZERO_OUT, Holder.DEVICE if silos is None else Holder.SILO)
    event = release_of(found.encoding, found.noise, planned, planned - kind.dropouts, guarantee)
    budget = _budget(event, privacy, delta)
    samples = rounds * found.noise.samples(planned, found.encoding.coordinates)
    return DistributedNoise(found, PlannedCost(event, rounds, samples), budget, guarantee)


def _first(tried: Callable[[int, Rounding], Calibration], choices: Iterator[tuple[int, Rounding]]) -> Calibration:
    """What the first choice gives that can be made private; ``UsageError`` as with the last, if none can."""
    *others, last = choices
    for choice in others:
        with suppress(UsageError):
            return tried(*choice)
    return tried(*last)


def _locally(config: Config, client_data: ClientData, data: Split) -> LocalNoise:
    from dp.training import Flat, Settings

    privacy = config.privacy
    unit = Unit.EXAMPLE if config.clients.kind is ClientKind.DEVICES else Unit.USER
    guarantee = Guarantee(unit, Relation.ZERO_OUT, Trust.LOCAL)
    units = data.train.user_count if unit is Unit.USER else len(data.train)
    delta = delta_of(privacy, units)
    steps = config.training.rounds * privacy.steps
    trial = LocalPrivacy(Settings(Flat(privacy.clip), Fraction(1), 1), privacy.share, privacy.steps, privacy.rate, unit)
    sampling = trial.event(client_data.examples(client_data.names, unit)).sampling
    z = steps_multiplier(
        epsilon=privacy.epsilon, delta=float(delta), steps=steps, sampling=sampling, guarantee=guarantee
    )
    event = Release(Gaussian(z), sampling, guarantee)
    budget = _budget(event, privacy, delta)
    planned = PlannedCost(event, steps)
    Filter.of(budget).reserve("all rounds", planned.cost(budget.kind))  # refused here, if at all
    return LocalNoise(Settings(Flat(privacy.clip), z, 1), planned, budget, guarantee)


def _budget(event: Release, privacy: Privacy, delta: Fraction) -> Budget:
    """The budget for releases like ``event``, with a part of delta set aside for imperfect samplers."""
    return Budget.suited(event, Fraction(str(privacy.epsilon)), delta, slack=delta * SLACK)
