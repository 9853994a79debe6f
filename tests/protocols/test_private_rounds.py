"""Rounds with noise: what is in the sum, what is taken off it, and what is on record before anything leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp.accountants import GdpAccountant
from dp.calibrate import calibrate, user_level
from dp.events import Relation, Skellam
from dp.filter import Kind
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols import registry
from protocols.client import Client
from protocols.engines.local import Threads
from protocols.pairwise.messages import Reveal
from protocols.pairwise.server import PairwiseServer
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.client import ClientRound
from protocols.rounds.server import ServerRound
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, Simulation, local_clients, simulate
from secagg import extras
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import (
    BudgetError,
    MissingExtraError,
    PeerError,
    PolicyError,
    StorageError,
    ThresholdError,
    UsageError,
)
from tests.controls import switch_off
from tests.scenes.journals import KeptJournal

pytestmark = pytest.mark.thinned(4)

N, LENGTH = 10, 2000
SKELLAM = NoiseSpec(Family.SKELLAM, Fraction(4_000_000), dropouts=4, colluders=1, components=4)
GAUSSIAN = NoiseSpec(Family.DISCRETE_GAUSSIAN, Fraction(4_000_000), dropouts=4, colluders=1)
POLICY = Policy(min_contributors=5, corrupt="0.1", dropout="0.4")
HUGE = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**6))
NAMES = [f"client-{i}" for i in range(N)]
IDENTITIES = [Identity(name, SigningKey(name.encode().ljust(32, b"."))) for name in NAMES]
ROSTER = Roster.of(IDENTITIES)


def plan_with(noise: NoiseSpec | None = SKELLAM, **changes: Any) -> RoundPlan:
    arguments: dict[str, Any] = {"min_contributors": 6, "dropout": "0.4", "noise": noise} | changes
    return RoundPlan.propose("secagg", ROSTER, Encoding.integers(LENGTH, bits=5), **arguments)


def clients_of(**settings: Any) -> dict[str, Client]:
    arguments: dict[str, Any] = {"policy": POLICY} | settings
    return {
        identity.name: Client(identity, ROSTER, rng=Prg(identity.name.encode().ljust(32, b"r")), **arguments)
        for identity in IDENTITIES
    }


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = new_ledger(tmp_path / "server.db")
    yield made
    made.close()


def new_ledger(path: Path, budget: Budget = HUGE) -> Ledger:
    return Ledger.create(path, SigningKey(b"l" * 32), budget, user_level(Relation.ZERO_OUT), run="test", elsewhere="-")


UPDATES = {name: np.full(LENGTH, i + 1) for i, name in enumerate(NAMES)}


def noise_left(ran: Simulation) -> np.ndarray[Any, Any]:
    known = sum(i + 1 for i, name in enumerate(NAMES) if name in ran.outcome.survivors)
    return ran.outcome.total - known


# What is in the sum


@pytest.mark.parametrize("missing", [0, 1, 3, 4])
@pytest.mark.parametrize("noise", [SKELLAM, GAUSSIAN], ids=["skellam", "gaussian"])
def test_the_sum_carries_the_noise_that_the_event_claims(noise: NoiseSpec, missing: int, ledger: Ledger) -> None:
    """2000 coordinates: 6 sigma of a variance estimate, false alarm below 1e-8 each (8 cases)."""
    plan, faults = plan_with(noise), Faults(dropouts=dict.fromkeys(NAMES[:missing], "upload"))
    ran = simulate(serve(plan, ROSTER, ledger=ledger), clients_of(), UPDATES.get, faults=faults)
    left = noise_left(ran)
    honest = N - missing - noise.colluders
    everybody = float(noise.honest_variance(N, N - missing)) * (N - missing) / honest
    assert abs(np.mean(left**2.0) / everybody - 1) < 6 * np.sqrt(2.1 / LENGTH)
    assert ran.outcome.event.excess_left == ()
    if noise is SKELLAM:
        assert noise.honest_variance(N, N - missing) == noise.variance


def test_what_is_left_after_the_excess_is_exactly_what_each_client_kept(ledger: Ledger) -> None:
    """Not in distribution: the sum is the inputs plus each survivor's noise up to the level, integer by integer."""
    kept, drawn = [], NoiseSpec.draw

    def spy(self: NoiseSpec, clients: int, coordinates: int, keep: bytes, chain: bytes) -> Any:
        whole = drawn(self, clients, coordinates, keep, chain)
        kept.append(
            whole - self.excess(clients, coordinates, self.seed(chain, self.removal_level(2)), self.removal_level(2))
        )
        return whole

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NoiseSpec, "draw", spy)
        faults = Faults(dropouts=dict.fromkeys(NAMES[3:5], "upload"))
        server = serve(plan_with(), ROSTER, ledger=ledger)
        everybody = clients_of()
        ran = simulate(server, everybody, UPDATES.get, faults=faults)
    assert len(kept) == N  # in the order of the clients, the silent ones too
    expected = sum(noise for name, noise in zip(NAMES, kept, strict=True) if name in ran.outcome.survivors)
    assert noise_left(ran).tolist() == expected.tolist()


