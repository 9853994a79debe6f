"""Who takes part: long-term identities, and the roster of their public keys that the deployment hands out.

The roster never comes from the aggregation server; its digest is part of every plan. A client's number is its place
in the roster, which is sorted by name. Where clients join and leave, the deployment numbers and signs each roster
(``secagg.signed_versions``): then it may come on any way, and a client refuses to go back to an older one.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NewType

from secagg.at_rest import Keyring, read_sealed
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, SigningKey, check_on_curve, check_signing_key, digest
from secagg.crypto.prg import Rng
from secagg.errors import AtRestError, DecodeError, PeerError, StorageError, UsageError
from secagg.files import create_file
from secagg.foreign import as_declared, named_file, parse_toml
from secagg.signed_versions import Signer, Version, What

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_ROSTER_BYTES = 1 << 27
"""At most in a file; a million clients fit a roster."""


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} is not a client name (1 to 64 letters, digits, . _ @ -, starting with one of the first two)"
        )
    return name


Number = NewType("Number", int)
"""Which client of the roster it is, the first in the order of names being 0."""

IDENTITY = "an identity"
"""What an identity's file is sealed as."""

SERVER = "server"
"""How the server is named among culprits."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A client's name and its Ed25519 key, or those of a deployment that signs."""

    name: str
    key: SigningKey = field(repr=False)

    def __post_init__(self) -> None:
        _checked_name(self.name)

    @classmethod
    def generate(cls, name: str, rng: Rng = os.urandom) -> Identity:
        return cls(name, SigningKey(rng(KEY_BYTES)))

    def save(self, path: str | Path, keys: Keyring | None = None) -> None:
        """Write a new file that only its owner can read, sealed at rest if there are ``keys``; an existing one is never
        overwritten."""
        text = (
            f'# A secagg identity. Keep this file secret.\nname = "{self.name}"\nsecret = "{self.key.secret.hex()}"\n'
        )
        _write_new(path, text.encode() if keys is None else keys.seal(text.encode(), IDENTITY), private=True)

    @classmethod
    def load(cls, path: str | Path, keys: Keyring | None = None) -> Identity:
        """From a file that is this user's and closed to all others; any other is refused (``secagg.files``)."""
        try:
            data = read_sealed(Path(path), keys, IDENTITY, private=True)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        except AtRestError:
            raise
        except StorageError as error:
            raise UsageError(str(error)) from None
        table = _read_toml(path, data)
        if set(table) != {"name", "secret"} or not isinstance(table["name"], str):
            raise DecodeError(f"{path} is not an identity file")
        return cls(table["name"], SigningKey(_key(table["secret"], path)))


