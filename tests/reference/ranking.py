"""Ranking metrics, slowly: one user, one place in the list after the other."""

from itertools import combinations, product
from math import log2


def ranks(scores: list[float], candidates: set[int], held_out: set[int]) -> list[list[int]]:
    """The held-out items' ranks, ascending, in each order of items of equal score; as often as each is possible.

    Orders that differ only in which of the held-out equals, or of the others, comes first have the same ranks, and
    there are equally many of them for each choice of places: so each choice stands here once.
    """
    ways: list[list[tuple[int, ...]]] = []
    place = 0
    for score in sorted({scores[item] for item in candidates}, reverse=True):
        group = [item for item in candidates if scores[item] == score]
        ways.append(list(combinations(range(place + 1, place + len(group) + 1), len(held_out & set(group)))))
        place += len(group)
    return [[rank for part in parts for rank in part] for parts in product(*ways)]


def mean_metrics(scores: list[float], candidates: set[int], held_out: set[int], k: int) -> dict[str, float]:
    """Over all orders of items of equal score."""
    found = [metrics(order, k) for order in ranks(scores, candidates, held_out)]
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def metrics(ranks: list[int], k: int) -> dict[str, float]:
    """Of one order."""
    listed = [rank for rank in ranks if rank <= k]
    best = min(len(ranks), k)
    return {
        "rank": float(ranks[0]),
        f"HR@{k}": float(bool(listed)),
        f"Recall@{k}": len(listed) / len(ranks),
        f"NDCG@{k}": sum(1 / log2(1 + rank) for rank in listed) / sum(1 / log2(1 + j) for j in range(1, best + 1)),
        f"MRR@{k}": 1 / listed[0] if listed else 0.0,
        f"MAP@{k}": sum((j + 1) / rank for j, rank in enumerate(listed)) / best,
    }


def shown(scores: list[float], candidates: set[int], k: int) -> list[int]:
    """A list of length k: equals by number, and none of score -inf."""
    order = sorted(candidates, key=lambda item: (-scores[item], item))
    return [item for item in order if scores[item] > float("-inf")][:k]
