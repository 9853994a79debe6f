"""Everybody but the server: few vectors under few secrets, signed for all of n clients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.memory import extra_of
from benchmarks.regression.oneshot.deployment import POLICY, Config, plan_of
from benchmarks.regression.oneshot.driving import Seconds, drive
from benchmarks.rounds import check_total, people, update_of
from protocols import registry
from protocols.client import Client
from protocols.journal import ForgetfulJournal
from protocols.oneshot.committee import Committee, public_of, sortition
from protocols.oneshot.messages import Answer, Contribution, Delivery, Header, Join, Member, Members, Upload, Vote
from protocols.oneshot.parameters import lattice_of, parameters_of, sharing_of
from protocols.plan import RoundPlan
from protocols.roster import Number
from protocols.rounds.phases import Phase
from protocols.rounds.server import ServerRound
from protocols.rounds.sets import to_bitmap
from protocols.server import serve
from secagg.codec import u32
from secagg.crypto import labels
from secagg.crypto.keys import AgreementKey, digest, transcript
from secagg.crypto.lattice import VARIANCE, packing
from secagg.crypto.lattice.polynomials import Coefficients
from secagg.crypto.sampling.draws import discrete_gaussian
from secagg.crypto.seal import OVERHEAD_BYTES, seal
from secagg.encoding import Encoding
from secagg.errors import UsageError


class Cast:
    """Everybody but the server: few vectors under few secrets, signed for all of n clients."""

    VARIANTS = 4

    def __init__(self, config: Config, dropout: float) -> None:
        self.config = config
        self.plan, self.roster = plan_of(config.n, config.d, dropout, config)
        self._identities, _ = people(config.n)
        self._messages = registry.find("oneshot").messages
        lots = sorted(sortition(self.plan, self.roster))[: self.plan.clients]
        self._keys = {number: AgreementKey(os.urandom(32)) for number in lots}
        self.members = {number: self._seat(self.plan, number, key) for number, key in self._keys.items()}
        self._bound = Committee(self.plan, tuple(self.members.values()))
        self._make_vectors()

    def _seat(self, plan: RoundPlan, number: Number, key: AgreementKey) -> Member:
        signed = (plan.digest(), u32.encode(number), key.public)
        return Member(number, key.public, self._identities[number].key.sign(labels.ONESHOT_SEAT, *signed))

    def _make_vectors(self) -> None:
        """Secrets and errors of every other one are those of the one before, negated."""
        layout, plan = lattice_of(self.plan).layout, self.plan
        count, public = layout.coefficients(plan.encoding.coordinates), public_of(plan)
        self.values, self.secrets, self.vectors = list[NDArray[np.int64]](), list[NDArray[np.int64]](), list[bytes]()
        for variant in range(self.VARIANTS):
            if variant % 2 == 0:
                secret = discrete_gaussian(VARIANCE, layout.ring.degree, os.urandom(32))
                errors = discrete_gaussian(VARIANCE, count, os.urandom(32))
            else:
                secret, errors = -secret, -errors
            mask = public.product(Coefficients.lift(layout.ring, [secret]).evaluations())
            self.values.append(update_of(variant, plan))
            self.secrets.append(secret)
            self.vectors.append(packing.encode(layout, self.values[-1], errors, onto=mask).pack(count))
        self._hashes = [digest(labels.ONESHOT_VECTOR, vector) for vector in self.vectors]
        self._boxes = os.urandom(len(self.members) * (sharing_of(plan).share_bytes + OVERHEAD_BYTES))
        self._boxes_hash, self._key = digest(labels.ONESHOT_BOX, self._boxes), AgreementKey(os.urandom(32)).public

    def encode(self, message: object) -> bytes:
        return self._messages.encode(self.plan, message)

    def decode_upload(self, frame: bytes) -> Upload:
        message = self._messages.decode(self.plan, frame)
        if not isinstance(message, Upload):
            raise RuntimeError("not an upload")
        return message

    # What each says.

    def _upload(self, number: Number) -> Upload:
        variant = number % self.VARIANTS
        header = self._header(number, self._key, self._hashes[variant], self._boxes_hash)
        return Upload(header, self.vectors[variant], self._boxes)

    def _header(self, number: Number, key: bytes, vector_hash: bytes, boxes_hash: bytes) -> Header:
        signed = (*self._bound.bound(number), key, vector_hash, boxes_hash)
        signature = self._identities[number].key.sign(labels.ONESHOT_UPLOAD, *signed)
        return Header(number, key, vector_hash, boxes_hash, signature)

    def _agreed(self, survivors: list[Number]) -> bytes:
        """What members sign."""
        headers = [self._upload(number).header for number in survivors]
        bitmap = to_bitmap(set(survivors), range(len(self.roster)))
        return self._bound.agreed(self._bound.contributed(headers), len(self.roster), bitmap).digest

    def _consent(self, number: Number, agreed: bytes) -> bytes:
        return self.encode(Vote(self._identities[number].key.sign(labels.SURVIVORS, agreed), ()))

    def _answers(self, survivors: list[Number]) -> dict[int, bytes]:
        """Shares of the sum of the survivors' secrets, as the members would have added them."""
        counts = np.bincount([number % self.VARIANTS for number in survivors], minlength=self.VARIANTS)
        total = np.sum([count * secret for count, secret in zip(counts, self.secrets, strict=True)], axis=0)
        shares = sharing_of(self.plan).split(total, len(self.members), os.urandom)
        return {n: self.encode(Answer(share.tobytes(), b"")) for n, share in zip(self.members, shares, strict=True)}

    # A round.

    def round(self, scene: str) -> tuple[Seconds, int]:
        """The server's seconds, by what it did, and its memory beyond what was there before."""
        n, gone = self.config.n, frozenset(range(round(self.config.drop * self.config.n)))
        survivors = [Number(i) for i in range(n) if not (scene == "before" and i in gone)]
        if len(self.members.keys() - (gone if scene != "none" else set())) < parameters_of(self.plan).quorum:
            raise UsageError("the lot left too few members: more clients, or fewer dropouts")
        answers, agreed = self._answers(survivors), self._agreed(survivors)
        server = serve(self.plan, self.roster)

        def say(phase: str, number: Number) -> bytes | None:
            late = phase != Phase.JOIN if scene == "before" else phase not in (Phase.JOIN, Phase.UPLOAD)
            if scene != "none" and late and number in gone:
                return None
            match phase:
                case Phase.JOIN:
                    return self.encode(Join(self.members.get(number)))
                case Phase.UPLOAD:
                    return self.encode(self._upload(number))
                case Phase.CONSISTENCY:
                    return self._consent(number, agreed)
                case _:
                    return answers.get(number) or self.encode(Answer(b"", b""))

        seconds: Seconds = {}
        at = {name: self.roster.number(name) for name in self.roster.names}
        extra = extra_of(lambda: seconds.update(drive(server, lambda phase, name, _: say(phase, at[name]))))
        expected = np.zeros(self.config.d, np.int64)
        for number in survivors:
            expected += self.values[number % self.VARIANTS]
        check_total(server, expected)
        return seconds, extra

    def joined(self) -> tuple[ServerRound, Iterator[tuple[str, bytes]]]:
        """A server in UPLOAD, and uploads for it."""
        server = serve(self.plan, self.roster)
        for name in self.roster.names:
            server.receive(name, self.encode(Join(self.members.get(self.roster.number(name)))))
        server.close(Phase.JOIN)
        return server, ((name, self.encode(self._upload(self.roster.number(name)))) for name in self.roster.names)

    # One real client.

    def upload_of_a_client(self, number: Number, committee: bytes) -> bytes:
        """A client from the plan to its upload; if it has a seat, with the key that the committee knows."""
        client = Client(self._identities[number], self.roster, policy=POLICY, journal=ForgetfulJournal())
        client.start(self.plan, update_of(number, self.plan))
        return client.receive(committee)

    def consent_seconds(self) -> float:
        """A member that opens the boxes of n clients; its own vector is short here, which changes nothing."""
        number = next(iter(self.members))
        client = Client(self._identities[number], self.roster, policy=POLICY, journal=ForgetfulJournal())
        plan, messages = replace(self.plan, encoding=Encoding.integers(8, self.config.bits)), self._messages
        join = messages.decode(plan, client.start(plan, np.zeros(8)))
        if not isinstance(join, Join) or join.member is None:
            raise RuntimeError("the lot fell on somebody else")
        others = {other: self._seat(plan, other, key) for other, key in self._keys.items() if other != number}
        members = tuple(member for _, member in sorted((others | {number: join.member}).items()))
        client.receive(messages.encode(plan, Members(members)))
        frame = messages.encode(plan, Delivery(tuple(self._dealt(plan, Committee(plan, members), join.member))))
        started = perf_counter()
        client.receive(frame)
        return perf_counter() - started

    def _dealt(self, plan: RoundPlan, committee: Committee, to: Member) -> Iterator[Contribution]:
        share = bytes(sharing_of(plan).share_bytes)
        for number in map(Number, range(self.config.n)):
            key, hashes = AgreementKey(os.urandom(32)), (bytes(32), bytes(32))
            signed = (*committee.bound(number), key.public, *hashes)
            signature = self._identities[number].key.sign(labels.ONESHOT_UPLOAD, *signed)
            sealing = committee.box_key(key.agree(to.key), number, to.client)
            box = seal(sealing, share, transcript(labels.ONESHOT_BOX, *committee.bound(number, to.client)), os.urandom)
            yield Contribution(Header(number, key.public, *hashes, signature), box)
