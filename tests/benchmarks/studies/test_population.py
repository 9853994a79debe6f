"""``secagg bench population``: what it measures, and that it knows how far off that is."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.case import configured
from benchmarks.studies.population import DEFAULTS, Config, run
from recsys.data.split import leave_last_out
from recsys.data.synthetic import FACTS, FIRST, population
from recsys.metrics.ranking import evaluate
from recsys.models.ease import Ease
from recsys.models.popularity import ItemPop
from secagg.errors import UsageError


def test_ratios_are_of_means_and_beside_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FACTS, (60, 120), {"density": 0.5, "EASE": 2.0})  # type: ignore[attr-defined]
    measured = run(Config(sizes="60x120", habits="first", models="EASE", seeds=3), lambda said: None)
    gains: dict[type, list[float]] = {ItemPop: [], Ease: []}
    densities = []
    for seed in range(3):
        events = population(60, 120, seed, FIRST)
        densities.append(len(events) / (60 * 120))
        split = leave_last_out(events)
        for kind, found in gains.items():
            model = kind()
            model.fit(split.train)
            found.append(evaluate(model, split).mean("NDCG@10"))
    ratio = np.mean(gains[Ease]) / np.mean(gains[ItemPop])
    assert measured.ratios == {"60x120/EASE": pytest.approx(ratio)}
    assert measured.figures["60x120/EASE off"] == pytest.approx(ratio / 2 - 1)
    assert measured.figures["60x120/density off"] == pytest.approx(np.mean(densities) / 0.5 - 1)
    assert measured.figures["60x120/ItemPop"] == pytest.approx(np.mean(gains[ItemPop]))
    assert 0 < measured.figures["60x120/EASE error"] < 1


@pytest.mark.parametrize("wrong", ["sizes=12", "sizes=axb", "habits=mine", "seeds=1", "models=Best"])
def test_what_cannot_be_measured_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError):
        configured(DEFAULTS, [wrong])


def test_real_sizes_are_measured_by_default() -> None:
    assert set(FACTS) <= set(DEFAULTS.shapes)
