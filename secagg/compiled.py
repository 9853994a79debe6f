"""The compiler of numba; where it is not installed, compiled functions raise an error when they are called.

So everything that calls no such function, like listing protocols and choosing parameters, works with the base install.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from secagg.extras import installed, need

COMPILES = installed("numba")
"""Whether functions are compiled in this process: decided once, for all that choose between two implementations."""


def njit(*signature: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for the given types."""
    if not COMPILES:
        return lambda function: _missing
    import numba

    compiler: Any = numba.njit
    compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = compiler(*signature, **options)
    return compiled


def _missing(*arguments: Any) -> None:
    need("lattice", "what numba compiles")
