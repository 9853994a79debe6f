"""One-shot clients that crash and start again: a member of the committee, and a contributor without a seat.

What was said is said again, byte for byte, and nothing else: no second upload, no second set of survivors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.client import Client
from protocols.journal import Journal, MemoryJournal, SqliteJournal
from protocols.oneshot.client import OneshotClient
from protocols.plan import RoundPlan
from protocols.server import serve
from protocols.simulation.network import simulate
from secagg.crypto.keys import AgreementKey
from secagg.crypto.prg import Prg
from secagg.errors import PeerError, PolicyError, SecAggError, UsageError
from tests.controls import Denied, switch_off
from tests.scenes.oneshot import COURT, VICTIM, Evil, Fixture, attempt, by_lot, drawn, make

pytestmark = pytest.mark.thinned(4)

FRAMES = {"member": 4, "contributor": 3}
BOTH = pytest.mark.parametrize("role", FRAMES)
WHEN = pytest.mark.parametrize(
    ("role", "step"), [(role, step) for role, frames in FRAMES.items() for step in range(1, frames + 1)]
)
"""How many frames a client has sent: after each of these it may crash."""
Reopen = Callable[[], Journal]


def staged(role: str) -> Evil:
    if role == "member":
        return make()
    seats = drawn(COURT)
    return by_lot(COURT, COURT, [], sorted({VICTIM, *seats, *range(1, 10)}))


class Life:
    """The victim in one honest round: it dies, and is restarted over the same journal."""

    def __init__(self, role: str, reopen: Reopen | None = None, evil: Evil | None = None) -> None:
        self.role, self.evil = role, evil or staged(role)
        kept = MemoryJournal()
        self.reopen = reopen or (lambda: kept)
        self.journal = self.reopen()
        self.evil.clients[VICTIM]._journal = self.journal
        self.said: list[bytes] = []

    @property
    def client(self) -> Client:
        return self.evil.clients[VICTIM]

    def restart(self, update: Any = None, plan: RoundPlan | None = None) -> bytes:
        """A new process: nothing but identity, roster, policy and journal is left, and the randomness is new."""
        evil = self.evil
        if isinstance(self.journal, SqliteJournal):
            self.journal.close()
        self.journal = self.reopen()
        evil.clients[VICTIM] = Client(
            evil.identities[evil.name(VICTIM)], evil.roster, policy=evil.policy, journal=self.journal
        )
        return self.client.start(plan or evil.plan, evil.values[VICTIM] if update is None else update)

    def live(self, frames: int) -> None:
        """The round, until the victim has sent so many frames. The others are ahead of it."""
        self.evil.join()
        self.said = [self.evil.frame(self.evil.joins[VICTIM])]
        self.evil.upload([u for u in self.evil.present if u != VICTIM])
        while len(self.said) < frames:
            self.step()

    def step(self) -> bytes:
        frame = self.next()
        answer = self.client.receive(frame)
        if len(self.said) == 1:
            self.evil.keep(VICTIM, self.evil.messages.decode(self.evil.plan, answer))  # type: ignore[arg-type]
        self.said.append(answer)
        return answer

    def next(self) -> bytes:
        """The frame that comes next: COMMITTEE; to a member its DELIVERY; CONSENTS."""
        if len(self.said) == 1:
            return self.evil.frame(self.evil.shown)
        if len(self.said) == 2 and self.role == "member":
            return self.evil.frame(self.evil.delivery(VICTIM, self.evil.present))
        return self.consents(self.evil.present)

    def consents(self, alive: list[int]) -> bytes:
        members = self.evil.committee.members
        return self.evil.frame(self.evil.consents(alive, {v: self.evil.sign(v, alive) for v in members}))


@cache
def unbroken(role: str) -> tuple[bytes, ...]:
    """What the client says when it does not die."""
    life = Life(role)
    life.live(FRAMES[role])
    return tuple(life.said)


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen | None:
    return None if request.param == "memory" else lambda: SqliteJournal(tmp_path / "victim.db")


@WHEN
def test_restart_between_any_two_messages(role: str, step: int, reopen: Reopen | None) -> None:
    """The last frame comes again, and the rest of the round is what it would have been."""
    life = Life(role, reopen)
    life.live(step)
    for _ in range(2):
        assert life.restart() == life.said[-1]
    while len(life.said) < FRAMES[role]:
        request = life.next()
        answer = life.step()
        assert life.client.receive(request) == answer
    assert life.client.done
    assert tuple(life.said) == unbroken(role)

    life = Life(role, MemoryJournal)  # without its journal it is another client, which knows nothing of the round
    life.live(step)
    again = life.restart()
    assert again not in life.said or role == "contributor"  # who joins without a seat shows no key
    if step > 1:
        with pytest.raises(SecAggError):
            life.client.receive(life.consents(life.evil.present))


class Lost(Exception):
    pass


@pytest.mark.parametrize(
    ("role", "step"), [("member", 1), ("member", 2), ("member", 3), ("contributor", 1), ("contributor", 2)]
)
def test_death_before_or_after_the_journal_is_written(
    role: str, step: int, tmp_path: Path, monkeypatch: Fixture
) -> None:
    """Before: nothing was said, and after a restart it is. After: it is written, lost on the way, and comes again."""
    write = SqliteJournal.append
    for written in (False, True):

        def append(self: SqliteJournal, *record: Any, written: bool = written) -> None:
            if written:
                write(self, *record)
            raise Lost

        life = Life(role, lambda written=written: SqliteJournal(tmp_path / f"{written}.db"))  # type: ignore[misc]
        life.live(step)
        request = life.next()
        with monkeypatch.context() as dying:
            dying.setattr(SqliteJournal, "append", append)
            with pytest.raises(Lost):
                life.client.receive(request)
        with pytest.raises(UsageError, match="start \\(or resume\\) one first"):
            life.client.receive(request)
        assert life.restart() == unbroken(role)[step if written else step - 1]
        assert life.client.receive(request) == unbroken(role)[step]


@BOTH
def test_another_update_after_the_upload(role: str, reopen: Reopen | None) -> None:
    """The stored upload comes again. Had the journal lost it, there would be two; under two secrets, as
    ``test_oneshot`` shows, so that their difference says nothing."""
    life = Life(role, reopen)
    life.live(2)
    assert life.restart(np.arange(7)) == life.said[1]
    assert life.client.receive(life.evil.frame(life.evil.shown)) == life.said[1]

    life = Life(role)
    life.live(2)
    life.journal._records[life.client._session(life.evil.plan), life.evil.plan.round].pop()  # type: ignore[attr-defined]
    life.restart(np.arange(7))
    first, second = life.evil.uploads[VICTIM], life.evil.tell(VICTIM, life.evil.shown)
    assert second.vector != first.vector
    difference = life.evil.total([first]) - life.evil.total([second])
    with pytest.raises(Denied, match="out of range"):
        life.evil.unmask(difference, np.zeros(life.evil.sharing.length, np.int64))


@BOTH
def test_another_committee_after_the_upload(role: str, reopen: Reopen | None, monkeypatch: Fixture) -> None:
    """One of the members has another key."""
    life = Life(role, reopen)
    life.live(2)
    evil = life.evil
    *seats, last = evil.true_seats()
    key = AgreementKey(Prg(b"another key" + bytes(21))(32))
    evil.form([*seats, evil.forged_seat(last.client, key)])
    life.restart()
    attempt(lambda: evil.tell(VICTIM, evil.shown), PeerError, "Members does not belong in phase")
    if isinstance(life.journal, MemoryJournal):
        life.journal._records[life.client._session(evil.plan), evil.plan.round].pop()
        life.restart()
        assert evil.tell(VICTIM, evil.shown).vector != evil.uploads[VICTIM].vector


@BOTH
def test_another_plan_for_the_same_round(role: str, reopen: Reopen | None) -> None:
    life = Life(role, reopen)
    life.live(2)
    for other in (replace(life.evil.plan, model=b"other" + bytes(27)), replace(life.evil.plan, min_contributors=11)):
        attempt(lambda other=other: life.restart(plan=other), PolicyError, "another plan was already accepted")  # type: ignore[misc]
    if reopen is None:
        life.reopen = MemoryJournal
        assert life.restart(plan=other)


def asked_again(reopen: Callable[[str], Journal], rolled_back: int) -> list[int]:
    """All honest members sign and reveal one set, die, and hear of another. ``rolled_back``: so many records are gone
    from their journals."""
    books = dict[str, Journal]()

    def journal(name: str) -> Journal:
        return books.setdefault(name, reopen(name))

    evil = make(journals=journal)
    evil.join()
    evil.upload()
    for alive in (evil.present, [u for u in evil.present if u != VICTIM]):
        evil.reveal(evil.honest, alive, evil.ask(evil.honest, alive))
        for v in evil.honest:
            name = evil.name(v)
            for _ in range(rolled_back):
                books[name]._records[evil.clients[v]._session(evil.plan), evil.plan.round].pop()  # type: ignore[attr-defined]
            evil.clients[v] = Client(evil.identities[name], evil.roster, policy=evil.policy, journal=books[name])
            evil.clients[v].start(evil.plan, evil.values[v])
    return (np.array(evil.sum_of(evil.present)) - evil.sum_of(alive)).tolist()  # type: ignore[no-any-return]


def test_two_sets_to_members_that_restart(tmp_path: Path) -> None:
    """Without the last two records they sign and reveal again, and the difference is the victim's vector."""
    with pytest.raises(PeerError, match="Delivery does not belong in phase done"):
        asked_again(lambda name: SqliteJournal(tmp_path / f"{name}.db"), 0)
    attempt(lambda: asked_again(lambda name: MemoryJournal(), 0), PeerError, "Delivery does not belong in phase done")
    assert asked_again(lambda name: MemoryJournal(), 2) == make().plain([VICTIM])


