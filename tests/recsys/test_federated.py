"""Federated rounds: what the server learns is what the clients would have summed up, and privacy is paid for once.

Statistical tests: fixed secrets; the squares of d noise values, relative to their variance, add up to d within 7
standard deviations (sqrt(2 d)); for d = 3000 a sum of squares of nearly normal values leaves that with probability
below 1e-9 (Laurent and Massart 2000, Lemma 1, gives 1e-10 for the upper side). A control shows that noise of 4/5 of the
deviation is caught.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from dp.calibrate import DEFAULT_BETA, SLACK, calibrate, user_level, with_multiplier
from dp.events import Everyone, Gaussian, Guarantee, PoissonSample, Relation, Release, Trust, Unit
from dp.filter import Budget, Kind
from dp.ledger import Ledger
from dp.noise import NoiseSpec
from dp.training import Settings
from protocols import registry
from protocols.parameters import rules_of
from recsys.aggregator import Aggregator
from recsys.callers import Called
from recsys.data.interactions import History
from recsys.deployment import Deployment
from recsys.federated import METRICS, ClientData, Federation, UpdateRecipe
from recsys.ideal_aggregator import IdealAggregator
from recsys.metrics.ranking import measure
from recsys.models.autoencoder import Autoencoder
from recsys.models.recommender import Local
from recsys.network import Network
from recsys.optimisers import Optimiser, Rule
from recsys.participation import Draw, Participation, beacon
from recsys.run_record import Round
from recsys.secure_aggregator import SecureAggregator
from recsys.training_state import TrainingState
from recsys.users_in_silos import UsersInSilos
from secagg import tensors
from secagg.crypto import labels
from secagg.crypto.keys import SigningKey, derive
from secagg.encoding import Encoding
from secagg.errors import BudgetError, DecodeError, UsageError
from tests.controls import switch_off
from tests.scenes.bias import Bias
from tests.scenes.private_training import PRIVATE, STEPS, private, small, step_of
from tests.scenes.recommender import BITS, SECRET, SEED, client_data, federation, ledger_for

pytestmark = pytest.mark.thinned(4)

OTHER = bytes(32)
DEPLOYMENT = Deployment(dropout="0.34")


def secure(
    clients: ClientData, secret: bytes = SECRET, deployment: Deployment = DEPLOYMENT, **more: Any
) -> SecureAggregator:
    return SecureAggregator(deployment, secret, **more)


def run(federation: Federation, rounds: int) -> NDArray[np.float32]:
    for _ in range(rounds):
        federation.advance()
    return federation.state.vector


# Masks change nothing


def error(rounds: int, clip: float = 1.0, bits: int = BITS) -> float:
    """Each client's number is rounded by less than one unit, so their mean is, in each round; and what is different
    in one round does not grow in the next: a step of ``Bias`` towards a mean, then clipping, expand nothing."""
    return rounds * (1 / Encoding(1, clip, bits).scale + 2.0**-22)


@pytest.mark.parametrize("protocol", registry.names())
def test_a_masked_run_is_the_unmasked_one_up_to_quantisation(protocol: str) -> None:
    clients = client_data()
    masked = federation(
        clients, secure(clients, deployment=Deployment(protocol, rules_of(protocol).against, dropout="0.34"))
    )
    plain = federation(clients, IdealAggregator(OTHER))
    begun = plain.state.vector.copy()
    difference = run(masked, 3) - run(plain, 3)
    assert np.abs(difference).max() <= error(3)
    assert np.abs(plain.state.vector - begun).max() > 1e4 * error(3)
    for one, other in zip(masked.state.rounds, plain.state.rounds, strict=True):
        assert one.measured == pytest.approx(other.measured, abs=1e-4)
        assert (one.planned, one.survivors) == (6, 6)
        assert one.bytes_up > 0 == other.bytes_up


def test_coarse_numbers_are_further_apart() -> None:
    """The bound above is one for 24 bits: with 8 it would be broken."""
    clients = client_data()
    coarse = Encoding(UpdateRecipe(Local(), 1.0).length(12), 1.0, 8)
    masked, plain = federation(clients, secure(clients), encoding=coarse), federation(clients, IdealAggregator(OTHER))
    difference = np.abs(run(masked, 3) - run(plain, 3)).max()
    assert error(3) < difference <= error(3, bits=8)


def test_the_same_seed_is_the_same_run() -> None:
    """As far as floats are: a last bit that differs is rounded otherwise."""
    clients = client_data()
    first, second = federation(clients, secure(clients)), federation(clients, secure(clients))
    assert np.abs(run(first, 2) - run(second, 2)).max() <= error(2)
    alike(first.state.rounds, second.state.rounds)
    assert np.abs(run(federation(clients, secure(clients), seed=4), 2) - first.state.vector).max() > 1e3 * error(2)


def alike(ones: Sequence[Round], others: Sequence[Round]) -> None:
    """What is counted is the same, what is measured nearly."""
    for one, other in zip(ones, others, strict=True):
        assert replace(one, seconds={}, measured={}) == replace(other, seconds={}, measured={})
        assert one.measured == pytest.approx(other.measured, abs=1e-4)


def test_with_another_secret_only_rounding_differs() -> None:
    clients = client_data()
    one, other = (run(federation(clients, secure(clients, each)), 2) for each in (SECRET, OTHER))
    assert 0 < np.abs(one - other).max() <= error(2)


def test_clients_count_by_their_weight_up_to_the_bound() -> None:
    clients = client_data((2, 9, 4, 5))
    done = federation(clients, secure(clients), weight_bound=5, measured=0.0)
    start = done.state.vector
    changes = []
    for name in clients.names:
        model = Bias()
        model.begin(12, 3)
        model.train(clients.histories(name), Local(rate=0.5), 0)
        change = model.vector.astype(np.float64) - start
        changes.append(change * min(1.0, 1 / np.linalg.norm(change)))
    weights = np.array([2, 5, 4, 5])
    expected = start + weights @ np.array(changes) / weights.sum()
    assert np.abs(run(done, 1) - expected).max() <= error(1)
    assert np.abs(run(federation(clients, secure(clients), measured=0.0), 1) - expected).max() > 10 * error(1)


def test_a_training_that_comes_to_nothing_goes_in_as_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on, and over all silos. Control: it would end there, and say at whose."""

    class Overflowing(Bias):
        def train(self, histories: Any, local: Local, seed: int) -> None:
            super().train(histories, local, seed)
            if len(histories) == 9:
                self.vector = self.vector * np.float32(np.inf)

    clients = client_data((4, 9, 4))
    done = federation(clients, secure(clients), model=Overflowing(), measured=0.0)
    start = done.state.vector.copy()
    with np.errstate(invalid="ignore"):
        vector = run(done, 1)
    assert done.state.rounds[0].survivors == 3
    fine = federation(clients, secure(clients), measured=0.0)
    without = [fine._client(0, Called(clients.names))(name) for name in ("silo-0", "silo-2")]
    expected = start + sum(change * min(1.0, 1 / np.linalg.norm(change)) for change in without) / 3
    assert np.abs(vector - expected).max() <= error(1)
    switch_off(monkeypatch, Federation, "_client", "not np.isfinite(change).all()")
    with np.errstate(invalid="ignore"), pytest.raises(UsageError, match="NaN or infinite"):
        run(federation(clients, secure(clients), model=Overflowing(), measured=0.0), 1)


