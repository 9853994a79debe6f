"""NVFlare's simulator, offline: a server and three sites, each a process, in a network that has only a loopback."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the extra nvflare is not installed")

from protocols.adapters.form import Form
from protocols.adapters.nvflare.site import SITE_FILE
from protocols.parameters import rules_of
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.server import serve
from protocols.simulation.network import Faults, local_clients, simulate
from tests.e2e.nvflare_job import CLIP, trained

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
EXAMPLE = "import os, runpy; os.chdir({folder!r}); runpy.run_path('job.py', run_name='__main__')"
SITES = ["site-1", "site-2", "site-3"]
ALONE = ["unshare", "-rnpf", "--kill-child", "--mount-proc", "sh", "-c", 'ip link set lo up && exec "$@"', "alone"]
"""Runs a command where there is no network but a loopback, and where all that it started ends with it."""


@pytest.fixture(scope="module", autouse=True)
def _loopback_only() -> None:
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], check=False).returncode:
        pytest.skip("NOT TESTED: no network namespace of one's own here")


def deploy(local: Path, policy: str) -> None:
    """What a deployment puts into the sites' folders; the simulator copies this one to the server and to every site."""
    local.mkdir(parents=True)
    identities = [Identity.generate(name) for name in SITES]
    for identity in identities:
        identity.save(local / f"{identity.name}.key")
    Roster.of(identities).save(local / "roster.toml")
    text = 'identity = "{site}.key"\nroster = "roster.toml"\njournal = "{site}.db"\n[policy]\n'
    (local / SITE_FILE).write_text(text + policy)


def run(workspace: Path, *command: str) -> str:
    """Run a script that runs a simulation in ``workspace``.

    Now and then NVFlare's simulator loses a site while it starts ("Connection reset by peer"; the site has no log
    then): that says nothing of us, and the simulation is run once more.
    """
    for _ in range(3):
        done = subprocess.run([*ALONE, sys.executable, *command], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        if all((folder / "log.txt").exists() for folder in workspace.glob("site-*")):
            break
    return done.stdout + done.stderr


def simulated(protocol: str, model: np.ndarray, round_: int, silent: dict[str, str]) -> tuple[list[int], list[str]]:
    """The same round in our own simulation: the sum, and whose it is."""
    arrays = {"numpy_key": model}
    form = Form.of(arrays, clip=CLIP)
    roster, clients = local_clients(
        3, Policy(min_contributors=2, protocols={protocol}, adversary=rules_of(protocol).against, dropout="0.34")
    )
    plan = RoundPlan.propose(protocol, roster, form.encoding, min_contributors=2, dropout="0.34")
    updates = {
        name: form.change(arrays, {"numpy_key": trained(number, round_, model)})
        for number, name in enumerate(clients, 1)
    }
    faults = Faults({f"client-{int(site[-1]) - 1}": phase for site, phase in silent.items()})
    outcome = simulate(serve(plan, roster), clients, updates.get, faults=faults).outcome
    return outcome.total.tolist(), [f"site-{int(name[-1]) + 1}" for name in outcome.survivors]


@pytest.mark.long
@pytest.mark.parametrize(
    ("protocol", "phases"), [("secagg", ("upload", "consistency")), ("threshold_ckks", ("upload", "consistency"))]
)
def test_two_rounds_in_the_simulator(tmp_path: Path, protocol: str, phases: tuple[str, str]) -> None:
    """Site 3 fails before its upload in the first round, and is killed after it in the second."""
    deploy(
        tmp_path / "job" / "local",
        f'min_contributors = 2\nprotocols = ["{protocol}"]\ndropout = "0.34"\n'
        f'adversary = "{rules_of(protocol).against}"\n',
    )
    said = run(tmp_path / "job", str(HERE / "nvflare_job.py"), str(tmp_path), protocol)
    assert "Subprocess died for client site-3" in said or "Communication error with client site-3" in said
    server = tmp_path / "job" / "server" / "simulate_job"
    model = np.zeros((2, 3), np.float32)
    for number, phase in enumerate(phases):
        found = np.load(server / f"sum-{number}.npz")
        total, survivors = simulated(protocol, model, number, {"site-3": phase})
        assert found["total"].tolist() == total
        assert found["survivors"].tolist() == survivors == (SITES[:2] if number == 0 else SITES)
        model = model + (np.array(total).reshape(2, 3) / len(survivors)).astype(np.float32)
    assert np.allclose(np.load(server / "models" / "server.npy"), model, atol=1e-5)


@pytest.mark.long
def test_the_example(tmp_path: Path) -> None:
    """Five sites with an ordinary script: the mean loss, which travels under the mask, falls."""
    for file in (ROOT / "examples" / "nvflare").glob("*.py"):
        shutil.copy(file, tmp_path)
    said = run(tmp_path / "workspace" / "secure", "-c", EXAMPLE.format(folder=str(tmp_path)))
    rounds = re.findall(r"a sum over (.*); metrics {'loss': ([0-9.]+)}", said)
    assert [survivors.split(", ") for survivors, _ in rounds] == [[f"site-{number}" for number in range(1, 6)]] * 3
    losses = [float(loss) for _, loss in rounds]
    assert losses[2] < losses[1] / 4 < losses[0] / 16
    line = np.load(tmp_path / "workspace" / "secure" / "server" / "simulate_job" / "models" / "server.npy")
    assert np.abs(line - [2.0, -1.0, 0.5]).max() < 0.2


@pytest.mark.long
def test_the_example_with_users_in_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five silos of four users: the script answers for each of them, and their mean loss falls."""
    monkeypatch.setenv("SECAGG_EXAMPLE_USERS", "4")
    for file in (ROOT / "examples" / "nvflare").glob("*.py"):
        shutil.copy(file, tmp_path)
    said = run(tmp_path / "workspace" / "secure", "-c", EXAMPLE.format(folder=str(tmp_path)))
    rounds = re.findall(r"a sum over (.*); metrics {'loss': ([0-9.]+)}", said)
    assert [survivors.split(", ") for survivors, _ in rounds] == [[f"site-{number}" for number in range(1, 6)]] * 3
    losses = [float(loss) for _, loss in rounds]
    assert losses[2] < losses[1] / 4 < losses[0] / 16
    line = np.load(tmp_path / "workspace" / "secure" / "server" / "simulate_job" / "models" / "server.npy")
    assert np.abs(line - [2.0, -1.0, 0.5]).max() < 0.2
