"""What a privacy budget was spent on: written down before anything is released, hashed, signed, recomputable."""

from dp.filter import Budget
from dp.ledger.entries import Steps
from dp.ledger.file import FILE, Ledger

__all__ = ["FILE", "Budget", "Ledger", "Steps"]
