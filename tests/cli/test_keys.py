"""``secagg keys new``: a new file, for its owner's eyes only, and the public key that belongs to it."""

import json
import stat
from pathlib import Path

import pytest

from protocols.roster import Identity
from secagg import cli


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a wrong use gets."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("secagg: ")
    return line


def test_a_new_identity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "alice.key"
    assert cli.main(["keys", "new", "alice", "--out", str(file), "--json"]) == 0
    printed = capsys.readouterr().out
    identity = Identity.load(file)
    assert json.loads(printed.splitlines()[-1]) == {
        "name": "alice",
        "public_key": identity.key.public.hex(),
        "file": str(file),
    }
    assert identity.name == "alice"
    assert identity.key.secret.hex() not in printed
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "[bold]alice.key"  # square brackets are markup to rich
    assert cli.main(["keys", "new", "alice", "--out", str(file)]) == 0
    printed, identity = capsys.readouterr().out, Identity.load(file)
    assert "alice" in printed
    assert identity.key.public.hex() in printed
    assert identity.key.secret.hex() not in printed
    assert str(file) in "".join(line[12:].rstrip() for line in printed.splitlines())


def test_two_identities_differ(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        assert cli.main(["keys", "new", "alice", "--out", str(file)]) == 0
    first, second = map(Identity.load, files)
    assert first.key.secret != second.key.secret


def test_an_existing_file_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, link = tmp_path / "alice.key", tmp_path / "link.key"
    file.write_text("precious")
    link.symlink_to(tmp_path / "elsewhere")
    assert "exists" in refused(capsys, "keys", "new", "alice", "--out", file)
    assert file.read_text() == "precious"
    assert "it is a link" in refused(capsys, "keys", "new", "alice", "--out", link)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["", "-x", "a b", "a=b", "a/b", 'a"\nsecret = "', "a" * 65, "ä", ".hidden"])
def test_bad_names_make_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert "not a client name" in refused(capsys, "keys", "new", "--out", tmp_path / "x.key", "--", name)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot write" in refused(capsys, "keys", "new", "alice", "--out", tmp_path / "none" / "alice.key")
    assert "cannot write" in refused(capsys, "keys", "new", "alice", "--out", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["keys"], "command"),
        (["keys", "old"], "old"),
        (["keys", "new"], "NAME"),
        (["keys", "new", "alice"], "--out"),
        (["keys", "new", "alice", "--out"], "--out"),
        (["keys", "new", "alice", "bob", "--out", "/nosuch/file"], "bob"),
        (["keys", "new", "alice", "--force", "--out", "/nosuch/file"], "--force"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    assert reason in refused(capsys, *arguments)


@pytest.mark.parametrize("words", [["keys"], ["keys", "new"]])
def test_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert cli.main([*words, "--help"]) == 0
    assert "Usage: secagg " + " ".join(words) in capsys.readouterr().out
