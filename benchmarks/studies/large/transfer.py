"""An encoder that was tuned on some genres: is it better on others?

Genres are drawn into two halves, from the seed. An item is of a half if all of its genres are; what is of both, or of
no genre, is left out. Models learn from everybody's events with items of the first half, and know of no others. Then
they are told the items of the second half (``with_items``), and of each user with ``LEAST`` or more events there the
first four fifths; those of the last fifth are to be found, among all items of the second half that are not in the
history. So users were seen in training, and neither these items nor what these users think of them.

    tuned     two towers over texts, with FFA-LoRA adapters in the encoder's last layer
    frozen    the same towers, trained in the same way over the encoder as it is
    cosine    the mean cosine to the history: nothing is learnt
    chance    all items alike

NDCG@10 is a mean over seeds (of halves, and of models) of means over users, with Student's interval over seeds. So is
"tuned minus frozen"; "over users" is its interval by a paired bootstrap over users, of each one's mean over the seeds
in which it is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.case import Measured, Say
from benchmarks.studies.large.config import Config
from benchmarks.studies.large.data import loaded
from benchmarks.studies.large.tiny import tiny_encoder
from recsys.data.interactions import History, Interactions
from recsys.data.items import Items
from recsys.metrics.comparing import difference, over_seeds
from recsys.metrics.ranking import Evaluation, Scorer, measure
from recsys.metrics.strong import Among
from secagg.errors import UsageError

METRIC = "NDCG@10"
LEAST = 5


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    train: Interactions
    """everybody's events with items of the first half"""
    history: Interactions
    targets: Interactions
    """with items of the second half"""
    second: NDArray[np.bool_]
    """of each item, whether it is of that half"""


def run(config: Config, say: Say) -> Measured:
    found = dict[str, list[Evaluation]]()
    events, items = loaded(config)
    with TemporaryDirectory() as folder:
        encoder = config.encoder or str(tiny_encoder(Path(folder)))
        for seed in range(config.seeds):
            halves = divided(events, items, seed)
            if not seed:
                say(_sizes(halves))
            for name, model in _models(config, halves, items, encoder, seed):
                among = Among(model, halves.second)
                found.setdefault(name, []).append(measure(among, halves.history, halves.targets, k=(10,)))
                say(f"seed {seed}, {name}: {METRIC} {found[name][-1].mean(METRIC):.4f}")
    figures = dict[str, float]()
    for name, runs in found.items():
        _put(figures, f"{name}/{METRIC}", [one.mean(METRIC) for one in runs])
    gaps = [one.mean(METRIC) - other.mean(METRIC) for one, other in zip(found["tuned"], found["frozen"], strict=True)]
    _put(figures, "tuned minus frozen", gaps)
    over_users = difference(_of_users(found["tuned"]), _of_users(found["frozen"]), METRIC)
    figures |= {"tuned minus frozen/over users low": over_users.low}
    figures |= {"tuned minus frozen/over users high": over_users.high}
    means = {name: figures[f"{name}/{METRIC}"] for name in found}
    return Measured(
        figures, {f"tuned vs {name}": means["tuned"] / means[name] for name in ("frozen", "cosine", "chance")}
    )


def divided(events: Interactions, items: Items, seed: int) -> Halves:
    """
    >>> table = Items.of([str(number) for number in range(8)], genres=["War"] * 2 + ["Drama"] * 5 + ["War|Drama"])
    >>> events = Interactions.of(users=[0] * 8, items=range(8), times=range(8))
    >>> halves = divided(events, table, seed=3)
    >>> [part.history(0).tolist() for part in (halves.train, halves.history, halves.targets)]
    [[0, 1], [2, 3, 4, 5], [6]]
    """
    genres = sorted({kind for one in items.genres for kind in one})
    if len(genres) < 2:
        raise UsageError("there are fewer than two genres, and no halves of them")
    drawn = {genres[place] for place in np.random.default_rng(seed).permutation(len(genres))[: len(genres) // 2]}
    first = np.array([bool(kinds) and drawn >= {*kinds} for kinds in items.genres])
    second = np.array([bool(kinds) and not drawn & {*kinds} for kinds in items.genres])
    there = events.where(second[events.items])
    place, of_user = np.arange(len(there)) - there.starts[there.users], np.diff(there.starts)[there.users]
    told, enough = place < 4 * of_user // 5, of_user >= LEAST
    pairs = there.users * there.item_count + there.items
    follows = ~told & ~np.isin(pairs, pairs[told])  # what is taken once more is known already
    train = events.where(first[events.items])
    seen = np.flatnonzero(np.diff(train.starts))
    if not len(seen) or not enough.any():
        raise UsageError("a half of the genres has too few events to learn from, or to measure")
    return Halves(train.of_users(seen), there.where(told & enough), there.where(follows & enough), second)


def _models(config: Config, halves: Halves, items: Items, encoder: str, seed: int) -> Iterator[tuple[str, Scorer]]:
    from benchmarks.studies.large.texts import Alike, ByText  # which loads torch
    from recsys.models.over_text import TwoTower
    from recsys.models.recommender import Local
    from recsys.models.tuned_encoder import TunedEncoder
    from recsys.text.coordinates import COORDINATES, Coordinates
    from recsys.text.layers import layered_vectors

    vectors = layered_vectors(items, encoder, tokens=config.tokens)
    local = Local(config.passes, batch=32, rate=0.003)
    how: dict[str, Any] = {"recent": 20, "negatives": 200, "dropout": 0.0, "popular": False, "central": local}
    tuned = ByText(vectors, lambda some: TunedEncoder(Coordinates.of(some, COORDINATES), cast(Any, some), **how))
    frozen = ByText(vectors, lambda some: TwoTower(Coordinates.of(some, COORDINATES), **how))
    for name, model in (("tuned", tuned), ("frozen", frozen)):
        model.fit(halves.train, seed)
        yield name, model
    yield "cosine", Alike(vectors)
    yield "chance", _Chance(len(items))


@dataclass(frozen=True, slots=True)
class _Chance:
    items: int

    def scores(self, histories: Sequence[History]) -> NDArray[np.float32]:
        return np.zeros((len(histories), self.items), np.float32)


def _put(figures: dict[str, float], name: str, values: list[float]) -> None:
    over = over_seeds(values)
    figures |= {name: over.mean, f"{name}/low": over.low, f"{name}/high": over.high}


def _of_users(runs: Sequence[Evaluation]) -> Evaluation:
    """Each user's mean over the seeds in which it is measured."""
    users, where = np.unique(np.concatenate([one.users for one in runs]), return_inverse=True)
    values = np.concatenate([one.values[METRIC] for one in runs])
    return Evaluation(users, {METRIC: np.bincount(where, values) / np.bincount(where)}, {}, 0)


def _sizes(halves: Halves) -> str:
    takers = int((np.diff(halves.targets.starts) > 0).sum())
    return (
        f"{halves.train.user_count} users and {int((halves.train.popularity() > 0).sum())} items in training; of the "
        f"other half {int(halves.second.sum())} items, {len(halves.targets)} events of {takers} users to be found"
    )
