"""Any of our protocols inside Flower (extra ``flower``): a mod for its ClientApp, a strategy around its strategies.

    client: app = ClientApp(mods=[only_secagg])
            @app.train("secagg", mods=[SecAgg(Policy(min_contributors=5))])      on an ordinary train function
    server: Secure(FedAvg(), roster, clip=1.0, min_contributors=5)               instead of FedAvg()

Flower carries the messages and says which node is speaking; who a client *is*, its roster says, which the deployment
puts beside the node (``secagg-identity`` and ``secagg-roster`` in the node config). A round starts with what the
strategy wants to send, and our plan and form with it. The train function's reply stays on the client: what leaves it
is the frames of its ``protocols.client.Client``, phase after phase, until the server has one sum. From that it makes
one reply, as if a single client had trained, and hands it to the strategy.

What the train function can read of the server is hashed into the plan (the model, all other records, the run config,
the run) or is made here and not taken from it (the rest of the message). It is called once for a plan, and with an
empty state, so that how often it was called says nothing either. A plan is refused before the train function is called
or not at all: when training fails, zeros go into the sum, and no message looks any different.

Each message may reach another process of the same node, so a client lives in ``context.state``: its journal, sealed,
and until it is uploaded its vector, sealed, too. All our messages are of the type ``train.secagg``: a ClientApp
without this mod has no function of that name, and says so instead of uploading a model in clear.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from logging import ERROR, INFO, WARNING
from math import floor
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any, TypeAlias

import numpy as np
from flwr.app import (
    DEFAULT_TTL,
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
    UserConfig,
)
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import log
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, SType
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedMedian,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    MultiKrum,
    QFedAvg,
    Strategy,
)
from numpy.typing import NDArray

from dp.calibrate import calibrate
from dp.ledger import Ledger
from dp.noise import NoiseSpec
from protocols.adapters.flower_state import OURS, KeptVector, StateJournal, value_of
from protocols.adapters.form import FORM, Form, Told, canonical
from protocols.client import Client
from protocols.journal import Journal, SqliteJournal
from protocols.outcome import RoundOutcome
from protocols.plan import SESSION_BYTES, RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.server import ServerRound
from protocols.server import serve
from secagg.assumptions import Adversary, fraction
from secagg.crypto.prg import Rng
from secagg.encoding import Encoding
from secagg.errors import (
    BudgetError,
    DecodeError,
    PeerError,
    PolicyError,
    SecAggError,
    StorageError,
    ThresholdError,
    UnblamedError,
    UsageError,
)
from secagg.foreign import parse_array

MESSAGE_TYPE = "train.secagg"
WEIGHTED_BY = "num-examples"
"""The metric by which clients count, unless they say otherwise; Flower's own word."""
CHUNK_BYTES = 64 << 20
"""A frame travels in records of so many bytes: each is one protobuf, which cannot be larger than 2 GiB."""

_RECORD, _CHUNK = "secagg", "secagg.frame."
_SHORTEST_WAIT, _LONGEST_WAIT = 0.01, 1.0
"""Seconds between two looks for replies; in between, a tenth of what has been waited."""

Record: TypeAlias = ArrayRecord | ConfigRecord | MetricRecord


# The client


