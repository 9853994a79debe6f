"""NVFlare's own communicator, contexts and serialisation, our controller and executors; only the network is not there.

``tests/e2e/test_nvflare.py`` runs the same in NVFlare's simulator, every site a process.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the extra nvflare is not installed")

from nvflare.apis.client import Client as SiteName
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.fl_exception import UnsafeJobError
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.apis.utils.event import fire_event_to_components
from nvflare.apis.workspace import Workspace
from nvflare.app_common.abstract.fl_model import FLModel, MetaKey, ParamsType
from nvflare.app_common.abstract.learnable_persistor import LearnablePersistor
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from nvflare.app_common.decomposers import common_decomposers
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor, ExecutionMode
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.fuel.utils import fobs
from nvflare.job_config.api import FedJob

from protocols import registry
from protocols.adapters import nvflare as adapter
from protocols.adapters.form import FORM, Form
from protocols.adapters.nvflare import FRAME_TASK, SITE_FILE, TRAIN_TASK, SecureExecutor, SecureFedAvg, site_client
from protocols.outcome import RoundOutcome
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import local_clients, simulate
from secagg.errors import UsageError
from tests.adversarial.attack import switch_off

flare_decomposers.register()
common_decomposers.register()

CLIP = 32767.0  # the scale is 1: whole numbers are summed exactly
SETTING = {"corrupt": "0.1", "dropout": "0.3"}
BEACON = "0badbeac01"
POLICY = f"""
min_contributors = 2
protocols = ["secagg", "secagg+", "threshold_ckks", "oneshot", "ckks"]
corrupt = "0.1"
dropout = "0.3"
beacon = "{BEACON}"
weight_bound = 50
"""
SITES = ["site-1", "site-2", "site-3", "site-4"]
MODEL = {"w": np.zeros((2, 3), np.float32), "steps": np.array(7, np.int32)}


def moved(number: int) -> dict[str, np.ndarray]:
    return {"w": np.arange(6, dtype=np.float32).reshape(2, 3) * number - 2, "steps": np.array(7 - 3 * number, np.int32)}


class Trainer(Executor):
    """A user's executor: answers with ``moved`` arrays, counts its calls."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.calls = number, 0
        self.answer: Callable[[FLModel], FLModel | Shareable] = self.trained

    def trained(self, model: FLModel) -> FLModel:
        new = {name: model.params[name] + array - MODEL[name] for name, array in moved(self.number).items()}
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: np.int64(10 * self.number)}
        return FLModel(params=new, metrics={"loss": 1.0 * self.number}, meta=meta)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        assert task_name == "train"
        self.calls += 1
        answer = self.answer(FLModelUtils.from_shareable(shareable))
        return answer if isinstance(answer, Shareable) else FLModelUtils.to_shareable(answer)


class Persistor(LearnablePersistor):
    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, Any] = {name: array.copy() for name, array in MODEL.items()}
        self.saved = 0

    def load(self, fl_ctx: FLContext) -> Any:
        return make_model_learnable(self.weights, {})

    def save(self, learnable: Any, fl_ctx: FLContext) -> None:
        self.weights, self.saved = learnable[ModelLearnableKey.WEIGHTS], self.saved + 1


class Remembering(SecureFedAvg):
    def update(self, model: FLModel, form: Form, outcome: RoundOutcome) -> None:
        self.outcomes = [*getattr(self, "outcomes", []), outcome]
        super().update(model, form, outcome)
        self.moved = model


class Engine:
    """What NVFlare's engines do for a component: a workspace, contexts, events, the list of sites."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace, self.components = workspace, dict[str, Any]()
        self.contexts = FLContextManager(self, name, "job")
        self.panics = list[str]()

    def new_context(self) -> FLContext:
        return self.contexts.new_context()

    def get_workspace(self) -> Workspace:
        return self.workspace

    def get_component(self, name: str) -> Any:
        return self.components.get(name)

    def get_clients(self) -> list[SiteName]:
        return [SiteName(name, "token") for name in self.components["sites"]]

    def fire_event(self, event: str, fl_ctx: FLContext) -> None:
        if event == EventType.FATAL_SYSTEM_ERROR:
            self.panics.append(fl_ctx.get_prop(FLContextKey.EVENT_DATA))
        fire_event_to_components(event, [], fl_ctx)


def carried(shareable: Shareable) -> Shareable:
    """Over NVFlare's wire format."""
    return fobs.loads(fobs.dumps(shareable))  # type: ignore[no-any-return]


@dataclass
class Site:
    engine: Engine
    executor: SecureExecutor

    def do(self, task: str, data: Shareable) -> Shareable:
        """As NVFlare's client runner does it: what is raised becomes an error code."""
        with self.engine.new_context() as fl_ctx:
            try:
                return carried(self.executor.execute(task, carried(data), fl_ctx, Signal()))
            except Exception:  # noqa: BLE001
                return make_reply(ReturnCode.EXECUTION_EXCEPTION)

    def ask(self, plan: RoundPlan, form: Form, model: dict[str, Any] = MODEL) -> Shareable:
        meta = {"secagg_plan": plan.encode(), "secagg_form": FORM.encode(form)}
        return self.do(TRAIN_TASK, FLModelUtils.to_shareable(FLModel(params=model, meta=meta, current_round=0)))

    @property
    def trainer(self) -> Trainer:
        return self.executor.executor


