"""Secure aggregation: many parties each hold a vector, a server learns the sum and nothing else.

This module is a facade: the names below are the public API, loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from secagg._house import refuse_shadows

refuse_shadows()

if TYPE_CHECKING:
    from dp.accountants import PldAccountant, RdpAccountant
    from dp.calibrate import calibrate
    from dp.ledger import Budget, Ledger
    from dp.noise import NoiseSpec
    from protocols.client import Client
    from protocols.journal import MemoryJournal, SqliteJournal
    from protocols.outcome import RoundOutcome
    from protocols.plan import RoundPlan
    from protocols.policy import Policy
    from protocols.roster import Identity, Roster
    from protocols.server import serve
    from protocols.simulation.network import Faults, local_clients, simulate
    from secagg.encoding import Encoding
    from secagg.errors import (
        BudgetError,
        DecodeError,
        PeerError,
        PolicyError,
        SecAggError,
        StorageError,
        ThresholdError,
        UsageError,
    )

__all__ = [
    "Budget",
    "BudgetError",
    "Client",
    "DecodeError",
    "Encoding",
    "Faults",
    "Identity",
    "Ledger",
    "MemoryJournal",
    "NoiseSpec",
    "PeerError",
    "PldAccountant",
    "Policy",
    "PolicyError",
    "RdpAccountant",
    "Roster",
    "RoundOutcome",
    "RoundPlan",
    "SecAggError",
    "SqliteJournal",
    "StorageError",
    "ThresholdError",
    "UsageError",
    "calibrate",
    "local_clients",
    "serve",
    "simulate",
]

_WHERE = {
    "dp.accountants": ("PldAccountant", "RdpAccountant"),
    "dp.calibrate": ("calibrate",),
    "dp.ledger": ("Budget", "Ledger"),
    "dp.noise": ("NoiseSpec",),
    "protocols.journal": ("MemoryJournal", "SqliteJournal"),
    "protocols.client": ("Client",),
    "protocols.outcome": ("RoundOutcome",),
    "protocols.plan": ("RoundPlan",),
    "protocols.policy": ("Policy",),
    "protocols.roster": ("Identity", "Roster"),
    "protocols.server": ("serve",),
    "protocols.simulation.network": ("Faults", "local_clients", "simulate"),
    "secagg.encoding": ("Encoding",),
    "secagg.errors": (
        "BudgetError",
        "DecodeError",
        "PeerError",
        "PolicyError",
        "SecAggError",
        "StorageError",
        "ThresholdError",
        "UsageError",
    ),
}
_MODULE_OF = {name: module for module, exported in _WHERE.items() for name in exported}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'secagg' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
