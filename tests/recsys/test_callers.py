"""Who is called for the next sum, and what time it is: cohorts that wait, cohorts that do not, and whoever is ready.

Statistical: fixed seeds; 4000 clients. By Hoeffding a count is further than 240 from its mean with probability below
2e-12; five counts are looked at.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import replace
from math import log
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from protocols.buffers import Start, weight
from recsys.aggregator import Request, Update
from recsys.callers import Called, Drawn, Ready
from recsys.deployment import Deployment
from recsys.federated import Federation
from recsys.ideal_aggregator import IdealAggregator
from recsys.models.recommender import Local
from recsys.network import Network
from recsys.participation import Draw, Participation
from recsys.secure_aggregator import SecureAggregator
from recsys.training_state import TrainingState
from recsys.turns import buffers_of
from secagg.errors import BudgetError, DecodeError, PolicyError, UsageError
from tests.controls import switch_off
from tests.scenes.bias import Bias
from tests.scenes.recommender import SECRET, client_data, federation

NAMES = tuple(f"client-{number:02}" for number in range(12))
SLOW = Network(training=60.0, speeds=1.707, spread=0.3)
VECTOR = np.zeros(3, np.float32)


def ready(network: Network = SLOW, **more: Any) -> Ready:
    return Ready(NAMES, network, **{"size": 4, "most": 100, "staleness": 100, "seed": 5, **more})


def vector(number: int) -> NDArray[np.float32]:
    return np.full(3, number, np.float32)


def play(callers: Ready, sums: int, seconds: float = 1.0, failed: tuple[int, ...] = ()) -> list[Called]:
    """So many sums; version v of the model is ``vector(v)``."""
    made, version = list[Called](), 0
    for number in range(sums):
        made.append(callers.call(number, vector(version)))
        version += number not in failed
        callers.done(made[-1], vector(version), seconds, summed=number not in failed)
    return made


# Time


def test_the_quartiles_of_paces_are_ten_times_apart() -> None:
    names = [str(number) for number in range(4000)]
    takes = [replace(SLOW, spread=0.0).takes(name, 0, seed=1) for name in names]
    quarter = 60 * np.exp(np.array([-1, 1]) * 1.707 * NormalDist().inv_cdf(0.75))
    assert quarter[1] / quarter[0] == pytest.approx(10, rel=2e-3)
    for bound, expected in ((quarter[0], 1000), (60, 2000), (quarter[1], 3000)):
        assert abs(sum(one < bound for one in takes) - expected) < 240


def test_a_client_keeps_its_pace_and_rounds_differ() -> None:
    own = [SLOW.takes("a", number, 1) for number in range(200)]
    assert len(set(own)) == 200
    other = [SLOW.takes("b", number, 1) for number in range(200)]
    assert abs(log(np.median(own) / np.median(other))) > 0.5 > log(np.quantile(own, 0.9) / np.median(own))


def test_a_round_waits_for_all_for_some_or_so_long() -> None:
    taken = {name: SLOW.takes(name, 3, 5) for name in NAMES}
    in_order = sorted(taken, key=taken.__getitem__)
    assert SLOW.late(NAMES, 3, 5, enough=12) == (taken[in_order[-1]], frozenset())
    assert SLOW.late(NAMES, 3, 5, enough=9) == (taken[in_order[8]], frozenset(in_order[9:]))
    limit = (taken[in_order[4]] + taken[in_order[5]]) / 2
    assert replace(SLOW, wait=limit).late(NAMES, 3, 5, enough=9) == (limit, frozenset(in_order[5:]))
    assert Network().late(NAMES, 3, 5, enough=2) == (0.0, frozenset())


def test_messages_take_as_long_as_the_slowest_or_the_deadline() -> None:
    assert replace(SLOW, spread=0.0, latency=2.0).messages(10, 4, seed=1) == 8.0
    assert replace(SLOW, latency=2.0, deadline=1.0).messages(10, 4, seed=1) == 4.0
    assert Network(latency=2.0).messages(10, 4, seed=1) == 0.0


def test_the_clock_of_rounds_that_wait() -> None:
    callers = Drawn(NAMES, Participation(Draw.FIXED, 4, over=1.5), SLOW, seed=5)
    expected = 0.0
    for number in range(3):
        called = callers.call(number, VECTOR)
        waited, late = SLOW.late(called.names, number, 5, enough=4)
        assert (len(called.names), len(late), called.late) == (6, 2, late)
        callers.done(called, VECTOR, 5.0, summed=True)
        expected += waited + 5.0
        assert callers.now == pytest.approx(expected)
    again = Drawn(NAMES, Participation(Draw.FIXED, 4, over=1.5), SLOW, seed=5)
    again.read(*callers.written())
    assert again.now == callers.now


@pytest.mark.parametrize(
    "wrong", [{"training": -1.0}, {"speeds": 1.0}, {"wait": 1.0}, {"training": 1.0, "speeds": 21.0}]
)
def test_impossible_paces_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Network(**wrong)


# Whoever is ready


def slow_reference(size: int, sums: int, seconds: float, staleness: int) -> list[tuple[float, dict[str, int]]]:
    """The same simulation with a heap, if all train all the time: for each sum the time, and who started from what."""
    now, version, begun, found = 0.0, 0, Counter[str](), []
    heap = list[tuple[float, int, int]]()

    def begin(one: int, when: float) -> None:
        heapq.heappush(heap, (when + SLOW.takes(NAMES[one], begun[NAMES[one]], 5), one, version))
        begun[NAMES[one]] += 1

    for one in range(len(NAMES)):
        begin(one, 0.0)
    for _ in range(sums):
        members = dict[int, int]()
        while len(members) < size:
            when, one, started = heapq.heappop(heap)
            if version - started > staleness:
                begin(one, max(now, when))
            else:
                members[one], last = started, when
        now = max(now, last)
        found.append((now, {NAMES[one]: started for one, started in sorted(members.items())}))
        now, version = now + seconds, version + 1
        for one in members:
            begin(one, now)
    return found


@pytest.mark.parametrize("staleness", [100, 3])
def test_whoever_is_ready_first_is_in_the_next_sum(staleness: int) -> None:
    callers, times = ready(staleness=staleness), list[float]()
    reference = slow_reference(4, 25, 2.0, staleness)
    for version, (when, starts) in enumerate(reference):
        called = callers.call(version, vector(version))
        times.append(callers.now)
        assert callers.now == pytest.approx(when)
        assert {name: start.version for name, start in called.starts.items()} == starts
        assert called.buffer is not None
        assert called.buffer.version == version
        assert dict(zip(called.buffer.names, called.buffer.starts, strict=True)) == starts
        for name, started in starts.items():  # each trains from that version, and is weighed by its age
            assert np.array_equal(called.vector(name, VECTOR), vector(started))
            assert called.weight(name) == weight(version - started)
        callers.done(called, vector(version + 1), 2.0, summed=True)
    ages = [version - start for version, (_, starts) in enumerate(reference) for start in starts.values()]
    assert max(ages) == 3 if staleness == 3 else max(ages) > 5
    assert times == sorted(times)


def test_nobody_is_in_more_sums_than_it_may_be() -> None:
    """The fast ones have had theirs first; in the end too few are left."""
    callers, counted = ready(most=3), Counter[str]()

    def until_nobody_comes() -> None:
        for number in range(100):
            called = callers.call(number, vector(number))
            counted.update(called.names)
            callers.done(called, vector(number + 1), 1.0, summed=True)

    with pytest.raises(BudgetError, match="fewer than 4 clients may be in another sum"):
        until_nobody_comes()
    assert max(counted.values()) == 3
    assert sum(count < 3 for count in counted.values()) < 4


def test_so_many_train_at_a_time() -> None:
    callers, counted = ready(concurrent=5), Counter[str]()
    for number in range(60):
        called = callers.call(number, vector(number))
        _, state = callers.written()
        assert np.isfinite(state["ready"]).sum() == 5
        counted.update(called.names)
        callers.done(called, vector(number + 1), 1.0, summed=True)
    assert len(counted) == 12  # by lot: all come, in time
    for wrong in (3, 13):
        with pytest.raises(UsageError, match="train at a time"):
            ready(concurrent=wrong)


def test_a_sum_that_failed_makes_no_version() -> None:
    made = play(ready(), 4, failed=(0, 1))
    assert [one.buffer.version for one in made if one.buffer is not None] == [0, 0, 0, 1]


def test_only_versions_that_somebody_trains_from_are_kept() -> None:
    callers = ready()
    play(callers, 40)
    header, arrays = callers.written()
    kept = {int(name.removeprefix("version ")) for name in arrays if name.startswith("version ")}
    assert kept == {header["version"], *arrays["started"][np.isfinite(arrays["ready"])].tolist()}
    assert all(np.array_equal(arrays[f"version {number}"], vector(number)) for number in kept)


def test_it_goes_on_from_a_checkpoint_as_it_would_have() -> None:
    through, killed = ready(most=9), ready(most=9)
    everything = play(through, 20)
    first = play(killed, 8)
    state = TrainingState(VECTOR)
    state.calls, state.called = killed.written()
    read = TrainingState.decode(b"".join(state.encode(SECRET)), SECRET)
    again = ready(most=9)
    again.read(read.calls, read.called)
    rest = list[Called]()
    for number in range(8, 20):
        rest.append(again.call(number, vector(number)))
        again.done(rest[-1], vector(number + 1), 1.0, summed=True)
    assert [one.starts for one in (*first, *rest)] == [one.starts for one in everything]
    assert again.now == through.now
    for wrong in ({}, {**read.calls, "version": "1"}):
        with pytest.raises(DecodeError):
            ready().read(wrong, read.called)
    with pytest.raises(DecodeError):
        ready().read(read.calls, {})
    with pytest.raises(DecodeError, match="other clients"):
        Ready(NAMES[:5], SLOW, size=4, most=1, staleness=1).read(read.calls, read.called)


# In a training


class Watching:
    """Keeps what was asked for, and what each client added."""

    def __init__(self) -> None:
        self.inner, self.requests = IdealAggregator(SECRET, simulated=3.0), list[Request]()
        self.added = list[dict[str, NDArray[np.float64]]]()

    def aggregate(self, request: Request, update: Update) -> Any:
        self.requests.append(request)
        self.added.append({name: np.asarray(update(name)) for name in request.cohort})
        return self.inner.aggregate(request, update)


def six(aggregator: Any, size: int = 3, **more: Any) -> Federation:
    clients = client_data()
    callers = Ready(clients.names, SLOW, size=size, most=50, staleness=9, seed=2)
    participation = Participation(Draw.ARRIVALS, size)
    asked = {"callers": callers, "participation": participation, "measured": 0.0, "clip": 100.0, **more}
    return federation(clients, aggregator, **asked)


def test_each_trains_from_its_own_version_and_is_weighed_before_the_clip() -> None:
    """Its change is that of its version times w, and the sum moves the newest version."""
    watching, clients = Watching(), client_data()
    done, versions, ages = six(watching), list[NDArray[np.float32]](), Counter[int]()
    for number in range(12):
        versions.append(done.state.vector.copy())
        done.advance()
        request, added = watching.requests[number], watching.added[number]
        assert request.buffer is not None
        assert request.model == request.buffer.model()
        for name in request.cohort:
            age = request.buffer.staleness_of(name)
            ages[age] += 1
            start = versions[request.starts[name].version]
            alone = Bias()
            alone.begin(12, 3)
            alone.vector = start
            alone.train(clients.histories(name), Local(rate=0.5), 0)
            change = alone.vector.astype(np.float64) - start
            np.testing.assert_allclose(added[name], weight(age) * change, atol=1e-6)
        moved = done.state.vector - versions[-1]
        np.testing.assert_allclose(moved, sum(added.values()) / 3, atol=1e-3)
    assert ages[0] > 3 < ages[1] + ages[2] + ages[3]
    record = done.state.rounds[-1]
    assert sum(record.staleness.values()) == 3
    assert record.clock == done.state.calls["now"] > done.state.rounds[0].clock > 3.0


def test_over_secure_sums_it_is_the_same() -> None:
    """Every client of the protocol checks its buffer; and one that is told another start refuses."""
    buffers = buffers_of(client_data().names, 3, 0, "0.1", 9, SECRET)
    deployment = Deployment("secagg", corrupt="1/3", dropout="0")
    aggregator = SecureAggregator(deployment, SECRET, buffers=buffers)
    masked, plain = six(aggregator), six(IdealAggregator(SECRET))
    for _ in range(3):
        one, other = masked.advance(), plain.advance()
        assert (one.survivors, one.staleness, one.clock) == (3, other.staleness, other.clock)
    assert np.abs(masked.state.vector - plain.state.vector).max() < 1e-3
    call = masked._callers.call

    def lying(number: int, newest: NDArray[np.float32]) -> Called:
        called = call(number, newest)
        return replace(called, starts={name: Start(0, bytes(32)) for name in called.names}, vectors={0: newest})

    masked._callers.call = lying  # type: ignore[method-assign]
    with pytest.raises(PolicyError, match=r"does not say that silo|another one here"):
        masked.advance()


def test_who_is_late_counts_as_dropped_out() -> None:
    """With noise the mean is over those that were waited for. Whoever is late is not asked for an update."""
    network = Network(training=60.0, speeds=1.0, spread=0.3)
    clients = client_data()
    participation = Participation(Draw.FIXED, 4, over=1.5)
    callers = Drawn(clients.names, participation, network, seed=2)
    aggregator = SecureAggregator(Deployment("secagg", dropout="0.34"), SECRET, network=network)
    done = federation(clients, aggregator, participation=participation, callers=callers, measured=0.0)
    trained = list[str]()
    moved = done._moved

    def watched(name: str, *more: Any) -> NDArray[np.float64]:
        trained.append(name)
        return moved(name, *more)

    done._moved = watched  # type: ignore[assignment, method-assign]
    record = done.advance()
    assert (record.planned, record.survivors, dict(record.silent)) == (6, 4, {"advertise": 2})
    assert len(set(trained)) == 4
    assert record.clock > 4.0


def test_a_bound_on_staleness_and_on_sums_are_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Controls of the two above: without them older updates come, and clients come more often."""
    with monkeypatch.context() as patch:
        switch_off(patch, Ready, "call", "state.version - state.started[one] > self._staleness")
        with pytest.raises(UsageError, match="started from versions"):  # the buffer refuses them, too
            play(ready(staleness=3), 25)
    switch_off(monkeypatch, Ready, "_begin_more", "state.sums[one] < self._most", "True")
    assert len(play(ready(most=3), 20)) == 20
