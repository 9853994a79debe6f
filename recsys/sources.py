"""Where a run's data come from, how they are divided into what is trained on and what is held out, and who has which.

Nothing here knows of privacy or protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from recsys.config import ClientKind, Clients, Config, Data, HoldOut, Population, Source, Spread
from recsys.data import download, films, movielens, partition, split, synthetic, tables
from recsys.data.interactions import Interactions
from recsys.data.items import Items
from recsys.data.split import Split
from recsys.federated import ClientData
from secagg.errors import UsageError

NEEDED = {
    Source.SYNTHETIC: (),
    Source.MOVIELENS: ("path",),
    Source.TABLE: ("path",),
    Source.SPLIT: ("train", "test"),
    Source.STREAM: (),
}
"""The keys of ``[data]`` without which there is nothing to read."""

HABITS = {Population.CALIBRATED: synthetic.CALIBRATED, Population.FIRST: synthetic.FIRST}


@lru_cache(1)
def data_of(data: Data) -> tuple[Split, tuple[str, ...], Items | None]:
    """The split, notes about it, and the table of items if there is one, which does not depend on any user's events."""
    for name in NEEDED[data.source]:
        if not getattr(data, name):
            raise UsageError(f"data.source = {data.source} needs data.{name}: where the file or folder is")
    columns = {"user": data.user, "item": data.item, "time": data.time, "rating": data.rating}
    listed = _listed(data)
    if data.source is Source.SPLIT:
        found = Split.load(data.train, data.valid, data.test, **columns, listed=listed)
        return found, tuple(found.report()), listed
    if data.source is Source.STREAM:
        ids = [str(number) for number in range(data.item_count)] if listed is None else listed.ids
        nobody = Interactions.of([], [], item_ids=ids)
        return Split(nobody, nobody, nobody), ("events as they happen",), listed
    if data.source is Source.SYNTHETIC:
        events = synthetic.population(data.users, data.item_count, data.seed, HABITS[data.habits])
        said = ["a made-up population"]
    else:
        loaded = (
            movielens.load(download.fetch(data.download, data.path) if data.download else data.path, listed=listed)
            if data.source is Source.MOVIELENS
            else tables.load(data.path, **columns, listed=listed)
        )
        events, said, listed = loaded.interactions, loaded.report(), loaded.items
    rules: dict[HoldOut, Callable[[Interactions], Split]] = {
        HoldOut.LAST: split.leave_last_out,
        HoldOut.RATIO: split.by_ratio,
        HoldOut.TIME: _by_moments(data) if data.test_from else split.by_time,
    }
    divided = rules[data.held_out](events.ties_drawn(data.order) if data.order else events)
    return divided, (*said, *divided.report()), listed


def _listed(data: Data) -> Items | None:
    """The table that ``data.items`` names."""
    return items_of(data.items, data.item) if data.items else None


def items_of(path: str | Path, item: str = "item") -> Items:
    """A table of items: MovieLens' list of films, which is known by its name, or a table of one's own."""
    if Path(path).name not in films.NAMES:
        return tables.items(path, item=item)
    found, bad = films.read(path)
    if found is None:
        raise UsageError(f"{path} lists no items" + (f": line {bad.rows[0].line} names none" if bad.rows else ""))
    return found


def _by_moments(data: Data) -> Callable[[Interactions], Split]:
    """A split by the moments that the configuration names. Tables keep dates as microseconds; MovieLens and the
    synthetic population keep them as seconds."""
    unit = 1 if data.source is Source.TABLE else 10**6
    moments = []
    for name, text in (("valid_from", data.valid_from), ("test_from", data.test_from)):
        try:
            moment, is_date = tables.moment_of(text)
        except ValueError as error:
            raise UsageError(f"data.{name}: {error}") from None
        moments.append(moment // unit if is_date else moment)
    return lambda events: split.by_time(events, *moments, fractions=False)


def client_data_of(config: Config, data: Split) -> ClientData:
    """Clients and the users of each. Clients are named by number, so that users' names stay with them.

    With noise in the sums, devices without an event to train on take part, too: otherwise what one user did would
    change how many clients there are, and the numbers of others. (With local training on devices it is public how many
    events each device has, and a device without any has nothing to train on.)
    """
    clients: Clients = config.clients
    train = data.train
    if config.streamed:
        train = Interactions.of([], [], user_count=clients.count, item_ids=train.item_ids)
        members = tuple(np.arange(clients.count).reshape(-1, 1))  # one who does nothing, until events come
    elif clients.kind is ClientKind.DEVICES:
        everybody = np.arange(train.user_count)
        present = everybody[np.diff(train.starts) > 0] if config.locally or not config.private else everybody
        members = tuple(present.reshape(-1, 1))
    elif clients.spread is Spread.COLUMN:
        if not clients.file:
            raise UsageError("clients.spread = column needs clients.file: a table with columns user and silo")
        members = partition.natural(train, tables.mapping(clients.file, user="user", silo="silo")).members
    else:
        members = partition.silos(
            train, clients.count, cast(Any, clients.spread.value), alpha=clients.alpha, seed=config.seed
        ).members
    digits = len(str(len(members) - 1))
    names = tuple(f"client-{number:0{digits}}" for number in range(len(members)))
    return ClientData(names, members, train, train if config.streamed else data.valid)
