"""Figures in docs/benchmarks.md that follow from other figures there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md").read_text("utf-8")
WORDS = " ".join(PAGE.split())


def rows(start: str) -> list[list[str]]:
    """The cells of the table whose title row begins like this."""
    text = PAGE[PAGE.index(start) :].partition("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def between(cell: str) -> tuple[float, float]:
    """Between which numbers one is that was rounded to this."""
    number = re.sub("[^0-9.]", "", cell)
    half = 0.5 * 10.0 ** -len(number.partition(".")[2])
    if "." not in number and len(number.rstrip("0")) < len(number) > 2:
        half = 0.5 * 10.0 ** (len(number) - len(number.rstrip("0")))
    return float(number) - half, float(number) + half


def is_quotient(ratio: str, above: str, below: str) -> bool:
    """Whether the ratio can be that of the two, each rounded as it is written."""
    (low, high), (a, b), (c, d) = between(ratio), between(above), between(below)
    return a / d <= high and low <= b / c


SPEEDUPS = [
    *rows("| graph | n | d | silent | ours now | Flower | `round_speedup` |"),
    *rows("| graph | n | d | silent | ours | Flower | `round_speedup` |"),
]


@pytest.mark.parametrize("row", SPEEDUPS, ids=" ".join)
def test_speedups_beside_flower_are_quotients(row: list[str]) -> None:
    ours, flower, speedup = (cell.split("; ") for cell in row[4:7])
    for i, ratio in enumerate(speedup):
        assert is_quotient(ratio, flower[i], ours[min(i, len(ours) - 1)]), row


def test_what_dealing_verifiably_costs_in_bytes() -> None:
    figures = {row[0]: row[1] for row in rows("| figure | measured | target |")}
    more = int(figures["bytes up of a client, k = 140, t = 104, over plain shares: more"].replace(",", ""))
    now, before = re.search(r"sends ([0-9,]+) bytes instead of ([0-9,]+) \(d = 1000\)", WORDS).groups()  # type: ignore[union-attr]
    assert int(now.replace(",", "")) - int(before.replace(",", "")) == more


def _figures(cells: list[str]) -> list[float]:
    """Each cell without its interval."""
    return [float(cell.split(" ")[0].rstrip("%")) for cell in cells if cell]


def test_private_ease_beside_popularity_and_tuned_ease_is_what_its_rows_say() -> None:
    table = rows("| | ItemPop | ItemKNN | EASE | tuned EASE | without noise | epsilon 8 | epsilon 3 | epsilon 1 |")
    places = [place for place, row in enumerate(table) if row[0].startswith("`")]
    assert len(places) == 3
    for place in places:
        popular, *others = _figures(table[place][1:])
        gaps = _figures(table[place + 1][2:])
        assert gaps == pytest.approx([other - popular for other in others], abs=1.01e-4)
        without, *noised = gaps[3:]
        assert _figures(table[place + 2][6:]) == pytest.approx([100 * gap / without for gap in noised], abs=1)
        assert _figures(table[place + 3][5:]) == pytest.approx([other / others[2] for other in others[3:]], abs=0.0075)


def test_a_quotient_that_is_none_is_seen() -> None:
    assert is_quotient("3.7", "0.36", "0.10")
    assert not is_quotient("4.4", "3.1", "0.61")
