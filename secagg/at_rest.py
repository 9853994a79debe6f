"""Files sealed at rest: encrypted and authenticated under a key that lies somewhere else.

    magic (8) | id of the key (8) | folder (16) | salt (32) | length of the name (2) | name | chunk | chunk | ...

Each chunk is up to a mebibyte of the text under AES-256-GCM, in the STREAM construction (Hoang, Reyhanitabar, Rogaway
and Vizar 2015, as in Tink's AES-GCM-HKDF-Streaming): its nonce is its number, and whether it is the last one. The key
of a file follows by HKDF from a master key, a salt drawn for this one writing, the folder and the name. So no nonce
comes twice under a key, also after a crash or in a copy of the machine; and chunks that are exchanged, left out or of
another file do not open, nor does a file under the name of another, or in another folder. An older version of a file
does open in its own place: who has to notice that remembers a ledger's head.

A **keyring** has master keys of 32 bytes: the newest seals, all of them open. What is wrong is told apart:

    FileNotFoundError   there is no such file
    SealedError         it is sealed, and no key was given
    WrongKeyError       it is sealed under a key that is not in the ring; the text has the key's id
    UnsealedError       it is not sealed, and a key was given: somebody may have put it there
    AlteredError        it was altered, cut short, or is another file, or of another folder

Nothing of a file is handed out before all of it is authenticated. The text is in memory once, with a chunk of either
kind beside it. Names, lengths, times and ids of keys are seen by whoever sees the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol, Self, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, derive, hkdf, transcript
from secagg.errors import AlteredError, SealedError, StorageError, UnsealedError, UsageError, WrongKeyError
from secagg.files import DRAFT, alone, read_private, reading, said, write_file, writing

CHUNK = 1 << 20
"""Bytes of the text in each chunk but the last."""
KEY_FILE, KEYS = "SECAGG_AT_REST_KEY_FILE", "SECAGG_AT_REST_KEYS"
"""The environment's names for the path of a file with keys, and for keys themselves, in hexadecimal with commas."""

_MAGIC = b"\xc2secagg\x01"
_ID_BYTES, _FOLDER_BYTES, _SALT_BYTES, _LENGTH_BYTES, _TAG_BYTES = 8, 16, 32, 2, 16
_FIXED_BYTES = len(_MAGIC) + _ID_BYTES + _FOLDER_BYTES + _SALT_BYTES + _LENGTH_BYTES
_MOST_NAME = 1 << 10
_MOST_CHUNKS = 1 << 32
_KEY = re.compile(r"[0-9a-fA-F]{64}")
_NAMED = 3
"""Files, in a line: one of each folder."""
NO_FOLDER = bytes(_FOLDER_BYTES)


class Writes(Protocol):
    """What takes the bytes of a file."""

    def write(self, data: bytes | memoryview, /) -> object: ...


class Keyring:
    """Master keys, the newest first.

    >>> old, new = bytes(32), bytes(range(32))
    >>> sealed = Keyring([old]).seal(b"a text", "a name")
    >>> Keyring([new, old]).open(sealed, "a name")
    b'a text'
    >>> Keyring([new]).open(sealed, "a name")
    Traceback (most recent call last):
    secagg.errors.WrongKeyError: a name is sealed under key a1e104b2c1644f53, which is not among those given
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = {_id_of(key): key for key in keys}
        if not self._keys or any(len(key) != KEY_BYTES for key in self._keys.values()):
            raise UsageError(f"a keyring has one or more keys of {KEY_BYTES} bytes")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From a private file: keys in hexadecimal, one a line, the newest first; lines that begin with # are for
        people."""
        try:
            data = read_private(Path(path))
        except FileNotFoundError:
            raise UsageError(f"there is no file of keys at {path}") from None
        lines = [line.strip() for line in data.decode(errors="replace").splitlines()]
        return cls(_keys_in([line for line in lines if line and not line.startswith("#")], str(path)))

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """The keys that the environment gives or names; None if neither is set. Never both: one would be forgotten. One
        that is set and empty is refused: a secret that did not arrive would leave everything plain."""
        file, keys = environment.get(KEY_FILE), environment.get(KEYS)
        if file is not None and keys is not None:
            raise UsageError(f"the environment has both {KEY_FILE} and {KEYS}: which one is meant?")
        if "" in (file, keys):
            raise UsageError(f"{KEYS if file is None else KEY_FILE} is set, and empty: unset it if all is to be plain")
        if file is not None:
            return cls.load(file)
        return None if keys is None else cls(_keys_in(keys.split(","), KEYS))

    @property
    def newest(self) -> str:
        """The id of the key that seals."""
        return next(iter(self._keys)).hex()

    def seal(self, data: bytes, name: str, folder: bytes = NO_FOLDER) -> bytes:
        """A short text, sealed in memory."""
        out = BytesIO()
        sealing = Sealing(out, self, name, folder)
        sealing.write(data)
        sealing.finish()
        return out.getvalue()

    def open(self, data: bytes, name: str, folder: bytes = NO_FOLDER) -> bytes:
        """What was sealed under this name."""
        return opened(BytesIO(data), self, name, folder, len(data))

    def under_newest(self, data: bytes) -> bool:
        """Whether this begins as something does that the newest key has sealed."""
        return data.startswith(_MAGIC + bytes.fromhex(self.newest))

    def _one(self, key_id: bytes) -> bytes | None:
        return self._keys.get(key_id)

    def _all(self) -> Iterable[bytes]:
        return self._keys.values()

    def __repr__(self) -> str:
        return f"Keyring({', '.join(key_id.hex() for key_id in self._keys)})"


