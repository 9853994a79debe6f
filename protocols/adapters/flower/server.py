"""Flower's server side: a strategy that runs another strategy on the mean of the clients' updates."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from logging import INFO, WARNING
from time import monotonic, sleep
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict, UserConfig
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp import strategy as strategies
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from dp.ledger import Ledger
from dp.noise import NoiseSpec
from protocols.adapters.flower.messages import (
    MESSAGE_TYPE,
    RECORD,
    WEIGHTED_BY,
    arrays_in,
    content_with_frame,
    field_of,
    frame_in,
    instructions_in,
    model_in,
    record_of,
    secagg_record,
)
from protocols.adapters.form import FORM, Form
from protocols.adapters.instructions import Instructions, canonical_bytes
from protocols.adapters.privacy import Privacy
from protocols.adapters.users import Silos
from protocols.outcome import RoundOutcome
from protocols.parameters import ALLOWED
from protocols.plan import SESSION_BYTES, RoundPlan
from protocols.roster import Roster
from protocols.rounds.server import ServerRound
from protocols.server import serve
from secagg.assumptions import Adversary
from secagg.crypto.prg import Rng
from secagg.encoding import Encoding, Sum
from secagg.errors import BudgetError, DecodeError, PeerError, PolicyError, ThresholdError, UnblamedError, UsageError
from secagg.signed_versions import Version

_SHORTEST_WAIT, _LONGEST_WAIT = 0.01, 1.0
"""Seconds between two looks for replies; in between these a tenth of the time that has passed."""


@dataclass(slots=True)
class _Round:
    """A round between ``configure_train`` and ``aggregate_train``."""

    form: Form
    key: str
    """The name of the record of arrays in the messages of the strategy."""
    old: Mapping[str, NDArray[Any]]
    machine: ServerRound
    grid: Grid
    asked: Message
    nodes: dict[str, int] = field(default_factory=dict)
    """Which node speaks for which client: the first whose frame was good."""


_NEED_SINGLE_UPDATES = (
    strategies.Bulyan,
    strategies.DifferentialPrivacyClientSideAdaptiveClipping,
    strategies.DifferentialPrivacyClientSideFixedClipping,
    strategies.DifferentialPrivacyServerSideAdaptiveClipping,
    strategies.DifferentialPrivacyServerSideFixedClipping,
    strategies.FedMedian,
    strategies.FedTrimmedAvg,
    strategies.FedXgbBagging,
    strategies.FedXgbCyclic,
    strategies.MultiKrum,
    strategies.QFedAvg,
)


class Secure(Strategy):  # type: ignore[misc,unused-ignore]  # Any, where flwr is not installed
    """Training as ``strategy`` wants it, but of the clients' updates it sees the mean and nothing else.

    ``clip`` bounds how far one client may move the model (L2), ``metrics`` are the names of what clients report with
    the largest values they can have, and with ``weight_bound`` above 1 clients are weighted by their metric
    ``strategy.weighted_by_key``. All of these are summed under the mask. ``run_config`` is that of the run
    (``context.run_config``), which clients train by. ``corrupt``, ``dropout`` and ``adversary`` are what the parameters
    are chosen for, ``timeout`` (seconds) is for each phase after training. With the protocol "auto" each round has that
    of the ``allowed`` ones, which are those of the clients' policies, that is predicted to be the fastest
    (``RoundPlan.propose``); why, is in the log.

    With ``privacy`` the sum is noised, and charged to ``ledger``; what is missing from the cohort counts as zero then,
    and the metric ``failed`` says of what share of the clients something failed. Evaluation is delegated as it is:
    nothing is hidden there.

    With ``silos`` clients answer with a training for each of their users (``SecAgg``): ``clip`` and the metrics'
    largest values bound one user, ``privacy`` is promised to each user against all but its own silo, and means are over
    the declared number of users. ``ledger`` is one for users inside silos then.

    ``sign`` gives the deployment's version of each model for its digest (``RoundPlan.signed``), for clients that
    ask for that; where it refuses, the round does not begin. ``roster`` may be exchanged for a newer one between two
    rounds.
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
        allowed: Set[str] = ALLOWED,
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
        silos: Silos | None = None,
        sign: Callable[[bytes], Version] | None = None,
        rng: Rng = os.urandom,
    ) -> None:
        if isinstance(strategy, _NEED_SINGLE_UPDATES):
            raise UsageError(f"{type(strategy).__name__} looks at single updates, and here there is only their mean")
        if (privacy is None) != (ledger is None):
            raise UsageError("privacy is charged to a ledger, and only that")
        if privacy is not None and weight_bound > 1:
            raise UsageError("with privacy every client counts once: weight_bound is 1")
        if silos is not None and weight_bound > 1:
            raise UsageError("in silos every user counts once: weight_bound is 1")
        self.strategy, self.roster, self.timeout = strategy, roster, timeout
        self.outcome: RoundOutcome | None = None
        """The outcome of the last round; None if it was given up."""
        self.liars: tuple[str, ...] = ()
        """Who was caught lying in the last round; only this server's word stands for it."""
        self.excluded: tuple[str, ...] = ()
        """Who was left out of the last round before vectors were sent; they may have been silent only."""
        self._protocol, self._clip, self._min_contributors, self._corrupt = protocol, clip, min_contributors, corrupt
        self._privacy, self._ledger, self._run_config = privacy, ledger, dict(run_config or {})
        self._silos, self._sign = silos, sign
        self._weighted_by = str(getattr(strategy, "weighted_by_key", WEIGHTED_BY))
        self._form_of = partial(
            Form.of,
            clip=clip,
            bits=bits,
            metrics=dict(metrics or {}),
            weight_bound=weight_bound,
            weight=self._weighted_by,
            failures=privacy is not None,
            users=0 if silos is None else silos.most,
            overlap=1 if silos is None else silos.overlap,
        )
        self._propose = partial(
            RoundPlan.propose,
            protocol,
            min_contributors=min_contributors,
            corrupt=corrupt,
            dropout=dropout,
            adversary=adversary,
            session=rng(SESSION_BYTES),
            beacon=beacon,
            allowed=allowed,
            tell=partial(log, INFO, "secagg: %s"),
        )
        self._round: _Round | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._round = self.outcome = None
        self.liars = self.excluded = ()
        asked = list(self.strategy.configure_train(server_round, arrays, config, grid))
        if len(asked) < self._min_contributors:
            log(WARNING, "secagg: %d clients are asked, at least %d must take part", len(asked), self._min_contributors)
            return []
        key, old, instructions = _common_task(asked, self._run_config)
        form = self._form_of(old)
        try:
            plan = self._plan(form, server_round, form.model_digest(old, instructions), len(asked))
            machine = serve(plan, self.roster, ledger=self._ledger)
        except (BudgetError, PolicyError) as error:
            log(WARNING, "secagg: round %d does not begin: %s", server_round, error)
            return []
        self._round = _Round(form, key, old, machine, grid, asked[0])
        record = ConfigRecord({"plan": plan.encode(), "form": FORM.encode(form)})
        return [
            _message_to(one.metadata.dst_node_id, RecordDict({**one.content, RECORD: record}), one.metadata.ttl)
            for one in asked
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        current, self._round = self._round, None
        if current is None:
            return None, None
        try:
            self.outcome = self._run_phases(current, replies)
        except (BudgetError, PeerError, ThresholdError) as error:
            log(WARNING, "secagg: round %d is given up: %s", server_round, error)
            return None, None
        finally:
            self._publish_remarks(server_round, current.machine)
        plan, form, total = current.machine.plan, current.form, self.outcome.decode()
        log(INFO, "secagg: the sum is of %d clients out of %d", len(self.outcome.survivors), plan.clients)
        if not (count := self._denominator(plan, total)):
            log(WARNING, "secagg: round %d changes nothing: no client had anything to contribute", server_round)
            return None, None
        moved, metrics = form.applied(current.old, total.vector / count)
        measured = MetricRecord({**metrics, self._weighted_by: count})
        reply = Message(RecordDict({current.key: record_of(moved), "metrics": measured}), reply_to=current.asked)
        arrays, aggregated = self.strategy.aggregate_train(server_round, [reply])
        return None if arrays is None else record_of(form.restored(arrays_in(arrays))), aggregated

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
        head = None if self._ledger is None else self._ledger.signed_head
        plan = self._propose(self.roster, encoding, clients=clients, noise=noise, model=model, ledger=head)
        plan = replace(plan, round=server_round)
        return plan if self._sign is None else plan.signed(self._sign)

    def _encoding(self, form: Form, clients: int) -> tuple[Encoding, NoiseSpec | None]:
        if self._privacy is None:
            return form.encoding, None
        return self._privacy.encoding(
            form, clients=clients, min_contributors=self._min_contributors, corrupt=self._corrupt
        )

    def _denominator(self, plan: RoundPlan, total: Sum) -> int:
        """What the sum is divided by. Of users, and where there is noise, it is nothing that was counted."""
        if self._silos is not None:
            return self._silos.total
        return total.weight if plan.noise is None else plan.clients

    def _publish_remarks(self, server_round: int, machine: ServerRound) -> None:
        self.liars, self.excluded = machine.liars, machine.excluded
        if machine.remarks:
            log(WARNING, "secagg: round %d: %s", server_round, machine.remarks)

    def _run_phases(self, current: _Round, replies: Iterable[Message]) -> RoundOutcome:
        """All phases after the first messages, each with its own timeout."""
        machine = current.machine
        while True:
            for reply in replies:
                self._receive(current, reply)
            machine.close(machine.phase)
            if machine.outcome is not None:
                return machine.outcome
            plan = {"plan": machine.plan.encode()}
            frames = [
                _message_to(current.nodes[name], content_with_frame(plan, frame), self.timeout)
                for name, frame in machine.outbox()
            ]
            replies = _poll_replies(current.grid, frames, self.timeout)

    def _receive(self, current: _Round, reply: Message) -> None:
        """Hand a reply to the round. One that is no good is passed over: its client counts as a dropout."""
        node = reply.metadata.src_node_id
        if reply.has_error():
            log(INFO, "secagg: node %d: %s", node, reply.error.reason)
            return
        try:
            name = field_of(secagg_record(reply), "name", str)
            if name not in self.roster.names:
                raise PeerError("a client that is not in the roster")
            if current.nodes.get(name, node) != node:
                raise UnblamedError("another node speaks for this client")
            # Until its first good frame anybody can say that it speaks for this client.
            current.machine.receive(name, frame_in(reply.content), known=name in current.nodes)
        except (DecodeError, PeerError) as error:
            log(WARNING, "secagg: node %d: %s", node, error)
        else:
            current.nodes[name] = node


def _poll_replies(grid: Grid, frames: list[Message], timeout: float) -> Iterator[Message]:
    """Send the frames, and yield each reply as it comes, until all are there or time is up.

    ``Grid.send_and_receive`` looks for replies every 0.1 s, on a SuperLink every 3 s.
    """
    if not frames:
        return
    waiting, began = set(grid.push_messages(frames)) - {None}, monotonic()  # None: a message that Flower did not take
    while waiting and (passed := monotonic() - began) < timeout:
        for reply in grid.pull_messages(waiting):
            waiting.discard(reply.metadata.reply_to_message_id)
            yield reply
        if waiting:
            sleep(min(max(passed / 10, _SHORTEST_WAIT), _LONGEST_WAIT))


def _common_task(asked: list[Message], run_config: UserConfig) -> tuple[str, dict[str, NDArray[Any]], Instructions]:
    """The name of the model's record, the model and the instructions, which must be the same in all messages."""
    first = asked[0]
    if RECORD in first.content:
        raise UsageError(f"the strategy sends a record named {RECORD}: that is ours")
    key, record = model_in(first.content)
    old = arrays_in(record)
    instructions = instructions_in(first.content, key, first.metadata.run_id, run_config)
    for message in asked[1:]:
        if message.content is first.content:
            continue
        other = message.content.array_records.get(key)
        if other is not record and (other is None or not _equal_models(old, arrays_in(other))):
            raise UsageError(
                "the strategy sends different models to different clients: their changes have no common sum"
            )
        others = instructions_in(message.content, key, message.metadata.run_id, run_config)
        if canonical_bytes(others) != canonical_bytes(instructions):
            raise UsageError(
                "the strategy tells different clients different things: that is how a sum is made one client's update"
            )
    return key, old, instructions


def _equal_models(some: Mapping[str, NDArray[Any]], others: Mapping[str, NDArray[Any]]) -> bool:
    return list(some) == list(others) and all(
        some[name].dtype == others[name].dtype and np.array_equal(some[name], others[name]) for name in some
    )


def _message_to(node: int, content: RecordDict, ttl: float) -> Message:
    return Message(content, dst_node_id=node, message_type=MESSAGE_TYPE, ttl=ttl)
