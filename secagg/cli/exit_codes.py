"""What the exit codes of ``secagg`` mean. Help is made from this list; a test compares that of the README with it."""

from __future__ import annotations

from secagg.errors import (
    AlteredError,
    BudgetError,
    DecodeError,
    MissingExtraError,
    PeerError,
    PolicyError,
    SealedError,
    SecAggError,
    UnsealedError,
    UsageError,
    WrongKeyError,
)

FINE, FAILURE, WRONG_USE, REFUSED, UNTRUE, CONSISTENT_ONLY, MISSING_EXTRA = range(7)
INTERRUPTED = 130
"""128 and the number of the signal, as shells have it."""

MEANINGS = {
    FINE: "fine",
    WRONG_USE: "wrong use",
    REFUSED: "refused by policy or budget",
    UNTRUE: "verification failed",
    CONSISTENT_ONLY: (
        "nothing is wrong but not all was shown (ledger verify without a key, ledger witness without a proof)"
    ),
    MISSING_EXTRA: "an extra is missing, and the line says what installs it",
    INTERRUPTED: "interrupted, by Ctrl-C",
    FAILURE: "anything else",
}

_OF_ERRORS: dict[type[SecAggError], int] = {
    MissingExtraError: MISSING_EXTRA,
    UsageError: WRONG_USE,
    DecodeError: WRONG_USE,
    PolicyError: REFUSED,
    BudgetError: REFUSED,
    PeerError: UNTRUE,
    AlteredError: UNTRUE,
    UnsealedError: UNTRUE,
    SealedError: WRONG_USE,
    WrongKeyError: WRONG_USE,
    SecAggError: FAILURE,
}


def code_of(error: SecAggError) -> int:
    """The exit code of a command that ends with this error.

    >>> code_of(PolicyError("too small a cohort"))
    3
    """
    return next(_OF_ERRORS[kind] for kind in type(error).__mro__ if kind in _OF_ERRORS)


def sentence() -> str:
    """All exit codes and what they mean, in one sentence."""
    return f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in MEANINGS.items())}."