@dataclass
class Federation:
    """Sites with folders of their own, as a deployment makes them; ``run`` is a job."""

    folder: Path
    policy: str = POLICY
    journal: bool = False
    lost: Callable[[str, int], bool] = lambda site, nth: False
    """(site, how many tasks this site has had before): whether nothing more is heard of it."""
    changed: Callable[[str, int, Shareable], Shareable] = lambda site, nth, reply: reply
    told: Callable[[str, Shareable], Shareable] = lambda site, data: data
    """What a site is told in place of this."""
    replies: list[Shareable] = field(default_factory=list)
    abort: Signal = field(default_factory=Signal)
    started: list[Site] = field(default_factory=list)

    def __post_init__(self) -> None:
        identities = [Identity.generate(name) for name in SITES]
        self.roster = Roster.of(identities)
        self.sites = {}
        for number, identity in enumerate(identities, 1):
            local = self.local(identity.name)
            identity.save(local / f"{identity.name}.key")
            self.roster.save(local / "roster.toml")
            journal = 'journal = "{site}.db"\n' if self.journal else ""
            text = f'identity = "{{site}}.key"\nroster = "roster.toml"\n{journal}[policy]\n{self.policy}'
            (local / SITE_FILE).write_text(text)
            self.sites[identity.name] = self.site(identity.name, Trainer(number))
        self.roster.save(self.local("server") / "roster.toml")
        (self.local("server") / SITE_FILE).write_text('roster = "roster.toml"\n')
        self.server = Engine(Workspace(str(self.folder / "server")), "server")
        self.persistor = Persistor()
        self.server.components = {"persistor": self.persistor, "sites": SITES}

    def local(self, name: str) -> Path:
        for part in ("local", "startup"):
            (self.folder / name / part).mkdir(parents=True, exist_ok=True)
        return self.folder / name / "local"

    def site(self, name: str, trainer: Executor) -> Site:
        """The site's process, started (again)."""
        site = Site(Engine(Workspace(str(self.folder / name), name), name), SecureExecutor(trainer))
        self.started.append(site)
        return site

    def close(self) -> None:
        """The ends of all processes."""
        for site in self.started:
            site.executor._held.close()

    def run(self, controller: Remembering) -> list[RoundOutcome]:
        communicator = WFCommServer(task_check_period=0.005)
        controller.set_communicator(communicator)
        with self.server.new_context() as fl_ctx:
            controller.initialize(fl_ctx)
            communicator.initialize_run(fl_ctx)
            job = threading.Thread(target=controller.control_flow, args=(self.abort, fl_ctx))
            job.start()
            had, silent = dict.fromkeys(SITES, 0), set[str]()
            while job.is_alive():
                for name in SITES:
                    if name not in silent and not self.serve(communicator, name, had):
                        silent.add(name)
                job.join(0.001)
            communicator._all_done = True
            communicator._task_monitor.join()
        assert not self.server.panics, self.server.panics
        return getattr(controller, "outcomes", [])

    def serve(self, communicator: WFCommServer, name: str, had: dict[str, int]) -> bool:
        """One turn of a site: a task, if there is one for it."""
        with self.server.new_context() as fl_ctx:
            task, task_id, data = communicator.process_task_request(SiteName(name, "token"), fl_ctx)
        if task:
            if self.lost(name, had[name]):
                return False
            reply = self.changed(name, had[name], self.sites[name].do(task, self.told(name, data)))
            had[name] += 1
            self.replies.append(reply)
            with self.server.new_context() as fl_ctx:
                communicator.process_submission(SiteName(name, "token"), task, task_id, reply, fl_ctx)
        return True


def averaging(**options: Any) -> Remembering:
    chosen = {"min_contributors": 2, "clip": CLIP, "num_rounds": 1, "protocol": "secagg", "beacon": BEACON}
    chosen |= {"task_check_period": 0.005, "train_timeout": 5, "phase_timeout": 5} | SETTING | options
    return Remembering(**chosen)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def changes(names: list[str]) -> list[np.ndarray]:
    """What each site puts in, computed without NVFlare."""
    form = Form.of(MODEL, clip=CLIP)
    return [form.change(MODEL, moved(SITES.index(name) + 1)) for name in names]


def check_sum(outcome: RoundOutcome, survivors: list[str]) -> None:
    assert list(outcome.survivors) == survivors
    assert outcome.total.tolist() == sum(changes(survivors)).tolist()  # type: ignore[union-attr]


def instead(site: str, nth: int, reply: Shareable) -> Callable[[str, int, Shareable], Shareable]:
    """That one reply in place of the site's own."""
    return lambda name, count, own: reply if (name, count) == (site, nth) else own


FAILED = make_reply(ReturnCode.EXECUTION_EXCEPTION)


# Rounds.


@pytest.mark.parametrize("protocol", registry.names())
def test_the_sum_is_that_of_the_simulation_for_every_protocol(federation: Federation, protocol: str) -> None:
    if protocol == "ckks":
        pytest.importorskip("tenseal", reason="NOT TESTED: the extra ckks is not installed")
    (outcome,) = federation.run(averaging(protocol=protocol))
    check_sum(outcome, SITES)
    assert outcome.event.plan.protocol == protocol
    client = federation.sites["site-1"].executor._client
    assert client is not None
    roster, clients = local_clients(4, client.policy)
    plan = replace(outcome.event.plan, roster=roster.digest)
    same = simulate(serve(plan, roster), clients, dict(zip(clients, changes(SITES), strict=True)).get)
    assert same.outcome.total.tolist() == outcome.total.tolist()


def test_the_model_moves_by_the_mean_in_its_own_types(federation: Federation) -> None:
    outcomes = federation.run(averaging(num_rounds=2))
    assert [outcome.event.plan.round for outcome in outcomes] == [0, 1]
    assert len({outcome.event.plan.session for outcome in outcomes}) == 1
    assert len({outcome.event.plan.model for outcome in outcomes}) == 2
    weights = federation.persistor.weights
    mean = np.mean([moved(number)["w"] for number in (1, 2, 3, 4)], axis=0)
    assert weights["w"].tolist() == (2 * mean).tolist()
    assert (weights["w"].dtype, weights["steps"].dtype, weights["steps"].shape) == (np.float32, np.int32, ())
    assert int(weights["steps"]) == 7 - 8 - 8  # -7.5 a round, to the nearest even
    assert federation.persistor.saved == 2


