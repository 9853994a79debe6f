"""SCAFFOLD: what it is for, that it is the paper's, and that a client's control variate moves once for each sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.calibrate import DEFAULT_BETA, with_multiplier
from recsys.aggregator import Aggregator, Request, Result, Update
from recsys.assembly import prepare
from recsys.callers import Called
from recsys.control_variates import ControlVariates
from recsys.data.interactions import History
from recsys.deployment import Deployment
from recsys.federated import ClientData, Federation
from recsys.ideal_aggregator import IdealAggregator
from recsys.models.recommender import Local
from recsys.network import Network
from recsys.optimisers import Optimiser
from recsys.participation import Draw, Participation
from recsys.run_record import Run
from recsys.secure_aggregator import SecureAggregator
from recsys.training_state import TrainingState
from recsys.users_in_silos import UsersInSilos
from secagg.encoding import Encoding
from secagg.errors import StorageError, UsageError
from tests.controls import switch_off
from tests.scenes.bias import Bias
from tests.scenes.private_training import PRIVATE, STEPS, private, step_of
from tests.scenes.recommender import BITS, SECRET, client_data, config, federation, ledger_for
from tests.scenes.whole_runs import Killed, go

CLIP = 20.0
SIZES = (2, 9, 4, 5)
LOCAL = Local(epochs=3, batch=4, rate=0.5)


class Quadratic(Bias):
    """A quadratic whose curvature is another one for each client, as its optimum is: with several local steps the mean
    of where clients go is not where the mean of their losses is least."""

    @staticmethod
    def shape(histories: Sequence[History], length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The gradient at w is the first times w, minus the second."""
        taken = np.bincount(np.concatenate(histories), minlength=length) / len(histories)
        return 0.05 + taken, np.roll(taken, len(histories))

    def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
        curvature, pull = self.shape(histories, len(self._vector))
        drift = 0 if local.drift is None else local.drift
        for _ in range(local.steps(len(histories))):
            gradient = curvature * self._vector - pull + drift
            self._vector = (self._vector - local.rate * gradient).astype(np.float32)


def uneven(aggregator: Aggregator | None = None, sizes: Sequence[int] = SIZES, **more: Any) -> Federation:
    more = {"model": Quadratic(), "clip": CLIP, "measured": 0.0, "local": LOCAL, "scaffold": True, **more}
    return federation(client_data(sizes), aggregator, **more)


def secure(**more: Any) -> SecureAggregator:
    return SecureAggregator(Deployment(dropout="0.34"), SECRET, **more)


def variates(done: Federation) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """The server's control variate, and that of each client."""
    controls = done._controls
    assert controls is not None
    return controls.common, {name: controls._own.get(name, np.zeros(12)) for name in done._data.names}


def check_mean(done: Federation) -> None:
    """The server's control variate is the mean of the clients'."""
    common, own = variates(done)
    np.testing.assert_allclose(np.mean(list(own.values()), axis=0), common, atol=1e-5)
    assert np.abs(common).max() > 1e-2


def rounds(done: Federation, count: int) -> NDArray[np.float64]:
    for _ in range(count):
        done.advance()
    return done.state.vector.astype(np.float64)


# What it is for


def from_optimum(weights: Sequence[int] = (1, 1, 1, 1), **more: Any) -> float:
    clients = client_data(SIZES)
    shapes = [Quadratic.shape(clients.histories(name), 12) for name in clients.names]
    curvature, pull = np.average(shapes, axis=0, weights=weights)
    return float(np.abs(rounds(uneven(**more), 100) - pull / curvature).max())


