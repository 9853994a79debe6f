"""The errors of this library. Verification raises one of them; nothing returns a bool for "is it valid?".

Error texts name parties, phases and sizes, never keys, seeds, shares or vectors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from secagg.printable import printable


class SecAggError(Exception):
    """Base of every error this library declares. Its text can be shown, also where it quotes what a stranger wrote."""

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(SecAggError):
    """The caller's mistake: a wrong argument, or a call at the wrong time."""


class MissingExtraError(UsageError, ImportError):
    """What was asked for needs an extra that is not installed; the text says how to install it (``secagg.extras``)."""


class PolicyError(SecAggError):
    """A plan, cohort or journal that this client must refuse."""


class _Blamed(SecAggError):
    """An error with culprits: all who could have caused it, so that one of them did, or nobody.

    That holds if the transport authenticates who is speaking and delivers what was said. Without it, whoever can write
    to the wire can speak in anybody's name. It is no verdict on each one that is named.
    """

    def __init__(self, reason: str, *, culprits: Iterable[str] = ()) -> None:
        self.reason = reason
        self.culprits: tuple[str, ...] = tuple(sorted(set(culprits)))
        blamed = f" [{', '.join(self.culprits)}]" if self.culprits else ""
        super().__init__(reason + blamed)

    def blaming(self, sender: str) -> Self:
        """The same error, with ``sender`` among the culprits: whoever hands on a bad message should have refused it."""
        return type(self)(self.reason, culprits=(*self.culprits, sender))


class DecodeError(_Blamed):
    """Bytes that are not a message (or not the canonical bytes of one). ``culprits`` names who sent them, if known."""


class StrayError(DecodeError):
    """A frame of another round or version. An honest party's may come late, so it names nobody, whoever handed it on.

    >>> StrayError("a frame of another round").blaming("alice").culprits
    ()
    """

    def blaming(self, sender: str) -> Self:
        return self


class PeerError(_Blamed):
    """A well-formed message that breaks the protocol. ``culprits`` names the parties it can be blamed on.

    >>> PeerError("bad signature", culprits=["bob", "alice"]).culprits
    ('alice', 'bob')
    """


class UnblamedError(PeerError):
    """A bad message of which it cannot be told who made it bad. It names nobody, whoever handed it on.

    >>> UnblamedError("too late: the network may have been slow").blaming("alice").culprits
    ()
    """

    def blaming(self, sender: str) -> Self:
        return self


class ThresholdError(_Blamed):
    """Too few parties are left: the round aborts and nothing is revealed.

    ``culprits`` are those who have been caught lying in this round: without them it might have ended well. Who was only
    silent is not among them.
    """


class StorageError(SecAggError):
    """What must be remembered cannot be written or read."""


class AtRestError(StorageError):
    """A file that is kept sealed, or should be, is not what was asked for (``secagg.at_rest``)."""


class SealedError(AtRestError):
    """It is sealed, and no key was given."""


class WrongKeyError(AtRestError):
    """It is sealed under a key that is not among those given."""


class UnsealedError(AtRestError):
    """It is not sealed, and a key was given: somebody may have put it there."""


class AlteredError(AtRestError):
    """It was altered or cut short, or is another file in its place."""


class BudgetError(SecAggError):
    """The privacy budget does not allow this release."""
