"""The server's side of what protocols with a cohort share: who is admitted to it, and who has signed its survivors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.roster import Number
from protocols.rounds.cohort import Position
from protocols.rounds.server import ServerRound
from protocols.rounds.survivors import ConsistencySignature, check_consistency
from secagg.errors import PeerError, UnblamedError


class CohortServer(ServerRound):
    """Clients advertise under their numbers in the roster. Once they are admitted they are positions in U1."""

    _adverts: dict[Number, Any]

    def _prepare(self) -> None:
        self._adverts = {}
        self._clients: list[Number] = []  # by position
        self._positions: dict[Number, Position] = {}

    @abstractmethod
    def _check_advert(self, advert: Any) -> None:
        """Refuse one that its client has not signed for this plan."""

    def _admit(self, number: Number, advert: Any) -> None:
        if advert.client != number:
            raise PeerError("an advert in somebody else's name")
        if len(self._adverts) == self.plan.clients:
            raise UnblamedError(f"the cohort of {self.plan.clients} is full")
        self._check_advert(advert)
        self._adverts[number] = advert

    def _settle(self) -> None:
        """U1 are those who have advertised by now."""
        self._clients = sorted(self._adverts)
        self._positions = {number: Position(u) for u, number in enumerate(self._clients)}

    def _take_signature(self, number: Number, said: ConsistencySignature) -> None:
        check_consistency(self.roster, number, said.signature, self._agreed.digest)
        self._signatures[number] = said.signature

    def _publish(self, total: NDArray[np.int64], survivors: Iterable[Position]) -> None:
        """The outcome of the round: the sum of these clients."""
        self._release(total, advertised=self._clients, survivors=[self._clients[u] for u in sorted(survivors)])

    def _name(self, u: Position) -> str:
        return self.roster.names[self._clients[u]]
