"""``secagg bench bytes``: what a config may say, made-up touches, and the part of sparse sums in small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.studies.bytes import DEFAULTS, run
from benchmarks.studies.bytes.config import Config
from benchmarks.studies.bytes.sparse import touched
from secagg.errors import UsageError

SMALL: dict[str, Any] = {"sparse_items": "1000", "sparse_width": 4, "sparse_users": 20, "sparse_touches": 10,
                         "sparse_least": 2, "sparse_dense": 4}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"parts": "sparse,nothing"},
        {"sparse_items": "many"},
        {"sparse_items": "500"},
        {"sparse_width": 0},
        {"sparse_users": 19},
        {"sparse_dense": 2},
        {"sparse_dense": 1000},
        {"sparse_least": 1},
        {"sparse_zipf": 0.0},
        {"sparse_epsilon": -1.0},
    ],
)
def test_what_it_cannot_be_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Config(**wrong)


def test_touches_are_different_rows_and_the_first_ones_are_the_most_popular() -> None:
    touches = touched(10_000, 300, 50, 1.0)
    assert all(len(set(one.tolist())) == 50 for one in touches)
    counts = np.bincount(np.concatenate(touches), minlength=10_000)
    assert len(counts) == 10_000
    assert counts[:10].min() > 5 * counts[100:200].mean()


def test_the_sparse_sums_are_the_fewer_bytes() -> None:
    found = run(Config(**SMALL), lambda line: None)
    figures, ratios = found.figures, found.ratios
    assert figures["sparse_dense_bytes_up_1000"] == 1000 * 4 * figures["sparse_ring_bits_rows_1000"] / 8
    assert ratios["sparse_bytes"] == ratios["sparse_bytes_1000"]
    assert ratios["sparse_bytes"] == figures["sparse_bytes_up_1000"] / figures["sparse_dense_bytes_up_1000"]
    packed = 1000 * figures["sparse_ring_bits_counts_1000"] / 8
    packed += figures["sparse_released_rows_1000"] * 4 * figures["sparse_ring_bits_rows_1000"] / 8
    assert packed < figures["sparse_bytes_up_1000"] < packed + 50_000  # keys and shares beside the vectors
    assert 0 < figures["sparse_touches_released_1000"] < 1
    assert all(value > 0 for value in ratios.values())
    assert DEFAULTS.sparse_users == 1000
