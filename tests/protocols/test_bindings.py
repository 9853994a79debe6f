"""What a graph, a commitment and a secret are bound to, by what they do and not by pinned bytes: with another plan,
cohort, client or purpose they are others, and nothing of one says anything of the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from protocols import registry
from protocols.ckks import cohort as ckks
from protocols.client import Client
from protocols.oneshot import client as oneshot_client
from protocols.oneshot.client import OneshotClient
from protocols.oneshot.committee import Committee
from protocols.oneshot.messages import Member
from protocols.pairwise import cohort as pairwise
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Roster
from protocols.rounds.client import ClientRound
from protocols.server import serve
from protocols.simulation.network import local_clients
from protocols.threshold_ckks import client as threshold_client
from protocols.threshold_ckks import cohort as threshold
from protocols.threshold_ckks import server as threshold_server
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.fingerprint import fingerprint
from secagg.crypto.graph import Graph, GraphParameters, Neighbourhoods
from secagg.crypto.keys import derive, digest
from secagg.crypto.prg import Prg
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.encoding import Encoding
from secagg.errors import PeerError
from tests.controls import switch_off

LABELS = [value for name, value in vars(labels).items() if name.isupper() and isinstance(value, bytes)]
ROOTS = [bytes([i]) * 32 for i in range(40)]


def others(label: bytes) -> list[bytes]:
    """All other purposes, and none."""
    assert label in LABELS
    return [b"", *(one for one in LABELS if one != label)]


def deployment(protocol: str, n: int) -> tuple[Roster, dict[str, Client], RoundPlan]:
    policy = Policy(min_contributors=3, protocols={protocol}, adversary=rules_of(protocol).against, corrupt=0)
    roster, clients = local_clients(n, policy, Prg(bytes(32)))
    plan = RoundPlan.propose(
        protocol, roster, Encoding.integers(4), min_contributors=3, corrupt=0, dropout="0.3", session=bytes(16)
    )
    return roster, clients, plan


# The graph of the pairwise protocols, and the lot of ckks.

SIZE, DEGREE = 60, 6


def ring_plan(number: int = 0) -> RoundPlan:
    plan = deployment("secagg+", SIZE)[2]
    return replace(plan, parameters=GraphParameters(Graph.RING, DEGREE, 4), round=number)


def graph(plan: RoundPlan, root: bytes) -> list[frozenset[int]]:
    cohort = pairwise.Cohort(plan, root, SIZE)
    return [frozenset(cohort.holders(u)) for u in range(SIZE)]


def common(one: list[frozenset[int]], other: list[frozenset[int]]) -> float:
    """The share of neighbours that a client keeps, on average."""
    return float(np.mean([len(a & b) / DEGREE for a, b in zip(one, other, strict=True)]))


def unrelated(graphs: list[list[frozenset[int]]]) -> None:
    """By chance a client keeps a tenth (6 of 59). What is asked for here fails for one pair of graphs in about 10^8:
    360 draws of chance 0.1 come to 108 or more. The graphs are fixed, so it fails always or never."""
    assert all(common(graphs[0], other) < 0.3 for other in graphs[1:])
    assert len({tuple(one) for one in graphs}) == len(graphs)


def test_two_cohorts_have_two_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ring_plan()
    assert graph(plan, ROOTS[0]) == graph(plan, ROOTS[0])
    unrelated([graph(plan, root) for root in ROOTS])
    switch_off(monkeypatch, pairwise.Cohort, "__init__", "digest(labels.GRAPH, self._plan, root)", "self._plan")
    assert graph(plan, ROOTS[0]) == graph(plan, ROOTS[1])


def test_two_plans_have_two_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with one root: who deals in two rounds does not deal to the same neighbours."""
    plans = [ring_plan(number) for number in range(10)]
    unrelated([graph(plan, ROOTS[0]) for plan in plans])
    switch_off(monkeypatch, pairwise.Cohort, "__init__", "digest(labels.GRAPH, self._plan, root)", "root")
    assert graph(plans[0], ROOTS[0]) == graph(plans[1], ROOTS[0])


