"""A run of ``secagg train`` killed with SIGKILL around everything that it makes durable, and begun again until it ends.

It goes on elsewhere: each process computes other last bits of every update than the one before, with another number of
threads. It makes the sums that it would have made, with the same clients, and what had begun ends as it began: a log of
all frames tells that no client says two things in one place of one sum, and each sum is in the ledger once. Two runs
that are wrong are shown to be caught.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dp.ledger.entries import parse
from dp.ledger.file import read
from dp.ledger.verify import verify
from recsys.models.store import load
from recsys.run_record import Run
from recsys.served_heads import load_own
from secagg.files import DRAFT
from tests.scenes.recommender import same_secrets

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
CONFIG = """
title = "to be killed"
[data]
users = 60
item_count = 150
[clients]
count = 6
[model]
settings = {width = 2, recent = 10}
[training]
rounds = 3
server = "fedadam"
server_rate = 0.1
[privacy]
steps = 1
[protocol]
workers = 1
dropout = "0.34"
[network]
dropout = 0.15
"""
OF_SUMS = ("model.name=private-ease", "model.settings={}")
EASE = (*OF_SUMS, "clients.kind=devices", "protocol.adversary=curious")
CURIOUS = ("protocol.adversary=curious", "protocol.name=secagg")
"""On a graph with fewer edges it follows from the model who is whose neighbour, hence how many bytes a lost client
costs."""
WHOEVER_IS_READY = (
    *("training.draw=arrivals", "training.size=4", "training.measured=0", "training.most=3", "protocol.name=secagg"),
    *("network.training=60", "network.speeds=1.7", "network.dropout=0.1", "clients.count=6"),
)
MODES = {
    "none": ("privacy.mode=none",),
    "scaffold": ("privacy.mode=none", "training.scaffold=true", "training.epochs=2", *CURIOUS),
    "heads": ("privacy.mode=none", "training.personal=['bias']", "training.rate=1"),
    "local": ("privacy.mode=local",),
    "distributed": ("privacy.mode=distributed",),
    "both": ("privacy.mode=both",),
    "arrivals": ("privacy.mode=distributed", *WHOEVER_IS_READY),
    "sums": ("privacy.mode=distributed", *EASE),
    "sums over silos": ("privacy.mode=distributed", *OF_SUMS),
    "stream": (
        "privacy.mode=distributed",
        "data.source=stream",
        "stream.begin=1000000",
        "stream.every=3600",
        "stream.replay=7200",
        "stream.events=60.0",
        "stream.frozen=1",
        "training.measured_every=1",
    ),
}


@contextmanager
def in_memory() -> Iterator[Path]:
    """Where that is possible: many syncs are waited for, and none of them matters to a kill."""
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


class Zygote:
    """The process whose runs are killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.train_victim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def train(self, folder: Path, mode: str, **how: Any) -> dict[str, Any]:
        """Begin a run in ``folder``, or go on with it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        config = folder.with_name("config.toml")
        config.write_text(CONFIG)
        log = {"log": str(log_of(folder))}
        order = {"config": str(config), "changes": MODES[mode], "out": str(folder), **log, **how}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def through(self, mode: str) -> Path:
        """A run that nobody kills; made once."""
        folder = self._folder / mode
        if not folder.exists():
            assert self.train(folder, mode) == {"code": 0, "error": ""}
        return folder

    def learnt(self, mode: str) -> Path:
        """The same run, killed when the first sum is out, and what came of it is not on disk; made once."""
        folder, kept = self._folder / f"{mode}-learnt", self._folder / f"{mode}-kept"
        if not kept.exists():
            begin_again(self.through(mode), folder)
            answer = self.train(folder, mode, renaming=["checkpoint.safetensors", LEARNT[mode]])
            assert answer["code"] is None, answer["error"]
            assert (folder / "private" / "sum-0.sealed").exists()
            folder.with_name(f"{folder.name}.state").rename(kept.with_name(f"{kept.name}.state"))
            log_of(folder).rename(log_of(kept))
            folder.rename(kept)  # moved: a copy of a run that is still where it was does not go on
        return kept

    def end(self, folder: Path, mode: str, stops: Iterable[int], **how: Any) -> int:
        """Killed at one stop after the other, each time elsewhere, until it comes to its end; how often."""
        for kills, stop in enumerate(stops):
            answer = self.train(folder, mode, stop=stop, elsewhere=kills, **how)
            assert answer["code"] in (None, 0), answer["error"]
            if answer["code"] == 0:
                return kills
        answer = self.train(folder, mode, elsewhere=kills + 1, **how)
        assert answer == {"code": 0, "error": ""}
        return kills + 1

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with in_memory() as folder, closing(Zygote(folder)) as process:
        yield process


def prepared(tmp_path: Path, zygote: Zygote, mode: str) -> tuple[Path, Path]:
    """A run that nobody kills, and a directory in which the same run may begin: with the same secret."""
    through, killed = zygote.through(mode), tmp_path / "killed"
    begin_again(through, killed)
    return through, killed


def begin_again(through: Path, killed: Path) -> None:
    for folder in (killed, killed.with_name(f"{killed.name}.state")):
        shutil.rmtree(folder, ignore_errors=True)
    log_of(killed).unlink(missing_ok=True)
    same_secrets(through, killed)


def log_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def said(folder: Path) -> dict[str, list[str]]:
    """Place -> what was said there, each time."""
    found: dict[str, list[str]] = {}
    for line in log_of(folder).read_text().splitlines():
        place, digest = line.split()
        found.setdefault(place, []).append(digest)
    return found


def ledgers(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All entries, checked."""
    found = {}
    key = bytes.fromhex((folder / "ledger.pub").read_text())
    for path in sorted(folder.glob("*.db")):
        rows = read(path)
        verify(rows, key)
        found[path.name] = [dict(parse(body)) for body, _signature in rows]
    return found


