"""What docs/scale.md says in words is what its tables say; sizes and bytes in these are those of today's rounds."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from benchmarks.studies.scale.tables import flat_table, tree_table
from protocols.costs.units import UnitCosts
from protocols.roster import Roster
from protocols.tree import Terms, Tree
from secagg.crypto.prg import Prg

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "scale.md").read_text("utf-8")

WORDS = " ".join(PAGE.split())

Rows = list[dict[str, str]]


def table(title: str, page: str = PAGE) -> Rows:
    """The rows of the table under this title, by column; a row that says why not has fewer cells than titles."""
    return parsed(page.partition(title)[2].lstrip("\n*").partition("\n\n")[0])


def parsed(text: str) -> Rows:
    titles, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines()]
    names = [f"{title} again" if title in titles[:i] else title for i, title in enumerate(titles)]
    return [dict(zip(names, row, strict=True)) for row in rows]


# Predicted over measured


def ranges() -> Iterator[tuple[str, str, str]]:
    rounds = table("**Measured, and predicted over measured**")

    def of(*columns: str, d: str = "") -> list[float]:
        rows = [row for row in rounds if row["real round"].split(" 0.1")[0].endswith(d)]
        return [float(row[column]) for row in rows for column in columns if row[column]]

    both = of("up", "down")
    yield "bytes up and down", f"{min(both):.3f}", f"{max(both):.3f}"
    for who in ("client", "server"):
        for power, d in (("4", "d10000"), ("6", "d1000000")):
            found = of(f"{who} again", d=d)
            yield (
                f"seconds of the {who}{'s' * (who == 'client')}, d = 10^{power}",
                f"{min(found):.2f}",
                f"{max(found):.2f}",
            )
    memory = of("memory again")
    yield "memory of the server, where it is above 16 MiB", f"{min(memory):.2f}", f"{max(memory):.2f}"


@pytest.mark.parametrize("page", ["scale.md", "benchmarks.md"])
def test_ranges_of_the_model_are_those_of_the_rounds(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    found = list(ranges())
    assert len(found) == 6
    for row in found:
        assert "| " + " | ".join(row) + " |" in text


# In words


def seconds(cell: str) -> float:
    value, unit = cell.replace(",", "").split()
    return float(value) * {"ms": 1e-3, "s": 1, "min": 60, "h": 3600, "days": 86400}[unit]


def test_what_a_one_shot_server_takes_of_the_time_of_a_pairwise_one() -> None:
    quiet, gone = list[float](), list[float]()
    for d in ("10^4", "10^6", "10^9"):
        rows = {(row["protocol"], row["n"]): row for row in table(f"**Flat rounds, d = {d}, 16-bit values**")}
        for n in ("10^3", "10^4", "10^5", "10^6", "10^7"):
            ours, masked = rows.get(("oneshot", n)), rows.get(("secagg+", n))
            if ours and masked:
                quiet.append(seconds(ours["server"]) / seconds(masked["server"]))
                gone.append(seconds(ours["with 10% gone"]) / seconds(masked["with 10% gone"]))
    assert len(quiet) == 13
    assert f"{min(quiet):.2f} to {max(quiet):.2f} of `secagg+`'s time" in WORDS
    assert f"with a tenth gone {min(gone):.2f} to {max(gone):.2f} of it" in WORDS


def test_what_a_tree_takes_at_a_million_clients() -> None:
    rows = {(row["protocol"], row["cohort"]): row for row in table("**Trees over 10^6 clients, d = 10^6**")}
    flat, small, large = (rows["secagg+", size] for size in ("flat", "1000", "4000"))
    hours = [row["all servers' core time"].removesuffix(" h") for row in (large, small, flat)]
    assert f"({hours[0]} to {hours[1]} of {hours[2]} hours)" in WORDS
    assert f"{large['with 10% gone']} for 4,000" in WORDS
    assert f"{round(int(small['memory'][:3]), -1)} to {round(int(large['memory'][:3]), -1)} MB each" in WORDS
    assert f"nobody's {flat['memory']}." in WORDS
    assert f"flat: {flat['memory']} in one server" in WORDS
    degrees = [row["parameters"].split(",")[0].removeprefix("k = ") for row in (small, large)]
    assert f"({degrees[0]} to {degrees[1]} from 1,000 to 4,000)" in WORDS


@pytest.mark.long
def test_what_a_member_of_a_tree_takes_in_memory() -> None:
    """And how much more while the roster is put together from a dictionary, as it is read."""
    count = 20_000
    above = Roster.build({f"leader-{i:02}": Prg(bytes([1]) * 32, start=32 * i)(32) for i in range(20)})
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        keys = {f"client-{i:07}": Prg(bytes(32), start=32 * i)(32) for i in range(count)}
        tree = Tree((Roster.build(keys), above), 1000, bytes(32), (Terms(100), Terms(2, "secagg")))
        del keys
        kept, peak = ((size - before) / count for size in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert tree.levels == 2
    assert 140 < kept < 160 < 280 < peak < 330
    assert "some 150 bytes, and twice that" in WORDS
    assert "300 MB once, of which 150 MB stay" in " ".join((DOCS / "trees.md").read_text("utf-8").split())


# What does not depend on a machine

_OF_A_MACHINE = {"client", "heaviest client", "server", "with 10% gone", "aggregator", "all servers' core time"}
_LENGTHS = {"10^4": 10**4, "10^6": 10**6, "10^9": 10**9}
_ANY = UnitCosts(**{field.name: 1e-9 for field in fields(UnitCosts)})


def same_but_for_seconds(written: Rows, computed: Rows) -> None:
    """``computed`` are some of the rows; what is absurd depends on seconds, too."""
    assert computed
    for row in computed:
        first = list(row)[:2]
        (there,) = [one for one in written if all(one[name].split(" and")[0] == row[name] for name in first)]
        if not any("absurd" in cell for cell in there.values()):
            for name in set(row) - _OF_A_MACHINE:
                assert there[name] == row[name], (row, name)


@pytest.mark.parametrize(
    ("d", "protocols"),
    [
        ("10^4", ["secagg+", "oneshot"]),
        *[
            pytest.param(d, ["secagg", "secagg+", "oneshot", "threshold_ckks"], marks=pytest.mark.long)
            for d in _LENGTHS
        ],
    ],
)
def test_sizes_and_bytes_of_flat_rounds_are_todays(d: str, protocols: list[str]) -> None:
    clients = [10**3, 10**4] if len(protocols) == 2 else [10**3, 10**4, 10**5, 10**6]
    computed = parsed(flat_table(protocols, clients, _LENGTHS[d], _ANY).partition("\n\n")[2].strip())
    possible = [row for row in computed if row["parameters"] and row["up"]]
    same_but_for_seconds(table(f"**Flat rounds, d = {d}, 16-bit values**"), possible)


@pytest.mark.parametrize(
    ("n", "protocols", "sizes"),
    [
        (7, ["secagg+"], [4000]),
        *[
            pytest.param(n, ["secagg", "secagg+", "oneshot"], [250, 1000, 4000], marks=pytest.mark.long)
            for n in (6, 7, 8)
        ],
    ],
)
def test_sizes_and_bytes_of_trees_are_todays(n: int, protocols: list[str], sizes: list[int]) -> None:
    computed = parsed(tree_table(protocols, 10**n, 10**6, sizes, _ANY).partition("\n\n")[2].strip())
    rows = [row for row in computed if row["cohort"] != "flat"]
    same_but_for_seconds(table(f"**Trees over 10^{n} clients, d = 10^6**"), rows)
