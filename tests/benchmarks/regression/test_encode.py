"""The case of encoding measures both implementations, on the same integers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.regression import encode
from secagg.errors import UsageError
from secagg.rounding import plain

pytest.importorskip("numba", reason="NOT TESTED: compiled rounding needs numba, pip install 'secagg[fast]'")

SMALL = encode.Config(length=300, users=5, wide=1000, wide_users=3, repeats=1)


def test_both_are_measured() -> None:
    measured = encode.run(SMALL, lambda _: None)
    pieces = {"measure", "stochastic", "nearest", "add", "batch", "wide"}
    assert set(measured.ratios) == {f"{piece}_compiled_vs_numpy" for piece in pieces} | {"batch_vs_words"}
    assert set(measured.figures) == {f"{piece}_{way}_ns" for piece in pieces for way in ("compiled", "numpy")} | {
        "words_ns"
    }
    assert all(value > 0 for value in (*measured.ratios.values(), *measured.figures.values()))


def test_different_integers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "add", lambda values, total: np.add(total, 2 * values, out=total))
    with pytest.raises(AssertionError, match="different integers"):
        encode.run(SMALL, lambda _: None)


def test_counts_are_positive() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        encode.Config(users=0)
