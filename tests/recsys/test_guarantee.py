"""What a run says of its guarantee, against what really left its clients.

Every vector that a client hands to the aggregator is kept, with what training made of the model, in two worlds that
differ in held-out events only. From these alone follows what may be said: a coordinate that moves with held-out events
is not covered by the noise of local training, and one without noise in the sum is covered by nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.ledger.entries import parse
from dp.ledger.file import read
from recsys import assembly as preparing
from recsys import run as running
from recsys.aggregator import LazyVectors, Request, Result, Update
from recsys.config import Config
from recsys.federated import Federation
from recsys.models.autoencoder import Autoencoder
from recsys.other_runs import RunList
from recsys.report import Account, write_report
from recsys.run_record import Run
from recsys.secure_aggregator import SecureAggregator
from recsys.sentences import EXACT, NOISED, UNMEASURED
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.scenes.private_training import private, step_of
from tests.scenes.recommender import client_data, config, ledger_for, same_secrets

ONE_ROUND = ("training.rounds=1", "privacy.steps=1")
MODES = ("none", "local", "distributed", "both")
MOVED = 1e-3
"""One user of ten moves a silo's hit rate by a tenth, which is .01 in its vector. Training twice differs by less."""


@dataclass(frozen=True)
class Sent:
    request: Request
    name: str
    vector: NDArray[np.float64]
    trained: NDArray[np.float64]
    """what training alone changed"""


@dataclass
class World:
    run: Run
    sent: list[Sent]
    charged: list[dict[str, Any]] = field(default_factory=list)
    """entries of the ledgers that are committed"""


def world(config: Config, folder: Path, *, other: bool, like: Path | None = None) -> World:
    """A run; in the ``other`` world users have other held-out events. ``like`` it: the same secret."""
    prepared = preparing.prepare(config)
    if other:
        prepared = replace(prepared, client_data=replace(prepared.client_data, held_out=prepared.split.test))
    if like is not None:
        same_secrets(like, folder)
    sent, trained = list[Sent](), list[NDArray[np.float64]]()

    class Kept(SecureAggregator):
        def aggregate(self, request: Request, update: Update) -> Result:
            def kept(name: str) -> NDArray[np.float64] | LazyVectors:
                made = update(name)
                if not isinstance(made, LazyVectors):
                    sent.append(Sent(request, name, made.copy(), trained[-1]))
                    return made
                vectors = list[NDArray[np.float64]]()
                for vector in made:
                    vectors.append(vector)
                    sent.append(Sent(request, name, vector.copy(), trained[-1]))
                return LazyVectors(len(vectors), lambda: vectors)

            return super().aggregate(request, kept)

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def train(self: Autoencoder, *arguments: Any, **more: Any) -> Any:
            before = self.vector.astype(np.float64)
            made = method(self, *arguments, **more)
            trained.append(self.vector - before)
            return made

        return train

    real = Autoencoder.changes

    def changes(self: Autoencoder, *arguments: Any) -> Iterator[NDArray[np.float64]]:
        for change in real(self, *arguments):
            trained.append(change)
            yield change

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(running, "SecureAggregator", Kept)
        patched.setattr(Autoencoder, "changes", changes)
        patched.setattr(Autoencoder, "train", watched(Autoencoder.train))
        patched.setattr(Autoencoder, "train_privately", watched(Autoencoder.train_privately))
        run_list = RunList(folder.with_name(f"{folder.name}.state"))
        run = running.train(prepared, folder, machine={}, run_list=run_list, keep_secrets=True)
    entries = [parse(body) for one in run.spendings for body, _ in read(folder / one.ledger)]
    return World(run, sent, [entry for entry in entries if entry["phase"] == "commit"])


