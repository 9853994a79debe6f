"""The deployment's signature on a folder for devices: beside its manifest, on the SHA-256 of that.

    signature.json   the folder's number, and the signature (``secagg.signed_versions``)

A device that has the deployment's name and key takes no other folder, and one that also keeps the newest number that it
took goes back to none that is older. A folder is taken when all of it was read and has recommended something: one that
was damaged on its way leaves the device with what it had.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from recsys.edge.folder import SIGNATURE, read_manifest
from secagg.errors import DecodeError
from secagg.files import read_file
from secagg.foreign import as_declared, parse_json
from secagg.signed_versions import Seen, Signatory, Signer, Version, What, check_not_older, remember, remembered

_MOST = 1 << 10


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """What a deployment signed of a folder: its number and the SHA-256 of its manifest."""

    signatory: Signatory
    number: int
    sha256: str

    def keep(self, newest: Path) -> None:
        """Remember the number in this file of the device's own, among those of other deployments."""
        known, this = remembered(newest), Seen(self.number, bytes.fromhex(self.sha256))
        check_not_older(What.FOLDER, this.number, this.digest, known.get(str(self.signatory)))
        remember(newest, {**known, str(self.signatory): this})


def signing(signer: Signer, number: int | None = None) -> Callable[[bytes], bytes]:
    """What makes the content of ``signature.json`` for a manifest: the deployment's next version, or that with this
    number."""

    def sign(manifest: bytes) -> bytes:
        version = signer.sign(What.FOLDER, sha256(manifest).digest(), number)
        return json.dumps({"number": version.number, "signature": version.signature.hex()}).encode()

    return sign


def signed(folder: Path, signatory: Signatory, newest: Path | None = None) -> SignedManifest:
    """The manifest of a folder that this deployment signed. ``PolicyError`` if it is another's, or older than what is
    remembered in ``newest``. That nothing else in the folder was altered is for whoever reads it under this SHA-256."""
    _, found = read_manifest(folder)
    digest, version = bytes.fromhex(found), _version_in(folder)
    number = signatory.check(What.FOLDER, version, digest)
    if newest is not None:
        check_not_older(What.FOLDER, number, digest, remembered(newest).get(str(signatory)))
    return SignedManifest(signatory, number, found)


def _version_in(folder: Path) -> Version | None:
    try:
        found: Version = as_declared(Version, parse_json(read_file(folder / SIGNATURE, most=_MOST)), SIGNATURE)
    except FileNotFoundError:
        return None
    except DecodeError as error:
        raise DecodeError(f"{folder / SIGNATURE} is no signature: {error}") from None
    return found
