"""The five packages belong together: another package named ``dp`` on the path must not stand in for ours."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

ROOMS = ("dp", "protocols", "recsys", "benchmarks")
STRAYS = {"benchmarks": "opacus"}
"""For a package, the distribution that installs a folder of that name, which nobody imports, next to its own."""


def refuse_shadows() -> None:
    """Raise ImportError, naming the path, if ``import dp`` (or another room) would find something not beside secagg.

    Nothing is imported: the finders are asked where they would look, which covers editable installs too. Only a stray
    folder of a library that we depend on is passed over, and our own room taken in its place.
    """
    house = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        found = _would_import(room)
        if found is None or found.resolve().parent == (house / room).resolve():
            continue
        if room not in sys.modules and _is_stray(room, found):
            _open(room, house)
            continue
        raise ImportError(
            f"another package named {room!r} shadows secagg's own: {found} (expected in {house / room})",
            name=room,
            path=str(found),
        )


def _is_stray(room: str, found: Path) -> bool:
    owner = STRAYS.get(room)
    return owner is not None and (found.parent.parent / owner / "__init__.py").is_file()


def _open(room: str, house: Path) -> None:
    spec = spec_from_file_location(room, house / room / "__init__.py", submodule_search_locations=[str(house / room)])
    if spec is None or spec.loader is None:
        raise ImportError(f"secagg's own {room!r} is missing from {house}", name=room)
    sys.modules[room] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[room])


def _would_import(name: str) -> Path | None:
    """The file behind ``import name``; for a namespace package, its first directory."""
    try:
        spec = find_spec(name)
    except ValueError:  # put into sys.modules by hand
        return Path(f"sys.modules[{name!r}]")
    if spec is None:
        return None
    return Path(spec.origin or next(iter(spec.submodule_search_locations or ()), name))
