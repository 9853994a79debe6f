"""Vectors of items are computed once, and a cache is believed if this account has filled it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="NOT TESTED: text encoders need transformers, pip install 'secagg[large]'")

from recsys.data.items import Items
from recsys.places import cache, state
from recsys.text import vectors
from recsys.text.encoder import Encoder
from recsys.text.vectors import ItemVectors, item_vectors
from secagg import tensors
from secagg.crypto import labels
from secagg.crypto.keys import derive
from secagg.errors import StorageError, UsageError
from tests.controls import switch_off
from tests.scenes.encoders import encoder, looks_like

ITEMS = Items.of(["7", "8", "9"], ["Alien (1979)", "Heat", ""], ["Horror|Sci-Fi", "", "War"])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were encoded each time."""
    found = list[int]()
    real = Encoder.__call__

    def counting(self: Encoder, texts: Any, watch: Any) -> Any:
        found.append(len(texts))
        return real(self, texts, watch)

    monkeypatch.setattr(Encoder, "__call__", counting)
    return found


def kept() -> list[Path]:
    return sorted((cache() / vectors.FOLDER).glob("*"))


def test_computed_once_for_the_same_content(home: Path, computed: list[int]) -> None:
    first = item_vectors(ITEMS, encoder(home / "one"))
    again = item_vectors(ITEMS, encoder(home / "a copy elsewhere"))
    np.testing.assert_array_equal(again.rows, first.rows)
    assert (again.encoder, len(again)) == (first.encoder, 3)
    assert computed == [3]
    other = item_vectors(ITEMS, encoder(home / "other", seed=1))
    assert other.encoder != first.encoder
    assert np.abs(other.rows - first.rows).max() > 0.01
    item_vectors(Items.of(["7", "8", "9"], ["Alien (1979)", "Heat", "Ran"], ["Horror|Sci-Fi", "", "War"]), home / "one")
    assert computed == [3, 3, 3]
    item_vectors(Items.of(["x", "y", "z"], ["Alien (1979)", "Heat", ""], ["Horror|Sci-Fi", "", "War"]), home / "one")
    assert computed == [3, 3, 3]  # what items are called is not what is said of them
    longer = replace(ITEMS, texts=("A house flies away.", "", ""))
    said = item_vectors(longer, home / "one")
    assert computed == [3, 3, 3, 3]
    np.testing.assert_allclose(said.rows[1:], first.rows[1:], rtol=1e-4, atol=1e-5)
    assert np.abs(said.rows[0] - first.rows[0]).max() > 0.01
    item_vectors(Items.of(["7"], texts=["A house flies away."]), home / "one")
    assert computed == [3, 3, 3, 3, 1]


def test_what_is_kept_is_its_owners(home: Path) -> None:
    item_vectors(ITEMS, encoder(home / "one"))
    (path,) = kept()
    for one, mode in ((path, 0o600), (path.parent, 0o700), (state() / vectors.KEY, 0o600)):
        assert stat.S_IMODE(one.stat().st_mode) == mode


def test_the_key_is_drawn_for_each_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set[bytes]()
    for account in ("one", "other"):
        monkeypatch.setenv("XDG_STATE_HOME", str(home / account))
        keys.update(vectors._secret() for _ in range(2))
    assert len(keys) == 2


def planted(path: Path, rows: np.ndarray) -> bytes:
    """A file as somebody else would fill it: authenticated with a key of their own."""
    key = derive(os.urandom(32), labels.STORED, b"cached", bytes.fromhex(path.stem))
    return b"".join(tensors.encode({}, {"rows": rows}, key))


def test_a_strangers_cache_is_not_believed(home: Path, computed: list[int]) -> None:
    right = item_vectors(ITEMS, encoder(home / "one"))
    (path,) = kept()
    whole = path.read_bytes()
    for content in (planted(path, right.rows[::-1]), whole[:-4] + bytes(4), whole[:40], b""):
        path.write_bytes(content)
        np.testing.assert_allclose(item_vectors(ITEMS, home / "one").rows, right.rows, rtol=1e-4, atol=1e-5)
    assert computed == [3] * 5
    item_vectors(ITEMS, home / "one")
    assert computed == [3] * 5  # and it is right again


def test_control_without_the_mark_it_is_believed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = item_vectors(ITEMS, encoder(home / "one"))
    (path,) = kept()
    path.write_bytes(planted(path, right.rows[::-1]))
    switch_off(monkeypatch, tensors, "decode", "hmac.compare_digest(data[_MAC_PLACE], _mac(key, pieces))", "True")
    np.testing.assert_array_equal(item_vectors(ITEMS, home / "one").rows, right.rows[::-1])


def test_vectors_of_other_texts_are_not_taken_for_these(home: Path, computed: list[int]) -> None:
    """Files of one cache under each other's names: both have this account's mark."""
    item_vectors(ITEMS, encoder(home / "one"))
    (path,) = kept()
    other = Items.of(["7", "8", "9"], ["Heat", "Big", "Ran"])
    right = item_vectors(other, home / "one")
    (second,) = set(kept()) - {path}
    second.write_bytes(path.read_bytes())
    np.testing.assert_allclose(item_vectors(other, home / "one").rows, right.rows, rtol=1e-4, atol=1e-5)
    assert computed == [3, 3, 3]


def test_others_files_are_replaced_and_links_are_not(home: Path, computed: list[int]) -> None:
    item_vectors(ITEMS, encoder(home / "one"))
    (path,) = kept()
    path.chmod(0o644)
    item_vectors(ITEMS, home / "one")
    assert computed == [3, 3]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.rename(home / "elsewhere")
    path.symlink_to(home / "elsewhere")
    with pytest.raises(StorageError, match="it is a link"):
        item_vectors(ITEMS, home / "one")


def test_an_item_without_a_text_is_refused_before_anything_is_read_or_kept(home: Path) -> None:
    silent = Items.of(["7", "12"], ["Alien", ""], years=[1979, 1980])
    with pytest.raises(UsageError, match="item 12 has neither a title nor genres"):
        item_vectors(silent, home / "there is none")
    assert not cache().exists()


def test_nothing_is_kept_of_what_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="not the file of a tokenizer"):
        item_vectors(ITEMS, looks_like(home / "one"))
    assert not kept()


def test_a_place_is_not_another_in_each_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(home))
    assert cache() == home / ".cache" / "secagg"
    monkeypatch.setenv("HOME", "home")
    with pytest.raises(StorageError, match="XDG_CACHE_HOME is no absolute path"):
        cache()


def test_a_damaged_key_and_no_place(home: Path) -> None:
    item_vectors(ITEMS, encoder(home / "one"))
    (state() / vectors.KEY).write_bytes(b"short")
    with pytest.raises(StorageError, match="is damaged: delete it"):
        item_vectors(ITEMS, home / "one")
    (home / "cache" / "secagg").rename(home / "away")
    (home / "cache" / "secagg").write_text("a file")
    with pytest.raises(StorageError, match="cannot use"):
        item_vectors(ITEMS, home / "one")


def test_what_is_no_vector(home: Path) -> None:
    for wrong in (np.zeros(3, np.float32), np.zeros((3, 2)), np.full((3, 2), np.nan, np.float32)):
        with pytest.raises(UsageError, match="vectors of items are"):
            ItemVectors(wrong, "")
    with pytest.raises(ValueError, match="read-only"):
        ItemVectors(np.ones((3, 2), np.float32), "").rows[0] = 0