class SecAgg:
    """A mod for one train function. What it needs of the deployment, it takes from the node config.

    ``secagg-identity`` and ``secagg-roster`` are paths; ``secagg-journal`` (a ``SqliteJournal`` instead of
    ``context.state``) and ``secagg-ledger`` (this client's own budget, which needs such a journal) may be. The
    arguments of the same names stand in where the node config says nothing, and may contain ``{partition-id}``: a
    simulation's nodes have no more than that.

    ``weighted_by`` is the one metric by which this client lets itself be weighed, up to ``policy.weight_bound``.

    The train function gets an empty ``context.state``, and what it leaves there is forgotten. With ``stateful`` it gets
    what it left there the last time. Then a server that lets some clients train more often than others steers what they
    keep, such as a schedule: a sum over all can be made the update of one.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        weighted_by: str = WEIGHTED_BY,
        identity: str | Path = "",
        roster: str | Path = "",
        journal: str | Path = "",
        ledger: str | Path = "",
        deployment: str = "",
        stateful: bool = False,
        rng: Rng = os.urandom,
    ) -> None:
        self._policy, self._weighted_by, self._stateful = policy, weighted_by, stateful
        self._deployment, self._rng = deployment, rng
        self._paths = {"identity": identity, "roster": roster, "journal": journal, "ledger": ledger}

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        try:
            return Message(self._answer(message, context, call_next), reply_to=message)
        except SecAggError as error:
            log(WARNING, "secagg: %s: %s", type(error).__name__, error)
            return _refusal(_said_of(error), message)
        except Exception as error:  # noqa: BLE001  # of whatever kind: Flower would send its text, and paths, to the server
            log(ERROR, "secagg: a message could not be answered", exc_info=error)
            return _refusal("this node failed", message)

    def _answer(self, message: Message, context: Context, call_next: ClientAppCallable) -> RecordDict:
        ours = _ours(message)
        plan = RoundPlan.decode(value_of(ours, "plan", bytes))
        identity = Identity.load(self._path(context, "identity"))
        roster = Roster.load(self._path(context, "roster"))
        kept, begins = KeptVector(context.state, identity, plan, self._rng), "form" in ours
        with ExitStack() as held:
            journal, ledger = self._journal(context, held), self._ledger(context, identity, held)
            client = Client(
                identity,
                roster,
                policy=self._policy,
                journal=journal,
                ledger=ledger,
                deployment=self._deployment,
                rng=self._rng,
            )
            trains = begins and not client.check(plan)
            if trains:
                form, old, asked, own = self._agreed(message, context, plan, roster.number(identity.name))
                frame = client.start(plan, *_trained(form, old, lambda: call_next(asked, own)))
                self._remember(context.state, own.state)
                kept.keep(client.encoded())
            else:
                frame = client.resume(plan, kept.vector)
                if not client.uploaded:
                    kept.sealed()  # or it refuses now, not when the others have masked with it
                if not begins:
                    frame = client.receive(_joined(message.content))
            if client.uploaded:
                kept.forget()
            if client.done:
                client.finish()
        return _carried({"name": identity.name}, frame)

    def _agreed(
        self, message: Message, context: Context, plan: RoundPlan, number: int
    ) -> tuple[Form, dict[str, NDArray[Any]], Message, Context]:
        """What all clients of the plan were told, and that as the train function gets it, with nothing beside it."""
        form = FORM.decode(value_of(_ours(message), "form", bytes))
        records = {name: record for name, record in message.content.items() if name != _RECORD}
        key, record = _model_in(records)
        old = _numpy(record)
        if form.weight not in ("", self._weighted_by):
            raise PolicyError("this client does not count by the metric that the form names")
        form.check_plan(plan, old, _told(records, key, context.run_id, context.run_config))

        content = RecordDict({name: _sorted(records[name]) for name in sorted(records)})
        content[key] = _arrays(old)
        config = {name: context.run_config[name] for name in sorted(context.run_config)}
        metadata = Metadata(
            run_id=context.run_id,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=number,
            reply_to_message_id="",
            group_id=str(plan.round),
            created_at=time(),
            ttl=DEFAULT_TTL,
            message_type=MESSAGE_TYPE,
        )
        asked = Message(metadata=metadata, content=content)  # type: ignore[call-overload,unused-ignore]
        state = {name: record for name, record in context.state.items() if self._stateful and name not in OURS}
        return form, old, asked, Context(context.run_id, number, context.node_config, RecordDict(state), config)

    def _remember(self, state: RecordDict, left: RecordDict) -> None:
        """For the next training, what this one left in its state, if it may."""
        if self._stateful:
            for name in state.keys() - OURS:
                del state[name]
            state.update({name: record for name, record in left.items() if name not in OURS})

    def _path(self, context: Context, what: str) -> str:
        given = str(context.node_config.get(f"secagg-{what}", self._paths[what]))
        if "{partition-id}" in given:
            if "partition-id" not in context.node_config:
                raise UsageError(f"the path of the {what} names a partition-id, and this node has none")
            given = given.replace("{partition-id}", str(context.node_config["partition-id"]))
        if not given and what in ("identity", "roster"):
            raise UsageError(f"no secagg-{what} in the config of this node")
        return given

    def _journal(self, context: Context, held: ExitStack) -> Journal:
        if path := self._path(context, "journal"):
            return held.enter_context(closing(SqliteJournal(path)))
        if self._path(context, "ledger"):
            raise UsageError("a secagg-ledger needs a secagg-journal: what context.state holds is forgotten")
        return StateJournal(context.state)

    def _ledger(self, context: Context, identity: Identity, held: ExitStack) -> Ledger | None:
        if path := self._path(context, "ledger"):
            return held.enter_context(closing(Ledger.open(path, identity.key)))
        return None


def only_secagg(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod for a whole app, ``ClientApp(mods=[only_secagg])``: what is not for ``SecAgg`` is answered with an error.

    An evaluation tells the loss of one client's data at a model that the server chooses, a few of them its gradient.
    """
    if message.metadata.message_type == MESSAGE_TYPE:
        return call_next(message, context)
    log(WARNING, "secagg: a message of the type %s is not answered", message.metadata.message_type)
    return _refusal(f"this app answers {MESSAGE_TYPE} and nothing else", message)


