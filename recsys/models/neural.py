"""What all torch models have in common: one flat vector, seeded training on batches of users, and DP-SGD.

A model says how it turns one user's history into an example of fixed shape, and what the loss of a batch of examples
is. One example is one user's whole history, in every way of training: so DP-SGD on examples protects users. What
describes a user is worked out from the history (encoded, or rebuilt as in Singhal et al. 2021, "Federated
Reconstruction") and is no part of the vector; the vector covers all items, whoever trained on which.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import TensorDataset

from dp.events import Unit
from dp.training import Settings, Trainer
from dp.training.alone import changes_alone
from dp.training.isolate import Loss
from dp.training.trainer import ChargeFunction
from recsys.data.interactions import History, Interactions
from recsys.models.batches import batches, known
from recsys.models.draws import Draws
from recsys.models.recommender import Local
from recsys.models.store import ModelState
from secagg.crypto.prg import Rng
from secagg.errors import UsageError


@dataclass(frozen=True, slots=True, eq=False)
class Towers:
    """A trained model whose scores are (vector of the user) . (vector of the item) + bias of the item."""

    user: Mapping[str, NDArray[np.float32]]
    """parameters of what makes a user's vector from those of the items of its history, by their names"""
    vectors: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def of(cls, user: nn.Module | None, vectors: Tensor, bias: Tensor) -> Self:
        named = {} if user is None else user.state_dict()
        arrays = {name: one.detach().numpy().copy() for name, one in named.items()}
        return cls(arrays, vectors.detach().numpy().copy(), bias.detach().numpy().copy())


_SCORED_AT_ONCE = 256
"""How many histories are scored at once."""
_MOST_AT_ONCE, _NUMBERS_AT_ONCE = 100, 1 << 22
"""Of how many users changes are computed at once, and how many numbers these may be together."""


