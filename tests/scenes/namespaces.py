"""Commands in a namespace of their own: no network but ``lo``, and nothing of theirs outlives them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_ALONE = ["unshare", "--net", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]


def needed() -> None:
    """Skip the test where no such namespace can be made."""
    try:
        subprocess.run([*_ALONE, "ip", "link", "set", "lo", "up"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("NOT TESTED: no network namespace can be made here")


def alone(command: str, environment: dict[str, str], seconds: float) -> str:
    """What the command says, run in its own namespace."""
    done = subprocess.run(
        [*_ALONE, "sh", "-c", f"ip link set lo up && {command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        cwd=ROOT,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
