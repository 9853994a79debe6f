"""``secagg bench peers``: both sum up right, what they send has the length it must have, and a stopped run goes on.

Seconds are not tested. What Flower's code costs and does is seen by running it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="NOT TESTED: the comparison needs flwr, pip install 'secagg[peers]'")

from benchmarks.studies import peers
from benchmarks.studies.peers import Config, _measured, run
from benchmarks.studies.peers.attacks import Row
from benchmarks.studies.peers.page import page
from benchmarks.studies.peers.side_by_side import Cell, Kept, Outcome, Side, flower, ours
from benchmarks.studies.peers.uploads import Upload
from protocols.pairwise.parameters import parameters_of
from secagg.cli import main
from secagg.errors import StorageError, ThresholdError, UsageError

TINY = Config(n="5", d="50", parts="rounds", drop="0,0.2")
WHO = ("ours", "flower")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("peers") / "here"


@pytest.fixture(scope="module")
def finished(folder: Path) -> tuple[dict[str, float], dict[str, float], list[str]]:
    said = list[str]()
    measured = run(replace(TINY, graphs="complete", out=str(folder)), said.append)
    return dict(measured.figures), dict(measured.ratios), said


Finished = tuple[dict[str, float], dict[str, float], list[str]]


@pytest.mark.long
def test_a_cell_has_all_figures_of_both(finished: Finished) -> None:
    figures, ratios, said = finished
    names = ("complete_n5_d50_silent0", "complete_n5_d50_silent1")
    kinds = {
        "clients_s", "server_s", "round_s", "one_client_and_server_s", "serialising_s", "bytes_up", "bytes_down",
        "server_mib", "clients_mib", "upload_bytes_per_parameter",
    }  # fmt: skip
    assert set(figures) == {f"{name}_{who}_{kind}" for name in names for who in WHO for kind in kinds}
    assert set(ratios) == {
        f"{kind}_{name}" for name in names for kind in ("round_speedup", "side_by_side_speedup", "signatures_share")
    }
    for name in names:
        for who in WHO:
            place, staying = f"{name}_{who}", 5 - int(name[-1])
            clients, server = figures[f"{place}_clients_s"], figures[f"{place}_server_s"]
            assert figures[f"{place}_round_s"] == pytest.approx(clients + server)
            assert figures[f"{place}_one_client_and_server_s"] == pytest.approx(clients / staying + server)
        assert figures[f"{name}_ours_serialising_s"] == 0 < figures[f"{name}_flower_serialising_s"]
    assert [line for line in said if line.endswith(("ours", "Flower's"))] == [
        f"{name}: {who}" for name in names for who in ("ours", "Flower's", "ours")
    ]


@pytest.mark.long
def test_what_a_parameter_adds_to_an_upload() -> None:
    """Lengths grow by exactly the vector: a 32-bit word here, an int64 there (their frames' lengths grow, too)."""
    sides = {(work, d): work(Cell("complete", 5, d, 1)) for work in (ours, flower) for d in (1000, 2000)}
    assert sides[ours, 2000].bytes_up - sides[ours, 1000].bytes_up == 4 * 1000
    assert sides[flower, 2000].bytes_up - sides[flower, 1000].bytes_up == pytest.approx(8 * 1000, abs=10)
    assert all(0 < side.error < 1.5 for side in sides.values())


def test_signatures_are_counted() -> None:
    """Each of n clients verifies n - 1 adverts, n - 1 headers and t consents; the server three of each client."""
    side = ours(Cell("complete", 6, 10, 0))
    assert side.checks == 6 * (5 + 5 + 4) + 3 * 6
    assert 1e-6 < side.check_s < 1e-2


RING = Cell("k21", 24, 10, 0)


def test_on_a_ring_there_are_22_neighbours_beside_20_and_oneself() -> None:
    assert (RING.shares, RING.threshold) == (21, 14)
    assert parameters_of(RING.plan()).degree == 22


@pytest.mark.long
def test_what_is_verified_on_a_ring() -> None:
    ring = parameters_of(RING.plan())
    least = 24 * (22 + 22 + 14) + 3 * 24  # and of a quorum of witnesses those who are not among the 14
    assert least < ours(RING).checks <= least + 24 * ring.quorum
    assert flower(RING).error < 1.5


@pytest.mark.thinned(2)
@pytest.mark.parametrize("work", [ours, flower])
def test_a_wrong_sum_is_no_benchmark(work: Callable[[Cell], Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: who is silent is not in the sum, and compared with the mean of everybody it is wrong."""
    honest = Cell.mean
    monkeypatch.setattr(Cell, "mean", lambda cell, plan: honest(replace(cell, silent=0), plan))
    with pytest.raises(RuntimeError, match="the sum is wrong"):
        work(Cell("complete", 5, 50, 1))


@pytest.mark.parametrize("work", [ours, flower])
def test_with_too_few_left_there_is_no_round(work: Callable[[Cell], Side]) -> None:
    with pytest.raises(ThresholdError):
        work(Cell("complete", 5, 50, 3))


# What is kept.


def no_measuring(cell: Cell, *_: object) -> Outcome:
    raise AssertionError(f"measured {cell.name}")


@pytest.mark.long
def test_a_stopped_run_goes_on(
    finished: Finished, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished cells are not measured again, and give the same numbers; what is missing is measured."""
    monkeypatch.setattr(peers, "measure", no_measuring)
    outcomes = json.loads((folder / "cells.json").read_bytes())
    monkeypatch.setattr(peers, "commit", lambda: outcomes[0]["commit"])
    (tmp_path / "cells.json").write_text(json.dumps(outcomes))
    config, said = replace(TINY, graphs="complete", out=str(tmp_path)), list[str]()
    again = run(config, said.append)
    assert (again.figures, again.ratios) == finished[:2]
    assert len(said) == 3  # one line for each cell, and where the page is
    (tmp_path / "cells.json").write_text(json.dumps(outcomes[:1]))
    with pytest.raises(AssertionError, match="measured complete_n5_d50_silent1"):
        run(config, said.append)


@pytest.mark.long
def test_what_another_commit_measured_is_measured_again(
    finished: Finished, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "measure", no_measuring)
    monkeypatch.setattr(peers, "commit", lambda: "another")
    with pytest.raises(AssertionError, match="measured complete_n5_d50_silent0"):
        run(replace(TINY, graphs="complete", out=str(folder)), lambda line: None)


@pytest.mark.parametrize("text", ["", "[1]", "[{}]", '[{"key": "k", "ours": []}]'])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "cells.json").write_text(text)
    with pytest.raises(StorageError, match=r"cells\.json"):
        Kept(tmp_path)


# The page.


@pytest.mark.long
def test_what_is_written(finished: Finished, folder: Path) -> None:
    found = json.loads((folder / "peers.json").read_bytes())
    assert (found["figures"], found["ratios"]) == finished[:2]
    text = (folder / "peers.md").read_text()
    assert text == page(found)
    assert "flwr 1." in text
    ratio = finished[1]["round_speedup_complete_n5_d50_silent1"]
    assert f"| **{ratio:.1f}** |" in text
    assert (folder / "peers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_uploads_and_attacks_have_tables_and_numbers(finished: Finished, folder: Path) -> None:
    rows = [Row("both_shares", "a liar", "asks twice", "gets 1 | 2", "is refused", True, False)]
    upload = Upload("secagg", 0.1, 2.9, 0.05)
    measured = _measured([], [upload], rows)
    assert measured.figures == {
        "upload_secagg_s": 0.1, "upload_secagg_bytes_per_coordinate": 2.9,
        "attack_both_shares_there": 1.0, "attack_both_shares_here": 0.0,
    }  # fmt: skip
    assert measured.ratios == {"upload_secagg_vs_nvflare": 0.05}
    found = json.loads((folder / "peers.json").read_bytes())
    parts = {"cells": [], "uploads": [asdict(upload)], "attacks": [asdict(row) for row in rows]}
    text = page({**found, **parts})
    assert "| secagg | 0.1000 | 2.90 | 0.050 |" in text
    assert r"| both_shares: asks twice | a liar | works | gets 1 \| 2 | fails | is refused |" in text
    assert "Whole rounds" not in text


# The command.


@pytest.mark.long
def test_bench_prints_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    """Uploads: all in one run, and every one of our protocols beside NVFlare's parameters."""
    for name in ("tenseal", "numba"):
        pytest.importorskip(name, reason=f"NOT TESTED: uploads need {name}, pip install 'secagg[peers]'")
    settings = ["--set", "parts=ckks", "--set", "n=10", "--set", "d=5000", "--set", "repeats=1"]
    assert main(["bench", "peers", *settings, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report) == {"case", "config", "machine", "commit", "figures", "ratios"}
    names = {"nvflare_ckks", "secagg", "secagg+", "oneshot", "ckks", "threshold_ckks"}
    assert set(report["ratios"]) == {f"upload_{name}_vs_nvflare" for name in names}
    assert report["ratios"]["upload_nvflare_ckks_vs_nvflare"] == 1
    width = 20  # bits of a sum of ten 16-bit numbers
    for name in ("secagg", "secagg+"):
        assert report["figures"][f"upload_{name}_bytes_per_coordinate"] == width / 8
        assert report["figures"]["upload_nvflare_ckks_bytes_per_coordinate"] > 16 * width / 8


@pytest.mark.parametrize(
    "setting",
    ["n=3", "n=2000", "n=ten", "d=0", "d=", "drop=0.3", "drop=nan", "graphs=k21,star", "parts=all", "repeats=0"],
)
def test_wrong_settings_are_one_line(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "peers", "--set", setting]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_a_graph_that_no_size_allows() -> None:
    with pytest.raises(UsageError, match="more than 22 clients"):
        Config(n="10,20", graphs="k21")
    assert {cell.name for cell in Config(n="10,30", d="7", drop="0").cells} == {
        "complete_n10_d7_silent0", "complete_n30_d7_silent0", "k21_n30_d7_silent0",
    }  # fmt: skip


@pytest.mark.long
def test_the_quick_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "peers", "--quick", "--set", f"out={tmp_path}", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["figures"]["complete_n10_d100000_silent1_ours_upload_bytes_per_parameter"] < 4.2
    assert report["figures"]["attack_both_shares_here"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"cells.json", "peers.json", "peers.md", "peers.png"}
