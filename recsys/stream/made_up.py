"""The made-up stream whose tastes change (``recsys.data.drifting``), as a source: it has all events from the start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set

from recsys.data.drifting import DriftingTastes
from recsys.stream.events import Message, Position

PART = "made up"


class MadeUp:
    """Each stretch is a generation, in which an event's offset is its number."""

    def __init__(self, tastes: DriftingTastes, positions: Mapping[str, Position]) -> None:
        self._tastes, self._position = tastes, positions.get(PART, Position())
        self._lines: list[bytes] | None = None

    def read(self, most: int, without: Set[str] = frozenset()) -> list[Message]:
        found = list[Message]()
        while len(found) < most and not without:
            if self._lines is None:
                self._lines = self._stretch(self._position.generation)
            at = self._position
            if at.offset >= len(self._lines):
                self._lines, self._position = None, Position(0, at.generation + 1)
                if found:
                    break  # else there would be no end
                continue
            self._position = Position(at.offset + 1, at.generation)
            found.append(Message(PART, at, self._position, self._lines[at.offset]))
        return found

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """It is made up again when it is asked for."""

    def close(self) -> None: ...

    def _stretch(self, number: int) -> list[bytes]:
        columns = (column.tolist() for column in self._tastes.stretch(number))
        return [
            json.dumps({"user": user, "item": item, "time": time}).encode()
            for user, item, time in zip(*columns, strict=True)
        ]
