"""What NVFlare writes into a job, and what stays out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("nvflare", reason="NOT TESTED: the extra nvflare is not installed")

from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor, ExecutionMode
from nvflare.job_config.api import FedJob

from protocols.adapters.nvflare.client import SecureExecutor
from protocols.adapters.nvflare.messages import FRAME_TASK, TRAIN_TASK
from protocols.adapters.nvflare.server import SecureFedAvg


def test_what_a_job_says_is_what_runs_at_the_sites(tmp_path: Path) -> None:
    """NVFlare writes arguments into JSON; the library itself stays at home."""
    job = FedJob("job")
    job.to_server(SecureFedAvg(min_contributors=3, clip=2.0, metrics={"loss": 1.0}, protocol="secagg", beacon="00ff"))
    job.to_clients(SecureExecutor(ClientAPIExecutor(ExecutionMode.IN_PROCESS, task_script_path="client.py")))
    job.export_job(str(tmp_path))
    config = tmp_path / "job" / "app" / "config"
    (workflow,) = json.loads((config / "config_fed_server.json").read_text())["workflows"]
    assert workflow["path"] == "protocols.adapters.nvflare.server.SecureFedAvg"
    said = {"min_contributors": 3, "clip": 2.0, "metrics": {"loss": 1.0}, "protocol": "secagg", "beacon": "00ff"}
    assert workflow["args"] == said
    (executor,) = json.loads((config / "config_fed_client.json").read_text())["executors"]
    assert executor["tasks"] == [TRAIN_TASK, FRAME_TASK]
    assert executor["executor"]["path"] == "protocols.adapters.nvflare.client.SecureExecutor"
    assert executor["executor"]["args"]["executor"]["args"]["task_script_path"] == "client.py"
    assert not (tmp_path / "job" / "app" / "custom").exists()
