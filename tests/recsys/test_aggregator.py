"""Sums over clients: right, lazy, and finished after a crash with what they were begun with."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.calibrate import SLACK, calibrate, user_level
from dp.events import Relation
from dp.filter import Kind
from dp.ledger import Budget, Ledger
from protocols import registry, server
from protocols.client import Client
from protocols.engines.local import Threads
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.rounds.server import ServerRound
from protocols.simulation import network as simulate
from protocols.simulation.network import Envelope, Faults
from recsys.aggregator import Aggregator, Request, Update
from recsys.deployment import Deployment
from recsys.ideal_aggregator import IdealAggregator
from recsys.network import Network
from recsys.pending_sum import PendingSums
from recsys.secure_aggregator import SecureAggregator
from secagg.assumptions import Adversary
from secagg.crypto.keys import SigningKey
from secagg.encoding import Encoding
from secagg.errors import BudgetError, PolicyError, SecAggError, StorageError, ThresholdError, UsageError
from tests.scenes.aggregation import NAMES, SECRET, SIGNS, update

pytestmark = pytest.mark.thinned(4)

EXACT = Request(0, "test", NAMES, Encoding.integers(5))


@pytest.mark.parametrize("protocol", registry.names())
def test_the_sum_is_that_of_the_ideal_functionality(protocol: str) -> None:
    aggregators: tuple[Aggregator, ...] = (
        SecureAggregator(Deployment(protocol, rules_of(protocol).against), SECRET, engine=Threads(3)),
        IdealAggregator(SECRET),
    )
    weighted = replace(EXACT, encoding=Encoding.integers(5, weight_bound=4), weights=dict.fromkeys(NAMES[:2], 3))
    for request in (EXACT, weighted):
        real, ideal = (aggregator.aggregate(request, update) for aggregator in aggregators)
        assert real.vector.tolist() == ideal.vector.tolist()
        assert (real.weight, real.survivors) == (ideal.weight, ideal.survivors)
        assert real.bytes_up > 0
        assert set(real.seconds) > {"updates"}


def test_clients_that_answer_at_the_same_time_say_what_they_say_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the same order, too: the clients' randomness follows from the run's secret."""
    receive, heard = ServerRound.receive, list[tuple[int, str, bytes]]()

    def noted(self: ServerRound, name: str, frame: bytes) -> None:
        heard.append((workers, name, bytes(frame)))
        receive(self, name, frame)

    monkeypatch.setattr(ServerRound, "receive", noted)
    for workers in (1, 3):
        SecureAggregator(Deployment(), SECRET, engine=Threads(workers)).aggregate(EXACT, update)
    one, three = ([said for count, *said in heard if count == workers] for workers in (1, 3))
    assert one == three
    assert len(one) == 6 * len(NAMES)


def test_silent_clients_are_missing_from_the_sum_and_counted() -> None:
    aggregator = SecureAggregator(Deployment(dropout="0.4"), SECRET, network=Network(dropout=0.2))
    result = aggregator.aggregate(replace(EXACT, number=1), update)
    assert 0 < sum(result.silent.values()) <= 3
    assert result.vector[0] == sum(int(name[-1]) for name in result.survivors)


def test_with_too_many_silent_clients_there_is_no_sum() -> None:
    aggregator = SecureAggregator(Deployment(), SECRET, network=Network(dropout=0.9))
    with pytest.raises(ThresholdError):
        aggregator.aggregate(EXACT, update)


def test_a_cohort_adds_up_alone() -> None:
    asked = list[str]()

    def watched(name: str) -> NDArray[np.float64]:
        asked.append(name)
        return update(name)

    result = SecureAggregator(Deployment(), SECRET).aggregate(replace(EXACT, cohort=NAMES[2:5]), watched)
    assert asked == list(result.survivors) == list(NAMES[2:5])
    assert result.vector[0] == 2 + 3 + 4


def test_one_client_is_no_sum() -> None:
    with pytest.raises(UsageError, match="2"):
        SecureAggregator(Deployment(), SECRET).aggregate(replace(EXACT, cohort=NAMES[:1]), update)


# After a crash


def again(folder: Path, what: Update = update, protocol: str = "secagg+", **more: object) -> NDArray[np.float64]:
    aggregator = SecureAggregator(
        Deployment(protocol, rules_of(protocol).against, dropout="0.3"),
        SECRET,
        folder=folder,
        **more,  # type: ignore[arg-type]
    )
    return aggregator.aggregate(EXACT, what).vector


def other(name: str) -> NDArray[np.float64]:
    """Another processor's."""
    return update(name) + 1


