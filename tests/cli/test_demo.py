"""``secagg demo``: the main job, in small by default and as it is in the long tests."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dp.events import Holder
from recsys.assembly import prepare
from recsys.config import ClientKind, Config, Mode
from recsys.run_record import Run
from recsys.secure_aggregator import SecureAggregator
from recsys.users_in_silos import UsersInSilos
from secagg import cli
from secagg.cli.demo import CONFIGS, SECOND

SMALL = {
    ClientKind.SILOS: (
        "data.users=60",
        "data.item_count=150",
        "clients.count=6",
        "training.rounds=2",
        "network.dropout=0",
    ),
    ClientKind.DEVICES: ("data.users=60", "data.item_count=150"),
}

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def demo(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)

    def call(clients: ClientKind, *words: str, small: bool = True) -> tuple[int, str, str]:
        changes = [word for change in (SMALL[clients] if small else ()) for word in ("--set", change)]
        code = cli.main(["demo", "--clients", clients, *changes, *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_the_demo_of_silos_is_the_one_that_is_promised() -> None:
    """20 silos of 200 users, DP-SGD of which each step is one sum with noise in it; clients may drop out."""
    config = Config.parse(deepcopy(CONFIGS[ClientKind.SILOS]))
    assert (config.clients.kind, config.clients.count, config.privacy.mode) == (ClientKind.SILOS, 20, Mode.DISTRIBUTED)
    assert (config.protocol.name, config.training.epochs, config.training.rate) == ("secagg+", 1, 1.0)
    assert config.network.dropout > 0
    prepared = prepare(config)
    assert prepared.silos == UsersInSilos(users=4000, most=200)
    assert prepared.in_rounds
    assert prepared.distributed is not None
    assert prepared.distributed.guarantee.holder is Holder.SILO
    assert prepared.distributed.found.encoding.users == 200


def test_the_demo_of_devices_is_the_one_that_is_promised() -> None:
    config = Config.parse(CONFIGS[ClientKind.DEVICES])
    assert (config.clients.kind, config.privacy.mode) == (ClientKind.DEVICES, Mode.DISTRIBUTED)
    assert config.data.users >= 2000
    assert config.network.dropout > 0


def test_the_second_run_is_over_the_same_silos_with_one_noise_for_all() -> None:
    first, config = Config.parse(deepcopy(CONFIGS[ClientKind.SILOS])), Config.parse(deepcopy(SECOND))
    assert (config.data, config.clients, config.seed) == (first.data, first.clients, first.seed)
    assert (config.model.name, config.privacy.mode, config.privacy.epsilon) == ("private-ease", Mode.DISTRIBUTED, 8.0)
    prepared = prepare(config)
    assert prepared.silos == UsersInSilos(users=4000, most=200)
    assert prepared.distributed is not None
    assert prepared.distributed.guarantee.holder is Holder.SILO
    assert prepared.distributed.budget.delta == Fraction(1, 100 * 4000)


@pytest.mark.parametrize("clients", ClientKind)
def test_programs_are_told_the_figures(clients: ClientKind, demo: Call) -> None:
    code, out, error = demo(clients, "--json")
    assert (code, error, out.count("\n")) == (0, "", 1)
    answer = json.loads(out)
    assert answer["run_dir"] == f"runs/demo-{clients}-1"
    assert answer["ended"] == "all rounds are done"
    assert 0 < answer["epsilon"] <= 8
    names = ["ItemPop", "ItemKNN", "EASE", "tuned EASE", "this recipe without noise"]
    in_one_place = ["trained in one place"] if clients is ClientKind.SILOS else []
    assert list(answer["results"]) == [*names, *in_one_place, "this run"]
    assert all(0 <= value <= 1 for metrics in answer["results"].values() for value in metrics.values())
    assert Path(answer["report"]).read_text().startswith("<!doctype html>")
    assert Run.load(Path(answer["run_dir"])).ended == answer["ended"]
    assert ("second_run" in answer) == ("price" in answer) == (clients is ClientKind.SILOS)
    if clients is ClientKind.SILOS:
        second = answer["second_run"]
        assert second["run_dir"] == "runs/demo-silos-1-private-ease"
        assert list(second["results"]) == [*names, "this run"]
        assert second["results"]["ItemPop"] == answer["results"]["ItemPop"]
        assert 0 < second["epsilon"] <= 8
        assert second["budgets"][0]["holder"] == "silo"


def test_each_demo_is_a_new_run(demo: Call) -> None:
    for number in (1, 2):
        Path(f"runs/demo-silos-{number}").mkdir(parents=True)
    assert json.loads(demo(ClientKind.SILOS, "--json")[1])["run_dir"] == "runs/demo-silos-3"


def test_people_see_rounds_outcome_and_a_command_to_copy(demo: Call) -> None:
    code, out, error = demo(ClientKind.SILOS, "--out", "over here")
    assert (code, error) == (0, "")
    lines = out.splitlines()
    assert any(line.startswith("round 0 ") for line in lines)
    commands = [line for line in lines if " ledger verify " in line]  # each on one line, however wide
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)
        assert (len(words[-7:]), cli.main(words[-7:])) == (7, 0)
    table = lines[lines.index("the runs beside each other") :]
    assert [line.split("  ")[0] for line in table[2:10]] == [
        "ItemPop",
        "ItemKNN",
        "EASE",
        "tuned EASE",
        "autoencoder, this recipe without noise",
        "autoencoder, trained in one place",
        "autoencoder, distributed noise",
        "private-ease, distributed noise",
    ]
    quality = dict(re.split(r"  +", line)[:3:2] for line in table[2:10])
    said = " ".join(" ".join(table[10:]).split())
    price = said[said.index("what privacy cost: ") :]
    named = ("ItemPop", "autoencoder, this", "autoencoder, distributed", "private-ease")
    assert all(value in price for name, value in quality.items() if name.startswith(named))
    spent = [float(line.split()[-1]) for line in table[8:10]]
    together = re.search(r"each with a budget of its own: who is in both has spent up to epsilon ([0-9.]+) at", said)
    assert together is not None
    assert float(together[1]) == pytest.approx(sum(spent), abs=0.02)
    names = ("ItemPop", "this recipe without noise", "trained in one place", "this run")
    for word in (*names, "report: over here/report.html", " ledger verify 'over here/ledger.db'"):
        assert word in out


def test_the_same_call_goes_on_with_both_runs(demo: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the second, it goes on there; and when both are over, nothing is left to do."""

    def killed(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SecureAggregator, "aggregate", stopping_at(2, SecureAggregator.aggregate, killed))
        code, _, error = demo(ClientKind.SILOS, "--out", "run")
    assert (code, error) == (130, "")
    assert Run.load(Path("run")).ended
    assert not Run.load(Path("run-private-ease")).ended
    answers = [json.loads(demo(ClientKind.SILOS, "--out", "run", "--json")[1]) for _ in range(2)]
    assert [answer["nothing_left_to_do"] for answer in answers] == [False, True]
    assert [answer["second_run"]["ended"] for answer in answers] == ["all rounds are done"] * 2
    assert answers[0]["results"] == answers[1]["results"]


