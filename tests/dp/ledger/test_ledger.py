"""The ledger as those see it who write it: what it allows, what it refuses, and what it does when the disk fails."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp.accountants import RdpAccountant
from dp.events import Everyone, Gaussian, PoissonSample, Relation, Release, Trust
from dp.filter import RESOLUTION, Budget, PrivacyCost
from dp.ledger import Ledger, Steps, file
from dp.ledger.file import read
from dp.ledger.state import LedgerState
from dp.ledger.verify import verify
from dp.secure_sum import Signed
from secagg.errors import BudgetError, PeerError, StorageError, UsageError
from tests.controls import switch_off
from tests.scenes import ledger as scene
from tests.scenes.ledger import BUDGET, EXAMPLE, KEY, USER, filled, happened, new, planned, signed, step

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def count(ledger: Ledger) -> int:
    return len(list(ledger.entries()))


# A round's life


def test_a_round(path: Path) -> None:
    ledger = new(path)
    assert (ledger.epsilon, ledger.spent) == (0.0, PrivacyCost())
    ledger.reserve(planned())
    worst = ledger.epsilon
    assert ledger.spent == PrivacyCost()
    ledger.commit(happened(gone=[3]))
    assert 0 < ledger.epsilon < worst
    assert ledger.spent == PrivacyCost.of(happened(gone=[3]).release(USER), 1, samples=10 * 1000 * 3)
    phases = [(entry["phase"], entry["number"]) for entry in ledger.entries()]
    assert phases == [("genesis", 0), ("reserve", 1), ("commit", 2)]
    ledger.close()


def test_the_worst_case_is_reserved_whatever_is_expected(path: Path) -> None:
    ledger = new(path)
    ledger.reserve(planned())
    entry = list(ledger.entries())[1]["sum"]
    assert (entry["survivors"], entry["missing"], entry["variance_held"]) == (6, 4, "40000")
    ledger.commit(happened(gone=[1]))
    entry = list(ledger.entries())[2]["sum"]
    assert (entry["survivors"], entry["missing"], entry["components_removed"]) == (9, 1, 1)
    assert Fraction(entry["variance_held"]) == Fraction(40_000 * 8, 7)


def test_epsilon_is_about_that_of_composition(path: Path) -> None:
    """The filter's price: the orders share delta, and sampler error has its slack."""
    ledger, accountant = new(path), RdpAccountant()
    for number in range(3):
        ledger.reserve(planned(number))
        ledger.commit(happened(number, gone=range(number)))
        accountant.compose(happened(number, gone=range(number)).release(USER))
    composed = accountant.epsilon(1e-6 - 1e-9)
    assert composed < ledger.epsilon < 1.25 * composed


def test_the_budget_is_refused_before_anything_is_written(path: Path) -> None:
    ledger = new(path)
    for number in range(8):
        ledger.reserve(planned(number))
        ledger.commit(happened(number))
    head, number = ledger.head, 8
    for refused in (ledger.check, ledger.reserve):
        with pytest.raises(BudgetError, match="epsilon could reach"):
            refused(planned(number))
    assert (ledger.head, count(ledger)) == (head, 2 * number + 1)
    assert ledger.epsilon <= 8


def test_check_writes_nothing(path: Path) -> None:
    ledger = new(path)
    ledger.check(planned())
    assert count(ledger) == 1
    ledger.reserve(planned())
    ledger.check(planned())
    assert count(ledger) == 2


def test_an_aborted_round_is_given_back(path: Path) -> None:
    ledger = new(path)
    ledger.reserve(planned())
    ledger.abort(planned(), "too few clients")
    assert ledger.epsilon == 0
    ledger.abort(planned(), "said twice")
    assert count(ledger) == 3
    with pytest.raises(BudgetError, match="nothing is reserved"):
        ledger.commit(happened())
    ledger.reserve(planned())
    ledger.commit(happened())
    with pytest.raises(BudgetError, match="nothing is reserved"):
        ledger.abort(planned(), "too late")
    assert count(ledger) == 5


def test_nothing_is_committed_without_a_reservation(path: Path) -> None:
    with pytest.raises(BudgetError, match="nothing is reserved"):
        new(path).commit(happened())


