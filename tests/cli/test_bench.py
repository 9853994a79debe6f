"""``secagg bench``: the JSON contract, and that a small case really measures."""

import json

import pytest

from secagg.cli import main

SMALL = ["n=30", "d=3000", "k=12", "t=8", "repeats=1", "growth=20,30"]


def test_bench_prints_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    assert main(["bench", "pairwise", *settings, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report) == {"case", "config", "machine", "commit", "figures", "ratios"}
    assert report["case"] == "pairwise"
    assert report["config"]["n"] == 30
    assert {"upload_expansion", "growth_30_vs_k"} <= set(report["ratios"])
    assert all(value > 0 for value in report["ratios"].values())
    assert report["figures"]["client_upload_bytes_up"] > 3000 * 21 / 8 * 27 / 30  # ring of 21 bits, 3 of 30 silent
    assert report["figures"]["masks_removed"] > 27  # self masks, and those shared with the three


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unheard-of"],
        ["pairwise", "--set", "n"],
        ["pairwise", "--set", "colour=blue"],
        ["pairwise", "--set", "n=many"],
        ["pairwise", "--set", "parts=everything"],
        ["pairwise", "--set", "drop=2"],
        ["pairwise", "--set", "growth=a,b"],
        ["pairwise", "--set", "n=1", "--set", "parts=round"],
        ["pairwise", "--set", "k=7", "--set", "n=30", "--set", "parts=round"],
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "secagg: " in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err
