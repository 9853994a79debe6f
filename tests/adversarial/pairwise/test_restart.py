"""Crashes, restarts, lost and altered journals, two processes with one identity.

A client that is made to forget is a client that can be asked twice. Whatever was said is said again, byte for byte,
and nothing else.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from protocols import client as client_module
from protocols import journal as journal_module
from protocols.client import Client
from protocols.journal import Journal, MemoryJournal, SqliteJournal
from protocols.pairwise.client import PairwiseClient
from protocols.plan import RoundPlan
from protocols.rounds.dealing import Delivery
from protocols.server import serve
from protocols.simulation.network import simulate
from secagg.crypto import labels
from secagg.crypto.keys import transcript
from secagg.errors import PeerError, PolicyError, SecAggError, StorageError, UsageError
from tests.controls import Denied, switch_off
from tests.scenes.pairwise import BOTH, LENGTH, Evil, small
from tests.scenes.restarts import STEPS, VICTIM, Life

pytestmark = pytest.mark.thinned(4)


@cache
def unbroken(protocol: str, accused: bool = False) -> list[bytes]:
    """What the client says when it does not die."""
    life = Life(protocol, accused=accused)
    life.live()
    return life.said


@pytest.fixture(params=["memory", "sqlite"])
def reopen(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Journal] | None:
    if request.param == "memory":
        return None
    monkeypatch.setattr(client_module, "_LONG", 150)  # so that some frames are in the records, and some beside
    return lambda: SqliteJournal(tmp_path / "victim.db")


@pytest.mark.thinned(4)
@BOTH
@pytest.mark.parametrize(("step", "accused"), [*[(step, False) for step in STEPS], (3, True), (4, True), (5, True)])
def test_restart_between_any_two_messages(
    protocol: str, step: int, accused: bool, reopen: Callable[[], Journal] | None
) -> None:
    """The last frame comes again, and the rest of the round is what it would have been: whether DEFEND is skipped or
    not."""
    life = Life(protocol, reopen, accused=accused)
    life.live(step)
    for _ in range(2):
        assert life.restart() == life.said[-1]
    while len(life.said) < len(life.script):
        life.step()
    assert life.client.done
    assert life.said == unbroken(protocol, accused)

    life = Life(
        protocol, MemoryJournal, accused=accused
    )  # without its journal it is another client, which knows nothing of the round
    life.live(step)
    assert life.restart() not in life.said


class Mortal:
    """A client that dies before each message it hears, and starts again."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self.make, self.client = make, make()

    def start(self, plan: RoundPlan, update: Any, weight: int = 1) -> bytes:
        self.begin = lambda: self.client.start(plan, update, weight)
        self.last = self.begin()
        return self.last

    def receive(self, frame: bytes) -> bytes:
        self.client = self.make()
        assert self.begin() == self.last
        self.last = self.client.receive(frame)
        return self.last


@BOTH
def test_everybody_restarts_all_the_time(protocol: str) -> None:
    evil = small(protocol, corrupt=())
    journals = {name: MemoryJournal() for name in evil.roster.names}

    def maker(name: str) -> Callable[[], Client]:
        return lambda: Client(evil.identities[name], evil.roster, policy=evil.policy, journal=journals[name])

    clients: Any = {name: Mortal(maker(name)) for name in evil.roster.names}
    updates = {name: evil.values[u] for u, name in enumerate(evil.roster.names)}
    simulation = simulate(serve(evil.plan, evil.roster), clients, updates.get)
    assert not simulation.incidents
    assert simulation.outcome.total.tolist() == evil.plain(evil.members)


