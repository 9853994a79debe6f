"""Secure averaging inside NVFlare (2.9, extra ``nvflare``): a controller for the server, an executor for the sites.

``SecureFedAvg`` is a ``ModelController``. Each round it broadcasts the model with a plan and a form, and then carries
the frames of whatever protocol the plan names, one task for each site and phase, until its server machine has the sum.
A phase ends when all have answered or NVFlare's own task timeout is over; who has not answered, or with an error, has
dropped out. ``SecureExecutor`` wraps the executor that trains (a ``ClientAPIExecutor`` with a script, a
``ModelLearnerExecutor``, one of your own): nothing of what that returns leaves the site but frames.

What is at stake is read from the site's own ``local`` folder and never from the job, which comes through the server:
its key, the roster and the least it accepts (``secagg.toml``, see ``site_client``). A site's name in NVFlare is its
name in the roster, so that NVFlare's authenticated transport says who speaks.

The trainer is only reachable through the wrapper: a server that asks for NVFlare's ordinary ``train`` is told
``TASK_UNKNOWN``, and one that asks for anything without a good plan gets an error code, never an update.

What the trainer can read of the server is hashed into the plan (the model, the numbers of rounds, the job) or not
handed on: its task and its context are made here. It is called once for a plan; what it keeps from one plan to the next
is its own, and must steer no training (docs/nvflare.md). A plan is refused before the trainer is called or not at all:
when training fails, zeros go into the sum, and no answer looks any different.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
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
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.model_controller import ModelController

from protocols.adapters.form import FORM, Form, Told
from protocols.client import Client
from protocols.journal import SqliteJournal
from protocols.outcome import RoundOutcome
from protocols.plan import SESSION_BYTES, RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.rounds.server import ServerRound
from protocols.server import serve
from secagg.errors import DecodeError, PeerError, PolicyError, SecAggError, ThresholdError, UsageError
from secagg.foreign import named_file, parse_toml

TRAIN_TASK = "secagg_train"
FRAME_TASK = "secagg_frame"
SITE_FILE = "secagg.toml"
_SITE_WORDS = {"identity", "roster", "journal", "deployment", "policy"}
_PLAN, _FORM, _FRAME = "secagg_plan", "secagg_form", "secagg_frame"
_PACKAGES = ["secagg", "dp", "protocols"]

_MAKING = Lock()
"""One client a site, and one journal: not in the executor, which NVFlare copies."""

Arrays = dict[str, NDArray[Any]]


class SecureFedAvg(ModelController):  # type: ignore[misc]  # NVFlare has no types
    """FedAvg under secure aggregation: the server side of a job.

    ``metrics`` are those that the trainers report, with their largest values; with ``weight_bound`` above 1 a site
    counts as often as it has taken steps (``NUM_STEPS_CURRENT_ROUND``), at most that often. Both travel under the
    mask. ``corrupt``, ``dropout`` and ``adversary`` are what the plan is made for; each site checks it against a policy
    of its own. ``beacon`` is in hexadecimal. Timeouts are in seconds, 0 is to wait for ever. With ``min_responses`` the
    round goes on as soon as so many sites have trained, without the others.

    A round for which too few are left changes nothing, and the next one starts. For another rule by which the sum moves
    the model, override ``update``.
    """

    def __init__(
        self,
        *,
        min_contributors: int,
        clip: float,
        num_rounds: int = 5,
        num_clients: int | None = None,
        min_responses: int | None = None,
        protocol: str = "secagg+",
        bits: int = 16,
        rotate: bool = False,
        metrics: dict[str, float] | None = None,
        weight_bound: int = 1,
        corrupt: str = "0.05",
        dropout: str = "0.1",
        adversary: str = "active",
        beacon: str = "",
        train_timeout: int = 3600,
        phase_timeout: int = 120,
        persistor_id: str = AppConstants.DEFAULT_PERSISTOR_ID,
        task_check_period: float = 0.5,
    ) -> None:
        # To NVFlare a site that fails is a reason to end the job; here it is one that dropped out.
        super().__init__(persistor_id=persistor_id, ignore_result_error=True, task_check_period=task_check_period)
        # NVFlare writes a job's configuration from the attributes that are named as these arguments.
        self.min_contributors, self.num_rounds = min_contributors, num_rounds
        self.num_clients, self.min_responses = num_clients, min_responses
        self.clip, self.bits, self.rotate, self.metrics, self.weight_bound = clip, bits, rotate, metrics, weight_bound
        self.protocol, self.corrupt, self.dropout, self.adversary = protocol, corrupt, dropout, adversary
        self.beacon = beacon
        self.train_timeout, self.phase_timeout = train_timeout, phase_timeout

    def run(self) -> None:
        roster = site_roster(self.engine.get_workspace().get_site_config_dir())
        model, session = self.load_model(), os.urandom(SESSION_BYTES)
        model.total_rounds = self.num_rounds
        for number in range(self.num_rounds):
            model.current_round = number
            self.fl_ctx.set_prop(AppConstants.CURRENT_ROUND, number, private=True, sticky=False)
            self.event(AppEventType.ROUND_STARTED)
            model.params = _arrays(model)
            form = self._form(model)
            plan, targets = self._plan(roster, form, model, session, number)
            server = serve(plan, roster)
            outcome = self._round(server, form, model, targets)
            if self.abort_signal.triggered:
                return
            if server.remarks:
                self.warning(f"Round {number}: {server.remarks}")
            if outcome is not None:
                self.update(model, form, outcome)
                self.info(f"Round {number}: a sum over {', '.join(outcome.survivors)}; metrics {model.metrics}")
                self.save_model(model)
            self.event(AppEventType.ROUND_DONE)

    def update(self, model: FLModel, form: Form, outcome: RoundOutcome) -> None:
        """Move the model by the mean of the changes; its metrics become the means of theirs."""
        total = outcome.decode()
        if not total.weight:
            self.warning(f"round {outcome.event.plan.round} changes nothing: no site had anything to contribute")
            return
        model.params, model.metrics = form.applied(model.params, total.vector / total.weight)

    def _form(self, model: FLModel) -> Form:
        return Form.of(
            model.params,
            clip=self.clip,
            bits=self.bits,
            metrics=self.metrics,
            weight_bound=self.weight_bound,
            rotate=self.rotate,
            weight=MetaKey.NUM_STEPS_CURRENT_ROUND,
        )

    def _plan(
        self, roster: Roster, form: Form, model: FLModel, session: bytes, number: int
    ) -> tuple[RoundPlan, list[str]]:
        """For whoever is there, and in the roster. One session for the whole job, so that no round comes twice."""
        targets = [name for name in self.sample_clients(self.num_clients) if name in roster.names]
        plan = RoundPlan.propose(
            self.protocol,
            roster,
            form.encoding,
            min_contributors=self.min_contributors,
            clients=len(targets),
            corrupt=self.corrupt,
            dropout=self.dropout,
            adversary=self.adversary,
            session=session,
            model=form.model(model.params, _told(model.total_rounds, self.fl_ctx)),
            beacon=bytes.fromhex(self.beacon),
        )
        return replace(plan, round=number), targets

    def _round(self, server: ServerRound, form: Form, model: FLModel, targets: list[str]) -> RoundOutcome | None:
        """One round of the protocol; None if too few are left."""

        def take(result: FLModel) -> bool:
            name = result.meta["client_name"]  # NVFlare's word, from the connection
            try:
                server.receive(name, _frame_in(result))
            except (DecodeError, PeerError, UsageError) as error:
                self.warning(f"a message from {name} was refused: {error}")
                return False
            return True

        opening = _on_the_road(model, model.params, {_PLAN: server.plan.encode(), _FORM: FORM.encode(form)})
        self.send_model(TRAIN_TASK, opening, targets, self.min_responses, self.train_timeout, take)
        while self._answered() and server.outcome is None:
            try:
                server.close(server.phase)
            except (PeerError, ThresholdError) as error:
                self.warning(f"round {server.plan.round} has no sum: {error}")
                return None
            for name, frame in server.outbox():
                carried = _on_the_road(model, _carrying(frame), {})
                self.send_model(FRAME_TASK, carried, [name], None, self.phase_timeout, take)
        return server.outcome

    def _answered(self) -> bool:
        """Wait until all tasks are answered or timed out; False if the job is to end.

        NVFlare hands over results one at a time, and none of a task that no longer stands: the machine is never called
        twice at once.
        """
        while self.get_num_standing_tasks() and not self.abort_signal.triggered:
            time.sleep(self._task_check_period)
        return not self.abort_signal.triggered

    def add_to_fed_job(self, job: Any, ctx: Any, **kwargs: Any) -> None:
        _leave_at_home(job)
        super().add_to_fed_job(job, ctx, **kwargs)


class SecureExecutor(Executor):  # type: ignore[misc]
    """A site's side: trains with ``executor``, and speaks frames.

    ``executor`` gets NVFlare's ordinary task, named ``task_name``, and answers with an ordinary ``FLModel`` (FULL or
    DIFF). Give it to this wrapper only, not to the job, or the server can ask it for the update itself.
    """

    def __init__(self, executor: Executor, task_name: str = AppConstants.TASK_TRAIN) -> None:
        super().__init__()
        self.executor, self.task_name = executor, task_name
        self._client: Client | None = None
        self._held = ExitStack()
        """What the client has open, until the run ends."""
        self._training: Lock | None = None
        """One training at a time: who asks twice at once, is answered by the first."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        try:
            if task_name == TRAIN_TASK:
                return self._join(shareable, fl_ctx, abort_signal)
            if task_name == FRAME_TASK:
                return self._answer(shareable)
        except SecAggError as error:  # their texts hold no secrets
            self.log_error(fl_ctx, f"{type(error).__name__}: {error}")
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        return make_reply(ReturnCode.TASK_UNKNOWN)

    def _join(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Check what is asked, train, and say the first word."""
        task = FLModelUtils.from_shareable(shareable)
        plan, form, old = RoundPlan.decode(_bytes_in(task, _PLAN)), FORM.decode(_bytes_in(task, _FORM)), _arrays(task)
        client, training = self._site(fl_ctx)
        with training:
            if client.check(plan):
                return _reply(_said_before(client, plan))
            if form.weight not in ("", MetaKey.NUM_STEPS_CURRENT_ROUND):
                raise PolicyError("this site does not count by what the form names")
            if task.current_round != plan.round:
                raise PolicyError("the round that is to be trained is not that of the plan")
            form.check_plan(plan, old, _told(task.total_rounds, fl_ctx))
            trained = self._trained(form, old, _ordinary(plan, old, task), fl_ctx, abort_signal)
            if abort_signal.triggered:  # zeros would leave the sum to those whose training was not aborted
                raise PolicyError("the training was aborted: this site has nothing to say")
            return _reply(client.start(plan, *trained))

    def _site(self, fl_ctx: FLContext) -> tuple[Client, Lock]:
        with _MAKING:  # NVFlare may hand over two tasks at once
            if self._client is None or self._training is None:
                folder, site = fl_ctx.get_workspace().get_site_config_dir(), fl_ctx.get_identity_name()
                self._client = site_client(folder, site, self._held)
                self._training = Lock()
            return self._client, self._training

    def _trained(
        self, form: Form, old: Arrays, task: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> tuple[NDArray[np.float64] | None, int]:
        """What the trainer has changed, and its weight. Neither its answer nor its failure goes any further."""
        try:
            with fl_ctx.get_engine().new_context() as own:
                own.set_prop(FLContextKey.TASK_NAME, TRAIN_TASK, private=True, sticky=False)
                reply = self.executor.execute(self.task_name, task, own, Signal(parent=abort_signal))
            if (code := reply.get_return_code()) != ReturnCode.OK:
                raise UsageError(f"the trainer answers with {code}")
            trained = FLModelUtils.from_shareable(reply)
            if missing := form.missing(trained.metrics or {}):
                self.logger.warning("not measured, or no finite number: %s", ", ".join(missing))
            return form.change(old, _new_arrays(trained, old), trained.metrics), _weight(form, trained)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of Rust code, too: nobody but this site may notice
            self.logger.error("training failed, and counts as nothing: %s", type(error).__name__)
            self.logger.debug("what failed", exc_info=error)  # its text may hold data, and a job may stream its log
            return form.failed(), 1

    def _answer(self, shareable: Shareable) -> Shareable:
        if self._client is None:
            raise UsageError("no round is under way here")
        return _reply(self._client.receive(_frame_in(FLModelUtils.from_shareable(shareable))))

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.END_RUN and self._client is not None:
            self._client.finish()
            self._held.close()  # a task that comes after that is refused

    def requires_materialized_task_result(self, task_name: str) -> bool:
        """Asked by ``ClientAPIExecutor``: the trainer's arrays are needed here, not references to them."""
        return task_name == self.task_name

    def add_to_fed_job(self, job: Any, ctx: Any, **kwargs: Any) -> None:
        _leave_at_home(job)
        super().add_to_fed_job(job, ctx, **{"tasks": [TRAIN_TASK, FRAME_TASK]} | kwargs)


# What a site has in its own folder.


def site_client(folder: str | Path, site: str, held: ExitStack) -> Client:
    """The client of a site, from ``secagg.toml`` in its ``local`` folder. Paths are relative to the folder::

    identity = "{site}.key"         # {site} is the site's name
    roster = "roster.toml"
    journal = "{site}.db"           # optional: what was said outlives the process
    deployment = "hospitals"        # optional: whose newer rounds destroy the older (protocols.client.Client)

    [policy]                        # see protocols.policy.Policy; a beacon is in hexadecimal
    min_contributors = 3
    weight_bound = 100              # if the job weighs: the most steps for which this site counts

    ``held`` closes the journal.
    """
    table = _site_table(folder)
    identity = Identity.load(_place(folder, table, "identity", site))
    if identity.name != site:
        raise UsageError(f"the key is that of {identity.name}, and this site is {site}")
    roster = Roster.load(_place(folder, table, "roster", site))
    deployment = table.get("deployment", "")
    if not isinstance(deployment, str):
        raise UsageError(f"the deployment in {SITE_FILE} is not a name")
    policy, journal = _policy(table.get("policy")), None
    if "journal" in table:
        journal = held.enter_context(closing(SqliteJournal(_place(folder, table, "journal", site))))
    return Client(identity, roster, policy=policy, journal=journal, deployment=deployment)


def site_roster(folder: str | Path) -> Roster:
    """The roster that the server's own ``secagg.toml`` names."""
    return Roster.load(_place(folder, _site_table(folder), "roster", ""))


def _site_table(folder: str | Path) -> Mapping[str, object]:
    path = Path(folder) / SITE_FILE
    try:
        table = parse_toml(named_file(path, most=1 << 16))
    except DecodeError:
        raise UsageError(f"{path} is not a TOML file") from None
    if unknown := table.keys() - _SITE_WORDS:
        raise UsageError(f"{path} says {', '.join(sorted(unknown))}; known are {', '.join(sorted(_SITE_WORDS))}")
    return table


def _place(folder: str | Path, table: Mapping[str, object], what: str, site: str) -> Path:
    name = table.get(what)
    if not isinstance(name, str):
        raise UsageError(f"{SITE_FILE} does not say where the {what} is")
    return Path(folder) / name.replace("{site}", site)


def _policy(table: object) -> Policy:
    if not isinstance(table, dict):
        raise UsageError(f"{SITE_FILE} has no [policy]")
    try:
        return Policy(**table | {"beacon": bytes.fromhex(table.get("beacon", ""))})
    except (TypeError, ValueError) as error:
        raise UsageError(f"[policy] in {SITE_FILE}: {error}") from None


# Models, frames and how they are carried.


def _said_before(client: Client, plan: RoundPlan) -> bytes:
    """What this site said last in a round that it has begun; it is not trained for again."""
    living = client.current is not None and client.current.plan == plan
    vector = client.encoded() if living and not client.uploaded else None

    def kept() -> bytes:
        if vector is None:
            raise PolicyError("the update of this round has been lost: this site stays out of it")
        return vector

    frame = client.resume(plan, kept)
    if not client.uploaded:
        kept()  # or it refuses now, not when the others have masked with it
    return frame


def _arrays(model: FLModel) -> Arrays:
    """What the model consists of; numpy makes scalars of arrays without dimensions as soon as one calculates."""
    params = model.params
    kinds = (np.ndarray, np.generic)
    if not isinstance(params, dict) or not params or not all(isinstance(value, kinds) for value in params.values()):
        raise UsageError("a model is a dictionary of numpy arrays here (server_expected_format: numpy)")
    return {name: np.asarray(value) for name, value in params.items()}


def _new_arrays(trained: FLModel, old: Arrays) -> Arrays:
    new = _arrays(trained)
    if trained.params_type is ParamsType.DIFF and new.keys() == old.keys():
        return {name: old[name] + np.asarray(new[name], np.float64) for name in old}
    return new


def _weight(form: Form, trained: FLModel) -> int:
    """How often this site counts: as many steps as it has taken, but at most the bound (``Encoding``)."""
    if not form.weight:
        return 1
    steps = trained.meta.get(form.weight)
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise UsageError(f"a weighted sum needs {form.weight}, and the trainer does not say it")
    return int(steps)


def _told(total_rounds: Any, fl_ctx: FLContext) -> Told:
    """All that a trainer can read of the server, but for the model and the round's number."""
    return {"total rounds": total_rounds, "job": fl_ctx.get_job_id()}


def _on_the_road(model: FLModel, params: Arrays, meta: Mapping[str, bytes]) -> FLModel:
    """A model for the road: other contents, the same place in the job."""
    return FLModel(params=params, meta=dict(meta), current_round=model.current_round, total_rounds=model.total_rounds)


def _ordinary(plan: RoundPlan, old: Arrays, task: FLModel) -> Shareable:
    """The task as NVFlare's own FedAvg sends it, with nothing in it that is not bound into the plan.

    The trainer gets copies of the arrays in one memory layout, which it may change in place.
    """
    copies = {name: array.copy() for name, array in old.items()}
    return FLModelUtils.to_shareable(FLModel(params=copies, current_round=plan.round, total_rounds=task.total_rounds))


def _carrying(frame: bytes) -> Arrays:
    """An array, because that is what NVFlare can carry at any size."""
    return {_FRAME: np.frombuffer(frame, np.uint8)}


def _reply(frame: bytes) -> Shareable:
    return FLModelUtils.to_shareable(FLModel(params=_carrying(frame)))


def _frame_in(carried: FLModel) -> bytes:
    params = carried.params
    frame = params.get(_FRAME) if isinstance(params, dict) else None
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        raise DecodeError("no frame in this message")
    return frame.tobytes()


def _bytes_in(task: FLModel, what: str) -> bytes:
    value = task.meta.get(what)
    if not isinstance(value, bytes):
        raise DecodeError(f"no {what} in this task")
    return value


def _leave_at_home(job: Any) -> None:
    """Keep NVFlare from packing this library into the job: the sites run the one that they have installed."""
    job.set_app_packages(sorted({*job.job.app_packages, *_PACKAGES}))