def stopping_at(number: int, method: Callable[..., Any], stop: Callable[..., Any]) -> Callable[..., Any]:
    """Does as the method does so many times, and then stops."""
    times = count()

    def counted(*arguments: Any, **more: Any) -> Any:
        return (method if next(times) < number else stop)(*arguments, **more)

    return counted


@pytest.mark.thinned(4)
@pytest.mark.parametrize("name", ["secagg", "oneshot", "ckks", "threshold_ckks"])
def test_any_protocol_makes_both_runs(name: str, demo: Call) -> None:
    code, out, _ = demo(ClientKind.SILOS, "--protocol", name, "--set", "evaluation.exact=false", "--json")
    assert code == 0
    for folder in (json.loads(out)["run_dir"], json.loads(out)["second_run"]["run_dir"]):
        agreed = Run.load(Path(folder)).protocol
        assert (agreed["name"], agreed["adversary"]) == (name, "curious" if "ckks" in name else "active")


@pytest.mark.thinned(3)
@pytest.mark.parametrize("change", ["model.settings.width=4", "privacy.mode=none", "evaluation.exact=false"])
def test_whoever_asks_for_another_first_run_gets_no_second(change: str, demo: Call) -> None:
    code, out, _ = demo(ClientKind.SILOS, "--set", change, "--json")
    assert (code, "second_run" in json.loads(out)) == (0, change == "evaluation.exact=false")


def test_what_the_second_run_cannot_do_is_refused_before_the_first(demo: Call) -> None:
    code, out, error = demo(ClientKind.SILOS, "--set", "clients.most=5", "--json")
    assert (code, out) == (2, "")
    assert "has more than 5 users" in error
    assert not Path("runs").exists()
    Path("run-private-ease").mkdir()
    Path("run-private-ease/letter").touch()
    code, out, error = demo(ClientKind.SILOS, "--out", "run", "--json")
    assert (code, out) == (2, "")
    assert "run-private-ease is not empty, and holds no run" in error
    assert not Path("run").exists()


def test_the_title_follows_the_settings(demo: Call) -> None:
    changes = ("privacy.mode=none", "protocol.name=secagg", "data.users=50", "evaluation.exact=false")
    words = [word for change in changes for word in ("--set", change)]
    title = demo(ClientKind.SILOS, *words, "--out", "a")[1].splitlines()[0]
    assert title == "50 made-up users in 6 silos, autoencoder, no noise, secagg"
    assert Run.load(Path("a")).title == title
    mine = demo(ClientKind.SILOS, *words, "--set", "title=mine", "--out", "b")[1].splitlines()
    assert mine[:2] == ["mine", title]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--clients", "many"], "many"),
        (["--loud"], "--loud"),
        (["--protocol", "secag"], "secag"),
        (["--set", "training.runds=3"], "unknown key training.runds"),
        (["--set", "training"], "section.key=value"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", *words]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert reason in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("clients", ClientKind)
def test_the_demo_as_it_is(clients: ClientKind, demo: Call) -> None:
    """Private, with clients lost on the way, and still better than guessing."""
    code, out, error = demo(clients, "--json", small=False)
    assert (code, error) == (0, "")
    answer = json.loads(out)
    run = Run.load(Path(answer["run_dir"]))
    assert run.ended == "all rounds are done"
    assert 7 < answer["epsilon"] <= 8
    assert any(one.survivors < one.planned for one in run.rounds)
    assert answer["results"]["this run"]["HR@10"] > 2 * 10 / 1000
    if clients is ClientKind.SILOS:
        second = answer["second_run"]["results"]
        assert second["this run"]["NDCG@10"] > second["ItemPop"]["NDCG@10"] + 0.015
