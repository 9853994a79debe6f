"""Models on the disk: one file of tensors (``secagg.tensors``) with the arrays, and a header that says what they are.

The header names the model's class, its settings and the ids of the items. Nothing in the file is executed: there is no
pickle in it, and the class must be one of ``MODELS``. A file that is cut short or of another kind is refused with one
line. Whether its numbers were exchanged for others shows in its SHA-256 alone: a run's record has that of its model.

A history is all that models know about a user, so there are no users in the file, and no map of user ids. A list of
items that comes from users' events says something about them all the same: under "public" the header says that it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from recsys.metrics.ranking import scores_of
from recsys.models.recommender import Recommender
from recsys.serving import ServedModel
from secagg import tensors
from secagg.at_rest import Folder
from secagg.errors import AtRestError, SecAggError, StorageError, UsageError

MODELS = {
    "ItemPop": "recsys.models.popularity",
    "ItemKnn": "recsys.models.knn",
    "Ease": "recsys.models.ease",
    "Autoencoder": "recsys.models.autoencoder",
    "MatrixFactorisation": "recsys.models.mf",
    "NeuMf": "recsys.models.neumf",
    "SasRec": "recsys.models.sasrec",
    "TwoTower": "recsys.models.over_text",
    "SasRecOverText": "recsys.models.over_text",
    "TunedEncoder": "recsys.models.tuned_encoder",
    "PrivateEase": "recsys.models.private_ease",
    "PrivateMf": "recsys.models.private_mf",
}
"""The classes that can be stored, and the module of each, which is imported when it is needed."""

VERSION = 3
"""The format of a model's file."""

_MOST_BYTES = 1 << 32
_LARGEST = 1_000_000
"""The largest whole number among a model's settings, such as the number of latest items or the width of a factor."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelState:
    """What makes a trained model: settings that JSON can hold, and arrays."""

    settings: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


class Stored(Recommender, Protocol):
    """A recommender that can be stored; its class is one of ``MODELS``."""

    def state(self) -> ModelState:
        """Of a trained model; ``UsageError`` before."""

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The stored model. A state that does not fit together raises an error of any ordinary kind."""


def encode(served: ServedModel, taken_as_public: Sequence[str] = ()) -> tensors.Pieces:
    """The model's file, with what a guarantee about it took as public (``recsys.public_facts``)."""
    model, item_ids = cast(Stored, served.model), served.item_ids
    name = type(model).__name__
    if MODELS.get(name) != type(model).__module__:
        raise UsageError(f"{name} is none of the models that can be stored: {', '.join(MODELS)}")
    state = model.state()
    header = {
        "version": VERSION,
        "model": name,
        "settings": dict(state.settings),
        "items": list(item_ids),
        "public": list(taken_as_public),
    }
    _check(model, len(item_ids))
    return tensors.encode(header, state.arrays)


def save(served: ServedModel, path: str | Path, taken_as_public: Sequence[str] = ()) -> str:
    """Write the model, whole or not at all. Returns the SHA-256 of the file."""
    path = Path(path)
    return save_in(Folder(path.parent), path.name, encode(served, taken_as_public))


def save_in(folder: Folder, name: str, pieces: tensors.Pieces) -> str:
    """``save`` into a folder that may be sealed. The SHA-256 is that of the file as it is read."""
    digest = sha256()
    for piece in pieces:
        digest.update(piece)
    folder.write(name, *pieces, private=False)
    return digest.hexdigest()


def load(path: str | Path) -> ServedModel:
    path = Path(path)
    return load_in(Folder(path.parent), path.name)


def load_in(folder: Folder, name: str) -> ServedModel:
    """``load`` from a folder that may be sealed."""
    path = folder / name
    header, arrays = _read(folder, name)
    name = str(header["model"])
    try:
        _check_settings(header["settings"])
        made = cast(type[Stored], getattr(import_module(MODELS[name]), name))
        model = made.from_state(ModelState(header["settings"], arrays))
        items = [str(item) for item in header["items"]]
        _check(model, len(items))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, SecAggError):
        raise StorageError(f"{path} is damaged: its parts do not make a {name}") from None
    return ServedModel(model, items)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and the arrays of the file, with nothing made of them."""
    path = Path(path)
    return _read(Folder(path.parent), path.name)


def _read(folder: Folder, file: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    path = folder / file
    try:
        header, arrays = tensors.decode(folder.read(file, most=_MOST_BYTES))
        version, name = header["version"], str(header["model"])
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except AtRestError:
        raise
    except (SecAggError, KeyError):
        raise StorageError(f"{path} is not the file of a model, or damaged") from None
    if version != VERSION or name not in MODELS:
        raise StorageError(
            f"{path} holds a {name[:40]!r} in version {str(version)[:40]!r}: this release does not know it"
        )
    return header, arrays


def _check_settings(value: object) -> None:
    """Refuse settings that would make a model too large, before it is made."""
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(part, int) and not -1 <= part <= _LARGEST:
            raise ValueError("so large is no model")
        _check_settings(part)


def _check(model: Stored, items: int) -> None:
    """Check that the model gives floats, for a user without history and one with all items, one score for each id."""
    scores = scores_of(model, [np.empty(0, np.int32), np.arange(items, dtype=np.int32)], items)
    if scores.dtype.kind != "f":
        raise UsageError(f"scores are floats, and not {scores.dtype}: what was taken already is below all numbers")
