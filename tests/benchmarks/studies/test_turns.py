"""The case of turns measures what it says, and its goal is reached with its defaults (the long version)."""

from __future__ import annotations

import pytest

from benchmarks.studies import turns
from secagg.errors import UsageError


def test_a_small_ledger_of_turns() -> None:
    """20 clients, 10 a round: four turns each of eight rounds, so half the mu^2 of everybody charged for all."""
    measured = turns.run(turns.Config(clients=20, size=10, rounds=8, length=50), lambda _: None)
    assert measured.figures["turns_each"] == 4
    assert measured.figures["next_round_refused"] == 1
    assert 7.95 < measured.figures["epsilon_of_the_ledger"] <= 8
    assert measured.ratios["z_turns_over_everybody"] == pytest.approx(0.5**0.5, rel=1e-3)


@pytest.mark.long
def test_a_third_of_the_noise() -> None:
    measured = turns.run(turns.DEFAULTS, lambda _: None)
    assert measured.ratios["z_turns_over_everybody"] <= 0.33
    assert 7.95 < measured.figures["epsilon_of_the_ledger"] <= 8


def test_what_is_no_configuration() -> None:
    for wrong in ({"size": 1}, {"size": 1001}, {"rounds": 0}):
        with pytest.raises(UsageError):
            turns.Config(**wrong)
