"""NVFlare's own communicator, contexts and serialisation, our controller and executors; only the network is not there.

``tests/e2e/test_nvflare.py`` runs the same in NVFlare's simulator, every site a process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.client import Client as SiteName
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.apis.utils.event import fire_event_to_components
from nvflare.apis.workspace import Workspace
from nvflare.app_common.abstract.fl_model import FLModel, MetaKey
from nvflare.app_common.abstract.learnable_persistor import LearnablePersistor
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from nvflare.app_common.decomposers import common_decomposers
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.fuel.utils import fobs

from protocols.adapters.form import FORM, Form
from protocols.adapters.nvflare.client import SecureExecutor
from protocols.adapters.nvflare.messages import TRAIN_TASK
from protocols.adapters.nvflare.server import SecureFedAvg
from protocols.adapters.nvflare.site import SITE_FILE
from protocols.outcome import RoundOutcome
from protocols.plan import RoundPlan
from protocols.roster import Identity, Roster

flare_decomposers.register()

common_decomposers.register()

CLIP = 32767.0  # the scale is 1: whole numbers are summed exactly
SETTING = {"corrupt": "0.1", "dropout": "0.3"}
BEACON = "0badbeac01"
POLICY = f"""
min_contributors = 2
protocols = ["secagg", "secagg+", "threshold_ckks", "oneshot", "ckks"]
adversary = "curious"
corrupt = "0.1"
dropout = "0.3"
beacon = "{BEACON}"
weight_bound = 50
"""

SITES = ["site-1", "site-2", "site-3", "site-4"]
MODEL = {"w": np.zeros((2, 3), np.float32), "steps": np.array(7, np.int32)}
CHECK_PLAN = "form.check_plan(plan, old, instructions, weighted_by=MetaKey.NUM_STEPS_CURRENT_ROUND)"


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
            site.executor._files.close()

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


def changes(names: list[str]) -> list[np.ndarray]:
    """What each site puts in, computed without NVFlare."""
    form = Form.of(MODEL, clip=CLIP)
    return [form.change(MODEL, moved(SITES.index(name) + 1)) for name in names]


def check_sum(outcome: RoundOutcome, survivors: list[str]) -> None:
    assert list(outcome.survivors) == survivors
    assert outcome.total.tolist() == sum(changes(survivors)).tolist()  # type: ignore[union-attr]


def proposal(federation: Federation, **options: Any) -> tuple[RoundPlan, Form]:
    form = Form.of(MODEL, clip=CLIP, weight=MetaKey.NUM_STEPS_CURRENT_ROUND, **options)
    model, beacon = form.model_digest(MODEL, {"total rounds": None, "job": "job"}), bytes.fromhex(BEACON)
    chosen: dict[str, Any] = {"min_contributors": 2, "model": model, "beacon": beacon} | SETTING
    return RoundPlan.propose("secagg", federation.roster, form.encoding, **chosen), form


def refused(site: Site, reply: Shareable) -> bool:
    """With an error code and nothing else, and before it has trained."""
    if reply.get_return_code() == ReturnCode.OK:
        return False
    assert (reply.get_return_code(), set(reply)) == (ReturnCode.EXECUTION_EXCEPTION, {"__headers__"})
    assert site.trainer.calls == 0
    return True
