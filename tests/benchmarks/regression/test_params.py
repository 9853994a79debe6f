"""The case of the slowest choices measures what it says: the degrees that the calculator gives, checked by clients."""

from __future__ import annotations

import pytest

from benchmarks.regression import params


@pytest.mark.long
def test_the_slowest_choices_are_made_and_checked() -> None:
    measured = params.run(params.Config(repeats=1), lambda _: None)
    assert (measured.figures["common_degree"], measured.figures["common_round_degree"]) == (96, 140)
    assert measured.figures["heavy_degree"] == 9388
    assert set(measured.ratios) == {"choice_over_limit", "check_over_choice"}
    assert all(value > 0 for value in measured.ratios.values())
