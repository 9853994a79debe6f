"""What is learned: which items users take next, from the items' titles. The data are made up.

Each item has a title of three words, one of which is of its kind, and each user takes items of one kind. All silos
have the same table of items, the same encoder, and adapters that are drawn from the same public seed. One layer is a
personal head: each silo keeps its own, and begins with the one that the seed makes.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import History
from recsys.data.items import Items
from recsys.models.recommender import Local
from recsys.models.tuned_encoder import TunedEncoder
from recsys.text.coordinates import Coordinates
from recsys.text.layers import layered_vectors

FOLDER = Path(os.environ.get("SECAGG_EXAMPLE", str(Path.home() / "secagg-adapters")))
"""Identities, the roster and the encoder, made by ``prepare.py``; where a node's config says otherwise, that counts."""
ENCODER = Path(os.environ.get("SECAGG_EXAMPLE_ENCODER", str(FOLDER / "encoder")))
RANK = int(os.environ.get("SECAGG_EXAMPLE_RANK", "4"))

KINDS = ("horror", "comedy", "drama", "war")
WORDS = (*KINDS, "the", "night", "house", "road", "summer", "letter", "river", "king", "stone", "song")
ITEMS, USERS, TAKEN, SEED = 40, 30, 6, 2026
CLIP = 4.0
HEAD = "user.norm."
"""The layer that never leaves a silo."""
LOCAL = Local(epochs=4, batch=10, rate=0.05)

Arrays = dict[str, NDArray[np.float32]]


def items() -> Items:
    rng = np.random.default_rng(SEED)  # noqa: TID251  # made-up data are no secret
    titles = [" ".join(rng.permutation([KINDS[item % 4], *rng.choice(WORDS[4:], 2)])) for item in range(ITEMS)]
    return Items.of([str(item) for item in range(ITEMS)], titles)


def histories(partition: int) -> list[History]:
    rng = np.random.default_rng([SEED, partition])  # noqa: TID251
    kinds = [np.arange(kind, ITEMS, 4, dtype=np.int32) for kind in range(4)]
    return [rng.permutation(kinds[user % 4])[:TAKEN] for user in range(USERS)]


@cache
def begun() -> TunedEncoder:
    """The model before the first round, which is the same for everybody."""
    vectors = layered_vectors(items(), ENCODER, layers=1, tokens=3)
    text = Coordinates.of(vectors, 8)
    model = TunedEncoder(text, vectors, width=8, rank=RANK, recent=TAKEN, negatives=20, dropout=0.0, popular=False)
    model.begin(ITEMS, SEED)
    return model


def arrays_of(model: TunedEncoder) -> Arrays:
    """What is trained, and travels, by its names."""
    return {name: numbers.copy() for name, numbers in model.named().items() if not name.startswith(HEAD)}


def head_of(model: TunedEncoder) -> Arrays:
    """What is trained, and stays."""
    return {name: numbers.copy() for name, numbers in model.named().items() if name.startswith(HEAD)}


def model_of(arrays: Arrays, head: Arrays) -> TunedEncoder:
    """The model with these arrays, and this head; an empty one stands for what the seed makes."""
    return begun().with_named({**begun().named(), **arrays, **head})


def train(arrays: Arrays, head: Arrays, partition: int) -> tuple[Arrays, Arrays, int]:
    """What the silo's training makes of these and of its own head, and of how many users it is."""
    model = model_of(arrays, head)
    users = histories(partition)
    model.train(users, LOCAL, seed=partition)
    return arrays_of(model), head_of(model), len(users)


def right(arrays: Arrays) -> float:
    """How often users that no silo has, and who have nobody's head, prefer an item of their kind to another one."""
    users = histories(1000)
    scores = model_of(arrays, {}).scores([history[:3] for history in users])
    kinds = np.arange(ITEMS) % 4
    own = [kinds == kinds[history[0]] for history in users]
    return float(np.mean([row[mine][:, None] > row[~mine] for row, mine in zip(scores, own, strict=True)]))
