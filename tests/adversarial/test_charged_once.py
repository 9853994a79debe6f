"""A client's own ledger is charged once for a plan: so for one plan it makes one release, whatever was forgotten.

The lying server wants many noised sums for one reservation. It replays a plan to a client whose journal has forgotten
it (another run, a restored backup, a copy of the client), and keeps from it that it may open the sum, or it would
commit. The other clients keep no ledgers. Or the ledger forgets: an older file comes back, another one, or none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.calibrate import user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols import client as client_module
from protocols.client import Client
from protocols.journal import ForgetfulJournal, Journal, MemoryJournal, SqliteJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import BudgetError, PolicyError, StorageError, UsageError
from tests.controls import switch_off
from tests.scenes.journals import KeptJournal

N, LENGTH = 5, 400
IDENTITIES = [Identity.generate(f"client-{i}", Prg(bytes([i + 1]) * 32)) for i in range(N)]
ROSTER, VICTIM = Roster.of(IDENTITIES), IDENTITIES[0]
UPDATES = {one.name: np.ones(LENGTH) for one in IDENTITIES}
POLICY = Policy(min_contributors=4, corrupt=0, dropout="0.2")
NOISE = NoiseSpec(Family.SKELLAM, Fraction(16 * LENGTH), dropouts=1, colluders=1)
DEAF = cast(Ledger, SimpleNamespace(reserve=lambda what: None, commit=lambda what: None, abort=lambda what, why: None))
"""The lying server's own."""


def plan_of(number: int = 0) -> RoundPlan:
    return RoundPlan.propose(
        *("secagg", ROSTER, Encoding.integers(LENGTH, bits=3)),
        min_contributors=4,
        corrupt=0,
        dropout="0.2",
        noise=NOISE,
        session=bytes([number]) * 16,
    )


def created(path: Path) -> Ledger:
    budget = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**9))
    return Ledger.create(path, SigningKey(bytes(32)), budget, user_level(Relation.ZERO_OUT), run="own", elsewhere="-")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = created(tmp_path / "ledger.db")
    yield made
    made.close()


def client(ledger: Ledger | None, journal: Journal | None = None, identity: Identity = VICTIM) -> Client:
    return Client(identity, ROSTER, policy=POLICY, journal=journal, ledger=ledger)


def played(plan: RoundPlan, victim: Client) -> Iterator[tuple[str, bytes, Any]]:
    """A round of a lying server: what the victim says in each phase. It never hears that it may open the sum."""
    others = {one.name: client(None, identity=one) for one in IDENTITIES[1:]}
    server: Any = serve(plan, ROSTER, ledger=DEAF)
    said = {name: other.start(plan, UPDATES[name]) for name, other in others.items()}
    said[VICTIM.name] = victim.start(plan, UPDATES[VICTIM.name])
    while server.outcome is None:
        yield server.phase, said.get(VICTIM.name, b""), server
        for name, frame in said.items():
            server.receive(name, frame)
        server.close(server.phase)
        heard = {name: frame for name, frame in server.outbox() if (server.phase, name) != ("reveal", VICTIM.name)}
        said = {name: (victim if name == VICTIM.name else others[name]).receive(it) for name, it in heard.items()}
    yield "done", b"", server


def uploaded(plan: RoundPlan, victim: Client) -> bytes:
    """The victim's noised and masked vector."""
    return next(frame for phase, frame, _ in played(plan, victim) if phase == "upload")


def summed(plan: RoundPlan, victim: Client) -> NDArray[np.int64]:
    """The sum, with the victim's vector in it."""
    *_, (_, _, server) = played(plan, victim)
    assert VICTIM.name in server.outcome.survivors
    return cast("NDArray[np.int64]", server.outcome.total)


def phases(ledger: Ledger) -> list[str]:
    return [entry["phase"] for entry in ledger.entries()][1:]


class Lost(KeptJournal):
    """It was durable, and is gone."""


