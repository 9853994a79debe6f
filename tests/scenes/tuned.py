"""Models that tune the last layer of a small encoder with random weights."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from recsys.data.items import Items
from tests.scenes.encoders import BERT, WORDS, encoder


def titled(count: int, seed: int = 0) -> Items:
    """Items with titles of a few words that the encoder knows."""
    rng = np.random.default_rng(seed)
    titles = [" ".join(rng.choice(WORDS[4:], size=rng.integers(1, 6))) for _ in range(count)]
    return Items.of([str(item) for item in range(count)], titles)


@cache
def layered(count: int, *, kind: str = "bert", layers: int = 1, tokens: int = 6, seed: int = 0) -> Any:
    """The items of ``titled``, by an encoder of this kind."""
    pytest.importorskip("transformers", reason="NOT TESTED: adapters need transformers, pip install 'secagg[large]'")
    from recsys.text.layers import layered_vectors
    from tests.scenes.encoders import DISTILBERT

    with TemporaryDirectory() as folder, patch.dict(os.environ, XDG_CACHE_HOME=folder, XDG_STATE_HOME=folder):
        made = encoder(Path(folder) / "encoder", BERT if kind == "bert" else DISTILBERT)
        return layered_vectors(titled(count, seed), made, layers, tokens)


def tuned(count: int, *, kind: str = "bert", layers: int = 1, coordinates: int = 4, **settings: Any) -> Any:
    """A model over these items that has not begun."""
    from recsys.models.tuned_encoder import TunedEncoder
    from recsys.text.coordinates import Coordinates

    vectors = layered(count, kind=kind, layers=layers)
    return TunedEncoder(Coordinates.of(vectors, coordinates), vectors, **{"rank": 2, "encoded": 4, **settings})
