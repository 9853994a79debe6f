"""A client of the threshold CKKS protocol (the papers and the threat model are in ``protocols.threshold_ckks``).

u is this client, w a missing one; all are positions in U1. Each check raises before the client has changed, so a forged
message costs nothing; each reply is a pure function of what is known, so a replay after a crash repeats it.
"""

from __future__ import annotations

import numpy as np

from protocols.rounds.cohort import Position, positions
from protocols.rounds.dealer import DealingClient
from protocols.rounds.dealing import Accusations, Delivery, share_of
from protocols.rounds.phases import Phase
from protocols.rounds.sets import from_bitmap
from protocols.rounds.steps import Charge, Step, Steps, table
from protocols.threshold_ckks.cohort import (
    Cohort,
    check_advert,
    check_cohort,
    commitment_to,
    most_complaints,
    scheme_of,
)
from protocols.threshold_ckks.messages import (
    SEED,
    SHARES,
    Advert,
    Aggregate,
    Agreement,
    Agreements,
    Answer,
    Introduction,
    JointKey,
    Missing,
    Part,
    Recovery,
    Revealed,
    Survivors,
    Upload,
)
from protocols.threshold_ckks.parameters import least_of, parameters_of
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import digest
from secagg.errors import PeerError, ThresholdError
from secagg.extras import need


