"""What both sides compute from the plan and the adverts, and what both check."""

from __future__ import annotations

from collections.abc import Sequence

from all_or_nothing.messages import ADVERT, Advert
from protocols.plan import RoundPlan
from protocols.roster import Number, Roster, known_client
from secagg.codec import u32
from secagg.crypto.keys import check_agreement_key, derive, digest, verify

SIGNED, ROOT, MASK = (b"example/all-or-nothing/" + name for name in (b"advert", b"root", b"mask"))
"""Labels: one for each purpose. Those of protocols in the library stand in ``secagg.crypto.labels``."""


def signed_parts(plan: RoundPlan, client: Number, key: bytes) -> tuple[bytes, ...]:
    return (plan.digest(), u32.encode(client), key)


def check_advert(plan: RoundPlan, roster: Roster, advert: Advert) -> None:
    known_client(roster, advert.client)
    name = roster.names[advert.client]
    check_agreement_key(advert.key, culprit=name)
    signed = signed_parts(plan, advert.client, advert.key)
    verify(roster.keys[advert.client], advert.signature, SIGNED, *signed, culprit=name)


def root_of(plan: RoundPlan, adverts: Sequence[Advert]) -> bytes:
    return digest(ROOT, plan.digest(), *map(ADVERT.encode, adverts))


def pair_seed(agreed: bytes, plan: RoundPlan, root: bytes, u: Number, v: Number) -> bytes:
    """The mask that u and v share; the lower number adds it, the higher subtracts it."""
    return derive(agreed, MASK, plan.digest(), root, u32.encode(min(u, v)), u32.encode(max(u, v)))
