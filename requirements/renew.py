"""Write the locks anew: what each extra brings, in versions that fit together, with the hashes of the files.

    make locks                  the newest versions that constraints.txt and pyproject.toml allow
    make locks KEEP=--keep      the versions that pins.txt has; for a new extra, or a new Python

pip resolves everything at once, by each Python itself, so that no two locks disagree, and says which files it would
install (``pip install --dry-run --report``). So python3.11 and so on must be there, and make an empty environment each:
some distributions have no wheels, and what they need is known when they are built. What an extra needs of all that
follows from their metadata. Written are

    NAME.lock    for ``pip install --require-hashes --no-deps -r``: files for CPython on Linux, x86-64
    build.lock   what builds this library
    torch.txt    torch, without a hash: which file it is, and what that needs, depends on the index (CPU or GPU)
    pins.txt     all versions, without hashes: a constraints file

Hashes are all or nothing in a file for pip, so torch is in none of the locks, and neither is what only its builds for
GPUs bring along.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
ROOT = HERE.parent
UNHASHED = ("torch",)
FOR_GPUS = ("nvidia-", "cuda-", "triton")
EDITABLE = "editables>=0.3"
"""What hatchling needs besides, for ``pip install -e``."""
HEAD = "# Made by requirements/renew.py (make locks), from pyproject.toml and constraints.txt: not to be edited.\n"


@dataclass(frozen=True, slots=True)
class Found:
    """A distribution that pip would install for one Python."""

    version: str
    sha256: str
    needs: tuple[Requirement, ...]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = wishes(project)
    everything = sorted({str(one) for needs in wanted.values() for one in needs})
    resolved: dict[str, dict[str, Found]] = {}
    for python in pythons(project):
        sys.stderr.write(f"Python {python}\n")
        first = next(iter(resolved.values()), None)
        like = [HERE / "pins.txt"] if "--keep" in sys.argv and (HERE / "pins.txt").exists() else []
        resolved[python] = resolve(everything, python, like, first)
    brought = {name: {p: set(closure(needs, resolved[p], p)) for p in resolved} for name, needs in wanted.items()}
    for old in HERE.glob("*.lock"):
        old.unlink()
    for name, names in brought.items():
        (HERE / f"{name}.lock").write_text(HEAD + "".join(locked(resolved, names)))
    versions = {p: found["torch"].version.partition("+")[0] for p, found in resolved.items()}
    (HERE / "torch.txt").write_text(HEAD + f"torch=={one(versions.values())}\n")
    all_names = {p: set().union(*(names[p] for names in brought.values())) for p in resolved}
    lines = [*pinned(resolved, all_names), f"torch=={one(versions.values())}\n"]
    (HERE / "pins.txt").write_text(HEAD + "".join(sorted(lines)))


def pythons(project: Mapping[str, Any]) -> list[str]:
    language = "Programming Language :: Python :: "
    words = project["project"]["classifiers"]
    return [word.removeprefix(language) for word in words if word.startswith(language)]


def wishes(project: Mapping[str, Any]) -> dict[str, list[Requirement]]:
    """Of each lock: what is asked for, with references to other extras of this library resolved."""
    base, extras = project["project"]["dependencies"], project["project"]["optional-dependencies"]

    def flat(lines: Iterable[str]) -> Iterator[Requirement]:
        for line in lines:
            asked = Requirement(line)
            if asked.name == project["project"]["name"]:
                for extra in sorted(asked.extras):
                    yield from flat(extras[extra])
            else:
                yield asked

    build = [Requirement(line) for line in (*project["build-system"]["requires"], EDITABLE)]
    return {"build": build, "base": list(flat(base))} | {
        name: list(flat([*base, *lines])) for name, lines in extras.items()
    }


def resolve(
    everything: list[str], python: str, like: list[Path], first: Mapping[str, Found] | None
) -> dict[str, Found]:
    """What pip would install on this Python; in the versions of the first one, as far as there are any."""
    with TemporaryDirectory() as folder:
        subprocess.run([f"python{python}", "-m", "venv", folder], check=True)
        pip = Path(folder) / "bin" / "pip"
        same, report = Path(folder) / "same.txt", Path(folder) / "report.json"
        same.write_text(
            "".join(f"{name}=={found.version}\n" for name, found in (first or {}).items() if name != "torch")
        )
        for constraints in ([*like, same], like):
            words = [str(pip), "install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
            for path in (ROOT / "constraints.txt", *constraints):
                words += ["-c", str(path)]
            if subprocess.run([*words, *everything]).returncode == 0:
                return {
                    canonicalize_name(one["metadata"]["name"]): Found(
                        one["metadata"]["version"],
                        one["download_info"]["archive_info"]["hashes"]["sha256"],
                        tuple(map(Requirement, one["metadata"].get("requires_dist", ()))),
                    )
                    for one in json.loads(report.read_text())["install"]
                }
    raise SystemExit(f"pip finds no versions that fit together on Python {python}")


def closure(needs: Iterable[Requirement], found: Mapping[str, Found], python: str) -> Iterator[str]:
    """Names of all that these need, themselves included; without what has no hash here."""
    environment = default_environment() | {"python_version": python, "python_full_version": f"{python}.0"}
    seen: set[tuple[str, str]] = set()
    todo = [(one, "") for one in needs]
    while todo:
        asked, extra = todo.pop()
        if asked.marker is not None and not asked.marker.evaluate(dict(environment) | {"extra": extra}):
            continue
        name = canonicalize_name(asked.name)
        if name.startswith(FOR_GPUS):
            continue
        for inner in ("", *asked.extras):
            if (name, inner) not in seen:
                seen.add((name, inner))
                todo += [(one, inner) for one in found[name].needs]
        if name not in UNHASHED:
            yield name


def locked(resolved: Mapping[str, Mapping[str, Found]], names: Mapping[str, set[str]]) -> Iterator[str]:
    for name, version, marker, hashes in lines_of(resolved, names):
        yield f"{name}=={version}{marker}" + "".join(f" \\\n    --hash=sha256:{one}" for one in hashes) + "\n"


def pinned(resolved: Mapping[str, Mapping[str, Found]], names: Mapping[str, set[str]]) -> Iterator[str]:
    for name, version, marker, _ in lines_of(resolved, names):
        yield f"{name}=={version}{marker}\n"


def lines_of(
    resolved: Mapping[str, Mapping[str, Found]], names: Mapping[str, set[str]]
) -> Iterator[tuple[str, str, str, list[str]]]:
    """Name, version, marker and hashes: one version for all Pythons, or one for some of them."""
    for name in sorted(set().union(*names.values())):
        versions = defaultdict[str, list[str]](list)
        for python in resolved:
            if name in names[python]:
                versions[resolved[python][name].version].append(python)
        for version, here in versions.items():
            marker = "" if here == list(resolved) else " ; " + " or ".join(f'python_version == "{p}"' for p in here)
            yield name, version, marker, sorted({resolved[python][name].sha256 for python in here})


def one(values: Iterable[str]) -> str:
    (found,) = set(values)
    return found


if __name__ == "__main__":
    main()
