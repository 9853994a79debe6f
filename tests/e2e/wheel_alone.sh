#!/bin/sh
# wheel_alone.sh PYTHON WHEEL PINS: the wheel alone, in an environment of its own outside of this tree, is a library that works.
set -eu
unset PYTHONPATH
wheel=$(realpath "$2") pins=$(realpath "$3") folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$1" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q -c "$pins" "$wheel"
cd "$folder"
venv/bin/secagg --version
venv/bin/secagg protocols --json >protocols.json
venv/bin/secagg params --clients 1000 --dropout 0.1 --corrupt 0.1 --adversary active --json >params.json
venv/bin/python - <<'END'
import json, pathlib
import numpy as np
import dp, protocols, recsys, secagg
from protocols.plan import RoundPlan
from protocols.policy import Policy
from protocols.server import serve
from protocols.simulation.network import Faults, local_clients, simulate
from secagg.encoding import Encoding

for package in (secagg, dp, protocols, recsys):
    assert "site-packages" in package.__file__, package.__file__
    assert (pathlib.Path(package.__file__).parent / "py.typed").exists(), package
assert not pathlib.Path(secagg.__file__).parents[1].joinpath("tests").exists()
for name in ("protocols.json", "params.json"):
    assert json.loads(pathlib.Path(name).read_text().splitlines()[-1])
roster, clients = local_clients(7, Policy(min_contributors=3, dropout="0.3"))
plan = RoundPlan.propose("secagg", roster, Encoding.integers(4), min_contributors=3, dropout="0.3")
updates = {name: np.arange(4) * number for number, name in enumerate(clients, 1)}
outcome = simulate(serve(plan, roster), clients, updates.get, faults=Faults({"client-6": "upload"})).outcome
assert outcome.total.tolist() == [0, 21, 42, 63], outcome
print("a sum over", len(outcome.survivors), "of 7 clients")
END