@pytest.mark.parametrize("protocol", registry.names())
def test_a_sum_that_was_begun_is_finished_with_the_same_values(protocol: str, tmp_path: Path) -> None:
    def never(name: str) -> NDArray[np.float64]:
        raise AssertionError(f"{name} is asked for its update again")

    assert [again(tmp_path, what, protocol)[0] for what in (update, never, other)] == [sum(range(8))] * 3


def test_control_without_what_was_kept_it_would_be_another_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again(tmp_path)
    monkeypatch.setattr(PendingSums, "read", lambda self, number: None)
    assert again(tmp_path, other)[0] == sum(range(8)) + len(NAMES)


def frames_of(monkeypatch: pytest.MonkeyPatch, look: Callable[[Envelope], None]) -> None:
    """Have a look at each frame that a client sends."""
    real = simulate.drive

    def watched(server: Any, parties: Any, faults: Faults) -> Any:
        def seen(envelope: Envelope) -> bytes:
            if envelope.receiver == "server":
                look(envelope)
            return envelope.frame

        return real(server, parties, replace(faults, corrupted=seen))

    monkeypatch.setattr("recsys.secure_aggregator.drive", watched)


def test_before_anything_leaves_all_vectors_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control keeps nothing."""
    synced, seen = list[int](), dict[str, set[bool]]()
    real = os.fsync

    def counted(descriptor: int) -> None:
        real(descriptor)
        synced.append(descriptor)

    monkeypatch.setattr(os, "fsync", counted)

    def look(envelope: Envelope) -> None:
        durable = (tmp_path / "sum-0.sealed").exists() and len(synced) == 2  # the file, then its name
        seen.setdefault(envelope.phase, set()).add(durable)

    frames_of(monkeypatch, look)
    again(tmp_path)
    assert list(seen.values()) == [{True}] * 6
    seen.clear()
    (tmp_path / "sum-0.sealed").unlink()
    monkeypatch.setattr(PendingSums, "writing", lambda *arguments: nullcontext(lambda name, vector: None))
    again(tmp_path)
    assert list(seen.values()) == [{False}] * 6


@pytest.mark.parametrize("private", [False, True])
def test_every_frame_is_the_same_again(private: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So no mask, share or noise ever meets two vectors."""
    said = dict[tuple[str, str], set[bytes]]()
    frames_of(monkeypatch, lambda one: said.setdefault((one.phase, one.sender), set()).add(one.frame))
    request, ledger = noised(tmp_path) if private else (EXACT, None)
    deployment, network = Deployment(dropout="0.3"), Network(dropout=0.15)

    def go(what: Update) -> None:
        SecureAggregator(deployment, SECRET, folder=tmp_path, network=network, seed=1, ledger=ledger).aggregate(
            request, what
        )

    for what in (update, other):
        go(what)
    assert len(said) > 4 * 6
    assert all(len(frames) == 1 for frames in said.values())
    PendingSums(tmp_path, SECRET).delete(1)
    monkeypatch.setattr(SecureAggregator, "_check_new", lambda *arguments: None)
    go(other)  # control: what would happen if it were computed again
    assert {phase for (phase, _), frames in said.items() if len(frames) > 1} == {"upload"}
    if ledger is not None:
        ledger.close()


def noised(folder: Path) -> tuple[Request, Ledger]:
    """In a ring that is narrower than its words."""
    kind = Deployment(dropout="0.3").noise(len(NAMES))
    found = calibrate(
        epsilon=8,
        delta=1e-5,
        rounds=2,
        clients=len(NAMES),
        length=5,
        clip_l2=1.0,
        ring_bits=30,
        dropouts=kind.dropouts,
        components=kind.components,
        rotate=False,
    )
    assert found.ring_bits < 32
    guarantee, delta = user_level(Relation.ZERO_OUT), Fraction(1, 10**5)
    budget, key = Budget(Fraction(8), delta, slack=delta * SLACK, kind=Kind.GDP), SigningKey(bytes(32))
    ledger = Ledger.create(folder / "ledger.db", key, budget, guarantee, run="test", elsewhere="nothing")
    return replace(EXACT, encoding=found.encoding, noise=found.noise), ledger


