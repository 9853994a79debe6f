"""Whole rounds: both ways to reveal, wide numbers, restarts, the missing extra."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dp.noise import Family, NoiseSpec
from protocols.ckks import ciphertexts
from protocols.ckks.client import TRIES, CkksClient, sum_of
from protocols.ckks.parameters import KeyMakers, Recipient, parameters_of
from protocols.ckks.server import CkksServer
from protocols.client import Client
from protocols.journal import SqliteJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, local_clients, simulate
from secagg.assumptions import Adversary
from secagg.encoding import Encoding
from secagg.errors import BudgetError, PeerError, PolicyError, ThresholdError, UnblamedError, UsageError
from secagg.extras import hint
from tests.controls import switch_off

pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")

ROOT = Path(__file__).resolve().parents[3]
POLICY = Policy(min_contributors=3, protocols={"ckks"}, adversary=Adversary.CURIOUS, corrupt=0)


def proposal(roster: Roster, encoding: Encoding | None = None, **options: object) -> RoundPlan:
    given: dict[str, object] = {"min_contributors": 3, "dropout": "0.2"} | options
    return RoundPlan.propose("ckks", roster, encoding or Encoding.integers(5), **given)  # type: ignore[arg-type]


def vectors(names: list[str], plan: RoundPlan) -> dict[str, np.ndarray]:
    rng, largest = np.random.default_rng(1), plan.encoding.largest
    return {name: rng.integers(-largest, largest, plan.encoding.length, endpoint=True) for name in names}


def test_only_clients_learn_the_sum() -> None:
    roster, clients = local_clients(6, POLICY)
    plan = proposal(roster)
    plan = replace(plan, parameters=replace(parameters_of(plan), reveal=Recipient.CLIENTS))
    assert RoundPlan.decode(plan.encode()) == plan
    updates, gone = vectors(list(clients), plan), roster.names[1]
    outcome = simulate(serve(plan, roster), clients, updates.get, faults=Faults({gone: "upload"})).outcome
    assert outcome.total.size == 0
    with pytest.raises(UsageError, match="a sum has shape"):
        outcome.decode()
    expected = sum(vector for name, vector in updates.items() if name != gone)
    for name in outcome.survivors:
        assert sum_of(clients[name]).vector.tolist() == expected.tolist()
        assert sum_of(clients[name]).weight == 5
    with pytest.raises(UsageError, match="no sum"):
        sum_of(clients[gone])


def test_of_the_clients_only_holders_learn_the_sum() -> None:
    roster, clients = local_clients(8, POLICY)
    plan = proposal(roster)
    updates = vectors(list(clients), plan)
    simulate(serve(plan, roster), clients, updates.get)
    knowing = 0
    for client in clients.values():
        try:
            assert sum_of(client).vector.tolist() == sum(updates.values()).tolist()
        except UsageError:
            continue
        knowing += 1
    assert knowing == parameters_of(plan).makers == 3


def test_a_holder_whose_budget_refuses_shows_no_sum() -> None:
    """Charged before released: between decryption and ledger the sum is in memory, and nobody is given it."""
    roster, clients = local_clients(4, POLICY)
    plan = proposal(roster, min_contributors=4)
    updates = vectors(list(clients), plan)

    honest = CkksClient._answer

    def refuses(current: CkksClient) -> object:
        if current._total is None:
            return honest(current)
        raise BudgetError("spent")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CkksClient, "_answer", refuses)
        with pytest.raises(ThresholdError, match="said: spent"):
            simulate(serve(plan, roster), clients, updates.get)
    holders = [client for client in clients.values() if client._round._total is not None]
    assert holders
    for client in holders:
        with pytest.raises(UsageError, match="no sum"):
            sum_of(client)


def test_a_restarted_holder_decrypts_the_same(tmp_path: Path) -> None:
    """Every client starts anew before every message, and says what it would have said."""
    identities = [Identity.generate(f"c{i}") for i in range(4)]
    roster = Roster.of(identities)
    plan = proposal(roster)
    updates = vectors([identity.name for identity in identities], plan)

    def restarted(identity: Identity) -> Client:
        journal = SqliteJournal(tmp_path / f"{identity.name}.db")
        return Client(identity, roster, policy=POLICY, journal=journal)

    server = serve(plan, roster)
    by_name = {identity.name: identity for identity in identities}
    frames = {name: restarted(identity).start(plan, updates[name]) for name, identity in by_name.items()}
    while server.outcome is None:
        for name, frame in frames.items():
            server.receive(name, frame)
        server.close(server.phase)
        frames = {}
        for name, frame in server.outbox():
            client = restarted(by_name[name])
            client.start(plan, updates[name])
            frames[name] = client.receive(frame)
            again = restarted(by_name[name])
            assert again.start(plan, updates[name]) == frames[name]
            assert again.receive(frame) == frames[name]
    assert server.outcome.total.tolist() == sum(updates.values()).tolist()


def until(phase: str, clients: dict[str, Client], plan: RoundPlan, roster: Roster) -> CkksServer:
    """A server that has closed the phase before; everybody answers."""
    server = serve(plan, roster)
    assert isinstance(server, CkksServer)
    for name, update in vectors(list(clients), plan).items():
        server.receive(name, clients[name].start(plan, update))
    server.close("advertise")
    while server.phase != phase:
        for name, frame in server.outbox():
            server.receive(name, clients[name].receive(frame))
        server.close(server.phase)
    return server


@pytest.mark.parametrize("bounded", [True, False])
def test_a_client_looks_into_few_sums_that_it_refuses(bounded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a process, and tells whoever made it something of the key. The control: without that, all of them."""
    if not bounded:
        switch_off(monkeypatch, CkksClient, "_tried", "self._refusals == TRIES")
    roster, clients = local_clients(4, POLICY)
    server = until("reveal", clients, proposal(roster), roster)
    server._sum = tuple(bytes([number]) * 40 for number, _ in enumerate(server._sum))
    holder = server._name(server._cohort.holders[0])
    frame, opened, decrypt = dict(server.outbox())[holder], [], ciphertexts.decrypt
    monkeypatch.setattr(ciphertexts, "decrypt", lambda *given: (opened.append(1), decrypt(*given))[1])
    for _ in range(TRIES + 2):
        with pytest.raises(UnblamedError):
            clients[holder].receive(frame)
    assert len(opened) == (TRIES if bounded else TRIES + 2)