def test_what_a_client_sends_is_no_longer_than_the_clip_with_what_it_measured() -> None:
    clients, sent = client_data(items=40), list[NDArray[np.float64]]()

    class Watched(IdealAggregator):
        def aggregate(self, request: Any, update: Any) -> Any:
            sent.extend(update(name) for name in request.cohort)
            return super().aggregate(request, update)

    run(federation(clients, Watched(SECRET), clip=0.1, measured=0.3), 1)
    norms = [float(np.linalg.norm(vector)) for vector in sent]
    assert max(norms) <= 0.1 * (1 + 1e-12)
    assert min(norms) > 0.08  # the changes are clipped here, to their share
    assert all(np.linalg.norm(vector[-3:]) <= 0.1 * 0.3**0.5 * (1 + 1e-12) for vector in sent)


# Measured under the mask


def measured_on(clients: ClientData, names: Sequence[str], model: Bias) -> dict[str, float]:
    users = np.concatenate([clients.users(name) for name in names])
    found = measure(model, clients.train.of_users(users), clients.held_out.of_users(users))
    return {metric: found.mean(metric) for metric in METRICS}


def test_the_measured_values_are_those_of_the_survivors_users() -> None:
    """Values under the mask are off by at most a unit a client, relative to how many have something held out."""
    clients = client_data((2, 9, 4, 5, 7, 3), items=40)
    aggregator = secure(clients, network=Network(dropout=0.1))
    done = federation(clients, aggregator, weight_bound=9, clip=0.5)
    for _ in range(3):
        model = Bias()
        model.begin(40, 0)
        model.vector = done.state.vector
        one = done.advance()
        lost = [
            name for name, result in zip(clients.names, lost_in(aggregator, clients, one.number), strict=True) if result
        ]
        stayed = [name for name in clients.names if name not in lost]
        assert one.survivors == len(stayed)
        assert one.measured == pytest.approx(measured_on(clients, stayed, model), abs=1e-4)
        assert set(one.measured) == set(METRICS)
    assert {one.survivors for one in done.state.rounds} != {6}
    assert one.measured["HR@10"] != pytest.approx(measured_on(clients, clients.names, model)["HR@10"], abs=1e-4)


def lost_in(aggregator: SecureAggregator, clients: ClientData, number: int) -> list[bool]:
    """Whose vector is missing from a sum."""
    phases = ["advertise", "share", "upload", "consistency", "reveal"]
    silent = aggregator._network.faults(clients.names, phases, number).dropouts
    return [silent.get(name, "reveal") in phases[:3] for name in clients.names]


def test_nothing_is_measured_if_nothing_is_asked_for() -> None:
    clients = client_data()
    done = federation(clients, secure(clients), measured=0.0)
    assert done.advance().measured == {}


