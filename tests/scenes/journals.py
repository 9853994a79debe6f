"""A journal in memory that outlives the clients of a test: the object is the disk."""

from typing import ClassVar

from protocols.journal import MemoryJournal


class KeptJournal(MemoryJournal):
    durable: ClassVar[bool] = True
