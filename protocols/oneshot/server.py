"""The server of the one-shot protocol (the paper and the threat model are in ``protocols.oneshot``).

It adds vectors as they arrive and forgets them, passes sealed shares on to the committee, and opens the sum with the
sum of the secrets. It makes the same checks as the clients, so that a lying one cannot spoil the round of the others
unnoticed. Clients are numbers in the roster.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.oneshot.client import check_header, check_member
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
from protocols.roster import Number
from protocols.rounds.excess import check_excess, excess_due
from protocols.rounds.phases import Phase
from protocols.rounds.server import NOTHING, Sends, ServerRound
from protocols.rounds.sets import ascending, to_bitmap
from protocols.rounds.steps import Charge, Step, Steps, table
from protocols.rounds.survivors import SignedBy, check_consistency
from secagg.crypto import labels
from secagg.crypto.keys import check_agreement_key, digest
from secagg.crypto.lattice import packing
from secagg.crypto.lattice.polynomials import Coefficients, RunningSum
from secagg.crypto.seal import OVERHEAD_BYTES
from secagg.errors import PeerError, UnblamedError
from secagg.extras import need


@dataclass(frozen=True, slots=True)
class _Read:
    """What an upload holds, and what it has to be signed with."""

    vector: Coefficients
    vector_hash: bytes
    boxes_hash: bytes


class OneshotServer(ServerRound):
    @table
    def steps(cls: type[OneshotServer]) -> Steps:
        return {
            Phase.JOIN: Step(Join, cls._admit, cls._convene, Phase.UPLOAD),
            Phase.UPLOAD: Step(Upload, cls._add, cls._deliver, Phase.CONSISTENCY, before=cls._read),
            Phase.CONSISTENCY: Step(Vote, cls._take_vote, cls._pass_on_signatures, Phase.REVEAL, Charge.COMMIT),
            Phase.REVEAL: Step(Answer, cls._take_answer, cls._open, Phase.DONE),
        }

    def _prepare(self) -> None:
        need("lattice", "the protocol oneshot")
        self._eligible = sortition(self.plan, self.roster)
        self._quorum = parameters_of(self.plan).quorum
        self._layout, self._sharing = lattice_of(self.plan).layout, sharing_of(self.plan)
        self._length = self.plan.encoding.coordinates
        self._joined: dict[Number, Member | None] = {}
        self._total = RunningSum(self._layout.ring, self._layout.blocks(self._length))
        self._uploads: dict[Number, tuple[Header, bytes]] = {}  # client -> header and boxes
        self._unopened: dict[Number, tuple[Number, ...]] = {}  # member -> whose shares did not open
        self._shares: dict[Number, NDArray[np.uint32]] = {}  # member -> its share of the sum of the secrets
        self.outliers: tuple[str, ...] = ()
        """Members whose share of the sum did not fit the others', and was done without. That is a fact and no verdict:
        they lied, or somebody in the sum dealt them a wrong share."""

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Who may still answer, and is needed: in REVEAL only members, unless there is noise to take off."""
        names = super().waiting_for
        if self.phase is not Phase.REVEAL or excess_due(self.plan, len(self._survivors)):
            return names
        return tuple(name for name in names if self.roster.number(name) in self._signatures)

    # 1 JOIN

    def _admit(self, number: Number, join: Join) -> None:
        if len(self._joined) == self.plan.clients:
            raise UnblamedError(f"the cohort of {self.plan.clients} is full")
        if (join.member is not None) != (number in self._eligible):
            raise PeerError("a member who was not drawn, or none although it was")
        if join.member is not None:
            if join.member.client != number:
                raise PeerError("a membership in somebody else's name")
            check_member(self.plan, self.roster, join.member)
        self._joined[number] = join.member

    def _convene(self) -> Sends:
        members = tuple(member for _, member in sorted(self._joined.items()) if member is not None)
        self._need(len(self._joined), least_contributors(self.plan), "clients joined")
        self._need(len(members), self._quorum, "members of the committee came")
        self._committee, self._members = Committee(self.plan, members), Members(members)
        self._box_bytes = self._sharing.share_bytes + OVERHEAD_BYTES
        return Sends(sorted(self._joined), lambda number: self._members)

    # 2 UPLOAD

    def _read(self, upload: Upload) -> _Read:
        vector = Coefficients.unpack(self._layout.ring, upload.vector, self._layout.coefficients(self._length))
        return _Read(vector, digest(labels.ONESHOT_VECTOR, upload.vector), digest(labels.ONESHOT_BOX, upload.boxes))

    def _add(self, number: Number, upload: Upload, read: _Read) -> None:
        header = upload.header
        if header.client != number:
            raise PeerError("an upload in somebody else's name")
        check_agreement_key(header.key)
        check_header(self._committee, self.roster, header)
        if read.vector_hash != header.vector_hash:
            raise PeerError("a vector that is not the signed one")
        if read.boxes_hash != header.boxes_hash:
            raise PeerError("boxes that are not the signed ones")
        if len(upload.boxes) != len(self._committee.members) * self._box_bytes:
            raise PeerError("boxes for others than the members")
        self._total.add(read.vector)
        self._uploads[number] = header, upload.boxes

    def _deliver(self) -> Sends:
        self._need(len(self._uploads), least_contributors(self.plan), "clients uploaded")
        self._survivors = sorted(self._uploads)
        bitmap, size = to_bitmap(self._uploads.keys(), range(len(self.roster))), len(self.roster)
        contributed = self._committee.contributed([self._uploads[client][0] for client in self._survivors])
        self._agreed = self._committee.agreed(contributed, size, bitmap)
        return Sends(list(self._committee.members), self._delivery)

    def _delivery(self, member: Number) -> Delivery:
        at = list(self._committee.members).index(member) * self._box_bytes
        uploads = [self._uploads[client] for client in self._survivors]
        return Delivery(tuple(Contribution(header, boxes[at : at + self._box_bytes]) for header, boxes in uploads))

    # 3 CONSISTENCY

    def _take_vote(self, number: Number, vote: Vote) -> None:
        if vote.unopened:
            known = ascending(vote.unopened) and self._uploads.keys() >= set(vote.unopened)
            if vote.signature or not known:
                raise PeerError("a complaint about others than those whose shares were delivered, or a signed one")
            self._unopened[number] = vote.unopened
        else:
            check_consistency(self.roster, number, vote.signature, self._agreed.digest)
            self._signatures[number] = vote.signature

    def _pass_on_signatures(self) -> Sends:
        if self._unopened and len(self._signatures) < self._quorum:
            raise PeerError("shares that do not open", culprits=self._blamed())
        self._need(len(self._signatures), self._quorum, "members signed")
        chosen = sorted(self._signatures)[: self._quorum]
        consents = ConsistencySignatures(
            self._agreed.root, self._agreed.bitmap, tuple(SignedBy(v, self._signatures[v]) for v in chosen)
        )
        self._uploads = {}
        return Sends(sorted(self._signatures.keys() | set(self._survivors)), lambda number: consents)

    def _blamed(self) -> set[str]:
        """Of whom an honest member complains; if that is not sure of anybody, both sides of every complaint. Besides,
        whoever has been caught lying: without it there might have been enough.

        An honest member complains only of who dealt it a bad box: what this server passes on, the dealer has signed.
        More members than may be corrupt do not all lie. One word alone convicts nobody, not even where a plan reckons
        with no corrupt member at all.
        """
        complaints = Counter(client for unopened in self._unopened.values() for client in unopened)
        sure = [client for client, count in complaints.items() if count > parameters_of(self.plan).private]
        return self._liars.union(self.roster.names[number] for number in sure or {*complaints, *self._unopened})

    # 4 REVEAL

    def _take_answer(self, number: Number, answer: Answer) -> None:
        survived = bool(self._agreed.bitmap[number // 8] >> number % 8 & 1)
        if answer.share and number not in self._committee.members:
            raise PeerError("a share of the sum from a client that is no member")
        if not answer.share and number in self._signatures:
            raise PeerError("no share of the sum from a member who has signed")
        if survived:
            check_excess(self.plan, len(self._survivors), answer.excess)
        elif answer.excess:
            raise PeerError("a seed of noise that is not in the sum")
        if answer.share:
            self._shares[number] = self._sharing.unpack(answer.share)
        if answer.excess:
            self._excess[number] = answer.excess

    def _open(self) -> Sends:
        if len(self._shares) < self._quorum <= len(self._shares) + len(self._unopened):  # enough, but for complaints
            raise PeerError("shares that do not open", culprits=self._blamed())
        self._need(len(self._shares), self._quorum, "members answered")
        self._release(self._decoded(), advertised=sorted(self._joined), survivors=self._survivors)
        return NOTHING

    def _decoded(self) -> NDArray[np.int64]:
        """The sum, opened with the sum of the secrets; shares beyond a quorum show which of them are wrong.

        If it does not open, everybody in it is named, too, and not only the members: a client may have uploaded a
        vector that its shares do not fit, or dealt shares that are on no polynomial, and no share shows that.
        """
        members = sorted(self._shares)
        order = {member: holder for holder, member in enumerate(self._committee.members, 1)}
        holders = [order[member] for member in members]
        shares = np.stack([self._shares[member] for member in members])
        total, public = self._total.value(), public_of(self.plan)

        def without(wrong: list[int]) -> NDArray[np.int64] | None:
            good = np.delete(np.arange(len(members)), wrong)
            if len(good) < self._quorum:
                return None
            try:
                secret = Coefficients.lift(
                    self._layout.ring, [self._sharing.rebuild([holders[i] for i in good], shares[good])]
                )
                return packing.decode(self._layout, total - public.product(secret.evaluations()), self._length)
            except PeerError:  # out of range, or not on one polynomial: others lied
                return None

        if (decoded := without([])) is not None:
            return decoded
        wrong = self._sharing.wrong(holders, shares, os.urandom)
        if 2 * len(wrong) > len(members) - self._quorum or (decoded := without(wrong)) is None:
            found = [(i, decoded) for i in range(len(members)) if (decoded := without([i])) is not None]
            if len(found) != 1:  # with a surplus of one, one can be left out, if it is clear which
                suspects = {*members, *self._survivors}
                raise PeerError("shares that do not open the sum", culprits=[self.roster.names[u] for u in suspects])
            wrong, decoded = [found[0][0]], found[0][1]
        self.outliers = tuple(self.roster.names[members[i]] for i in wrong)
        return decoded