@pytest.mark.parametrize("silos", [False, True], ids=["clients", "users"])
def test_clients_measure_every_so_many_rounds_and_else_all_of_the_clip_is_for_the_change(silos: bool) -> None:
    """In rounds 0 and 2 the change has its share of the norm; in 1 and 3 the other coordinates are zeros."""
    clients, sent = client_data((4, 4), items=40), list[NDArray[np.float64]]()
    encoding = Encoding(43, 0.1, BITS, users=4 if silos else 0)
    more: dict[str, Any] = {"silos": UsersInSilos(8, 4)} if silos else {}

    class Watched(IdealAggregator):
        def aggregate(self, request: Any, update: Any) -> Any:
            for name in request.cohort:
                for vector in update(name) if silos else [update(name)]:
                    one = replace(encoding, users=0)
                    integers = one.encode(vector, weight=1, seed=bytes(32), rng=bytes)
                    sent.append(one.decode(integers, count=1, seed=bytes(32)).vector)
            return super().aggregate(request, update)

    done = federation(
        clients,
        Watched(SECRET),
        clip=0.1,
        measured=0.3,
        measured_every=2,
        encoding=encoding,
        local=Local(rate=1.0),
        **more,
    )
    for number in range(4):
        sent.clear()
        measured = done.advance().measured
        for vector in sent:
            assert np.linalg.norm(vector[:-3]) == pytest.approx(0.1 * (0.7**0.5 if number % 2 == 0 else 1), rel=1e-3)
            assert vector[-3:].any() <= (number % 2 == 0)
        assert bool(measured) == any(vector[-3:].any() for vector in sent) == (number % 2 == 0)


def measured_rounds(values: Sequence[float | None]) -> tuple[Round, ...]:
    return tuple(
        Round(number, "training", 2, 2, {}, 0, 0, {}, {} if value is None else {"NDCG@10": value, "HR@10": -value})
        for number, value in enumerate(values)
    )


@pytest.mark.parametrize(
    ("patience", "values", "stalled"),
    [
        (0, [0.3, 0.2, 0.1, 0.1, 0.1], False),
        (2, [], False),
        (2, [0.3, 0.2], False),
        (2, [0.3, 0.2, 0.31], False),
        (2, [0.3, 0.2, 0.3], True),
        (2, [0.3, None, 0.2, None, None], False),
        (2, [0.3, None, 0.2, None, 0.1], True),
        (2, [0.1, 0.2, 0.3, 0.2], False),
        (1, [0.1, 0.2, 0.3, 0.2], True),
        (3, [-0.1, -0.2, -0.2, -0.2], True),
    ],
)
def test_it_is_time_to_stop_after_so_many_measured_rounds_without_a_better_one(
    patience: int, values: list[float | None], stalled: bool
) -> None:
    """It follows from the records of rounds alone, so from a checkpoint as well."""
    done = federation(client_data(), patience=patience)
    state = TrainingState(done.state.vector, {}, measured_rounds(values))
    done.resume(TrainingState.decode(b"".join(state.encode(SECRET)), SECRET))
    assert done.stalled is stalled


def test_the_servers_decay_is_of_the_model_and_enters_the_momentum() -> None:
    clients = client_data()
    rules = [Optimiser(Rule.FEDAVGM, 2.0, 0.5, decay=decay) for decay in (0.0, 0.1)]
    plain, decayed = (federation(clients, measured=0.0, optimiser=rule) for rule in rules)
    start = plain.state.vector.astype(np.float64)
    run(plain, 1), run(decayed, 1)
    np.testing.assert_allclose(decayed.state.vector, plain.state.vector - 2.0 * 0.1 * start, atol=error(1) * 3)
    np.testing.assert_allclose(rules[1].state["first"], rules[0].state["first"] - 0.1 * start, atol=error(1) * 3)


# Noise


def noised(deployment: Deployment, clients: int, length: int) -> tuple[Encoding, NoiseSpec]:
    encodings = [Encoding(length, 1.0, 20, beta=DEFAULT_BETA)]
    found = with_multiplier(2.0, deployment.noise(clients), encodings, clients, 32)
    assert found is not None
    return found


def noise_of(secret: bytes, aggregator: str, *, network: Network | None = None, folder: Path) -> tuple[float, int]:
    """Squares of the noise in one round's move, relative to the stated variance, summed up; and its length."""
    clients, deployment, length = client_data((3,) * 6, items=3000), Deployment(corrupt="0.15", dropout="0.34"), 3000
    encoding, noise = noised(deployment, 6, length)
    sensitivity = encoding.sensitivity()
    mechanism = noise.mechanism(6, 4, length, sensitivity.l2_squared, sensitivity.l1)
    release = Release(mechanism, Everyone(), user_level(Relation.ZERO_OUT))
    ledger = ledger_for(folder / f"{secret[1]}.db", release, epsilon=40, slack=Fraction(1, 10**8))
    real = SecureAggregator(deployment, secret, ledger=ledger, network=network)
    chosen: Aggregator = real if aggregator == "secure" else IdealAggregator(secret)
    plain = federation(clients, IdealAggregator(OTHER), measured=0.0)
    private = federation(clients, chosen, encoding=encoding, noise=lambda count: noise, measured=0.0)
    exact, survivors = run(plain, 1), private.advance().survivors
    ledger.close()
    assert survivors == 6
    variance = float(noise.honest_variance(6, 6)) * 6 / (6 - noise.colluders)
    units = (private.state.vector.astype(np.float64) - exact) * 6 * encoding.scale
    return float(np.square(units).sum() / variance), length


