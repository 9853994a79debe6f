"""Users who are sampled by their silos: by whose coins, what a round's mean is over, and what is promised and charged.

The invariant: who is in a round follows from coins that are tossed once for each plan, and nobody but the silo can tell
from anything else who it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.calibrate import user_level
from dp.events import Holder, Relation
from dp.filter import Budget, Kind
from dp.ledger import Ledger
from dp.ledger.file import read
from dp.ledger.verify import verify
from dp.noise import Family, NoiseSpec
from dp.verify_ledger import Audit, problems
from protocols.parameters import rules_of
from recsys.aggregator import ChosenLazyVectors, LazyVectors, Request, Result, Update
from recsys.assembly import Prepared, prepare
from recsys.config import Config
from recsys.deployment import Deployment
from recsys.federated import Federation
from recsys.ideal_aggregator import IdealAggregator
from recsys.models.autoencoder import Autoencoder
from recsys.models.recommender import SharedModel
from recsys.other_runs import RunList
from recsys.pending_sum import PendingSums
from recsys.report import Account, write_report
from recsys.run import train
from recsys.run_record import Round
from recsys.secure_aggregator import SecureAggregator
from recsys.users_in_silos import UsersInSilos
from secagg.coins import most_sampled
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding, Rounding
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.scenes.aggregation import NAMES, SECRET
from tests.scenes.bias import Bias
from tests.scenes.recommender import KEY, client_data, config, federation

RATE = Fraction(1, 4)
CAP = 3
SAMPLED = Encoding(CAP * len(NAMES), clip_l2=1.0, bits=20, users=CAP, sampled=Fraction(1, 2), rounding=Rounding.NEAREST)
NOISE = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(SAMPLED.largest**2), dropouts=2, colluders=1)
BUDGET = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**5))


# Whose coins


def everybody(name: str) -> LazyVectors:
    """Each user of each silo has a place of its own."""
    rows = np.eye(SAMPLED.length)[NAMES.index(name) * CAP :][:CAP]
    return LazyVectors(len(rows), lambda: rows)


def members(folder: Path, protocol: str, ledger: Ledger, number: int = 0) -> list[int]:
    """Whose vectors went into a sum: before there was noise, as it is on disk."""
    deployment = Deployment(protocol, rules_of(protocol).against, dropout="0.25")
    aggregator = SecureAggregator(deployment, SECRET, folder=folder, ledger=ledger)
    aggregator.aggregate(Request(number, "test", NAMES, SAMPLED, NOISE), everybody)
    kept = PendingSums(folder, SECRET).read(number)
    assert kept is not None
    ring = kept.plan.ring
    total = sum(ring.centred(ring.unpack(one.vector, SAMPLED.length)) for one in kept.inputs.values())
    return np.flatnonzero(total).tolist()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    guarantee = user_level(Relation.ZERO_OUT, Holder.SILO)
    with closing(Ledger.create(tmp_path / "a.db", KEY, BUDGET, guarantee, run="test", elsewhere="nothing")) as made:
        yield made


def test_a_sum_that_is_finished_after_a_crash_has_the_users_with_whom_it_was_begun(
    tmp_path: Path, ledger: Ledger
) -> None:
    first, spent = members(tmp_path, "secagg", ledger), ledger.epsilon
    assert (members(tmp_path, "secagg", ledger), ledger.epsilon) == (first, spent)
    assert len(first) < SAMPLED.length
    SecureAggregator(Deployment("secagg"), SECRET, folder=tmp_path).delete_pending(1)
    assert members(tmp_path, "secagg", ledger, number=1) != first  # alike with probability 2^-24


def test_another_release_of_a_sum_has_other_users(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A protocol that cannot repeat itself releases a sum that is begun again with other noise, and pays again. With
    one sample both would be a single sum of half the noise. Control: with what was kept the sample is the same."""
    first, spent = members(tmp_path, "ckks", ledger), ledger.epsilon
    second = members(tmp_path, "ckks", ledger)
    assert second != first  # alike with probability 2^-24
    assert ledger.epsilon > spent
    switch_off(monkeypatch, SecureAggregator, "_begun", "pending.plan.encoding.sampled == 1", "True")
    assert members(tmp_path, "ckks", ledger) == second


# How much work


