"""Ranking metrics, slowly: one user, one place in the list after the other."""

from itertools import combinations
from math import log2


def expected_ranks(scores: list[float], candidates: set[int], held_out: set[int]) -> list[float]:
    """The expected rank of the best held-out item, of the second best ..., over all orders of items of equal score."""
    ranks: list[float] = []
    place = 0
    for score in sorted({scores[item] for item in candidates}, reverse=True):
        group = [item for item in candidates if scores[item] == score]
        wanted = len(held_out & set(group))
        ways = list(combinations(range(place + 1, place + len(group) + 1), wanted))
        ranks += [sum(way[j] for way in ways) / len(ways) for j in range(wanted)]
        place += len(group)
    return ranks


def metrics(ranks: list[float], k: int) -> dict[str, float]:
    listed = [rank for rank in ranks if rank - 1 < k]
    best = min(len(ranks), k)
    return {
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