def test_noise_is_not_taken_for_a_measured_value() -> None:
    """In rounds without measuring there is noise in these coordinates, too, of which half is above zero: neither the
    record nor patience may see it. 8 such rounds without one are one case in 256, and the noise follows from a seed."""
    encoding, noise = noised(Deployment(corrupt="0.15", dropout="0.34"), 6, 15)
    done = federation(client_data(), encoding=encoding, noise=lambda count: noise, measured_every=3, patience=9)
    assert not [one.number for one in (done.advance() for _ in range(12)) if one.number % 3 and one.measured]


@pytest.mark.parametrize("aggregator", ["secure", "ideal"])
def test_with_noise_the_model_is_the_exact_one_plus_noise_of_the_stated_size(aggregator: str, tmp_path: Path) -> None:
    squares, length = noise_of(SECRET, aggregator, folder=tmp_path)
    assert abs(squares - length) < 7 * (2 * length) ** 0.5


def test_control_less_noise_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    switch_off(monkeypatch, NoiseSpec, "_at_level", "self.variance / (clients - missing - self.colluders)", SMALLER)
    monkeypatch.setattr(
        NoiseSpec, "honest_variance", lambda self, clients, survivors: HELD(self, clients, survivors) * 25 / 16
    )
    squares, length = noise_of(SECRET, "secure", folder=tmp_path)
    assert length - squares > 7 * (2 * length) ** 0.5


SMALLER = "self.variance / (clients - missing - self.colluders) * 16 / 25"
HELD = NoiseSpec.honest_variance


def test_with_another_secret_the_noise_is_another(tmp_path: Path) -> None:
    """The difference of two runs has twice the variance."""
    clients, (encoding, noise) = client_data((3,) * 6, items=3000), noised(DEPLOYMENT, 6, 3000)
    more: dict[str, Any] = {"encoding": encoding, "noise": lambda count: noise, "measured": 0.0}
    one, other = (run(federation(clients, IdealAggregator(each), **more), 1) for each in (SECRET, OTHER))
    units = (one.astype(np.float64) - other) * 6 * encoding.scale
    variance = float(noise.honest_variance(6, 6)) * 6 / (6 - noise.colluders)
    squares = float(np.square(units).sum() / (2 * variance))
    assert abs(squares - 3000) < 7 * 6000**0.5


def test_noise_and_weights_are_refused() -> None:
    clients = client_data()
    with pytest.raises(UsageError, match="counts once"):
        federation(clients, weight_bound=2, noise=lambda count: noised(DEPLOYMENT, count, 15)[1])


def test_an_encoding_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match="the encoding is for 7"):
        federation(client_data(), encoding=Encoding(7, 1.0))


# Too many lost

BEFORE, AFTER = 2, 395
"""Seeds of networks: clients fall silent before the survivors sign who they are; when masks are to be taken off."""


@pytest.mark.parametrize(("seed", "given_back"), [(BEFORE, True), (AFTER, False)])
def test_without_enough_clients_the_model_stays_and_what_was_reserved_is_given_back(
    seed: int, given_back: bool, tmp_path: Path
) -> None:
    """Once the survivors have agreed on a sum it counts as released, also if too few then help to unmask it."""
    clients = client_data()
    kind = DEPLOYMENT.noise(6)
    found = calibrate(
        epsilon=8,
        delta=1e-5,
        rounds=2,
        clients=6,
        length=15,
        clip_l2=1.0,
        ring_bits=32,
        dropouts=kind.dropouts,
        components=kind.components,
        rotate=False,
    )
    sensitivity = found.encoding.sensitivity()
    mechanism = found.noise.mechanism(6, 4, 15, sensitivity.l2_squared, sensitivity.l1)
    release = Release(mechanism, Everyone(), user_level(Relation.ZERO_OUT))
    ledger = ledger_for(tmp_path / "ledger.db", release, epsilon=8, slack=Fraction(1, 10**5) * SLACK)
    aggregator = secure(clients, network=Network(dropout=0.4), ledger=ledger, seed=seed)
    done = federation(clients, aggregator, encoding=found.encoding, noise=lambda count: found.noise)
    before = done.state.vector.tobytes()
    one = done.advance()
    assert done.state.vector.tobytes() == done._model.vector.tobytes() == before
    assert one.purpose.startswith("training, given up: ")
    assert (one.planned, one.survivors, one.measured) == (6, 0, {})
    assert (ledger.epsilon == 0) == given_back
    phases = [entry["phase"] for entry in ledger.entries()]
    assert phases == ["genesis", "reserve", "abort" if given_back else "commit"]
    ledger.close()


# Local privacy


class Greedy(Autoencoder):
    """Takes a step more than it was told to."""

    def train_privately(self, histories: Sequence[History], settings: Settings, steps: int, *rest: Any, **more: Any):  # type: ignore[no-untyped-def, override]
        return super().train_privately(histories, settings, steps + 1, *rest, **more)


