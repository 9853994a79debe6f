"""Who is named: a client that hears a forgery hears it from the server, which should have checked it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocols.machine import SERVER
from protocols.pairwise.messages import Consents
from secagg.errors import PeerError
from tests.adversarial.attack import BOTH, Evil, small

VICTIM = 2


def upto(evil: Evil, phase: int) -> None:
    evil.advertise()
    if phase > 1:
        evil.share()
        evil.upload()
    if phase > 2:
        evil.consent(VICTIM, evil.members)


def forged_advert(evil: Evil) -> None:
    upto(evil, 1)
    first = evil.others(VICTIM)[0]
    for attempt in range(100):  # until they are neighbours under the new root too
        leaves = [
            replace(a, commitment=bytes([attempt]) * 32) if a.client == first else a for a in evil.adverts.values()
        ]
        evil.found(leaves)
        if first in evil.others(VICTIM):
            break
    evil.share([VICTIM])


def forged_proof(evil: Evil) -> None:
    upto(evil, 1)
    evil.tell(VICTIM, replace(evil.introduction(VICTIM), root=bytes(32)))


def forged_header(evil: Evil) -> None:
    upto(evil, 2)
    message = evil.survivors(VICTIM, evil.members)
    first = replace(message.headers[0], signature=bytes(64))
    evil.tell(VICTIM, replace(message, headers=(first, *message.headers[1:])))


def forged_consent(evil: Evil) -> None:
    upto(evil, 3)
    evil.reveal(VICTIM, dict.fromkeys(evil.holders(VICTIM), bytes(64)))


def forged_survivors(evil: Evil) -> None:
    upto(evil, 2)
    evil.tell(VICTIM, replace(evil.survivors(VICTIM, evil.members), survivors=b""))


def forged_order(evil: Evil) -> None:
    upto(evil, 3)
    signatures = evil.consents(VICTIM, {u: bytes(64) for u in evil.holders(VICTIM)}).signatures
    evil.tell(VICTIM, Consents(signatures[::-1], (), ()))


FORGERIES: list[Callable[[Evil], None]] = [
    forged_advert,
    forged_proof,
    forged_header,
    forged_consent,
    forged_survivors,
    forged_order,
]


@BOTH
@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_the_server_is_among_the_culprits(protocol: str, forge: Callable[[Evil], None]) -> None:
    with pytest.raises(PeerError) as refused:
        forge(small(protocol))
    assert SERVER in refused.value.culprits
