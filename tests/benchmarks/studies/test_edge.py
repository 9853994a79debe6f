"""The case of the edge measures what it says, and its targets are reached (the long version)."""

from __future__ import annotations

import pytest

from secagg.errors import UsageError

pytest.importorskip("onnxruntime", reason="NOT TESTED: models for devices need onnxruntime, pip install 'secagg[edge]'")

from benchmarks.studies import edge


def test_a_small_one() -> None:
    config = edge.Config(users=60, items=300, models="ease,mf", passes=1, repeats=3, million=2000)
    measured = edge.run(config, lambda _: None)
    assert measured.figures["parity"] <= 1e-4
    assert measured.ratios["int8_size"] < 0.6
    assert measured.ratios["int8_ndcg"] > 0.8
    assert measured.figures["ann_recall"] > 0.9
    assert measured.figures["exact_ms"] > 0


@pytest.mark.long
def test_the_targets() -> None:
    measured = edge.run(edge.Config(parts="quality,exact"), lambda _: None)
    assert measured.figures["parity"] <= 1e-4
    assert measured.ratios["int8_size"] <= 0.3
    assert measured.ratios["int8_ndcg"] >= 0.98


def test_what_is_no_configuration() -> None:
    for wrong in ({"parts": "x"}, {"models": "x"}, {"passes": 0}, {"million": 10}, {"parts": "page"}):
        with pytest.raises(UsageError):
            edge.Config(**wrong)
