"""Which items go together, learnt from two noised sums over users: popularity, then pairs of popular items.

    1  popularity   A user who took k items adds 1 / sqrt(k) for each. What that most likely was without noise is p
                    (``private_popularity``), and the items of the largest p are chosen, as many as a public rule says.
    2  item pairs   A user adds what of the pairs of its chosen items p does not explain, of norm 1 at most
                    (``private_pairs``): p is private already, so all may use it.

What follows is computed from the two sums, so it costs nothing more. With c the sum of all users' pairs, and
l = sqrt(c) p, popularity's part of the pairs is l l'. The second sum has the rest, with noise of two kinds:

    for privacy   of a known deviation, the same on each coordinate; on a pair it is divided by the pair's weight
    of sampling   Users are a sample of those to come. A count varies by about as much as there is to count, so the
                  variance is k l_i l_j. A user's vector has a norm of about 1, so all weighted variances add up to
                  twice the number of users (each pair is in the matrix twice); that says what k is.

``private_denoising`` takes both away. The matrix of the chosen items is l l' and what is left of the second sum. Its
diagonal, how often each item occurs, is a straight line through l, drawn nearer to what was counted the less noise that
has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.data.interactions import History
from recsys.data.items import Items
from recsys.models.private_denoising import denoise, hollow
from recsys.models.private_pairs import DIAGONAL, TOTAL, Chosen, Recency, pairs_row
from recsys.models.private_popularity import Believed, believed, refined
from recsys.models.private_sums import Noised, Sums
from recsys.models.public_features import described, maps
from recsys.text.vectors import ItemVectors
from secagg.assumptions import fraction
from secagg.errors import UsageError

_MOST_ITEMS = 1000
_FEWEST_ITEMS = 20
_LEAST_NOISE = 0.5  # more items than at this multiplier do not help


@dataclass(frozen=True, slots=True)
class Settings:
    """What each constant was fixed on is listed in docs/recommender.md: validation events of made-up populations and of
    ml-latest-small, and no test events."""

    items: int = 0
    """how many are chosen; 0: a rule in the number of users and in the noise, see ``chosen``"""
    popularity_share: Fraction = Fraction(0)
    """of the squared noise budget; 0: 3/20, and 9/20 with features"""
    recency: Recency | None = Recency()  # noqa: RUF009  # frozen
    """None: histories have no order"""
    rank: int = 16

    def __post_init__(self) -> None:
        if self.items < 0 or self.rank < 1:
            raise UsageError("items are a number of items, or 0 for the rule; the rank is at least 1")
        if not 0 <= self.popularity_share < 1:
            raise UsageError("popularity gets a share of the budget below 1, or 0 for the rule, and pairs the rest")

    def share(self, *, featured: bool) -> Fraction:
        """Popularity's part of the squared noise budget."""
        return self.popularity_share or (Fraction(9, 20) if featured else Fraction(3, 20))

    def chosen(self, users: int, multiplier: float, item_count: int, *, featured: bool = False) -> int:
        """How many items take part: a function of public numbers, among them the noise of the whole budget.

        >>> [Settings().chosen(users, 0.7, item_count=10_000) for users in (610, 2_000, 20_000)]
        [195, 353, 1000]
        """
        rule = (10 if featured else 6.6) * sqrt(users / max(multiplier, _LEAST_NOISE))
        return min(self.items or min(max(round(rule), _FEWEST_ITEMS), _MOST_ITEMS), item_count)

    def state(self) -> dict[str, Any]:
        """What JSON can hold of them."""
        return asdict(self) | {"popularity_share": str(self.popularity_share)}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Settings:
        """From JSON or TOML; what is not said is as by default.

        >>> Settings.of({"items": 50, "popularity_share": "1/10", "recency": False})
        Settings(items=50, popularity_share=Fraction(1, 10), recency=None, rank=16)
        """
        fields = dict(state)
        if "popularity_share" in fields:
            fields["popularity_share"] = fraction(fields["popularity_share"])
        if "recency" in fields:
            recency = fields["recency"]
            fields["recency"] = None if recency is None or recency is False else Recency(**recency)
        return cls(**fields)


@dataclass(frozen=True, slots=True, eq=False)
class Gram:
    """What is known of items, from the two sums."""

    popularity: NDArray[np.float64]
    """of all items, as it most likely is; the chosen ones add up to 1"""
    chosen: Chosen
    matrix: NDArray[np.float64]
    """of the chosen items, denoised; the diagonal is how often each occurs"""
    liking: NDArray[np.float64]
    """the popularity part of the matrix is liking liking'"""
    factors: NDArray[np.float64]
    """its tastes are factors factors'"""
    maps: tuple[sparse.csr_array, ...]
    """how alike all items are, by public features, centred on the chosen ones: none without features"""
    alike: NDArray[np.float64]
    """how much of each kernel is in the matrix"""