def test_one_plan_is_one_release(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """25 sums for one reservation are refused. Control: they average the noise to a fifth, at the price of one."""
    plan = plan_of()
    summed(plan, client(ledger, Lost()))
    for _ in range(2):
        with pytest.raises(PolicyError, match="the ledger knows this plan"):
            summed(plan, client(ledger, Lost()))
    assert phases(ledger) == ["reserve"]

    switch_off(monkeypatch, Client, "_check_uncharged", "self._ledger.knows(worst)")
    errors = np.array([summed(plan, client(ledger, Lost())) - N for _ in range(25)])
    assert phases(ledger) == ["reserve"]
    # of 400 coordinates a deviation is off by 25% with probability below 1e-10
    assert errors.mean(axis=0).std() < errors[0].std() / 4
    honest = created(tmp_path / "honest.db")
    for number in range(25):
        honest.reserve(plan_of(number).secure_sum(N))
    assert honest.epsilon > 4 * ledger.epsilon
    honest.close()


@pytest.mark.parametrize("forgets", [lambda: None, MemoryJournal, ForgetfulJournal])
def test_a_ledger_needs_a_journal_as_durable(
    forgets: Callable[[], Journal | None], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"pass journal=SqliteJournal\(path\)"):
        client(ledger, forgets())
    switch_off(monkeypatch, Client, "__init__", "ledger is not None and not self._journal.durable")
    client(ledger, forgets())


def test_the_name_that_sqlite_takes_for_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = SqliteJournal(":memory:")
    journal.append(b"deployment", b"session", 3, 0, b"record")
    journal.close()
    again = SqliteJournal(":memory:")
    assert again.last_round(b"session") == 3
    again.close()


def test_a_journal_that_is_put_back(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows that the round was begun, and not that the vector is out. Control: another vector, nothing charged."""
    plan, file, backup = plan_of(), tmp_path / "journal.db", tmp_path / "backup.db"

    def put_back() -> SqliteJournal:
        shutil.copy(backup, file)
        return SqliteJournal(file)

    journal = SqliteJournal(file)
    client(ledger, journal).start(plan, UPDATES[VICTIM.name])
    shutil.copy(file, backup)
    first = uploaded(plan, client(ledger, journal))
    journal.close()
    journal = put_back()
    with pytest.raises(PolicyError, match="the ledger knows this plan"):  # and not only at the upload
        client(ledger, journal).start(plan, UPDATES[VICTIM.name])
    with monkeypatch.context() as later:
        switch_off(later, Client, "_resume", "self._check_uncharged(current.plan)")
        with pytest.raises(PolicyError, match="the ledger knows this plan"):
            uploaded(plan, client(ledger, journal))
    journal.close()
    switch_off(monkeypatch, Client, "_check_uncharged", "self._ledger.knows(worst)")
    journal = put_back()
    assert uploaded(plan, client(ledger, journal)) != first
    journal.close()
    assert phases(ledger) == ["reserve"]


def test_two_copies_of_a_client_with_one_ledger(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both begin before either is charged, each with a journal of its own: one of them uploads."""

    def race(plan: RoundPlan) -> list[bytes]:
        copies = [client(ledger, KeptJournal()) for _ in range(2)]
        for copy in copies:
            copy.start(plan, UPDATES[VICTIM.name])
        return [uploaded(plan, copy) for copy in copies]

    with pytest.raises(PolicyError, match="the ledger knows this plan"):
        race(plan_of())
    switch_off(monkeypatch, Client, "_check_uncharged", "self._ledger.knows(worst)")
    one, other = race(plan_of(1))
    assert one != other
    assert phases(ledger) == ["reserve", "reserve"]  # one for each plan


def test_a_ledger_that_several_write_at_once_is_no_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies of a client in two processes: one uploads after the other has looked, and before it reserves."""
    created(tmp_path / "ledger.db").close()
    opened = [Ledger.open(tmp_path / "ledger.db", SigningKey(bytes(32)), shared=True) for _ in range(2)]
    with pytest.raises(UsageError, match="one process at a time"):
        client(opened[0], KeptJournal())
    switch_off(monkeypatch, Client, "__init__", "ledger is not None and ledger.shared")
    uploads, look = list[bytes](), Client._check_uncharged

    def slow(self: Client, plan: RoundPlan) -> None:
        look(self, plan)
        if self is one and self._unsafe and not uploads:  # about to upload
            uploads.append(uploaded(plan, client(opened[1], KeptJournal())))

    one = client(opened[0], KeptJournal())
    monkeypatch.setattr(Client, "_check_uncharged", slow)
    uploads.append(uploaded(plan_of(), one))
    assert len(set(uploads)) == 2
    assert phases(opened[0]) == ["reserve"]  # the control: one for both
    for each in opened:
        each.close()


def test_a_crash_between_journal_and_ledger(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload is in the journal and was never said: it is charged before a restarted client says it."""

    def dies(self: Ledger, what: object) -> None:
        raise StorageError("died")

    def restarted(plan: RoundPlan) -> bytes:
        journal = KeptJournal()
        with monkeypatch.context() as dying:
            dying.setattr(Ledger, "reserve", dies)
            with pytest.raises(StorageError, match="died"):
                uploaded(plan, client(ledger, journal))
        return client(ledger, journal).start(plan, UPDATES[VICTIM.name])

    assert len(restarted(plan_of())) > LENGTH
    assert phases(ledger) == ["reserve"]
    switch_off(monkeypatch, Client, "_resume", "self._reserve(current.plan)")
    assert len(restarted(plan_of(1))) > LENGTH
    assert phases(ledger) == ["reserve"]  # the control: a vector left, and was not charged


def test_a_crash_between_journal_and_ledger_and_a_copy_that_pays_meanwhile(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reservation for two uploads, of one client with two journals: the one that did not make it says nothing.
    Of a crash between a reservation and the journal's memory of it nobody can tell more: it costs the round."""

    def raising(*arguments: object) -> None:
        raise StorageError("died")

    def crashed(plan: RoundPlan, owner: type, name: str) -> KeptJournal:
        journal = KeptJournal()
        with monkeypatch.context() as dying:
            dying.setattr(owner, name, raising)
            with pytest.raises(StorageError):
                uploaded(plan, client(ledger, journal))
        return journal

    def pair(plan: RoundPlan) -> tuple[bytes, bytes]:
        journal = crashed(plan, Ledger, "reserve")
        other = uploaded(plan, client(ledger, KeptJournal()))
        return other, client(ledger, journal).start(plan, UPDATES[VICTIM.name])

    with pytest.raises(PolicyError, match="does not know that it was charged"):
        pair(plan_of())
    journal = crashed(plan_of(1), Client, "_remember_ledger")
    with pytest.raises(PolicyError, match="does not know that it was charged"):
        client(ledger, journal).start(plan_of(1), UPDATES[VICTIM.name])
    switch_off(monkeypatch, Client, "_check_mine", "ledger.knows(worst)")
    one, other = pair(plan_of(2))
    assert one != other
    assert phases(ledger) == ["reserve"] * 3  # the control: one for both


def test_no_room_is_found_before_the_journal_is_written(ledger: Ledger) -> None:
    """What has no room is refused as long as nothing says that it left: no vector waits in the journal."""
    plan, journal = plan_of(), KeptJournal()
    victim = client(ledger, journal)
    phases_of_it = played(plan, victim)
    assert [next(phases_of_it)[0] for _ in range(3)] == ["advertise", "share", "complain"]
    with suppress(BudgetError):  # used up by other rounds meanwhile
        for number in range(1, 256):
            ledger.reserve(plan_of(number).secure_sum(N))
    with pytest.raises(BudgetError):
        next(phases_of_it)
    assert len(journal.records(victim._session(plan), 0)) == 3


# The ledger that forgets


def test_a_ledger_that_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal remembers its head. Control: what was charged since the backup is forgotten."""
    file, backup, key, journal = tmp_path / "own.db", tmp_path / "backup.db", SigningKey(bytes(32)), KeptJournal()
    book = created(file)
    book.close()
    shutil.copy(file, backup)
    with_it = Ledger.open(file, key)
    summed(plan_of(), client(with_it, journal))
    with_it.close()
    shutil.copy(backup, file)
    older = Ledger.open(file, key)
    with pytest.raises(PolicyError, match="older than this client's journal, or another one"):
        client(older, journal).check(plan_of(1))
    switch_off(monkeypatch, Client, "_check_ledger", "not self._ledger.contains(self._remembered)")
    summed(plan_of(1), client(older, journal))
    assert phases(older) == ["reserve"]
    older.close()


def test_another_ledger_for_the_same_client(ledger: Ledger, tmp_path: Path) -> None:
    """One deployment with two ledgers: each would look fine."""
    journal, other = KeptJournal(), created(tmp_path / "other.db")
    summed(plan_of(), client(ledger, journal))
    with pytest.raises(PolicyError, match="or another one"):
        client(other, journal).check(plan_of(1))
    summed(plan_of(1), client(ledger, journal))
    other.close()


def test_no_ledger_for_a_client_that_kept_one(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = KeptJournal()
    summed(plan_of(), client(ledger, journal))
    with pytest.raises(UsageError, match="pass the ledger, too"):
        client(None, journal).check(plan_of(1))
    monkeypatch.setattr(Client, "_check_ledger", lambda self: None)
    summed(plan_of(1), client(None, journal))
    assert phases(ledger) == ["reserve"]  # the control: a second sum, and nothing charged


def test_the_ledgers_head_is_written_for_each_change_of_it(ledger: Ledger) -> None:
    """And for nothing else: clients that are made anew for each message (Flower's) would fill their journals."""
    journal, plan = KeptJournal(), plan_of()
    victim = client(ledger, journal)
    summed(plan, victim)
    for _ in range(3):
        client(ledger, journal).start(plan, UPDATES[VICTIM.name])
    assert journal.last_round(client_module._LEDGER) == 0
    [box] = journal.records(client_module._LEDGER, 0)
    assert ledger.head not in box  # sealed


def test_the_journal_of_another_client(ledger: Ledger) -> None:
    journal = KeptJournal()
    summed(plan_of(), client(ledger, journal))
    with pytest.raises(PolicyError, match="not this client's"):
        client(ledger, journal, IDENTITIES[1]).check(plan_of(1))


def test_a_journal_from_which_the_ledgers_head_was_taken(ledger: Ledger) -> None:
    journal = KeptJournal()
    summed(plan_of(), client(ledger, journal))
    journal.retire(client_module._LEDGER, 1)
    with pytest.raises(PolicyError, match="has been altered"):
        client(ledger, journal).check(plan_of(1))


# Two processes


def test_a_fork_says_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the same secrets, and a lock that is not its own."""
    plan, victim = plan_of(), client(ledger, KeptJournal())
    victim.start(plan, UPDATES[VICTIM.name])
    forked = os.getpid() + 1
    with monkeypatch.context() as fork:
        fork.setattr(os, "getpid", lambda: forked)
        for act in (
            lambda: victim.check(plan),
            lambda: victim.start(plan, UPDATES[VICTIM.name]),
            lambda: victim.resume(plan, bytes),
            victim.encoded,
            lambda: victim.receive(b""),
            victim.finish,
        ):
            with pytest.raises(UsageError, match="made in another process"):
                act()
        for act in (
            lambda: ledger.reserve(plan.secure_sum(N)),
            lambda: ledger.knows(plan.secure_sum(N)),
            lambda: ledger.contains(ledger.head),
            lambda: list(ledger.entries()),
        ):
            with pytest.raises(StorageError, match="opened by another process"):
                act()
    victim.start(plan, UPDATES[VICTIM.name])
