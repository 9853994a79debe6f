"""The example of adapters under real Flower, in its simulation: each sum is that of the silos' own trainings."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="NOT TESTED: the Flower adapter needs the extra flower")
pytest.importorskip("transformers", reason="NOT TESTED: adapters need transformers, pip install 'secagg[large]'")

from tests.scenes.namespaces import BIN, ROOT, alone, needed

APP = ROOT / "examples" / "flower-adapters"
SILOS = 4

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("namespace")]


@pytest.fixture(scope="module")
def namespace() -> None:
    needed()


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in places(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(APP))
    yield importlib.import_module("tuning.task")
    for name in [name for name in sys.modules if name.partition(".")[0] == "tuning"]:
        del sys.modules[name]


def places(folder: Path) -> dict[str, str]:
    caches = {f"XDG_{name}_HOME": str(folder / name) for name in ("CACHE", "STATE")}
    return {"SECAGG_EXAMPLE": str(folder / "folder"), **caches}


def simulated(tmp_path: Path) -> list[dict[str, Any]]:
    """What the server wrote about each round."""
    pytest.importorskip("ray", reason="NOT TESTED: Flower's simulation needs ray")
    settings = places(tmp_path) | {
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": f"{APP}:{ROOT}",
    }
    federation = shlex.quote(f"num-supernodes={SILOS} client-resources-num-cpus=1")
    run = f"flwr run {APP} --stream --federation-config {federation}"
    said = alone(f"python {APP / 'prepare.py'} {SILOS} {tmp_path / 'folder'} && {run}", settings, 500)
    assert f"the sum is of {SILOS} clients out of {SILOS}" in said
    rounds: list[dict[str, Any]] = json.loads((tmp_path / "folder" / "result.json").read_text())
    return rounds


def test_four_silos_tune_adapters_and_the_sum_is_exact(tmp_path: Path, task: Any) -> None:
    first, *rounds = simulated(tmp_path)
    assert [one["survivors"] for one in rounds] == [[f"silo-{i}" for i in range(SILOS)]] * 3
    before = {name: np.float32(numbers) for name, numbers in first["arrays"].items()}
    heads = [dict[str, Any]() for _ in range(SILOS)]
    for one in rounds:
        trained = []
        for silo in range(SILOS):
            sent, heads[silo], _users = task.train(before, heads[silo], silo)
            trained.append(sent)
        after = {name: np.float32(numbers) for name, numbers in one["arrays"].items()}
        for name, numbers in after.items():
            mean = np.mean([silo[name] for silo in trained], axis=0)
            np.testing.assert_allclose(numbers, mean, atol=task.CLIP / 2**14)  # 16 bits of a coordinate
        before = after
    assert set(before) == {name for name in task.begun().named() if not name.startswith(task.HEAD)}
    assert len(heads[0]) == 2
    forgotten = task.train(before, {}, 0)[0]  # what a silo would send that forgot its head
    remembered = task.train(before, heads[0], 0)[0]
    assert max(np.abs(forgotten[name] - remembered[name]).max() for name in before) > 10 * task.CLIP / 2**14
    assert rounds[-1]["right"] > first["right"] + 0.2
    adapters = [np.abs(numbers).max() for name, numbers in before.items() if name.startswith("top.")]
    assert len(adapters) == 2
    assert min(adapters) > 0.001
    assert {one.name for one in (tmp_path / "folder" / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
