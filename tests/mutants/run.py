"""Runs tests in forks of this process, which has imported everything but the library: one fork a mutant and file.

First the unmutated tests, once, to learn which test runs which check and how long it takes (``reach``). Then each
mutant against the tests that run its check, file by file, until one fails (``hunt``). What is known is kept in
``.mutants`` and found again as long as the code and the tests concerned have not changed.
"""

from __future__ import annotations

import builtins
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.mutants import plugin
from tests.mutants.operators import ROOT, WATCHED, Mutant, instrument, label_values, mutants
from tests.mutants.strata import ELSEWHERE, FIRST, Stratum

KEPT = ROOT / ".mutants"
LIMIT_S = 30
"""For one fork. What takes longer hangs: its tests take a third of that at most when nothing is mutated."""

CHUNK_S = LIMIT_S / 3
DECIDED = ("never", "operand", "bound", "part", "true", "false", "least")
"""Operators of which it is known in which tests they make a difference, if the condition can be asked twice."""

OURS = ("secagg", "dp", "protocols", "recsys", "benchmarks")
_WARM = ("pytest", "hypothesis", "numpy", "cryptography", "scipy.stats", "scipy.sparse", "numba", "dp_accounting")
_WARM_LATE = ("torch", "opacus", "matplotlib.pyplot", "pyarrow")


@dataclass(frozen=True, slots=True)
class Reach:
    """What one test file does when nothing is mutated."""

    seconds: dict[str, float]
    """By test, in the order of the file."""
    runs: dict[str, list[str]]
    """By check, the tests that run it; "" stands for fixtures and for what runs while the file is imported."""
    tells: dict[str, list[str]]
    """By mutant, the tests in which its condition is another one, or in which the call that it leaves out raises."""


@dataclass(frozen=True, slots=True)
class Verdict:
    mutant: str
    function: str
    outcome: str
    """killed, hung (killed by the time limit), survived, or unreached: no test runs the check."""
    by: str
    tests: str
    """A hash of the files on which the verdict rests."""
    seconds: float


def check_of(mutant: Mutant) -> str:
    if mutant.operator == "context":
        return f"context:{mutant.source}"
    return f"{mutant.path}:{mutant.line}"


def stratum_mutants(stratum: Stratum) -> list[Mutant]:
    found = [mutant for path in stratum.source_files() for mutant in mutants(path)]
    return [mutant for mutant in found if (mutant.operator == "context") == (stratum.name == "context")]


# Reach: the unmutated tests.


def reach(files: Iterable[str], paths: Iterable[str], jobs: int, say: Callable[[str], None]) -> dict[str, Reach]:
    """Which checks each test of these files runs. A test that fails unmutated ends it: it would kill anything."""
    folder = KEPT / "reach"
    folder.mkdir(parents=True, exist_ok=True)
    sources = sha256(f"{WATCHED} {_hash(*sorted(paths))}".encode()).hexdigest()
    known: dict[str, Reach] = {}
    missing = list[tuple[str, Path]]()
    for file in files:
        kept = folder / f"{sha256(file.encode()).hexdigest()[:12]}-{_hash(file, *_helpers())[:12]}-{sources[:12]}.json"
        if kept.exists():
            known[file] = Reach(**json.loads(kept.read_text()))
        else:
            missing.append((file, kept))
    if missing:
        say(f"learning what {len(missing)} unmutated test files run")
    missing.sort(key=lambda one: -(ROOT / one[0]).stat().st_size)  # roughly the longest first
    failed = list[str]()
    forks = [Fork(file, lambda file=file, kept=kept: _learn(file, kept, paths), 600) for file, kept in missing]
    for fork in run_all(forks, jobs):
        kept = dict(missing)[fork.name]
        if fork.status or not kept.exists():
            failed.append(fork.name)
            say(f"fails without any mutant: {fork.name}, see {fork.log}")
        else:
            known[fork.name] = Reach(**json.loads(kept.read_text()))
    if failed:
        raise SystemExit(f"{len(failed)} test files fail without any mutant")
    return known


