"""A client of the CKKS protocol (the trust model is in ``protocols.ckks``).

u is this client; all are positions in U1. Each check raises before the client has changed. Answers do not replay from a
seed: keys and ciphertexts take TenSEAL's randomness, which is the operating system's, and so here is all that goes with
them. What was said is in the journal, and what a restarted client needs it reads from what it heard: a maker gets its
own key back in a box, like everybody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protocols.client import Client

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from protocols.ckks import ciphertexts
from protocols.ckks.cohort import Cohort
from protocols.ckks.messages import (
    ADVERT,
    ENCRYPTED,
    MADE,
    Advert,
    Aggregate,
    Answer,
    Encrypted,
    Introduction,
    KeyHeader,
    KeyShown,
    MadeKey,
    Ready,
    Survivors,
    Upload,
)
from protocols.ckks.parameters import LEAST_ANSWERS, Recipient, layout_of, parameters_of
from protocols.plan import RoundPlan
from protocols.roster import Number, Roster, known_client
from protocols.rounds.client import ClientRound
from protocols.rounds.cohort import Position, positions
from protocols.rounds.phases import Phase
from protocols.rounds.sets import ascending
from protocols.rounds.steps import Charge, Step, Steps, table
from protocols.rounds.survivors import check_consistency
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, AgreementKey, check_agreement_key, digest, transcript, verify
from secagg.crypto.merkle import Node, check_inclusion, leaf
from secagg.crypto.seal import open_box, seal
from secagg.encoding import Sum
from secagg.errors import PeerError, ThresholdError, UnblamedError, UsageError

TRIES = 3
"""Keys and sums that a client looks into in one round and refuses."""


class CkksClient(ClientRound):
    @table
    def steps(cls: type[CkksClient]) -> Steps:
        return {
            Phase.KEY: Step(Introduction, cls._meet, cls._make_key, Phase.UPLOAD),
            Phase.UPLOAD: Step(KeyShown, cls._take_key, cls._upload, Phase.CONSISTENCY, Charge.RESERVE),
            Phase.CONSISTENCY: Step(Survivors, cls._hear_survivors, cls._sign_survivors, Phase.REVEAL),
            Phase.REVEAL: Step(Aggregate, cls._decrypt, cls._answer, Phase.DONE, Charge.COMMIT),
        }

    def _prepare(self) -> None:
        ciphertexts.require()
        self._layout, self._reveal = layout_of(self.plan), parameters_of(self.plan).reveal
        self._seal_key = AgreementKey(self._drawn(b"seal key"))
        self._content_key = b""
        self._secret_key = b""
        self._total: NDArray[np.int64] | None = None
        self._refusals = 0

    # 1 ADVERTISE: a fresh key, signed together with the plan.

    def opening(self) -> Advert:
        public = self._seal_key.public
        signature = self.identity.key.sign(labels.CKKS_ADVERT, self.plan.digest(), u32.encode(self._number), public)
        return Advert(self._number, public, signature)

    # 2 KEY: those on whom the lot falls make a key each, for the holders only.

    def _meet(self, message: Introduction) -> None:
        cohort, u = Cohort(self.plan, message.root, message.size), message.position
        adverts = {introduced.position: introduced.advert for introduced in message.others} | {u: self.opening()}
        if [introduced.position for introduced in message.others] != [v for v in cohort.knows(u) if v != u]:
            raise PeerError("these are not the clients that the lot demands")
        leaves = {v: advert_leaf(advert) for v, advert in adverts.items()}
        check_inclusion(message.root, message.size, leaves, message.proof)
        for advert in adverts.values():
            check_advert(self.plan, self.roster, advert)
        check_agreement_key(message.server_key)
        self._cohort, self._u, self._adverts, self._server_key = cohort, u, adverts, message.server_key

    def _make_key(self) -> Ready:
        if self._u not in self._cohort.makers:
            return Ready(b"")
        pair, content_key = ciphertexts.make_keys(), os.urandom(KEY_BYTES)
        public_hash = digest(labels.CKKS_KEY, pair.public)
        sealed = seal(content_key, pair.secret, self._secret_associated(self._u, public_hash), os.urandom)
        boxes = tuple(
            [
                seal(self._box_key(self._u, v), content_key, self._box_associated(self._u, v, public_hash), os.urandom)
                for v in self._cohort.holders
            ]
        )
        hashes = (public_hash, digest(labels.CKKS_KEY, sealed, *boxes))
        signature = self.identity.key.sign(labels.CKKS_KEY, *self._cohort.bound(self._u), *hashes)
        made = MadeKey(KeyHeader(self._u, *hashes, signature), pair.public, sealed, boxes)
        return Ready(self._to_server(labels.CKKS_KEY, MADE.encode(made)))

    def _to_server(self, label: bytes, plaintext: bytes) -> bytes:
        key = self._cohort.server_key(self._seal_key.agree(self._server_key), self._u, label)
        return seal(key, plaintext, transcript(label), os.urandom)

    def _box_key(self, sender: Position, receiver: Position) -> bytes:
        peer = self._adverts[receiver if sender == self._u else sender]
        agreed = self._seal_key.agree(peer.seal_key, culprit=self.roster.names[peer.client])
        return self._cohort.box_key(agreed, sender, receiver)

    def _box_associated(self, sender: Position, receiver: Position, public_hash: bytes) -> bytes:
        return transcript(labels.CKKS_BOX, *self._cohort.bound(sender, receiver), public_hash)

    def _secret_associated(self, maker: Position, public_hash: bytes) -> bytes:
        return transcript(labels.CKKS_KEY, *self._cohort.bound(maker), public_hash)

    # 3 UPLOAD: encrypt under the one key that was shown.

    def _take_key(self, message: KeyShown) -> None:
        maker = message.header.maker
        if maker not in self._cohort.makers:
            raise PeerError("a key by a client on whom the lot did not fall")
        check_key(self._cohort, self.roster, self._adverts[maker].client, message.header, message.public)
        if (self._u in self._cohort.holders) != bool(message.box):
            raise PeerError("a secret key withheld from a holder, or shown to another")
        culprit, public_hash = self.roster.names[self._adverts[maker].client], message.header.public_hash
        content_key = secret = b""
        if message.box:
            place = self._box_associated(maker, self._u, public_hash)
            content_key = open_box(self._box_key(maker, self._u), message.box, place, culprit=culprit)
            place = self._secret_associated(maker, public_hash)
            secret = open_box(content_key, message.sealed, place, culprit=culprit)
        with self._tried():
            try:
                ciphertexts.check_public(message.public)
            except PeerError as error:
                raise error.blaming(culprit) from None
        self._public, self._public_hash = message.public, public_hash
        self._content_key, self._secret_key = content_key, secret

    def _upload(self) -> Upload:
        values = self.noised(*self._cohort.bound(self._u)).astype(np.int64)
        chunks = ciphertexts.encrypt(self._layout, self._public, values)
        signed = (*self._cohort.bound(self._u), self._public_hash, digest(labels.CKKS_VECTOR, *chunks))
        encrypted = Encrypted(self.identity.key.sign(labels.CKKS_UPLOAD, *signed), chunks)
        return Upload(self._to_server(labels.CKKS_UPLOAD, ENCRYPTED.encode(encrypted)))

    # 4 CONSISTENCY: sign the one set of survivors.

    def _hear_survivors(self, message: Survivors) -> None:
        least = max(LEAST_ANSWERS, self.plan.min_contributors)
        self._survivors_in(message.survivors, positions(self._cohort.size), self._u, least)
        self._agreed = self._cohort.agreed(message.survivors)
        self._forget_values()

    # 5 REVEAL: against the signatures of min_contributors, a holder decrypts, once.

    def _decrypt(self, message: Aggregate) -> None:
        signers = [signed.signer for signed in message.signatures]
        if not ascending(signers) or not self._agreed.survivors >= set(signers):
            raise PeerError("signers out of order, repeated, or not among the survivors")
        if len(signers) < self.plan.min_contributors:
            raise ThresholdError(
                f"{len(signers)} clients signed the survivors, at least {self.plan.min_contributors} are needed"
            )
        others = [v for v in signers if v != self._u]
        if len(others) != len(message.others):
            raise PeerError("signers of whom it is not shown that they are in the cohort")
        leaves = dict(zip(others, message.others, strict=True)) | {self._u: advert_leaf(self.opening())}
        check_inclusion(self._cohort.root, self._cohort.size, leaves, message.proof)
        for signed in message.signatures:
            check_consistency(self.roster, Number(leaves[signed.signer].low), signed.signature, self._agreed.digest)

        total, asked = None, self._u in self._cohort.holders
        if asked != bool(message.chunks):
            raise PeerError("the sum withheld from a holder of the key, or shown to another")
        if asked:
            with self._tried():
                try:
                    opened = ciphertexts.decrypt(self._layout, self._secret_key, message.chunks)
                except PeerError as error:  # the maker's key, anybody's upload, or the server
                    raise UnblamedError(error.reason) from None
            total = self.plan.ring.centred(opened.astype(self.plan.ring.dtype))
        self._total = total
        self._signed = {Number(leaves[signed.signer].low): signed.signature for signed in message.signatures}

    @contextmanager
    def _tried(self) -> Iterator[None]:
        """Refused frames cost a process each, and each refusal to decrypt says something of the key to who made them:
        there are few of them in a round."""
        if self._refusals == TRIES:
            raise UnblamedError(f"{TRIES} frames of this round could not be opened: no further one is tried")
        try:
            yield
        except PeerError:
            self._refusals += 1
            raise

    @property
    def total(self) -> NDArray[np.int64] | None:
        """The sum, from a holder, once it is charged for and answered. Removable noise is still in it."""
        return self._total if self.done else None

    @property
    def survivors(self) -> int:
        """How many are in the sum."""
        return len(self._agreed.survivors)

    def _answer(self) -> Answer:
        missing = self.plan.clients - self.survivors
        told = b""
        if self._total is not None:
            told = self.plan.ring.pack(self._total.astype(self.plan.ring.dtype))
            if (
                self._reveal is Recipient.CLIENTS
            ):  # equal for equal sums, and says nothing to whom the key was not sealed
                told = digest(labels.CKKS_ANSWER, self._content_key, *self._cohort.bound(), told)
            told = self._to_server(labels.CKKS_ANSWER, told)
        self._secret_key = b""  # a key decrypts once
        return Answer(told, self._excess_seed(missing, *self._cohort.bound(self._u)))


def sum_of(client: Client) -> Sum:
    """What a holder of the key has decrypted in its current round. With ``Recipient.CLIENTS`` there is no other way to
    the sum."""
    current = client.current
    if not isinstance(current, CkksClient) or current.total is None:
        raise UsageError("this client has decrypted no sum in this round")
    return current.plan.decode_total(current.total, current.survivors)


# What both sides verify.


def advert_leaf(advert: Advert) -> Node:
    return leaf(advert.client, ADVERT.encode(advert))


def check_advert(plan: RoundPlan, roster: Roster, advert: Advert) -> None:
    known_client(roster, advert.client)
    name = roster.names[advert.client]
    check_agreement_key(advert.seal_key, culprit=name)
    signed = (plan.digest(), u32.encode(advert.client), advert.seal_key)
    verify(roster.keys[advert.client], advert.signature, labels.CKKS_ADVERT, *signed, culprit=name)


def check_key(cohort: Cohort, roster: Roster, client: int, header: KeyHeader, public: bytes) -> None:
    """This public key was made by this client, for this round."""
    name = roster.names[client]
    signed = (*cohort.bound(header.maker), header.public_hash, header.sealed_hash)
    verify(roster.keys[client], header.signature, labels.CKKS_KEY, *signed, culprit=name)
    if digest(labels.CKKS_KEY, public) != header.public_hash:
        raise PeerError("a key that is not the signed one", culprits=[name])
