"""``secagg bench oneshot``: the JSON contract, and what must hold on any machine: bytes and sums, not seconds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.regression.oneshot import clients
from benchmarks.regression.oneshot.cast import Cast
from benchmarks.regression.oneshot.clients import STEPS, encrypted
from benchmarks.regression.oneshot.deployment import SCENES, Config
from protocols.oneshot.committee import public_of
from protocols.oneshot.parameters import lattice_of
from secagg.cli import main
from secagg.crypto.lattice import packing
from secagg.crypto.lattice.polynomials import Coefficients

pytest.importorskip("numba", reason="NOT TESTED: one-shot sums need numba, pip install 'secagg[lattice]'")

SMALL = {"n": 140, "d": 3000, "k": 8, "drop": 0.2, "repeats": 2, "rounds": 1, "real_n": 12, "real_d": 100}


@pytest.mark.long
def test_bench_prints_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    assert main(["bench", "oneshot", *settings, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report) == {"case", "config", "machine", "commit", "figures", "ratios"}
    figures, ratios = report["figures"], report["ratios"]
    assert {
        "client_vs_pairwise", "upload_expansion", "upload_expansion_with_shares",
        "server_30pct_vs_none", "server_30pct_before_upload_vs_none", "server_vs_add", "server_vs_lattice_add",
        "real_server_30pct_vs_none", "real_server_30pct_before_upload_vs_none",
    } == set(ratios)  # fmt: skip
    assert 1 < ratios["upload_expansion"] < ratios["upload_expansion_with_shares"]
    assert figures["shares_bytes"] % figures["seats"] == 0
    for scene in SCENES:
        parts = [figures[name] for name in figures if name.startswith(f"server_{scene}_") and name.count("_") == 4]
        assert len(parts) == 12
        assert sum(parts) == pytest.approx(figures[f"server_{scene}_s"])


@pytest.fixture(scope="module")
def cast() -> Cast:
    return Cast(Config(**SMALL), 0.2)  # type: ignore[arg-type]


def test_what_is_timed_is_an_upload_that_opens(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of the vector are those of the protocol: with their secret the values come out."""
    seen: list[np.ndarray] = []
    honest = clients.discrete_gaussian

    def spy(*arguments: object) -> np.ndarray:
        seen.append(honest(*arguments))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(clients, "discrete_gaussian", spy)
    values = np.arange(3000) - 1500
    steps: dict[str, list[float]] = {}
    data, layout = encrypted(cast.plan, values, steps), lattice_of(cast.plan).layout
    assert set(steps) == set(STEPS)
    sealed = Coefficients.unpack(layout.ring, data, layout.coefficients(3000))
    mask = (public_of(cast.plan) * Coefficients.lift(layout.ring, [seen[0]]).evaluations()).coefficients()
    assert packing.decode(layout, sealed - mask, 3000).tolist() == values.tolist()


def test_a_wrong_sum_is_no_benchmark(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    for scene in SCENES:
        cast.round(scene)
    monkeypatch.setattr(cast, "values", [values + 1 for values in cast.values])
    with pytest.raises(RuntimeError, match="the sum is wrong"):
        cast.round("none")


@pytest.mark.parametrize("setting", ["n=128", "k=4", "repeats=0", "drop=0", "drop=1", "repeats=100", "corrupt=1"])
def test_wrong_settings_are_one_line(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "oneshot", "--set", setting]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


def test_a_committee_that_cannot_lose_so_many_is_said_to_be_too_small() -> None:
    from secagg.errors import UsageError

    small = Cast(replace(Config(**SMALL), drop=0.6), 0.0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="too few members"):
        small.round("after")