def test_every_call_may_be_repeated(path: Path) -> None:
    """Also after a restart, and with other signatures: they are evidence, not facts."""
    ledger = new(path)
    for _ in range(2):
        ledger.reserve(planned())
        ledger.reserve(planned().worst())
    ledger.close()
    ledger = Ledger.open(path, KEY)
    for signers in (3, 3, 5):
        ledger.commit(happened(signers=signers))
        ledger.reserve(planned())
    ledger.close()
    ledger = Ledger.open(path, KEY)
    ledger.reserve(planned())
    ledger.check(planned())
    ledger.commit(happened(signers=2))
    assert count(ledger) == 3


def test_a_release_happens_once(path: Path) -> None:
    ledger = new(path)
    ledger.reserve(planned())
    ledger.commit(happened(gone=[0, 3]))
    for other in (happened(gone=[0, 4]), happened(gone=[0]), replace(happened(), cohort=bytes(32))):
        with pytest.raises(BudgetError, match="other facts"):
            ledger.commit(other)
    assert count(ledger) == 3


def test_without_that_check_it_happens_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, file, "_commitment", "unsigned(record.happened) != unsigned(what)")
    ledger = new(path)
    ledger.reserve(planned())
    ledger.commit(happened(gone=[0, 3]))
    ledger.commit(happened(gone=[0, 4]))


def test_rounds_and_plans_are_told_apart(path: Path) -> None:
    ledger = new(path)
    ledger.reserve(planned(0))
    ledger.reserve(planned(1))
    ledger.reserve(planned(0, session=b"another session!"))
    assert count(ledger) == 4


@pytest.mark.parametrize(
    "other",
    [
        {"l2_squared": 10_201},
        {"noise": replace(scene.SKELLAM, variance=Fraction(39_999))},
        {"noise": replace(scene.SKELLAM, colluders=2)},
        {"planned": 11},
        {"ring_bits": 21},
    ],
)
def test_the_same_plan_has_the_same_facts(path: Path, other: dict[str, Any]) -> None:
    ledger = new(path)
    ledger.reserve(planned())
    for refused in (ledger.check, ledger.reserve, ledger.commit):
        with pytest.raises(BudgetError, match="other facts"):
            refused(replace(happened(), **other))
    assert count(ledger) == 2


def test_more_clients_are_missing_than_the_noise_allows_for(path: Path) -> None:
    ledger = new(path)
    ledger.reserve(planned())
    with pytest.raises(BudgetError, match="5 clients are missing, the noise allows for 4"):
        ledger.commit(happened(gone=range(5)))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda: replace(happened(), signatures=()), "0 signed the survivors"),
        (lambda: happened(signers=1), "1 signed the survivors, nothing comes out for fewer than 2"),
        (lambda: replace(happened(), signatures=happened().signatures[:1] * 2), "one each"),
        (lambda: replace(happened(), cohort=b""), "cohort"),
        (lambda: replace(happened(), bitmap=b"\xff\x03"), "bitmap"),
        (lambda: planned(), "cohort"),
    ],
)
def test_a_commit_needs_the_survivors_word(path: Path, broken: Callable[[], Any], reason: str) -> None:
    ledger = new(path)
    ledger.reserve(planned())
    with pytest.raises(UsageError, match=reason):
        ledger.commit(broken())
    ledger.commit(happened())


def test_a_reservation_is_for_a_plan(path: Path) -> None:
    with pytest.raises(UsageError, match="the digest is not that of the plan"):
        new(path).reserve(planned(plan=b"another"))


def test_discrete_gaussians(path: Path) -> None:
    ledger = new(path)
    ledger.reserve(planned(noise=scene.GAUSSIANS))
    ledger.commit(happened(noise=scene.GAUSSIANS))
    assert ledger.spent == PrivacyCost.of(happened(noise=scene.GAUSSIANS).release(USER), 1, samples=10 * 1000)
    assert Fraction(list(ledger.entries())[2]["sum"]["variance_held"]) == Fraction(40_000 * 7, 5)


# Local training