def test_a_client_lost_after_its_upload_leaves_its_excess_and_is_named(ledger: Ledger) -> None:
    ran = simulate(
        serve(plan_with(), ROSTER, ledger=ledger),
        clients_of(),
        UPDATES.__getitem__,
        faults=Faults(dropouts={NAMES[2]: "reveal"}),
    )
    assert ran.outcome.event.excess_left == (NAMES[2],)
    assert set(ran.outcome.survivors) == set(NAMES)
    excess = float(sum(SKELLAM.component_variance(N, level) for level in range(1, 5)))
    expected = float(SKELLAM.variance) * 10 / 9 + excess
    assert abs(np.mean(noise_left(ran) ** 2.0) / expected - 1) < 6 * np.sqrt(2.1 / LENGTH)


def test_several_workers_remove_the_same(tmp_path: Path) -> None:
    totals = []
    for workers in (1, 3):
        ledger = new_ledger(tmp_path / f"{workers}.db")
        plan = replace(plan_with(), session=bytes(16))
        server = serve(plan, ROSTER, ledger=ledger, engine=Threads(workers))
        totals.append(simulate(server, clients_of(), UPDATES.get).outcome.total.tolist())
        ledger.close()
    assert totals[0] == totals[1]


def test_noise_is_fresh_in_each_round(ledger: Ledger) -> None:
    plan, clients, lefts = plan_with(), clients_of(), []
    for _ in range(2):
        lefts.append(noise_left(simulate(serve(plan, ROSTER, ledger=ledger), clients, UPDATES.get)))
        plan = plan.next_round()
    correlation = np.corrcoef(lefts[0], lefts[1])[0, 1]
    assert abs(correlation) < 6.5 / np.sqrt(LENGTH)


def test_the_decoded_sum_is_near_the_true_one(ledger: Ledger) -> None:
    found = calibrate(
        epsilon=8, delta=1e-3, rounds=1, clients=N, length=100, clip_l2=1.0, dropouts=3, colluders=1, components=3
    )
    plan = RoundPlan.propose("secagg", ROSTER, found.encoding, min_contributors=7, dropout="0.3", noise=found.noise)
    updates = {name: np.full(100, 0.1) for name in NAMES}
    decoded = simulate(serve(plan, ROSTER, ledger=ledger), clients_of(), updates.get).outcome.decode()
    assert abs(decoded.vector.mean() - 1.0) < 6 * found.deviation * np.sqrt(10 / 9 / 100)
    assert decoded.weight == N


# Two clones of one client, made to upload two vectors in one cohort


def clone_difference() -> np.ndarray[Any, Any]:
    plan = plan_with()
    adverts = [client.start(plan, UPDATES[name]) for name, client in clients_of().items()]
    server = serve(plan, ROSTER, ledger=DEAF)
    clones = clients_of(), clients_of()
    for name, frame in zip(NAMES, adverts, strict=True):
        server.receive(name, frame)
    for i, clone in enumerate(clones):
        clone[NAMES[0]].start(plan, UPDATES[NAMES[0]] + 7 * i)
    others = clients_of()
    for name in NAMES[1:]:
        others[name].start(plan, UPDATES[name])
    while server.phase != "complain":
        server.close(server.phase)
        for name, frame in server.outbox():
            answers = (
                [clone[name].receive(frame) for clone in clones] if name == NAMES[0] else [others[name].receive(frame)]
            )
            server.receive(name, answers[0])
    server.close("complain")
    frame = dict(server.outbox())[NAMES[0]]
    messages = [registry.find("secagg").messages.decode(plan, clone[NAMES[0]].receive(frame)) for clone in clones]
    vectors = [plan.ring.unpack(message.vector, LENGTH) for message in messages]
    return plan.ring.centred(vectors[1] - vectors[0])


