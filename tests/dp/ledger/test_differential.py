"""Two auditors, one answer: whatever the owner writes into an entry and signs again, both accept it or both refuse it.

Every field of every kind of entry is left out, repeated elsewhere, and replaced by what does not belong there: other
types, truth values for numbers, zero, less, too much, text that is almost right. What both accept is looked at, too: it
is what stands on the owner's word, and has a meaning.

The one difference that is meant does not show here, since running sums would not fit: a release that is charged above
its cost, which the stand-alone auditor lets pass (docs/ledger.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp import verify_ledger
from dp.events import (
    DiscreteGaussians,
    DiscreteLaplace,
    Everyone,
    FixedSizeSample,
    Gaussian,
    Guarantee,
    Relation,
    Release,
    Selection,
    Skellam,
    Trust,
)
from dp.filter import Budget, Kind
from dp.ledger import Steps
from dp.ledger.entries import canonical, cost_of, from_facts, parse
from dp.ledger.file import read
from dp.ledger.proofs import Tree
from dp.ledger.state import START, Row, replay
from dp.secure_sum import SecureSum, Signed
from secagg.errors import UsageError
from tests.controls import switch_off
from tests.scenes import ledger as scene
from tests.scenes.ledger import (
    EXAMPLE,
    PLANNED,
    dated,
    dated_happened,
    ended,
    happened,
    new,
    ours,
    planned,
    step,
    theirs,
    turn,
    turn_happened,
)

ROOMY = Budget(Fraction(30), Fraction(1, 10), slack=Fraction(1, 10**3))
EXACT = replace(ROOMY, order=0, kind=Kind.GDP)
LOCAL = replace(EXAMPLE, relation=Relation.REPLACE_ONE)
CENTRAL = replace(EXAMPLE, trust=Trust.CENTRAL)


def sums(
    path: Path, noise: Any, guarantee: Guarantee = scene.USER, budget: Budget = scene.LARGE, **more: Any
) -> list[Row]:
    ledger = new(path, budget=budget, guarantee=guarantee)
    ledger.reserve(planned(noise=noise, **more))
    ledger.commit(happened(noise=noise, signers=2, **more))
    ledger.reserve(planned(1, noise=noise, **more))
    ledger.abort(planned(1, noise=noise, **more), "too few")
    ledger.close()
    return read(path)


def of_turns(path: Path) -> list[Row]:
    ledger = new(path, budget=EXACT, turns=scene.TURNS)
    for number in range(2):
        ledger.reserve(turn(number))
        ledger.commit(turn_happened(number))
    ledger.reserve(turn(2))
    ledger.abort(turn(2), "too few")
    ledger.close()
    return read(path)


def of_arrivals(path: Path) -> list[Row]:
    ledger, names = new(path, budget=EXACT, arrivals=scene.ARRIVALS), scene.ARRIVALS.names
    for number, some in enumerate((names[:10], names[5:])):
        what = scene.arrived(number, some)
        ledger.reserve(what)
        ledger.commit(scene.arrival_happened(what))
    ledger.close()
    return read(path)


def of_windows(path: Path) -> list[Row]:
    ledger = new(path, budget=EXACT, guarantee=scene.WEEKLY, window=scene.WINDOW)
    for number in range(3):
        ledger.reserve(dated(number))
        ledger.commit(dated_happened(number))
    ledger.reserve(dated(3))
    ledger.abort(dated(3), "too few")
    ledger.close()
    return read(path)


def of_timed_steps(path: Path) -> list[Row]:
    guarantee = replace(scene.WEEKLY, trust=Trust.CENTRAL)
    ledger = new(path, budget=EXACT, guarantee=guarantee, window=scene.WINDOW)
    for time in (5, 7):
        ledger.charge(replace(GAUSSIANS, guarantee=guarantee), 2, 1600, time=time)
    ledger.close()
    return read(path)


def steps(path: Path, event: Any, budget: Budget = ROOMY, samples: int = 3) -> list[Row]:
    ledger = new(path, budget=budget, guarantee=event.guarantee)
    ledger.charge(event, 2, samples)
    ledger.close()
    return read(path)


def scheduled(path: Path) -> list[Row]:
    ledger = new(path, budget=replace(ROOMY, order=0, kind=Kind.SCHEDULE), guarantee=EXAMPLE)
    ledger.reserve(Steps("schedule", step("3", "1"), 5, 3))
    ledger.charge(step("3", "1"), 2)
    ledger.charge(step("3", "1"), 2)
    ledger.close()
    return read(path)


LAPLACE = Release(DiscreteLaplace(Fraction(31, 3), 2), Everyone(), CENTRAL)
SKELLAM = Release(Skellam(Fraction(10**6, 7), 12_000, 3_000), Everyone(), CENTRAL)
GAUSSIANS = Release(DiscreteGaussians(Fraction(72), 8, 100, 12), Everyone(), CENTRAL)
POISSON = step("3", "1/10")
FIXED = Release(Gaussian(Fraction(6)), FixedSizeSample(1, 50), LOCAL)
KINDS: dict[str, Any] = {
    "skellam": lambda path: sums(path, scene.SKELLAM),
    "gaussians": lambda path: sums(path, scene.GAUSSIANS),
    "silos": lambda path: sums(path, scene.SKELLAM, scene.INSIDE, users=200, overlap=2, rounding="nearest"),
    "sampled": lambda path: sums(path, scene.GAUSSIANS, scene.INSIDE, users=200, sampled=Fraction(1, 4)),
    "gdp": lambda path: sums(path, scene.GAUSSIANS, budget=EXACT),
    "turns": lambda path: of_turns(path),
    "arrivals": lambda path: of_arrivals(path),
    "windows": lambda path: of_windows(path),
    "windows of steps": lambda path: of_timed_steps(path),
    "gdp steps": lambda path: steps(path, GAUSSIANS, budget=EXACT, samples=1600),
    "laplace": lambda path: steps(path, LAPLACE),
    "skellam steps": lambda path: steps(path, SKELLAM),
    "gaussian steps": lambda path: steps(path, GAUSSIANS),
    "poisson": lambda path: steps(path, POISSON),
    "selection": lambda path: steps(path, Selection(POISSON, 5, Fraction(3))),
    "fixed": lambda path: steps(path, FIXED),
    "schedule": scheduled,
}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in an entry, what holds values and what is one; of a list the first and the last."""
    if at:
        yield at
    if isinstance(value, dict):
        for name, item in value.items():
            yield from places(item, (*at, name))
    elif isinstance(value, list):
        for index in {0, len(value) - 1} if value else ():
            yield from places(value[index], (*at, index))


