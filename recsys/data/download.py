"""MovieLens from its home, for users who are online: ``secagg`` never downloads anything unasked.

The archive must be the one that we know, by its SHA-256 (GroupLens publishes MD5 sums; the SHA-256 here are those that
TensorFlow Datasets pins). Of it only plain files directly in its one folder are unpacked, up to a size, into a new
folder that gets its name when it is whole. So there is never a half of a data set, and no file outside the folder.
The licence is in the archive's README: research, no redistribution.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from secagg.errors import StorageError, UsageError
from secagg.files import writing

_CHUNK = 1 << 20
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Archive:
    """Where a data set is, what it must be, and how much it may unpack to."""

    url: str
    sha256: str
    bytes: int
    bytes_unpacked: int


_HOME = "https://files.grouplens.org/datasets/movielens"

ARCHIVES = {
    "ml-latest-small": Archive(
        f"{_HOME}/ml-latest-small.zip",
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        978_202,
        10 << 20,
    ),
    "ml-100k": Archive(
        f"{_HOME}/ml-100k.zip",
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        4_924_029,
        100 << 20,
    ),
    "ml-1m": Archive(
        f"{_HOME}/ml-1m.zip",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        5_917_549,
        100 << 20,
    ),
    "ml-25m": Archive(
        f"{_HOME}/ml-25m.zip",
        "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        261_978_986,
        2 << 30,
    ),
}


def fetch(name: str, folder: str | Path) -> Path:
    """The folder of the data set ``name`` within ``folder``; downloaded if it is not there yet.

    >>> fetch("ml-2m", "data")
    Traceback (most recent call last):
    secagg.errors.UsageError: there is no data set ml-2m, only ml-latest-small, ml-100k, ml-1m, ml-25m
    """
    if name not in ARCHIVES:
        raise UsageError(f"there is no data set {name}, only {', '.join(ARCHIVES)}")
    return fetch_archive(name, ARCHIVES[name], Path(folder))


def fetch_archive(name: str, archive: Archive, folder: Path) -> Path:
    """As ``fetch``, for any archive with one folder in it."""
    target = folder / name
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as draft:
            packed, unpacked = Path(draft) / "archive.zip", Path(draft) / name
            _download(archive, packed)
            unpacked.mkdir()
            _unpack(archive, packed, unpacked)
            unpacked.rename(target)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}") from None
    return target


def _download(archive: Archive, path: Path) -> None:
    digest, size = hashlib.sha256(), 0
    with writing(path, private=False) as file:
        try:
            with urlopen(archive.url, timeout=_SECONDS) as response:  # noqa: S310 the URL is ours, not the user's
                while (chunk := response.read(_CHUNK)) and size <= archive.bytes:
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
        except HTTPError as error:
            error.close()
            raise UsageError(f"{archive.url} cannot be downloaded: {error.code} {error.reason}") from None
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise UsageError(f"{archive.url} cannot be downloaded ({reason}): are you online?") from None
    if size != archive.bytes or digest.hexdigest() != archive.sha256:
        raise UsageError(f"{archive.url} is not the file that it should be: its size or SHA-256 is another")


def _unpack(archive: Archive, packed: Path, folder: Path) -> None:
    left = archive.bytes_unpacked
    try:
        with zipfile.ZipFile(packed) as archived:
            for entry in archived.infolist():
                parts = PurePosixPath(entry.filename).parts
                if entry.is_dir() or len(parts) != 2 or ".." in parts or "\\" in entry.filename:
                    continue
                if (path := folder / parts[1]).exists():
                    raise zipfile.BadZipFile
                with archived.open(entry) as source, writing(path, private=False) as file:
                    left -= _copy(source, file, left)
    except zipfile.BadZipFile:
        raise UsageError(f"{archive.url} is not an archive with one folder") from None


def _copy(source: IO[bytes], file: IO[bytes], limit: int) -> int:
    """What an entry says of its size is not believed."""
    copied = 0
    while chunk := source.read(_CHUNK):
        copied += len(chunk)
        if copied > limit:
            raise UsageError("the archive unpacks to more than it may")
        file.write(chunk)
    return copied
