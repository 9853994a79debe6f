"""Sparse sums: what is counted, what comes out, what a client refuses; and what a server that lies gets without it."""

from __future__ import annotations

import runpy
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp.calibrate import calibrate, holder_of, user_level, with_multiplier
from dp.events import Relation
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from dp.threshold import threshold
from protocols import sparse
from protocols.client import Client
from protocols.outcome import RoundOutcome
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, simulate
from protocols.sparse import CATALOGUE, Catalogue, Released
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import DecodeError, PolicyError, UsageError
from tests.controls import switch_off

N, ROWS, WIDTH = 8, 60, 3
IDENTITIES = [Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(N)]
ROSTER = Roster.of(IDENTITIES)
EXACT = Policy(min_contributors=5, dropout="0.25", adversary="curious", exact_counts=True)  # type: ignore[arg-type]
NOISED = Policy(min_contributors=5, dropout="0.25", noise_multiplier="0.5")
KIND = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(1), dropouts=2, colluders=1, components=2)
CATALOGUE_60 = Catalogue(ROWS, WIDTH, b"n" * 32, cap=5, least=3)
SPECK = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(8 * N), dropouts=2, colluders=1)  # where a touch is 32,767
MODEL = b"m" * 32


def plan_of(encoding: Encoding, noise: NoiseSpec | None = None, model: bytes = bytes(32), **more: Any) -> RoundPlan:
    asked = {"min_contributors": 6, "dropout": "0.25"} | more
    return RoundPlan.propose("secagg", ROSTER, encoding, noise=noise, model=model, **asked)


def counting(catalogue: Catalogue = CATALOGUE_60, inputs: bytes = MODEL, **more: Any) -> RoundPlan:
    return plan_of(catalogue.counts(), model=catalogue.model(inputs), **more)


def clients(policy: Policy = EXACT, roster: Roster = ROSTER) -> dict[str, Client]:
    return {one.name: Client(one, roster, policy=policy) for one in IDENTITIES}


def counted(catalogue: Catalogue, touches: list[list[int]], faults: Faults | None = None) -> RoundOutcome:
    plan = counting(catalogue)
    vectors = {one.name: catalogue.touched(rows) for one, rows in zip(IDENTITIES, touches, strict=True)}
    return simulate(serve(plan, ROSTER), clients(), vectors.get, faults=faults).outcome


def released(*rows: int, catalogue: Catalogue = CATALOGUE_60) -> Released:
    return Released(catalogue, bytes(32), np.array(rows, np.int64))


def seeded(number: int) -> Prg:
    return Prg(number.to_bytes(32, "big"))


@contextmanager
def ledger_of(folder: Path, plan: RoundPlan) -> Iterator[Ledger]:
    event = plan.secure_sum(N - 2).release(user_level(Relation.ZERO_OUT, holder_of(plan.encoding)))
    budget = Budget.suited(event, Fraction(8), Fraction(1, 10**6), slack=Fraction(1, 10**8))
    key, where = SigningKey(b"s" * 32), folder / "ledger.db"
    made = Ledger.create(where, key, budget, event.guarantee, run="test", elsewhere="-")
    with closing(made):
        yield made


# Two sums, as they are meant


def test_counts_then_the_sum_of_what_came_out() -> None:
    """Rows of three or more clients come out; a client is in one of the sums only, another in the other."""
    touches = [[0, 7, 9], [0, 7], [0, 7, 30], [0, 59], [59, 8], [59, 8], [7], [7]]
    outcome = counted(CATALOGUE_60, touches, Faults(dropouts={"client-7": "upload"}))
    assert outcome.decode().vector[[0, 7, 8, 9, 30, 59]].tolist() == [4, 4, 2, 1, 1, 3]
    found = Released.of(CATALOGUE_60, outcome, MODEL)
    assert found.rows.tolist() == [0, 7, 59]
    rows = Released.decode(CATALOGUE_60, found.encode())
    second = plan_of(Encoding(rows.length, clip_l2=10.0), model=rows.model(MODEL))
    rows.check(second, EXACT, MODEL, counts=outcome.event.plan)
    updates: dict[str, dict[int, list[float]]] = {
        one.name: {row: [i + 1, row, 0.5] for row in touched}
        for i, (one, touched) in enumerate(zip(IDENTITIES, touches, strict=True))
    }
    for update in updates.values():  # restricted to [0, 7, 59], they are to be shorter than the clip
        for row in update:
            update[row] = [value / 10 for value in update[row]]
    ran = simulate(
        serve(second, ROSTER),
        clients(),
        lambda name: rows.restricted(updates[name]),
        faults=Faults(dropouts={"client-0": "upload"}),
    )
    table = rows.table(ran.outcome.decode().vector)
    for place, row in enumerate([0, 7, 59]):
        expected = sum(np.array(updates[name].get(row, [0, 0, 0])) for name in ran.outcome.survivors)
        np.testing.assert_allclose(table[place], expected, atol=0.01)