OTHERS: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        1 << 31,
        1 << 32,
        1 << 64,
        10**30,
        -(10**30),
        [],
        {},
        [[]],
        {"kind": "Release"},
    ),
    *("", "x", "0", "1", "-1", "1/0", "2/4", "1/1", "007", "1e9", "0x10", "\u0661", "1_0", "a" * 1001, "9" * 5000),
    *("silo", "device", "nearest"),
    *(
        "user",
        "user-window",
        "example",
        "local",
        "central",
        "distributed",
        "zero-out",
        "Everyone",
        "server",
        "nobody",
        "commit",
    ),
    *("1/3", "1000000000000000000000000", "00", "ab" * 16, "ab" * 32),
]


def others(value: Any) -> Iterator[Any]:
    yield from OTHERS
    yield [value]
    yield {"value": value}
    if type(value) is int:
        yield from (value + 1, value - 1, -value, 2 * value, str(value), bool(value))
    elif isinstance(value, str):
        yield from (value.upper(), value + " ", " " + value, value + "0", value[:-1], value + "\n", "0" + value)
    elif isinstance(value, list):
        yield from (value[::-1], value[:-1], value + value[-1:], [None] * len(value), [True] * len(value))
        yield from ([0] * len(value), ["1"] * len(value), [1 << 70] * len(value), {"0": value})
    elif isinstance(value, dict):
        yield from ({**value, "more": 1}, list(value), list(value.values()))
    elif isinstance(value, bool):
        yield from (not value, int(value), int(not value))


MISSING = object()


