"""The server: it introduces the clients to each other, and adds up what they send."""

from __future__ import annotations

from all_or_nothing.cohort import check_advert, root_of
from all_or_nothing.messages import Advert, Introduction, Upload
from protocols.roster import Number
from protocols.rounds.admission import CohortServer
from protocols.rounds.cohort import Cohort, positions
from protocols.rounds.phases import Phase
from protocols.rounds.server import NOTHING, Sends
from protocols.rounds.sets import to_bitmap
from protocols.rounds.steps import Step, Steps, table


class AllOrNothingServer(CohortServer):
    _adverts: dict[Number, Advert]

    @table
    def steps(cls: type[AllOrNothingServer]) -> Steps:
        return {
            Phase.ADVERTISE: Step(Advert, cls._admit, cls._introduce, Phase.UPLOAD),
            Phase.UPLOAD: Step(Upload, cls._add, cls._publish_sum, Phase.DONE),
        }

    def _prepare(self) -> None:
        super()._prepare()
        self._total = self.plan.ring.zeros(self.plan.encoding.coordinates)

    def _check_advert(self, advert: Advert) -> None:
        check_advert(self.plan, self.roster, advert)

    def _introduce(self) -> Sends:
        self._need(len(self._adverts), self.plan.min_contributors, "clients advertised")
        self._settle()
        introduction = Introduction(tuple(self._adverts[number] for number in self._clients))
        root = root_of(self.plan, introduction.adverts)
        everybody = positions(len(self._clients))
        self._agreed = Cohort(self.plan, root, len(everybody)).agreed(to_bitmap(set(everybody), everybody))
        return Sends(self._clients, lambda number: introduction)

    def _add(self, _number: Number, upload: Upload) -> None:
        self._total += self.plan.ring.unpack(upload.vector, len(self._total))

    def _publish_sum(self) -> Sends:
        self._need(len(self._heard), len(self._clients), "clients uploaded")  # or the masks of some would stay
        self._publish(self.plan.ring.centred(self._total), positions(len(self._clients)))
        return NOTHING
