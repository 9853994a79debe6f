"""The server of the CKKS protocol (the trust model is in ``protocols.ckks``).

It routes messages and has ciphertexts added as they arrive. It never holds a key that opens one, and never parses one:
``engine.Adder`` does that in another process. Clients are positions in U1 once U1 is there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dp.secure_sum import SecureSum
from protocols.ckks.client import advert_leaf, check_advert, check_key
from protocols.ckks.engine import Adder, require
from protocols.ckks.messages import (
    ENCRYPTED,
    MADE,
    Advert,
    Aggregate,
    Answer,
    Consent,
    Introduced,
    Introduction,
    KeyShown,
    MadeKey,
    Ready,
    SignedConsent,
    Survivors,
    Upload,
)
from protocols.ckks.phases import Phase
from protocols.ckks.rules import LEAST_ANSWERS, Cohort, Reveal, layout_of, parameters_of
from protocols.engines import Engine
from protocols.engines.local import HERE
from protocols.plan import RoundPlan
from protocols.roster import Roster
from protocols.rounds.cohort import agreed_sum, check_consent, check_excess, released, to_bitmap
from protocols.rounds.server import NOTHING, Sends, ServerRound
from protocols.rounds.steps import Charge, Step
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, AgreementKey, digest, transcript, verify
from secagg.crypto.merkle import HASH_BYTES, MerkleTree
from secagg.crypto.seal import open_box
from secagg.errors import PeerError, UnblamedError

if TYPE_CHECKING:
    from dp.ledger import Ledger


class CkksServer(ServerRound):
    steps = {  # noqa: RUF012  # declared final by the base class
        Phase.ADVERTISE: Step(Advert, "_admit", "_introduce", Phase.KEY),
        Phase.KEY: Step(Ready, "_take_offer", "_show_key", Phase.UPLOAD),
        Phase.UPLOAD: Step(Upload, "_add", "_announce_survivors", Phase.CONSENT),
        Phase.CONSENT: Step(Consent, "_take_consent", "_pass_on", Phase.REVEAL, Charge.COMMIT),
        Phase.REVEAL: Step(Answer, "_take_answer", "_compare", Phase.DONE),
    }
    done, failed = Phase.DONE, Phase.FAILED

    def __init__(self, plan: RoundPlan, roster: Roster, *, ledger: Ledger | None = None, engine: Engine = HERE) -> None:
        require()
        super().__init__(plan, roster, ledger=ledger, engine=engine)
        self._reveal = parameters_of(plan).reveal
        self._least = max(LEAST_ANSWERS, plan.min_contributors)
        self._adverts: dict[int, Advert] = {}  # by roster number
        self._ready: list[int] = []  # U2
        self._offers: dict[int, MadeKey] = {}
        self._adder = Adder(layout_of(plan))
        self._uploaded: list[int] = []  # U3
        self._refused: set[int] = set()  # signed an upload that could not be added
        self._consents: dict[int, bytes] = {}
        self._seal_key = AgreementKey(os.urandom(KEY_BYTES))  # its one secret: holders must not hear uploads pass by
        self._told: dict[bytes, list[int]] = {}  # digest of what holders say the sum is -> who says so
        self._totals: dict[bytes, NDArray[np.int64]] = {}
        self._excess: dict[int, bytes] = {}  # survivor -> the seed of its removable noise
        self.outliers: tuple[str, ...] = ()
        """Holders that said another sum than most. That is a fact and no verdict: most may have lied."""

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
        self._leaves = [advert_leaf(self._adverts[number]) for number in self._clients]
        self._tree = MerkleTree(self._leaves)
        self._cohort = Cohort(self.plan, self._tree.root, len(self._clients))
        return Sends(self._clients, self._introduction)

    def _introduction(self, number: int) -> Introduction:
        u = self._positions[number]
        others = [v for v in self._cohort.knows(u) if v != u]
        introduced = tuple(Introduced(v, self._adverts[self._clients[v]]) for v in others)
        server_key = self._seal_key.public
        return Introduction(
            server_key, self._cohort.root, self._cohort.size, u, introduced, self._tree.proof([u, *others])
        )

    # 2 KEY

    def _take_offer(self, number: int, ready: Ready) -> None:
        u = self._positions[number]
        if bool(ready.made) != (u in self._cohort.makers):
            raise PeerError("a key that was not asked for, or none that was")
        if ready.made:
            made = MADE.decode(self._opened(u, labels.CKKS_KEY, ready.made))
            if made.header.maker != u or len(made.boxes) != len(self._cohort.holders):
                raise PeerError("a key in somebody else's name, or for others than the holders")
            check_key(self._cohort, self.roster, number, made.header, made.public)
            if digest(labels.CKKS_KEY, made.sealed, *made.boxes) != made.header.sealed_hash:
                raise PeerError("boxes that are not the signed ones")
            self._offers[u] = made
        self._ready.append(number)

    def _opened(self, u: int, label: bytes, box: bytes) -> bytes:
        sender = self._adverts[self._clients[u]]
        key = self._cohort.server_key(self._seal_key.agree(sender.seal_key), u, label)
        return open_box(key, box, transcript(label))

    def _show_key(self) -> Sends:
        self._need(len(self._ready), self._least, "clients are ready")
        self._need(len(self._offers), 1, "keys were made")
        self._key = self._offers[min(self._offers)]
        self._offers = {}
        return Sends(sorted(self._ready), self._shown)

    def _shown(self, number: int) -> KeyShown:
        u, key = self._positions[number], self._key
        if u not in self._cohort.holders:
            return KeyShown(key.header, key.public, b"", b"")
        return KeyShown(key.header, key.public, key.sealed, key.boxes[self._cohort.holders.index(u)])

    # 3 UPLOAD

    def _add(self, number: int, upload: Upload) -> None:
        u = self._positions[number]
        encrypted = ENCRYPTED.decode(self._opened(u, labels.CKKS_UPLOAD, upload.encrypted))
        signed = (*self._cohort.bound(u), self._key.header.public_hash, digest(labels.CKKS_VECTOR, *encrypted.chunks))
        verify(self.roster.keys[number], encrypted.signature, labels.CKKS_UPLOAD, *signed)
        if u in self._refused:
            raise PeerError("an upload of a client whose first one could not be added")
        try:
            self._adder.add(encrypted.chunks)
        except PeerError:  # it signed them; each further one may cost another process, and the sum made again
            self._refused.add(u)
            raise
        self._uploaded.append(u)

    def _announce_survivors(self) -> Sends:
        self._need(len(self._uploaded), self._least, "clients uploaded")
        self._uploaded.sort()
        self._bitmap = to_bitmap(set(self._uploaded), range(self._cohort.size))
        self._agreed = self._cohort.survivors_digest(self._bitmap)
        return Sends([self._clients[u] for u in self._uploaded], lambda number: Survivors(self._bitmap))

    # 4 CONSENT

    def _take_consent(self, number: int, consent: Consent) -> None:
        check_consent(self.roster, number, consent.signature, self._agreed)
        self._consents[number] = consent.signature

    def _pass_on(self) -> Sends:
        self._need(len(self._consents), self._least, "survivors signed")
        self._signers = [self._positions[number] for number in sorted(self._consents)]  # U4
        holders = [u for u in self._signers if u in self._cohort.holders]
        self._need(len(holders), LEAST_ANSWERS, "holders of the key are left")
        self._sum = self._adder.total()
        return Sends([self._clients[u] for u in self._signers], self._aggregate)

    def happened(self) -> SecureSum:
        return agreed_sum(self.plan, self.roster, self._cohort.root, self._cohort.size, self._bitmap, self._consents)

    def _aggregate(self, number: int) -> Aggregate:
        u = self._positions[number]
        chosen = self._signers[: self.plan.min_contributors]
        others, holds = [v for v in chosen if v != u], u in self._cohort.holders
        return Aggregate(
            tuple(SignedConsent(v, self._consents[self._clients[v]]) for v in chosen),
            tuple(self._leaves[v] for v in others),
            self._tree.proof([u, *others]),
            self._sum if holds else (),
        )

    # 5 REVEAL

    def _take_answer(self, number: int, answer: Answer) -> None:
        u, ring = self._positions[number], self.plan.ring
        check_excess(self.plan, len(self._uploaded), answer.excess)
        if u not in self._cohort.holders:
            if answer.total:
                raise PeerError("a sum from a client that was not asked")
        else:
            said = self._opened(u, labels.CKKS_ANSWER, answer.total)
            if self._reveal is Reveal.SERVER:
                total = ring.centred(ring.unpack(said, self.plan.encoding.coordinates))
                said = digest(labels.CKKS_ANSWER, said)
                self._totals.setdefault(said, total)
            elif len(said) != HASH_BYTES:
                raise PeerError("no proof of a sum")
            self._told.setdefault(said, []).append(u)
        if answer.excess:
            self._excess[number] = answer.excess

    def _compare(self) -> Sends:
        """What more than half of the holders say that answered, and at least two.

        If no sum has that many, all who said one are named. Nobody else can cause it: holders decrypt the same bytes
        with the same key, and refuse what is not within the error bound of integers.
        """
        answers = sum(map(len, self._told.values()))
        self._need(answers, LEAST_ANSWERS, "holders answered")
        said, agreeing = max(self._told.items(), key=lambda told: len(told[1]))
        if 2 * len(agreeing) <= answers:
            holders = [self._name(u) for told in self._told.values() for u in told]
            raise PeerError("holders of the key say different sums", culprits=holders)
        others = [u for told in self._told.values() if told is not agreeing for u in told]
        self.outliers = tuple(self._name(u) for u in sorted(others))
        self.outcome = released(
            self.plan,
            self.roster,
            self._totals.get(said, np.zeros(0, np.int64)),
            advertised=self._clients,
            survivors=[self._clients[u] for u in self._uploaded],
            agreed=self._agreed,
            consents=self._consents,
            excess=self._excess,
            engine=self._engine,
        )
        return NOTHING

    def _name(self, u: int) -> str:
        return self.roster.names[self._clients[u]]
