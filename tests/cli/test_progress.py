"""What is printed while a run goes on: whole lines, each at once, in 80 columns, and nothing painted over."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.report import Account
from recsys.run_record import Run
from secagg.cli import progress
from secagg.cli.output import as_argument, emit, program, say
from secagg.cli.progress import COLUMNS, Progress, outcome
from tests.scenes.runs import MODES, make


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return replace(make(tmp_path, "distributed", rounds=3), ended="")


def growing(run: Run) -> Iterator[Run]:
    """The record as a run saves it: first the references, then round after round."""
    references = run.results[:-1]
    yield replace(run, results=(), rounds=())
    yield from (replace(run, results=references[: count + 1], rounds=()) for count in range(len(references)))
    yield from (replace(run, results=references, rounds=run.rounds[: count + 1]) for count in range(len(run.rounds)))
    yield replace(run, ended="all rounds are done")


@contextmanager
def stdout_into(writing: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output, which Python buffers as it always does, and closes in the end."""
    with open(writing, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        yield


def through_a_pipe(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has come out of it after each growth of the record."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        with stdout_into(writing, monkeypatch):
            news, seen = Progress(exact=True).watch, list[str]()
            for record in growing(run):
                news(record)
                try:
                    seen.append(os.read(reading, 1 << 16).decode())
                except BlockingIOError:
                    seen.append("")
            return seen
    finally:
        os.close(reading)


def all_of(terminal: int) -> str:
    """What is shown on a terminal until the program closes it."""
    shown = b""
    try:
        while more := os.read(terminal, 1 << 16):
            shown += more
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(terminal)
    return shown.decode()


def test_a_pipe_gets_each_line_when_it_is_known(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = through_a_pipe(run, monkeypatch)
    assert [[line.split("  ")[0] for line in lines.splitlines()] for lines in seen] == [
        [],
        ["", "ItemPop"],
        ["without privacy"],
        ["round 0"],
        ["round 1"],
        ["round 2"],
        [],
    ]
    assert all(lines.endswith("\n") for lines in seen if lines)


def test_without_flushing_it_would_get_nothing_before_the_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    monkeypatch.setattr(progress, "say", print)
    assert through_a_pipe(run, monkeypatch) == [""] * 7


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("mode", MODES)
def test_a_terminal_gets_the_same_lines_and_no_other_bytes(
    mode: str, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each round, whatever its width, and nothing that moves the cursor."""
    whole = make(tmp_path, mode)
    account = Account.load(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal, program_side = os.openpty()
    with ThreadPoolExecutor(1) as threads:
        shown = threads.submit(all_of, terminal)
        with stdout_into(program_side, monkeypatch):
            assert sys.stdout.isatty()
            news = Progress(exact=True).watch
            for record in growing(replace(whole, ended="")):
                news(record)
            say("THE END")
            emit(False, {}, outcome(account, tmp_path, tmp_path / "report.html"))
    lines, ending = (part.split("\r\n") for part in shown.result().split("THE END\r\n"))
    assert len(lines) == 1 + 2 + 12 + 1  # the columns' names, two references, twelve rounds, nothing
    assert max(map(len, lines)) <= 80
    assert all(one.isprintable() for one in [*lines, *ending])
    long = [line for line in ending if len(line) > columns]
    assert [" ledger verify " in line for line in long] == [True] * len(account.spent)


def test_columns_hold_what_the_record_has(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    first = run.rounds[0]
    wide = replace(first, number=9999, survivors=2000, planned=2000, bytes_up=999_400_000)
    given_up = replace(first, number=3, survivors=0, purpose="training, given up: too few", epsilon=None)
    pairs = replace(first, purpose="item pairs", exact={}, measured={})
    Progress(exact=True).watch(replace(run, results=(), rounds=(wide, given_up, pairs)))
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == [*COLUMNS]
    assert lines[0].split() == [
        "round",
        "9999",
        "2000/2000",
        "0.0216",
        "0.0101",
        f"{first.epsilon:.3f}",
        "999",
        "MB",
        "6.2",
        "s",
    ]
    assert lines[1] == "round 3: training, given up: too few"
    assert lines[2].startswith("sum 0: item pairs  ")
    assert len(header) == len(lines[0]) == len(lines[2]) <= 80
    Progress(exact=False).watch(replace(run, results=(), rounds=(first,)))
    measured = capsys.readouterr().out.splitlines()[1].split()
    assert measured[3:5] == [f"{first.measured[name]:.4f}" for name in ("HR@10", "NDCG@10")]


def test_of_many_rounds_those_have_a_line_in_which_something_was_measured(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = replace(run.rounds[0], number=5, exact={}, measured={})
    failed = replace(quiet, number=6, survivors=0, purpose="training, given up: too few")
    rounds = (run.rounds[0], quiet, failed, replace(quiet, number=7, measured={"NDCG@10": 0.5}))
    for how, numbers in (
        ({"exact": True}, [0, 6]),
        ({"exact": False, "measured": True}, [0, 6, 7]),
        ({"exact": False}, [0, 5, 6, 7]),
    ):
        Progress(**how).watch(replace(run, results=(), rounds=rounds))
        lines = capsys.readouterr().out.splitlines()[1:]
        assert [int(line.split()[1].rstrip(":")) for line in lines] == numbers


def test_who_waits_is_told_what_is_being_done_but_not_often(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = Progress(exact=True, clock=lambda: now)
    told = list[float]()
    for tick in range(40):
        now = tick / 2
        if now == 7:
            progress.watch(replace(run, results=(), rounds=run.rounds[:1]))
            assert len(capsys.readouterr().out.splitlines()) == 2
        progress.tell("round 1 of 2")
        if (said := capsys.readouterr().out) == "  ... round 1 of 2\n":
            told.append(now)
        else:
            assert said == ""
    assert told == [5, 12, 17]


@pytest.mark.parametrize(
    ("called", "known", "expected"),
    [
        ("/a/bin/secagg", True, "secagg"),
        (".venv/bin/secagg", False, ".venv/bin/secagg"),
        ("/my venv/bin/secagg", False, "'/my venv/bin/secagg'"),
        ("/a/secagg/__main__.py", True, f"{shlex.quote(sys.executable)} -m secagg"),
    ],
)
def test_a_command_to_copy_begins_with_what_works(
    called: str, known: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script := tmp_path / "secagg").touch(0o755 if known else 0o644)
    monkeypatch.setenv("PATH", str(script.parent))
    monkeypatch.setattr(sys, "argv", [called, "demo"])
    assert program() == expected


def test_a_path_in_a_command_is_one_word_and_no_option() -> None:
    assert as_argument(Path("runs/a b/ledger.db")) == "'runs/a b/ledger.db'"
    assert as_argument(Path("-x/ledger.db")) == "./-x/ledger.db"


def test_what_is_counted_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 1.0, 6.0, 6.0, 7.0])
    with progress.counted("vectors", shown=True, clock=lambda: next(times)) as watch:
        watch(64, 200)
        watch(128, 200)
        watch(200, 200)
    assert capsys.readouterr() == ("  ... vectors: 128 of 200\n", "")
    with progress.counted("vectors", shown=False) as watch:
        watch(200, 200)
    assert capsys.readouterr() == ("", "")


def test_and_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress.counted("vectors", shown=True) as watch:
        watch(50, 200)
    out, error = capsys.readouterr()
    assert out == ""
    assert "vectors" in error
    assert "25%" in error
    with progress.counted("vectors", shown=False) as watch:
        watch(50, 200)
    assert capsys.readouterr() == ("", "")
