"""What a stranger wrote is shown by a terminal, and not obeyed."""

import ast
import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from dp import verify_ledger
from dp.events import Guarantee, Relation, Trust, Unit
from dp.ledger import Budget, Ledger
from recsys.report import Account
from recsys.run_record import Run
from secagg.cli import main
from secagg.cli.output import Visible, emit, facts, terminal
from secagg.cli.progress import Progress, outcome
from secagg.errors import PeerError, UsageError
from tests.scenes.runs import KEY, make

CLI = Path(__file__).resolve().parents[2] / "secagg" / "cli"
PAINT = "fine\x1b[3A\x1b[2Kverdict  verified\x1b[3B\r\u202e\u2028\x9b2K\x85\ud800"
"""Three lines up it writes another verdict over the one that is there."""
ELSEWHERE = PAINT[:-1]  # a ledger holds no half of a pair

FORBIDDEN = "\x1b\r\x9b\x85\u2028\u202e\ud800"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Of somebody who names it so that it is believed."""
    guarantee = Guarantee(Unit.USER, Relation.ZERO_OUT, Trust.DISTRIBUTED)
    budget, path = Budget(Fraction(8), Fraction(1, 10**6), Fraction(1, 10**8)), tmp_path / "ledger.db"
    Ledger.create(path, KEY, budget, guarantee, run=ELSEWHERE, elsewhere=ELSEWHERE).close()
    return path


COMMANDS = [["verify"], ["verify", "--json"], ["show"], ["show", "--json"], ["export"], ["export", "--json"]]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_name_of_a_run_paints_no_other_verdict(
    words: list[str], ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", words[0], str(ledger), *words[1:]]) == (5 if words[0] == "verify" else 0)
    shown = capsys.readouterr().out
    assert not set(shown) & set(FORBIDDEN)
    assert "\\u001b[3A" in "".join(shown.split())
    if words == ["verify"]:
        assert shown.split()[:3] == ["verdict", "internally", "consistent"]


def test_without_that_it_does(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr("secagg.cli.output.printable", lambda text: text)
    monkeypatch.setattr("dp.verify_ledger.visible", lambda text: text)
    main(["ledger", "verify", str(ledger)])
    assert "\x1b[3A\x1b[2Kverdict  verified" in capsys.readouterr().out


def test_the_small_verifier_paints_nothing_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path := tmp_path / "export.jsonl").write_text(json.dumps({"body": {PAINT: 1}, "signature": ""}) + "\n")
    for line in (json.dumps({PAINT: 1}), f'"{PAINT[:4]}"', '{"a": 1' + "\x7f" + "}"):
        path.write_text(line + "\n")
        assert verify_ledger.main([str(path)]) == 4
        shown = capsys.readouterr().out
        assert all(" " <= one <= "~" or one == "\n" for one in shown)
        assert shown.count("\n") == len(shown.splitlines())


def test_what_a_run_says_of_itself_in_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where it is somebody else's run that is asked to go on, and has ended."""
    run = make(tmp_path, "none")
    odd = replace(run.results[-1], name=f"[bold]{PAINT}", metrics={f"[/x]{PAINT}": 1.0})
    said = replace(run, title=f"[/nothing]{PAINT}", ended=PAINT, outside=(PAINT,), others=PAINT, results=(odd,))
    account = replace(Account.load(tmp_path), run=said)
    news = Progress(exact=True).watch
    painted = replace(run.rounds[0], survivors=0, purpose=PAINT)
    news(replace(said, ended="", rounds=(painted, replace(painted, survivors=1))))
    emit(False, {}, outcome(account, tmp_path, tmp_path / PAINT))
    shown = capsys.readouterr().out
    assert not set(shown) & set(FORBIDDEN)
    assert "[bold]fine" in shown  # no markup
    assert [text for text in shown.splitlines() if text.startswith("verdict")][:-1] == []  # but its own


@pytest.mark.parametrize("path", [f"no {PAINT[:-1]}\udcff", "zero\\x00", "a\nb"])
def test_errors_are_one_visible_line(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", path]) != 0
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert not set(shown) & set(FORBIDDEN)


def test_errors_can_be_shown_wherever_they_come_up() -> None:
    """In a runtime's log, or in a traceback."""
    assert str(UsageError(PAINT)).isprintable()
    assert str(PeerError(PAINT, culprits=[PAINT])).isprintable()


def test_tables_stay_tables(capsys: pytest.CaptureFixture[str]) -> None:
    emit(False, {}, facts({"a": "x\ny", "long_name": "[red]z"}))
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert shown == ["a          x\\u000ay", "long name  [red]z"]
    terminal(aside=True).print(Visible("one\ntwo"))
    assert capsys.readouterr().err == "one\ntwo\n"


# Nobody prints but ``secagg.cli.output``.

OUTPUT = {"print", "Console", "add_row", "Text", "echo", "secho"}


def bare(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in OUTPUT:
                yield f"{node.lineno} {name}"
        elif isinstance(node, ast.Name) and node.id == "print":
            yield f"{node.lineno} print"
        elif isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr"):
            yield f"{node.lineno} {node.attr}"


def test_all_that_is_printed_goes_through_one_place() -> None:
    files = [path for path in CLI.glob("*.py") if path.name != "output.py"]
    found = {f"{path.name}:{place}" for path in files for place in bare(path.read_text())}
    assert {place.split(":")[0] for place in found} <= {"__init__.py"}  # it sets how stdout encodes
    assert all(place.endswith("stdout") for place in found)


@pytest.mark.parametrize("package", ["dp", "protocols", "recsys", "benchmarks", "secagg"])
def test_libraries_print_nothing(package: str) -> None:
    root = CLI.parents[1] / package
    found = [
        f"{path}:{place}"
        for path in root.rglob("*.py")
        if CLI not in path.parents
        if "print" in (source := path.read_text())
        for place in bare(source)
        if place.endswith(" print")
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    ["print(1)", "tell = print", "Console().print(x)", "table.add_row(a)", "sys.stderr.write(a)", "typer.echo(a)"],
)
def test_a_bare_print_is_found(source: str) -> None:
    assert list(bare(source))


def test_a_record_is_not_believed_to_be_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder's own name can come from a tar, too."""
    (folder := tmp_path / ELSEWHERE.replace("/", "")).mkdir()
    Run("a", config={}, data={}, protocol={"name": "secagg+"}, mode="none", measured_under="x", ended="y").save(
        folder, KEY
    )
    assert main(["report", str(folder)]) == 0
    assert main(["export", str(folder), "--out", str(tmp_path / "a.tar")]) == 2
    shown = capsys.readouterr()
    assert not set(shown.out + shown.err) & set(FORBIDDEN)