def test_steps(path: Path) -> None:
    budget = Budget.suited(step(), Fraction(2), Fraction(1, 10**5), slack=Fraction(0))
    ledger = new(path, guarantee=EXAMPLE, budget=budget)
    ledger.reserve(Steps("round 1", step(), 100))
    ledger.commit(Steps("round 1", step(), 90))
    ledger.commit(Steps("round 1", step(), 90))
    with pytest.raises(BudgetError, match="other facts"):
        ledger.commit(Steps("round 1", step(), 91))
    ledger.reserve(Steps("round 2", step(), 100))
    with pytest.raises(BudgetError, match="more than was reserved"):
        ledger.commit(Steps("round 2", step(), 101))
    with pytest.raises(BudgetError, match="other facts"):
        ledger.reserve(Steps("round 2", step(), 101))
    assert ledger.spent == PrivacyCost.of(step(), 90)
    ledger.charge(step(), 10)
    ledger.charge(step(), 10)
    assert ledger.spent == PrivacyCost.of(step(), 110)
    with pytest.raises(BudgetError):
        ledger.charge(step(), 1000)
    assert ledger.spent == PrivacyCost.of(step(), 110)
    ledger.close()
    assert verify(read(path), KEY.public).filter.spent == PrivacyCost.of(step(), 110)


def test_guarantees_do_not_mix(path: Path, tmp_path: Path) -> None:
    ledger = new(path)
    with pytest.raises(UsageError, match="is not charged to a budget under"):
        ledger.charge(step())
    local = new(tmp_path / "local.db", guarantee=EXAMPLE)
    with pytest.raises(UsageError, match="distributed"):
        local.reserve(planned())
    for other in ("relation", "unit"):
        changed = replace(EXAMPLE, **{other: list(type(getattr(EXAMPLE, other)))[1]})
        with pytest.raises(UsageError, match="is not charged to a budget under"):
            local.charge(replace(step(), guarantee=changed))
    with pytest.raises(UsageError):
        Steps("nothing", planned())  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Steps("", step())
    full = Release(
        Gaussian(Fraction(4)), Everyone(), replace(USER, relation=Relation.ADD_OR_REMOVE, trust=Trust.CENTRAL)
    )
    central = new(tmp_path / "central.db", guarantee=full.guarantee)
    central.charge(full)
    sampled = replace(full, sampling=PoissonSample(Fraction(1, 2)))
    central.charge(sampled)
    facts = [entry["steps"]["seen_by"] for entry in list(central.entries())[1:]]
    assert facts == ["everybody", "everybody", "nobody", "nobody"]


# Files


def test_a_new_file_is_its_owners_and_an_old_one_is_kept(path: Path) -> None:
    filled(path).close()
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="already"):
        new(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["ledger.db"]


def test_while_it_is_open_the_journal_is_its_owners_too(path: Path) -> None:
    ledger = filled(path)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"ledger.db": 0o600, "ledger.db-journal": 0o600}
    ledger.close()


def test_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        new(tmp_path / "nowhere" / "ledger.db")
    with pytest.raises(StorageError):
        Ledger.open(tmp_path / "ledger.db", KEY)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_beside_it(path: Path) -> None:
    """Not by who wrote, alone or with others; and who reads makes nothing."""
    filled(path).close()
    ledger = Ledger.open(path, KEY, shared=True)
    ledger.reserve(planned(90))
    ledger.close()
    assert list(path.parent.iterdir()) == [path]
    path.parent.chmod(0o500)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    verify(read(path), KEY.public)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    path.parent.chmod(0o700)


@pytest.mark.parametrize("knows", [True, False])
def test_a_fork_that_closes_it_takes_no_journal_away(path: Path, knows: bool) -> None:
    """The one that has it open may need it. The control: a fork that takes itself for the one."""
    ledger = filled(path)
    if (child := os.fork()) == 0:
        if not knows:
            ledger._process = os.getpid()
        ledger.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert path.with_name("ledger.db-journal").exists() == knows
    if knows:
        ledger.reserve(planned(99))
    ledger.close()
    assert len(verify(read(path), KEY.public).heads) == 10 + knows