def test_an_update_is_restricted_first_and_clipped_then() -> None:
    """A row that did not come out, however large, leaves the others what they were."""
    rows = released(4, 5)
    update: dict[int, list[float]] = {3: [1e9, 0, 0], 5: [0.0, 0.6, 0.8]}
    assert rows.restricted(update).tolist() == [0, 0, 0, 0, 0.6, 0.8]
    encoding = Encoding(rows.length, clip_l2=1.0)
    values = encoding.encode(rows.restricted(update), weight=1, seed=bytes(32), rng=seeded(1))
    np.testing.assert_allclose(values / encoding.scale, [0, 0, 0, 0, 0.6, 0.8], atol=1e-4)


def test_with_noise_both_sums_are_charged_and_nothing_else(tmp_path: Path) -> None:
    """As two ordinary releases that were asked for: the threshold costs nothing, since all counts are noised. Units are
    users of silos; 64 of them touch three rows, and one of them another."""
    rounds, users = 2, 8
    asked = calibrate(
        epsilon=8, delta=1e-6, rounds=rounds, clients=N, length=ROWS, clip_l2=1.0, users=users,
        dropouts=KIND.dropouts, colluders=KIND.colluders, components=KIND.components,
    )  # fmt: skip
    encoding, noise = CATALOGUE_60.noised(asked.noise_multiplier, KIND, N, users=users)
    first = plan_of(encoding, noise, CATALOGUE_60.model(MODEL))
    policy, touched = replace(NOISED, users=users), [[0, 1, 2, 3], *([[0, 1, 2]] * (users - 1))]
    counts = {
        one.name: CATALOGUE_60.touched_by(touched if i == 0 else touched[1:2] * users)
        for i, one in enumerate(IDENTITIES)
    }
    with ledger_of(tmp_path, first) as ledger:
        CATALOGUE_60.check(first, policy, MODEL)
        outcome = simulate(serve(first, ROSTER, ledger=ledger), clients(policy), counts.get).outcome
        rows = Released.of(CATALOGUE_60, outcome, MODEL)
        assert rows.rows.tolist() == [0, 1, 2]
        found = with_multiplier(asked.noise_multiplier, KIND, [Encoding(9, 1.0, users=users)], N, ring_bits=64)
        assert found is not None
        second = plan_of(*found, rows.model(MODEL))
        rows.check(second, policy, MODEL, counts=first)
        updates = [{row: np.full(WIDTH, 0.1) for row in one} for one in touched]
        ran = simulate(serve(second, ROSTER, ledger=ledger), clients(policy), lambda name: rows.restricted_by(updates))
        noise_l2 = np.linalg.norm(ran.outcome.decode().vector - 6.4) / asked.noise_multiplier
        assert noise_l2 < 6 * 3  # nine coordinates of deviation 1 are longer with probability below 10^-60
        commits = [entry["sum"]["plan"] for entry in ledger.entries() if entry["phase"] == "commit"]
        assert commits == [first.encode().hex(), second.encode().hex()]
        assert 7.5 < ledger.epsilon <= 8


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Its rows are those of which the noised counts say so, hence not the same ones each time: about a hundred."""
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "sparse" / "sparse_sums.py"), run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert 80 < int(said[0].split(" ")[0]) < 160
    assert said[2] == "epsilon spent: 8.00"


# What is counted


@pytest.mark.parametrize("bits", [2, 3, 7, 16])
def test_a_unit_moves_the_counts_by_its_cap_and_not_a_unit_more(bits: int) -> None:
    """In exact integers, for each cap: roots are floats, which round down as often as up."""
    for cap in [*range(1, 500), 99_999, 1 << 20]:
        encoding = Catalogue(1 << 21, 1, bytes(32), cap=cap).counts(bits)
        step = (1 << (bits - 1)) - 1
        assert (encoding.largest, encoding.sensitivity().l2_squared) == (step, step**2 * cap)


def test_who_touched_more_than_the_cap_counts_in_so_many_rows_by_lot() -> None:
    """Each row as often as any other, within 6 deviations; seeds are fixed. The lot is the client's own."""
    catalogue = Catalogue(40, 1, bytes(32), cap=5)
    touched = list(range(3, 23))
    times = np.zeros(40, np.int64)
    for seed in range(2000):
        vector = catalogue.touched(touched, seeded(seed))
        assert vector.sum() == 5
        times += vector
    assert not times[:3].any()
    assert not times[23:].any()
    assert (np.abs(times[3:23] - 500) < 6 * np.sqrt(2000 * 0.25 * 0.75)).all()
    drawn = {catalogue.touched(touched).tobytes() for _ in range(20)}
    assert len(drawn) > 1


