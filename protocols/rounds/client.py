"""One client in one round, as a state machine without input or output. ``protocols.client`` drives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dp.secure_sum import SecureSum
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Number, Roster
from protocols.rounds.phases import Phase
from protocols.rounds.sets import Client, from_bitmap
from protocols.rounds.steps import Step, Steps
from protocols.rounds.survivors import NOBODY, ConsistencySignature, agreed_sum
from protocols.wire import Draft, Messages
from secagg.crypto import labels
from secagg.crypto.fingerprint import fingerprint
from secagg.crypto.keys import derive
from secagg.errors import PeerError, ThresholdError, UnblamedError
from secagg.rounding import Integers


class ClientRound(ABC):
    """One client in one round: ``steps`` is its transition table, ``phase`` says where in the table it stands.

    All that it draws comes from one ``secret``, so that a restarted client draws the same. ``values`` gives the vector,
    as signed integers; the step that uploads asks for it, and no other.
    """

    steps: ClassVar[Steps]
    _agreed = NOBODY
    """The survivors that this client has signed."""
    _draft: Draft | None = None
    """The frame whose vector was written last."""

    def __init__(
        self,
        plan: RoundPlan,
        roster: Roster,
        messages: Messages,
        identity: Identity,
        policy: Policy,
        values: Callable[[], Integers],
        secret: bytes,
    ) -> None:
        self.plan, self.roster, self.messages, self.identity, self.policy = plan, roster, messages, identity, policy
        self.values, self._secret = values, secret
        self._number = roster.number(identity.name)
        self._signed: dict[Number, bytes] = {}  # who is seen to have signed the survivors
        self._prepare()
        self.phase = next(iter(self.steps))

    @abstractmethod
    def _prepare(self) -> None:
        """What a protocol's client begins a round with."""

    @abstractmethod
    def opening(self) -> object:
        """The message a client speaks first."""

    def happened(self) -> SecureSum:
        """What the sum's privacy follows from, as this client has verified it."""
        return agreed_sum(self.plan, self.roster, self._agreed, self._signed)

    @property
    def done(self) -> bool:
        """Whether it has said all that it has to say."""
        return self.phase is Phase.DONE

    def frame(self, reply: object) -> bytes:
        """An answer as it is sent."""
        draft, self._draft = self._draft, None
        return self.messages.encode(self.plan, reply, draft)

    def _drafted(self, blank: Callable[[memoryview], object], length: int) -> memoryview:
        """Where an upload's vector of so many bytes is written, before the message around it is known."""
        self._draft = self.messages.draft(self.plan, blank, length)
        return self._draft.vector

    def hear(self, frame: bytes) -> Step:
        """The transition that this frame makes, its message checked and kept."""
        message = self.messages.decode(self.plan, frame)
        step = self.steps.get(self.phase)
        if step is not None and step.optional and not isinstance(message, step.hears):
            step = self.steps[step.then]
        if step is None or not isinstance(message, step.hears):
            raise UnblamedError(f"{type(message).__name__} does not belong in phase {self.phase}")  # or one was lost
        step.check(self, message)
        return step

    def _survivors_in(self, bitmap: bytes, universe: Sequence[Client], own: Client, least: int) -> frozenset[Client]:
        """The set that is to be signed: this client is in it, which has uploaded, and it is large enough."""
        survivors = from_bitmap(bitmap, universe)
        if own not in survivors:
            raise PeerError("this client uploaded and is called a dropout")
        if len(survivors) < least:
            raise ThresholdError(f"{len(survivors)} survivors, at least {least} are needed")
        return survivors

    def _sign_survivors(self) -> ConsistencySignature:
        return ConsistencySignature(self.identity.key.sign(labels.SURVIVORS, self._agreed.digest))

    def _drawn(self, purpose: bytes, *context: bytes) -> bytes:
        return derive(self._secret, labels.CLIENT_SECRET, purpose, self.plan.digest(), *context)

    def _fingerprint(self, values: Integers) -> bytes:
        """What makes all that is drawn for this vector another than for any other one. It is a secret, too."""
        return fingerprint(self._drawn(b"fingerprint"), self.plan.ring.wrap(values))

    def noised(self, *context: bytes) -> Integers:
        """This client's integers and its share of the noise. ``context`` is what the upload is bound to.

        The seed of the noise to keep depends on the integers, too: two copies of this client that are made to upload
        different vectors do not reveal the difference.
        """
        noise, values, ring = self.plan.noise, self.values(), self.plan.ring
        if noise is None:
            return values
        keep = self._drawn(b"noise", *context, self._fingerprint(values))
        drawn = noise.draw(self.plan.clients, len(values), keep, self._drawn(b"removable noise", *context))
        return ring.centred(ring.wrap(values + drawn))

    def _forget_values(self) -> None:
        """They have left, and are never needed again."""
        self.values = _nothing

    def _excess_seed(self, missing: int, *context: bytes) -> bytes:
        """What takes the excess noise off again when so many clients are missing; empty if there is none."""
        noise = self.plan.noise
        if noise is None or (level := noise.removal_level(missing)) == noise.components:
            return b""
        return noise.seed(self._drawn(b"removable noise", *context), level)


def _nothing() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)