@BOTH
def test_another_update_under_the_same_masks(protocol: str, reopen: Callable[[], Journal] | None) -> None:
    """The stored upload comes again. Had the journal lost it, two uploads would differ by the updates."""
    other = np.arange(LENGTH)
    life = Life(protocol, reopen)
    life.live(4)
    assert life.restart(other) == life.said[3]
    assert life.client.receive(life.frame("verdict")) == life.said[3]

    life = Life(protocol)
    life.live(4)
    first, plan = life.evil.vectors[VICTIM], life.evil.plan
    life.journal._records[life.client._session(plan), plan.round].pop()
    life.restart(other)
    life.said.pop()
    life.step()
    unpacked = [plan.ring.unpack(vector, LENGTH) for vector in (first, life.evil.vectors[VICTIM])]
    difference = plan.ring.centred(unpacked[1] - unpacked[0])
    assert difference.tolist() == (other - life.evil.values[VICTIM]).tolist()


@pytest.mark.parametrize("what", ["lost", "of another round", "cut off"])
def test_a_frame_that_cannot_be_said_again_is_not_said_otherwise(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, and with it the round. The control: with its own file the client goes on."""
    monkeypatch.setattr(client_module, "_LONG", 1)
    life = Life("secagg", lambda: SqliteJournal(tmp_path / "victim.db"))
    life.live(3)
    before = set(tmp_path.glob("*.frame"))
    life.step()
    (upload,), whole = set(tmp_path.glob("*.frame")) - before, b""
    assert life.restart() == life.said[-1]
    if what == "lost":
        upload = upload.rename(tmp_path / "elsewhere")
    else:
        whole = upload.read_bytes()
        upload.write_bytes(whole[:-1] if what == "cut off" else before.pop().read_bytes())
    with pytest.raises(PolicyError, match="not there any more" if what == "lost" else "another one, or has been"):
        life.restart()
    with pytest.raises(UsageError, match="start \\(or resume\\) one first"):
        life.client.receive(life.frame("verdict"))


@BOTH
def test_another_plan_for_the_same_round(
    protocol: str, reopen: Callable[[], Journal] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(protocol, reopen)
    life.live(2)
    other = replace(life.evil.plan, model=b"other" + bytes(27))
    for client in (life.client, None):
        with pytest.raises(PolicyError, match="another plan was already accepted for this round"):
            client.start(other, np.zeros(LENGTH)) if client else life.restart(plan=other)
    life.restart()
    life.step()

    switch_off(monkeypatch, Client, "_accepted", "records and records[0].request != plan.encode()")
    life = Life(protocol)
    life.live(1)
    assert life.restart(plan=other)


@BOTH
@pytest.mark.parametrize("how", ["same round again", "earlier round"])
def test_a_round_number_is_used_once(
    protocol: str, how: str, reopen: Callable[[], Journal] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reuse(life: Life) -> bytes:
        life.live()
        plan = life.evil.plan
        if how == "same round again":
            life.client.finish()
            return life.restart(plan=replace(plan, model=b"other" + bytes(27)))
        life.client.start(plan.next_round(), np.zeros(LENGTH))
        return life.restart()

    with pytest.raises(PolicyError, match="this session is past round 0 for this client"):
        reuse(Life(protocol, reopen))
    switch_off(monkeypatch, Client, "_accepted", "not records and last is not None and plan.round <= last")
    with pytest.raises(PolicyError, match="this session is past round 0: it is over, or was begun already"):
        reuse(Life(protocol, reopen))  # the journal's own check
    monkeypatch.setattr(journal_module, "check_next", lambda *_: None)
    assert reuse(Life(protocol))


@BOTH
def test_a_rolled_back_journal(protocol: str, tmp_path: Path) -> None:
    """Known by its head, where somebody remembers that. Otherwise the client signs a second set of survivors."""
    path, old = tmp_path / "victim.db", tmp_path / "old.db"

    def roll_back(pinned: bool) -> tuple[bytes, bytes]:
        path.unlink(missing_ok=True)
        head = journal_module.EMPTY_HEAD
        life = Life(protocol, lambda: SqliteJournal(path, pinned=head if pinned else None))
        life.live(4)
        shutil.copy(path, old)
        first = life.step()
        head = life.journal.head()
        life.restart()  # the head is there
        life.journal.close()
        shutil.copy(old, path)
        life.restart()
        alive = [u for u in life.evil.members if u != life.evil.others(VICTIM)[0]]
        return first, life.client.receive(life.evil.frame(life.evil.survivors(VICTIM, alive)))

    with pytest.raises(PolicyError, match="rolled back: it does not contain the pinned head"):
        roll_back(pinned=True)
    first, second = roll_back(pinned=False)
    assert first != second


def edited(path: Path, *statements: str) -> None:
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


def rechain(path: Path) -> None:
    """Make digests and links right again, as anybody can who may write the file."""
    database = sqlite3.connect(path)
    head = journal_module.EMPTY_HEAD
    query = "SELECT number, deployment, session, round, step, record FROM log ORDER BY number"
    for number, deployment, session, round_, step, record in database.execute(query).fetchall():
        record_digest = sha256(record).digest()
        head = journal_module.chained(head, deployment, session, round_, step, record_digest)
        fresh = (record_digest, head, number)
        database.execute("UPDATE log SET digest = ?, link = ? WHERE number = ?", fresh)
    database.commit()
    database.close()


EDITS = {
    "a record": "UPDATE log SET record = zeroblob(100) WHERE step = 1",
    "a record less": "DELETE FROM log WHERE step = 1",
    "a step renumbered": "UPDATE log SET step = 7 WHERE step = 2",
    "another deployment": "UPDATE log SET deployment = zeroblob(32) WHERE step = 2",
    "another round": "UPDATE log SET round = 9 WHERE step = 2",
    "a link": "UPDATE log SET link = zeroblob(32) WHERE step = 2",
}


@pytest.mark.parametrize("what", EDITS)
def test_an_altered_journal(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "victim.db"
    life = Life("secagg", lambda: SqliteJournal(path))
    life.live(3)
    life.journal.close()
    edited(path, EDITS[what])
    with pytest.raises(PolicyError, match="the journal has been altered"):
        SqliteJournal(path)
    monkeypatch.setattr(SqliteJournal, "_check_chain", lambda *_: None)
    SqliteJournal(path).close()


SWAP = (
    "CREATE TEMP TABLE old AS SELECT step, record FROM log",
    "UPDATE log SET record = (SELECT record FROM old WHERE old.step = 3 - log.step) WHERE step IN (1, 2)",
)


def test_a_journal_altered_with_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two records change places, and the chain is made good: each record is sealed to its place."""

    def swapped(name: str) -> Life:
        path = tmp_path / name
        life = Life("secagg", lambda: SqliteJournal(path))
        life.live(3)
        life.journal.close()
        edited(path, *SWAP)
        rechain(path)
        return life

    with pytest.raises(PolicyError, match="the journal is not this client's, or has been altered"):
        swapped("one.db").restart()
    monkeypatch.setattr(
        client_module, "_associated", lambda plan, step: transcript(labels.JOURNAL_RECORD, plan.session)
    )
    with pytest.raises(PeerError, match="Delivery does not belong in phase share"):  # it hears them in the wrong order
        swapped("two.db").restart()


def unauthenticated(key: bytes, box: bytes, associated: bytes, *, culprit: str = "") -> bytes:
    return Cipher(algorithms.ChaCha20(key, (1).to_bytes(4, "little") + box[:12]), None).decryptor().update(box[12:-16])


def test_a_record_altered_with_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stored consent is changed inside its seal: a stream cipher alone would say whatever the disk says."""

    def flipped(name: str) -> bytes:
        path = tmp_path / name
        life = Life("secagg", lambda: SqliteJournal(path))
        life.live(5)
        life.journal.close()
        database = sqlite3.connect(path)
        (record,) = database.execute("SELECT record FROM log WHERE step = 4").fetchone()
        at = len(record) - 16 - 4 - 8 - 1  # the last byte of the reply; an empty secret follows, and the tag
        changed = record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]
        database.execute("UPDATE log SET record = ? WHERE step = 4", (changed,))
        database.commit()
        database.close()
        rechain(path)
        answer = life.restart()
        assert answer != life.said[-1]
        return answer

    with pytest.raises(PolicyError, match="the journal is not this client's, or has been altered"):
        flipped("one.db")
    monkeypatch.setattr(client_module, "open_box", unauthenticated)
    assert flipped("two.db")


@BOTH
def test_two_processes_with_one_journal(protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stand before the consent. The second to speak finds the step taken, and is latched."""

    def race(name: str, latched: bool) -> bytes:
        path = tmp_path / name
        life = Life(protocol, lambda: SqliteJournal(path))
        life.live(4)
        first, evil = life.client, life.evil
        second = Client(
            evil.identities[evil.name(VICTIM)], evil.roster, policy=evil.policy, journal=SqliteJournal(path)
        )
        second.start(evil.plan, np.zeros(LENGTH))
        first.receive(evil.frame(evil.survivors(VICTIM, evil.members)))
        alive = [u for u in evil.members if u != evil.others(VICTIM)[0]]
        other = evil.frame(evil.survivors(VICTIM, alive))
        if latched:
            with contextlib.suppress(PolicyError):
                second.receive(other)
        return second.receive(other)

    with pytest.raises(UsageError, match="no round is under way"):
        race("one.db", latched=True)
    with pytest.raises(PolicyError, match="step 4 of round 0 was already taken"):
        race("two.db", latched=False)
    switch_off(monkeypatch, journal_module, "check_next", "step != taken")
    with pytest.raises(StorageError, match="UNIQUE"):  # the table's own check
        race("three.db", latched=False)
    schema = journal_module._SCHEMA.replace(",\n    UNIQUE (session, round, step)", "")
    assert schema != journal_module._SCHEMA
    monkeypatch.setattr(journal_module, "_SCHEMA", schema)
    assert race("four.db", latched=False)


@BOTH
def test_two_processes_that_answer_a_complaint_and_a_verdict(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One phase may be skipped, so both answers may come next: of two processes that know the same only one gives its.
    What it opened and what it masks with would else belong to two stories."""

    def race(path: Path, first: str, second: str) -> None:
        life = Life(protocol, lambda: SqliteJournal(path), accused=True)
        life.live(3)
        evil = life.evil
        identity, journal = evil.identities[evil.name(VICTIM)], SqliteJournal(path)
        other = Client(identity, evil.roster, policy=evil.policy, journal=journal)
        other.start(evil.plan, evil.values[VICTIM])
        frames = [life.frame(first), life.frame(second)]
        life.client.receive(frames[0])
        try:
            other.receive(frames[1])
        finally:
            journal.close()

    for name, order in (("one", ("accusations", "verdict")), ("two", ("verdict", "accusations"))):
        with pytest.raises(PolicyError, match="step 3 of round 0 was already taken"):
            race(tmp_path / name, *order)
    by_phase(monkeypatch)
    race(tmp_path / "three", "accusations", "verdict")


def by_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Number an answer by the phase that it answers, and let the journal take numbers with holes."""
    journaled = Client._journaled

    def numbered(self: Client, current: Any, step: int, request: bytes, reply: object, *rest: Any) -> bytes:
        places = {"Defence": 3, "Upload": 4}
        return journaled(self, current, places.get(type(reply).__name__, step), request, reply, *rest)

    monkeypatch.setattr(Client, "_journaled", numbered)
    switch_off(monkeypatch, journal_module, "check_next", "step != taken")


class Failing(MemoryJournal):
    """A disk that is full when it is asked to."""

    full = False

    def append(
        self, deployment: bytes, session: bytes, round_: int, step: int, record: bytes, beside: Any = None
    ) -> None:
        if self.full:
            raise OSError("no space left on device")
        super().append(deployment, session, round_, step, record, beside)


@BOTH
def test_a_journal_that_fails(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was computed is not said, and until a restart nothing is: not from another message either."""

    def fail() -> Life:
        kept = Failing()
        life = Life(protocol, lambda: kept)
        life.live(2)
        kept.full = True
        with pytest.raises(OSError, match="no space"):
            life.step()
        kept.full = False
        return life

    other = Delivery(fail().evil.delivery(VICTIM).boxes[1:])
    life = fail()
    with pytest.raises(UsageError, match="no round is under way"):
        life.evil.tell(VICTIM, other)
    assert life.restart() == life.said[-1]
    life.step()
    switch_off(monkeypatch, Client, "_received", "current is None or self._unsafe", "current is None")
    life = fail()
    assert life.evil.tell(VICTIM, other)


class Careless(SqliteJournal):
    """Leaves the transaction open when its commit fails."""

    def append(
        self, deployment: bytes, session: bytes, round_: int, step: int, record: bytes, beside: Any = None
    ) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        record_digest = sha256(record).digest()
        link = journal_module.chained(self.head(), deployment, session, round_, step, record_digest)
        self._db.execute(journal_module._INSERT, (deployment, session, round_, step, record_digest, record, link))
        self._db.execute("COMMIT")

    def retire(self, session: bytes, before: int) -> None:
        self._db.execute("UPDATE log SET record = NULL WHERE session = ? AND round < ?", (session, before))


def busy(path: Path, kind: type[SqliteJournal]) -> tuple[Life, sqlite3.Connection]:
    """Before the consent; somebody (a backup) reads the file, so that nothing can be committed."""
    life = Life("secagg", lambda: kind(path))
    life.live(4)
    life.journal._db.execute("PRAGMA busy_timeout = 0")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM log").fetchall()
    return life, reader


def test_a_commit_that_fails(tmp_path: Path) -> None:
    """The record did not get to the disk, so it must not be there for a restart in the same process either. It would be
    spoken, lost in the next crash, and then another spoken: two consents."""
    life, reader = busy(tmp_path / "one.db", SqliteJournal)
    evil = life.evil
    frame = evil.frame(evil.survivors(VICTIM, evil.members))
    with pytest.raises(SecAggError):
        life.client.receive(frame)
    reader.close()
    assert life.client.start(evil.plan, np.zeros(LENGTH)) == life.said[-1]
    life.client.receive(frame)

    life, reader = busy(tmp_path / "two.db", Careless)
    evil = life.evil
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        life.client.receive(frame)
    reader.close()
    first = life.client.start(evil.plan, np.zeros(LENGTH))
    assert first != life.said[-1]  # it has spoken
    life.restart()  # the crash
    alive = [u for u in evil.members if u != evil.others(VICTIM)[0]]
    second = life.client.receive(evil.frame(evil.survivors(VICTIM, alive)))
    assert evil.messages.decode(evil.plan, first) != evil.messages.decode(evil.plan, second)


def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    """Not even a database any more: still a declared error."""
    path = tmp_path / "victim.db"
    life = Life("secagg", lambda: SqliteJournal(path))
    life.live(3)
    life.journal.close()
    data = bytearray(path.read_bytes())
    data[4096 : 4096 + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises((PolicyError, UsageError)):
        SqliteJournal(path)


def test_a_round_retired_by_another_process() -> None:
    """The answers are gone; asking for one again is a declared error."""
    life = Life("secagg")
    life.live(2)
    evil = life.evil
    other = Client(evil.identities[evil.name(VICTIM)], evil.roster, policy=evil.policy, journal=life.journal)
    other.start(evil.plan.next_round(), np.zeros(LENGTH))
    with pytest.raises(SecAggError):
        life.client.receive(evil.frame(evil.introduction(VICTIM)))


def test_the_journal_of_another_identity() -> None:
    life = Life("secagg")
    life.live(2)
    evil = life.evil
    other = Client(evil.identities[evil.name(3)], evil.roster, policy=evil.policy, journal=life.journal)
    with pytest.raises(PolicyError, match="the journal is not this client's"):
        other.start(evil.plan, np.zeros(LENGTH))


def test_a_clone_that_deals_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot of a client comes back (no pinned head) and meets two cohorts, with t corrupt neighbours only in both
    together. Were its polynomials the same under every root, the shares would add up to its mask key."""

    def shares_of_both() -> Evil:
        evil = small("secagg+", clients=24, corrupt=range(14, 24))
        evil.advertise()
        snapshot = deepcopy(evil.clients[VICTIM]._journal)
        for attempt in range(100):
            liar = evil.puppets[evil.corrupt[-1]].round
            liar._self_secret = attempt.to_bytes(32, "big")
            evil.exchange(liar.opening())
            if len(set(evil.others(VICTIM)) & set(evil.corrupt)) >= evil.t:
                continue  # one cohort is not to be enough
            evil.clients[VICTIM] = Client(
                evil.identities[evil.name(VICTIM)], evil.roster, policy=evil.policy, journal=deepcopy(snapshot)
            )
            evil.start(VICTIM)
            evil.share([VICTIM])
            if len(evil.key_shares[VICTIM]) >= evil.t:
                return evil
        raise LookupError("not enough corrupt neighbours")

    def stolen(evil: Evil) -> bool:
        try:
            return evil.mask_key(VICTIM).public == evil.adverts[VICTIM].mask_key
        except Denied:
            return False

    assert not stolen(shares_of_both())
    real = PairwiseClient._drawn
    monkeypatch.setattr(
        PairwiseClient,
        "_drawn",
        lambda machine, purpose, *_: real(machine, b"polynomials" if purpose.startswith(b"polynomials") else purpose),
    )
    assert stolen(shares_of_both())


# Sessions that were given up: the server stops answering and opens another, again and again.


class Abandoned:
    """One client that began ``count`` sessions of one deployment, and what a thief of key and journal finds."""

    def __init__(self, journal: Journal, count: int = 8) -> None:
        self.evil, self.journal = small("secagg"), journal
        first = self.evil.plan
        self.plans = [replace(first, session=bytes([i]) * 16) for i in range(count)]
        self.restart()
        self.said = [self.client.start(plan, self.evil.values[VICTIM]) for plan in self.plans]

    def restart(self, **options: Any) -> None:
        evil = self.evil
        identity = evil.identities[evil.name(VICTIM)]
        self.client = Client(identity, evil.roster, policy=evil.policy, journal=self.journal, **options)

    def opened(self) -> list[int]:
        """The rounds whose secrets the identity key and the journal give."""
        return [i for i, plan in enumerate(self.plans) if self.client._records(plan)]


def test_sessions_given_up_cannot_be_opened_any_more(
    reopen: Callable[[], Journal] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Abandoned((reopen or MemoryJournal)())
    assert scene.opened() == [7]
    for live in (True, False):  # by the process that gave them up, and by one that was restarted
        if not live:
            scene.restart()
        for plan in scene.plans[:7]:
            for attempt in (
                lambda plan=plan: scene.client.start(plan, np.zeros(LENGTH)),
                lambda plan=plan: scene.client.resume(plan, lambda: b""),
            ):
                with pytest.raises(PolicyError, match="this session is past round 0 for this client: it is over, or"):
                    attempt()
        assert scene.client.start(scene.plans[7], np.zeros(LENGTH)) == scene.said[7]
    scene.client.start(scene.plans[0].next_round(), np.zeros(LENGTH))  # the older one goes on: the newest now
    assert scene.opened() == []
    with pytest.raises(PolicyError, match="this session is past round 0"):
        scene.client.start(scene.plans[7], np.zeros(LENGTH))

    if isinstance(scene.journal, SqliteJournal):
        scene.journal.close()
        path = tmp_path / "control.db"
        monkeypatch.setattr(journal_module, "_SUPERSEDE", "UPDATE log SET record = record WHERE ? = ?")
        assert Abandoned(SqliteJournal(path)).opened() == list(range(8))
    else:
        monkeypatch.setattr(MemoryJournal, "_destroy", lambda *_: None)
        assert Abandoned(MemoryJournal()).opened() == list(range(8))


def test_deployments_live_side_by_side(reopen: Callable[[], Journal] | None) -> None:
    """A name that the client was given by its own side, and no word of the server, says what belongs together."""
    scene = Abandoned((reopen or MemoryJournal)(), count=2)
    scene.restart(deployment="the other")
    other = replace(scene.evil.plan, session=b"o" * 16)
    said = scene.client.start(other, np.zeros(LENGTH))
    assert scene.opened() == [1]
    assert scene.client.start(other, np.zeros(LENGTH)) == said
    with pytest.raises(PolicyError, match="this session is past round 0"):  # what was given up is so for all
        scene.client.start(scene.plans[0], np.zeros(LENGTH))
    scene.restart()
    assert scene.client.start(scene.plans[1], np.zeros(LENGTH)) == scene.said[1]
    scene.client.start(scene.plans[1].next_round(), np.zeros(LENGTH))
    assert scene.client._records(other)


def test_a_deployment_with_a_name_is_the_same_under_another_roster() -> None:
    """Without a name, each roster is a deployment of its own: cohorts and the level above them live side by side."""

    def opened(**options: str) -> bool:
        scene, larger = Abandoned(MemoryJournal(), count=0), small("secagg", outsiders=1)
        scene.restart(**options)
        scene.client.start(scene.evil.plan, np.zeros(LENGTH))
        identity = scene.evil.identities[scene.evil.name(VICTIM)]
        client = Client(identity, larger.roster, policy=larger.policy, journal=scene.journal, **options)  # type: ignore[arg-type]
        client.start(replace(larger.plan, session=b"n" * 16), np.zeros(LENGTH))
        return bool(scene.client._records(scene.evil.plan))

    assert not opened(deployment="hospitals")
    assert opened()


def test_a_server_that_knows_the_session_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can neither end a round there, nor learn from refusals that this client takes part in it."""

    def squatted() -> None:
        mine, theirs, journal = small("secagg"), small("secagg", outsiders=1), MemoryJournal()
        identity = mine.identities[mine.name(VICTIM)]
        here = Client(identity, mine.roster, policy=mine.policy, journal=journal, deployment="mine")
        there = Client(identity, theirs.roster, policy=theirs.policy, journal=journal, deployment="theirs")
        here.start(replace(mine.plan, round=7), np.zeros(LENGTH))
        for round_ in (0, 7, 8, 2**32 - 1):
            there.start(replace(theirs.plan, session=mine.plan.session, round=round_), np.zeros(LENGTH))
        here.start(replace(mine.plan, round=7), np.zeros(LENGTH))
        here.start(replace(mine.plan, round=8), np.zeros(LENGTH))

    squatted()
    monkeypatch.setattr(Client, "_session", lambda _, plan: plan.session)
    with pytest.raises(PolicyError, match="this session is past round 0"):
        squatted()


def test_a_process_that_was_overtaken_writes_no_more(tmp_path: Path) -> None:
    """One of two processes begins a newer session; the other stands in the middle of the one given up."""
    path = tmp_path / "victim.db"
    life = Life("secagg", lambda: SqliteJournal(path))
    life.live(2)
    evil = life.evil
    other = Client(evil.identities[evil.name(VICTIM)], evil.roster, policy=evil.policy, journal=SqliteJournal(path))
    other.start(replace(evil.plan, session=b"n" * 16), np.zeros(LENGTH))
    with pytest.raises(PolicyError, match="step 2 of round 0 was already taken, or the round is over"):
        life.client.receive(evil.frame(evil.delivery(VICTIM)))
    assert not other._records(evil.plan)