def put(body: Any, at: tuple[Any, ...], value: Any) -> None:
    *way, last = at
    for step_ in way:
        body = body[step_]
    if value is MISSING:
        del body[last]
    else:
        body[last] = value


def inside(body: Any, at: tuple[Any, ...]) -> Any:
    for step_ in at:
        body = body[step_]
    return body


def resigned(rows: list[Row], changes: list[tuple[int, tuple[Any, ...], Any]]) -> list[Row]:
    """As ``forged``, but that number and link to the entry before can be lies, too."""
    bodies, made, tree = [parse(body) for body, _ in rows], list[bytes](), Tree()
    for number, body in enumerate(bodies):
        body["previous"] = (tree.root if made else START).hex()
        for where, at, value in changes:
            if where == number:
                put(body, at, value)
        made.append(canonical(body))
        tree = tree.with_leaf(made[-1])
    return ended(made)


def cases(rows: list[Row]) -> Iterator[list[tuple[int, tuple[Any, ...], Any]]]:
    """One change in the last of these entries; and the same one in what was reserved, if it is a commit."""
    last, body = len(rows) - 1, parse(rows[-1][0])
    for at in places(body):
        value = inside(body, at)
        options = [*others(value), *([MISSING] if isinstance(at[-1], str) else [])]
        for other in options:
            if other is MISSING or type(other) is not type(value) or other != value:
                yield [(last, at, other)]
                if body["phase"] == "commit" and at[0] == "sum" and not {*at[1:2]} & AT_COMMIT:
                    yield [(last - 1, at, other), (last, at, other)]


AT_COMMIT = {*verify_ledger.AT_COMMIT.split()}
MEANT: dict[str, Any] = {
    **dict.fromkeys(("run", "elsewhere", "reason", "name", "release"), lambda v: type(v) is str and 0 < len(v) <= 1000),
    "data": lambda v: type(v) is str and len(bytes.fromhex(v)) in (0, 32) and v == v.lower() and " " not in v,
    "unit": lambda v: v in ("user", "example"),
    "relation": lambda v: v in ("zero-out", "replace-one", "add-or-remove"),
    "trust": lambda v: v in ("local", "central", "distributed"),
    "session": lambda v: type(v) is str and len(bytes.fromhex(v)) == 16 and v == v.lower(),
    "round": lambda v: type(v) is int and 0 <= v < 1 << 32,
    "roster": lambda v: type(v) is str and len(bytes.fromhex(v)) == 32 and v == v.lower(),
    **dict.fromkeys(("turns", "arrivals"), lambda v: v is None),  # as long as there is no sum, like these
    "members": lambda v: v == [],  # but in a ledger of arrivals, where others are of another roster
    "window": lambda v: False,
    **dict.fromkeys(("length", "kept", "every"), lambda v: type(v) is int and 1 <= v <= 1 << 40),
    "start": lambda v: type(v) is int and 0 <= v <= 1 << 40,
    "time": lambda v: type(v) is int and 0 <= v <= 1 << 73,
    "names": lambda v: (type(v) is list and v == sorted({*v})) or (type(v) is str and 0 < len(v) <= 1000),
    "keys": lambda v: (type(v) is list and len({*v}) == len(v)) or (type(v) is str and len(bytes.fromhex(v)) == 32),
    "beacon": lambda v: type(v) is str and 0 < len(bytes.fromhex(v)) <= 64,
    "size": lambda v: type(v) is int and 2 <= v <= len(scene.TURNS.names),
    "clip_l2": lambda v: type(v) is str and Fraction(v) > 0,
    "scale": lambda v: type(v) is str and Fraction(v) > 0,
    "beta": lambda v: type(v) is str and 0 <= Fraction(v) < 1,
    "rotated": lambda v: type(v) is bool,
    "weight_bound": lambda v: type(v) is int and 1 <= v < 1 << 31,
    "holder": lambda v: v in ("device", "silo"),  # as long as there is no sum
    "users": lambda v: type(v) is int and 1 <= v < 1 << 31,
    "overlap": lambda v: type(v) is int and 1 <= v <= PLANNED,
    "rounding": lambda v: v in ("stochastic", "nearest", "exact"),
    "signers": lambda v: type(v) is int and 1 <= v <= PLANNED,
    "ring_bits": lambda v: type(v) is int and 2 <= v <= 64,
    "l1": lambda v: type(v) is int and v > 0,
    **dict.fromkeys(("dimension", "draws"), lambda v: type(v) is int and v > 0),
    "signatures": lambda v: type(v) is list and 0 < len(v) == len({signed["key"] for signed in v}),
}
"""What an owner may write where nobody can tell, and what it means there."""