def _refusal(reason: str, message: Message) -> Message:
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)


_REASONS: dict[type[SecAggError], str] = {
    BudgetError: "the privacy budget of this client does not allow that",
    DecodeError: "the message is not what it should be",
    PeerError: "the message breaks the protocol",
    PolicyError: "this client does not accept that",
    StorageError: "this node cannot read or write what it has to remember",
    ThresholdError: "too few are left",
    UsageError: "this node is not set up for that",
}
"""What of an error leaves the node. Its own text can name paths, what has been spent, and what this client demands."""


def _said_of(error: SecAggError) -> str:
    kind = next((kind for kind in _REASONS if isinstance(error, kind)), None)
    return f"{kind.__name__}: {_REASONS[kind]}" if kind else "this node failed"


def _trained(
    form: Form, old: Mapping[str, NDArray[Any]], train: Callable[[], Message]
) -> tuple[NDArray[np.float64] | None, int]:
    """What the train function has changed, and its weight. Neither its reply nor its failure goes any further."""
    try:
        reply = train()
        if reply.has_error():
            raise UsageError(f"the train function answers with an error: {reply.error.reason}")
        _, record = _model_in(reply.content)
        values = reply.content.metric_records.values()
        metrics = {name: v for one in values for name, v in one.items() if not isinstance(v, list)}
        if missing := form.missing(metrics):
            log(WARNING, "secagg: not measured, or no finite number: %s", ", ".join(missing))
        return form.change(old, _numpy(record), metrics), _weight(form, metrics)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # a panic of Rust code, too: nobody but this node may notice
        log(ERROR, "secagg: training failed, and counts as nothing", exc_info=error)
        return form.failed(), 1


def _weight(form: Form, metrics: Mapping[str, float]) -> int:
    """How much this client counts; who has more than the bound counts as the bound (``Encoding``)."""
    if not form.weight:
        return 1
    value = float(metrics[form.weight])
    if not value.is_integer() or value < 1:
        raise UsageError(f"{form.weight}, by which this client counts, is not a positive integer")
    return int(value)


# The server


@dataclass(frozen=True, slots=True)
class Privacy:
    """Users who take part in ``rounds`` sums are protected at (epsilon, delta): see ``dp.calibrate``."""

    epsilon: float
    delta: float
    rounds: int
    ring_bits: int = 24
    components: int = 0


@dataclass(slots=True)
class _Round:
    """What the server knows of the round between ``configure_train`` and ``aggregate_train``."""

    form: Form
    key: str
    """Of the array record, in the messages of the strategy."""
    old: Mapping[str, NDArray[Any]]
    machine: ServerRound
    grid: Grid
    asked: Message
    nodes: dict[str, int] = field(default_factory=dict)
    """Which node speaks for which client: the first whose frame was good."""


_NEED_SINGLE_UPDATES = (
    Bulyan,
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedMedian,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    MultiKrum,
    QFedAvg,
)


