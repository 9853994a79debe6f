"""What the parties of a round assume: what the server may do, which part of the clients is bad, what attacks cost."""

from __future__ import annotations

import re
from enum import StrEnum
from fractions import Fraction
from math import ceil

from secagg.errors import UsageError

MAX_CLIENTS = 10_000_000
"""The most clients in one cohort: with more, a tree of cohorts is the better choice."""


class Adversary(StrEnum):
    """What the server may do: follow the protocol and look, or lie to everybody."""

    CURIOUS = "curious"
    """it follows the protocol, and looks"""
    ACTIVE = "active"
    """it may lie to everybody"""

    @classmethod
    def _missing_(cls, value: object) -> Adversary:
        raise UsageError(f"an adversary is curious or active, not {value!r}")


class CostModel(StrEnum):
    """By which account of lattice attacks a ring has 128 bits of security, against classical attackers.

    ``STANDARD``: the tables of the Homomorphic Encryption Standard (Albrecht et al. 2018), which other libraries use. A
    block of BKZ costs 2^(0.292 beta + 16.4 + log2(8 d)) there: a sieve's lower terms and all tours are counted. By
    ``CORE_SVP`` (Alkim et al. 2016) it is 2^(0.292 beta), one call of a sieve and nothing else, as in the analyses of
    NIST's lattice schemes: the rings of the standard have 94 to 112 bits then, and narrower q have 128.
    """

    STANDARD = "standard"
    CORE_SVP = "core-svp"

    @classmethod
    def _missing_(cls, value: object) -> CostModel:
        raise UsageError(f"a cost model is standard or core-svp, not {value!r}")


def fraction(value: Fraction | str | float | int) -> Fraction:
    """An exact rational from what a person wrote: 0.1 means 1/10, not the double next to it.

    >>> fraction(0.1), fraction("1/3")
    (Fraction(1, 10), Fraction(1, 3))
    """
    written = str(value)
    if not re.fullmatch(r"[0-9]{1,20}(/[0-9]{1,20}|\.[0-9]{0,20})?(e-[0-9]{1,2})?", written):
        raise UsageError(f"{written[:40]!r} is not a fraction of clients, like 0.05 or 1/20")
    try:
        exact = Fraction(written)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{written!r} is not a fraction") from None
    if exact >= 1:
        raise UsageError(f"a fraction of clients must be below 1, not {written}")
    return exact


def colluders(corrupt: Fraction | str | float, clients: int) -> int:
    """How many of so many clients' noise does not count: the dishonest ones', rounded up, and at least one's.

    Whoever looks at a sum may be one of its clients, and each knows its own noise.

    >>> colluders("0.05", 20), colluders("0.05", 30), colluders(0, 1000)
    (1, 2, 1)
    """
    return max(1, ceil(fraction(corrupt) * clients))