def test_a_row_that_was_touched_twice_counts_once() -> None:
    assert CATALOGUE_60.touched([5, 5, 9]).nonzero()[0].tolist() == [5, 9]
    assert CATALOGUE_60.touched([5, 5, 9]).max() == 1
    assert not CATALOGUE_60.touched([]).any()


@pytest.mark.parametrize("rows", [[60], [-1], [1 << 32], [0, 1 << 70]])
def test_a_row_that_is_none_is_the_callers_mistake_and_a_silos_zeros(rows: list[int]) -> None:
    with pytest.raises((UsageError, OverflowError)):
        CATALOGUE_60.touched(rows)
    made = list(CATALOGUE_60.touched_by([[1], rows, [2]]))
    assert [vector.nonzero()[0].tolist() for vector in made] == [[1], [], [2]]
    with pytest.raises((UsageError, OverflowError)):
        released(4).restricted({row: np.ones(WIDTH) for row in rows})


@pytest.mark.parametrize("rows", [[1.5], ["1"], [None], 7])
def test_rows_are_whole_numbers(rows: Any) -> None:
    with pytest.raises(TypeError):
        CATALOGUE_60.touched(rows)
    assert [vector.any() for vector in CATALOGUE_60.touched_by([rows, [1]])] == [False, True]


@pytest.mark.parametrize("vector", [[1.0], 1.0, [[1.0, 2.0, 3.0]], [1.0] * 4, ["a", "b", "c"], None])
def test_a_row_of_another_width_is_the_callers_mistake_and_a_silos_zeros(vector: Any) -> None:
    for row in (4, 5):  # also one that did not come out: what is refused must not follow from what did
        with pytest.raises((UsageError, ValueError, TypeError)):
            released(4).restricted({row: vector})
        assert not np.concatenate(list(released(4).restricted_by([{row: vector}]))).any()


def test_a_silos_vectors_are_made_for_all_its_users_whoever_is_in_the_sample() -> None:
    """One of many rows takes longer than one of few, which would tell of the coins."""
    asked: list[int] = []

    class Users(list[list[int]]):
        def __iter__(self) -> Iterator[list[int]]:
            for number, rows in enumerate(super().__iter__()):
                asked.append(number)
                yield rows

    encoding = CATALOGUE_60.counts(users=9, sampled=Fraction(1, 3))
    touched = CATALOGUE_60.touched_by(Users([[i, i + 9] for i in range(9)]))
    for number in range(3):
        values = encoding.encode_users(touched, seed=bytes(32), rng=seeded(number))
        assert 0 < values.sum() < 18
    assert asked == [*range(9)] * 3


