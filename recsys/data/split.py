"""What is learnt from, what is chosen by, and what is measured on."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.data.interactions import Interactions


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Three parts of one data set, with the same numbers for users and items."""

    train: Interactions
    valid: Interactions
    test: Interactions
