"""Whole rounds: every way to drop out, liars, restarts, plans and policies.

Liars that deal, complain and reveal are in ``tests/adversarial/threshold_ckks/test_dealing.py``.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp.calibrate import user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols import plan as plan_module
from protocols import registry
from protocols.client import Client
from protocols.journal import SqliteJournal
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.dealing import Dealt, Opened
from protocols.rounds.phases import Phase
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, local_clients, simulate
from protocols.threshold_ckks import cohort as cohort_module
from protocols.threshold_ckks import parameters as rules_module
from protocols.threshold_ckks.client import ThresholdClient
from protocols.threshold_ckks.cohort import scheme_of
from protocols.threshold_ckks.messages import JointKey, Part, Recovery, Revealed
from protocols.threshold_ckks.parameters import MAX_CLIENTS, Threshold, parameters_of
from protocols.threshold_ckks.server import ThresholdServer
from secagg.assumptions import Adversary
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError, PolicyError, ThresholdError, UsageError
from tests.controls import switch_off

pytestmark = pytest.mark.thinned(4)

POLICY = Policy(min_contributors=3, protocols={"threshold_ckks"}, adversary=Adversary.CURIOUS, corrupt=0)
PHASES = [str(phase) for phase in ThresholdServer.steps]


def proposal(roster: Roster, encoding: Encoding | None = None, **options: object) -> RoundPlan:
    given: dict[str, object] = {"min_contributors": 3, "corrupt": 0, "dropout": "0.3"} | options
    return RoundPlan.propose("threshold_ckks", roster, encoding or Encoding.integers(5), **given)  # type: ignore[arg-type]


def vectors(names: list[str], plan: RoundPlan) -> dict[str, np.ndarray]:
    rng, largest = np.random.default_rng(1), plan.encoding.largest
    return {name: rng.integers(-largest, largest, plan.encoding.length, endpoint=True) for name in names}


class Scene:
    def __init__(self, n: int = 6, encoding: Encoding | None = None, seed: bytes = bytes(32), **options: object):
        policy = POLICY if encoding is None else replace(POLICY, weight_bound=encoding.weight_bound)
        self.roster, self.clients = local_clients(n, policy, Prg(seed))
        self.plan = proposal(self.roster, encoding, session=bytes(16), **options)
        self.updates = vectors(list(self.clients), self.plan)
        self.server: Any = None if self.plan.noise else serve(self.plan, self.roster)

    def run(self, silent: dict[str, str] | None = None, corrupted: Any = lambda envelope: envelope.frame) -> Any:
        return simulate(self.server, self.clients, self.updates.get, faults=Faults(silent or {}, corrupted=corrupted))

    def sum(self, names: tuple[str, ...]) -> list[int]:
        return sum(self.updates[name] for name in names).tolist()


# Dropouts: 6 clients, t = 4.


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param((one, other), id=f"{one}-{other}", marks=[] if (i + j) % 3 == 0 else pytest.mark.long)
        for (i, one), (j, other) in product(enumerate(PHASES), enumerate(PHASES))
    ],
)
def test_any_two_drop_out_anywhere(phases: tuple[str, str]) -> None:
    """Two is the most that may be missing. The sum is exact; it is over those who uploaded.

    By default every third of the pairs of phases, so that each of the two drops out in each; in the long version all.
    """
    scene = Scene()
    result = scene.run(dict(zip(("client-1", "client-4"), phases, strict=True)))
    before = {"advertise", "key", "complain", "defend", "upload"}
    gone = {name for name, phase in zip(("client-1", "client-4"), phases, strict=True) if phase in before}
    survivors = tuple(name for name in scene.clients if name not in gone)
    assert result.outcome.survivors == survivors
    assert result.outcome.total.tolist() == scene.sum(survivors)
    assert not result.incidents
    assert not scene.server.liars
    assert set(scene.server.excluded) == {
        name for name, phase in zip(("client-1", "client-4"), phases, strict=True) if phase == "complain"
    }


@pytest.mark.parametrize("phase", PHASES)
def test_a_third_is_too_many(phase: str) -> None:
    scene = Scene()
    with pytest.raises(ThresholdError):
        scene.run(dict.fromkeys(["client-0", "client-2", "client-3"], phase))
    assert scene.server.outcome is None


def test_clients_refuse_when_fewer_than_t_parts_would_stay_secret() -> None:
    """It is they who count: a server that asks all the same gets no signature. |M| = |U2| - t is granted."""
    for gone, granted in ((2, True), (3, False)):
        scene = Scene()
        names = list(scene.clients)[:gone]
        replies = {name: client.start(scene.plan, scene.updates[name]) for name, client in scene.clients.items()}
        while scene.server.phase != Phase.MISSING:
            if scene.server.phase == Phase.DECRYPT:
                scene.server._t = 2  # its own count is not what protects them
            for name, frame in replies.items():
                if scene.server.phase != Phase.DECRYPT or name not in names:
                    scene.server.receive(name, frame)
            scene.server.close(scene.server.phase)
            if scene.server.phase != Phase.MISSING:
                replies = {name: scene.clients[name].receive(frame) for name, frame in scene.server.outbox()}
        for name, frame in scene.server.outbox():
            if granted:
                scene.clients[name].receive(frame)
            else:
                with pytest.raises(ThresholdError, match="would stay secret"):
                    scene.clients[name].receive(frame)


def test_one_key_for_all_subsets_that_stay() -> None:
    """Whoever answers, the sum is the same: each pair of missing clients in turn."""
    for gone in combinations([f"client-{i}" for i in range(6)], 2):
        scene = Scene()
        result = scene.run(dict.fromkeys(gone, "decrypt"))
        assert result.outcome.total.tolist() == scene.sum(tuple(scene.clients))


def test_wide_numbers_and_many_blocks() -> None:
    scene = Scene(encoding=Encoding.integers(20_000, bits=32, weight_bound=1 << 20))
    result = scene.run({"client-1": "decrypt"})
    assert result.outcome.total[:-1].tolist() == scene.sum(tuple(scene.clients))
    assert scene_blocks(scene) > 1


def scene_blocks(scene: Scene) -> int:
    return scene_sizes(scene).blocks


def scene_sizes(scene: Scene) -> Any:
    return scheme_of(scene.plan).sizes


# Liars.


def lying(monkeypatch: pytest.MonkeyPatch, liar: str) -> None:
    """A holder who reveals shares of something else, signed as they should be."""
    honest = ThresholdClient._recover

    def recover(self: ThresholdClient) -> Recovery:
        if self.identity.name == liar:
            self._held = {w: bytes(len(points)) for w, points in self._held.items()}
        return honest(self)

    monkeypatch.setattr(ThresholdClient, "_recover", recover)


@pytest.mark.parametrize("liar", [f"client-{i}" for i in range(1, 7)])
def test_a_lying_holder_is_named_and_done_without(liar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """7 clients, t = 4, one missing: 6 shares of which one is wrong, whether or not it would be needed."""
    lying(monkeypatch, liar)
    scene = Scene(7)
    result = scene.run({"client-0": "decrypt"})
    assert result.outcome.total.tolist() == scene.sum(tuple(scene.clients))
    assert scene.server.liars == (liar,)


def test_a_wrong_partial_decryption_names_those_who_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the sum shows that it is wrong, and nobody can tell whose it was: a ciphertext may have been."""
    honest = ThresholdClient._decrypt

    def decrypt(self: ThresholdClient) -> Any:
        if self.identity.name == "client-2":
            self._key_seed = bytes(32)
        return honest(self)

    monkeypatch.setattr(ThresholdClient, "_decrypt", decrypt)
    scene = Scene()
    with pytest.raises(PeerError, match="out of range") as caught:
        scene.run({"client-5": "decrypt"})
    assert set(caught.value.culprits) == set(scene.clients)