def check(one: World, two: World) -> None:
    """What is said, from what was sent."""
    assert len(one.sent) == len(two.sent) > 0
    moved = np.zeros(len(one.sent[0].vector), bool)
    for sent, again in zip(one.sent, two.sent, strict=True):
        assert sent.name == again.name
        assert len(sent.vector) == sent.request.encoding.length
        moved |= np.abs(sent.vector - again.vector) > MOVED
    noised = all(sent.request.noise is not None for sent in one.sent)
    expected = (NOISED if noised else EXACT) if moved.any() else UNMEASURED
    assert one.run.measured_under == expected, "what is said of measured values is not what was sent"
    assert any(entry.measured for entry in one.run.rounds) <= bool(moved.any())
    for spending in one.run.spendings:
        promised = f"({spending.epsilon:g}, {spending.delta:.3g})-private for each user"
        assert promised in spending.words
        if spending.trust == "local":
            assert spending.words.startswith("what each client sends in all rounds together")
            assert not moved.any(), "a client sends more than what was noised in its training"
            for sent in one.sent:
                assert_clipped(sent.vector, sent.trained)
        else:
            assert spending.words.startswith("the sums of all rounds together")
            assert noised, "a sum has no noise"
            charged = [entry["sum"] for entry in one.charged if "sum" in entry]
            assert len(charged) == len({sent.request.number for sent in one.sent})
            for happened in charged:
                assert happened["dimension"] == one.sent[0].request.encoding.coordinates >= len(moved)
            assert all(set(sent.request.weights.values()) == {1} for sent in one.sent)


def assert_clipped(vector: NDArray[np.float64], change: NDArray[np.float64]) -> None:
    """The one is the other, as long or shorter: nothing else went into it."""
    assert vector.shape == change.shape
    factor = float(vector @ change) / float(change @ change)
    assert 0 < factor <= 1 + 1e-9
    np.testing.assert_allclose(vector, factor * change, rtol=1e-6, atol=1e-9)


def worlds(mode: str, folder: Path, *changes: str) -> tuple[World, World]:
    asked = config("protocol.dropout=0.34", f"privacy.mode={mode}", *ONE_ROUND, *changes)
    return world(asked, folder / "one", other=False), world(asked, folder / "two", other=True, like=folder / "one")


@pytest.mark.thinned(4)
@pytest.mark.parametrize("mode", MODES)
def test_what_is_said_of_the_guarantee_follows_from_what_was_sent(mode: str, tmp_path: Path) -> None:
    one, two = worlds(mode, tmp_path)
    check(one, two)
    measured = {"none": EXACT, "distributed": NOISED}.get(mode, UNMEASURED)
    assert one.run.measured_under == measured
    noised = measured == NOISED  # then it may be that fewer than nobody had something to measure, and no mean is known
    assert noised or bool(one.run.rounds[0].measured) == (measured != UNMEASURED)
    report = write_report(tmp_path / "one").read_text()
    assert f"Measured by clients and sent, under the mask: {measured}." in report
    unprotected = "is protected by no more than this"
    assert (unprotected in report) == (measured == EXACT)
    assert noised or bool(Account.load(tmp_path / "one").measured) == (measured != UNMEASURED)


def test_who_does_not_measure_says_so(tmp_path: Path) -> None:
    one, two = worlds("distributed", tmp_path, "training.measured=0.0")
    check(one, two)
    assert one.run.measured_under == UNMEASURED


@pytest.mark.thinned(2)
@pytest.mark.parametrize("mode", ["local", "both"])
def test_control_measured_values_beside_what_was_trained_are_seen(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was: exact values of users left in every round, under a promise about all that a client sends."""
    switch_off(monkeypatch, Federation, "__init__", "local_privacy is not None and recipe.measured")
    switch_off(
        monkeypatch,
        preparing,
        "prepare",
        "0.0 if config.locally or config.streamed else training.measured",
        "training.measured",
    )
    one, two = worlds(mode, tmp_path)
    with pytest.raises(AssertionError, match="a client sends more than what was noised in its training"):
        check(one, two)
    with pytest.raises(AssertionError, match="what is said of measured values is not what was sent"):
        check(replace(one, run=replace(one.run, measured_under=UNMEASURED)), two)


def test_a_federation_under_local_privacy_refuses_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = client_data((4, 4))
    ledger = ledger_for(tmp_path / "ledger.db", step_of(clients))
    with pytest.raises(UsageError, match="without noise of its own"):
        private(clients, ledger, measured=0.05)
    switch_off(monkeypatch, Federation, "__init__", "local_privacy is not None and recipe.measured")
    assert private(clients, ledger, measured=0.05).advance().measured
    ledger.close()
