"""``secagg roster``: what is built is what was asked for, and what is shown is what is in the file."""

import json
from pathlib import Path

import pytest

from protocols.roster import Identity, Roster
from secagg import cli

ALICE, BOB = (Identity.generate(name) for name in ("alice", "bob"))
KEYS = {identity.name: identity.key.public for identity in (ALICE, BOB)}
WORDS = [f"{name}={key.hex()}" for name, key in KEYS.items()]


def run(*arguments: object) -> int:
    return cli.main(["roster", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a wrong use gets."""
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("secagg: ")
    return line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A name that is free."""
    return tmp_path / "roster.toml"


def test_from_keys(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "--out", file, *reversed(WORDS), "--json") == 0
    roster = Roster.load(file)
    assert roster == Roster.build(KEYS)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "file": str(file),
        "digest": roster.digest.hex(),
        "clients": [{"name": name, "public_key": key.hex()} for name, key in KEYS.items()],
    }


def test_from_identity_files_and_keys(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ALICE.save(tmp_path / "alice.key")
    assert (
        run("build", "--out", file, WORDS[1].upper().replace("BOB", "bob"), "--identity", tmp_path / "alice.key") == 0
    )
    assert Roster.load(file) == Roster.build(KEYS)
    assert ALICE.key.secret.hex() not in file.read_text() + capsys.readouterr().out


def test_only_identity_files(file: Path, tmp_path: Path) -> None:
    options: list[object] = []
    for identity in (ALICE, BOB):
        identity.save(tmp_path / f"{identity.name}.key")
        options += ["--identity", tmp_path / f"{identity.name}.key"]
    assert run("build", "--out", file, *options) == 0
    assert Roster.load(file) == Roster.build(KEYS)


@pytest.mark.parametrize("as_json", [False, True])
def test_show(file: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    long = Identity.generate("a-name-that-is-as-long-as-a-name-may-be-and-not-a-letter-longer.")
    roster = Roster.of([ALICE, BOB, long])
    roster.save(file)
    assert run("show", file, *["--json"] * as_json) == 0
    printed = capsys.readouterr().out
    for shown in [roster.digest.hex(), "alice", "bob", *[key.hex() for key in roster.keys]]:
        assert shown in printed
    if as_json:
        answer = json.loads(printed.splitlines()[-1])
        assert Roster.build({c["name"]: bytes.fromhex(c["public_key"]) for c in answer["clients"]}) == roster


def test_show_and_build_print_the_same(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "--out", file, *WORDS) == 0
    built = capsys.readouterr().out
    assert run("show", file) == 0
    assert capsys.readouterr().out == built


def test_an_existing_file_is_left_alone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("precious")
    assert "exists" in refused(capsys, "build", "--out", file, *WORDS)
    assert file.read_text() == "precious"


@pytest.mark.parametrize(
    ("clients", "reason"),
    [
        ([], "at least one client"),
        (["alice"], "NAME=HEXKEY"),
        (["alice="], "NAME=HEXKEY"),
        (["alice=" + "0" * 63], "64"),
        (["alice=" + "g" * 64], "64"),
        (["alice=" + "٣" * 64], "64"),
        (["alice=" + "0" * 64 + "\n"], "64"),
        (["=" + "0" * 64], "not a client name"),
        (["a b=" + "0" * 64], "not a client name"),
        ([WORDS[0], WORDS[0]], "twice"),
        ([WORDS[0], "alice=" + "0" * 64], "twice"),
        ([WORDS[0], WORDS[0].replace("alice", "eve")], "key of its own"),
        ([WORDS[0], "--force"], "--force"),
        ([WORDS[0], "--identity", "/nosuch.key"], "cannot read"),
    ],
)
def test_what_cannot_be_a_roster_makes_no_file(
    file: Path, capsys: pytest.CaptureFixture[str], clients: list[str], reason: str
) -> None:
    assert reason in refused(capsys, "build", "--out", file, *clients)
    assert not file.exists()


def test_an_identity_and_a_key_of_one_name(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ALICE.save(tmp_path / "alice.key")
    assert "twice" in refused(capsys, "build", "--out", file, WORDS[0], "--identity", tmp_path / "alice.key")
    assert not file.exists()


def test_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot write" in refused(capsys, "build", "--out", tmp_path / "none" / "r.toml", *WORDS)
    assert "cannot write" in refused(capsys, "build", "--out", tmp_path, *WORDS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"not = [toml",
        b"name = 'alice'",
        b"clients = 3",
        b"[clients]",
        b"[clients]\nalice = 3",
        b"[clients]\nalice = '" + b"0" * 62 + b"'",
        b"[clients]\nalice = '" + b"A" * 64 + b"'",
        b"[clients]\n'a b' = '" + b"0" * 64 + b"'",
        b"[clients]\nalice = '" + b"0" * 64 + b"'\nbob = '" + b"0" * 64 + b"'",
        b"[clients]\nalice = '" + b"0" * 64 + b"'\nalice = '" + b"1" * 64 + b"'",
        b"[clients]\nalice = '" + b"0" * 64 + b"'\n[more]",
    ],
)
def test_a_file_that_is_no_roster(file: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    file.write_bytes(content)
    refused(capsys, "show", file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"name = 'alice'",
        b"name = 3\nsecret = '" + b"0" * 64 + b"'",
        b"name = 'a b'\nsecret = '" + b"0" * 64 + b"'",
        b"name = 'alice'\nsecret = '00'",
        b"name = 'alice'\nsecret = 0",
        b"name = 'alice'\nsecret = '" + b"0" * 64 + b"'\nmore = 1",
    ],
)
def test_a_file_that_is_no_identity(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "bad.key").write_bytes(content)
    assert b"0" * 64 not in refused(capsys, "build", "--out", file, "--identity", tmp_path / "bad.key").encode()
    assert not file.exists()


def test_no_file_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot read" in refused(capsys, "show", tmp_path / "none")
    assert "cannot read" in refused(capsys, "show", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "command"),
        (["burn"], "burn"),
        (["show"], "FILE"),
        (["show", "a", "b"], "b"),
        (["build"], "--out"),
        (["show", "--nosuch", "a"], "--nosuch"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    assert reason in refused(capsys, *arguments)


@pytest.mark.parametrize("words", [[], ["build"], ["show"]])
def test_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run(*words, "--help") == 0
    assert " ".join(["Usage: secagg roster", *words]) in capsys.readouterr().out


def test_sign_and_check(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is signed is shown under the key that signed it, and under no other; numbers go up."""
    Identity.generate("hospitals").save(key := tmp_path / "hospitals.key")
    Roster.build(KEYS).save(file)
    made = [tmp_path / f"{name}.toml" for name in ("first", "third", "none")]
    assert run("sign", file, "--key", key, "--out", made[0], "--json") == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["version"], answer["signed_by"].partition("=")[0]) == (1, "hospitals")
    assert run("sign", file, "--key", key, "--out", made[1], "--version", 3) == 0
    assert [Roster.load(path).version.number for path in made[:2]] == [1, 3]  # type: ignore[union-attr]
    assert run("sign", file, "--key", key, "--out", made[2], "--version", 2) == 3
    assert not made[2].exists()
    assert run("show", made[1], "--signed-by", answer["signed_by"], "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["signed_by"] == answer["signed_by"]
    assert run("show", made[1]) == 0
    assert "not checked" in capsys.readouterr().out
    for path, by, code in (
        (made[1], answer["signed_by"].replace("hospitals", "clinics"), 3),
        (made[1], f"hospitals={ALICE.key.public.hex()}", 3),
        (file, answer["signed_by"], 3),
        (made[1], "hospitals", 2),
    ):
        assert run("show", path, "--signed-by", by) == code
        assert "signed-by" not in capsys.readouterr().out
