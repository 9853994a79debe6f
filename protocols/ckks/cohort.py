"""What both sides compute from the plan and the cohort: how many hold the key, who, the bindings, the checks."""

from __future__ import annotations

import numpy as np

from protocols.ckks.layout import MAX_CLIENTS
from protocols.ckks.parameters import LEAST_ANSWERS, Recipient, parameters_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.rounds.cohort import Cohort as AnyCohort
from protocols.rounds.cohort import Position, positions
from secagg.assumptions import CostModel
from secagg.crypto import labels
from secagg.crypto.keys import derive, digest
from secagg.crypto.prg import Prg, random_words
from secagg.errors import PolicyError


def check_policy(plan: RoundPlan, policy: Policy) -> None:
    """The whole protocol is a matter of trust: a client that names it in ``Policy.protocols`` has decided.

    What is left to refuse is fewer dropouts than it expects, and a ring that is what the library below makes.
    """
    policy.check_cost_model(CostModel.STANDARD)
    if (stay := plan.clients - policy.corrupt_or_dropped_of(plan.clients)) < LEAST_ANSWERS:
        raise PolicyError(f"{stay} clients are expected to stay, {LEAST_ANSWERS} are needed")


class Cohort(AnyCohort):
    """The clients of U1 under their Merkle root: who makes keys, who holds the one that is used, and every binding."""

    def __init__(self, plan: RoundPlan, root: bytes, size: int) -> None:
        if not plan.min_contributors <= size <= min(plan.clients, MAX_CLIENTS):
            raise PolicyError(f"{size} clients advertised, the plan allows {plan.min_contributors} to {plan.clients}")
        super().__init__(plan, root, size)
        parameters = parameters_of(plan)
        lots = random_words(Prg(digest(labels.CKKS_MAKERS, *self.bound())), size)
        self.makers = tuple(sorted(map(Position, np.argsort(lots)[: parameters.makers].tolist())))
        self.holders = self.makers if parameters.reveal is Recipient.SERVER else tuple(positions(size))

    def knows(self, position: Position) -> tuple[Position, ...]:
        """Whose adverts a client needs: the makers', and a maker those of all that hold."""
        return self.holders if position in self.makers else self.makers

    def box_key(self, agreed: bytes, sender: Position, receiver: Position) -> bytes:
        return derive(agreed, labels.CKKS_BOX, *self.bound(sender, receiver))

    def server_key(self, agreed: bytes, sender: Position, label: bytes) -> bytes:
        """What this client seals to the server under, for one purpose."""
        return derive(agreed, label, *self.bound(sender))