def test_silos_that_differ_meet_where_their_mean_loss_is_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with FedProx's pull, and though silos take from 3 to 9 steps. Control: without the correction they meet
    elsewhere, and FedProx alone does not lead them there."""
    assert from_optimum() < 1e-3
    assert from_optimum(local=replace(LOCAL, proximal=0.1), model=Quadratic()) < 1e-3
    assert from_optimum(scaffold=False) > 0.1
    assert from_optimum(scaffold=False, local=replace(LOCAL, proximal=0.1)) > 0.05
    switch_off(monkeypatch, Federation, "_moved", "controls.drift(name)", "None")
    assert from_optimum() > 0.1


def test_weights_are_those_of_the_loss_that_becomes_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over clients that come and go, though the server then knows no total of weights. Control: were what had been
    learnt before not divided anew, they would meet elsewhere."""
    weights = [min(size, 5) for size in SIZES]
    assert from_optimum(weights, weight_bound=5) < 1e-3
    assert from_optimum(weights) > 0.02
    some: dict[str, Any] = {"participation": Participation(Draw.FIXED, 3), "local": replace(LOCAL, rate=0.2)}
    assert from_optimum(weights, weight_bound=5, optimiser=Optimiser(rate=0.5), **some) < 2e-3
    switch_off(monkeypatch, ControlVariates, "learn", "self.common * self.weight", "self.common * weight")
    assert from_optimum(weights, weight_bound=5, optimiser=Optimiser(rate=0.5), **some) > 5e-3


# That it is the paper's


