"""The example app under real Flower: in its simulation on Ray, and on a SuperLink with five SuperNodes.

Both run in a namespace of their own, with no network but ``lo`` (Ray opens ports on all addresses), in which nothing
outlives the test (``flwr run`` leaves a daemon behind). The example's changes are multiples of one step, so the sum
over the survivors is worked out here, to the last bit.
"""

import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")

from tests.scenes.namespaces import BIN, ROOT, alone, needed

APP = ROOT / "examples" / "flower"
NODES = 5

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("namespace")]


@pytest.fixture(scope="module")
def namespace() -> None:
    needed()


def check_exact(folder: Path, survivors: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Each round's sum is that of its survivors' trainings, times their examples; the model moved by the mean."""
    monkeypatch.syspath_prepend(str(APP))
    task = importlib.import_module("signs.task")
    rounds: list[dict[str, Any]] = json.loads((folder / "result.json").read_text())
    assert [one["survivors"] for one in rounds] == [[f"client-{i}" for i in alive] for alive in survivors]
    weights = np.zeros(task.DIMENSION)
    for one, alive in zip(rounds, survivors, strict=True):
        total = np.zeros(task.DIMENSION + 1)
        for i in alive:
            trained, examples = task.train(weights, i)
            total += examples * np.append((trained - weights) / task.STEP, 1)
        assert one["total"] == np.rint(total).tolist()
        np.testing.assert_allclose(one["weights"], weights + total[:-1] * task.STEP / total[-1], rtol=0, atol=1e-12)
        weights = np.array(one["weights"])
    return rounds


@pytest.mark.parametrize("protocol", ["secagg+", "oneshot"])
def test_in_flowers_simulation(protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = shutil.copytree(APP, tmp_path / "app")
    client = app / "signs" / "client_app.py"
    client.write_text(client.read_text().replace('protocols={"secagg+"}', f'protocols={{"{protocol}"}}'))
    folder = simulated(tmp_path, app, NODES, f"--run-config 'protocol=\"{protocol}\"'")
    check_exact(folder, [[0, 1, 2, 3, 4]] * 3, monkeypatch)


def simulated(tmp_path: Path, app: Path, nodes: int, options: str, **environment: str) -> Path:
    """The folder with the results of the app in Flower's simulation; all nodes are in every sum."""
    pytest.importorskip("ray", reason="NOT TESTED: Flower's simulation needs ray")
    folder = tmp_path / "folder"
    settings = environment | {
        "SECAGG_EXAMPLE": str(folder),
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    federation = shlex.quote(f"num-supernodes={nodes} client-resources-num-cpus=1")
    run = f"flwr run {app} --stream --federation-config {federation} {options}"
    said = alone(f"python {APP / 'identities.py'} {nodes} {folder} && {run}", settings, 240)
    assert f"the sum is of {nodes} clients out of {nodes}" in said
    return folder


ENORMOUS = """

_train = train


def train(weights: Vector, partition: int) -> tuple[Vector, int]:
    return (weights + 1e30, 1) if partition == 7 else _train(weights, partition)
"""


def test_silos_with_users_in_flowers_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three silos of four users: each sum is that of the users' own trainings, over their declared number.

    The update of user 7, in the second silo, is enormous: it counts for one clip, and that is all.
    """
    app = shutil.copytree(APP, tmp_path / "app")
    file = app / "signs" / "task.py"
    file.write_text(file.read_text() + ENORMOUS)
    folder = simulated(tmp_path, app, 3, "", SECAGG_EXAMPLE_USERS="4")
    monkeypatch.syspath_prepend(str(APP))
    task = importlib.import_module("signs.task")
    rounds: list[dict[str, Any]] = json.loads((folder / "result.json").read_text())
    assert [one["survivors"] for one in rounds] == [[f"client-{i}" for i in range(3)]] * 3
    weights = np.zeros(task.DIMENSION)
    for one in rounds:
        trained = [task.train(weights, user)[0] - weights for user in range(12) if user != 7]
        enormous = np.array(one["total"]) - np.rint(sum(trained) / task.STEP)
        clip = task.CLIP / task.STEP
        assert np.abs(enormous - clip / np.sqrt(task.DIMENSION)).max() <= 1  # rounded up or down
        np.testing.assert_allclose(one["weights"], weights + np.array(one["total"]) * task.STEP / 12, atol=1e-9)
        weights = np.array(one["weights"])


def test_on_supernodes_of_which_one_is_killed_and_one_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        alone(f"{sys.executable} -m tests.e2e.flower_deployment {tmp_path}", {}, 400)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        said = [f"{path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(tmp_path.glob("*.log"))]
        raise AssertionError("\n".join([str(error), *said])) from error
    rounds = check_exact(tmp_path, [[0, 2, 3, 4]] * 2, monkeypatch)
    assert "client-2" in rounds[1]["signed"]  # after it had been restarted
