"""SCAFFOLD's control variates: what clients know of how their gradients differ from everybody's.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", option II. Clients with
different data move towards different optima, the further the more local steps they take. So client i keeps c_i, its
own mean gradient, and the server c, the mean of all c_i; all begin at zero. In K steps of a rate r from the round's
model w_0 to w:

    a step         w -= r (gradient - c_i + c)
    afterwards     c_i' = c_i - c + (w_0 - w) / (K r), which is the mean of its gradients on the way
    what is sent   [w - w_0 | u (c_i' - c_i)], one vector in one sum
    the server     c += the sum of all c_i' - c_i, over the number of all clients, whoever took part

Where clients count by their users, that is a weighted sum, and c a weighted mean. The server knows how much those count
that are in a sum, and takes all others to count as much on average. Where that is wrong, c is longer or shorter than
the mean, and not another direction, since it is the whole sum so far that is divided: clients meet at the same place.

**One vector.** Both halves are shortened by one factor to one clip, so the noise and the charge are of that one vector,
as of any other. The unit u is the passes of a round times r (under local privacy, its steps times that rate). So in its
first round a client with one step a pass sends two halves of equal length, each half of the squared norm; the second is
the shorter, the more steps a pass has and the less the gradient has changed since the last time.

**What a client keeps.** c_i moves by what its vector has in the sum, read back from its integers, clipped and rounded
as they are. So c is their mean but for noise, rounding errors do not add up, and a sum that is finished after
a crash moves c_i by what went into it then. Who is not in a sum keeps c_i. With noise in the sum, c is that mean plus
the noise of all rounds so far: c_i never learns of it, and nothing takes it off again.

**Who is protected.** What is sent of c_i follows from the sums that client i was in. A server that lies can keep one
client out of a sum, and then ask all for the same model once more: nobody's control variate moves but that client's,
so that the second half of the sum is its mean gradient, bare. Without noise SCAFFOLD is therefore for a curious server
only (``protocol.adversary``); under local privacy it follows from models that are private already.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

CONTROL = "control variate"
"""The kind of what each client keeps (``recsys.kept_by_clients``)."""


class ControlVariates:
    """The server's control variate, and what clients do with it and with their ``own``, as these are at the time.

    >>> own = dict[str, NDArray[np.float32]]()
    >>> controls = ControlVariates(own, length=1, unit=0.5)
    >>> vector = controls.sent("ann", np.array([-1.0]), steps=2, rate=0.5)  # two steps down a gradient of 1
    >>> vector.tolist()
    [-1.0, 0.5]
    >>> own["ann"] = controls.after("ann", vector)
    >>> controls.learn(total=vector[1:], weight=2)
    >>> controls.drift("ann").tolist(), controls.drift("bob").tolist()
    ([-0.5], [0.5])
    """

    def __init__(self, own: Mapping[str, NDArray[np.float32]], length: int, unit: float) -> None:
        self.common, self.weight = np.zeros(length), 1.0
        self._own, self._unit = own, unit

    def drift(self, name: str) -> NDArray[np.float32]:
        """What this client adds to each gradient: c - c_i."""
        found: NDArray[np.float32] = (self.common - self._own.get(name, 0)).astype(np.float32)
        return found

    def sent(self, name: str, change: NDArray[np.float64], steps: int, rate: float) -> NDArray[np.float64]:
        """What a client sends that has moved by ``change`` in so many steps, before it is clipped."""
        return np.concatenate([change, -self._unit * (self.common + change / (steps * rate))])

    def after(self, name: str, sent: NDArray[np.float64]) -> NDArray[np.float32]:
        """This client's control variate once ``sent``, as the sum has it, is in a sum."""
        length = len(self.common)
        after: NDArray[np.float32] = (self._own.get(name, 0) + sent[length : 2 * length] / self._unit).astype(
            np.float32
        )
        return after

    def learn(self, total: NDArray[np.float64], weight: float) -> None:
        """A sum is out: ``total`` is its second half. All clients together count ``weight``."""
        self.common, self.weight = (self.common * self.weight + total / self._unit) / weight, weight