# What the server gets to see.


def test_only_the_missing_clients_seeds_can_be_rebuilt() -> None:
    """Of all that is revealed, no share belongs to a client that answered."""
    scene, revealed = Scene(), set[int]()
    wire = registry.find("threshold_ckks").messages

    def tap(envelope: Envelope) -> bytes:
        message = wire.decode(scene.plan, envelope.frame)
        if isinstance(message, Recovery):
            revealed.update(share.peer for share in message.shares)
        return envelope.frame

    scene.run({"client-2": "upload", "client-5": "decrypt"}, tap)
    assert revealed == {2, 5}


def test_secrets_do_not_show_in_repr() -> None:
    assert "share" not in repr(Revealed(3, b"share"))
    assert "boxes" not in repr(Part(b"k", Dealt((), b"")))
    assert "points" not in repr(JointKey(b"", b"k", (Opened(1, b"points"),)))


# Restarts.


def test_clients_that_restart_before_every_message_say_the_same(tmp_path: Path) -> None:
    identities = [Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(6)]
    roster = Roster.of(identities)
    plan = proposal(roster, session=bytes(16))
    by_name = {identity.name: identity for identity in identities}
    updates = vectors(list(by_name), plan)

    def restarted(name: str) -> Client:
        journal = SqliteJournal(tmp_path / f"{name}.db")
        return Client(by_name[name], roster, policy=POLICY, journal=journal)

    server = serve(plan, roster)
    frames = {name: restarted(name).start(plan, updates[name]) for name in by_name}
    while server.outcome is None:
        for name, frame in frames.items():
            if name != "client-2" or server.phase != Phase.DECRYPT:
                server.receive(name, frame)
        server.close(server.phase)
        frames = {}
        for name, frame in server.outbox():
            client = restarted(name)
            client.start(plan, updates[name])
            frames[name] = client.receive(frame)
            again = restarted(name)
            assert again.start(plan, updates[name]) == frames[name]
            assert again.receive(frame) == frames[name]
    assert server.outcome.total.tolist() == sum(updates.values()).tolist()


