"""``secagg demo``: the story that it tells must be true, and wrong use is one line."""

import json

import pytest

from secagg.cli import main


@pytest.mark.parametrize("protocol", ["secagg", "secagg+"])
def test_the_demo_learns_the_sum_and_sees_nothing_else(protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--protocol", protocol, "--clients", "25", "--length", "2000", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(answer["silent"]) == 5
    assert answer["survivors"] == 25 - 3  # two of the five fall silent after their vectors are in
    assert 0 < answer["largest_error"] <= answer["rounding_bound"]
    assert answer["largest_correlation"] < 0.2  # 8 standard deviations
    assert answer["victim_seen"] != answer["victim_update"]


def test_the_demo_in_words_names_what_was_lost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    shown = capsys.readouterr().out
    assert "37 survivors" in shown
    assert "The server learnt the sum" in shown


@pytest.mark.parametrize(
    "arguments", [["--clients", "3"], ["--length", "5"], ["--protocol", "plaintext"], ["--clients", "many"], ["--loud"]]
)
def test_wrong_use_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