def test_nothing_has_rows_times_width() -> None:
    """A million rows of 64 numbers would be 512 MB."""
    catalogue, rows = Catalogue(10**6, 64, bytes(32)), released(5, 999_999, catalogue=Catalogue(10**6, 64, bytes(32)))
    tracemalloc.start()
    try:
        catalogue.touched(range(0, 10**6, 10**4))
        rows.restricted({row: np.ones(64) for row in range(0, 10**6, 10**4)})
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


# Noise


def test_the_grid_is_the_coarsest_that_holds_each_clients_noise() -> None:
    encoding, noise = CATALOGUE_60.noised(1.0, KIND, N)
    assert noise.drawable(N)
    assert noise.variance >= encoding.sensitivity().l2_squared
    coarser = CATALOGUE_60.counts(encoding.bits - 1)
    assert not replace(noise, variance=Fraction(coarser.sensitivity().l2_squared + 4)).drawable(N)
    with pytest.raises(UsageError, match="no grid"):
        CATALOGUE_60.noised(1e-9, KIND, N)


FATES = {"all": ({}, 8, 0), "one missing": ({"client-1": "upload"}, 7, 0), "one late": ({"client-1": "reveal"}, 8, 1)}


@pytest.mark.parametrize("fate", FATES)
def test_the_threshold_allows_for_all_noise_that_may_be_in_the_sum(tmp_path: Path, fate: str) -> None:
    """Of all survivors, colluders among them, and what those who fell silent at the end left."""
    dropouts, survivors, left = FATES[fate]
    encoding, noise = CATALOGUE_60.noised(2.5, KIND, N)
    plan = plan_of(encoding, noise, CATALOGUE_60.model())
    own = {one.name: CATALOGUE_60.touched([1]) for one in IDENTITIES}
    with ledger_of(tmp_path, plan) as ledger:
        server = serve(plan, ROSTER, ledger=ledger)
        outcome = simulate(server, clients(NOISED), own.get, faults=Faults(dropouts=dropouts)).outcome
    assert (len(outcome.survivors), len(outcome.event.excess_left)) == (survivors, left)
    variance = noise.whole_variance(N, survivors, left)
    assert variance > noise.honest_variance(N, survivors)
    expected = threshold(2 * encoding.largest, variance, CATALOGUE_60.cap, CATALOGUE_60.failing)
    assert CATALOGUE_60.least_count(outcome) == expected


def test_users_in_several_silos_count_in_each(tmp_path: Path) -> None:
    """So without noise a row takes more than two users could come to, and with noise the more."""
    catalogue = replace(CATALOGUE_60, least=3)
    plan = plan_of(catalogue.counts(users=4, overlap=2), model=catalogue.model(MODEL))
    policy = replace(EXACT, users=4, overlap=2)
    vectors = {one.name: catalogue.touched_by([[1, 2], [1]][: 1 + (i < 1)]) for i, one in enumerate(IDENTITIES[:5])}
    catalogue.check(plan, policy, MODEL)
    outcome = simulate(serve(plan, ROSTER), clients(policy), vectors.get).outcome
    assert outcome.total[[1, 2]].tolist() == [6, 5]
    assert catalogue.least_count(outcome) == 5
    assert Released.of(catalogue, outcome, MODEL).rows.tolist() == [1, 2]
    encoding, noise = catalogue.noised(2.0, KIND, N, users=4, overlap=2)
    plan, policy = plan_of(encoding, noise, catalogue.model(MODEL)), replace(NOISED, users=4, overlap=2)
    with ledger_of(tmp_path, plan) as ledger:
        server = serve(plan, ROSTER, ledger=ledger)
        outcome = simulate(server, clients(policy), lambda name: catalogue.touched_by([])).outcome
    variance, places = noise.whole_variance(N, N), 2 * catalogue.cap  # as many in each of two silos
    assert catalogue.least_count(outcome) == threshold(4 * encoding.largest, variance, places, catalogue.failing)


# What a client refuses