def test_a_graph_is_drawn_from_nothing_that_has_another_purpose() -> None:
    plan = ring_plan()
    drawn = [
        Neighbourhoods(pairwise.parameters_of(plan), SIZE, digest(label, plan.digest(), ROOTS[0]))
        for label in others(labels.GRAPH)
    ]
    unrelated([graph(plan, ROOTS[0]), *[[frozenset(one.of(u)) for u in range(SIZE)] for one in drawn]])


def makers(plan: RoundPlan, root: bytes) -> tuple[int, ...]:
    return ckks.Cohort(plan, root, SIZE).makers


@pytest.fixture
def lots() -> RoundPlan:
    pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")
    return deployment("ckks", SIZE)[2]


def test_other_cohorts_and_plans_draw_other_makers_of_keys(lots: RoundPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert makers(lots, ROOTS[0]) == makers(lots, ROOTS[0])
    assert len({makers(lots, root) for root in ROOTS}) == len(ROOTS)
    rounds = [replace(lots, round=number) for number in range(40)]
    assert len({makers(plan, ROOTS[0]) for plan in rounds}) == len(rounds)
    for part in ("self._plan", "self.root"):
        with monkeypatch.context() as patched:
            switch_off(patched, ckks.Cohort, "bound", part, "b''")
            drawn = [makers(plan, ROOTS[0]) for plan in rounds] + [makers(lots, root) for root in ROOTS]
            assert len(set(drawn)) <= len(ROOTS) + 1


# The commitment to a part of the joint key of threshold_ckks.

LIAR, VICTIM = "client-3", "client-0"


def committed(commitment: Callable[[Any], bytes], shown: str) -> None:
    """A round up to the keys: the liar signs a commitment of its choice, and shows the key of ``shown``, whom it has
    seen by then. ``PeerError`` if the server does not take it."""
    roster, clients, plan = deployment("threshold_ckks", 4)
    messages, server = registry.find("threshold_ckks").messages, serve(plan, roster)
    frames = {name: client.start(plan, np.arange(4)) for name, client in clients.items()}
    machine: Any = clients[LIAR].current
    machine._commitment = commitment({name: client.current for name, client in clients.items()})
    for name, frame in (frames | {LIAR: messages.encode(plan, machine.opening())}).items():
        server.receive(name, frame)
    server.close("advertise")
    parts: dict[str, Any] = {
        name: messages.decode(plan, clients[name].receive(frame)) for name, frame in server.outbox()
    }
    server.receive(LIAR, messages.encode(plan, replace(parts[LIAR], key=parts[shown].key)))


def loosely(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commitments that leave this part out, for both sides."""
    with monkeypatch.context() as patched:
        switch_off(patched, threshold, "commitment_to", part, "b''")
        loose = threshold.commitment_to
    for module in (threshold, threshold_client, threshold_server):
        monkeypatch.setattr(module, "commitment_to", loose)


def own(machines: Any) -> bytes:
    return threshold.commitment_to(machines[LIAR].plan, 3, machines[LIAR]._key_part())


def of_another_plan(machines: Any) -> bytes:
    return threshold.commitment_to(replace(machines[LIAR].plan, round=7), 3, machines[LIAR]._key_part())


def of_another_client(machines: Any) -> bytes:
    return bytes(machines[VICTIM]._commitment)


def of_another_key(machines: Any) -> bytes:
    return threshold.commitment_to(machines[LIAR].plan, 3, machines[VICTIM]._key_part())


@pytest.mark.parametrize(
    ("commitment", "shown", "part"),
    [
        (of_another_plan, LIAR, "plan.digest()"),
        (of_another_client, VICTIM, "u32.encode(client)"),  # twice the victim's part, and no own, in the joint key
        (of_another_key, LIAR, "key"),
    ],
)
def test_a_commitment_is_one_clients_in_one_plan_to_one_key(
    commitment: Callable[[Any], bytes], shown: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(own, LIAR)
    with pytest.raises(PeerError, match=r"another part of the key than was committed to \[client-3\]"):
        committed(commitment, shown)
    loosely(part, monkeypatch)
    committed(commitment, shown)


def test_a_commitment_is_nothing_that_has_another_purpose() -> None:
    plan = deployment("threshold_ckks", 4)[2]
    key = b"a part of the key"
    made = threshold.commitment_to(plan, 3, key)
    assert made not in {digest(label, plan.digest(), u32.encode(3), key) for label in others(labels.THRESHOLD_KEY)}


# The secrets of a one-shot upload.


@dataclass
class Drawn:
    """What a client drew for one upload: seeds of its secret and its errors, and the key for its boxes."""

    seeds: list[bytes]
    key: bytes
    contexts: list[bytes]


def upload(
    monkeypatch: pytest.MonkeyPatch, *, round_: int = 0, members: int = 4, vector: int = 0, client: int = 0
) -> Drawn:
    """Of a client with the same ``secret`` in every plan, committee and vector: a copy of it."""
    roster, clients, first = deployment("oneshot", 4)
    plan, identity = replace(first, round=round_), clients[f"client-{client}"].identity
    seats = [opened_seat(one, roster, plan) for one in clients.values()][:members]
    values = np.full(4, vector)
    machine = OneshotClient(
        plan,
        roster,
        registry.find(plan.protocol).messages,
        identity,
        clients["client-0"].policy,
        lambda: values,
        bytes(32),
    )
    seeds, contexts = list[bytes](), list[bytes]()

    def drawing(variance: Any, count: int, seed: bytes) -> Any:
        seeds.append(seed)
        return discrete_gaussian(variance, count, seed)

    def with_context(self: OneshotClient, purpose: bytes, *context: bytes) -> bytes:
        contexts.extend(context)
        return ClientRound._drawn(self, purpose, *context)

    with monkeypatch.context() as patched:
        patched.setattr(oneshot_client, "discrete_gaussian", drawing)
        patched.setattr(OneshotClient, "_drawn", with_context)
        machine._committee = Committee(plan, seats)
        key = machine._upload().header.key
    return Drawn(seeds, key, contexts)


def opened_seat(client: Client, roster: Roster, plan: RoundPlan) -> Member:
    machine = OneshotClient(
        plan,
        roster,
        registry.find(plan.protocol).messages,
        client.identity,
        client.policy,
        lambda: np.zeros(4, np.int64),
        bytes(32),
    )
    seat = machine.opening().member
    assert seat is not None
    return seat


CHANGES: list[dict[str, int]] = [{}, {"round_": 1}, {"members": 3}, {"vector": 1}, {"client": 1}]


def repeated(monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a seed or a key comes up again in uploads that differ in one thing each."""
    drawn = [upload(monkeypatch, **change) for change in CHANGES]
    everything = [value for one in drawn for value in (*one.seeds, one.key)]
    return len(everything) - len(set(everything))


def test_uploads_of_copies_of_a_client_use_unrelated_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other plans, committees, vectors, places: another secret, other errors, another key. The same again: the same."""
    assert upload(monkeypatch) == upload(monkeypatch)
    assert repeated(monkeypatch) == 0
    vector = "self._fingerprint(values)"
    for less, again in (("(*bound,)", 3), (f"({vector},)", 6)):  # the other vector; the other committee and place
        with monkeypatch.context() as patched:
            switch_off(patched, OneshotClient, "_upload", f"(*bound, {vector})", less)
            assert repeated(patched) == again


def test_the_fingerprint_of_a_vector_has_a_key_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knew it could make two vectors with one fingerprint, and so with one secret."""
    plan = deployment("oneshot", 4)[2]
    words = plan.ring.lift(np.full(4, 1))

    def under(key: bytes) -> bool:
        return fingerprint(key, words) in upload(monkeypatch, vector=1).contexts

    key = derive(bytes(32), labels.CLIENT_SECRET, b"fingerprint", plan.digest())  # from the round's secret
    assert under(key)
    assert not under(bytes(32))
    switch_off(monkeypatch, ClientRound, "_fingerprint", "self._drawn(b'fingerprint')", "bytes(32)")
    assert under(bytes(32))
