"""Films that nobody has taken, on real data and with a real encoder: are they found by their texts?

A tenth of the films is taken out of everybody's events. A user is told what is left of the first four fifths of the
history, and of the films that were taken out those of the last fifth are to be found, among all that were taken out.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("transformers", reason="NOT TESTED: text encoders need transformers, pip install 'secagg[large]'")

from recsys.data import movielens
from recsys.data.interactions import Interactions
from recsys.models.over_text import TwoTower
from recsys.models.recommender import Local
from recsys.text.coordinates import Coordinates
from recsys.text.vectors import ItemVectors, item_vectors

FOLDER, ENCODER = os.environ.get("SECAGG_MOVIELENS"), os.environ.get("SECAGG_ENCODER")


def ndcg(scores: np.ndarray, wanted: np.ndarray) -> float:
    """At 10, of one user."""
    gains = 1 / np.log2(np.arange(2, 12))
    found = np.isin(np.argsort(-scores, kind="stable")[:10], wanted)
    return float(gains[found].sum() / gains[: min(10, len(wanted))].sum())


@pytest.mark.long
@pytest.mark.skipif(
    not (FOLDER and ENCODER),
    reason="NOT TESTED on real data: set SECAGG_MOVIELENS to a folder with ml-latest-small, and SECAGG_ENCODER",
)
def test_films_that_nobody_took_are_found_by_their_texts() -> None:
    """With all-MiniLM-L6-v2, over three draws of films: .070, .024 for popularity in genre, .009 by chance."""
    loaded = movielens.load(FOLDER or "")
    events, items = loaded.interactions, loaded.items
    assert items is not None
    said = item_vectors(items, ENCODER or "")
    order = np.random.default_rng(0).permutation(len(items))
    known, place = len(items) - len(items) // 10, np.argsort(order)
    histories = [place[events.history(user)] for user in range(events.user_count)]
    cuts = [4 * len(one) // 5 for one in histories]
    past = [one[:cut][one[:cut] < known].astype(np.int32) for one, cut in zip(histories, cuts, strict=True)]
    wanted = [one[cut:][one[cut:] >= known] - known for one, cut in zip(histories, cuts, strict=True)]
    users, taken = np.repeat(np.arange(len(past)), [len(one) for one in past]), np.concatenate(past)
    train = Interactions.of(users, taken, np.arange(len(taken)), user_count=len(past), item_count=known)

    model = TwoTower(
        Coordinates.of(ItemVectors(said.rows[order[:known]], said.encoder), 64), central=Local(25, 64, 0.003)
    )
    model.fit(train)
    scores = model.with_items(ItemVectors(said.rows[order[known:]], said.encoder)).scores(past)[:, known:]

    names = sorted({genre for one in items.genres for genre in one})
    genres = np.array([[name in one for name in names] for one in items.genres], float)[order]
    takers = np.bincount(taken, minlength=known)
    popular = (genres[:known] * takers[:, None]).sum(0) / np.maximum(genres[:known].sum(0), 1)
    in_genre = genres[known:] @ popular / np.maximum(genres[known:].sum(1), 1)

    asked = [user for user in range(len(past)) if len(wanted[user]) and len(past[user])]
    by_text = np.mean([ndcg(scores[user], wanted[user]) for user in asked])
    by_genre = np.mean([ndcg(in_genre, wanted[user]) for user in asked])
    print(
        f"NDCG@10 over {len(asked)} users: {by_text:.4f} by their texts, {by_genre:.4f} by popularity in their genres"
    )
    assert by_text > 1.5 * by_genre
