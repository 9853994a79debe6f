"""A writer is killed at every step: what it had acknowledged is there, the chain holds, and nothing is under-counted.

Killing a process does not lose what the kernel has; that the disk had it too before it was acknowledged is seen in
the order of the writer's system calls. Both tests are shown to catch a writer that is wrong.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from dp.filter import Kind, PrivacyCost
from dp.ledger import Ledger, file
from dp.ledger.entries import cost_of
from dp.ledger.file import read
from dp.ledger.state import replay
from dp.ledger.verify import verify
from secagg.errors import PeerError, StorageError
from tests.scenes import ledger as scene
from tests.scenes.ledger import KEY, USER, happened, planned

ROOT = Path(__file__).parents[3]
MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: some thousand syncs are waited for, and none of them matters to a kill."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


class Zygote:
    """The process whose writers are killed, and what they have acknowledged so far, ledger by ledger."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "tests.dp.ledger.writer"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def order(self, path: Path, **how: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"path": str(path), **how}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if answer["untraceable"]:
            pytest.skip("this machine lets no process trace its child")
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


def least(acknowledged: list[list[str]]) -> PrivacyCost:
    """What these come to, if all that was not acknowledged made it as small as it can be."""
    total = PrivacyCost()
    for what, _head in acknowledged:
        step, _, number = what.partition(" ")
        if step == "reserve" and int(number) % 3 != 2:
            total += cost_of(happened(int(number), gone=[int(number) % 4]), USER, Kind.RENYI)
    return total


def check(path: Path, acknowledged: list[list[str]]) -> None:
    """Everything acknowledged is there, at most one entry more, and no less is charged."""
    if not path.exists():
        assert acknowledged == []
        scene.new(path, budget=scene.LARGE).close()  # what the killed one left behind is not in the way
        return
    last = bytes.fromhex(acknowledged[-1][1]) if acknowledged else None
    alone = shutil.copy(path, path.with_name(f"alone-{path.name}"))
    ledger = Ledger.open(path, KEY, pinned=last)
    check_alone(alone, last)
    links, total = ledger._state.heads, ledger._state.filter.total
    ledger.close()
    heads = [bytes.fromhex(head) for _what, head in acknowledged]
    assert heads == links[len(links) - len(heads) - (links[-1] != last) :][: len(heads)]
    for charged, small in zip(total.amounts, least(acknowledged).amounts, strict=True):
        assert charged is not None
        assert small is not None
        assert charged >= small


def check_alone(path: Path, last: bytes | None) -> None:
    """A copy of the one file has all that was acknowledged, or cannot be taken for a ledger."""
    with suppress(PeerError):
        assert last is None or last in replay(read(path), KEY.public).heads[-2:]


def killed_everywhere(zygote: Zygote, folder: Path, base: Path | None, every: int = 1, **how: Any) -> int:
    """One writer for each step, or for every seventh of them and so on, until one comes to its end. Two stops are one
    step: between a call's return and the next one's beginning the disk stays as it is."""
    acknowledged = [] if base is None else zygote_said(base)
    for stop in range(0, 10_000, 2 * every):
        path = folder / f"{stop}.db"
        if base is not None:
            shutil.copy(base, path)
        answer = zygote.order(path, stop=stop, **how)
        if answer["ended"]:
            return stop
        check(path, acknowledged + answer["acknowledged"])
        if stop % (50 * every) == 0:
            verify(read(path), KEY.public)
        for left in folder.glob(f"*{stop}.db*"):
            left.unlink()
    raise AssertionError("it never ends")


def zygote_said(path: Path) -> list[list[str]]:
    said: list[list[str]] = json.loads(path.with_suffix(".json").read_text())
    return said


