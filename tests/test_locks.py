"""The locks agree with what pyproject.toml asks for and with each other, and every file in them has a hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
LINE = re.compile(r'([a-z0-9-]+)==([^ ;\\]+)( ; python_version == "3\.1\d"( or python_version == "3\.1\d")*)?')
UNHASHED = "torch"


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(text: str) -> dict[str, set[str]]:
    """name -> its versions, from lines with or without hashes; ``ValueError`` for any other line."""
    found: dict[str, set[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            first, *hashes = re.split(r" +--hash=sha256:", line.strip())
            match = LINE.fullmatch(first.strip())
            if match is None or any(not re.fullmatch("[0-9a-f]{64}", one) for one in hashes):
                raise ValueError(line)
            found.setdefault(plain(match[1]), set()).add(match[2])
    return found


def unhashed(text: str) -> list[str]:
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#") and "--hash=sha256:" not in line]


PINS = versions((FOLDER / "pins.txt").read_text())
LOCKS = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.lock"))}


def asked(lines: list[str]) -> set[str]:
    """Names, with those of other extras of this library."""
    names = set()
    for line in lines:
        if match := re.fullmatch(r"secagg\[(.*)\]", line):
            names |= {name for extra in match[1].split(",") for name in asked(EXTRAS[extra])}
        else:
            names.add(plain(re.split("[<>=!~;\\[ ]", line)[0]))
    return names


def test_there_is_a_lock_for_each_extra() -> None:
    assert set(LOCKS) == {"base", "build", *EXTRAS}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_what_is_asked_for_with_hashes(name: str) -> None:
    found = versions(LOCKS[name])
    lines = PROJECT["build-system"]["requires"] if name == "build" else PROJECT["project"]["dependencies"]
    assert asked([*lines, *EXTRAS.get(name, ())]) - {UNHASHED} <= found.keys()
    assert unhashed(LOCKS[name]) == []
    assert UNHASHED not in found
    for one, known in found.items():
        assert known <= PINS[one]


def test_control_a_line_without_a_hash_is_found() -> None:
    assert unhashed("a==1 \\\n    --hash=sha256:" + "0" * 64 + "\nb==2\n") == ["b==2"]
    with pytest.raises(ValueError, match="a>=1"):
        versions("a>=1\n")


def test_one_version_everywhere() -> None:
    for name, known in versions(_without_comments(ROOT / "constraints.txt")).items():
        assert PINS[name] == known, "constraints.txt was changed: make locks"
    assert PINS[UNHASHED] == versions((FOLDER / "torch.txt").read_text())[UNHASHED]
    [build] = PROJECT["build-system"]["requires"]
    assert versions(build) == {"hatchling": PINS["hatchling"]}
    named = {name for text in LOCKS.values() for name in versions(text)}
    assert PINS.keys() == {*named, UNHASHED}


def _without_comments(path: Path) -> str:
    return "\n".join(line.partition("#")[0].strip() for line in path.read_text().splitlines())


def test_no_file_says_where_from() -> None:
    for path in FOLDER.glob("*"):
        if path.is_file():
            assert "://" not in path.read_text(), path


def test_pip_is_handed_the_pins_by_make() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    assert "export PIP_CONSTRAINT := requirements/pins.txt" in lines
    assert "export PIP_BUILD_CONSTRAINT := requirements/pins.txt" in lines
