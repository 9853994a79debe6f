"""A number that is nobody's is refused as such, wherever it comes from."""

from __future__ import annotations

import pytest

from protocols.roster import Identity, Roster, known_client
from protocols.rounds.survivors import check_consistency
from secagg.crypto import labels
from secagg.crypto.prg import Prg
from secagg.errors import PeerError

IDENTITIES = [Identity.generate(f"client-{i}", Prg(bytes([i]) * 32)) for i in range(3)]
ROSTER = Roster.of(IDENTITIES)


def test_the_last_client_is_known_and_the_next_one_is_not() -> None:
    known_client(ROSTER, len(ROSTER) - 1)
    for number in (len(ROSTER), len(ROSTER) + 1, (1 << 32) - 1):
        with pytest.raises(PeerError, match="is not in the roster"):
            known_client(ROSTER, number)


def test_a_signature_of_nobody() -> None:
    """A signer that stands in a tree of the server's making may have any number."""
    signature = IDENTITIES[0].key.sign(labels.SURVIVORS, b"agreed")
    check_consistency(ROSTER, 0, signature, b"agreed")
    with pytest.raises(PeerError, match="is not in the roster"):
        check_consistency(ROSTER, len(ROSTER), signature, b"agreed")