class Thrifty(Autoencoder):
    """Adds less noise than it was told to."""

    def train_privately(self, histories: Sequence[History], settings: Settings, *rest: Any, **more: Any):  # type: ignore[no-untyped-def, override]
        return super().train_privately(histories, replace(settings, noise_multiplier=Fraction(1)), *rest, **more)


def test_local_steps_are_charged_once_for_a_round_however_often_it_is_begun(tmp_path: Path) -> None:
    clients = client_data((4, 4))
    ledger = ledger_for(tmp_path / "ledger.db", step_of(clients))
    first = run(private(clients, ledger), 2)
    entries, spent = list(ledger.entries()), ledger.epsilon
    assert [entry["phase"] for entry in entries] == ["genesis", "reserve", "commit", "reserve", "commit"]
    assert [entry["release"].partition(" of ")[0] for entry in entries[1::2]] == ["round 0", "round 1"]
    assert all(entry["steps"]["count"] == STEPS for entry in entries[1:])
    np.testing.assert_allclose(run(private(clients, ledger), 2), first, rtol=1e-3, atol=1e-4)
    assert list(ledger.entries()) == entries
    run(private(clients, ledger), 3)
    assert ledger.epsilon > spent
    ledger.close()


class Listening(Autoencoder):
    """Trains nothing, and keeps the first of the secret words from which sampling and noise would come."""

    def train_privately(self, histories: Sequence[History], settings: Settings, *rest: Any, **more: Any):  # type: ignore[no-untyped-def, override]
        self.words.append(more["rng"](32))
        return settings


def words(folder: Path) -> list[bytes]:
    """Of two clients in two rounds, under two secrets."""
    clients, model = client_data((4, 4)), Listening(2, recent=4)
    model.words = []  # type: ignore[attr-defined]
    for secret in (SECRET, OTHER):
        ledger = ledger_for(folder / f"{len(list(folder.iterdir()))}.db", step_of(clients))
        run(private(clients, ledger, model, secret=secret), 2)
        ledger.close()
    return model.words  # type: ignore[attr-defined, no-any-return]


def test_each_client_draws_anew_in_each_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same noise on two sums, and their difference has none."""
    assert len(set(words(tmp_path))) == 8
    for left_out in ('number.to_bytes(8, "big")', "who.encode()", "self._secret"):
        with monkeypatch.context() as patched:
            switch_off(patched, Federation, "_train", left_out, "b''")
            assert len(set(words(tmp_path))) == 4


def test_a_round_is_charged_before_anybody_trains(tmp_path: Path) -> None:
    clients = client_data((4, 4))
    ledger, seen = ledger_for(tmp_path / "ledger.db", step_of(clients)), list[int]()

    class Watching(Autoencoder):
        def train_privately(self, *arguments: Any, **more: Any):  # type: ignore[no-untyped-def, override]
            seen.append(len(list(ledger.entries())))
            return super().train_privately(*arguments, **more)

    private(clients, ledger, Watching(2, recent=4)).advance()
    assert seen == [2, 2]  # with the reservation
    assert len(list(ledger.entries())) == 3
    ledger.close()


def test_unequal_silos_are_charged_at_the_highest_rate(tmp_path: Path) -> None:
    """Of 2, 5 and 9 users, batches of 1, 2 and 4 are drawn."""
    clients = client_data((2, 5, 9))
    ledger = ledger_for(tmp_path / "ledger.db", step_of(clients))
    private(clients, ledger).advance()
    commit = list(ledger.entries())[2]
    assert commit["steps"]["event"]["sampling"] == {"kind": "PoissonSample", "rate": "1/2"}
    ledger.close()
    guarantee = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.LOCAL)
    assert PRIVATE.event([5, 9]) == Release(Gaussian(Fraction(2)), PoissonSample(Fraction(4, 9)), guarantee)
    assert PRIVATE.event([5, 9, 1]).sampling == PoissonSample(Fraction(1))


@pytest.mark.parametrize("kind", [Greedy, Thrifty])
def test_a_client_that_trains_otherwise_than_charged_is_refused(kind: type[Autoencoder], tmp_path: Path) -> None:
    clients = client_data((4, 4))
    ledger = ledger_for(tmp_path / "ledger.db", step_of(clients))
    done = private(clients, ledger, kind(2, recent=4))
    before = done.state.vector.tobytes()
    with pytest.raises(BudgetError, match="trains otherwise"):
        done.advance()
    assert done.state.vector.tobytes() == before
    assert done.state.rounds == ()
    ledger.close()


@pytest.mark.parametrize("kind", [Greedy, Thrifty])
def test_control_it_would_train(kind: type[Autoencoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, Federation, "_train", "asked != event or count > private.steps", "False")
    clients = client_data((4, 4))
    ledger = ledger_for(tmp_path / "ledger.db", step_of(clients))
    assert private(clients, ledger, kind(2, recent=4)).advance().survivors == 2
    ledger.close()


def test_beyond_the_budget_there_is_no_round_and_nobody_trains(tmp_path: Path) -> None:
    clients = client_data((4, 4))
    ledger = ledger_for(tmp_path / "ledger.db", step_of(clients), epsilon=4)
    done = private(clients, ledger)
    with pytest.raises(BudgetError, match="epsilon could reach"):
        run(done, 100)
    rounds, before = len(done.state.rounds), done.state.vector.tobytes()
    assert 1 <= rounds < 100
    assert ledger.epsilon <= 4
    with pytest.raises(BudgetError):
        done.advance()
    assert (len(done.state.rounds), done.state.vector.tobytes()) == (rounds, before)
    assert len(list(ledger.entries())) == 1 + 2 * rounds
    ledger.close()


def schedule_for(path: Path, clients: ClientData) -> Ledger:
    """A ledger for one schedule of such steps."""
    event = step_of(clients)
    budget = Budget(Fraction(8), Fraction(1, 10**5), slack=Fraction(0), kind=Kind.SCHEDULE)
    return Ledger.create(path, SigningKey(bytes(32)), budget, event.guarantee, run="a test", elsewhere="nothing")


def test_all_rounds_are_one_schedule_at_the_highest_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reserved before anybody trains, committed as far as it got, and over after the last round, also for whoever goes
    on from a checkpoint."""
    clients = client_data((2, 5, 9))
    ledger = schedule_for(tmp_path / "ledger.db", clients)
    local = replace(PRIVATE, rounds=2)
    monkeypatch.setattr("tests.scenes.private_training.PRIVATE", local)
    done = private(clients, ledger)
    done.advance()
    spent = ledger.epsilon
    _genesis, reserved, committed = ledger.entries()
    assert (reserved["steps"]["count"], committed["steps"]["count"]) == (2 * STEPS, STEPS)
    assert reserved["steps"]["event"]["sampling"] == {"kind": "PoissonSample", "rate": "1/2"}
    kept = TrainingState.decode(b"".join(done.state.encode(SECRET)), SECRET)
    done.advance()
    assert ledger.epsilon == spent
    other = private(clients, ledger)
    other.resume(kept)
    with other._charged(1, clients.names) as before:
        assert before  # that round was committed
    other.resume(TrainingState.decode(b"".join(done.state.encode(SECRET)), SECRET))
    with pytest.raises(BudgetError, match="ends with round 2"):
        other.advance()
    monkeypatch.setattr("tests.scenes.private_training.PRIVATE", replace(local, rounds=3))
    with pytest.raises(BudgetError, match="reserved with other facts"):
        private(clients, ledger).advance()
    ledger.close()


