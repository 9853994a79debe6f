"""``secagg params``: the check points of the formula, and one line with exit code 2 for every wrong use."""

import json
import subprocess
import sys
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols.client import Client
from protocols.journal import ForgetfulJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from recsys.config import Config
from secagg import cli
from secagg.crypto.prg import Prg
from secagg.encoding import Encoding
from secagg.errors import BudgetError, DecodeError, PeerError, PolicyError, SecAggError, ThresholdError, UsageError

SCRIPT = Path(sys.executable).with_name("secagg")


def words(clients: object, dropout: object, corrupt: object, adversary: str, *more: str) -> list[str]:
    return [
        "params", "--clients", str(clients), "--dropout", str(dropout), "--corrupt", str(corrupt),
        "--adversary", adversary, *more,
    ]  # fmt: skip


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("clients", "fraction", "adversary", "formula", "used"),
    [
        (1000, "0.05", "curious", (30, 17), (30, 18)),
        (1000, "0.1", "active", (96, 67), (140, 104)),
        (1000, "1/10", "active", (96, 67), (140, 104)),
        (1000, "0.05", "active", None, (76, 58)),
        (10_000, "0.1", "active", None, (190, 141)),
        (100_000, "0.05", "curious", (36, 21), (36, 21)),
    ],
)
def test_check_points(
    capsys: pytest.CaptureFixture[str],
    clients: int,
    fraction: str,
    adversary: str,
    formula: tuple[int, int] | None,
    used: tuple[int, int],
) -> None:
    assert cli.main(words(clients, fraction, fraction, adversary, "--json")) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert formula is None or (answer["degree"], answer["threshold"]) == formula
    assert (answer["round"]["degree"], answer["round"]["threshold"]) == used
    assert answer["graph"] == answer["round"]["graph"] == "ring"
    assert (answer["security"], answer["round"]["security"]) == (40, 120 if adversary == "active" else 40)


