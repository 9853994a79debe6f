"""One client in one round, as a state machine without input or output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from dp.secure_sum import SecureSum
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.steps import Step
from secagg.crypto import labels
from secagg.crypto.keys import derive, digest
from secagg.crypto.ring import Words

if TYPE_CHECKING:
    pass


class ClientRound(ABC):
    """One client in one round: ``steps`` is its transition table (one for each role), ``phase`` where it stands.

    All that it draws comes from one ``secret``, so that a restarted client draws the same. ``values`` is asked by the
    upload and by nothing else.
    """

    steps: Mapping[StrEnum, Step]
    done: ClassVar[StrEnum]

    def __init__(
        self,
        plan: RoundPlan,
        roster: Roster,
        identity: Identity,
        policy: Policy,
        values: Callable[[], Words],
        secret: bytes,
    ) -> None:
        self.plan, self.roster, self.identity, self.policy = plan, roster, identity, policy
        self.phase = next(iter(self.steps))
        self._values, self._secret = values, secret

    @abstractmethod
    def opening(self) -> object:
        """The message a client speaks first."""

    @abstractmethod
    def happened(self) -> SecureSum:
        """What the sum's privacy follows from, as this client has verified it."""

    def _drawn(self, purpose: bytes, *context: bytes) -> bytes:
        return derive(self._secret, labels.CLIENT_SECRET, purpose, self.plan.digest(), *context)

    def _noised(self, *context: bytes) -> Words:
        """This client's integers and its share of the noise. ``context`` is what the upload is bound to.

        The seed of the noise to keep depends on the integers, too: two copies of this client that are made to upload
        different vectors do not reveal the difference.
        """
        noise, values = self.plan.noise, self._values()
        if noise is None:
            return values.copy()
        keep = self._drawn(b"noise", *context, digest(labels.NOISE_KEEP, values.tobytes()))
        drawn = noise.draw(self.plan.clients, len(values), keep, self._drawn(b"removable noise", *context))
        return values + drawn.astype(values.dtype)

    def _excess_seed(self, missing: int, *context: bytes) -> bytes:
        """What takes the excess off again when so many clients are missing; empty if there is none."""
        noise = self.plan.noise
        if noise is None or (level := noise.removal_level(missing)) == noise.components:
            return b""
        return noise.seed(self._drawn(b"removable noise", *context), level)
