"""What clients keep: who moves, that a restart moves to what was decided, and that it is sealed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.aggregator import Aggregator, Request
from recsys.deployment import Deployment
from recsys.ideal_aggregator import IdealAggregator
from recsys.kept_by_clients import KeptByClients
from recsys.network import Network
from recsys.secure_aggregator import SecureAggregator
from secagg.encoding import Encoding
from secagg.errors import StorageError
from tests.scenes.recommender import SECRET
from tests.scenes.whole_runs import Killed

NAMES = tuple(f"client-{i}" for i in range(8))
ONES = np.ones(4)


def told(aggregator: Aggregator, attempt: str = "first") -> dict[str, tuple[list[float], bytes]]:
    """What each client that is in a sum put in, and what it keeps."""
    found = dict[str, tuple[list[float], bytes]]()

    def sent(name: str, vector: NDArray[np.float64], kept: bytes) -> None:
        found[name] = vector.tolist(), kept

    request = Request(0, "training", NAMES, Encoding.integers(4))
    request = replace(request, keeping=lambda name: f"{name}, {attempt}".encode(), sent=sent)
    aggregator.aggregate(request, lambda name: ONES * int(name[-1]))
    return found


def test_each_client_in_a_sum_keeps_what_it_decided_and_nobody_else_does() -> None:
    whole = {name: (list(ONES * int(name[-1])), f"{name}, first".encode()) for name in NAMES}
    assert told(IdealAggregator(SECRET)) == whole
    lost = SecureAggregator(Deployment(dropout="0.34"), SECRET, network=Network(dropout=0.08), seed=1)
    some = told(lost)
    assert 0 < len(some) < 8
    assert some == {name: whole[name] for name in some}


def test_after_a_restart_a_client_keeps_what_it_had_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: where nothing was on disk, what the second attempt comes to."""

    def end(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("recsys.secure_aggregator.drive", end)
        with pytest.raises(Killed):
            told(SecureAggregator(Deployment(), SECRET, folder=tmp_path))
    again = told(SecureAggregator(Deployment(), SECRET, folder=tmp_path), "second")
    assert {kept for _, kept in again.values()} == {f"{name}, first".encode() for name in NAMES}
    anew = told(SecureAggregator(Deployment(), SECRET), "second")
    assert {kept for _, kept in anew.values()} == {f"{name}, second".encode() for name in NAMES}


def test_it_is_sealed_for_one_run_and_one_round() -> None:
    kept = KeptByClients(SECRET)
    head = np.arange(6, dtype=np.float32).reshape(2, 3)
    kept.move({"ann": {"head": head, "other": head[0]}, "bob": {"head": head[:0]}})
    sealed = kept.sealed(4)
    assert head.tobytes() not in sealed
    assert b"ann" not in sealed
    again = KeptByClients(SECRET)
    again.move({"eve": {"head": head}})  # whatever was there goes
    heads = again.of("head")
    again.open(4, sealed)
    assert heads["ann"].tolist() == head.tolist()
    assert heads["bob"].shape == (0, 3)
    assert "eve" not in heads
    assert again.of("other")["ann"].tolist() == [0, 1, 2]
    for secret, rounds, data in (
        (bytes(32), 4, sealed),
        (SECRET, 3, sealed),
        (SECRET, 4, sealed[:-1]),
        (SECRET, 4, b""),
    ):
        with pytest.raises(StorageError, match="something else kept by clients"):
            KeptByClients(secret).open(rounds, data)
    assert heads["ann"].tolist() == head.tolist()