class Secure(Strategy):  # type: ignore[misc,unused-ignore]  # Any, where flwr is not installed
    """Training as ``strategy`` wants it, but of the clients' updates it sees the mean and nothing else.

    ``clip`` bounds how far one client may move the model (L2), ``metrics`` are the names of what clients report with
    the largest values they can have, and with ``weight_bound`` above 1 a client counts as often as its metric
    ``strategy.weighted_by_key`` says. All of these are summed under the mask. ``run_config`` is that of the run
    (``context.run_config``), which clients train by. ``corrupt``, ``dropout`` and ``adversary`` are what the parameters
    are chosen for, ``timeout`` (seconds) is for each phase after training.

    With ``privacy`` the sum is noised, and charged to ``ledger``; what is missing from the cohort counts as zero then,
    and the metric ``failed`` says of what share of the clients something failed. Evaluation is delegated as it is:
    nothing is hidden there.
    """

    def __init__(
        self,
        strategy: Strategy,
        roster: Roster,
        *,
        clip: float,
        min_contributors: int,
        run_config: UserConfig | None = None,
        protocol: str = "secagg+",
        bits: int = 16,
        metrics: Mapping[str, float] | None = None,
        weight_bound: int = 1,
        corrupt: str | float = "0.05",
        dropout: str | float = "0.1",
        adversary: Adversary | str = Adversary.ACTIVE,
        timeout: float = 60.0,
        beacon: bytes = b"",
        privacy: Privacy | None = None,
        ledger: Ledger | None = None,
        rng: Rng = os.urandom,
    ) -> None:
        if isinstance(strategy, _NEED_SINGLE_UPDATES):
            raise UsageError(f"{type(strategy).__name__} looks at single updates, and here there is only their mean")
        if (privacy is None) != (ledger is None):
            raise UsageError("privacy is charged to a ledger, and only that")
        if privacy is not None and weight_bound > 1:
            raise UsageError("with privacy every client counts once: weight_bound is 1")
        self.strategy, self.roster, self.timeout = strategy, roster, timeout
        self.outcome: RoundOutcome | None = None
        """Of the last round; None if it was given up."""
        self.liars: tuple[str, ...] = ()
        """Who was caught lying in the last round; that is the word of this server."""
        self.excluded: tuple[str, ...] = ()
        """Who was left out of it before vectors were sent; they may have been silent only."""
        self._protocol, self._least, self._beacon = protocol, min_contributors, beacon
        self._clip, self._bits, self._metrics, self._weight_bound = clip, bits, dict(metrics or {}), weight_bound
        self._corrupt, self._dropout, self._adversary = corrupt, dropout, adversary
        self._privacy, self._ledger, self._run_config = privacy, ledger, dict(run_config or {})
        self._session, self._weight_key = rng(SESSION_BYTES), str(getattr(strategy, "weighted_by_key", WEIGHTED_BY))
        self._round: _Round | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._round = self.outcome = None
        self.liars = self.excluded = ()
        asked = list(self.strategy.configure_train(server_round, arrays, config, grid))
        if len(asked) < self._least:
            log(WARNING, "secagg: %d clients are asked, at least %d must take part", len(asked), self._least)
            return []
        key, old, told = _same_for_all(asked, self._run_config)
        form = Form.of(
            old,
            clip=self._clip,
            bits=self._bits,
            metrics=self._metrics,
            weight_bound=self._weight_bound,
            weight=self._weight_key,
            failures=self._privacy is not None,
        )
        plan = self._plan(form, server_round, form.model(old, told), len(asked))
        try:
            machine = serve(plan, self.roster, ledger=self._ledger)
        except BudgetError as error:
            log(WARNING, "secagg: round %d does not begin: %s", server_round, error)
            return []
        self._round = _Round(form, key, old, machine, grid, asked[0])
        ours = ConfigRecord({"plan": plan.encode(), "form": FORM.encode(form)})
        return [
            _message(RecordDict({**message.content, _RECORD: ours}), message.metadata.dst_node_id, message.metadata.ttl)
            for message in asked
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        current, self._round = self._round, None
        if current is None:
            return None, None
        try:
            self.outcome = self._summed(current, replies)
        except (BudgetError, PeerError, ThresholdError) as error:
            log(WARNING, "secagg: round %d is given up: %s", server_round, error)
            return None, None
        finally:
            self._note(server_round, current.machine)
        plan, form, total = current.machine.plan, current.form, self.outcome.decode()
        log(INFO, "secagg: the sum is of %d clients out of %d", len(self.outcome.survivors), plan.clients)
        count = total.weight if plan.noise is None else plan.clients
        if not count:
            log(WARNING, "secagg: round %d changes nothing: no client had anything to contribute", server_round)
            return None, None
        moved, metrics = form.applied(current.old, total.vector / count)
        measured = MetricRecord({**metrics, self._weight_key: count})
        reply = Message(RecordDict({current.key: _arrays(moved), "metrics": measured}), reply_to=current.asked)
        arrays, aggregated = self.strategy.aggregate_train(server_round, [reply])
        return None if arrays is None else _arrays(form.restored(_numpy(arrays))), aggregated

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages: Iterable[Message] = self.strategy.configure_evaluate(server_round, arrays, config, grid)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        self.strategy.summary()
        log(INFO, "\t└──> Secure aggregation of training: %s, clip %g", self._protocol, self._clip)
        log(INFO, "\t\t└── Evaluation is not protected")

    def _plan(self, form: Form, server_round: int, model: bytes, clients: int) -> RoundPlan:
        encoding, noise = self._encoding(form, clients)
        first = RoundPlan.propose(
            self._protocol,
            self.roster,
            encoding,
            min_contributors=self._least,
            clients=clients,
            corrupt=self._corrupt,
            dropout=self._dropout,
            adversary=self._adversary,
            noise=noise,
            session=self._session,
            model=model,
            beacon=self._beacon,
        )
        return replace(first, round=server_round)

    def _encoding(self, form: Form, clients: int) -> tuple[Encoding, NoiseSpec | None]:
        if self._privacy is None:
            return form.encoding, None
        found = calibrate(
            epsilon=self._privacy.epsilon,
            delta=self._privacy.delta,
            rounds=self._privacy.rounds,
            clients=clients,
            length=form.length,
            clip_l2=form.clip_l2,
            ring_bits=self._privacy.ring_bits,
            dropouts=clients - self._least,
            colluders=floor(fraction(self._corrupt) * clients),
            components=self._privacy.components,
        )
        return found.encoding, found.noise

    def _note(self, server_round: int, machine: ServerRound) -> None:
        self.liars, self.excluded = machine.liars, machine.excluded
        if machine.remarks:
            log(WARNING, "secagg: round %d: %s", server_round, machine.remarks)

    def _summed(self, current: _Round, replies: Iterable[Message]) -> RoundOutcome:
        """All phases after the first messages, each with its own timeout."""
        machine = current.machine
        while True:
            for reply in replies:
                self._take(current, reply)
            machine.close(machine.phase)
            if machine.outcome is not None:
                return machine.outcome
            plan = {"plan": machine.plan.encode()}
            frames = [
                _message(_carried(plan, frame), current.nodes[name], self.timeout) for name, frame in machine.outbox()
            ]
            replies = _replies(current.grid, frames, self.timeout)

    def _take(self, current: _Round, reply: Message) -> None:
        """A reply that is no good is passed over: its client counts as silent."""
        node = reply.metadata.src_node_id
        if reply.has_error():
            log(INFO, "secagg: node %d: %s", node, reply.error.reason)
            return
        try:
            name = value_of(_ours(reply), "name", str)
            if name not in self.roster.names:
                raise PeerError("a client that is not in the roster")
            if current.nodes.get(name, node) != node:
                raise UnblamedError("another node speaks for this client")
            # Until its first good frame anybody can say that it speaks for this client.
            current.machine.receive(name, _joined(reply.content), known=name in current.nodes)
        except (DecodeError, PeerError) as error:
            log(WARNING, "secagg: node %d: %s", node, error)
        else:
            current.nodes[name] = node


def _replies(grid: Grid, frames: list[Message], timeout: float) -> Iterator[Message]:
    """The replies, each as it comes. ``Grid.send_and_receive`` looks for them every 0.1 s, on a SuperLink every 3 s."""
    if not frames:
        return
    waiting, began = set(grid.push_messages(frames)) - {None}, monotonic()  # None: a message that Flower did not take
    while waiting and (passed := monotonic() - began) < timeout:
        for reply in grid.pull_messages(waiting):
            waiting.discard(reply.metadata.reply_to_message_id)
            yield reply
        if waiting:
            sleep(min(max(passed / 10, _SHORTEST_WAIT), _LONGEST_WAIT))


def _same_for_all(asked: list[Message], run_config: UserConfig) -> tuple[str, dict[str, NDArray[Any]], Told]:
    """The one model that the strategy sends to all, the key under which it does, and what else all are told."""
    first = asked[0]
    if _RECORD in first.content:
        raise UsageError(f"the strategy sends a record named {_RECORD}: that is ours")
    key, record = _model_in(first.content)
    old, told = _numpy(record), _told(first.content, key, first.metadata.run_id, run_config)
    for message in asked[1:]:
        if message.content is first.content:
            continue
        other = message.content.array_records.get(key)
        if other is not record and (other is None or not _same(old, _numpy(other))):
            raise UsageError(
                "the strategy sends different models to different clients: their changes have no common sum"
            )
        if canonical(_told(message.content, key, message.metadata.run_id, run_config)) != canonical(told):
            raise UsageError(
                "the strategy tells different clients different things: that is how a sum is made one client's update"
            )
    return key, old, told


def _same(some: Mapping[str, NDArray[Any]], others: Mapping[str, NDArray[Any]]) -> bool:
    return list(some) == list(others) and all(
        some[name].dtype == others[name].dtype and np.array_equal(some[name], others[name]) for name in some
    )


def _message(content: RecordDict, node: int, ttl: float) -> Message:
    return Message(content, dst_node_id=node, message_type=MESSAGE_TYPE, ttl=ttl)


# What both sides read and write


def _carried(fields: Mapping[str, str | bytes], frame: bytes) -> RecordDict:
    """A frame in records of ``CHUNK_BYTES``, and one that says what it is."""
    parts = [frame[at : at + CHUNK_BYTES] for at in range(0, len(frame), CHUNK_BYTES)]
    chunks = {f"{_CHUNK}{i}": ConfigRecord({"bytes": part}) for i, part in enumerate(parts)}
    return RecordDict({_RECORD: ConfigRecord({**fields, "chunks": len(parts)}), **chunks})


def _joined(content: RecordDict) -> bytes:
    records = content.config_records
    count = value_of(records[_RECORD], "chunks", int)
    names = [name for name in records if name.startswith(_CHUNK)]
    if len(names) != count or set(names) != {f"{_CHUNK}{i}" for i in range(len(names))}:
        raise DecodeError("chunks of a frame are missing")
    return b"".join([value_of(records[f"{_CHUNK}{i}"], "bytes", bytes) for i in range(count)])


def _ours(message: Message) -> ConfigRecord:
    record = message.content.config_records.get(_RECORD) if message.has_content() else None
    if record is None:
        raise DecodeError("a message without a secagg record")
    return record


def _model_in(records: Mapping[str, Record]) -> tuple[str, ArrayRecord]:
    found = [(name, record) for name, record in records.items() if isinstance(record, ArrayRecord)]
    if len(found) != 1:
        raise UsageError(f"a model is one array record, not {len(found)}")
    return found[0]


def _told(records: Mapping[str, Record], key: str, run: int, config: UserConfig) -> Told:
    """All that a train function can read of the server, but for the arrays: those are under ``key``."""
    others = {name: [type(one).__name__, {**one}] for name, one in records.items() if name not in (key, _RECORD)}
    return {"model": key, "records": others, "run": run, "run config": dict(config)}


def _sorted(record: Record) -> Record:
    """The same in one order, which therefore tells nothing; that of arrays is in the form."""
    if isinstance(record, ConfigRecord):
        return ConfigRecord({name: record[name] for name in sorted(record)})
    if isinstance(record, MetricRecord):
        return MetricRecord({name: record[name] for name in sorted(record)})
    return record


def _numpy(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Not by Flower's own ``Array.numpy``: that allocates what a header announces, and opens archives."""
    if any(array.stype != SType.NUMPY for array in record.values()):
        raise DecodeError("an array record that does not hold numpy arrays")
    return {name: parse_array(array.data) for name, array in record.items()}


def _arrays(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """In one memory layout, whatever they came in."""
    return ArrayRecord({name: Array(np.array(array, order="C")) for name, array in arrays.items()})
