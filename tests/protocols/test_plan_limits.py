"""Limits of plans, policies, rosters and journals, on both sides."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp.noise import Family, NoiseSpec
from protocols.journal import MemoryJournal
from protocols.plan import HASH_BYTES, MAX_BEACON, RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from secagg.assumptions import MAX_CLIENTS
from secagg.crypto.graph import Graph, GraphParameters
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import DecodeError, PolicyError, UsageError

ROSTER = Roster.of([Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(6)])
POLICY = Policy(min_contributors=3, protocols={"secagg"}, corrupt=0, dropout=0)


def plan_of(**changes: Any) -> RoundPlan:
    plan = RoundPlan.propose("secagg", ROSTER, Encoding.integers(3), min_contributors=3, corrupt=0, dropout=0)
    return replace(plan, **changes)


def test_the_sizes_of_what_a_plan_names() -> None:
    for name, size in (("session", 16), ("roster", HASH_BYTES), ("model", HASH_BYTES)):
        plan_of(**{name: bytes(size)})
        for wrong in (size - 1, size + 1):
            with pytest.raises(UsageError, match="16 bytes"):
                plan_of(**{name: bytes(wrong)})
    plan_of(beacon=bytes(MAX_BEACON))
    with pytest.raises(UsageError, match="a beacon has at most"):
        plan_of(beacon=bytes(MAX_BEACON + 1))


def test_round_numbers() -> None:
    for good in (0, (1 << 32) - 1):
        assert plan_of(round=good).round == good
    for wrong in (-1, 1 << 32):
        with pytest.raises(UsageError, match="a round number"):
            plan_of(round=wrong)


def test_the_largest_round() -> None:
    ring: dict[str, Any] = {"protocol": "secagg+", "parameters": GraphParameters(Graph.RING, 4, 3), "ring_bits": 48}
    assert plan_of(clients=MAX_CLIENTS, **ring).clients == MAX_CLIENTS
    with pytest.raises(UsageError, match="a round has 2 to"):
        plan_of(clients=MAX_CLIENTS + 1, **ring)


def test_a_client_that_knows_no_beacon_accepts_any() -> None:
    """It draws no lots. One that knows one accepts no other, and not none."""
    POLICY.check(plan_of(beacon=b"dice"), ROSTER)
    knowing = replace(POLICY, beacon=b"dice")
    knowing.check(plan_of(beacon=b"dice"), ROSTER)
    for other in (b"", b"loaded dice"):
        with pytest.raises(PolicyError, match="another beacon"):
            knowing.check(plan_of(beacon=other), ROSTER)


def test_the_most_security() -> None:
    assert replace(POLICY, security=512).security == 512


def test_just_enough_noise() -> None:
    least = 4 * Fraction(plan_of().encoding.sensitivity().l2_squared)
    demanding = replace(POLICY, noise_multiplier=2)
    for variance, enough in ((least, True), (least - 1, False)):
        noise = NoiseSpec(Family.SKELLAM, variance, dropouts=3, colluders=1)
        plan = plan_of(noise=noise, ring_bits=48)
        if enough:
            demanding.check(plan, ROSTER)
        else:
            with pytest.raises(PolicyError, match="less noise"):
                demanding.check(plan, ROSTER)


def test_a_name_between_two_others() -> None:
    assert ROSTER.number("client-3") == 3
    for stranger in ("client-2x", "a", "z"):
        with pytest.raises(UsageError, match="is not in the roster"):
            ROSTER.number(stranger)


def test_the_last_round_is_the_highest() -> None:
    """A round that is past does not come again."""
    journal, session = MemoryJournal(), bytes(16)
    journal.append(b"", session, 5, 0, b"record")
    with pytest.raises(PolicyError, match="past round 3"):
        journal.append(b"", session, 3, 0, b"record")
    assert journal.last_round(session) == 5


def test_the_bounds_of_a_weight() -> None:
    for good in (1, (1 << 31) - 1):
        assert replace(POLICY, weight_bound=good).weight_bound == good
    for bad in (0, -1, 1 << 31):
        with pytest.raises(UsageError, match="weight"):
            replace(POLICY, weight_bound=bad)


@pytest.mark.parametrize("variance", [Fraction(1, 1 << 60), Fraction(1 << 60)])
def test_noise_that_nobody_can_draw(variance: Fraction) -> None:
    """Else the round would begin, and each client fail when it uploads."""
    noise = NoiseSpec(Family.DISCRETE_GAUSSIAN, variance)
    with pytest.raises(UsageError, match="no client can draw so much noise, or so little"):
        plan_of(min_contributors=6, ring_bits=64, noise=noise)


def test_a_roster_file_has_clients_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "roster.toml"
    ROSTER.save(path)
    assert Roster.load(path) == ROSTER
    path.write_text('title = "x"\n' + path.read_text())
    with pytest.raises(DecodeError, match="not a roster file"):
        Roster.load(path)
