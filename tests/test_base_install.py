"""The base install is enough for every public name, and importing it loads nothing heavy."""

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from secagg.extras import hint

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {
    "ai_edge_litert", "confluent_kafka", "dp_accounting", "flwr", "matplotlib", "numba", "nvflare", "onnx",
    "onnxruntime", "opacus", "pandas", "peft", "ray", "safetensors", "scipy", "tenseal", "tokenizers", "torch",
    "transformers", "usearch",
}  # fmt: skip

WITHOUT = """
import sys

for name in sys.argv[1].split(","):
    sys.modules[name] = None  # neither found nor imported
"""

EVERY_PUBLIC_NAME = """
import secagg

assert secagg.__all__
for name in secagg.__all__:
    getattr(secagg, name)

from secagg.cli import main

assert main(["--help"]) == 0
"""


def test_importing_secagg_loads_nothing_heavy() -> None:
    loaded = run("import sys, secagg; print(*sys.modules)").stdout.split()
    assert "secagg" in loaded
    assert HEAVY.isdisjoint(loaded)


def test_every_public_name_works_on_the_base_dependencies() -> None:
    done = run(WITHOUT + EVERY_PUBLIC_NAME, ",".join(sorted(not_in_the_base_install())))
    assert done.returncode == 0, done.stderr


def test_what_is_not_in_the_base_install_is_really_blocked() -> None:
    done = run(WITHOUT + "import pytest", ",".join(sorted(not_in_the_base_install())))
    assert "ModuleNotFoundError: import of pytest halted" in done.stderr


def test_a_command_without_its_extra_says_which_one() -> None:
    code = WITHOUT + "from secagg.cli import main; sys.exit(main(['audit']))"
    done = run(code, ",".join(sorted(not_in_the_base_install())))
    assert done.returncode == 6
    assert done.stderr.strip() == f"secagg: {hint('dp', 'secagg audit')}"
    assert len(done.stderr.strip().splitlines()) == 1


EVERY_HELP = """
from typer.main import get_command

from secagg.cli import COMMANDS, application, main

def helped(words):
    for flag in ("-h", "--help"):
        assert main([*words, flag]) == 0, words

for name in COMMANDS:
    helped([name])
    for inner in getattr(get_command(application([name])).commands[name], "commands", ()):
        helped([name, inner])
"""


def test_every_command_has_help_on_the_base_dependencies() -> None:
    done = run(WITHOUT + EVERY_HELP, ",".join(sorted(not_in_the_base_install())))
    assert done.returncode == 0, done.stderr
    for words in ("secagg train [OPTIONS]", "secagg ledger verify [OPTIONS]", "secagg bench [OPTIONS]"):
        assert done.stdout.count(f"Usage: {words}") == 2


def not_in_the_base_install() -> set[str]:
    """Top-level modules of everything that ``pip install secagg`` would not bring, and of every extra."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    base = with_dependencies(wanted) | {"secagg"}
    here = packages_distributions()
    strange = {name for name, owners in here.items() if base.isdisjoint(map(canonicalize_name, owners))}
    return HEAVY | strange - {"benchmarks"}  # the wheel of opacus has a folder of that name, too


def with_dependencies(wanted: Iterable[str]) -> set[str]:
    """Names of the distributions that installing ``wanted`` brings along."""
    seen: set[str] = set()
    todo = [Requirement(text) for text in wanted]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        try:
            todo += [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue  # vendored, or built in here: then it has no module to block either
    return seen


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
