"""``secagg seal`` and ``unseal``: keys are made, everything that can be sealed is, and what is not is refused."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from protocols.journal import SqliteJournal
from protocols.roster import Identity
from recsys.run_record import Run
from recsys.run_start import SEALED_AS
from secagg import cli
from secagg.at_rest import KEY_FILE, Folder, Keyring, read_sealed, sealed_as
from secagg.files import write_file
from tests.scenes import runs


def secagg(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, object], str]:
    code = cli.main([*map(str, words), "--json"])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if printed.out else {}, printed.err


def test_all_that_can_be_sealed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, run = tmp_path / "keys", tmp_path / "run"
    run.mkdir()
    runs.make(run, "distributed", rounds=2)
    (run / "config.json").write_text("{}")
    shared = (run / "ledger.db").rename(tmp_path / "shared.db")
    write_file(tmp_path / "shared.key", bytes(32), private=True)
    Identity.generate("alice").save(tmp_path / "alice.key")
    SqliteJournal(tmp_path / "alice.db").close()
    paths = [run, shared, tmp_path / "alice.key", tmp_path / "alice.db"]
    for _ in range(2):  # the second time under a newer key
        code, answer, _ = secagg(capsys, "seal", *paths, "--new-key", keys)
        ring = Keyring.load(keys)
        assert (code, answer["key"]) == (0, ring.newest)
        changed = [run / "config.json", run / "run.json", shared, tmp_path / "shared.key", *paths[2:]]
        assert answer["changed"] == [str(path) for path in changed]
        assert Run.load(Folder(run, ring)).title.startswith("Private")
        assert read_sealed(tmp_path / "shared.key", ring, SEALED_AS, private=True) == bytes(32)
        assert Identity.load(tmp_path / "alice.key", ring).name == "alice"
        with closing(SqliteJournal(tmp_path / "alice.db", keys=ring)):
            pass
    assert len(keys.read_text().split()) == 2
    monkeypatch.setenv(KEY_FILE, str(keys))
    assert secagg(capsys, "seal", *paths)[1]["changed"] == []
    assert secagg(capsys, "unseal", *paths)[1]["changed"] == [str(path) for path in changed]
    assert (tmp_path / "shared.key").read_bytes() == bytes(32)
    assert secagg(capsys, "unseal", *paths)[1]["changed"] == []
    monkeypatch.delenv(KEY_FILE)
    Identity.load(tmp_path / "alice.key")
    assert cli.main(["report", str(run), "--ledger", str(shared)]) == 0


def test_a_key_that_is_added_keeps_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys"
    secagg(capsys, "seal", "--new-key", keys)
    sealed = Keyring.load(keys).seal(b"text", "a")
    assert keys.stat().st_mode & 0o777 == 0o600
    secagg(capsys, "seal", "--new-key", keys)
    assert Keyring.load(keys).open(sealed, "a") == b"text"
    keys.write_text("not keys\n")
    assert secagg(capsys, "seal", "--new-key", keys)[0] == 2
    assert keys.read_text() == "not keys\n"


def test_identities_are_made_sealed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, alice = tmp_path / "keys", tmp_path / "alice.key"
    secagg(capsys, "seal", "--new-key", keys)
    assert secagg(capsys, "keys", "new", "alice", "--out", alice, "--keyring", keys)[0] == 0
    assert sealed_as(alice.read_bytes()) == "an identity"
    words = ["roster", "build", "--identity", alice, "--out", tmp_path / "roster.toml"]
    assert secagg(capsys, *words)[0] == 2
    assert secagg(capsys, *words, "--keyring", keys)[0] == 0


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert secagg(capsys, "seal", tmp_path)[2].startswith("secagg: there is no key: --keyring or")
    assert secagg(capsys, "unseal", tmp_path)[0] == 2
    keys = tmp_path / "keys"
    assert "goes without --keyring" in secagg(capsys, "seal", "--new-key", keys, "--keyring", keys)[2]
    secagg(capsys, "seal", "--new-key", keys)
    (tmp_path / "letter").write_text("dear")
    (tmp_path / "letter").chmod(0o600)
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "letter"):
        assert secagg(capsys, "seal", path, "--keyring", keys)[0] == 2
    assert (tmp_path / "letter").read_text() == "dear"