def check(through: Path, killed: Path) -> None:
    for place, digests in said(killed).items():
        assert len(set(digests)) == 1, place
    assert set(said(killed)) == set(said(through))
    assert files(killed) == files(through)
    for name in ("private/secret.key", "private/ledger.key", "ledger.pub"):
        assert (through / name).read_bytes() == (killed / name).read_bytes(), name
    (names, spent), (names_killed, spent_killed) = charges(through), charges(killed)
    assert names == names_killed
    np.testing.assert_allclose(spent, spent_killed, rtol=1e-9)
    assert sums(Run.load(through)) == sums(Run.load(killed))
    assert Run.load(killed).ended == Run.load(through).ended


VOID = 28
"""So many bytes of a journal are SQLite's header. Where they are zero it undoes nothing, whatever comes after."""


def files(folder: Path) -> set[str]:
    """Without drafts and void journals, which may stay where the last process was killed when nothing else was left to
    do: whoever only sees that a run has ended opens no ledger for writing."""
    names = {*os.listdir(folder), *os.listdir(folder / "private")}
    void = {path.name for path in folder.glob("*.db-journal") if not any(path.read_bytes()[:VOID])}
    return {name for name in names - void if not DRAFT.fullmatch(name)}


def charges(folder: Path) -> tuple[list[tuple[str, str]], list[int]]:
    """What ledgers say, but for the names of releases, which follow from the model: phases, and what was spent then."""
    phases, spent = list[tuple[str, str]](), list[int]()
    for name, entries in ledgers(folder).items():
        released = [(entry["release"], entry["phase"], entry.get("steps", {}).get("count")) for entry in entries[1:]]
        assert len(set(released)) == len(released)
        phases += [(name, entry["phase"]) for entry in entries]
        spent += [entry["epsilon_after"] for entry in entries[1:]]
    return phases, spent


def sums(run: Run) -> list[Any]:
    """How the sums came about, whatever they came to."""
    plain = {"seconds": {}, "measured": {}, "exact": {}, "epsilon": None, "epsilon_left": None, "head": ""}
    return [replace(one, **plain) for one in run.rounds]


def vector(folder: Path) -> NDArray[np.float32]:
    model = load(folder / "model.safetensors").model
    return model.vector  # type: ignore[attr-defined, no-any-return]


NOISED = ("distributed", "arrivals", "stream")
SOME = range(12, 1000, 40)
"""Each process comes a little further than the one before."""


@pytest.mark.parametrize(
    "mode",
    ["local", *(pytest.param(one, marks=pytest.mark.long) for one in (*NOISED, "scaffold", "heads"))],
)
def test_killed_again_and_again(mode: str, zygote: Zygote, tmp_path: Path) -> None:
    """By default with the mode whose last assertion another does not allow, in the long version with all."""
    through, killed = prepared(tmp_path, zygote, mode)
    assert zygote.end(killed, mode, SOME) > 2
    check(through, killed)
    run = Run.load(through)
    assert len(run.rounds) == 3
    assert any(one.silent for one in run.rounds)  # and clients were lost in it
    if mode not in NOISED:  # noise inside sums follows from the plan, hence from the last bit of the model
        np.testing.assert_allclose(vector(killed), vector(through), rtol=1e-2, atol=1e-3)
    if mode == "heads":
        for client in (f"client-{number}" for number in range(6)):
            one, other = (load_own(folder, client).model.vector for folder in (killed, through))  # type: ignore[attr-defined]
            np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-3)
            assert np.abs(other - vector(through)).max() > 0.01