class Watched(IdealAggregator):
    """Keeps the sum, and of each silo how many vectors it was asked for and what they come to with some coins."""

    def __init__(self) -> None:
        super().__init__(SECRET)
        self.total, self.made, self.integers = np.zeros(0), dict[str, int](), dict[str, list[int]]()

    def aggregate(self, request: Request, update: Update) -> Result:
        def watched(name: str) -> LazyVectors:
            vectors, made = update(name), list[NDArray[np.float64]]()
            assert isinstance(vectors, LazyVectors)

            def noted(given: Iterator[NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
                for vector in given:
                    made.append(vector)
                    yield vector

            noting = LazyVectors(len(vectors), lambda: noted(iter(vectors)))
            if isinstance(vectors, ChosenLazyVectors):
                noting = ChosenLazyVectors(len(vectors), lambda users: noted(vectors.of(users)))
            coins = Prg(name.encode().ljust(32))
            self.integers[name] = request.encoding.encode_users(noting, seed=bytes(32), rng=coins).tolist()
            self.made[name] = len(made)
            return vectors

        result = super().aggregate(request, watched)
        self.total = result.vector
        return result


def one_round(model: SharedModel, sizes: Sequence[int] = (60, 60)) -> tuple[Watched, Federation, Round]:
    clients, watched = client_data(sizes), Watched()
    model.begin(clients.train.item_count, 3)
    length = len(model.vector) + 3
    encoding = Encoding(length, 1.0, 24, users=max(sizes), rounding=Rounding.NEAREST, sampled=RATE)
    silos = UsersInSilos(users=sum(sizes), most=max(sizes))
    done = federation(clients, watched, model=model, encoding=encoding, silos=silos)
    return watched, done, done.advance()


def test_a_silo_makes_as_many_vectors_as_are_declared_and_the_sum_is_of_the_sample() -> None:
    """Of a model that takes the same time for each user, fewer than it has users; of another one, all. The silo's sum
    is that of the same users' vectors in a round of everybody, to the last integer."""
    most = most_sampled(60, RATE)
    assert most < 60
    watched, _, _ = one_round(Autoencoder(width=2))
    assert set(watched.made.values()) == {most}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Autoencoder, "even", False)
        whole, _, _ = one_round(Autoencoder(width=2))
    assert set(whole.made.values()) == {60}
    assert watched.integers == whole.integers
    others, _, _ = one_round(Bias())
    assert set(others.made.values()) == {60}


# The mean


def test_the_mean_is_over_as_many_users_as_are_sampled_on_average() -> None:
    model = Bias()
    model.begin(12, 3)
    start = model.vector.copy()
    watched, done, round_ = one_round(model, (5, 5, 5, 5))
    np.testing.assert_allclose(done.state.vector - start, watched.total[:12] / 5, atol=1e-6)
    assert set(round_.measured) == {"HR@10", "NDCG@10"}  # means over those in the sample who have something held out


# Configurations


def asked(*changes: str) -> Config:
    return config("privacy.mode=distributed", "data.users=120", "clients.count=4", "training.sampled=0.25", *changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("training.sampled=0",), "above 0 and at most 1"),
        (("training.sampled=1.5",), "above 0 and at most 1"),
        (("privacy.mode=local", "training.measured=0.05"), "training.sampled is for privacy.mode = distributed"),
        (("privacy.mode=none",), "training.sampled is for privacy.mode = distributed"),
        (("privacy.mode=both",), "training.sampled is for privacy.mode = distributed"),
        (("clients.kind=devices",), "training.sampled is for privacy.mode = distributed"),
        (("clients.overlap=2",), "each user in one of them"),
        (("training.draw=turns", "training.size=2"), "turns counts mu\\^2, which a sample has none of"),
        (("model.name=private-ease", "model.settings={}"), "made of sums over all users: training.sampled is 1"),
    ],
)
def test_who_is_not_sampled(changes: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        prepare(asked(*changes))


def prepared(*changes: str) -> Prepared:
    return prepare(asked("protocol.dropout=0.25", *changes))


def test_a_run_of_samples_is_charged_and_promised_as_one(tmp_path: Path) -> None:
    """The budget counts divergences, both auditors agree, and each sentence of the promise says whose coins it is."""
    ready = prepared()
    assert ready.distributed is not None
    assert ready.distributed.budget.kind is Kind.RENYI
    assert ready.encoding.sampled == RATE
    assert ready.without_privacy().encoding.sampled == 1  # a baseline has everybody
    folder = tmp_path / "run"
    run = train(ready, folder, machine={}, run_list=RunList(tmp_path / "state"))
    (promise,) = run.spendings
    coins = "the user's own silo sees its data, and the coin by which it is in a sum with a probability of 0.25"
    assert promise.words.endswith(coins)
    account = Account.load(folder)
    assert account.differences == ()
    assert account.spent[0].promise.words == promise.words
    report = unescape(write_report(folder).read_text())
    assert coins in report
    assert "Tossing a coin for each of them, anew for each sum, and telling nobody how it fell." in report
    state = verify(read(folder / "ledger.db"))
    assert {record.happened.sampled for record in state.records.values() if record.happened} == {RATE}  # type: ignore[union-attr]
    assert 0 < account.spent[0].epsilon <= 8
    data = b"".join(
        b'{"body":%s,"signature":"%s"}\n' % (body, end.hex().encode()) for body, end in read(folder / "ledger.db")
    )
    assert list(problems(data, None, None, Audit(None))) == []


@pytest.mark.long
def test_a_shared_budget_of_mu_squared_has_no_room_for_a_sample(tmp_path: Path) -> None:
    """It is refused before anything of the run is there."""
    shared = f"privacy.ledger={tmp_path / 'shared.db'}"
    train(
        prepared("training.sampled=1.0", shared, "privacy.budget=16", "privacy.epsilon=4", "training.rounds=1"),
        tmp_path / "first",
        machine={},
        run_list=RunList(tmp_path / "state"),
    )
    with pytest.raises(UsageError, match="no GDP bound is known for DiscreteGaussians with PoissonSample"):
        train(
            prepared(shared, "privacy.epsilon=4", "training.rounds=1"),
            tmp_path / "second",
            machine={},
            run_list=RunList(tmp_path / "state"),
        )
    assert not (tmp_path / "second").exists()
