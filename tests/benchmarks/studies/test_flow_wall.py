"""Asynchronous training beside rounds that wait: the case measures what it says, and reaches its goal (long)."""

from __future__ import annotations

from math import inf

import pytest

from benchmarks.studies.flow import wall
from secagg.errors import UsageError

SMALL = {"users": 36, "items": 90, "silos": 6, "size": 3, "rounds": 2, "seeds": 1, "every": 1, "smooth": 1}


def test_a_small_comparison() -> None:
    """Rounds that wait take the time of their slowest; whoever is ready is earlier, whatever comes of it."""
    said: list[str] = []
    measured = wall.run(wall.Settings(**SMALL), said.append)  # type: ignore[arg-type]
    assert {"waits_s", "over_s", "async_silos_in_no_sum", "reached: async_over_waits"} <= measured.figures.keys()
    ended = {line.split(",")[0]: float(line.split(" s,")[0].split()[-1].replace(",", "")) for line in said[:3]}
    assert ended["over"] < ended["waits"]
    assert ended["async"] < 2 * ended["waits"]  # for twice as many sums


def test_all_ways_have_one_epsilon() -> None:
    config = wall.Settings()
    runs = {way: config.run(way, 0) for way in ("waits", "over", "async")}
    assert {run.privacy.epsilon for run in runs.values()} == {8.0}
    assert {run.training.size for run in runs.values()} == {20}
    assert runs["async"].training.most == 2 * 60 * 20 // 60


def test_when_a_quality_is_reached() -> None:
    curve = [(1.0, 0.1), (2.0, 0.3), (3.0, 0.2)]
    assert [wall._reached(curve, target) for target in (0.1, 0.2, 0.3, 0.4)] == [1.0, 2.0, 2.0, inf]


@pytest.mark.long
def test_half_of_the_time() -> None:
    assert wall.run(wall.Settings(), lambda _: None).ratios["async_over_waits"] <= 0.5


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"room": 0.5}, {"smooth": 0}])
def test_what_is_no_configuration(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        wall.Settings(**wrong)  # type: ignore[arg-type]
