"""The statement for an auditor: what it says, on whose word, and that two verifiers say it in the same words.

Tampered ledgers are those of test_verify.py; here it is asked that nothing is stated about them.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dp import verify_ledger
from dp.ledger import Ledger, Steps, file
from dp.ledger.file import read
from dp.ledger.state import Row
from dp.ledger.verify import book, compare, copies, verify
from dp.verify_ledger import FAILED, Audit, Given, columns, main, problems, statement, upwards
from secagg.cli import exit_codes
from secagg.crypto import keys
from secagg.errors import MissingExtraError, PeerError, SecAggError, UsageError
from tests.scenes.ledger import (
    BUDGET,
    CLIENT,
    EXAMPLE,
    GAUSSIANS,
    INSIDE,
    KEY,
    PLANNED,
    USER,
    ended,
    exported,
    filled,
    forged,
    happened,
    new,
    planned,
    step,
)

KEYED, PINNED, NOTHING = Given(key=True), Given(key=True, head=0), Given(key=False)
PAINT = 'x"\n\x1b[2Kverdict     verified \u202e\U000e0041\\'


def empty(path: Path) -> None:
    new(path).close()


def rounds(path: Path) -> None:
    filled(path).close()


def of_steps(path: Path) -> None:
    ledger = new(path, guarantee=EXAMPLE)
    ledger.charge(step(), 50)
    ledger.charge(step("4"))
    ledger.reserve(Steps("later", step("9")))
    ledger.close()


def other_noise(path: Path) -> None:
    """The reservation that still stands allows for fewer colluders than the sum that took place."""
    ledger = new(path)
    ledger.reserve(planned(0, noise=GAUSSIANS))
    ledger.commit(happened(0, noise=GAUSSIANS))
    ledger.reserve(planned(1))
    ledger.abort(planned(1), PAINT)
    ledger.close()


def painted(path: Path) -> None:
    Ledger.create(path, KEY, BUDGET, USER, run=PAINT * 20, elsewhere="free of charge. " * 60, data=bytes(32)).close()


def of_silos(path: Path) -> None:
    ledger = new(path, guarantee=INSIDE)
    ledger.reserve(planned(0, users=200, overlap=3))
    ledger.commit(happened(0, users=200, overlap=3))
    ledger.reserve(planned(1, users=200, overlap=2))
    ledger.close()


def of_samples(path: Path) -> None:
    ledger = new(path, guarantee=INSIDE)
    for number, sampled in enumerate((Fraction(1, 4), Fraction(1), Fraction(1, 2))):
        ledger.reserve(planned(number, noise=GAUSSIANS, users=200, sampled=sampled))
    ledger.commit(happened(0, noise=GAUSSIANS, users=200, sampled=Fraction(1, 4)))
    ledger.close()


LEDGERS = [empty, rounds, of_steps, other_noise, painted, of_silos, of_samples]


def stated_by_both(rows: list[Row], key: bytes | None = KEY.public) -> dict[str, str] | None:
    """What the two verifiers say of a ledger, which must be the same; None if it is wrong."""
    given, audit = Given(key=key is not None), Audit(key)
    theirs = None if list(problems(exported(rows), key, None, audit)) else statement(audit.book(), given)
    try:
        ours = statement(book(verify(rows, key)), given)
    except PeerError:
        ours = None
    assert ours == theirs
    return ours


def test_what_counts_on_coins_says_so(tmp_path: Path) -> None:
    """The smallest rate of all sums; without sampling nothing."""
    for made, said in ((of_samples, True), (of_silos, False)):
        made(path := tmp_path / f"{made.__name__}.db")
        found = stated_by_both(read(path))
        assert found is not None
        coins = "a user is in a sum with a probability of 1/4 at the least, by a coin that nobody but its silo may see"
        assert (coins in found["trust"], "coin" in found["trust"]) == (said, said)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("made", LEDGERS, ids=lambda made: made.__name__)
def test_two_verifiers_in_the_same_words(made: Callable[[Path], None], tmp_path: Path) -> None:
    """Of honest ledgers, of those that say something else on their keeper's word, and of tampered ones."""
    made(path := tmp_path / "ledger.db")
    rows = read(path)
    with keys.verifying_once():
        assert stated_by_both(rows)
        assert stated_by_both(rows, None)
        assert stated_by_both(rows, CLIENT.public) is None
        assert stated_by_both(rows[:-1]) is None
        renamed = stated_by_both(forged(rows, lambda bodies: bodies[0].update(run="another run")))
        assert renamed is not None
        assert renamed["run"] == '"another run"'
        assert stated_by_both(forged(rows, lambda bodies: bodies[0].update(epsilon="9"))) is None
        for number in {1, len(rows) // 2, len(rows) - 1} & set(range(1, len(rows))):
            for change in ({"phase": "wish"}, {"epsilon_after": 1}, {"total_samples": 7}):
                assert stated_by_both(forged(rows, lambda bodies, n=number, c=change: bodies[n].update(c))) is None


def test_what_it_says_of_rounds(tmp_path: Path) -> None:
    rounds(path := tmp_path / "ledger.db")
    state = verify(read(path))
    said = statement(book(state), PINNED)
    assert said["verdict"] == "verified"
    assert said["run"] == '"a test"'
    assert said["relation"].startswith("zero-out: one user")
    assert said["trust"].endswith("against the server and up to 1 colluding client")
    assert said["epsilon"].startswith("5.836 of a budget of 8")
    assert said["delta"] == "0.000001"
    assert said["releases"] == "3 secure sums committed; 1 reserved and open; 1 aborted"
    assert said["head"] == state.head.hex()
    assert "that nothing came of 1 aborted release" in said["asserted"]
    assert "the facts of 1 open reservation" in said["asserted"]


def test_what_it_says_of_silos(tmp_path: Path) -> None:
    """Whose data they see; and for users in how many of them it holds: what all sums allow for, also those that are
    only reserved."""
    of_silos(path := tmp_path / "ledger.db")
    rows = read(path)
    said = statement(book(verify(rows)), KEYED)
    whole = "user: all that one user contributes inside {}, which {} it and {} not held to epsilon"
    assert said["unit"] == whole.format("up to 2 silos", "see", "are")
    assert said["relation"].startswith("zero-out: one user")
    committed = stated_by_both(ended([body for body, _ in rows[:3]]))
    assert committed is not None
    assert committed["unit"] == whole.format("up to 3 silos", "see", "are")
    begun = stated_by_both(ended([rows[0][0]]))
    assert begun is not None
    assert begun["unit"] == whole.format("one silo", "sees", "is")


def test_what_it_says_of_steps(tmp_path: Path) -> None:
    of_steps(path := tmp_path / "ledger.db")
    said = statement(book(verify(read(path))), KEYED)
    assert said["releases"] == "2 releases of 51 steps by one party committed; 1 reserved and open"
    assert said["signers"].startswith("no client has signed anything")
    assert "mechanism, sampling and number of 51 steps" in said["asserted"]
    assert "signed" not in said
    assert said["trust"].startswith("local: each party adds its noise by itself")


def test_the_fewest_colluders_count(tmp_path: Path) -> None:
    """Of what is only reserved, too: it may have come out."""
    ledger = new(path := tmp_path / "ledger.db")
    ledger.reserve(planned(0))
    ledger.commit(happened(0))
    noise = GAUSSIANS.__class__(GAUSSIANS.family, GAUSSIANS.variance, dropouts=4, colluders=0)
    ledger.reserve(planned(1, noise=noise))
    ledger.close()
    said = stated_by_both(read(path))
    assert said is not None
    assert said["trust"].endswith("against the server, not a client, which knows its own noise")


def test_it_says_no_more_than_was_looked_at(tmp_path: Path) -> None:
    """Signers are the clients only if a roster says so; facts are the plan's only for who has decoded it."""
    rounds(path := tmp_path / "ledger.db")
    found = book(verify(read(path)))
    plain = statement(found, NOTHING)
    assert "whether they are clients' is not known here" in plain["signers"]
    assert "noise, clipping, sampling and number of clients are in the plan, and were not compared" in plain["signed"]
    assert "whosever it is" in plain["recomputed"]
    assert "head" not in plain["recomputed"]
    more = statement(found, Given(key=True, head=found.entries - 1, plans=True, roster=True, against=True, common=2))
    assert "all are in the roster that was given" in more["signers"]
    assert "were compared with it" in more["signed"]
    assert "the key that was given" in more["recomputed"]
    assert "the head that was given is that of the last entry" in more["recomputed"]
    assert "the other ledger has 2 committed sums in common with it, and does not contradict it" in more["recomputed"]
    early = statement(found, PINNED)
    assert "is that of entry 0, and of what is to come after that it shows nothing" in early["recomputed"]
    copy = statement(found, Given(key=True, against=True, copy=True, common=2))
    assert "the other ledger is a copy of this one, and goes on no further" in copy["recomputed"]
    assert "in common" not in copy["recomputed"]
    unrelated = statement(found, Given(key=True, head=0, against=True))
    assert "no committed sum in common with it: that they were compared shows nothing" in unrelated["recomputed"]
    assert "does not contradict" not in unrelated["recomputed"]


@pytest.mark.parametrize(
    ("given", "code", "verdict"),
    [
        (PINNED, 0, "verified"),
        (KEYED, 0, "verified, but it may be an older copy: give --head"),
        (NOTHING, 5, "internally consistent only: without --key anybody can have written it"),
        (Given(key=True, head=0, beside=True), 0, "verified, under a key from the ledger's own folder"),
        (
            Given(key=True, beside=True),
            0,
            "verified, under a key from the ledger's own folder, but it may be an older copy: give --head",
        ),
        (Given(key=False, head=0, roster=True, against=True), 5, "internally consistent only: without --key"),
        (Given(key=True, head=0, against=True), 0, "verified"),
        (Given(key=True, head=0, against=False), 5, "internally consistent only: without --against-key"),
    ],
    ids=str,
)
def test_verdicts(given: Given, code: int, verdict: str) -> None:
    assert given.code == code
    assert given.verdict.startswith(verdict)
    assert code == 5 or given.verdict == verdict


def test_texts_of_its_keeper_say_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in quotation marks that they cannot end, and in no line's beginning. Control: as they are."""
    painted(path := tmp_path / "ledger.db")
    found = book(verify(read(path)))
    said = list(columns(statement(found, KEYED)))
    assert all(" " <= one <= "~" for line in said for one in line)
    assert max(map(len, said)) <= 80
    assert [line for line in said if line.startswith("verdict")] == [said[0]]
    shown = statement(found, KEYED)["run"]
    assert re.fullmatch(r'"(\\["\\u]|\\U000e0041|[^"\\])*"', shown)
    assert r"\u000a\u001b[2K" in shown
    monkeypatch.setattr(verify_ledger, "quoted", str)
    assert "\x1b" in "".join(columns(statement(found, KEYED)))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "0"),
        ("8", "8"),
        ("1/3", "0.3334"),
        ("58360001/10000000", "5.837"),
        ("500", "500"),
        ("1/3000000", "3.334E-7"),
    ],
)
def test_numbers_are_rounded_up(value: str, shown: str) -> None:
    assert upwards(Fraction(value), 4) == shown
    assert Fraction(shown) >= Fraction(value)


