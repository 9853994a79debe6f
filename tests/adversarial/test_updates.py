"""What a client itself may not contribute: refused before anything is journaled or sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protocols.journal import EMPTY_HEAD, MemoryJournal
from protocols.machine import Client
from secagg.encoding import Encoding
from secagg.errors import UsageError
from secagg.ring import Ring
from tests.adversarial.attack import BOTH, LENGTH, Evil, small, switch_off

VICTIM = 2
BAD_UPDATES: dict[str, Any] = {
    "NaN": [np.nan] * LENGTH,
    "one NaN": [0.0] * (LENGTH - 1) + [np.nan],
    "infinite": [np.inf] + [0.0] * (LENGTH - 1),
    "minus infinite": [-np.inf] + [0.0] * (LENGTH - 1),
    "overflow on the way to float": [10**400] * LENGTH,
    "text": ["x"] * LENGTH,
    "complex": [1j] * LENGTH,
    "nothing": None,
    "ragged": [[1], [2, 3]],
    "too short": [0.0] * (LENGTH - 1),
    "too long": [0.0] * (LENGTH + 1),
    "two dimensions": [[0.0] * LENGTH],
}
BAD_WEIGHTS: dict[str, Any] = {
    "zero": 0,
    "negative": -1,
    "above the bound": 5,
    "huge": 1 << 70,
    "half": 1.5,
    "NaN": float("nan"),
    "infinite": float("inf"),
}


def scene(protocol: str) -> tuple[Evil, Client, MemoryJournal]:
    journal = MemoryJournal()
    evil = small(protocol)
    encoding = replace(evil.plan.encoding, weight_bound=4)
    evil.plan = replace(evil.plan, encoding=encoding, ring_bits=encoding.ring_bits(evil.plan.clients))
    evil.clients[VICTIM]._journal = journal
    return evil, evil.clients[VICTIM], journal


@BOTH
@pytest.mark.parametrize("what", BAD_UPDATES)
def test_bad_updates(protocol: str, what: str) -> None:
    evil, client, journal = scene(protocol)
    with pytest.raises(UsageError):
        client.start(evil.plan, BAD_UPDATES[what])
    assert (journal.head(), client.phase) == (EMPTY_HEAD, None)
    assert client.start(evil.plan, np.zeros(LENGTH))


@BOTH
@pytest.mark.parametrize("what", BAD_WEIGHTS)
def test_bad_weights(protocol: str, what: str) -> None:
    evil, client, journal = scene(protocol)
    with pytest.raises(UsageError, match="weight must be an integer between 1 and 4"):
        client.start(evil.plan, np.zeros(LENGTH), weight=BAD_WEIGHTS[what])
    assert (journal.head(), client.phase) == (EMPTY_HEAD, None)


@BOTH
def test_control_not_a_number(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check NaN becomes some integer, and the round goes on with it; or so it would, but for the ring,
    which refuses what does not fit. Both off: the sum is spoilt and nobody knows."""
    evil, client, journal = scene(protocol)
    switch_off(monkeypatch, Encoding, "_checked", "not np.isfinite(vector).all()")
    with pytest.warns(RuntimeWarning), pytest.raises(UsageError, match="does not fit"):
        client.start(evil.plan, BAD_UPDATES["one NaN"])
    monkeypatch.setattr(Ring, "lift", lambda ring, values: values.astype(ring.dtype))
    with pytest.warns(RuntimeWarning):
        assert client.start(evil.plan, BAD_UPDATES["one NaN"])
    assert journal.head() != EMPTY_HEAD


@BOTH
def test_control_a_weight_too_large(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client outweighs all the others."""
    evil, client, _ = scene(protocol)
    switch_off(monkeypatch, Encoding, "encode", "not 1 <= weight <= self.weight_bound or weight != int(weight)")
    assert client.start(evil.plan, np.ones(LENGTH), weight=15)
    assert client._round._values().tolist() == [15] * (LENGTH + 1)


@BOTH
def test_a_bad_update_disturbs_no_running_round(protocol: str) -> None:
    evil, client, _ = scene(protocol)
    first = client.start(evil.plan, np.zeros(LENGTH))
    with pytest.raises(UsageError):
        client.start(evil.plan.next_round(), BAD_UPDATES["NaN"])
    assert client.start(evil.plan, np.zeros(LENGTH)) == first