class Deaf:
    """A ledger that writes nothing, for what is not about ledgers."""

    def reserve(self, what: object) -> None: ...
    def commit(self, what: object) -> None: ...
    def abort(self, what: object, reason: str) -> None: ...


DEAF: Any = Deaf()


def test_two_clones_with_two_vectors_do_not_bare_the_difference() -> None:
    """The masks are the same, the removable noise is the same; the noise to keep is not."""
    difference = clone_difference() - 7
    assert abs(np.mean(difference**2.0) / (2 * float(SKELLAM.kept_variance(N))) - 1) < 6 * np.sqrt(2.1 / LENGTH)


def test_without_the_vector_in_the_seed_the_difference_is_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, ClientRound, "noised", "self._fingerprint(values)", "b''")
    assert (clone_difference() == 7).all()


# Excess seeds


def revealed(ran: Callable[[Faults], Simulation], plan: RoundPlan) -> dict[str, bytes]:
    seeds: dict[str, bytes] = {}

    def see(envelope: Envelope) -> bytes:
        if envelope.phase == "reveal" and envelope.receiver == "server":
            message = registry.find("secagg").messages.decode(plan, envelope.frame)
            assert isinstance(message, Reveal)
            seeds[envelope.sender] = message.excess
        return envelope.frame

    ran(Faults(corrupted=see))
    return seeds


@pytest.mark.parametrize(("missing", "bytes_each"), [(0, 32), (3, 32), (4, 0)])
def test_a_seed_leaves_once_and_only_if_there_is_excess(missing: int, bytes_each: int, ledger: Ledger) -> None:
    plan = plan_with()

    def run(faults: Faults) -> Simulation:
        faults = replace(faults, dropouts=dict.fromkeys(NAMES[:missing], "upload"))
        return simulate(serve(plan, ROSTER, ledger=ledger), clients_of(), UPDATES.get, faults=faults)

    seeds = revealed(run, plan)
    assert {len(seed) for seed in seeds.values()} == {bytes_each}
    assert len(set(seeds.values())) == (N - missing if bytes_each else 1)


@pytest.mark.parametrize("excess", [b"", b"s" * 31, None], ids=["none", "short", "unasked"])
def test_a_reveal_with_another_seed_than_asked_for_bounces(excess: bytes | None, ledger: Ledger) -> None:
    plan = plan_with() if excess is not None else plan_with(noise=replace(SKELLAM, components=0))
    wire = registry.find("secagg").messages

    def forge(envelope: Envelope) -> bytes:
        if (envelope.phase, envelope.sender) == ("reveal", NAMES[0]):
            message = wire.decode(plan, envelope.frame)
            assert isinstance(message, Reveal)
            return wire.encode(plan, replace(message, excess=b"s" * 32 if excess is None else excess))
        return envelope.frame

    ran = simulate(serve(plan, ROSTER, ledger=ledger), clients_of(), UPDATES.get, faults=Faults(corrupted=forge))
    (incident,) = ran.incidents
    assert isinstance(incident.error, PeerError)
    assert incident.error.culprits == (NAMES[0],)
    assert ran.outcome.event.excess_left == ((NAMES[0],) if excess is not None else ())


def test_claiming_fewer_dropouts_gives_no_seed() -> None:
    """A server that calls a dead client alive gets no sum at all: the others' masks with it stay on."""
    plan, clients = plan_with(), clients_of()

    class Lying(PairwiseServer):
        def _announce_survivors(self) -> Any:
            ghost = self._positions[self.roster.number(NAMES[0])]
            self._headers[ghost] = self._headers[ghost + 1]
            self._masked_with[ghost] = self._masked_with[ghost + 1]
            return super()._announce_survivors()

    server = Lying(plan, ROSTER, registry.find("secagg").messages, ledger=DEAF)
    with pytest.raises((ThresholdError, PeerError)):
        simulate(server, clients, UPDATES.get, faults=Faults(dropouts={NAMES[0]: "upload"}))
    assert not server._excess


# Beyond the allowance


def test_with_too_many_missing_nothing_is_unmasked(ledger: Ledger) -> None:
    plan, clients = plan_with(), clients_of()
    silent = dict.fromkeys(NAMES[:5], "upload")
    server = serve(plan, ROSTER, ledger=ledger)
    with pytest.raises(ThresholdError, match="5 clients uploaded, at least 6"):
        simulate(server, clients, UPDATES.get, faults=Faults(dropouts=silent))
    assert [entry["phase"] for entry in ledger.entries()] == ["genesis", "reserve", "abort"]
    assert ledger.epsilon < 1


