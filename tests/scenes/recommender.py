"""A few users in a few silos, a federation over them, and the smallest configuration of a run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dp.events import Release
from dp.ledger import Budget, Ledger
from recsys import personal_heads as heads
from recsys.aggregator import Aggregator
from recsys.config import Config
from recsys.data.interactions import Interactions
from recsys.data.split import leave_last_out
from recsys.federated import ClientData, Federation, UpdateRecipe
from recsys.ideal_aggregator import IdealAggregator
from recsys.models.recommender import Local, SharedModel
from secagg.crypto.keys import SigningKey
from secagg.encoding import Encoding
from tests.scenes.bias import Bias

KEY = SigningKey(bytes(range(32)))
SECRET = bytes(range(32))
BITS = 24
SEED = 3


def same_secrets(run: Path, folder: Path) -> None:
    """A directory in which the run may begin that another was before it began."""
    (folder / "private").mkdir(parents=True)
    (folder / "private").chmod(0o700)
    for name in ("config.json", "private/secret.key", "private/ledger.key"):
        shutil.copy(run / name, folder / name)


def population(users: int, items: int = 12, events: int = 6, seed: int = 0) -> Interactions:
    """Each user takes so many different items, the first ones most often; every fifth too few to be measured."""
    rng = np.random.default_rng(seed)
    liked = np.arange(1, items + 1) ** -0.5
    counts = [2 if user % 5 == 4 else events for user in range(users)]
    taken = [rng.choice(items, size=count, replace=False, p=liked / liked.sum()) for count in counts]
    who = np.repeat(np.arange(users), counts)
    return Interactions.of(who, np.concatenate(taken), np.arange(len(who)), user_count=users, item_count=items)


def client_data(sizes: Sequence[int] = (4, 4, 4, 4, 4, 4), items: int = 12) -> ClientData:
    """Silos of these sizes."""
    split = leave_last_out(population(sum(sizes), items))
    members = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return ClientData(tuple(f"silo-{i}" for i in range(len(sizes))), tuple(members), split.train, split.valid)


def federation(
    clients: ClientData,
    aggregator: Aggregator | None = None,
    *,
    model: SharedModel | None = None,
    clip: float = 1.0,
    measured: float = 0.05,
    measured_every: int = 1,
    weight_bound: int = 1,
    scaffold: bool = False,
    personal: tuple[str, ...] = (),
    local: Local = Local(rate=0.5),  # noqa: B008
    encoding: Encoding | None = None,
    secret: bytes = SECRET,
    seed: int = SEED,
    **more: Any,
) -> Federation:
    """Of the smallest model, over the ideal functionality, unless something else is asked for."""
    model = model or Bias()
    model.begin(clients.train.item_count, seed)
    recipe = UpdateRecipe(local, clip, measured, weight_bound, measured_every, scaffold, personal)
    length = recipe.length(np.count_nonzero(~heads.personal(model, personal)))
    encoding = encoding or Encoding(length, clip, BITS, weight_bound=weight_bound)
    aggregator = aggregator or IdealAggregator(secret)
    return Federation(model, clients, aggregator, recipe, encoding=encoding, secret=secret, seed=seed, **more)


def ledger_for(path: Path, step: Release, epsilon: int = 100, slack: Fraction = Fraction(0)) -> Ledger:
    budget = Budget.suited(step, Fraction(epsilon), Fraction(1, 10**5), slack)
    return Ledger.create(path, KEY, budget, step.guarantee, run="test", elsewhere="nothing")


def config(*changes: str) -> Config:
    """A run of a second: 60 users, 150 items, 6 silos, two rounds, nothing private."""
    table = {
        "title": "a small run",
        "data": {"users": 60, "item_count": 150},
        "clients": {"count": 6},
        "model": {"settings": {"width": 2, "recent": 10}},
        "training": {"rounds": 2},
        "privacy": {"mode": "none", "steps": 2},
        "protocol": {"workers": 1},
    }
    return Config.parse(table, changes)
