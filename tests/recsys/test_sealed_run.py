"""A run that is sealed at rest from its beginning, and one that is sealed later: what files tell, and to whom.

What is attacked: files of two runs under one key are exchanged, plain files stand in for sealed ones, and sealing is
killed between any two files.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dp.ledger.file import read
from recsys import sealing
from recsys.config import Config
from recsys.report import Account
from recsys.run_record import Run
from recsys.sealing import reseal
from secagg import cli, files
from secagg.at_rest import KEY_FILE, Folder, Keyring, files_in
from secagg.errors import AlteredError, AtRestError, SealedError, StorageError, UnsealedError, UsageError, WrongKeyError
from tests.scenes.recommender import config
from tests.scenes.whole_runs import Killed, go

OLD, NEW, OTHER = Keyring([bytes(32)]), Keyring([bytes(range(32)), bytes(32)]), Keyring([bytes([9]) * 32])
PUBLIC = "ledger.pub"


def asked() -> Config:
    changes = ("protocol.dropout=0.34", "privacy.mode=distributed", "training.rounds=2", "evaluation.exact=false")
    return config(*changes, "title=a telling title")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Killed in its second sum, then gone on with. Nobody may change it."""
    place = tmp_path_factory.mktemp("sealed")
    folder = Folder(place / "run", OLD)
    with pytest.MonkeyPatch.context() as patch:

        def killed(run: Run) -> None:
            if run.rounds:
                patch.setattr("recsys.secure_aggregator.drive", never)

        def never(*_: object) -> None:
            raise Killed

        with pytest.raises(Killed):
            go(asked(), folder, place / "state", watch=killed)
    assert (place / "run" / "private" / "sum-1.sealed").exists()
    shutil.copytree(place / "run", place / "killed")
    run = go(asked(), Folder(place / "run", OLD), place / "state")
    assert (run.ended, len(run.rounds)) == ("all rounds are done", 2)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the sealed run."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_in(folder)}


def plain_of(folder: Path, keys: Keyring) -> dict[str, bytes]:
    """What a sealed run reads as, but for its ledger."""
    outer = Folder(folder, keys)
    inner, names = outer.within("private"), sorted(path.name for path in (folder / "private").iterdir())
    found = {name: outer.read(name) for name in ("config.json", "run.json", "model.safetensors")}
    return found | {f"private/{name}": inner.read(name) for name in names}


