"""``secagg bench recommender``: each part at a small size."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.studies.recommender import Config, run
from secagg.cli import main

SMALL = Config(
    items=200,
    population=70,
    clients=10,
    rounds=2,
    many=40,
    long=4,
    central_rounds=2,
    workers=1,
    silos=4,
    silo_users=20,
    silo_items=100,
)


def test_a_masked_run_is_the_unmasked_run_up_to_quantisation() -> None:
    measured = run(_only("cost"), lambda line: None)
    figures = measured.figures
    assert figures["largest_difference"] < 0.01  # a mask that stayed in the sum would be in the thousands
    for name in ("NDCG@10", "HR@10", "NDCG@10 of 100", "HR@10 of 100"):
        assert figures[f"secure_{name}"] == pytest.approx(figures[f"plain_{name}"], abs=0.01)
    assert figures["secure_s"] > figures["secure_updates_s"] > 0
    assert figures["bytes_up_a_client"] > 200 * 33 * 3
    assert measured.ratios["secure_vs_training_alone"] > measured.ratios["secure_vs_plain"] > 1


def test_memory_is_that_of_a_round() -> None:
    measured = run(_only("memory"), lambda line: None)
    assert 0.5 < measured.ratios["memory_growth"] < 1.5
    assert measured.figures["memory_last_round_mib"] > 10


def test_rounds_are_compared_with_training_in_one_place() -> None:
    figures = run(_only("central"), lambda line: None).figures
    gap = figures["federated_HR@10 of 100"] - figures["central_HR@10 of 100"]
    assert figures["federated_minus_central_HR@10 of 100"] == pytest.approx(gap)


def test_rounds_over_silos_with_and_without_a_protocol() -> None:
    measured = run(_only("silos"), lambda line: None)
    assert set(measured.ratios) == {"secure_over_clear", "secure_over_clear_processor"}
    assert min(measured.ratios.values()) > 0
    assert measured.figures["silos_secure_s"] > measured.figures["silos_secure_updates_s"] > 0


def _only(part: str) -> Config:
    return replace(SMALL, parts=part)


@pytest.mark.parametrize("setting", ["parts=cost,speed", "model=private-ease", "model=magic", "rounds=0", "long=3"])
def test_wrong_settings_are_one_line(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "recommender", "--set", setting]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


@pytest.mark.long
def test_the_quick_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "recommender", "--quick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report) == {"case", "config", "machine", "commit", "figures", "ratios"}
