"""The one set of clients whose vectors are in a sum, and the consistency signatures on it.

Who has signed a set of survivors signs no other in that round, and reveals nothing but for a set that enough have
signed: Bonawitz et al.'s consistency check. What privacy accounting needs of a round is what was signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dp.secure_sum import SecureSum, Signed
from protocols.plan import RoundPlan
from protocols.roster import Number, Roster, known_client
from protocols.rounds.sets import from_bitmap
from secagg.codec import Codec, fixed, many, struct, u32
from secagg.crypto import labels
from secagg.crypto.keys import SIGNATURE_BYTES, verify


@dataclass(frozen=True, slots=True)
class ConsistencySignature:
    """Client to server: its signature on the set of survivors."""

    signature: bytes


@dataclass(frozen=True, slots=True)
class SignedBy:
    """Server to client, in a list: the signature of one client, named by its position in the cohort (in ``oneshot`` by
    its number in the roster)."""

    signer: int
    signature: bytes


SIGNATURE = struct(ConsistencySignature, signature=fixed(SIGNATURE_BYTES))


SIGNED_BY = struct(SignedBy, signer=u32, signature=fixed(SIGNATURE_BYTES))


def signatures(most: int) -> Codec[Any]:
    """Of up to so many clients."""
    return many(SIGNED_BY, most)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What is signed. ``root`` names the cohort and all that was added up, ``bitmap`` says who of ``size`` clients is
    in the sum, and ``digest`` binds both to the plan."""

    root: bytes
    size: int
    bitmap: bytes
    digest: bytes

    @property
    def survivors(self) -> frozenset[int]:
        """The set, made anew from its bitmap: a set of thousands is not worth keeping in thousands of clients."""
        return from_bitmap(self.bitmap, range(self.size))


NOBODY = Agreed(b"", 0, b"", b"")
"""Nothing is agreed on yet."""


def check_consistency(roster: Roster, client: Number, signature: bytes, agreed: bytes) -> None:
    """A client's signature on what is agreed on."""
    known_client(roster, client)
    verify(roster.keys[client], signature, labels.SURVIVORS, agreed, culprit=roster.names[client])


def agreed_sum(plan: RoundPlan, roster: Roster, agreed: Agreed, signed: Mapping[Number, bytes]) -> SecureSum:
    """What was signed, and by whom, as privacy accounting needs it."""
    signatures = [Signed(roster.names[number], roster.keys[number], signed[number]) for number in sorted(signed)]
    count = len(agreed.survivors)
    return plan.secure_sum(count, cohort=agreed.root, bitmap=agreed.bitmap, signatures=signatures, members=roster.names)
