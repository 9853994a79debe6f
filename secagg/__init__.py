"""Secure aggregation: many parties each hold a vector, a server learns the sum and nothing else.

This module is a facade: the names below are the public API, loaded when they are first used. Five parts of the library
have a door of their own beside it: ``protocols.tree``, ``protocols.sparse``, ``protocols.adapters.flower`` and
``.nvflare``, ``dp.audit`` and ``recsys``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from secagg._house import refuse_shadows

refuse_shadows()

if TYPE_CHECKING:
    from dp.accountants import GdpAccountant, PldAccountant, RdpAccountant, group
    from dp.calibrate import calibrate, evaluate, user_level
    from dp.events import (
        Everyone,
        Gaussian,
        Guarantee,
        Holder,
        PoissonSample,
        Relation,
        Release,
        Selection,
        Trust,
        Unit,
    )
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

    __version__: str

    from secagg.encoding import Encoding
    from secagg.errors import (
        BudgetError,
        DecodeError,
        MissingExtraError,
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
    "Everyone",
    "Faults",
    "Gaussian",
    "GdpAccountant",
    "Guarantee",
    "Holder",
    "Identity",
    "Ledger",
    "MemoryJournal",
    "MissingExtraError",
    "NoiseSpec",
    "PeerError",
    "PldAccountant",
    "PoissonSample",
    "Policy",
    "PolicyError",
    "RdpAccountant",
    "Relation",
    "Release",
    "Roster",
    "RoundOutcome",
    "RoundPlan",
    "SecAggError",
    "Selection",
    "SqliteJournal",
    "StorageError",
    "ThresholdError",
    "Trust",
    "Unit",
    "UsageError",
    "calibrate",
    "evaluate",
    "group",
    "local_clients",
    "serve",
    "simulate",
    "user_level",
]

_WHERE = {
    "dp.accountants": ("GdpAccountant", "PldAccountant", "RdpAccountant", "group"),
    "dp.calibrate": ("calibrate", "evaluate", "user_level"),
    "dp.events": (
        "Everyone",
        "Gaussian",
        "Guarantee",
        "Holder",
        "PoissonSample",
        "Relation",
        "Release",
        "Selection",
        "Trust",
        "Unit",
    ),
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
        "MissingExtraError",
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
    if name == "__version__":
        return import_module("secagg.version").found()
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'secagg' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