def test_another_ledger_has_so_much_in_common(tmp_path: Path) -> None:
    rounds(tmp_path / "a.db")
    own = new(tmp_path / "client.db", key=CLIENT)
    own.reserve(planned(0))
    own.commit(happened(0, gone=range(0)))
    own.close()
    new(tmp_path / "stranger.db", key=CLIENT).close()
    mine, client, stranger = (verify(read(tmp_path / name)) for name in ("a.db", "client.db", "stranger.db"))
    assert (compare(mine, mine), compare(mine, client), compare(mine, stranger)) == (3, 1, 0)
    assert [copies(mine, other) for other in (mine, client, stranger)] == [True, False, False]


def test_names_alone_are_nothing_in_common(tmp_path: Path) -> None:
    """Steps are each party's own, and what was only reserved was not compared."""
    for name, key, noise in (("a.db", KEY, "4"), ("b.db", CLIENT, "9")):
        ledger = new(tmp_path / name, key=key, guarantee=EXAMPLE)
        ledger.reserve(Steps("round 1", step(noise)))
        ledger.commit(Steps("round 1", step(noise)))
        ledger.close()
    assert compare(*(verify(read(tmp_path / name)) for name in ("a.db", "b.db"))) == 0


def test_cohorts_of_several_sizes(tmp_path: Path) -> None:
    ledger = new(path := tmp_path / "ledger.db")
    for number, clients in enumerate((PLANNED, PLANNED + 1)):
        ledger.reserve(planned(number, planned=clients))
        ledger.commit(happened(number, planned=clients))
    ledger.close()
    said = stated_by_both(read(path))
    assert said is not None
    assert "(8 or more of 10 to 11 clients)" in said["signers"]