def by_the_paper(clients: ClientData, cohorts: Sequence[Sequence[str]]) -> tuple[Any, Any, Any]:
    """Algorithm 1 with option II, a global step size of 1, in float64 and without clipping."""
    model = Quadratic()
    model.begin(12, 3)
    x, c = model.vector.astype(np.float64), np.zeros(12)
    own = {name: np.zeros(12) for name in clients.names}
    for cohort in cohorts:
        changes, moves = [], []
        for name in cohort:
            curvature, pull = Quadratic.shape(clients.histories(name), 12)
            y, steps = x.copy(), LOCAL.epochs * -(-len(clients.users(name)) // LOCAL.batch)
            for _ in range(steps):
                y = y - LOCAL.rate * (curvature * y - pull - own[name] + c)
            after = own[name] - c + (x - y) / (steps * LOCAL.rate)
            changes.append(y - x)
            moves.append(after - own[name])
            own[name] = after
        x = x + np.mean(changes, axis=0)
        c = c + len(cohort) / len(clients.names) * np.mean(moves, axis=0)
    return x, c, own


@pytest.mark.parametrize("made", [IdealAggregator, "secure"])
def test_a_round_is_that_of_the_paper(made: Any) -> None:
    """Also where a part of the clients is in a round."""
    aggregator = secure() if made == "secure" else made(SECRET)
    clients, participation = client_data(SIZES), Participation(Draw.FIXED, 3)
    done = uneven(aggregator, participation=participation)
    asked = list[tuple[str, ...]]()
    real = aggregator.aggregate
    aggregator.aggregate = lambda request, update: asked.append(request.cohort) or real(request, update)
    vector = rounds(done, 4)
    assert len(set(asked)) > 1
    x, c, own = by_the_paper(clients, asked)
    np.testing.assert_allclose(vector, x, atol=1e-4)
    common, found = variates(done)
    np.testing.assert_allclose(common, c, atol=1e-4)
    for name in clients.names:
        np.testing.assert_allclose(found[name], own[name], atol=1e-4)
    check_mean(done)


def test_with_weights_the_protocol_leaves_what_the_sum_in_the_clear_does() -> None:
    """A client's control variate moves by its vector, and not by so many times that."""
    one, other = uneven(weight_bound=5), uneven(secure(), weight_bound=5)
    np.testing.assert_allclose(rounds(one, 2), rounds(other, 2), atol=1e-4)
    for name, own in variates(one)[1].items():
        np.testing.assert_allclose(variates(other)[1][name], own, atol=1e-4)
        assert own.any()


def test_a_client_takes_as_many_steps_as_it_says() -> None:
    """From its mean gradient follows where it went."""
    done, clients = uneven(), client_data(SIZES)
    start = done.state.vector.astype(np.float64)
    sent = done._client(0, Called(clients.names))("silo-1")  # 9 users: 3 batches, 3 times
    np.testing.assert_allclose(sent[12:] / (LOCAL.epochs * LOCAL.rate), -sent[:12] / (9 * LOCAL.rate), rtol=1e-4)
    assert np.abs(sent[:12]).max() > np.abs(sent[12:]).max() > 0
    assert start.shape == (12,)


# One vector, one clip


class Watched(IdealAggregator):
    def __init__(self, secret: bytes) -> None:
        super().__init__(secret)
        self.vectors = list[NDArray[np.float64]]()

    def aggregate(self, request: Request, update: Update) -> Result:
        self.vectors += [np.asarray(update(name)) for name in request.cohort]
        return super().aggregate(request, update)


def test_both_halves_are_shortened_as_one_vector_to_one_clip() -> None:
    """With measured values beside them. Control variates move as far as was sent, so c stays their mean."""
    free, clipped = Watched(SECRET), Watched(SECRET)
    rounds(uneven(free, measured=0.3), 1)
    done = uneven(clipped, measured=0.3, clip=0.1)
    rounds(done, 1)
    for one, other in zip(free.vectors, clipped.vectors, strict=True):
        assert len(one) == 12 + 12 + 3
        assert np.linalg.norm(other[:24]) == pytest.approx(0.1 * 0.7**0.5)
        assert np.linalg.norm(other) <= 0.1
        np.testing.assert_allclose(other[:24] / np.linalg.norm(other[:24]), one[:24] / np.linalg.norm(one[:24]))
    common, own = variates(done)
    np.testing.assert_allclose(np.mean(list(own.values()), axis=0), common, atol=1e-5)
    assert np.linalg.norm(own["silo-1"]) <= 0.1 / (LOCAL.epochs * LOCAL.rate)


def test_a_training_that_comes_to_nothing_leaves_the_control_variate() -> None:
    class Overflowing(Quadratic):
        def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
            super().train(histories, local, seed)
            if len(histories) == 9:
                self.vector = self.vector * np.float32(np.inf)

    done = uneven(model=Overflowing())
    with np.errstate(invalid="ignore"):
        rounds(done, 2)
    assert not variates(done)[1]["silo-1"].any()
    check_mean(done)


# Who is not in a sum


def test_who_drops_out_keeps_its_control_variate_and_who_is_in_the_sum_moves_on() -> None:
    """Over the protocol, with another set of survivors in each round."""
    done = uneven(secure(network=Network(dropout=0.12)), sizes=(2, 9, 4, 5, 7, 3))
    kept = set[int]()
    for _ in range(4):
        before = variates(done)[1]
        one = done.advance()
        moved = [name for name, after in variates(done)[1].items() if np.abs(after - before[name]).max() > 1e-6]
        assert len(moved) == one.survivors
        kept.add(6 - len(moved))
        check_mean(done)
    assert len(kept) > 1


def test_a_round_that_is_given_up_moves_nothing() -> None:
    done = uneven(secure(network=Network(dropout=0.9), seed=1))
    before = done.state
    started = before.vector.tobytes(), before.common.tobytes()
    assert done.advance().survivors == 0
    assert (done.state.vector.tobytes(), done.state.common.tobytes()) == started
    assert not any(own.any() for own in variates(done)[1].values())


# Killed


class Other(Quadratic):
    """Another machine, which computes otherwise: by much, so that it is seen."""

    def train(self, histories: Sequence[History], local: Local, seed: int) -> None:
        super().train(histories, local, seed)
        self._vector += np.float32(0.25)


def killed_in(done: Federation, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """End a round before anybody's vector is on disk, when all are, or when the sum is out."""

    def end(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if place == "before":
            patched.setattr(Quadratic, "train", end)
        elif place == "in the sum":
            patched.setattr("recsys.secure_aggregator.drive", end)
        else:
            patched.setattr(Federation, "_keep", end)
        with pytest.raises(Killed):
            done.advance()


@pytest.mark.parametrize("place", ["before", "in the sum", "after the sum"])
def test_a_round_that_is_attempted_twice_moves_each_control_variate_once(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what went into the sum, on whatever machine it goes on. One more crash in between changes nothing."""
    whole, done = uneven(), uneven(secure(folder=tmp_path))
    rounds(whole, 2)
    done.advance()
    kept = b"".join(done.state.encode(SECRET))
    killed_in(done, monkeypatch, place)
    for again in range(2):
        model = Quadratic() if place == "before" else Other()
        done = uneven(secure(folder=tmp_path), model=model)
        done.resume(TrainingState.decode(kept, SECRET))
        if again:
            done.advance()
        else:
            killed_in(done, monkeypatch, place)
    check_mean(done)
    np.testing.assert_allclose(done.state.vector, whole.state.vector, atol=1e-4)
    for name, own in variates(whole)[1].items():
        np.testing.assert_allclose(variates(done)[1][name], own, atol=1e-4)


def test_control_a_move_that_is_computed_anew_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the machine that goes on, which did not go into the sum: the server's is no longer their mean."""
    done = uneven(secure(folder=tmp_path))
    killed_in(done, monkeypatch, "in the sum")
    done = uneven(secure(folder=tmp_path), model=Other())
    monkeypatch.setattr(
        ControlVariates, "after", lambda self, name, sent: self._own.get(name, 0) + done._moved(name, 0)[12:24] / 1.5
    )
    done.advance()
    with pytest.raises(AssertionError):
        check_mean(done)


def test_a_sum_is_not_gone_on_with_under_another_control_variate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan names what updates are made from, and the server's control variate is part of that."""
    done = uneven(secure(folder=tmp_path))
    done.advance()
    kept = b"".join(done.state.encode(SECRET))
    killed_in(done, monkeypatch, "in the sum")
    state = TrainingState.decode(kept, SECRET)
    state.common = state.common + 1e-3
    done = uneven(secure(folder=tmp_path))
    done.resume(state)
    with pytest.raises(StorageError, match="begun as another one"):
        done.advance()


# Sealed


def test_a_checkpoint_holds_the_clients_control_variates_sealed() -> None:
    """Under the run's secret, for that round. Nobody's is in a file in the clear."""
    done = uneven()
    done.advance()
    kept = b"".join(done.state.encode(SECRET))
    first = TrainingState.decode(kept, SECRET)
    own = variates(done)[1]
    assert not any(one.astype(kind).tobytes() in kept for one in own.values() for kind in (np.float32, np.float64))
    assert b"silo-1" not in kept
    again = uneven()
    again.resume(TrainingState.decode(kept, SECRET))
    for name, one in variates(again)[1].items():
        np.testing.assert_allclose(one, own[name], atol=1e-6)
    done.advance()
    for other, state in ((uneven(secret=bytes(32)), first), (uneven(), replace(done.state, sealed=first.sealed))):
        with pytest.raises(StorageError, match="something else kept by clients"):
            other.resume(state)


@pytest.mark.parametrize(("one", "other"), [(True, False), (False, True)])
def test_a_checkpoint_without_control_variates_is_of_another_training(one: bool, other: bool) -> None:
    with pytest.raises(UsageError, match="another model"):
        uneven(scaffold=one).resume(uneven(scaffold=other).state)


def test_a_run_that_is_killed_and_goes_on_ends_as_the_other(tmp_path: Path) -> None:
    """And hands on no control variate: they are in the private directory, and deleted with it."""
    asked = config(
        "training.scaffold=true",
        "training.epochs=2",
        "evaluation.exact=false",
        "protocol.dropout=0.34",
        "protocol.adversary=curious",
    )

    def watch(run: Run) -> None:
        if len(run.rounds) == 1:
            raise Killed

    with pytest.raises(Killed):
        go(asked, tmp_path / "run", watch=watch)
    assert go(asked, tmp_path / "run").ended
    private = tmp_path / "run" / "private"
    secret = (private / "secret.key").read_bytes()
    state = TrainingState.decode((private / "checkpoint.safetensors").read_bytes(), secret)
    assert len(state.common) == len(state.vector)
    assert state.common.any()
    assert state.sealed
    public = [path for path in (tmp_path / "run").iterdir() if path.is_file()]
    assert public
    assert not any(b"sealed" in path.read_bytes() for path in public)
    go(asked, tmp_path / "run", keep_secrets=False)
    assert not (tmp_path / "run" / "private" / "checkpoint.safetensors").exists()


# Private


def test_local_steps_are_charged_as_without_it(tmp_path: Path) -> None:
    """What corrects a step is private already: it is made of models that noised steps have made."""
    clients, charged = client_data((4, 4)), list[Any]()
    for number, scaffold in enumerate((False, True)):
        ledger = ledger_for(tmp_path / f"{number}.db", step_of(clients))
        done = private(clients, ledger, scaffold=scaffold)
        rounds(done, 2)
        charged.append([entry.get("steps") for entry in ledger.entries()])
        ledger.close()
    assert charged[0] == charged[1]
    common, own = variates(done)
    np.testing.assert_allclose(np.mean(list(own.values()), axis=0), common, atol=1e-5)
    assert common.any()


def test_under_local_privacy_a_step_is_one_of_those_that_were_charged(tmp_path: Path) -> None:
    """A control variate is the mean of so many noised gradients."""
    clients = client_data((4, 4))
    ledger = ledger_for(tmp_path / "ledger.db", step_of(clients))
    done = private(clients, ledger, scaffold=True, clip=1e3)
    sent = done._client(0, Called(clients.names))("silo-0")
    ledger.close()
    half = len(sent) // 2
    np.testing.assert_allclose(sent[half:] / (STEPS * PRIVATE.rate), -sent[:half] / (STEPS * PRIVATE.rate), rtol=1e-5)


def test_the_servers_control_variate_gathers_the_noise_of_all_rounds() -> None:
    """The squares of 1,500 noise values, relative to three times the variance of one round, add up to 1,500 within 7
    standard deviations (sqrt(2 d)), as in test_federated.py; the secret is fixed."""
    length, count = 1500, 3
    found = with_multiplier(2.0, Deployment().noise(6), [Encoding(2 * length, 1.0, 20, beta=DEFAULT_BETA)], 6, 32)
    assert found is not None
    encoding, noise = found
    clients = client_data(items=length)
    more: dict[str, Any] = {"encoding": encoding, "noise": lambda count: noise, "local": LOCAL, "scaffold": True}
    done = federation(clients, measured=0.0, **more)
    rounds(done, count)
    controls = done._controls
    assert controls is not None
    own = np.array([controls._own[name] for name in clients.names], np.float64)
    gathered = (controls.common - own.mean(axis=0)) * 6 * LOCAL.epochs * LOCAL.rate * encoding.scale
    variance = float(noise.honest_variance(6, 6)) * 6 / (6 - noise.colluders)
    assert abs(np.square(gathered).sum() / (count * variance) - length) < 7 * (2 * length) ** 0.5


def test_what_a_device_sends_with_noise_in_the_sum_is_charged_as_one_vector(tmp_path: Path) -> None:
    """Twice as long, as private: the ledger is that of the same run without it."""
    asked = [
        config(
            "clients.kind=devices",
            "model.name=mf",
            "model.settings.recent=9",
            "privacy.mode=distributed",
            "evaluation.exact=false",
            "data.users=30",
            "protocol.adversary=curious",
            "training.rounds=1",
            f"training.scaffold={scaffold}",
        )
        for scaffold in ("false", "true")
    ]
    spent = [go(one, tmp_path / str(number)).rounds[-1].epsilon for number, one in enumerate(asked)]
    assert spent[0] == pytest.approx(spent[1], rel=1e-2)
    assert spent[1] is not None
    assert 7 < spent[1] <= 8


# Refused


def test_a_server_that_lies_can_single_out_one_client_so_without_noise_it_is_for_a_curious_one() -> None:
    """Cat is kept out of a first sum; then all take a step from the same model once more."""
    own, gradients = dict[str, NDArray[np.float32]](), {"ann": 1.0, "bob": -3.0, "cat": 7.0}
    controls = ControlVariates(own, length=1, unit=1.0)

    def total(names: Sequence[str]) -> NDArray[np.float64]:
        changes = {name: -(gradients[name] + controls.drift(name).astype(np.float64)) for name in names}
        sent = {name: controls.sent(name, change, 1, 1.0) for name, change in changes.items()}
        own.update({name: controls.after(name, vector) for name, vector in sent.items()})
        controls.learn(sum(sent.values())[1:], 3)
        return sum(sent.values(), np.zeros(2))

    total(["ann", "bob"])
    assert total(["ann", "bob", "cat"])[1] == pytest.approx(gradients["cat"])
    with pytest.raises(UsageError, match="then only that client's control variate moves"):
        config("training.scaffold=true", "protocol.adversary=active")


def test_users_in_silos_are_refused() -> None:
    silos: dict[str, Any] = {"silos": UsersInSilos(20, 9), "encoding": Encoding(24, CLIP, BITS, users=9)}
    with pytest.raises(UsageError, match="no silo drifts"):
        uneven(**silos)


def test_models_made_of_sums_are_refused() -> None:
    asked = config(
        "training.scaffold=true", "model.name=private-ease", "model.settings={}", "protocol.adversary=curious"
    )
    with pytest.raises(UsageError, match="nobody takes steps"):
        prepare(asked)