def test_a_client_does_not_sign_too_few_survivors(monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, PairwiseServer, "_announce_survivors", "self._least", "1")
    monkeypatch.setattr(NoiseSpec, "removal_level", lambda self, missing: 0)
    plan, clients = plan_with(), clients_of()
    with pytest.raises(ThresholdError, match="0 survivors signed"):
        simulate(
            serve(plan, ROSTER, ledger=DEAF),
            clients,
            UPDATES.__getitem__,
            faults=Faults(dropouts=dict.fromkeys(NAMES[:5], "upload")),
        )


def test_a_plan_that_goes_on_with_fewer_than_the_noise_allows_for_cannot_be_written() -> None:
    with pytest.raises(UsageError, match="min_contributors is 6 then"):
        plan_with(min_contributors=5)
    with pytest.raises(UsageError, match="nobody is left"):
        plan_with(noise=replace(SKELLAM, dropouts=5, colluders=5))
    with pytest.raises(UsageError, match="too narrow"):
        replace(plan_with(), ring_bits=plan_with(noise=None).ring_bits)


# Policy


@pytest.mark.parametrize(
    ("policy", "noise", "reason"),
    [
        ({"noise_multiplier": "1/2"}, None, "less noise"),
        ({"noise_multiplier": 2000.0}, SKELLAM, "less noise"),
        ({"corrupt": "0.2"}, SKELLAM, "allows for 1 colluders, not the 2 feared"),
    ],
)
def test_a_client_refuses_too_little_noise(policy: dict[str, Any], noise: NoiseSpec | None, reason: str) -> None:
    client = clients_of(policy=replace(POLICY, **policy))[NAMES[0]]
    with pytest.raises(PolicyError, match=reason):
        client.start(plan_with(noise), UPDATES[NAMES[0]])


def test_enough_noise_is_accepted() -> None:
    plan = plan_with()
    multiplier = Fraction(int(2000 / np.sqrt(plan.encoding.sensitivity().l2_squared) * 1000), 1000)
    clients_of(policy=replace(POLICY, noise_multiplier=multiplier))[NAMES[0]].start(plan, UPDATES[NAMES[0]])


# Ledgers


def test_a_noised_plan_needs_a_ledger_and_a_plain_one_has_none(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match="charged to a ledger"):
        serve(plan_with(), ROSTER)
    with pytest.raises(UsageError, match="charged to a ledger"):
        serve(plan_with(noise=None), ROSTER, ledger=ledger)


def test_reserved_before_the_first_message_committed_before_the_first_share(ledger: Ledger) -> None:
    plan, seen = plan_with(), {}

    def see(envelope: Envelope) -> bytes:
        seen.setdefault((envelope.phase, envelope.receiver == "server"), [e["phase"] for e in ledger.entries()])
        return envelope.frame

    faults = Faults(dropouts={NAMES[0]: "upload"}, corrupted=see)
    ran = simulate(serve(plan, ROSTER, ledger=ledger), clients_of(), UPDATES.get, faults=faults)
    reserved, committed = ["genesis", "reserve"], ["genesis", "reserve", "commit"]
    assert seen["advertise", True] == seen["consistency", True] == reserved
    assert seen["reveal", False] == seen["reveal", True] == committed
    (entry,) = [entry for entry in ledger.entries() if entry["phase"] == "commit"]
    assert entry["sum"]["survivors"] == len(ran.outcome.survivors) == 9
    assert entry["sum"]["plan"] == plan.encode().hex()
    assert len(entry["sum"]["signatures"]) == 9


def test_the_ledger_comes_to_what_an_accountant_says(tmp_path: Path) -> None:
    found = calibrate(
        epsilon=8, delta=1e-3, rounds=3, clients=N, length=100, clip_l2=1.0, dropouts=3, colluders=1, components=3
    )
    plan = RoundPlan.propose("secagg", ROSTER, found.encoding, min_contributors=7, dropout="0.3", noise=found.noise)
    budget = Budget(Fraction(8), Fraction(1, 1000), slack=Fraction(1, 10**5), kind=Kind.GDP)
    ledger, clients, accountant = new_ledger(tmp_path / "l.db", budget), clients_of(), GdpAccountant()
    updates = {name: np.full(100, 0.1) for name in NAMES}
    for _ in range(3):
        ran = simulate(serve(plan, ROSTER, ledger=ledger), clients, updates.get)
        happened = plan.secure_sum(len(ran.outcome.survivors))
        accountant.compose(happened.release(user_level(Relation.ZERO_OUT)))
        plan = plan.next_round()
    assert ledger.epsilon == pytest.approx(accountant.epsilon(0.99e-3), abs=1e-9)
    assert 7.99 < ledger.epsilon <= 8
    with pytest.raises(BudgetError):
        serve(plan, ROSTER, ledger=ledger)
    ledger.close()