class ThresholdClient(DealingClient):
    _cohort: Cohort
    _peers: dict[Position, Advert]

    @table
    def steps(cls: type[ThresholdClient]) -> Steps:
        return {
            Phase.KEY: Step(Introduction, cls._meet, cls._deal, Phase.COMPLAIN),
            Phase.COMPLAIN: Step(Delivery, cls._open, cls._complain, Phase.DEFEND),
            Phase.DEFEND: Step(Accusations, cls._hear_complaints, cls._defend, Phase.UPLOAD, optional=True),
            Phase.UPLOAD: Step(JointKey, cls._take_key, cls._upload, Phase.CONSISTENCY, Charge.RESERVE),
            Phase.CONSISTENCY: Step(Survivors, cls._hear_survivors, cls._sign_survivors, Phase.DECRYPT),
            Phase.DECRYPT: Step(Aggregate, cls._take_aggregate, cls._decrypt, Phase.MISSING, Charge.COMMIT),
            Phase.MISSING: Step(Missing, cls._hear_missing, cls._agree, Phase.RECOVER),
            Phase.RECOVER: Step(Agreements, cls._check_agreements, cls._recover, Phase.DONE),
        }

    def _prepare(self) -> None:
        need("lattice", "the protocol threshold_ckks")
        super()._prepare()
        self._scheme = scheme_of(self.plan)
        self._t, self._least = parameters_of(self.plan).threshold, least_of(self.plan)
        self._key_seed = self._drawn(b"key seed")
        self._commitment = commitment_to(self.plan, self._number, self._key_part())

    def _key_part(self) -> bytes:
        return self._scheme.pack_key(self._scheme.public(self._key_seed))

    # 1 ADVERTISE: a fresh key, and a commitment to this client's part of the joint key, before it has seen any other.

    def opening(self) -> Advert:
        said = (self._seal_key.public, self._commitment)
        signature = self.identity.key.sign(labels.THRESHOLD_ADVERT, self.plan.digest(), u32.encode(self._number), *said)
        return Advert(self._number, *said, signature)

    # 2 KEY: show that part, and deal everybody a share of its seed.

    def _meet(self, message: Introduction) -> None:
        check_cohort(self.plan, self.policy, len(message.adverts))
        for advert in message.adverts:
            check_advert(self.plan, self.roster, advert)
        if (own := self.opening()) not in message.adverts:
            raise PeerError("a cohort without this client")
        self._cohort, self._u = Cohort(self.plan, self.roster, message.adverts), Position(message.adverts.index(own))
        self._holders = positions(self._cohort.size)
        self._peers = {v: message.adverts[v] for v in self._holders if v != self._u}

    def _secrets(self) -> list[bytes]:
        return [self._key_seed]

    def _deal(self) -> Part:
        return Part(self._key_part(), self._dealing().dealt)

    # 3 COMPLAIN and 4 DEFEND: see protocols.rounds.dealer.

    def _most_complaints(self) -> int:
        return most_complaints(self.plan, self.policy, self._cohort.size)

    # 5 UPLOAD: encrypt under the sum of the parts of those whose shares hold.

    def _take_key(self, message: JointKey) -> None:
        members = from_bitmap(message.members, self._holders)
        if self._u not in members:
            raise PeerError("a joint key without this client's part")
        if len(members) < self._least:
            raise ThresholdError(f"{len(members)} clients share the key, at least {self._least} are needed")
        held = self._good_shares(members, message.opened)
        self._joint = self._scheme.unpack_key(message.key)
        self._members, self._held, self._doubted = members, held, {}
        self._joint_digest = self._cohort.joint_digest(message.members, message.key)

    def _upload(self) -> Upload:
        """What is drawn depends on what is encrypted: two copies of this client never use it for two vectors."""
        values = self.noised(*self._cohort.bound(self._u)).astype(np.int64)
        whatever = (self._joint_digest, digest(labels.THRESHOLD_UPLOAD, values.tobytes()))
        seed = self._drawn(b"encryption", *self._cohort.bound(self._u), *whatever)
        c0, c1 = self._scheme.encrypt(self._joint, values, seed)
        ciphertext = (self._scheme.pack_used(c0), self._scheme.pack_all(c1))
        signed = (*self._cohort.bound(self._u), self._joint_digest, digest(labels.THRESHOLD_UPLOAD, *ciphertext))
        return Upload(self.identity.key.sign(labels.THRESHOLD_UPLOAD, *signed), *ciphertext)

    # 6 CONSISTENCY: sign the one set of survivors.

    def _hear_survivors(self, message: Survivors) -> None:
        if not from_bitmap(message.survivors, self._holders) <= self._members:
            raise PeerError("survivors who have no part in the key")
        self._survivors = self._survivors_in(message.survivors, self._holders, self._u, self._least)
        self._agreed, self._ciphertext = self._cohort.agreed(message.survivors), message.ciphertext
        self._forget_values()

    # 7 DECRYPT: against the signatures of enough of them, this client's part of the decryption, once.

    def _take_aggregate(self, message: Aggregate) -> None:
        self._cohort.check_signers(
            message.signatures, self._survivors, self._least, labels.SURVIVORS, self._agreed.digest
        )
        if self._cohort.ciphertext_digest(self._joint_digest, self._agreed.digest, message.c1) != self._ciphertext:
            raise PeerError("another ciphertext than the one that was named")
        self._c1 = self._scheme.unpack_all(message.c1)
        self._signed = self._cohort.by_client(message.signatures)

    def _decrypt(self) -> Answer:
        flooded_by = self._drawn(b"flooding", *self._cohort.bound(self._u), self._ciphertext)
        partial = self._scheme.pack_used(self._scheme.partial(self._c1, self._key_seed, flooded_by=flooded_by))
        missing = self.plan.clients - len(self._survivors)
        excess = self._excess_seed(missing, *self._cohort.bound(self._u))
        said = digest(labels.THRESHOLD_PARTIAL, partial, excess)
        signed = (*self._cohort.bound(self._u), self._ciphertext, said)
        return Answer(partial, excess, self.identity.key.sign(labels.THRESHOLD_PARTIAL, *signed))

    # 8 MISSING: sign the one set of those whose seeds may be rebuilt.

    def _hear_missing(self, message: Missing) -> None:
        missing = from_bitmap(message.missing, self._holders)
        if message.ciphertext != self._ciphertext:
            raise PeerError("clients missing for another ciphertext")
        if self._u in missing:
            raise PeerError("this client answered and is called missing")
        if not missing <= self._members:
            raise PeerError("clients missing who have no part in the key")
        if len(missing) > len(self._members) - self._t:
            raise ThresholdError(f"{len(missing)} parts of the key missing: fewer than {self._t} would stay secret")
        self._missing = missing
        self._missing_digest = self._cohort.missing_digest(self._ciphertext, message.missing)

    def _agree(self) -> Agreement:
        return Agreement(self.identity.key.sign(labels.THRESHOLD_MISSING, self._missing_digest))

    # 9 RECOVER: against t such signatures, shares of those seeds and of no other.

    def _check_agreements(self, message: Agreements) -> None:
        asked = self._survivors - self._missing
        said = (labels.THRESHOLD_MISSING, self._missing_digest)
        self._cohort.check_signers(message.signatures, asked, self._t, *said)

    def _recover(self) -> Recovery:
        shares = tuple(Revealed(w, share_of(self._held[w], SEED)) for w in sorted(self._missing))
        signed = (*self._cohort.bound(self._u), self._missing_digest, SHARES.encode(shares))
        return Recovery(shares, self.identity.key.sign(labels.THRESHOLD_SHARES, *signed))
