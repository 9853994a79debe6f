"""What is packed of a run, and that nothing else is."""

import json
import os
import shutil
import tarfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from dp import verify_ledger
from recsys.export import export
from recsys.run_record import Run, as_kept
from secagg.cli import main
from secagg.errors import AlteredError, StorageError, UsageError
from secagg.files import write_file
from tests.scenes.runs import KEY, make

PRIVATE = ("secret.key", "ledger.key", "checkpoint.safetensors", "users.csv", "sum-0.sealed")
SHARED = ["config.json", "ledger.db", "ledger.pub", "local.db", "run.json"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose secrets were kept. Nobody may change it."""
    (folder := tmp_path_factory.mktemp("runs") / "both").mkdir()
    (folder / "config.json").write_bytes(as_kept(make(folder, "both", rounds=2).config))
    with_model(folder)
    (folder / "private").mkdir(mode=0o700)
    for name in PRIVATE:
        write_file(folder / "private" / name, os.urandom(32), private=True)
    return folder


def with_model(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"model")
    replace(Run.load(folder), model=sha256(b"model").hexdigest()).save(folder, KEY)


@pytest.mark.parametrize("words", [["export", "both", "--no-model"], ["export", "both"], ["report", "both"]])
def test_a_model_that_was_altered_is_one_line(
    words: list[str], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control: as it is on record, or not there, it is nothing to say a word about."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "both")
    model = Path("both", "model.safetensors")
    for wrong in (b"modem", b"model ", b""):
        model.write_bytes(wrong)
        assert main(words) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert f"{model} was altered, or is the model of another run: its SHA-256 is not that of run.json" in said.err
        assert not list(Path().glob("*.tar"))
    model.write_bytes(b"model")
    assert main(words) == 0
    model.unlink()
    Path("both.tar").unlink(missing_ok=True)
    assert main(words) == 0


def test_a_configuration_that_was_altered_is_not_handed_on(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "both")
    said = (copy / "config.json").read_bytes()
    (copy / "config.json").write_bytes(said.replace(b"silos", b"users"))
    with pytest.raises(AlteredError, match=r"config\.json was altered"):
        export(copy, tmp_path / "a.tar", model=False)
    (copy / "config.json").write_bytes(said)
    assert "config.json" in export(copy, tmp_path / "a.tar", model=False)


def test_the_model_of_a_run_that_goes_on_is_not_on_record_yet(tmp_path: Path) -> None:
    make(tmp_path, "none", ended="")
    (tmp_path / "model.safetensors").write_bytes(b"model")
    assert main(["report", str(tmp_path)]) == 0


def names(tar: Path) -> list[str]:
    with tarfile.open(tar) as packed:
        return packed.getnames()


def test_nothing_private_is_packed(run: Path, tmp_path: Path) -> None:
    (copy := tmp_path / "both").mkdir()
    shutil.copytree(run, copy, dirs_exist_ok=True)
    (copy / "private" / "run.json").write_text("{}")
    (copy / "notes about patients.txt").write_text("private")
    assert export(copy, tmp_path / "a.tar", model=True) == sorted([*SHARED, "model.safetensors"])
    assert names(tmp_path / "a.tar") == [f"both/{name}" for name in sorted([*SHARED, "model.safetensors"])]
    packed = (tmp_path / "a.tar").read_bytes()
    for name in PRIVATE:
        secret = (run / "private" / name).read_bytes()
        assert secret not in packed
        assert secret.hex().encode() not in packed


def test_whoever_unpacks_it_can_verify_it_without_any_secret(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar", model=False)
    with tarfile.open(tmp_path / "a.tar") as packed:
        packed.extractall(tmp_path / "there", filter="data")
    there = tmp_path / "there" / "both"
    assert main(["ledger", "verify", str(there), "--key", str(there / "ledger.pub")]) == 0
    assert main(["report", str(there)]) == 0
    assert Run.load(there) == Run.load(run)
    assert not (there / "private").exists()


def test_what_is_to_be_told_on_another_way_verifies_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the stand-alone script and what was unpacked alone. Controls: the other ledger's head, another key."""
    assert main(["export", str(run), "--out", str(tmp_path / "a.tar"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with tarfile.open(tmp_path / "a.tar") as packed:
        packed.extractall(tmp_path, filter="data")
    names = ["ledger.db", "local.db"]
    assert list(told["keys"]) == list(told["heads"]) == names
    for name, other in zip(names, reversed(names), strict=True):
        words = [str(tmp_path / "both" / name), "--key", told["keys"][name]]
        assert verify_ledger.main([*words, "--head", told["heads"][name]]) == 0
        assert verify_ledger.main([*words, "--head", told["heads"][other]]) == 4
        assert verify_ledger.main([*words[:2], told["heads"][name]]) == 4
    capsys.readouterr()
    assert main(["export", str(run), "--out", str(tmp_path / "b.tar")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {*told["keys"].values(), *told["heads"].values()} <= set(lines)  # each whole, to be copied


def test_the_same_files_make_the_same_archive(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "a.tar", model=True)
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(run, copy := tmp_path / "elsewhere" / "both", copy_function=shutil.copyfile)
    for path in copy.iterdir():
        os.utime(path, (0, 0))
    export(copy, tmp_path / "b.tar", model=True)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as packed:
        for one in packed:
            assert one.isreg()
            assert (one.uid, one.gid, one.uname, one.gname, one.mtime, one.mode) == (0, 0, "", "", 0, 0o644)


def test_nothing_is_overwritten(run: Path, tmp_path: Path) -> None:
    (there := tmp_path / "a.tar").write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        export(run, there, model=True)
    (link := tmp_path / "link.tar").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="it is a link"):
        export(run, link, model=True)
    assert there.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "link.tar"]


@pytest.mark.parametrize("how", ["link", "hard link"])
def test_what_lies_elsewhere_is_not_packed(how: str, tmp_path: Path) -> None:
    """A file of a folder that was received may be another name of a secret."""
    (folder := tmp_path / "run").mkdir()
    make(folder, "none")
    with_model(folder)
    (secret := tmp_path / "id_ed25519").write_text("model")
    (folder / "model.safetensors").unlink()
    {"link": os.symlink, "hard link": os.link}[how](secret, folder / "model.safetensors")
    with pytest.raises(StorageError, match=r"it is a link|has another name"):
        export(folder, tmp_path / "a.tar", model=True)
    assert not (tmp_path / "a.tar").exists()


def test_a_run_that_goes_on_is_not_packed(tmp_path: Path) -> None:
    make(tmp_path, "none", ended="")
    with pytest.raises(UsageError, match="has not ended"):
        export(tmp_path, tmp_path / "a.tar", model=True)


@pytest.mark.parametrize("log", ["ledger.db-wal", "local.db-journal"])
def test_a_ledger_that_is_being_written_is_not_packed(log: str, tmp_path: Path) -> None:
    make(tmp_path, "none")
    (tmp_path / log).write_bytes(b"pages")
    with pytest.raises(UsageError, match="is being written, or was left by a crash"):
        export(tmp_path, tmp_path / "a.tar", model=True)
    (tmp_path / log).write_bytes(b"")
    assert export(tmp_path, tmp_path / "a.tar", model=True) == ["run.json"]


def test_a_model_without_a_promise_is_packed_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").mkdir()
    make(tmp_path / "plain", "none")
    with_model(tmp_path / "plain")
    assert main(["export", "plain"]) == 0
    assert names(tmp_path / "plain.tar") == ["plain/run.json"]
    assert main(["export", "plain"]) == 2
    assert main(["export", "plain", "--model", "--out", "more.tar", "--json"]) == 0
    assert names(tmp_path / "more.tar") == ["plain/model.safetensors", "plain/run.json"]
    said = capsys.readouterr()
    assert said.err == "secagg: plain.tar exists already\n"