def add_key(path: Path) -> None:
    """Draw a new master key, and put it on top of a private file of keys, which is made if it does not exist.

    One process at a time: a key that another one put there meanwhile, and has sealed with, must not be lost.
    """
    with alone(path.parent):
        try:
            before = read_private(path).decode()
            Keyring.load(path)
        except FileNotFoundError:
            before = ""
        write_file(path, f"{os.urandom(KEY_BYTES).hex()}\n{before}".encode(), private=True)


def is_sealed(data: bytes) -> bool:
    """Whether this begins as a sealed file does."""
    return data.startswith(_MAGIC)


def sealed_as(data: bytes) -> str | None:
    """Under which name a sealed file was sealed, as its start says; None of any other. It is not authenticated."""
    return _Head.decode(data)[0].name if is_sealed(data) else None


def open_if_sealed(data: bytes, keys: Keyring | None, name: str) -> bytes:
    """A short text that is sealed if there are keys, and plain if there are none; anything else is refused."""
    if keys is not None:
        return keys.open(data, name)
    if is_sealed(data):
        raise _no_key(name)
    return data


class Sealing:
    """Takes a text piece by piece, and writes it sealed into a file. ``finish`` ends it: without, it does not open."""

    def __init__(self, file: Writes, keys: Keyring, name: str, folder: bytes = NO_FOLDER) -> None:
        head = _Head(bytes.fromhex(keys.newest), folder, os.urandom(_SALT_BYTES), name)
        self._file, self._cipher = file, head.cipher(next(iter(keys._all())), name, folder)
        self._held, self._room, self._number = bytearray(), memoryview(bytearray()), 0
        file.write(head.encode())

    def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data).cast("B")
        while len(rest):
            if not self._held and len(rest) > CHUNK:  # the last one is known at the end only
                self._put(rest[:CHUNK], last=False)
                rest = rest[CHUNK:]
            elif len(self._held) == CHUNK:
                self._put(self._held, last=False)
                self._held.clear()
            else:
                fits = CHUNK - len(self._held)
                self._held += rest[:fits]
                rest = rest[fits:]

    def finish(self) -> None:
        self._put(self._held, last=True)

    def _put(self, text: bytearray | memoryview, *, last: bool) -> None:
        size = len(text) + _TAG_BYTES
        if len(self._room) < size:
            self._room = memoryview(bytearray(size))
        self._cipher.encrypt_into(_nonce(self._number, last), text, None, self._room[:size])
        self._file.write(self._room[:size])
        self._number += 1


