"""The rounds of ``runtimes`` in NVFlare's simulator: what its child process runs, and what NVFlare's sites import.

One job, whose controller makes a plain and a secure round in turn. The plain one is what NVFlare's FedAvg does with a
model: a task for every site, the mean of their answers.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import Any

import numpy as np
from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.np.np_model_persistor import NPModelPersistor
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.job_config.api import FedJob
from nvflare.recipe.sim_env import SimEnv
from nvflare.recipe.spec import Recipe

from benchmarks.studies.runtimes.training import CLIP, DROPOUT, FOLDER, finish, settings, trained
from protocols.adapters.nvflare import SecureExecutor, SecureFedAvg
from protocols.adapters.nvflare.site import SITE_FILE, site_roster
from protocols.parameters import rules_of
from protocols.plan import SESSION_BYTES
from protocols.roster import Identity, Roster
from secagg.files import write_file

INTERVAL = 0.1
"""How often the sites ask for tasks and the server for answers, in seconds; NVFlare's defaults are 2 and 0.5."""


class Training(Executor):  # type: ignore[misc]
    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        model = FLModelUtils.from_shareable(shareable)
        [(name, old)] = model.params.items()
        number = int(fl_ctx.get_identity_name().removeprefix("site-"))
        return FLModelUtils.to_shareable(FLModel(params={name: trained(old, number, seconds_in(model.current_round))}))


class InTurn(SecureFedAvg):
    """A plain round, a secure one, and so on; what each took goes to ``rounds.json``."""

    def run(self) -> None:
        roster, session = site_roster(self.engine.get_workspace().get_site_config_dir()), os.urandom(SESSION_BYTES)
        model = self.load_model()
        name = next(iter(model.params))
        start = np.zeros(settings()["d"], np.float32)
        models, counted = {"plain": start, "secure": start}, list[dict[str, Any]]()
        for number in range(self.num_rounds):
            for kind in models:
                model.current_round, model.params = number, {name: models[kind]}
                started = perf_counter()
                if kind == "plain":
                    results = self.send_model_and_wait(data=model)
                    models[kind] = sum(result.params[name] for result in results) / np.float32(len(results))
                else:
                    if self.secure_round(model, roster, session) is None:
                        raise RuntimeError("a round was given up")
                    models[kind] = model.params[name]
                if number:
                    took = perf_counter() - started
                    counted.append({"kind": kind, "training": seconds_in(number), "seconds": took, "phases": {}})
        finish(models, counted)


def seconds_in(number: int) -> float:
    """Seconds of training in this round. The first, in which everything is loaded, is not counted."""
    asked = settings()
    return float(asked["training"][(number - 1) // asked["rounds"]]) if number else 0.0


def main() -> None:
    """Reads ``settings.json`` in the folder; ``InTurn`` writes ``rounds.json``."""
    asked = settings()
    sites = [f"site-{number}" for number in range(1, asked["clients"] + 1)]
    local = FOLDER / "workspace" / "runtimes" / "local"
    local.mkdir(parents=True)
    identities = [Identity.generate(name) for name in sites]
    for identity in identities:
        identity.save(local / f"{identity.name}.key")
    Roster.of(identities).save(local / "roster.toml")
    text = 'identity = "{site}.key"\nroster = "roster.toml"\n[policy]\nmin_contributors = 2\n'
    text += f'dropout = "{DROPOUT}"\nprotocols = ["{asked["protocol"]}"]\n'
    text += f'adversary = "{rules_of(asked["protocol"]).against}"\n'
    write_file(local / SITE_FILE, text.encode(), private=False)

    job = FedJob("runtimes")
    job.to_server(NPModelPersistor(model=[0.0]), id="persistor")
    averaging = InTurn(
        min_contributors=len(sites) // 2,
        clip=CLIP,
        num_rounds=1 + asked["rounds"] * len(asked["training"]),
        protocol=asked["protocol"],
        dropout=DROPOUT,
        task_check_period=INTERVAL,
    )
    job.to_server(averaging)
    job.to_server({"server": {"task_request_interval": INTERVAL}})
    job.to_clients(SecureExecutor(Training()))
    job.to_clients(Training(), tasks=["train"])
    Recipe(job).execute(SimEnv(clients=sites, workspace_root=str(FOLDER / "workspace")))
