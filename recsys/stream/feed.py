"""A run's stream: what is waited for and taken in before each sum, and the clients' data that a round is trained on.

Time passes in one of two ways. By the wall clock, a sum is made when its moment has come, of what was read by then; one
whose moment has passed, after a pause, is of what is not later than that. Or the stream was recorded: then it is read
up to the moment of the next sum, as fast as it goes.

A user is in the silo that a hash of the user's id says. Who has no new event is not among a round's users, and adds
nothing; a silo of which nobody has is there all the same, with one user who does nothing. Of an item that a user had
several times the last time counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import sleep, time

import numpy as np

from recsys.config import Clock, Config, StreamKind
from recsys.data.drifting import DriftingTastes
from recsys.data.interactions import Interactions
from recsys.data.split import Split
from recsys.federated import ClientData
from recsys.stream.dataset import Dataset
from recsys.stream.events import Source
from recsys.stream.intake import Intake
from recsys.stream.journal import Kept, Limits, StreamJournal
from recsys.stream.kafka import KafkaTopic
from recsys.stream.made_up import MadeUp
from recsys.stream.sums import Schedule
from recsys.stream.tail import FileTail
from recsys.users_in_silos import UsersInSilos
from secagg.errors import StorageError, UsageError

_PAUSE = 0.2
"""Seconds between two looks at a source that had nothing."""


def limits_of(config: Config) -> Limits:
    stream = config.stream
    return Limits(stream.replay, stream.cap, stream.ahead, stream.room)


def schedule_of(config: Config) -> Schedule:
    return Schedule(config.stream.begin, config.stream.every)


def silo_of(user: str, silos: int) -> int:
    """In which silo somebody's events are: that follows from the name, so it is the same after every restart.

    >>> [silo_of(name, 5) for name in ("ann", "bob", "carl", "eve")]
    [0, 0, 2, 4]
    """
    return int.from_bytes(sha256(user.encode()).digest()[:8], "big") % silos


@dataclass(frozen=True, slots=True, eq=False)
class RoundData:
    """What a round is trained on, and by what the model that it begins with is judged: the new events of users, after
    those that are replayed. None of that if nobody has a new one."""

    clients: ClientData
    ahead: Split | None


class Feed:
    """Whoever opens it closes it."""

    def __init__(
        self,
        config: Config,
        path: Path,
        names: Sequence[str],
        item_ids: Sequence[str],
        silos: UsersInSilos | None,
        tell: Callable[[str], None],
    ) -> None:
        self._config, self._names, self._item_ids, self._silos, self._tell = config, names, item_ids, silos, tell
        self.schedule = schedule_of(config)
        limits = limits_of(config)
        about = f"{len(names)} silos, items {sha256(repr(list(item_ids)).encode()).hexdigest()}, {self.schedule}"
        with ExitStack() as undo:
            self.journal = StreamJournal(path, limits, about=about)
            undo.callback(self.journal.close)
            self._source = _source(config, self.journal)
            undo.callback(self._source.close)
            numbers = {item: number for number, item in enumerate(item_ids)}
            self._intake = Intake(self._source, self.journal, limits, numbers, lambda user: silo_of(user, len(names)))
            self._close = undo.pop_all()

    def close(self) -> None:
        self._close.close()

    def check_reached(self, rounds: int) -> None:
        """``StorageError`` unless the journal is about so many rounds that are out, and no other."""
        begun, is_open = self.journal.sums()
        if begun - is_open > rounds + 1 or begun > rounds + 1:
            raise StorageError("the checkpoint is older than the stream's journal: start a new run")
        if begun - is_open < rounds:
            raise StorageError("the stream's journal is older than the checkpoint, or gone: start a new run")

    def gathered(self, number: int) -> RoundData:
        """Take in what there is by the moment of a sum, and give it to the sum."""
        moment = self.schedule.moment(number)
        recorded = self._config.stream.clock is Clock.RECORDED
        while True:
            now = moment if recorded else int(time())
            if self._intake.take(min(now, moment), until=recorded or now > moment, clock=now):
                self._tell(f"sum {number}: {sum(self.journal.counts().values())} events were read")
            elif now >= moment:
                break
            else:
                self._tell(f"sum {number} is in {moment - now} seconds")
                sleep(_PAUSE)
        if self._config.private and not self.journal.sums()[1] and not self.journal.room():
            raise StorageError(
                f"the stream's journal is full before sum {number}: an event that keeps others out would move what "
                "other people add. Start a new run with a larger stream.room"
            )
        self.journal.begin(number, moment)
        return self._round(list(self.journal.events(number)))

    def acknowledge(self) -> None:
        self._intake.acknowledge()

    def _round(self, events: Sequence[Kept]) -> RoundData:
        users = list(dict.fromkeys((one.client, one.user) for one in events))
        places = {who: place for place, who in enumerate(users)}
        members = [[places[who] for who in users if who[0] == silo] for silo in range(len(self._names))]
        if self._silos is not None and (most := max(map(len, members))) > self._silos.most:
            raise UsageError(f"a silo has {most} users with new events, and may have {self._silos.most} (clients.most)")
        for silo, some in enumerate(members):
            if not some:
                some.append(len(users))
                users.append((silo, ""))
        ids = [str(place) for place in range(len(users))]
        last = {(one.client, one.user, one.item): one for one in events}
        everything = self._interactions(list(last.values()), places, ids)
        nothing = self._interactions([], places, ids)
        found = tuple(np.array(some, np.int64) for some in members)
        clients = ClientData(tuple(self._names), found, everything, nothing)
        if not events:
            return RoundData(clients, None)
        known = {(one.client, one.user, one.item) for one in events if not one.new}
        before = self._interactions([one for who, one in last.items() if who in known], places, ids)
        new = self._interactions([one for who, one in last.items() if who not in known], places, ids)
        return RoundData(clients, Split(before, nothing, new) if len(new) else None)

    def _interactions(
        self, events: Sequence[Kept], places: dict[tuple[int, str], int], ids: Sequence[str]
    ) -> Interactions:
        return Interactions.of(
            [places[one.client, one.user] for one in events],
            [one.item for one in events],
            [one.time for one in events],
            user_ids=ids,
            item_ids=self._item_ids,
        )


def _source(config: Config, journal: StreamJournal) -> Source:
    stream, positions = config.stream, journal.positions()
    if stream.kind is StreamKind.FILE:
        return FileTail(stream.path, positions)
    if stream.kind is StreamKind.KAFKA:
        return KafkaTopic(stream.servers, stream.topic, positions, group=stream.group)
    if stream.kind is StreamKind.DATASET:
        names = {"user": config.data.user, "item": config.data.item, "time": config.data.time or "time"}
        return Dataset(stream.path, positions, **names)
    tastes = DriftingTastes(
        config.data.users,
        config.data.item_count,
        stream.begin - stream.every,
        stream.every,
        stream.events,
        stream.change or (1 << 40),
        seed=config.data.seed,
    )
    return MadeUp(tastes, positions)