def test_a_small_cohort_gets_the_complete_graph(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(3, 0.2, 0.1, "active", "--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["graph"], answer["degree"], answer["threshold"]) == ("complete", 2, 2)


def test_the_committee_of_the_one_shot_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    asked = words(1000, 0.1, 0.1, "active", "--protocol", "oneshot")
    assert cli.main([*asked, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = {
        "protocol": "oneshot",
        "members": 75,
        "corrupt": 32,
        "quorum": 54,
        "private": 32,
        "cost_model": "core-svp",
    }
    assert expected.items() <= answer.items()
    assert cli.main([*asked, "--json", "--cost-model", "standard"]) == 0
    standard = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {**expected, "cost_model": "standard"}.items() <= standard.items()
    assert standard["propose"] == {**answer["propose"], "cost_model": "standard"}
    assert cli.main(asked) == 0
    assert ["quorum", "54"] in [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(("protocol", "adversary"), [("secagg", "active"), ("ckks", "curious")])
def test_parameters_of_the_other_protocols(capsys: pytest.CaptureFixture[str], protocol: str, adversary: str) -> None:
    assert cli.main(words(30, 0.1, 0.1, adversary, "--protocol", protocol, "--json")) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["protocol"] == protocol


def test_an_unknown_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(30, 0.1, 0.1, "active", "--protocol", "two-shot")) == 2
    said = capsys.readouterr().err
    assert "unknown protocol" in said
    assert "auto for whoever proposes a plan" in said


def test_dropout_and_corrupt_are_not_mixed_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Against an active server dropouts count twice: 0.3 + 2 * 0.2 is feasible, 0.2 + 2 * 0.4 is not."""
    assert cli.main(words(1000, 0.2, 0.3, "active", "--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["dropout"], answer["corrupt"]) == (0.2, 0.3)
    assert cli.main(words(1000, 0.4, 0.2, "active")) == 2


PRINTED = [
    (words(1000, 0.1, 0.1, "active"), 900),
    (words(300, "1/20", "1/20", "curious", "--security", "30", "--correctness", "10"), 285),
    (words(3, 0.2, 0.1, "active"), 3),
    (words(5000, 0.05, 0.05, "active"), 72),  # the threshold: among so many, more cannot be enforced
    (words(30, 0.2, 0.1, "active", "--protocol", "secagg"), 24),
    (words(200, 0.1, 0.1, "active", "--protocol", "oneshot", "--cost-model", "standard"), 180),
]


@pytest.mark.parametrize(("arguments", "contributors"), PRINTED)
def test_what_is_printed_can_be_pasted(
    arguments: list[str], contributors: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into Python it gives a plan with the numbers above it, which a client with that policy accepts; into TOML, the
    same assumptions."""
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert cli.main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    numbers = answer.get("round", answer)
    clients = int(arguments[arguments.index("--clients") + 1])
    mine = Identity.generate("me", Prg(bytes(32)))
    others = {f"c{i:04}": Prg(bytes([1]) * 32, start=32 * i)(32) for i in range(clients - 1)}
    names: dict[str, Any] = {
        "RoundPlan": RoundPlan, "Policy": Policy, "roster": Roster.build({"me": mine.key.public, **others}),
        "encoding": Encoding.integers(4), "beacon": bytes(32),
    }  # fmt: skip
    code, _, toml = text[text.index("plan =") :].partition("or, for a recommender (secagg train):")
    exec(code.partition("A recommender")[0], names)
    plan, policy = names["plan"], names["policy"]
    for name in ("degree", "threshold", "witnesses", "quorum", "members"):
        assert name not in numbers or getattr(plan.parameters, name) == numbers[name]
    assert plan.min_contributors == policy.min_contributors == contributors
    client = Client(mine, names["roster"], policy=policy, journal=ForgetfulJournal())
    assert client.start(plan, np.zeros(4))
    if "--security" in arguments:
        assert (toml, answer["toml"]) == ("", {})
        return
    config = Config.parse(tomllib.loads(toml)).protocol
    assert (config.name, config.adversary) == (plan.protocol, policy.adversary)
    assert (Fraction(config.corrupt), Fraction(config.dropout)) == (policy.corrupt, policy.dropout)


ALL = "oneshot,secagg,secagg+"


@pytest.mark.parametrize(("allowed", "taken"), [(None, "secagg+"), (ALL, "oneshot"), ("secagg", "secagg")])
def test_auto_takes_the_cheapest_that_is_allowed_and_says_so(
    allowed: str | None, taken: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed gives the very plan, which a client with the policy beside it accepts."""
    monkeypatch.setenv("COLUMNS", "80")
    more = [] if allowed is None else ["--allowed", allowed]
    asked = words(200, 0.1, 0.05, "active", "--protocol", "auto", "--length", "10000", *more)
    assert cli.main(asked) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{taken}, which auto takes:")
    assert max(map(len, text.splitlines())) <= 80
    (starred,) = (line for line in text.splitlines() if line.startswith("* "))
    assert starred.split()[1] == taken
    assert cli.main([*asked, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    compared = {one["protocol"]: one for one in answer["comparison"]["protocols"]}
    assert list(compared) == ["secagg", "secagg+", "oneshot"]
    assert answer["comparison"]["auto"] == taken
    assert answer["comparison"]["why"].startswith(f"auto takes {taken}, ")
    possible = [one["seconds"] for one in compared.values() if not one["why_not"]]
    assert compared[taken]["seconds"] == min(possible)
    names: dict[str, Any] = {
        "RoundPlan": RoundPlan, "Policy": Policy, "encoding": Encoding.integers(10_000), "beacon": bytes(32),
        "roster": Roster.build({f"c{i:04}": Prg(bytes([1]) * 32, start=32 * i)(32) for i in range(200)}),
    }  # fmt: skip
    code, _, toml = text[text.index("plan =") :].partition("or, for a recommender (secagg train):")
    exec(code, names)
    assert names["plan"].protocol == taken
    names["policy"].check(names["plan"], names["roster"])
    config = Config.parse(tomllib.loads(toml)).protocol
    assert (config.name, set(config.allowed.split(","))) == ("auto", names["policy"].protocols)


def test_a_named_protocol_stands_beside_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(100, 0.1, 0.1, "curious", "--protocol", "threshold_ckks", "--json")) == 0
    found = json.loads(capsys.readouterr().out)["comparison"]
    assert [one["protocol"] for one in found["protocols"]] == ["secagg", "secagg+", "oneshot", "threshold_ckks"]
    assert found["auto"] in ("secagg", "secagg+")


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(1000, 0.1, 0.1, "active")) == 0
    text = capsys.readouterr().out
    assert "96 neighbours, threshold 67" in text
    assert "140 neighbours, threshold 104" in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (words(1000, 0.3, 0.5, "active"), "infeasible"),
        (words(1000, 0.1, 0.1, "active", "--nosuch"), "--nosuch"),
        (words(1000, 0.1, 0.1, "active", "stray"), "stray"),
        (words(1000, 0.1, 0.1, "friendly"), "--adversary"),
        (words("many", 0.1, 0.1, "active"), "--clients"),
        (words(1, 0.1, 0.1, "active"), "clients"),
        (words(1000, "a\nb", 0.1, "active"), "not a fraction"),
        (words(1000, 0.1, 1.5, "active"), "1.5"),
        (words(1000, 0.1, 0.1, "active", "--security", "0"), "security"),
        (words(100, 0.1, 0.1, "active", "--protocol", "auto", "--allowed", "sekagg"), "unknown protocol 'sekagg'"),
        (words(100, 0.1, 0.1, "active", "--protocol", "auto", "--allowed", ""), "unknown protocol ''"),
        (words(100, 0.1, 0.1, "active", "--protocol", "auto", "--allowed", "ckks"), "holds only against"),
        (words(100, 0.4, 0.4, "active", "--protocol", "auto"), "auto finds no protocol"),
        (words(100, 0.1, 0.1, "active", "--length", "0"), "a vector has 1 to"),
        (words(100, 0.1, 0.1, "active", "--length", "long"), "--length"),
        (["params"], "--clients"),
        (["nosuch"], "nosuch"),
        (["--nosuch"], "--nosuch"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("secagg: ")
    assert reason in line


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (DecodeError("x"), 2),
        (PolicyError("x"), 3),
        (BudgetError("x"), 3),
        (PeerError("x", culprits=["bob"]), 4),
        (ThresholdError("x"), 1),
        (SecAggError("x"), 1),
        (FileNotFoundError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_declared_error_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("secagg.cli.params.choose", fail)
    assert cli.main(words(1000, 0.1, 0.1, "active")) == code
    assert capsys.readouterr().err.count("\n") == (0 if code == 130 else 1)


def test_the_installed_script_answers_and_refuses() -> None:
    answered = script(*words(1000, 0.05, 0.05, "curious", "--json"))
    assert (answered.returncode, answered.stderr) == (0, "")
    assert json.loads(answered.stdout.splitlines()[-1])["degree"] == 30
    for bad, reason in [(words(1000, 0.3, 0.5, "active"), "infeasible"), (["params", "--nosuch"], "--nosuch")]:
        refused = script(*bad)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert reason in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_help_names_every_command_and_loads_none() -> None:
    code = "import sys; from secagg.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name, (module, summary) in cli.COMMANDS.items():
        assert name in done.stdout
        assert summary.split()[0] in done.stdout
        assert module not in done.stderr.split()
    assert "numpy" not in done.stderr.split()


def test_nothing_to_do_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "params" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_takes_json(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """In its own help, or in that of each of its subcommands."""
    from typer.main import get_command

    command = get_command(cli.application([name])).commands[name]  # type: ignore[attr-defined]
    for leaf in getattr(command, "commands", {name: command}).values():
        assert "--json" in [option for parameter in leaf.params for option in parameter.opts]


@pytest.mark.parametrize("protocol", ["ckks", "threshold_ckks"])
def test_a_protocol_that_does_not_hold_against_the_server_is_refused(
    protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"params --clients 100 --dropout 0.1 --corrupt 0.1 --protocol {protocol} --adversary"
    assert cli.main([*words.split(), "active"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "holds only against a server that is curious" in said
    if protocol == "threshold_ckks":
        assert cli.main([*words.split(), "curious"]) == 0


def test_what_is_not_said_is_what_a_policy_fears(capsys: pytest.CaptureFixture[str]) -> None:
    """The command as the README has it."""
    assert cli.main(["params", "--clients", "1000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    policy = Policy(min_contributors=2)
    asked = (found["corrupt"], found["dropout"], found["adversary"])
    assert asked == (float(policy.corrupt), float(policy.dropout), policy.adversary.value)
