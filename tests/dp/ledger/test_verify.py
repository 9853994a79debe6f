"""Two auditors, ours and the stand-alone one, against ledgers that were altered, also by their owner.

``both`` asks the two and demands that they agree. ``scene.forged`` is what the owner can do: write what it likes, and
number, chain and sign it as it should be.
"""

from __future__ import annotations

import ast
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dp import filter as filters
from dp import verify_ledger
from dp.accountants import rdp
from dp.events import (
    DiscreteGaussians,
    DiscreteLaplace,
    Everyone,
    FixedSizeSample,
    Gaussian,
    Guarantee,
    PoissonSample,
    Relation,
    Release,
    Selection,
    Skellam,
    Trust,
    Unit,
    to_record,
)
from dp.filter import Budget, Kind
from dp.ledger import Ledger, Steps, entries, state
from dp.ledger import verify as verifying
from dp.ledger.file import read
from dp.ledger.state import Row, replay
from dp.ledger.verify import book, compare, verify
from dp.secure_sum import SecureSum
from dp.verify_ledger import FAILED, Given, columns, statement
from secagg.crypto import curve25519, keys
from secagg.errors import PeerError, StorageError, UsageError
from tests.controls import switch_off
from tests.reference import ed25519
from tests.scenes import ledger as scene
from tests.scenes.ledger import (
    CLIENT,
    EXAMPLE,
    KEY,
    ended,
    exported,
    filled,
    forged,
    happened,
    new,
    note,
    planned,
    signed,
    step,
)

STAND_ALONE = Path(verify_ledger.__file__)


def longer(*values: Any) -> Any:
    """What ``make test-long`` alone looks at."""
    return pytest.param(*values, marks=pytest.mark.long)


def problems(rows: list[Row], head: bytes | None = None) -> list[str]:
    return list(verify_ledger.problems(exported(rows), KEY.public, head))


def ours(rows: list[Row], head: bytes | None = None) -> str:
    try:
        verify(rows, KEY.public, head)
    except PeerError as error:
        return str(error)
    return ""


def both(rows: list[Row], head: bytes | None = None) -> str:
    """What is wrong, as both auditors say; empty if they find nothing."""
    one, other = ours(rows, head), problems(rows, head)
    assert bool(one) == bool(other), (one, other)
    return one


@pytest.fixture(scope="module", autouse=True)
def signatures_once() -> Iterator[None]:
    """The same few entries are in most of these ledgers: a signature that is good need not be verified again."""
    with keys.verifying_once(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_ledger, "check_signature", cache(verify_ledger.check_signature))
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of all tests that alter one; made once, and copied."""
    path = tmp_path_factory.mktemp("honest") / "ledger.db"
    filled(path).close()
    return path


@pytest.fixture
def rows(honest: Path, path: Path) -> list[Row]:
    shutil.copy(honest, path)
    return read(path)


@pytest.fixture(scope="module")
def made_of_steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Row, ...]:
    path = tmp_path_factory.mktemp("steps") / "ledger.db"
    budget = Budget.suited(step(), Fraction(3), Fraction(1, 10**5), slack=Fraction(0))
    ledger = new(path, guarantee=EXAMPLE, budget=budget)
    ledger.charge(step(), 50)
    ledger.reserve(Steps("later", Selection(step("3"), 20, Fraction(3))))
    ledger.close()
    return tuple(read(path))


@pytest.fixture
def steps(made_of_steps: tuple[Row, ...]) -> list[Row]:
    """A ledger of local training."""
    return list(made_of_steps)


def gaussian_ledger(path: Path, **changes: Any) -> list[Row]:
    """Two sums under a budget of kind gdp, one of them committed."""
    ledger = new(path, budget=replace(scene.BUDGET, order=0, kind=Kind.GDP))
    for number in (0, 1):
        ledger.reserve(planned(number, noise=scene.GAUSSIANS))
    ledger.commit(happened(noise=scene.GAUSSIANS, gone=[3]))
    ledger.close()
    return read(path)


def test_an_honest_ledger_of_kind_gdp(path: Path) -> None:
    rows = gaussian_ledger(path)
    assert both(rows, replay(rows).head) == ""
    book = verify(rows)
    assert book.filter.reached is not None
    assert 0 < book.filter.reached < 8 * 10**12


@pytest.mark.parametrize(
    ("entry", "change", "said", "theirs"),
    [
        (0, lambda body: body.update(limits=[body["limits"][0] + 1]), "altered", "the limit does not follow"),
        (0, lambda body: body.update(limits=[body["limits"][0] - 1]), "altered", "the limit does not follow"),
        (0, lambda body: body.update(kind="renyi"), "altered", "is of another version"),
        (0, lambda body: body.update(kind="renyi", accountant="rdp/2"), "altered", "is of another version"),
        (0, lambda body: body.update(order=7), "does not begin", "is no budget"),
        (0, lambda body: body.update(samples_limit=10**22), "altered", "samples_limit does not follow"),
        (1, lambda body: body.update(cost=[body["cost"][0] - 1]), "altered", "something else than it costs"),
        (1, lambda body: body.update(cost=[0]), "altered", "something else than it costs"),
        (1, lambda body: body.update(cost=[None]), "must not be there", "something else than it costs"),
        (1, lambda body: body.update(cost=[]), "must not be there", "something else than it costs"),
        (1, lambda body: body.update(cost=[10**12] * 93), "must not be there", "something else than it costs"),
        (2, lambda body: body.update(epsilon_after=body["epsilon_after"] - 1), "altered", "not what the sums come to"),
        (2, lambda body: body.update(epsilon_after=0), "altered", "not what the sums come to"),
        (2, lambda body: body.update(epsilon_after=10**30), "altered", "not what the sums come to"),
        (3, lambda body: body.update(total=[body["total"][0] - 1]), "altered", "the sums are wrong"),
    ],
)
def test_lies_about_a_budget_of_kind_gdp(path: Path, entry: int, change: Any, said: str, theirs: str) -> None:
    lie = forged(gaussian_ledger(path), lambda bodies: change(bodies[entry]))
    assert said in both(lie)
    assert theirs in problems(lie)[0]


@pytest.mark.parametrize("noise", [scene.SKELLAM])
def test_a_budget_of_kind_gdp_takes_no_other_noise(path: Path, noise: Any) -> None:
    ledger = new(path, budget=replace(scene.BUDGET, order=0, kind=Kind.GDP))
    with pytest.raises(UsageError, match="no GDP bound is known"):
        ledger.reserve(planned(noise=noise))
    ledger.close()


@pytest.mark.parametrize(
    "event",
    [
        Release(Skellam(Fraction(10**6), 100, 100), Everyone(), scene.USER),
        Selection(Release(DiscreteGaussians(Fraction(10**6), 1, 1, 1), Everyone(), scene.USER), 1, Fraction(2)),
        Release(DiscreteGaussians(Fraction(10**6), 1, 1, 1), PoissonSample(Fraction(1, 2)), scene.USER),
    ],
)
def test_the_script_takes_no_other_noise_either(event: Any) -> None:
    guarantee = {"unit": "user", "relation": "zero-out", "trust": "distributed", "holder": "device"}
    with pytest.raises(verify_ledger.Problem, match="no bound"):
        verify_ledger.moved_squared(to_record(event), guarantee)


def test_discrete_gaussians_of_one_party_are_charged_with_their_samples(path: Path) -> None:
    """Steps with Gaussian noise are called what costs as much in mu^2, and takes samples of which none are counted."""
    one = Release(Gaussian(Fraction(10)), Everyone(), EXAMPLE)
    ledger = new(path, guarantee=EXAMPLE, budget=Budget(Fraction(8), Fraction(1, 10**5), Fraction(0), kind=Kind.GDP))
    ledger.reserve(Steps("later", one, 5))
    ledger.close()
    rows = read(path)
    assert both(rows) == ""

    def renamed(bodies: list[Any]) -> None:
        bodies[1]["steps"]["event"]["mechanism"] = to_record(DiscreteGaussians(Fraction(104), 1, 1, 1))

    lie = forged(rows, renamed)
    assert "charged with all samples" in both(lie)
    assert "is charged with fewer samples than were drawn" in problems(lie)[0]


def test_an_honest_ledger(rows: list[Row], steps: list[Row]) -> None:
    assert both(rows, replay(rows).head) == ""
    assert both(steps, replay(steps).head) == ""


@pytest.mark.parametrize(
    "noise", [scene.GAUSSIANS, replace(scene.SKELLAM, components=0), replace(scene.SKELLAM, components=3)]
)
def test_other_noise(path: Path, noise: Any) -> None:
    ledger = new(path)
    for number in range(2):
        ledger.reserve(planned(number, noise=noise))
        ledger.commit(happened(number, noise=noise, gone=range(number)))
    ledger.close()
    assert both(read(path)) == ""
    lie = forged(read(path), lambda bodies: bodies[4]["sum"].update(honest=bodies[4]["sum"]["honest"] + 1))
    assert both(lie)


# Every field


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values are; of a long list three."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*at, name))
    elif isinstance(value, list):
        for index in {0, len(value) // 2, len(value) - 1} if value else ():
            yield from leaves(value[index], (*at, index))
    else:
        yield at


OTHER = {
    "replace-one": "zero-out",
    "zero-out": "replace-one",
    "add-or-remove": "replace-one",
    "user": "example",
    "example": "user",
    "distributed": "local",
    "local": "central",
    "skellam": "discrete-gaussian",
    "commit": "abort",
    "reserve": "commit",
    "PoissonSample": "Everyone",
    "Everyone": "PoissonSample",
}


RATIONALS = {
    "epsilon",
    "delta",
    "slack",
    "units",
    "clip_l2",
    "scale",
    "beta",
    "variance",
    "variance_each",
    "variance_held",
}
RATIONALS |= {"variance_components", "noise_multiplier", "rate", "mean_runs"}


def altered(name: str, value: Any) -> Any:
    """Something else that could stand there."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value + 1
    if name in RATIONALS:
        return str(Fraction(value) * 3 / 2 or Fraction(1, 10**7))
    return OTHER.get(value, value[:-2] + ("00" if value[-2:] != "00" else "11"))


