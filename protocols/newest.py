"""What a client remembers of the signed versions that it took: the newest of each kind, in its journal.

Each kind of each deployment is a session of the journal, and the number of a version is its round: so numbers only
ascend, by what journals promise, and the digest of the newest stands in the one record that lives, sealed.

A version is remembered when a plan with it is accepted, before the data are touched. A crash after that leaves a client
that takes the same version again, or a newer one, and goes back to none. Nobody but the deployment can move it ahead:
what is remembered was signed.
"""

from __future__ import annotations

from protocols.journal import Journal
from protocols.plan import RoundPlan
from protocols.roster import Roster
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import digest, transcript
from secagg.crypto.prg import Rng
from secagg.crypto.seal import open_box, seal
from secagg.errors import PeerError, PolicyError
from secagg.signed_versions import Seen, Signatory, Version, What, check_not_older


class Newest:
    """The newest versions of one deployment, in a journal of its client, sealed under the journal's key."""

    def __init__(self, signatory: Signatory, journal: Journal, key: bytes, rng: Rng) -> None:
        self._signatory, self._journal, self._key, self._rng = signatory, journal, key, rng

    def take(self, plan: RoundPlan, roster: Roster) -> None:
        """Remember the versions of a plan that is accepted, as far as they are newer. ``PolicyError``, and nothing is
        remembered, if one is older than the newest that was taken, or another under its number."""
        newer = list[tuple[bytes, Version, bytes]]()
        for what, version, of in (
            (What.ROSTER, roster.version, roster.whole),
            (What.MODEL, plan.version, plan.model),
        ):
            if version is not None and check_not_older(what, version.number, of, self._seen(name := self._name(what))):
                newer.append((name, version, of))
        for name, version, of in newer:
            box = seal(self._key, of, _associated(name, version.number), self._rng)
            self._journal.append(name, name, version.number, 0, box)

    def _seen(self, name: bytes) -> Seen | None:
        last = self._journal.last_round(name)
        if last is None:
            return None
        try:
            [box] = self._journal.records(name, last)
            return Seen(last, open_box(self._key, box, _associated(name, last)))
        except (PeerError, ValueError):
            raise PolicyError("the journal is not this client's, or has been altered") from None

    def _name(self, what: What) -> bytes:
        """What the journal calls the session, and the deployment, of these versions. With another key a deployment
        begins anew: what it signed before is refused for the signature."""
        return digest(labels.JOURNAL_VERSION, self._signatory.name.encode(), self._signatory.key, what.encode())


def _associated(name: bytes, number: int) -> bytes:
    return transcript(labels.JOURNAL_VERSION, name, u32.encode(number))
