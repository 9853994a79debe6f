"""What every registered protocol must do: the exact sum over the survivors, or a declared error.

Nothing here knows a protocol by name. Phases are those of ``server.steps``, messages are opaque frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dp.calibrate import user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols import registry
from protocols.client import Client
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.server import serve
from protocols.simulation.network import Envelope, Faults, Simulation, local_clients, simulate
from protocols.wire import HEADER_BYTES
from secagg.assumptions import Adversary
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding, Rounding
from secagg.errors import DecodeError, PeerError, StrayError, ThresholdError, UnblamedError, UsageError
from secagg.sketches import RandomK

pytestmark = pytest.mark.thinned(6)

NAMES = registry.names()
PHASES = [(name, str(phase)) for name in NAMES for phase in registry.find(name).server.steps]
PHASES_OF = {name: [phase for owner, phase in PHASES if owner == name] for name in NAMES}
SESSION = b"conformance test"
LEAST = 2
LONG = os.environ.get("SECAGG_HYPOTHESIS") == "long"
whole_rounds = settings() if LONG else settings(max_examples=20)
"""Random rounds of each protocol: 20 by default, as many as everywhere in ``make test-long``."""

SETTINGS = [  # all feasible for 3 to 10 clients
    {"corrupt": "0", "dropout": "0", "adversary": "active", "security": 40},
    {"corrupt": "0.1", "dropout": "0.2", "adversary": "active", "security": 40},
    {"corrupt": "0", "dropout": "0.3", "adversary": "curious", "security": 1},  # a sparse graph, where there is one
]
STURDY = SETTINGS[1]

every_protocol = pytest.mark.parametrize("name", NAMES)
every_phase = pytest.mark.parametrize(("name", "phase"), PHASES)


@dataclass(frozen=True)
class Deployment:
    """A plan, and the clients for it."""

    plan: RoundPlan
    clients: Mapping[str, Client]
    server: Callable[..., ServerRound]

    @property
    def names(self) -> list[str]:
        return list(self.clients)


def deploy(
    name: str,
    n: int,
    encoding: Encoding,
    *,
    seed: bytes = bytes(32),
    session: bytes = SESSION,
    least: int = LEAST,
    setting: Mapping[str, str | int] = STURDY,
    correctness: int = 20,
    clients: int | None = None,
) -> Deployment:
    lies = {} if rules_of(name).against is Adversary.ACTIVE else {"adversary": "curious"}
    policy = Policy(
        min_contributors=least,
        protocols={name},
        weight_bound=encoding.weight_bound,
        users=encoding.users,
        overlap=encoding.overlap,
        **{**setting, **lies},  # type: ignore[arg-type]
    )
    roster, parties = local_clients(n, policy, Prg(seed))
    plan = RoundPlan.propose(
        name,
        roster,
        encoding,
        min_contributors=least,
        session=session,
        correctness=correctness,
        clients=clients,
        **setting,  # type: ignore[arg-type]
    )
    return Deployment(plan, parties, lambda plan=plan: serve(plan, roster))


def integers(names: list[str], encoding: Encoding, seed: int) -> dict[str, NDArray[np.int64]]:
    """Random vectors that use the whole range, extremes included."""
    rng = np.random.default_rng(seed)
    largest = encoding.largest
    vectors = {name: rng.integers(-largest, largest, encoding.length, endpoint=True) for name in names}
    for vector in vectors.values():
        vector[rng.random(encoding.length) < 0.2] = largest * rng.choice([-1, 1])
    return vectors


def check_exact(
    result: Simulation | ServerRound, updates: Mapping[str, NDArray[np.int64]], weights: Mapping[str, int] | None = None
) -> None:
    """The decoded sum is the plain sum over those who are said to have contributed, to the last bit."""
    outcome = result.outcome
    assert outcome is not None
    plan, given = outcome.event.plan, weights or {}
    assert plan.min_contributors <= len(outcome.survivors) <= plan.clients
    assert len(set(outcome.survivors)) == len(outcome.survivors)
    assert set(outcome.survivors) <= set(outcome.event.advertised) <= set(updates)
    expected = sum(given.get(name, 1) * updates[name] for name in outcome.survivors)
    assert outcome.decode().vector.tolist() == [float(value) for value in expected]  # type: ignore[union-attr]
    assert outcome.decode().weight == sum(given.get(name, 1) for name in outcome.survivors)
    assert outcome.total[: plan.encoding.length].tolist() == expected.tolist()  # type: ignore[union-attr]


def walk(
    server: ServerRound,
    clients: Mapping[str, Client],
    updates: Mapping[str, NDArray[np.int64]],
    *,
    at_server: Callable[[str, bytes], None] = lambda name, frame: None,
    at_client: Callable[[str, bytes], None] = lambda name, frame: None,
) -> ServerRound:
    """A round without faults; the callbacks come before each frame is delivered."""
    replies = [(name, clients[name].start(server.plan, update)) for name, update in updates.items()]
    while server.outcome is None:
        for name, frame in replies:
            at_server(name, frame)
            server.receive(name, frame)
        server.close(server.phase)
        replies = []
        for name, frame in server.outbox():
            at_client(name, frame)
            replies.append((name, clients[name].receive(frame)))
    return server


@dataclass
class Recorder:
    """A network that changes nothing and keeps everything."""

    envelopes: list[Envelope] = field(default_factory=list)

    def __call__(self, envelope: Envelope) -> bytes:
        self.envelopes.append(envelope)
        return envelope.frame


# The sum, whoever drops out and when.


@dataclass(frozen=True)
class Situation:
    deployment: Deployment
    updates: dict[str, NDArray[np.int64]]
    weights: dict[str, int]
    silent: dict[str, str]
    duplicated: frozenset[str]
    shuffled: bytes | None

    def faults(self, corrupted: Callable[[Envelope], bytes] = lambda envelope: envelope.frame) -> Faults:
        return Faults(self.silent, self.duplicated, self.shuffled, corrupted)


@st.composite
def situations(draw: st.DrawFn, name: str) -> Situation:
    n = draw(st.integers(3, 9))
    encoding = Encoding.integers(
        draw(st.integers(1, 70)), draw(st.integers(2, 32)), draw(st.sampled_from([1, 1, 2, 1000, (1 << 20) + 1]))
    )
    deployment = deploy(
        name,
        n,
        encoding,
        least=draw(st.integers(2, 3)),
        setting=draw(st.sampled_from(SETTINGS)),
        correctness=draw(st.sampled_from([1, 20])),
    )
    phases = [str(phase) for phase in registry.find(name).server.steps]
    dropouts = st.dictionaries(st.sampled_from(deployment.names), st.sampled_from(phases), max_size=n // 2)
    weight = st.integers(1, encoding.weight_bound) | st.just(encoding.weight_bound)
    return Situation(
        deployment,
        integers(deployment.names, encoding, draw(st.integers(0, 1 << 32))),
        {client: draw(weight) for client in deployment.names},
        draw(dropouts),
        frozenset(draw(st.sets(st.sampled_from(phases)))),
        draw(st.none() | st.binary(min_size=32, max_size=32)),
    )


@every_protocol
@whole_rounds
@given(data=st.data())
def test_exact_sum_or_threshold_error(name: str, data: st.DataObject) -> None:
    """Random sizes, widths, weights and dropouts, with frames that arrive twice and in any order."""
    situation = data.draw(situations(name))
    server, first = situation.deployment.server(), PHASES_OF[name][0]
    try:
        result = simulate(
            server,
            situation.deployment.clients,
            situation.updates.__getitem__,
            weights=situation.weights,
            faults=situation.faults(),
        )
    except ThresholdError:
        assert situation.silent
        assert server.outcome is None
        return
    check_exact(result, situation.updates, situation.weights)
    absent = {client for client, phase in situation.silent.items() if phase == first}
    assert absent.isdisjoint(result.outcome.survivors)
    assert all(isinstance(incident.error, ThresholdError) for incident in result.incidents)
    if not situation.silent:
        assert set(result.outcome.survivors) == set(situation.updates)
        assert not result.incidents


@pytest.mark.parametrize(
    ("name", "phase", "setting"),
    [
        pytest.param(name, phase, setting, marks=[] if setting == number % len(SETTINGS) else pytest.mark.long)
        for name in NAMES
        for number, phase in enumerate(PHASES_OF[name])
        for setting in range(len(SETTINGS))
    ],
)
def test_planned_dropouts_are_survived_in_every_phase(name: str, phase: str, setting: int) -> None:
    """Three of ten are what this plan must survive, from the first phase (before any key is shared) to the last.

    By default each phase has one of the settings, in turn; in the long version all of them.
    """
    how = dict(SETTINGS[setting], dropout="0.3")
    deployment = deploy(name, 10, Encoding.integers(5, bits=20), setting=how)
    updates, gone = integers(deployment.names, deployment.plan.encoding, 1), deployment.names[2:9:3]
    result = simulate(
        deployment.server(), deployment.clients, updates.get, faults=Faults(dropouts=dict.fromkeys(gone, phase))
    )
    check_exact(result, updates)
    assert set(deployment.names) - set(gone) <= set(result.outcome.survivors)
    if phase == PHASES_OF[name][0]:
        assert set(gone).isdisjoint(result.outcome.survivors)


@every_protocol
def test_one_drops_in_each_phase(name: str) -> None:
    deployment = deploy(name, 20, Encoding.integers(3), setting=dict(STURDY, corrupt="0.05", dropout="0.3"))
    updates = integers(deployment.names, deployment.plan.encoding, 2)
    silent = dict(zip(deployment.names[3:], PHASES_OF[name], strict=False))
    check_exact(simulate(deployment.server(), deployment.clients, updates.get, faults=Faults(dropouts=silent)), updates)


@every_phase
def test_below_the_threshold_there_is_an_error_and_no_outcome(name: str, phase: str) -> None:
    deployment = deploy(name, 6, Encoding.integers(3))
    updates, server = integers(deployment.names, deployment.plan.encoding, 3), deployment.server()
    silent = dict.fromkeys(deployment.names[1:], phase)
    with pytest.raises(ThresholdError):
        simulate(server, deployment.clients, updates.get, faults=Faults(dropouts=silent))
    assert server.outcome is None
    assert server.phase is Phase.FAILED
    assert not server.waiting_for
    assert not list(server.outbox())
    with pytest.raises(UsageError):
        server.close(server.phase)
    with pytest.raises(UsageError):
        server.receive(deployment.names[0], b"")


@every_phase
def test_min_contributors_are_demanded_above_the_threshold(name: str, phase: str) -> None:
    """All six must be in the sum, although the cryptography would be content with fewer."""
    deployment = deploy(name, 6, Encoding.integers(3), least=6)
    updates, server = integers(deployment.names, deployment.plan.encoding, 4), deployment.server()
    try:
        result = simulate(server, deployment.clients, updates.get, faults=Faults(dropouts={deployment.names[0]: phase}))
    except ThresholdError:
        assert server.outcome is None
    else:  # it fell silent after it had contributed
        assert phase != PHASES_OF[name][0]
        check_exact(result, updates)


CORNERS = [(1, 2, 1), (300, 32, 1), (33, 32, 1 << 26), (7, 2, 2)]


@every_protocol
@pytest.mark.parametrize(
    ("n", "length", "bits", "weight_bound"),
    [
        pytest.param(
            n, *corner, marks=[] if n == 3 or (n, corner) in {(2, CORNERS[0]), (13, CORNERS[2])} else pytest.mark.long
        )
        for n in (2, 3, 13)
        for corner in CORNERS
    ],
)
def test_corners_of_the_encoding(name: str, n: int, length: int, bits: int, weight_bound: int) -> None:
    """Everybody at the extreme, so that a ring one bit too narrow would wrap; weights are summed under the mask too.

    By default all corners with three clients, the smallest with two and the largest weights with thirteen; in the long
    version all corners with two, three and thirteen.
    """
    encoding = Encoding.integers(length, bits, weight_bound)
    deployment = deploy(name, n, encoding, setting=SETTINGS[0])
    for sign in (1, -1):
        updates = {client: np.full(length, sign * encoding.largest) for client in deployment.names}
        weights = dict.fromkeys(deployment.names, weight_bound)
        deployment = replace(deployment, plan=deployment.plan.next_round())
        server = deployment.server(deployment.plan)
        check_exact(simulate(server, deployment.clients, updates.get, weights=weights), updates, weights)


@every_protocol
def test_more_want_in_than_the_plan_allows(name: str) -> None:
    deployment = deploy(name, 8, Encoding.integers(3), clients=6)
    updates = integers(deployment.names, deployment.plan.encoding, 5)
    result = simulate(deployment.server(), deployment.clients, updates.get)
    check_exact(result, updates)
    assert len(result.outcome.survivors) == 6
    refused = [incident.error for incident in result.incidents]
    assert len(refused) == 2
    assert all(isinstance(error, UnblamedError) and not error.culprits for error in refused)  # they came last, no more


# A network that damages frames.


@dataclass(frozen=True)
class Damage:
    """What happens to the frames of one client in one phase, in one direction."""

    phase: str
    client: str
    upward: bool
    kind: str
    where: int
    bit: int

    def hits(self, envelope: Envelope) -> bool:
        return envelope.phase == self.phase and self.client == (envelope.sender if self.upward else envelope.receiver)

    def apply(self, frame: bytes, stray: bytes) -> bytes:
        at = self.where % len(frame)
        match self.kind:
            case "flip":
                return frame[:at] + bytes([frame[at] ^ 1 << self.bit]) + frame[at + 1 :]
            case "cut":
                return frame[:at]
            case "extend":
                return frame + bytes(self.bit + 1)
            case "double":
                return frame[:at] + frame[at // 2 :]
            case _:
                return stray


def damages(name: str, clients: list[str]) -> st.SearchStrategy[Damage]:
    return st.builds(
        Damage,
        st.sampled_from(PHASES_OF[name]),
        st.sampled_from(clients),
        st.booleans(),
        st.sampled_from(["flip", "flip", "flip", "cut", "extend", "double", "swap"]),
        st.integers(0, 120) | st.integers(0, 1 << 16),
        st.integers(0, 7),
    )


@every_protocol
@whole_rounds
@given(data=st.data())
def test_damaged_frames_never_give_a_wrong_sum(name: str, data: st.DataObject) -> None:
    """Bits flipped, frames cut, extended or exchanged, both ways: the sum is still exact, or there is none."""
    situation = data.draw(situations(name))
    planned = data.draw(st.lists(damages(name, situation.deployment.names), min_size=1, max_size=4))
    stray = [b""]

    def corrupted(envelope: Envelope) -> bytes:
        frame = envelope.frame
        for damage in planned:
            if damage.hits(envelope) and frame:
                frame = damage.apply(frame, stray[-1])
        stray.append(envelope.frame)  # whoever is next may get this one instead
        return frame

    server = situation.deployment.server()
    try:
        result = simulate(
            server,
            situation.deployment.clients,
            situation.updates.__getitem__,
            weights=situation.weights,
            faults=situation.faults(corrupted),
        )
    except (ThresholdError, PeerError):  # what the simulation promises to raise
        assert server.outcome is None
        return
    check_exact(result, situation.updates, situation.weights)


PLACES = (0, 23, 31, 40, 55, 58, 62, 70, 120, -1)
FEW_PLACES = (31, 62, -1)


@every_phase
@pytest.mark.parametrize("upward", [True, False])
@pytest.mark.parametrize("places", [FEW_PLACES, pytest.param(PLACES, marks=pytest.mark.long)], ids=["few", "all"])
def test_one_damaged_byte_costs_at_most_one_client(
    name: str, phase: str, upward: bool, places: tuple[int, ...]
) -> None:
    """The others get their exact sum; only damage that nobody can see before the end may end the round.

    By default three places of each frame are damaged in turn, all ten in the long version.
    """
    deployment = deploy(name, 5, Encoding.integers(2, bits=8), setting=dict(STURDY, dropout="0.3"))
    updates, victim = integers(deployment.names, deployment.plan.encoding, 6), deployment.names[3]
    plan, good = deployment.plan, 0
    for where in places:
        damage = Damage(phase, victim, upward, "flip", where, 2)

        def corrupted(envelope: Envelope, damage: Damage = damage) -> bytes:
            return damage.apply(envelope.frame, b"") if damage.hits(envelope) else envelope.frame

        plan, blamed = plan.next_round(), list[str]()
        try:
            result = simulate(
                deployment.server(plan), deployment.clients, updates.get, faults=Faults(corrupted=corrupted)
            )
        except PeerError as error:
            blamed += error.culprits
        if blamed:
            assert phase == PHASES_OF[name][-1]
            assert victim in blamed
        else:
            check_exact(result, updates)
            assert len(result.outcome.survivors) >= 4
            good += 1
    assert good


def junk(frame: bytes) -> Iterator[bytes]:
    """What cannot be a frame: too short, too long, or with a header that is for somebody else."""
    for size in {0, 1, HEADER_BYTES - 1, HEADER_BYTES, len(frame) - 1}:
        yield frame[:size]
    yield frame + b"\0"
    for at in range(HEADER_BYTES):
        flip = 0x80 if at == HEADER_BYTES - 1 else 1  # a type that there is not
        yield frame[:at] + bytes([frame[at] ^ flip]) + frame[at + 1 :]


@every_protocol
def test_junk_is_blamed_and_changes_nothing(name: str) -> None:
    deployment = deploy(name, 4, Encoding.integers(3))
    updates, server = integers(deployment.names, deployment.plan.encoding, 7), deployment.server()

    def at_server(client: str, frame: bytes) -> None:
        waiting = server.waiting_for
        for bad in junk(frame):
            with pytest.raises((DecodeError, PeerError)) as caught:
                server.receive(client, bad)
            assert caught.value.culprits == (() if isinstance(caught.value, StrayError) else (client,))
        with pytest.raises(UsageError):
            server.receive("nobody", frame)
        assert server.waiting_for == waiting

    def at_client(client: str, frame: bytes) -> None:
        phase = deployment.clients[client].phase
        for bad in junk(frame):
            with pytest.raises((DecodeError, PeerError)) as caught:
                deployment.clients[client].receive(bad)
            assert caught.value.culprits == (() if isinstance(caught.value, StrayError) else ("server",))
        assert deployment.clients[client].phase is phase

    walk(server, deployment.clients, updates, at_server=at_server, at_client=at_client)
    check_exact(server, updates)
    assert len(server.outcome.survivors) == 4  # type: ignore[union-attr]


@every_protocol
def test_phases_are_closed_in_their_order_and_once(name: str) -> None:
    deployment = deploy(name, 4, Encoding.integers(3))
    server, phases = deployment.server(), PHASES_OF[name]

    def at_server(_client: str, _frame: bytes) -> None:
        for phase in [*phases, "nosuch", str(Phase.DONE), str(Phase.FAILED)]:
            if phase != server.phase:
                with pytest.raises(UsageError):
                    server.close(phase)

    updates = integers(deployment.names, deployment.plan.encoding, 8)
    walk(server, deployment.clients, updates, at_server=at_server)
    check_exact(server, updates)
    assert server.phase is Phase.DONE
    assert all(client.done for client in deployment.clients.values())
    with pytest.raises(UsageError):
        server.close(phases[-1])
    with pytest.raises(UsageError):
        server.receive(deployment.names[0], b"")


@every_protocol
def test_whoever_comes_late_stays_outside(name: str) -> None:
    """A fresh client's first frame is refused in every phase but the first, and the others' round goes on."""
    deployment = deploy(name, 6, Encoding.integers(3))
    updates = integers(deployment.names, deployment.plan.encoding, 9)
    late = deployment.names[2]
    late_frame = deployment.clients[late].start(deployment.plan, updates[late])
    server, refused = deployment.server(), set()

    def at_server(_client: str, _frame: bytes) -> None:
        if server.phase != PHASES_OF[name][0]:
            with pytest.raises(PeerError) as caught:
                server.receive(late, late_frame)
            assert caught.value.culprits == ()  # the network may have been slow
            refused.add(str(server.phase))

    others = {client: updates[client] for client in deployment.names if client != late}
    check_exact(walk(server, deployment.clients, others, at_server=at_server), others)
    asked = [phase for phase, step in registry.find(name).server.steps.items() if not step.optional]
    assert refused == set(map(str, asked[1:]))
    assert late not in server.outcome.event.advertised  # type: ignore[union-attr]


# Sessions, rounds, protocols: frames fit where they belong and nowhere else.


def foreign_to(deployment: Deployment, what: str) -> Deployment:
    plan = deployment.plan
    match what:
        case "session":
            other = replace(plan, session=b"another session!")
        case "round":
            other = plan.next_round()
        case _:
            return deploy(what, len(deployment.clients), plan.encoding)
    return replace(deployment, plan=other)


@pytest.mark.parametrize(
    ("name", "what"), [*[(name, what) for name in NAMES for what in ("session", "round")], *permutations(NAMES, 2)]
)
def test_frames_of_elsewhere_are_refused(name: str, what: str) -> None:
    """Same identities, same vectors: the frames of another protocol, session or round do not pass, in any phase."""
    deployment = deploy(name, 4, Encoding.integers(3))
    updates, recorder = integers(deployment.names, deployment.plan.encoding, 10), Recorder()
    elsewhere = foreign_to(deployment, what)
    fresh = deploy(name, 4, Encoding.integers(3))  # clients that have not been elsewhere
    simulate(elsewhere.server(elsewhere.plan), elsewhere.clients, updates.get, faults=Faults(corrupted=recorder))
    server = deployment.server()

    def at_server(client: str, _frame: bytes) -> None:
        for envelope in recorder.envelopes:
            if envelope.sender == client:
                with pytest.raises(DecodeError) as caught:
                    server.receive(client, envelope.frame)
                late = isinstance(caught.value, StrayError)  # an honest client's may come late
                assert late == (what in ("session", "round"))
                assert caught.value.culprits == (() if late else (client,))

    def at_client(client: str, _frame: bytes) -> None:
        for envelope in recorder.envelopes:
            if envelope.receiver == client:
                with pytest.raises(DecodeError):
                    fresh.clients[client].receive(envelope.frame)

    check_exact(walk(server, fresh.clients, updates, at_server=at_server, at_client=at_client), updates)


def windows(data: bytes, size: int = 16) -> set[bytes]:
    return {data[i : i + size] for i in range(len(data) - size + 1)}


def check_nothing_comes_twice(bodies: Iterable[bytes]) -> None:
    """No two of them have 16 bytes in common."""
    seen = set[bytes]()
    for body in bodies:
        here = windows(body)
        assert seen.isdisjoint(here)
        seen |= here


@every_protocol
@pytest.mark.parametrize("rounds", [3, pytest.param(5, marks=pytest.mark.long)])
def test_a_session_of_rounds_in_which_clients_come_and_go(name: str, rounds: int) -> None:
    """The same clients with the same updates: every sum is exact, and no key, mask or share comes twice.

    Three rounds by default, five in the long version.
    """
    deployment = deploy(name, 9, Encoding.integers(12, bits=16), setting=dict(STURDY, dropout="0.3"))
    updates = integers(deployment.names, deployment.plan.encoding, 11)
    plan, said = deployment.plan, list[dict[tuple[str, str], bytes]]()
    present = [range(9), range(9), range(1, 8), range(2, 9), range(9)][:rounds]
    for number, who in enumerate(present):
        recorder = Recorder()
        here = {deployment.names[i]: updates[deployment.names[i]] for i in who}
        silent = {deployment.names[2]: PHASES_OF[name][-1]} if number == 1 else {}
        result = simulate(
            deployment.server(plan),
            {name: deployment.clients[name] for name in here},
            here.get,
            faults=Faults(dropouts=silent, corrupted=recorder),
        )
        check_exact(result, here)
        assert set(result.outcome.survivors) == set(here)
        said.append({(e.phase, e.sender): e.frame[HEADER_BYTES:] for e in recorder.envelopes if e.sender in updates})
        plan = plan.next_round()
    assert plan.round == len(present)
    for one, other in combinations(said, 2):
        assert len(one.keys() & other.keys()) > 20
    for place in set[tuple[str, str]]().union(*said):
        check_nothing_comes_twice(frames[place] for frames in said if place in frames)


@every_protocol
def test_no_two_clients_say_the_same_although_their_vectors_are_equal(name: str) -> None:
    deployment, recorder = deploy(name, 5, Encoding.integers(12, bits=16)), Recorder()
    updates = dict.fromkeys(deployment.names, np.zeros(12, np.int64))
    check_exact(
        simulate(deployment.server(), deployment.clients, updates.get, faults=Faults(corrupted=recorder)),
        updates,
    )
    bodies = [e.frame[HEADER_BYTES:] for e in recorder.envelopes if e.sender in updates]
    check_nothing_comes_twice(bodies)


@pytest.mark.parametrize("name", [name for name in NAMES if registry.find(name).replays])
def test_seeded_runs_replay_byte_for_byte(name: str) -> None:
    def run(seed: bytes) -> list[Envelope]:
        recorder = Recorder()
        deployment = deploy(name, 5, Encoding(7, clip_l2=1.0, rotate=True), seed=seed)
        updates = {client: np.linspace(-1, 1, 7) * i for i, client in enumerate(deployment.names)}
        for plan in (deployment.plan, deployment.plan.next_round()):
            faults = Faults(dropouts={deployment.names[4]: PHASES_OF[name][-1]}, corrupted=recorder)
            simulate(deployment.server(plan), deployment.clients, updates.get, faults=faults)
        return recorder.envelopes

    first = run(bytes(32))
    assert run(bytes(32)) == first
    other = run(b"\1" * 32)
    assert [envelope.phase for envelope in other] == [envelope.phase for envelope in first]
    says_something = HEADER_BYTES + 16  # lists of nobody, or of all, are shorter
    assert all(a.frame != b.frame for a, b in zip(first, other, strict=True) if len(a.frame) > says_something)


# Floats.


@every_protocol
@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("weight_bound", [1, 50])
def test_the_decoded_mean_is_the_clipped_mean_to_within_rounding(name: str, rotate: bool, weight_bound: int) -> None:
    """Rounding moves one client's coordinate by less than one unit, and a rotation keeps the L2 norm of the error."""
    encoding = Encoding(21, clip_l2=2.0, bits=16, rotate=rotate, weight_bound=weight_bound)
    deployment = deploy(name, 6, encoding)
    rng = np.random.default_rng(12)
    updates = {client: rng.normal(size=21) * 0.3 * (i + 1) for i, client in enumerate(deployment.names)}
    weights = {client: int(rng.integers(1, weight_bound, endpoint=True)) for client in deployment.names}
    norms = {client: float(np.linalg.norm(update)) for client, update in updates.items()}
    assert min(norms.values()) < 2.0 < max(norms.values())  # some are clipped, some are not
    silent = {deployment.names[1]: PHASES_OF[name][0]}
    outcome = simulate(
        deployment.server(), deployment.clients, updates.get, weights=weights, faults=Faults(dropouts=silent)
    ).outcome
    survivors = deployment.names[:1] + deployment.names[2:]
    assert list(outcome.survivors) == survivors
    decoded, total = outcome.decode(), sum(weights[client] for client in survivors)
    clipped = {client: update * min(1.0, 2.0 / norms[client]) for client, update in updates.items()}
    mean = sum(weights[client] * clipped[client] for client in survivors) / total
    error = np.abs(decoded.vector / decoded.weight - mean)
    assert decoded.weight == total
    if rotate:
        assert np.linalg.norm(error) < np.sqrt(encoding.coordinates) / encoding.scale
    else:
        assert error.max() < (1 + 1e-9) / encoding.scale
    assert error.max() > 0  # it was rounded