def test_weights_and_metrics_travel_under_the_mask(tmp_path: Path) -> None:
    federation = Federation(tmp_path, policy=POLICY.replace("weight_bound = 50", "weight_bound = 25"))
    controller = averaging(weight_bound=25, metrics={"loss": 8.0}, clip=64.0)
    (outcome,) = federation.run(controller)
    weights = {1: 10, 2: 20, 3: 25, 4: 25}  # steps, at most the bound
    total = sum(weights.values())
    assert outcome.decode().weight == total
    mean = sum(weight * moved(number)["w"] for number, weight in weights.items()) / total
    assert np.abs(federation.persistor.weights["w"] - mean).max() < 0.01
    loss = sum(weight * number for number, weight in weights.items()) / total
    assert abs(controller.moved.metrics["loss"] - loss) < 0.01


@pytest.mark.parametrize("nth", range(6))
def test_a_site_may_fail_in_any_phase(federation: Federation, nth: int) -> None:
    federation.changed = instead("site-2", nth, FAILED)
    (outcome,) = federation.run(averaging())
    check_sum(outcome, SITES if nth > 3 else ["site-1", "site-3", "site-4"])


@pytest.mark.parametrize("nth", [0, 2])
def test_a_site_may_fall_silent(federation: Federation, nth: int) -> None:
    """Then the phase ends with NVFlare's own timeout."""
    federation.lost = lambda site, count: (site, count) == ("site-2", nth)
    (outcome,) = federation.run(averaging(train_timeout=1, phase_timeout=1))
    check_sum(outcome, ["site-1", "site-3", "site-4"])


def test_a_round_need_not_wait_for_the_last(federation: Federation) -> None:
    federation.lost = lambda site, count: site == "site-2"
    (outcome,) = federation.run(averaging(min_responses=3, train_timeout=0))
    check_sum(outcome, ["site-1", "site-3", "site-4"])


def test_a_round_without_enough_sites_changes_nothing_and_the_next_one_goes_on(federation: Federation) -> None:
    federation.changed = lambda site, count, reply: FAILED if site != "site-2" and count == 0 else reply
    (outcome,) = federation.run(averaging(num_rounds=2))
    assert outcome.event.plan.round == 1
    check_sum(outcome, SITES)
    assert federation.persistor.saved == 1


def test_a_trainer_may_answer_with_a_difference(federation: Federation) -> None:
    difference = {name: array - MODEL[name] for name, array in moved(1).items()}
    federation.sites["site-1"].trainer.answer = lambda model: FLModel(params=difference, params_type=ParamsType.DIFF)
    (outcome,) = federation.run(averaging())
    check_sum(outcome, SITES)


def test_not_all_sites_need_be_asked(federation: Federation) -> None:
    (outcome,) = federation.run(averaging(num_clients=3))
    assert outcome.event.plan.clients == 3
    assert len(federation.replies) == 3 * 6
    check_sum(outcome, list(outcome.survivors))


def test_an_aborted_job_asks_for_nothing_more(federation: Federation) -> None:
    """The end of the job comes with an answer in the second phase."""

    def changed(site: str, count: int, reply: Shareable) -> Shareable:
        if count == 1:
            federation.abort.trigger(True)
        return reply

    federation.changed = changed
    assert federation.run(averaging()) == []
    assert federation.persistor.saved == 0


def test_a_site_that_is_not_in_the_roster_is_not_asked(federation: Federation) -> None:
    federation.server.components["sites"] = [*SITES, "stranger"]
    (outcome,) = federation.run(averaging())
    assert outcome.event.plan.clients == 4


def test_what_a_site_says_as_another_is_refused(federation: Federation) -> None:
    """NVFlare says from whom a result is, and the machine that the frame is another's."""
    said = dict[str, Shareable]()

    def changed(site: str, count: int, reply: Shareable) -> Shareable:
        said.setdefault(site, reply)
        return said["site-1"] if (site, count) == ("site-2", 0) else reply

    federation.changed = changed
    (outcome,) = federation.run(averaging())
    check_sum(outcome, ["site-1", "site-3", "site-4"])


@pytest.mark.parametrize("params", [{"w": np.ones(3)}, {"secagg_frame": np.ones(3)}, {"secagg_frame": b"x"}])
def test_what_is_no_frame_is_refused(federation: Federation, params: dict[str, Any]) -> None:
    federation.changed = instead("site-2", 0, FLModelUtils.to_shareable(FLModel(params=params)))
    (outcome,) = federation.run(averaging())
    check_sum(outcome, ["site-1", "site-3", "site-4"])


def test_who_lied_and_who_was_left_out_is_said(federation: Federation, caplog: pytest.LogCaptureFixture) -> None:
    no_frame = FLModel(params={"secagg_frame": np.zeros(3, np.uint8)})
    federation.changed = instead("site-2", 2, FLModelUtils.to_shareable(no_frame))
    (outcome,) = federation.run(averaging())
    check_sum(outcome, ["site-1", "site-3", "site-4"])
    line = "Round 0: caught lying: site-2; left out before the vectors were sent: site-2"
    assert sum(line in record.getMessage() for record in caplog.records) == 1


# What leaves a site.


def test_nothing_but_frames_leaves_a_site(federation: Federation) -> None:
    """Every reply of a whole job, where the trainers report a metric and a step count: one array of bytes."""
    federation.run(averaging(metrics={"loss": 8.0}, weight_bound=50))
    assert len(federation.replies) == 4 * 6
    for reply in federation.replies:
        model = FLModelUtils.from_shareable(reply)
        assert list(model.params) == ["secagg_frame"]
        assert model.params["secagg_frame"].dtype == np.uint8
        assert (model.metrics, model.meta) == (None, {})