def test_local_privacy_and_its_ledger_go_together(tmp_path: Path) -> None:
    clients = client_data((4, 4))
    ledger = ledger_for(tmp_path / "ledger.db", step_of(clients))
    for more in ({"local_privacy": PRIVATE}, {"ledger": ledger}):
        with pytest.raises(UsageError, match="charged to a ledger"):
            federation(clients, model=small(), **more)
    ledger.close()


# Cohorts


def test_of_a_fixed_cohort_all_take_part_and_nobody_else() -> None:
    clients = client_data()
    done = federation(clients, secure(clients), participation=Participation(Draw.FIXED, 4))
    cohorts = [Participation(Draw.FIXED, 4).cohort(clients.names, beacon(SEED), number) for number in range(3)]
    assert len(set(cohorts)) > 1
    for cohort in cohorts:
        model = Bias()
        model.begin(12, 0)
        model.vector = done.state.vector
        one = done.advance()
        assert (one.planned, one.survivors) == (4, 4)
        assert one.measured == pytest.approx(measured_on(clients, cohort, model), abs=1e-4)


def test_a_cohort_of_one_hides_nobody_and_costs_nothing(tmp_path: Path) -> None:
    clients = client_data((4, 4, 4, 4))
    ledger = ledger_for(tmp_path / "ledger.db", step_of(clients))
    participation = Participation(Draw.POISSON, 2)
    done = private(clients, ledger, participation=participation)
    run(done, 8)
    sizes = [len(participation.cohort(clients.names, beacon(SEED), number)) for number in range(8)]
    assert min(sizes) < 2 < max(sizes)
    assert [one.planned for one in done.state.rounds] == sizes
    assert [one.survivors for one in done.state.rounds] == [size if size > 1 else 0 for size in sizes]
    charged = {entry["release"].partition(" of ")[0] for entry in ledger.entries() if "release" in entry}
    assert charged == {f"round {number}" for number, size in enumerate(sizes) if size > 1}
    ledger.close()


@pytest.mark.parametrize("noisy", [True, False])
def test_with_noise_a_sum_is_divided_by_a_constant(noisy: bool) -> None:
    """By the mean size of a cohort; without noise by how many came."""
    clients, participation = client_data(), Participation(Draw.POISSON, 3)
    cohort = participation.cohort(clients.names, beacon(SEED), 0)
    assert len(cohort) not in (0, 1, 3)
    encoding = Encoding(12, 1.0, 24)
    faint = NoiseSpec(DEPLOYMENT.noise(6).family, Fraction(1))
    noise = (lambda count: faint) if noisy else None
    more: dict[str, Any] = {"encoding": encoding, "measured": 0.0, "participation": participation}
    done = federation(clients, IdealAggregator(OTHER), noise=noise, **more)
    start = done.state.vector
    total = np.zeros(12)
    for name in cohort:
        model = Bias()
        model.begin(12, 3)
        model.train(clients.histories(name), Local(rate=0.5), 0)
        change = model.vector.astype(np.float64) - start
        total += change * min(1.0, 1 / np.linalg.norm(change))
    moved = run(done, 1) - start
    assert np.abs(moved - total / (3 if noisy else len(cohort))).max() < 100 * error(1)
    assert np.abs(moved - total / (len(cohort) if noisy else 3)).max() > 1000 * error(1)


