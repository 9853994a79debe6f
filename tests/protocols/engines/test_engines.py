"""Engines: order, bounds, errors; sharded masks; a crowd is what ``simulate`` is. Ray: ``tests/e2e/test_ray.py``.

Engines that lose what they keep: ``tests/adversarial/test_tree.py``.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import engines
from protocols.client import Client
from protocols.engines import add_masks_on, ahead, shards
from protocols.engines.local import Threads, beside
from protocols.pairwise import server as pairwise_server
from protocols.pairwise.server import PairwiseServer
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, Simulation, simulate
from protocols.simulation.workers import clients_of, simulate_on_workers
from secagg.assumptions import Adversary
from secagg.crypto import curve25519
from secagg.crypto.masking import BLOCK_BYTES, add_masks
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError, ThresholdError, UsageError

N, LENGTH = 9, 6
POLICY = Policy(min_contributors=5, protocols={"secagg", "secagg+", "oneshot", "ckks"}, adversary=Adversary.CURIOUS)
PEOPLE = [Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(N)]
ROSTER = Roster.of(PEOPLE)
SECRET = bytes(range(32))


def plan_of(protocol: str = "secagg") -> RoundPlan:
    return RoundPlan.propose(
        protocol, ROSTER, Encoding.integers(LENGTH), min_contributors=5, dropout="0.3", session=bytes(16)
    )


def update_of(name: str) -> np.ndarray:
    return np.arange(LENGTH) * (1 + int(name[-1]))


EXPECTED = sum(update_of(one.name) for one in PEOPLE)


# map


def test_map_keeps_the_order_and_stays_a_little_ahead() -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            begun.append(item)
            yield item

    results = Threads(2).map(lambda item: item * item, items())
    assert next(results) == 0
    assert len(begun) <= 4
    assert list(results) == [i * i for i in range(1, 20)]


def test_map_runs_workers_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)
    assert sorted(Threads(2).map(lambda item: both.wait() * 0 + item, [1, 2])) == [1, 2]


def test_work_beside_something_else_begins_at_once_and_keeps_its_order() -> None:
    both = threading.Barrier(3, timeout=20)  # the two workers, and whoever asked

    def work(item: int) -> int:
        if item < 2:
            both.wait()
        return 10 * item

    with beside(2, work, range(4)) as results:
        both.wait()
        assert list(results) == [0, 10, 20, 30]
    with pytest.raises(ZeroDivisionError), beside(1, lambda item: 1 // item, [1, 0, 1]) as results:
        list(results)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("together", [1, 3, 512])
def test_masks_are_removed_in_batches_while_keys_are_agreed_on(
    together: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairwise_server, "_TOGETHER", together)
    server = serve(plan_of(), ROSTER, engine=Threads(workers))
    clients = {one.name: Client(one, ROSTER, policy=POLICY) for one in PEOPLE}
    gone = [PEOPLE[1].name, PEOPLE[4].name]
    done = simulate(
        server,
        clients,
        {name: update_of(name) for name in clients}.get,
        faults=Faults(dropouts=dict.fromkeys(gone, "upload")),
    )
    assert done.outcome.total.tolist() == (EXPECTED - sum(update_of(name) for name in gone)).tolist()
    assert isinstance(server, PairwiseServer)
    assert server.masks_removed == (N - 2) + 2 * (N - 2)


def test_when_a_key_cannot_be_agreed_on_the_sum_stays_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken off in part: a server that tried again would take it off twice."""
    server, clients = serve(plan_of(), ROSTER), {one.name: Client(one, ROSTER, policy=POLICY) for one in PEOPLE}
    seen = list[list[int]]()

    def refused(self: PairwiseServer, w: int, key: Any) -> Any:
        seen.append(self._sum.value().tolist())
        raise PeerError("no key")

    monkeypatch.setattr(PairwiseServer, "_pair_seeds", refused)
    with pytest.raises(PeerError, match="no key"):
        simulate(
            server,
            clients,
            {name: update_of(name) for name in clients}.get,
            faults=Faults(dropouts={PEOPLE[1].name: "upload"}),
        )
    assert isinstance(server, PairwiseServer)
    assert [server._sum.value().tolist()] == seen


def test_an_error_in_a_worker_is_raised_here() -> None:
    with pytest.raises(UsageError, match="32 bytes"):
        add_masks_on(Threads(2), np.zeros(BLOCK_BYTES, np.uint32), [b"short"], [])


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers(workers: int) -> None:
    with pytest.raises(UsageError, match="at least one worker"):
        Threads(workers)