def alter(bodies: list[Any], number: int, at: tuple[Any, ...]) -> None:
    set_at(bodies[number], at, lambda value: altered(name_at(at), value))


def name_at(at: tuple[Any, ...]) -> str:
    return next(part for part in reversed(at) if isinstance(part, str))


def set_at(body: Any, at: tuple[Any, ...], change: Callable[[Any], Any]) -> None:
    for name in at[:-1]:
        body = body[name]
    body[at[-1]] = change(body[at[-1]])


ON_ITS_OWN_WORD = {"run", "elsewhere", "unit", "reason", "name"}
ON_ITS_OWN_WORD_UNTIL_COMMITTED = {
    *("session", "round", "roster", "clip_l2", "scale", "rotated", "beta", "weight_bound", "ring_bits", "signers")
}
"""In the plan, which ``dp`` cannot read: ``secagg ledger verify`` compares (tests/cli/test_ledger.py)."""
BY_CHAIN = {"number", "previous"}


EACH_KIND = (0, 1, 4, 8, 9)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("number", [number if number in EACH_KIND else longer(number) for number in range(10)])
def test_each_field_of_each_entry(rows: list[Row], number: int) -> None:
    """The owner changes one and signs again: noticed, unless the field stands on the owner's word.

    By default one entry of each kind: a genesis, a reservation, a commitment with a client missing, an abort, and a
    reservation that is still open. The long version changes all ten entries.
    """
    noticed, unnoticed = set(), set()
    for at in leaves(json.loads(rows[number][0])):
        if at[0] not in BY_CHAIN:
            found = both(forged(rows, lambda bodies, at=at: alter(bodies, number, at)))
            (noticed if found else unnoticed).add(name_at(at))
    uncommitted = number in (7, 9)
    allowed = ON_ITS_OWN_WORD | (ON_ITS_OWN_WORD_UNTIL_COMMITTED if uncommitted else set())
    assert unnoticed == (noticed | unnoticed) & allowed
    assert {entries.FIELDS[name] for name in unnoticed - ON_ITS_OWN_WORD_UNTIL_COMMITTED} <= {entries.Mark.ASSERTED}


@pytest.mark.thinned(2)
@pytest.mark.parametrize("number", range(4))
def test_each_field_of_steps(steps: list[Row], number: int) -> None:
    for at in leaves(json.loads(steps[number][0])):
        if name_at(at) not in BY_CHAIN | ON_ITS_OWN_WORD | {"release", "trust"}:
            assert both(forged(steps, lambda bodies, at=at: alter(bodies, number, at))), at


