"""What the server does with the mean update of a round (Reddi et al. 2021, "Adaptive Federated Optimization").

    FedAvg   w += rate * u
    FedAvgM  m = momentum * m + u;                             w += rate * m
    FedAdam  m = b1 m + (1 - b1) u;  v = b2 v + (1 - b2) u^2;  w += rate * m / (sqrt(v) + tau)
    FedYogi  the same, but v -= (1 - b2) u^2 sign(v - u^2)

With weight decay, u = update - decay * w for all of them; else it is the update. (A client's update goes down its loss,
so that is the gradient plus decay * w of ``torch.optim.SGD``, which enters the momentum.) The update is all they see of
the clients: whatever they do costs no privacy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from secagg.errors import UsageError


class Rule(StrEnum):
    FEDAVG = "fedavg"
    """adds it to the model"""
    FEDAVGM = "fedavgm"
    """the same, with momentum"""
    FEDADAM = "fedadam"
    """Adam's step"""
    FEDYOGI = "fedyogi"
    """Yogi's step"""


@dataclass(slots=True)
class Optimiser:
    """Keeps its moments; ``state`` is what a checkpoint needs of it.

    >>> step = Optimiser(Rule.FEDAVGM, rate=1.0, momentum=0.5)
    >>> [step(np.ones(2)).tolist() for _ in range(3)]
    [[1.0, 1.0], [1.5, 1.5], [1.75, 1.75]]
    """

    rule: Rule = Rule.FEDAVG
    rate: float = 1.0
    momentum: float = 0.9
    """b1 of FedAdam and FedYogi"""
    second: float = 0.99
    tau: float = 1e-3
    decay: float = 0.0
    """weight decay: so many times the model are taken from the update"""
    state: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rule = Rule(self.rule)
        if self.rate <= 0 or self.tau <= 0 or not (0 <= self.momentum < 1 and 0 <= self.second < 1):
            raise UsageError("a server's rate and tau are above zero, its momenta from 0 to below 1")
        if not 0 <= self.decay < 1:
            raise UsageError("a server's decay is from 0 to below 1")

    def __call__(self, update: NDArray[np.float64], model: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """How far the model moves; with decay, from where it is."""
        if self.decay:
            if model is None:
                raise UsageError("weight decay needs to know the model")
            update = update - self.decay * model
        if self.rule is Rule.FEDAVG:
            return self.rate * update
        first = self.state.get("first", np.zeros_like(update))
        if self.rule is Rule.FEDAVGM:
            self.state["first"] = self.momentum * first + update
            return self.rate * self.state["first"]
        squared = np.square(update)
        second = self.state.get("second", np.zeros_like(update))
        if self.rule is Rule.FEDADAM:
            second = self.second * second + (1 - self.second) * squared
        else:
            second = second - (1 - self.second) * squared * np.sign(second - squared)
        self.state |= {"first": self.momentum * first + (1 - self.momentum) * update, "second": second}
        return self.rate * self.state["first"] / (np.sqrt(second) + self.tau)