def opened(file: BinaryIO, keys: Keyring, name: str, folder: bytes, size: int) -> bytes:
    """The text of a sealed file of ``size`` bytes, of which all was authenticated."""
    start = file.read(_FIXED_BYTES + _MOST_NAME)
    head, at = _Head.decode(start)
    file.seek(at)
    text, room, number = BytesIO(), memoryview(bytearray(min(CHUNK, max(size - at, 0)))), 0
    data = memoryview(bytearray(len(room) + _TAG_BYTES))
    left = size - at
    master = keys._one(head.key_id) if head.magic == _MAGIC else None
    if master is None or left < _TAG_BYTES or (head.name, head.folder) != (name, folder):
        raise _what_is_wrong(file, start, keys, name, folder)
    cipher = head.cipher(master, name, folder)
    while left:
        part = data[: min(left, CHUNK + _TAG_BYTES)]
        if file.readinto(part) != len(part):  # type: ignore[attr-defined]  # of every binary file
            raise AlteredError(f"{name} was cut short while it was read")
        left -= len(part)
        out = room[: max(len(part) - _TAG_BYTES, 0)]
        try:
            cipher.decrypt_into(_nonce(number, not left), part, None, out)
        except (InvalidTag, ValueError):
            if number:
                raise AlteredError(f"{name} was altered, or cut short") from None
            raise _what_is_wrong(file, start, keys, name, folder) from None
        text.write(out)
        number += 1
    return text.getvalue()


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands before the chunks. It is authenticated by the key that follows from it."""

    key_id: bytes
    folder: bytes
    salt: bytes
    name: str
    magic: bytes = _MAGIC

    def encode(self) -> bytes:
        name = self.name.encode()
        if len(name) > _MOST_NAME:
            raise UsageError(f"the name of a sealed file has at most {_MOST_NAME} bytes")
        return b"".join([self.magic, self.key_id, self.folder, self.salt, len(name).to_bytes(_LENGTH_BYTES), name])

    @classmethod
    def decode(cls, data: bytes) -> tuple[_Head, int]:
        """The head at the start of this, and where it ends; of something else it is nonsense, which opens nothing."""
        parts, at = [], 0
        for length in (len(_MAGIC), _ID_BYTES, _FOLDER_BYTES, _SALT_BYTES, _LENGTH_BYTES):
            parts.append(data[at : at + length])
            at += length
        magic, key_id, folder, salt, length_of_name = parts
        end = at + int.from_bytes(length_of_name)
        return cls(key_id, folder, salt, data[at:end].decode(errors="replace"), magic), end

    def cipher(self, master: bytes, name: str, folder: bytes) -> AESGCM:
        """The cipher of a file of this salt, name and folder."""
        info = transcript(labels.AT_REST, self.magic, folder, name.encode())
        return AESGCM(hkdf(master, salt=self.salt, info=info, length=KEY_BYTES))


def _nonce(number: int, last: bool) -> bytes:
    if number >= _MOST_CHUNKS:
        raise StorageError("a sealed file has at most 2^32 chunks")
    return bytes(7) + number.to_bytes(4) + bytes([last])


def _what_is_wrong(file: BinaryIO, start: bytes, keys: Keyring, name: str, folder: bytes) -> StorageError:
    """Why the first chunk does not open as it should: whichever change of the head makes it open is what is wrong."""
    head, at = _Head.decode(start)
    file.seek(at)
    chunk = file.read(CHUNK + _TAG_BYTES)
    right = _Head(head.key_id, head.folder, head.salt, head.name)
    for master in keys._all():
        if _opens(right.cipher(master, name, folder), chunk):
            if (head, master) == (_Head(head.key_id, folder, head.salt, name), keys._one(head.key_id)):
                return AlteredError(f"{name} was cut short")
            return AlteredError(f"{name} was altered: its first bytes, which say what it is and under which key")
        if head == right and _opens(right.cipher(master, head.name, head.folder), chunk):
            if head.name != name:
                return AlteredError(f"{name} is another file, put in its place: it was sealed as {head.name}")
            return AlteredError(f"{name} is of another folder, and was put into this one")
    if head.magic != _MAGIC:
        return UnsealedError(f"{name} is not sealed, and a key was given: secagg seal, if you know whose it is")
    if keys._one(head.key_id) is None:
        return WrongKeyError(f"{name} is sealed under key {head.key_id.hex()}, which is not among those given")
    return AlteredError(f"{name} was altered, or cut short")


def _opens(cipher: AESGCM, chunk: bytes) -> bool:
    for last in (True, False):
        with suppress(InvalidTag, ValueError):
            cipher.decrypt(_nonce(0, last), chunk, None)
            return True
    return False


def _no_key(name: str | Path) -> SealedError:
    return SealedError(f"{name} is sealed, and no key was given: {KEY_FILE} names the file that has it")


def _id_of(key: bytes) -> bytes:
    return derive(key, labels.AT_REST, b"id")[:_ID_BYTES]


def _keys_in(texts: list[str], where: str) -> list[bytes]:
    if not texts or not all(_KEY.fullmatch(text.strip()) for text in texts):
        raise UsageError(f"{where} has something else than keys of 64 hexadecimal digits")
    return [bytes.fromhex(text.strip()) for text in texts]


# Files


def read_sealed(
    path: Path,
    keys: Keyring | None,
    name: str,
    folder: bytes = NO_FOLDER,
    *,
    private: bool = False,
    most: int | None = None,
) -> bytes:
    """The bytes of a file that is sealed if there are keys, and plain if there are none; anything else is refused."""
    with reading(path, private=private) as (file, status):
        if most is not None and status.st_size > most:
            raise StorageError(f"cannot read {path}: it is longer than {most} bytes")
        if keys is not None:
            try:
                return opened(file, keys, name, folder, status.st_size)
            except StorageError as error:
                raise type(error)(f"{path}: {error}") from None
        data = file.read(status.st_size + 1)
    if len(data) > status.st_size:
        raise StorageError(f"cannot read {path}: it grows")
    if is_sealed(data):
        raise _no_key(path)
    return data


class Folder:
    """A folder, and the keys under which all that is in it is sealed; without keys all of it is plain.

    Files are called by their names below the folder, and bound to these and to the folder: to a number that the first
    file drew, and that all others have, too.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     folder = Folder(place, Keyring([bytes(32)]))
    ...     folder.write("a", b"one ", b"two", private=True)
    ...     folder.read("a"), b"one" in (folder / "a").read_bytes()
    (b'one two', False)
    """

    def __init__(self, path: str | Path, keys: Keyring | None = None) -> None:
        self.path, self.keys = Path(path), keys
        self._number, self._above, self._prefix = b"", self, ""

    @classmethod
    def of(cls, folder: AnyFolder) -> Folder:
        """The folder at a path, whose files are plain; or one that is a ``Folder`` already."""
        return folder if isinstance(folder, Folder) else cls(folder)

    def within(self, name: str) -> Folder:
        """A folder in this one, whose files are of this one, and are called by where they are in it."""
        inner = Folder(self.path / name, self.keys)
        inner._above, inner._prefix = self._above, f"{self._prefix}{name}/"
        return inner

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __str__(self) -> str:
        return str(self.path)

    def exists(self, name: str) -> bool:
        return (self.path / name).exists()

    def read(self, name: str, *, most: int | None = None, private: bool = False) -> bytes:
        """The bytes of a plain file and no link; ``FileNotFoundError`` if it does not exist."""
        number = self._above._folder()
        return read_sealed(self / name, self.keys, f"{self._prefix}{name}", number, private=private, most=most)

    def write(self, name: str, *pieces: bytes | memoryview, private: bool) -> None:
        """Replace a file by these pieces. After a crash it is the old one or the new one (``secagg.files``)."""
        with self.writing(name, private=private) as file, said("write", self / name):
            for piece in pieces:
                file.write(piece)

    def create(self, name: str, data: bytes, *, private: bool) -> bool:
        """Like ``write``, but a file that exists stays as it is, and then this returns False."""
        try:
            with self.writing(name, private=private, replace=False) as file, said("write", self / name):
                file.write(data)
        except FileExistsError:
            return False
        return True

    @contextmanager
    def writing(self, name: str, *, private: bool, replace: bool = True) -> Iterator[Writes]:
        """A file to write into, which gets its name when the context ends without an error."""
        with writing(self / name, private=private, replace=replace) as file:
            if self.keys is None:
                yield file
                return
            sealing = Sealing(file, self.keys, f"{self._prefix}{name}", self._above._folder())
            yield sealing
            with said("write", self / name):
                sealing.finish()

    def _folder(self) -> bytes:
        """The number that all sealed files here have."""
        if self.keys is None:
            return NO_FOLDER
        if not self._number:
            heads = ((path, _head_of(path)) for path in files_in(self.path))
            found = {head.folder: path for path, head in heads if head is not None and head.folder != NO_FOLDER}
            if len(found) > 1:
                some = ", ".join(str(path.relative_to(self.path)) for path in sorted(found.values())[:_NAMED])
                raise AlteredError(f"{self} has sealed files of several folders, or one was altered: {some}")
            self._number = next(iter(found)) if found else os.urandom(_FOLDER_BYTES)
        return self._number


AnyFolder: TypeAlias = "str | Path | Folder"


def files_in(folder: Path) -> list[Path]:
    """All plain files in a folder and those in it, without drafts, in the order of their names."""
    found = []
    for place, _, names in os.walk(folder):
        paths = (Path(place) / name for name in names if not DRAFT.fullmatch(name))
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return sorted(found)


def _head_of(path: Path) -> _Head | None:
    """What stands at the start of a sealed file; None of any other."""
    try:
        with reading(path) as (file, _):
            start = file.read(_FIXED_BYTES + _MOST_NAME)
    except FileNotFoundError:
        return None
    return _Head.decode(start)[0] if is_sealed(start) else None
