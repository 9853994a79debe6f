"""The server: FedAvg, with ``Secure`` around it. What came out of each round is written to ``result.json``."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from protocols.adapters.flower import Secure, Silos
from protocols.roster import Roster, load_signer
from secagg.files import write_file
from signs.task import CLIP, DIMENSION, FOLDER, USERS, loss

HELD_OUT = 1000
LEAST = 3

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    roster = Roster.load(FOLDER / "roster.toml")
    timeout = float(context.run_config["timeout"])
    wait_for(grid, len(roster), timeout)
    strategy = Secure(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=LEAST, min_available_nodes=LEAST),
        roster,
        run_config=context.run_config,
        protocol=str(context.run_config["protocol"]),
        clip=CLIP,
        weight_bound=1 if USERS else 1000,
        silos=Silos(most=USERS, total=USERS * len(roster)) if USERS else None,
        min_contributors=LEAST,
        dropout="0.4",
        timeout=timeout,
        sign=load_signer(key).model if (key := FOLDER / "deployment.key").exists() else None,
    )
    rounds = list[dict[str, Any]]()

    def evaluated(number: int, arrays: ArrayRecord) -> MetricRecord:
        weights = arrays["weights"].numpy()
        if number and (outcome := strategy.outcome) is not None:
            signed = [name for name, _ in outcome.event.signatures]
            facts = {"round": number, "survivors": outcome.survivors, "signed": signed, "weights": weights.tolist()}
            rounds.append(facts | {"total": outcome.total.tolist()})
        write_file(FOLDER / "result.json", json.dumps(rounds).encode(), private=False)
        return MetricRecord({"loss": loss(weights, HELD_OUT)})

    strategy.start(
        grid,
        ArrayRecord({"weights": Array(np.zeros(DIMENSION))}),
        num_rounds=int(context.run_config["num-server-rounds"]),
        timeout=timeout,
        evaluate_fn=evaluated,
    )


def wait_for(grid: Grid, nodes: int, seconds: float) -> None:
    """A server starts before its nodes have registered."""
    deadline = time.monotonic() + seconds
    while len(list(grid.get_node_ids())) < nodes and time.monotonic() < deadline:
        time.sleep(1)