def test_nothing_that_is_drawn_for_one_vector_is_used_for_another() -> None:
    """Two copies of a client, one secret, vectors that differ in one place: the ciphertexts have nothing in common."""
    uploads = []
    for change in (0, 1):
        scene = Scene()
        scene.updates["client-0"] = scene.updates["client-0"].copy()
        scene.updates["client-0"][0] = change
        replies = {name: client.start(scene.plan, scene.updates[name]) for name, client in scene.clients.items()}
        for _ in range(3):
            for name, frame in replies.items():
                scene.server.receive(name, frame)
            scene.server.close(scene.server.phase)
            replies = {name: scene.clients[name].receive(frame) for name, frame in scene.server.outbox()}
        uploads.append(replies)
    assert uploads[0]["client-1"] == uploads[1]["client-1"]
    one, other = (np.frombuffer(upload["client-0"][100:4000], np.uint8) for upload in uploads)
    assert (one == other).mean() < 0.05  # 1/256 for independent bytes; 3900 of them: false alarm below 1e-80


# Plans and policies.


@pytest.mark.parametrize("parameters", [Threshold(1), Threshold(7), Threshold(0), "other"])
def test_plans_that_make_no_sense(parameters: object) -> None:
    roster, _ = local_clients(6, POLICY)
    with pytest.raises(UsageError):
        replace(proposal(roster), parameters=parameters)


def test_plans_travel() -> None:
    plan = proposal(local_clients(6, POLICY)[0])
    assert RoundPlan.decode(plan.encode()) == plan
    assert parameters_of(plan) == Threshold(4)


def test_more_than_1024_clients_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    roster = Roster.build({f"c{i:04}": (i + 2).to_bytes(32, "little") for i in range(MAX_CLIENTS + 1)})
    with pytest.raises(UsageError, match="up to 1024 clients"):
        proposal(roster)
    plan = replace(proposal(roster, clients=MAX_CLIENTS), ring_bits=40)
    with pytest.raises(UsageError, match="up to 1024 clients"):
        replace(plan, clients=MAX_CLIENTS + 1)
    switch_off(monkeypatch, rules_module, "check_parameters", "plan.clients > MAX_CLIENTS")
    monkeypatch.setattr(plan_module, "rules_of", lambda name: replace(found, check=rules_module.check_parameters))
    assert replace(plan, clients=MAX_CLIENTS + 1).clients == MAX_CLIENTS + 1


found = rules_of("threshold_ckks")


