"""What CKKS rounds refuse at their limits, and without the library that does the work."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from dp.noise import Family, NoiseSpec
from protocols import registry
from protocols.ckks import ciphertexts
from protocols.ckks.cohort import check_policy
from protocols.ckks.layout import _PRODUCT_BITS, Layout
from protocols.ckks.parameters import LEAST_ANSWERS, KeyMakers, Recipient, choose
from protocols.ckks.server import CkksServer
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from secagg import extras
from secagg.assumptions import Adversary
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import MissingExtraError, PeerError, PolicyError, UsageError

pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")

ROSTER = Roster.of([Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(10)])


def plan_of(clients: int = 10, **changes: object) -> RoundPlan:
    plan = RoundPlan.propose("ckks", ROSTER, Encoding.integers(3), min_contributors=2, clients=clients, dropout=0)
    return replace(plan, ring_bits=40, **changes)  # type: ignore[arg-type]


def chosen(n: int, dropout: Fraction) -> KeyMakers:
    return choose(n, Fraction(0), dropout, Adversary.CURIOUS, 40, 20)


def test_dropouts_are_a_fraction() -> None:
    assert chosen(10, Fraction(0)).makers == LEAST_ANSWERS
    for wrong in (Fraction(-1, 10), Fraction(1), Fraction(11, 10)):
        with pytest.raises(UsageError, match="a dropout is a fraction"):
            chosen(10, wrong)


def test_there_are_no_more_makers_than_clients() -> None:
    assert chosen(2, Fraction(9, 10)).makers == 2
    assert chosen(5, Fraction(9, 10)).makers == 5


def test_two_must_be_expected_to_stay() -> None:
    policy = Policy(min_contributors=2, protocols={"ckks"}, adversary=Adversary.CURIOUS, corrupt="0.1", dropout="0.7")
    check_policy(plan_of(), policy)  # one corrupt, seven silent: two are left
    with pytest.raises(PolicyError, match="1 clients are expected to stay"):
        check_policy(plan_of(), replace(policy, dropout="0.8"))


def test_noise_with_an_excess_is_for_servers_that_see_the_sum() -> None:
    hidden = KeyMakers(Recipient.CLIENTS, 2)
    whole = NoiseSpec(Family.SKELLAM, Fraction(1000), dropouts=8, colluders=1)
    assert plan_of(parameters=hidden, noise=whole).noise is not None
    with pytest.raises(UsageError, match="a sum that only clients see"):
        plan_of(parameters=hidden, noise=replace(whole, components=2))


def test_the_largest_slot_and_the_largest_error() -> None:
    layout = Layout.choose(26, 10, 2)
    largest = 2.0 ** (_PRODUCT_BITS - layout.scale_bits) + 1
    assert layout.join(np.array([largest, layout.error])).tolist() == [int(largest), 0]
    for beyond in (largest + 1, -largest - 1, np.nan):
        with pytest.raises(PeerError, match="larger than any sum"):
            layout.join(np.array([beyond, 0]))
    with pytest.raises(PeerError, match="not a sum of integers"):
        layout.join(np.array([0, np.nextafter(layout.error, 1)]))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle child of before does not count: nobody is to begin what cannot be finished."""
    plan = plan_of()
    ciphertexts.make_keys()
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="the protocol ckks needs the extra"):
        chosen(10, Fraction(0))
    with pytest.raises(MissingExtraError, match="the protocol ckks needs the extra"):
        CkksServer(plan, ROSTER, registry.find(plan.protocol).messages)
    monkeypatch.setattr(ciphertexts, "_idle", [])
    with pytest.raises(MissingExtraError, match="the protocol ckks needs the extra"):
        ciphertexts.make_keys()
