"""What holds for every trained model: one vector, the same seed the same end, users as examples of DP-SGD."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="NOT TESTED: these models need torch, pip install 'secagg[train]'")

import torch

from dp.accountants import RdpAccountant
from dp.events import Gaussian, Guarantee, PoissonSample, Relation, Release, Trust, Unit
from dp.training import Adaptive, Flat, Settings
from recsys.data.synthetic import population
from recsys.models import batches, mf, mf_private, neural
from recsys.models.autoencoder import Autoencoder
from recsys.models.mf import MatrixFactorisation
from recsys.models.neumf import NeuMf
from recsys.models.over_text import SasRecOverText, TwoTower
from recsys.models.recommender import Local
from recsys.models.sasrec import SasRec
from secagg.crypto.prg import Prg
from secagg.errors import BudgetError, UsageError
from tests.controls import switch_off
from tests.scenes.item_vectors import coordinates

ITEMS = 80
HISTORIES = list(population(users=12, items=ITEMS, seed=1).histories())
LOCAL = Local(epochs=2, batch=5, rate=0.1)
SETTINGS = Settings(Flat(1.0), Fraction(1), expected_batch=4)
MODELS: list[Callable[[], Any]] = [
    lambda: Autoencoder(width=4, recent=20),
    lambda: MatrixFactorisation(width=4, recent=20),
    lambda: NeuMf(width=4, recent=20),
    lambda: SasRec(width=8, recent=10, negatives=10),
    lambda: TwoTower(coordinates(ITEMS), width=4, recent=10, negatives=10),
    lambda: SasRecOverText(coordinates(ITEMS), width=8, recent=10, negatives=10),
]
NAMES = ["autoencoder", "mf", "neumf", "sasrec", "two-tower", "sasrec-over-text"]


@pytest.fixture(params=MODELS, ids=NAMES)
def model(request: pytest.FixtureRequest) -> Any:
    made = request.param()
    made.begin(ITEMS, seed=3)
    return made


def nothing(event: Any, count: int) -> None:
    """Charges go nowhere."""


def privately(model: Any, histories: Any = HISTORIES, **changes: Any) -> Any:
    words = {"unit": Unit.USER, "charge": nothing, "seed": 5, "rng": Prg(bytes(32))} | changes
    settings = words.pop("settings", SETTINGS)
    return model.train_privately(histories, settings, words.pop("steps", 2), 0.1, **words)


def fingerprint(model: Any) -> bytes:
    vector = model.vector
    assert vector.ndim == 1
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()
    return bytes(vector.tobytes())


# One vector


def test_the_vector_is_read_and_assigned(model: Any) -> None:
    vector, scores = model.vector, model.scores(HISTORIES)
    assert scores.shape == (len(HISTORIES), ITEMS)
    assert scores.dtype == np.float32
    read = model.vector
    read += 1
    np.testing.assert_array_equal(model.vector, vector)  # that was a copy
    model.vector = read
    read += 1
    np.testing.assert_array_equal(model.vector, vector + 1)  # and so was that
    model.vector = vector
    np.testing.assert_allclose(model.scores(HISTORIES), scores, rtol=1e-4, atol=1e-5)
    other = model.with_vector(read)
    np.testing.assert_array_equal(other.vector, read)
    other.train(HISTORIES, LOCAL, 0)
    np.testing.assert_array_equal(model.vector, vector)  # what another model learns stays there
    for wrong in (vector[1:], vector.astype(np.float64), vector[None]):
        with pytest.raises(UsageError, match="the vector has"):
            model.vector = wrong


@pytest.mark.parametrize("made", MODELS, ids=NAMES)
def test_nothing_works_before_it_has_begun(made: Callable[[], Any]) -> None:
    for use in (lambda m: m.vector, lambda m: m.scores(HISTORIES), lambda m: m.train(HISTORIES, LOCAL, 0), privately):
        with pytest.raises(UsageError, match="has not begun"):
            use(made())


def test_a_beginning_follows_from_its_seed(model: Any) -> None:
    first = model.vector
    model.begin(ITEMS, seed=4)
    assert np.abs(model.vector - first).max() > 1e-3
    model.begin(ITEMS, seed=3)
    np.testing.assert_allclose(model.vector, first, rtol=1e-5, atol=1e-6)


def test_a_state_makes_the_same_model(model: Any) -> None:
    model.train(HISTORIES, LOCAL, 0)
    again = type(model).from_state(model.state())
    assert fingerprint(again) == fingerprint(model)
    np.testing.assert_allclose(again.scores(HISTORIES), model.scores(HISTORIES), rtol=1e-4, atol=1e-5)
    assert again.state().settings == model.state().settings


# Training


def trained(model: Any, seed: int, local: Local = LOCAL) -> np.ndarray:
    model.begin(ITEMS, seed=3)
    model.train(HISTORIES, local, seed)
    fingerprint(model)
    return model.vector


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_the_same_seed_gives_the_same_end(model: Any) -> None:
    first = trained(model, seed=1)
    assert np.abs(trained(model, seed=2) - first).max() > 1e-3
    torch.manual_seed(99)
    torch.set_num_threads(2)
    generator = torch.get_rng_state()
    np.random.seed(98)
    np.testing.assert_allclose(trained(model, seed=1), first, rtol=1e-4, atol=1e-5)  # whatever torch and numpy were at
    assert torch.equal(torch.get_rng_state(), generator)  # and they are left there
    assert torch.get_num_threads() == 2


def test_scores_do_not_depend_on_others_or_on_training_mode(model: Any) -> None:
    model.train(HISTORIES, LOCAL, 1)
    together = model.scores(HISTORIES)
    alone = np.concatenate([model.scores([history]) for history in HISTORIES])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.scores(HISTORIES), together, rtol=1e-4, atol=1e-5)


@pytest.mark.thinned(2)
def test_the_proximal_term_pulls_back(model: Any) -> None:
    start, ends = model.vector, []
    for proximal in (0.0, 1.0, 5.0):
        model.vector = start
        model.train(HISTORIES, Local(epochs=6, batch=4, rate=0.1, proximal=proximal), seed=1)
        ends.append(float(np.linalg.norm(model.vector - start)))
    assert ends[0] > 1.1 * ends[1] > 1.1 * ends[2] > 0


def drift_of(model: Any) -> np.ndarray:
    """Another number for each parameter, and steps are of .1: as long as the model itself."""
    return np.random.default_rng(2).normal(0, 1, len(model.vector)).astype(np.float32)


def test_a_drift_is_added_to_each_gradient(model: Any) -> None:
    """Of one step nothing else is another. Of several it is in each; the gradients are others then."""
    start, drift = model.vector, drift_of(model)
    for local in (Local(epochs=1, batch=99, rate=0.1), Local(epochs=3, batch=4, rate=1e-4)):
        moved = []
        for more in (None, drift):
            model.vector = start
            model.train(HISTORIES, replace(local, drift=more), seed=1)
            moved.append(model.vector - start)
        steps = local.steps(len(HISTORIES))
        assert steps == len(list(batches.batches(HISTORIES, local, seed=1)))
        np.testing.assert_allclose(moved[1] - moved[0], -local.rate * steps * drift, atol=2e-5)


def test_under_privacy_a_drift_is_added_after_clipping_and_noise(model: Any) -> None:
    start, drift, charged, moved = model.vector, drift_of(model), list[Any](), []
    for more in (None, 100 * drift):
        model.vector = start
        privately(model, charge=lambda *charge: charged.append(charge), steps=1, drift=more)
        moved.append(model.vector - start)
    np.testing.assert_allclose(moved[1] - moved[0], -0.1 * 100 * drift, rtol=1e-3, atol=1e-4)
    assert charged[0] == charged[1]


def test_histories_of_all_kinds(model: Any) -> None:
    everything = np.arange(ITEMS, dtype=np.int32)
    odd = [np.empty(0, np.int32), np.int32([7]), np.int32([7, 7]), everything, np.int32([1, 2])]
    model.train(odd, LOCAL, seed=1)
    privately(model, odd)
    fingerprint(model)
    assert np.isfinite(model.scores(odd)).all()


def test_who_teaches_nothing_moves_nothing(model: Any) -> None:
    before = fingerprint(model)
    model.train([np.empty(0, np.int32)], LOCAL, seed=1)
    assert fingerprint(model) == before


# Under privacy


def test_a_user_is_an_example_and_charged_as_one(model: Any) -> None:
    charged: list[Any] = []
    kept = privately(model, charge=lambda *charge: charged.append(charge))
    user = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.LOCAL)
    assert charged == [(Release(Gaussian(Fraction(1)), PoissonSample(Fraction(4, len(HISTORIES))), user), 2)]
    assert kept == SETTINGS


def test_the_charge_comes_first(model: Any) -> None:
    def refuse(event: Any, count: int) -> None:
        raise BudgetError("enough")

    before = fingerprint(model)
    with pytest.raises(BudgetError):
        privately(model, charge=refuse)
    assert fingerprint(model) == before


def test_all_coordinates_are_noised(model: Any) -> None:
    before = model.vector
    privately(model)
    assert (model.vector != before).mean() > 0.999  # noise may round to nothing


def test_a_private_run_follows_from_its_seeds(model: Any) -> None:
    start, ends = model.vector, []
    for seed, key in [(5, 0), (5, 0), (5, 1)]:
        model.vector = start
        privately(model, seed=seed, rng=Prg(bytes([key]) * 32))
        ends.append(fingerprint(model))
    assert ends[0] == ends[1] != ends[2]


def test_adaptive_settings_go_on(model: Any) -> None:
    adaptive = Settings(Adaptive(1.0, count_noise=5.0), Fraction(1), expected_batch=4)
    kept = privately(model, settings=adaptive, steps=2)
    assert kept.clipping.clip != 1.0


def test_a_ledger_of_users_adds_up(model: Any) -> None:
    accountant = RdpAccountant()
    for _ in range(2):
        privately(model, charge=accountant.compose)
    [(event, count)] = accountant.events.items()
    assert (event.guarantee.unit, count) == (Unit.USER, 4)


def test_only_mf_knows_interactions(model: Any) -> None:
    if isinstance(model, MatrixFactorisation):
        return
    with pytest.raises(UsageError, match="is a whole user, not one interaction"):
        privately(model, HISTORIES[:1], unit=Unit.EXAMPLE)


def examples_of(monkeypatch: pytest.MonkeyPatch, model: Any, histories: Any) -> list[tuple[Any, ...]]:
    """What DP-SGD is given."""
    seen: list[Any] = []

    def keep(module: Any, loss: Any, examples: Any, *others: Any, **words: Any) -> Any:
        seen.extend(examples)
        return SETTINGS

    for owner in (neural, mf_private):
        monkeypatch.setattr(owner, "descend_privately", keep)
    privately(model, histories)
    return seen


def assert_each_is_its_own(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    everybody = examples_of(monkeypatch, model, HISTORIES)
    without = examples_of(monkeypatch, model, HISTORIES[1:])
    assert len(everybody) == len(HISTORIES)
    for one, other in zip(everybody[1:], without, strict=True):
        for part, same in zip(one, other, strict=True):
            torch.testing.assert_close(part, same, rtol=1e-5, atol=1e-6)


def test_an_example_depends_on_one_user(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    """Nobody else moves what a user's example hides or draws."""
    assert_each_is_its_own(monkeypatch, model)