def proposal(federation: Federation, **options: Any) -> tuple[RoundPlan, Form]:
    form = Form.of(MODEL, clip=CLIP, weight=MetaKey.NUM_STEPS_CURRENT_ROUND, **options)
    model, beacon = form.model(MODEL, {"total rounds": None, "job": "job"}), bytes.fromhex(BEACON)
    chosen: dict[str, Any] = {"min_contributors": 2, "model": model, "beacon": beacon} | SETTING
    return RoundPlan.propose("secagg", federation.roster, form.encoding, **chosen), form


@pytest.mark.parametrize("task", ["train", "validate", "submit_model"])
def test_the_trainer_cannot_be_reached_beside_the_wrapper(federation: Federation, task: str) -> None:
    site = federation.sites["site-1"]
    reply = site.do(task, FLModelUtils.to_shareable(FLModel(params=MODEL)))
    assert (reply.get_return_code(), site.trainer.calls) == (ReturnCode.TASK_UNKNOWN, 0)


def test_a_wrapper_that_let_other_tasks_through_would_give_the_update_away(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control to the test above."""
    through = "self.executor.execute(task_name, shareable, fl_ctx, abort_signal)"
    switch_off(monkeypatch, SecureExecutor, "execute", "make_reply(ReturnCode.TASK_UNKNOWN)", through)
    reply = federation.sites["site-1"].do("train", FLModelUtils.to_shareable(FLModel(params=MODEL)))
    assert FLModelUtils.from_shareable(reply).params["w"].tolist() == moved(1)["w"].tolist()


def refused(site: Site, reply: Shareable) -> bool:
    """With an error code and nothing else, and before it has trained."""
    if reply.get_return_code() == ReturnCode.OK:
        return False
    assert (reply.get_return_code(), set(reply)) == (ReturnCode.EXECUTION_EXCEPTION, {"__headers__"})
    assert site.trainer.calls == 0
    return True


def test_a_plan_for_another_form_or_model_is_refused(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    site = federation.sites["site-1"]
    plan, form = proposal(federation)
    wrong = [
        (plan, replace(form, clip=1.0), MODEL),
        (plan, replace(form, arrays=form.arrays[::-1]), MODEL),
        (plan, form, MODEL | {"w": MODEL["w"] + 1}),
        (replace(plan, model=bytes(32)), form, MODEL),
    ]
    assert all(refused(site, site.ask(*one)) for one in wrong)
    check_plan = "form.check_plan(plan, old, _told(task.total_rounds, fl_ctx))"
    switch_off(monkeypatch, SecureExecutor, "_join", check_plan, "None")
    assert not refused(site, site.ask(*wrong[-1]))


def test_a_plan_that_the_policy_refuses_is_not_trained_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = Federation(tmp_path, policy=POLICY.replace("min_contributors = 2", "min_contributors = 4"))
    site = strict.sites["site-1"]
    plan, form = proposal(strict)
    assert refused(site, site.ask(plan, form))
    switch_off(monkeypatch, SecureExecutor, "_join", "client.check(plan)", "None")
    site.ask(plan, form)
    assert site.trainer.calls == 1  # ``Client.start`` refuses it all the same


def test_tasks_without_what_is_needed_are_refused(federation: Federation) -> None:
    site = federation.sites["site-1"]
    plan, form = proposal(federation)
    for meta in ({}, {"secagg_plan": plan.encode()}, {"secagg_plan": "text", "secagg_form": FORM.encode(form)}):
        task = FLModelUtils.to_shareable(FLModel(params=MODEL, meta=meta))
        assert refused(site, site.do(TRAIN_TASK, task))
    assert refused(site, site.do(TRAIN_TASK, Shareable()))
    assert refused(site, site.do(FRAME_TASK, Shareable()))
    frame = FLModel(params={"secagg_frame": np.zeros(9, np.uint8)})
    assert refused(site, site.do(FRAME_TASK, FLModelUtils.to_shareable(frame)))  # nothing is under way


class Panic(BaseException):
    """What Rust code raises into Python when it fails (pyo3): no ``Exception``."""


def raising(error: BaseException) -> Callable[[FLModel], FLModel]:
    def train(model: FLModel) -> FLModel:
        raise error

    return train


def coded(model: FLModel) -> Shareable:
    answer = FLModelUtils.to_shareable(FLModel(params=model.params, metrics={"loss": 12345.0}))
    answer.set_return_code(ReturnCode.EXECUTION_RESULT_ERROR)
    return answer


def counting(steps: Any) -> Callable[[FLModel], FLModel]:
    return lambda model: FLModel(params=model.params, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: steps})


FAILURES: dict[str, Callable[[FLModel], FLModel | Shareable]] = {
    "an exception": raising(ValueError("12345")),
    "an exception that ends jobs": raising(UnsafeJobError("12345")),
    "an exit": raising(SystemExit("12345")),
    "a panic of Rust code, which is no Exception": raising(Panic("12345")),
    "an error code": coded,
    "an array less": lambda model: FLModel(params={"w": model.params["w"]}),
    "NaN": lambda model: FLModel(params={name: array * np.nan for name, array in model.params.items()}),
    "lists": lambda model: FLModel(params={name: array.tolist() for name, array in model.params.items()}),
    "no model": lambda model: FLModel(metrics={"loss": 1.0}),
    "nothing": lambda model: Shareable(),
    "no step count": lambda model: FLModel(params=model.params, metrics={"loss": 1.0}),
    "no steps": counting(0),
    "half a step": counting(0.5),
    "text": counting("12345"),
}


def replies_of(folder: Path, answer: Callable[[FLModel], FLModel | Shareable] | None) -> tuple[RoundOutcome, list[Any]]:
    """A round in which site 2 trains so; what the server gets from it: codes, sizes, what is in it."""
    federation = Federation(folder)
    if answer is not None:
        federation.sites["site-2"].trainer.answer = answer
    said = list[Shareable]()

    def keep(site: str, count: int, reply: Shareable) -> Shareable:
        if site == "site-2":
            said.append(reply)
        return reply

    federation.changed = keep
    (outcome,) = federation.run(averaging(weight_bound=50))
    assert all(b"12345" not in fobs.dumps(reply) for reply in said)
    shown = [(reply.get_return_code(), len(fobs.dumps(reply)), set(reply), len(frame_of(reply))) for reply in said]
    return outcome, shown


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the server gets when nothing fails."""
    return replies_of(tmp_path_factory.mktemp("fine"), None)[1]


@pytest.mark.parametrize("what", FAILURES)
def test_nobody_sees_whose_training_failed(what: str, fine: list[Any], tmp_path: Path) -> None:
    """Its answers are like any other's in every phase; what goes in is zeros, its weight included."""
    outcome, shown = replies_of(tmp_path / "failed", FAILURES[what])
    assert shown == fine
    assert len(shown) == 6
    assert list(outcome.survivors) == SITES
    total = outcome.decode()
    assert total.weight == 10 + 30 + 40
    left = [number * changes([SITES[number - 1]])[0] * 10 for number in (1, 3, 4)]
    assert total.vector.tolist() == sum(left).tolist()  # type: ignore[union-attr]


def test_control_a_failure_would_be_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch, SecureExecutor, "_trained", "BaseException", "ZeroDivisionError")
    federation = Federation(tmp_path)
    site = federation.sites["site-1"]
    site.trainer.answer = FAILURES["NaN"]
    assert site.ask(*proposal(federation)).get_return_code() == ReturnCode.EXECUTION_EXCEPTION


