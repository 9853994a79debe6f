"""Train on a topic of Kafka: a cluster is started, made-up events are written to it, and 20 silos train on them.

    python train.py RUN [--set section.key=value ...]

What is made up is the stream of examples/stream.toml, whose tastes change after a week; here two days of it.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from confluent_kafka import Producer

from recsys.data.drifting import DriftingTastes
from secagg.files import write_file

HERE = Path(__file__).parent
ROUNDS, ITEMS, PEOPLE = 8, 300, 2000
BEGIN, EVERY = 1_700_000_000, 21_600
CONFIG = """
title = "events from Kafka, 20 silos"
data = { source = "stream", items = "ITEMS.csv" }
clients = { count = 20, most = 500 }
model = { name = "autoencoder", settings = { width = 32 } }
training = { rounds = 8, rate = 1.0, server_rate = 2.0, measured_every = 1 }
stream = { kind = "kafka", topic = "events", begin = 1700000000, every = 21600, window = 86400, replay = 432000 }
privacy = { mode = "distributed", n_min = 2000 }
"""


def write_events(servers: str) -> None:
    """A user's events are in one partition, so in order."""
    tastes = DriftingTastes(PEOPLE, ITEMS, BEGIN - EVERY, EVERY, 2000.0, change=BEGIN + 7 * 86_400)
    producer = Producer({"bootstrap.servers": servers})
    for stretch in range(ROUNDS):
        for user, item, time in zip(*(column.tolist() for column in tastes.stretch(stretch)), strict=True):
            event = {"user": user, "item": item, "time": time}
            producer.produce("events", json.dumps(event), key=str(user))
        if producer.flush(60):
            raise SystemExit("the cluster does not take events")


def main(run: str, *settings: str) -> int:
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, HERE / "cluster.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as cluster,
    ):
        servers, items = next(iter(cluster.stdout or ())).strip(), Path(folder) / "items.csv"
        write_events(servers)
        write_file(items, ("item\n" + "".join(f"{number}\n" for number in range(ITEMS))).encode(), private=False)
        write_file(
            config := Path(folder) / "kafka.toml", CONFIG.replace("ITEMS.csv", str(items)).encode(), private=False
        )
        words = [
            sys.executable,
            "-m",
            "secagg",
            "train",
            str(config),
            "--out",
            run,
            "--set",
            f"stream.servers={servers}",
        ]
        return subprocess.run([*words, *settings]).returncode


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
