"""The one way in which this library writes files and reads secret ones, safe in a folder that somebody else made.

A folder that was unpacked from a stranger's archive can hold symbolic links under any name that can be told beforehand.
So a file is written under a random name beside its place, which must not exist (``O_EXCL | O_NOFOLLOW``), brought to
the disk, and renamed; a place that holds anything but a plain file is refused. After a crash there is the old file or
the new one, and at worst a draft beside it, which nothing reads.

A secret is believed as ssh believes one: it is a plain file and no link, it belongs to this process's user (also where
that is root), and group and others may do nothing with it. POSIX access lists show in the bits of the group, so they
are seen. File systems that keep no modes or owners (Windows disks under WSL, a squashed NFS) are noticed when a secret
is written. What is not seen: access lists of NFSv4, whoever administers the machine or the file server, backups.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from secagg.errors import StorageError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in a file's place must not make us wait
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def write_file(path: Path, data: bytes, *, private: bool) -> None:
    """Replace a file so that after a crash it is the old one or the new one; on the disk when this returns.

    Everybody may read it, as far as the umask lets them, unless it is ``private``: then its owner alone.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a"
    ...     write_file(path, b"first", private=True)
    ...     write_file(path, b"second", private=True)
    ...     path.read_bytes(), oct(path.stat().st_mode & 0o777)
    (b'second', '0o600')
    """
    with writing(path, private=private) as file, _said("write", path):
        file.write(data)


def create_file(path: Path, data: bytes, *, private: bool) -> bool:
    """Like ``write_file``, but what is there already stays as it is, and then the answer is False."""
    try:
        with _drafted(path, private, replace=False) as file, _said("write", path):
            file.write(data)
    except FileExistsError:
        return False
    return True


@contextmanager
def writing(path: Path, *, private: bool) -> Iterator[BinaryIO]:
    """A file to write into, which gets its name once this is left without an error; else nothing of it stays."""
    with _drafted(path, private, replace=True) as file:
        yield file


def synced(folder: Path) -> None:
    """The names in a directory are on the disk when this returns."""
    with _said("write", folder), _opened(folder) as descriptor:
        os.fsync(descriptor)


def read_file(path: Path, *, most: int) -> bytes:
    """A plain file of at most so many bytes, no link; ``FileNotFoundError`` if nothing is there."""
    with _plain(path) as (descriptor, _), os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise StorageError(f"cannot read {path}: it is longer than {most} bytes")
    return data


def read_private(path: Path) -> bytes:
    """What a secret file holds; refused unless it is a plain file of this user, closed to everybody else.

    ``FileNotFoundError`` if nothing is there.
    """
    with _plain(path) as (descriptor, status), os.fdopen(descriptor, "rb", closefd=False) as file:
        _check_mine(status)
        return file.read()


def hold_private(path: Path) -> None:
    """There is a secret file of this user under that name, made empty where nothing was; anything else is refused.

    For libraries that open files by name, as SQLite does; what they put beside it gets its mode.
    """
    with _said("open", path), suppress(FileExistsError):
        os.close(os.open(path, _NEW, 0o600))
    with _plain(path) as (_, status):
        _check_mine(status)


def private_folder(path: Path) -> Path:
    """The same path, made a directory of this user and closed to everybody else; one that is neither is refused."""
    with _said("use", path):
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if not stat.S_ISDIR((status := path.lstat()).st_mode):
            raise _Refused("it is a link" if stat.S_ISLNK(status.st_mode) else "it is no directory")
        _check_mine(status)
    return path


# How it is done


@contextmanager
def _drafted(path: Path, private: bool, *, replace: bool) -> Iterator[BinaryIO]:
    """Errors of whoever writes into it are left as they are."""
    draft = f".{secrets.token_hex(8)}.draft"
    with ExitStack() as undo:
        with _said("write", path):
            folder = undo.enter_context(_opened(path.parent))
            _check_place(path.name, folder)
            file = os.fdopen(os.open(draft, _NEW, 0o600 if private else 0o644, dir_fd=folder), "wb")
            undo.callback(_gone, draft, folder)
            undo.enter_context(file)
            if private:
                _check_mine(os.fstat(file.fileno()))
        yield file
        with _said("write", path):
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
    """A plain file, opened for reading, and what is known of it."""
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {_why(error)}") from None
    try:
        with _said("read", path):
            if not stat.S_ISREG((status := os.fstat(descriptor)).st_mode):
                raise _Refused("it is no plain file")
            yield descriptor, status
    finally:
        os.close(descriptor)


def _check_place(name: str, folder: int) -> None:
    """A file may be replaced; a link, a directory or a device may not."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(mode := os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise _Refused("it is a link" if stat.S_ISLNK(mode) else "there is something else than a plain file")


def _check_mine(status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise _Refused(f"it belongs to another user ({status.st_uid}, and this process is of {os.geteuid()})")
    if loose := status.st_mode & 0o077:
        raise _Refused(f"others can get at it (mode {status.st_mode & 0o777:o}, of which {loose:o} must go: chmod go=)")


def _gone(draft: str, folder: int) -> None:
    with suppress(FileNotFoundError):  # it has its name
        os.unlink(draft, dir_fd=folder)


class _Refused(Exception):
    """Why a file is not used."""


@contextmanager
def _said(verb: str, path: Path) -> Iterator[None]:
    """Errors in one line; that there is something already is told apart."""
    try:
        yield
    except FileExistsError:
        raise
    except (OSError, ValueError, _Refused) as error:
        raise StorageError(f"cannot {verb} {path}: {_why(error)}") from None


def _why(error: OSError | ValueError | _Refused) -> str:
    if isinstance(error, OSError):
        return "it is a link" if error.errno == errno.ELOOP else str(error.strerror)
    return str(error)