OTHERS: dict[str, dict[str, Any]] = {
    "more rows": {"rows": 61},
    "another width": {"width": 4},
    "another numbering": {"numbering": bytes(32)},
    "another cap": {"cap": 6},
    "another least": {"least": 2},
    "another probability": {"failing": Fraction(1, 100)},
    "buckets": {"buckets": 30},
    "another seed": {"seed": b"s" * 32},
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_plan_for_another_catalogue_is_refused(what: str) -> None:
    other = replace(CATALOGUE_60, **OTHERS[what])
    with pytest.raises(PolicyError, match="another catalogue, numbering, cap or threshold"):
        CATALOGUE_60.check(counting(other), EXACT, MODEL)
    rows = released(1, 2, catalogue=other)
    with pytest.raises(PolicyError, match="other rows, or for another catalogue"):
        released(1, 2).check(plan_of(Encoding(6, 1.0), model=rows.model(MODEL)), EXACT, MODEL)
    assert len(OTHERS) == len(Catalogue.__dataclass_fields__)


def test_two_that_number_rows_differently_have_different_catalogues() -> None:
    ids = ["ale", "beer", "cider"]
    mine, same, theirs = (Catalogue.of(one, 2, cap=2) for one in (ids, list(ids), ["ale", "cider", "beer"]))
    assert mine == same
    with pytest.raises(PolicyError, match="another catalogue, numbering"):
        mine.check(counting(theirs), EXACT, MODEL)
    with pytest.raises(UsageError, match="one id"):
        Catalogue.of(["ale", "ale"], 2, cap=1)
    assert Catalogue.of(["ab", "c"], 2, cap=1).numbering != Catalogue.of(["a", "bc"], 2, cap=1).numbering


PLANS: dict[str, tuple[Callable[[], RoundPlan], Policy, str]] = {
    "other inputs": (lambda: counting(inputs=bytes(32)), EXACT, "or of other inputs"),
    "a sum of something else": (lambda: plan_of(CATALOGUE_60.counts()), EXACT, "another catalogue"),
    "more of a unit than the cap": (
        lambda: replace(counting(), encoding=replace(CATALOGUE_60.counts(), clip_l2=3.0)), EXACT, "another encoding",
    ),
    "counts that are cut": (
        lambda: replace(counting(), encoding=Encoding(ROWS, 1.0, bits=2)), EXACT, "another encoding",
    ),
    "a finer grid than there is": (
        lambda: plan_of(replace(CATALOGUE_60.counts(), bits=17), model=CATALOGUE_60.model(MODEL)), EXACT,
        "another encoding",
    ),
    "counts without noise": (counting, NOISED, "exact_counts of this client's policy does not allow"),
    "counts with noise that is none": (
        lambda: plan_of(CATALOGUE_60.counts(16), SPECK, CATALOGUE_60.model(MODEL)), Policy(min_contributors=5),
        "does not allow them",
    ),
    "counts without noise, of the curious": (counting, replace(EXACT, exact_counts=False), "does not allow them"),
    "noise without a threshold": (
        lambda: plan_of(
            CATALOGUE_60.counts(4),
            replace(KIND, family=Family.SKELLAM, variance=Fraction(10**4)),
            CATALOGUE_60.model(MODEL),
        ),
        NOISED,
        "skellam noise no threshold is known",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANS)
def test_a_plan_for_counts_that_a_client_refuses(what: str) -> None:
    plan, policy, said = PLANS[what]
    with pytest.raises(PolicyError, match=said):
        CATALOGUE_60.check(plan(), policy, MODEL)


def test_and_those_that_it_does_not_refuse() -> None:
    CATALOGUE_60.check(counting(), EXACT, MODEL)
    encoding, noise = CATALOGUE_60.noised(1.0, KIND, N)
    CATALOGUE_60.check(plan_of(encoding, noise, CATALOGUE_60.model(MODEL)), NOISED, MODEL)


def test_exact_counts_are_for_who_fears_no_liars() -> None:
    with pytest.raises(UsageError, match="exact counts hold only against a server that is curious"):
        Policy(min_contributors=5, exact_counts=True)


def test_rows_of_another_sum_of_counts_are_refused() -> None:
    """A list is said to be of one sum of counts, by its digest; who was in another says so."""
    outcome = counted(CATALOGUE_60, [[1]] * N)
    rows = Released.of(CATALOGUE_60, outcome, MODEL)
    plan = plan_of(Encoding(rows.length, 1.0), model=rows.model(MODEL))
    rows.check(plan, EXACT, MODEL)  # one that was in no sum of counts
    rows.check(plan, EXACT, MODEL, counts=outcome.event.plan)
    with pytest.raises(PolicyError, match="another sum of counts"):
        rows.check(plan, EXACT, MODEL, counts=counting())
    other = Released(CATALOGUE_60, bytes(32), rows.rows)
    with pytest.raises(PolicyError, match="other rows, or for another"):
        other.check(plan, EXACT, MODEL)
    with pytest.raises(PolicyError, match="other rows, or for another"):
        rows.check(plan, EXACT, bytes(32))
    with pytest.raises(PolicyError, match="1 rows have 3 numbers, and the plan 6"):
        rows.check(plan_of(Encoding(6, 1.0), model=rows.model(MODEL)), EXACT, MODEL)


BYTES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "32 bytes"),
    "no row": (bytes(32), "nothing to add up"),
    "half a row": (bytes(34), "no list of rows"),
    "twice the same": (bytes(32) + bytes([0, 0, 0, 1] * 2), "each once and in order"),
    "not in order": (bytes(32) + bytes([0, 0, 0, 2, 0, 0, 0, 1]), "each once and in order"),
    "a row that is none": (bytes(32) + bytes([0, 0, 0, 60]), "numbers below 60"),
    "more rows than there are": (bytes(32) + bytes(4 * 61), "no list of rows"),
}


