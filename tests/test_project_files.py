"""The files at the top say what is so: versions, pinned actions, targets of make, paths, what a source archive has."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = SETTINGS["project"]["version"]
CI = (ROOT / ".github" / "workflows" / "test.yml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([.a-z][a-z/.-]*):", MAKEFILE, re.MULTILINE))
PLACES = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if ".venv" not in path.parts]


def test_the_citation_is_of_this_version_and_has_what_its_format_demands() -> None:
    yaml = pytest.importorskip("yaml", reason="NOT TESTED: nothing here reads YAML")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == VERSION
    assert citation["license"] == SETTINGS["project"]["license"]
    assert {"message", "title", "authors"} <= citation.keys()  # required by the Citation File Format 1.2.0
    assert citation["type"] in ("software", "dataset")
    for one in [citation, *citation["references"]]:
        assert all("name" in author or "family-names" in author for author in one["authors"])
    assert all({"type", "title", "authors"} <= reference.keys() for reference in citation["references"])


def test_security_supports_this_release() -> None:
    rows = re.findall(r"^\| ([0-9.]+) \| yes \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    assert rows == [VERSION.rpartition(".")[0]]


def test_a_source_archive_has_all_that_is_in_the_tree() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode or not listed.stdout:
        pytest.skip("NOT TESTED: this tree is not git's")
    tops = {line.split("/")[0] for line in listed.stdout.splitlines()}
    always = {"README.md", "LICENSE", "pyproject.toml", ".gitignore", ".ci"}
    included = SETTINGS["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"]
    assert tops - always == set(included)


def test_actions_are_pinned_to_what_they_were_when_somebody_looked() -> None:
    used = re.findall(r"uses: (.+)$", CI, re.MULTILINE)
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[0-9.]+", one) for one in used)


def test_ci_asks_make_for_what_it_can_make() -> None:
    asked = set(re.findall(r"run: make (\S+)", CI))
    assert {"check", "test", "docs", "dist", "smoke"} <= asked <= TARGETS


def test_make_compiles_all_that_is_compiled() -> None:
    pytest.importorskip("numba", reason="NOT TESTED: nothing is compiled here")
    imports = MAKEFILE.partition("COMPILED := ")[2].partition("\nCOMPILE = ")[0].replace("\\\n", "")
    code = f"import sys, {imports}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [place for place in PLACES if place.startswith(("secagg/", "dp/", "protocols/", "recsys/"))]
    compiled = {place for place in files if re.search(r"^@njit\(", (ROOT / place).read_text(), re.MULTILINE)}
    assert len(compiled) >= 8
    assert {place.removesuffix(".py").replace("/", ".") for place in compiled} <= set(loaded.split())


def test_ci_names_tests_that_are_there() -> None:
    for path in re.findall(r"tests/\S+\.py", CI):
        assert (ROOT / path).exists(), path


def test_hooks_run_what_make_check_runs() -> None:
    entries = re.findall(r"entry: \.venv/(bin/.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    assert len(entries) == 3
    recipe = MAKEFILE.partition("\ncheck:")[2].partition("\n\n")[0].replace("$(BIN)", "bin")
    assert all(f"\t{entry.replace(' --force-exclude', '')}\n" in recipe for entry in entries)


LABELS = ("secagg/v1/", "pairwise/", "merkle/", "dealing/", "oneshot/", "lattice/", "version/")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "docs/versioning.md", "docs/wire.md"])
def test_paths_and_modules_on_a_page_are_there(page: str) -> None:
    for word in re.findall(r"`([\w./-]+)`", (ROOT / page).read_text()):
        if "NAME" in word or word.startswith((".venv", "build/", "http")):
            continue
        if "/" in word and not word.startswith(LABELS):
            assert (ROOT / word).exists(), word
        elif re.fullmatch(r"(secagg|dp|protocols|recsys|tests)\.[a-z][a-z_.]+", word):
            path = word.replace(".", "/")
            assert any(place.startswith((f"{path}.py", f"{path}/")) for place in PLACES), word


def test_contributing_names_what_the_code_has() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for word, file in {
        "PACKAGES": "protocols/parameters.py", "RULES": "protocols/pairwise/parameters.py",
        "signers": "protocols/parameters.py",
        "TYPES": "protocols/pairwise/messages.py", "ClientRound": "protocols/rounds/client.py",
        "ServerRound": "protocols/rounds/server.py", "CohortServer": "protocols/rounds/admission.py",
        "_publish": "protocols/rounds/admission.py", "_release": "protocols/rounds/server.py",
        "self._drawn": "protocols/rounds/dealer.py", "Charge.RESERVE": "protocols/pairwise/client.py",
        "check_policy": "protocols/registry.py", "PROTOCOLS": "protocols/registry.py", "_KINDS": "dp/events.py",
        "_HANDLERS.add": "dp/accountants/rdp.py", "drawn": "dp/noise.py", "ACCOUNTANT": "dp/ledger/entries.py",
        "with_vector": "recsys/models/recommender.py", "from_state": "recsys/models/store.py",
        "configured": "recsys/assembly.py", "UnblamedError": "secagg/errors.py",
    }.items():  # fmt: skip
        assert word in text, word
        assert word in (ROOT / file).read_text(), (word, file)
