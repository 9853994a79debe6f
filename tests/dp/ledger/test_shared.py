"""A ledger that several processes write: each sees what all have spent, and the chain stays one."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from dp.ledger import Budget, Ledger, Steps
from dp.ledger.file import read
from dp.ledger.state import data_mark, replay
from dp.ledger.verify import verify
from secagg.errors import BudgetError, PeerError, StorageError, UsageError
from tests.scenes.ledger import BUDGET, EXAMPLE, KEY, LARGE, USER, happened, new, planned, step

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    new(tmp_path / "ledger.db", budget=LARGE).close()
    return tmp_path / "ledger.db"


def shared(path: Path) -> Ledger:
    return Ledger.open(path, KEY, shared=True)


def room(*ledgers: Ledger) -> int:
    """How many sums can be reserved, in turn."""
    for number in range(40):
        try:
            ledgers[number % len(ledgers)].reserve(planned(number))
        except BudgetError:
            return number
    raise AssertionError("there is no end of it")


def session(number: int) -> bytes:
    return bytes([number]) * 16


def test_each_sees_what_the_other_has_spent(path: Path) -> None:
    with closing(shared(path)) as one, closing(shared(path)) as two:
        for number in range(3):
            for ledger, its in ((one, session(1)), (two, session(2))):
                ledger.reserve(planned(number, session=its))
                assert (one.epsilon, one.head) == (two.epsilon, two.head)
                ledger.commit(happened(number, session=its))
        assert one.spent == two.spent
        assert list(one.entries()) == list(two.entries())
    assert len(verify(read(path), KEY.public).records) == 6


def test_the_budget_is_that_of_both(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    new(path).close()
    with closing(new(tmp_path / "alone.db")) as alone:
        taken = room(alone)
    with closing(shared(path)) as one, closing(shared(path)) as two:
        assert room(one, two) == taken > 3
        for ledger in (one, two):  # a refusal breaks nothing
            with pytest.raises(BudgetError):
                ledger.check(planned(taken))
        two.abort(planned(0), "given back")
        one.reserve(planned(taken))


def test_control_without_catching_up_they_cannot_both_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "_catch_up", lambda self: None)
    with closing(shared(path)) as one, closing(shared(path)) as two:
        one.reserve(planned(0))
        two.check(planned(0))
        assert two.epsilon == 0
        with pytest.raises(PeerError):
            two.reserve(planned(1))


def test_the_same_release_by_both_is_one_and_another_of_its_name_is_refused(path: Path) -> None:
    with closing(shared(path)) as one, closing(shared(path)) as two:
        one.reserve(planned(0))
        two.reserve(planned(0))
        two.commit(happened(0))
        one.commit(happened(0))
        assert len(list(one.entries())) == 3
        with pytest.raises(BudgetError, match="other facts"):
            one.reserve(planned(0, l1=3_101))


def test_steps_without_a_name_are_charged_by_both(tmp_path: Path) -> None:
    """Two processes that count entries would call their steps the same, and the second would take them for charged."""
    budget = Budget.suited(step(), Fraction(2), Fraction(1, 10**5), slack=Fraction(0))
    with closing(new(tmp_path / "l.db", guarantee=EXAMPLE, budget=budget)) as alone:
        alone.charge(step(), 10)
        once = alone.epsilon
    with closing(shared(tmp_path / "l.db")) as one, closing(shared(tmp_path / "l.db")) as two:
        one.charge(step(), 10)
        two.charge(step(), 10)
        assert one.epsilon == two.epsilon > once
        assert len(list(one.entries())) == 7
        one.reserve(Steps("named", step()))
        with pytest.raises(BudgetError, match="other facts"):
            two.reserve(Steps("named", step(), 2))


def test_what_others_write_is_checked(path: Path) -> None:
    """An entry that is signed by somebody else, or that must not be there, ends the writing."""
    with closing(shared(path)) as one:
        two = shared(path)
        two._key = type(KEY)(bytes(32))
        two.reserve(planned(0))
        two.close()
        with pytest.raises(PeerError):
            one.check(planned(1))
        for call in (one.check, one.reserve, one.commit):
            with pytest.raises(StorageError, match="open it again"):
                call(happened(1))
        with pytest.raises(PeerError):
            shared(path)


def test_one_that_is_not_shared_locks_others_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dp.ledger.file._PATIENCE", 0.0)
    with closing(Ledger.open(path, KEY)), pytest.raises(StorageError, match="locked"):
        shared(path)
    with closing(shared(path)) as one:
        assert one.shared
        one.reserve(planned(0))


WRITER = """
import sys
from pathlib import Path
from tests.scenes.ledger import KEY, happened, planned
from dp.ledger import Ledger
ledger = Ledger.open(Path(sys.argv[1]), KEY, shared=True)
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    its = bytes([int(sys.argv[2])]) * 16
    ledger.reserve(planned(number, session=its))
    ledger.commit(happened(number, session=its))
ledger.close()
"""


def test_three_processes_at_once(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    lengths = []
    while any(writer.poll() is None for writer in writers):
        lengths.append(len(replay(read(path), KEY.public).heads))  # whole entries, and waited for
    for writer in writers:
        writer.communicate()
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    state = verify(read(path), KEY.public)
    assert len(state.records) == 24
    assert all(record.happened is not None for record in state.records.values())


# Whose data


def test_a_mark_says_whose_data_to_its_keeper_alone(tmp_path: Path) -> None:
    mine, theirs = data_mark(bytes(32), b"users"), data_mark(bytes(31) + b"\1", b"users")
    assert len({mine, theirs, data_mark(bytes(32), b"other users")}) == 3
    args = (KEY, BUDGET, USER)
    Ledger.create(tmp_path / "a.db", *args, run="a test", elsewhere="nothing", data=mine).close()
    assert replay(read(tmp_path / "a.db")).genesis.data == mine
    with closing(Ledger.open(tmp_path / "a.db", KEY)) as ledger:
        assert ledger.data == mine
    for wrong in (b"users", bytes(31), bytes(33)):
        with pytest.raises(UsageError, match="32 bytes"):
            Ledger.create(tmp_path / "b.db", *args, run="a test", elsewhere="nothing", data=wrong)
    with pytest.raises(UsageError, match="32 bytes"):
        replace(replay(read(tmp_path / "a.db")).genesis, data=b"users")
