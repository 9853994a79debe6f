"""Whoever opens a database closes it: the library where it is the owner, its callers where they are."""

from __future__ import annotations

import gc
import sqlite3
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dp.calibrate import user_level
from dp.events import Relation
from dp.ledger import Budget, Ledger
from dp.noise import Family, NoiseSpec
from protocols.client import Client
from protocols.journal import SqliteJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import simulate
from secagg.crypto.keys import SigningKey
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import PeerError, StorageError, UsageError
from tests import connections
from tests.connections import Watched, closed
from tests.controls import switch_off

IDENTITIES = [Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(4)]
ROSTER = Roster.of(IDENTITIES)
KEY = SigningKey(bytes(32))
BUDGET = Budget(Fraction(30), Fraction(1, 1000), slack=Fraction(1, 10**6))
NOISE = NoiseSpec(Family.SKELLAM, Fraction(4_000_000), dropouts=1, colluders=1, components=1)


def alive() -> int:
    """How many connections can be used, of all that have not been collected."""
    return sum(_answers(one) for one in gc.get_objects() if type(one) is Watched)


def _answers(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError as error:
        return "closed" not in str(error)
    return True


def ledger(folder: Path, name: str, held: ExitStack) -> Ledger:
    path, guarantee = folder / f"{name}.ledger", user_level(Relation.ZERO_OUT)
    return held.enter_context(closing(Ledger.create(path, KEY, BUDGET, guarantee, run="test", elsewhere="nothing")))


def play(folder: Path, held: ExitStack) -> None:
    """A round in which every client has a journal and a ledger, and the server a ledger."""
    policy = Policy(min_contributors=3, corrupt="0.25", dropout="0.25")
    plan = RoundPlan.propose(
        "secagg", ROSTER, Encoding.integers(8, bits=5), min_contributors=3, corrupt="0.25", dropout="0.25", noise=NOISE
    )
    clients = {}
    for identity in IDENTITIES:
        journal = held.enter_context(closing(SqliteJournal(folder / f"{identity.name}.db")))
        own = ledger(folder, identity.name, held)
        clients[identity.name] = Client(identity, ROSTER, policy=policy, journal=journal, ledger=own)
    server = serve(plan, ROSTER, ledger=ledger(folder, "server", held))
    assert len(simulate(server, clients, dict.fromkeys(clients, np.ones(8)).get).outcome.survivors) == 4


def test_a_round_leaves_nothing_open(tmp_path: Path) -> None:
    """Control: of nine, one is left open."""
    before = alive()
    with closed(tests_too=True), ExitStack() as held:
        play(tmp_path, held)
        assert alive() == before + 9
    assert alive() == before

    forgotten = tmp_path / "forgotten.db"
    with pytest.raises(AssertionError, match=f"nobody closed {forgotten}"), closed(tests_too=True):
        SqliteJournal(forgotten)


@pytest.mark.parametrize("forgets", ["SqliteJournal(path)", "Ledger.open(book, KEY)", "sqlite3.connect(path)"])
def test_code_that_forgets_a_database_fails_the_test(forgets: str, tmp_path: Path) -> None:
    """What every test is under (``tests/conftest.py``), collected or not. Of a test, it is closed with the test."""
    book, before = tmp_path / "one.ledger", dict(connections._open)
    Ledger.create(book, KEY, BUDGET, user_level(Relation.ZERO_OUT), run="test", elsewhere="nothing").close()
    words = globals() | {"path": tmp_path / "one.db", "book": book}
    with pytest.raises(AssertionError, match="nobody closed"), closed():
        exec(compile(forgets, "/somewhere/else.py", "exec"), words)
    with closed():
        exec(compile(forgets, __file__, "exec"), words)
        assert len(connections._open) == len(before) + 1
    assert connections._open == before


@pytest.mark.parametrize("content", ["a folder", "text", "tables"])
def test_what_cannot_be_opened_is_closed(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a journal that is refused, and does not close its file."""
    path = tmp_path / "one.db"
    if content == "a folder":
        path.mkdir()
    elif content == "text":
        path.write_text("neither a journal nor a ledger " * 100)
    else:
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE log (number INTEGER)")
    path.chmod(0o700)  # a journal that others can get at is refused unopened
    with closed(tests_too=True):
        with pytest.raises(UsageError, match="journal"):
            SqliteJournal(path)
        with pytest.raises((PeerError, StorageError), match="ledger"):
            Ledger.open(path, KEY)
    if content != "a folder":
        switch_off(monkeypatch, SqliteJournal, "__init__", "undo.callback(self.close)", "None")
        left_open = pytest.raises(AssertionError, match=f"nobody closed {path}")
        with left_open, closed(), pytest.raises(UsageError, match="journal"):
            SqliteJournal(path)
