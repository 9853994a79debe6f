"""One round of Flower's own SecAgg+ (flwr 1.41, unchanged): its workflow here, its mod and all the clients in a child.

The same shape as ``benchmarks.rounds``, which drives ours: each role's seconds are its own, and the peak memory of this
process is the server's. A message goes through the pipe as the bytes of Flower's own protobuf, and those are counted.

What is left out, always in Flower's favour: turning messages into bytes and back (apart in ``serialising_s``; ours is
part of what a role does), what the wrapped app does (its vector is there), the strategy's averaging (it takes the sum
as it is), and the model, which Flower sends along with the shares (here it is empty; ours does not carry one either).
"""

from __future__ import annotations

import logging
import multiprocessing
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Parameters, Scalar, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import Stage
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.compat.common.recorddict_compat import arrayrecord_to_parameters, fitres_to_recorddict
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.server import LegacyContext, SimpleClientManager
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from benchmarks.memory import peak, start_peak
from benchmarks.rounds import RoundCost, update_of
from protocols.plan import RoundPlan
from secagg.errors import ThresholdError

STAGES = tuple(Stage.all())
"""What Flower calls its four exchanges."""

QUANTIZATION = 1 << 22
"""Flower's default: values of the clipping range become integers below this."""

_NODES = 1 << 60  # node ids are random 64-bit numbers: as long as real ones, and in order
_EXAMPLES = 1000
"""Flower's default for the largest weight. With this one the weighted mean is the plain mean."""


@dataclass(frozen=True, slots=True)
class FlowerRound:
    cost: RoundCost
    """``server_s`` has "start", and for each stage what follows its replies."""
    serialising_s: dict[str, float]
    """Seconds by role to turn messages into bytes and back."""
    mean: NDArray[np.float64]


def run_round(plan: RoundPlan, shares: int, threshold: int, silent: Iterable[int]) -> FlowerRound:
    """Sum up the vectors of ``plan`` with its clipping; client number i of ``silent`` says nothing once it has shared.

    ``shares`` is Flower's ``num_shares``: neighbours, and the client itself.
    """
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    child = context.Process(target=_clients, args=(far, plan.encode()), daemon=True)
    child.start()
    far.close()  # so that a child that dies is an error here, and no wait for ever
    near.recv_bytes()  # it is there
    with quiet():
        grid = _PipeGrid(near, frozenset(_NODES + number for number in silent))
        legacy = legacy_context(cast(Grid, grid), [_NODES + number for number in range(plan.clients)])
        workflow = SecAggPlusWorkflow(shares, threshold, clipping_range=plan.encoding.clip_inf)
        random.seed(0)  # the workflow shuffles its graph with it: always the same dropouts have the same neighbours
        start_peak()
        before = peak()
        grid.back = perf_counter()
        workflow(cast(Grid, grid), legacy)
        grid.note()
    extra = peak() - before
    near.send_bytes(b"")
    cost = RoundCost(grid.client_s, grid.server_s, grid.bytes_up, grid.bytes_down, extra, int(near.recv_bytes()))
    child.join()
    parameters = arrayrecord_to_parameters(legacy.state.array_records[MAIN_PARAMS_RECORD], keep_input=True)
    if len(found := parameters_to_ndarrays(parameters)) != 1:
        raise ThresholdError("Flower's round was halted: somebody has too few neighbours left")
    return FlowerRound(cost, dict(grid.serialising_s), found[0])


# The server's side.


