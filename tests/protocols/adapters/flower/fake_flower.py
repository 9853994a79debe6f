"""Flower's part, in one process: a grid that takes real messages to real ClientApps, and loses what it is told to lose.

Every message meets a new ClientApp and a new Context, made from what the node had stored: nothing stays in a process.
Messages and contexts go through Flower's own protobufs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod
from flwr.common.serde import context_from_proto, context_to_proto, message_from_proto, message_to_proto
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from protocols.adapters.flower import SecAgg
from protocols.policy import Policy
from protocols.registry import names
from protocols.roster import Identity, Roster
from secagg.assumptions import Adversary

RUN = 7
CLIP = 32767.0
"""With 16 bits the scale is 1: integer changes are summed exactly."""
POLICY = Policy(
    min_contributors=3,
    protocols=frozenset(names()),
    adversary=Adversary.CURIOUS,
    dropout="0.4",
    corrupt="0",
    weight_bound=100,
)


def record(arrays: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def numpy(arrays: ArrayRecord) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in arrays.items()}


@dataclass
class Node:
    config: dict[str, str | int | float | bool]
    app: Callable[[], ClientApp]
    state: bytes = b""
    run_config: dict[str, str | int | float | bool] = field(default_factory=dict)
    """What the SuperLink has told this node."""

    def context(self, number: int) -> Context:
        if self.state:
            context = context_from_proto(context_to_proto(Context(0, 0, {}, RecordDict(), {})).FromString(self.state))
            return Context(RUN, number, self.config, context.state, dict(self.run_config))
        return Context(RUN, number, self.config, RecordDict(), dict(self.run_config))

    def handle(self, message: Message, number: int, *, saved: bool = True) -> Message:
        context = self.context(number)
        reply = self.app()(message, context)
        if saved:
            self.state = context_to_proto(context).SerializeToString()
        return reply


@dataclass
class Clock:
    """The time in which ``Secure`` waits for replies; nobody really sleeps."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


CLOCK = Clock()


@dataclass
class Fakegrid(Grid):
    """``fate(exchange, node)`` says what happens to a message: "" (nothing), "lost" on its way there, "unheard" (its
    reply is lost), "crashed" (the node forgets what the message did, and its reply is lost), "failed" (an error).

    ``delay(exchange, node)`` says how many seconds of ``CLOCK`` a reply takes, in all exchanges but the first.
    """

    nodes: dict[int, Node]
    fate: Callable[[int, int], str] = lambda exchange, node: ""
    delay: Callable[[int, int], float] = lambda exchange, node: 0.0
    ready: dict[str, tuple[float, Message]] = field(default_factory=dict)
    exchange: int = 0
    said: list[Message] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    tamper: Callable[[Message], Message] = lambda message: message
    tamper_reply: Callable[[Message], Message] = lambda message: message

    def __post_init__(self) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN, 1

    def set_run(self, run: object) -> None: ...

    @property
    def run(self) -> object:
        return None

    def create_message(self, *arguments: object) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        numbers = []
        for message in messages:
            numbers.append(str(len(self.sent)))
            message.metadata.__dict__["_message_id"] = numbers[-1]  # as Flower does
            if (reply := self.carry(message)) is not None:
                arrives = CLOCK.now + self.delay(self.exchange, message.metadata.dst_node_id)
                self.ready[numbers[-1]] = (arrives, reply)
        self.exchange += 1
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        here = [number for number in message_ids if self.ready.get(number, (np.inf, None))[0] <= CLOCK.now]
        return [self.ready.pop(number)[1] for number in here]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            reply = self.carry(message)
            if reply is not None:
                replies.append(reply)
        self.exchange += 1
        return replies

    def carry(self, message: Message) -> Message | None:
        number = message.metadata.dst_node_id
        fate = self.fate(self.exchange, number)
        self.sent.append(message)
        if fate == "lost":
            return None
        arrived = message_from_proto(message_to_proto(self.tamper(message)))
        if fate == "failed":
            return Message(Error(0, "node is gone"), reply_to=arrived)
        reply = self.nodes[number].handle(arrived, number, saved=fate != "crashed")
        self.said.append(reply)
        if fate in ("unheard", "crashed"):
            return None
        return self.tamper_reply(message_from_proto(message_to_proto(reply)))


Train = Callable[[int, dict[str, np.ndarray]], tuple[dict[str, np.ndarray], dict[str, float]]]


def app_of(secagg: Callable[[], SecAgg], train: Train, mods: Sequence[Mod] = ()) -> Callable[[], ClientApp]:
    """An ordinary ClientApp around ``train(partition, model)``."""

    def made() -> ClientApp:
        app = ClientApp(mods=list(mods))

        @app.train("secagg", mods=[secagg()])
        def train_function(message: Message, context: Context) -> Message:
            assert "secagg" not in message.content
            partition = int(context.node_config["partition-id"])
            [arrays] = message.content.array_records.values()
            new, metrics = train(partition, numpy(arrays))
            content = RecordDict({"arrays": record(new), "metrics": MetricRecord(metrics)})
            return Message(content, reply_to=message)

        @app.evaluate()
        def evaluate(message: Message, context: Context) -> Message:
            return Message(
                RecordDict({"metrics": MetricRecord({"num-examples": 1, "accuracy": 0.5})}), reply_to=message
            )

        return app

    return made


@dataclass
class Federation:
    """Identities and a roster on disk, and a grid of nodes that know their paths."""

    roster: Roster
    identities: list[Identity]
    grid: Fakegrid

    @property
    def numbers(self) -> dict[str, int]:
        return {identity.name: 100 + i for i, identity in enumerate(self.identities)}


def identities(count: int, folder: Path) -> list[Identity]:
    made = [Identity.generate(f"client-{i}") for i in range(count)]
    for i, identity in enumerate(made):
        identity.save(folder / f"{i}.key")
    Roster.of(made).save(folder / "roster.toml")
    return made


def federation(
    folder: Path,
    train: Train,
    *,
    count: int = 5,
    policy: Policy = POLICY,
    secagg: Callable[[], SecAgg] | None = None,
    journals: bool = False,
) -> Federation:
    known = identities(count, folder)
    nodes = {}
    for i in range(count):
        config = {
            "partition-id": i,
            "secagg-identity": str(folder / f"{i}.key"),
            "secagg-roster": str(folder / "roster.toml"),
        }
        if journals:
            config["secagg-journal"] = str(folder / f"{i}.db")
        nodes[100 + i] = Node(config, app_of(secagg or (lambda: SecAgg(policy)), train))
    return Federation(Roster.of(known), known, Fakegrid(nodes))


def integer_training(model: dict[str, np.ndarray], seed: int, largest: int = 3) -> Train:
    """Training that moves floats and integers by whole numbers, each client by its own."""

    def train(partition: int, old: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        rng = np.random.default_rng([seed, partition])
        new = {}
        for name, array in old.items():
            step = rng.integers(-largest, largest + 1, array.shape)
            new[name] = array ^ (step > 0) if array.dtype == bool else (array + step).astype(array.dtype)
        return new, {"num-examples": 10 * (partition + 1), "loss": 1.0 + partition}

    return train


def config() -> ConfigRecord:
    return ConfigRecord({"lr": 0.1})