# Training at the clients


def test_fedprox_pulls_to_the_start_as_its_formula_says() -> None:
    """One client's users twice, so the mean is one client's change: w += rate (taken - w - mu (w - start))."""
    clients = client_data((5, 5))
    twice = ClientData(clients.names, (clients.members[0], clients.members[0]), clients.train, clients.held_out)
    moved = {}
    for mu in (0.0, 0.5, 2.0):
        done = federation(twice, local=Local(epochs=4, rate=0.2, proximal=mu), measured=0.0)
        start = done.state.vector.astype(np.float64)
        taken = np.bincount(np.concatenate(clients.histories("silo-0")), minlength=12) / 5
        expected = start.copy()
        for _ in range(4):
            expected += 0.2 * (taken - expected - mu * (expected - start))
        expected = start + (expected - start) * min(1.0, 1 / np.linalg.norm(expected - start))
        vector = run(done, 1)
        assert np.abs(vector - expected).max() < error(1) + 1e-6
        moved[mu] = float(np.linalg.norm(vector - start))
    assert moved[0.0] > moved[0.5] > moved[2.0]


@pytest.mark.parametrize("rule", Rule)
def test_the_server_moves_by_its_rule(rule: Rule) -> None:
    """All models begin alike, so the first round's mean is that of FedAvg."""
    clients = client_data()
    plain = federation(clients)
    start = plain.state.vector
    mean = run(plain, 1).astype(np.float64) - start
    moved = run(federation(clients, optimiser=Optimiser(rule, 0.5)), 1) - start
    assert moved == pytest.approx(Optimiser(rule, 0.5)(mean), abs=0.01 if rule is Rule.FEDYOGI else 1e-3)


# Checkpoints


TOLERANCE = {Rule.FEDAVG: error(4), Rule.FEDADAM: 1e-3}
"""Adam divides by what it has seen: a last bit of a small change is much of a step."""


@pytest.mark.parametrize("rule", TOLERANCE)
def test_from_a_checkpoint_the_run_goes_on_as_if_nothing_had_happened(rule: Rule) -> None:
    clients = client_data()
    through = federation(clients, secure(clients), optimiser=Optimiser(rule, 0.1))
    run(through, 4)
    before = federation(clients, secure(clients), optimiser=Optimiser(rule, 0.1))
    run(before, 2)
    after = federation(clients, secure(clients), optimiser=Optimiser(rule, 0.1))
    after.resume(TrainingState.decode(b"".join(before.state.encode(SECRET)), SECRET))
    np.testing.assert_allclose(run(after, 2), through.state.vector, atol=TOLERANCE[rule])
    alike(after.state.rounds, through.state.rounds)
    forgetful = federation(clients, secure(clients), optimiser=Optimiser(rule, 0.1))
    forgetful.resume(replace(before.state, optimiser={}))
    same = np.allclose(run(forgetful, 2), through.state.vector, atol=TOLERANCE[rule])
    assert same == (rule is Rule.FEDAVG)  # control: the other one has a state


def test_the_checkpoint_of_another_model_is_refused() -> None:
    state = federation(client_data(items=13)).state
    with pytest.raises(UsageError, match="another model"):
        federation(client_data()).resume(state)