def test_ahead_takes_before_it_begins_more() -> None:
    alive, most = 0, 0

    def begin(item: int) -> Callable[[], int]:
        nonlocal alive, most
        alive += 1
        most = max(alive, most)

        def take() -> int:
            nonlocal alive
            alive -= 1
            return item

        return take

    assert list(ahead(3, begin, range(10))) == list(range(10))
    assert most == 3


# place


def test_what_is_placed_is_asked_in_order() -> None:
    placed = Threads(2).host(lambda: list[int]())
    waiting = [placed.ask(lambda kept, item: kept.append(item) or list(kept), item) for item in range(50)]
    assert waiting[-1]() == list(range(50))
    assert waiting[0]() == [0]


# Masks by ranges


@given(length=st.integers(0, 10**6), itemsize=st.sampled_from([1, 2, 4, 8]), workers=st.integers(1, 9))
def test_shards_cover_the_vector_once(length: int, itemsize: int, workers: int) -> None:
    spans = shards(length, itemsize, workers)
    assert [i for span in spans for i in (span.start, span.stop)] == sorted(
        [0, length, *[span.start for span in spans[1:]] * 2] if spans else []
    )
    assert all(span.start * itemsize % 4096 == 0 for span in spans)
    assert len(spans) <= workers


def test_shards_of_a_long_vector_are_bounded() -> None:
    spans = shards(10**9, 4, 2)
    assert max(map(len, spans)) == engines.LARGEST_SHARD
    assert sum(map(len, spans)) == 10**9


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.uint64])
def test_borders_change_nothing(dtype: Any, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    per_block = BLOCK_BYTES // np.dtype(dtype).itemsize
    seeds = [bytes([i]) * 32 for i in range(3)]
    for length in (0, 1, per_block - 1, per_block, per_block + 1, 3 * per_block + 5):
        ours = np.arange(length).astype(dtype)
        theirs = ours.copy()
        add_masks_on(Threads(workers), ours, seeds[:2], seeds[2:])
        add_masks(theirs, seeds[:2], seeds[2:])
        assert (ours == theirs).all()


def test_a_server_removes_masks_on_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    class Counting(Threads):
        def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            ran.append(self.workers)
            return super().map(work, items)

    clients = {one.name: Client(one, ROSTER, policy=POLICY) for one in PEOPLE}
    plan = plan_of()
    server = serve(plan, ROSTER, engine=Counting(2))
    done = simulate(server, clients, {name: update_of(name) for name in clients}.get)
    assert done.outcome.total.tolist() == EXPECTED.tolist()
    assert ran == [2]


# Crowds


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("protocol", ["secagg", "secagg+", "oneshot"])
def test_a_crowd_gives_the_exact_sum(protocol: str, workers: int) -> None:
    plan = plan_of(protocol)
    ran = simulate_on_workers(serve(plan, ROSTER), PEOPLE, update_of, policy=POLICY, engine=Threads(workers))
    assert ran.outcome.total.tolist() == EXPECTED.tolist()
    assert ran.incidents == ()
    asked = {str(phase) for phase, step in serve(plan, ROSTER).steps.items() if not step.optional}
    assert set(ran.bytes_up) == set(ran.seconds) == asked


def test_a_crowd_is_what_simulate_is() -> None:
    """The same randomness, so the same frames: here, and whichever worker a client lives with."""

    def noted(run: Callable[[Faults], Simulation]) -> set[tuple[str, str, bytes]]:
        frames = set()

        def note(envelope: Envelope) -> bytes:
            frames.add((envelope.sender, envelope.receiver, envelope.frame))
            return envelope.frame

        assert run(Faults(corrupted=note)).outcome.total.tolist() == EXPECTED.tolist()
        return frames

    def crowd(workers: int, faults: Faults) -> Simulation:
        settings = {"policy": POLICY, "engine": Threads(workers), "secret": SECRET, "faults": faults}
        return simulate_on_workers(serve(plan_of(), ROSTER), PEOPLE, update_of, **settings)

    def here(faults: Faults) -> Simulation:
        people = [(one.name, one.key.secret) for one in PEOPLE]
        clients = clients_of(plan_of(), ROSTER, people, POLICY, SECRET)
        return simulate(
            serve(plan_of(), ROSTER), clients, {name: update_of(name) for name in clients}.get, faults=faults
        )

    frames = noted(here)
    assert len(frames) > 5 * N
    assert noted(partial(crowd, 1)) == noted(partial(crowd, 3)) == frames


@pytest.mark.parametrize("workers", [1, 3])
def test_a_process_verifies_each_signature_once(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's, and those of all parts that live with it."""
    verified, signed = list[bytes](), curve25519.signed

    def note(public: bytes, signature: bytes, message: bytes) -> bool:
        verified.append(signature)
        return signed(public, signature, message)

    monkeypatch.setattr(curve25519, "signed", note)
    simulate_on_workers(serve(plan_of(), ROSTER), PEOPLE, update_of, policy=POLICY, engine=Threads(workers))
    assert len(verified) == len(set(verified)) == 3 * N  # an advert, an upload and a consent of each


def test_two_rounds_of_a_crowd_draw_anew() -> None:
    uploads = []
    for plan in (plan_of(), plan_of().next_round()):
        frames: dict[str, bytes] = {}

        def note(envelope: Envelope, frames: dict[str, bytes] = frames) -> bytes:
            if envelope.phase == "upload" and envelope.receiver == "server":
                frames[envelope.sender] = envelope.frame
            return envelope.frame

        simulate_on_workers(
            serve(plan, ROSTER),
            PEOPLE,
            update_of,
            policy=POLICY,
            engine=Threads(2),
            secret=SECRET,
            faults=Faults(corrupted=note),
        )
        uploads.append(frames)
    assert uploads[0].keys() == uploads[1].keys()
    assert len(uploads[0]) == N
    assert not set(uploads[0].values()) & set(uploads[1].values())


def test_a_crowd_with_dropouts_and_a_lying_network() -> None:
    def spoil(envelope: Envelope) -> bytes:
        if envelope.receiver == "client-2" and envelope.phase == "upload":
            return envelope.frame[:-1] + bytes([envelope.frame[-1] ^ 1])
        return envelope.frame

    faults = Faults(
        dropouts={"client-4": "upload", "client-6": "share"}, corrupted=spoil, duplicated=frozenset({"consistency"})
    )
    ran = simulate_on_workers(
        serve(plan_of(), ROSTER), PEOPLE, update_of, policy=POLICY, engine=Threads(2), faults=faults
    )
    assert not {"client-4", "client-6"} & set(ran.outcome.survivors)
    expected = sum(update_of(name) for name in ran.outcome.survivors)
    assert ran.outcome.total.tolist() == expected.tolist()


def test_too_few_of_a_crowd() -> None:
    silent = {one.name: "upload" for one in PEOPLE[:6]}
    with pytest.raises(ThresholdError):
        simulate_on_workers(
            serve(plan_of(), ROSTER),
            PEOPLE,
            update_of,
            policy=POLICY,
            engine=Threads(2),
            faults=Faults(dropouts=silent),
        )


def test_a_crowds_clients_have_their_policy() -> None:
    with pytest.raises(ThresholdError, match=r"0 clients advertised.* said: .*below the 7 demanded"):
        simulate_on_workers(
            serve(plan_of(), ROSTER),
            PEOPLE,
            update_of,
            policy=replace(POLICY, min_contributors=7),
            engine=Threads(2),
        )


def test_clients_that_cannot_repeat_themselves_are_no_crowd() -> None:
    pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs the extra ckks")
    plan = RoundPlan.propose("ckks", ROSTER, Encoding.integers(LENGTH), min_contributors=5, adversary="curious")
    with pytest.raises(UsageError, match="would not say the same again"):
        simulate_on_workers(serve(plan, ROSTER), PEOPLE, update_of, policy=POLICY, engine=Threads(2))


def test_at_most_a_few_batches_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded memory: a phase's requests are made as answers come in, not all at once."""
    from protocols.simulation import workers as crowd

    monkeypatch.setattr(crowd, "_BATCH", 2)
    made, taken, worst = 0, 0, 0
    server = serve(plan_of(), ROSTER)
    outbox, receive = server.outbox, server.receive

    def counted() -> Iterator[tuple[str, bytes]]:
        nonlocal made, taken, worst
        made = taken = 0
        for request in outbox():
            made += 1
            worst = max(worst, made - taken)
            yield request

    def counting(name: str, frame: bytes) -> None:
        nonlocal taken
        receive(name, frame)
        taken += 1

    monkeypatch.setattr(server, "outbox", counted)
    monkeypatch.setattr(server, "receive", counting)
    simulate_on_workers(server, PEOPLE, update_of, policy=POLICY, engine=Threads(1))
    assert worst <= 2 * 2 + 2
