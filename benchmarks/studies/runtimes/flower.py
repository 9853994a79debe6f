"""The rounds of ``runtimes`` in Flower's simulation: what its child process runs, and what Ray's workers import.

One ClientApp answers both strategies: its ``train`` uploads in clear, its ``train.secagg`` has the mod.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.simulation import run_simulation

from benchmarks.studies.runtimes.training import CLIP, DROPOUT, FOLDER, finish, settings, trained
from protocols.adapters.flower import SecAgg, Secure
from protocols.policy import Policy
from protocols.registry import find, names
from protocols.roster import Identity, Roster
from secagg.assumptions import Adversary
from secagg.files import appending

app = ClientApp()


def weighed(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod that notes how many bytes of state a client has after its answer."""
    reply = call_next(message, context)
    held = [value for record in context.state.config_records.values() for value in record.values()]
    with appending(FOLDER / "states") as file:
        os.write(file, b"%d\n" % sum(len(value) for value in held if isinstance(value, bytes)))
    return reply


@app.train()
def plain(message: Message, context: Context) -> Message:
    return _trained(message, context)


POLICY = Policy(min_contributors=2, dropout=DROPOUT, protocols=frozenset(names()), adversary=Adversary.CURIOUS)
SECAGG = SecAgg(POLICY, identity=FOLDER / "{partition-id}.key", roster=FOLDER / "roster.toml")


@app.train("secagg", mods=[weighed, SECAGG])
def secure(message: Message, context: Context) -> Message:
    return _trained(message, context)


def _trained(message: Message, context: Context) -> Message:
    old, number = message.content.array_records["arrays"]["w"].numpy(), int(context.node_config["partition-id"])
    seconds = message.content.config_records["config"]["seconds"]
    arrays = ArrayRecord({"w": Array(trained(old, number, float(seconds)))})  # type: ignore[arg-type]
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)


class Watched(Grid):
    """A grid that notes when each exchange began."""

    def __init__(self, inner: Grid) -> None:
        self._inner, self.began = inner, list[float]()

    def phases(self, names: Iterable[str]) -> dict[str, float]:
        """Seconds of each exchange since the last ``clear``, up to now."""
        times = [end - start for start, end in pairwise([*self.began, perf_counter()])]
        return dict(zip(names, times, strict=True))

    def set_run(self, run: Any) -> None:
        self._inner.set_run(run)

    @property
    def run(self) -> Any:
        return self._inner.run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        return self._inner.create_message(*arguments, **named)

    def get_node_ids(self) -> Iterable[int]:
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.began.append(perf_counter())
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._inner.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        self.began.append(perf_counter())
        return self._inner.send_and_receive(messages, timeout=timeout)


def rounds_of(grid: Grid, roster: Roster) -> None:
    """Plain and secure rounds in turn; the first of each, in which everything is loaded, is not counted."""
    asked, watched, counted = settings(), Watched(grid), list[dict[str, Any]]()
    terms = {"protocol": asked["protocol"], "min_contributors": len(roster) // 2, "dropout": DROPOUT}
    strategies: dict[str, Strategy] = {
        "plain": FedAvg(fraction_evaluate=0.0),
        "secure": Secure(FedAvg(fraction_evaluate=0.0), roster, clip=CLIP, **terms),
    }
    models = dict.fromkeys(strategies, ArrayRecord({"w": Array(np.zeros(asked["d"], np.float32))}))
    exchanges = [str(phase) for phase, step in find(asked["protocol"]).server.steps.items() if not step.optional]
    training = [seconds for seconds in asked["training"] for _ in range(asked["rounds"])]
    for number, seconds in enumerate([0.0, *training]):
        config = ConfigRecord({"seconds": seconds})
        for kind, strategy in strategies.items():
            watched.began.clear()
            started = perf_counter()
            messages = list(strategy.configure_train(number + 1, models[kind], config, watched))
            moved, _ = strategy.aggregate_train(number + 1, watched.send_and_receive(messages, timeout=3600))
            took = perf_counter() - started
            if moved is None:
                raise RuntimeError("a round was given up")
            models[kind] = moved
            if number:
                phases = watched.phases(exchanges if kind == "secure" else ["train"])
                counted.append({"kind": kind, "training": seconds, "seconds": took, "phases": phases})
    finish({kind: model["w"].numpy() for kind, model in models.items()}, counted)


def main() -> None:
    """Reads ``settings.json`` in the folder, writes ``rounds.json``."""
    identities = [Identity.generate(f"client-{i}") for i in range(settings()["clients"])]
    for i, identity in enumerate(identities):
        identity.save(FOLDER / f"{i}.key")
    roster, server = Roster.of(identities), ServerApp()
    roster.save(FOLDER / "roster.toml")

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        while len(list(grid.get_node_ids())) < len(roster):
            time.sleep(0.1)
        rounds_of(grid, roster)

    run_simulation(server, app, len(roster), backend_config={"client_resources": {"num_cpus": 1}})
