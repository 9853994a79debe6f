"""A run of ``secagg train`` killed with SIGKILL around everything that it makes durable, and begun again until it ends.

It is the run that it would have been: the same model bit by bit, the same rounds, the same results, and a ledger with
the same entries, so nothing was lost and nothing was paid for twice. Two runs that are wrong are shown to be caught.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from dp.ledger.entries import parse
from dp.ledger.file import read
from dp.ledger.verify import verify
from recsys.record import Run

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
CONFIG = """
title = "to be killed"
[data]
users = 60
items = 150
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
EASE = ("model.name=private-ease", "model.settings={}", "clients.kind=devices", "protocol.adversary=curious")
MODES = {
    "none": ("privacy.mode=none",),
    "local": ("privacy.mode=local",),
    "distributed": ("privacy.mode=distributed",),
    "both": ("privacy.mode=both",),
    "sums": ("privacy.mode=distributed", *EASE),
}


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: many syncs are waited for, and none of them matters to a kill."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


class Zygote:
    """The process whose runs are killed."""

    def __init__(self) -> None:
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
        order = {"config": str(config), "changes": MODES[mode], "out": str(folder), **how}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self, folder: Path, mode: str, stops: Iterable[int], **how: Any) -> int:
        """Killed at one stop after the other, until it comes to its end; how often it was killed."""
        for kills, stop in enumerate(stops):
            answer = self.train(folder, mode, stop=stop, **how)
            assert answer["code"] in (None, 0), answer["error"]
            if answer["code"] == 0:
                return kills
        answer = self.train(folder, mode, **how)
        assert answer == {"code": 0, "error": ""}
        return kills + 1

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing(Zygote()) as process:
        yield process


def prepared(tmp_path: Path, zygote: Zygote, mode: str) -> tuple[Path, Path]:
    """A run that nobody kills, and a directory in which the same run may begin: with the same secret."""
    through, killed = tmp_path / "through", tmp_path / "killed"
    answer = zygote.train(through, mode)
    assert answer == {"code": 0, "error": ""}
    begin_again(through, killed)
    return through, killed


def begin_again(through: Path, killed: Path) -> None:
    for folder in (killed, killed.with_name(f"{killed.name}.state")):
        shutil.rmtree(folder, ignore_errors=True)
    killed.mkdir()
    for name in ("config.json", "secret.key"):
        shutil.copy(through / name, killed)


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
    for name in ("model.npz", "secret.key", "ledger.pub"):
        assert (through / name).read_bytes() == (killed / name).read_bytes(), name
    assert ledgers(through) == ledgers(killed)
    one, other = Run.load(through), Run.load(killed)
    assert timeless(one) == timeless(other)
    assert (killed / "report.html").exists()


def timeless(run: Run) -> Run:
    rounds = tuple(replace(one, seconds={}) for one in run.rounds)
    return replace(run, rounds=rounds, machine={})


SOME = range(2, 1000, 25)
"""Each process comes a little further than the one before."""


@pytest.mark.parametrize("mode", ["local", "distributed"])
def test_killed_again_and_again(mode: str, zygote: Zygote, tmp_path: Path) -> None:
    through, killed = prepared(tmp_path, zygote, mode)
    assert zygote.end(killed, mode, SOME) > 2
    check(through, killed)
    run = Run.load(through)
    assert len(run.rounds) == 3
    assert any(one.silent for one in run.rounds)  # and clients were lost in it


def test_killed_before_there_is_anything(zygote: Zygote, tmp_path: Path) -> None:
    """From the first file on; it has a secret of its own."""
    killed = tmp_path / "killed"
    assert zygote.end(killed, "none", (1, 4, 8)) == 3
    assert Run.load(killed).ended == "all rounds are done"


def test_control_a_run_that_pays_twice_is_caught(zygote: Zygote, tmp_path: Path) -> None:
    through, killed = prepared(tmp_path, zygote, "local")
    stop = after_first_commit(zygote, killed, through)
    begin_again(through, killed)
    answer = zygote.train(killed, "local", stop=stop, control="anew")
    assert answer["code"] is None, answer["error"]
    zygote.train(killed, "local", control="anew")
    commits = {
        folder: [entry["steps"] for entry in ledgers(folder)["ledger.db"] if entry["phase"] == "commit"]
        for folder in (through, killed)
    }
    assert len(commits[through]) == 3
    assert commits[killed] != commits[through] or Run.load(killed).ended != "all rounds are done"
    with pytest.raises(AssertionError):
        check(through, killed)


def test_control_new_noise_in_a_sum_that_was_begun_is_refused(zygote: Zygote, tmp_path: Path) -> None:
    through, killed = prepared(tmp_path, zygote, "local")
    for stop in count(34, 4):
        begin_again(through, killed)
        assert zygote.train(killed, "local", stop=stop, control="fresh")["code"] is None
        if (killed / "begun.json").exists():
            break
    answer = zygote.train(killed, "local", control="fresh")
    assert answer["code"] == 1
    assert "was begun with other updates" in answer["error"]
    assert answer["error"].count("\n") == 1


def after_first_commit(zygote: Zygote, killed: Path, through: Path) -> int:
    """The first stop at which a round is charged and not done."""
    for stop in count(30, 2):
        begin_again(through, killed)
        assert zygote.train(killed, "local", stop=stop)["code"] is None
        path = killed / "ledger.db"
        if path.exists() and any(entry["phase"] == "commit" for entry in ledgers(killed)["ledger.db"]):
            assert not (killed / "checkpoint.npz").exists()
            return stop
    raise AssertionError("never")


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
        while zygote.train(killed, mode, after=rng.uniform(0, 2.5))["code"] is None:
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