def test_a_budget_refused_round_reaches_nobody(tmp_path: Path) -> None:
    ledger = new_ledger(tmp_path / "l.db", Budget(Fraction(1, 10), Fraction(1, 10**6), slack=Fraction(1, 10**9)))
    with pytest.raises(BudgetError):
        serve(plan_with(noise=replace(SKELLAM, variance=Fraction(1000))), ROSTER, ledger=ledger)
    assert [entry["phase"] for entry in ledger.entries()] == ["genesis"]
    ledger.close()


def client_ledgers(folder: Path, budget: Budget = HUGE) -> Mapping[str, Ledger]:
    return {name: new_ledger(folder / f"{name}.db", budget) for name in NAMES[:3]}


def with_ledgers(ledgers: Mapping[str, Ledger]) -> dict[str, Client]:
    return {
        identity.name: Client(identity, ROSTER, policy=POLICY, journal=KeptJournal(), ledger=ledgers.get(identity.name))
        for identity in IDENTITIES
    }


def phases(ledger: Ledger) -> list[str]:
    return [entry["phase"] for entry in ledger.entries()]


def test_clients_keep_their_own_and_it_says_the_same(tmp_path: Path, ledger: Ledger) -> None:
    plan, own = plan_with(), client_ledgers(tmp_path)
    faults = Faults(dropouts={NAMES[1]: "consistency", NAMES[2]: "share", NAMES[5]: "upload"})
    simulate(serve(plan, ROSTER, ledger=ledger), with_ledgers(own), UPDATES.get, faults=faults)
    assert phases(own[NAMES[0]]) == ["genesis", "reserve", "commit"]
    assert phases(own[NAMES[1]]) == ["genesis", "reserve"]  # its vector is in the sum, who else's it never heard
    assert phases(own[NAMES[2]]) == ["genesis"]  # it was never asked for its vector
    entries = [list(book.entries())[-1] for book in (ledger, own[NAMES[0]])]
    mine, theirs = ({key: value for key, value in entry["sum"].items() if key != "signatures"} for entry in entries)
    assert mine == theirs


def test_a_client_refuses_a_plan_beyond_its_budget_before_it_says_a_word(tmp_path: Path) -> None:
    own = client_ledgers(tmp_path, Budget(Fraction(1, 10), Fraction(1, 10**6), slack=Fraction(1, 10**9)))
    plan = plan_with(noise=replace(SKELLAM, variance=Fraction(1000)))
    client = with_ledgers(own)[NAMES[0]]
    with pytest.raises(BudgetError):
        client.start(plan, UPDATES[NAMES[0]])
    assert client.phase is None
    assert phases(own[NAMES[0]]) == ["genesis"]


def test_a_client_with_a_budget_refuses_a_sum_without_noise(tmp_path: Path) -> None:
    client = with_ledgers(client_ledgers(tmp_path))[NAMES[0]]
    with pytest.raises(PolicyError, match="no noise"):
        client.start(plan_with(noise=None), UPDATES[NAMES[0]])


@pytest.mark.parametrize("phase", ["upload", "reveal"])
def test_a_client_that_cannot_write_its_ledger_says_nothing(tmp_path: Path, ledger: Ledger, phase: str) -> None:
    """And the others' round goes on."""
    own = client_ledgers(tmp_path)
    plan, clients = plan_with(), with_ledgers(own)

    def close_late(envelope: Envelope) -> bytes:
        if (envelope.phase, envelope.receiver) == (phase, NAMES[0]):
            own[NAMES[0]].close()
        return envelope.frame

    ran = simulate(serve(plan, ROSTER, ledger=ledger), clients, UPDATES.get, faults=Faults(corrupted=close_late))
    [incident] = ran.incidents
    assert (incident.phase, incident.party, type(incident.error)) == (phase, NAMES[0], StorageError)
    assert "ledger is closed" in str(incident.error)
    assert (NAMES[0] in ran.outcome.survivors) == (phase == "reveal")