@dataclass(frozen=True, slots=True)
class Roster:
    """Names and identity keys, sorted by name.

    >>> alice, bob = (Identity.generate(name) for name in ("alice", "bob"))
    >>> roster = Roster.of([bob, alice])
    >>> roster.names, roster.number("bob")
    (('alice', 'bob'), 1)
    """

    names: tuple[str, ...]
    keys: tuple[bytes, ...] = field(repr=False)
    version: Version | None = field(default=None, compare=False)
    """Its number, and the deployment's signature on that and on the digest of the whole roster."""
    digest: bytes = field(init=False, repr=False)
    whole: bytes = field(init=False, repr=False, compare=False)
    """The digest of the roster of which this one is a ``part``, or of this one: what was signed."""

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.keys):
            raise UsageError("a roster needs at least one client, each with one key")
        for name in self.names:
            _checked_name(name)
        if any(a >= b for a, b in pairwise(self.names)):
            raise UsageError("a roster is sorted by name and names nobody twice")
        if len(set(self.keys)) != len(self.keys) or any(len(key) != KEY_BYTES for key in self.keys):
            raise UsageError("every client in a roster has a 32-byte key of its own")
        for name, key in zip(self.names, self.keys, strict=True):
            try:
                check_signing_key(key, culprit=name)
            except PeerError as error:
                raise UsageError(f"a roster with an {error}") from None
        parts = [part for name, key in zip(self.names, self.keys, strict=True) for part in (name.encode(), key)]
        object.__setattr__(self, "digest", digest(labels.ROSTER, *parts))
        object.__setattr__(self, "whole", self.digest)

    @classmethod
    def build(cls, keys: Mapping[str, bytes]) -> Roster:
        names = tuple(sorted(keys))
        return cls(names, tuple(keys[name] for name in names))

    @classmethod
    def of(cls, identities: list[Identity]) -> Roster:
        if len({identity.name for identity in identities}) != len(identities):
            raise UsageError("two identities have the same name")
        return cls.build({identity.name: identity.key.public for identity in identities})

    def signed(self, signer: Signer, number: int | None = None) -> Roster:
        """The same roster as the deployment's next version, or as that of this number.

        >>> from tempfile import TemporaryDirectory
        >>> alice, bob, hospitals = (Identity.generate(name) for name in ("alice", "bob", "hospitals"))
        >>> with TemporaryDirectory() as folder:
        ...     signer = Signer(hospitals.name, hospitals.key, Path(folder) / "hospitals.versions")
        ...     [Roster.of(members).signed(signer).version.number for members in ([alice], [alice, bob])]
        [1, 2]
        """
        return replace(self, version=signer.sign(What.ROSTER, self.digest, number))

    def part(self, names: Iterable[str]) -> Roster:
        """The roster of these of its clients, drawn by lot, say. It is signed as the whole is."""
        drawn = Roster.build({name: self.keys[self.number(name)] for name in names})
        object.__setattr__(drawn, "version", self.version)
        object.__setattr__(drawn, "whole", self.whole)
        return drawn

    def __len__(self) -> int:
        return len(self.names)

    def number(self, name: str) -> Number:
        at = bisect_left(self.names, name)
        if at == len(self.names) or self.names[at] != name:
            raise UsageError(f"{name!r} is not in the roster")
        return Number(at)

    def save(self, path: str | Path) -> None:
        if self.whole != self.digest:
            raise UsageError("a part of a roster is drawn anew from the whole, and not written")
        lines = ["# A secagg roster: names and Ed25519 public keys."]
        if self.version is not None:
            lines += ["[version]", f"number = {self.version.number}", f'signature = "{self.version.signature.hex()}"']
        lines += ["[clients]", *[f'"{name}" = "{key.hex()}"' for name, key in zip(self.names, self.keys, strict=True)]]
        _write_new(path, ("\n".join(lines) + "\n").encode(), private=False)

    @classmethod
    def load(cls, path: str | Path) -> Roster:
        """From a file; each key is a point of the curve, which takes a fifth of a millisecond to see. Whose signature
        there is, if any, is for a ``Policy`` to say."""
        table = _read_toml(path, named_file(Path(path), most=_ROSTER_BYTES))
        clients = table.get("clients")
        if not {"clients"} <= set(table) <= {"clients", "version"} or not isinstance(clients, dict):
            raise DecodeError(f"{path} is not a roster file")
        version: Version | None = as_declared(Version, table["version"], "version") if "version" in table else None
        keys = {name: _key(value, path) for name, value in clients.items()}
        for name, key in keys.items():
            try:
                check_on_curve(key, culprit=name)
            except PeerError as error:
                raise DecodeError(f"{path}: {error}") from None
        return replace(cls.build(keys), version=version)


def load_signer(path: str | Path, keys: Keyring | None = None) -> Signer:
    """Who signs for the deployment whose name and key are in this identity file. What it signed last is remembered in a
    file beside it, of the same name and ``.versions``: keep the two together."""
    identity = Identity.load(path, keys)
    return Signer(identity.name, identity.key, Path(f"{path}.versions"))


def known_client(roster: Roster, number: Number) -> None:
    """Refuse a number that no client of the roster has."""
    if number >= len(roster):
        raise PeerError(f"client number {number} is not in the roster")


def _write_new(path: str | Path, data: bytes, *, private: bool) -> None:
    """An existing file is never overwritten."""
    try:
        made = create_file(Path(path), data, private=private)
    except StorageError as error:
        raise UsageError(str(error)) from None
    if not made:
        raise UsageError(f"cannot write {path}: it exists already")


def _read_toml(path: str | Path, data: bytes) -> dict[str, object]:
    try:
        return parse_toml(data)
    except DecodeError:
        raise DecodeError(f"{path} is not a TOML file") from None


def _key(value: object, path: str | Path) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise DecodeError(f"{path} holds a key that is not 64 hexadecimal digits")
    return bytes.fromhex(value)
