"""An encoder in two parts is the same encoder, and what is below the last layers is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="NOT TESTED: adapters need transformers, pip install 'secagg[large]'")

from recsys.text import layers
from recsys.text.layers import layered_vectors
from recsys.text.vectors import item_vectors
from secagg.errors import UsageError
from tests.scenes.encoders import BERT, DISTILBERT, SENTENCES, encoder, put
from tests.scenes.tuned import titled

ITEMS = titled(5)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("config", [BERT, DISTILBERT], ids=["bert", "distilbert"])
@pytest.mark.parametrize("first", [False, True], ids=["mean", "first"])
def test_both_parts_together_are_the_encoder(config: dict[str, Any], count: int, first: bool, home: Path) -> None:
    folder = encoder(home / "encoder", config)
    if first:
        for name, content in SENTENCES.items():
            put(folder, name, content)
    tokens = 6 if first else 24
    made = layered_vectors(ITEMS, folder, count, tokens)
    np.testing.assert_allclose(made.rows, item_vectors(ITEMS, folder).rows, atol=0.01)  # states have 11 bits
    assert made.encoder == item_vectors(ITEMS, folder).encoder
    assert len(made.top.layers) == count


def test_computed_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = encoder(home / "encoder")
    made = layered_vectors(ITEMS, folder, 1, 6)
    other = layered_vectors(ITEMS, folder, 1, 5)
    assert other.encoder != made.encoder
    assert other.states.shape == (5, 5, 8)
    below = layered_vectors(ITEMS, folder, 2, 6)
    assert abs(below.states - made.states).max() > 0.1
    monkeypatch.setattr(layers, "_AT_ONCE", 0)  # nothing can be computed any more
    again = layered_vectors(ITEMS, folder, 1, 6)
    assert (again.states == made.states).all()
    np.testing.assert_array_equal(again.rows, made.rows)
    with pytest.raises(ValueError, match="zero"):
        layered_vectors(titled(5, seed=1), folder, 1, 6)


@pytest.mark.parametrize(
    ("count", "tokens", "said"),
    [
        (0, 6, "layers is from 1 to 2"),
        (3, 6, "layers is from 1 to 2"),
        ("a", 6, "layers is from 1 to 2"),
        (1, 0, "tokens is from 1 to 24"),
        (1, 25, "tokens is from 1 to 24"),
        (1, 2.0, "tokens is from 1 to 24"),
    ],
)
def test_what_the_encoder_does_not_have(count: Any, tokens: Any, said: str, home: Path) -> None:
    with pytest.raises(UsageError, match=said):
        layered_vectors(ITEMS, encoder(home / "encoder"), count, tokens)
