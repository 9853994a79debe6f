"""A text encoder's directory from a stranger: out come vectors, or one declared line. See ``test_foreign``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="NOT TESTED: text encoders need transformers, pip install 'secagg[large]'")

from recsys.text.directory import read_directory
from recsys.text.encoder import Encoder
from secagg.errors import UsageError
from tests.scenes.encoders import SENTENCES, encoder, put
from tests.scenes.mutations import LONG, accepted, mutations, trees

FILES = ["config.json", "tokenizer.json", "model.safetensors", *SENTENCES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = encoder(tmp_path_factory.mktemp("encoder"))
    for name, content in SENTENCES.items():
        put(path, name, content)
    return path


@settings(max_examples=2_000 if LONG else 12)
@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_encoder(name: str, data: st.DataObject, folder: Path) -> None:
    whole = (folder / name).read_bytes()
    odd: Any = mutations(whole)
    if name.endswith(".json"):
        odd = st.one_of(odd, trees(json.loads(whole)).map(lambda tree: json.dumps(tree).encode()))
    (folder / name).write_bytes(data.draw(odd))
    try:
        rows = accepted(lambda: Encoder(read_directory(folder))(["Alien (1979). Horror", "", "zzz"]), UsageError)
    finally:
        (folder / name).write_bytes(whole)
    if rows is not None:
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-3)
