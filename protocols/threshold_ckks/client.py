"""A client of the threshold CKKS protocol (the papers and the threat model are in ``protocols.threshold_ckks``).

u is this client, w a missing one; all are positions in U1. Each check raises before the client has changed, so a forged
message costs nothing; each reply is a pure function of what is known, so a replay after a crash repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dp.secure_sum import SecureSum
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.client import ClientRound
from protocols.rounds.cohort import agreed_sum, ascending, from_bitmap
from protocols.rounds.dealing import (
    Accusations,
    Complaint,
    Complaints,
    Dealing,
    Defence,
    Delivered,
    Delivery,
    Opened,
    check_complaint,
    complaint,
    opened,
    share_of,
)
from protocols.rounds.steps import Charge, Step
from protocols.threshold_ckks.messages import (
    SECRETS,
    SEED,
    SHARES,
    Advert,
    Aggregate,
    Agreement,
    Agreements,
    Answer,
    Consent,
    Introduction,
    JointKey,
    Missing,
    Part,
    Recovery,
    Revealed,
    Survivors,
    Upload,
)
from protocols.threshold_ckks.phases import Phase
from protocols.threshold_ckks.rules import (
    Cohort,
    check_advert,
    check_cohort,
    commitment_to,
    least_of,
    most_complaints,
    parameters_of,
    scheme_of,
)
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey, digest
from secagg.crypto.prg import Prg
from secagg.crypto.ring import Words
from secagg.errors import PeerError, PolicyError, ThresholdError


class ThresholdClient(ClientRound):
    steps = {  # noqa: RUF012  # declared final by the base class
        Phase.KEY: Step(Introduction, "_meet", "_deal", Phase.COMPLAIN),
        Phase.COMPLAIN: Step(Delivery, "_open", "_complain", Phase.DEFEND),
        Phase.DEFEND: Step(Accusations, "_hear_complaints", "_defend", Phase.UPLOAD, optional=True),
        Phase.UPLOAD: Step(JointKey, "_take_key", "_upload", Phase.CONSENT, Charge.RESERVE),
        Phase.CONSENT: Step(Survivors, "_hear_survivors", "_consent", Phase.DECRYPT),
        Phase.DECRYPT: Step(Aggregate, "_take_aggregate", "_decrypt", Phase.MISSING, Charge.COMMIT),
        Phase.MISSING: Step(Missing, "_hear_missing", "_agree", Phase.RECOVER),
        Phase.RECOVER: Step(Agreements, "_check_agreements", "_recover", Phase.DONE),
    }
    done = Phase.DONE

    def __init__(
        self,
        plan: RoundPlan,
        roster: Roster,
        identity: Identity,
        policy: Policy,
        values: Callable[[], Words],
        secret: bytes,
    ) -> None:
        super().__init__(plan, roster, identity, policy, values, secret)
        self._scheme = scheme_of(plan)
        self._t, self._least = parameters_of(plan).threshold, least_of(plan)
        self._number = roster.number(identity.name)
        self._seal_key = AgreementKey(self._drawn(b"seal key"))
        self._key_seed = self._drawn(b"key seed")
        self._commitment = commitment_to(plan, self._number, self._key_part())
        self._agreed_with: dict[int, bytes] = {}
        self._held: dict[int, bytes] = {}  # dealer -> its points for u, a share of its seed
        self._doubted: dict[int, Delivered] = {}

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
        cohort = Cohort(self.plan, self.roster, message.adverts)
        self._cohort, self._u = cohort, message.adverts.index(own)

    def _dealing(self) -> Dealing:
        """The polynomials depend on the cohort: should a copy of this client deal in another one, shares must not add
        up."""
        return Dealing(
            self._cohort,
            self._u,
            range(self._cohort.size),
            self._t,
            [self._key_seed],
            Prg(self._drawn(b"polynomials", *self._cohort.bound(self._u))),
            lambda v: self._pad_key(self._u, v),
        )

    def _deal(self) -> Part:
        return Part(self._key_part(), self._dealing().dealt)

    def _pad_key(self, dealer: int, holder: int) -> bytes:
        v = holder if dealer == self._u else dealer
        if v not in self._agreed_with:  # once for both directions
            peer = self._cohort.adverts[v]
            self._agreed_with[v] = self._seal_key.agree(peer.seal_key, culprit=self._cohort.name(v))
        return self._cohort.pad_key(self._agreed_with[v], dealer, holder)

    # 3 COMPLAIN: say whose points do not fit what it committed to and what its proof says.

    def _open(self, message: Delivery) -> None:
        dealers = [box.peer for box in message.boxes]
        if not ascending(dealers) or not self._others() >= set(dealers):
            raise PeerError("shares from somebody who is not another client of the cohort, or twice from one")
        self._held = opened(
            self._cohort, self._u, message.boxes, SECRETS, lambda dealer: self._pad_key(dealer, self._u)
        )
        self._doubted = {box.peer: box for box in message.boxes if box.peer not in self._held}

    def _others(self) -> set[int]:
        return set(range(self._cohort.size)) - {self._u}

    def _complain(self) -> Complaints:
        return Complaints(
            tuple(complaint(self.identity.key, self._cohort, self._u, box) for box in self._doubted.values())
        )

    # 4 DEFEND: open what was dealt to those who complain. They are corrupt, or this client would not be asked.

    def _hear_complaints(self, message: Accusations) -> None:
        complaining = [said.peer for said in message.complaints]
        if not complaining or not ascending(complaining) or not self._others() >= set(complaining):
            raise PeerError("complaints of others than those of the cohort, or twice of one")
        if len(complaining) > (most := most_complaints(self.plan, self.policy, self._cohort.size)):
            raise PolicyError(f"{len(complaining)} clients complain, boxes are opened for at most {most}")
        dealing = self._dealing()
        for said in message.complaints:
            self._check_complaint(dealing, said)
        self._opened = tuple(Opened(v, self._pad_key(self._u, v)) for v in complaining)

    def _check_complaint(self, dealing: Dealing, said: Complaint) -> None:
        check_complaint(self._cohort.key_of(said.peer), self._cohort, said.peer, dealing.delivered(said.peer), said)

    def _defend(self) -> Defence:
        return Defence(self._opened)

    # 5 UPLOAD: encrypt under the sum of the parts of those whose shares hold.

    def _take_key(self, message: JointKey) -> None:
        members = from_bitmap(message.members, range(self._cohort.size))
        if self._u not in members:
            raise PeerError("a joint key without this client's part")
        if len(members) < self._least:
            raise ThresholdError(f"{len(members)} clients share the key, at least {self._least} are needed")
        answered = sorted(self._doubted.keys() & members)
        if [one.peer for one in message.opened] != answered:
            raise PeerError("boxes opened of others than of those whom this client complained about")
        keys, boxes = {one.peer: one.key for one in message.opened}, [self._doubted[dealer] for dealer in answered]
        held = self._held | opened(self._cohort, self._u, boxes, SECRETS, keys.__getitem__)
        if not held.keys() >= members - {self._u}:
            raise PeerError("a part of the key whose shares are not good, or were never delivered here")
        self._joint = self._scheme.unpack_key(message.key)
        self._members, self._held, self._doubted = members, {w: held[w] for w in sorted(members - {self._u})}, {}
        self._joint_digest = self._cohort.joint_digest(message.members, message.key)

    def _upload(self) -> Upload:
        """What is drawn depends on what is encrypted: two copies of this client never use it for two vectors."""
        values = self.plan.ring.centred(self._noised(*self._cohort.bound(self._u)))
        whatever = (self._joint_digest, digest(labels.THRESHOLD_UPLOAD, values.tobytes()))
        seed = self._drawn(b"encryption", *self._cohort.bound(self._u), *whatever)
        c0, c1 = self._scheme.encrypt(self._joint, values, seed)
        ciphertext = (self._scheme.pack_used(c0), self._scheme.pack_all(c1))
        signed = (*self._cohort.bound(self._u), self._joint_digest, digest(labels.THRESHOLD_UPLOAD, *ciphertext))
        return Upload(self.identity.key.sign(labels.THRESHOLD_UPLOAD, *signed), *ciphertext)

    # 6 CONSENT: sign the one set of survivors.

    def _hear_survivors(self, message: Survivors) -> None:
        survivors = from_bitmap(message.survivors, range(self._cohort.size))
        if self._u not in survivors:
            raise PeerError("this client uploaded and is called dead")
        if not survivors <= self._members:
            raise PeerError("survivors who have no part in the key")
        if len(survivors) < self._least:
            raise ThresholdError(f"{len(survivors)} survivors, at least {self._least} are needed")
        self._bitmap, self._survivors = message.survivors, survivors
        self._agreed, self._ciphertext = self._cohort.survivors_digest(message.survivors), message.ciphertext
        self._values = partial(self.plan.ring.zeros, 0)  # sent, and never needed again

    def _consent(self) -> Consent:
        return Consent(self.identity.key.sign(labels.SURVIVORS, self._agreed))

    # 7 DECRYPT: against the signatures of enough of them, this client's part of the decryption, once.

    def _take_aggregate(self, message: Aggregate) -> None:
        self._cohort.check_signers(message.signatures, self._survivors, self._least, labels.SURVIVORS, self._agreed)
        if self._cohort.ciphertext_digest(self._joint_digest, self._agreed, message.c1) != self._ciphertext:
            raise PeerError("another ciphertext than the one that was named")
        self._c1 = self._scheme.unpack_all(message.c1)
        self._signed = self._cohort.by_client(message.signatures)

    def happened(self) -> SecureSum:
        return agreed_sum(self.plan, self.roster, self._cohort.root, self._cohort.size, self._bitmap, self._signed)

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
        missing = from_bitmap(message.missing, range(self._cohort.size))
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
