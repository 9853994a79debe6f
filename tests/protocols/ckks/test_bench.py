"""``secagg bench ckks``: the JSON contract, and what must hold on any machine: bytes, not seconds."""

import json

import pytest

from secagg.cli import main

pytest.importorskip("tenseal", reason="NOT TESTED: ckks needs tenseal, pip install 'secagg[ckks]'")


def test_bench_prints_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["d=20480", "repeats=1", "clients=3"]
    settings = [word for setting in small for word in ("--set", setting)]
    assert main(["bench", "ckks", *settings, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report) == {"case", "config", "machine", "commit", "figures", "ratios"}
    bare = {"engine_vs_bare", "round_vs_bare", "encrypt_vs_bare", "add_vs_bare", "decrypt_vs_bare"}
    assert bare | {"encrypt_vs_nvflare", "encrypt_vs_pairwise"} == set(report["ratios"])
    figures = report["figures"]
    assert 30 < figures["bytes_per_coordinate"] < 31
    assert 57 < figures["nvflare_bytes_per_coordinate"] < 58
    assert figures["client_key_bytes_up"] < 200_000
    assert figures["error_seen"] < figures["error_bound"] < 0.01


def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ckks", "--set", "clients=1"]) == 2
    assert "at least 2 take part" in capsys.readouterr().err.splitlines()[-1]
