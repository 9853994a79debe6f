"""Which way imports go: down between the five packages, nowhere in a circle, and from nowhere to ``benchmarks``.

Read are all imports that are written down, those inside of functions and of ``if TYPE_CHECKING`` included, and modules
whose name stands in a call of ``import_module`` or its like.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ["secagg", "dp", "protocols", "recsys", "benchmarks"]
"""From the ground up: a package imports from those before it."""

NOBODY_IMPORTS = {"tests", "benchmarks"}
"""They measure and test what the others are, so none of these knows them. ``secagg bench`` is loaded by its name."""

COMMANDS = Path("secagg/cli/__init__.py")
"""The only file in which the name of a module of ``benchmarks`` stands: in the table of commands."""

BY_NAME = {"import_module", "__import__", "find_spec"}


@cache
def nodes(source: str) -> list[ast.AST]:
    """What can import anything in a file, or name a module."""
    kinds = (ast.Import, ast.ImportFrom, ast.Call, ast.Constant)
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]


def may_look_upward(file: Path) -> bool:
    return file.parts[:2] in {("secagg", "__init__.py"), ("secagg", "cli")}


def imported(source: str) -> Iterator[tuple[int, str, str | None]]:
    """The line, the module and the name taken from it, of every absolute import."""
    for node in nodes(source):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            target = node.args[0]
            if name in BY_NAME and isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield node.lineno, target.value, None


@cache
def sources() -> dict[Path, str]:
    """Each file of the five packages, and what is in it."""
    files = sorted(file for package in FLOORS for file in (ROOT / package).rglob("*.py"))
    return {file.relative_to(ROOT): file.read_text("utf-8") for file in files}


def violations(file: Path, source: str) -> list[str]:
    """What ``file`` (relative to the root) imports from above itself, or must not import at all."""
    above = set() if may_look_upward(file) else set(FLOORS[FLOORS.index(file.parts[0]) + 1 :])
    barred = above | (NOBODY_IMPORTS - {file.parts[0]})
    found = dict.fromkeys((line, module.split(".")[0]) for line, module, _ in imported(source))
    return [f"{file}:{line} imports {package}" for line, package in found if package in barred]


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_one_way(package: str) -> None:
    files = {file: source for file, source in sources().items() if file.parts[0] == package}
    assert files
    assert [bad for file, source in files.items() if (bad := violations(file, source))] == []


@pytest.mark.parametrize(
    "source",
    [
        "import protocols",
        "import numpy, recsys.data as data",
        "from protocols.plan import RoundPlan",
        "def late():\n    from benchmarks.regression import pairwise",
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
        ("benchmarks/a.py", "import secagg, dp, protocols, recsys, benchmarks.case"),
        ("secagg/__init__.py", "from protocols.plan import RoundPlan"),
        ("secagg/cli/train.py", "import recsys"),
    ],
)
def test_what_is_allowed_is_not_reported(file: str, source: str) -> None:
    assert violations(Path(file), source) == []


def test_only_the_facade_and_the_command_line_look_upward() -> None:
    assert violations(Path("secagg/crypto/ring.py"), "import dp")
    assert violations(Path("secagg/crypto/lattice/__init__.py"), "import protocols")
    assert violations(Path("secagg/cli/train.py"), "import tests")


@pytest.mark.parametrize("file", ["secagg/cli/train.py", "secagg/__init__.py", "recsys/run.py"])
def test_nothing_in_production_imports_benchmarks(file: str) -> None:
    assert violations(Path(file), "from benchmarks.case import machine")


def names_of_benchmarks(source: str) -> list[str]:
    """Strings that could be handed to ``import_module``, however they get there."""
    found = [node.value for node in nodes(source) if isinstance(node, ast.Constant)]
    return [text for text in found if isinstance(text, str) and text.startswith("benchmarks.")]


def test_a_module_of_benchmarks_is_named_in_the_table_of_commands_alone() -> None:
    named = {file: names_of_benchmarks(source) for file, source in sources().items() if file.parts[0] != "benchmarks"}
    assert {file: names for file, names in named.items() if names} == {COMMANDS: ["benchmarks.command"]}


def graph(files: Mapping[Path, str]) -> dict[str, set[str]]:
    """Each module, and those of ``files`` that it imports. A package's ``__init__`` counts where it is named."""
    named = {".".join(file.with_suffix("").parts).removesuffix(".__init__"): source for file, source in files.items()}
    arrows: dict[str, set[str]] = {}
    for module, source in named.items():
        targets = {
            f"{target}.{name}" if f"{target}.{name}" in named else target for _, target, name in imported(source)
        }
        arrows[module] = targets & named.keys() - {module}
    return arrows