def undercharged(rows: list[Row]) -> bool:
    """What was charged in the last entry is less than what our own accountant says, by more than floating point is."""
    body = parse(rows[-1][0])
    what = from_facts(body)
    genesis = replay(rows).genesis
    cost = cost_of(what, genesis.guarantee, genesis.budget.kind)
    count = what.count if isinstance(what, Steps) else 1
    return any(
        own is None or (charged is not None and charged < own * (1 - 1e-8) - 3 * count)
        for charged, own in zip(body["cost"], cost.amounts, strict=True)
    )


def differences(rows: list[Row], part: int, parts: int) -> tuple[int, list[str]]:
    found, accepted = list[str](), 0
    for number, changes in enumerate(cases(rows)):
        if number % parts != part:
            continue
        lie = resigned(rows, changes)
        one, other = ours(lie), theirs(lie)
        (_, at, value) = changes[-1]
        name = next(step_ for step_ in reversed(at) if isinstance(step_, str))
        if bool(one) != bool(other):
            if "charges something else than it costs" in one and not undercharged(lie):
                continue
            found.append(f"{len(changes)} {at} {value!r}: {one!r} {other!r}")
        elif not one:
            accepted += 1
            if name not in MEANT or value is MISSING or not MEANT[name](value) or (at[0], name) == ("sum", "dimension"):
                found.append(f"{len(changes)} {at} {value!r} is accepted by both")
    return accepted, found


PARTS = 499
"""A prime, so that a part is not always the same kind of change. ``long`` does them all."""


@pytest.mark.thinned(4)
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_all_changes(kind: str, tmp_path: Path) -> None:
    agree(kind, tmp_path, 0, PARTS)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_all_changes(kind: str, tmp_path: Path) -> None:
    agree(kind, tmp_path, 0, 1)


def agree(kind: str, folder: Path, part: int, parts: int) -> None:
    rows = KINDS[kind](folder / "ledger.db")
    assert (ours(rows), theirs(rows)) == ("", "")
    for last in range(len(rows)):
        _, found = differences(rows[: last + 1], part, parts)
        assert found == []


KNOWN: list[tuple[int, tuple[Any, ...], Any]] = [
    *[(2, ("sum", "ring_bits"), value) for value in (0, -1, 1, 65, 10**30, True)],
    *[(2, ("sum", "round"), value) for value in (-1, 1 << 32, False)],
    *[(2, ("sum", "weight_bound"), value) for value in (0, 1 << 31, True)],
    *[(2, ("sum", "users"), value) for value in (1, -1, 1 << 31, False, None)],
    *[(2, ("sum", "overlap"), value) for value in (0, 2, True)],
    *[(2, ("sum", "rounding"), value) for value in ("", "up", 1)],
    *[(2, ("sum", "sampled"), value) for value in ("0", "1/2", "5/4", "2/2", 1, None)],
    *[(0, ("holder",), value) for value in ("cloud", "", None, MISSING)],
    *[(2, ("sum", name), value) for name in ("clip_l2", "scale") for value in ("0", "2/1")],
    *[(2, ("sum", "beta"), value) for value in ("1", "7/3", "0/1")],
    *[(2, ("sum", "session"), value) for value in ("", "00" * 15, "AB" * 16, "00 " * 16)],
    *[(2, ("sum", "rotated"), value) for value in (0, 1, "true", None)],
    *[(2, ("sum", "noise", "colluders"), True), (2, ("sum", "signatures", 0, "name"), "")],
    *[
        (0, (name,), value)
        for name in ("run", "elsewhere")
        for value in ("", "a" * 1001, "\ud800", "a\udfff", 1, None, MISSING)
    ],
    *[(0, ("data",), value) for value in ("00", "zz" * 32, 1, None, "AB" * 32, MISSING)],
    *[(0, ("unit",), value) for value in ("cohort", "", None, True)],
    *[(0, ("trust",), "nobody"), (0, ("schema",), True), (0, ("number",), False), (1, ("number",), True)],
    *[(0, ("limits", 92), 1), (0, ("samples_limit",), 1), (3, ("release",), ""), (1, ("cost", 0), True)],
    *[(1, ("epsilon_before",), False), (1, ("samples",), -1), (4, ("reason",), ""), (4, ("reason",), 3)],
    *[(4, ("sum",), {}), (1, ("steps",), {}), (4, ("samples",), 0)],
]
"""Of the ledger of Skellam sums: what one of the two once took."""