@pytest.fixture(scope="module")
def base(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger that was closed in peace, and what its writer said."""
    path = tmp_path_factory.mktemp("base") / "base.db"
    path.with_suffix(".json").write_text(json.dumps(zygote.order(path)["acknowledged"]))
    return path


each_seventh_or_all = pytest.mark.parametrize(
    "every", [pytest.param(7, id="seventh"), pytest.param(1, id="all", marks=pytest.mark.long)]
)
"""By default a writer is killed at every seventh step, in the long version at every one."""


@each_seventh_or_all
def test_killed_at_every_step_of_its_life(zygote: Zygote, tmp_path: Path, every: int) -> None:
    """From before the file is there, through two rounds, to its being closed."""
    assert killed_everywhere(zygote, tmp_path, None, every) > 250


@each_seventh_or_all
def test_killed_at_every_step_of_going_on(zygote: Zygote, tmp_path: Path, base: Path, every: int) -> None:
    """The third round is aborted."""
    assert killed_everywhere(zygote, tmp_path, base, every) > 200


When = Callable[[], dict[str, Any]]


def killed_again_and_again(zygote: Zygote, folder: Path, times: int, when: When) -> None:
    """One ledger after the other, each taken up where the last writer left it, log and all."""
    acknowledged: list[list[str]] = []
    for kill in range(times):
        path = folder / f"{kill // 50}.db"
        if kill % 50 == 0:
            acknowledged = []
        acknowledged += zygote.order(path, **when())["acknowledged"]
        last = bytes.fromhex(acknowledged[-1][1]) if acknowledged else None
        if not path.exists():
            assert acknowledged == []
        elif kill % 5 == 0:  # otherwise the next writer has to do with what it finds
            Ledger.open(path, KEY, pinned=last).close()
        if kill % 50 == 49:
            check_heads(path, acknowledged)


def check_heads(path: Path, acknowledged: list[list[str]]) -> None:
    Ledger.open(path, KEY).close()  # takes in what a killed one left beside the file
    state = verify(read(path), KEY.public)
    places = [state.heads.index(bytes.fromhex(head)) for _what, head in acknowledged]
    assert places == sorted(places)
    for charged, small in zip(state.filter.total.amounts, least(acknowledged).amounts, strict=True):
        assert (charged or 0) >= (small or 0)


@pytest.mark.parametrize("times", [50, pytest.param(150, marks=pytest.mark.long)])
def test_killed_at_any_moment(zygote: Zygote, tmp_path: Path, times: int) -> None:
    """At 50 random moments by default, at 150 in the long version."""
    rng = random.Random(1)
    killed_again_and_again(zygote, tmp_path, times, lambda: {"after": rng.uniform(0, 0.025)})


@pytest.mark.long
def test_ten_thousand_kills(zygote: Zygote, tmp_path: Path) -> None:
    rng = random.Random(2)
    killed_again_and_again(zygote, tmp_path, 10_000, lambda: {"stop": rng.randrange(350)})


@pytest.mark.long
def test_a_writer_that_acknowledges_too_early_is_caught(zygote: Zygote, tmp_path: Path, base: Path) -> None:
    with pytest.raises(PeerError, match="pinned head"):
        killed_everywhere(zygote, tmp_path, base, 3, control="late")


# In what order it writes, syncs and speaks

SYNCED = re.compile("([^a]*s[^aw]*a)*[^a]*")
"""Before each acknowledgement a sync, and no write in between."""


def test_nothing_is_acknowledged_before_it_is_synced(zygote: Zygote, tmp_path: Path) -> None:
    answer = zygote.order(tmp_path / "ledger.db")
    if "w" not in answer["calls"]:
        pytest.skip("the system calls of this machine are not known here")
    assert answer["ended"]
    assert answer["calls"].count("a") == 5
    assert SYNCED.fullmatch(answer["calls"])


def test_a_writer_that_does_not_sync_is_caught(zygote: Zygote, tmp_path: Path) -> None:
    answer = zygote.order(tmp_path / "ledger.db", control="unsynced")
    if "w" not in answer["calls"]:
        pytest.skip("the system calls of this machine are not known here")
    assert not SYNCED.fullmatch(answer["calls"])


# Torn files


def killed_after(zygote: Zygote, path: Path, said: list[str]) -> list[bytes]:
    """A writer killed at once when it has acknowledged these; their heads."""

    def acknowledged(stop: int) -> list[list[str]]:
        for left in path.parent.iterdir():
            left.unlink()
        found: list[list[str]] = zygote.order(path, stop=stop)["acknowledged"]
        return found

    stop = bisect_left(range(zygote.order(path)["stops"]), len(said), key=lambda stop: len(acknowledged(stop)))
    last = acknowledged(stop)
    assert [what for what, _head in last] == said
    return [bytes.fromhex(head) for _what, head in last]


@pytest.fixture
def crashed(zygote: Zygote, tmp_path: Path) -> tuple[Path, list[bytes]]:
    """A ledger whose writer was killed, with its log, and all that it acknowledged."""
    folder = tmp_path / "crashed"
    folder.mkdir()
    path = folder / "ledger.db"
    heads = killed_after(zygote, path, ["create", "reserve 0", "commit 0", "reserve 1", "commit 1"])
    return path, heads


@pytest.fixture
def half(zygote: Zygote, tmp_path: Path) -> tuple[Path, list[bytes]]:
    """A ledger whose writer was killed between the first write of an entry to the file and the last."""
    (folder := tmp_path / "half").mkdir()
    path, most = folder / "ledger.db", zygote.order(folder / "ledger.db")["stops"]
    for stop in range(most, 0, -1):
        for each in folder.iterdir():
            each.unlink()
        heads = [bytes.fromhex(head) for _what, head in zygote.order(path, stop=stop)["acknowledged"]]
        if not path.exists():
            break
        shutil.copy(path, alone := tmp_path / "alone.db")
        try:
            read(alone)
        except PeerError:
            return path, heads
    raise AssertionError("no entry takes two writes")


def torn(folder: Path, parts: dict[str, bytes], heads: list[bytes]) -> int:
    """How many entries are left; refused if that is fewer than the pinned head says."""
    path = folder / "ledger.db"

    def put() -> None:
        for name, data in parts.items():
            (folder / name).write_bytes(data)

    put()
    try:
        links = verify(read(path), KEY.public).heads
    except PeerError:
        links = []
    assert links == heads[: len(links)]
    if links:
        put()
        Ledger.open(path, KEY, pinned=links[-1]).close()
    if len(links) < len(heads):
        put()
        with pytest.raises(PeerError):
            Ledger.open(path, KEY, pinned=heads[len(links)])
    return len(links)


def test_a_torn_journal(zygote: Zygote, half: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    """An entry half in the file, and the journal cut at every length that means something, and many that do not: what
    was acknowledged is there, or the ledger is refused."""
    path, heads = half
    database, journal = path.read_bytes(), path.with_name("ledger.db-journal").read_bytes()
    folder = tmp_path / "torn"
    folder.mkdir()
    lengths = {0, 1, 27, 28, 511, 512, 513, *(512 + 4104 * page + d for page in range(9) for d in (-1, 0, 1))}
    lengths |= {*random.Random(3).sample(range(len(journal)), 60), len(journal)}
    found = set()
    for length in sorted(each for each in lengths if each <= len(journal)):
        (folder / "ledger.db").write_bytes(database)
        (folder / "ledger.db-journal").write_bytes(journal[:length])
        with pytest.raises((PeerError, StorageError)):  # it undoes nothing
            read(folder / "ledger.db")
        assert (folder / "ledger.db").read_bytes() == database
        try:
            ledger = Ledger.open(folder / "ledger.db", KEY)
        except PeerError:
            found.add("refused")
        else:
            assert ledger._state.heads == heads
            ledger.close()
            found.add("undone")
    assert found == {"refused", "undone"}


def test_a_torn_file(crashed: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    path, heads = crashed
    Ledger.open(path, KEY, pinned=heads[-1]).close()
    assert not path.with_name("ledger.db-journal").exists()
    database = path.read_bytes()
    folder = tmp_path / "torn"
    folder.mkdir()
    pages = range(0, len(database), 4096)
    lengths = {*(page + d for page in pages for d in (0, 1)), *random.Random(4).sample(range(len(database)), 100)}
    for length in sorted(lengths):
        assert torn(folder, {"ledger.db": database[:length]}, heads) == 0


def test_the_file_alone_is_the_ledger(crashed: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    """The writer was killed after an acknowledgement; whoever copies ``ledger.db``, and nothing else, has all of it."""
    path, heads = crashed
    (alone := tmp_path / "elsewhere").mkdir()
    shutil.copy(path, alone / "ledger.db")
    assert verify(read(alone / "ledger.db"), KEY.public).heads == heads
    Ledger.open(alone / "ledger.db", KEY, pinned=heads[-1]).close()


def test_control_with_a_write_ahead_log_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ledgers were once: the copy verifies, and has forgotten all that it was charged. Such a file is refused."""
    path = tmp_path / "ledger.db"
    monkeypatch.setattr(file, "_ALONE", ("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = WAL"))
    ledger = scene.filled(path)
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    with pytest.raises(PeerError, match="write-ahead log"):
        read(copy)
    assert sorted(path.parent.glob("copy*")) == [copy]
    copy.write_bytes(path.read_bytes()[:18] + bytes([1, 1]) + path.read_bytes()[20:])
    forgotten = verify(read(copy), KEY.public)
    assert (len(forgotten.heads), forgotten.filter.reached) == (1, 0)
    assert len(list(ledger.entries())) == 10
    ledger.close()


def test_a_crash_keeps_the_reservation(zygote: Zygote, tmp_path: Path) -> None:
    """The round stays charged in full, or goes on where it was."""
    path = tmp_path / "ledger.db"
    heads = killed_after(zygote, path, ["create", "reserve 0"])
    ledger = Ledger.open(path, KEY, pinned=heads[-1])
    assert ledger._state.filter.total == cost_of(planned(0).worst(), USER, Kind.RENYI)
    ledger.reserve(planned(0))
    ledger.commit(happened(0, gone=[0]))
    assert ledger._state.filter.total == cost_of(happened(0, gone=[0]), USER, Kind.RENYI)
    assert len(ledger._state.heads) == 3
    ledger.close()
