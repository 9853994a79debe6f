"""A client of the one-shot protocol, member of the committee or not.

The papers and the threat model are in ``protocols.oneshot``.

u is this client; all are numbers in the roster. Each check raises before the client has changed; each reply is a pure
function of what is known, so a replay after a crash repeats it.
"""

from __future__ import annotations

from protocols.oneshot.committee import Committee, public_of, sortition
from protocols.oneshot.messages import (
    Answer,
    ConsistencySignatures,
    Contribution,
    Delivery,
    Header,
    Join,
    Member,
    Members,
    Upload,
    Vote,
)
from protocols.oneshot.parameters import lattice_of, least_contributors, parameters_of, sharing_of
from protocols.plan import RoundPlan
from protocols.roster import Number, Roster, known_client
from protocols.rounds.client import ClientRound
from protocols.rounds.phases import Phase
from protocols.rounds.sets import ascending, to_bitmap
from protocols.rounds.steps import Charge, Step, Steps, table
from protocols.rounds.survivors import NOBODY, check_consistency
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import SIGNATURE_BYTES, AgreementKey, check_agreement_key, digest, transcript, verify
from secagg.crypto.lattice import VARIANCE, packing
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.merkle import HASH_BYTES
from secagg.crypto.prg import Prg
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.crypto.seal import open_box, seal
from secagg.errors import DecodeError, PeerError, ThresholdError
from secagg.extras import need


