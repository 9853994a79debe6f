"""An auditor's path: a folder from somebody else in, a true statement or one line out, and nothing written outside.

The folder was made by whoever is audited. It lies beside the auditor's own files, which are listed with their contents
and times before each command and after it.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from secagg import cli
from tests.scenes import runs

pytest.importorskip("torch")

ONE_LINE = (1, 2, 4)
"""Exit codes of what is refused: the machine's trouble, no such thing, not true."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "run"
    folder.mkdir()
    runs.make(folder, "distributed", rounds=2)
    return folder


@pytest.fixture
def home(tmp_path: Path, honest: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The auditor's own files, and the folder that came in the mail."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "authorized_keys").write_text("mine\n")
    (tmp_path / "own.db").write_bytes((honest / "ledger.db").read_bytes())
    (tmp_path / "notes.txt").write_text("precious")
    shutil.copytree(honest, tmp_path / "mail" / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def listing(home: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, time of the last change and contents of everything that is not in the folder from outside."""
    found = {}
    for path in sorted(home.rglob("*")):
        if path.is_relative_to(home / "mail" / "run") and path != home / "mail" / "run":
            continue
        status = path.lstat()
        if path == home / "mail" / "run":
            found[str(path)] = (status.st_mode, 0, "the folder")
        else:
            content = os.readlink(path) if path.is_symlink() else path.read_bytes().hex() if path.is_file() else ""
            found[str(path)] = (status.st_mode, status.st_mtime_ns, sha256(content.encode()).hexdigest())
    return found


def audited(
    home: Path, capsys: pytest.CaptureFixture[str], *, all_commands: bool = False
) -> dict[str, tuple[int, str, str]]:
    """What commands say of the folder: never more than one line of refusal, never a character that paints."""
    run, said = home / "mail" / "run", {}
    commands: dict[str, list[object]] = {
        "verify": ["ledger", "verify", run, "--key", home / "keys" / "owner.pub"],
        "show": ["ledger", "show", run],
        "report": ["report", run],
    }
    more: dict[str, list[object]] = {
        "verify without a key": ["ledger", "verify", run],
        "verify against": ["ledger", "verify", home / "own.db", "--against", run],
        "verify --json": ["ledger", "verify", run, "--json"],
        "export": ["ledger", "export", run],
        "report --json": ["report", run, "--json"],
        "audit into it": ["audit", "--out", run, "--clients", "3", "--canaries", "0", "--no-examples"],
        "roster": ["roster", "show", run / "roster.toml"],
        "train into it": ["train", run / "config.toml", "--out", run],
    }
    (home / "keys" / "owner.pub").write_text(runs.KEY.public.hex() + "\n")
    for name, words in (commands | (more if all_commands else {})).items():
        before = listing(home)
        code = cli.main(list(map(str, words)))
        printed = capsys.readouterr()
        assert listing(home) == before, name
        assert code in (0, 5, *ONE_LINE), name
        if code in ONE_LINE:
            assert (printed.out, len(printed.err.splitlines())) == ("", 1), name
        else:
            assert printed.err == "", name
        said[name] = (code, printed.out, printed.err)
    return said


def test_an_honest_folder_is_verified(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = audited(home, capsys, all_commands=True)
    assert [said[name][0] for name in ("verify", "verify without a key", "show", "export", "report")] == [0, 5, 0, 0, 0]
    assert "verified" in said["verify"][1]
    assert (said["audit into it"][0], said["roster"][0], said["train into it"][0]) == (2, 2, 2)
    assert (home / "mail" / "run" / "report.html").is_file()


# What a folder can hold


def record(run: Path, **changes: Any) -> None:
    runs.put(run, json.loads((run / "run.json").read_text()) | changes)


def spending(run: Path, **changes: Any) -> None:
    [promise] = json.loads((run / "run.json").read_text())["spendings"]
    record(run, spendings=[promise | changes])


def replaced_by_link(name: str, to: str) -> Callable[[Path, Path], None]:
    def change(run: Path, home: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(home / to)

    return change


def pipe(name: str) -> Callable[[Path, Path], None]:
    def change(run: Path, home: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return change


def directory(name: str) -> Callable[[Path, Path], None]:
    def change(run: Path, home: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return change


def missing(name: str) -> Callable[[Path, Path], None]:
    return lambda run, home: (run / name).unlink()


def written(name: str, data: bytes) -> Callable[[Path, Path], None]:
    def change(run: Path, home: Path) -> None:
        (run / name).write_bytes(data)

    return change


def sparse(name: str) -> Callable[[Path, Path], None]:
    def change(run: Path, home: Path) -> None:
        with (run / name).open("r+b") as file:
            file.truncate(1 << 40)

    return change


CRASH = """
import os, shutil, sqlite3, sys
path = sys.argv[1]
shutil.copy(path, path + ".work")
database = sqlite3.connect(path + ".work", isolation_level=None)
database.execute("PRAGMA journal_mode = DELETE")
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN")
database.execute("CREATE TABLE more (data)")
for _ in range(100):
    database.execute("INSERT INTO more VALUES (zeroblob(4000))")
shutil.copy(path + ".work", path)
shutil.copy(path + ".work-journal", path + "-journal")
os._exit(0)
"""


def rollback_journal(run: Path, home: Path) -> None:
    """As a crash leaves it, and at its end the name of a journal over several databases: SQLite deletes that one."""
    subprocess.run([sys.executable, "-c", CRASH, str(run / "ledger.db")], check=True)
    for rest in run.glob("*.work*"):
        rest.unlink()
    name, page = str(home / "notes.txt").encode(), 4096
    checksum = sum(struct.unpack(f"{len(name)}b", name)) & 0xFFFFFFFF
    end = struct.pack(">II", len(name), checksum) + bytes.fromhex("d9d505f920a163d7")
    with (run / "ledger.db-journal").open("ab") as file:
        file.write(struct.pack(">I", (1 << 30) // page + 1) + name + end)


def absurd(run: Path, home: Path) -> None:
    rounds = json.loads((run / "run.json").read_text())["rounds"]
    record(run, rounds=[one | {"survivors": 10**400, "seconds": {"x": 1e308}} for one in rounds])


def painting(run: Path, home: Path) -> None:
    record(run, title="\x1b[2J\x1b[1;1Hverified\r\n", ended="\x1b]0;x\x07\u202e", others="\x9b2J")


HOSTILE: dict[str, Callable[[Path, Path], None]] = {
    "a link for the report": replaced_by_link("report.html", "keys/authorized_keys"),
    "a link for the draft of the report": replaced_by_link(".report.html.draft", "keys/authorized_keys"),
    "a link to nothing for the draft": replaced_by_link(".report.html.draft", "keys/new"),
    "a link for the record": replaced_by_link("run.json", "notes.txt"),
    "a link for the ledger": replaced_by_link("ledger.db", "own.db"),
    "a link for the log of the ledger": replaced_by_link("ledger.db-wal", "notes.txt"),
    "a link for shared memory": replaced_by_link("ledger.db-shm", "notes.txt"),
    "a link for the journal": replaced_by_link("ledger.db-journal", "notes.txt"),
    "a journal that names another file": rollback_journal,
    "a ledger elsewhere": lambda run, home: spending(run, ledger="../../own.db"),
    "a ledger at a path": lambda run, home: spending(run, ledger=str(home / "own.db")),
    "a key elsewhere": lambda run, home: spending(run, key="../../keys/authorized_keys"),
    "a ledger of another kind": written("ledger.db", b"SQLite format 3\0" + bytes(4000)),
    "no ledger": missing("ledger.db"),
    "no record": missing("run.json"),
    "an endless record": sparse("run.json"),
    "an endless ledger": sparse("ledger.db"),
    "a pipe for the record": pipe("run.json"),
    "a pipe for the ledger": pipe("ledger.db"),
    "a pipe for the report": pipe("report.html"),
    "a directory for the record": directory("run.json"),
    "a directory for the ledger": directory("ledger.db"),
    "a directory for the report": directory("report.html"),
    "nesting": written("run.json", b"[" * 100_000),
    "not UTF-8": written("run.json", b"\xff\xfe\x00"),
    "an empty record": written("run.json", b""),
    "absurd numbers": absurd,
    "control characters": painting,
    "half of a surrogate pair": lambda run, home: record(run, title="\ud800"),
    "another promise": lambda run, home: spending(run, epsilon=0.1),
    "a bad roster": written("roster.toml", b"a." * 100_000 + b"a = 1"),
    "a bad configuration": written("config.toml", b"a." * 100_000 + b"a = 1"),
}


ALL_COMMANDS = {"a journal that names another file", "a bad roster", "a bad configuration"}
QUICK = {
    "a link for the report",
    "a link for the draft of the report",
    "a link for the record",
    "a link for the ledger",
    "a journal that names another file",
    "no ledger",
    "an endless record",
    "a pipe for the record",
    "a pipe for the ledger",
    "nesting",
    "absurd numbers",
    "control characters",
    "half of a surrogate pair",
}
"""The others are long tests: they go similar ways."""


@pytest.mark.parametrize(
    "what", [what if what in QUICK else pytest.param(what, marks=pytest.mark.long) for what in HOSTILE]
)
def test_a_hostile_folder(what: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = home / "mail" / "run"
    HOSTILE[what](run, home)
    said = audited(home, capsys, all_commands=what in ALL_COMMANDS)
    for _code, out, error in said.values():
        assert "\x1b" not in out + error
        assert len(error) < 1500
    report = run / "report.html"
    if said["report"][0] == 0:
        assert not report.is_symlink()
        assert not set(report.read_text()) & set("\x1b\x00\x07\u202e\x9b")


def test_control_a_journal_deletes_what_it_names(home: Path) -> None:
    """As soon as SQLite may write: this is what every reader of the ledger did."""
    run = home / "mail" / "run"
    rollback_journal(run, home)
    with closing(sqlite3.connect(run / "ledger.db")) as database:
        assert database.execute("SELECT count(*) FROM entries").fetchone()[0] > 1
    assert not (home / "notes.txt").exists()


def test_control_a_changed_file_is_seen(home: Path) -> None:
    before = listing(home)
    text = (home / "notes.txt").stat()
    (home / "notes.txt").write_text("Precious")
    os.utime(home / "notes.txt", ns=(text.st_atime_ns, text.st_mtime_ns))
    assert listing(home) != before