@pytest.mark.parametrize("names", [NAMES[:3], NAMES])
def test_what_a_killed_run_had_not_finished_to_write_is_thrown_away(names: Sequence[str], tmp_path: Path) -> None:
    """Nothing had left for the server, so whoever goes on may compute otherwise, and keeps that."""

    class Killed(BaseException):
        pass

    def until(name: str) -> NDArray[np.float64]:
        if name == names[-1]:
            raise Killed
        return update(name)

    with pytest.raises(Killed):
        again(tmp_path, until)
    assert os.listdir(tmp_path) == []
    assert again(tmp_path, other)[0] == again(tmp_path)[0] == sum(range(8)) + len(NAMES)
    assert os.listdir(tmp_path) == ["sum-0.sealed"]


def test_where_nothing_can_be_kept_nothing_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    seen = set[str]()
    frames_of(monkeypatch, lambda envelope: seen.add(envelope.phase))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"cannot write .*sum-0\.sealed: No space left"):
            again(tmp_path)
    assert seen == set()
    assert again(tmp_path, other)[0] == sum(range(8)) + len(NAMES)


def test_what_is_kept_is_its_owners_and_sealed(tmp_path: Path) -> None:
    telling = Encoding.integers(64)
    request = replace(EXACT, encoding=telling)

    def told(name: str) -> NDArray[np.float64]:
        return np.full(64, 1 + int(name[-1]), np.float64)

    request = replace(request, keeping=lambda name: b"only mine: " + name.encode())
    SecureAggregator(Deployment(), SECRET, folder=tmp_path).aggregate(request, told)
    path = tmp_path / "sum-0.sealed"
    data = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(name.encode() in data for name in NAMES)
    kept = PendingSums(tmp_path, SECRET).read(0)
    assert kept is not None
    ring = kept.plan.ring
    for name, one in kept.inputs.items():
        assert ring.unpack(one.vector, 64).tolist() == told(name).tolist()
        assert one.kept == b"only mine: " + name.encode()
        assert one.vector not in data
        assert b"only mine" not in data
    for secret in (bytes(32), SECRET[::-1]):
        with pytest.raises(StorageError, match="cannot be read"):
            PendingSums(tmp_path, secret).read(0)


def parts(data: bytes) -> list[bytes]:
    found = list[bytes]()
    while data:
        size = 8 + int.from_bytes(data[:8], "big")
        found.append(data[:size])
        data = data[size:]
    return found


TAMPERED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "emptied": lambda found: [],
    "cut": lambda found: [*found[:-1], found[-1][:-1]],
    "cut between two": lambda found: found[:-1],
    "longer": lambda found: [*found, found[-1]],
    "exchanged": lambda found: [found[0], found[2], found[1], *found[3:]],
    "bit": lambda found: [*found[:-1], found[-1][:-1] + bytes([found[-1][-1] ^ 1])],
    "terms": lambda found: [found[1], *found[1:]],
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_sum_that_was_begun_and_cannot_be_read_is_not_begun_anew(how: str, tmp_path: Path) -> None:
    again(tmp_path)
    path = tmp_path / "sum-0.sealed"
    path.write_bytes(b"".join(TAMPERED[how](parts(path.read_bytes()))))
    with pytest.raises(StorageError, match="sum 0 was begun: start a new run"):
        again(tmp_path)


def test_what_was_begun_belongs_to_its_sum_its_model_and_its_cohort(tmp_path: Path) -> None:
    again(tmp_path)
    aggregator = SecureAggregator(Deployment(dropout="0.3"), SECRET, folder=tmp_path)
    for changed in (
        replace(EXACT, model=bytes([1]) * 32),
        replace(EXACT, cohort=NAMES[1:]),
        replace(EXACT, encoding=Encoding.integers(6)),
    ):
        with pytest.raises(StorageError, match="begun as another one"):
            aggregator.aggregate(changed, update)
    (tmp_path / "sum-0.sealed").rename(tmp_path / "sum-1.sealed")
    with pytest.raises(StorageError, match="cannot be read"):
        aggregator.aggregate(replace(EXACT, number=1), update)


def test_a_sum_before_one_that_was_begun_is_not_made(tmp_path: Path) -> None:
    """An older checkpoint came back."""
    aggregator = SecureAggregator(Deployment(dropout="0.3"), SECRET, folder=tmp_path)
    aggregator.aggregate(replace(EXACT, number=10), update)
    with pytest.raises(StorageError, match="the checkpoint is older"):
        aggregator.aggregate(replace(EXACT, number=9), update)


def test_what_went_into_a_sum_is_deleted_when_it_is_out_and_not_earlier(tmp_path: Path) -> None:
    aggregator = SecureAggregator(Deployment(dropout="0.3"), SECRET, folder=tmp_path)
    for number in (0, 1):
        aggregator.aggregate(replace(EXACT, number=number), update)
        aggregator.delete_pending(number)
        assert os.listdir(tmp_path) == [f"sum-{number}.sealed"]
    aggregator.delete_pending(2)
    assert os.listdir(tmp_path) == []


