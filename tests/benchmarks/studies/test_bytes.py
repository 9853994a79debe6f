"""``secagg bench bytes``: what a config may say, made-up touches, and the part of sparse sums in small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.studies.bytes import DEFAULTS, run
from benchmarks.studies.bytes.config import Config
from benchmarks.studies.bytes.sparse import touched
from benchmarks.studies.bytes.training import _config, ways
from secagg.errors import UsageError

SMALL: dict[str, Any] = {"parts": "sparse", "sparse_items": "1000", "sparse_width": 4, "sparse_users": 20,
                         "sparse_touches": 10, "sparse_least": 2, "sparse_dense": 4}  # fmt: skip
TRAINED: dict[str, Any] = {"parts": "training", "training_models": "mf", "training_users": 60, "training_items": 150,
                           "training_silos": 5, "training_seeds": 2, "training_rounds": 2}  # fmt: skip


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
        {"training_seeds": 1},
        {"training_rounds": 0},
        {"training_models": "neumf"},
        {"training_epsilon": -1.0},
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


def test_trainings_differ_in_what_travels_and_are_compared_seed_by_seed(tmp_path: Path) -> None:
    said = list[str]()
    found = run(Config(**TRAINED, training_out=str(tmp_path / "out")), said.append)
    named = [line.split(": ")[0] for line in said[:-1]]
    assert named == [f"mf, {way}, seed {seed}" for seed in range(2) for way in ways("mf")]
    scores = {line.split(": ")[0]: float(line.split("NDCG@10 ")[1].split(",")[0]) for line in said[:-1]}
    shares = [scores[f"mf, random_k, seed {seed}"] / scores[f"mf, whole, seed {seed}"] for seed in range(2)]
    assert found.ratios["random_k_ndcg"] == pytest.approx(np.mean(shares), abs=5e-3)
    numbers, sent = 150 * 33, {way: found.figures[f"mf/{way} bytes"] for way in ways("mf")}
    for way, coordinates, ring in (
        ("whole", numbers, 27), ("quantised", numbers, 8), ("low_rank", 150 * 7, 27), ("random_k", 248, 11),
    ):  # fmt: skip
        assert 0 < sent[way] - coordinates * ring / 8 < 2000
    assert found.ratios["random_k_bytes"] == pytest.approx(sent["whole"] / sent["random_k"])
    assert found.ratios["random_k_bytes_vs_float32"] == pytest.approx(4 * numbers / sent["random_k"])
    assert found.ratios["random_k_bytes_vs_16_bit"] == pytest.approx(2 * numbers / sent["random_k"])
    assert (tmp_path / "out" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "table.md").read_text().count("\n") == 7


@pytest.mark.long
def test_with_noise_whole_updates_and_parts_are_both_trained(tmp_path: Path) -> None:
    said = list[str]()
    found = run(Config(**TRAINED, training_epsilon=8.0, training_out=str(tmp_path / "out")), said.append)
    noised = [line.split(", seed")[0] for line in said if line.startswith("epsilon")]
    assert noised == ["epsilon 8, whole", "epsilon 8, random_k"] * 2
    assert found.figures["epsilon 8/random_k NDCG@10"] > 0


def test_a_training_is_another_one_in_what_travels_alone() -> None:
    config = Config(**TRAINED)
    runs = [_config(config, "mf", upload, 3) for upload in ways("mf").values()]
    assert [replace(one, upload=runs[0].upload) for one in runs] == [runs[0]] * len(runs)
    assert len({one.upload for one in runs}) == len(runs)
