"""Files in folders that somebody else made: nothing outside is written, and only what is secret is believed to be."""

import os
import resource
import threading
from pathlib import Path

import pytest

from secagg.errors import StorageError
from secagg.files import (
    add_file,
    appending,
    create_file,
    creating,
    hold_private,
    private_folder,
    read_file,
    read_private,
    sweep,
    write_file,
    writing,
)
from tests.scenes.mutations import peak_of


@pytest.fixture(autouse=True)
def no_drafts_stay(tmp_path: Path):
    yield
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".draft")]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077, 0o000])
def test_a_file_has_the_mode_of_its_kind_whatever_was_there(tmp_path: Path, umask: int) -> None:
    path, before = tmp_path / "a", os.umask(umask)
    try:
        write_file(path, b"1", private=False)
        assert (path.read_bytes(), mode(path)) == (b"1", 0o644 & ~umask)
        path.chmod(0o666)
        write_file(path, b"2", private=True)
        assert (path.read_bytes(), mode(path)) == (b"2", 0o600)
        assert read_private(path) == b"2"
    finally:
        os.umask(before)


def test_whoever_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    write_file(path := tmp_path / "a", b"old", private=False)

    def half() -> None:
        with writing(path, private=False) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"old"


class Killed(BaseException):
    """What comes after this line never happens."""


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_file_is_the_old_one_until_it_is_the_new_one(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(path := tmp_path / "a", b"old", private=False)

    def killed(*arguments: object, **more: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, step, killed)
        patched.setattr("secagg.files._gone", lambda *arguments: None)
        with pytest.raises(Killed):
            write_file(path, b"new", private=False)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    write_file(path, b"new", private=False)  # what the killed one left behind is not in the way
    sweep(tmp_path)
    assert (path.read_bytes(), len(list(tmp_path.iterdir()))) == (b"new", 1)


def test_a_file_is_synced_before_it_takes_its_name_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not tell which file a descriptor is of")
    done, sync, rename = list[str](), os.fsync, os.rename

    def synced(descriptor: int) -> None:
        done.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        sync(descriptor)

    def renamed(draft: str, name: str, **more: int) -> None:
        done.append("rename")
        rename(draft, name, **more)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    write_file(tmp_path / "a", b"new", private=False)
    assert done == ["sync .draft", "rename", "sync "]


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_full_disk_is_one_line_with_the_path(size: int, tmp_path: Path) -> None:
    """Also where Python has all of it in its buffer, and tries again when the file is closed."""
    (path := tmp_path / "a").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
        with pytest.raises(StorageError, match=r"cannot write .*/a: File too large"):
            write_file(path, bytes(size), private=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["a"])


def test_only_drafts_are_swept_and_not_what_they_point_to(tmp_path: Path) -> None:
    (outside := tmp_path / "outside").write_text("mine")
    (folder := tmp_path / "folder").mkdir()
    for name in (".0123456789abcdef.draft", ".0123456789abcdef.draft-journal", ".report.html.draft", "a"):
        (folder / name).symlink_to(outside)
    (folder / ".0123456789abcde0.draft").mkdir()
    sweep(folder)
    assert {path.name for path in folder.iterdir()} == {".report.html.draft", "a", ".0123456789abcde0.draft"}
    assert outside.read_text() == "mine"
    (folder / ".0123456789abcde0.draft").rmdir()
    (folder / ".report.html.draft").unlink()


def test_a_link_or_a_folder_in_a_files_place_is_refused(tmp_path: Path) -> None:
    (outside := tmp_path / "outside").write_text("mine")
    (link := tmp_path / "link").symlink_to(outside)
    (dangling := tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (folder := tmp_path / "folder").mkdir()
    os.mkfifo(pipe := tmp_path / "pipe")
    for place in (link, dangling, folder, pipe):
        with pytest.raises(StorageError, match=r"cannot write .*: (it is a link|there is something else)"):
            write_file(place, b"theirs", private=False)
    assert outside.read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


def test_names_of_drafts_cannot_be_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: where the name is known, a link lies in wait, and ``O_EXCL`` alone keeps what it points to."""
    seen = []
    for _ in range(3):
        with writing(tmp_path / "a", private=False):
            seen += [path.name for path in tmp_path.iterdir() if path.name != "a"]
    assert len(set(seen)) == 3
    (outside := tmp_path / "outside").write_text("mine")
    monkeypatch.setattr("secagg.files.secrets.token_hex", lambda size: "known")
    (tmp_path / ".known.draft").symlink_to(outside)
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "a", b"theirs", private=False)
    (tmp_path / ".known.draft").unlink()
    assert outside.read_text() == "mine"


def test_what_is_created_is_never_in_anothers_place(tmp_path: Path) -> None:
    assert create_file(path := tmp_path / "a", b"first", private=True)
    assert not create_file(path, b"second", private=True)
    assert (path.read_bytes(), mode(path), path.stat().st_nlink) == (b"first", 0o600, 1)
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(StorageError, match="it is a link"):
        create_file(tmp_path / "link", b"", private=False)


def test_one_of_many_makes_it(tmp_path: Path) -> None:
    made: list[bool] = []
    start = threading.Barrier(8)

    def one(number: int) -> None:
        start.wait()
        made.append(create_file(tmp_path / "a", bytes([number]), private=True))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == 1


@pytest.mark.parametrize("loose", [0o604, 0o640, 0o620, 0o644, 0o601, 0o660])
def test_a_secret_that_others_can_get_at_is_refused(tmp_path: Path, loose: int) -> None:
    write_file(path := tmp_path / "a", b"secret", private=True)
    path.chmod(loose)
    for look in (read_private, hold_private):
        with pytest.raises(StorageError, match=f"others can get at it \\(mode {loose:o}"):
            look(path)
    path.chmod(0o400)
    assert read_private(path) == b"secret"


def test_a_secret_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root included: whoever this process is, the file has to be its own."""
    write_file(path := tmp_path / "a", b"secret", private=True)
    private_folder(tmp_path / "folder")
    me = os.geteuid()
    monkeypatch.setattr("secagg.files.os.geteuid", lambda: me + 1)
    for look, place in ((read_private, path), (hold_private, path), (private_folder, tmp_path / "folder")):
        with pytest.raises(StorageError, match=f"belongs to another user \\({me},"):
            look(place)
    with pytest.raises(StorageError, match="belongs to another user"):  # a file server that changes owners
        write_file(tmp_path / "b", b"secret", private=True)
    assert not (tmp_path / "b").exists()


def test_a_disk_that_keeps_no_modes_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fdopen

    def forgetful(descriptor: int, *args: object, **more: object) -> object:
        os.fchmod(descriptor, 0o777)
        return real(descriptor, *args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("secagg.files.os.fdopen", forgetful)
    with pytest.raises(StorageError, match="others can get at it"):
        write_file(tmp_path / "a", b"secret", private=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match="others can get at it"):
        add_file(tmp_path / "a", [b"secret"])
    assert (tmp_path / "a").read_bytes() == b""


def test_links_pipes_and_folders_are_no_secrets(tmp_path: Path) -> None:
    write_file(real := tmp_path / "real", b"secret", private=True)
    (link := tmp_path / "link").symlink_to(real)
    os.mkfifo(pipe := tmp_path / "pipe", 0o600)
    (folder := tmp_path / "folder").mkdir(mode=0o700)
    for place in (link, pipe, folder):
        for look in (read_private, hold_private):
            with pytest.raises(StorageError, match=r"cannot (read|open) .*: it is (a link|no plain file)"):
                look(place)
        with pytest.raises(StorageError, match=r"cannot read .*: it is (a link|no plain file)"):
            read_file(place, most=10)
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "none")


def test_a_private_folder_is_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a")
    assert mode(folder) == 0o700
    assert private_folder(folder) == folder
    (link := tmp_path / "link").symlink_to(folder)
    (tmp_path / "file").write_text("")
    folder.chmod(0o750)
    for place, why in ((link, "link"), (tmp_path / "file", "no directory"), (folder, "others can get at it")):
        with pytest.raises(StorageError, match=why):
            private_folder(place)


def test_no_more_is_read_than_was_asked_for(tmp_path: Path) -> None:
    write_file(path := tmp_path / "a", b"12345", private=False)
    assert read_file(path, most=5) == b"12345"
    with pytest.raises(StorageError, match="longer than 4 bytes"):
        read_file(path, most=4)
    assert peak_of(lambda: read_file(path, most=1 << 32)) < 1 << 20


def test_lines_are_added_to_plain_files_only(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        with appending(tmp_path / "a") as file:
            os.write(file, text)
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\n"
    os.mkfifo(pipe := tmp_path / "pipe")
    (link := tmp_path / "link").symlink_to(tmp_path / "a")
    for place, why in ((pipe, "no plain file"), (link, "a link")):
        with pytest.raises(StorageError, match=why), appending(place):
            pass


def test_a_draft_for_others_to_write_replaces_nothing(tmp_path: Path) -> None:
    def made(text: bytes) -> None:
        with creating(tmp_path / "a") as draft:
            assert mode(draft) == 0o600
            draft.write_bytes(text)

    made(b"first")
    with pytest.raises(FileExistsError):
        made(b"second")
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "a").stat().st_nlink) == (b"first", 1)


def test_errors_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "a", tmp_path / "zero\0", tmp_path / ("long" * 100)):
        with pytest.raises(StorageError, match=r"cannot write"):
            write_file(path, b"", private=False)