@pytest.mark.parametrize(("corrupt", "dropout"), [("0.1", "0.5"), ("0.4", "0.4"), ("0.9", 0)])
def test_what_is_infeasible_is_said(corrupt: str, dropout: str) -> None:
    roster, _ = local_clients(10, POLICY)
    if (corrupt, dropout) == ("0.9", 0):
        assert parameters_of(proposal(roster, corrupt=corrupt, dropout=0)).threshold == 10
        return
    with pytest.raises(UsageError, match="infeasible"):
        proposal(roster, corrupt=corrupt, dropout=dropout)


def test_a_client_computes_the_threshold_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 clients of whom it fears 3 corrupt: t = 7. A plan with 6 is refused before a word is said."""
    roster, clients = local_clients(10, replace(POLICY, corrupt="0.3"))
    plan = proposal(roster, dropout="0.3")
    assert parameters_of(plan) == Threshold(6)
    with pytest.raises(PolicyError, match="at least 7 is needed"):
        clients["client-0"].start(plan, np.zeros(5))
    clients["client-0"].start(replace(plan, parameters=Threshold(7)), np.zeros(5))
    switch_off(
        monkeypatch, cohort_module, "_check_threshold", "threshold < (needed := complete_threshold(size, corrupt))"
    )
    clients["client-1"].start(plan, np.zeros(5))


def test_a_client_must_have_agreed_to_this_trust_model() -> None:
    roster, clients = local_clients(4, Policy(min_contributors=2))
    with pytest.raises(PolicyError, match="not among those allowed"):
        clients["client-0"].start(proposal(roster), np.zeros(5))


@pytest.mark.parametrize(("phase", "left"), [("upload", ()), ("decrypt", ("client-4",))])
def test_noise_and_what_it_costs(phase: str, left: tuple[str, ...], tmp_path: Path) -> None:
    """A client that keeps a budget is charged what the server is charged. Who falls silent after its upload leaves its
    excess in the sum and is named. 3000 coordinates: 6.5 deviations of a variance, false alarm below 1e-9.
    """
    noise = NoiseSpec(Family.SKELLAM, Fraction(10**6), dropouts=2, colluders=1, components=2)
    scene = Scene(encoding=Encoding.integers(3000, bits=4), min_contributors=4, noise=noise)
    guarantee, huge = user_level(Relation.ZERO_OUT), Budget(Fraction(20), Fraction(1, 1000), slack=Fraction(1, 10**6))
    ledgers = [
        Ledger.create(tmp_path / f"{i}.db", SigningKey(bytes([i]) * 32), huge, guarantee, run="test", elsewhere="-")
        for i in range(2)
    ]
    scene.server = serve(scene.plan, scene.roster, ledger=ledgers[0])
    scene.clients["client-1"]._ledger = ledgers[1]
    outcome = scene.run({"client-4": phase}).outcome
    assert outcome.event.excess_left == left
    rest = outcome.total - scene.sum(outcome.survivors)
    excess = sum(noise.component_variance(6, level) for level in (1, 2)) if left else 0
    survivors = len(outcome.survivors)
    expected = float(noise.honest_variance(6, survivors) * Fraction(survivors, survivors - 1) + excess)
    assert abs(np.mean(rest**2.0) / expected - 1) < 6.5 * (2 / 3000) ** 0.5
    sums = [[entry["sum"] for entry in ledger.entries() if entry["phase"] == "commit"] for ledger in ledgers]
    assert [len(one) for one in sums] == [1, 1]
    assert sums[0][0]["survivors"] == sums[1][0]["survivors"] == len(outcome.survivors)
    for ledger in ledgers:
        ledger.close()


def test_a_seed_of_noise_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no noise in the plan. The client that sends one all the same is done without, and blamed."""
    honest = ThresholdClient._excess_seed

    def unasked(self: ThresholdClient, *context: Any) -> bytes:
        return bytes(32) if self.identity.name == "client-3" else honest(self, *context)

    monkeypatch.setattr(ThresholdClient, "_excess_seed", unasked)
    scene = Scene()
    result = scene.run()
    assert [incident.error.culprits for incident in result.incidents] == [("client-3",)]
    assert result.outcome.total.tolist() == scene.sum(tuple(scene.clients))
    assert scene.server._missing == [3]
    monkeypatch.setattr("protocols.threshold_ckks.server.check_excess", lambda *_: None)
    assert not Scene().run().incidents
