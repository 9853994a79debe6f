"""The one way in which this library writes files and reads secret ones, safe in a folder that somebody else made.

A folder that was unpacked from a stranger's archive can hold symbolic links under any name that can be told beforehand.
So a file is written under a random name in the same folder, which must not exist (``O_EXCL | O_NOFOLLOW``), synced and
renamed; a path that has anything but a plain file is refused. After a crash there is the old file or the new one, and
at worst a draft beside it, which nothing reads.

A secret file is accepted by the rules of ssh: it is a plain file and no link, it belongs to this process's user (also
where that is root), and group and others may do nothing with it. POSIX access lists show in the bits of the group, so
they are seen. File systems that keep no modes or owners (Windows disks under WSL, a squashed NFS) are noticed when a
secret is written. What is not seen: access lists of NFSv4, whoever administers the machine or the file server, backups.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import IOBase, RawIOBase
from pathlib import Path
from typing import BinaryIO

from secagg.errors import StorageError

DRAFT = re.compile(r"\.[0-9a-f]{16}\.draft(-journal)?")
"""The name of a file until it is whole, or of the journal that SQLite keeps beside a database that is a draft: what a
crash left behind is of no use to anybody."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # opening a pipe must not make us wait
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def write_file(path: Path, *pieces: bytes | memoryview, private: bool) -> None:
    """Replace a file by these pieces. After a crash it is the old one or the new one; when this returns, it is on disk.

    Everybody may read it, as far as the umask allows, unless it is ``private``: then only its owner may.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a"
    ...     write_file(path, b"first", private=True)
    ...     write_file(path, b"sec", b"ond", private=True)
    ...     path.read_bytes(), oct(path.stat().st_mode & 0o777)
    (b'second', '0o600')
    """
    with writing(path, private=private) as file, said("write", path):
        file.writelines(pieces)


def create_file(path: Path, data: bytes, *, private: bool) -> bool:
    """Like ``write_file``, but a file that exists stays as it is, and then this returns False."""
    try:
        with _drafted(path, private, replace=False) as file, said("write", path):
            file.write(data)
    except FileExistsError:
        return False
    return True