def learn_gram(
    sums: Sums,
    item_count: int,
    settings: Settings,
    items: Items | None = None,
    kept: Fraction = Fraction(0),
    *,
    vectors: ItemVectors | None = None,
) -> Gram:
    """Both sums. ``items`` is the public table of items, if there is one, and ``vectors`` are those of its texts;
    ``kept`` is the share of the budget that is left for other sums."""
    if item_count < 1:
        raise UsageError("there are no items")
    if items is not None and len(items) != item_count:
        raise UsageError(f"the table of items has {len(items)}, and the model {item_count}")
    if vectors is not None and items is None:
        raise UsageError("there are vectors of texts without a table of items")
    if vectors is not None and len(vectors) != item_count:
        raise UsageError(f"there are vectors of {len(vectors)} items, and the model has {item_count}")
    features = items if items is not None and (items.described or vectors is not None) else None
    share = settings.share(featured=features is not None)
    observed = sums("popularity", item_count, share, lambda history: popularity_row(history, item_count))
    popularity = believed(observed, None if features is None else described(features))
    multiplier = observed.deviation * sqrt(share)
    size = settings.chosen(observed.users, multiplier, item_count, featured=features is not None)
    chosen = Chosen.of(np.sort(np.argsort(-popularity.means, kind="stable")[:size]), popularity.means)
    pairs = sums(
        "item pairs",
        chosen.length,
        1 - share - kept,
        lambda history: pairs_row(history, chosen, settings.recency),
    )
    known = [] if features is None else maps(features, vectors)
    return _gram(popularity, chosen, pairs, settings.rank, known)


def popularity_row(history: History, item_count: int) -> NDArray[np.float64]:
    """What a user adds to the first sum: norm 1, or 0 without a history.

    >>> popularity_row(np.array([2, 0, 2, 3, 1], np.int32), 5)
    array([0.5, 0.5, 0.5, 0.5, 0. ])
    """
    row = np.zeros(item_count)
    row[history] = 1.0
    return row / sqrt(max(row.sum(), 1.0))


def kernel(one: sparse.csr_array, chosen: Chosen) -> NDArray[np.float64]:
    """How alike the chosen items are, less what each is like all of them: centred, like the pairs."""
    rows = one[chosen.items]
    plain: NDArray[np.float64] = (rows @ rows.T).toarray()
    means = plain @ chosen.popularity
    centred: NDArray[np.float64] = plain - means[:, None] - means + chosen.popularity @ means
    return centred


def _gram(popularity: Believed, chosen: Chosen, pairs: Noised, rank: int, features: list[sparse.csr_array]) -> Gram:
    size, upper = len(chosen), np.triu_indices(len(chosen), 1)
    total = max(float(pairs.vector[-1]), pairs.deviation) / TOTAL
    counted = pairs.vector[chosen.pairs : -1] / DIAGONAL
    refreshed = refined(popularity.of(chosen.items), counted, pairs.deviation / DIAGONAL)
    liking = sqrt(max(total, 1.0)) * refreshed / refreshed.sum()
    weights = np.outer(chosen.weights, chosen.weights)
    noised = np.zeros((size, size))
    noised[upper] = pairs.vector[: chosen.pairs] / weights[upper]
    noised += noised.T
    likings = np.outer(liking, liking)
    sampled = 2 * pairs.users / float((weights**2 * likings).sum())
    variance = (pairs.deviation / weights) ** 2 + sampled * likings
    below = denoise(noised, variance, liking, rank, [kernel(one, chosen) for one in features])
    matrix = hollow(likings + below.pairs)
    np.fill_diagonal(matrix, _occurrences(counted, pairs.deviation / DIAGONAL, liking))
    return Gram(
        popularity.means / popularity.means[chosen.items].sum(),
        chosen,
        matrix,
        liking,
        below.factors,
        tuple(features),
        below.alike,
    )


def _occurrences(noised: NDArray[np.float64], deviation: float, liking: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often each item occurs: a line through the popularity, and what of the rest is not noise."""
    line = liking * max(float(noised @ liking), 0.0) / max(float(liking @ liking), 1e-12)
    rest = noised - line
    signal = max(float((rest**2).mean()) - deviation**2, 0.0)
    occurrences = line + rest * (signal / (signal + deviation**2) if signal else 0.0)
    least = 0.02 * max(float(occurrences.mean()), 1e-12)
    # In a matrix of products of users' rows, no entry of the popularity part exceeds its diagonal.
    bounded: NDArray[np.float64] = np.maximum(np.maximum(occurrences, least), liking**2)
    return bounded