def places(body: bytes) -> set[tuple[Any, ...]]:
    """Of all values and of what holds them, but for the chain."""
    found = {at[:length] for at in leaves(json.loads(body)) for length in range(1, len(at) + 1)}
    return {at for at in found if at[0] not in BY_CHAIN}


def inside(value: Any, at: tuple[Any, ...]) -> Any:
    return inside(value[at[0]], at[1:]) if at else value


@pytest.mark.parametrize("number", [0, 1, 2, 8])
@pytest.mark.thinned(2)
def test_fields_more_or_less(rows: list[Row], number: int) -> None:
    before = rows[: number + 1]
    for at in places(rows[number][0]):
        if isinstance(at[-1], str):
            assert both(forged(before, lambda bodies, at=at: inside(bodies[number], at[:-1]).pop(at[-1]))), at
            assert both(forged(before, lambda bodies, at=at: inside(bodies[number], at[:-1]).update(more=1))), at


OTHERS = [None, [], {}, "x", -1, 10**30, True, "1e9", [None] * 93, [-5] * 93, ["1"] * 93]


@pytest.mark.thinned(4)
@pytest.mark.parametrize(
    ("number", "which"),
    [
        (number, which) if number in (2, which % 2) else longer(number, which)
        for number in range(3)
        for which in range(len(OTHERS))
    ],
)
def test_fields_of_other_types(rows: list[Row], number: int, which: int) -> None:
    """Refused in an orderly way, whatever stands there; the script does not judge what it does not compute with.

    By default each value stands in the fields of a commitment, and in turn in those of a genesis or a reservation; the
    long version puts each into all three.
    """
    value = OTHERS[which]
    for at in places(rows[number][0]):
        if inside(json.loads(rows[number][0]), at) not in (value, [value]):
            changed = forged(rows[: number + 1], lambda bodies, at=at: set_at(bodies[number], at, lambda _: value))
            said, noticed = ours(changed), problems(changed)
            if name_at(at) not in ON_ITS_OWN_WORD | ON_ITS_OWN_WORD_UNTIL_COMMITTED | {"trust"}:
                assert said, at
                assert noticed, at


# The chain


def test_entries_removed_repeated_or_out_of_order(rows: list[Row]) -> None:
    head = replay(rows).head
    for number in range(len(rows)):
        assert both(rows[:number] + rows[number + 1 :], head)
        assert both(rows[: number + 1] + rows[number:], head)
    for number in range(len(rows) - 1):
        assert both([*rows[:number], rows[number + 1], rows[number], *rows[number + 2 :]], head)


def test_even_if_the_owner_signs_again(rows: list[Row]) -> None:
    """But a release that is left out from beginning to end only shows to who remembers a head, or has a ledger too."""
    for number in range(1, len(rows) - 1):
        removed = json.loads(rows[number][0])
        harmless = removed["phase"] == "commit" and removed["epsilon_before"] == removed["epsilon_after"]
        assert bool(both(forged(rows, lambda bodies, n=number: bodies.pop(n)))) != harmless
    head = replay(rows).head
    shorter = forged(rows[:-1], lambda bodies: None)
    assert both(shorter) == ""
    assert "pinned head" in both(shorter, head)


def test_cut_short_by_who_has_not_the_key(rows: list[Row]) -> None:
    """Whatever it begins with, nobody has signed that it ends there; the one signature is that of the whole."""
    end = rows[-1][1]
    for length in range(1, len(rows)):
        assert "cut short" in both(rows[:length])
        (body, _) = rows[length - 1]
        assert "bad signature" in both([*rows[: length - 1], (body, end)])
    assert "signed as its last" in both([*rows[:-2], (rows[-2][0], end), rows[-1]])