class _PipeGrid:
    """The one method of a grid that SecAgg+ asks for: takes messages to the child one by one, and notes what the
    workflow does in between."""

    def __init__(self, pipe: Connection, silent: frozenset[int]) -> None:
        self._pipe, self._silent, self._exchange = pipe, silent, 0
        self.back = 0.0
        self.client_s, self.server_s = defaultdict[str, float](float), defaultdict[str, float](float)
        self.bytes_up, self.bytes_down = Counter[str](), Counter[str]()
        self.serialising_s = defaultdict[str, float](float)

    def note(self) -> None:
        """The workflow has worked since ``back``."""
        self.server_s[("start", *STAGES)[self._exchange]] += perf_counter() - self.back

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        self.note()
        stage = STAGES[self._exchange]
        gone = self._silent if self._exchange >= STAGES.index(Stage.COLLECT_MASKED_VECTORS) else frozenset()
        replies = [self._carry(stage, message) for message in messages if message.metadata.dst_node_id not in gone]
        self._exchange += 1
        self.back = perf_counter()
        return replies

    def _carry(self, stage: str, message: Message) -> Message:
        started = perf_counter()
        request = _to_bytes(message)
        self.serialising_s["server"] += perf_counter() - started
        self._pipe.send_bytes(request)
        answer = self._pipe.recv_bytes()
        worked, serialised = np.frombuffer(self._pipe.recv_bytes())
        self.client_s[stage] += float(worked)
        self.serialising_s["clients"] += float(serialised)
        self.bytes_down[stage] += len(request)
        self.bytes_up[stage] += len(answer)
        started = perf_counter()
        reply = _from_bytes(answer)
        self.serialising_s["server"] += perf_counter() - started
        return reply


class Everybody(FedAvg):
    """A strategy that asks all clients, and keeps the mean that the workflow hands over with each one's reply."""

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        return [(proxy, FitIns(parameters, {})) for proxy in client_manager.all().values()]

    def aggregate_fit(
        self, server_round: int, results: list[tuple[ClientProxy, FitRes]], failures: Any
    ) -> tuple[Parameters, dict[str, Scalar]]:
        return results[0][1].parameters, {}


def legacy_context(grid: Grid, nodes: Iterable[int]) -> LegacyContext:
    """What the workflow runs in: round 1, an empty model, all nodes asked."""
    manager = SimpleClientManager()
    for node in nodes:
        manager.register(GridClientProxy(node, grid, 1))
    legacy = LegacyContext(context_of(1), strategy=Everybody(), client_manager=manager)
    legacy.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    legacy.state.array_records[MAIN_PARAMS_RECORD] = ArrayRecord()
    return legacy


# The clients' side.


def _clients(pipe: Connection, plan_bytes: bytes) -> None:
    """The child: a context for each client, and Flower's mod between each message and its reply."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    plan = RoundPlan.decode(plan_bytes)
    contexts = {_NODES + number: context_of(_NODES + number) for number in range(plan.clients)}
    start_peak()
    before = peak()
    pipe.send_bytes(b"ready")
    with quiet():
        while request := pipe.recv_bytes():
            answer, worked, serialised = _answer(request, contexts, plan)
            pipe.send_bytes(answer)
            pipe.send_bytes(np.array([worked, serialised]).tobytes())
    pipe.send_bytes(str(peak() - before).encode())


def _answer(request: bytes, contexts: Mapping[int, Context], plan: RoundPlan) -> tuple[bytes, float, float]:
    """The reply, the seconds of the mod, and those for the bytes of both messages."""
    trained = 0.0

    def train(message: Message, context: Context) -> Message:
        nonlocal trained
        began = perf_counter()
        vector = update_of(message.metadata.dst_node_id - _NODES, plan).astype(np.float32)
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([vector]), _EXAMPLES, {})
        reply = Message(fitres_to_recorddict(result, keep_input=True), reply_to=message)
        trained = perf_counter() - began
        return reply

    times = [perf_counter()]
    message = _from_bytes(request)
    times.append(perf_counter())
    reply = secaggplus_mod(message, contexts[message.metadata.dst_node_id], train)
    times.append(perf_counter())
    answer = _to_bytes(reply)
    times.append(perf_counter())
    parsing, working, writing = np.diff(times).tolist()
    return answer, working - trained, parsing + writing


# Both.


def context_of(node: int) -> Context:
    return Context(1, node, {}, RecordDict(), {})


def _to_bytes(message: Message) -> bytes:
    data: bytes = message_to_proto(message).SerializeToString()
    return data


def _from_bytes(data: bytes) -> Message:
    return message_from_proto(ProtoMessage.FromString(data))


@contextmanager
def quiet() -> Iterator[None]:
    """Without Flower's log, which goes to the console."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
