"""``secagg bench correlated``: what a matrix costs and saves, the sums of training, and the study at a small size."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.studies.correlated import Config, run
from benchmarks.studies.correlated.matrices import (
    last_error,
    optimised,
    root_mean_square,
    sensitivity,
    workload,
)
from benchmarks.studies.correlated.training import Recipe, Training, correlated
from recsys.data.synthetic import population
from recsys.models.recommender import Local
from secagg.cli import main

SMALL = Config(users=80, items=100, gaps="4", epsilons="3", steps=8, rates="4,8", bands=4, compared_on=2)


@pytest.mark.parametrize("gap", [1, 3, 4])
def test_nobody_moves_a_sum_farther_than_the_sensitivity(gap: int) -> None:
    rng = np.random.default_rng(gap)
    for _ in range(20):
        matrix = np.tril(rng.standard_normal((9, 9)))
        claimed, farthest = sensitivity(matrix, gap), 0.0
        for first in range(gap):
            for width in (1, 2, 9):
                moved = np.zeros((9, width))
                moved[first::gap] = rng.standard_normal(moved[first::gap].shape)
                moved[first::gap] /= np.linalg.norm(moved[first::gap], axis=1, keepdims=True)
                farthest = max(farthest, float(np.linalg.norm(matrix @ moved)))
        assert farthest <= claimed + 1e-9


def test_whoever_moves_each_step_the_same_way_reaches_the_sensitivity() -> None:
    matrix = np.tril(np.random.default_rng(1).random((9, 9)))
    reached = max(float(np.linalg.norm(matrix[:, first::3].sum(axis=1))) for first in range(3))
    assert sensitivity(matrix, 3) == pytest.approx(reached)  # the columns' norms alone would say less


def test_a_workload_is_what_the_optimiser_does() -> None:
    gradients, velocity, place = np.random.default_rng(2).standard_normal(7), 0.0, 0.0
    places = []
    for gradient in gradients:
        velocity = 0.9 * velocity + gradient
        place += velocity
        places.append(place)
    np.testing.assert_allclose(workload(7, 0.9) @ gradients, places)


def test_in_turns_an_optimised_matrix_has_its_bands_and_pays() -> None:
    target, independent = workload(12, 0.0), np.eye(12)
    found = optimised(target, bands=3, gap=3)
    lags = np.subtract.outer(np.arange(12), np.arange(12))
    assert not found[(lags < 0) | (lags >= 3)].any()
    assert root_mean_square(target, found, 3) < 0.8 * root_mean_square(target, independent, 3)


def test_with_everybody_in_every_step_no_matrix_helps_the_last_sum() -> None:
    target, independent = workload(12, 0.0), np.eye(12)
    for matrix in (
        optimised(target, 4, 1),
        optimised(target, 12, 1),
        np.tril(np.random.default_rng(3).random((12, 12))),
    ):
        assert last_error(target, matrix, 1) >= last_error(target, independent, 1) - 1e-9


def test_what_the_matrix_mixes_is_independent_noise() -> None:
    matrix = optimised(workload(8, 0.9), bands=4, gap=4)
    rows = correlated(matrix, 3.0, 5, np.random.default_rng(4))
    np.testing.assert_allclose(matrix @ rows, 3.0 * np.random.default_rng(4).standard_normal((8, 5)), atol=1e-4)


def test_sums_are_those_of_each_user_clipped_alone() -> None:
    train, recipe = population(users=40, items=100, seed=5), Recipe(rate=1.0)
    model = recipe.model()
    model.begin(100, seed=6)
    model.vector = np.random.default_rng(7).standard_normal(900).astype(np.float32)
    found = Training(train, recipe).total(torch.from_numpy(model.vector.copy()), np.arange(40), seed=8)

    gradients = -np.stack(list(model.changes(list(train.histories()), Local(1, 1, 1.0), seed=8)))
    norms = np.linalg.norm(gradients, axis=1)
    assert (norms > recipe.clip).sum() > 20  # and so clipping is seen
    clipped = gradients * np.minimum(1.0, recipe.clip / norms)[:, None]
    np.testing.assert_allclose(found.numpy(), clipped.sum(axis=0), atol=1e-5)


def test_sides_are_compared_on_the_same_populations() -> None:
    said: list[str] = []
    measured = run(SMALL, said.append)
    figures, ratios = measured.figures, measured.ratios
    assert len(said) == 3
    for noise in ("prefix", "momentum"):
        gain = figures[f"gap_4_epsilon_3_{noise}_ndcg"] / figures["gap_4_epsilon_3_independent_ndcg"] - 1
        assert figures[f"gap_4_epsilon_3_{noise}_gain"] == pytest.approx(gain)
        assert figures[f"gap_4_epsilon_3_{noise}_rate"] in (4, 8)
        assert ratios[f"gap_4_epsilon_3_{noise}_rms"] > 1.2
    assert ratios["gap_4_epsilon_3_independent_rms"] == ratios["gap_4_epsilon_3_independent_last"] == 1


def test_a_study_comes_out_the_same_again() -> None:
    config = replace(SMALL, rates="8", noises="independent")
    assert run(config, print) == run(config, print)


@pytest.mark.parametrize(
    "setting", ["gaps=0", "gaps=101", "compared_on=1", "noises=prefix", "noises=independent,dense"]
)
def test_wrong_settings_are_one_line(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "correlated", "--set", setting]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


@pytest.mark.long
def test_the_quick_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "correlated", "--quick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report) == {"case", "config", "machine", "commit", "figures", "ratios"}