def test_control_each_entry_signed_by_itself(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """As ledgers were once: each beginning of one is a ledger."""
    linked = [ended([body for body, _ in rows[:length]])[-1] for length in range(1, len(rows) + 1)]
    assert both(linked)
    switch_off(monkeypatch, state.LedgerState, "check_signed", "any(earlier)")
    monkeypatch.setattr(verify_ledger, "need", lambda condition, problem: None)
    for length in range(1, len(rows) + 1):
        verify(linked[:length], KEY.public)
        assert problems(linked[:length]) == []


def test_another_signature(rows: list[Row]) -> None:
    *others, (body, signature) = rows
    for wrong in (bytes([signature[0] ^ 1, *signature[1:]]), b"", signature[:-1], signature + b"\0"):
        assert both([*others, (body, wrong)])
    for number, (body, _) in enumerate(others):
        assert both([*others[:number], (body, signature), *rows[number + 1 :]])


def test_another_key(rows: list[Row]) -> None:
    stolen = forged(rows, lambda bodies: bodies[0].update(owner=CLIENT.public.hex()), CLIENT)
    verify(stolen)
    assert "another key" in both(stolen)
    assert both(forged(rows, lambda bodies: None, CLIENT))


@pytest.mark.parametrize("check", ["key not in (None, state.genesis.owner)"])
def test_without_the_check_of_the_key(rows: list[Row], monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    switch_off(monkeypatch, state, "replay", check)
    state.replay(forged(rows, lambda bodies: bodies[0].update(owner=CLIENT.public.hex()), CLIENT), KEY.public)


def test_a_ledger_of_a_key_of_small_order(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can have written it: its end is signed without a key."""
    public = ed25519.encoded((0, ed25519.P - 1))
    *others, (last, _) = forged(rows[:2], lambda bodies: bodies[0].update(owner=public.hex()))
    end = note([others[0][0], last])
    made = [*others, (last, ed25519.forged(public, end))]
    with pytest.raises(PeerError, match="unusable Ed25519 public key"):
        verify(made)
    (found, *_) = verify_ledger.problems(exported(made), None, None)
    assert "under such a key anybody can sign" in found
    switch_off(monkeypatch, curve25519, "signed", "unusable(public)")
    monkeypatch.setattr(curve25519, "_sodium", lambda: None)
    verify(made)
    monkeypatch.setattr(verify_ledger, "SMALL_ORDER", set())
    assert not [problem for problem in verify_ledger.problems(exported(made), None, None) if "sign" in problem]


def test_a_signature_that_libraries_differ_in(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner made R the neutral point: then some would take the ledger for signed, and others not."""
    *others, (last, _) = rows[:2]
    end = note([others[0][0], last])
    odd = ed25519.signed_by(ed25519.scalar_of(KEY.secret), KEY.public, 0, ed25519.encoded(ed25519.ZERO), end)
    made = [*others, (last, odd)]
    assert "bad signature" in ours(made)
    assert [problem for problem in problems(made) if "sign" in problem]
    switch_off(monkeypatch, curve25519, "signed", "unusable(signature[:32])")
    monkeypatch.setattr(curve25519, "_sodium", lambda: None)
    verify(made, KEY.public)
    switch_off(monkeypatch, verify_ledger, "check_signature", "usable(signature[:32])", "True")
    assert not [problem for problem in problems(made) if "sign" in problem]


def test_the_two_lists_of_small_orders_are_one() -> None:
    assert verify_ledger.SMALL_ORDER == curve25519.SMALL_ORDER
    assert verify_ledger.PRIME == ed25519.P


def test_an_empty_ledger() -> None:
    assert both([])


def test_a_second_genesis(rows: list[Row]) -> None:
    assert both([*rows, rows[0]])
    assert both(forged(rows, lambda bodies: bodies.append(dict(bodies[0]))))


# An owner who lies, with the writer's own code and one rule taken out of it


def lied(path: Path, lie: Callable[[Ledger], None], monkeypatch: pytest.MonkeyPatch, *off: Any) -> str:
    with monkeypatch.context() as patch:
        for owner, name, condition, instead in off:
            switch_off(patch, owner, name, condition, instead)
        ledger = new(path)
        ledger.reserve(planned())
        lie(ledger)
        ledger.close()
    return both(read(path))


def test_beyond_the_budget(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lie(ledger: Ledger) -> None:
        for number in range(1, 20):
            ledger.reserve(planned(number))

    off = (filters.Filter, "reserve", "not self._within(total)", "False")
    assert "epsilon could reach" in lied(path, lie, monkeypatch, off)


def test_more_samples_than_the_slack_allows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off = (filters.Filter, "reserve", "total.samples > self.samples", "False")
    monkeypatch.setattr(scene, "BUDGET", replace(scene.BUDGET, slack=Fraction(0)))
    monkeypatch.setattr(scene.new, "__kwdefaults__", {**(scene.new.__kwdefaults__ or {}), "budget": scene.BUDGET})
    assert "samples" in lied(path, lambda ledger: None, monkeypatch, off)


def test_more_than_was_reserved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another, larger norm is committed for the same plan."""
    off = (
        (filters.Filter, "commit", "actual > allowed", "False"),
        (state.LedgerState, "commit", "worst(what) != record.reserved", "False"),
    )
    larger = signed(replace(happened(), l2_squared=20_000), range(3))
    assert "other facts" in lied(path, lambda ledger: ledger.commit(larger), monkeypatch, *off)


def test_fewer_survivors_than_the_noise_allows_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five signed; six are claimed, with a bit for one more, for that is what the noise allows for."""
    five = happened(gone=range(5))
    claimed = replace(five, survivors=6, bitmap=(int.from_bytes(five.bitmap, "little") | 1).to_bytes(2, "little"))
    assert "bad signature" in lied(path, lambda ledger: ledger.commit(claimed), monkeypatch)


def test_as_many_survivors_as_there_are_bits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six are claimed, and five have a bit: the signatures are good."""
    off = (entries, "check_agreed", "int.from_bytes(what.bitmap, 'big').bit_count() != what.survivors", "False")
    claimed = signed(replace(happened(gone=range(5)), survivors=6), range(5, 8))
    with monkeypatch.context() as patch:
        switch_off(patch, *off)
        patch.setattr(state, "check_agreed", entries.check_agreed)
        ledger = new(path)
        ledger.reserve(planned())
        ledger.commit(claimed)
        ledger.close()
        assert ours(read(path)) == ""
    assert "bitmap" in both(read(path))


def test_survivors_who_did_not_sign(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = happened()
    other = replace(happened(gone=[1]), signatures=honest.signatures)
    assert "bad signature [client-1]" in lied(path, lambda ledger: ledger.commit(other), monkeypatch)


@pytest.mark.parametrize("few", [0, 1])
def test_fewer_signatures_than_clients_insist_on(path: Path, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """One corrupt client would sign any set for who keeps the ledger."""
    with monkeypatch.context() as patch:
        patch.setattr(state, "check_agreed", lambda what: None)
        ledger = new(path)
        ledger.reserve(planned())
        ledger.commit(happened(signers=few))
        ledger.close()
        assert ours(read(path)) == ""
    assert f"{few} signed the survivors" in both(read(path))


@pytest.mark.parametrize("cohort", [b"", bytes(31)])
def test_no_cohort(path: Path, monkeypatch: pytest.MonkeyPatch, cohort: bytes) -> None:
    monkeypatch.setattr(state, "check_agreed", lambda what: None)
    ledger = new(path)
    ledger.reserve(planned())
    ledger.commit(signed(replace(happened(), cohort=cohort), range(3)))
    ledger.close()
    monkeypatch.undo()
    assert "cohort" in both(read(path))


def test_a_cheaper_accountant(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that follows is consistent; only the divergences are a hundredth too small."""
    true = rdp.curve
    with monkeypatch.context() as patch:
        patch.setattr(rdp, "curve", lambda event: tuple(0.99 * value for value in true(event)))
        filled(path).close()
    assert "charges something else" in both(read(path))


def test_a_fresh_accountant_each_round(rows: list[Row]) -> None:
    """5.88 reported as 3.44: the running sum starts again."""

    def change(bodies: list[Any]) -> None:
        first = bodies[1]
        bodies[3] |= {name: first[name] for name in ("total", "total_samples", "epsilon_before", "epsilon_after")}

    assert both(forged(rows, change))


def test_a_ledger_of_no_noise(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative charge would give budget back."""
    filled(path).close()

    def change(bodies: list[Any]) -> None:
        bodies[-1]["cost"] = [-value for value in bodies[-1]["cost"]]

    assert "less than nothing" in both(forged(read(path), change))


@pytest.mark.parametrize("off", [-1, 1])
def test_steps_that_were_rounded_on_another_machine(path: Path, monkeypatch: pytest.MonkeyPatch, off: int) -> None:
    """Each of a million steps comes to a unit more, or less, there. Control: three units for all of them are too few;
    and who charges a thousandth too little is found out."""
    cheap, up = step("40", "1/100000"), filters._up
    ledger = new(path, guarantee=EXAMPLE)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(filters, "_up", lambda value: up(value) + off)
        ledger.charge(cheap, 10**6)
    ledger.close()
    assert both(read(path)) == ""
    with monkeypatch.context() as old:
        switch_off(old, verifying, "_close", "_ROUNDING * count", "_ROUNDING")
        assert "charges something else" in ours(read(path))
    other = new(path.with_name("less.db"), guarantee=EXAMPLE)
    monkeypatch.setattr(filters, "_up", lambda value: up(value * 0.999))
    other.charge(step("1", "1/100"), 10)
    other.close()
    monkeypatch.undo()
    assert both(read(path.with_name("less.db")))


def test_texts_of_any_characters(path: Path) -> None:
    text = "\ud7ff\ue000\uffff\U0001f600\n"
    Ledger.create(path, KEY, scene.BUDGET, scene.USER, run=text, elsewhere="-").close()
    assert both(read(path)) == ""


@pytest.mark.parametrize("text", ["\ud800", "half of it \udfff"])
def test_half_a_surrogate_pair_is_no_text(
    text: str, path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be written as JSON, and not shown. Control: both auditors would take it."""
    with pytest.raises(UsageError, match="surrogate"):
        Ledger.create(path.with_name("o.db"), KEY, scene.BUDGET, scene.USER, run=text, elsewhere="-")
    lie = forged(rows, lambda bodies: bodies[0].update(run=text))
    assert "surrogate" in both(lie)
    monkeypatch.setattr(state, "check_text", str)
    monkeypatch.setitem(verify_ledger.WHAT, "text", lambda value: type(value) is str)
    assert both(lie) == ""


def test_a_ledger_of_sums_that_clients_may_be_missing_from(
    path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can make one, and both auditors refuse one that says it is. Control: they would find nothing wrong."""
    with pytest.raises(UsageError, match="takes its noise along"):
        new(path.with_name("other.db"), guarantee=replace(scene.USER, relation=Relation.ADD_OR_REMOVE))
    lie = forged(rows, lambda bodies: bodies[0].update(relation="add-or-remove"))
    assert "takes its noise along" in both(lie)
    assert "takes its noise along" in problems(lie)[0]
    monkeypatch.setattr(Guarantee, "__post_init__", lambda self: None)
    condition = "(body['relation'], body['trust']) != ('add-or-remove', 'distributed')"
    switch_off(monkeypatch, verify_ledger.Audit, "begin", condition, "True")
    assert both(lie) == ""


USERS = {"users": 200, "overlap": 2}


def test_a_sum_of_another_holder(path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise for users inside silos is too little for whole silos, so neither is charged to a budget of the other: not
    by the writer, the reader or the two auditors. Control: without the checks all of them go along."""
    lie = forged(rows, lambda bodies: bodies[0].update(holder="silo"))

    def written() -> None:
        for guarantee, facts in ((scene.USER, USERS), (scene.INSIDE, {})):
            ledger = new(path.with_name(f"{guarantee.holder}.db"), guarantee=guarantee)
            try:
                for charge in (ledger.check, ledger.reserve):
                    charge(planned(**facts))
                ledger.commit(happened(**facts))
            finally:
                ledger.close()
                ledger.path.unlink()

    with pytest.raises(UsageError, match="a silo holds each unit of the sum, a device those of the guarantee"):
        written()
    with pytest.raises(PeerError, match="a device holds each unit of the sum, a silo those of the guarantee"):
        replay(lie, KEY.public)
    assert "a device holds each unit" in both(lie)
    assert "a device holds each unit" in problems(lie)[0]
    monkeypatch.setattr(SecureSum, "check_holder", lambda self, guarantee: None)
    assert ours(lie) == ""
    assert problems(lie)
    switch_off(monkeypatch, verify_ledger, "check_sum", "holder == guarantee['holder']", "True")
    assert both(lie) == ""
    written()


def test_the_holder_of_the_units_is_looked_at_in_a_record_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """``cost_of`` alone, as auditors call it."""
    with pytest.raises(UsageError, match="holds each unit"):
        entries.cost_of(planned(**USERS), scene.USER, Kind.RENYI)
    inside = entries.cost_of(planned(**USERS), scene.INSIDE, Kind.RENYI)
    assert inside == entries.cost_of(planned(), scene.USER, Kind.RENYI)


def test_no_examples_inside_silos(rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    lie = forged(rows, lambda bodies: bodies[0].update(holder="silo", unit="example"))
    assert "the unit inside a silo is a user" in both(lie)
    assert "the unit inside a silo is a user" in problems(lie)[0]
    monkeypatch.setattr(Guarantee, "__post_init__", lambda self: None)
    assert "a device holds each unit" in ours(lie)


# Formulas: the stand-alone auditor's against ours


LOCAL = replace(EXAMPLE, relation=Relation.REPLACE_ONE)
USER = scene.USER
EVENTS = [
    *(Release(Gaussian(Fraction(z)), Everyone(), LOCAL) for z in ("1/2", "7")),
    *(step(z, q) for z, q in (("1", "1/100"), ("1/2", "1/3"), ("40", "1/100000"), ("3", "1"))),
    *(Release(Gaussian(Fraction(z)), FixedSizeSample(m, n), LOCAL) for z, m, n in ((2, 10, 1000), (3, 5, 5))),
    Release(DiscreteLaplace(Fraction(31, 3), 2), Everyone(), LOCAL),
    Release(Skellam(Fraction(10**6, 7), 12_000, 3_000), Everyone(), USER),
    Release(Skellam(Fraction(9), 3, 3), Everyone(), replace(USER, relation=Relation.REPLACE_ONE)),
    Release(DiscreteGaussians(Fraction(81, 10), 1, 100, 12), Everyone(), USER),
    Release(DiscreteGaussians(Fraction(25_000), 50, 10**6, 12_000), Everyone(), USER),
    Release(DiscreteGaussians(Fraction(70), 5, 10**9, 3), Everyone(), replace(USER, relation=Relation.REPLACE_ONE)),
    Selection(step(), 300, Fraction(10)),
]
ANOTHER_SAMPLE = Release(Gaussian(Fraction(6)), FixedSizeSample(1, 50), LOCAL)


@pytest.mark.thinned(4)
@pytest.mark.parametrize("event", [*EVENTS, longer(ANOTHER_SAMPLE)], ids=str)
def test_two_implementations_agree(event: Any) -> None:
    """Of samples of a fixed size, which take seconds, two by default and a third in the long version."""
    guarantee = {name: value for name, value in to_record(event.guarantee).items() if name != "kind"}
    theirs = verify_ledger.curve(to_record(event), guarantee)
    assert theirs == pytest.approx(rdp.curve(event), rel=1e-8, abs=1e-12)


@pytest.mark.long
def test_where_dp_accounting_loses_its_digits_it_charges_more() -> None:
    """Differences of order 150 in floating point; ours is exact there. The auditor accepts what is above the truth."""
    event = Release(Gaussian(Fraction(200)), FixedSizeSample(3, 10), LOCAL)
    guarantee = {name: value for name, value in to_record(LOCAL).items() if name != "kind"}
    theirs, charged = verify_ledger.curve(to_record(event), guarantee), rdp.curve(event)
    assert charged[:30] == pytest.approx(theirs[:30], rel=1e-6)
    assert all(a >= b * (1 - 1e-9) for a, b in zip(charged, theirs, strict=True))
    assert max(a / b for a, b in zip(charged, theirs, strict=True)) > 2


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "Release", "mechanism": {"kind": "Skellam"}, "sampling": {"kind": "PoissonSample"}},
        {"kind": "Release", "mechanism": {"kind": "Gaussian"}, "sampling": {"kind": "FixedSizeSample"}},
        {"kind": "Release", "mechanism": {"kind": "Magic"}, "sampling": {"kind": "Everyone"}},
        {
            "kind": "Release",
            "mechanism": {
                "kind": "DiscreteGaussians",
                "variance": "79/10",
                "draws": 1,
                "dimension": 1,
                "l2_squared": 1,
            },
            "sampling": {"kind": "Everyone"},
        },
        {"kind": "Wish"},
    ],
)
def test_what_has_no_bound_is_refused(record: dict[str, Any]) -> None:
    guarantee = {"unit": "user", "relation": "zero-out", "trust": "central"}
    full = {"l1": 1, "l2_squared": 1, "noise_multiplier": "1", "variance": "1", "parties": 5, "dimension": 1}
    if "mechanism" in record:
        record = {**record, "mechanism": {**full, **record["mechanism"]}}
    with pytest.raises(verify_ledger.Problem):
        verify_ledger.curve({**record, "guarantee": {"kind": "Guarantee", **guarantee}}, guarantee)


# Two ledgers of the same releases


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Ledger, Ledger]:
    """A server's and a client's."""
    ledgers = new(tmp_path / "server.db"), new(tmp_path / "client.db", key=CLIENT)
    for ledger in ledgers:
        ledger.reserve(planned(0))
        ledger.commit(happened(0))
        ledger.reserve(planned(1))
    return ledgers


def compared(server: Ledger, client: Ledger) -> str:
    states = []
    for ledger in (server, client):
        ledger.close()
        states.append(verify(read(ledger.path)))
    try:
        compare(*states)
    except PeerError as error:
        return str(error)
    return ""


def test_they_agree(pair: tuple[Ledger, Ledger]) -> None:
    server, client = pair
    server.commit(happened(1, signers=6))
    server.reserve(planned(2))
    client.commit(happened(1, signers=2))
    assert compared(server, client) == ""


def test_a_client_that_dropped_out_has_no_commit(pair: tuple[Ledger, Ledger]) -> None:
    server, client = pair
    server.commit(happened(1))
    assert compared(server, client) == ""


def test_two_sets_of_survivors_are_a_fork(pair: tuple[Ledger, Ledger]) -> None:
    server, client = pair
    server.commit(happened(1, gone=[2]))
    client.commit(happened(1, gone=[3]))
    assert "a fork" in compared(server, client)


@pytest.mark.parametrize("how", ["never", "aborted"])
def test_a_release_that_the_server_does_not_own_up_to(pair: tuple[Ledger, Ledger], how: str) -> None:
    server, client = pair
    if how == "aborted":
        server.abort(planned(1), "it never happened")
    client.commit(happened(1))
    assert "is committed in the other ledger and not in this one" in compared(server, client)


def test_two_plans_for_one_round(pair: tuple[Ledger, Ledger]) -> None:
    server, client = pair
    other = planned(1, plan=b"another plan", plan_digest=entries.digest(entries.labels.PLAN, b"another plan"))
    client.reserve(other)
    agreed = replace(happened(1), plan=other.plan, plan_digest=other.plan_digest)
    client.commit(signed(agreed, range(1, 3)))
    server.commit(happened(1))
    assert "not in this one" in compared(server, client)


def test_another_charge_for_the_same(path: Path, tmp_path: Path) -> None:
    """Caught before, by recomputing; two accountants of different versions would show here."""
    filled(path).close()
    filled(tmp_path / "b.db").close()
    mine, other = replay(read(path)), replay(read(tmp_path / "b.db"))
    other.heads[0] = bytes(32)
    name, record = next(iter(other.records.items()))
    other.records[name] = replace(record, cost=record.cost + record.cost)
    with pytest.raises(PeerError, match="charged otherwise"):
        compare(mine, other)
    other.genesis = replace(other.genesis, guarantee=Guarantee(Unit.EXAMPLE, Relation.ZERO_OUT, Trust.DISTRIBUTED))
    compare(mine, other)


def test_copies_of_one_ledger(path: Path, tmp_path: Path) -> None:
    """A prefix is an older copy; anything else is a fork, and both are signed by the owner."""
    filled(path).close()
    shutil.copy(path, tmp_path / "older.db")
    shutil.copy(path, tmp_path / "fork.db")
    for name, number in ((path, 60), (tmp_path / "fork.db", 61)):
        ledger = Ledger.open(name, KEY)
        ledger.reserve(planned(number))
        ledger.close()
    newest, older, fork = (verify(read(file)) for file in (path, tmp_path / "older.db", tmp_path / "fork.db"))
    compare(newest, older)
    with pytest.raises(PeerError, match="an older copy of the other ledger, which has 1 more entries"):
        compare(older, newest)
    with pytest.raises(PeerError, match="a fork"):
        compare(newest, fork)


# Bits


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def flips_of_the_file(path: Path, rows: list[Row], bits: list[int]) -> tuple[int, int]:
    """(how many changed what the file says, how many hit unused bytes)."""
    data, copy, head, said, unused = path.read_bytes(), path.with_name("flipped.db"), replay(rows).head, 0, 0
    copy.write_bytes(data)
    with copy.open("r+b", buffering=0) as file:
        for bit in bits:
            file.seek(bit // 8)
            file.write(bytes([data[bit // 8] ^ 1 << bit % 8]))
            try:
                found = read(copy)
            except (PeerError, StorageError):
                found = []
            file.seek(bit // 8)
            file.write(data[bit // 8 : bit // 8 + 1])
            if found == rows:
                unused += 1
                continue
            said += 1
            if found:
                with pytest.raises(PeerError):
                    verify(found, KEY.public, head)
    assert copy.read_bytes() == data
    return said, unused


@pytest.mark.parametrize("count", [500, longer(1500)])
def test_bits_of_the_file(path: Path, rows: list[Row], count: int) -> None:
    """A bit anywhere: what the file says is unchanged, or it is refused. 500 bits by default, else 1500."""
    bits = random.Random(1).sample(range(8 * path.stat().st_size), count)
    said, unused = flips_of_the_file(path, rows, bits)
    content = sum(len(body) + len(signature) for body, signature in rows)
    assert said / (said + unused) > 0.95 * content / path.stat().st_size


@pytest.mark.long
def test_every_byte_of_the_file(path: Path, rows: list[Row]) -> None:
    rng = random.Random(5)
    flips_of_the_file(path, rows, [8 * byte + rng.randrange(8) for byte in range(path.stat().st_size)])


def test_a_table_that_begins_elsewhere(path: Path, rows: list[Row]) -> None:
    """One bit makes it a shorter ledger, whole in itself, were it not that SQLite finds pages that nobody uses."""
    data, copy = path.read_bytes(), path.with_name("flipped.db")
    root = data.index(b"entriesentries") + 14
    for bit in range(8 * root, 8 * root + 8):
        copy.write_bytes(flipped(data, bit))
        with pytest.raises(PeerError):
            read(copy)


def flips_of_the_export(rows: list[Row], bits: list[int]) -> None:
    data, head = exported(rows), replay(rows).head
    for bit in bits:
        assert list(verify_ledger.problems(flipped(data, bit), KEY.public, head)), bit


@pytest.mark.parametrize("count", [200, longer(500)])
def test_bits_of_the_export(rows: list[Row], count: int) -> None:
    """There are no unused bytes in it. 200 bits by default, else 500."""
    few = ended([body for body, _ in rows[:4]])
    flips_of_the_export(few, random.Random(2).sample(range(8 * len(exported(few))), count))


@pytest.mark.long
def test_every_byte_of_the_export(rows: list[Row]) -> None:
    rng, few = random.Random(6), ended([body for body, _ in rows[:4]])
    flips_of_the_export(few, [8 * byte + rng.randrange(8) for byte in range(len(exported(few)))])


@pytest.mark.parametrize("every", [293, longer(97)])
def test_a_cut_off_export(rows: list[Row], every: int) -> None:
    """At every 293rd byte by default, at every 97th in the long version."""
    data, head = exported(rows), replay(rows).head
    for length in range(0, len(data), every):
        assert list(verify_ledger.problems(data[:length], KEY.public, head))


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"{}", b"null", b"[]", b"\xff", b"[" * 10**5),
        *(b'{"body":%s,"signature":""}' % body for body in (b"{}", b"1e400", b"NaN", b"9" * 5000)),
    ],
)
def test_lines_that_are_no_entries(rows: list[Row], line: bytes) -> None:
    assert list(verify_ledger.problems(line + b"\n", None, None))
    assert list(verify_ledger.problems(exported(rows) + line + b"\n", None, None))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"null", b"[]", b"\xff", b"[" * 10**5, b'{"phase": 1}'),
        *(b'{"phase":%s}' % value for value in (b"1e400", b"NaN", b"9" * 5000)),
    ],
)
def test_bodies_that_are_no_entries(rows: list[Row], body: bytes) -> None:
    for before in ([], rows):
        with pytest.raises(PeerError):
            verify([*before, (body, bytes(64))])


# The stand-alone script

LESS_THAN_WORST = {"survivors": 7, "missing": 3, "honest": 6, "components_removed": 0, "variance_held": "48000"}
NO_COMPONENTS = {"variance_each": "8000", "variance_components": [], "components_removed": 0}

SMALL_SHARES = NO_COMPONENTS | {
    "noise": {"family": "discrete-gaussian", "variance": "30", "components": 0},
    "variance_each": "6",
    "variance_held": "30",
}
SMALL_PARTS = {
    "noise": {"family": "discrete-gaussian", "variance": "126"},
    "variance_each": "14",
    "variance_components": ["4", "36/5"],
    "variance_held": "126",
}

# What it says, so that no check of it hides behind another. Each lie is one about the entry of that number.
LIES: list[tuple[int, dict[str, Any], str]] = [
    (1, {"sum": {"plan": "00"}}, "plan_digest is not that of the plan"),
    (2, {"sum": {"survivors": 5, "missing": 5}}, "more clients are missing than the noise allows for"),
    (2, {"sum": {"survivors": 11, "missing": -1}}, "missing of sum is no number"),
    (2, {"sum": {"missing": 1}}, "more clients are missing than the noise allows for"),
    (2, {"sum": {"honest": 10}}, "nobody honest is left"),
    (2, {"sum": {"planned": 0}}, "planned of sum is no count"),
    (1, {"sum": {"survivors": 7, "missing": 3}}, "nobody honest is left"),
    (1, {"sum": LESS_THAN_WORST}, "the worst case was not reserved"),
    (1, {"sum": NO_COMPONENTS | {"noise": {"family": "magic", "components": 0}}}, "unknown noise"),
    (1, {"sum": {"signatures": [{}]}}, "the worst case was not reserved"),
    (1, {"sum": {"noise": {"family": "magic"}}}, "unknown noise"),
    (1, {"sum": SMALL_SHARES}, "shares of noise are too small for a bound"),
    (1, {"sum": SMALL_PARTS}, "parts of the noise are too small for a bound"),
    (1, {"number": 2}, "is out of place"),
    (1, {"previous": "00" * 32}, "does not follow the entry before"),
    (3, {"phase": "genesis"}, "a ledger has one genesis, its first entry"),
    (0, {"phase": "reserve"}, "a ledger has one genesis, its first entry"),
    (0, {"order": 9}, "the limit of order 4 does not follow"),
    (3, {"phase": "wish"}, "'wish' is no phase"),
    (4, {"release": "other"}, "nothing is reserved for other"),
    (1, {"epsilon_after": 1}, "epsilon_after is not what the sums come to"),
    (1, {"total_samples": 1}, "the sums are wrong"),
    (1, {"cost": [1] * 93}, "is charged less at order 2 than it costs"),
    (2, {"cost": [10**15] * 93}, "costs more than was reserved"),
    (2, {"sum": {"scale": "1"}}, "is not what was reserved"),
]


def merged(value: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    return {**value, **{name: merged(value[name], item) for name, item in change.items()}}


@pytest.mark.parametrize(("number", "change", "said"), LIES, ids=[f"{lie[0]} {lie[2]}" for lie in LIES])
def test_what_it_says(rows: list[Row], number: int, change: dict[str, Any], said: str) -> None:
    lines = exported(rows).splitlines()
    entry = json.loads(lines[number])
    lines[number] = entries.canonical({**entry, "body": merged(entry["body"], change)})
    audit = verify_ledger.Audit(KEY.public)
    check_signature, verify_ledger.check_signature = verify_ledger.check_signature, lambda *_: None
    try:
        for line in lines[:number]:
            audit.entry(line.decode(), last=False)
        with pytest.raises(verify_ledger.Problem) as caught:
            audit.entry(lines[number].decode(), last=False)
    finally:
        verify_ledger.check_signature = check_signature
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text", [None, 1, "", "x", "1.5", "-1", "1e999999999", "1/0", "2/4", "1/1", "01", " 1", "1_0", "1/2/3"]
)
def test_it_reads_plain_reduced_rationals(text: Any) -> None:
    assert verify_ledger.rational("3/4") == Fraction(3, 4)
    with pytest.raises(verify_ledger.Problem):
        verify_ledger.rational(text)


def test_it_reads_lines_as_they_were_exported(rows: list[Row]) -> None:
    data = exported(rows)
    for other in (data.replace(b'"body":', b'"body": ', 1), data.replace(b'{"body":', b'{"a":1,"body":', 1)):
        assert "entry 0: not as it was exported" in list(verify_ledger.problems(other, KEY.public, None))


def test_nothing_is_reserved_twice(rows: list[Row]) -> None:
    """While it is open, and after it was committed; the sums are made to fit."""

    def while_open(bodies: list[Any]) -> None:
        bodies.append({**bodies[1], "epsilon_before": bodies[1]["epsilon_after"]})

    def after_commit(bodies: list[Any]) -> None:
        first, last = bodies[1], bodies[-1]
        total = [a + b for a, b in zip(last["total"], first["cost"], strict=True)]
        reached = 8 * 10**12 - max(a - b for a, b in zip(bodies[0]["limits"], total, strict=True))
        samples = last["total_samples"] + first["samples"]
        after = {"total": total, "total_samples": samples, "epsilon_after": reached}
        bodies.append({**first, **after, "epsilon_before": last["epsilon_after"]})

    for before, change in ((rows[:2], while_open), (rows[:3], after_commit)):
        assert "is on record" in both(forged(before, change))
        (problem,) = problems(forged(before, change))
        assert "was reserved before" in problem


def test_no_more_samples_than_were_reserved(steps: list[Row]) -> None:
    lie = forged(steps[:3], lambda bodies: bodies[2].update(samples=5, total_samples=5))
    assert "more samples" in both(lie)
    assert problems(lie) == ["entry 2: is not what was reserved"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": -1}, "samples of reserve is no number"),
        ({"samples": "1"}, "samples of reserve is no number"),
        ({"steps": {"count": 0}}, "count of steps is no count"),
        ({"steps": {"count": "1"}}, "count of steps is no count"),
    ],
)
def test_steps_are_counted(steps: list[Row], change: dict[str, Any], said: str) -> None:
    lie = forged(steps[:2], lambda bodies: bodies.append(merged(bodies.pop(), change)))
    assert both(lie)
    assert f"entry 1: {said}" in problems(lie)


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-I", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")


def test_it_stands_alone(rows: list[Row], tmp_path: Path) -> None:
    """A copy of the one file, elsewhere; all that it imports besides the standard library is cryptography."""
    imported = {
        (node.names[0].name if isinstance(node, ast.Import) else str(node.module)).split(".")[0]
        for node in ast.walk(ast.parse(STAND_ALONE.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}
    copy, export, key = tmp_path / "check.py", tmp_path / "sent" / "export.jsonl", tmp_path / "told" / "key.pub"
    for folder in (export.parent, key.parent):
        folder.mkdir()
    shutil.copy(STAND_ALONE, copy)
    export.write_bytes(exported(rows))
    key.write_text(KEY.public.hex() + "\n")
    head = replay(rows).head.hex()
    said = columns(statement(book(replay(rows)), Given(key=True, head=len(rows) - 1)))
    ran = script(copy, export, "--key", key, "--head", head)
    assert (ran.returncode, ran.stdout.splitlines(), ran.stderr) == (0, list(said), "")
    export.write_bytes(exported(rows[:-1]))
    ran = script(copy, export, "--key", KEY.public.hex())
    assert (ran.returncode, "the ledger has been cut short" in ran.stdout) == (4, True)
    changed = forged(rows, lambda bodies: alter(bodies, 2, ("samples",)))
    export.write_bytes(exported(changed))
    ran = script(copy, export)
    assert ran.returncode == 4
    first, *problems = ran.stdout.splitlines()
    assert first == f"verdict     {FAILED}"
    assert "problem     entry 2: samples do not follow" in problems
    assert script(copy).returncode == 2


def test_poisson_and_everyone_are_told_apart(steps: list[Row]) -> None:
    """A sample that everybody sees amplifies nothing."""
    claimed = json.loads(steps[1][0])["steps"]
    assert (claimed["sampling"], claimed["seen_by"]) == ("PoissonSample", "nobody")
    assert isinstance(step().sampling, PoissonSample)
