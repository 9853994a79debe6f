"""NVFlare's server side: a controller that averages the sites' changes under secure aggregation."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from nvflare.app_common.abstract.fl_model import FLModel, MetaKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.workflows.model_controller import ModelController

from dp.ledger import Ledger
from dp.ledger.heads import SignedHead
from protocols.adapters.form import FORM, Form
from protocols.adapters.nvflare.job import exclude_library
from protocols.adapters.nvflare.messages import (
    FORM_KEY,
    FRAME_TASK,
    PLAN_KEY,
    TRAIN_TASK,
    Arrays,
    arrays_in,
    frame_in,
    frame_params,
    instructions_in,
)
from protocols.adapters.nvflare.site import server_ledger, server_signer, site_roster
from protocols.adapters.privacy import Privacy
from protocols.adapters.users import Silos
from protocols.outcome import RoundOutcome
from protocols.parameters import ALLOWED
from protocols.plan import SESSION_BYTES, RoundPlan
from protocols.roster import Roster
from protocols.rounds.server import ServerRound
from protocols.server import serve
from secagg.encoding import Sum
from secagg.errors import BudgetError, DecodeError, PeerError, PolicyError, ThresholdError, UsageError
from secagg.signed_versions import Signer


class SecureFedAvg(ModelController):  # type: ignore[misc]  # NVFlare has no types
    """FedAvg under secure aggregation: the server side of a job.

    ``metrics`` are those that the trainers report, with their largest values; with ``weight_bound`` above 1 sites are
    weighted by the steps that they have taken (``NUM_STEPS_CURRENT_ROUND``), up to this bound. Both travel under the
    mask. ``corrupt``, ``dropout`` and ``adversary`` are what the plan is made for; each site checks it against a policy
    of its own. With the protocol "auto" each round has that of the ``allowed`` ones that is predicted to be the fastest
    (``RoundPlan.propose``), and the log says why. Allowed is what the policies of all sites allow: without ``allowed``,
    what a policy allows that says nothing else. ``beacon`` is in hexadecimal. Timeouts are in seconds; 0 waits for
    ever. With ``min_responses`` the round goes on as soon as so many sites have trained, without the others.

    With ``silos`` ({"most": users of one site, "total": users of all, "overlap": in how many sites one person can be})
    the unit is the user inside a site, as in ``protocols.adapters.users``: trainers answer for each user, ``clip`` and
    the metrics' largest values bound one user, and means are over the declared total. With ``privacy`` ({"epsilon":
    ..., "delta": ...}, see ``protocols.adapters.privacy``; its ``rounds`` are those of the job) there is noise in the
    sum. It is charged to the ledger that the server's own folder has, and means are over the units in the plan.

    A round for which too few are left changes nothing, and the next one starts. For another rule by which the sum moves
    the model, override ``update``. Where the server's own folder has the deployment's key (``signs``), each round's
    model is signed; where the key is elsewhere, override ``signed``.
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
        allowed: list[str] | None = None,
        bits: int = 16,
        rotate: bool = False,
        metrics: dict[str, float] | None = None,
        weight_bound: int = 1,
        corrupt: str = "0.05",
        dropout: str = "0.1",
        adversary: str = "active",
        beacon: str = "",
        silos: dict[str, int] | None = None,
        privacy: dict[str, float] | None = None,
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
        self.allowed = allowed
        self.beacon, self.silos, self.privacy = beacon, silos, privacy
        self._silos = None if silos is None else Silos(**silos)
        self._privacy = None if privacy is None else Privacy(**{"rounds": num_rounds} | privacy)  # type: ignore[arg-type]
        if weight_bound > 1 and not (silos is None and privacy is None):
            raise UsageError("in silos, and with privacy, every unit counts once: weight_bound is 1")
        self.train_timeout, self.phase_timeout = train_timeout, phase_timeout
        self._signer: Signer | None = None

    def run(self) -> None:
        folder = self.engine.get_workspace().get_site_config_dir()
        self._signer = server_signer(folder)
        with ExitStack() as files:
            ledger = None if self._privacy is None else server_ledger(folder, files)
            self._run_rounds(site_roster(folder), ledger)

    def _run_rounds(self, roster: Roster, ledger: Ledger | None) -> None:
        model, session = self.load_model(), os.urandom(SESSION_BYTES)
        model.total_rounds = self.num_rounds
        for number in range(self.num_rounds):
            model.current_round = number
            self.fl_ctx.set_prop(AppConstants.CURRENT_ROUND, number, private=True, sticky=False)
            self.event(AppEventType.ROUND_STARTED)
            outcome = self.secure_round(model, roster, session, ledger)
            if self.abort_signal.triggered:
                return
            if outcome is not None:
                self.info(f"Round {number}: a sum over {', '.join(outcome.survivors)}; metrics {model.metrics}")
                self.save_model(model)
            self.event(AppEventType.ROUND_DONE)

    def secure_round(
        self, model: FLModel, roster: Roster, session: bytes, ledger: Ledger | None = None
    ) -> RoundOutcome | None:
        """Move the model by the sum of one round, ``model.current_round`` of the session; None if there is no sum.

        With ``privacy`` it is charged to ``ledger``.
        """
        model.params = arrays_in(model)
        form = self._form(model)
        head = None if ledger is None else ledger.signed_head
        plan, targets = self._propose(roster, form, model, session, head)
        try:
            plan = self.signed(plan)
            server = serve(plan, roster, ledger=ledger)
        except (BudgetError, PolicyError) as error:
            self.warning(f"round {plan.round} does not begin: {error}")
            return None
        outcome = self._run_phases(server, form, model, targets)
        if self.abort_signal.triggered:
            return None
        if server.remarks:
            self.warning(f"Round {plan.round}: {server.remarks}")
        if outcome is not None:
            self.update(model, form, outcome)
        return outcome

    def signed(self, plan: RoundPlan) -> RoundPlan:
        """The plan with the deployment's version of its model, for sites whose policies are ``signed_by``; as it is,
        without a key. With ``PolicyError`` the round does not begin."""
        return plan if self._signer is None else plan.signed(self._signer.model)

    def update(self, model: FLModel, form: Form, outcome: RoundOutcome) -> None:
        """Move the model by the mean of the changes; its metrics become the means of theirs."""
        total = outcome.decode()
        if not (count := self._denominator(outcome.event.plan, total)):
            self.warning(f"round {outcome.event.plan.round} changes nothing: no site had anything to contribute")
            return
        model.params, model.metrics = form.applied(model.params, total.vector / count)

    def _denominator(self, plan: RoundPlan, total: Sum) -> int:
        """What the sum is divided by. Of users, and where there is noise, it is nothing that was counted."""
        if self._silos is not None:
            return self._silos.total
        return total.weight if plan.noise is None else plan.clients

    def _form(self, model: FLModel) -> Form:
        return Form.of(
            model.params,
            clip=self.clip,
            bits=self.bits,
            metrics=self.metrics,
            weight_bound=self.weight_bound,
            rotate=self.rotate,
            weight=MetaKey.NUM_STEPS_CURRENT_ROUND,
            users=0 if self._silos is None else self._silos.most,
            overlap=1 if self._silos is None else self._silos.overlap,
            failures=self._privacy is not None,
        )

    def _propose(
        self, roster: Roster, form: Form, model: FLModel, session: bytes, head: SignedHead | None
    ) -> tuple[RoundPlan, list[str]]:
        """The plan for the sites that are connected and in the roster, and their names.

        The whole job is one session, so that no round comes twice.
        """
        targets = [name for name in self.sample_clients(self.num_clients) if name in roster.names]
        encoding, noise = form.encoding, None
        if self._privacy is not None:
            encoding, noise = self._privacy.encoding(
                form, clients=len(targets), min_contributors=self.min_contributors, corrupt=self.corrupt
            )
        plan = RoundPlan.propose(
            self.protocol,
            roster,
            encoding,
            min_contributors=self.min_contributors,
            clients=len(targets),
            corrupt=self.corrupt,
            dropout=self.dropout,
            adversary=self.adversary,
            noise=noise,
            session=session,
            model=form.model_digest(model.params, instructions_in(model.total_rounds, self.fl_ctx)),
            beacon=bytes.fromhex(self.beacon),
            ledger=head,
            allowed=ALLOWED if self.allowed is None else frozenset(self.allowed),
            tell=self.info,
        )
        return replace(plan, round=model.current_round), targets

    def _run_phases(self, server: ServerRound, form: Form, model: FLModel, targets: list[str]) -> RoundOutcome | None:
        """The tasks of one round of the protocol; None if too few sites are left."""

        def take(result: FLModel) -> bool:
            name = result.meta["client_name"]  # set by NVFlare from the authenticated connection
            try:
                server.receive(name, frame_in(result))
            except (DecodeError, PeerError, UsageError) as error:
                self.warning(f"a message from {name} was refused: {error}")
                return False
            return True

        opening = _task(model, model.params, {PLAN_KEY: server.plan.encode(), FORM_KEY: FORM.encode(form)})
        self.send_model(TRAIN_TASK, opening, targets, self.min_responses, self.train_timeout, take)
        while self._wait_for_answers() and server.outcome is None:
            try:
                server.close(server.phase)
            except (BudgetError, PeerError, ThresholdError) as error:
                self.warning(f"round {server.plan.round} has no sum: {error}")
                return None
            for name, frame in server.outbox():
                carried = _task(model, frame_params(frame), {})
                self.send_model(FRAME_TASK, carried, [name], None, self.phase_timeout, take)
        return server.outcome

    def _wait_for_answers(self) -> bool:
        """Wait until all tasks are answered or timed out; False if the job is to end.

        NVFlare hands over results one at a time, and none of a task that is over: the machine is never called twice at
        once.
        """
        while self.get_num_standing_tasks() and not self.abort_signal.triggered:
            time.sleep(self._task_check_period)
        return not self.abort_signal.triggered

    def add_to_fed_job(self, job: Any, ctx: Any, **kwargs: Any) -> None:
        exclude_library(job)
        super().add_to_fed_job(job, ctx, **kwargs)


def _task(model: FLModel, params: Arrays, meta: Mapping[str, bytes]) -> FLModel:
    """The data of a task: these contents, and the numbers of the rounds as in the model."""
    return FLModel(params=params, meta=dict(meta), current_round=model.current_round, total_rounds=model.total_rounds)