def test_of_an_older_version(path: Path) -> None:
    """Its log is not looked for, and none is made."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE entries (number INTEGER PRIMARY KEY, body BLOB, signature BLOB)")
    (log := path.with_name("ledger.db-wal")).write_bytes(b"some")
    for reader in (lambda: Ledger.open(path, KEY), lambda: Ledger.open(path, KEY, shared=True), lambda: read(path)):
        with pytest.raises(PeerError, match="older version"):
            reader()
    assert (sorted(path.parent.iterdir()), log.read_bytes()) == ([path, log], b"some")


def test_what_is_no_file(path: Path) -> None:
    os.mkfifo(path)
    for reader in (lambda: Ledger.open(path, KEY), lambda: read(path)):
        with pytest.raises(PeerError, match="no file"):
            reader()


def test_it_opens_again_as_it_was(path: Path) -> None:
    ledger = filled(path)
    before = (ledger.head, ledger.epsilon, ledger.spent, list(ledger.entries()), ledger.budget, ledger.guarantee)
    ledger.close()
    ledger = Ledger.open(path, KEY)
    assert before == (
        ledger.head,
        ledger.epsilon,
        ledger.spent,
        list(ledger.entries()),
        ledger.budget,
        ledger.guarantee,
    )


def test_a_reservation_that_a_crash_left_stands(path: Path) -> None:
    ledger = new(path)
    ledger.reserve(planned())
    worst = ledger.epsilon
    ledger.close()
    ledger = Ledger.open(path, KEY)
    assert ledger.epsilon == worst
    ledger.commit(happened(gone=[1]))
    assert ledger.epsilon < worst


def test_only_its_owner_goes_on(path: Path) -> None:
    filled(path).close()
    with pytest.raises(PeerError, match="another key"):
        Ledger.open(path, scene.CLIENT)


def opened_elsewhere(path: Path) -> str:
    """What another process says that opens it."""
    other = (
        "import sys; from dp.ledger import Ledger; from secagg.crypto.keys import SigningKey\n"
        "Ledger.open(sys.argv[1], SigningKey(bytes(range(32))))"
    )
    return subprocess.run(
        [sys.executable, "-c", other, path], capture_output=True, text=True, check=False, cwd=ROOT
    ).stderr


def test_one_writer_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "_READERS_PATIENCE", 0.0)
    ledger = filled(path)
    for reader in (lambda: Ledger.open(path, KEY), lambda: read(path)):
        with pytest.raises(StorageError, match="locked"):
            reader()
    assert "StorageError: the ledger cannot be read or written: database is locked" in opened_elsewhere(path)
    monkeypatch.setattr(file, "_open", Counter())
    with pytest.raises(StorageError, match="locked"):
        read(path)
    assert opened_elsewhere(path) == "", "who looks into the file lifts the lock; if not, need nothing be counted"
    ledger.reserve(planned(99))
    ledger.close()
    Ledger.open(path, KEY).close()


@pytest.mark.parametrize("known", range(7))
def test_every_head_ever_seen_may_be_pinned(path: Path, known: int) -> None:
    ledger, heads = new(path), []
    for number in range(3):
        heads.append(ledger.head)
        ledger.reserve(planned(number))
        heads.append(ledger.head)
        ledger.commit(happened(number))
    heads.append(ledger.head)
    ledger.close()
    Ledger.open(path, KEY, pinned=heads[known]).close()


def test_an_older_file_is_refused_by_who_remembers_the_head(path: Path, tmp_path: Path) -> None:
    ledger = filled(path)
    ledger.close()
    shutil.copy(path, tmp_path / "older.db")
    ledger = Ledger.open(path, KEY)
    ledger.reserve(planned(50))
    head = ledger.head
    ledger.close()
    Ledger.open(tmp_path / "older.db", KEY).close()
    with pytest.raises(PeerError, match="pinned head"):
        Ledger.open(tmp_path / "older.db", KEY, pinned=head)


def test_without_that_check_it_comes_back(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dp.ledger import file

    switch_off(monkeypatch, file, "replay", "pinned is not None and pinned not in state.heads")
    filled(path).close()
    Ledger.open(path, KEY, pinned=bytes(32)).close()


def test_entries_can_only_be_added(path: Path) -> None:
    filled(path).close()
    with sqlite3.connect(path) as database:
        for statement in ("DELETE FROM entries WHERE number = 3", "UPDATE entries SET body = x'00' WHERE number = 3"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    "content", [b"", b"Dear Sir or Madam, this has never been a database. " * 100, b"SQLite format 3\0" + bytes(4080)]
)
def test_other_files_are_no_ledgers(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(PeerError, match="no ledger"):
        Ledger.open(path, KEY)
    assert path.read_bytes() == content


def test_other_databases_are_no_ledgers(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE entries (number INTEGER PRIMARY KEY, body BLOB, signature BLOB)")
    database.close()
    with pytest.raises(PeerError, match="no ledger"):
        Ledger.open(path, KEY)


def test_a_text_where_bytes_should_be(path: Path) -> None:
    filled(path).close()
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO entries VALUES (10, 'a text')")
    database.close()
    with pytest.raises(PeerError, match="missing"):
        Ledger.open(path, KEY)


def test_a_closed_ledger(path: Path) -> None:
    ledger = filled(path)
    ledger.close()
    with pytest.raises(StorageError, match="closed"):
        ledger.reserve(planned(60))


# A disk that fails


def recovered(path: Path, head: bytes, epsilon: float) -> None:
    """What was acknowledged is there, and it can be gone on with."""
    ledger = Ledger.open(path, KEY, pinned=head)
    assert ledger.epsilon >= epsilon
    ledger.reserve(planned(70))
    ledger.commit(happened(70))
    ledger.close()
    verify(read(path), KEY.public, head)


def test_a_full_disk(path: Path) -> None:
    ledger = filled(path)
    head, epsilon = ledger.head, ledger.epsilon
    ledger._db.execute("PRAGMA max_page_count = 1")  # which SQLite takes for: no more than there are
    with pytest.raises(StorageError, match="full"):
        ledger.reserve(planned(60))
    for call in (ledger.check, ledger.reserve, ledger.commit, lambda what: ledger.abort(what, "?")):
        with pytest.raises(StorageError, match="open it again"):
            call(happened(60))
    with pytest.raises(StorageError, match="open it again"):
        ledger.entries()
    assert (ledger.head, ledger.epsilon) == (head, epsilon)
    ledger.close()
    recovered(path, head, epsilon)


@pytest.mark.parametrize("room", [0, 1, 40, 3000, 4120, 4500, 9000, 12000])
def test_a_write_that_fails_half_way(path: Path, room: int) -> None:
    """A file that may not grow: the write that crosses the limit is cut short, the next one fails."""
    ledger = filled(path)
    head, epsilon = ledger.head, ledger.epsilon
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2 + room, hard))
    try:
        with pytest.raises(StorageError, match="cannot be read or written"):
            ledger.reserve(planned(60))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(StorageError, match="open it again"):
        ledger.reserve(planned(60))
    ledger.close()
    recovered(path, head, epsilon)


def test_an_unwritable_ledger_says_nothing_half(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Had the state moved before the disk had it, the next entry would build on one that is not there."""
    ledger = filled(path)
    adopted: list[object] = []
    monkeypatch.setattr(LedgerState, "apply", lambda self, draft: adopted.append(draft))
    ledger._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError):
        ledger.reserve(planned(60))
    assert adopted == []


