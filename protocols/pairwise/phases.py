"""The phases of a round, named after what the clients send. Both machines walk them in this order."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    ADVERTISE = "advertise"
    SHARE = "share"
    COMPLAIN = "complain"
    DEFEND = "defend"
    UPLOAD = "upload"
    CONSENT = "consent"
    REVEAL = "reveal"
    DONE = "done"
    FAILED = "failed"