def known(rows: list[Row], number: int, at: tuple[Any, ...], value: Any) -> list[Row]:
    everywhere = [1, 2] if number == 2 and at[1] not in AT_COMMIT else [number]
    return resigned(rows[: number + 1], [(place, at, value) for place in everywhere])


@pytest.fixture(scope="module")
def skellam(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    rows: list[Row] = KINDS["skellam"](tmp_path_factory.mktemp("ledger") / "ledger.db")
    return rows


@pytest.mark.parametrize(("number", "at", "value"), KNOWN, ids=[f"{one[1]} {one[2]!r:.9}" for one in KNOWN])
def test_what_has_no_meaning_is_refused_by_both(
    number: int, at: tuple[Any, ...], value: Any, skellam: list[Row]
) -> None:
    lie = known(skellam, number, at, value)
    assert ours(lie)
    assert theirs(lie)


@pytest.mark.parametrize("at", [("limits", 0), ("limits", 92), ("samples_limit",)])
def test_limits_are_exact(at: tuple[Any, ...], skellam: list[Row]) -> None:
    """To the last unit, and to the last sample."""
    value = inside(parse(skellam[0][0]), at)
    for other in (value - 1, value + 1):
        lie = known(skellam, 0, at, other)
        assert ours(lie)
        assert theirs(lie)


def test_controls(skellam: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """With one check off each accepts what the other refuses."""
    rings = known(skellam, 2, ("sum", "ring_bits"), 0)
    with monkeypatch.context() as patched:
        switch_off(patched, SecureSum, "__post_init__", "not _LEAST_BITS <= self.ring_bits <= _MOST_BITS")
        assert not ours(rings)
        assert theirs(rings)
    names = known(skellam, 2, ("sum", "signatures", 0, "name"), "")
    with monkeypatch.context() as patched:
        switch_off(patched, Signed, "__post_init__", "check_text(self.name)", "None")
        assert not ours(names)
        assert theirs(names)
    for what, lie in {
        "text": known(skellam, 0, ("run",), ""),
        "number": known(skellam, 1, ("number",), True),
        "truth": known(skellam, 2, ("sum", "rotated"), 1),
        "hex": known(skellam, 2, ("sum", "session"), "AB" * 16),
    }.items():
        with monkeypatch.context() as patched:
            patched.setitem(verify_ledger.WHAT, what, lambda value: True)
            assert ours(lie)
            assert not theirs(lie)


BEYOND = Release(Gaussian(Fraction(10**30)), FixedSizeSample(1, 50), LOCAL)


@pytest.mark.long
def test_numbers_beyond_floating_point_are_refused_in_an_orderly_way(tmp_path: Path) -> None:
    """Where dp-accounting has no number left, the writer's ledger says so, and the reader's."""
    ledger = new(tmp_path / "ledger.db", budget=ROOMY, guarantee=LOCAL)
    with pytest.raises(UsageError, match="beyond floating point"):
        ledger.charge(BEYOND)
    ledger.close()
    rows = KINDS["fixed"](tmp_path / "fixed.db")[:2]
    lie = resigned(rows, [(1, ("steps", "event", "mechanism", "noise_multiplier"), str(10**30))])
    assert "beyond floating point" in ours(lie)
    assert theirs(lie)