def test_that_would_be_seen(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    """With one generator for all, removing one user changes everybody's example."""
    shared = iter(np.random.default_rng(0).integers(1 << 30, size=100).tolist())
    switch_off(monkeypatch, batches, "own", "[seed, *map(int, history)]", "next(_SHARED)")
    monkeypatch.setattr(batches, "_SHARED", shared, raising=False)
    monkeypatch.setattr(mf, "own", batches.own)
    monkeypatch.setattr(neural, "Draws", OneGenerator)
    with pytest.raises(AssertionError):
        assert_each_is_its_own(monkeypatch, model)


class OneGenerator:
    def __init__(self, seed: int, histories: Any) -> None:
        self._rng, self._count = np.random.default_rng(seed), len(histories)

    def uniform(self, count: int) -> np.ndarray:
        return self._rng.random((self._count, count))


def test_no_dropout_under_privacy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch draws for one example would depend on where in the batch it is."""
    modes: list[bool] = []

    class Spy(SasRec):
        def _losses(self, module: Any, *examples: Any) -> Any:
            modes.append(module.training)
            return super()._losses(module, *examples)

    spy = Spy(width=8, recent=10, negatives=10)
    spy.begin(ITEMS, 0)
    spy.train(HISTORIES, LOCAL, 0)
    assert all(modes)
    modes.clear()
    privately(spy)
    assert modes
    assert not any(modes)


def test_settings_are_checked() -> None:
    for wrong in (
        lambda: Autoencoder(width=0),
        lambda: Autoencoder(fading=1.5),
        lambda: MatrixFactorisation(loss="mse"),
        lambda: MatrixFactorisation(support=1.0),
        lambda: MatrixFactorisation(ridge=0.0),
        lambda: NeuMf(pace=0.0),
        lambda: SasRec(width=9, heads=2),
    ):
        with pytest.raises(UsageError):
            wrong()
