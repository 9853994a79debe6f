"""Numbered versions of what a deployment hands out, signed under its own key: models, rosters, models for devices.

Whoever passes such a thing on (a server, a mirror) can alter it, or hand out one that is over: last month's model, a
roster with a client in it that was thrown out. A version is a number and an Ed25519 signature on it, on the name of
the deployment, on a digest and on what this is the digest of (``What``, each under a label of its own). Who has the
deployment's name and public key (``Signatory``), from the deployment and on another way than the thing itself, refuses
what is unsigned, altered, of another deployment or of another kind. Who also remembers the newest that it took
(``Seen``) refuses an older one, and another one under the same number.

What it does not say: that there is no newer one, which a server may withhold; and that the signed thing is any good.
Where the key lies on the server, the signature is the server's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Lock

from secagg.codec import Codec, fixed, struct, u32
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, SIGNATURE_BYTES, SigningKey, check_on_curve, check_signing_key, verify
from secagg.errors import DecodeError, PeerError, PolicyError, StorageError, UsageError
from secagg.files import read_private, write_file
from secagg.foreign import as_declared, parse_json
from secagg.names import check_name

_DIGEST_BYTES = 32


class What(StrEnum):
    """What a version is of, in the words of a refusal."""

    MODEL = "model"
    ROSTER = "roster"
    FOLDER = "folder for devices"


_LABELS = {
    What.MODEL: labels.VERSION_MODEL,
    What.ROSTER: labels.VERSION_ROSTER,
    What.FOLDER: labels.VERSION_FOLDER,
}


@dataclass(frozen=True, slots=True)
class Version:
    """A number, and the deployment's signature on it and on what it is the number of."""

    number: int
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_number(self.number)
        if len(self.signature) != SIGNATURE_BYTES:
            raise UsageError(f"a signature has {SIGNATURE_BYTES} bytes")


VERSION: Codec[Version] = struct(Version, number=u32, signature=fixed(SIGNATURE_BYTES))


@dataclass(frozen=True, slots=True)
class Signatory:
    """A deployment that signs: its name and its public key, ``NAME=HEXKEY`` in files and commands.

    >>> key = SigningKey(bytes(32))
    >>> hospitals = Signatory("hospitals", key.public)
    >>> Signatory.parse(str(hospitals)) == hospitals
    True
    >>> hospitals.check(What.MODEL, signed(hospitals.name, key, What.MODEL, 7, b"m" * 32), b"m" * 32)
    7
    >>> hospitals.check(What.ROSTER, signed(hospitals.name, key, What.MODEL, 7, b"m" * 32), b"m" * 32)
    Traceback (most recent call last):
    secagg.errors.PolicyError: the roster is not signed by hospitals as its version 7
    """

    name: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_name("a deployment's name", self.name, most=64)
        if len(self.key) != KEY_BYTES:
            raise UsageError(f"a deployment's key has {KEY_BYTES} bytes")
        try:
            check_signing_key(self.key, culprit=self.name)
            check_on_curve(self.key, culprit=self.name)
        except PeerError as error:
            raise UsageError(str(error)) from None

    def __str__(self) -> str:
        return f"{self.name}={self.key.hex()}"

    @classmethod
    def parse(cls, text: str) -> Signatory:
        """From ``NAME=HEXKEY``, as ``secagg keys new`` prints both."""
        name, _, key = text.rpartition("=")
        try:
            return cls(name, bytes.fromhex(key))
        except ValueError:
            raise UsageError(f"{text[:200]!r} is not NAME=HEXKEY, with a key of 64 hexadecimal digits") from None

    def check(self, what: What, version: Version | None, digest: bytes) -> int:
        """The number of this version. ``PolicyError`` unless the deployment has signed it, of that."""
        if version is None:
            raise PolicyError(f"the {what} is not signed, and {self.name} signs its own")
        try:
            verify(self.key, version.signature, _LABELS[what], *_signed(self.name, version.number, digest))
        except PeerError:
            raise PolicyError(f"the {what} is not signed by {self.name} as its version {version.number}") from None
        return version.number


def signed(name: str, key: SigningKey, what: What, number: int, digest: bytes) -> Version:
    """The version that the deployment of this name and key signs. Nothing here remembers numbers: ``Signer`` does."""
    if len(digest) != _DIGEST_BYTES:
        raise UsageError(f"what is signed is a digest of {_DIGEST_BYTES} bytes")
    _check_number(number)
    return Version(number, key.sign(_LABELS[what], *_signed(name, number, digest)))


def _check_number(number: int) -> None:
    if not 0 < number < 1 << 32:
        raise UsageError(f"a version's number is between 1 and 2^32 - 1, not {number}")


def _signed(name: str, number: int, digest: bytes) -> tuple[bytes, bytes, bytes]:
    return name.encode(), u32.encode(number), digest


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest version of something that was accepted, or signed."""

    number: int
    digest: bytes


def check_not_older(what: What, number: int, digest: bytes, seen: Seen | None) -> bool:
    """``PolicyError`` if a version is older than the newest that was seen, or another under its number. Whether it is
    newer: the same one may come again."""
    if seen is None or number > seen.number:
        return True
    if number < seen.number:
        raise PolicyError(f"version {number} of the {what} is older than version {seen.number}, which was seen here")
    if digest != seen.digest:
        raise PolicyError(f"this is another {what} than the one that was seen here under the number {number}")
    return False


class Signer:
    """Signs for a deployment, each thing under a number above all that it gave to others of its kind.

    ``counted`` is the file in which it remembers the last of each kind, written before a signature is handed out. What
    was signed last gets the same version again. It is one process at a time that signs: two could give out one number
    twice, and clients would refuse the second.
    """

    def __init__(self, name: str, key: SigningKey, counted: Path) -> None:
        self.signatory = Signatory(name, key.public)
        self._key, self._counted, self._lock = key, counted, Lock()

    def model(self, digest: bytes) -> Version:
        """The version of the model with this digest (``RoundPlan.model``)."""
        return self.sign(What.MODEL, digest)

    def sign(self, what: What, digest: bytes, number: int | None = None) -> Version:
        """The next version, or that with this number. ``PolicyError`` if the number was given to another one, or is
        below one that was."""
        with self._lock:
            last = (known := remembered(self._counted)).get(what)
            if number is None:
                number = 1 if last is None else last.number + (digest != last.digest)
            version = signed(self.signatory.name, self._key, what, number, digest)
            if check_not_older(what, number, digest, last):
                remember(self._counted, {**known, what: Seen(number, digest)})
            return version


def remembered(path: Path) -> Mapping[str, Seen]:
    """What was kept in a file of one's own (``secagg.files.read_private``); nothing, if there is none yet."""
    try:
        data = read_private(path)
    except FileNotFoundError:
        return {}
    try:
        found: Mapping[str, Seen] = as_declared(Mapping[str, Seen], parse_json(data))
    except DecodeError:
        raise StorageError(f"{path} is not a file of versions") from None
    return found


def remember(path: Path, versions: Mapping[str, Seen]) -> None:
    kept = {name: asdict(one) | {"digest": one.digest.hex()} for name, one in versions.items()}
    write_file(path, json.dumps(kept, indent=1).encode(), private=True)
