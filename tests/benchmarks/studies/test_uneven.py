"""``secagg bench uneven``: what it compares is the same but for the way, and differences are seed by seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.case import configured
from benchmarks.studies import uneven
from benchmarks.studies.uneven import DEFAULTS, FEDAVG, Config, run
from recsys.metrics.comparing import over_seeds
from secagg.errors import UsageError

SMALL = Config(alphas="0.3", users=60, items=100, silos=4, seeds=2, rounds=1, epochs=2)


def test_differences_are_seed_by_seed_and_the_files_are_there(tmp_path: Path) -> None:
    said = list[str]()
    measured = run(replace(SMALL, out=str(tmp_path / "out")), said.append)
    assert len(said) == 2 * 6 + 1
    scores = {line.split(":")[0]: float(line.split()[-1]) for line in said[:-1]}
    for way in (one for one in SMALL.ways if one != FEDAVG):
        gaps = [scores[f"{way}, alpha 0.3, seed {s}"] - scores[f"{FEDAVG}, alpha 0.3, seed {s}"] for s in range(2)]
        assert measured.figures[f"0.3/{way} minus {FEDAVG}"] == pytest.approx(np.mean(gaps), abs=1e-4)
        assert measured.figures[f"0.3/{way} minus {FEDAVG} low"] == pytest.approx(over_seeds(gaps).low, abs=2e-3)
        assert measured.ratios[f"0.3/{way} vs ItemPop"] > 0
    assert measured.figures["0.3/heads, a new silo"] != measured.figures["0.3/heads"]
    assert 1 / 4 < measured.figures["0.3/largest silo"] < 1
    assert (tmp_path / "out" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "table.md").read_text().count("\n") == 3


def test_ways_differ_in_what_they_are_called_by_and_in_nothing_else() -> None:
    """Nothing is clipped, measured or noised, and everybody takes part."""
    runs = {way: DEFAULTS.run(0.1, way, 3) for way in DEFAULTS.ways}
    plain = runs[FEDAVG].training
    assert runs["FedProx"].training == replace(plain, proximal=DEFAULTS.proximal)
    assert runs["SCAFFOLD"].training == replace(plain, scaffold=True)
    assert runs["weights"].training == replace(plain, weight_bound=uneven._EVERYBODY)
    assert runs["SCAFFOLD, weights"].training == replace(plain, scaffold=True, weight_bound=uneven._EVERYBODY)
    assert runs["heads"].training == replace(plain, personal=("bias",))
    for one in runs.values():
        assert (one.data, one.clients, one.model, one.seed) == (
            runs[FEDAVG].data,
            runs[FEDAVG].clients,
            runs[FEDAVG].model,
            3,
        )
        assert (one.privacy.mode, one.training.measured, one.training.epochs > 1) == ("none", 0, True)


@pytest.mark.parametrize("wrong", ["seeds=1", "alphas=0,1", "alphas=", "alphas=much", "rounds=0", "proximal=-1"])
def test_what_cannot_be_measured_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError):
        configured(DEFAULTS, [wrong])