class OneshotClient(ClientRound):
    """A member of the committee walks all of ``steps``. Who is none misses CONSISTENCY, and may leave after UPLOAD."""

    @table
    def steps(cls: type[OneshotClient]) -> Steps:
        return {
            Phase.UPLOAD: Step(Members, cls._meet, cls._upload, Phase.CONSISTENCY, Charge.RESERVE),
            Phase.CONSISTENCY: Step(Delivery, cls._open, cls._vote, Phase.REVEAL),
            Phase.REVEAL: Step(ConsistencySignatures, cls._check_signatures, cls._answer, Phase.DONE, Charge.COMMIT),
        }

    def _prepare(self) -> None:
        need("lattice", "the protocol oneshot")
        self._u = self._number
        self._eligible = sortition(self.plan, self.roster)
        self._member_key = AgreementKey(self._drawn(b"seat key")) if self._u in self._eligible else None
        if self._member_key is None:
            upload, reveal = self.steps[Phase.UPLOAD]._replace(then=Phase.REVEAL), self.steps[Phase.REVEAL]
            self.__dict__["steps"] = {Phase.UPLOAD: upload, Phase.REVEAL: reveal}
        self._sharing = sharing_of(self.plan)
        self._mine = NOBODY  # the survivors that this client has signed, as a member
        self._share = b""  # of the sum of their secrets
        self._unopened: tuple[Number, ...] = ()

    # 1 JOIN: those who are drawn for the committee sign a fresh key together with the plan.

    def opening(self) -> Join:
        if self._member_key is None:
            return Join(None)
        public = self._member_key.public
        signature = self.identity.key.sign(labels.ONESHOT_SEAT, self.plan.digest(), u32.encode(self._u), public)
        return Join(Member(self._u, public, signature))

    # 2 UPLOAD: c = x + a s + 2^(vw) e, and packed shares of s, and that is all.

    def _meet(self, message: Members) -> None:
        members = [member.client for member in message.members]
        if not ascending(members) or not self._eligible >= set(members):
            raise PeerError("members out of order, repeated, or not those on whom the lot fell")
        committee = parameters_of(self.plan)
        if len(members) > committee.members:
            raise PeerError(f"{len(members)} members for a committee of {committee.members}")
        if len(members) < committee.quorum:
            raise ThresholdError(f"{len(members)} members came, at least {committee.quorum} are needed")
        if self._member_key is not None and self.opening().member not in message.members:
            raise PeerError("this client is a member and is left out")
        for member in message.members:
            check_member(self.plan, self.roster, member)
        self._committee = Committee(self.plan, message.members)

    def _upload(self) -> Upload:
        layout, bound = lattice_of(self.plan).layout, self._committee.bound(self._u)
        values = self.noised(*bound)
        # Another vector, another secret: two copies of this client that are made to upload do not bare the difference.
        context = (*bound, self._fingerprint(values))
        secret = discrete_gaussian(VARIANCE, layout.ring.degree, self._drawn(b"secret", *context))
        errors = discrete_gaussian(VARIANCE, layout.coefficients(len(values)), self._drawn(b"errors", *context))
        mask = public_of(self.plan).product(Coefficients.lift(layout.ring, [secret]).evaluations())
        masked = packing.encode(layout, values, errors, onto=mask)

        key, nonces = AgreementKey(self._drawn(b"upload key", *context)), Prg(self._drawn(b"nonces", *context))
        polynomials = Prg(self._drawn(b"polynomials", *context))
        shares = self._sharing.split(secret, len(self._committee.members), polynomials)
        boxes = b""
        for member, share in zip(self._committee.members.values(), shares, strict=True):
            agreed = key.agree(member.key, culprit=self.roster.names[member.client])
            sealing = self._committee.box_key(agreed, self._u, member.client)
            boxes += seal(sealing, share.tobytes(), self._associated(self._u, member.client), nonces)

        blank = Header(self._u, key.public, bytes(HASH_BYTES), bytes(HASH_BYTES), bytes(SIGNATURE_BYTES))
        vector = self._drafted(lambda vector: Upload(blank, vector, boxes), layout.ring.packed_size(len(errors)))
        masked.pack_into(len(errors), vector)
        hashes = (digest(labels.ONESHOT_VECTOR, vector), digest(labels.ONESHOT_BOX, boxes))
        signature = self.identity.key.sign(labels.ONESHOT_UPLOAD, *bound, key.public, *hashes)
        return Upload(Header(self._u, key.public, *hashes, signature), vector, boxes)

    def _associated(self, sender: Number, receiver: Number) -> bytes:
        return transcript(labels.ONESHOT_BOX, *self._committee.bound(sender, receiver))

    # 3 CONSISTENCY: a member checks who contributed, keeps its share of the sum of their secrets, and signs, once.

    def _open(self, message: Delivery) -> None:
        clients = [contribution.header.client for contribution in message.contributions]
        if not ascending(clients) or len(clients) > self.plan.clients:
            raise PeerError("contributors out of order or repeated, or more than the plan allows")
        if len(clients) < (least := least_contributors(self.plan)):
            raise ThresholdError(f"{len(clients)} contributors, at least {least} are needed")
        for contribution in message.contributions:
            check_header(self._committee, self.roster, contribution.header)
        shares, unopened = [], []
        for contribution in message.contributions:
            try:
                shares.append(self._sharing.unpack(self._opened(contribution)))
            except (PeerError, DecodeError):  # the client cheated, or the server: without it there is no sum
                unopened.append(contribution.header.client)
        self._unopened = tuple(unopened)
        self._share = b"" if unopened else self._sharing.total(shares).tobytes()
        contributed = self._committee.contributed([one.header for one in message.contributions])
        everybody = range(len(self.roster))
        found = self._committee.agreed(contributed, len(everybody), to_bitmap(set(clients), everybody))
        self._mine = NOBODY if unopened else found

    def _opened(self, contribution: Contribution) -> bytes:
        client, key = contribution.header.client, self._member_key
        if key is None:
            raise PeerError("shares for a client that is no member")
        sealing = self._committee.box_key(key.agree(contribution.header.key), client, self._u)
        return open_box(sealing, contribution.box, self._associated(client, self._u))

    def _vote(self) -> Vote:
        if not self._mine.bitmap:
            return Vote(b"", self._unopened)
        return Vote(self.identity.key.sign(labels.SURVIVORS, self._mine.digest), ())

    # 4 REVEAL: against the signatures of a quorum, the share of the sum; from a survivor the seed of its excess noise.

    def _check_signatures(self, message: ConsistencySignatures) -> None:
        agreed = self._committee.agreed(message.contributed, len(self.roster), message.survivors)
        if self._mine.bitmap and agreed != self._mine:
            raise PeerError("other survivors than those that this member has signed")
        if len(survivors := agreed.survivors) < (least := least_contributors(self.plan)):
            raise ThresholdError(f"{len(survivors)} survivors, at least {least} are needed")
        signers = [signed.signer for signed in message.signatures]
        if not ascending(signers) or not self._committee.members.keys() >= set(signers):
            raise PeerError("signers out of order, repeated, or no members")
        if len(signers) < (quorum := parameters_of(self.plan).quorum):
            raise ThresholdError(f"{len(signers)} members signed the survivors, at least {quorum} are needed")
        for signed in message.signatures:
            check_consistency(self.roster, Number(signed.signer), signed.signature, agreed.digest)
        self._agreed, self._survivors = agreed, survivors
        self._signed = {Number(signed.signer): signed.signature for signed in message.signatures}
        self._forget_values()

    def _answer(self) -> Answer:
        excess = b""
        if self._u in self._survivors:
            excess = self._excess_seed(self.plan.clients - len(self._survivors), *self._committee.bound(self._u))
        return Answer(self._share, excess)


# What both sides verify.


def check_member(plan: RoundPlan, roster: Roster, member: Member) -> None:
    known_client(roster, member.client)
    name = roster.names[member.client]
    check_agreement_key(member.key, culprit=name)
    signed = (plan.digest(), u32.encode(member.client), member.key)
    verify(roster.keys[member.client], member.signature, labels.ONESHOT_SEAT, *signed, culprit=name)


def check_header(committee: Committee, roster: Roster, header: Header) -> None:
    """This client dealt these boxes with this vector, to this committee."""
    known_client(roster, header.client)
    signed = (*committee.bound(header.client), header.key, header.vector_hash, header.boxes_hash)
    name = roster.names[header.client]
    verify(roster.keys[header.client], header.signature, labels.ONESHOT_UPLOAD, *signed, culprit=name)
