"""The server of the threshold CKKS protocol (the papers and the threat model are in ``protocols.threshold_ckks``).

It routes messages, adds keys, ciphertexts and partial decryptions as they arrive, and in the end puts in what the
missing would have said. Clients are positions in U1 once U1 is there; u is one that speaks, w one that is missing.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

import numpy as np

from dp.secure_sum import SecureSum
from protocols.engines import Engine
from protocols.engines.local import HERE
from protocols.plan import RoundPlan
from protocols.roster import Roster
from protocols.rounds.cohort import agreed_sum, check_consent, check_excess, released, to_bitmap
from protocols.rounds.dealing import Complaints, Defence, Delivery, Exchange
from protocols.rounds.server import NOTHING, Sends, ServerRound
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
    Signed,
    Survivors,
    Upload,
)
from protocols.threshold_ckks.phases import Phase
from protocols.threshold_ckks.rules import (
    Cohort,
    check_advert,
    commitment_to,
    least_of,
    parameters_of,
    scheme_of,
)
from secagg.crypto import labels
from secagg.crypto.keys import digest, verify
from secagg.crypto.lattice import Coefficients, RunningSum
from secagg.crypto.shamir import reconstruct, unpack_shares
from secagg.errors import PeerError, UnblamedError

if TYPE_CHECKING:
    from dp.ledger import Ledger


class ThresholdServer(ServerRound):
    steps = {  # noqa: RUF012  # declared final by the base class
        Phase.ADVERTISE: Step(Advert, "_admit", "_introduce", Phase.KEY),
        Phase.KEY: Step(Part, "_take_part", "_deliver", Phase.COMPLAIN),
        Phase.COMPLAIN: Step(Complaints, "_take_complaints", "_accuse", Phase.DEFEND),
        Phase.DEFEND: Step(Defence, "_take_defence", "_join", Phase.UPLOAD, optional=True),
        Phase.UPLOAD: Step(Upload, "_add", "_announce_survivors", Phase.CONSENT),
        Phase.CONSENT: Step(Consent, "_take_consent", "_pass_on_consents", Phase.DECRYPT, Charge.COMMIT),
        Phase.DECRYPT: Step(Answer, "_take_answer", "_name_missing", Phase.MISSING),
        Phase.MISSING: Step(Agreement, "_take_agreement", "_pass_on_agreements", Phase.RECOVER),
        Phase.RECOVER: Step(Recovery, "_take_shares", "_fuse", Phase.DONE),
    }
    done, failed = Phase.DONE, Phase.FAILED

    def __init__(self, plan: RoundPlan, roster: Roster, *, ledger: Ledger | None = None, engine: Engine = HERE) -> None:
        super().__init__(plan, roster, ledger=ledger, engine=engine)
        self._scheme, sizes = scheme_of(plan), scheme_of(plan).sizes
        self._t, self._least = parameters_of(plan).threshold, least_of(plan)
        self._adverts: dict[int, Advert] = {}  # by roster number
        self._parts: dict[int, Coefficients] = {}  # of the key; until it is known whose are in it
        self._uploaded: set[int] = set()  # U3
        self._c0, self._c1 = (RunningSum(self._scheme.ring, sizes.blocks) for _ in range(2))
        self._consents: dict[int, bytes] = {}  # by roster number
        self._answered: set[int] = set()
        self._partials = RunningSum(self._scheme.ring, sizes.blocks)
        self._excess: dict[int, bytes] = {}  # survivor -> the seed of its removable noise
        self._agreements: dict[int, bytes] = {}
        self._shares: dict[int, bytes] = {}  # holder -> its shares of the seeds of all that are missing

    # 1 ADVERTISE

    def _admit(self, number: int, advert: Advert) -> None:
        if advert.client != number:
            raise PeerError("an advert in somebody else's name")
        if len(self._adverts) == self.plan.clients:
            raise UnblamedError(f"the cohort of {self.plan.clients} is full")
        check_advert(self.plan, self.roster, advert)
        self._adverts[number] = advert

    def _introduce(self) -> Sends:
        self._need(len(self._adverts), self._least, "clients advertised")
        self._clients = sorted(self._adverts)  # U1: position -> roster number
        self._positions = {number: u for u, number in enumerate(self._clients)}
        self._cohort = Cohort(self.plan, self.roster, [self._adverts[number] for number in self._clients])
        self._exchange = Exchange(self._cohort, lambda _: range(self._cohort.size), self._t, SECRETS)
        return Sends(self._clients, lambda number: Introduction(self._cohort.adverts))

    # 2 KEY

    def _take_part(self, number: int, part: Part) -> None:
        if commitment_to(self.plan, number, part.key) != self._adverts[number].commitment:
            raise PeerError("another part of the key than was committed to")
        key = self._scheme.unpack_key(part.key)
        self._exchange.take(self._positions[number], part.dealt)
        self._parts[self._positions[number]] = key

    def _deliver(self) -> Sends:
        self._need(len(self._parts), self._least, "clients dealt shares of their part of the key")
        return Sends(self._dealers(), self._delivery)

    def _dealers(self) -> list[int]:
        """As numbers in the roster."""
        return [self._clients[u] for u in sorted(self._exchange.dealers)]

    def _delivery(self, number: int) -> Delivery:
        v = self._positions[number]
        return Delivery(tuple(self._exchange.delivered(u, v) for u in sorted(self._exchange.dealers) if u != v))

    # 3 COMPLAIN

    def _take_complaints(self, number: int, said: Complaints) -> None:
        v, key = self._positions[number], self.roster.keys[number]
        self._exchange.complain(v, key, self._exchange.dealers, said)

    def _accuse(self) -> Sends:
        """Who has fallen silent is left out now: there is no key yet of which it has a part."""
        there = {self._positions[number] for number in self._heard}
        self._leave_out(self._exchange.dealers - there)
        accused = [self._clients[u] for u in self._exchange.accused]
        return Sends(accused, lambda number: self._exchange.accusations(self._positions[number]))

    # 4 DEFEND

    def _take_defence(self, number: int, defence: Defence) -> None:
        self._exchange.defend(self._positions[number], defence)

    def _leave_out(self, dealers: Set[int]) -> None:
        self._exchange.leave_out(dealers)
        self.excluded = tuple(sorted({*self.excluded, *map(self._name, dealers)}))

    def _join(self) -> Sends:
        """Add up the parts of those whose shares hold, and of nobody else."""
        self._leave_out(self._exchange.undefended)
        self.disputes = tuple((self._name(v), self._name(u)) for u, v in self._exchange.answered)
        self._members = sorted(self._exchange.dealers)  # U2
        self._need(len(self._members), self._least, "clients share the key")
        self._exchange.keep_commitments(lambda u: SEED)
        joint = RunningSum(self._scheme.ring, 1)
        for u in self._members:
            joint.add(self._parts[u])
        self._parts = {}
        self._members_bitmap = to_bitmap(set(self._members), range(self._cohort.size))
        self._joint = self._scheme.pack_key(joint.value())
        self._joint_digest = self._cohort.joint_digest(self._members_bitmap, self._joint)
        return Sends(self._dealers(), self._joint_key)

    def _joint_key(self, number: int) -> JointKey:
        return JointKey(self._members_bitmap, self._joint, self._exchange.opened_for(self._positions[number]))

    # 5 UPLOAD

    def _add(self, number: int, upload: Upload) -> None:
        u = self._positions[number]
        ciphertext = (upload.c0, upload.c1)
        signed = (*self._cohort.bound(u), self._joint_digest, digest(labels.THRESHOLD_UPLOAD, *ciphertext))
        verify(self.roster.keys[number], upload.signature, labels.THRESHOLD_UPLOAD, *signed)
        c0, c1 = self._scheme.unpack_used(upload.c0), self._scheme.unpack_all(upload.c1)
        self._c0.add(c0)
        self._c1.add(c1)
        self._uploaded.add(u)

    def _announce_survivors(self) -> Sends:
        self._need(len(self._uploaded), self._least, "clients uploaded")
        self._bitmap = to_bitmap(self._uploaded, range(self._cohort.size))
        self._agreed = self._cohort.survivors_digest(self._bitmap)
        self._c1_sum = self._scheme.pack_all(self._c1.value())
        self._ciphertext = self._cohort.ciphertext_digest(self._joint_digest, self._agreed, self._c1_sum)
        receivers = [self._clients[u] for u in sorted(self._uploaded)]
        return Sends(receivers, lambda number: Survivors(self._bitmap, self._ciphertext))

    # 6 CONSENT

    def _take_consent(self, number: int, consent: Consent) -> None:
        check_consent(self.roster, number, consent.signature, self._agreed)
        self._consents[number] = consent.signature

    def _pass_on_consents(self) -> Sends:
        self._need(len(self._consents), self._least, "survivors signed")
        signers = sorted(self._consents)  # U4
        signed = tuple(Signed(self._positions[number], self._consents[number]) for number in signers[: self._least])
        return Sends(signers, lambda number: Aggregate(signed, self._c1_sum))

    def happened(self) -> SecureSum:
        return agreed_sum(self.plan, self.roster, self._cohort.root, self._cohort.size, self._bitmap, self._consents)

    # 7 DECRYPT

    def _take_answer(self, number: int, answer: Answer) -> None:
        u = self._positions[number]
        said = digest(labels.THRESHOLD_PARTIAL, answer.partial, answer.excess)
        signed = (*self._cohort.bound(u), self._ciphertext, said)
        verify(self.roster.keys[number], answer.signature, labels.THRESHOLD_PARTIAL, *signed)
        check_excess(self.plan, len(self._uploaded), answer.excess)
        self._partials.add(self._scheme.unpack_used(answer.partial))
        self._answered.add(u)
        if answer.excess:
            self._excess[number] = answer.excess

    def _name_missing(self) -> Sends:
        self._need(len(self._answered), self._t, "clients decrypted their part")
        self._missing = [w for w in self._members if w not in self._answered]
        bitmap = to_bitmap(set(self._missing), range(self._cohort.size))
        self._missing_digest = self._cohort.missing_digest(self._ciphertext, bitmap)
        receivers = [self._clients[u] for u in sorted(self._answered)]
        return Sends(receivers, lambda number: Missing(self._ciphertext, bitmap))

    # 8 MISSING

    def _take_agreement(self, number: int, agreement: Agreement) -> None:
        verify(self.roster.keys[number], agreement.signature, labels.THRESHOLD_MISSING, self._missing_digest)
        self._agreements[self._positions[number]] = agreement.signature

    def _pass_on_agreements(self) -> Sends:
        self._need(len(self._agreements), self._t, "clients signed who is missing")
        signers = sorted(self._agreements)
        signed = tuple(Signed(u, self._agreements[u]) for u in signers[: self._t])
        return Sends([self._clients[u] for u in signers], lambda number: Agreements(signed))

    # 9 RECOVER

    def _take_shares(self, number: int, recovery: Recovery) -> None:
        u, peers = self._positions[number], [revealed.peer for revealed in recovery.shares]
        signed = (*self._cohort.bound(u), self._missing_digest, SHARES.encode(recovery.shares))
        verify(self.roster.keys[number], recovery.signature, labels.THRESHOLD_SHARES, *signed)
        if peers != self._missing:
            raise PeerError("shares of others than asked for")
        for revealed in recovery.shares:
            self._exchange.check_share(revealed.peer, u, SEED, revealed.share)
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
        self.outcome = released(
            self.plan,
            self.roster,
            decoded,
            advertised=self._clients,
            survivors=[self._clients[u] for u in sorted(self._uploaded)],
            agreed=self._agreed,
            consents=self._consents,
            excess=self._excess,
            engine=self._engine,
        )
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
        seeds, false = list[bytes](), list[int]()
        for w, seed in zip(self._missing, reconstruct(places, shares), strict=True):
            if seed is not None and self._is_seed_of(w, seed):
                seeds.append(seed)
            else:
                false.append(w)
        if false:
            self._liars.update(map(self._name, false))
            raise PeerError("shares of another seed than that of the part of the key", culprits=map(self._name, false))
        return seeds

    def _is_seed_of(self, w: int, seed: bytes) -> bool:
        number = self._clients[w]
        key = self._scheme.pack_key(self._scheme.public(seed))
        return commitment_to(self.plan, number, key) == self._adverts[number].commitment

    def _name(self, u: int) -> str:
        return self._cohort.name(u)
