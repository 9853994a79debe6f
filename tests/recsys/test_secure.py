"""Sums over clients: right, lazy, and the same again after a crash or not at all."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.ideal import IdealAdder
from dp.calibrate import SLACK, calibrate, user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from protocols import registry
from recsys import secure
from recsys.network import Network
from recsys.secure import Adder, Begun, Deployment, Question, SecureAdder, Update
from secagg.encoding import Encoding
from secagg.errors import BudgetError, StorageError, ThresholdError, UsageError
from secagg.keys import SigningKey
from tests.adversarial.attack import switch_off

NAMES = tuple(f"client-{i}" for i in range(8))
SECRET = bytes(range(32))
EXACT = Question(0, "test", NAMES, Encoding.integers(5))


def update(name: str) -> NDArray[np.float64]:
    return np.full(5, float(name[-1]))


@pytest.mark.parametrize("protocol", registry.names())
def test_the_sum_is_that_of_the_ideal_functionality(protocol: str) -> None:
    adders: tuple[Adder, ...] = (SecureAdder(Deployment(protocol), SECRET), IdealAdder(SECRET))
    weighted = replace(EXACT, encoding=Encoding.integers(5, weight_bound=4), weights=dict.fromkeys(NAMES[:2], 3))
    for question in (EXACT, weighted):
        real, ideal = (adder.add_up(question, update) for adder in adders)
        assert real.vector.tolist() == ideal.vector.tolist()
        assert (real.weight, real.survivors) == (ideal.weight, ideal.survivors)
        assert real.bytes_up > 0
        assert set(real.seconds) > {"updates"}


def test_silent_clients_are_missing_from_the_sum_and_counted() -> None:
    adder = SecureAdder(Deployment(dropout="0.4"), SECRET, network=Network(dropout=0.2))
    answer = adder.add_up(replace(EXACT, number=1), update)
    assert 0 < sum(answer.silent.values()) <= 3
    assert answer.vector[0] == sum(int(name[-1]) for name in answer.survivors)


def test_with_too_many_silent_clients_there_is_no_sum() -> None:
    adder = SecureAdder(Deployment(), SECRET, network=Network(dropout=0.9))
    with pytest.raises(ThresholdError):
        adder.add_up(EXACT, update)


def test_a_cohort_adds_up_alone() -> None:
    asked = list[str]()

    def watched(name: str) -> NDArray[np.float64]:
        asked.append(name)
        return update(name)

    answer = SecureAdder(Deployment(), SECRET).add_up(replace(EXACT, cohort=NAMES[2:5]), watched)
    assert asked == list(answer.survivors) == list(NAMES[2:5])
    assert answer.vector[0] == 2 + 3 + 4


def test_one_client_is_no_sum() -> None:
    with pytest.raises(UsageError, match="2"):
        SecureAdder(Deployment(), SECRET).add_up(replace(EXACT, cohort=NAMES[:1]), update)


# After a crash


def again(folder: Path, what: Update = update, protocol: str = "secagg+", **more: object) -> NDArray[np.float64]:
    adder = SecureAdder(Deployment(protocol, dropout="0.3"), SECRET, folder=folder, **more)  # type: ignore[arg-type]
    return adder.add_up(EXACT, what).vector


def test_a_sum_that_was_begun_is_the_same_again(tmp_path: Path) -> None:
    assert again(tmp_path).tolist() == again(tmp_path).tolist()


def test_a_sum_that_was_begun_with_other_updates_is_not_made(tmp_path: Path) -> None:
    again(tmp_path)
    with pytest.raises(StorageError, match="begun with other updates"):
        again(tmp_path, lambda name: update(name) + 1)


def test_control_without_the_digest_it_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again(tmp_path)
    switch_off(monkeypatch, Begun, "write", 'last.get("sum") == sum_ and last.get("digest") != digest', "False")
    assert again(tmp_path, lambda name: update(name) + 1)[0] == sum(range(8)) + len(NAMES)


def test_what_was_begun_is_written_before_a_vector_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[bool]()
    real = secure.simulate

    def watched(server: object, clients: object, updates: object, **more: object) -> object:
        def look(envelope: object) -> bytes:
            if envelope.phase == "upload" and envelope.receiver == "server":  # type: ignore[attr-defined]
                seen.append((tmp_path / "begun.json").exists())
            return envelope.frame  # type: ignore[attr-defined, no-any-return]

        more["faults"] = replace(more["faults"], corrupted=look)  # type: ignore[type-var]
        return real(server, clients, updates, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(secure, "simulate", watched)
    again(tmp_path)
    assert seen == [True] * len(NAMES)


def test_a_large_cohort_draws_its_committee_by_lot() -> None:
    names = tuple(f"client-{i:03}" for i in range(130))
    question = Question(0, "test", names, Encoding.integers(5))
    answer = SecureAdder(Deployment("oneshot"), SECRET).add_up(question, update)
    assert answer.vector.tolist() == [13.0 * sum(range(10))] * 5
    assert answer.bytes_up < 130 * 12_000  # boxes for a few dozen members, not for 130


def test_a_protocol_that_cannot_repeat_itself_has_a_new_round_for_each_attempt(tmp_path: Path) -> None:
    begun = Begun(tmp_path)
    assert [begun.round_of(5, replays=True), begun.round_of(0, False), Begun(tmp_path).round_of(0, False)] == [5, 0, 1]
    assert again(tmp_path, protocol="ckks").tolist() == again(tmp_path, protocol="ckks").tolist()


def test_a_noised_sum_that_is_begun_again_is_the_same_release_and_charged_once(tmp_path: Path) -> None:
    deployment = Deployment(dropout="0.3")
    kind = deployment.noise(len(NAMES))
    found = calibrate(
        epsilon=8,
        delta=1e-5,
        rounds=2,
        clients=len(NAMES),
        length=5,
        clip_l2=1.0,
        ring_bits=32,
        dropouts=kind.dropouts,
        components=kind.components,
        rotate=False,
    )
    guarantee, delta = user_level(Relation.ZERO_OUT), Fraction(1, 10**5)
    budget, key = Budget(Fraction(8), delta, slack=delta * SLACK), SigningKey(bytes(32))
    ledger = Ledger.create(tmp_path / "ledger.db", key, budget, guarantee, run="test", elsewhere="nothing")
    question = replace(EXACT, encoding=found.encoding, noise=found.noise)
    totals, spent = [], []
    for number in (0, 0, 1):
        adder = SecureAdder(deployment, SECRET, folder=tmp_path, ledger=ledger)
        totals.append(adder.add_up(replace(question, number=number), update).vector.tolist())
        spent.append(ledger.epsilon)
    assert totals[0] == totals[1] != totals[2]
    assert spent[0] == spent[1] < spent[2]
    with pytest.raises(BudgetError):
        SecureAdder(deployment, SECRET, ledger=ledger).add_up(replace(question, number=2), update)
    ledger.close()