def _learn(file: str, kept: Path, paths: Iterable[str]) -> int:
    import pytest

    recorder = _Recorder()
    builtins._secagg_runs = recorder.runs  # type: ignore[attr-defined]
    builtins._secagg_raises = recorder.tells  # type: ignore[attr-defined]
    builtins._secagg_chooses = recorder.chooses  # type: ignore[attr-defined]
    builtins._secagg_hashes = recorder.hashes  # type: ignore[attr-defined]
    sys.meta_path.insert(0, plugin.Rewriting({path: _instrumented(path) for path in paths if path not in ELSEWHERE}))
    status = int(pytest.main(_arguments([file]), plugins=[recorder, plugin]))
    if status == 5:  # every test of it is a long one
        status = 0
    if status == 0:
        draft = kept.with_suffix(f".{os.getpid()}")
        known = {
            "seconds": recorder.seconds,
            "runs": {what: sorted(tests) for what, tests in recorder.ran.items()},
            "tells": {name: sorted(tests) for name, tests in recorder.told.items()},
        }
        draft.write_text(json.dumps(known))
        draft.rename(kept)
    return status


def _instrumented(path: str) -> Callable[[], Any]:
    return lambda: instrument(path)


class _Recorder:
    """Which test is running, and what runs in it. "" are fixtures and imports, which may serve any test of the file."""

    def __init__(self) -> None:
        self._labels = {value: name for name, value in label_values().items()}
        self._current = ""
        self.seconds: dict[str, float] = {}
        self.ran: dict[str, set[str]] = {}
        self.told: dict[str, set[str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_runtest_call(self, item: Any) -> None:
        self._current = item.nodeid

    def pytest_runtest_teardown(self) -> None:
        self._current = ""

    def runs(self, path: str, line: int) -> None:
        self.ran.setdefault(f"{path}:{line}", set()).add(self._current)

    def hashes(self, label: bytes, parts: int) -> None:
        for i in range(parts if label in self._labels else 0):
            self.ran.setdefault(f"context:{self._labels[label]}[{i}]", set()).add(self._current)

    def tells(self, name: str) -> None:
        """In this test the mutant makes a difference, if only to what a condition is."""
        self.told.setdefault(name, set()).add(self._current)

    def chooses(self, original: Callable[[], Any], variants: Iterable[tuple[str, Callable[[], Any]]]) -> Any:
        try:
            value = original()
        except BaseException:
            for name, _variant in variants:
                self.tells(name)
            raise
        for name, variant in variants:
            if self._current not in self.told.setdefault(name, set()):
                try:
                    other = variant()
                    number = "::least::" in name and not isinstance(value, bool)
                    differs = bool(other != value) if number else bool(other) != bool(value)
                except Exception:  # noqa: BLE001  # an error is another outcome, too
                    differs = True
                if differs:
                    self.tells(name)
        return value


# Hunt: the mutated tests.


class _Only:
    """Of the tests collected, only these, in this order; says which one failed."""

    def __init__(self, tests: list[str]) -> None:
        self._tests = {nodeid: i for i, nodeid in enumerate(tests)}
        self.failed = ""

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        chosen = [item for item in items if item.nodeid in self._tests]
        items[:] = sorted(chosen, key=lambda item: self._tests[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def _attempt(mutant: Mutant, file: str, tests: list[str], note: Path) -> int:
    import pytest

    plugin.install(mutant.name)
    only = _Only(tests)
    status = int(pytest.main(_arguments([file]), plugins=[only, plugin]))
    note.write_text(only.failed)
    return status


@dataclass(slots=True)
class Hunt:
    mutant: Mutant
    rounds: list[tuple[str, list[str]]]
    """Test files and tests that are still to be tried."""
    seconds: float = 0.0


def rounds_of(mutant: Mutant, files: list[str], reached: dict[str, Reach]) -> list[tuple[str, list[str]]]:
    """Which tests to try, file by file, in pieces of ``CHUNK_S`` at most.

    Where it is known in which tests the mutant makes a difference, those and no others can kill it. Else also those
    that run the check, some of each file before more of any. The quick ones come first, and all together take
    ``LIMIT_S`` at most.
    """
    name = ELSEWHERE.get(mutant.path, mutant.name)
    decided = name != mutant.name or (
        mutant.operator in DECIDED and any(name in reach.tells for reach in reached.values())
    )
    check = check_of(mutant)
    files = sorted(files, key=lambda file: file != FIRST.get(mutant.operator))
    found, others = list[tuple[str, list[str]]](), list[tuple[int, str, list[str]]]()
    for file in files:
        found += _chosen(file, reached[file].tells.get(name, []), reached[file])
    for file in files if not decided else ():
        known = reached[file]
        runners = list(known.seconds) if mutant.operator == "label" else known.runs.get(check, [])
        told = known.tells.get(name, [])
        chosen = _chosen(file, [test for test in runners if test not in told], known, LIMIT_S / 10)
        others += [(i, file, piece) for i, (_file, piece) in enumerate(chosen)]
    found += [(file, piece) for _i, file, piece in sorted(others, key=lambda one: one[0])]  # some of each file first
    left = float(LIMIT_S)
    for i, (file, piece) in enumerate(found):
        left -= sum(reached[file].seconds[test] for test in piece)
        if left < 0 and i > 0:
            return found[:i]
    return found


def _chosen(file: str, tests: list[str], known: Reach, most: float = CHUNK_S) -> list[tuple[str, list[str]]]:
    """These tests, the quick ones first, and all others of the file if a fixture is concerned."""
    seconds = known.seconds
    likely = sorted((test for test in tests if test in seconds), key=lambda test: seconds[test])
    others = [test for test in seconds if test not in likely] if "" in tests else []
    return [(file, piece) for some in (likely, others) for piece in _pieces(some, seconds, most)]


def _pieces(tests: list[str], seconds: dict[str, float], most: float) -> Iterator[list[str]]:
    piece, total = list[str](), 0.0
    for test in tests:
        if seconds[test] > CHUNK_S:
            continue  # could not be told from one that hangs
        if piece and total + seconds[test] > most:
            yield piece
            piece, total = [], 0.0
        piece.append(test)
        total += seconds[test]
    if piece:
        yield piece


def hunt(
    wanted: list[Mutant],
    files: list[str],
    reached: dict[str, Reach],
    jobs: int,
    done: Callable[[Verdict], None],
    killers: dict[str, list[str]],
) -> None:
    """Try each mutant. ``killers`` are files that killed others in the same function: they come first."""
    waiting = [Hunt(mutant, rounds_of(mutant, files, reached)) for mutant in wanted]
    (KEPT / "notes").mkdir(parents=True, exist_ok=True)
    queue = iter(waiting)

    def next_fork(hunted: Hunt) -> Fork:
        first = killers.get(f"{hunted.mutant.path}::{hunted.mutant.place}", [])
        runners = {file for file, tests in hunted.rounds if tests}
        file, tests = next(
            (one for known in first if known in runners for one in hunted.rounds if one[0] == known), hunted.rounds[0]
        )
        hunted.rounds.remove((file, tests))
        note = KEPT / "notes" / hunted.mutant.key
        note.unlink(missing_ok=True)
        return Fork(file, lambda: _attempt(hunted.mutant, file, tests, note), LIMIT_S, hunted)

    def verdict(hunted: Hunt, outcome: str, by: str = "") -> None:
        basis = [by.split("::")[0]] if by else files
        done(
            Verdict(
                hunted.mutant.name,
                hunted.mutant.function,
                outcome,
                by,
                _hash(*basis, *_helpers())[:16],
                round(hunted.seconds, 2),
            )
        )

    def begin() -> Fork | None:
        for hunted in queue:
            if hunted.rounds:
                return next_fork(hunted)
            verdict(hunted, "unreached")
        return None

    def after(fork: Fork) -> Fork | None:
        hunted = fork.owner
        hunted.seconds += fork.seconds
        note = KEPT / "notes" / hunted.mutant.key
        by = note.read_text() if note.exists() else ""
        note.unlink(missing_ok=True)
        if fork.late:
            verdict(hunted, "hung", fork.name)
        elif fork.status in (0, 5) and hunted.rounds:
            return next_fork(hunted)
        elif fork.status in (0, 5):
            verdict(hunted, "survived")
        elif fork.status == 4:
            raise SystemExit(f"pytest could not be called: {fork.log}")
        else:
            verdict(hunted, "killed", by or fork.name)
            killers.setdefault(f"{hunted.mutant.path}::{hunted.mutant.place}", []).insert(0, fork.name)
        return begin()

    _pump(begin, after, jobs)


# Forks.


@dataclass(slots=True)
class Fork:
    name: str
    work: Callable[[], int]
    limit_s: float
    owner: Any = None
    status: int = 0
    late: bool = False
    seconds: float = 0.0
    log: Path = field(default_factory=Path)
    started: float = 0.0


def run_all(forks: list[Fork], jobs: int) -> Iterator[Fork]:
    queue, finished = iter(forks), list[Fork]()

    def after(fork: Fork) -> Fork | None:
        finished.append(fork)
        return next(queue, None)

    _pump(lambda: next(queue, None), after, jobs)
    yield from finished


def _pump(begin: Callable[[], Fork | None], after: Callable[[Fork], Fork | None], jobs: int) -> None:
    """Keep so many forks running; ``after`` says what comes in the place of one that has ended."""
    running: dict[int, Fork] = {}
    while len(running) < jobs and (fork := begin()) is not None:
        running[_start(fork)] = fork
    while running:
        time.sleep(0.01)
        for pid, fork in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            fork.seconds = time.monotonic() - fork.started
            if not ended and fork.seconds > fork.limit_s * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)):
                fork.late = True
                _end(pid)
                ended, status = os.waitpid(pid, 0)
            if ended:
                _end(pid)  # and what it has started
                fork.status = os.waitstatus_to_exitcode(status)
                shutil.rmtree(_scratch(pid), ignore_errors=True)
                del running[pid]
                if (following := after(fork)) is not None:
                    running[_start(following)] = following


def _start(fork: Fork) -> int:
    fork.started = time.monotonic()
    logs = KEPT / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    owner = fork.owner.mutant.key if isinstance(fork.owner, Hunt) else "reach"
    fork.log = logs / f"{owner}-{fork.name.replace('/', '.')}.log"
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 3
    try:
        os.setpgid(0, 0)
        out = os.open(fork.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        _scratch(os.getpid()).mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(_scratch(os.getpid()))
        status = fork.work()
    except BaseException:  # noqa: BLE001  # whatever it is, it must not run on in two processes
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return 0


def _end(pid: int) -> None:
    """The process group that this fork leads: it and what it started."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _scratch(pid: int) -> Path:
    return KEPT / "scratch" / str(pid)


def _arguments(files: list[str]) -> list[str]:
    without = ("cacheprovider", "xdist", "cov", "anyio", "unraisableexception", "threadexception")
    quiet = [
        "-x",
        "-q",
        "--all-variants",
        "--no-header",
        "--assert=plain",
        *[word for name in without for word in ("-p", f"no:{name}")],
    ]
    return [*quiet, f"--basetemp={_scratch(os.getpid()) / 'tmp'}", f"--rootdir={ROOT}", *files]


def warm(late: bool) -> None:
    """Import what is not ours and takes long, before anything is forked."""
    for name in (*_WARM, *(_WARM_LATE if late else ())):
        if find_spec(name.split(".")[0]) is not None:
            import_module(name)
    gc.collect()
    gc.freeze()
    if loaded := [name for name in sys.modules if name.split(".")[0] in OURS]:
        raise SystemExit(f"imported too early to be mutated: {loaded}")


# What is kept.


@cache
def _helpers() -> tuple[str, ...]:
    """Files of the tests that are no tests: a change there may change any verdict."""
    found = (path for path in (ROOT / "tests").rglob("*.py") if not path.name.startswith("test_"))
    return tuple(sorted(str(path.relative_to(ROOT)) for path in found if "mutants" not in path.parts))


def _hash(*files: str) -> str:
    return sha256("".join(_file_hash(file) for file in files).encode()).hexdigest()


@cache
def _file_hash(file: str) -> str:
    path = ROOT / file
    return sha256(path.read_bytes() if path.exists() else b"").hexdigest()


class Book:
    """The verdicts so far, one a line; the last one on a mutant counts, while what it rests on has not changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._verdicts: dict[str, Verdict] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                verdict = Verdict(**json.loads(line))
                self._verdicts[verdict.mutant] = verdict

    def add(self, verdict: Verdict) -> None:
        self._verdicts[verdict.mutant] = verdict
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as out:
            out.write(json.dumps({name: getattr(verdict, name) for name in Verdict.__slots__}) + "\n")

    def known(self, mutant: Mutant, files: list[str]) -> Verdict | None:
        """A kill rests on the file that killed, a survival on all the files of the stratum."""
        verdict = self._verdicts.get(mutant.name)
        if verdict is None or verdict.function != mutant.function:
            return None
        basis = [verdict.by.split("::")[0]] if verdict.by else files
        return verdict if verdict.tests == _hash(*basis, *_helpers())[:16] else None

    def killers(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for verdict in self._verdicts.values():
            if verdict.outcome == "killed":
                place = "::".join(verdict.mutant.split("::")[:2])
                file = verdict.by.split("::")[0]
                if file not in found.setdefault(place, []):
                    found[place].append(file)
        return found
