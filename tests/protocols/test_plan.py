"""Plans: built, encoded, told apart. What no plan may be is in tests/adversarial/pairwise/test_plans.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import registry
from protocols.plan import NO_MODEL, RoundPlan
from protocols.roster import Roster
from secagg.assumptions import Adversary
from secagg.crypto.graph import Graph
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import DecodeError, UsageError

ROSTER = Roster.build({f"client-{i:03}": Prg(bytes(32), start=32 * i)(32) for i in range(300)})
PROTOCOLS = pytest.mark.parametrize("protocol", ["secagg", "secagg+"])


def propose(protocol: str, **options: Any) -> RoundPlan:
    given: dict[str, Any] = {"encoding": Encoding.integers(10), "min_contributors": 20, "session": bytes(16)} | options
    return RoundPlan.propose(protocol, ROSTER, given.pop("encoding"), **given)


@PROTOCOLS
def test_a_proposal(protocol: str) -> None:
    plan = propose(protocol)
    assert (plan.clients, plan.round, plan.roster, plan.model) == (300, 0, ROSTER.digest, NO_MODEL)
    assert plan.ring_bits == plan.encoding.ring_bits(300)
    assert plan.parameters.graph is (Graph.COMPLETE if protocol == "secagg" else Graph.RING)


def test_sessions_are_fresh() -> None:
    assert len({propose("secagg", session=None).session for _ in range(5)}) == 5


@PROTOCOLS
def test_more_dropout_or_corruption_needs_more_neighbours(protocol: str) -> None:
    few, many = propose("secagg+", corrupt="0.01", dropout="0.01"), propose("secagg+", corrupt="0.05", dropout="0.1")
    assert few.parameters.degree < many.parameters.degree
    curious = propose("secagg+", adversary="curious")
    assert curious.parameters.degree < propose("secagg+", adversary=Adversary.ACTIVE).parameters.degree


WRONG: dict[str, dict[str, Any]] = {
    "more than the roster": {"clients": 301},
    "one": {"clients": 1},
    "infeasible": {"corrupt": "0.4", "dropout": "0.4"},
    "no fraction": {"corrupt": "x"},
    "more than all": {"dropout": 1.5},
    "unknown adversary": {"adversary": "bored"},
    "too much security": {"security": 1000},
    "one contributor": {"min_contributors": 1},
    "more contributors than clients": {"min_contributors": 301},
    "wide": {"encoding": Encoding.integers(2, bits=32, weight_bound=1 << 30)},
    "short session": {"session": b"x"},
    "short model": {"model": b"x"},
}


@pytest.mark.parametrize("what", WRONG)
@PROTOCOLS
def test_wrong_proposals(protocol: str, what: str) -> None:
    if (protocol, what) == ("secagg", "too much security"):
        return  # the complete graph knows no security parameter
    with pytest.raises(UsageError):
        propose(protocol, **WRONG[what])


def test_unknown_protocol() -> None:
    with pytest.raises(UsageError, match=r"unknown protocol .*, and auto"):
        propose("secagg++")


@st.composite
def plans(draw: Callable[..., Any]) -> RoundPlan:
    clients = draw(st.integers(2, 300))
    bits = draw(st.integers(2, 24))
    encoding = Encoding(
        length=draw(st.integers(1, 10**6)),
        clip_l2=draw(st.floats(1e-3, 1e3)),
        bits=bits,
        rotate=draw(st.booleans()),
        weight_bound=draw(st.integers(1, 1000)),
    )
    plan = RoundPlan.propose(
        draw(st.sampled_from(registry.names())),
        ROSTER,
        encoding,
        clients=clients,
        min_contributors=draw(st.integers(2, clients)),
        corrupt=0,
        dropout=0,
        session=draw(st.binary(min_size=16, max_size=16)),
        model=draw(st.binary(min_size=32, max_size=32)),
    )
    return replace(plan, round=draw(st.integers(0, 2**32 - 1)))


@given(plans())
def test_what_is_encoded_is_decoded(plan: RoundPlan) -> None:
    assert RoundPlan.decode(plan.encode()) == plan
    assert RoundPlan.decode(plan.encode()).digest() == plan.digest()


@given(plans(), st.data())
def test_every_bit_counts(plan: RoundPlan, data: st.DataObject) -> None:
    """Another encoding is no plan, or another plan with another digest."""
    encoded = bytearray(plan.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = RoundPlan.decode(bytes(encoded))
    except DecodeError:
        return
    assert other != plan
    assert other.digest() != plan.digest()
    assert other.encode() == bytes(encoded)


@given(plans(), st.integers(0, 400))
def test_cut_and_long_plans(plan: RoundPlan, cut: int) -> None:
    encoded = plan.encode()
    with pytest.raises(DecodeError):
        RoundPlan.decode(encoded[: cut % len(encoded)])
    with pytest.raises(DecodeError):
        RoundPlan.decode(encoded + b"\0")


CHANGES: dict[str, Callable[[RoundPlan], RoundPlan]] = {
    "protocol": lambda plan: propose("secagg+" if plan.protocol == "secagg" else "secagg"),
    "session": lambda plan: replace(plan, session=bytes([1]) * 16),
    "round": lambda plan: plan.next_round(),
    "roster": lambda plan: replace(plan, roster=bytes(32)),
    "model": lambda plan: replace(plan, model=bytes([1]) * 32),
    "clients": lambda plan: propose(plan.protocol, clients=299),
    "min_contributors": lambda plan: replace(plan, min_contributors=21),
    "ring": lambda plan: replace(plan, ring_bits=plan.ring_bits + 1),
    "encoding": lambda plan: replace(plan, encoding=Encoding.integers(11)),
    "parameters": lambda plan: replace(
        plan, parameters=replace(plan.parameters, threshold=plan.parameters.threshold + 1)
    ),
}


@pytest.mark.parametrize("what", CHANGES)
@PROTOCOLS
def test_the_digest_depends_on(protocol: str, what: str) -> None:
    plan = propose(protocol)
    assert CHANGES[what](plan).digest() != plan.digest()


@PROTOCOLS
def test_the_next_round(protocol: str) -> None:
    plan = propose(protocol)
    later = plan.next_round(model=bytes([7]) * 32)
    assert (later.round, later.model, later.session) == (1, bytes([7]) * 32, plan.session)
    assert replace(later, round=0, model=plan.model) == plan
    with pytest.raises(UsageError, match="a round number is between 0 and"):
        replace(plan, round=2**32 - 1).next_round()


def test_a_plan_is_a_value() -> None:
    plan = propose("secagg")
    assert plan == propose("secagg")
    assert hash(plan) == hash(propose("secagg"))
    with pytest.raises(FrozenInstanceError):
        plan.round = 1  # type: ignore[misc]


def test_rotation_changes_with_the_round() -> None:
    """So that a vector that the rotation spreads badly is spread well the next time."""
    plan = propose("secagg", encoding=Encoding(8, clip_l2=1.0, rotate=True))
    update = np.arange(8) / 20
    codes = [p.encode_update(update, 1, Prg(bytes(32))).tolist() for p in (plan, plan, plan.next_round())]
    assert codes[0] == codes[1] != codes[2]
    total = plan.encode_update(update, 1, Prg(bytes(32)))
    assert np.allclose(plan.decode_total(total, 1).vector, update, atol=1e-3)