@every_protocol
def test_what_travels_of_a_sketch_comes_back_in_a_ring_of_few_bits(name: str) -> None:
    deployment = deploy(name, 6, replace(Encoding.integers(21, bits=2), sketch=RandomK(7)))
    assert deployment.plan.ring_bits == 4
    updates = dict(zip(deployment.names, np.random.default_rng(3).integers(-1, 2, (6, 21)), strict=True))
    outcome = simulate(deployment.server(), deployment.clients, updates.get).outcome
    linear = RandomK(7).at(21, deployment.plan._rotation_seed())
    assert outcome.total.tolist() == linear.apply(sum(updates.values())).tolist()
    assert np.array_equal(outcome.decode().vector, linear.lift(outcome.total, unbiased=True))


@every_protocol
@pytest.mark.parametrize("rounding", [Rounding.STOCHASTIC, Rounding.NEAREST])
def test_silos_are_summed_user_by_user(name: str, rounding: Rounding) -> None:
    """Each user's vector is clipped by itself; one that is not finite is zero, a silo without users is all zeros."""
    encoding = Encoding(21, clip_l2=2.0, bits=16, rotate=True, users=5, overlap=2, rounding=rounding)
    deployment = deploy(name, 6, encoding)
    rng = np.random.default_rng(12)
    silos = {client: rng.normal(size=(i % 6, 21)) * 0.3 * (i + 1) for i, client in enumerate(deployment.names)}
    silos[deployment.names[4]][0] *= 1e300
    silos[deployment.names[5]][1, 3] = np.nan
    silent = {deployment.names[1]: PHASES_OF[name][0]}
    outcome = simulate(deployment.server(), deployment.clients, silos.get, faults=Faults(dropouts=silent)).outcome
    survivors = deployment.names[:1] + deployment.names[2:]
    users = np.concatenate([silos[client] for client in survivors])
    users = users[np.isfinite(users).all(axis=1)]
    peaks = np.abs(users).max(axis=1, keepdims=True)
    norms = peaks * np.linalg.norm(users / peaks, axis=1, keepdims=True)
    expected = (users * np.minimum(1.0, 2.0 / norms)).sum(axis=0)
    decoded = outcome.decode()
    assert decoded.weight == len(survivors)  # of silos: how many users they have nobody is told
    assert np.linalg.norm(decoded.vector - expected) < len(users) * np.sqrt(encoding.coordinates) / encoding.scale