@pytest.mark.parametrize(("error", "raised"), [(MissingExtraError, MissingExtraError), (UsageError, PeerError)])
def test_what_is_not_installed_is_no_fault_of_a_ledger(
    tmp_path: Path, error: type[Exception], raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local training is recomputed with an extra. Control: another error in the same place is one."""

    def cost_of(*_: object) -> None:
        raise error("this accountant needs the extra [dp]")

    of_steps(path := tmp_path / "ledger.db")
    monkeypatch.setattr("dp.ledger.state.cost_of", cost_of)
    with pytest.raises(SecAggError) as caught:
        verify(read(path))
    assert type(caught.value) is raised


# The script


def script(*words: object, alone: bool = False) -> tuple[int, str, str]:
    """``alone``: without any package."""
    flags = ["-I", "-S"] if alone else ["-I"]
    command = [sys.executable, *flags, str(verify_ledger.__file__), *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    return ran.returncode, ran.stdout, ran.stderr


def test_without_cryptography_it_is_one_line(tmp_path: Path) -> None:
    rounds(path := tmp_path / "ledger.db")
    code, out, error = script(path, alone=True)
    assert (code, out, error.count("\n")) == (6, "", 1)
    assert "pip install cryptography" in error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rounds(tmp_path / "ledger.db")
    (tmp_path / "ledger.jsonl").write_bytes(exported(read(tmp_path / "ledger.db")))
    (tmp_path / "ledger.pub").write_text(KEY.public.hex() + "\n")
    (tmp_path / "other.pub").write_text(CLIENT.public.hex() + "\n")
    (tmp_path / "head").write_bytes(verify(read(tmp_path / "ledger.db")).head)
    return tmp_path


def test_a_ledger_will_do_and_its_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for name in ("ledger.db", "ledger.jsonl"):
        words = ["--key", KEY.public.hex(), "--head", (folder / "head").read_bytes().hex()]
        assert main([str(folder / name), *words]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0].startswith("verdict     verified\n")
    assert main([str(folder / "ledger.db")]) == 5
    assert capsys.readouterr().out.startswith("verdict     internally consistent only: without --key")
    assert main([str(folder / "ledger.db"), "--key", str(folder / "ledger.pub")]) == 0
    assert capsys.readouterr().out.startswith(
        "verdict     verified, under a key from the ledger's own folder, but it may"
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "head",
        "ledger.db",
        "ledger.jsonl",
        "ledger.pub",
        "other.pub",
    ]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "required: ledger"),
        (["none.db"], "No such file"),
        (["."], "Is a directory: name a file in it"),
        (["ledger.db", "--key", "none.pub"], "neither 64 hexadecimal digits nor a file of them"),
        (["ledger.db", "--key", "head"], "neither 64 hexadecimal digits nor a file of them"),
        (["ledger.db", "--key", "."], "neither 64 hexadecimal digits nor a file of them"),
        (["ledger.db", "--head", "abc"], "not 64 hexadecimal digits"),
        (["ledger.db", "--roster", "x"], "unrecognized arguments"),
        (["no\x1b[2K\nverdict"], "no\\u001b[2K\\u000averdict"),
    ],
)
def test_wrong_use_is_one_line(
    folder: Path, words: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as left:
        main(words)
    printed = capsys.readouterr()
    assert (left.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert reason in printed.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["ledger.db", "--key", "other.pub"], "entry 0: is signed by another key"),
        (["ledger.db", "--head", "00" * 32], "the pinned head is not in the ledger"),
        (["ledger.pub"], "entry 0: is none"),
    ],
)
def test_of_what_is_wrong_nothing_is_stated(
    folder: Path, words: list[str], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(words) == 4
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == f"verdict     {FAILED}"
    assert [line.startswith("problem     ") for line in rest] == [True]
    assert reason in rest[0]


def test_the_two_lists_of_tables_are_one() -> None:
    assert tuple(verify_ledger.SCHEMA) == file._SCHEMA


def changed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for one in statements:
            database.execute(one)


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["DROP TRIGGER no_update"], "this is no ledger, or it has been altered"),
        (["CREATE VIEW more AS SELECT 1"], "this is no ledger, or it has been altered"),
        (["DELETE FROM head"], "entries of the ledger are missing"),
        (["INSERT INTO entries VALUES (50, 'text')"], "entries of the ledger are missing"),
        (["INSERT INTO entries VALUES (50, x'00')"], "entry 10: is none"),
        (["UPDATE head SET signature = x'00'"], "bad signature"),
    ],
)
def test_databases_that_are_no_ledgers(
    folder: Path, statements: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(folder / "ledger.db", *statements)
    assert main([str(folder / "ledger.db")]) == 4
    assert reason in capsys.readouterr().out


def test_bits_of_a_database(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bit anywhere: the same statement, or an exit code that says no. Never a traceback."""
    path, head = folder / "ledger.db", (folder / "head").read_bytes().hex()
    data = path.read_bytes()
    words = [str(path), "--key", str(folder / "ledger.pub"), "--head", head]
    main(words)
    honest = capsys.readouterr().out
    for place in range(0, len(data), len(data) // 25):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            code: Any = main(words)
        except SystemExit as left:
            code = left.code
        out = capsys.readouterr().out
        assert (code == 0 and out == honest) or (code in (2, 4) and "verified" not in out)


def test_a_ledger_in_use_is_not_read(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_ledger, "PATIENCE", 0)
    ledger = Ledger.open(folder / "ledger.db", KEY)
    with pytest.raises(SystemExit) as left:
        main([str(folder / "ledger.db")])
    ledger.close()
    assert left.value.code == 2
    assert "it may be in use" in capsys.readouterr().err


def test_an_older_format_is_not_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "ledger.db", folder / "old.db")
    changed(folder / "old.db", "PRAGMA journal_mode = WAL")
    with pytest.raises(SystemExit):
        main([str(folder / "old.db")])
    assert "write-ahead log" in capsys.readouterr().err


def test_an_export_handed_to_the_library_names_the_script(folder: Path) -> None:
    with pytest.raises(Exception, match=r"verify_ledger\.py verifies"):
        read(folder / "ledger.jsonl")
    assert json.loads((folder / "ledger.jsonl").read_text().splitlines()[0])["body"]["phase"] == "genesis"


def test_exit_codes_are_those_of_the_command_line() -> None:
    ours = (
        exit_codes.FINE,
        exit_codes.WRONG_USE,
        exit_codes.UNTRUE,
        exit_codes.CONSISTENT_ONLY,
        exit_codes.MISSING_EXTRA,
    )
    theirs = (
        verify_ledger.VERIFIED,
        verify_ledger.WRONG_USE,
        verify_ledger.WRONG,
        verify_ledger.CONSISTENT_ONLY,
        verify_ledger.MISSING,
    )
    assert ours == theirs
