"""A topic of Kafka, or of what speaks its protocol, by librdkafka (extra ``[stream]``).

The journal says where to go on, and not the broker: partitions are assigned at the journal's offsets. What a partition
has lost by then is an error, and never skipped (``auto.offset.reset = error``). A partition that the journal does not
know is read from the offset that the group has committed, else from its beginning. ``acknowledge`` commits offsets to
the group, for whoever watches it, and for a client whose journal was lost: that one reads what nobody has committed
once more, so that events of one sum, at most, are in two: one that was out, and not yet acknowledged.

The partitions are those that the topic has when this begins. There is one reader of them: consumers do not share a
group here, and users of several clients are in several topics or partitions (``partitions``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Any

from recsys.stream.events import Message, Position
from secagg.errors import StorageError, UsageError
from secagg.extras import needing

_PATIENCE = 10.0
"""Seconds for what a broker has to answer."""
_WAIT = 0.5
"""Seconds for messages that may be there."""
_OURS = frozenset(
    {"bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset"}
)


class KafkaTopic:
    """``settings`` are librdkafka's, for how to reach the brokers (``security.protocol``, say)."""

    def __init__(
        self,
        servers: str,
        topic: str,
        positions: Mapping[str, Position],
        *,
        group: str = "secagg",
        partitions: Collection[int] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        with needing("stream", "reading from Kafka"):
            from confluent_kafka import Consumer, KafkaException
        if taken := sorted(_OURS & (settings or {}).keys()):
            raise UsageError(f"{taken[0]} is set by this library, and not by whoever reads a stream")
        self._topic, self._error = topic, KafkaException
        self._paused = frozenset[str]()
        ours = {
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
        }
        try:
            self._consumer: Any = Consumer({**(settings or {}), **ours})
        except (KafkaException, ValueError, TypeError) as error:
            raise UsageError(f"librdkafka refuses its settings: {_said(error)}") from None
        try:
            self._assign(positions, partitions)
        except KafkaException as error:
            self.close()
            raise StorageError(f"topic {topic} cannot be read: {_said(error)}") from None
        except BaseException:
            self.close()
            raise

    def _assign(self, positions: Mapping[str, Position], partitions: Collection[int]) -> None:
        from confluent_kafka import TopicPartition

        found = self._consumer.list_topics(self._topic, timeout=_PATIENCE).topics[self._topic]
        if found.error is not None:
            raise StorageError(f"there is no topic {self._topic}: {_said(found.error)}")
        wanted = sorted(partitions or found.partitions)
        if missing := set(wanted) - set(found.partitions):
            raise UsageError(f"topic {self._topic} has no partition {min(missing)}")
        if missing_parts := positions.keys() - {self._part(number) for number in wanted}:
            raise StorageError(f"{min(missing_parts)} was read before, and is not there: what it has would be lost")
        new = [TopicPartition(self._topic, number) for number in wanted if self._part(number) not in positions]
        starts = {self._number(part): position.offset for part, position in positions.items()}
        for one in self._consumer.committed(new, timeout=_PATIENCE) if new else []:
            low, _ = self._consumer.get_watermark_offsets(one, timeout=_PATIENCE)
            starts[one.partition] = one.offset if one.offset >= 0 else low
        self._consumer.assign([TopicPartition(self._topic, number, starts[number]) for number in wanted])

    def read(self, most: int, without: Set[str] = frozenset()) -> list[Message]:
        try:
            self._pause(frozenset(without))
            found = []
            for message in self._consumer.consume(most, _WAIT):
                if message.error() is not None:
                    raise StorageError(f"topic {self._topic} cannot be read on: {_said(message.error())}")
                offset = message.offset()
                part = self._part(message.partition())
                found.append(Message(part, Position(offset), Position(offset + 1), message.value() or b""))
        except self._error as error:
            raise StorageError(f"topic {self._topic} cannot be read: {_said(error)}") from None
        return found

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        from confluent_kafka import TopicPartition

        done = [TopicPartition(self._topic, self._number(part), one.offset) for part, one in positions.items()]
        try:
            if done:
                self._consumer.commit(offsets=done, asynchronous=False)
        except self._error as error:
            raise StorageError(f"what was read of topic {self._topic} cannot be committed: {_said(error)}") from None

    def close(self) -> None:
        self._consumer.close()

    def _pause(self, parts: frozenset[str]) -> None:
        """Read nothing of these parts, until they are not named any more."""
        from confluent_kafka import TopicPartition

        def of(some: frozenset[str]) -> list[Any]:
            return [TopicPartition(self._topic, self._number(part)) for part in sorted(some)]

        if stopped := parts - self._paused:
            self._consumer.pause(of(stopped))
        if resumed := self._paused - parts:
            self._consumer.resume(of(resumed))
        self._paused = parts

    def _part(self, number: int) -> str:
        return f"{self._topic}/{number}"

    def _number(self, part: str) -> int:
        return int(part.rpartition("/")[2])


def _said(error: object) -> str:
    """What librdkafka says, in one line."""
    inner = error.args[0] if isinstance(error, Exception) and error.args else error
    text = inner.str() if hasattr(inner, "str") else str(inner)
    return " ".join(text.split())[:200]
