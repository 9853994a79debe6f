"""``secagg bench threshold_ckks``: the JSON contract, and what must hold on any machine: bytes, not seconds."""

import json

import pytest

from secagg.cli import main


def report(capsys: pytest.CaptureFixture[str], *settings: str) -> dict[str, dict[str, float]]:
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["bench", "threshold_ckks", *words, "--json"]) == 0
    found: dict[str, dict[str, float]] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == {"case", "config", "machine", "commit", "figures", "ratios"}
    return found


def test_beside_tenseal(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tenseal", reason="NOT TESTED: the comparison needs tenseal, pip install 'secagg[ckks]'")
    found = report(capsys, "d=200000", "repeats=1", "clients=4")
    assert set(found["ratios"]) == {"encrypt_vs_nvflare", "encrypt_vs_pairwise", "bytes_vs_nvflare", "upload_expansion"}
    assert found["figures"]["bytes_per_coordinate"] < 10
    assert found["ratios"]["bytes_vs_nvflare"] < 0.2
    assert found["figures"]["failure_log2"] < -40 > found["figures"]["flooding_log2"]


def test_without_tenseal(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "d=2000", "n=10", "repeats=1", "clients=4", "tenseal=0")
    assert set(found["ratios"]) == {"encrypt_vs_pairwise", "upload_expansion"}


def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "threshold_ckks", "--set", "clients=3"]) == 2
    assert "at least 4 take part" in capsys.readouterr().err.splitlines()[-1]