@pytest.mark.parametrize("bounded", [True, False])
def test_a_server_looks_into_one_upload_that_it_refuses(bounded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may cost it a process, and the sum made again. The sender is to blame, and the others are not hurt."""
    if not bounded:
        switch_off(monkeypatch, CkksServer, "_add", "u in self._refused")
    roster, clients = local_clients(4, POLICY)
    server = until("upload", clients, proposal(roster), roster)
    looked, add = [], ciphertexts.Adder.add
    monkeypatch.setattr(ciphertexts.Adder, "add", lambda adder, chunks: (looked.append(1), add(adder, chunks))[1])
    for name, frame in server.outbox():
        with monkeypatch.context() as patched:
            if name == roster.names[0]:
                patched.setattr(ciphertexts, "encrypt", lambda layout, public, values: (b"none",))
            upload = clients[name].receive(frame)
        for _ in range(3 if name == roster.names[0] else 0):
            with pytest.raises(PeerError) as caught:
                server.receive(name, upload)
            assert caught.value.culprits == (name,)
        if name != roster.names[0]:
            server.receive(name, upload)
    assert len(looked) == 3 + (1 if bounded else 3)
    server.close("upload")
    assert server._uploaded == [1, 2, 3]


def test_no_holder_left_is_a_threshold_error() -> None:
    """All but the makers stay: nobody can decrypt, and nothing is revealed."""
    roster, clients = local_clients(8, POLICY)
    plan = proposal(roster, dropout=0)
    server = serve(plan, roster)
    updates = vectors(list(clients), plan)
    frames = {name: client.start(plan, updates[name]) for name, client in clients.items()}
    for name, frame in frames.items():
        server.receive(name, frame)
    server.close("advertise")
    makers = {server._name(u) for u in server._cohort.makers}
    for phase in ("key", "upload"):
        for name, frame in server.outbox():
            server.receive(name, clients[name].receive(frame))
        server.close(phase)
    for name, frame in server.outbox():
        if name not in makers:
            server.receive(name, clients[name].receive(frame))
    with pytest.raises(ThresholdError, match="holders of the key"):
        server.close("consistency")
    assert server.outcome is None


@pytest.mark.parametrize(
    ("parameters", "noise"),
    [
        (KeyMakers(Recipient.SERVER, 1), None),
        (KeyMakers(Recipient.SERVER, 7), None),
        (KeyMakers(Recipient.CLIENTS, 2), NoiseSpec(Family.SKELLAM, Fraction(9), dropouts=2, components=2)),
        ("other", None),
    ],
)
def test_plans_that_make_no_sense(parameters: object, noise: NoiseSpec | None) -> None:
    roster, _ = local_clients(6, POLICY)
    plan = replace(proposal(roster), ring_bits=40, min_contributors=4)
    with pytest.raises(UsageError):
        replace(plan, parameters=parameters, noise=noise)


def test_more_than_4096_clients_are_refused() -> None:
    keys = {f"c{i:04}": (i + 2).to_bytes(32, "little") for i in range(4097)}
    with pytest.raises(UsageError, match="4096 clients"):
        proposal(Roster.build(keys), dropout="0.1")


def test_a_client_must_have_agreed_to_this_trust_model() -> None:
    roster, clients = local_clients(4, Policy(min_contributors=2))
    with pytest.raises(PolicyError, match="protocol ckks is not among those allowed"):
        clients["client-0"].start(proposal(roster), np.zeros(5))


def test_a_client_that_expects_everybody_gone() -> None:
    roster, clients = local_clients(4, replace(POLICY, dropout="0.75"))
    with pytest.raises(PolicyError, match="expected to stay"):
        clients["client-0"].start(proposal(roster), np.zeros(5))


WITHOUT = """
import sys
sys.modules["tenseal"] = None
from secagg.cli import main
assert main(["protocols"]) == 0
from protocols import registry
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.simulation.network import local_clients
from secagg.encoding import Encoding
from secagg.errors import UsageError
roster, _ = local_clients(4, Policy(min_contributors=2))
RoundPlan.propose("secagg", roster, Encoding.integers(3), min_contributors=2)
try:
    RoundPlan.propose("ckks", roster, Encoding.integers(3), min_contributors=2)
except UsageError as error:
    print(error)
"""


def test_without_the_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == hint("ckks", "the protocol ckks")


def test_the_library_itself_never_loads_tenseal() -> None:
    code = "import sys, protocols.ckks.server, protocols.registry as r; r.find('ckks'); print('tenseal' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_keys_do_not_show_in_repr() -> None:
    assert "b'" not in repr(ciphertexts.KeyPair(b"public", b"secret"))
