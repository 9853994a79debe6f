"""The tool that takes checks away does take them away, and nothing else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from tests.mutants.__main__ import equivalents
from tests.mutants.operators import ROOT, instrument, mutants, mutated, parse, sites
from tests.mutants.run import stratum_mutants
from tests.mutants.strata import STRATA, files_of

KILLER = "tests/secagg/crypto/test_seal.py::test_a_key_of_another_size_is_the_callers_mistake"
GUARD = "secagg/crypto/seal.py::_cipher::never::len(key) != KEY_BYTES"


def run(name: str, test: str) -> subprocess.CompletedProcess[str]:
    """One test in a process of its own, with one mutant or none."""
    environment = {**os.environ, "SECAGG_MUTANT": name, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "tests.mutants.plugin", test]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_check_that_is_gone_is_missed_by_its_test() -> None:
    before = (ROOT / "secagg/crypto/seal.py").read_bytes()
    without = run(GUARD, KILLER)
    assert without.returncode == 1, without.stdout
    assert "1 failed" in without.stdout
    assert run("", KILLER).returncode == 0
    assert (ROOT / "secagg/crypto/seal.py").read_bytes() == before


@pytest.mark.thinned(6)
@pytest.mark.parametrize("stratum", STRATA, ids=lambda stratum: stratum.name)
def test_every_mutant_has_a_name_of_its_own(stratum: object) -> None:
    names = [mutant.name for mutant in stratum_mutants(stratum)]  # type: ignore[arg-type]
    assert names
    assert len(set(names)) == len(names)
    assert len({mutant.key for mutant in stratum_mutants(stratum)}) == len(names)  # type: ignore[arg-type]


def test_every_stratum_names_files_that_are_there() -> None:
    named = [(pattern, "*.py") for stratum in STRATA for pattern in stratum.sources]
    named += [(pattern, "test_*.py") for stratum in STRATA for pattern in stratum.tests]
    assert [pattern for pattern, ending in named if not list(files_of((pattern,), ending))] == []
    assert list(files_of(("tests/of_nothing", "tests/of_nothing/test_*.py"), "*.py")) == []


def test_a_mutant_differs_in_one_place() -> None:
    path = "protocols/rounds/cohort.py"
    before = ast.unparse(parse(path)).splitlines()
    for mutant in mutants(path):
        after = ast.unparse(mutated(path, mutant.name)).splitlines()
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1, mutant.name


def test_finding_the_mutants_changes_nothing() -> None:
    path = "protocols/rounds/cohort.py"
    sites(path, tree := parse(path))
    assert ast.dump(tree) == ast.dump(parse(path))


def test_a_watched_module_is_still_a_module() -> None:
    compile(instrument("protocols/pairwise/client.py"), "client.py", "exec")


@pytest.mark.long  # make mutants asks this first
def test_every_equivalent_mutant_is_one_of_them() -> None:
    assert all(equivalents().values())
