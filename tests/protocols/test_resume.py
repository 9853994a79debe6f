"""Clients that are resumed without their update: from the journal, and their encoded vector as long as it is needed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from protocols.client import Client
from protocols.journal import MemoryJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.registry import names
from protocols.roster import Identity, Roster
from protocols.server import serve
from secagg.assumptions import Adversary
from secagg.encoding import Encoding
from secagg.errors import DecodeError, PolicyError, UsageError

N, LENGTH = 5, 7
POLICY = Policy(
    min_contributors=3,
    protocols=frozenset(names()),
    adversary=Adversary.CURIOUS,
    corrupt="0",
    dropout="0.4",
    weight_bound=3,
)


def never() -> bytes:
    raise AssertionError("nobody but the upload asks for the vector")


@dataclass
class Life:
    """A round whose clients are made anew, over their journals, before every message."""

    protocol: str
    identities: list[Identity] = field(default_factory=lambda: [Identity.generate(f"c{i}") for i in range(N)])
    updates: dict[str, np.ndarray] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)
    uploaded: list[bool] = field(default_factory=list)
    """Whether client c0 had, when it was resumed for each message."""

    def __post_init__(self) -> None:
        self.roster = Roster.of(self.identities)
        encoding = Encoding.integers(LENGTH, weight_bound=3)
        terms = {"min_contributors": 3, "corrupt": "0", "dropout": "0.4"}
        self.plan = RoundPlan.propose(self.protocol, self.roster, encoding, **terms)  # type: ignore[arg-type]
        try:
            self.server = serve(self.plan, self.roster)
        except (ImportError, UsageError) as error:
            pytest.skip(f"NOT TESTED: {self.protocol} needs its extra: {error}")
        self.journals = {identity.name: MemoryJournal() for identity in self.identities}

    def client(self, name: str) -> Client:
        [identity] = [identity for identity in self.identities if identity.name == name]
        return Client(identity, self.roster, policy=POLICY, journal=self.journals[name])

    def begin(self) -> None:
        for i, name in enumerate(self.roster.names):
            self.updates[name] = np.arange(LENGTH) * (i + 1)
            client = self.client(name)
            self.server.receive(name, client.start(self.plan, self.updates[name], weight=2))
            self.kept[name] = client.encoded()

    def answer(self, name: str, frame: bytes) -> bytes:
        client = self.client(name)
        client.resume(self.plan, lambda: self.kept[name])
        if name == "c0":
            self.uploaded.append(client.uploaded)
        answer = client.receive(frame)
        again = self.client(name)
        assert again.resume(self.plan, never if client.uploaded else lambda: self.kept[name]) == answer
        assert again.receive(frame) == answer
        if client.uploaded:
            self.kept.pop(name, None)
        return answer

    def step(self) -> None:
        self.server.close(self.server.phase)
        for name, frame in self.server.outbox():
            self.server.receive(name, self.answer(name, frame))


@pytest.mark.parametrize("protocol", names())
@pytest.mark.thinned(2)
def test_a_process_for_each_message(protocol: str) -> None:
    life = Life(protocol)
    life.begin()
    width = life.plan.ring.packed_size(LENGTH + 1)
    assert {len(kept) for kept in life.kept.values()} == {width}
    while life.server.outcome is None:
        life.step()
    assert life.server.outcome.decode().vector.tolist() == (2 * sum(life.updates.values())).tolist()
    assert life.server.outcome.decode().weight == 2 * N
    assert life.uploaded == sorted(life.uploaded)  # out, and never in again
    assert life.uploaded[-1]


def test_the_vector_is_asked_for_by_the_upload_only() -> None:
    life = Life("secagg")
    life.begin()
    life.server.close(life.server.phase)
    for name, frame in life.server.outbox():
        client = life.client(name)
        client.resume(life.plan, never)
        life.server.receive(name, client.receive(frame))
        assert not client.uploaded
    while life.server.outcome is None:
        life.step()
    assert life.server.outcome.decode().weight == 2 * N


def test_as_words_it_is_the_vector_that_was_started_with() -> None:
    """Above the ring's bits, too: a hash of the words seeds noise, which must not be drawn anew for the same vector."""
    life = Life("secagg")
    client = life.client("c0")
    ring = life.plan.ring

    def words() -> bytes:
        assert client.current is not None
        return ring.lift(client.current.values().astype(np.int64)).tobytes()

    client.start(life.plan, -np.arange(LENGTH))
    started, kept = words(), client.encoded()
    client.resume(life.plan, lambda: kept)
    assert words() == started
    assert ring.unpack(kept, LENGTH + 1).tobytes() != started  # control: not by itself


def test_once_it_is_out_another_vector_changes_nothing() -> None:
    """Never a second vector under the same masks."""
    life = Life("secagg")
    life.begin()
    while life.server.phase != "upload":
        life.server.close(life.server.phase)
        frames = dict(life.server.outbox())
        said = {name: life.answer(name, frame) for name, frame in frames.items()}
        for name, frame in said.items():
            life.server.receive(name, frame)
    client = life.client("c0")
    assert client.resume(life.plan, lambda: b"\1" * life.plan.ring.packed_size(LENGTH + 1)) == said["c0"]
    assert client.receive(frames["c0"]) == said["c0"]
    with pytest.raises(UsageError, match="no round with an upload to come"):
        client.encoded()


def test_wrong_use() -> None:
    life = Life("secagg")
    with pytest.raises(PolicyError, match="nothing is known here"):
        life.client("c0").resume(life.plan, never)
    with pytest.raises(UsageError, match="no round"):
        life.client("c0").encoded()
    assert not life.client("c0").uploaded
    life.begin()
    life.kept["c0"] = life.kept["c0"][1:]
    while life.server.phase != "complain":
        life.step()
    life.server.close(life.server.phase)
    client = life.client("c0")
    client.resume(life.plan, lambda: life.kept["c0"])
    with pytest.raises(DecodeError, match="are not 8 values"):
        client.receive(dict(life.server.outbox())["c0"])
    with pytest.raises(UsageError, match="no round is under way"):  # what failed half-way is not tried another way
        client.receive(dict(life.server.outbox())["c0"])


def test_resuming_is_refused_for_what_starting_is_refused_for() -> None:
    life = Life("secagg")
    life.begin()
    identity = life.identities[0]
    picky = Policy(
        min_contributors=4, protocols=frozenset(names()), adversary=Adversary.CURIOUS, corrupt="0", dropout="0.2"
    )
    with pytest.raises(PolicyError):
        Client(identity, life.roster, policy=picky, journal=life.journals["c0"]).resume(life.plan, never)
    other = RoundPlan.propose(
        "secagg",
        life.roster,
        Encoding.integers(LENGTH, bits=8, weight_bound=3),
        min_contributors=3,
        corrupt="0",
        dropout="0.4",
        session=life.plan.session,
    )
    with pytest.raises(PolicyError, match="another plan"):
        life.client("c0").resume(other, never)
