"""The five packages come from one house: a stranger's ``dp`` on the path must not stand in for ours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

ROOMS = ("dp", "protocols", "recsys", "benchmarks")


def refuse_shadows() -> None:
    """Raise ImportError, naming the path, if ``import dp`` (or another room) would find something not beside secagg.

    Nothing is imported: the finders are asked where they would look, which covers editable installs too.
    """
    house = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        found = _would_import(room)
        if found is not None and found.resolve().parent != (house / room).resolve():
            raise ImportError(
                f"another package named {room!r} shadows secagg's own: {found} (expected in {house / room})",
                name=room,
                path=str(found),
            )


def _would_import(name: str) -> Path | None:
    """The file behind ``import name``; for a namespace package, its first directory."""
    try:
        spec = find_spec(name)
    except ValueError:  # put into sys.modules by hand
        return Path(f"sys.modules[{name!r}]")
    if spec is None:
        return None
    return Path(spec.origin or next(iter(spec.submodule_search_locations or ()), name))
