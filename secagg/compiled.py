"""The compiler of numba; where it is not installed, compiled functions raise an error when they are called.

So everything that calls no such function, like listing protocols and choosing parameters, works with the base install.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from secagg.extras import installed, need

COMPILES = installed("numba")
"""Whether functions are compiled in this process: decided once, for all that choose between two implementations."""

_WORTH_LOADING = 1 << 12


def compiles(length: int) -> bool:
    """Whether a vector of this length is worth the compiled one of two implementations.

    To load numba takes about a second, which short vectors never win back.

    >>> compiles(1 << 20) is COMPILES
    True
    """
    return COMPILES and (length >= _WORTH_LOADING or "numba" in sys.modules)


def njit(*signatures: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for each of the given types; for those that it is called with, if there are none."""
    if not COMPILES:
        return lambda function: _missing
    import numba

    compiler: Any = numba.njit
    compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = compiler(list(signatures) or None, **options)
    return compiled


def _missing(*arguments: Any) -> None:
    need("lattice", "what numba compiles")