def circles(arrows: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of modules of which each imports each, by way of the others."""
    reach = {module: set(targets) for module, targets in arrows.items()}
    growing = True
    while growing:
        growing = False
        for found in reach.values():
            more = set().union(*(reach[target] for target in found)) - found
            found |= more
            growing = growing or bool(more)
    circled = {module: {other for other in reach[module] if module in reach[other]} for module in reach}
    return [circle for module, circle in circled.items() if circle and module == min(circle)]


def test_no_import_is_relative() -> None:
    """So that what is read above is all there is."""
    found = [(file, node) for file, source in sources().items() for node in nodes(source)]
    assert [file for file, node in found if isinstance(node, ast.ImportFrom) and node.level > 0] == []


def test_no_imports_go_in_a_circle() -> None:
    assert [sorted(circle) for circle in circles(graph(sources()))] == []


def test_sums_in_the_clear_are_made_in_one_place_only() -> None:
    """Whoever runs the ideal functionality sees every update. In production a run's references do, and nothing else."""
    arrows = graph(sources())
    clear, aggregator = "protocols.simulation.ideal", "recsys.ideal_aggregator"
    assert {module for module, targets in arrows.items() if clear in targets} == {aggregator}
    users = {module for module, targets in arrows.items() if aggregator in targets}
    assert {module for module in users if not module.startswith("benchmarks.")} == {"recsys.run"}


@pytest.mark.parametrize("back", ["from dp import a", "from dp.a import x", "def late():\n    import dp.a"])
def test_a_planted_circle_is_found(back: str) -> None:
    files = {
        Path("dp/__init__.py"): "",
        Path("dp/a.py"): "if TYPE_CHECKING:\n    from dp.b import x",
        Path("dp/b.py"): "from dp import c, events\nimport dp.a2",
        Path("dp/c.py"): back,
        Path("dp/d.py"): "from dp import a, b",
    }
    assert circles(graph(files)) == [{"dp.a", "dp.b", "dp.c"}]


def test_a_package_and_its_modules_are_no_circle_by_themselves() -> None:
    files = {
        Path("dp/__init__.py"): "from dp.a import x",
        Path("dp/a.py"): "from dp import b",
        Path("dp/b.py"): "",
    }
    assert circles(graph(files)) == []


def taken_from_tests(file: Path, source: str) -> list[str]:
    """The test files that another file of ``tests`` imports. What tests share is in ``tests/scenes``."""
    own = ".".join(file.with_suffix("").parts)
    targets = {f"{module}.{name}" for _, module, name in imported(source)}
    found = {name for target in targets if target.startswith("tests.") for name in target.split(".")}
    return sorted(name for name in found if name.startswith("test_") and not own.endswith(name))


def test_no_test_file_imports_another() -> None:
    files = {file.relative_to(ROOT): file.read_text("utf-8") for file in sorted((ROOT / "tests").rglob("*.py"))}
    assert [str(file) for file, source in files.items() if taken_from_tests(file, source)] == []


@pytest.mark.parametrize(
    "source", ["from tests.dp.test_tree import cohort", "def late():\n    from tests.dp import test_tree"]
)
def test_a_test_that_imports_another_is_found(source: str) -> None:
    assert taken_from_tests(Path("tests/dp/test_noise.py"), source) == ["test_tree"]
    assert taken_from_tests(Path("tests/dp/test_tree.py"), source) == []
    assert taken_from_tests(Path("tests/dp/test_noise.py"), "from tests.scenes.ledger import KEY") == []
