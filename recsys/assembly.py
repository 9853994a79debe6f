"""Makes everything that a run needs from its configuration: data, clients, model, noise and budgets.

Whatever can be refused is refused here, before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, cast

import numpy as np

from dp.calibrate import with_multiplier
from dp.ledger import Ledger
from dp.noise import NoiseSpec
from dp.turns import Turns
from dp.windows import Window
from protocols.buffers import Buffers
from protocols.parameters import AUTO, listed
from recsys.aggregator import Aggregator
from recsys.budgets import DistributedNoise, LocalNoise, delta_of, distributed_noise, local_noise, window_of
from recsys.callers import Callers, Drawn, Ready
from recsys.config import ClientKind, Config, Mode, Training, Upload
from recsys.data.items import Items
from recsys.data.split import Split
from recsys.deployment import Deployment
from recsys.federated import ClientData, Federation, LocalPrivacy, UpdateRecipe
from recsys.models.private_sums import Sums
from recsys.models.recommender import Local, Recommender, SharedModel
from recsys.optimisers import Optimiser
from recsys.other_runs import identity
from recsys.participation import Draw, Participation, beacon
from recsys.personal_heads import personal
from recsys.public_facts import taken_as_public
from recsys.requested_sums import RING_BITS, sums_of
from recsys.run_record import Round
from recsys.sources import client_data_of, data_of
from recsys.text.vectors import ItemVectors, item_vectors
from recsys.turns import buffers_of, turns_of
from recsys.unsent import of_few_bits, sketch_of
from recsys.users_in_silos import UsersInSilos, declared
from secagg.encoding import Encoding
from secagg.errors import UsageError
from secagg.extras import need
from secagg.sketches import Sketch

if TYPE_CHECKING:
    from recsys.text.encoder import Watch

MODELS = {
    "autoencoder": "recsys.models.autoencoder:Autoencoder",
    "mf": "recsys.models.mf:MatrixFactorisation",
    "neumf": "recsys.models.neumf:NeuMf",
    "sasrec": "recsys.models.sasrec:SasRec",
    "private-ease": "recsys.models.private_ease:PrivateEase",
    "private-mf": "recsys.models.private_mf:PrivateMf",
}
"""The models that can be trained. The last two are made of a few sums; all others move one vector in each round."""

OVER_TEXT = {
    "sasrec": "recsys.models.over_text:SasRecOverText",
    "two-tower": "recsys.models.over_text:TwoTower",
    "tuned-encoder": "recsys.models.tuned_encoder:TunedEncoder",
    "private-ease": "recsys.models.private_ease:PrivateEase",
}
"""The models that work with the vectors of ``model.encoder``."""

_TYPES = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
"""What a setting may be, by what the model's constructor says of it."""
_EXACT_BITS = 24
_IN_PARTS = 1 + 1e-9
"""Several sums with shares of the budget have so much more noise than one with the whole: each cost is rounded up."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    config: Config
    split: Split
    items: Items | None
    """The public table of items, which models may use; None where items are those that occur, or are made up."""
    vectors: ItemVectors | None
    """What ``model.encoder`` makes of the texts of all items, which is public, too; None without an encoder."""
    notes: tuple[str, ...]
    """What people should know about the data. These are exact counts over users, for whoever has the data."""
    caution: str
    """What people should know about the sums of this model's changes; empty: nothing."""
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
    def window(self) -> Window | None:
        """What the unit of privacy is in a stream."""
        return window_of(self.config)

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

    def turns(self, secret: bytes) -> Turns | None:
        """Who takes turns, with the keys of the clients that are simulated with this secret; None if nobody does."""
        return turns_of(self.participation, self.client_data.names, beacon(self.config.seed), secret)

    def buffers(self, secret: bytes = bytes(32)) -> Buffers | None:
        """What clients agree on that are summed up when they are ready; None if a cohort is drawn."""
        if self.participation.draw is not Draw.ARRIVALS:
            return None
        return _buffers(self.config, self.client_data.names, self.participation.size, secret)

    def callers(self) -> Callers:
        """What decides who is in the next sum."""
        names, config, training = self.client_data.names, self.config, self.config.training
        if self.participation.draw is not Draw.ARRIVALS:
            return Drawn(names, self.participation, config.network, config.seed)
        return Ready(
            names,
            config.network,
            size=self.participation.size,
            most=self.participation.charged(len(names), training.rounds),
            staleness=training.staleness,
            concurrent=training.concurrent,
            seed=config.seed,
        )

    def model(self) -> Recommender:
        """A new model, which has not been trained."""
        return model_of(self.config, self.items, self.vectors)

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
            else LocalPrivacy(
                locally.settings, privacy.share, privacy.steps, privacy.rate, locally.guarantee.unit, training.rounds
            ),
            ledger=ledger,
            noiseless=noiseless,
            silos=self.silos,
            participation=self.participation,
            callers=self.callers(),
            optimiser=_optimiser(training),
            patience=training.patience,
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


