"""The server of the threshold CKKS protocol (the papers and the threat model are in ``protocols.threshold_ckks``).

It routes messages, adds keys, ciphertexts and partial decryptions as they arrive, and in the end puts in what the
missing would have said. Clients are positions in U1 once U1 is there; u is one that speaks, w one that is missing.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from protocols.roster import Number
from protocols.rounds.cohort import Position, positions
from protocols.rounds.dealing import Complaints, Defence
from protocols.rounds.excess import check_excess
from protocols.rounds.exchange import DealingServer, Exchange
from protocols.rounds.phases import Phase
from protocols.rounds.server import NOTHING, Sends
from protocols.rounds.sets import to_bitmap
from protocols.rounds.steps import Charge, Step, Steps, table
from protocols.rounds.survivors import ConsistencySignature, SignedBy
from protocols.threshold_ckks.cohort import Cohort, check_advert, commitment_to, scheme_of
from protocols.threshold_ckks.messages import (
    SECRETS,
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
    Survivors,
    Upload,
)
from protocols.threshold_ckks.parameters import least_of, parameters_of
from secagg.crypto import labels
from secagg.crypto.keys import digest, verify
from secagg.crypto.lattice.polynomials import Coefficients, RunningSum
from secagg.crypto.shamir import reconstruct, unpack_shares
from secagg.errors import PeerError
from secagg.extras import need


@dataclass(frozen=True, slots=True)
class _Read:
    """What a message holds, and the hash that is signed with it."""

    hash: bytes
    polynomials: tuple[Coefficients, ...]


class ThresholdServer(DealingServer):
    _adverts: dict[Number, Advert]

    @table
    def steps(cls: type[ThresholdServer]) -> Steps:
        return {
            Phase.ADVERTISE: Step(Advert, cls._admit, cls._introduce, Phase.KEY),
            Phase.KEY: Step(Part, cls._take_part, cls._deliver, Phase.COMPLAIN),
            Phase.COMPLAIN: Step(Complaints, cls._take_complaints, cls._accuse, Phase.DEFEND),
            Phase.DEFEND: Step(Defence, cls._take_defence, cls._join, Phase.UPLOAD, optional=True),
            Phase.UPLOAD: Step(Upload, cls._add, cls._announce_survivors, Phase.CONSISTENCY, before=cls._read_upload),
            Phase.CONSISTENCY: Step(
                ConsistencySignature, cls._take_signature, cls._pass_on_signatures, Phase.DECRYPT, Charge.COMMIT
            ),
            Phase.DECRYPT: Step(Answer, cls._take_answer, cls._name_missing, Phase.MISSING, before=cls._read_answer),
            Phase.MISSING: Step(Agreement, cls._take_agreement, cls._pass_on_agreements, Phase.RECOVER),
            Phase.RECOVER: Step(Recovery, cls._take_shares, cls._fuse, Phase.DONE),
        }

    def _prepare(self) -> None:
        need("lattice", "the protocol threshold_ckks")
        super()._prepare()
        self._scheme, sizes = scheme_of(self.plan), scheme_of(self.plan).sizes
        self._t, self._least = parameters_of(self.plan).threshold, least_of(self.plan)
        self._parts: dict[Position, Coefficients] = {}  # of the key; until it is known whose are in it
        self._uploaded: set[Position] = set()  # U3
        self._c0, self._c1 = (RunningSum(self._scheme.ring, sizes.blocks) for _ in range(2))
        self._answered: set[Position] = set()
        self._partials = RunningSum(self._scheme.ring, sizes.blocks)
        self._agreements: dict[Position, bytes] = {}
        self._shares: dict[Position, bytes] = {}  # holder -> its shares of the seeds of all that are missing

    # 1 ADVERTISE

    def _check_advert(self, advert: Advert) -> None:
        check_advert(self.plan, self.roster, advert)

    def _introduce(self) -> Sends:
        self._need(len(self._adverts), self._least, "clients advertised")
        self._settle()
        self._cohort = Cohort(self.plan, self.roster, [self._adverts[number] for number in self._clients])
        self._exchange = Exchange(self._cohort, lambda _: positions(self._cohort.size), self._t, SECRETS)
        return Sends(self._clients, lambda number: Introduction(self._cohort.adverts))

    # 2 KEY

    def _take_part(self, number: Number, part: Part) -> None:
        if commitment_to(self.plan, number, part.key) != self._adverts[number].commitment:
            raise PeerError("another part of the key than was committed to")
        key = self._scheme.unpack_key(part.key)
        self._exchange.take(self._positions[number], part.dealt)
        self._parts[self._positions[number]] = key

    def _deliver(self) -> Sends:
        self._need(len(self._parts), self._least, "clients dealt shares of their part of the key")
        return Sends(self._dealers(), self._delivery)

    def _dealers(self) -> list[Number]:
        """As numbers in the roster."""
        return [self._clients[u] for u in sorted(self._exchange.dealers)]

    def _dealers_to(self, v: Position) -> Set[Position]:
        return self._exchange.dealers

    # 3 COMPLAIN and 4 DEFEND: see protocols.rounds.exchange.

    def _join(self) -> Sends:
        """Add up the parts of those whose shares hold, and of nobody else."""
        self._end_exchange()
        self._members = sorted(self._exchange.dealers)  # U2
        self._need(len(self._members), self._least, "clients share the key")
        self._exchange.keep_commitments(lambda u: SEED)
        joint = RunningSum(self._scheme.ring, 1)
        for u in self._members:
            joint.add(self._parts[u])
        self._parts = {}
        self._members_bitmap = to_bitmap(set(self._members), positions(self._cohort.size))
        self._joint = self._scheme.pack_key(joint.value())
        self._joint_digest = self._cohort.joint_digest(self._members_bitmap, self._joint)
        return Sends(self._dealers(), self._joint_key)

    def _joint_key(self, number: Number) -> JointKey:
        return JointKey(self._members_bitmap, self._joint, self._exchange.opened_for(self._positions[number]))

    # 5 UPLOAD

    def _read_upload(self, upload: Upload) -> _Read:
        c0, c1 = self._scheme.unpack_used(upload.c0), self._scheme.unpack_all(upload.c1)
        return _Read(digest(labels.THRESHOLD_UPLOAD, upload.c0, upload.c1), (c0, c1))

    def _add(self, number: Number, upload: Upload, read: _Read) -> None:
        u = self._positions[number]
        signed = (*self._cohort.bound(u), self._joint_digest, read.hash)
        verify(self.roster.keys[number], upload.signature, labels.THRESHOLD_UPLOAD, *signed)
        for total, part in zip((self._c0, self._c1), read.polynomials, strict=True):
            total.add(part)
        self._uploaded.add(u)

    def _announce_survivors(self) -> Sends:
        self._need(len(self._uploaded), self._least, "clients uploaded")
        self._agreed = self._cohort.agreed(to_bitmap(self._uploaded, positions(self._cohort.size)))
        self._c1_sum = self._scheme.pack_all(self._c1.value())
        self._ciphertext = self._cohort.ciphertext_digest(self._joint_digest, self._agreed.digest, self._c1_sum)
        receivers = [self._clients[u] for u in sorted(self._uploaded)]
        return Sends(receivers, lambda number: Survivors(self._agreed.bitmap, self._ciphertext))

    # 6 CONSISTENCY

    def _pass_on_signatures(self) -> Sends:
        self._need(len(self._signatures), self._least, "survivors signed")
        signers = sorted(self._signatures)  # U4
        signed = tuple(SignedBy(self._positions[number], self._signatures[number]) for number in signers[: self._least])
        return Sends(signers, lambda number: Aggregate(signed, self._c1_sum))

    # 7 DECRYPT

    def _read_answer(self, answer: Answer) -> _Read:
        partial = self._scheme.unpack_used(answer.partial)
        return _Read(digest(labels.THRESHOLD_PARTIAL, answer.partial, answer.excess), (partial,))

    def _take_answer(self, number: Number, answer: Answer, read: _Read) -> None:
        u = self._positions[number]
        signed = (*self._cohort.bound(u), self._ciphertext, read.hash)
        verify(self.roster.keys[number], answer.signature, labels.THRESHOLD_PARTIAL, *signed)
        check_excess(self.plan, len(self._uploaded), answer.excess)
        for partial in read.polynomials:
            self._partials.add(partial)
        self._answered.add(u)
        if answer.excess:
            self._excess[number] = answer.excess

    def _name_missing(self) -> Sends:
        self._need(len(self._answered), self._t, "clients decrypted their part")
        self._missing = [w for w in self._members if w not in self._answered]
        bitmap = to_bitmap(set(self._missing), positions(self._cohort.size))
        self._missing_digest = self._cohort.missing_digest(self._ciphertext, bitmap)
        receivers = [self._clients[u] for u in sorted(self._answered)]
        return Sends(receivers, lambda number: Missing(self._ciphertext, bitmap))

    # 8 MISSING

    def _take_agreement(self, number: Number, agreement: Agreement) -> None:
        verify(self.roster.keys[number], agreement.signature, labels.THRESHOLD_MISSING, self._missing_digest)
        self._agreements[self._positions[number]] = agreement.signature

    def _pass_on_agreements(self) -> Sends:
        self._need(len(self._agreements), self._t, "clients signed who is missing")
        signers = sorted(self._agreements)
        signed = tuple(SignedBy(u, self._agreements[u]) for u in signers[: self._t])
        return Sends([self._clients[u] for u in signers], lambda number: Agreements(signed))

    # 9 RECOVER

    def _take_shares(self, number: Number, recovery: Recovery) -> None:
        u, peers = self._positions[number], [revealed.peer for revealed in recovery.shares]
        signed = (*self._cohort.bound(u), self._missing_digest, SHARES.encode(recovery.shares))
        verify(self.roster.keys[number], recovery.signature, labels.THRESHOLD_SHARES, *signed)
        if peers != self._missing:
            raise PeerError("shares of others than asked for")
        self._exchange.check_shares(u, {revealed.peer: revealed.share for revealed in recovery.shares})
        self._shares[u] = b"".join([revealed.share for revealed in recovery.shares])

    def _fuse(self) -> Sends:
        """The sum is c0 + sum d_u + sum c1 s_w; partial decryptions are never weighted.

        If it does not decode, everybody who uploaded is named, and not only who answered (which takes an upload): a
        ciphertext that is none does it as well as a wrong part of the decryption, and its sender may fall silent. The
        parts of the key of those who are missing cannot: what they committed to was checked.
        """
        self._need(len(self._shares), self._t, "clients are there to the end")
        seeds = self._rebuilt()
        total = self._c0.value() + self._partials.value()
        if seeds:
            total += self._scheme.bare(self._c1.value(), seeds)
        try:
            decoded = self._scheme.decode(total)
        except PeerError as error:
            raise PeerError(str(error), culprits=map(self._name, sorted(self._uploaded))) from None
        self._publish(decoded, self._uploaded)
        return NOTHING

    def _rebuilt(self) -> list[bytes]:
        """The seeds of the missing parts of the key, all at once, each checked against what its owner committed to.

        Every share is one that its dealer committed to, and those that honest holders accepted are of one polynomial.
        So where it is another seed than the one behind the part, its dealer has dealt another, to all or to liars.
        """
        if not self._missing:
            return []
        holders = sorted(self._shares)[: self._t]
        shares = np.stack([unpack_shares(self._shares[u], len(self._missing)) for u in holders], axis=1)
        places = np.tile(np.array(holders) + 1, (len(self._missing), 1))
        seeds, false = list[bytes](), list[Position]()
        for w, seed in zip(self._missing, reconstruct(places, shares), strict=True):
            if seed is not None and self._is_seed_of(w, seed):
                seeds.append(seed)
            else:
                false.append(w)
        if false:
            self._liars.update(map(self._name, false))
            raise PeerError("shares of another seed than that of the part of the key", culprits=map(self._name, false))
        return seeds

    def _is_seed_of(self, w: Position, seed: bytes) -> bool:
        number = self._clients[w]
        key = self._scheme.pack_key(self._scheme.public(seed))
        return commitment_to(self.plan, number, key) == self._adverts[number].commitment
