"""A job under secure aggregation, in NVFlare's simulator: ``python job.py`` in this folder; it needs no network.

What differs from NVFlare's own FedAvg: ``SecureFedAvg`` at the server, ``SecureExecutor`` around the executor at the
sites, and three files in each site's own folder, which ``deploy`` makes for the simulator.
"""

import os
from pathlib import Path

from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor
from nvflare.app_common.np.np_model_persistor import NPModelPersistor
from nvflare.job_config.api import FedJob
from nvflare.recipe.sim_env import SimEnv
from nvflare.recipe.spec import Recipe

from protocols.adapters.nvflare import SecureExecutor, SecureFedAvg
from protocols.roster import Identity, Roster
from secagg.files import write_file

SITES = [f"site-{number}" for number in range(1, 6)]
WORKSPACE = Path("workspace").absolute()
USERS = int(os.environ.get("SECAGG_EXAMPLE_USERS", "0"))
"""With 0 every site counts once; else it is a silo of so many users, each of whom counts by itself."""


def deploy(local: Path) -> None:
    """A key for each site, the roster, and what the sites insist on; see docs/nvflare.md for how it is done in earnest.

    The simulator copies its one ``local`` folder to all sites, hence all keys in one place.
    """
    local.mkdir(parents=True)
    identities = [Identity.generate(name) for name in SITES]
    for identity in identities:
        identity.save(local / f"{identity.name}.key")
    Roster.of(identities).save(local / "roster.toml")
    text = (
        'identity = "{site}.key"\nroster = "roster.toml"\n'
        '[policy]\nmin_contributors = 4\nprotocols = ["secagg+"]\ndropout = "0.2"\n'
        f"{f'users = {USERS}' if USERS else 'weight_bound = 100'}\n"
    )
    write_file(local / "secagg.toml", text.encode(), private=False)


def main() -> None:
    job = FedJob("secure")
    job.to_server(NPModelPersistor(model=[0.0, 0.0, 0.0]), id="persistor")
    averaging = SecureFedAvg(
        num_rounds=3,
        min_contributors=4,
        dropout="0.2",
        clip=4.0,
        weight_bound=1 if USERS else 100,
        silos={"most": USERS, "total": USERS * len(SITES)} if USERS else None,
        metrics={"loss": 10.0},
        train_timeout=20,
        phase_timeout=10,
    )
    job.to_server(averaging)
    job.to_server({"server": {"task_request_interval": 0.2}})  # a round has six tasks: do not wait 2 s for each
    job.to_clients(SecureExecutor(ClientAPIExecutor("in_process", task_script_path="client.py")))
    job.to_clients("client.py")
    if not (local := WORKSPACE / job.name / "local").exists():
        deploy(local)
    Recipe(job).execute(SimEnv(clients=SITES, workspace_root=str(WORKSPACE)))


if __name__ == "__main__":
    main()