# Light


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, json, dp.ledger.file, dp.ledger.verify; "
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(json.loads(ran.stdout))
    assert {"dp", "secagg", "sqlite3"} <= loaded
    assert not loaded & {"numpy", "torch", "scipy", "dp_accounting", "opacus", "numba", "protocols", "typer"}


def test_a_secure_sum_is_charged_without_anything_heavy(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.scenes.ledger import filled\n"
        "filled(Path(sys.argv[1])).close(); print({'numpy', 'torch', 'dp_accounting'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == "set()\n"
    assert os.path.exists(path)


def test_no_secret_is_shown(path: Path) -> None:
    ledger = filled(path)
    assert KEY.secret.hex() not in repr(vars(ledger))
    assert KEY.secret not in path.read_bytes() + path.with_name("ledger.db-journal").read_bytes()


def test_signers_may_be_named_as_they_like(path: Path) -> None:
    """Names are text in JSON: nothing in them can break an entry. Half a surrogate pair is no text."""
    ledger = new(path)
    ledger.reserve(planned())
    odd = '"},\n\\ \ud7ff é'
    agreed = happened()
    with pytest.raises(UsageError, match="surrogate"):
        replace(agreed.signatures[0], name=odd + "\ud800")
    ledger.commit(replace(agreed, signatures=(replace(agreed.signatures[0], name=odd), *agreed.signatures[1:])))
    ledger.close()
    (first, *_others) = json.loads(read(path)[2][0])["sum"]["signatures"]
    assert first["name"] == odd
    assert isinstance(signed(agreed, [1]).signatures[0], Signed)
    assert BUDGET.epsilon * RESOLUTION == 8 * RESOLUTION
    verify(read(path), KEY.public)
