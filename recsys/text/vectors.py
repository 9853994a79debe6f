"""The vectors of a table of items: one of each item's text, made by an encoder.

The table is public, and so are the encoder and the vectors: no user's events are in them, and they cost no privacy. An
item that nobody has taken yet has one, too.

Vectors are computed once and kept in $XDG_CACHE_HOME/secagg/vectors, under a name that is the digest of everything they
follow from: the encoder's weights, tokenizer and settings, and the texts. A file there is used if it is authenticated
under this name (``secagg.tensors``) by a secret of this account, which lies elsewhere
($XDG_STATE_HOME/secagg/vectors.key). So a cache that somebody else filled, or changed, is not believed: what it should
say is computed anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.items import Items
from recsys.places import cache, state
from recsys.text.directory import Directory, read_directory
from secagg import tensors
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, derive, digest
from secagg.errors import DecodeError, StorageError, UsageError
from secagg.files import create_file, private_folder, read_private, write_file

if TYPE_CHECKING:
    from recsys.text.encoder import Watch

FOLDER, KEY = "vectors", "vectors.key"
_ROWS = "rows"


@dataclass(frozen=True, slots=True, eq=False)
class ItemVectors:
    """One row for each item, of norm 1, and what made them: rows of two encoders have nothing to do with each other."""

    rows: NDArray[np.float32]
    encoder: str
    """the digest of the encoder"""

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.dtype != np.float32 or not np.isfinite(self.rows).all():
            raise UsageError("vectors of items are rows of finite numbers in float32")
        self.rows.flags.writeable = False

    def __len__(self) -> int:
        return len(self.rows)


def item_vectors(items: Items, encoder: str | Path, watch: Watch = lambda done, all_of_them: None) -> ItemVectors:
    """The vectors of all items, by the encoder in that directory.

    ``UsageError`` if an item has no text, or the directory holds no encoder that is read here.
    """
    texts = [text_of(items, item) for item in range(len(items))]
    found = read_directory(encoder)
    name = digest(labels.RUN_TEXT, b"vectors", found.digest, *(text.encode() for text in texts))
    return ItemVectors(computed_once(name, lambda: _computed(found, texts, watch)), found.digest.hex())


def computed_once(name: bytes, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """What is in the cache under this name, the digest of all that the array follows from; else it is computed."""
    path = _folder(cache()) / FOLDER / f"{name.hex()}.safetensors"
    key = derive(_secret(), labels.STORED, b"cached", name)
    rows = _kept(path, key)
    if rows is None:
        rows = compute()
        private_folder(path.parent)
        write_file(path, *tensors.encode({}, {_ROWS: rows}, key), private=True)
    return rows


def text_of(items: Items, item: int) -> str:
    """What an encoder is told of an item; ``UsageError`` if the table says neither a title nor genres nor a text.

    >>> text_of(Items.of(["7"], titles=["Alien (1979)"], genres=["Horror|Sci-Fi"]), 0)
    'Alien (1979). Horror, Sci-Fi'
    >>> text_of(Items.of(["8"], titles=["Up"], texts=["A house flies away."]), 0)
    'Up. A house flies away.'
    """
    title, year, genres = items.titles[item], items.years[item], ", ".join(items.genres[item])
    if not title and not genres and not items.texts[item]:
        raise UsageError(
            f"item {items.ids[item]} has neither a title nor genres nor a text: an encoder needs a text of each item"
        )
    dated = f"{title} ({year})" if title and year else title
    return ". ".join(part for part in (dated, genres, items.texts[item]) if part)


def _computed(found: Directory, texts: list[str], watch: Watch) -> NDArray[np.float32]:
    from recsys.text.encoder import Encoder  # which takes seconds to import, and is needed once

    return Encoder(found)(texts, watch)


def _kept(path: Path, key: bytes) -> NDArray[Any] | None:
    """What is in the cache; None if that is nothing, or nothing that this account has put there."""
    with suppress(FileNotFoundError, StorageError, DecodeError):
        _, arrays = tensors.decode(read_private(path), key)
        return arrays[_ROWS]
    return None


def _secret() -> bytes:
    path = _folder(state()) / KEY
    create_file(path, os.urandom(KEY_BYTES), private=True)
    key = read_private(path)
    if len(key) != KEY_BYTES:
        raise StorageError(f"{path} is damaged: delete it, and vectors are computed anew")
    return key


def _folder(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot use {path}: {error.strerror}") from None
    return path