class Neural(ABC):
    """A ``SharedModel`` around a torch module. ``central`` is how ``fit`` trains, with Adam."""

    SETTINGS: ClassVar[tuple[str, ...]]
    """Arguments of the constructor, and attributes, without which a trained model is not the same."""
    even: ClassVar[bool] = True
    """Changes are computed in batches of constant shape, whatever is in users' histories."""

    def __init__(self, central: Local) -> None:
        self._central = central
        self._module: nn.Module | None = None
        self._item_count = 0

    @abstractmethod
    def _build(self, item_count: int) -> nn.Module:
        """A fresh module. Torch's generator is seeded while this runs."""

    @abstractmethod
    def _examples(self, histories: Sequence[History], draws: Draws) -> tuple[NDArray[Any], ...]:
        """Users' histories in a fixed shape, one in each row; the loss of a history that teaches nothing is zero."""

    def _prepared(self, module: Any, examples: list[Tensor]) -> list[Tensor]:
        """Examples after a preparation that depends on the model, each by itself. Nothing is learnt from it."""
        return examples

    @abstractmethod
    def _losses(self, module: Any, *examples: Tensor) -> Tensor:
        """One loss for each example of a batch."""

    @abstractmethod
    def _score(self, module: Any, histories: Sequence[History]) -> Tensor:
        """One row of scores for each history."""

    def begin(self, item_count: int, seed: int) -> None:
        with alone(seed):
            self._module = self._build(item_count)
        self._item_count = item_count

    @property
    def vector(self) -> NDArray[np.float32]:
        return vector_of(self._begun)

    @vector.setter
    def vector(self, vector: NDArray[np.float32]) -> None:
        assign_vector(self._begun, vector)

    @property
    def layers(self) -> dict[str, int]:
        """The named parts of ``vector``, in its order, and how many numbers each has."""
        return {name: one.numel() for name, one in self._begun.named_parameters() if one.requires_grad}

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Rows and columns of the parts of ``vector``: a table that is not flat has both, all else is one row."""
        parts = (one for one in self._begun.parameters() if one.requires_grad)
        return [(one.shape[0], one.shape[1]) if one.dim() == 2 else (1, one.numel()) for one in parts]

    def with_vector(self, vector: NDArray[np.float32]) -> Self:
        model, frozen = copy(self), {id(one): one for one in self._begun.parameters() if not one.requires_grad}
        model._module = deepcopy(self._begun, frozen)  # which all copies share
        model.vector = vector
        return model

    def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
        self._descend(histories, SGD(trained(self._begun), lr=local.rate), local, seed)

    def changes(self, histories: Sequence[History], local: Local, seed: int) -> Iterator[NDArray[np.float64]]:
        """How far each user alone moves the vector, in steps on its own history from here; dropout layers are off.

        What is hidden or drawn about a user is another in each step, and what is prepared is that of the first model.
        """
        module = self._begun.eval()
        fine, at_once = [known(history, self._item_count) for history in histories], self._at_once()

        def prepare(model: nn.Module, chunk: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(self._prepared(model, list(chunk)))

        for first in range(0, len(fine), at_once):
            batch = fine[first : first + at_once]
            with alone(0):
                steps = [
                    TensorDataset(*tensors(self._examples(batch, Draws(seed * local.epochs + step, batch))))
                    for step in range(local.epochs)
                ]
                yield from list(
                    changes_alone(
                        module,
                        self._loss,
                        steps,
                        local.rate,
                        batch=at_once,
                        proximal=local.proximal,
                        prepare=prepare,
                    )
                )

    def _at_once(self) -> int:
        """How many users are computed together: it follows from the size of the model."""
        size: int = sum(parameter.numel() for parameter in trained(self._begun))
        return max(1, min(_MOST_AT_ONCE, _NUMBERS_AT_ONCE // size))

    def fit(self, train: Interactions, seed: int = 0) -> None:
        self.begin(train.item_count, seed)
        optimizer = Adam(trained(self._begun), lr=self._central.rate)
        self._descend(list(train.histories()), optimizer, self._central, seed)

    def train_privately(
        self,
        histories: Sequence[History],
        settings: Settings,
        steps: int,
        rate: float,
        *,
        unit: Unit,
        charge: ChargeFunction | None,
        seed: int,
        rng: Rng = os.urandom,
        drift: NDArray[np.float32] | None = None,
    ) -> Settings:
        """DP-SGD in which one example is one user; returns the settings to go on with.

        What an example hides or draws follows from ``seed`` and that user's history; noise and sampling from ``rng``.
        ``charge`` None: the same recipe without noise. ``drift`` is added to each gradient after its noise, so it must
        be private already.
        """
        if unit is not Unit.USER:
            raise UsageError(f"an example of {type(self).__name__} is a whole user, not one interaction")
        module = self._begun.eval()
        examples = tensors(self._examples(histories, Draws(seed, histories)))
        prepared = TensorDataset(*self._prepared(module, examples))
        how: dict[str, Any] = {"unit": unit, "charge": charge, "rng": rng, "drift": drift}
        return descend_privately(module, self._loss, prepared, settings, steps, rate, **how)

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        module, rows = self._begun.eval(), list[Tensor]()
        with alone(0):
            for start in range(0, len(histories), _SCORED_AT_ONCE):
                rows.append(self._score(module, histories[start : start + _SCORED_AT_ONCE]).detach())
        scores: NDArray[np.float32] = torch.cat(rows).numpy()
        return scores

    def state(self) -> ModelState:
        settings = {name: getattr(self, name) for name in self.SETTINGS}
        return ModelState(settings | {"items": self._item_count}, {"vector": self.vector})

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        settings = dict(state.settings)
        items = settings.pop("items")
        model = cls(**settings)
        with torch.device("meta"):  # sizes without memory: settings may speak of more than is there
            module = model._build(items)
        if sum(part.numel() for part in trained(module)) != state.arrays["vector"].size:
            raise UsageError("a vector of another length than the model has")
        if sum(part.numel() for part in module.parameters()) > sum(part.size for part in state.arrays.values()):
            raise UsageError("more numbers that are not trained than there are")
        model.begin(items, seed=0)
        model.vector = state.arrays["vector"]
        return model

    @property
    def _begun(self) -> nn.Module:
        if self._module is None:
            raise UsageError("the model has not begun: call begin or fit first")
        return self._module

    def _loss(self, module: nn.Module, *example: Tensor) -> Tensor:
        return self._losses(module, *example).sum()

    def _descend(self, histories: Sequence[History], optimizer: Optimizer, local: Local, seed: int) -> None:
        module = self._begun.train()
        start = [parameter.detach().clone() for parameter in trained(module)]
        _drifting(optimizer, module, local.drift)
        with alone(seed):
            for batch, rng in batches(histories, local, seed):
                examples = tensors(self._examples(batch, Draws(int(rng.integers(1 << 62)), batch)))
                loss = self._losses(module, *self._prepared(module, examples)).mean()
                optimizer.zero_grad()
                loss.backward()
                if local.proximal:
                    for parameter, anchor in zip(trained(module), start, strict=True):
                        if parameter.grad is not None:
                            parameter.grad += local.proximal * (parameter.detach() - anchor)
                optimizer.step()
        optimizer.zero_grad()


def descend_privately(
    module: nn.Module,
    loss: Loss,
    examples: TensorDataset,
    settings: Settings,
    steps: int,
    rate: float,
    *,
    unit: Unit,
    charge: ChargeFunction | None,
    rng: Rng,
    drift: NDArray[np.float32] | None = None,
) -> Settings:
    """DP-SGD on ``module``; returns the settings to go on with. With ``charge`` None the same steps are made without
    noise, as a reference that is not private. ``drift``, which is private already, is added to each noised gradient.

    Dropout layers are off: what torch draws for them would depend on who else is in a batch.
    """
    optimizer = SGD(trained(module.eval()), lr=rate)
    _drifting(optimizer, module, drift)
    if charge is None:
        trainer = Trainer.without_noise(module, optimizer, loss, settings, rng=rng)
    else:
        trainer = Trainer(module, optimizer, loss, settings, charge=charge, rng=rng, unit=unit)
    with alone(0):
        trainer.run(examples, steps)
    return trainer.settings


def tensors(arrays: Sequence[NDArray[Any]]) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, in order: these are a model's vector. Those that are frozen never travel."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def vector_of(module: nn.Module) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = parameters_to_vector(trained(module)).detach().numpy().copy()
    return vector


def assign_vector(module: nn.Module, vector: NDArray[np.float32]) -> None:
    length = sum(parameter.numel() for parameter in trained(module))
    if vector.shape != (length,) or vector.dtype != np.float32:
        raise UsageError(f"the vector has {length} numbers in float32, not {vector.shape} in {vector.dtype}")
    with torch.no_grad():
        vector_to_parameters(torch.from_numpy(vector.copy()), trained(module))


def _drifting(optimizer: Optimizer, module: nn.Module, drift: NDArray[np.float32] | None) -> None:
    """Let the optimiser add this vector, if there is one, to the gradient of each of its steps."""
    if drift is None:
        return
    parameters = trained(module)
    parts = torch.from_numpy(drift).split([one.numel() for one in parameters])

    def add(*_: Any) -> None:
        for parameter, part in zip(parameters, parts, strict=True):
            found = 0 if parameter.grad is None else parameter.grad
            parameter.grad = found + part.view_as(parameter)

    optimizer.register_step_pre_hook(add)


@contextmanager
def alone(seed: int) -> Iterator[None]:
    """Let torch run on one thread with a seeded generator, so that results repeat. Both are restored afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed is for all devices, and takes a stack trace
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
