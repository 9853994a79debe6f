"""Whether a run goes on with what it was begun with: the same configuration, and the same data.

The configuration lies in the run's directory and is compared key by key. Of the data there is a mark: of what was read,
and not from where, so that a copy in another place is the same. A plain digest of private data would be an exact
statistic of them, against which anybody could test guesses. So the mark is made with a random number, both lie in the
private directory, and neither is handed on. They stay there when the run has ended, and its secrets are deleted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.config import Config, shown
from recsys.data.interactions import Interactions
from recsys.run_record import CONFIG
from secagg.at_rest import AnyFolder, Folder
from secagg.crypto import labels
from secagg.crypto.keys import KEY_BYTES, derive, digest
from secagg.errors import DecodeError, StorageError, UsageError
from secagg.foreign import parse_json

if TYPE_CHECKING:
    from recsys.assembly import Prepared

INPUTS = "inputs"
"""The file in a run's private directory: a random number, and the marks of its data and of its configuration."""

MAY_CHANGE = frozenset(
    {
        "data.path",
        "data.download",
        "data.train",
        "data.valid",
        "data.test",
        "data.items",
        "clients.file",
        "model.encoder",
        "protocol.workers",
        "stream.path",
        "stream.servers",
    }
)
"""Where data are, and how many threads work on them. Whether such a file is named at all stays as it was."""

_NAMED = 3
"""So many changes are named in a line."""
_ANEW = "take a new directory (--out)"
_DATA = slice(KEY_BYTES, 2 * KEY_BYTES)


def check_configuration(folder: Path, kept: bytes, config: Config) -> None:
    """``UsageError`` if the run in ``folder`` was begun with another configuration than ``config``."""
    try:
        table = parse_json(kept)
        before = Config.parse(table if isinstance(table, dict) else {"": table})
    except (DecodeError, UsageError) as error:
        raise UsageError(f"{folder} holds a run of another configuration, which cannot be read: {error}") from None
    old, new = _fixed(before), _fixed(config)
    changed = [key for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]]
    if changed:
        changed = [key for key in changed if key != "title"] or changed  # a title may follow from the rest
        said = "; ".join(f"{key} was {_named(old, key)} and is {_named(new, key)}" for key in changed[:_NAMED])
        more = f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise UsageError(f"{folder} holds a run of another configuration: {said}{more}. Set that back, or {_ANEW}")


def check_inputs(private: AnyFolder, prepared: Prepared) -> None:
    """``UsageError`` if the run with this private directory was begun on other data; ``StorageError`` if nothing there
    says on which."""
    private = Folder.of(private)
    path, folder = private / INPUTS, private.path.parent
    try:
        kept = private.read(INPUTS, private=True)
    except FileNotFoundError:
        raise StorageError(f"{path} is gone, which tells whether the data are the same: {_ANEW}") from None
    expected = _inputs(kept[:KEY_BYTES], prepared)
    if len(kept) != len(expected):
        raise StorageError(f"{path} is damaged, which tells whether the data are the same: {_ANEW}")
    if kept[_DATA] != expected[_DATA]:
        raise UsageError(
            f"{folder} was begun on other data (events, users, items, silos or encoder): put them back, or {_ANEW}"
        )
    if kept != expected:
        raise UsageError(f"{folder / CONFIG} was changed since the run was begun: put it back, or {_ANEW}")


def keep_inputs(private: AnyFolder, prepared: Prepared) -> None:
    """Remember what a run is begun with."""
    Folder.of(private).write(INPUTS, _inputs(os.urandom(KEY_BYTES), prepared), private=True)


def _inputs(salt: bytes, prepared: Prepared) -> bytes:
    said = json.dumps(_fixed(prepared.config), sort_keys=True).encode()
    parts = {b"data": _data(prepared), b"configuration": said}
    return salt + b"".join(derive(salt, labels.RUN_INPUTS, name, part) for name, part in parts.items())


def _data(prepared: Prepared) -> bytes:
    """The digest of all that is read: events, the ids of users and items in their order, what is said of the items and
    by which encoder it is understood, and who is in which silo."""
    split, items, vectors = prepared.split, prepared.items, prepared.vectors
    ids = [digest(labels.RUN_INPUTS, *map(str.encode, one)) for one in (split.train.user_ids, split.train.item_ids)]
    members = [np.asarray(one, "<i8").tobytes() for one in prepared.client_data.members]
    events = [part for events in (split.train, split.valid, split.test) for part in _bytes(events)]
    encoder = "" if vectors is None else vectors.encoder
    said = b""
    if items is not None:
        said = json.dumps([items.titles, items.genres, items.years, items.texts, encoder]).encode()
    return digest(labels.RUN_INPUTS, *ids, digest(labels.RUN_INPUTS, said, *members), *events)


def _bytes(events: Interactions) -> Iterator[bytes]:
    yield np.asarray(events.starts, "<i8").tobytes()
    yield np.asarray(events.items, "<i4").tobytes()
    yield np.asarray(events.times, "<i8").tobytes()
    yield np.asarray(events.ratings, "<f4").tobytes()


def _fixed(config: Config) -> dict[str, Any]:
    """Every key and its value; of those that may change, whether they are set."""
    found = dict(_flat(config.plain()))
    return {key: bool(value) if key in MAY_CHANGE else value for key, value in found.items()}


def _flat(table: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value


def _named(table: Mapping[str, Any], key: str) -> str:
    if key not in table:
        return "not set"
    if key in MAY_CHANGE:
        return "set" if table[key] else "not set"
    return shown(str(table[key]) if isinstance(table[key], str) else table[key])
