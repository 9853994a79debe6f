"""What an NVFlare site runs: an executor around the one that trains, which speaks frames."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from logging import DEBUG
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, MetaKey, ParamsType
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

from protocols.adapters.form import FORM, Form
from protocols.adapters.nvflare.job import exclude_library
from protocols.adapters.nvflare.messages import (
    FORM_KEY,
    FRAME_TASK,
    PLAN_KEY,
    TRAIN_TASK,
    Arrays,
    arrays_in,
    bytes_in,
    frame_in,
    frame_params,
    instructions_in,
)
from protocols.adapters.nvflare.site import site_client
from protocols.adapters.users import Trainings
from protocols.client import Client
from protocols.plan import RoundPlan
from secagg.errors import PolicyError, SecAggError, UsageError

_TRAININGS = "secagg_trainings"
_CLIENT_LOCK = Lock()
"""Held while a site's one client is made. It is no attribute of the executor because NVFlare copies that."""


class SecureExecutor(Executor):  # type: ignore[misc]
    """Trains with ``executor``, and answers the server with frames.

    ``executor`` gets NVFlare's ordinary task, named ``task_name``, and answers with an ordinary ``FLModel`` (FULL or
    DIFF). Give it to this wrapper only, not to the job, or the server can ask it for the update itself.
    """

    def __init__(self, executor: Executor, task_name: str = AppConstants.TASK_TRAIN) -> None:
        super().__init__()
        self.executor, self.task_name = executor, task_name
        self._client: Client | None = None
        self._files = ExitStack()
        """The files that the client has open until the run ends."""
        self._training: Lock | None = None
        """Held while the trainer runs: if the same task comes twice at once, both are answered by one training."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        try:
            if task_name == TRAIN_TASK:
                return self._train_and_join(shareable, fl_ctx, abort_signal)
            if task_name == FRAME_TASK:
                return self._answer_frame(shareable)
        except SecAggError as error:  # their texts hold no secrets
            self.log_error(fl_ctx, f"{type(error).__name__}: {error}")
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        return make_reply(ReturnCode.TASK_UNKNOWN)

    def _train_and_join(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Check what is asked for, train, and join the round: the answer is the first frame."""
        task = FLModelUtils.from_shareable(shareable)
        plan, form = RoundPlan.decode(bytes_in(task, PLAN_KEY)), FORM.decode(bytes_in(task, FORM_KEY))
        old = arrays_in(task)
        client, training = self._client_and_lock(fl_ctx)
        with training:
            if client.check(plan):
                return _answer(_last_frame(client, plan))
            if task.current_round != plan.round:
                raise PolicyError("the round that is to be trained is not that of the plan")
            instructions = instructions_in(task.total_rounds, fl_ctx)
            form.check_plan(plan, old, instructions, weighted_by=MetaKey.NUM_STEPS_CURRENT_ROUND)
            trainer_task = _trainer_task(plan, old, task)

            def reply() -> Shareable:
                return self._run_trainer(trainer_task, fl_ctx, abort_signal)

            def check_abort() -> None:
                if abort_signal.triggered:  # zeros would leave the sum to those whose training was not aborted
                    raise PolicyError("the training was aborted: this site has nothing to say")

            # The details at DEBUG only: a job may stream its log to the server.
            if form.users:
                vectors = form.contributions(old, lambda: _trainings(reply(), old), self.logger, DEBUG, check_abort)
                check_abort()
                return _answer(client.start(plan, vectors))
            update, weight = form.contribution(old, lambda: _trained(reply(), form, old), self.logger, DEBUG)
            check_abort()
            return _answer(client.start(plan, update, weight))

    def _client_and_lock(self, fl_ctx: FLContext) -> tuple[Client, Lock]:
        with _CLIENT_LOCK:  # NVFlare may hand over two tasks at once
            if self._client is None or self._training is None:
                folder, site = fl_ctx.get_workspace().get_site_config_dir(), fl_ctx.get_identity_name()
                self._client = site_client(folder, site, self._files)
                self._training = Lock()
            return self._client, self._training

    def _run_trainer(self, task: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """What the trainer answers with."""
        with fl_ctx.get_engine().new_context() as own:
            own.set_prop(FLContextKey.TASK_NAME, TRAIN_TASK, private=True, sticky=False)
            reply = self.executor.execute(self.task_name, task, own, Signal(parent=abort_signal))
        if (code := reply.get_return_code()) != ReturnCode.OK:
            raise UsageError(f"the trainer answers with {code}")
        return reply

    def _answer_frame(self, shareable: Shareable) -> Shareable:
        if self._client is None:
            raise UsageError("no round is under way here")
        return _answer(self._client.receive(frame_in(FLModelUtils.from_shareable(shareable))))

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.END_RUN and self._client is not None:
            self._client.finish()
            self._files.close()  # a task that comes after that is refused

    def requires_materialized_task_result(self, task_name: str) -> bool:
        """Asked by ``ClientAPIExecutor``: the trainer's arrays are needed here, not references to them."""
        return task_name == self.task_name

    def add_to_fed_job(self, job: Any, ctx: Any, **kwargs: Any) -> None:
        exclude_library(job)
        super().add_to_fed_job(job, ctx, **{"tasks": [TRAIN_TASK, FRAME_TASK]} | kwargs)


def _last_frame(client: Client, plan: RoundPlan) -> bytes:
    """What this site said last in a round that it has begun; it does not train for it again."""
    under_way = client.current is not None and client.current.plan == plan
    vector = client.encoded() if under_way and not client.uploaded else None

    def encoded() -> bytes:
        if vector is None:
            raise PolicyError("the update of this round has been lost: this site stays out of it")
        return vector

    frame = client.resume(plan, encoded)
    if not client.uploaded:
        encoded()  # if it is lost, this site refuses now, not when the others have masked with it
    return frame


def each_user(trainings: Trainings) -> Shareable:
    """What an executor answers with that trains its users one after the other, while they are encoded.

    It is for the ``SecureExecutor`` around that executor, in the same process, and cannot be sent anywhere.
    """
    reply = make_reply(ReturnCode.OK)
    reply[_TRAININGS] = trainings
    return reply


def _trainings(reply: Shareable, old: Arrays) -> Trainings:
    """The trainings that the trainer answers with: one for each user of this silo."""
    if isinstance(trainings := reply.get(_TRAININGS), Trainings):
        return trainings
    trained = FLModelUtils.from_shareable(reply)
    stacked = Trainings.stacked(arrays_in(trained), trained.metrics or {})
    if trained.params_type is not ParamsType.DIFF:
        return stacked

    def train(user: int) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
        changes, metrics = stacked.train(user)
        return _added(old, changes), metrics

    return Trainings(stacked.count, train)


def _trained(reply: Shareable, form: Form, old: Arrays) -> tuple[Arrays, Mapping[str, Any], int]:
    """The trained arrays, the metrics and the weight that the trainer answers with."""
    trained = FLModelUtils.from_shareable(reply)
    return _trained_arrays(trained, old), trained.metrics or {}, _weight(form, trained)


def _trained_arrays(trained: FLModel, old: Arrays) -> Arrays:
    """The arrays that the trainer answers with, or the model plus the difference that it answers with."""
    new = arrays_in(trained)
    return _added(old, new) if trained.params_type is ParamsType.DIFF else new


def _added(old: Arrays, changes: Mapping[str, NDArray[Any]]) -> Arrays:
    """The model plus these differences; as they are, if they are not of its names, which the form then refuses."""
    if changes.keys() != old.keys():
        return dict(changes)
    return {name: old[name] + np.asarray(changes[name], np.float64) for name in old}


def _weight(form: Form, trained: FLModel) -> int:
    """The weight of this site: how many steps it has taken; ``Encoding`` bounds it."""
    if not form.weight:
        return 1
    steps = trained.meta.get(form.weight)
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise UsageError(f"a weighted sum needs {form.weight}, and the trainer does not say it")
    return int(steps)


def _trainer_task(plan: RoundPlan, old: Arrays, task: FLModel) -> Shareable:
    """The task as NVFlare's own FedAvg sends it, with nothing in it that is not bound into the plan.

    The trainer gets copies of the arrays in one memory layout, which it may change in place.
    """
    copies = {name: array.copy() for name, array in old.items()}
    return FLModelUtils.to_shareable(FLModel(params=copies, current_round=plan.round, total_rounds=task.total_rounds))


def _answer(frame: bytes) -> Shareable:
    return FLModelUtils.to_shareable(FLModel(params=frame_params(frame)))
