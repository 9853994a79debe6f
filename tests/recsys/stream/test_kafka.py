"""Kafka's protocol, spoken with librdkafka's own cluster in another process: nothing is skipped, nothing read twice."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from recsys.stream.events import Position
from recsys.stream.kafka import KafkaTopic
from secagg.errors import StorageError, UsageError
from tests.scenes.streams import cluster, intake, line, taken

kafka = pytest.importorskip(
    "confluent_kafka", reason="NOT TESTED: Kafka needs its client, pip install 'secagg[stream]'"
)


@pytest.fixture(scope="module")
def servers() -> Iterator[str]:
    with cluster() as addresses:
        yield addresses


def produce(servers: str, topic: str, *events: tuple[int, str]) -> None:
    """Events for a partition each."""
    producer = kafka.Producer({"bootstrap.servers": servers})
    for partition, data in events:
        producer.produce(topic, data, partition=partition)
    assert producer.flush(30) == 0


def read(topic: KafkaTopic, wanted: int) -> list[str]:
    """So many messages, or fewer if no more come for seconds."""
    found, empty = list[str](), 0
    while len(found) < wanted and empty < 10:
        some = topic.read(100)
        empty += not some
        found += [message.data.decode() for message in some]
    return found


def test_the_journal_says_where_to_go_on_and_offsets_are_committed_when_sums_are_out(
    servers: str, tmp_path: Path
) -> None:
    produce(servers, "a", *((number % 4, line(f"u{number}", "i1", 100 + number)) for number in range(20)))
    source = partial(KafkaTopic, servers, "a")
    with intake(tmp_path, source) as (one, journal):
        while journal.counts().get("taken in", 0) < 20:
            one.take(200)
        one.acknowledge()
        assert committed(servers, "a") == [0, 0, 0, 0]  # nothing is in a sum
        journal.begin(0, 200)
    produce(servers, "a", (2, line("late", "i1", 150)))
    with intake(tmp_path, source) as (one, journal):
        journal.out(0, {0})
        while journal.counts()["taken in"] < 21:
            one.take(200)
        one.acknowledge()
        assert committed(servers, "a") == [5, 5, 5, 5]
        assert journal.positions()["a/2"].offset == 6
    (tmp_path / "stream.db").unlink()
    with intake(tmp_path, source) as (one, journal):  # without its journal it goes on where the group is
        while not journal.counts().get("taken in", 0):
            one.take(200)
        taken(one, 200)
        assert journal.counts() == {"taken in": 1}


def committed(servers: str, topic: str) -> list[int]:
    consumer = kafka.Consumer({"bootstrap.servers": servers, "group.id": "secagg"})
    try:
        found = consumer.committed([kafka.TopicPartition(topic, number) for number in range(4)], timeout=10)
    finally:
        consumer.close()
    return [max(0, one.offset) for one in found]


def test_what_the_broker_has_no_more_is_an_error_and_not_skipped(servers: str) -> None:
    produce(servers, "b", (0, "one"))
    topic = KafkaTopic(servers, "b", {f"b/{number}": Position(50) for number in range(4)})
    with pytest.raises(StorageError, match="not available on the broker"):
        read(topic, 1)
    topic.close()


def test_parts_that_are_held_are_read_later(servers: str) -> None:
    produce(servers, "c", (0, "zero"), (1, "one"))
    topic = KafkaTopic(servers, "c", {}, partitions=[0, 1])
    found = list[str]()
    while not found:
        found += [message.data.decode() for message in topic.read(100, {"c/0"})]
    assert found == ["one"]
    assert read(topic, 1) == ["zero"]
    topic.close()


@pytest.mark.long
def test_the_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="NOT TESTED: training needs torch, pip install 'secagg[train]'")
    script = Path(__file__).parents[3] / "examples" / "stream-kafka" / "train.py"
    words = [sys.executable, str(script), str(tmp_path / "run"), "--set", "training.rounds=2"]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    )
    assert (done.returncode, "why it ended: all rounds are done" in done.stdout) == (0, True), done.stderr


def test_what_cannot_be_read_is_refused_in_a_line(servers: str) -> None:
    produce(servers, "d", (0, "one"))
    with pytest.raises(UsageError, match=r"group\.id is set by this library"):
        KafkaTopic(servers, "d", {}, settings={"group.id": "mine"})
    with pytest.raises(UsageError, match="librdkafka refuses"):
        KafkaTopic(servers, "d", {}, settings={"no.such.thing": "1"})
    with pytest.raises(UsageError, match="no partition 9"):
        KafkaTopic(servers, "d", {}, partitions=[9])
    with pytest.raises(StorageError, match="would be lost"):
        KafkaTopic(servers, "d", {"d/0": Position(1)}, partitions=[1, 2])