def test_a_server_that_cannot_commit_unmasks_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_with()
    server = serve(plan, ROSTER, ledger=ledger)

    def refuse(self: Ledger, what: object) -> None:
        raise BudgetError("no")

    monkeypatch.setattr(Ledger, "commit", refuse)
    with pytest.raises(BudgetError):
        simulate(server, clients_of(), UPDATES.get)
    assert server.phase == "failed"
    assert not list(server.outbox())
    assert phases(ledger)[-1] == "reserve"  # over-counted: what failed is not known here


def test_without_the_charge_shares_leave_unrecorded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control for the order of things."""
    switch_off(monkeypatch, ServerRound, "_closed", "self._ledger is not None and step.charge is Charge.COMMIT")
    simulate(serve(plan_with(), ROSTER, ledger=ledger), clients_of(), UPDATES.get)
    assert phases(ledger) == ["genesis", "reserve"]


def test_a_server_started_again_goes_on_with_its_reservation(ledger: Ledger) -> None:
    plan = plan_with()
    serve(plan, ROSTER, ledger=ledger)
    simulate(serve(plan, ROSTER, ledger=ledger), clients_of(), UPDATES.get)
    assert phases(ledger) == ["genesis", "reserve", "commit"]


def test_a_second_set_of_survivors_for_one_plan_is_refused(ledger: Ledger) -> None:
    plan = plan_with()
    simulate(serve(plan, ROSTER, ledger=ledger), clients_of(), UPDATES.get)
    silent = Faults(dropouts={NAMES[0]: "upload"})
    with pytest.raises(BudgetError, match="other facts"):
        simulate(serve(plan, ROSTER, ledger=ledger), clients_of(), UPDATES.get, faults=silent)


def test_the_event_is_what_the_plan_says_with_the_actual_survivors() -> None:
    happened = plan_with().secure_sum(8)
    mechanism = happened.release(user_level(Relation.ZERO_OUT)).mechanism
    assert mechanism == Skellam(SKELLAM.variance, happened.l2_squared, happened.l1)
    with pytest.raises(UsageError, match="no noise"):
        plan_with(noise=None).secure_sum(8)


class Failing(KeptJournal):
    """Cannot write one step; the process dies there."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.fails_at = step

    def append(self, deployment: bytes, session: bytes, round_: int, step: int, box: bytes, beside: Any = None) -> None:
        if step == self.fails_at:
            self.fails_at = -1
            raise StorageError("died")
        super().append(deployment, session, round_, step, box, beside)


@pytest.mark.parametrize("step", [2, 4], ids=["upload", "reveal"])
def test_a_crash_between_ledger_and_journal_is_charged_once(tmp_path: Path, ledger: Ledger, step: int) -> None:
    """Charged and not said: after the restart the same is charged again, which changes nothing, and then said."""
    own, journal, plan = new_ledger(tmp_path / "own.db"), Failing(step), plan_with()
    clients, identity = clients_of(), IDENTITIES[0]

    def started() -> Client:
        return Client(identity, ROSTER, policy=POLICY, journal=journal, ledger=own, rng=Prg(b"r" * 32))

    clients[identity.name] = started()
    server = serve(plan, ROSTER, ledger=ledger)
    frames = {name: client.start(plan, UPDATES[name]) for name, client in clients.items()}
    died = False
    while server.outcome is None:
        for name, frame in frames.items():
            server.receive(name, frame)
        server.close(server.phase)
        frames = {}
        for name, frame in server.outbox():
            try:
                frames[name] = clients[name].receive(frame)
            except StorageError:
                died = True
                clients[name] = started()
                clients[name].start(plan, UPDATES[name])
                frames[name] = clients[name].receive(frame)
    assert died
    assert len(server.outcome.survivors) == N
    assert phases(own) == ["genesis", "reserve", "commit"]
    own.close()


def test_without_a_compiler_no_client_begins_a_round_with_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    roster, clients = local_clients(4, Policy(min_contributors=3, corrupt=0, dropout="0.25"))
    noise = NoiseSpec(Family.SKELLAM, Fraction(100), dropouts=1, colluders=1, components=0)
    terms: dict[str, Any] = {"min_contributors": 3, "corrupt": 0, "dropout": "0.25"}
    plans = [RoundPlan.propose("secagg", roster, Encoding.integers(3), noise=one, **terms) for one in (noise, None)]
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=re.escape("noise inside a sum needs the extra [dp]: ")):
        clients["client-0"].start(plans[0], np.zeros(3))
    assert clients["client-0"].start(plans[1], np.zeros(3))
