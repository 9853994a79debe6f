"""The phases of a round, named after what the clients send. Each protocol walks some of them, in its table's order."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    JOIN = "join"
    ADVERTISE = "advertise"
    KEY = "key"
    SHARE = "share"
    COMPLAIN = "complain"
    DEFEND = "defend"
    UPLOAD = "upload"
    CONSISTENCY = "consistency"
    REVEAL = "reveal"
    DECRYPT = "decrypt"
    MISSING = "missing"
    RECOVER = "recover"
    DONE = "done"
    FAILED = "failed"
