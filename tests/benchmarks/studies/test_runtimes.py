"""``secagg bench runtimes``: wrong use, and a small run in Flower's simulation: the JSON contract, not the seconds."""

import json

import pytest

from benchmarks.studies import runtimes
from secagg.cli import main
from secagg.extras import EXTRAS


@pytest.mark.long
@pytest.mark.parametrize("part", ["flower", "nvflare"])
def test_a_few_rounds(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    for package in EXTRAS[part]:
        pytest.importorskip(package, reason=f"NOT TESTED: {part} needs its extra")
    if not runtimes.can_be_alone():
        pytest.skip("NOT TESTED: no network namespace can be made here")
    settings = (f"parts={part}", "d=1000", "clients=5", "rounds=2", "training=0,0.1")
    assert main(["bench", "runtimes", *(word for s in settings for word in ("--set", s)), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(found) == {"case", "config", "machine", "commit", "figures", "ratios"}
    assert set(found["ratios"]) == {f"{part}_secure_vs_plain_0", f"{part}_secure_vs_plain_0.1"}
    figures = found["figures"]
    assert min(figures.values()) > 0
    phases = [f"{part}_secure_0_{phase}_s" for phase in ("advertise", "share", "upload", "consistency", "reveal")]
    assert (figures.keys() >= set(phases)) == (part == "flower")
    if part == "flower":
        assert figures["flower_state_bytes"] > 2 * 1000  # a vector of 19 bits a coordinate, sealed


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("clients=3", "at least 4 clients"),
        ("parts=flower,ray", "unknown parts ray"),
        ("rounds=0", "at least 1"),
        ("training=0,x", "training is seconds"),
        ("training=-1", "training is seconds"),
        ("training=nan", "training is seconds"),
        ("network=open", "own or shared"),
        ("protocol=rot13", "rot13"),
    ],
)
def test_wrong_use_is_one_line(setting: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "runtimes", "--set", setting]) == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]


def test_nothing_listens_on_a_shared_network_unasked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "_ALONE", ["false"])
    assert main(["bench", "runtimes"]) == 2
    assert "network=shared" in capsys.readouterr().err.splitlines()[-1]


def test_a_failing_child_is_not_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_CHILD", "raise SystemExit('the reason')")
    with pytest.raises(RuntimeError, match="the reason"):
        runtimes.run(runtimes.Config(network="shared"), print)