@pytest.mark.parametrize("what", BYTES)
def test_what_is_no_list_of_rows(what: str) -> None:
    data, said = BYTES[what]
    with pytest.raises(DecodeError, match=said):
        Released.decode(CATALOGUE_60, data)


def test_what_is_a_list_of_rows() -> None:
    rows = Released.decode(CATALOGUE_60, released(0, 59).encode())
    assert rows.rows.tolist() == [0, 59]
    assert not rows.rows.flags.writeable
    assert len(Released.decode(CATALOGUE_60, released(*range(ROWS)).encode()).rows) == ROWS
    with pytest.raises(UsageError, match="numbers below 60"):
        released(-1, 4)


def test_a_server_that_shows_one_client_another_list_is_refused_and_would_else_mix_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of rows 1 and 2 the server would have the victim add its row 2 where all others add zeros."""
    shown, victims = released(1), released(2)
    plan = plan_of(Encoding(shown.length, clip_l2=10.0), model=shown.model(MODEL))

    def attack() -> list[float]:
        def update(name: str) -> Any:
            rows = victims if name == "client-0" else shown
            rows.check(plan, EXACT, MODEL)
            return rows.restricted({2: [1.0, 2.0, 3.0]} if name == "client-0" else {})

        total = simulate(serve(plan, ROSTER), clients(), update).outcome.decode().vector
        return [round(value, 2) for value in total.tolist()]

    with pytest.raises(PolicyError, match="other rows"):
        attack()
    switch_off(monkeypatch, Released, "check", "plan.model != self.model(inputs)")
    assert attack() == [1.0, 2.0, 3.0]


def test_a_sum_of_something_else_has_no_rows() -> None:
    outcome = counted(CATALOGUE_60, [[1]] * N)
    for other, inputs in ((CATALOGUE_60, bytes(32)), (replace(CATALOGUE_60, least=2), MODEL)):
        with pytest.raises(UsageError, match="no sum of counts of this catalogue"):
            Released.of(other, outcome, inputs)
    plan = plan_of(Encoding.integers(ROWS, bits=2), model=CATALOGUE_60.model(MODEL))
    ran = simulate(serve(plan, ROSTER), clients(), lambda name: np.ones(ROWS))
    with pytest.raises(UsageError, match="no sum of counts of this catalogue"):
        Released.of(CATALOGUE_60, ran.outcome, MODEL)
    with pytest.raises(UsageError, match="nothing to add up"):
        Released.of(CATALOGUE_60, counted(CATALOGUE_60, [[i] for i in range(N)]), MODEL)


# What is said of it, and holds


def test_without_noise_a_server_that_lies_has_one_clients_row() -> None:
    """It sees that one client touched a row, and asks for the sum of that row. Who allows exact counts bears that."""
    touches = [[1, 7], *[[1]] * 7]
    outcome = counted(CATALOGUE_60, touches)
    assert outcome.total[7] == 1
    picked = Released(CATALOGUE_60, outcome.event.plan.digest(), np.array([7]))
    plan = plan_of(Encoding(picked.length, clip_l2=10.0), model=picked.model(MODEL))
    picked.check(plan, EXACT, MODEL, counts=outcome.event.plan)
    for policy in (replace(EXACT, exact_counts=False), NOISED):  # whatever noise the counts had
        with pytest.raises(PolicyError, match="rows without noise"):
            picked.check(plan, policy, MODEL)
    speck = replace(plan, noise=SPECK, ring_bits=32)
    picked.check(speck, NOISED, MODEL)
    with pytest.raises(PolicyError, match="rows without noise"):
        picked.check(speck, Policy(min_contributors=5), MODEL)
    updates = {one.name: {row: [1.0, 2.0, 3.0] for row in rows} for one, rows in zip(IDENTITIES, touches, strict=True)}
    ran = simulate(serve(plan, ROSTER), clients(), lambda name: picked.restricted(updates[name]))
    np.testing.assert_allclose(ran.outcome.decode().vector, [1, 2, 3], atol=0.01)


def test_one_client_that_lies_lifts_a_row_of_one_other_over_the_threshold() -> None:
    """Integers are under the mask: nothing bounds them but the encoding of an honest client. docs/sparse.md says so."""
    plan = counting()
    honest = {one.name: CATALOGUE_60.touched([i, 50]) for i, one in enumerate(IDENTITIES)}
    members = clients()
    liar = members["client-0"]

    def update(name: str) -> Any:
        return honest[name]

    lying = RoundPlan.encode_update

    def lied(self: RoundPlan, update: Any, *rest: Any) -> Any:
        values = lying(self, update, *rest)
        if update is honest["client-0"]:
            values[7] += CATALOGUE_60.least - 1
        return values

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RoundPlan, "encode_update", lied)
        outcome = simulate(serve(plan, ROSTER), members, update).outcome
    assert liar.done
    assert Released.of(CATALOGUE_60, outcome, MODEL).rows.tolist() == [7, 50]


# Buckets


BUCKETED = Catalogue(5000, 2, bytes(32), cap=50, buckets=700, seed=b"b" * 32)


def test_a_row_comes_out_if_its_bucket_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are hashed alike one by one, by a client, and all together, by the server, in parts of any length."""
    each = np.array([int(np.flatnonzero(BUCKETED.touched([row]))[0]) for row in range(300)])
    all_at_once = BUCKETED._bucket_of_each(0, 5000)
    assert each.tolist() == all_at_once[:300].tolist()
    reached = np.zeros(700, bool)
    reached[each[:3]] = True
    expected = np.flatnonzero(np.isin(all_at_once, each[:3]))
    assert len(expected) > 10
    assert BUCKETED._rows_at(reached).tolist() == expected.tolist()
    monkeypatch.setattr(sparse, "_TOGETHER", 333)
    assert BUCKETED._rows_at(reached).tolist() == expected.tolist()


