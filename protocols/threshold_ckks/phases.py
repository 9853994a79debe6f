"""The phases of a round, named after what the clients send. Both machines walk them in this order."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    ADVERTISE = "advertise"
    KEY = "key"
    COMPLAIN = "complain"
    DEFEND = "defend"
    UPLOAD = "upload"
    CONSENT = "consent"
    DECRYPT = "decrypt"
    MISSING = "missing"
    RECOVER = "recover"
    DONE = "done"
    FAILED = "failed"
