"""Engines on real Ray, in a process of its own: the same sums, workers killed, nothing listening but on loopback.

The namespace has a second address besides ``lo``'s, on which Ray could listen, and does not.
"""

import json
import subprocess
import sys
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

pytest.importorskip("ray", reason="NOT TESTED: the engine needs the extra ray")

ROOT = Path(__file__).parents[2]
NETWORK = """
ip link set lo up
ip link add other type dummy && ip addr add 10.99.0.1/24 dev other && ip link set other up
exec "$@"
"""
ALONE = ["unshare", "--net", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", NETWORK]

SCENE = """
import json, os, signal, sys, tempfile
from functools import partial
from pathlib import Path
import numpy as np
from protocols.engines import add_masks_on
from protocols.simulation.workers import simulate_on_workers
from protocols.engines.local import Threads
from protocols.engines.ray import OnRay
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.roster import Identity, Roster
from protocols.simulation.network import Faults
from protocols.server import serve
from secagg.encoding import Encoding
from secagg.errors import PeerError, StorageError, UsageError
from secagg.crypto.prg import Prg

def dies_once(path, value):
    "The first who tries is killed in the middle."
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return value
    os.kill(os.getpid(), signal.SIGKILL)

said = {}
folder = tempfile.mkdtemp()
"""

WORK = """
said["order"] = list(engine.map(lambda item: item * item, range(9)))
seeds = [os.urandom(32) for _ in range(9)]
ours, theirs = np.zeros(200_001, np.uint32), np.zeros(200_001, np.uint32)
add_masks_on(engine, ours, seeds[:5], seeds[5:])
add_masks_on(Threads(1), theirs, seeds[:5], seeds[5:])
said["masks"] = bool((ours == theirs).all())

def refuse(item):
    raise PeerError("no", culprits=["mallory"])
try:
    list(engine.map(refuse, [1]))
except PeerError as error:
    said["error"] = [error.reason, list(error.culprits)]
said["again"] = list(engine.map(partial(dies_once, f"{folder}/task"), [7, 8]))

placed = engine.host(list)
def note(kept, item):
    kept.append(item)
    if item == 2:
        dies_once(f"{folder}/placed", None)
    return list(kept)
waiting = [placed.ask(note, item) for item in range(4)]
said["placed"] = [take() for take in waiting]

def impossible():
    raise UsageError("cannot be made")
try:
    engine.host(impossible).ask(note, 0)()
except UsageError as error:
    said["not made"] = str(error)

def always(kept, item):
    os.kill(os.getpid(), signal.SIGKILL)
try:
    engine.host(list).ask(always, 0)()
except StorageError as error:
    said["given up"] = str(error)

rows = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}").readlines()[1:]]
said["listening"] = sorted({row[1].rpartition(":")[0] for row in rows if row[3] == "0A"})
"""

CROWD = """
N, LENGTH = 40, 300
people = [Identity.generate(f"client-{i:02}", Prg(bytes([i]) * 32)) for i in range(N)]
roster = Roster.of(people)
policy = Policy(min_contributors=20)
encoding = Encoding.integers(LENGTH)
plan = RoundPlan.propose("secagg+", roster, encoding, min_contributors=20, dropout="0.2")
update = lambda name: np.arange(LENGTH) * int(name[-2:])
pids = {}
class Killing(OnRay):
    def host(self, make):
        placed = super().host(make)
        pid = placed.ask(lambda part, _: os.getpid(), None)()
        pids[pid] = placed
        return placed
killing = Killing(2)
server = serve(plan, roster, engine=killing)
def kill(envelope):
    if envelope.phase == "upload" and len(pids) == 2:
        victim = min(pids)
        os.kill(victim, signal.SIGKILL)
        del pids[victim]
    return envelope.frame
faults = Faults(dropouts={"client-07": "upload", "client-21": "reveal"}, corrupted=kill)
ran = simulate_on_workers(server, people, update, policy=policy, engine=killing, faults=faults)
expected = sum(update(name) for name in ran.outcome.survivors)
found = {}
found["exact"] = ran.outcome.total.tolist() == expected.tolist()
found["survivors"] = len(ran.outcome.survivors)
found["killed"] = 2 - len(pids)
found["incidents"] = len(ran.incidents)
said["crowd"] = found
"""

STOPPED = """
try:
    list(engine.map(abs, [1]))
except UsageError as error:
    said["stopped"] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    """What came of it all: Ray is started once."""
    try:
        subprocess.run([*ALONE, "sh", "true"], check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("NOT TESTED: no network namespace can be made here")
    script = SCENE + "with OnRay(2) as engine:\n" + indent(WORK + CROWD, "    ") + STOPPED
    done = subprocess.run(
        [*ALONE, "sh", sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_workers_errors_deaths_and_what_listens(said: dict[str, Any]) -> None:
    assert said["order"] == [i * i for i in range(9)]
    assert said["masks"] is True
    assert said["error"] == ["no", ["mallory"]]
    assert said["again"] == [7, 8]
    assert said["placed"] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert said["not made"] == "cannot be made"
    assert "has been lost 4 times" in said["given up"]
    assert set(said["listening"]) <= {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}
    assert said["listening"]
    assert "Ray does not run" in said["stopped"]


def test_a_crowd_whose_worker_is_killed_in_the_middle_gives_the_exact_sum(said: dict[str, Any]) -> None:
    """At the start of the upload phase one of the two processes with clients is killed. Dropouts are real, too."""
    assert said["crowd"] == {"exact": True, "survivors": 39, "killed": 1, "incidents": 0}