@every_protocol
@pytest.mark.parametrize("missing", [0, 2])
def test_the_planned_noise_is_in_the_sum(name: str, missing: int, tmp_path: Path) -> None:
    """Every protocol carries noise, takes the excess off, and charges what happened.

    4000 coordinates: 6.5 standard errors of a variance, false alarm below 1e-9 each.
    """
    noise = NoiseSpec(Family.SKELLAM, Fraction(10**6), dropouts=3, colluders=1, components=3)
    deployment = deploy(name, 10, Encoding.integers(4000, bits=4), least=7, setting=dict(STURDY, dropout="0.3"))
    wide = deployment.plan.encoding.ring_bits(10, noise.coordinate_bound(10, 4000))
    plan, roster = replace(deployment.plan, noise=noise, ring_bits=wide), deployment.clients[deployment.names[0]].roster
    updates = integers(deployment.names, plan.encoding, 9)
    guarantee = user_level(Relation.ZERO_OUT)
    budget = Budget(Fraction(20), Fraction(1, 1000), slack=Fraction(1, 10**6))
    with closing(
        Ledger.create(tmp_path / "l.db", SigningKey(bytes(32)), budget, guarantee, run="test", elsewhere="-")
    ) as ledger:
        gone = dict.fromkeys(deployment.names[:missing], PHASES_OF[name][0])
        result = simulate(serve(plan, roster, ledger=ledger), deployment.clients, updates.get, faults=Faults(gone))
        commits = [entry for entry in ledger.entries() if entry["phase"] == "commit"]
    left = result.outcome.total - sum(updates[client] for client in result.outcome.survivors)
    assert len(result.outcome.survivors) == 10 - missing == commits[0]["sum"]["survivors"]
    expected = 10**6 * (10 - missing) / (9 - missing)
    assert abs(np.mean(left**2.0) / expected - 1) < 6.5 * np.sqrt(2 / 4000)
