"""What the accounting knows of the sum of one cohort."""

from fractions import Fraction
from typing import Any

from dp.noise import Family, NoiseSpec
from dp.secure_sum import SecureSum

SKELLAM = NoiseSpec(Family.SKELLAM, Fraction(9_000), dropouts=3, colluders=1, components=3)


def cohort(number: int, missing: int = 0, noise: NoiseSpec = SKELLAM, **changes: Any) -> SecureSum:
    facts: dict[str, Any] = {
        "plan": bytes([number]),
        "plan_digest": bytes([number]) * 32,
        "session": bytes(16),
        "round": 4,
        "roster": bytes(32),
        "planned": 10,
        "noise": noise,
        "dimension": 50,
        "clip_l2": Fraction(1),
        "scale": Fraction(10),
        "rotated": False,
        "beta": Fraction(0),
        "l2_squared": 100,
        "l1": 60,
        "weight_bound": 1,
        "users": 0,
        "overlap": 1,
        "rounding": "stochastic",
        "sampled": Fraction(1),
        "ring_bits": 20,
        "signers": 2,
        "survivors": 10 - missing,
    }
    return SecureSum(**facts | changes)
