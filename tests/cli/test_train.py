"""``secagg train``: what programs and people are told, that it goes on, and that it refuses in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys import assembly
from recsys.assembly import Prepared
from recsys.config import Config
from recsys.report import Account
from recsys.run_record import Run, signed
from recsys.verdict import verdict
from secagg import cli
from secagg.cli.progress import COLUMNS
from tests.scenes.encoders import encoder
from tests.scenes.examples import EXAMPLES
from tests.scenes.whole_runs import key_of

CONFIG = """
[data]
users = 60
item_count = 150
[clients]
count = 6
[model]
settings = {width = 2, recent = 10}
[training]
rounds = 2
[privacy]
mode = "distributed"
[protocol]
workers = 1
"""

TIGHT = ("--set", "privacy.mode=local", "--set", "privacy.delta=0.01")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """In an empty directory with a small configuration in it."""
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(CONFIG)

    def call(*words: str) -> tuple[int, str, str]:
        code = cli.main(["train", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_programs_are_told_the_figures(train: Call) -> None:
    code, out, error = train("small.toml", "--set", "protocol.name=secagg", "--json")
    assert (code, error, out.count("\n")) == (0, "", 1)
    answer = json.loads(out)
    run = Run.load(Path("runs/small"))
    assert {"run_dir", "report", "rounds", "ended", "epsilon", "epsilon_outsiders", "budgets", "results"} <= set(answer)
    assert (answer["run_dir"], answer["report"]) == ("runs/small", "runs/small/report.html")
    assert (answer["rounds"], answer["ended"]) == (2, "all rounds are done")
    assert answer["epsilon"] == run.rounds[-1].epsilon
    assert answer["verdict"] == verdict(Account.load(Path("runs/small")))
    (budget,) = answer["budgets"]
    assert (budget["ledger"], budget["budget"], len(budget["head"])) == ("ledger.db", 8.0, 64)
    names = [
        "ItemPop",
        "ItemKNN",
        "EASE",
        "tuned EASE",
        "this recipe without noise",
        "trained in one place",
        "this run",
    ]
    assert list(answer["results"]) == names
    assert run.config["protocol"]["name"] == "secagg"
    assert Path("runs/small/report.html").read_text().startswith("<!doctype html>")


def test_people_see_a_line_for_each_round_and_the_outcome(train: Call) -> None:
    code, out, error = train("small.toml", "--set", f"title={'mine ' * 20}too", "--out", "there")
    assert (code, error) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == [
        " ".join(["mine"] * 16),
        "mine mine mine mine too",
        "60 made-up users in 6 silos, autoencoder, distributed noise, epsilon 8, secagg+",
    ]
    (header,) = (line for line in lines if line.split() == [*COLUMNS])
    for number in range(2):
        (line,) = (line for line in lines if line.startswith(f"round {number} "))
        assert line.split()[2] == "6/6"
        assert len(line) == len(header)
    for name in ("ItemPop", "this recipe without noise"):
        before, after = (line for line in lines if line.startswith(name))
        assert before.split()[-2:] == after.split()[-2:]
    for line in ("why it ended: all rounds are done", "report: there/report.html"):
        assert line in lines
    assert any("-private for each user" in line for line in lines)
    assert not any("client-" in line for line in lines)  # nothing about one of them
    said = " ".join(out.split())
    assert "the run has cost each user epsilon " in said[said.rindex("verdict: ") :]


def test_what_takes_long_is_announced_before(train: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """When torch is imported, and data are read, a line has said so."""
    said, real = list[str](), assembly.prepare
    monkeypatch.setattr("secagg.cli.train.say", said.append)

    def prepare(config: Config) -> Prepared:
        told = [line.split()[0] for line in said if line[0] != " "]
        assert told == ["a", "60", "making", "loading"]
        return real(config)

    monkeypatch.setattr(assembly, "prepare", prepare)
    assert train("small.toml", "--set", "training.rounds=1")[0] == 0


def test_with_json_nothing_else_is_printed_and_what_is_wrong_is_one_line(train: Call) -> None:
    wrong = ("small.toml", "--set", "model.settings.depth=3")
    code, out, error = train(*wrong)
    assert (code, error.count("\n")) == (2, 1)
    assert out.splitlines()[-1].startswith("loading what trains")
    assert train(*wrong, "--json") == (2, "", error)


def test_the_ledger_of_a_run_can_be_verified_with_what_lies_beside_it(
    train: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    train("small.toml")
    assert cli.main(["ledger", "verify", "runs/small", "--json"]) == 5
    found = json.loads(capsys.readouterr().out)
    pinned = ["--key", "runs/small/ledger.pub", "--head", found["head"]]
    assert cli.main(["ledger", "verify", "runs/small", *pinned, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "verified, under a key from the ledger's own folder"
    assert answer["epsilon"] == Run.load(Path("runs/small")).rounds[-1].epsilon


def test_the_same_call_again_changes_nothing(train: Call) -> None:
    code, first, _ = train("small.toml", "--json")
    before = contents()
    again = json.loads(train("small.toml", "--json")[1])
    assert (code, again) == (0, json.loads(first) | {"nothing_left_to_do": True})
    said = train("small.toml")[1]
    assert "nothing is trained: this run has ended before" in said.splitlines()
    assert "\nround " not in said
    assert "\nverdict: for " in said
    assert contents() == before
    assert sorted(before) == [
        "config.json",
        "inputs",
        "ledger.db",
        "ledger.pub",
        "model.safetensors",
        "name",
        "report.html",
        "run.json",
    ]
    model = Path("runs/small/model.safetensors")
    model.write_bytes(model.read_bytes()[:-1] + b"\x01")
    code, out, error = train("small.toml", "--json")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "model.safetensors was altered" in error


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("runs/small").rglob("*") if path.is_file()}


def test_another_configuration_does_not_go_on_with_it(train: Call) -> None:
    train("small.toml", "--json")
    before = contents()
    code, out, error = train("small.toml", "--set", "seed=1")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "another configuration" in error
    assert contents() == before


WRONG = [
    (["nowhere.toml"], 2, "cannot read nowhere.toml: No such file"),
    ([], 2, "CONFIG"),
    (["small.toml", "--loud"], 2, "--loud"),
    (["small.toml", "--set", "training.runds=3"], 2, "unknown key training.runds"),
    (["small.toml", "--set", "rounds=3"], 2, "unknown key rounds"),
    (["small.toml", "--set", "training.rounds"], 2, "is not section.key=value"),
    (["small.toml", "--set", "training.rounds=many"], 2, "training.rounds is int, not 'many'"),
    (["small.toml", "--set", "model.settings.depth=3"], 2, "depth"),
    (["small.toml", "--set", "model.name=magic"], 2, "unknown model"),
    (["small.toml", "--set", "protocol.name=plaintext"], 2, "unknown protocol"),
    (["small.toml", "--set", "data.source=movielens", "--set", "data.path=nowhere"], 2, "nowhere is not a folder"),
    (["small.toml", "--set", "privacy.epsilon=501"], 2, "at most 500"),
    (["small.toml", "--set", "privacy.epsilon=inf"], 2, "privacy.epsilon is a finite number"),
    (["small.toml", "--set", "privacy.delta=1e-300"], 2, "delta less its slack is at least 1e-100"),
    (["small.toml", *TIGHT, "--set", "privacy.epsilon=1e-4"], 3, "the budget allows 0.0001"),
    (["small.toml", "--set", "protocol.dropout=0.6"], 2, "infeasible"),
    (["small.toml", "--set", "training.server_rate=0"], 2, "above zero"),
    (["small.toml", "--set", "seed=-1"], 2, "seeds are"),
    (["small.toml", "--out", "small.toml"], 2, "cannot use small.toml"),
]


@pytest.mark.thinned(4)
@pytest.mark.parametrize(("words", "expected", "reason"), WRONG)
def test_wrong_use_is_one_line_and_leaves_nothing(words: list[str], expected: int, reason: str, train: Call) -> None:
    code, out, error = train(*words, "--json")
    assert (code, out, error.count("\n")) == (expected, "", 1)
    assert reason in error
    assert os.listdir() == ["small.toml"]


def test_where_nothing_can_be_written_is_said_at_once(train: Call) -> None:
    Path("locked").mkdir(0o500)
    if os.access("locked", os.W_OK):
        pytest.skip("NOT TESTED: root may write anywhere")
    code, out, error = train("small.toml", "--out", "locked/a/b")
    assert (code, out) == (2, "")
    assert error.startswith("secagg: cannot use locked/a/b: ")
    assert error.endswith("/locked is not to be written to\n")


def test_a_damaged_checkpoint_is_one_line(train: Call) -> None:
    train("small.toml", "--json", "--keep-secrets")
    folder = Path("runs/small")
    record = json.loads((folder / "run.json").read_bytes())
    changed = record | {"ended": "", "results": record["results"][:2]}
    (folder / "run.json").write_bytes(signed(changed, key_of(folder)))
    (folder / "private" / "checkpoint.safetensors").write_bytes(b"PK\x03\x04")
    code, out, error = train("small.toml", "--json")
    assert (code, out, error) == (2, "", "secagg: this is no checkpoint of this run, or it was altered\n")


def made_up(folder: Path) -> Path:
    """A folder like MovieLens latest-small, with 610 users of whom each has seen 20 of 200 films."""
    rng = np.random.default_rng(5)
    lines = [
        f"{user},{film},{rng.integers(1, 11) / 2},{1_000_000 + 100 * user + at}"
        for user in range(1, 611)
        for at, film in enumerate(rng.permutation(200)[:20] + 1)
    ]
    folder.mkdir()
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(lines) + "\n")
    titles = [f"{film},Film {film} (1999),Drama" for film in range(1, 201)]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "\n".join(titles) + "\n")
    return folder


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(one, id=one.stem, marks=[] if one.stem == "movielens-local" else pytest.mark.long)
        for one in EXAMPLES
    ],
)
def test_the_examples_run(path: Path, train: Call) -> None:
    """On the data that they are made for, if SECAGG_MOVIELENS names their folder, or on as many made-up users."""
    folder = os.environ.get("SECAGG_MOVIELENS") or str(made_up(Path("ml").absolute()))
    changes = [f"data.path={folder}", "training.rounds=1"]
    if Config.load(path).model.encoder:
        pytest.importorskip("transformers", reason="NOT TESTED: text encoders need transformers, 'secagg[large]'")
        changes.append(f"model.encoder={encoder(Path('encoder'))}")
    code, out, error = train(str(path), *(word for change in changes for word in ("--set", change)), "--json")
    assert (code, error) == (0, "")
    assert json.loads(out)["ended"] == "all rounds are done"
