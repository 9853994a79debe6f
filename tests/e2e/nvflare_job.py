"""A job for NVFlare's simulator: ``nvflare_job.py WORKSPACE PROTOCOL``. NVFlare ships this file to the sites.

The sites' folders have to be there (``WORKSPACE/job/local``). Training adds whole numbers, so that sums are exact.
Site 3 fails in the first round, when it is asked for a frame the third time (its upload), and is killed in the second
round, when it is asked for the fourth (its signature). What comes out of each round is left in the server's folder.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import make_reply
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.np.np_model_persistor import NPModelPersistor
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.job_config.api import FedJob
from nvflare.recipe.sim_env import SimEnv
from nvflare.recipe.spec import Recipe

from protocols.adapters.nvflare import SecureExecutor, SecureFedAvg
from protocols.adapters.nvflare.messages import FRAME_TASK

CLIP = 32767.0
ROUNDS = 2


def trained(number: int, round_: int, array: Any) -> Any:
    """What site ``number`` makes of the model's one array."""
    return array + np.arange(6, dtype=np.float32).reshape(2, 3) * number - 5 * round_


class Training(Executor):
    def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        model = FLModelUtils.from_shareable(shareable)
        number = int(fl_ctx.get_identity_name().removeprefix("site-"))
        new = {name: trained(number, model.current_round, array) for name, array in model.params.items()}
        return FLModelUtils.to_shareable(FLModel(params=new))


class Breaking(SecureExecutor):
    frames = 0

    def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        if task_name == FRAME_TASK and fl_ctx.get_identity_name() == "site-3":
            self.frames += 1
            if self.frames == 3:
                return make_reply(ReturnCode.EXECUTION_EXCEPTION)
            if self.frames == 7:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(task_name, shareable, fl_ctx, abort_signal)


class Recording(SecureFedAvg):
    def update(self, model: Any, form: Any, outcome: Any) -> None:
        number = outcome.event.plan.round
        np.savez(Path(self.get_run_dir()) / f"sum-{number}.npz", total=outcome.total, survivors=outcome.survivors)
        super().update(model, form, outcome)


def main(workspace: str, protocol: str) -> None:
    job = FedJob("job")
    job.to_server(NPModelPersistor(model=[[0, 0, 0], [0, 0, 0]]), id="persistor")
    averaging = Recording(
        min_contributors=2,
        clip=CLIP,
        num_rounds=ROUNDS,
        protocol=protocol,
        dropout="0.34",
        train_timeout=15,
        phase_timeout=4,
    )
    job.to_server(averaging)
    job.to_server({"server": {"task_request_interval": 0.1}})
    job.to_clients(Breaking(Training()))
    Recipe(job).execute(SimEnv(num_clients=3, workspace_root=workspace))


if __name__ == "__main__":
    main(*sys.argv[1:])