@contextmanager
def writing(path: Path, *, private: bool, replace: bool = True) -> Iterator[BinaryIO]:
    """A file to write into, which gets its name when the context ends without an error, and is removed otherwise.

    With ``replace=False``, ``FileExistsError`` if there is a file of that name.
    """
    with _drafted(path, private, replace=replace) as file:
        yield file


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """A private file beside ``path``, to be written by name (as SQLite does), which becomes ``path`` in the end.

    ``FileExistsError`` if ``path`` exists by then. The writer removes what it put beside the file.
    """
    draft = path.with_name(f".{secrets.token_hex(8)}.draft")
    try:
        hold_private(draft)
        yield draft
        with said("write", path), _opened(path.parent) as folder:
            os.link(draft.name, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            os.unlink(draft.name, dir_fd=folder)
            os.fsync(folder)
    finally:
        with suppress(OSError):  # it may have been renamed
            draft.unlink(missing_ok=True)


@contextmanager
def appending(path: Path) -> Iterator[int]:
    """The descriptor of a plain file, made if it does not exist, to read and append to. The caller syncs."""
    with ExitStack() as undo:
        with said("write", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _READ, 0o644)
            undo.callback(os.close, descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _Refused("it is no plain file")
        yield descriptor


def add_file(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Make a new private file, on the disk when this returns, which has its name from the start.

    It is for who knows from elsewhere that a file is whole, as a database in the same folder does. The name itself is
    synced with the folder, by the caller. After an error or a crash there may be a part of the file.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     add_file(Path(folder) / "a", [b"one ", b"two"])
    ...     (Path(folder) / "a").read_bytes()
    b'one two'
    """
    with ExitStack() as undo:
        try:
            with said("write", path):
                file = os.fdopen(os.open(path, _NEW, 0o600), "wb", buffering=0)
                undo.callback(_closed, file)
                _check_mine(os.fstat(file.fileno()))
        except FileExistsError:
            raise StorageError(f"cannot write {path}: it is there already") from None
        for piece in pieces:
            with said("write", path):
                _written(file, piece)
        with said("write", path):
            os.fsync(file.fileno())


def keep_only(folder: Path, names: re.Pattern[str], kept: Collection[str]) -> None:
    """Remove the plain files of a folder that have such names, all but those that are ``kept``."""
    with said("use", folder):
        for path in folder.iterdir():
            if names.fullmatch(path.name) and path.name not in kept:
                with suppress(FileNotFoundError):  # whoever shares the folder was faster
                    if stat.S_ISREG(path.lstat().st_mode):
                        path.unlink()


def sweep(folder: Path) -> None:
    """Remove drafts that a crash left behind. The caller is sure that nobody writes there at this moment."""
    with said("use", folder):
        for path in folder.iterdir():
            if DRAFT.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    if not stat.S_ISDIR(path.lstat().st_mode):
                        path.unlink()


def synced(folder: Path) -> None:
    """Sync a directory: its names are on the disk when this returns."""
    with said("write", folder), _opened(folder) as descriptor:
        os.fsync(descriptor)


def read_file(path: Path, *, most: int) -> bytes:
    """The bytes of a plain file, at most ``most``, and no link; ``FileNotFoundError`` if it does not exist."""
    with reading(path) as (file, status):
        size = min(most, status.st_size)
        data = file.read(size + 1)  # which makes room for so many
    if len(data) > size:
        raise StorageError(f"cannot read {path}: it is longer than {most} bytes, or grows")
    return data


@contextmanager
def reading(path: Path, *, private: bool = False) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """A plain file, no link, opened, and its status; ``FileNotFoundError`` if it does not exist.

    If it is ``private``, it must be this user's, closed to everybody else.
    """
    with _plain(path) as (descriptor, status), os.fdopen(descriptor, "rb", closefd=False) as file:
        if private:
            with said("read", path):
                _check_mine(status)
        yield file, status


def read_private(path: Path) -> bytes:
    """The bytes of a secret file, which must be a plain file of this user, closed to everybody else.

    ``FileNotFoundError`` if it does not exist.
    """
    with reading(path, private=True) as (file, _):
        return file.read()


def hold_private(path: Path) -> None:
    """Make sure that ``path`` is a secret file of this user; make an empty one if it does not exist.

    It is for libraries that open files by name, as SQLite does; what they put beside it gets its mode.
    """
    with said("open", path), suppress(FileExistsError):
        os.close(os.open(path, _NEW, 0o600))
    with said("open", path):  # by its name: to close a descriptor would lift SQLite's locks in this process
        if not stat.S_ISREG((status := path.lstat()).st_mode):
            raise _Refused("it is a link" if stat.S_ISLNK(status.st_mode) else "it is no plain file")
        _check_mine(status)


def private_folder(path: Path) -> Path:
    """Make sure that ``path`` is a directory of this user, closed to everybody else; make it if it does not exist."""
    with said("use", path):
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if not stat.S_ISDIR((status := path.lstat()).st_mode):
            raise _Refused("it is a link" if stat.S_ISLNK(status.st_mode) else "it is no directory")
        _check_mine(status)
    return path


@contextmanager
def said(verb: str, path: Path) -> Iterator[None]:
    """Turn errors into a ``StorageError`` of one line, except that a file exists already."""
    try:
        yield
    except FileExistsError:
        raise
    except (OSError, ValueError, _Refused) as error:
        raise StorageError(f"cannot {verb} {path}: {_why(error)}") from None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a directory to one process at a time: a second one is refused, and does not wait."""
    with ExitStack() as held:
        with said("use", folder):
            descriptor = held.enter_context(_opened(folder))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(f"{folder} is locked: another process is at work there") from None
        yield


# Implementation


@contextmanager
def _drafted(path: Path, private: bool, *, replace: bool) -> Iterator[BinaryIO]:
    """A draft that becomes ``path`` in the end. Errors of the caller who writes into it are left as they are."""
    draft = f".{secrets.token_hex(8)}.draft"
    with ExitStack() as undo:
        with said("write", path):
            folder = undo.enter_context(_opened(path.parent))
            _check_place(path.name, folder)
            file = os.fdopen(os.open(draft, _NEW, 0o600 if private else 0o644, dir_fd=folder), "wb")
            undo.callback(_gone, draft, folder)
            undo.callback(_closed, file)
            if private:
                _check_mine(os.fstat(file.fileno()))
        yield file
        with said("write", path):
            file.flush()
            os.fsync(file.fileno())
            if replace:
                os.rename(draft, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                os.link(draft, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            _gone(draft, folder)
            os.fsync(folder)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _plain(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """The descriptor of a plain file, opened for reading, and its status."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _READ)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {_why(error)}") from None
    try:
        with said("read", path):
            if not stat.S_ISREG((status := os.fstat(descriptor)).st_mode):
                raise _Refused("it is no plain file")
        yield descriptor, status
    finally:
        os.close(descriptor)


def _check_place(name: str, folder: int) -> None:
    """Refuse to replace anything but a plain file."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(mode := os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise _Refused("it is a link" if stat.S_ISLNK(mode) else "there is something else than a plain file")


def _check_mine(status: os.stat_result) -> None:
    """Refuse what belongs to another user, or is open to others."""
    if status.st_uid != os.geteuid():
        raise _Refused(f"it belongs to another user ({status.st_uid}, and this process is of {os.geteuid()})")
    if loose := status.st_mode & 0o077:
        raise _Refused(f"others can get at it (mode {status.st_mode & 0o777:o}, of which {loose:o} must go: chmod go=)")


def _written(file: RawIOBase, piece: bytes | memoryview) -> None:
    rest = memoryview(piece)
    while len(rest):
        rest = rest[file.write(rest) or 0 :]


def _closed(file: IOBase) -> None:
    with suppress(OSError):  # all was flushed, or there is an error already: the disk is full, say
        file.close()


def _gone(draft: str, folder: int) -> None:
    with suppress(FileNotFoundError):  # it has been renamed
        os.unlink(draft, dir_fd=folder)


class _Refused(Exception):
    """The reason why a file is not used."""


def _why(error: OSError | ValueError | _Refused) -> str:
    if isinstance(error, OSError):
        return "it is a link" if error.errno == errno.ELOOP else str(error.strerror)
    return str(error)
