"""The server of the CKKS protocol (the trust model is in ``protocols.ckks``).

It routes messages and has ciphertexts added as they arrive. It never holds a key that opens one, and never parses one:
``engine.Adder`` does that in another process. Clients are positions in U1 once U1 is there.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from protocols.ckks.ciphertexts import Adder, require
from protocols.ckks.client import advert_leaf, check_advert, check_key
from protocols.ckks.cohort import Cohort
from protocols.ckks.messages import (
    ENCRYPTED,
    MADE,
    Advert,
    Aggregate,
    Answer,
    Introduced,
    Introduction,
    KeyShown,
    MadeKey,
    Ready,
    Survivors,
    Upload,
)
from protocols.ckks.parameters import LEAST_ANSWERS, Recipient, layout_of, parameters_of
from protocols.roster import Number
from protocols.rounds.admission import CohortServer
from protocols.rounds.cohort import Position, positions
from protocols.rounds.excess import check_excess
from protocols.rounds.phases import Phase
from protocols.rounds.server import NOTHING, Sends
from protocols.rounds.sets import to_bitmap
from protocols.rounds.steps import Charge, Step, Steps, table
from protocols.rounds.survivors import ConsistencySignature, SignedBy
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, AgreementKey, digest, transcript, verify
from secagg.crypto.merkle import HASH_BYTES, MerkleTree
from secagg.crypto.seal import open_box
from secagg.errors import PeerError


class CkksServer(CohortServer):
    _adverts: dict[Number, Advert]

    @table
    def steps(cls: type[CkksServer]) -> Steps:
        return {
            Phase.ADVERTISE: Step(Advert, cls._admit, cls._introduce, Phase.KEY),
            Phase.KEY: Step(Ready, cls._take_offer, cls._show_key, Phase.UPLOAD),
            Phase.UPLOAD: Step(Upload, cls._add, cls._announce_survivors, Phase.CONSISTENCY),
            Phase.CONSISTENCY: Step(
                ConsistencySignature, cls._take_signature, cls._pass_on_signatures, Phase.REVEAL, Charge.COMMIT
            ),
            Phase.REVEAL: Step(Answer, cls._take_answer, cls._compare, Phase.DONE),
        }

    def _prepare(self) -> None:
        super()._prepare()
        require()
        self._reveal = parameters_of(self.plan).reveal
        self._least = max(LEAST_ANSWERS, self.plan.min_contributors)
        self._ready: list[Number] = []  # U2
        self._offers: dict[Position, MadeKey] = {}
        self._adder = Adder(layout_of(self.plan))
        self._uploaded: list[Position] = []  # U3
        self._refused: set[Position] = set()  # signed an upload that could not be added
        self._seal_key = AgreementKey(os.urandom(KEY_BYTES))  # its one secret: holders must not hear uploads pass by
        self._told: dict[bytes, list[Position]] = {}  # digest of what holders say the sum is -> who says so
        self._totals: dict[bytes, NDArray[np.int64]] = {}
        self.outliers: tuple[str, ...] = ()
        """Holders that said another sum than most. That is a fact and no verdict: most may have lied."""

    # 1 ADVERTISE

    def _check_advert(self, advert: Advert) -> None:
        check_advert(self.plan, self.roster, advert)

    def _introduce(self) -> Sends:
        self._need(len(self._adverts), self._least, "clients advertised")
        self._settle()
        self._leaves = [advert_leaf(self._adverts[number]) for number in self._clients]
        self._tree = MerkleTree(self._leaves)
        self._cohort = Cohort(self.plan, self._tree.root, len(self._clients))
        return Sends(self._clients, self._introduction)

    def _introduction(self, number: Number) -> Introduction:
        u = self._positions[number]
        others = [v for v in self._cohort.knows(u) if v != u]
        introduced = tuple(Introduced(v, self._adverts[self._clients[v]]) for v in others)
        server_key = self._seal_key.public
        return Introduction(
            server_key, self._cohort.root, self._cohort.size, u, introduced, self._tree.proof([u, *others])
        )

    # 2 KEY

    def _take_offer(self, number: Number, ready: Ready) -> None:
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

    def _opened(self, u: Position, label: bytes, box: bytes | memoryview) -> bytes:
        sender = self._adverts[self._clients[u]]
        key = self._cohort.server_key(self._seal_key.agree(sender.seal_key), u, label)
        return open_box(key, box, transcript(label))

    def _show_key(self) -> Sends:
        self._need(len(self._ready), self._least, "clients are ready")
        self._need(len(self._offers), 1, "keys were made")
        self._key = self._offers[min(self._offers)]
        self._offers = {}
        return Sends(sorted(self._ready), self._shown)

    def _shown(self, number: Number) -> KeyShown:
        u, key = self._positions[number], self._key
        if u not in self._cohort.holders:
            return KeyShown(key.header, key.public, b"", b"")
        return KeyShown(key.header, key.public, key.sealed, key.boxes[self._cohort.holders.index(u)])

    # 3 UPLOAD

    def _add(self, number: Number, upload: Upload) -> None:
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
        self._agreed = self._cohort.agreed(to_bitmap(set(self._uploaded), positions(self._cohort.size)))
        return Sends([self._clients[u] for u in self._uploaded], lambda number: Survivors(self._agreed.bitmap))

    # 4 CONSISTENCY

    def _pass_on_signatures(self) -> Sends:
        self._need(len(self._signatures), self._least, "survivors signed")
        self._signers = [self._positions[number] for number in sorted(self._signatures)]  # U4
        holders = [u for u in self._signers if u in self._cohort.holders]
        self._need(len(holders), LEAST_ANSWERS, "holders of the key are left")
        self._sum = self._adder.total()
        return Sends([self._clients[u] for u in self._signers], self._aggregate)

    def _aggregate(self, number: Number) -> Aggregate:
        u = self._positions[number]
        chosen = self._signers[: self.plan.min_contributors]
        others, holds = [v for v in chosen if v != u], u in self._cohort.holders
        return Aggregate(
            tuple(SignedBy(v, self._signatures[self._clients[v]]) for v in chosen),
            tuple(self._leaves[v] for v in others),
            self._tree.proof([u, *others]),
            self._sum if holds else (),
        )

    # 5 REVEAL

    def _take_answer(self, number: Number, answer: Answer) -> None:
        u, ring = self._positions[number], self.plan.ring
        check_excess(self.plan, len(self._uploaded), answer.excess)
        if u not in self._cohort.holders:
            if answer.total:
                raise PeerError("a sum from a client that was not asked")
        else:
            said = self._opened(u, labels.CKKS_ANSWER, answer.total)
            if self._reveal is Recipient.SERVER:
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
        self._publish(self._totals.get(said, np.zeros(0, np.int64)), self._uploaded)
        return NOTHING
