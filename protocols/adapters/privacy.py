"""What a runtime's server promises of the noise in its sums, and the encoding and noise that keep it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction

from dp.calibrate import calibrate
from dp.noise import NoiseSpec
from protocols.adapters.form import Form
from secagg.assumptions import colluders
from secagg.encoding import Encoding


@dataclass(frozen=True, slots=True)
class Privacy:
    """Users who take part in ``rounds`` sums are protected at (epsilon, delta): see ``dp.calibrate``.

    The clients are the users, or the silos have them. ``components`` of noise can be taken off again.
    """

    epsilon: float
    delta: float
    rounds: int
    ring_bits: int = 24
    components: int = 0

    def encoding(
        self, form: Form, *, clients: int, min_contributors: int, corrupt: Fraction | str | float
    ) -> tuple[Encoding, NoiseSpec]:
        """For a round of so many clients, of which all above ``min_contributors`` may be missing.

        A client knows its own noise, so one that is curious is counted however few there are.

        >>> import numpy as np
        >>> form = Form.of({"w": np.zeros(100)}, clip=1.0, failures=True, users=50)
        >>> encoding, noise = Privacy(epsilon=4, delta=1e-5, rounds=10, ring_bits=32).encoding(
        ...     form, clients=10, min_contributors=8, corrupt="0.05")
        >>> encoding.users, noise.dropouts, noise.colluders
        (50, 2, 1)
        """
        found = calibrate(
            **asdict(self),
            clients=clients,
            length=form.length,
            clip_l2=form.clip_l2,
            dropouts=clients - min_contributors,
            colluders=colluders(corrupt, clients),
            users=form.users,
            overlap=form.overlap,
        )
        return found.encoding, found.noise