def test_two_rows_of_one_bucket_count_once() -> None:
    buckets = BUCKETED._bucket_of_each(0, 5000)
    first, second = np.flatnonzero(buckets == buckets[0])[:2].tolist()
    vector = BUCKETED.touched([first, second])
    assert (vector.sum(), vector.max(), len(vector)) == (1, 1, 700)


def test_buckets_are_as_full_as_chance_has_it() -> None:
    """Chi-square over 700 buckets of 5000 rows, beyond which it is with probability exp(-21); another seed hashes
    otherwise."""
    tally = np.bincount(BUCKETED._bucket_of_each(0, 5000), minlength=700)
    chi = float(((tally - 5000 / 700) ** 2).sum() / (5000 / 700))
    assert chi < 699 + 2 * np.sqrt(21 * 699) + 42
    other = replace(BUCKETED, seed=bytes(32))._bucket_of_each(0, 5000)
    assert (other == BUCKETED._bucket_of_each(0, 5000)).mean() < 0.02


def test_a_round_over_buckets() -> None:
    catalogue = Catalogue(5000, WIDTH, bytes(32), cap=5, least=3, buckets=700)
    outcome = counted(catalogue, [[11, 12], [11], [11], [11], [12], [4000], [4001], []])
    rows = Released.of(catalogue, outcome, MODEL)
    buckets = catalogue._bucket_of_each(0, 5000)
    assert rows.rows.tolist() == np.flatnonzero(buckets == buckets[11]).tolist()


