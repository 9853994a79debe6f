"""What a Flower node runs: a mod around the train function, and a mod for the app that answers nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from logging import ERROR, WARNING
from pathlib import Path
from time import time
from typing import Any

from flwr.app import DEFAULT_TTL, ConfigRecord, Context, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import log
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.logger import FLOWER_LOGGER
from numpy.typing import NDArray

from dp.ledger import Ledger
from protocols.adapters.flower.messages import (
    MESSAGE_TYPE,
    RECORD,
    WEIGHTED_BY,
    Record,
    arrays_in,
    content_with_frame,
    field_of,
    frame_in,
    instructions_in,
    model_in,
    record_again,
    secagg_record,
)
from protocols.adapters.flower.state import RECORD_NAMES, SealedVector, StateJournal
from protocols.adapters.form import FORM, Form
from protocols.adapters.users import Trainings
from protocols.client import Client
from protocols.journal import Journal, SqliteJournal
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from secagg.at_rest import Keyring
from secagg.crypto.prg import Rng
from secagg.errors import (
    BudgetError,
    DecodeError,
    PeerError,
    PolicyError,
    SecAggError,
    StorageError,
    ThresholdError,
    UsageError,
)


class SecAgg:
    """A mod for one train function. What it needs of the deployment, it takes from the node config.

    ``secagg-identity`` and ``secagg-roster`` are paths; ``secagg-journal`` (a ``SqliteJournal`` instead of
    ``context.state``) and ``secagg-ledger`` (this client's own budget, which needs such a journal) may be. The
    arguments of the same names stand in where the node config says nothing, and may contain ``{partition-id}``: a
    simulation's nodes have no more than that.

    ``secagg-signed-by`` is the deployment whose signature on rosters and models this node asks for, whatever the app's
    policy says (``Policy.signed_by``): apps come through the server. It needs a journal, too.

    ``weighted_by`` is the one metric by which this client lets itself be weighted, up to ``policy.weight_bound``.

    ``arrays`` gives the names and shapes of the arrays that this client's own model has, before each training. A round
    for others (of adapters of another rank, say) is refused then: without it the train function would fail, and this
    client's zeros would be in the sum.

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
        arrays: Callable[[], Mapping[str, tuple[int, ...]]] | None = None,
        rng: Rng = os.urandom,
    ) -> None:
        self._policy, self._weighted_by, self._stateful, self._arrays = policy, weighted_by, stateful, arrays
        self._deployment, self._rng = deployment, rng
        self._paths = {"identity": identity, "roster": roster, "journal": journal, "ledger": ledger}

    def __call__(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        try:
            return Message(self._answer(message, context, call_next), reply_to=message)
        except SecAggError as error:
            log(WARNING, "secagg: %s: %s", type(error).__name__, error)
            return _refusal(_public_reason(error), message)
        except Exception as error:  # noqa: BLE001  # of whatever kind: Flower would send its text, and paths, to the server
            log(ERROR, "secagg: a message could not be answered", exc_info=error)
            return _refusal("this node failed", message)

    def _answer(self, message: Message, context: Context, call_next: ClientAppCallable) -> RecordDict:
        record = secagg_record(message)
        plan = RoundPlan.decode(field_of(record, "plan", bytes))
        identity = Identity.load(self._path(context, "identity"), Keyring.of_environment())
        roster = Roster.load(self._path(context, "roster"))
        vector, begins = SealedVector(context.state, identity, plan, self._rng), "form" in record
        with ExitStack() as files:
            journal, ledger = self._journal(context, files), self._ledger(context, identity, files)
            client = Client(
                identity,
                roster,
                policy=self._policy_here(context),
                journal=journal,
                ledger=ledger,
                deployment=self._deployment,
                rng=self._rng,
            )
            trains = begins and not client.check(plan)
            if trains:
                form, old, task, own = self._checked_task(message, context, plan, roster.number(identity.name))
                if form.users:
                    vectors = form.contributions(
                        old, lambda: _trainings(call_next(task, own)), FLOWER_LOGGER, details=ERROR
                    )
                    frame = client.start(plan, vectors)
                else:
                    update, weight = form.contribution(
                        old, lambda: _trained(call_next(task, own), form), FLOWER_LOGGER, details=ERROR
                    )
                    frame = client.start(plan, update, weight)
                self._keep_state(context.state, own.state)
                vector.save(client.encoded())
            else:
                frame = client.resume(plan, vector.load)
                if not client.uploaded:
                    vector.sealed()  # if it is lost, this client refuses now, not when the others have masked with it
                if not begins:
                    frame = client.receive(frame_in(message.content))
            if client.uploaded:
                vector.delete()
            if client.done:
                client.finish()
        return content_with_frame({"name": identity.name}, frame)

    def _checked_task(
        self, message: Message, context: Context, plan: RoundPlan, number: int
    ) -> tuple[Form, dict[str, NDArray[Any]], Message, Context]:
        """The form, the model, and the message and context for the train function, with nothing in them that is not
        bound into the plan."""
        form = FORM.decode(field_of(secagg_record(message), "form", bytes))
        records = {name: record for name, record in message.content.items() if name != RECORD}
        key, record = model_in(records)
        old, instructions = arrays_in(record), instructions_in(records, key, context.run_id, context.run_config)
        form.check_plan(plan, old, instructions, weighted_by=self._weighted_by)
        if self._arrays is not None:
            form.check_arrays(self._arrays())

        content = RecordDict({name: _sorted(records[name]) for name in sorted(records)})
        content[key] = record_again(record, old)
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
        task = Message(metadata=metadata, content=content)  # type: ignore[call-overload,unused-ignore]
        state = {name: record for name, record in context.state.items() if self._stateful and name not in RECORD_NAMES}
        return form, old, task, Context(context.run_id, number, context.node_config, RecordDict(state), config)

    def _keep_state(self, state: RecordDict, left: RecordDict) -> None:
        """Keep for the next training what this one left in its state, if it may be kept."""
        if self._stateful:
            for name in state.keys() - RECORD_NAMES:
                del state[name]
            state.update({name: record for name, record in left.items() if name not in RECORD_NAMES})

    def _policy_here(self, context: Context) -> Policy:
        """The app's policy, with the deployment that this node's own config names."""
        signed_by = context.node_config.get("secagg-signed-by")
        return self._policy if signed_by is None else replace(self._policy, signed_by=str(signed_by))

    def _path(self, context: Context, what: str) -> str:
        given = str(context.node_config.get(f"secagg-{what}", self._paths[what]))
        if "{partition-id}" in given:
            if "partition-id" not in context.node_config:
                raise UsageError(f"the path of the {what} names a partition-id, and this node has none")
            given = given.replace("{partition-id}", str(context.node_config["partition-id"]))
        if not given and what in ("identity", "roster"):
            raise UsageError(f"no secagg-{what} in the config of this node")
        return given

    def _journal(self, context: Context, files: ExitStack) -> Journal:
        if path := self._path(context, "journal"):
            return files.enter_context(closing(SqliteJournal(path, keys=Keyring.of_environment())))
        if self._path(context, "ledger"):
            raise UsageError("a secagg-ledger needs a secagg-journal: what context.state holds is forgotten")
        return StateJournal(context.state)

    def _ledger(self, context: Context, identity: Identity, files: ExitStack) -> Ledger | None:
        if path := self._path(context, "ledger"):
            return files.enter_context(closing(Ledger.open(path, identity.key, keys=Keyring.of_environment())))
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


_PUBLIC_REASONS: dict[type[SecAggError], str] = {
    BudgetError: "the privacy budget of this client does not allow that",
    DecodeError: "the message is not what it should be",
    PeerError: "the message breaks the protocol",
    PolicyError: "this client does not accept that",
    StorageError: "this node cannot read or write what it has to remember",
    ThresholdError: "too few are left",
    UsageError: "this node is not set up for that",
}
"""What of an error leaves the node. Its own text can name paths, what has been spent, and what this client demands."""


def _public_reason(error: SecAggError) -> str:
    kind = next((kind for kind in _PUBLIC_REASONS if isinstance(error, kind)), None)
    return f"{kind.__name__}: {_PUBLIC_REASONS[kind]}" if kind else "this node failed"


def _trained(reply: Message, form: Form) -> tuple[dict[str, NDArray[Any]], Mapping[str, Any], int]:
    """The trained arrays, the metrics and the weight that the train function replies with."""
    arrays, replied = _replied(reply)
    metrics = {name: value for name, value in replied.items() if not isinstance(value, list)}
    return arrays, metrics, _weight(form, metrics)


class EachUser(Message):  # type: ignore[misc,unused-ignore]  # Any, where flwr is not installed
    """What a train function replies with that trains its users one after the other, while they are encoded.

    It has no content: nothing of it could be sent. ``trainings`` are asked for on this client, in the same process.
    """

    def __init__(self, trainings: Trainings, *, reply_to: Message) -> None:
        super().__init__(RecordDict(), reply_to=reply_to)
        self.trainings = trainings


def _trainings(reply: Message) -> Trainings:
    """The trainings that the train function replies with: one for each user of this silo."""
    if isinstance(reply, EachUser):
        return reply.trainings
    arrays, metrics = _replied(reply)
    return Trainings.stacked(arrays, metrics)


def _replied(reply: Message) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the metrics that the train function replies with."""
    if reply.has_error():
        raise UsageError(f"the train function answers with an error: {reply.error.reason}")
    _, record = model_in(reply.content)
    return arrays_in(record), {name: v for one in reply.content.metric_records.values() for name, v in one.items()}


def _weight(form: Form, metrics: Mapping[str, float]) -> int:
    """The weight that this client reports; ``Encoding`` bounds it."""
    if not form.weight:
        return 1
    value = float(metrics[form.weight])
    if not value.is_integer() or value < 1:
        raise UsageError(f"{form.weight}, by which this client is weighted, is not a positive integer")
    return int(value)


def _sorted(record: Record) -> Record:
    """The same record in alphabetical order, which therefore tells nothing; the order of arrays is in the form."""
    if isinstance(record, ConfigRecord):
        return ConfigRecord({name: record[name] for name in sorted(record)})
    if isinstance(record, MetricRecord):
        return MetricRecord({name: record[name] for name in sorted(record)})
    return record