def test_the_terms_of_a_sum_are_those_with_which_it_was_begun(tmp_path: Path) -> None:
    """Who falls silent and how much noise there is were computed, too."""
    begun = SecureAggregator(Deployment(dropout="0.4"), SECRET, folder=tmp_path, network=Network(dropout=0.2), seed=1)
    request = replace(EXACT, encoding=Encoding(5, 1.0, 16))
    first = begun.aggregate(request, update)
    assert first.silent
    other_terms = replace(request, encoding=Encoding(5, 1.0, 15))
    second = SecureAggregator(Deployment(dropout="0.4"), SECRET, folder=tmp_path).aggregate(other_terms, update)
    for name in ("weight", "survivors", "silent", "bytes_up", "bytes_down"):
        assert getattr(second, name) == getattr(first, name)
    assert second.vector.tolist() == first.vector.tolist()  # of the same integers


def test_a_client_that_refuses_the_plan_refuses_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = simulate.first_or_refusal

    def refusing(client: Client, *arguments: Any) -> bytes | SecAggError:
        return PolicyError("no") if client.identity.name == NAMES[3] else real(client, *arguments)

    monkeypatch.setattr("recsys.secure_aggregator.first_or_refusal", refusing)
    assert again(tmp_path)[0] == again(tmp_path, other)[0] == sum(range(8)) - 3


def test_a_large_cohort_draws_its_committee_by_lot() -> None:
    names = tuple(f"client-{i:03}" for i in range(130))
    request = Request(0, "test", names, Encoding.integers(5))
    result = SecureAggregator(Deployment("oneshot"), SECRET).aggregate(request, update)
    assert result.vector.tolist() == (13.0 * sum(range(10)) * SIGNS).tolist()
    assert result.bytes_up < 130 * 12_000  # boxes for a few dozen members, not for 130


@pytest.mark.parametrize("rotate", [False, True])
def test_a_protocol_that_cannot_repeat_itself_has_a_new_session_for_each_attempt(
    rotate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors are those of the first attempt, and are decoded as they were encoded."""
    sessions = list[bytes]()
    real = server.serve

    def noted(plan: RoundPlan, *rest: Any, **more: Any) -> Any:
        sessions.append(plan.session)
        return real(plan, *rest, **more)

    monkeypatch.setattr("recsys.secure_aggregator.serve", noted)
    request = replace(EXACT, encoding=Encoding(5, 100.0, 20, rotate=rotate))
    for what in (update, other):
        aggregator = SecureAggregator(Deployment("ckks", Adversary.CURIOUS, dropout="0.3"), SECRET, folder=tmp_path)
        np.testing.assert_allclose(aggregator.aggregate(request, what).vector, sum(range(8)) * SIGNS, atol=0.1)
    assert len(set(sessions)) == 2


def test_a_noised_sum_that_is_begun_again_is_the_same_release_and_charged_once(tmp_path: Path) -> None:
    deployment, (request, ledger) = Deployment(dropout="0.3"), noised(tmp_path)
    totals, spent = [], []
    for number, what in ((0, update), (0, other), (1, update)):
        aggregator = SecureAggregator(deployment, SECRET, folder=tmp_path, ledger=ledger)
        totals.append(aggregator.aggregate(replace(request, number=number), what).vector.tolist())
        spent.append(ledger.epsilon)
    assert totals[0] == totals[1] != totals[2]
    assert spent[0] == spent[1] < spent[2]
    with pytest.raises(BudgetError):
        SecureAggregator(deployment, SECRET, ledger=ledger).aggregate(replace(request, number=2), update)
    ledger.close()


def test_a_sum_that_was_paid_for_is_not_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was begun with was deleted; its ledger, its secret and its number are there. Nothing would be charged."""
    request, ledger = noised(tmp_path)

    def released(value: float) -> list[float]:
        aggregator = SecureAggregator(Deployment(), SECRET, folder=tmp_path, ledger=ledger)
        return aggregator.aggregate(request, lambda name: np.full(5, value)).vector.tolist()

    first = released(0.1)
    (tmp_path / "sum-0.sealed").unlink()
    with pytest.raises(StorageError, match="sum 0 is in the ledger"):
        released(0.3)
    monkeypatch.setattr(SecureAggregator, "_check_new", lambda *arguments: None)
    spent = ledger.epsilon
    assert released(0.3) != first
    assert ledger.epsilon == spent
    ledger.close()
