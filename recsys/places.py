"""Where an account of a machine keeps what belongs to no single run, as the XDG base directory specification has it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from secagg.errors import StorageError


def state() -> Path:
    """What must not go away: $XDG_STATE_HOME/secagg, by default below ~/.local/state."""
    return _place("XDG_STATE_HOME", ".local/state", "the list of this account's runs")


def cache() -> Path:
    """What can be computed again: $XDG_CACHE_HOME/secagg, by default below ~/.cache."""
    return _place("XDG_CACHE_HOME", ".cache", "the vectors of items")


def _place(variable: str, below_home: str, what: str) -> Path:
    """A relative path is ignored, as the specification asks: it would name another place in each directory."""
    if (named := Path(os.environ.get(variable, ""))).is_absolute():
        return named / "secagg"
    with suppress(RuntimeError):
        if (home := Path.home()).is_absolute():
            return home / below_home / "secagg"
    raise StorageError(f"there is no place for {what}: {variable} is no absolute path")
