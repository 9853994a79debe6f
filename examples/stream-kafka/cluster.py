"""A Kafka cluster for trying things out: librdkafka's own, in memory, on loopback. It speaks the real protocol.

    python cluster.py       prints the addresses of its brokers, and runs until its input ends

A topic is made when it is first spoken of, with four partitions. Each keeps a few megabytes and drops the oldest.
"""

import sys

from confluent_kafka import Producer

if __name__ == "__main__":
    cluster = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = cluster.list_topics(timeout=30).brokers.values()
    print(",".join(f"{one.host}:{one.port}" for one in brokers), flush=True)
    sys.stdin.read()
