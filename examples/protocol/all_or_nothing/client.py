"""A client. Each check raises before the client has changed; each reply is a pure function of what is known."""

from __future__ import annotations

from all_or_nothing.cohort import SIGNED, check_advert, pair_seed, root_of, signed_parts
from all_or_nothing.messages import Advert, Introduction, Upload
from protocols.rounds.client import ClientRound
from protocols.rounds.phases import Phase
from protocols.rounds.sets import ascending
from protocols.rounds.steps import Charge, Step, Steps, table
from secagg.crypto.keys import AgreementKey
from secagg.crypto.masking import add_masks
from secagg.errors import PeerError, PolicyError


class AllOrNothingClient(ClientRound):
    @table
    def steps(cls: type[AllOrNothingClient]) -> Steps:
        return {Phase.UPLOAD: Step(Introduction, cls._meet, cls._upload, Phase.DONE, Charge.RESERVE)}

    def _prepare(self) -> None:
        self._key = AgreementKey(self._drawn(b"mask key"))  # drawn from the round's secret: the same after a restart

    # 1 ADVERTISE

    def opening(self) -> Advert:
        signed = signed_parts(self.plan, self._number, self._key.public)
        return Advert(self._number, self._key.public, self.identity.key.sign(SIGNED, *signed))

    # 2 UPLOAD

    def _meet(self, message: Introduction) -> None:
        clients = [advert.client for advert in message.adverts]
        if not ascending(clients) or self.opening() not in message.adverts:
            raise PeerError("adverts out of order or repeated, or without this client's own")
        if not self.plan.min_contributors <= len(clients) <= self.plan.clients:
            raise PolicyError(f"{len(clients)} clients advertised, the plan asks for {self.plan.min_contributors}")
        for advert in message.adverts:
            check_advert(self.plan, self.roster, advert)
        self._adverts, self._root = message.adverts, root_of(self.plan, message.adverts)

    def _upload(self) -> Upload:
        plus, minus = list[bytes](), list[bytes]()
        for advert in self._adverts:
            if (v := advert.client) != self._number:
                seed = pair_seed(self._key.agree(advert.key), self.plan, self._root, self._number, v)
                (plus if self._number < v else minus).append(seed)
        masked = self.plan.ring.wrap(self.values())
        add_masks(masked, plus, minus)
        return Upload(self.plan.ring.pack(masked))