def test_a_round_in_which_nobody_has_anything_changes_nothing(federation: Federation) -> None:
    for site in federation.sites.values():
        site.trainer.answer = FAILURES["NaN"]
    (outcome,) = federation.run(averaging(weight_bound=50))
    assert not outcome.total.any()
    assert federation.persistor.weights["w"].tolist() == MODEL["w"].tolist()


# What a trainer is told.


Read = Callable[[FLModel], float]


def steer(folder: Path, read: Read, told: FLModel, **also: Any) -> tuple[list[RoundOutcome], Federation]:
    """Trainers whose rate is what ``read`` finds; the server tells something else to all sites but the first."""
    federation = Federation(folder)
    for site in federation.sites.values():
        site.trainer.answer = steered(site.trainer, read)

    def other(site: str, data: Shareable) -> Shareable:
        if site != "site-1" and data.get_header("current_round") is not None and "secagg_plan" in str(data):
            changed = FLModelUtils.from_shareable(data)
            changed.current_round, changed.total_rounds = told.current_round, told.total_rounds
            return FLModelUtils.to_shareable(changed)
        return data

    federation.told = other
    return federation.run(averaging(**also)), federation


def steered(trainer: Trainer, read: Read) -> Callable[[FLModel], FLModel]:
    def train(model: FLModel) -> FLModel:
        rate = read(model)
        new = {name: model.params[name] + rate * (array - MODEL[name]) for name, array in moved(trainer.number).items()}
        return FLModel(params=new)

    return train


STEERED: dict[str, tuple[Read, FLModel, list[tuple[Any, str, str, str]]]] = {
    "current round": (
        lambda model: float(model.current_round == 0),
        FLModel(params={}, current_round=7, total_rounds=1),
        [
            (SecureExecutor, "_join", "task.current_round != plan.round", "False"),
            (adapter, "_ordinary", "plan.round", "task.current_round"),
        ],
    ),
    "total rounds": (
        lambda model: float(model.total_rounds == 1),
        FLModel(params={}, current_round=0, total_rounds=7),
        [(SecureExecutor, "_join", "form.check_plan(plan, old, _told(task.total_rounds, fl_ctx))", "None")],
    ),
}