def test_two_sets_to_a_member_that_restarts_before_it_reveals(reopen: Reopen | None, monkeypatch: Fixture) -> None:
    """After CONSISTENCY: another delivery, and the signatures of others on another set."""
    life = Life("member", reopen)
    life.live(3)
    fewer = list(range(1, 12))
    life.restart()
    second = life.evil.frame(life.evil.delivery(VICTIM, fewer))
    attempt(lambda: life.client.receive(second), PeerError, "Delivery does not belong in phase reveal")
    attempt(lambda: life.client.receive(life.consents(fewer)), PeerError, "other survivors than those")
    switch_off(
        monkeypatch,
        OneshotClient,
        "_check_signatures",
        "self._mine.bitmap and agreed != self._mine",
    )
    assert life.client.receive(life.consents(fewer))


class Mortal:
    """A client that dies before each message it hears, and starts again."""

    def __init__(self, made: Callable[[], Client]) -> None:
        self.made, self.client = made, made()

    def start(self, plan: RoundPlan, update: Any, weight: int = 1) -> bytes:
        self.begin = lambda: self.client.start(plan, update, weight)
        self.last = self.begin()
        return self.last

    def receive(self, frame: bytes) -> bytes:
        self.client = self.made()
        assert self.begin() == self.last
        self.last = self.client.receive(frame)
        return self.last


def test_everybody_restarts_all_the_time() -> None:
    evil = make(corrupt=())
    journals = {name: MemoryJournal() for name in evil.roster.names}

    def made(name: str) -> Callable[[], Client]:
        return lambda: Client(evil.identities[name], evil.roster, policy=evil.policy, journal=journals[name])

    clients: Any = {name: Mortal(made(name)) for name in evil.roster.names}
    updates = {name: evil.values[u] for u, name in enumerate(evil.roster.names)}
    simulation = simulate(serve(evil.plan, evil.roster), clients, updates.get)
    assert not simulation.incidents
    assert simulation.outcome.total.tolist() == evil.plain(evil.present)
