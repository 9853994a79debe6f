"""Secure averaging inside NVFlare (2.9, extra ``nvflare``): a controller for the server, an executor for the sites.

``SecureFedAvg`` is a ``ModelController``. Each round it broadcasts the model with a plan and a form, and then carries
the frames of whatever protocol the plan names, one task for each site and phase, until its server machine has the sum.
A phase ends when all have answered or NVFlare's own task timeout is over; who has not answered, or with an error, has
dropped out. ``SecureExecutor`` wraps the executor that trains (a ``ClientAPIExecutor`` with a script, a
``ModelLearnerExecutor``, one of your own): nothing of what that returns leaves the site but frames.

What is at stake is read from the site's own ``local`` folder and never from the job, which comes through the server:
its key, the roster and the least it accepts (``secagg.toml``, see ``site.site_client``). A site's name in NVFlare is
its name in the roster, so that NVFlare's authenticated transport says who speaks.

The trainer is only reachable through the wrapper: a server that asks for NVFlare's ordinary ``train`` is told
``TASK_UNKNOWN``, and one that asks for anything without a good plan gets an error code, never an update.

What the trainer can read of the server is hashed into the plan (the model, the numbers of rounds, the job) or not
handed on: its task and its context are made at the site. It is called once for a plan; what it keeps from one plan to
the next is its own, and must steer no training (docs/nvflare.md). A plan is refused before the trainer is called or not
at all: when training fails, zeros go into the sum, and no answer looks any different.

``client`` is what a site runs, ``site`` what it has in its own folder, ``server`` the controller, ``messages`` how
plans, frames and models travel in NVFlare's tasks, ``job`` what must not be packed into a job.
"""

from __future__ import annotations

from secagg.extras import needing

with needing("nvflare", "the adapter for NVFlare"):
    from protocols.adapters.nvflare.client import SecureExecutor, each_user
    from protocols.adapters.nvflare.server import SecureFedAvg
    from protocols.adapters.users import Trainings

__all__ = ["SecureExecutor", "SecureFedAvg", "Trainings", "each_user"]
