"""Each extra alone: an environment with nothing but it, in which its command, example and door work.

    python -m tests.extras              all of them, one after another: gigabytes, and the better part of an hour
    python -m tests.extras dp ckks      these

What is installed comes from wherever pip gets it. What runs afterwards has no network but ``lo``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
ALONE = ["unshare", "-rnpf", "--kill-child", "--mount-proc", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}

ROUND = """
import sys
from contextlib import nullcontext
import numpy as np
from protocols.engines.local import Threads
from protocols.parameters import rules_of
from secagg import Encoding, Faults, Policy, RoundPlan, local_clients, serve, simulate

engine = nullcontext(Threads(2))
if sys.argv[2:]:
    from protocols.engines.ray import OnRay
    engine = OnRay(workers=2)
for protocol in sys.argv[1].split(","):
    against = rules_of(protocol).against
    policy = Policy(min_contributors=3, protocols={protocol}, adversary=against, corrupt=0, dropout="0.3")
    roster, clients = local_clients(5, policy)
    plan = RoundPlan.propose(protocol, roster, Encoding.integers(3), min_contributors=3, corrupt=0, dropout="0.3")
    with engine as workers:
        server = serve(plan, roster, engine=workers)
        outcome = simulate(server, clients, dict.fromkeys(clients, np.arange(3)).get).outcome
    assert outcome.decode().vector.tolist() == [0.0, 5.0, 10.0], protocol
    print("a sum under", protocol)