def test_nothing_of_what_is_in_a_sealed_run_is_found_in_its_files(made: Path) -> None:
    """Neither pieces of any file as it reads, nor of an entry of the ledger, nor names of clients and users."""
    for folder in (made / "run", made / "killed"):
        kept = {name: data for name, data in all_bytes(folder).items() if name != PUBLIC}
        assert not any(name.endswith((".html", "-journal")) for name in kept)
        told = [b"telling", b"client-", b"epsilon", b"distributed", b"SQLite format 3\0entry", b"NDCG", b"secagg+"]
        for data in plain_of(folder, OLD).values() if (folder / "model.safetensors").exists() else []:
            told += [data[at : at + 16] for at in range(0, len(data) - 16, max(16, len(data) // 50))]
        told += [body[at : at + 16] for body, _ in read(folder / "ledger.db", OLD) for at in range(0, len(body), 100)]
        told += [signature[:16] for _, signature in read(folder / "ledger.db", OLD) if signature]
        blank = {bytes(16), b" " * 16}
        for part in set(told) - blank:
            if len(part) >= 6:
                assert [name for name, data in kept.items() if part in data] == []
    assert (made / "run" / PUBLIC).read_text().strip() == Folder(made / "run", OLD).within("private").read(
        "name"
    ).decode()


def test_it_is_read_with_its_key_and_not_without(made: Path) -> None:
    folder = made / "run"
    assert Account.load(Folder(folder, OLD)).differences == ()
    assert Run.load(Folder(folder, NEW)).ended
    for keys, error in ((None, SealedError), (OTHER, WrongKeyError)):
        for name in ("config.json", "run.json", "model.safetensors"):
            with pytest.raises(error):
                Folder(folder, keys).read(name)
        with pytest.raises(error):
            go(asked(), Folder(folder, keys), made / "state")


def test_every_command_takes_the_key(
    made: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keys, history = tmp_path / "keys", tmp_path / "history"
    files.write_file(keys, bytes(32).hex().encode(), private=True)
    history.write_text("i1\n")
    commands = [
        ["report", str(run), "--out", "report.html"],
        ["export", str(run), "--out", "run.tar"],
        ["ledger", "show", str(run)],
        ["ledger", "export", str(run)],
        ["ledger", "verify", str(run), "--key", str(run / PUBLIC)],
        ["recommend", str(run), "--history", str(history)],
    ]
    for words in commands:
        assert cli.main(words) == 2
        assert "is sealed, and no key was given" in capsys.readouterr().err
    assert cli.main([*commands[0], "--keyring", str(keys)]) == 0
    monkeypatch.setenv(KEY_FILE, str(keys))
    for words in commands[1:]:
        assert cli.main(words) == 0
    assert cli.main(["report", str(run)]) == 2
    assert "say where it is to be written (--out)" in capsys.readouterr().err
    assert b"a telling title" in (tmp_path / "report.html").read_bytes()
    shutil.unpack_archive(tmp_path / "run.tar", tmp_path / "there")  # it is for others: they read it without a key
    monkeypatch.delenv(KEY_FILE)
    assert cli.main(["report", str(tmp_path / "there" / "run")]) == 0
    assert read(tmp_path / "there" / "run" / "ledger.db") == read(run / "ledger.db", OLD)


@pytest.mark.parametrize("name", ["config.json", "run.json", "model.safetensors", "private/checkpoint.safetensors"])
@pytest.mark.parametrize("how", ["plain", "flipped", "cut short", "another"])
def test_what_was_put_in_the_place_of_a_file_is_refused(made: Path, run: Path, name: str, how: str) -> None:
    data = bytearray((run / name).read_bytes())
    data[len(data) // 2] ^= 1
    private, _, inner = name.rpartition("/")
    place = Folder(run, OLD).within(private) if private else Folder(run, OLD)
    put = {
        "plain": place.read(inner),
        "flipped": bytes(data),
        "cut short": bytes(data[: len(data) // 2]),
        "another": (run / ("run.json" if name != "run.json" else "config.json")).read_bytes(),
    }
    (run / name).write_bytes(put[how])
    with pytest.raises(UnsealedError if how == "plain" else AlteredError):
        place.read(inner)


def test_two_runs_under_one_key_do_not_exchange_files(made: Path, tmp_path: Path) -> None:
    """The folders differ, and so does what their files are bound to: this is noticed before anything is compared."""
    other = tmp_path / "other"
    go(asked(), Folder(other, OLD), tmp_path / "state")
    for name in ("private/checkpoint.safetensors", "private/inputs", "run.json", "private/secret.key"):
        mixed = Path(shutil.copytree(other, tmp_path / name.replace("/", "-")))
        shutil.copy(made / "run" / name, mixed / name)
        with pytest.raises(AlteredError, match="sealed files of several folders"):
            go(asked(), Folder(mixed, OLD), tmp_path / "state")


# Sealing what is there


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_was_plain_is_sealed_gone_on_with_and_unsealed(made: Path, tmp_path: Path, killed: bool) -> None:
    run = Path(shutil.copytree(made / ("killed" if killed else "run"), tmp_path / "run"))
    done = reseal(run, OLD, None)
    assert {path.name for path in done.changed} >= {"config.json", "run.json", "ledger.db", "secret.key"}
    assert reseal(run, OLD, None).changed == ()
    assert Run.load(run).title == "a telling title"
    (run / "report.html").write_text("epsilon")
    (run / "notes").write_text("mine")
    with pytest.raises(UnsealedError):
        Run.load(Folder(run, OLD))
    before = all_bytes(run)
    sealed = reseal(run, OLD, OLD)
    assert {path.name for path in sealed.changed} == {path.name for path in done.changed}
    assert sealed.removed == (run / "report.html",)
    assert {path.name for path in sealed.left} == {"notes", PUBLIC}
    assert {name for name, data in all_bytes(run).items() if before[name] == data} == {"notes", PUBLIC}
    assert reseal(run, NEW, NEW).changed == sealed.changed
    assert reseal(run, NEW, NEW).changed == ()
    with pytest.raises(WrongKeyError):
        Run.load(Folder(run, OLD))
    (run / "notes").unlink()
    assert {path.stat().st_mode & 0o777 for path in (run / "private").iterdir()} == {0o600}
    without_the_old_one = Folder(run, Keyring([bytes(range(32))]))
    assert go(asked(), without_the_old_one, tmp_path / "state").ended


def test_sealing_notices_what_was_altered_and_does_not_seal_it(run: Path) -> None:
    for bit in (0, 8 * 10, 8 * 40, 8 * 500):
        path = run / "run.json"
        before = path.read_bytes()
        altered = bytearray(before)
        altered[bit // 8] ^= 1
        path.write_bytes(altered)
        for keys in (OLD, NEW):
            with pytest.raises(AlteredError):
                reseal(run, NEW, keys)
        assert path.read_bytes() == altered
        path.write_bytes(before)
        reseal(run, NEW, OLD)


def test_sealing_tells_what_was_plain_beside_sealed_files(run: Path) -> None:
    """Somebody without the key may have put it there, and then it is sealed as if it were the run's own."""
    plain = Path(shutil.copytree(run, run.with_name("plain")))
    assert reseal(plain, OLD, None).mixed == ()
    (run / "model.safetensors").chmod(0o640)
    for name in ("config.json", "ledger.db"):
        shutil.copy(plain / name, run / name)
    assert reseal(run, NEW, NEW).mixed == (run / "config.json", run / "ledger.db")
    assert (run / "model.safetensors").stat().st_mode & 0o077 == 0
    assert reseal(run, NEW, NEW).mixed == reseal(plain, NEW, NEW).mixed == ()


@pytest.mark.parametrize("after", [NEW, None])
def test_a_ledger_to_which_a_link_leads_is_left_alone(run: Path, after: Keyring | None) -> None:
    """Who made the folder may have none of the keys, and would have somebody else's ledger made plain."""
    mine = (run / "ledger.db").rename(run.with_name("mine.db"))
    (run / "ledger.db").symlink_to(mine)
    before, names = mine.read_bytes(), all_bytes(run)
    with pytest.raises(StorageError, match=r"ledger\.db: it is a link"):
        reseal(run, NEW, after)
    assert (mine.read_bytes(), all_bytes(run)) == (before, names)


def killed_after(renames: int, run: Path, sealing_keys: Keyring | None) -> bool:
    """Reseal in a process that is killed before it gives its name to a further file; whether it was."""
    if (child := os.fork()) == 0:
        left, real = [renames], os.rename

        def rename(*arguments: object, **more: object) -> None:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            real(*arguments, **more)

        os.rename = rename  # type: ignore[assignment]
        try:
            reseal(run, NEW, sealing_keys)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("after", [OLD, NEW, None])
def test_killed_between_any_two_files_it_is_done_again(made: Path, tmp_path: Path, after: Keyring | None) -> None:
    plain, entries = plain_of(made / "run", OLD), read(made / "run" / "ledger.db", OLD)
    for renames in range(20):
        run = Path(shutil.copytree(made / "run", tmp_path / str(renames)))
        if after is OLD:
            reseal(run, OLD, None)
        if not killed_after(renames, run, after):
            break
        if after is not NEW and renames:  # a folder that is neither is refused
            with pytest.raises(AtRestError):
                plain_of(run, NEW)
        reseal(run, NEW, after)
        assert read(run / "ledger.db", after) == entries
        if after is None:
            assert all_bytes(run) == {**all_bytes(run), **plain}
        else:
            assert plain_of(run, after) == plain
        assert not list(run.rglob("*.draft"))
    assert renames == len(plain)


def test_a_ledger_whose_sealing_was_killed_is_sealed_by_the_same_command(run: Path) -> None:
    path, entries = run / "ledger.db", read(run / "ledger.db", OLD)
    if (child := os.fork()) == 0:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:  # what reseal does, up to its commit
            database.execute("PRAGMA cache_size = 1")
            database.execute("BEGIN EXCLUSIVE")
            database.execute("DROP TRIGGER no_update")
            database.execute("UPDATE entries SET body = zeroblob(100000)")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.with_name("ledger.db-journal").stat().st_size
    assert reseal(path, NEW, NEW).changed == (path,)
    assert read(path, NEW) == entries


def test_a_run_that_is_at_work_is_not_resealed(run: Path) -> None:
    with sealing.alone(run), pytest.raises(StorageError, match="another process is at work"):
        reseal(run, NEW, NEW)


def test_what_can_be_sealed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run"):
        reseal(tmp_path, OLD, OLD)
    with pytest.raises(UsageError, match="there is no file"):
        reseal(tmp_path / "nowhere", OLD, OLD)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="link is a link"):
        reseal(tmp_path / "link", OLD, OLD)
