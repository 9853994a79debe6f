"""The compiler of numba; where it is not installed, compiled functions raise an error when they are called.

So everything that calls no such function, like listing protocols and choosing parameters, works with the base install.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from secagg.errors import UsageError


def require() -> None:
    """Raise ``UsageError`` if numba is not installed."""
    if find_spec("numba") is None:
        raise UsageError("this needs numba: pip install 'secagg[lattice]' or 'secagg[dp]'")


def njit(*signature: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for the given types."""
    if find_spec("numba") is None:
        return lambda function: _missing
    import numba

    compiler: Any = numba.njit
    compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = compiler(*signature, **options)
    return compiled


def _missing(*arguments: Any) -> None:
    require()