@pytest.mark.parametrize("what", STEERED)
def test_a_sum_cannot_be_made_one_sites_update(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the sum over all four is that of site 1, to the last bit."""
    read, told, checks = STEERED[what]
    outcomes, federation = steer(tmp_path / "checked", read, told)
    assert outcomes == []
    codes = [reply.get_return_code() for reply in federation.replies]
    assert sorted(codes) == [ReturnCode.EXECUTION_EXCEPTION] * 3 + [ReturnCode.OK]
    assert [site.trainer.calls for site in federation.sites.values()] == [1, 0, 0, 0]
    for check in checks:
        switch_off(monkeypatch, *check)
    (outcome,) = steer(tmp_path / "control", read, told)[0]
    assert list(outcome.survivors) == SITES
    assert outcome.total.tolist() == changes(["site-1"])[0].tolist()


def test_the_job_is_bound(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer may read its name."""
    site, (plan, form) = federation.sites["site-1"], proposal(federation)
    site.engine.contexts.job_id = "another"
    assert refused(site, site.ask(plan, form))
    site.engine.contexts.job_id = "job"
    assert site.ask(plan, form).get_return_code() == ReturnCode.OK


def test_a_site_counts_by_its_steps_and_nothing_else(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    site = federation.sites["site-1"]
    plan, form = proposal(federation, weight_bound=50)
    other = replace(form, weight="loss")
    plan = replace(plan, model=other.model(MODEL, {"total rounds": None, "job": "job"}))
    assert refused(site, site.ask(plan, other))
    switch_off(monkeypatch, SecureExecutor, "_join", 'form.weight not in ("", MetaKey.NUM_STEPS_CURRENT_ROUND)')
    assert not refused(site, site.ask(plan, other))  # control


def test_what_is_not_bound_is_not_handed_on(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers, the server's public properties, a start round, arrays in another memory layout, metrics, meta."""
    site, (plan, form) = federation.sites["site-1"], proposal(federation)
    seen = list[tuple[str, Any]]()

    def execute(task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        layouts = {name: array.flags.c_contiguous for name, array in shareable["DXO"]["data"].items()}
        peer = fl_ctx.get_peer_context()
        told = (fl_ctx.get_prop(FLContextKey.TASK_DATA), peer and peer.get_prop("rate"), shareable.get_peer_props())
        seen.append((repr(shareable), (layouts, *told)))
        return make_reply(ReturnCode.OK)

    monkeypatch.setattr(site.trainer, "execute", execute)
    for number in range(3):
        if number == 2:
            switch_off(monkeypatch, SecureExecutor, "_trained", "fl_ctx.get_engine().new_context()", "fl_ctx")
        plan = replace(plan, session=bytes([number] * 16))  # or it is not trained for again
        model = {name: np.asfortranarray(array).reshape(array.shape, order="A") for name, array in MODEL.items()}
        meta = {"secagg_plan": plan.encode(), "secagg_form": FORM.encode(form), "rate": number}
        told = FLModel(
            params=model if number else MODEL, meta=meta, metrics={"x": number}, current_round=0, start_round=number
        )
        task = FLModelUtils.to_shareable(told)
        task.set_header("rate", number)
        task["rate"] = number
        with site.engine.new_context() as fl_ctx:
            peer = FLContext()
            peer.set_prop("rate", number, private=False, sticky=False)
            fl_ctx.set_peer_context(peer)
            task.set_peer_props(peer.get_all_public_props())
            fl_ctx.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
            assert site.executor.execute(TRAIN_TASK, task, fl_ctx, Signal()).get_return_code() == ReturnCode.OK
    assert seen[0] == seen[1]
    assert "rate" not in str(seen[:2])
    assert seen[0][1] == (dict.fromkeys(MODEL, True), None, None, None)
    assert seen[2][1][2] == 2  # control: the context that the server's task came with


def in_place(trainer: Trainer) -> Callable[[FLModel], FLModel]:
    def train(model: FLModel) -> FLModel:
        for name, array in moved(trainer.number).items():
            model.params[name][...] += array - MODEL[name]
        return model

    return train


def test_a_trainer_may_train_in_place(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """In NVFlare's in-process mode a script is given the very arrays that it is sent; its change must not vanish."""
    for site in federation.sites.values():
        site.trainer.answer = in_place(site.trainer)
    (outcome,) = federation.run(averaging())
    check_sum(outcome, SITES)
    switch_off(monkeypatch, adapter, "_ordinary", "array.copy()", "array")
    (outcome,) = federation.run(averaging())
    assert not outcome.total.any()


# How often a site trains.


def finished(federation: Federation, plan: RoundPlan, replies: dict[str, Shareable]) -> RoundOutcome:
    """The round of these first answers, carried to its end."""
    server = serve(plan, federation.roster)
    for name, reply in replies.items():
        server.receive(name, frame_of(reply))
    while server.outcome is None:
        server.close(server.phase)
        for name, frame in server.outbox():
            task = FLModelUtils.to_shareable(FLModel(params=adapter._carrying(frame)))
            server.receive(name, frame_of(federation.sites[name].do(FRAME_TASK, task)))
    return server.outcome


def scheduled(trainer: Trainer) -> Callable[[FLModel], FLModel]:
    """Its rate falls to 0 after two trainings, which the living script counts."""
    return lambda model: trainer.trained(model) if trainer.calls <= 2 else FLModel(params=model.params)


def repeated(folder: Path, *, journal: bool) -> tuple[RoundOutcome, list[int]]:
    """The server asks all sites but the third three times for one plan."""
    with closing(Federation(folder, journal=journal)) as federation:
        plan, form = proposal(federation)
        for site in federation.sites.values():
            site.trainer.answer = scheduled(site.trainer)
        replies = dict[str, Shareable]()
        for name, site in federation.sites.items():
            for _ in range(1 if name == "site-3" else 3):
                replies[name] = site.ask(plan, form)
        return finished(federation, plan, replies), [site.trainer.calls for site in federation.sites.values()]


@pytest.mark.parametrize("journal", [False, True])
def test_a_plan_is_trained_for_once(journal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: the schedules of all others are at their end, and the sum of four is the update of one."""
    outcome, calls = repeated(tmp_path / "checked", journal=journal)
    check_sum(outcome, SITES)
    assert calls == [1, 1, 1, 1]
    switch_off(monkeypatch, SecureExecutor, "_join", "client.check(plan)")
    outcome, calls = repeated(tmp_path / "control", journal=journal)
    assert list(outcome.survivors) == SITES
    assert calls == [3, 3, 1, 3]
    # a site that trains again at the rate 0 puts zeros in: the last training counts
    assert outcome.total.tolist() == changes(["site-3"])[0].tolist()


def at_once(federation: Federation, seconds: float) -> int:
    """How often site 1 trains when the same task comes twice at the same time, as NVFlare's client can hand it over."""
    site, (plan, form) = federation.sites["site-1"], proposal(federation)
    both, frames = threading.Barrier(2), list[bytes]()

    def train(model: FLModel) -> FLModel:
        with suppress(threading.BrokenBarrierError):
            both.wait(seconds)
        return site.trainer.trained(model)

    site.trainer.answer = train
    tasks = [threading.Thread(target=lambda: frames.append(frame_of(site.ask(plan, form)))) for _ in range(2)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert len(frames) == 2
    assert frames[0] == frames[1]
    return site.trainer.calls


def test_two_tasks_at_once_train_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert at_once(Federation(tmp_path / "checked"), 0.2) == 1
    found = SecureExecutor._site
    monkeypatch.setattr(SecureExecutor, "_site", lambda self, fl_ctx: (found(self, fl_ctx)[0], nullcontext()))
    assert at_once(Federation(tmp_path / "control"), 60.0) == 2


def aborted(folder: Path) -> tuple[RoundOutcome, list[str | None]]:
    """The server aborts the trainings of all but site 3, and then asks all for what they have."""
    federation = Federation(folder)
    plan, form = proposal(federation)
    codes = list[str | None]()
    for name, site in federation.sites.items():
        signal = Signal()

        def stopped(model: FLModel, signal: Signal = signal) -> Shareable:
            signal.trigger(True)
            return make_reply(ReturnCode.TASK_ABORTED)

        if name != "site-3":
            site.trainer.answer = stopped
        meta = {"secagg_plan": plan.encode(), "secagg_form": FORM.encode(form)}
        task = FLModelUtils.to_shareable(FLModel(params=MODEL, meta=meta, current_round=0))
        with site.engine.new_context() as fl_ctx:
            codes.append(site.executor.execute(TRAIN_TASK, task, fl_ctx, signal).get_return_code())
        site.trainer.answer = site.trainer.trained
    replies = {name: site.ask(plan, form) for name, site in federation.sites.items()}
    return finished(federation, plan, replies), codes


def test_a_training_that_was_aborted_is_no_contribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: all but one are aborted and count as zeros, and the sum of four is the update of one."""
    outcome, codes = aborted(tmp_path / "checked")
    check_sum(outcome, SITES)
    failed = ReturnCode.EXECUTION_EXCEPTION
    assert codes == [failed, failed, ReturnCode.OK, failed]
    switch_off(monkeypatch, SecureExecutor, "_join", "abort_signal.triggered")
    outcome, codes = aborted(tmp_path / "control")
    assert list(outcome.survivors) == SITES
    assert outcome.total.tolist() == changes(["site-3"])[0].tolist()


def test_what_failed_is_not_in_the_log_that_a_job_may_stream(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    """But for its type; at DEBUG, which a site has to ask for, all of it."""
    caplog.set_level(logging.DEBUG)
    site = federation.sites["site-1"]
    site.trainer.answer = raising(ValueError("12345 was in the data"))
    assert site.ask(*proposal(federation)).get_return_code() == ReturnCode.OK
    assert "counts as nothing: ValueError" in caplog.text
    for record in caplog.records:
        shown = logging.Formatter().format(record)
        assert ("12345" in shown) == (record.levelno == logging.DEBUG and record.name.startswith("protocols"))


# Restarts, and a site's own folder.


def frame_of(reply: Shareable) -> bytes:
    return adapter._frame_in(FLModelUtils.from_shareable(reply))


def test_a_site_that_restarts_on_a_journal_says_the_same_again(tmp_path: Path) -> None:
    """If its vector is out. Before, its update is lost, and it stays out of the round; it is never trained again."""
    with closing(Federation(tmp_path, journal=True)) as federation:
        check_restart(federation)


def check_restart(federation: Federation) -> None:
    plan, form = proposal(federation)
    site = federation.sites["site-1"]
    replies = {name: one.ask(plan, form) for name, one in federation.sites.items()}
    again = federation.site("site-1", Trainer(1))
    assert refused(again, again.ask(plan, form))
    other = again.ask(replace(plan, min_contributors=3), form)
    assert other.get_return_code() == ReturnCode.EXECUTION_EXCEPTION

    said = list[bytes]()
    do = site.do
    site.do = lambda task, data: keep(said, do(task, data))  # type: ignore[method-assign]
    check_sum(finished(federation, plan, replies), SITES)
    assert len(said) == 5
    federation.close()  # the processes end without a word
    again = federation.site("site-1", Trainer(1))
    assert frame_of(again.ask(plan, form)) == said[-1]
    assert again.trainer.calls == 0


def keep(said: list[bytes], reply: Shareable) -> Shareable:
    said.append(frame_of(reply))
    return reply


def test_a_task_that_comes_twice_is_answered_twice_the_same(federation: Federation) -> None:
    """NVFlare sends a task again when the answer was lost."""
    plan, form = proposal(federation)
    replies = {name: site.ask(plan, form) for name, site in federation.sites.items()}
    for name, site in federation.sites.items():
        assert frame_of(site.ask(plan, form)) == frame_of(replies[name])
    do = federation.sites["site-1"].do

    def twice(task: str, data: Shareable) -> Shareable:
        reply = do(task, data)
        if task == TRAIN_TASK:
            return reply
        assert frame_of(do(task, data)) == frame_of(reply)
        assert frame_of(federation.sites["site-1"].ask(plan, form)) == frame_of(reply)  # the last that was said
        return reply

    federation.sites["site-1"].do = twice  # type: ignore[method-assign]
    check_sum(finished(federation, plan, replies), SITES)


def test_a_site_that_restarts_in_the_middle_is_a_dropout(federation: Federation) -> None:
    def changed(site: str, count: int, reply: Shareable) -> Shareable:
        if (site, count) == ("site-2", 1):
            federation.sites[site] = federation.site(site, Trainer(2))
        return reply

    federation.changed = changed
    (outcome,) = federation.run(averaging())
    check_sum(outcome, ["site-1", "site-3", "site-4"])


def test_at_the_end_of_a_run_the_journal_is_closed(tmp_path: Path) -> None:
    """Open, it fails this test (``tests/conftest.py``). What comes late is refused, and gets no new client."""
    federation = Federation(tmp_path, journal=True)
    site, (plan, form) = federation.sites["site-1"], proposal(federation)
    assert frame_of(site.ask(plan, form))
    with site.engine.new_context() as fl_ctx:
        site.executor.handle_event(EventType.END_RUN, fl_ctx)
    assert site.ask(plan, form).get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert site.trainer.calls == 1


def test_at_the_end_of_a_run_the_secrets_are_gone(federation: Federation) -> None:
    site = federation.sites["site-1"]
    plan, form = proposal(federation)
    site.ask(plan, form)
    client = site.executor._client
    assert client is not None
    assert client._journal.records(client._session(plan), 0)
    with site.engine.new_context() as fl_ctx:
        site.executor.handle_event(EventType.END_RUN, fl_ctx)
    assert not client._journal.records(client._session(plan), 0)


def test_a_key_of_another_site_is_refused(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    local = federation.local("site-1")
    (local / "site-1.key").write_text((federation.local("site-2") / "site-2.key").read_text())
    with pytest.raises(UsageError, match="the key is that of site-2"):
        site_client(local, "site-1", ExitStack())
    switch_off(monkeypatch, adapter, "site_client", "identity.name != site")
    assert adapter.site_client(local, "site-1", ExitStack()).identity.name == "site-2"


@pytest.mark.parametrize("site", ["../site-2/site-2", "../site-2", "..", "/site-2", "site-2/../site-1", "site-1\0"])
def test_a_site_that_is_named_like_a_path(
    federation: Federation, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that lies elsewhere is that of another name, whatever leads to it; and no journal is begun there."""
    local, other = federation.local("site-1"), federation.local("site-2")
    (local.parent / "site-2").mkdir(exist_ok=True)
    shutil.copy(other / "site-2.key", local.parent / "site-2" / "site-2.key")
    shutil.copy(other / "site-2.key", local.parent / "site-2.key")
    (local / SITE_FILE).write_text(
        (local / SITE_FILE).read_text().replace("[policy]", "journal = '{site}.db'\n[policy]")
    )
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError), ExitStack() as held:
        site_client(local, site, held)
    assert sorted(tmp_path.rglob("*")) == before
    if site == "../site-2":  # the control: without the comparison it has that key, and a journal elsewhere
        switch_off(monkeypatch, adapter, "site_client", "identity.name != site")
        with ExitStack() as held:
            assert adapter.site_client(local, site, held).identity.name == "site-2"
        assert (local.parent / "site-2.db").exists()


KEY, ROSTER = "identity = '{site}.key'\n", "roster = 'roster.toml'\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{ROSTER}[policy]\nmin_contributors = 2", "where the identity is"),
        (f"{KEY}[policy]\nmin_contributors = 2", "where the roster is"),
        (f"{KEY}{ROSTER}", r"has no \[policy\]"),
        (f"{KEY}{ROSTER}policy = 3", r"has no \[policy\]"),
        (f"{KEY}{ROSTER}[policy]\nleast = 2", "least"),
        (f"{KEY}{ROSTER}[policy]\nmin_contributors = 2\nbeacon = 'xyz'", "hexadec"),
        (f"{KEY}{ROSTER}[policy]\nmin_contributors = 1", "at least 2"),
        (f"{KEY}rooster = 'roster.toml'", "says rooster"),
        ("identity =", "not a TOML file"),
        (f"identity = {'[' * 10_000}", "not a TOML file"),
        (f"identity = {'[' * 100_000}", "longer than"),
    ],
)
def test_a_folder_with_mistakes_is_refused(federation: Federation, text: str, reason: str) -> None:
    local = federation.local("site-1")
    (local / SITE_FILE).write_text(text)
    with pytest.raises(UsageError, match=reason):
        site_client(local, "site-1", ExitStack())


def test_a_folder_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        site_client(tmp_path, "site-1", ExitStack())


# Jobs.


def test_a_model_that_is_not_of_numpy_arrays_ends_the_job(federation: Federation) -> None:
    federation.persistor.weights = {"w": [1.0, 2.0]}
    with pytest.raises(AssertionError, match="dictionary of numpy arrays"):
        federation.run(averaging())


def test_what_a_job_says_is_what_runs_at_the_sites(tmp_path: Path) -> None:
    """NVFlare writes arguments into JSON; the library itself stays at home."""
    job = FedJob("job")
    job.to_server(SecureFedAvg(min_contributors=3, clip=2.0, metrics={"loss": 1.0}, protocol="secagg", beacon="00ff"))
    job.to_clients(SecureExecutor(ClientAPIExecutor(ExecutionMode.IN_PROCESS, task_script_path="client.py")))
    job.export_job(str(tmp_path))
    config = tmp_path / "job" / "app" / "config"
    (workflow,) = json.loads((config / "config_fed_server.json").read_text())["workflows"]
    assert workflow["path"] == "protocols.adapters.nvflare.SecureFedAvg"
    said = {"min_contributors": 3, "clip": 2.0, "metrics": {"loss": 1.0}, "protocol": "secagg", "beacon": "00ff"}
    assert workflow["args"] == said
    (executor,) = json.loads((config / "config_fed_client.json").read_text())["executors"]
    assert executor["tasks"] == [TRAIN_TASK, FRAME_TASK]
    assert executor["executor"]["path"] == "protocols.adapters.nvflare.SecureExecutor"
    assert executor["executor"]["args"]["executor"]["args"]["task_script_path"] == "client.py"
    assert not (tmp_path / "job" / "app" / "custom").exists()


def test_the_wrapped_executor_keeps_its_arrays_for_us(federation: Federation) -> None:
    executor = federation.sites["site-1"].executor
    assert executor.requires_materialized_task_result("train")
    assert not executor.requires_materialized_task_result(TRAIN_TASK)