# What is none


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no row": ({"rows": 0}, "1 to 2\\^32 - 1 rows"),
    "too many rows": ({"rows": 1 << 32}, "1 to 2\\^32 - 1 rows"),
    "no width": ({"width": 0}, "1 to 2\\^32 - 1 rows"),
    "too wide": ({"width": 1 << 32}, "1 to 2\\^32 - 1 rows"),
    "too large a cap": ({"rows": 1 << 21, "cap": (1 << 20) + 1}, "counts in 1 to 1048576 rows, not in 1048577"),
    "nothing comes out": ({"least": 1 << 32}, "2 units touched, or more, not 4294967296"),
    "a short digest": ({"numbering": b"short"}, "32 bytes"),
    "a short seed": ({"seed": b"short"}, "32 bytes"),
    "no cap": ({"cap": 0}, "counts in 1 to 60 rows, not in 0"),
    "a cap above the rows": ({"cap": 61}, "counts in 1 to 60 rows, not in 61"),
    "everything comes out": ({"least": 1}, "2 units touched, or more, not 1"),
    "surely": ({"failing": Fraction(1, 2)}, "failing is a probability"),
    "never": ({"failing": Fraction(0)}, "failing is a probability"),
    "as many buckets as rows": ({"buckets": 60}, "into fewer buckets"),
    "fewer than none": ({"buckets": -1}, "into fewer buckets"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_catalogue(what: str) -> None:
    changes, said = WRONG[what]
    with pytest.raises(UsageError, match=said):
        replace(CATALOGUE_60, **changes)


def test_the_largest_catalogue() -> None:
    most = (1 << 32) - 1
    largest = Catalogue(most, most, bytes(32), cap=1 << 20, least=most)
    assert CATALOGUE.decode(CATALOGUE.encode(largest)) == largest


def test_no_bits_for_a_touch() -> None:
    for bits in (1, 17):
        with pytest.raises(UsageError, match="2 to 16 bits"):
            CATALOGUE_60.counts(bits)


@given(
    st.builds(
        Catalogue,
        rows=st.integers(1, (1 << 32) - 1),
        width=st.integers(1, (1 << 32) - 1),
        numbering=st.binary(min_size=32, max_size=32),
        cap=st.just(1),
        least=st.integers(2, (1 << 32) - 1),
        failing=st.fractions(Fraction(1, 1000), Fraction(1, 10), max_denominator=10**6),
        seed=st.binary(min_size=32, max_size=32),
    )
)
def test_a_catalogue_is_read_as_it_was_written(catalogue: Catalogue) -> None:
    assert CATALOGUE.decode(CATALOGUE.encode(catalogue)) == catalogue


@given(st.sets(st.integers(0, ROWS - 1), min_size=1), st.sets(st.integers(0, ROWS - 1)))
def test_a_restricted_update_is_its_released_rows_in_their_places(out: Iterable[int], touched: Iterable[int]) -> None:
    rows = released(*sorted(out))
    update = {row: np.full(WIDTH, row + 1.0) for row in touched}
    expected = [[row + 1.0] * WIDTH if row in update else [0.0] * WIDTH for row in sorted(out)]
    assert rows.table(rows.restricted(update)).tolist() == expected
