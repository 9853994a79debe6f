"""The server of the threshold CKKS protocol (the papers and the threat model are in ``protocols.threshold_ckks``).

It routes messages, adds keys, ciphertexts and partial decryptions as they arrive, and in the end puts in what the
missing would have said. Clients are positions in U1 once U1 is there; u is one that speaks, w one that is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dp.secure_sum import SecureSum
from protocols.cohort import agreed_sum, ascending, check_consent, check_surplus, released, to_bitmap
from protocols.engines import Engine
from protocols.engines.local import HERE
from protocols.machine import NOTHING, Charge, Sends, ServerRound, Step
from protocols.plan import RoundPlan
from protocols.rebuild import rebuilt_despite_liars
from protocols.roster import Roster
from protocols.threshold_ckks.messages import (
    BOX_BYTES,
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
from secagg import labels
from secagg.errors import PeerError, UnblamedError
from secagg.keys import digest, verify
from secagg.lattice import RunningSum
from secagg.shamir import unpack_shares

if TYPE_CHECKING:
    from dp.ledger import Ledger


class ThresholdServer(ServerRound):
    steps = {  # noqa: RUF012  # declared final by the base class
        Phase.ADVERTISE: Step(Advert, "_admit", "_introduce", Phase.KEY),
        Phase.KEY: Step(Part, "_take_part", "_join", Phase.UPLOAD),
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
        self._dealt: dict[int, bytes] = {}  # U2: dealer -> its boxes, in the order of the others
        self._key = RunningSum(self._scheme.ring, 1)
        self._uploaded: set[int] = set()  # U3
        self._c0, self._c1 = (RunningSum(self._scheme.ring, sizes.blocks) for _ in range(2))
        self._consents: dict[int, bytes] = {}  # by roster number
        self._answered: set[int] = set()
        self._partials = RunningSum(self._scheme.ring, sizes.blocks)
        self._surplus: dict[int, bytes] = {}  # survivor -> the seed of its removable noise
        self._agreements: dict[int, bytes] = {}
        self._recovered: set[int] = set()
        self._shares: dict[int, dict[int, bytes]] = {}  # missing -> holder -> share of its seed
        self.outliers: tuple[str, ...] = ()
        """Holders whose share of some seed did not fit the others', and was done without. That is a fact and no
        verdict: they lied, or the dealer dealt them another share, or several others lied in a way that fits."""

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
        return Sends(self._clients, lambda number: Introduction(self._cohort.adverts))

    # 2 KEY

    def _take_part(self, number: int, part: Part) -> None:
        if len(part.boxes) != self._cohort.size - 1:
            raise PeerError("shares for others than all the others")
        if commitment_to(self.plan, number, part.key) != self._adverts[number].commitment:
            raise PeerError("another part of the key than was committed to")
        self._key.add(self._scheme.unpack_key(part.key))
        self._dealt[self._positions[number]] = b"".join(part.boxes)

    def _join(self) -> Sends:
        self._need(len(self._dealt), self._least, "clients share the key")
        self._members = sorted(self._dealt)  # U2
        self._members_bitmap = to_bitmap(self._dealt.keys(), range(self._cohort.size))
        self._joint = self._scheme.pack_key(self._key.value())
        self._joint_digest = self._cohort.joint_digest(self._members_bitmap, self._joint)
        return Sends([self._clients[u] for u in self._members], self._joint_key)

    def _joint_key(self, number: int) -> JointKey:
        u, boxes = self._positions[number], list[bytes]()
        for w in self._members:
            if w != u:
                at = (u - (u > w)) * BOX_BYTES
                boxes.append(self._dealt[w][at : at + BOX_BYTES])
        return JointKey(self._members_bitmap, self._joint, tuple(boxes))

    # 3 UPLOAD

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
        self._dealt = {}
        self._bitmap = to_bitmap(self._uploaded, range(self._cohort.size))
        self._agreed = self._cohort.survivors_digest(self._bitmap)
        self._c1_sum = self._scheme.pack_all(self._c1.value())
        self._ciphertext = self._cohort.ciphertext_digest(self._joint_digest, self._agreed, self._c1_sum)
        receivers = [self._clients[u] for u in sorted(self._uploaded)]
        return Sends(receivers, lambda number: Survivors(self._bitmap, self._ciphertext))

    # 4 CONSENT

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

    # 5 DECRYPT

    def _take_answer(self, number: int, answer: Answer) -> None:
        u = self._positions[number]
        said = digest(labels.THRESHOLD_PARTIAL, answer.partial, answer.surplus)
        signed = (*self._cohort.bound(u), self._ciphertext, said)
        verify(self.roster.keys[number], answer.signature, labels.THRESHOLD_PARTIAL, *signed)
        check_surplus(self.plan, len(self._uploaded), answer.surplus)
        self._partials.add(self._scheme.unpack_used(answer.partial))
        self._answered.add(u)
        if answer.surplus:
            self._surplus[number] = answer.surplus

    def _name_missing(self) -> Sends:
        self._need(len(self._answered), self._t, "clients decrypted their part")
        self._missing = [w for w in self._members if w not in self._answered]
        bitmap = to_bitmap(set(self._missing), range(self._cohort.size))
        self._missing_digest = self._cohort.missing_digest(self._ciphertext, bitmap)
        receivers = [self._clients[u] for u in sorted(self._answered)]
        return Sends(receivers, lambda number: Missing(self._ciphertext, bitmap))

    # 6 MISSING

    def _take_agreement(self, number: int, agreement: Agreement) -> None:
        verify(self.roster.keys[number], agreement.signature, labels.THRESHOLD_MISSING, self._missing_digest)
        self._agreements[self._positions[number]] = agreement.signature

    def _pass_on_agreements(self) -> Sends:
        self._need(len(self._agreements), self._t, "clients signed who is missing")
        signers = sorted(self._agreements)
        signed = tuple(Signed(u, self._agreements[u]) for u in signers[: self._t])
        return Sends([self._clients[u] for u in signers], lambda number: Agreements(signed))

    # 7 RECOVER

    def _take_shares(self, number: int, recovery: Recovery) -> None:
        u, peers = self._positions[number], [revealed.peer for revealed in recovery.shares]
        signed = (*self._cohort.bound(u), self._missing_digest, SHARES.encode(recovery.shares))
        verify(self.roster.keys[number], recovery.signature, labels.THRESHOLD_SHARES, *signed)
        if not ascending(peers) or not set(peers) <= set(self._missing):
            raise PeerError("shares of others than asked for")  # it may hold fewer: some did not open
        for revealed in recovery.shares:
            unpack_shares(revealed.share, 1)
        for revealed in recovery.shares:
            self._shares.setdefault(revealed.peer, {})[u] = revealed.share
        self._recovered.add(u)

    def _fuse(self) -> Sends:
        """The sum is c0 + sum d_u + sum c1 s_w; partial decryptions are never weighted.

        If it does not decode, everybody who uploaded is named, and not only who answered (which takes an upload): a
        ciphertext that is none does it as well as a wrong part of the decryption, and its sender may fall silent. The
        parts of the key of those who are missing cannot: what they committed to was checked.
        """
        self._need(len(self._recovered), self._t, "clients are there to the end")
        seeds = [self._rebuilt(w) for w in self._missing]
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
            surplus=self._surplus,
            engine=self._engine,
        )
        return NOTHING

    def _rebuilt(self, w: int) -> bytes:
        """The seed of w's part of the key, checked against what w committed to."""
        shares = self._shares.get(w, {})
        reason = f"shares came to rebuild the part of the key of {self._name(w)}"
        if len(shares) < self._t:  # enough clients are there, so some withhold theirs, or w gave them none
            silent = self._recovered - shares.keys()
            raise PeerError(f"{len(shares)} {reason}, {self._t} are needed", culprits=map(self._name, (w, *silent)))
        points = np.concatenate([unpack_shares(share, 1) for share in shares.values()])
        found = rebuilt_despite_liars(list(shares), points, self._t, lambda seed: self._is_seed_of(w, seed))
        if found is None:  # enough liars can make it look like a lie of the dealer, and the dealer too
            raise PeerError("shares that do not give the seed", culprits=map(self._name, [w, *shares]))
        seed, outliers = found
        self.outliers = tuple(sorted({*self.outliers, *map(self._name, outliers)}))
        return seed

    def _is_seed_of(self, w: int, seed: bytes) -> bool:
        number = self._clients[w]
        key = self._scheme.pack_key(self._scheme.public(seed))
        return commitment_to(self.plan, number, key) == self._adverts[number].commitment

    def _name(self, u: int) -> str:
        return self._cohort.name(u)