def test_killed_before_there_is_anything(zygote: Zygote, tmp_path: Path) -> None:
    """From the first file on; it has a secret of its own."""
    killed = tmp_path / "killed"
    assert zygote.end(killed, "none", (1, 4, 8)) == 3
    assert Run.load(killed).ended == "all rounds are done"


LEARNT = {"local": 1, "distributed": 1, "sums": 0, "sums over silos": 0, "stream": 1}
"""How many checkpoints there are when the first sum is known."""


SUMS = pytest.param("sums", marks=pytest.mark.long)
"""A model of sums: by default a model that is trained is killed, in the long version this one, too."""


OVER_SILOS = pytest.param("sums over silos", marks=pytest.mark.long)
STREAM = pytest.param("stream", marks=pytest.mark.long)


@pytest.mark.parametrize(
    "mode", ["local", pytest.param("distributed", marks=pytest.mark.long), SUMS, OVER_SILOS, STREAM]
)
def test_a_sum_that_was_learnt_elsewhere_comes_out_as_it_did_there(mode: str, zygote: Zygote, tmp_path: Path) -> None:
    through, killed = prepared(tmp_path, zygote, mode)
    learnt_elsewhere(zygote, killed, mode)
    assert zygote.train(killed, mode, elsewhere=1000) == {"code": 0, "error": ""}
    check(through, killed)
    [first, *others] = [digests for place, digests in said(killed).items() if place.endswith("/sum/server")]
    assert [len(first), *map(len, others)] == [2] + [1] * len(others)


@pytest.mark.parametrize("mode", ["local", SUMS, OVER_SILOS])
def test_control_a_sum_that_is_computed_twice_is_caught(mode: str, zygote: Zygote, tmp_path: Path) -> None:
    through, killed = prepared(tmp_path, zygote, mode)
    learnt_elsewhere(zygote, killed, mode)
    assert zygote.train(killed, mode, elsewhere=1, control="twice")["code"] is not None
    with pytest.raises(AssertionError, match="/0/upload/"):
        check(through, killed)


def learnt_elsewhere(zygote: Zygote, killed: Path, mode: str) -> None:
    """The first sum is out, and what came of it is not on disk."""
    learnt, state = zygote.learnt(mode), f"{killed.name}.state"
    shutil.copytree(learnt, killed, dirs_exist_ok=True)
    shutil.copytree(learnt.with_name(f"{learnt.name}.state"), killed.with_name(state))
    shutil.copy(log_of(learnt), log_of(killed))


@pytest.mark.long
def test_control_a_run_that_pays_twice_is_caught(zygote: Zygote, tmp_path: Path) -> None:
    through, killed = prepared(tmp_path, zygote, "local")
    learnt_elsewhere(zygote, killed, "local")
    assert zygote.train(killed, "local", control="anew")["code"] == 0
    commits = {
        folder: sum(entry["phase"] == "commit" for entry in ledgers(folder)["ledger.db"])
        for folder in (through, killed)
    }
    assert commits[through] == 3
    assert commits[killed] > 3 or Run.load(killed).ended != "all rounds are done"
    with pytest.raises(AssertionError):
        check(through, killed)


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_killed_once_at_every_point(mode: str, zygote: Zygote, tmp_path: Path) -> None:
    through, killed = prepared(tmp_path, zygote, mode)

    def came_to_its_end(stop: int) -> bool:
        begin_again(through, killed)
        kills = zygote.end(killed, mode, [stop])
        check(through, killed)
        return kills == 0

    points = sum(1 for _ in takewhile(lambda stop: not came_to_its_end(stop), count()))
    assert points > 60


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_killed_at_any_moment(mode: str, zygote: Zygote, tmp_path: Path) -> None:
    """Again and again, at random moments."""
    through, killed = prepared(tmp_path, zygote, mode)
    rng = random.Random(1)
    for _ in range(10):
        begin_again(through, killed)
        elsewhere = count()
        while zygote.train(killed, mode, after=rng.uniform(0, 2.5), elsewhere=next(elsewhere))["code"] is None:
            pass
        check(through, killed)


@pytest.mark.long
def test_killed_at_every_point_from_nothing(zygote: Zygote, tmp_path: Path) -> None:
    for stop in count():
        killed = tmp_path / str(stop)
        if zygote.end(killed, "distributed", [stop]) == 0:
            break
        assert len(ledgers(killed)["ledger.db"]) == 1 + 2 * 3
        assert Run.load(killed).ended == "all rounds are done"
        shutil.rmtree(killed)
