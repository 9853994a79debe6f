"""A pytest plugin that mutates one check when the module with it is imported; no file is changed.

    SECAGG_MUTANT='secagg/crypto/seal.py::...' python -m pytest -p tests.mutants.plugin tests/...

Only the process of the tests itself and what it forks are mutated: what it starts anew (``subprocess``) is not. The one
exception is the child of the CKKS protocol, which is a script: a mutated copy of it is started instead.
"""

from __future__ import annotations

import ast
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

from hypothesis import Phase, settings

from tests.mutants.operators import ROOT, mutated, parse

CHILD, ENGINE = "protocols/ckks/child.py", "protocols/ckks/ciphertexts.py"


class Rewriting(MetaPathFinder):
    """Imports the given files (relative to the root) from other trees than they hold."""

    def __init__(self, trees: dict[str, Callable[[], ast.Module]]) -> None:
        self._trees = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in trees}
        self._make = trees

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if (relative := self._trees.get(fullname)) is None:
            return None
        loader = _Loader(fullname, str(ROOT / relative), self._make[relative])
        return spec_from_file_location(fullname, ROOT / relative, loader=loader)


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, make: Callable[[], ast.Module]) -> None:
        super().__init__(name, path)
        self._make = make

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._make(), self.path, "exec", dont_inherit=True)


def install(name: str) -> None:
    """From now on, the module of this mutant is imported with it."""
    path = name.split("::")[0]
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if module in sys.modules:
        raise RuntimeError(f"{module} was imported before it could be mutated")
    if path == CHILD:
        copy = Path(tempfile.mkdtemp()) / "child.py"
        copy.write_text(ast.unparse(mutated(path, name)))
        trees = {ENGINE: lambda: _starting(copy), CHILD: lambda: mutated(CHILD, name)}
    else:
        trees = {path: lambda: mutated(path, name)}
    sys.meta_path.insert(0, Rewriting(trees))


def _starting(script: Path) -> ast.Module:
    """The engine of the CKKS protocol, with another child."""
    tree = parse(ENGINE)
    (place,) = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "_SCRIPT"]
    place.value = ast.parse(f"Path({str(script)!r})", mode="eval").body
    return ast.fix_missing_locations(tree)


def pytest_collection() -> None:
    """No shrinking of what is found: one counterexample kills as well as the smallest one."""
    quick = [Phase.explicit, Phase.generate]
    settings.register_profile("mutants", settings.get_profile("short"), phases=quick, database=None)
    settings.load_profile("mutants")


if wanted := os.environ.get("SECAGG_MUTANT"):
    install(wanted)