def prepare(config: Config, divided: Split | None = None) -> Prepared:
    """Everything that the run of ``config`` needs. ``UsageError``: it cannot be carried out at all. ``BudgetError``: it
    cannot be carried out within its budget. ``divided``: the same data, but divided in another way, or some of it."""
    check_names(config)
    found, notes, items = data_of(config.data)
    data = divided or found
    client_data = client_data_of(config, data)
    deployment = _deployment(config)
    training = config.training
    participation = Participation(training.draw, training.size, training.over, training.most)
    if len(client_data.names) < 2:
        raise UsageError("a sum over fewer than two clients hides nobody")
    planned = participation.planned(len(client_data.names))
    if participation.draw is Draw.ARRIVALS:  # all who are dishonest may come together
        buffers = _buffers(config, client_data.names, planned)
        deployment = replace(deployment, corrupt=f"{buffers.colluders}/{planned}")
    if (late := planned - participation.expected(len(client_data.names))) > deployment.dropouts(planned):
        raise UsageError(
            f"training.over draws {planned} clients of whom {late} are late, and protocol.dropout allows for "
            f"{deployment.dropouts(planned)}"
        )
    noised = config.privacy.mode in (Mode.DISTRIBUTED, Mode.BOTH)
    if deployment.protocol != AUTO:
        deployment.parameters(planned, noised=noised)  # refused here, if at all
    _optimiser(training)
    local = Local(training.epochs, training.batch, training.rate, training.proximal)
    recipe = UpdateRecipe(
        local,
        training.clip,
        0.0 if config.locally or config.streamed else training.measured,
        training.weight_bound,
        training.measured_every,
        training.scaffold,
        training.personal,
    )
    vectors = vectors_of(config, items)
    model, plain, sketch = model_of(config, items, vectors), None, None
    silos = _silos(config, client_data, made_of_sums(model))
    if made_of_sums(model):
        if config.locally:
            raise UsageError(f"{config.model.name} has no local training: its privacy is distributed, or none")
        if training.scaffold:
            raise UsageError(f"{config.model.name} is made of sums: nobody takes steps that training.scaffold corrects")
        if training.personal:
            raise UsageError(f"{config.model.name} is made of sums: it has no layers for training.personal")
        if training.sampled < 1:
            raise UsageError(f"{config.model.name} is made of sums over all users: training.sampled is 1")
        if config.streamed:
            raise UsageError(f"{config.model.name} is made of sums over all that users did: a stream goes on")
        if config.upload != Upload():
            raise UsageError(f"{config.model.name} is made of sums, of which all travels: nothing is set in upload")
        if participation.draw is not Draw.EVERYONE:
            raise UsageError(f"{config.model.name} is made of sums over all clients: training.draw is everyone")
        length = data.train.item_count
    else:
        shared = cast(SharedModel, model)
        try:
            shared.begin(data.train.item_count, config.seed)
        except TypeError as error:
            raise UsageError(f"model.settings: {error}") from None
        travels = ~personal(shared, training.personal)
        length = recipe.length(int(np.count_nonzero(travels)))
        sketch = sketch_of(config, shared, travels, length)
        plain = _plain(length, config, sketch, silos)
    distributed, locally = None, None
    if noised:
        delta = delta_of(config.privacy, data.train.user_count if silos is None else silos.users)
        charged = participation.charged(len(client_data.names), training.rounds)
        if (window := window_of(config)) is not None:
            charged = min(charged, window.most_releases)
        in_rounds = plain is not None
        distributed = distributed_noise(
            config, deployment, planned, length, delta, silos, in_rounds=in_rounds, charged=charged, sketch=sketch
        )
    if config.locally:
        locally = local_noise(config, client_data, data)
    if distributed is not None:
        deployment = deployment.chosen(planned, distributed.found.encoding, distributed.found.noise)
    else:
        deployment = deployment.chosen(planned, plain or Encoding(length, 1.0, _EXACT_BITS), None)
    public = taken_as_public(config, listed=items is not None or config.made_up)
    return Prepared(
        config,
        data,
        items,
        vectors,
        notes,
        getattr(model, "caution", ""),
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


def _buffers(config: Config, names: Sequence[str], size: int, secret: bytes = bytes(32)) -> Buffers:
    missing = _deployment(config).dropouts(size)
    return buffers_of(names, size, missing, config.protocol.corrupt, config.training.staleness, secret)


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


def _plain(length: int, config: Config, sketch: Sketch | None, silos: UsersInSilos | None) -> Encoding:
    clip, bits, weight_bound = config.training.clip, config.upload.bits, config.training.weight_bound
    if silos is not None:
        return Encoding(length, clip, _EXACT_BITS, users=silos.most, overlap=silos.overlap, sketch=sketch)
    made = Encoding(length, clip, bits or _EXACT_BITS, weight_bound=weight_bound, sketch=sketch)
    return of_few_bits(made) if bits else made


def made_of_sums(model: Recommender) -> bool:
    return hasattr(model, "learn")


def _optimiser(training: Training) -> Optimiser:
    return Optimiser(training.server, training.server_rate, training.momentum, decay=training.decay)


def check_names(config: Config) -> None:
    """Refuse a model or a protocol that does not exist, before anything slow is done."""
    _check_model_name(config)
    _deployment(config)


def _check_model_name(config: Config) -> None:
    name, encoder = config.model.name, config.model.encoder
    if name not in MODELS | OVER_TEXT:
        raise UsageError(f"unknown model {name!r}; there are {', '.join(MODELS | OVER_TEXT)}")
    if encoder and name not in OVER_TEXT:
        raise UsageError(f"model.encoder is for {', '.join(OVER_TEXT)}: {name} knows no texts")
    if not encoder and name not in MODELS:
        raise UsageError(f"{name} needs model.encoder, the directory of a text encoder")


def vectors_of(
    config: Config, items: Items | None, watch: Watch = lambda done, all_of_them: None
) -> ItemVectors | None:
    """The vectors of all items, if the model works with them; ``watch`` is told how many of how many are done."""
    if not config.model.encoder:
        return None
    if items is None:
        raise UsageError("model.encoder needs a table of items with their titles or genres: data.items")
    need("large", "model.encoder")
    if config.model.name == "tuned-encoder":
        from recsys.text.layers import LAYERS, TOKENS, layered_vectors  # which loads the encoders' libraries

        settings = config.model.settings
        layers, tokens = settings.get("layers", LAYERS), settings.get("tokens", TOKENS)
        return layered_vectors(items, config.model.encoder, layers, tokens, watch)
    return item_vectors(items, config.model.encoder, watch)


def _deployment(config: Config) -> Deployment:
    protocol = config.protocol
    allowed = listed(protocol.allowed)
    return Deployment(protocol.name, protocol.adversary, protocol.corrupt, protocol.dropout, allowed)


def model_of(config: Config, items: Items | None = None, vectors: ItemVectors | None = None) -> Recommender:
    """A new model of the configured kind; ``items`` is the public table of items, and ``vectors`` are those of their
    texts, for the models that use them."""
    _check_model_name(config)
    module, name = (OVER_TEXT if config.model.encoder else MODELS)[config.model.name].split(":")
    try:
        made = getattr(import_module(module), name)
        settings = config.model.settings
        names = signature(made).parameters
        if not hasattr(made, "configured") and (strange := settings.keys() - names):
            raise UsageError(
                f"model.settings of {config.model.name} are {', '.join(names)}, and not {min(strange)[:40]!r}"
            )
        for key, value in settings.items():
            if key in names and type(value) not in _TYPES.get(str(names[key].annotation), (type(value),)):
                raise UsageError(f"model.settings of {config.model.name}: {key} is of a wrong type")
        model: Recommender = (
            made.configured(settings, items, vectors) if hasattr(made, "configured") else made(**settings)
        )
    except TypeError:
        raise UsageError(f"model.settings of {config.model.name}: a value is of a wrong type") from None
    except ValueError as error:
        raise UsageError(f"model.settings: {error}") from None
    return model
