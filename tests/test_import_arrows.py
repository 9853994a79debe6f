"""secagg <- dp <- protocols <- recsys <- benchmarks: imports go down, never up, not even lazily or by name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ["secagg", "dp", "protocols", "recsys", "benchmarks"]
FORBIDDEN_EVERYWHERE = {"tests"}
BY_NAME = {"import_module", "__import__", "find_spec"}


def may_look_upward(file: Path) -> bool:
    return file.parts[:2] in {("secagg", "__init__.py"), ("secagg", "cli")}


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of every absolute import; a relative one cannot leave its own package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]
        elif isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            target = node.args[0]
            if name in BY_NAME and isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield node.lineno, target.value.split(".")[0]


def violations(file: Path, source: str) -> list[str]:
    """What ``file`` (relative to the root) imports from above itself."""
    above = set(FLOORS[FLOORS.index(file.parts[0]) + 1 :])
    barred = FORBIDDEN_EVERYWHERE | (set() if may_look_upward(file) else above)
    return [f"{file}:{line} imports {name}" for line, name in imported(ast.parse(source)) if name in barred]


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = [bad for file in files for bad in violations(file.relative_to(ROOT), file.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import protocols",
        "import numpy, recsys.data as data",
        "from protocols.plan import RoundPlan",
        "def late():\n    from benchmarks import pairwise",
        "if TYPE_CHECKING:\n    import recsys",
        "importlib.import_module('protocols.wire')",
        "from tests.reference import shamir",
    ],
)
def test_a_planted_violation_is_found(source: str) -> None:
    assert len(violations(Path("dp/planted.py"), source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("dp/a.py", "import secagg.crypto.prg, numpy\nfrom dp import events\nfrom . import protocols"),
        ("benchmarks/a.py", "import secagg, dp, protocols, recsys"),
        ("secagg/__init__.py", "from protocols.plan import RoundPlan"),
        ("secagg/cli/bench.py", "import benchmarks"),
    ],
)
def test_what_is_allowed_is_not_reported(file: str, source: str) -> None:
    assert violations(Path(file), source) == []


def test_only_the_facade_and_the_command_line_look_upward() -> None:
    assert violations(Path("secagg/crypto/ring.py"), "import dp")
    assert violations(Path("secagg/crypto/lattice/__init__.py"), "import protocols")
    assert violations(Path("secagg/cli/bench.py"), "import tests")