"""
ENCODED = """
import sys
from secagg import Encoding
from secagg.crypto import curve25519
Encoding(100_000, 1.0).encode([0.5] * 100_000, weight=1, seed=bytes(32), rng=bytes)
assert "secagg.rounding.loops" in sys.modules
assert curve25519._sodium() is not None
print("encoded by compiled loops, signatures verified by libsodium")
"""
PARQUET = """
import pyarrow as pa, pyarrow.parquet as pq
pairs = [(f"u{user}", f"i{(7 * user + 3 * item) % 40}") for user in range(60) for item in range(8)]
pq.write_table(pa.table({"user": [u for u, _ in pairs], "item": [i for _, i in pairs]}), "events.parquet")
"""
TABLE = """
data = { source = "table", path = "events.parquet" }
clients = { kind = "devices" }
model = { name = "private-ease" }
privacy = { mode = "distributed" }
protocol = { adversary = "curious" }
"""
SMALL = [
    "data.users=60",
    "data.item_count=150",
    "clients.count=6",
    "training.rounds=2",
    "privacy.steps=1",
    "network.dropout=0",
]
VECTORS = f"""
import sys
sys.path.append({str(ROOT)!r})
from pathlib import Path
from recsys.data.items import Items
from recsys.text.vectors import item_vectors
from tests.scenes.encoders import encoder
rows = item_vectors(Items.of(["7", "9"], ["Alien (1979)", "Big"]), encoder(Path("encoder"))).rows
assert rows.shape == (2, 8)
print("vectors of texts")
"""
DEVICE = """
import numpy as np
from pathlib import Path
from recsys.data.interactions import Interactions
from recsys.edge import folder
from recsys.edge.forms import form_of
from recsys.models.popularity import ItemPop
model = ItemPop()
model.fit(Interactions.of(users=[0, 1, 1], items=[2, 2, 0]))
files = {"items.json": b'["salt", "tea", "oil"]', "model.onnx": form_of(model).onnx}
contents = {name: folder.content(data) for name, data in files.items()}
folder.write(Path("device"), files, folder.Manifest("ItemPop", 3, "float32", "", contents))
Path("history").write_text("oil")
"""
LITE = f"""{DEVICE}
from recsys.edge.lite import converted
files["model.tflite"] = converted(files["model.onnx"])
contents = {{name: folder.content(data) for name, data in files.items()}}
digest = folder.write(Path("lite"), files, folder.Manifest("ItemPop", 3, "float32", "", contents))
Path("digest").write_text(digest)
"""
STREAM = f"""
import subprocess, sys
from confluent_kafka import Producer
from recsys.stream.kafka import KafkaTopic
cluster = {str(ROOT / "examples" / "stream-kafka" / "cluster.py")!r}
with subprocess.Popen([sys.executable, cluster], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
    servers = process.stdout.readline().strip()
    producer = Producer({{"bootstrap.servers": servers}})
    producer.produce("events", "an event")
    assert producer.flush(30) == 0
    topic = KafkaTopic(servers, "events", {{}})
    while not (read := topic.read(1)):
        pass
    topic.close()
    process.stdin.close()
print("read from a cluster:", read[0].data)
"""
NODES = "num-supernodes=5 client-resources-num-cpus=1"

Words = list[str]


def python(code: str, *words: str) -> Words:
    return ["python", "-c", code, *words]


SMOKES: dict[str, list[Words]] = {
    "base": [
        python(ROUND, "secagg,secagg+"),
        ["secagg", "protocols"],
        ["secagg", "params", "--clients", "1000", "--dropout", "0.1", "--corrupt", "0.1", "--adversary", "active"],
        ["secagg", "keys", "new", "alice", "--out", "alice.key"],
    ],
    "lattice": [python(ROUND, "oneshot,threshold_ckks")],
    "fast": [python(ENCODED)],
    "ckks": [python(ROUND, "ckks")],
    "ray": [python(ROUND, "secagg", "on ray")],
    "dp": [
        [
            "secagg",
            "audit",
            "--clients",
            "4",
            "--dropouts",
            "1",
            "--length",
            "300",
            "--canaries",
            "0",
            "--audit-rounds",
            "4",
        ]
    ],
    "train": [["secagg", "demo", *(word for change in SMALL for word in ("--set", change)), "--out", "run"]],
    "recsys": [
        python(PARQUET),
        python(f"open('table.toml', 'w').write({TABLE!r})"),
        ["secagg", "train", "table.toml", "--out", "run"],
        ["secagg", "report", "run"],
    ],
    "large": [python(VECTORS)],
    "edge": [python(DEVICE), ["secagg", "recommend", "device", "--history", "history"]],
    "litert": [
        python(LITE),
        ["sh", "-c", "secagg recommend lite --history history --manifest $(cat digest)"],
    ],
    "flower": [
        ["python", str(ROOT / "examples" / "flower" / "identities.py"), "5", "keys"],
        ["flwr", "run", str(ROOT / "examples" / "flower"), "--stream", "--federation-config", NODES],
    ],
    "nvflare": [["sh", "-c", f"cp {ROOT}/examples/nvflare/*.py . && python job.py"]],
    "stream": [python(STREAM)],
    "peers": [
        [
            "secagg",
            "bench",
            "peers",
            "--set",
            "parts=rounds,ckks",
            "--set",
            "n=6",
            "--set",
            "d=1000",
            "--set",
            "repeats=1",
        ]
    ],
}
"""extra -> what must work with nothing but it, in this order, in an empty folder."""


def tried(extra: str, folder: Path) -> None:
    """Make the environment, and run what it is for. ``CalledProcessError``: something does not work."""
    started = perf_counter()
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    wanted = str(ROOT) if extra == "base" else f"{ROOT}[{extra}]"
    pip = [folder / "venv" / "bin" / "pip", "install", "--quiet", "-c", ROOT / "requirements" / "pins.txt", wanted]
    subprocess.run(pip, check=True)
    print(f"{extra}: installed after {perf_counter() - started:.0f} s", flush=True)
    (work := folder / "work").mkdir()
    environment = {
        **QUIET,
        "PATH": f"{folder / 'venv' / 'bin'}:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(folder),
        "SECAGG_EXAMPLE": str(work / "keys"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }
    for words in SMOKES[extra]:
        subprocess.run([*ALONE, *words], cwd=work, env=environment, check=True)
    print(f"{extra}: works, after {perf_counter() - started:.0f} s", flush=True)


def main(names: list[str]) -> None:
    for extra in names or SMOKES:
        with TemporaryDirectory() as folder:
            tried(extra, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
