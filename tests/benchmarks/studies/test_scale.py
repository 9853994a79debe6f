"""``secagg bench scale``: the JSON contract, files, and what holds on any machine: bytes, not seconds."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.rounds import check_total, people, update_of
from benchmarks.studies import scale
from benchmarks.studies.scale.deployments import MODELS
from benchmarks.studies.scale.tables import flat_table, tree_table
from protocols.client import Client
from protocols.costs.units import UnitCosts
from protocols.journal import ForgetfulJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.server import serve
from protocols.simulation.network import simulate
from secagg import extras
from secagg.cli import main
from secagg.encoding import Encoding

EACH = UnitCosts(**{field.name: 1e-6 for field in fields(UnitCosts)})


def test_bench_prints_the_contract_and_writes_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"protocols": "secagg", "n": "5", "d": 10, "long_n": 0, "drop": 0.2, "repeats": 1}
    small |= {"clients": "1e3,1e8", "lengths": "1e4", "cohorts": "100", "out": str(tmp_path)}
    settings = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    assert main(["bench", "scale", *settings, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report) == {"case", "config", "machine", "commit", "figures", "ratios"}
    for point in ("secagg_n5_d10", "secagg_n5_d10_0.2_gone"):
        assert report["ratios"][f"{point}_predicted_up"] == pytest.approx(1)
        assert report["ratios"][f"{point}_predicted_down"] == pytest.approx(1)
        assert report["ratios"][f"{point}_predicted_client"] > 0
        assert report["figures"][f"{point}_server_s"] > 0
    written = json.loads((tmp_path / "scale.json").read_text())
    assert set(written["points"]["secagg_n5_d10"]["phases"]) == {
        "advertise",
        "share",
        "complain",
        "upload",
        "consistency",
        "reveal",
    }
    tables = (tmp_path / "scale.md").read_text()
    assert "predicted over measured" in tables
    assert "Flat rounds, d = 10^4" in tables
    assert "Trees over 10^8 clients" in tables


@pytest.mark.long
def test_a_choice_is_held_against_real_rounds_and_constants_are_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    settings = ["parts=choice,units", "choices=10x10", "repeats=1", "protocols=secagg", f"out={tmp_path}"]
    assert main(["bench", "scale", *[word for one in settings for word in ("--set", one)], "--json"]) == 0
    printed = capsys.readouterr()
    ratios = json.loads(printed.out.splitlines()[-1])["ratios"]
    assert ratios["choice_n10_d10_over_best"] >= 1
    assert ratios["choice_n10_d10_secagg_predicted"] > 0
    source = (tmp_path / "measured.py").read_text()
    assert source in printed.err
    made: dict[str, Any] = {}
    exec(source, made)
    assert made["COSTS"].verify > 0
    assert made["COSTS"].ckks_keys == 0  # was not asked for


@pytest.mark.parametrize(
    "setting",
    [
        "protocols=rot13",
        "parts=soup",
        "n=3",
        "n=many",
        "n=",
        "clients=1,2",
        "cohorts=2",
        "d=0",
        "drop=0.5",
        "repeats=0",
        "choices=100",
        "choices=3x10",
        "choices=manyx10",
    ],
)
def test_wrong_settings_are_one_line(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scale", "--set", setting]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    said: list[str] = []
    config = replace(scale.DEFAULTS, protocols="oneshot,ckks,threshold_ckks")
    assert list(scale.measured_points(config, [EACH], said.append)) == []
    assert [line.split(":")[0] for line in said] == ["NOT MEASURED"] * 3


def test_rounds_that_take_too_long_are_left_out_and_said() -> None:
    said: list[str] = []
    config = replace(scale.DEFAULTS, protocols="secagg", longest=1e-9)
    assert list(scale.measured_points(config, [EACH], said.append)) == []
    assert len(said) == 5
    assert all("left out" in line for line in said)


def test_a_wrong_sum_is_no_benchmark() -> None:
    identities, roster = people(4)
    policy = Policy(min_contributors=2)
    plan = RoundPlan.propose("secagg", roster, Encoding.integers(3), min_contributors=2)
    right = {name: update_of(roster.number(name), plan) for name in roster.names}
    wrong = right | {roster.names[1]: np.zeros(3)}
    for updates, fine in ((right, True), (wrong, False)):
        clients = {i.name: Client(i, roster, policy=policy, journal=ForgetfulJournal()) for i in identities}
        server = serve(plan, roster)
        simulate(server, clients, updates.get)
        if fine:
            check_total(server)
        else:
            with pytest.raises(RuntimeError, match="the sum is wrong"):
                check_total(server)


def test_tables_say_what_is_not_possible() -> None:
    cheap = UnitCosts(**{field.name: 1e-9 for field in fields(UnitCosts)})
    long = flat_table(list(MODELS), [10**3, 10**6], 10**9, cheap)
    assert "beyond" in long
    assert "10^6 and more | absurd" in long
    assert "10^8 and more | not possible: a round has 2 to 10000000 clients" in flat_table(
        ["oneshot"], [10**3, 10**8], 10, cheap
    )


def rows_of(table: str) -> dict[str, list[str]]:
    """cohort -> the cells after it."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| secagg+")]
    return {cells[1]: cells[2:] for cells in lines}


def test_values_are_as_wide_as_every_level_of_a_tree_can_add_up() -> None:
    """16 bits where what reaches the last level has at most 32, 8 bits where it has not, and nothing beyond that."""
    cheap = UnitCosts(**{field.name: 1e-9 for field in fields(UnitCosts)})
    rows = rows_of(tree_table(["secagg+"], 10**7, 10**4, [250, 300, 1000, 4000, 10**7], cheap))
    assert {size: cells[1] for size, cells in rows.items()} == {
        "flat": "16 bits", "250": "16 bits", "300": "8 bits", "1000": "8 bits", "4000": "16 bits"
    }  # fmt: skip
    assert [cells[0] for cells in rows.values()] == [
        "1", "40000 + 160 + 1", "33334 + 112 + 1", "10000 + 10 + 1", "2500 + 1"
    ]  # fmt: skip
    assert rows["4000"][3] == "28, 40"
    assert "1 to 32 bits" in tree_table(["secagg+"], 10**8, 10**4, [300], cheap)
