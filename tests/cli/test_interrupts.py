"""Ctrl-C ends a run at once, wherever it is, and the last line goes on with it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from secagg.cli.exit_codes import INTERRUPTED
from secagg.cli.interrupts import interruptible
from secagg.cli.train import again

ROOT = Path(__file__).resolve().parents[2]
SAID = "\nsecagg: interrupted. To go on:\nsecagg train it\n"


@pytest.fixture(autouse=True)
def _interrupts_are_heard() -> Iterator[None]:
    """A shell has its background jobs ignore them, and their children with them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ran(*lines: str) -> tuple[int, str, str]:
    """A program that is interrupted by itself."""
    return alone("from secagg.cli.interrupts import interruptible", *lines)


def alone(*lines: str) -> tuple[int, str, str]:
    text = "\n".join(["import os, signal, sys", *lines])
    done = subprocess.run(
        [sys.executable, "-P", "-c", text], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


LOST = """
class Other:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100): pass
def work():
    Other()
    print("goes on", flush=True)
"""
"""Python can raise nothing out of a destructor: it writes a traceback, and goes on."""


def test_it_ends_the_process_with_a_command_and_without_a_traceback() -> None:
    assert ran(LOST, "with interruptible('secagg train it'): work()") == (INTERRUPTED, "", SAID)


EARLY = """
class Loader:
    def find_spec(self, name, path, target=None):
        if name == "secagg.cli.output":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Loader())
from secagg.__main__ import main
sys.exit(main())
"""


def test_while_the_command_is_loaded_it_is_one_line() -> None:
    assert alone(EARLY) == (INTERRUPTED, "", "secagg: interrupted\n")


def test_an_exception_could_be_lost() -> None:
    """The control, with Python's own way of interrupting."""
    code, out, error = ran(LOST, "work()")
    assert (code, out) == (0, "goes on\n")
    assert "Traceback" in error


def test_a_fork_of_the_process_ends_in_silence() -> None:
    forked = """
with interruptible('secagg train it'):
    if (child := os.fork()) == 0:
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert ran(forked) == (0, f"{INTERRUPTED}\n", "")


def test_what_is_ignored_stays_ignored_and_in_the_end_all_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    default = signal.getsignal(signal.SIGINT)
    with interruptible("a command"):
        assert signal.getsignal(signal.SIGINT) is not default
    assert signal.getsignal(signal.SIGINT) is default
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with interruptible("a command"):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, default)


def test_elsewhere_than_in_the_main_thread_nothing_changes() -> None:
    seen = list[object]()

    def work() -> None:
        with interruptible("a command"):
            seen.append(signal.getsignal(signal.SIGINT))

    (thread := threading.Thread(target=work)).start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize(
    ("work", "said"),
    [
        ("main(['--version'])", ""),
        (
            "main(['train', 'a.toml'])",
            "secagg: nobody reads what is printed. To go on:\nsecagg train a.toml --out runs/a\n",
        ),
    ],
)
def test_a_reader_who_goes_away_gets_no_traceback(work: str, said: str, tmp_path: Path) -> None:
    """Like ``head``."""
    (tmp_path / "a.toml").touch()
    text = f"import sys; sys.argv[0] = 'secagg'; from secagg.cli import main; sys.exit({work})"
    reading, writing = os.pipe()
    os.close(reading)
    (tmp_path / "secagg").touch(0o755)
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": str(tmp_path)}
    with open(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-P", "-c", text],
            cwd=tmp_path,
            env=environment,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, said)


def test_the_command_is_the_same_call_with_its_directory() -> None:
    settings = ["model.settings={width = 2}", "title=a b"]
    command = again(["train", "'my file.toml'"], settings, Path("-x y"), keep_secrets=True, as_json=True)
    words = shlex.split(command)
    changes = [word for setting in settings for word in ("--set", setting)]
    assert words[words.index("train") :] == [
        "train", "my file.toml", *changes, "--out", "./-x y", "--keep-secrets", "--json"
    ]  # fmt: skip
    assert "\n" not in command


@pytest.mark.long
@pytest.mark.parametrize("moment", ["making up", "loading what trains", "ItemPop", "round 0", "round 1"])
def test_a_demo_that_is_interrupted_goes_on_by_its_last_line(moment: str, tmp_path: Path) -> None:
    changes = ("data.users=400", "data.item_count=300", "training.rounds=3")
    words = [word for change in changes for word in ("--set", change)]
    called = [sys.executable, "-m", "secagg", "demo", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "state")}
    with subprocess.Popen(
        called, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        next(line for line in process.stdout if line.startswith(moment))
        process.send_signal(signal.SIGINT)
        more, said = process.stdout.read(), process.stderr.read()
    assert process.returncode == INTERRUPTED
    assert "verdict" not in more
    assert said.startswith("\nsecagg: interrupted. To go on:\n")
    assert said.count("\n") == 3
    done = subprocess.run(
        said.splitlines()[-1], shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [sum(line.startswith(f"round {number} ") for line in lines) for number in range(4)] == [1, 1, 1, 0]
    assert any(line.startswith("verdict: ") for line in lines)
    assert os.listdir(tmp_path / "runs") == ["demo-silos-1"]