NUMBERS = st.floats(-1e6, 1e6)
ROUNDS = st.builds(
    Round,
    number=st.integers(0, 1000),
    purpose=st.text(max_size=10),
    planned=st.integers(100, 200),
    survivors=st.integers(0, 100),
    silent=st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=2),
    bytes_up=st.integers(0, 2**60),
    bytes_down=st.integers(0, 2**60),
    seconds=st.dictionaries(st.text(max_size=5), NUMBERS, max_size=2),
    measured=st.dictionaries(st.sampled_from(METRICS), NUMBERS),
    exact=st.dictionaries(st.sampled_from(METRICS), NUMBERS),
    epsilon=st.none() | NUMBERS,
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
STATES = st.builds(
    TrainingState,
    arrays(np.float32, st.integers(1, 5), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
    st.dictionaries(st.sampled_from(["first", "second"]), arrays(np.float64, 3, elements=FLOATS)),
    st.lists(ROUNDS, max_size=3).map(tuple),
    calls=st.dictionaries(st.sampled_from(["now", "version"]), st.integers(0, 9)),
    called=st.dictionaries(st.sampled_from(["ready", "version 1"]), arrays(np.float64, 2, elements=FLOATS)),
)


def same(one: TrainingState, other: TrainingState) -> bool:
    return (
        (one.vector.tobytes(), one.vector.dtype, one.vector.shape)
        == (other.vector.tobytes(), other.vector.dtype, other.vector.shape)
        and {name: array.tobytes() for name, array in one.optimiser.items()}
        == {name: array.tobytes() for name, array in other.optimiser.items()}
        and (one.rounds, one.calls) == (other.rounds, other.calls)
        and {name: array.tobytes() for name, array in one.called.items()}
        == {name: array.tobytes() for name, array in other.called.items()}
    )


@settings(max_examples=25)
@given(state=STATES)
def test_a_checkpoint_gives_back_what_was_put_in(state: TrainingState) -> None:
    assert same(TrainingState.decode(b"".join(state.encode(SECRET)), SECRET), state)


def test_a_checkpoint_that_was_altered_or_is_another_runs_is_refused() -> None:
    """Cut short anywhere, or with one bit of any byte flipped. (``tests/secagg/test_tensors.py`` has the controls.)"""
    state = federation(client_data()).state
    data = b"".join(state.encode(SECRET))
    assert same(TrainingState.decode(data, SECRET), state)
    for place in range(0, len(data), 7):
        flipped = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]
        for other in (data[:place], flipped):
            with pytest.raises(DecodeError, match="no checkpoint of this run, or it was altered"):
                TrainingState.decode(other, SECRET)
    with pytest.raises(DecodeError, match="no checkpoint of this run, or it was altered"):
        TrainingState.decode(data, OTHER)


@pytest.mark.parametrize("purpose", [b"checkpoint of sums", b"checkpoint of rounds"])
def test_a_file_of_the_same_secret_for_another_purpose_is_no_checkpoint(purpose: bytes) -> None:
    """Such as the sums of a model that is made of them. The control: under its own purpose it is one."""
    key = derive(SECRET, labels.STORED, b"checkpoint of rounds")
    header, arrays = tensors.decode(b"".join(federation(client_data()).state.encode(SECRET)), key)
    data = b"".join(tensors.encode(header, arrays, derive(SECRET, labels.STORED, purpose)))
    if purpose == b"checkpoint of rounds":
        TrainingState.decode(data, SECRET)
    else:
        with pytest.raises(DecodeError, match="no checkpoint"):
            TrainingState.decode(data, SECRET)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"rounds": [], "weight": "1", "calls": {}},
        {"rounds": [1], "weight": 1.0, "calls": {}},
        {"rounds": [], "calls": {}},
        {"rounds": [], "weight": 1.0},
        {"rounds": [], "weight": 1.0, "calls": []},
    ],
)
def test_a_checkpoint_that_says_something_else(header: dict[str, object]) -> None:
    key = derive(SECRET, labels.STORED, b"checkpoint of rounds")
    _, arrays = tensors.decode(b"".join(federation(client_data()).state.encode(SECRET)), key)
    with pytest.raises(DecodeError, match="no checkpoint"):
        TrainingState.decode(b"".join(tensors.encode(header, arrays, key)), SECRET)
    with pytest.raises(DecodeError, match="no checkpoint"):
        TrainingState.decode(b"".join(tensors.encode({"rounds": [], "weight": 1.0, "calls": {}}, {}, key)), SECRET)


# Fleets


def test_a_client_without_users_is_refused() -> None:
    clients = client_data()
    with pytest.raises(UsageError, match="at least one user"):
        ClientData(("a",), (np.empty(0, np.int64),), clients.train, clients.held_out)
    with pytest.raises(UsageError, match="at least one user"):
        ClientData(("a",), clients.members[:2], clients.train, clients.held_out)


@pytest.mark.parametrize("wrong", [{"measured": 1.0}, {"measured": -0.1}, {"measured_every": 0}])
def test_measuring_has_a_share_of_the_norm_and_its_rounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        UpdateRecipe(Local(), 1.0, **wrong)


def test_local_privacy_goes_with_its_ledger_and_with_nothing_that_it_does_not_cover(tmp_path: Path) -> None:
    clients = client_data((4, 4))
    in_silos: dict[str, Any] = {"silos": UsersInSilos(8, 4), "encoding": Encoding(36, 1.0, BITS, users=4)}
    with closing(ledger_for(tmp_path / "ledger.db", step_of(clients))) as ledger:
        private(clients, ledger)
        for wrong in (
            {"ledger": ledger},
            {"local_privacy": PRIVATE},
            {"local_privacy": PRIVATE, "ledger": ledger, "noiseless": True},
        ):
            with pytest.raises(UsageError, match="is charged to a ledger, and only that"):
                federation(clients, model=small(), measured=0.0, **wrong)
        with pytest.raises(UsageError, match="would leave it without noise of its own"):
            private(clients, ledger, measured=0.1)
        with pytest.raises(UsageError, match="train alone, without noise of their own"):
            private(clients, ledger, **in_silos)


def test_units_are_counted_as_what_they_are() -> None:
    clients = client_data((2, 3))
    assert clients.examples(clients.names, Unit.USER) == [2, 3]
    events = [int(sum(len(history) for history in clients.histories(name))) for name in clients.names]
    assert clients.examples(clients.names, Unit.EXAMPLE) == events
    assert sum(events) == len(clients.train)
